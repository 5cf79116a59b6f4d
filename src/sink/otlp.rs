//! OpenTelemetry's logs over HTTP, as JSON (OTLP 1.x, "OTLP/HTTP"): a batch is one request, and is
//! delivered when it is answered with success.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::audit::entry::{Entry, Found};
use crate::domain::Secret;
use crate::sink::SendError;
use crate::tls::{self, Stream};

/// Answers have some hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// "INFO" and "WARN" in the data model of OpenTelemetry's logs.
const INFO: (u8, &str) = (9, "INFO");
const WARN: (u8, &str) = (13, "WARN");

/// Where a receiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpAddress {
    pub host: String,
    pub port: u16,
    /// `/v1/logs`, as a rule.
    pub path: String,
    /// Without TLS. With it, chain and name are always checked.
    pub plaintext: bool,
}

impl OtlpAddress {
    /// Reads `https://host[:port]/path`, or the same with http. `None` for anything else, and with a user or
    /// a password in it.
    pub fn read(url: &str) -> Option<Self> {
        let uri: hyper::Uri = url.parse().ok()?;
        let plaintext = match uri.scheme_str()? {
            "https" => false,
            "http" => true,
            _ => return None,
        };
        if uri.authority()?.as_str().contains('@') {
            return None;
        }
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        Some(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if plaintext { 80 } else { 443 }),
            path: uri.path_and_query()?.as_str().to_owned(),
            plaintext,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSettings {
    pub address: OtlpAddress,
    /// `None`: the machine's own authorities.
    pub ca: Option<PathBuf>,
    /// Sent as a bearer token.
    pub token: Option<Secret<String>>,
}

pub(super) struct Otlp {
    settings: OtlpSettings,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Otlp {
    pub(super) const fn new(settings: OtlpSettings) -> Self {
        Self {
            settings,
            connection: None,
        }
    }

    pub(super) async fn send(&mut self, batch: &[Found]) -> Result<(), SendError> {
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_ready() => connection,
            Some(_) | None => self.connect().await?,
        };
        let request = self.request(batch)?;
        let answer = connection.send_request(request).await.map_err(SendError::Http)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(SendError::Status(status.as_u16()));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        // A body that cannot be read says no more than the status, and the connection is given up.
        if let Ok(body) = body {
            self.connection = Some(connection);
            let rejected = rejected(&body.to_bytes());
            if rejected > 0 {
                // Such records are not to be sent again ("Partial Success" in OTLP); the journal has them.
                tracing::warn!(rejected, "a receiver of logs refused records");
            }
        }
        Ok(())
    }

    fn request(&self, batch: &[Found]) -> Result<hyper::Request<Full<Bytes>>, SendError> {
        let OtlpAddress { host, port, path, .. } = &self.settings.address;
        let mut request = hyper::Request::post(path)
            .header(HOST, format!("{host}:{port}"))
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("gatepost/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.settings.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let body = Full::new(Bytes::from(logs(batch).to_string()));
        // Address and token were looked at when the configuration was read.
        request
            .body(body)
            .map_err(|_| SendError::Write(std::io::ErrorKind::InvalidInput.into()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, SendError> {
        let OtlpAddress { host, port, .. } = &self.settings.address;
        let to = || format!("{host}:{port}");
        let socket = TcpStream::connect((host.as_str(), *port)).await;
        let socket = socket.map_err(|source| SendError::Connect { to: to(), source })?;
        let stream = if self.settings.address.plaintext {
            Stream::Plain(socket)
        } else {
            let stream = tls::connect_https(socket, host, self.settings.ca.as_deref()).await;
            stream.map_err(|source| SendError::Tls { to: to(), source })?
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::Http)?;
        // Ends with its connection; why it ended, the next request tells.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Records that a receiver says it did not take.
fn rejected(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let rejected = answer.pointer("/partialSuccess/rejectedLogRecords");
    // 64-bit numbers are texts in protobuf's JSON; some write them as numbers all the same.
    rejected.map_or(0, |it| {
        it.as_u64()
            .or_else(|| it.as_str()?.parse().ok())
            .unwrap_or_default()
    })
}

/// `ExportLogsServiceRequest`.
pub(super) fn logs(batch: &[Found]) -> Value {
    let text = |value: &str| json!({"stringValue": value});
    let of_first = |get: fn(&Entry) -> &str| batch.first().map(|found| get(&found.entry)).unwrap_or_default();
    let resource = [
        ("service.name", "gatepost"),
        ("service.namespace", of_first(|entry| &entry.installation)),
        ("service.instance.id", of_first(|entry| &entry.replica)),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let resource: Vec<_> = resource
        .iter()
        .map(|(key, value)| json!({"key": key, "value": text(value)}))
        .collect();
    let records: Vec<_> = batch.iter().map(record).collect();
    json!({"resourceLogs": [{
        "resource": {"attributes": resource},
        "scopeLogs": [{"scope": {"name": "gatepost.audit"}, "logRecords": records}],
    }]})
}

/// The record's own line is the body, so that it can be proved later what was said.
fn record(found: &Found) -> Value {
    let entry = &found.entry;
    let nanoseconds = |at: Option<SystemTime>| {
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_nanos()).to_string()
    };
    let at = nanoseconds(entry.time());
    let turned_away = matches!(
        entry.event.as_str(),
        "session.denied" | "session.denied_many" | "ticket.denied" | "login.tampered" | "policy.rejected"
    );
    let doubtful = entry.outcome() == Some("in_doubt");
    let (number, word) = if turned_away || doubtful { WARN } else { INFO };
    let texts = [
        ("gatepost.session", entry.session.as_deref()),
        ("gatepost.target", entry.target.as_deref()),
        ("gatepost.outcome", entry.outcome()),
        ("db.namespace", entry.database.as_deref()),
        ("db.system.name", entry.engine.as_deref()),
        ("user.id", entry.identity.as_ref().map(|it| it.subject.as_str())),
    ];
    let mut attributes: Vec<_> = texts
        .iter()
        .filter_map(|(key, value)| Some(json!({"key": key, "value": {"stringValue": (*value)?}})))
        .collect();
    attributes.push(json!({"key": "gatepost.seq", "value": {"intValue": entry.seq.to_string()}}));
    json!({
        "timeUnixNano": at,
        "observedTimeUnixNano": at,
        "severityNumber": number,
        "severityText": word,
        "eventName": entry.event,
        "body": {"stringValue": String::from_utf8_lossy(&found.line)},
        "attributes": attributes,
    })
}
