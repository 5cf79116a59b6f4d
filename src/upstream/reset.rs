//! Makes a borrowed connection as good as new, or says that it cannot: role, settings, prepared
//! statements, temporary objects, advisory locks, LISTEN, cursors and sequences of one session never
//! reach the next.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::upstream::ask::{AskError, ask};
use crate::upstream::checkout::{Checkout, Stamp};
use crate::upstream::dial::take_message;
use crate::wire::PeerMisbehaved;
use crate::wire::pg::from_client::put_query;
use crate::wire::pg::from_server::{self, FromServer, TransactionStatus};
use crate::wire::tds::packet::Status;

/// One statement instead of its eleven parts: it forgets what a later server version adds, too. It
/// also deletes our probe, which costs one Parse on the next loan.
const RESET: &[u8] = b"DISCARD ALL";
/// What a reset of SQL Server leaves as it was: the isolation level (MS-TDS 2.2.3.1.2) and, elsewhere than
/// at Microsoft's, the context.
const RESET_SQLSERVER: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET CONTEXT_INFO 0x00";
/// A reset takes well under a millisecond; a server that needs this long is not worth keeping.
const RESET_TIMEOUT: Duration = Duration::from_secs(5);
/// The answers to a reset are short; parameter reports are the longest.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 1024;

/// Proof that a connection was reset and owes nothing. Made only here, for one loan; void as soon
/// as the stream is used again.
#[derive(Debug)]
#[must_use = "give the connection back with it"]
pub struct CleanSlate {
    stamp: Stamp,
}

/// Why a connection cannot be given back.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    #[error("no answer to the reset within {RESET_TIMEOUT:?}")]
    TimedOut,
    #[error("the connection broke during the reset")]
    Broken(#[source] io::Error),
    #[error("the server closed the connection during the reset")]
    Closed,
    #[error("the server does not speak the protocol")]
    Misbehaved(#[source] PeerMisbehaved),
    #[error("unexpected answer to the reset: {0}")]
    Unexpected(&'static str),
    #[error("the reset failed with error {number}")]
    Refused { number: i32 },
    #[error("the reset could not be asked for")]
    Ask(#[from] AskError),
}

/// How far the answer to the reset has come.
enum Answer {
    Awaited,
    Completed,
    Done,
}

impl CleanSlate {
    pub(super) fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

/// Resets the connection and checks every reply. The caller guarantees that nothing is owed and
/// that no transaction is open; if that is not so, the check fails and the connection is not clean.
pub async fn clean(checkout: &mut Checkout) -> Result<CleanSlate, ResetError> {
    let reset = async {
        match checkout.sqlserver() {
            Some(_) => reset_sqlserver(checkout).await,
            None => reset_postgres(checkout).await,
        }
    };
    timeout(RESET_TIMEOUT, reset)
        .await
        .unwrap_or(Err(ResetError::TimedOut))?;
    let stamp = checkout.stamp();
    Ok(CleanSlate { stamp })
}

/// The reset bit on a request of our own, and its acknowledgement.
async fn reset_sqlserver(checkout: &mut Checkout) -> Result<(), ResetError> {
    let answer = ask(checkout, Status::RESET, RESET_SQLSERVER).await?;
    match answer.error {
        Some(number) => Err(ResetError::Refused { number }),
        None if answer.reset => Ok(()),
        None => Err(ResetError::Unexpected("no acknowledgement")),
    }
}

async fn reset_postgres(checkout: &mut Checkout) -> Result<(), ResetError> {
    let mut request = Vec::new();
    put_query(&mut request, RESET);
    let stream = checkout.stream();
    stream.write_all(&request).await.map_err(ResetError::Broken)?;
    stream.flush().await.map_err(ResetError::Broken)?;
    let mut input: Vec<u8> = Vec::new();
    let mut answer = Answer::Awaited;
    loop {
        while let Some((tag, body)) =
            take_message(&mut input, MESSAGE_BYTES_MAX).map_err(ResetError::Misbehaved)?
        {
            let message = from_server::parse(tag, &body).map_err(ResetError::Misbehaved)?;
            answer = answer.step(&message, checkout)?;
        }
        if matches!(answer, Answer::Done) {
            return match input.is_empty() {
                true => Ok(()),
                false => Err(ResetError::Unexpected("bytes after the answer")),
            };
        }
        input.reserve(READ_BYTES);
        let read = checkout.stream().read_buf(&mut input).await;
        if read.map_err(ResetError::Broken)? == 0 {
            return Err(ResetError::Closed);
        }
    }
}

impl Answer {
    fn step(self, message: &FromServer<'_>, checkout: &mut Checkout) -> Result<Self, ResetError> {
        match (self, message) {
            (Self::Awaited, FromServer::CommandComplete { tag }) if *tag == RESET => Ok(Self::Completed),
            (Self::Completed, FromServer::ReadyForQuery(TransactionStatus::Idle)) => Ok(Self::Done),
            // Settings that go back to what they were.
            (at @ (Self::Awaited | Self::Completed), FromServer::ParameterStatus { name, value }) => {
                checkout.note_parameter(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
                Ok(at)
            }
            // What was under way to the last session ends here.
            (
                at @ (Self::Awaited | Self::Completed),
                FromServer::NoticeResponse(_) | FromServer::Notification,
            ) => Ok(at),
            (_, FromServer::ErrorResponse(_)) => Err(ResetError::Unexpected("an error")),
            (Self::Done, _) => Err(ResetError::Unexpected("a message after the answer")),
            (_, _) => Err(ResetError::Unexpected("another message")),
        }
    }
}
