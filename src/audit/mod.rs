//! The audit journal: records, hash chain, verification, and the one writer thread.
//!
//! `record` says what can be recorded, `line` how it looks as JSON, `chain` how lines hold together
//! (pure), `key` who signs, `marker` what is written into a server's WAL or a table. `journal` is the door for everyone
//! else, `writer` the thread behind it, `segment` its files, `reserve` the disk set aside for work under way,
//! `retention` what becomes of old segments, `heads` what is kept of the chain in a second place. `verify`,
//! `proof` and `show` read what is there, through `stored`; they need no running gatepost. `reading` reads
//! lines about transactions back, for `doubt` (what a dead process has left open) and `attempts` (what became
//! of a message). `tree` is pure too. `values` holds what
//! statements were given, where a rule wants it on record.

pub mod attempts;
pub mod chain;
pub mod doubt;
pub mod entry;
pub mod export;
pub mod filter;
pub mod follow;
pub mod heads;
pub mod journal;
pub mod key;
pub mod marker;
pub mod proof;
pub mod record;
pub mod report;
pub mod retention;
pub mod rotation;
pub mod show;
mod syncing;
pub mod table;
pub mod values;
pub mod verify;
pub mod wording;

mod group;
mod line;
mod marks;
mod members;
mod reading;
mod reserve;
mod segment;
mod signatures;
mod statements;
mod stored;
mod strangers;
mod succession;
mod tree;
mod walk;
mod writer;

pub use doubt::Doubt;
pub use journal::{Durability, Journal, JournalError, JournalMeasures, Pending, Receipt, Settings};
pub use key::{PublicKey, SigningKey};
pub use marker::{Lsn, Marker, MarkerKey, Marking};
pub use record::{
    AdminCall, AdminResult, ClientFacts, Doubtful, Event, Evidence, Facts, IdentityFacts, Normalised,
    Outcome, PolicyFacts, Reconciled, Record, Scope, Statement, Transaction,
};

#[cfg(test)]
mod lasting_tests;
#[cfg(test)]
mod signing_tests;
#[cfg(test)]
mod specimens;
#[cfg(test)]
mod tamper_tests;
#[cfg(test)]
mod tests;
