//! Policy: YAML in, decision out. Pure.
