//! What a client asks for, read from the head of its request, and gatepost's own requests.
//!
//! A request may be larger than any buffer, so its head must do: it is read up to
//! [`HEAD_BYTES_MAX`], and what was not seen is said to be cut, never guessed.

use std::fmt;

use crate::wire::Decoded;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::headers::{self, Activity, Headers};
use crate::wire::tds::incoming::{Incoming, Stop};
use crate::wire::tds::rpc::{self, Calls};
use crate::wire::tds::utf16::{self, UNIT_BYTES, Utf16};

/// How much of a request is kept to be read. Statements that people write are far shorter.
pub const HEAD_BYTES_MAX: usize = 1 << 16;

/// Kinds of request: the type in the header of their packets (2.2.3.1.1).
pub mod kind {
    pub const BATCH: u8 = 0x01;
    pub const RPC: u8 = 0x03;
    pub const BULK: u8 = 0x07;
    pub const TRANSACTION: u8 = 0x0E;
}

/// How much of a request's payload has been seen.
#[derive(Clone, Copy)]
pub enum Seen<'a> {
    Whole(&'a [u8]),
    /// More is to come.
    Head(&'a [u8]),
}

impl<'a> Seen<'a> {
    pub(super) const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Whole(bytes) | Self::Head(bytes) => bytes,
        }
    }

    pub(super) const fn is_whole(self) -> bool {
        matches!(self, Self::Whole(_))
    }
}

#[derive(Clone, PartialEq, Eq)]
pub enum Request<'a> {
    Batch(Batch<'a>),
    Rpc(Calls<'a>),
    Transaction(Headers, TransactionRequest<'a>),
    /// Rows for the INSERT BULK before it; nothing in them is read.
    Bulk,
}

/// Only the name: statements hold people's data.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Batch(_) => "Batch",
            Self::Rpc(_) => "Rpc",
            Self::Transaction(..) => "Transaction",
            Self::Bulk => "Bulk",
        })
    }
}

/// Statements (SQLBatch, 2.2.6.7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    pub headers: Headers,
    pub text: Utf16<'a>,
    /// There is more text than was seen.
    pub is_cut: bool,
}

/// A transaction that begins (2.2.6.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin<'a> {
    pub isolation: Isolation,
    pub name: Utf16<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// As the session has it.
    Unchanged,
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
    Snapshot,
}

impl Isolation {
    const fn byte(self) -> u8 {
        match self {
            Self::Unchanged => 0,
            Self::ReadUncommitted => 1,
            Self::ReadCommitted => 2,
            Self::RepeatableRead => 3,
            Self::Serializable => 4,
            Self::Snapshot => 5,
        }
    }

    fn read(incoming: &mut Incoming<'_>) -> Result<Self, Stop> {
        Ok(match incoming.u8()? {
            0 => Self::Unchanged,
            1 => Self::ReadUncommitted,
            2 => Self::ReadCommitted,
            3 => Self::RepeatableRead,
            4 => Self::Serializable,
            5 => Self::Snapshot,
            _ => return Err(Stop::Broken(PeerMisbehaved::UnknownValue { what: WHAT })),
        })
    }
}

/// Transaction manager requests (2.2.6.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionRequest<'a> {
    GetDtcAddress,
    /// The session shall take part in a distributed transaction.
    Propagate,
    Begin(Begin<'a>),
    Promote,
    /// `then` begins the next one at once.
    Commit {
        name: Utf16<'a>,
        then: Option<Begin<'a>>,
    },
    /// With a name, to the savepoint of that name.
    Rollback {
        name: Utf16<'a>,
        then: Option<Begin<'a>>,
    },
    Save {
        name: Utf16<'a>,
    },
}

mod transaction {
    pub(super) const GET_DTC_ADDRESS: u16 = 0;
    pub(super) const PROPAGATE: u16 = 1;
    pub(super) const BEGIN: u16 = 5;
    pub(super) const PROMOTE: u16 = 6;
    pub(super) const COMMIT: u16 = 7;
    pub(super) const ROLLBACK: u16 = 8;
    pub(super) const SAVE: u16 = 9;
}

const WHAT: &str = "transaction manager request";
/// Begin the next transaction at once.
const FLAG_BEGIN: u8 = 0x01;

/// Reads a request of this [kind]. Needs more until its headers are there, and of a transaction manager
/// request all. For a larger head than [`HEAD_BYTES_MAX`] the caller does not wait.
///
/// # Errors
/// When what is there cannot be the beginning of such a request.
pub fn read<'a>(kind: u8, seen: Seen<'a>) -> Result<Decoded<Request<'a>>, PeerMisbehaved> {
    let mut incoming = Incoming::new(seen.bytes());
    if let (kind::TRANSACTION, Seen::Head(head)) = (kind, seen) {
        return whole_wanted(head);
    }
    let read = match kind {
        kind::BATCH => batch(&mut incoming, seen).map(Request::Batch),
        kind::RPC => rpc::read(&mut incoming, seen).map(Request::Rpc),
        kind::TRANSACTION => headers::read(&mut incoming).and_then(|headers| {
            let request = transaction_request(&mut incoming)?;
            Ok(Request::Transaction(headers, request))
        }),
        kind::BULK => return Ok(Decoded::Message(Request::Bulk)),
        tag => return Err(PeerMisbehaved::UnknownTag { tag }),
    };
    match read {
        Ok(request) => Ok(Decoded::Message(request)),
        Err(Stop::Short { at_least }) if !seen.is_whole() => Ok(Decoded::NeedMore { at_least }),
        Err(stop) => Err(stop.misbehaved("request")),
    }
}

/// A transaction manager request is short, so it is read whole.
fn whole_wanted<'a>(head: &[u8]) -> Result<Decoded<Request<'a>>, PeerMisbehaved> {
    let at_least = head.len().saturating_add(1);
    if at_least > HEAD_BYTES_MAX {
        return Err(PeerMisbehaved::TooLarge {
            what: WHAT,
            length: at_least,
            limit: HEAD_BYTES_MAX,
        });
    }
    Ok(Decoded::NeedMore { at_least })
}

fn batch<'a>(incoming: &mut Incoming<'a>, seen: Seen<'a>) -> Result<Batch<'a>, Stop> {
    let headers = headers::read(incoming)?;
    let text = incoming.rest();
    if seen.is_whole() && !text.len().is_multiple_of(UNIT_BYTES) {
        return Err(Stop::Broken(PeerMisbehaved::Truncated { what: "SQLBatch" }));
    }
    Ok(Batch {
        headers,
        text: Utf16::new(text),
        is_cut: !seen.is_whole(),
    })
}

fn transaction_request<'a>(incoming: &mut Incoming<'a>) -> Result<TransactionRequest<'a>, Stop> {
    let request = match incoming.u16()? {
        // Both with a payload of their own, which only the server needs to understand.
        transaction::GET_DTC_ADDRESS => {
            incoming.take_rest();
            TransactionRequest::GetDtcAddress
        }
        transaction::PROPAGATE => {
            incoming.take_rest();
            TransactionRequest::Propagate
        }
        transaction::BEGIN => TransactionRequest::Begin(begin(incoming)?),
        transaction::PROMOTE => TransactionRequest::Promote,
        transaction::COMMIT => TransactionRequest::Commit {
            name: name(incoming)?,
            then: then(incoming)?,
        },
        transaction::ROLLBACK => TransactionRequest::Rollback {
            name: name(incoming)?,
            then: then(incoming)?,
        },
        transaction::SAVE => TransactionRequest::Save {
            name: name(incoming)?,
        },
        _ => return Err(Stop::Broken(PeerMisbehaved::UnknownValue { what: WHAT })),
    };
    if incoming.is_empty() {
        Ok(request)
    } else {
        Err(Stop::Broken(PeerMisbehaved::TrailingBytes { what: WHAT }))
    }
}

fn begin<'a>(incoming: &mut Incoming<'a>) -> Result<Begin<'a>, Stop> {
    Ok(Begin {
        isolation: Isolation::read(incoming)?,
        name: name(incoming)?,
    })
}

/// Counted in bytes, unlike every other name.
fn name<'a>(incoming: &mut Incoming<'a>) -> Result<Utf16<'a>, Stop> {
    incoming.b_varbyte().map(Utf16::new)
}

fn then<'a>(incoming: &mut Incoming<'a>) -> Result<Option<Begin<'a>>, Stop> {
    match incoming.u8()? & FLAG_BEGIN {
        0 => Ok(None),
        _ => begin(incoming).map(Some),
    }
}

/// Appends the payload of a batch.
pub fn put_batch(out: &mut Vec<u8>, descriptor: u64, activity: Option<Activity>, text: &str) {
    headers::put(out, descriptor, activity);
    utf16::put(out, text);
}

/// Appends the payload of a request to begin a transaction, without a name.
pub fn put_begin(out: &mut Vec<u8>, isolation: Isolation) {
    headers::put(out, 0, None);
    out.extend_from_slice(&transaction::BEGIN.to_le_bytes());
    out.extend_from_slice(&[isolation.byte(), 0]);
}

/// Appends the payload of a request to commit; `then` begins the next transaction.
pub fn put_commit(out: &mut Vec<u8>, descriptor: u64, then: Option<Isolation>) {
    put_ending(out, transaction::COMMIT, descriptor, then);
}

/// Appends the payload of a request to roll all of it back.
pub fn put_rollback(out: &mut Vec<u8>, descriptor: u64, then: Option<Isolation>) {
    put_ending(out, transaction::ROLLBACK, descriptor, then);
}

fn put_ending(out: &mut Vec<u8>, request: u16, descriptor: u64, then: Option<Isolation>) {
    headers::put(out, descriptor, None);
    out.extend_from_slice(&request.to_le_bytes());
    out.push(0); // no name
    match then {
        None => out.push(0),
        Some(isolation) => out.extend_from_slice(&[FLAG_BEGIN, isolation.byte(), 0]),
    }
}

#[cfg(test)]
mod tests;
