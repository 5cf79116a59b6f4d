//! Policy: YAML in, decision out. Pure: the caller reads the files and knows the time.
//!
//! `document` is what was written, `compile` makes of it what was meant or says every mistake, and
//! `decide` answers one [`AccessRequest`](crate::domain::AccessRequest) with a [`Decision`].

mod cases;
mod compile;
mod decide;
mod decision;
mod declaration;
mod explain;
mod schema;

pub use cases::{Case, Expected, run_cases};
pub use compile::{Loaded, Policy, SourceText, Surroundings, TargetFacts, load};
pub use decision::{Decision, Denial, DenialWhy, Grant, Limits};
pub use declaration::{GrantDeclaration, Objects, Privilege, RoleDeclaration};
pub use explain::{Considered, Explanation, Verdict};
pub use schema::schema;
