//! Where the broker is, and how to reach it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use clap::Args;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use sqlserver_inbox::Failure;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const CONNECT_WAIT: Duration = Duration::from_secs(15);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Args, Clone, Debug)]
pub(crate) struct Broker {
    /// `stomp://HOST:PORT`, or `stomp+ssl://HOST:PORT`.
    #[arg(long = "broker", env = "BROKER_URL", value_name = "URL")]
    broker_url: String,
    #[arg(
        long,
        env = "BROKER_USER",
        requires = "broker_password_file",
        value_name = "USER"
    )]
    broker_user: Option<String>,
    #[arg(long, env = "BROKER_PASSWORD_FILE", value_name = "FILE")]
    broker_password_file: Option<PathBuf>,
    /// Certificates (PEM) of those who may sign the broker's.
    #[arg(long, env = "BROKER_CA", value_name = "FILE")]
    broker_ca: Option<PathBuf>,
}

impl Broker {
    pub(super) async fn dial(&self) -> Result<Box<dyn Stream>, Failure> {
        let (tls, address) = split_url(&self.broker_url)?;
        let stream = match timeout(CONNECT_WAIT, TcpStream::connect(address)).await {
            Ok(connected) => connected?,
            Err(_) => return Err(Box::new(io::Error::from(io::ErrorKind::TimedOut))),
        };
        stream.set_nodelay(true)?;
        if !tls {
            return Ok(Box::new(stream));
        }
        let host = self.host()?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("`{host}` names no server"))?;
        match timeout(CONNECT_WAIT, self.connector()?.connect(name, stream)).await {
            Ok(secured) => Ok(Box::new(secured?)),
            Err(_) => Err(Box::new(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    /// As CONNECT names the broker, and its certificate.
    pub(super) fn host(&self) -> Result<&str, Failure> {
        let (_, address) = split_url(&self.broker_url)?;
        let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
        Ok(host.trim_start_matches('[').trim_end_matches(']'))
    }

    /// The file is read again for every connection, so that a new password is taken up.
    pub(super) fn login(&self) -> Result<Option<(&str, String)>, Failure> {
        let (Some(user), Some(file)) = (&self.broker_user, &self.broker_password_file) else {
            return Ok(None);
        };
        let password = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Some((user, password.trim_end().to_owned())))
    }

    fn connector(&self) -> Result<TlsConnector, Failure> {
        let file = self.broker_ca.as_ref().ok_or("stomp+ssl needs --broker-ca")?;
        let unreadable = |error| format!("{}: {error}", file.display());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
            roots.add(certificate.map_err(unreadable)?)?;
        }
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Whether it is to be TLS, and `HOST:PORT`.
fn split_url(url: &str) -> Result<(bool, &str), Failure> {
    let parts = match url.split_once("://") {
        Some(("stomp", address)) => Some((false, address)),
        Some(("stomp+ssl", address)) => Some((true, address)),
        _ => None,
    };
    parts.ok_or_else(|| format!("`{url}` is neither stomp://HOST:PORT nor stomp+ssl://HOST:PORT").into())
}

#[cfg(test)]
mod tests {
    use super::split_url;

    #[test]
    fn the_scheme_decides_about_tls() {
        assert_eq!(split_url("stomp://a:1").ok(), Some((false, "a:1")));
        assert_eq!(split_url("stomp+ssl://[::1]:2").ok(), Some((true, "[::1]:2")));
        for wrong in ["a:1", "amqp://a:1", "ssl://a:1", ""] {
            assert!(split_url(wrong).is_err(), "{wrong}");
        }
    }
}
