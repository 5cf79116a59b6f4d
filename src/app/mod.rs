//! Composition: config in, a running proxy out. The only module that knows all others.

pub mod build;
pub mod clock;
pub mod config;
pub mod log;
pub mod policies;
pub mod run;
pub mod start;

mod frozen;
mod operate;
mod process;
mod reload;
mod revoked;
mod tickets;
mod unresolved;
mod watch;
mod watching;
