//! Gatepost's own small questions on a connection to SQL Server that nobody else uses at the moment.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::upstream::checkout::Checkout;
use crate::wire::tds::event::{EnvChange, Event};
use crate::wire::tds::login_reply;
use crate::wire::tds::packet::{self, Assembler, Expected, PacketKind, Status};
use crate::wire::tds::request::put_batch;
use crate::wire::tds::rows::{self, Value};
use crate::wire::tds::token::{End, Reader};
use crate::wire::{Decoded, PeerMisbehaved};

const READ_BYTES: usize = 4 * 1024;

/// Our questions have one short row for an answer, or an error.
const FROM_SERVER: Expected = Expected {
    what: "the answer to our question",
    ..login_reply::FROM_SERVER
};

/// A whole answer.
#[derive(Debug, Default)]
pub struct Answer {
    payload: Vec<u8>,
    /// The server says that it has reset the session.
    pub reset: bool,
    /// It told of a transaction that began.
    pub began: bool,
    /// The number of the first error.
    pub error: Option<i32>,
}

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the connection is not to a SQL Server")]
    OtherEngine,
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server broke the protocol")]
    Misbehaved(#[from] PeerMisbehaved),
}

impl Answer {
    pub fn first_row(&self) -> Result<Option<Vec<Value>>, PeerMisbehaved> {
        rows::first_row(&self.payload)
    }
}

/// Runs a batch outside of a transaction and reads its whole answer. The caller sets the time limit, and
/// guarantees that nothing is owed. `status` may hold the reset bit.
pub async fn ask(checkout: &mut Checkout, status: Status, text: &str) -> Result<Answer, AskError> {
    let packet_bytes = checkout.sqlserver().ok_or(AskError::OtherEngine)?.packet_bytes;
    let mut payload = Vec::new();
    put_batch(&mut payload, 0, None, text);
    let mut out = Vec::new();
    packet::put_message(&mut out, PacketKind::Batch, status, packet_bytes, &payload);
    let stream = checkout.stream();
    stream.write_all(&out).await?;
    stream.flush().await?;
    let mut assembler = Assembler::new(FROM_SERVER);
    let mut input: Vec<u8> = Vec::new();
    loop {
        let (consumed, decoded) = assembler.push(&input)?;
        input.drain(..consumed.min(input.len()));
        match decoded {
            Decoded::Message(message) if input.is_empty() => return understood(message.payload),
            // Behind the answer nothing may come.
            Decoded::Message(_) => return Err(AskError::Closed),
            Decoded::NeedMore { .. } => {}
        }
        input.reserve(READ_BYTES);
        if stream.read_buf(&mut input).await? == 0 {
            return Err(AskError::Closed);
        }
    }
}

fn understood(payload: Vec<u8>) -> Result<Answer, AskError> {
    let mut answer = Answer::default();
    let mut reader = Reader::default();
    reader.read(&payload, &mut |event| {
        if let Event::EnvChange(change) = event {
            answer.reset |= change == EnvChange::ResetAck;
            answer.began |= matches!(change, EnvChange::Begin { .. });
        } else if let Event::Error(error) = event {
            answer.error = answer.error.or(Some(error.number));
        }
    })?;
    if reader.end() != End::Complete {
        return Err(AskError::Misbehaved(PeerMisbehaved::Truncated {
            what: FROM_SERVER.what,
        }));
    }
    answer.payload = payload;
    Ok(answer)
}
