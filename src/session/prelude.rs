//! What a session sets on its upstream connection before the client is welcomed: the things that
//! differ between sessions which share a pool.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::domain::correlation::Correlation;
use crate::upstream::checkout::Checkout;
use crate::wire::pg::frame;
use crate::wire::pg::from_client::put_query;
use crate::wire::pg::from_server::{self, FromServer, TransactionStatus};
use crate::wire::{Decoded, PeerMisbehaved};

/// Two SETs take well under a millisecond; a server that needs this long serves nobody.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The answers are command tags and parameter reports.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum PreludeError {
    #[error("the server did not answer in time")]
    TimedOut,
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    #[error("the server broke the protocol")]
    Misbehaved(#[from] PeerMisbehaved),
    #[error("the server refused a setting, SQLSTATE {sqlstate}")]
    Refused { sqlstate: String },
    #[error("the server left the transaction open")]
    NotIdle,
}

/// Sets the client's application name, and its correlation id for triggers to read.
pub(super) async fn play(
    checkout: &mut Checkout,
    application: Option<&str>,
    correlation: Option<&Correlation>,
) -> Result<(), PreludeError> {
    let mut text = String::new();
    if let Some(name) = application {
        text.push_str(&format!("SET application_name = {};", literal(name)));
    }
    if let Some(correlation) = correlation {
        text.push_str(&format!(
            "SET gatepost.correlation_id = {};",
            literal(&correlation.id)
        ));
    }
    if text.is_empty() {
        return Ok(());
    }
    timeout(TIME_MAX, run(checkout, text.as_bytes()))
        .await
        .map_err(|_| PreludeError::TimedOut)?
}

async fn run(checkout: &mut Checkout, text: &[u8]) -> Result<(), PreludeError> {
    let mut out = Vec::new();
    put_query(&mut out, text);
    checkout.stream().write_all(&out).await?;
    checkout.stream().flush().await?;
    let mut input = BytesMut::new();
    let mut refused = None;
    loop {
        let Decoded::Message((head, body)) = frame::whole(&input, MESSAGE_BYTES_MAX)? else {
            input.reserve(READ_BYTES);
            if checkout.stream().read_buf(&mut input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            continue;
        };
        let message = from_server::parse(head.tag, body)?;
        if let FromServer::ParameterStatus { name, value } = message {
            let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
            checkout.note_parameter(&name, &value);
        } else if let FromServer::ErrorResponse(fields) = message {
            let sqlstate = fields.get(b'C').map(String::from_utf8_lossy);
            refused = Some(sqlstate.unwrap_or_default().into_owned());
        } else if let FromServer::ReadyForQuery(status) = message {
            return match (refused, status) {
                (Some(sqlstate), _) => Err(PreludeError::Refused { sqlstate }),
                (None, TransactionStatus::Idle) => Ok(()),
                (None, TransactionStatus::InBlock | TransactionStatus::Failed) => Err(PreludeError::NotIdle),
            };
        }
        input.advance(head.length);
    }
}

/// A string constant that reads the same whatever `standard_conforming_strings` says.
fn literal(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 3);
    text.push_str("E'");
    for c in value.chars().filter(|c| *c != '\0') {
        if matches!(c, '\'' | '\\') {
            text.push(c);
        }
        text.push(c);
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(literal("a'; drop table x; --"), "E'a''; drop table x; --'");
        assert_eq!(literal(r"\'; drop"), r"E'\\''; drop'");
        assert_eq!(literal("a\0b"), "E'ab'");
    }
}
