//! A client that writes its own bytes: it knows its cancel key, and sends what no driver would.
//! Needs a door that allows plaintext.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};

use gatepost::wire::Decoded;
use gatepost::wire::pg::frame::{self, HEAD_BYTES};
use gatepost::wire::pg::from_client::{put_password, put_query};
use gatepost::wire::pg::from_server::{self, FromServer};
use gatepost::wire::pg::startup::{put_cancel_request, put_startup};

use super::PATIENCE;
use super::programs::Caller;
use super::world::World;

pub(crate) struct Plain {
    stream: TcpStream,
    input: Vec<u8>,
    pub(crate) process: i32,
    pub(crate) key: Vec<u8>,
}

/// What a message group came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// First columns of rows.
    pub(crate) rows: Vec<String>,
    /// Command tags.
    pub(crate) tags: Vec<String>,
    pub(crate) errors: Vec<String>,
    /// The text of the first error.
    pub(crate) sentence: String,
}

impl Answer {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.errors == ["57014"]
    }

    #[track_caller]
    pub(crate) fn well(self) -> Self {
        assert!(self.errors.is_empty(), "{self:?}");
        self
    }
}

/// One message as the tests need it.
pub(crate) enum Said {
    Row(String),
    Tag(String),
    Error(String, String),
    Key(i32, Vec<u8>),
    CopyIn,
    Ready,
    Password,
    Else,
}

impl Plain {
    /// Sends the start-up and the token, and does not wait.
    pub(crate) fn knock(address: SocketAddr, caller: &Caller, minor: u16) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut plain = Self {
            stream,
            input: Vec::new(),
            process: 0,
            key: Vec::new(),
        };
        let mut out = Vec::new();
        put_startup(&mut out, minor, [("user", caller.user), ("database", "orders")]);
        plain.send(&out);
        let Said::Password = plain.next() else {
            panic!("was not asked for a password")
        };
        out.clear();
        put_password(&mut out, caller.token.as_bytes());
        plain.send(&out);
        plain
    }

    pub(crate) fn welcomed(mut self) -> Self {
        loop {
            match self.next() {
                Said::Key(process, key) => (self.process, self.key) = (process, key),
                Said::Ready => return self,
                Said::Error(code, sentence) => panic!("{code}: {sentence}"),
                Said::Row(_) | Said::Tag(_) | Said::CopyIn | Said::Password | Said::Else => {}
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn ask(&mut self, sql: &str) {
        let mut out = Vec::new();
        put_query(&mut out, sql.as_bytes());
        self.send(&out);
    }

    pub(crate) fn query(&mut self, sql: &str) -> Answer {
        self.ask(sql);
        self.answer()
    }

    /// Up to the next ReadyForQuery.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = Answer::default();
        loop {
            match self.next() {
                Said::Row(text) => answer.rows.push(text),
                Said::Tag(tag) => answer.tags.push(tag),
                Said::Error(code, sentence) => {
                    answer.errors.push(code);
                    answer.sentence = sentence;
                }
                Said::Ready => return answer,
                Said::Key(..) | Said::CopyIn | Said::Password | Said::Else => {}
            }
        }
    }

    pub(crate) fn next(&mut self) -> Said {
        loop {
            if let Decoded::Message(head) = frame::head(&self.input, 1 << 24).unwrap()
                && self.input.len() >= head.length
            {
                let message: Vec<u8> = self.input.drain(..head.length).collect();
                let body = &message[HEAD_BYTES..];
                return said(&from_server::parse(head.tag, body).unwrap());
            }
            let mut bytes = [0; 16 * 1024];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the connection was closed");
            self.input.extend_from_slice(&bytes[..count]);
        }
    }

    /// Has the server said something that was not read yet?
    pub(crate) fn has_news(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let news = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).unwrap();
        news || !self.input.is_empty()
    }

    pub(crate) fn cancel_key(&self) -> (i32, Vec<u8>) {
        (self.process, self.key.clone())
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most messages make no difference to a test"
)]
fn said(message: &FromServer<'_>) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match message {
        FromServer::DataRow(row) => Said::Row(row.column(0).flatten().map(text).unwrap_or_default()),
        FromServer::CommandComplete { tag } => Said::Tag(text(tag)),
        FromServer::ErrorResponse(fields) => Said::Error(
            fields.get(b'C').map(text).unwrap_or_default(),
            fields.get(b'M').map(text).unwrap_or_default(),
        ),
        FromServer::BackendKeyData { process, key } => Said::Key(*process, key.to_vec()),
        FromServer::CopyIn => Said::CopyIn,
        FromServer::ReadyForQuery(_) => Said::Ready,
        FromServer::Authentication(from_server::Authentication::CleartextPassword) => Said::Password,
        _ => Said::Else,
    }
}

/// As libpq before 17 does it: in clear, and done when the connection is closed.
pub(crate) fn cancel(address: SocketAddr, process: i32, key: &[u8]) {
    cancel_over(TcpStream::connect(address).unwrap(), process, key);
}

pub(crate) fn cancel_over(stream: TcpStream, process: i32, key: &[u8]) {
    let mut cancelling = Cancelling { stream };
    cancelling.send(process, key);
    cancelling.wait();
}

/// A connection for a cancel request that is made beforehand, for races.
pub(crate) struct Cancelling {
    stream: TcpStream,
}

impl Cancelling {
    pub(crate) fn prepare(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, process: i32, key: &[u8]) {
        let mut request = Vec::new();
        put_cancel_request(&mut request, process, key);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.stream.write_all(&request).unwrap();
    }

    pub(crate) fn wait(mut self) {
        let mut nothing = Vec::new();
        self.stream.read_to_end(&mut nothing).unwrap();
        assert_eq!(nothing, b"", "a cancel request is not answered");
    }
}

impl World {
    /// A world whose door takes tokens in clear.
    pub(crate) fn with_plain_door() -> Self {
        let mut world = Self::without_proxy(15);
        world.config.door = ", allow_plaintext: true";
        world
    }

    pub(crate) fn plain(&self, caller: &Caller) -> Plain {
        Plain::knock(self.config.postgres, caller, 0).welcomed()
    }

    pub(crate) fn cancel(&self, process: i32, key: &[u8]) {
        cancel(self.config.postgres, process, key);
    }

    /// From another of this machine's addresses.
    pub(crate) fn cancel_from(&self, from: IpAddr, process: i32, key: &[u8]) {
        let stream = self.runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            socket.connect(self.config.postgres).await.unwrap()
        });
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        cancel_over(stream, process, key);
    }

    /// Waits until so many statements that begin like this run, or wait, at the server.
    pub(crate) fn until_running(&self, statement: &str, count: usize) {
        let active = "SELECT query FROM pg_stat_activity WHERE usename LIKE 'gp\\_%' AND state = 'active'";
        super::wait_for(&format!("{count} times {statement}"), || {
            let running = self.sql(active);
            let running = running.lines().filter(|line| line.starts_with(statement));
            (running.count() == count).then_some(())
        });
    }
}
