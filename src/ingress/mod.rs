//! The doors: acceptor, data-path threads, connection limits, drain.
//!
//! The acceptor runs on the control runtime and admits sockets within [`limits`]; each goes to one
//! of N data-path threads and stays there. What happens to it there is a [`World`]'s business, which
//! is built on its thread and never leaves it.

pub mod acceptor;
pub mod drain;
pub mod limits;
pub mod threads;

pub use acceptor::{Acceptor, ListenerId};
pub use drain::{Drain, DrainSignal};
pub use limits::{Admission, Limits, TurnedAway};
pub use threads::{Arrival, Client, Dispatcher, ThreadIndex, Threads, World};
