//! gatepost: an identity-aware, wire-level database access proxy.
//!
//! The modules are declared floor by floor; a module imports only from strictly lower floors
//! (`ARCHITECTURE.md` tells the story, `tests/architecture.rs` keeps it true).

// Floor 0: the words.
pub mod domain;

// Floor 1: bytes and statements, spoken of in these words.
pub mod sql;
pub mod wire;

// Floor 2: judgement, memory, and encryption.
pub mod audit;
pub mod policy;
pub mod tls;

// Floor 3: the outside world, one module per neighbour.
pub mod credential;
pub mod identity;

// Floor 4: connections to databases.
pub mod upstream;

// Floor 5: the story of one client connection.
pub mod session;
pub mod sink;

// Floor 6: doors.
pub mod admin;
pub mod ingress;

// Floor 7: composition.
pub mod app;

// Floor 8: the command line.
pub mod cli;
