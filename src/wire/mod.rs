//! What databases talk about: bytes in, messages out. Pure; no sockets, no clock, no logging.
pub mod pg;
