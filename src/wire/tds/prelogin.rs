//! The first message of either side: a table of options and their values, in which the two agree on
//! encryption (MS-TDS 2.2.6.5). It is sent before TLS in versions 7, and inside TLS in version 8.

use std::fmt;

use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::packet::{Expected, PACKET_BYTES_MAX, PacketKind};
use crate::wire::tds::version::ProgramVersion;

/// Real ones take 30 to 120 bytes, an instance name included; this is read before anybody is known.
pub const PAYLOAD_BYTES_MAX: usize = 1024;

/// Eight options are defined; there is room for as many again.
pub const OPTIONS_MAX: usize = 16;

/// What a server awaits first.
pub const FROM_CLIENT: Expected = Expected {
    kinds: &[PacketKind::Prelogin],
    what: "PRELOGIN",
    payload_bytes_max: PAYLOAD_BYTES_MAX,
    packet_bytes_max: PACKET_BYTES_MAX,
};

/// What a client awaits first.
pub const FROM_SERVER: Expected = Expected {
    kinds: &[PacketKind::Reply],
    what: "the answer to PRELOGIN",
    payload_bytes_max: PAYLOAD_BYTES_MAX,
    packet_bytes_max: PACKET_BYTES_MAX,
};

pub const NONCE_BYTES: usize = 32;

/// Token, offset, length.
const ENTRY_BYTES: usize = 5;

/// "PL_OPTION_TOKEN".
mod option {
    pub(super) const VERSION: u8 = 0x00;
    pub(super) const ENCRYPTION: u8 = 0x01;
    pub(super) const INSTOPT: u8 = 0x02;
    pub(super) const THREADID: u8 = 0x03;
    pub(super) const MARS: u8 = 0x04;
    pub(super) const TRACEID: u8 = 0x05;
    pub(super) const FEDAUTHREQUIRED: u8 = 0x06;
    pub(super) const NONCEOPT: u8 = 0x07;
    pub(super) const TERMINATOR: u8 = 0xff;
}

/// What a side can or wants to encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Only the login.
    Off,
    On,
    NotSupported,
    Required,
}

/// The client would show a certificate ("ENCRYPT_CLIENT_CERT").
const CLIENT_CERTIFICATE: u8 = 0x80;

impl Encryption {
    pub const fn code(self) -> u8 {
        match self {
            Self::Off => 0x00,
            Self::On => 0x01,
            Self::NotSupported => 0x02,
            Self::Required => 0x03,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code & !CLIENT_CERTIFICATE {
            0x00 => Some(Self::Off),
            0x01 => Some(Self::On),
            0x02 => Some(Self::NotSupported),
            0x03 => Some(Self::Required),
            _ => None,
        }
    }
}

/// As Windows keeps it: the first three groups with the small byte first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, rest @ ..] = self.0;
        let first = u32::from_le_bytes([a, b, c, d]);
        let (second, third) = (u16::from_le_bytes([e, g]), u16::from_le_bytes([h, i]));
        let [j, k, node @ ..] = rest;
        write!(f, "{first:08x}-{second:04x}-{third:04x}-{j:02x}{k:02x}-")?;
        node.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

/// By what a client's traces name this connection ("TRACEID"); drivers print the first as
/// `ClientConnectionId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId {
    pub connection: Guid,
    pub activity: Guid,
    pub sequence: u32,
}

/// What was sent; what was not is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prelogin {
    pub version: Option<ProgramVersion>,
    pub encryption: Option<Encryption>,
    /// Without its NUL. From a server: empty for "the right one", `01` for "another one".
    pub instance: Option<Vec<u8>>,
    pub thread: Option<u32>,
    pub mars: Option<bool>,
    pub trace: Option<TraceId>,
    /// A client: it knows federated authentication. A server: it wants nothing else.
    pub federated: Option<bool>,
    pub nonce: Option<[u8; NONCE_BYTES]>,
}

impl Prelogin {
    pub fn decode(payload: &[u8]) -> Result<Self, PeerMisbehaved> {
        let mut prelogin = Self::default();
        let (entries, table_bytes) = entries(payload)?;
        let mut taken: Vec<(usize, usize)> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let what = "PRELOGIN option";
            let again = entries.iter().take(index).any(|other| other.token == entry.token);
            if again {
                return Err(PeerMisbehaved::Twice { what });
            }
            let range = entry.start..entry.end;
            let value = payload.get(range).ok_or(PeerMisbehaved::OutOfRange { what })?;
            if !value.is_empty() {
                let over = |(start, end): &(usize, usize)| entry.start < *end && *start < entry.end;
                if entry.start < table_bytes || taken.iter().any(over) {
                    return Err(PeerMisbehaved::Overlapping { what });
                }
                taken.push((entry.start, entry.end));
                prelogin.received(entry.token, value)?;
            }
        }
        Ok(prelogin)
    }

    /// One option with a value. An option without one (servers answer THREADID so) says nothing.
    fn received(&mut self, token: u8, value: &[u8]) -> Result<(), PeerMisbehaved> {
        match token {
            option::VERSION => {
                let mut cursor = Cursor::new("PRELOGIN version", value);
                self.version = Some(ProgramVersion {
                    major: cursor.u8()?,
                    minor: cursor.u8()?,
                    build: cursor.u16()?,
                    sub_build: cursor.u16_le()?,
                });
                cursor.finish()
            }
            option::ENCRYPTION => {
                let what = "PRELOGIN encryption";
                let code = byte(what, value)?;
                let known = Encryption::of(code).ok_or(PeerMisbehaved::UnknownValue { what })?;
                self.encryption = Some(known);
                Ok(())
            }
            option::INSTOPT => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                self.instance = Some(name.to_vec());
                Ok(())
            }
            option::THREADID => {
                let mut cursor = Cursor::new("PRELOGIN thread", value);
                self.thread = Some(cursor.u32_le()?);
                cursor.finish()
            }
            option::MARS => {
                self.mars = Some(flag("PRELOGIN MARS", value)?);
                Ok(())
            }
            option::TRACEID => {
                let mut cursor = Cursor::new("PRELOGIN trace", value);
                self.trace = Some(TraceId {
                    connection: Guid(cursor.array()?),
                    activity: Guid(cursor.array()?),
                    sequence: cursor.u32_le()?,
                });
                cursor.finish()
            }
            option::FEDAUTHREQUIRED => {
                self.federated = Some(flag("PRELOGIN FEDAUTHREQUIRED", value)?);
                Ok(())
            }
            option::NONCEOPT => {
                let mut cursor = Cursor::new("PRELOGIN nonce", value);
                self.nonce = Some(cursor.array()?);
                cursor.finish()
            }
            _ => Ok(()),
        }
    }

    /// Appends the payload, for [`crate::wire::tds::packet`] to put into packets.
    pub fn put(&self, out: &mut Vec<u8>) {
        let values = self.values();
        let table_bytes = values.len().saturating_mul(ENTRY_BYTES).saturating_add(1);
        let mut offset = table_bytes;
        for (token, value) in &values {
            // Far below the field's end: an instance name comes from our settings.
            let word = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
            out.push(*token);
            out.extend_from_slice(&word(offset));
            out.extend_from_slice(&word(value.len()));
            offset = offset.saturating_add(value.len());
        }
        out.push(option::TERMINATOR);
        out.extend(values.into_iter().flat_map(|(_, value)| value));
    }

    /// Tokens with their values, in the order of their numbers, as everybody sends them.
    fn values(&self) -> Vec<(u8, Vec<u8>)> {
        let mut values = Vec::new();
        if let Some(version) = self.version {
            let mut value = version.short().to_vec();
            value.extend_from_slice(&version.sub_build.to_le_bytes());
            values.push((option::VERSION, value));
        }
        if let Some(encryption) = self.encryption {
            values.push((option::ENCRYPTION, vec![encryption.code()]));
        }
        if let Some(instance) = &self.instance {
            let mut value = instance.clone();
            value.push(0);
            values.push((option::INSTOPT, value));
        }
        if let Some(thread) = self.thread {
            values.push((option::THREADID, thread.to_le_bytes().to_vec()));
        }
        if let Some(mars) = self.mars {
            values.push((option::MARS, vec![u8::from(mars)]));
        }
        if let Some(trace) = self.trace {
            let sequence = trace.sequence.to_le_bytes();
            let value = [&trace.connection.0[..], &trace.activity.0, &sequence].concat();
            values.push((option::TRACEID, value));
        }
        if let Some(federated) = self.federated {
            values.push((option::FEDAUTHREQUIRED, vec![u8::from(federated)]));
        }
        if let Some(nonce) = self.nonce {
            values.push((option::NONCEOPT, nonce.to_vec()));
        }
        values
    }
}

/// One line of the table.
struct Entry {
    token: u8,
    start: usize,
    end: usize,
}

/// The table, and how many bytes it takes.
fn entries(payload: &[u8]) -> Result<(Vec<Entry>, usize), PeerMisbehaved> {
    let what = "PRELOGIN";
    let mut cursor = Cursor::new(what, payload);
    let mut entries = Vec::new();
    loop {
        let token = cursor.u8()?;
        if token == option::TERMINATOR {
            let table_bytes = payload.len().saturating_sub(cursor.remaining());
            return Ok((entries, table_bytes));
        }
        if entries.len() >= OPTIONS_MAX {
            return Err(PeerMisbehaved::TooMany {
                what,
                limit: OPTIONS_MAX,
            });
        }
        let start = usize::from(cursor.u16()?);
        let end = start.saturating_add(usize::from(cursor.u16()?));
        entries.push(Entry { token, start, end });
    }
}

fn byte(what: &'static str, value: &[u8]) -> Result<u8, PeerMisbehaved> {
    let mut cursor = Cursor::new(what, value);
    let byte = cursor.u8()?;
    cursor.finish()?;
    Ok(byte)
}

fn flag(what: &'static str, value: &[u8]) -> Result<bool, PeerMisbehaved> {
    match byte(what, value)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(PeerMisbehaved::UnknownValue { what }),
    }
}

#[cfg(test)]
mod tests;
