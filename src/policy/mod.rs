//! Policy: YAML in, decision out. Pure: the caller reads the files and knows the time.
//!
//! `document` is what was written, `compile` makes of it what was meant or says every mistake, and
//! `decide` answers one [`AccessRequest`](crate::domain::AccessRequest) with a [`Decision`].

mod admin;
mod cases;
mod compile;
mod coverage;
mod decide;
mod decision;
mod declaration;
mod document;
mod explain;
mod expression;
mod glob;
mod matcher;
mod outline;
mod reading;
mod resolve;
mod rule;
mod scalar;
mod schema;
mod tree;

#[cfg(test)]
mod tests;

pub use admin::{AdminPermit, AdminRights};
pub use cases::{Case, Expected, ReadClaims, run_cases};
pub use compile::{Loaded, Policy, SourceText, Surroundings, TargetFacts, load};
pub use decision::{CorrelationRule, Decision, Denial, DenialWhy, Grant, Limits};
pub use declaration::{GrantDeclaration, Objects, Privilege, RoleDeclaration};
pub use explain::{Considered, ExplainedRight, ExplainedTerms, Explanation, Verdict};
pub use schema::schema;
