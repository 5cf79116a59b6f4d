//! The audit journal: records, hash chain, verification, and the one writer thread.
//!
//! `record` says what can be recorded, `line` how it looks as JSON, `chain` how lines hold together
//! (pure), `key` who signs. `journal` is the door for everyone else, `writer` the thread behind it,
//! `segment` its files, `reserve` the disk set aside for work under way. `verify` and `show` read what is there; they need no running gatepost.

pub mod chain;
pub mod journal;
pub mod key;
pub mod record;
pub mod show;
pub mod verify;

mod line;
mod reserve;
mod segment;
mod statements;
mod strangers;
mod writer;

pub use journal::{Durability, Journal, JournalError, JournalMeasures, Pending, Receipt, Settings};
pub use key::{PublicKey, SigningKey};
pub use record::{
    AdminCall, AdminResult, ClientFacts, Event, Facts, IdentityFacts, Normalised, Outcome, PolicyFacts,
    Record, Scope, Statement, Transaction,
};

#[cfg(test)]
mod tests;
