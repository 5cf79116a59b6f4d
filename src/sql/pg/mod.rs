//! What a text of PostgreSQL's may do, told from the names in it and from what its database's catalogue says
//! of these names.
//!
//! `catalogue` is a snapshot of all names that are not harmless, in any schema; `plain` judges a text against
//! it. `functions` holds the lists of the server's own functions and of extensions on which that rests. `relations`
//! reads which relations a text names, for the record alone.

pub mod catalogue;
pub mod functions;
pub mod plain;
pub mod relations;

pub use catalogue::{Catalogue, Danger};
pub use plain::{Proven, prove};
pub use relations::relations;

#[cfg(test)]
mod tests;
