//! Tokens that must not pass, one row each.
