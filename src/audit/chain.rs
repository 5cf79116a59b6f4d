//! How lines hold together. Pure: bytes in, bytes out.
//!
//! A line is one JSON object whose last members are `prev` and `hash` (a head has `signature` behind
//! them). Its *canonical bytes* are the line's own bytes from the first `{` up to, and without, the
//! nine bytes `,"hash":"`; they end with the `prev` member. `hash` is SHA-256 over the 32 bytes that
//! `prev` spells and then the canonical bytes. So nobody has to parse or re-print JSON to check one.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize, Serializer};

use crate::audit::key::{SIGNATURE_BYTES, Signature};

const HASH_BYTES: usize = 32;
const PREV: &[u8] = br#","prev":""#;
const HASH: &[u8] = br#","hash":""#;
const SIGNATURE: &[u8] = br#"","signature":""#;
const END: &[u8] = br#""}"#;

/// A SHA-256 value. Printed in lower-case hexadecimal, and read in that form only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; HASH_BYTES]);

impl Hash {
    /// Stands in `prev` of the first record of a journal.
    pub const ZERO: Self = Self([0; HASH_BYTES]);

    /// The hash of all `parts`, one after the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut sha = digest::Context::new(&digest::SHA256);
        parts.iter().for_each(|part| sha.update(part));
        let mut bytes = [0; HASH_BYTES];
        // A SHA-256 digest always has 32 bytes.
        let finished = sha.finish();
        bytes
            .iter_mut()
            .zip(finished.as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    pub(crate) const fn bytes(self) -> [u8; HASH_BYTES] {
        self.0
    }

    /// Reads 64 lower-case hexadecimal digits.
    pub fn read(text: &str) -> Option<Self> {
        unhex(text.as_bytes()).map(Self)
    }

    #[cfg(test)]
    pub(crate) const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The end of a chain: what the next record has to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Sequence number of the last record; 0 before the first.
    pub seq: u64,
    pub hash: Hash,
}

impl Link {
    /// Before the first record of a journal.
    pub const START: Self = Self {
        seq: 0,
        hash: Hash::ZERO,
    };

    /// Closes the JSON object that stands in `out` from `start` on (it has to end with `}`) as the
    /// record after this link. The caller adds a signature, if any, and the line feed.
    pub(crate) fn seal(self, out: &mut Vec<u8>, start: usize) -> Self {
        out.pop();
        out.extend_from_slice(PREV);
        push_hex(out, &self.hash.0);
        out.push(b'"');
        let canonical = out.get(start..).unwrap_or_default();
        let hash = Hash::of(&[&self.hash.0, canonical]);
        out.extend_from_slice(HASH);
        push_hex(out, &hash.0);
        out.extend_from_slice(END);
        Self {
            seq: self.seq.saturating_add(1),
            hash,
        }
    }
}

/// Adds the signature to a sealed head.
pub(crate) fn sign(out: &mut Vec<u8>, signature: &Signature) {
    out.truncate(out.len().saturating_sub(END.len()));
    out.extend_from_slice(SIGNATURE);
    push_hex(out, &signature.0);
    out.extend_from_slice(END);
}

/// One line, taken apart. That it could be taken apart proves nothing yet: see [`Line::intact`].
#[derive(Clone, Debug)]
pub struct Line<'a> {
    pub seq: u64,
    pub epoch: u64,
    pub event: Cow<'a, str>,
    pub prev: Hash,
    pub hash: Hash,
    /// Heads only.
    pub signed: Option<Signed<'a>>,
    canonical: &'a [u8],
}

/// What a head has besides.
#[derive(Clone, Debug)]
pub struct Signed<'a> {
    pub key: Cow<'a, str>,
    pub signature: Signature,
}

#[derive(Deserialize)]
struct Members<'a> {
    v: u64,
    seq: u64,
    epoch: u64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    detail: HeadDetail<'a>,
}

#[derive(Default, Deserialize)]
struct HeadDetail<'a> {
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
}

/// The version of the format, in `v`.
pub const FORMAT: u64 = 1;
/// The `event` of a head.
pub const HEAD: &str = "head";

impl<'a> Line<'a> {
    /// Takes a line apart (without its line feed). `None`: gatepost did not write it like that.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let (rest, signature) = strip_signature(line);
        let (canonical, hash) = strip_hex::<HASH_BYTES>(rest, HASH)?;
        let (_, prev) = strip_hex::<HASH_BYTES>(canonical.strip_suffix(b"\"")?, PREV)?;
        let members: Members<'a> = serde_json::from_slice(line).ok()?;
        let is_head = members.event == HEAD;
        if members.v != FORMAT || is_head != signature.is_some() {
            return None;
        }
        let signed = match signature {
            Some(bytes) => Some(Signed {
                key: members.detail.key?,
                signature: Signature(bytes),
            }),
            None => None,
        };
        Some(Self {
            seq: members.seq,
            epoch: members.epoch,
            event: members.event,
            prev: Hash(prev),
            hash: Hash(hash),
            signed,
            canonical,
        })
    }

    /// Is `hash` the hash of this line? (Whether the line stands in its place is another question.)
    pub fn intact(&self) -> bool {
        Hash::of(&[&self.prev.0, self.canonical]) == self.hash
    }

    /// Is this the record that follows `link`, untouched?
    pub fn continues(&self, link: Link) -> bool {
        link.seq.checked_add(1) == Some(self.seq) && self.prev == link.hash && self.intact()
    }

    pub const fn link(&self) -> Link {
        Link {
            seq: self.seq,
            hash: self.hash,
        }
    }
}

/// Reads the signature that a line of kept heads spells.
pub(crate) fn read_signature(digits: &str) -> Option<Signature> {
    unhex(digits.as_bytes()).map(Signature)
}

/// Splits `…","signature":"<hex>"}` into `…` and the signature; a line without one loses its `"}`.
fn strip_signature(line: &[u8]) -> (&[u8], Option<[u8; SIGNATURE_BYTES]>) {
    let rest = line.strip_suffix(END).unwrap_or_default();
    match strip_hex::<SIGNATURE_BYTES>(rest, SIGNATURE) {
        Some((rest, signature)) => (rest, Some(signature)),
        None => (rest, None),
    }
}

/// Splits `<rest><label><hex of N bytes>`.
fn strip_hex<'a, const N: usize>(bytes: &'a [u8], label: &[u8]) -> Option<(&'a [u8], [u8; N])> {
    let (rest, digits) = bytes.split_at_checked(bytes.len().checked_sub(2 * N)?)?;
    Some((rest.strip_suffix(label)?, unhex(digits)?))
}

fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.extend(DIGITS.get(usize::from(nibble)));
        }
    }
}

/// Lower case only, so that no other spelling of the same value passes.
fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | value;
        }
    }
    Some(bytes)
}
