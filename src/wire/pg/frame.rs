//! The envelope of every message after the first: one byte of type, four bytes of length (which count
//! themselves, not the type), the body.

use crate::wire::Decoded;
use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;

pub const TAG_BYTES: usize = 1;
pub const LENGTH_BYTES: usize = 4;
pub const HEAD_BYTES: usize = TAG_BYTES + LENGTH_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub tag: u8,
    /// Of the whole message, type and length word included.
    pub length: usize,
}

impl Head {
    pub const fn body_bytes(&self) -> usize {
        self.length.saturating_sub(HEAD_BYTES)
    }
}

/// Reads the head at the front of `input`, of which five bytes are enough. `length_max` bounds the
/// whole message; it is the caller's, for a password has another bound than a row.
pub fn head(input: &[u8], length_max: usize) -> Result<Decoded<Head>, PeerMisbehaved> {
    if input.len() < HEAD_BYTES {
        return Ok(Decoded::NeedMore { at_least: HEAD_BYTES });
    }
    let mut cursor = Cursor::new("message", input);
    let tag = cursor.u8()?;
    let length = length_word("message", cursor.u32()?)?;
    let length = length.saturating_add(TAG_BYTES);
    if length > length_max {
        return Err(PeerMisbehaved::TooLarge {
            what: "message",
            length,
            limit: length_max,
        });
    }
    Ok(Decoded::Message(Head { tag, length }))
}

/// The head and the body of the message at the front of `input`, once all of it is there.
pub fn whole(input: &[u8], length_max: usize) -> Result<Decoded<(Head, &[u8])>, PeerMisbehaved> {
    Ok(match head(input, length_max)? {
        Decoded::NeedMore { at_least } => Decoded::NeedMore { at_least },
        Decoded::Message(head) => match input.get(HEAD_BYTES..head.length) {
            Some(body) => Decoded::Message((head, body)),
            None => Decoded::NeedMore {
                at_least: head.length,
            },
        },
    })
}

/// A length word counts itself, so less than four is nonsense; it is signed on the wire, so more than
/// `i32::MAX` is a negative number.
pub(super) fn length_word(what: &'static str, word: u32) -> Result<usize, PeerMisbehaved> {
    let length = i32::try_from(word)
        .ok()
        .and_then(|length| usize::try_from(length).ok());
    match length {
        Some(length) if length >= LENGTH_BYTES => Ok(length),
        Some(_) | None => Err(PeerMisbehaved::LengthTooSmall { what, length: word }),
    }
}

/// Appends one message; `body` appends its fields.
pub(super) fn put(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    put_untagged(out, body);
}

/// Appends a length word and what `body` appends: a message without a type.
pub(super) fn put_untagged(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    body(out);
    // What we write is bounded far below i32::MAX by what we read; a peer would refuse the
    // saturated length, it could not be led astray by it.
    let length = i32::try_from(out.len().saturating_sub(start)).unwrap_or(i32::MAX);
    if let Some(word) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *word = length.to_be_bytes();
    }
}

/// Appends a NUL-terminated string. A NUL inside would let what follows it pass for further fields, so
/// NULs are left out.
pub(super) fn put_cstr(out: &mut Vec<u8>, text: &[u8]) {
    if text.contains(&0) {
        out.extend(text.iter().copied().filter(|byte| *byte != 0));
    } else {
        out.extend_from_slice(text);
    }
    out.push(0);
}

/// Zero or more NUL-terminated strings, checked when the message was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strings<'a>(&'a [u8]);

impl<'a> Strings<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut cursor = Cursor::new("strings", self.0);
        let text = cursor.cstr().ok();
        self.0 = if text.is_some() { cursor.rest() } else { &[] };
        text
    }
}
