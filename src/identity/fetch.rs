//! One request for one small JSON document: https, or plain http to this machine or its own link only. No
//! redirects.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Uri;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::identity::freshness;
use crate::tls::HttpsTrust;

/// Real discovery documents and key sets have a few KiB.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

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
    #[error("the answer of {url} is cut off or larger than {} KiB", limit / 1024)]
    Body { url: String, limit: usize },
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

/// Whom plain http may be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainHttp {
    ThisMachine,
    /// Also 169.254.0.0/16, which no router forwards: where clouds put what only this machine may ask.
    ThisLink,
}

/// What is asked. A request with a form is a POST, one without a GET.
pub(super) struct Request<'a> {
    /// Holds no secret: it ends in errors.
    pub(super) url: &'a str,
    pub(super) header: Option<(&'static str, &'a str)>,
    pub(super) form: Option<String>,
    pub(super) plain_http: PlainHttp,
    /// `None`: https is refused.
    pub(super) https: Option<&'a HttpsTrust>,
    pub(super) body_bytes_max: usize,
}

/// An answer, whatever its status.
pub(super) struct Response {
    pub(super) status: u16,
    /// Where it was said in seconds.
    pub(super) retry_after: Option<Duration>,
    pub(super) fresh_for: Duration,
    pub(super) body: Bytes,
}

/// The caller sets the time limit.
pub(super) async fn get(url: &str, https: &HttpsTrust) -> Result<Answer, FetchError> {
    let request = Request {
        url,
        header: None,
        form: None,
        plain_http: PlainHttp::ThisMachine,
        https: Some(https),
        body_bytes_max: DOCUMENT_BYTES_MAX,
    };
    let Response {
        status,
        fresh_for,
        body,
        ..
    } = ask(&request).await?;
    if status != hyper::StatusCode::OK.as_u16() {
        let url = url.to_owned();
        return Err(FetchError::Status { url, status });
    }
    Ok(Answer { body, fresh_for })
}

/// The caller sets the time limit.
pub(super) async fn ask(request: &Request<'_>) -> Result<Response, FetchError> {
    let url = request.url;
    let bad_address = || FetchError::Address { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| bad_address())?;
    let host = uri.host().ok_or_else(bad_address)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let https = match uri.scheme_str() {
        Some("https") => Some(request.https.ok_or_else(bad_address)?),
        Some("http") if request.plain_http.may_reach(host) => None,
        _ => return Err(bad_address()),
    };
    let port = uri.port_u16().unwrap_or(if https.is_some() { 443 } else { 80 });
    let failed = |source| FetchError::Connect {
        host: host.to_owned(),
        source,
    };
    let socket = TcpStream::connect((host, port)).await.map_err(failed)?;
    let Some(https) = https else {
        return exchange(&uri, request, socket).await;
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| bad_address())?;
    let connector = TlsConnector::from(https.config());
    exchange(
        &uri,
        request,
        connector.connect(name, socket).await.map_err(failed)?,
    )
    .await
}

async fn exchange<S>(uri: &Uri, wanted: &Request<'_>, stream: S) -> Result<Response, FetchError>
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
        let mut request = match wanted.form {
            Some(_) => hyper::Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded"),
            None => hyper::Request::get(path),
        };
        if let Some((name, value)) = wanted.header {
            request = request.header(name, value);
        }
        let request = request
            .header(HOST, authority)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "gatepost")
            .body(Full::<Bytes>::from(wanted.form.clone().unwrap_or_default()))
            .map_err(|_| FetchError::Address { url: url() })?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|it| it.to_str().ok()?.trim().parse().ok());
        let fresh_for = freshness::fresh_for(response.headers());
        // Read piece by piece, and given up at the first byte too many.
        let limit = wanted.body_bytes_max;
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body
            .map_err(|_| FetchError::Body { url: url(), limit })?
            .to_bytes();
        Ok(Response {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            fresh_for,
            body,
        })
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

impl PlainHttp {
    fn may_reach(self, host: &str) -> bool {
        let address = host.parse::<IpAddr>();
        let on_link = matches!(address, Ok(IpAddr::V4(address)) if address.is_link_local());
        host == "localhost"
            || address.is_ok_and(|address| address.is_loopback())
            || (self == Self::ThisLink && on_link)
    }
}
