//! A provider on loopback that answers as the test wants and counts what it was asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::identity::tests::NOW;

#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) url: String,
    answers: Mutex<Answers>,
    /// Requests for keys, for the discovery document, and for anything else.
    keys: AtomicUsize,
    documents: AtomicUsize,
    others: AtomicUsize,
    held: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// The key set's text.
    pub(crate) keys: Vec<u8>,
    /// Header lines of the key set, each with its line end.
    pub(crate) headers: &'static str,
    /// Who the discovery document says it is.
    pub(crate) issuer: String,
    /// Where it says that the keys are.
    pub(crate) keys_at: String,
    pub(crate) status: &'static str,
    /// Sends bytes after the head until nobody takes them.
    pub(crate) endless: bool,
}

impl Issuer {
    pub(crate) async fn start(keys: Vec<Value>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_at(listener, "/oauth2/default", keys)
    }

    pub(crate) fn start_at(listener: TcpListener, path: &str, keys: Vec<Value>) -> Arc<Self> {
        let url = format!("http://{}{path}", listener.local_addr().unwrap());
        let issuer = Arc::new(Self {
            answers: Mutex::new(Answers {
                keys: json!({"keys": keys}).to_string().into_bytes(),
                headers: "",
                issuer: url.clone(),
                keys_at: format!("{url}/keys"),
                status: "200 OK",
                endless: false,
            }),
            url,
            keys: AtomicUsize::default(),
            documents: AtomicUsize::default(),
            others: AtomicUsize::default(),
            held: watch::channel(false).0,
        });
        let own = issuer.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let own = own.clone();
                tokio::spawn(async move { own.answer(socket).await });
            }
        });
        issuer
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().unwrap());
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        self.change(|it| it.keys = json!({"keys": keys}).to_string().into_bytes());
    }

    pub(crate) fn fail(&self) {
        self.change(|it| it.status = "503 Not Now");
    }

    pub(crate) fn recover(&self) {
        self.change(|it| it.status = "200 OK");
    }

    /// Takes requests and leaves them unanswered, or answers them all.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub(crate) fn asked_for_keys(&self) -> usize {
        self.keys.load(Ordering::SeqCst)
    }

    pub(crate) fn asked_for_document(&self) -> usize {
        self.documents.load(Ordering::SeqCst)
    }

    pub(crate) fn asked_for_anything_else(&self) -> usize {
        self.others.load(Ordering::SeqCst)
    }

    async fn answer(&self, mut socket: TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if socket.read_buf(&mut request).await.unwrap_or_default() == 0 {
                return;
            }
        }
        let text = String::from_utf8(request).unwrap();
        let path = text.split(' ').nth(1).unwrap_or_default();
        let answers = self.answers.lock().unwrap().clone();
        let own = |url: &str| url.ends_with(path);
        let is_keys = own(&answers.keys_at);
        let is_document = path.ends_with("/.well-known/openid-configuration");
        let counter = match (is_keys, is_document) {
            (true, _) => &self.keys,
            (_, true) => &self.documents,
            _ => &self.others,
        };
        counter.fetch_add(1, Ordering::SeqCst);
        let mut held = self.held.subscribe();
        if held.wait_for(|held| !held).await.is_err() {
            return;
        }
        if is_keys && answers.endless {
            return send_without_end(socket).await;
        }
        let (headers, body) = if is_keys {
            (answers.headers, answers.keys)
        } else {
            let document = json!({"issuer": answers.issuer, "jwks_uri": answers.keys_at,
                "authorization_endpoint": format!("{}/authorize", self.url),
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"]});
            ("", document.to_string().into_bytes())
        };
        let status = if is_keys || is_document {
            answers.status
        } else {
            "404 Not Here"
        };
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        // Whoever asked may have gone.
        let _ = socket.write_all(&[head.into_bytes(), body].concat()).await;
    }

    /// What a good token says.
    pub(crate) fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": "gatepost", "sub": "worker-1", "cid": "client-1", "ver": 1,
               "iat": NOW - 10, "exp": NOW + 3600, "scp": ["write"], "groups": ["g"], "jti": "AT.1"})
    }

    /// What a token says that is good for a year.
    pub(crate) fn lasting_claims(&self) -> Value {
        let mut claims = self.claims();
        claims["exp"] = json!(NOW + 365 * 86_400);
        claims
    }
}

/// Chunks of blanks, valid before any JSON, until the other side hangs up.
async fn send_without_end(mut socket: TcpStream) {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut sent = socket.write_all(head).await;
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    while sent.is_ok() {
        sent = socket.write_all(&chunk).await;
    }
}
