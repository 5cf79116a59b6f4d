//! What the examples share: asking for a token, and connecting with it. Nothing here knows gatepost;
//! any program that speaks OIDC and PostgreSQL does the same.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Where to get a token and where to bring it; the values are in the environment of `gatepost dev`.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) token_url: Uri,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    /// Signs gatepost's certificate.
    pub(crate) ca: PathBuf,
}

impl Access {
    /// Reads the variables that `dev.env` sets; `who` is CONSUMER or ANALYST.
    pub(crate) fn from_environment(who: &str) -> Result<Self, Failure> {
        let value = |name: &str| {
            let name = format!("GATEPOST_DEV_{name}");
            std::env::var(&name)
                .map_err(|_| format!("{name} is not set: read dev.env of `gatepost dev` first"))
        };
        Ok(Self {
            token_url: value("TOKEN_URL")?.parse()?,
            client_id: value(&format!("{who}_ID"))?,
            client_secret: value(&format!("{who}_SECRET"))?,
            host: value("HOST")?,
            port: value("PORT")?.parse()?,
            database: value("DATABASE")?,
            ca: value("CA")?.into(),
        })
    }

    /// Client credentials (RFC 6749 §4.4). Over plain HTTP, because the provider is on loopback.
    pub(crate) async fn token(&self) -> Result<String, Failure> {
        let host = self
            .token_url
            .authority()
            .ok_or("the token URL names no host")?
            .as_str();
        let stream = TcpStream::connect(host).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let running = tokio::spawn(connection);
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            self.client_id, self.client_secret
        );
        let request = Request::post(self.token_url.path())
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        running.abort();
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        match answer.get("access_token").and_then(serde_json::Value::as_str) {
            Some(token) => Ok(token.to_owned()),
            None => Err(format!("the identity provider answered {status}: {answer}").into()),
        }
    }

    /// An ordinary connection with a fresh token as the password. The task ends with the connection.
    pub(crate) async fn connect(
        &self,
        user: &str,
        application: &str,
    ) -> Result<(Client, JoinHandle<()>), Failure> {
        let config = self.config(user, application).await?;
        let (client, connection) = config.connect(self.tls()?).await?;
        let running = tokio::spawn(async move {
            // The client's next call tells what happened.
            let _ = connection.await;
        });
        Ok((client, running))
    }

    /// Everything but the way: who, which role, which database.
    pub(crate) async fn config(&self, user: &str, application: &str) -> Result<Config, Failure> {
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .dbname(&self.database)
            .user(user)
            .password(self.token().await?)
            .application_name(application)
            .ssl_mode(tokio_postgres::config::SslMode::Require);
        Ok(config)
    }

    pub(crate) fn tls(&self) -> Result<MakeRustlsConnect, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca)? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(tls))
    }
}
