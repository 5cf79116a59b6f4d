//! The built gatepost between real programs: PostgreSQL behind it, a certified identity provider
//! beside it, and the drivers that people use in front. Needs `tests/setup/all.sh`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by panicking; clippy spares only the functions that carry the attribute"
)]

mod harness;

mod auditor;
mod bad_beginnings;
mod bad_tokens;
mod bounds;
mod cancel;
mod completeness;
mod correlation;
mod crash;
mod drivers;
mod ending;
mod escapes;
mod flood;
mod full_disk;
mod hostile;
mod keys;
mod long_lived;
mod managed;
mod many_transactions;
mod many_writers;
mod matrix;
mod metrics;
mod mixture;
mod names;
mod operators;
mod outcomes;
mod protocol;
mod quiet;
mod race;
mod reconcile;
mod reload;
mod rotation;
mod secrets;
mod sinks;
mod sqlserver;
mod tickets;
mod timers;
mod values;
