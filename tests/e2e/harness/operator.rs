//! The local operator: HTTP over the admin socket, as any program would speak it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::world::World;

/// Where the socket is; may be used from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    socket: PathBuf,
}

impl World {
    pub(crate) fn local_operator(&self) -> Operator {
        Operator {
            socket: self.path("admin.sock"),
        }
    }
}

impl Operator {
    /// One request; status and body.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = exchange(&self.socket, method, path, &body);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (
            status.unwrap_or_default(),
            serde_json::from_str(body).unwrap_or(Value::Null),
        )
    }

    /// The same, when it has to go well.
    #[track_caller]
    pub(crate) fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

fn exchange(socket: &Path, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: gatepost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
