//! What a session sets on its upstream connection before the client is welcomed: the things that
//! differ between sessions which share a pool.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::credential::{SETTINGS_CHECK_SQL, TAMPER_CHECK_SQL};
use crate::domain::ids::SessionId;
use crate::session::prelude::{Prelude, PreludeError};
use crate::upstream::checkout::Checkout;
use crate::wire::Decoded;
use crate::wire::pg::frame;
use crate::wire::pg::from_client::put_query;
use crate::wire::pg::from_server::{self, FromServer, TransactionStatus};

/// Two SETs take well under a millisecond; a server that needs this long serves nobody.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The answers are command tags and parameter reports.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 1024;
/// `NAMEDATALEN` less its end: PostgreSQL cuts longer application names.
const APPLICATION_NAME_BYTES_MAX: usize = 63;
/// What the tamper check says in one row: a phrase with one name in it. A record repeats no more.
const PHRASE_BYTES_SHOWN: usize = 160;

/// Names the session to the server, for its log and `pg_stat_activity`; sets the correlation id for
/// triggers to read; and on a new connection asks whether the login is still as it was minted.
pub(super) async fn play(checkout: &mut Checkout, prelude: &Prelude<'_>) -> Result<(), PreludeError> {
    let mut text = String::new();
    if checkout.fresh() {
        text.push_str(if prelude.minted {
            TAMPER_CHECK_SQL
        } else {
            SETTINGS_CHECK_SQL
        });
        text.push(';');
    }
    let name = application_name(prelude.application, prelude.session);
    text.push_str(&format!("SET application_name = {};", literal(&name)));
    if let Some(correlation) = prelude.correlation {
        text.push_str(&format!(
            "SET gatepost.correlation_id = {};",
            literal(&correlation.id)
        ));
    }
    timeout(TIME_MAX, run(checkout, text.as_bytes()))
        .await
        .map_err(|_| PreludeError::TimedOut)?
}

/// The client's own name as far as there is room, and the session's reference.
fn application_name(own: Option<&str>, session: SessionId) -> String {
    let reference = session.to_string();
    let Some(own) = own.filter(|own| !own.is_empty()) else {
        return reference;
    };
    let room = APPLICATION_NAME_BYTES_MAX.saturating_sub(reference.len() + 1);
    let end = (0..=room.min(own.len())).rfind(|end| own.is_char_boundary(*end));
    let own = own.get(..end.unwrap_or_default()).unwrap_or_default();
    format!("{own} {reference}")
}

/// What the server answered.
#[derive(Default)]
struct Heard {
    refused: Option<String>,
    /// What is not as it was minted.
    changes: Vec<String>,
}

async fn run(checkout: &mut Checkout, text: &[u8]) -> Result<(), PreludeError> {
    let mut out = Vec::new();
    put_query(&mut out, text);
    checkout.stream().write_all(&out).await?;
    checkout.stream().flush().await?;
    let mut input = BytesMut::new();
    let mut heard = Heard::default();
    loop {
        let Decoded::Message((head, body)) = frame::whole(&input, MESSAGE_BYTES_MAX)? else {
            input.reserve(READ_BYTES);
            if checkout.stream().read_buf(&mut input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            continue;
        };
        if let Some(status) = heard.message(from_server::parse(head.tag, body)?, checkout) {
            return heard.verdict(status);
        }
        input.advance(head.length);
    }
}

impl Heard {
    /// `Some` at the end.
    fn message(&mut self, message: FromServer<'_>, checkout: &mut Checkout) -> Option<TransactionStatus> {
        if let FromServer::ParameterStatus { name, value } = message {
            let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
            checkout.note_parameter(&name, &value);
        } else if let FromServer::ErrorResponse(fields) = message {
            let sqlstate = fields.get(b'C').map(String::from_utf8_lossy);
            self.refused = Some(sqlstate.unwrap_or_default().into_owned());
        } else if let FromServer::DataRow(row) = message {
            self.changes.extend(row.column(0).flatten().map(shown));
        } else if let FromServer::ReadyForQuery(status) = message {
            return Some(status);
        }
        None
    }

    fn verdict(self, status: TransactionStatus) -> Result<(), PreludeError> {
        match (self.refused, status) {
            (Some(sqlstate), _) => Err(PreludeError::Refused { code: sqlstate }),
            (None, TransactionStatus::InBlock | TransactionStatus::Failed) => Err(PreludeError::NotIdle),
            (None, TransactionStatus::Idle) if self.changes.is_empty() => Ok(()),
            (None, TransactionStatus::Idle) => Err(PreludeError::Tampered {
                what: self.changes.join(", "),
            }),
        }
    }
}

/// Holds a name, which whoever made it could choose within a name's bounds.
fn shown(phrase: &[u8]) -> String {
    let phrase = String::from_utf8_lossy(phrase.get(..PHRASE_BYTES_SHOWN).unwrap_or(phrase));
    phrase.escape_debug().to_string()
}

/// A string constant that reads the same whatever `standard_conforming_strings` and `client_encoding`
/// say: in some encodings the last byte of a character and a backslash behind it are one character.
pub(super) fn literal(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 3);
    text.push_str("E'");
    for c in value.chars().filter(|c| *c != '\0') {
        if matches!(c, '\'' | '\\') {
            text.push(c);
        }
        if c.is_ascii() {
            text.push(c);
        } else {
            text.push_str(&format!("\\U{:08x}", u32::from(c)));
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Random;

    #[derive(Debug)]
    struct Ones;

    impl Random for Ones {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0x11);
        }
    }

    #[test]
    fn the_server_is_told_both_names_and_never_more_than_it_keeps() {
        let session = SessionId::random(&Ones);
        assert_eq!(application_name(None, session), "s-11111111111111111111");
        assert_eq!(
            application_name(Some("billing"), session),
            "billing s-11111111111111111111"
        );
        for long in ["x".repeat(100), "é".repeat(50)] {
            let name = application_name(Some(&long), session);
            assert!(
                name.len() <= 63 && name.ends_with(" s-11111111111111111111"),
                "{name}"
            );
            assert!(name.len() >= 62);
        }
    }

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(literal("a'; drop table x; --"), "E'a''; drop table x; --'");
        assert_eq!(literal(r"\'; drop"), r"E'\\''; drop'");
        assert_eq!(literal("a\0b"), "E'ab'");
        // In SJIS the last byte of this character and a backslash would be one.
        assert_eq!(literal("\u{30c3}\\"), "E'\\U000030c3\\\\'");
    }
}
