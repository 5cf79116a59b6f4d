//! The certified npm `oidc-provider` in the shapes of Entra ID and Okta, as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{http, tools};

/// What tokens are for.
pub(crate) const AUDIENCE: &str = "api://gatepost-e2e";
const CLIENT_SECRET: &str = "client-secret-of-the-tests";

/// Whose token it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Entra,
    Okta,
    /// An issuer that gatepost.yaml does not name.
    Foreign,
}

impl Shape {
    const fn key(self) -> &'static str {
        match self {
            Self::Entra => "entra",
            Self::Okta => "okta",
            Self::Foreign => "foreign",
        }
    }
}

pub(crate) struct IdentityProvider {
    /// Ends when this goes away: its standard input closes.
    process: Child,
    answer: Value,
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl IdentityProvider {
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/identity_provider.mjs");
        let mut process = tools::node()
            .arg(script)
            .arg(tools::oidc_provider())
            .args([AUDIENCE, CLIENT_SECRET])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = process.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let answer = serde_json::from_str(&line);
        Self {
            process,
            answer: answer
                .unwrap_or_else(|_| panic!("oidc-provider did not start; tests/run.sh installs it")),
        }
    }

    pub(crate) fn issuer(&self, shape: Shape) -> &str {
        self.answer[shape.key()]["issuer"].as_str().unwrap()
    }

    /// An access token for this client, by the client credentials grant.
    pub(crate) fn token(&self, shape: Shape, client: &str) -> String {
        let endpoint = self.answer[shape.key()]["token_endpoint"].as_str().unwrap();
        let (origin, path) = split(endpoint);
        let form = format!(
            "grant_type=client_credentials&client_id={client}&client_secret={CLIENT_SECRET}&scope={}",
            AUDIENCE.replace(':', "%3A").replace('/', "%2F") + "%2F.default"
        );
        let (status, body) = http::post_form(origin, path, &form).unwrap();
        assert_eq!(status, 200, "{body}");
        let body = unchunked(&body);
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// A true ID token of this client.
    pub(crate) fn id_token(&self, shape: Shape, client: &str) -> String {
        let (origin, path) = split(self.issuer(shape));
        let (status, body) = http::get(origin, &format!("{path}/test-id-token/{client}")).unwrap();
        assert_eq!(status, 200, "{body}");
        unchunked(&body)
    }
}

/// `host:port` and the path of a URL.
fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap();
    let slash = rest.find('/').unwrap();
    rest.split_at(slash)
}

/// The body without the lines that chunked transfer puts around it, if it did.
fn unchunked(body: &str) -> String {
    match body.split_once("\r\n") {
        Some((size, rest)) if usize::from_str_radix(size, 16).is_ok() => {
            rest.split("\r\n").next().unwrap().to_owned()
        }
        _ => body.to_owned(),
    }
}
