//! A small STOMP 1.2 client (stomp.github.io/stomp-specification-1.2.html), as far as a consumer needs one.

mod connection;
mod dial;
mod frame;

pub(crate) use connection::{Connection, Lost};
pub(crate) use dial::Broker;
pub(crate) use frame::Frame;
