//! What the end-to-end stories stand on: a database, an identity provider, gatepost, and readers of
//! what they leave behind.

pub(crate) mod http;
pub(crate) mod journal;
pub(crate) mod postgres;
pub(crate) mod provider;
pub(crate) mod proxy;
pub(crate) mod tools;
pub(crate) mod wait;
pub(crate) mod world;
