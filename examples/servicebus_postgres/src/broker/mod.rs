//! Where the broker is, and a line to it: AMQP 1.0 inside TLS, with a name and a password, or with a token
//! that is put to the node `$cbs` as Azure Service Bus wants it.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use fe2o3_amqp::connection::{ConnectionHandle, OpenError};
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::{Connection, Session};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::parts::Failure;
use cbs::Badge;

mod cbs;
mod queue;
#[cfg(test)]
mod tests;

pub(crate) use queue::{Inlet, Outlet, Taken, browse};

/// Until the broker has let us in.
const OPEN_WAIT: Duration = Duration::from_secs(15);
/// For the last words of a line that ends.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// A broker that says nothing for so long is gone.
const IDLE_MILLISECONDS_MAX: u32 = 60_000;
const PLAIN_PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;
/// A token or a password.
const SECRET_BYTES_MAX: u64 = 32 * 1024;

/// Any AMQP 1.0 broker. Files are read again for every connection, so that what was renewed is taken up.
#[derive(Args, Clone, Debug)]
pub(crate) struct Broker {
    /// `amqps://HOST[:PORT]` for TLS, `amqp://HOST[:PORT]` for a broker on this machine.
    #[arg(long = "broker", env = "AMQP_BROKER", value_name = "URL")]
    url: Url,
    /// Certificates (PEM) of those who may sign the broker's, in place of the system's.
    #[arg(long = "broker-ca", env = "AMQP_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    #[arg(long = "broker-user", env = "AMQP_USER", requires = "password_file")]
    user: Option<String>,
    #[arg(
        long = "broker-password-file",
        env = "AMQP_PASSWORD_FILE",
        value_name = "FILE",
        requires = "user"
    )]
    password_file: Option<PathBuf>,
    /// Azure Service Bus: an access token for `https://servicebus.azure.net`, in place of a password.
    #[arg(
        long = "cbs-token-file",
        env = "AMQP_CBS_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "user"
    )]
    cbs_token_file: Option<PathBuf>,
}

/// The broker is gone, or its connection is; whatever was not settled is delivered again.
#[derive(Debug)]
pub(crate) struct Lost(String);

impl Lost {
    pub(crate) fn new(what: &str, error: impl fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for Lost {}

/// An open connection with one session, on which one entity (a queue) is used.
pub(crate) struct Line {
    connection: ConnectionHandle<()>,
    session: SessionHandle<()>,
    badge: Option<Badge>,
}

impl Line {
    /// `entity` is what a token must be good for.
    pub(crate) async fn open(broker: &Broker, entity: &str) -> Result<Self, Failure> {
        match timeout(OPEN_WAIT, Self::enter(broker, entity)).await {
            Ok(opened) => opened,
            Err(_) => Err(Box::new(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    async fn enter(broker: &Broker, entity: &str) -> Result<Self, Failure> {
        let mut connection = broker.connect().await?;
        let mut session = Session::begin(&mut connection).await?;
        let badge = match &broker.cbs_token_file {
            None => None,
            Some(file) => {
                let audience = broker.audience(entity)?;
                Some(Badge::show(&mut session, file.clone(), audience).await?)
            }
        };
        Ok(Self {
            connection,
            session,
            badge,
        })
    }

    /// Shows a renewed token before the broker takes the old one for ended. To be called now and then.
    pub(crate) async fn keep(&mut self) -> Result<(), Failure> {
        match &mut self.badge {
            Some(badge) => badge.keep().await,
            None => Ok(()),
        }
    }

    /// Everything that was said before is with the broker when this returns; what is taken and not settled
    /// goes back. `link` ends with the session: RabbitMQ 3 answers the closing of one as if it were only
    /// detached, and may still send on it, which the library takes for faults.
    pub(crate) async fn close<L>(mut self, link: L) -> Result<(), Lost> {
        let last_words = async {
            self.session
                .end()
                .await
                .map_err(|error| Lost::new("ending the session", error))?;
            self.connection
                .close()
                .await
                .map_err(|error| Lost::new("closing the connection", error))
        };
        let said = timeout(CLOSE_WAIT, last_words).await;
        drop(link);
        match said {
            Ok(said) => said,
            Err(_) => Err(Lost::new("closing the connection", "no answer")),
        }
    }
}

impl Broker {
    async fn connect(&self) -> Result<ConnectionHandle<()>, Failure> {
        let host = self.url.host_str().ok_or("the broker's URL names no host")?;
        let tls = match self.url.scheme() {
            "amqps" => true,
            "amqp" if is_loopback(&self.url) => false,
            "amqp" => return Err("amqp:// is for a broker on loopback; elsewhere it is amqps://".into()),
            other => return Err(format!("`{other}` is neither amqps nor amqp").into()),
        };
        let port = self.url.port().unwrap_or(if tls { TLS_PORT } else { PLAIN_PORT });
        // An IPv6 address stands in brackets in a URL.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        if tls {
            let name = ServerName::try_from(host.to_owned())?;
            let connector = TlsConnector::from(Arc::new(self.tls()?));
            self.greet(host, connector.connect(name, stream).await?).await
        } else {
            self.greet(host, stream).await
        }
    }

    async fn greet<S>(&self, host: &str, stream: S) -> Result<ConnectionHandle<()>, Failure>
    where
        S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static,
    {
        let profile = match (&self.user, &self.password_file) {
            (Some(user), Some(file)) => SaslProfile::Plain {
                username: user.clone(),
                password: read_secret(file)?,
            },
            // Who we are is said later, to `$cbs`.
            _ => SaslProfile::Anonymous,
        };
        let opened = Connection::builder()
            .container_id(format!("servicebus_postgres-{}", std::process::id()))
            .hostname(host)
            .idle_time_out(IDLE_MILLISECONDS_MAX)
            .sasl_profile(profile)
            // TLS is around the stream already.
            .scheme("amqp")
            .open_with_stream(stream)
            .await;
        opened.map_err(|error| match error {
            OpenError::Io(error) => error.into(),
            other => Failure::from(other),
        })
    }

    fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        match &self.ca {
            Some(file) => {
                for certificate in CertificateDer::pem_file_iter(file)? {
                    roots.add(certificate?)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }

    /// What the token is put for, in the form that Service Bus has for it.
    fn audience(&self, entity: &str) -> Result<String, Failure> {
        let host = self.url.host_str().ok_or("the broker's URL names no host")?;
        Ok(format!("amqps://{host}/{}", entity.trim_start_matches('/')))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        // A URL of a scheme that is not the web's has addresses as names.
        Some(Host::Domain(name)) => {
            name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Not the I/O error itself: one of those from the network is tried again.
fn read_secret(file: &Path) -> Result<String, Failure> {
    let unreadable = |error: io::Error| format!("{}: {error}", file.display());
    if fs::metadata(file).map_err(unreadable)?.len() > SECRET_BYTES_MAX {
        return Err(format!("{} is too large to hold one secret", file.display()).into());
    }
    match fs::read_to_string(file).map_err(unreadable)?.trim_end() {
        "" => Err(format!("{} is empty", file.display()).into()),
        secret => Ok(secret.to_owned()),
    }
}
