//! One type for a socket with and without TLS, so that the relay is written once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use x509_cert::der::Decode as _;

use crate::tls::carrier::Carrier;
use crate::tls::records::Records;

#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Server(Box<tokio_rustls::server::TlsStream<Carrier>>),
    Client(Box<tokio_rustls::client::TlsStream<Carrier>>),
    /// Towards SQL Server.
    Records(Box<Records>),
}

impl Stream {
    pub const fn encrypted(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Server(_) | Self::Client(_) | Self::Records(_) => true,
        }
    }

    pub fn get_ref(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Server(stream) => stream.get_ref().0.socket(),
            Self::Client(stream) => stream.get_ref().0.socket(),
            Self::Records(records) => records.stream.get_ref().0.socket(),
        }
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Server(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Client(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Records(records) => records.stream.get_ref().1.alpn_protocol(),
        }
    }

    /// `tls-server-end-point` (RFC 5929): the hash of the certificate that the server showed.
    /// `None` on the server side, and where the certificate's algorithm leaves it undefined.
    pub fn server_end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) | Self::Server(_) | Self::Records(_) => None,
            Self::Client(stream) => end_point(stream.get_ref().1.peer_certificates()?.first()?),
        }
    }
}

pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.oid.to_string().as_str() {
        // RSA with MD5 and SHA-1, ECDSA with SHA-1: the RFC replaces both hashes by SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => &digest::SHA256,
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => &digest::SHA224,
        // RSA-PSS names its hash in its parameters; Ed25519 has none that the RFC could mean.
        "1.2.840.113549.1.1.10" => pss_hash(&parsed.signature_algorithm)?,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The hash of RSASSA-PSS-params: `SEQUENCE { [0] { SEQUENCE { OID, … } }, … }`, SHA-1 if absent.
fn pss_hash(algorithm: &x509_cert::spki::AlgorithmIdentifierOwned) -> Option<&'static digest::Algorithm> {
    const SHA2_ARC: [u8; 10] = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let parameters = algorithm.parameters.as_ref()?.value();
    let Some((0xa0, explicit)) = parameters.split_first() else {
        return Some(&digest::SHA256);
    };
    // [0] length, SEQUENCE tag and length, then the OID; all lengths here are below 128.
    let last = explicit.get(3..)?.strip_prefix(&SHA2_ARC)?.first()?;
    match last {
        1 => Some(&digest::SHA256),
        2 => Some(&digest::SHA384),
        3 => Some(&digest::SHA512),
        _ => None,
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Self::Records(records) => Pin::new(records.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Self::Records(records) => Pin::new(records.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
            Self::Records(records) => Pin::new(records.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Server(stream) => stream.is_write_vectored(),
            Self::Client(stream) => stream.is_write_vectored(),
            Self::Records(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Records(records) => Pin::new(records.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Server(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Client(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Records(records) => Pin::new(records.as_mut()).poll_shutdown(cx),
        }
    }
}
