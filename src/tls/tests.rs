//! Handshakes in memory and on loopback, and the errors that operators meet.
