//! Connections to databases: dial, pool, checkout, reset.
