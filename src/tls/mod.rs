//! TLS on both sides, the only place that knows rustls.
//!
//! The aws-lc-rs provider is passed to every configuration explicitly: a process-wide default that
//! some other crate installs can change nothing here.

pub mod carrier;
pub mod client;
mod error;
mod pem;
pub mod random;
pub mod records;
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

/// The ALPN name of TDS 8.0 (MS-TDS 2.2.6.5).
pub const ALPN_TDS: &[u8] = b"tds/8.0";

/// Inside of PRELOGIN packets TLS 1.2 is the newest: what either side sends behind a handshake of TLS 1.3 would
/// no longer stand in packets, and drivers wait for it for ever. TDS 8.0 is what has TLS 1.3.
const IN_PACKETS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
