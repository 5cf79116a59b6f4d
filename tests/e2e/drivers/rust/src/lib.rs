//! What the two Rust drivers' programs have in common: their surroundings, and a token when the last has
//! ended.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// 5 MB: more than any buffer on the way holds.
pub const LARGE: usize = 5 * 1024 * 1024;

pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| unreachable!("{name} is set by the test"))
}

/// A new one from the provider's token endpoint.
pub fn token() -> String {
    let (url, form) = (env("STORY_TOKEN_URL"), env("STORY_TOKEN_FORM"));
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST /{path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

/// Runs the steps in their order and says so; a step that fails ends the program.
#[macro_export]
macro_rules! steps {
    ($($step:ident),+ $(,)?) => {$(
        let started = ::tokio::time::Instant::now();
        $step().await;
        println!("{}: good ({:.2} s)", stringify!($step), started.elapsed().as_secs_f32());
    )+};
}
