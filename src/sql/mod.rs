//! Reading SQL text as far as gatepost must: how many statements, of which kind, whether one would
//! change who the login is, and which correlation ids the text carries. Pure. What cannot be read
//! is `Kind::Unknown`, and callers treat unknown as the worst that it could be.

pub mod correlation;
pub mod escape;
pub mod fingerprint;
pub mod kind;
pub mod lexer;
pub mod literals;
pub mod pg;
pub mod reading;
pub mod standard;
pub mod tsql;

pub use fingerprint::normalise;
pub use kind::Kind;
pub use literals::literals;
pub use reading::{Reading, read};
