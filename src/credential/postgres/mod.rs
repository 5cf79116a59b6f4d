//! Logins on PostgreSQL.
//!
//! `statements` has what is sent over a login's life, `connection` how the server is reached and what
//! its errors mean, `guard` what stands between the driver and a server that asks for too much.
//! `inspection` compares a login with what was minted, `live` says what a broker lacks, `fence` reads
//! `pg_hba.conf`, `principal` looks at a user that is not minted, `roles` compares declared roles, `doctor` looks at all logins, `witness` asks after the server's lives and its transactions, `wal` looks for gatepost's markers.
//! `catalogue` reads what statements are proven harmless by. `verifier` is pure.

pub(super) mod catalogue;
pub(super) mod connection;
pub(super) mod doctor;
pub(super) mod inspection;
pub(super) mod live;
pub(super) mod principal;
pub(super) mod roles;
pub(super) mod verifier;

mod fence;
mod guard;
mod naming;
mod statements;
mod wal;
mod witness;
