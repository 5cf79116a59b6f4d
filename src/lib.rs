//! gatepost: an identity-aware, wire-level database access proxy.
//!
//! The modules are declared floor by floor; a module imports only from strictly lower floors
//! (`ARCHITECTURE.md` tells the story, `tests/architecture.rs` keeps it true).

// Floor 0: words and bytes. Pure.
pub mod domain;
pub mod sql;
pub mod wire;

// Floor 1: judgement, memory, and encryption.
pub mod audit;
pub mod policy;
pub mod tls;

// Floor 2: the outside world, one module per neighbour.
pub mod credential;
pub mod identity;

// Floor 3: connections to databases.
pub mod upstream;

// Floor 4: the story of one client connection.
pub mod session;

// Floor 5: doors.
pub mod admin;
pub mod ingress;

// Floor 6: composition.
pub mod app;

// Floor 7: the command line.
pub mod cli;
