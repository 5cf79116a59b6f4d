//! The story of one client connection, from token to relay.
