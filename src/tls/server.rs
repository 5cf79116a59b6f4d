//! The server side: what clients see.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::SingleCertAndKey;
use rustls::{DEFAULT_VERSIONS, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::domain::Secret;
use crate::tls::carrier::Carrier;
use crate::tls::stream::Stream;
use crate::tls::{ALPN_POSTGRESQL, ALPN_TDS, IN_PACKETS, TlsError, pem, provider};
use crate::wire::tds::tls_wrap::{TlsPlace, Unwrap};

#[derive(Clone, Debug)]
pub struct ServerSettings {
    pub certificate: PathBuf,
    /// PEM.
    pub private_key: Secret<Vec<u8>>,
}

/// How the client asked for TLS. PostgreSQL's own rules: ALPN is mandatory where nothing but the
/// first byte tells the protocol; elsewhere it may be left out, but a wrong one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    SslRequest,
    Direct,
}

#[derive(Clone, Debug)]
pub struct ServerTls {
    postgres: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    tds_strict: Arc<ServerConfig>,
    tds_in_packets: Arc<ServerConfig>,
    not_after: SystemTime,
    chain: Arc<[CertificateDer<'static>]>,
}

impl ServerTls {
    pub fn load(settings: &ServerSettings, now: SystemTime) -> Result<Self, TlsError> {
        let certified = pem::certified_key(&settings.certificate, &settings.private_key)?;
        let not_after = pem::check_times(&settings.certificate, &certified.cert, now)?;
        let chain = Arc::from(certified.cert.as_slice());
        let certificate: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certified));
        Ok(Self {
            postgres: Arc::new(config(&certificate, DEFAULT_VERSIONS, Some(ALPN_POSTGRESQL))?),
            http: Arc::new(config(&certificate, DEFAULT_VERSIONS, Some(b"http/1.1"))?),
            tds_strict: Arc::new(config(&certificate, DEFAULT_VERSIONS, Some(ALPN_TDS))?),
            tds_in_packets: Arc::new(config(&certificate, IN_PACKETS, None)?),
            not_after,
            chain,
        })
    }

    /// The same certificates? A new key comes with a new certificate.
    pub fn is_same(&self, other: &Self) -> bool {
        self.chain == other.chain
    }

    /// The caller sets the time limit, because it also covers the bytes before TLS.
    pub async fn accept(&self, socket: TcpStream, door: Door) -> Result<Stream, TlsError> {
        let stream = accept(&self.postgres, Carrier::Bare(socket)).await?;
        // rustls itself refuses a client that offers ALPN without our name in it.
        if door == Door::Direct && stream.get_ref().1.alpn_protocol() != Some(ALPN_POSTGRESQL) {
            return Err(TlsError::AlpnMissing);
        }
        Ok(Stream::Server(Box::new(stream)))
    }

    /// A driver of SQL Server, where its version has TLS. The caller sets the time limit.
    pub async fn accept_tds(&self, socket: TcpStream, place: TlsPlace) -> Result<Stream, TlsError> {
        let (config, carrier) = match place {
            TlsPlace::Strict => (&self.tds_strict, Carrier::Bare(socket)),
            TlsPlace::InPrelogin => {
                let carrier = Carrier::in_packets(socket, Unwrap::from_client());
                (&self.tds_in_packets, carrier)
            }
        };
        let mut stream = accept(config, carrier).await?;
        stream.get_mut().0.established();
        Ok(Stream::Server(Box::new(stream)))
    }

    /// When the certificate expires.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// A connection to the API. The caller sets the time limit.
    pub async fn accept_http(&self, socket: TcpStream) -> Result<Stream, TlsError> {
        let stream = accept(&self.http, Carrier::Bare(socket)).await?;
        Ok(Stream::Server(Box::new(stream)))
    }

    /// The same certificate for the API listener.
    pub fn rustls_config_for_http(&self) -> Arc<ServerConfig> {
        self.http.clone()
    }
}

async fn accept(
    config: &Arc<ServerConfig>,
    carrier: Carrier,
) -> Result<tokio_rustls::server::TlsStream<Carrier>, TlsError> {
    let accepted = TlsAcceptor::from(Arc::clone(config)).accept(carrier).await;
    accepted.map_err(TlsError::Handshake)
}

fn config(
    certificate: &Arc<dyn ResolvesServerCert>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: Option<&[u8]>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Settings)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certificate));
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    // Like PostgreSQL: no resumption. It saves little on connections that live for hours, and a
    // cache would be a lock that all threads share.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
