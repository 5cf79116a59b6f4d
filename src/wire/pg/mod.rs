//! The PostgreSQL frontend/backend protocol, version 3.
//!
//! Source for every constant and layout: the PostgreSQL documentation, chapter "Frontend/Backend
//! Protocol", sections "Message Flow" and "Message Formats", unless a constant names another.

pub mod bound;
pub(in crate::wire) mod calendar;
pub mod error_response;
pub mod frame;
pub mod from_client;
pub mod from_server;
pub mod handshake;
pub mod login;
pub mod startup;
pub mod value;

#[cfg(test)]
mod tests;
pub mod turn;
