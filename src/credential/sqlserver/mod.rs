//! Logins on SQL Server, and on Azure SQL, where they are users of one database.
//!
//! `settings` is what a target says about its server, `connection` how it is reached, `socket` what lies
//! under the driver, `error` what the server's numbers mean. `naming` is pure: how names and texts stand
//! in statements, and what a login's name says. `statements` has what is sent over a login's life,
//! `inspection` compares a login with what was minted, `live` says what a broker lacks, `principal` looks
//! at a user that is not minted, `roles` compares declared roles, `doctor` looks at all logins, `markers` reads
//! what sessions wrote to mark their transactions.
//!
//! SQL Server keeps neither an end nor a comment for a login. The end is ours: a login whose replica is
//! gone is swept, because nobody holds its epoch's lock. Whose it is stands in its name.

pub(super) mod connection;
pub(super) mod doctor;
pub(super) mod error;
pub(super) mod inspection;
pub(super) mod live;
pub(super) mod markers;
pub(super) mod naming;
pub(super) mod principal;
pub(super) mod roles;
pub(super) mod settings;

mod socket;
mod statements;
