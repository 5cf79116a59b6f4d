//! Database logins that gatepost mints, renews, disables and drops.
