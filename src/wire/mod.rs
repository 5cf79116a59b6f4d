//! What databases talk about: bytes in, messages out. Pure; no sockets, no clock, no logging.
//!
//! Everything here is bounded and total: any bytes from outside end in a message, in
//! [`Decoded::NeedMore`], or in [`PeerMisbehaved`]; never in a panic and never in an allocation that
//! the peer chose the size of.

pub mod cursor;
pub mod misbehaved;
pub mod pg;
pub mod tds;

pub use cursor::Cursor;
pub use misbehaved::PeerMisbehaved;

/// What a codec makes of the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    Message(T),
    /// Not an error: read until the buffer holds `at_least` bytes in total (as far as is known yet; it
    /// is always more than it holds now) and ask again.
    NeedMore {
        at_least: usize,
    },
}

impl<T> Decoded<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Decoded<U> {
        match self {
            Self::Message(message) => Decoded::Message(change(message)),
            Self::NeedMore { at_least } => Decoded::NeedMore { at_least },
        }
    }
}
