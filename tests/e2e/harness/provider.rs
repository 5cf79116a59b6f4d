//! The identity provider of a test, and the tokens that it gives.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use gatepost::cli::dev::children;
use serde_json::Value;

use super::tools;

/// How a provider writes its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Entra,
    Okta,
    /// A sound provider that gatepost was not told about.
    Stranger,
}

pub(crate) struct Provider {
    running: Option<Running>,
    issuers: Value,
    log: PathBuf,
}

struct Running {
    process: Child,
    // Held open: the process writes there only once, but must not meet a closed pipe.
    _output: BufReader<ChildStdout>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Provider {
    pub(crate) fn start(log: &Path) -> Self {
        let (running, issuers) = Self::run(log, "0");
        Self {
            running: Some(running),
            issuers,
            log: log.to_owned(),
        }
    }

    /// It is gone, and with it its keys.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    /// At the same address, with new keys.
    pub(crate) fn start_again(&mut self) {
        let issuer = self.issuer(Shape::Entra);
        let port = issuer.split([':', '/']).nth(4).unwrap();
        let (running, issuers) = Self::run(&self.log, port);
        assert_eq!(issuers, self.issuers);
        self.running = Some(running);
    }

    /// Signs with a new key from now on, and publishes the old ones beside it.
    pub(crate) fn rotate(&self, shape: Shape) {
        let (status, body) = http("POST", &format!("{}/test-rotate", self.issuer(shape)), "");
        assert_eq!(status, 200, "{body}");
    }

    /// How often it was asked for its keys.
    pub(crate) fn asked_for_keys(&self, shape: Shape) -> usize {
        let (_, body) = http("GET", &format!("{}/test-asked", self.issuer(shape)), "");
        let count = body.lines().find_map(|line| line.strip_prefix("asked:"));
        count.unwrap().parse().unwrap()
    }

    fn run(log: &Path, port: &str) -> (Running, Value) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/oidc_provider.mjs");
        let mut process = children::command(&tools::node(), None)
            .arg(script)
            .arg(tools::oidc_provider())
            .arg(port)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let told = std::fs::read_to_string(log).unwrap();
        let issuers = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the provider ended: {told}"));
        let running = Running {
            process,
            _output: output,
        };
        (running, issuers)
    }

    pub(crate) fn issuer(&self, shape: Shape) -> &str {
        let name = match shape {
            Shape::Entra => "entra",
            Shape::Okta => "okta",
            Shape::Stranger => "stranger",
        };
        self.issuers[name].as_str().unwrap()
    }

    pub(crate) fn token_url(&self, shape: Shape) -> String {
        format!("{}/token", self.issuer(shape))
    }

    /// Client credentials; the applications are in `oidc_provider.mjs`.
    pub(crate) fn token(&self, shape: Shape, client: &str) -> String {
        self.token_with(shape, client, "")
    }

    /// `wishes` are further form fields, each after an `&`: `&life=2` (seconds) and `&size=9000` (about
    /// so many bytes more).
    pub(crate) fn token_with(&self, shape: Shape, client: &str, wishes: &str) -> String {
        ask_for_token(&self.token_url(shape), client, wishes).unwrap()
    }

    /// What a program that mixes the two up would send: an ID token, sound in itself.
    pub(crate) fn id_token(&self, shape: Shape, client: &str) -> String {
        let (status, body) = http(
            "GET",
            &format!("{}/test-id-token/{client}", self.issuer(shape)),
            "",
        );
        assert_eq!(status, 200, "{body}");
        // Chunked: the token's length, the token, nothing more.
        let token = body.lines().find(|line| line.contains('.'));
        token.unwrap().to_owned()
    }
}

pub(crate) fn secret_of(client: &str) -> String {
    format!("secret-of-{client}")
}

/// For those who live on when the provider does not.
pub(crate) fn ask_for_token(url: &str, client: &str, wishes: &str) -> std::io::Result<String> {
    let form = format!(
        "grant_type=client_credentials&client_id={client}&client_secret={}{wishes}",
        secret_of(client)
    );
    let (status, body) = try_http("POST", url, &form)?;
    if status != 200 {
        return Err(std::io::Error::other(format!("{status}: {body}")));
    }
    let answer: Value = serde_json::from_str(&body)?;
    Ok(answer["access_token"].as_str().unwrap().to_owned())
}

/// One request over plain HTTP; status and body.
pub(crate) fn http(method: &str, url: &str, form: &str) -> (u16, String) {
    try_http(method, url, form).unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

pub(crate) fn try_http(method: &str, url: &str, form: &str) -> std::io::Result<(u16, String)> {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    write!(
        stream,
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.unwrap_or_default(), body.to_owned()))
}
