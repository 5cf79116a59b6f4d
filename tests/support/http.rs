//! Just enough HTTP for a token request and for gatepost's own pages, both on loopback.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Status and body of one exchange; `None` while nobody listens.
pub(crate) fn exchange(origin: &str, request: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(origin).ok()?;
    socket.write_all(request.as_bytes()).ok()?;
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).ok()?;
    let reply = String::from_utf8(reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

pub(crate) fn get(origin: &str, path: &str) -> Option<(u16, String)> {
    exchange(
        origin,
        &format!("GET {path} HTTP/1.1\r\nhost: {origin}\r\nconnection: close\r\n\r\n"),
    )
}

pub(crate) fn post_form(origin: &str, path: &str, form: &str) -> Option<(u16, String)> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: {origin}\r\nconnection: close\r\n");
    let kind = "content-type: application/x-www-form-urlencoded\r\n";
    let length = form.len();
    exchange(
        origin,
        &format!("{head}{kind}content-length: {length}\r\n\r\n{form}"),
    )
}
