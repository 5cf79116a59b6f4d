//! Answers: JSON, and what went wrong as `application/problem+json` (RFC 9457). No text of a request
//! is repeated in them but the names that a permitted operator asked about.

use http_body_util::Full;
use hyper::body::Bytes;
use std::time::Duration;

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

/// RFC 6750, section 3: what is asked for, and nothing about why (section 3.1).
pub(super) const CHALLENGE: &str = "Bearer realm=\"gatepost\"";

/// Something that was not done, and why.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// What to do about it.
    hint: &'static str,
    header: Option<Extra>,
    mistakes: Vec<String>,
}

/// The header that a kind of problem must have.
#[derive(Debug)]
enum Extra {
    WwwAuthenticate(String),
    Allow(String),
    /// Whole seconds (RFC 9110, section 10.2.3).
    RetryAfter(u64),
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>, hint: &'static str) -> Self {
        Self {
            status,
            detail: detail.into(),
            hint,
            header: None,
            mistakes: Vec::new(),
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        let hint = "docs/operating.md lists what each route takes.";
        Self::new(StatusCode::BAD_REQUEST, detail, hint)
    }

    /// `challenge` is the whole header (RFC 6750, section 3).
    pub(super) fn challenged(mut self, challenge: &str) -> Self {
        self.header = Some(Extra::WwwAuthenticate(challenge.to_owned()));
        self
    }

    pub(super) fn allowing(mut self, methods: &[&str]) -> Self {
        self.header = Some(Extra::Allow(methods.join(", ")));
        self
    }

    /// Part of a second counts as a whole one: who comes back then finds it over.
    pub(super) fn later(mut self, wait: Duration) -> Self {
        let part = u64::from(wait.subsec_nanos() > 0);
        self.header = Some(Extra::RetryAfter(wait.as_secs().saturating_add(part)));
        self
    }

    pub(super) fn with_mistakes(mut self, mistakes: Vec<String>) -> Self {
        self.mistakes = mistakes;
        self
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut body = json!({
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "hint": self.hint,
        });
        if let (false, Some(members)) = (self.mistakes.is_empty(), body.as_object_mut()) {
            members.insert("mistakes".to_owned(), self.mistakes.into());
        }
        let mut response = respond(self.status, "application/problem+json", &body);
        let header = self.header.map(|extra| match extra {
            Extra::WwwAuthenticate(text) => (WWW_AUTHENTICATE, text),
            Extra::Allow(text) => (ALLOW, text),
            Extra::RetryAfter(seconds) => (RETRY_AFTER, seconds.to_string()),
        });
        // All are made here, of words without control characters.
        if let Some((name, text)) = header
            && let Ok(value) = HeaderValue::try_from(text)
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// What was asked for.
pub(super) fn json_response<T: Serialize>(status: StatusCode, body: &T) -> Response<Full<Bytes>> {
    respond(status, "application/json", body)
}

fn respond<T: Serialize>(status: StatusCode, kind: &'static str, body: &T) -> Response<Full<Bytes>> {
    // Only maps with keys that are no text cannot be written, and there are none.
    let mut text = serde_json::to_vec(body).unwrap_or_else(|_| Value::Null.to_string().into_bytes());
    text.push(b'\n');
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        hyper::header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
