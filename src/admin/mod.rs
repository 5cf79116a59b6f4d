//! HTTP for operators: health, readiness and metrics. Shows no secrets and changes nothing.

pub mod page;
pub mod server;

pub use page::Page;
pub use server::{Unready, Watch, serve};
