//! Reads what may not have arrived whole: little endian, from the beginning of a buffer. Where bytes are missing
//! it says how many there must be before it is worth asking again.

use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::data_type::{Body, Width};
use crate::wire::tds::utf16::{UNIT_BYTES, Utf16};

/// Why an item could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The item has at least so many bytes, counted from where it begins; always more than there are.
    Short {
        at_least: usize,
    },
    /// A type that this code does not know, so that nobody can say where the item ends.
    UnknownType(u8),
    Broken(PeerMisbehaved),
}

impl Stop {
    /// Where nothing more will come: what is short is broken.
    pub(super) fn misbehaved(self, what: &'static str) -> PeerMisbehaved {
        match self {
            Self::Short { .. } => PeerMisbehaved::Truncated { what },
            Self::UnknownType(_) => PeerMisbehaved::UnknownValue { what },
            Self::Broken(misbehaved) => misbehaved,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Incoming<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Incoming<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, taken: 0 }
    }

    /// How many bytes were read.
    pub(super) const fn taken(&self) -> usize {
        self.taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest();
        self.taken = self.bytes.len();
        rest
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let end = self.taken.saturating_add(count);
        let bytes = self
            .bytes
            .get(self.taken..end)
            .ok_or(Stop::Short { at_least: end })?;
        self.taken = end;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Stop> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Stop> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Stop> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text with one byte that counts its UTF-16 units (`B_VARCHAR`).
    pub(super) fn b_varchar(&mut self) -> Result<Utf16<'a>, Stop> {
        let units = usize::from(self.u8()?);
        self.bytes(units.saturating_mul(UNIT_BYTES)).map(Utf16::new)
    }

    /// A text with two bytes that count its UTF-16 units (`US_VARCHAR`).
    pub(super) fn us_varchar(&mut self) -> Result<Utf16<'a>, Stop> {
        let units = usize::from(self.u16()?);
        self.bytes(units.saturating_mul(UNIT_BYTES)).map(Utf16::new)
    }

    /// Bytes with one byte that counts them (`B_VARBYTE`).
    pub(super) fn b_varbyte(&mut self) -> Result<&'a [u8], Stop> {
        let count = usize::from(self.u8()?);
        self.bytes(count)
    }

    /// The length of a value, without the value.
    pub(super) fn length(&mut self, width: Width) -> Result<Body, Stop> {
        let (head, body) = width.head(self.rest()).map_err(|stop| match stop {
            Stop::Short { at_least } => Stop::Short {
                at_least: at_least.saturating_add(self.taken),
            },
            Stop::UnknownType(_) | Stop::Broken(_) => stop,
        })?;
        self.bytes(head)?;
        Ok(body)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let bytes = self.bytes(N)?;
        // `bytes` gave exactly N.
        bytes.first_chunk().copied().ok_or(Stop::Short {
            at_least: self.taken.saturating_add(1),
        })
    }
}

/// Reads within `body`, which is all that there will be.
pub(super) fn within<'a, T>(
    what: &'static str,
    body: &'a [u8],
    read: impl FnOnce(&mut Incoming<'a>) -> Result<T, Stop>,
) -> Result<T, PeerMisbehaved> {
    read(&mut Incoming::new(body)).map_err(|stop| stop.misbehaved(what))
}
