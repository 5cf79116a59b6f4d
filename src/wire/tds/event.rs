//! What a reply tells, as far as anybody here wants to know.

use std::fmt;

use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::incoming::{Incoming, Stop, within};
use crate::wire::tds::utf16::Utf16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    EnvChange(EnvChange<'a>),
    Error(Message<'a>),
    Info(Message<'a>),
    Done(Done),
    /// What the procedure returned.
    ReturnStatus(i32),
    /// An output parameter. `value` is that of an integer that is not NULL (the handle of a prepared statement).
    ReturnValue {
        ordinal: u16,
        name: Utf16<'a>,
        status: u8,
        value: Option<i64>,
    },
    /// A result set begins. `at` is where in the message's payload its token stands.
    Columns {
        at: u64,
        count: u16,
    },
    /// A result set begins that the client is said to know; its rows cannot be read.
    ColumnsUntold,
    /// A row begins, of a result set or of its COMPUTE clause.
    Row {
        at: u64,
    },
    /// Another token that was passed over.
    Other {
        token: u8,
    },
    /// The rest of the message cannot be read: nobody knows where its next token begins.
    Lost(Lost),
}

/// Why a reply cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("token 0x{0:02x} is unknown")]
    Token(u8),
    #[error("data type 0x{0:02x} is unknown")]
    DataType(u8),
    #[error("a row of unknown columns")]
    ColumnsUntold,
}

/// Which of the three tokens that end a statement (2.2.7.6 to 2.2.7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneKind {
    /// A statement of a batch.
    Batch,
    /// A procedure.
    Procedure,
    /// A statement within a procedure.
    InProcedure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub kind: DoneKind,
    pub status: DoneStatus,
    /// The kind of statement; not stable over versions of the server.
    pub command: u16,
    /// Means something only where `status` has a count.
    pub rows: u64,
    /// Where in the message's payload the token begins.
    pub at: u64,
}

/// Status bits (2.2.7.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoneStatus(pub u16);

impl DoneStatus {
    pub const FINAL: Self = Self(0);
    pub const MORE: Self = Self(0x01);
    pub const ERROR: Self = Self(0x02);
    pub const IN_TRANSACTION: Self = Self(0x04);
    pub const COUNT: Self = Self(0x10);
    /// Acknowledges an attention.
    pub const ATTENTION: Self = Self(0x20);
    pub const RPC_IN_BATCH: Self = Self(0x80);
    /// The result is of no use, whatever came before.
    pub const SERVER_ERROR: Self = Self(0x100);

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Does another result follow in the same reply?
    pub const fn has_more(self) -> bool {
        self.has(Self::MORE)
    }

    pub const fn is_attention(self) -> bool {
        self.has(Self::ATTENTION)
    }

    pub const fn is_error(self) -> bool {
        self.has(Self::ERROR) || self.has(Self::SERVER_ERROR)
    }
}

/// An ERROR or INFO (2.2.7.10, 2.2.7.13).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub number: i32,
    pub state: u8,
    pub class: u8,
    pub text: Utf16<'a>,
    pub server: Utf16<'a>,
    pub procedure: Utf16<'a>,
    pub line: u32,
}

/// Without its texts, which may hold people's data.
impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number, state, class, ..
        } = self;
        write!(f, "Message({number}, state {state}, class {class})")
    }
}

impl<'a> Message<'a> {
    pub(super) fn parse(what: &'static str, body: &'a [u8]) -> Result<Self, PeerMisbehaved> {
        within(what, body, |incoming| {
            Ok(Self {
                number: incoming.i32()?,
                state: incoming.u8()?,
                class: incoming.u8()?,
                text: incoming.us_varchar()?,
                server: incoming.b_varchar()?,
                procedure: incoming.b_varchar()?,
                line: incoming.u32()?,
            })
        })
    }
}

/// Kinds of ENVCHANGE (2.2.7.9).
pub(super) mod kind {
    pub(in crate::wire::tds) const DATABASE: u8 = 1;
    pub(in crate::wire::tds) const LANGUAGE: u8 = 2;
    pub(in crate::wire::tds) const PACKET_SIZE: u8 = 4;
    pub(in crate::wire::tds) const COLLATION: u8 = 7;
    pub(in crate::wire::tds) const BEGIN: u8 = 8;
    pub(in crate::wire::tds) const COMMIT: u8 = 9;
    pub(in crate::wire::tds) const ROLLBACK: u8 = 10;
    pub(in crate::wire::tds) const ENLIST_DTC: u8 = 11;
    pub(in crate::wire::tds) const DEFECT: u8 = 12;
    pub(in crate::wire::tds) const PROMOTE: u8 = 15;
    pub(in crate::wire::tds) const TRANSACTION_ENDED: u8 = 17;
    pub(in crate::wire::tds) const RESET_ACK: u8 = 18;
    pub(in crate::wire::tds) const ROUTING: u8 = 20;
    pub(in crate::wire::tds) const ENHANCED_ROUTING: u8 = 21;
}

/// What changed in the session. `descriptor` is that of the transaction spoken of, 0 where the server left it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvChange<'a> {
    Database {
        new: Utf16<'a>,
        old: Utf16<'a>,
    },
    Language {
        new: Utf16<'a>,
        old: Utf16<'a>,
    },
    /// In bytes, as decimal text; valid from the next message on.
    PacketSize {
        new: Utf16<'a>,
        old: Utf16<'a>,
    },
    Collation {
        new: &'a [u8],
        old: &'a [u8],
    },
    Begin {
        descriptor: u64,
    },
    Commit {
        descriptor: u64,
    },
    Rollback {
        descriptor: u64,
    },
    EnlistDtc {
        descriptor: u64,
    },
    Defect {
        descriptor: u64,
    },
    Promote,
    TransactionEnded {
        descriptor: u64,
    },
    /// The reset that the request's header asked for was done.
    ResetAck,
    /// Log in there instead.
    Routing {
        port: u16,
        server: Utf16<'a>,
    },
    /// Another kind, left unread.
    Other(u8),
}

impl<'a> EnvChange<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, PeerMisbehaved> {
        within("ENVCHANGE", body, |incoming| {
            Ok(match incoming.u8()? {
                kind::DATABASE => {
                    let (new, old) = texts(incoming)?;
                    Self::Database { new, old }
                }
                kind::LANGUAGE => {
                    let (new, old) = texts(incoming)?;
                    Self::Language { new, old }
                }
                kind::PACKET_SIZE => {
                    let (new, old) = texts(incoming)?;
                    Self::PacketSize { new, old }
                }
                kind::COLLATION => Self::Collation {
                    new: incoming.b_varbyte()?,
                    old: incoming.b_varbyte()?,
                },
                kind::BEGIN => Self::Begin {
                    descriptor: descriptor(incoming)?,
                },
                kind::COMMIT => Self::Commit {
                    descriptor: descriptor(incoming)?,
                },
                kind::ROLLBACK => Self::Rollback {
                    descriptor: descriptor(incoming)?,
                },
                kind::ENLIST_DTC => Self::EnlistDtc {
                    descriptor: descriptor(incoming)?,
                },
                kind::DEFECT => Self::Defect {
                    descriptor: descriptor(incoming)?,
                },
                kind::PROMOTE => Self::Promote,
                kind::TRANSACTION_ENDED => Self::TransactionEnded {
                    descriptor: descriptor(incoming)?,
                },
                kind::RESET_ACK => Self::ResetAck,
                kind::ROUTING | kind::ENHANCED_ROUTING => {
                    incoming.u16()?; // the length of what follows, which says it too
                    incoming.u8()?; // TCP
                    Self::Routing {
                        port: incoming.u16()?,
                        server: incoming.us_varchar()?,
                    }
                }
                other => Self::Other(other),
            })
        })
    }
}

fn texts<'a>(incoming: &mut Incoming<'a>) -> Result<(Utf16<'a>, Utf16<'a>), Stop> {
    Ok((incoming.b_varchar()?, incoming.b_varchar()?))
}

/// The new one where a transaction begins, the old one where it ends; the other is empty.
fn descriptor(incoming: &mut Incoming<'_>) -> Result<u64, Stop> {
    let new = incoming.b_varbyte()?;
    let old = incoming.b_varbyte()?;
    let bytes = new.first_chunk().or(old.first_chunk());
    Ok(bytes.copied().map(u64::from_le_bytes).unwrap_or_default())
}
