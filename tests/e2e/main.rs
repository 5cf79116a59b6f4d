//! Stories with everything real: ordinary drivers, the certified `oidc-provider`, gatepost's own
//! binary, PostgreSQL. What they need beside Rust is installed by `tests/run.sh`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy spares only the functions that carry the attribute"
)]

mod drivers;
mod oracle;
mod psql;
#[path = "../support/mod.rs"]
mod support;
