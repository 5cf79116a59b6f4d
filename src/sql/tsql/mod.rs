//! Reading Transact-SQL, for the audit and to follow transactions and session state on SQL Server.
//!
//! Everything on which safety rests is read word by word by a lexer of our own and errs to one side:
//! what cannot be read for sure is a write, may end the transaction, and pins the connection. Relations
//! for the record are read by `sqlparser` where it can.

mod call;
pub mod correlation;
mod escape;
pub mod fingerprint;
pub mod lexer;
pub mod literals;
pub mod name;
pub mod pins;
mod plain;
pub mod procedures;
pub mod reading;
pub mod relations;
pub mod settings;
pub mod statements;
pub mod transaction;

pub use fingerprint::{normalise, normalise_call};
pub use literals::literals;
pub use name::Name;
pub use pins::{Pin, Pins};
pub use procedures::{Meaning, known};
pub use reading::{Implicit, Reading, read, read_inner};
pub use relations::{Relations, relations};
pub use settings::{PlanOnly, Setting, Tracked};
pub use statements::Statement;
pub use transaction::{Effect, Step, is_guarded_commit};

#[cfg(test)]
mod tests;
