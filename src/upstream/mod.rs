//! Connections to databases: dial, pool, checkout, reset.
//!
//! A connection is lent to one session at a time and only under exactly the key it was opened for.
//! It comes back only with a clean slate; anything else closes it. The cap of a target is one
//! [`Budget`] shared by all threads; sockets never leave the thread that opened them.

pub mod book;
pub mod budget;

pub use budget::Budget;
