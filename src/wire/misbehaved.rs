//! How a peer can break a protocol. Peers are clients and databases alike; the texts name what is
//! wrong and never repeat what was sent, for that may be a secret.

use crate::domain::{Reason, RefusalCode, Refuse};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    #[error("{what} ends too early")]
    Truncated { what: &'static str },
    #[error("{what} has bytes after its end")]
    TrailingBytes { what: &'static str },
    #[error("{what} has a length of {length}, less than its own length word")]
    LengthTooSmall { what: &'static str, length: u32 },
    #[error("{what} is {length} bytes long, the limit is {limit}")]
    TooLarge {
        what: &'static str,
        length: usize,
        limit: usize,
    },
    #[error("{what} holds more than {limit} entries")]
    TooMany { what: &'static str, limit: usize },
    #[error("{what} is not UTF-8")]
    NotUtf8 { what: &'static str },
    #[error("{what} is not UTF-16")]
    NotUtf16 { what: &'static str },
    #[error("{what} points outside of its message")]
    OutOfRange { what: &'static str },
    #[error("{what} lies over another one")]
    Overlapping { what: &'static str },
    #[error("{what} is there twice")]
    Twice { what: &'static str },
    #[error("{what} is missing")]
    Missing { what: &'static str },
    #[error("{what} contradicts itself")]
    Contradiction { what: &'static str },
    #[error("{what} has an unknown value")]
    UnknownValue { what: &'static str },
    #[error("unknown message type 0x{tag:02x}")]
    UnknownTag { tag: u8 },
    #[error("message type 0x{tag:02x} is not possible while waiting for {awaited}")]
    Unexpected { tag: u8, awaited: &'static str },
    #[error("protocol version {major}.{minor} is not supported")]
    UnsupportedProtocol { major: u16, minor: u16 },
    #[error("bytes arrived in clear between the request for TLS and its start")]
    BytesBeforeTls,
    #[error("a second request for {what}")]
    EncryptionAskedTwice { what: &'static str },
}

impl Refuse for PeerMisbehaved {
    fn refusal(&self) -> (RefusalCode, Reason) {
        let reason = match self {
            Self::Truncated { what }
            | Self::TrailingBytes { what }
            | Self::LengthTooSmall { what, .. }
            | Self::NotUtf8 { what }
            | Self::NotUtf16 { what }
            | Self::OutOfRange { what }
            | Self::Overlapping { what }
            | Self::Twice { what }
            | Self::Missing { what }
            | Self::Contradiction { what }
            | Self::UnknownValue { what } => Reason::Malformed { what },
            Self::TooLarge { what, limit, .. } => Reason::TooLarge { what, limit: *limit },
            Self::TooMany { what, .. } => Reason::Malformed { what },
            Self::UnknownTag { .. } => Reason::Malformed { what: "message type" },
            Self::Unexpected { .. } => Reason::Malformed {
                what: "order of messages",
            },
            Self::UnsupportedProtocol { .. } => Reason::Unsupported {
                what: "this protocol version",
            },
            Self::BytesBeforeTls | Self::EncryptionAskedTwice { .. } => Reason::Malformed {
                what: "request for encryption",
            },
        };
        (RefusalCode::ProtocolViolation, reason)
    }
}
