//! The client side: towards databases (four modes, as libpq names them) and identity providers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, TrustAnchor};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::domain::{Engine, Secret};
use crate::tls::carrier::Carrier;
use crate::tls::records::Records;
use crate::tls::stream::Stream;
use crate::tls::verifier::AnyName;
use crate::tls::{ALPN_POSTGRESQL, ALPN_TDS, IN_PACKETS, TlsError, pem, provider};
use crate::wire::tds::tls_wrap::{TlsPlace, Unwrap};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Disable,
    /// Encrypted, but anybody may answer.
    Require,
    /// Signed by the CA, whatever its name.
    VerifyCa,
    VerifyFull,
    /// As `VerifyFull`; TLS stands before everything else (TDS 8.0).
    Strict,
}

#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Whose protocol is spoken inside.
    pub engine: Engine,
    pub mode: Mode,
    /// `None`: the machine's own authorities.
    pub ca: Option<PathBuf>,
    /// Certificate file and PEM key.
    pub client: Option<(PathBuf, Secret<Vec<u8>>)>,
}

/// Proof that nobody but the server that was named can be at the other end: its certificate is checked by
/// chain and name. What a secret needs that is sent as it is.
#[derive(Clone, Copy, Debug)]
pub struct ProvenServer(());

#[derive(Clone, Debug)]
pub struct ClientTls {
    mode: Mode,
    config: Option<Arc<ClientConfig>>,
    /// Of our own certificate, where there is one.
    not_after: Option<SystemTime>,
    /// What is public of the files that it was made of.
    public: Arc<[u8]>,
}

impl ClientTls {
    pub fn load(settings: &ClientSettings) -> Result<Self, TlsError> {
        let verifier: Arc<dyn ServerCertVerifier> = match settings.mode {
            Mode::Disable => {
                return Ok(Self {
                    mode: settings.mode,
                    config: None,
                    not_after: None,
                    public: Arc::default(),
                });
            }
            Mode::Require => Arc::new(AnyName {
                roots: None,
                provider: provider(),
            }),
            Mode::VerifyCa => Arc::new(AnyName {
                roots: Some(authorities(settings.ca.as_deref())?),
                provider: provider(),
            }),
            Mode::VerifyFull | Mode::Strict => full(authorities(settings.ca.as_deref())?)?,
        };
        let mut config = config(versions(settings), verifier, settings.client.as_ref())?;
        let file = settings.client.as_ref().map(|(file, _)| file);
        let times = file.map(|file| pem::times(file, &pem::certificates(file)?));
        let not_after = times.transpose()?.map(|(_, not_after)| not_after);
        config.alpn_protocols = match (settings.engine, settings.mode) {
            // libpq offers it too; servers before 17 ignore it.
            (Engine::Postgres, _) => vec![ALPN_POSTGRESQL.to_vec()],
            (Engine::SqlServer, Mode::Strict) => vec![ALPN_TDS.to_vec()],
            (Engine::SqlServer, _) => vec![],
        };
        Ok(Self {
            mode: settings.mode,
            config: Some(Arc::new(config)),
            not_after,
            public: public(settings)?,
        })
    }

    /// Made of the same authorities and the same certificate? A new key comes with a new certificate.
    pub fn is_same(&self, other: &Self) -> bool {
        self.mode == other.mode && self.public == other.public
    }

    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// `None` in every mode but `verify-full` and `strict`.
    pub fn proven_server(&self) -> Option<ProvenServer> {
        matches!(self.mode, Mode::VerifyFull | Mode::Strict).then_some(ProvenServer(()))
    }

    /// The handshake alone: the caller has sent SSLRequest and read its answer, and sets the time
    /// limit. `Mode::Disable` is an error, never a silent plain connection.
    pub async fn connect(&self, socket: TcpStream, host: &str) -> Result<Stream, TlsError> {
        let stream = self.handshake(Carrier::Bare(socket), host).await?;
        Ok(Stream::Client(Box::new(stream)))
    }

    /// The handshake with SQL Server, where its protocol has it.
    pub async fn connect_tds(
        &self,
        socket: TcpStream,
        host: &str,
        place: TlsPlace,
    ) -> Result<Stream, TlsError> {
        let carrier = match place {
            TlsPlace::Strict => Carrier::Bare(socket),
            TlsPlace::InPrelogin => Carrier::in_packets(socket, Unwrap::from_server()),
        };
        let mut stream = self.handshake(carrier, host).await?;
        stream.get_mut().0.established();
        Ok(Stream::Records(Box::new(Records::new(stream))))
    }

    async fn handshake(
        &self,
        carrier: Carrier,
        host: &str,
    ) -> Result<tokio_rustls::client::TlsStream<Carrier>, TlsError> {
        let config = self.config.clone().ok_or(TlsError::Disabled)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost {
            host: host.to_owned(),
        })?;
        let stream = TlsConnector::from(config).connect(name, carrier).await;
        stream.map_err(TlsError::Handshake)
    }

    /// When our own certificate expires; `None` without one.
    pub const fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// `None` when the mode is `disable`.
    pub fn rustls_config(&self) -> Option<Arc<ClientConfig>> {
        self.config.clone()
    }
}

fn public(settings: &ClientSettings) -> Result<Arc<[u8]>, TlsError> {
    let certificate = settings.client.as_ref().map(|(file, _)| file.as_path());
    let mut bytes = Vec::new();
    for file in [settings.ca.as_deref(), certificate].into_iter().flatten() {
        for certificate in pem::certificates(file)? {
            bytes.extend_from_slice(&certificate);
        }
        // Moving a certificate from one file to the other is a change.
        bytes.push(0);
    }
    Ok(Arc::from(bytes))
}

/// HTTPS towards an identity provider: chain and name are always checked. Two are equal when they
/// trust the same authorities.
#[derive(Clone, Debug)]
pub struct HttpsTrust {
    config: Arc<ClientConfig>,
    roots: Arc<[TrustAnchor<'static>]>,
}

impl HttpsTrust {
    /// The authorities of a PEM file, or the system's.
    pub fn load(ca: Option<&Path>) -> Result<Self, TlsError> {
        let roots = authorities(ca)?;
        let anchors = roots.roots.as_slice().into();
        let mut config = config(rustls::DEFAULT_VERSIONS, full(roots)?, None)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            roots: anchors,
        })
    }

    /// For tests that make their own authority, or have none.
    #[cfg(test)]
    pub(crate) fn trusting(roots: RootCertStore) -> Self {
        let anchors = roots.roots.as_slice().into();
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Self {
            config: Arc::new(builder.with_root_certificates(roots).with_no_client_auth()),
            roots: anchors,
        }
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

impl PartialEq for HttpsTrust {
    fn eq(&self, other: &Self) -> bool {
        self.roots == other.roots
    }
}

/// A connection to gatepost's own API: chain and name are always checked. `ca` is `None` for the
/// machine's own authorities; the caller sets the time limit.
pub async fn connect_https(socket: TcpStream, host: &str, ca: Option<&Path>) -> Result<Stream, TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHost {
        host: host.to_owned(),
    })?;
    let connector = TlsConnector::from(HttpsTrust::load(ca)?.config());
    let stream = connector.connect(name, Carrier::Bare(socket)).await;
    Ok(Stream::Client(Box::new(stream.map_err(TlsError::Handshake)?)))
}

fn authorities(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    ca.map_or_else(pem::system_roots, pem::roots)
}

fn full(roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::Settings(rustls::Error::General(error.to_string())))?;
    Ok(verifier)
}

fn versions(settings: &ClientSettings) -> &'static [&'static SupportedProtocolVersion] {
    match (settings.engine, settings.mode) {
        (Engine::SqlServer, Mode::Require | Mode::VerifyCa | Mode::VerifyFull) => IN_PACKETS,
        (Engine::SqlServer, Mode::Disable | Mode::Strict) | (Engine::Postgres, _) => rustls::DEFAULT_VERSIONS,
    }
}

fn config(
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ServerCertVerifier>,
    client: Option<&(PathBuf, Secret<Vec<u8>>)>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Settings)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match client {
        None => builder.with_no_client_auth(),
        Some((file, key)) => {
            let certified = pem::certified_key(file, key)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    })
}
