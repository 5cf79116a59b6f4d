//! The client of the API, for the command line: over the socket, or over https with a token.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::domain::Secret;
use crate::tls;

/// A process that is there answers at once; one that is far away within its round trips.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A little longer than the server gives itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(130);
/// Ten thousand of the longest entries fit.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const PORT_DEFAULT: u16 = 443;

/// How to reach a running gatepost.
#[derive(Debug)]
pub enum Reach {
    Socket(PathBuf),
    Api(ApiAddress),
}

/// An API over https.
#[derive(Debug)]
pub struct ApiAddress {
    host: String,
    port: u16,
    token: Secret<String>,
    /// `None`: the machine's own authorities.
    ca: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("\"{0}\" is not an address like https://gatepost.internal:8443")]
    Address(String),
    #[error("the token holds characters that no token has")]
    Token,
    #[error("no gatepost answers at {at}")]
    Connect {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error("no TLS with {at}")]
    Tls {
        at: String,
        #[source]
        source: tls::TlsError,
    },
    #[error("the answer could not be read")]
    Http(#[source] hyper::Error),
    #[error("gatepost did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("what answered with status {0} is not gatepost's API")]
    NotTheApi(u16),
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    pub const fn is_good(&self) -> bool {
        matches!(self.status, 200..=299)
    }
}

impl ApiAddress {
    /// `url` is scheme, host and port alone. Never plain http: the token would cross in clear.
    pub fn new(url: &str, token: Secret<String>, ca: Option<PathBuf>) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let bare = uri.query().is_none() && matches!(uri.path(), "" | "/");
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("https") || !bare || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(PORT_DEFAULT),
            token,
            ca,
        })
    }
}

impl Reach {
    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.ask(Method::GET, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer, ClientError> {
        self.ask(Method::DELETE, path, None).await
    }

    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        let request = self.request(method, path, body)?;
        match self {
            Self::Socket(socket) => {
                let at = || socket.display().to_string();
                let stream = connected(UnixStream::connect(socket), &at()).await?;
                answered(stream, request).await
            }
            Self::Api(api) => {
                let at = format!("{}:{}", api.host, api.port);
                let socket = connected(TcpStream::connect((api.host.as_str(), api.port)), &at).await?;
                let shaking = tls::connect_https(socket, &api.host, api.ca.as_deref());
                let shaken = tokio::time::timeout(CONNECT_WITHIN, shaking).await;
                let shaken = shaken.map_err(|_| ClientError::TimedOut(CONNECT_WITHIN))?;
                let stream = shaken.map_err(|source| ClientError::Tls { at, source })?;
                answered(stream, request).await
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let content = body.map(ToString::to_string).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(content)));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| ClientError::Address(path.to_owned()))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("gatepost"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let host = match self {
            Self::Socket(_) => "localhost".to_owned(),
            Self::Api(api) if api.host.contains(':') => format!("[{}]:{}", api.host, api.port),
            Self::Api(api) => format!("{}:{}", api.host, api.port),
        };
        let host = HeaderValue::try_from(&host).map_err(|_| ClientError::Address(host))?;
        headers.insert(HOST, host);
        if let Self::Api(api) = self {
            let bearer = format!("Bearer {}", api.token.expose());
            let mut bearer = HeaderValue::try_from(bearer).map_err(|_| ClientError::Token)?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(request)
    }
}

async fn connected<S>(connecting: impl Future<Output = io::Result<S>>, at: &str) -> Result<S, ClientError> {
    let connected = tokio::time::timeout(CONNECT_WITHIN, connecting).await;
    let connected = connected.map_err(|_| ClientError::TimedOut(CONNECT_WITHIN))?;
    connected.map_err(|source| ClientError::Connect {
        at: at.to_owned(),
        source,
    })
}

async fn answered<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(ClientError::Http)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(ClientError::Http)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|_| ClientError::NotTheApi(status))?;
        let body = serde_json::from_slice(&body.to_bytes());
        let body = body.map_err(|_| ClientError::NotTheApi(status))?;
        Ok(Answer { status, body })
    };
    // The connection is driven beside the exchange and dropped with it: no task is left behind.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(tokio::time::timeout(ANSWER_WITHIN, exchange));
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(source) => return Err(ClientError::Http(source)),
        },
    };
    answer.map_err(|_| ClientError::TimedOut(ANSWER_WITHIN))?
}

/// A token on the first line of a file.
pub fn read_token(path: &Path) -> io::Result<Secret<String>> {
    let text = std::fs::read_to_string(path)?;
    Ok(Secret::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_nothing_behind_the_port() {
        let new = |url| ApiAddress::new(url, Secret::new(String::new()), None);
        let plain = new("https://gatepost.internal").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("gatepost.internal", 443));
        let six = new("https://[::1]:8443/").unwrap();
        assert_eq!((six.host.as_str(), six.port), ("::1", 8443));
        for wrong in [
            "http://127.0.0.1:8443",
            "gatepost.internal:8443",
            "https://a:8443/v1",
            "https://a:8443/?x",
            "https://u:p@a:8443",
            "",
        ] {
            assert!(new(wrong).is_err(), "{wrong}");
        }
    }
}
