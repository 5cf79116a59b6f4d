//! A stand-in for Azure's endpoints that give tokens of gatepost's own identity, and gatepost where it
//! finds that one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use super::world::World;

/// Nothing like it stands anywhere by accident.
pub(crate) const TOKEN: &str =
    "eyJ0b2tlbiI6Im9mIGdhdGVwb3N0In0.c2hvd24tdG8tdGhlLWRhdGFiYXNlLW9ubHk.c2lnbmF0dXJl";

/// Answers all requests with the token once it is there, and keeps the requests.
pub(crate) struct TokenGiver {
    address: SocketAddr,
    token: Arc<Mutex<Option<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TokenGiver {
    /// The thread ends with the test's process.
    pub(crate) fn start(token: Option<&str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let giver = Self {
            address: listener.local_addr().unwrap(),
            token: Arc::new(Mutex::new(token.map(str::to_owned))),
            asked: Arc::default(),
        };
        let (token, asked) = (Arc::clone(&giver.token), Arc::clone(&giver.asked));
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                asked.lock().unwrap().push(read_head(&mut socket));
                let (status, body) = match &*token.lock().unwrap() {
                    Some(token) => (
                        "200 OK",
                        format!(
                            r#"{{"access_token": "{token}", "expires_in": "3600", "token_type": "Bearer"}}"#
                        ),
                    ),
                    None => (
                        "400 Bad Request",
                        r#"{"error": "invalid_request", "error_description": "Identity not found"}"#
                            .to_owned(),
                    ),
                };
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        giver
    }

    pub(crate) fn give(&self, token: &str) {
        *self.token.lock().unwrap() = Some(token.to_owned());
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// gatepost finds it as the metadata service of its machine.
    pub(crate) fn beside(&self, command: &mut Command) {
        let origin = format!("http://{}", self.address);
        command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", origin);
    }

    /// gatepost finds it as an app of App Service does.
    pub(crate) fn around(&self, command: &mut Command, proof: &str) {
        let endpoint = format!("http://{}/msi/token", self.address);
        command
            .env("IDENTITY_ENDPOINT", endpoint)
            .env("IDENTITY_HEADER", proof);
    }

    /// A command that reads the configuration: was it content, and all that it said.
    pub(crate) fn gatepost(&self, world: &World, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command
            .args(arguments)
            .args(["--config", "gatepost.yaml"])
            .current_dir(world.path("."));
        self.beside(&mut command);
        let output = command.output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(told).unwrap())
    }
}

impl World {
    /// The proxy beside a metadata service; does not wait.
    pub(crate) fn launch_beside(&mut self, giver: &TokenGiver) {
        self.launch_with(|mut command| {
            giver.beside(&mut command);
            command
        });
    }

    /// Neither gatepost nor the server wrote it down, nor any part of it.
    pub(crate) fn token_is_nowhere(&self, token: &str) {
        let server = fs::read_to_string(self.path("postgres/postgres.log")).unwrap();
        let journal = format!("{:?}", self.records());
        for (text, of) in [
            (self.log(), "gatepost"),
            (server, "the server"),
            (journal, "the journal"),
        ] {
            // That statement, which made the role, is the test's own.
            let lines = text.lines().filter(|line| !line.contains("CREATE ROLE"));
            for (line, part) in lines.flat_map(|line| token.split('.').map(move |part| (line, part))) {
                assert!(!line.contains(part), "{of} wrote the token down");
            }
        }
    }
}

fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() > 0 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
