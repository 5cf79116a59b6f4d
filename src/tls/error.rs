//! What can be wrong with certificates, keys and handshakes, each with the file that it is about.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no PEM certificate", file.display())]
    NoCertificate { file: PathBuf },
    #[error("{} holds a certificate that cannot be parsed", file.display())]
    BadCertificate { file: PathBuf },
    #[error("the private key for {} is not a PEM key (PKCS#8, PKCS#1 or SEC1)", certificate.display())]
    BadKey { certificate: PathBuf },
    #[error("the private key does not match the certificate in {}", certificate.display())]
    KeyMismatch { certificate: PathBuf },
    #[error("the certificate in {} has expired", file.display())]
    Expired { file: PathBuf },
    #[error("the certificate in {} is not valid yet", file.display())]
    NotYetValid { file: PathBuf },
    #[error("the system has no usable certificate authorities; name a CA file")]
    NoSystemRoots,
    #[error("tls settings are not usable")]
    Settings(#[source] rustls::Error),
    #[error("\"{host}\" is neither a host name nor an address")]
    BadHost { host: String },
    #[error("tls is switched off for this connection")]
    Disabled,
    #[error("tls handshake failed")]
    Handshake(#[source] io::Error),
    /// Direct TLS without ALPN could be another protocol's bytes that were sent here by a trick.
    #[error("direct tls without the alpn protocol \"postgresql\"")]
    AlpnMissing,
}
