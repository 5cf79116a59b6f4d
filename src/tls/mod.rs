//! TLS on both sides, the only place that knows rustls.
//!
//! The aws-lc-rs provider is passed to every configuration explicitly: a process-wide default that
//! some other crate installs can change nothing here.

pub mod client;
mod error;
mod pem;
pub mod random;
pub mod server;
pub mod stream;
mod verifier;

#[cfg(test)]
#[cfg(feature = "dev")] // rcgen comes with it
mod tests;

pub use client::{ClientSettings, ClientTls, HttpsTrust, Mode, ProvenServer, connect_https};
pub use error::TlsError;
pub use random::SystemRandom;
pub use server::{Door, ServerSettings, ServerTls};
pub use stream::Stream;

/// The ALPN name that IANA registered for PostgreSQL's protocol.
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
