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

pub use client::{ClientSettings, ClientTls, HttpsTrust, Mode, connect_https};
pub use error::TlsError;
pub use random::SystemRandom;
pub use server::{Door, ServerSettings, ServerTls};
pub use stream::Stream;

/// The ALPN name that IANA registered for PostgreSQL's protocol.
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

/// The ALPN name of TDS 8.0 (MS-TDS 2.2.6.5).
pub const ALPN_TDS: &[u8] = b"tds/8.0";

fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
