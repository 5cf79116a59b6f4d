//! HTTP for operators. One listener without login tells health, readiness and metrics and changes
//! nothing; the API, behind a token or the machine's own users, looks into the process and acts on it.

mod api;
mod ask;
mod bearer;
pub mod client;
pub mod door;
pub mod page;
mod problem;
pub mod proxy;
pub mod routes;
pub mod server;
pub mod ticket;
pub mod view;

pub use door::{ApiDoor, SocketDoor, SocketError};
pub use page::Page;
pub use proxy::{Proxy, Trouble, Waiting};
pub use server::{Unready, Watch, serve};

#[cfg(test)]
#[cfg(feature = "dev")] // rcgen comes with it
mod tests;
