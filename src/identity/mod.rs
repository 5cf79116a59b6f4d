//! Tokens: provider discovery and keys, signature and claims, one `Identity` out.
