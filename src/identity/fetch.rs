//! GET of one small JSON document: https, or plain http to this machine only. No redirects.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Uri;
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::identity::freshness;
use crate::tls::HttpsTrust;

/// Real discovery documents and key sets have a few KiB.
const BODY_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("\"{url}\" is not an https address (plain http is for this machine only)")]
    Address { url: String },
    #[error("cannot connect to {host}")]
    Connect {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no http answer from {host}")]
    Http {
        host: String,
        #[source]
        source: hyper::Error,
    },
    #[error("{url} answered {status}")]
    Status { url: String, status: u16 },
    #[error("the answer of {url} is cut off or larger than 1 MiB")]
    Body { url: String },
    #[error("{url} did not answer in time")]
    TimedOut { url: String },
    #[error("{url} is not the expected document")]
    Document {
        url: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the document at {url} names another issuer")]
    Issuer { url: String },
    #[error("{url} holds no key that can be used")]
    NoKeys { url: String },
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Bytes,
    pub(super) fresh_for: Duration,
}

/// The caller sets the time limit.
pub(super) async fn get(url: &str, https: &HttpsTrust) -> Result<Answer, FetchError> {
    let bad_address = || FetchError::Address { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| bad_address())?;
    let host = uri.host().ok_or_else(bad_address)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let encrypted = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if is_loopback(host) => false,
        _ => return Err(bad_address()),
    };
    let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let failed = |source| FetchError::Connect {
        host: host.to_owned(),
        source,
    };
    let socket = TcpStream::connect((host, port)).await.map_err(failed)?;
    if !encrypted {
        return exchange(&uri, socket).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| bad_address())?;
    let connector = TlsConnector::from(https.config());
    exchange(&uri, connector.connect(name, socket).await.map_err(failed)?).await
}

async fn exchange<S>(uri: &Uri, stream: S) -> Result<Answer, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let url = || uri.to_string();
    let failed = |source| FetchError::Http {
        host: uri.host().unwrap_or_default().to_owned(),
        source,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let answer = async {
        let authority = uri.authority().map_or("", |it| it.as_str());
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        let request = hyper::Request::get(path)
            .header(HOST, authority)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "gatepost")
            .body(Empty::<Bytes>::new())
            .map_err(|_| FetchError::Address { url: url() })?;
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() != hyper::StatusCode::OK {
            let status = response.status().as_u16();
            return Err(FetchError::Status { url: url(), status });
        }
        let fresh_for = freshness::fresh_for(response.headers());
        // Read piece by piece, and given up at the first byte too many.
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|_| FetchError::Body { url: url() })?.to_bytes();
        Ok(Answer { body, fresh_for })
    };
    // The connection is driven beside the request and dropped with it: no task is left behind.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(source) => Err(failed(source)),
        },
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
