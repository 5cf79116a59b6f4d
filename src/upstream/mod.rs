//! Connections to databases: dial, pool, checkout, reset.
//!
//! A connection is lent to one session at a time and only under exactly the key it was opened for.
//! It comes back only with a [`CleanSlate`]; anything else closes it. The cap of a target is one
//! [`Budget`] shared by all threads; sockets never leave the thread that opened them.

pub mod ask;
pub mod book;
pub mod budget;
pub mod cancel;
pub mod checkout;
pub mod dial;
pub mod measure;
pub mod pool;
pub mod reset;
pub mod route;
pub mod share;
pub mod sqlserver;

pub use budget::Budget;
pub use cancel::Canceller;
pub use checkout::Checkout;
pub use dial::{DialError, TargetAddress};
pub use measure::{Closing, PoolMeasures};
pub use pool::{CheckoutError, Pool, PoolKey, PoolStats, Settings};
pub use reset::{CleanSlate, ResetError};
pub use route::Route;
pub use share::{Holder, Share};
