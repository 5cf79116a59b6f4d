//! The envelope of everything: packets of at most some thousand bytes, of which one or more make a
//! message (MS-TDS 2.2.3.1). Lengths stand with the large byte first here, and almost nowhere else.

use std::fmt;

use crate::wire::Decoded;
use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;

pub const HEADER_BYTES: usize = 8;

/// The size of packets until the login is answered (MS-TDS 2.2.3.1.3, and LOGIN7's `PacketSize`).
pub const LOGIN_PACKET_BYTES: usize = 4096;
/// What a client may ask for ("network packet size"), in bytes with the header.
pub const PACKET_BYTES_MIN: usize = 512;
pub const PACKET_BYTES_MAX: usize = 32_767;
/// What gatepost asks of servers and dictates to clients: the same on both sides, so that packets can
/// pass as they are. 8,000 is what Microsoft's own drivers use, and it stays below the 16,383 bytes that
/// go with encryption, so that a packet with its header is one TLS record.
pub const PACKET_BYTES: usize = 8000;

/// What a message is ("Type", 2.2.3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    Batch,
    Rpc,
    /// Everything that a server says.
    Reply,
    Attention,
    Bulk,
    FederatedToken,
    TransactionManager,
    Login7,
    Sspi,
    Prelogin,
}

impl PacketKind {
    pub const ALL: [Self; 10] = [
        Self::Batch,
        Self::Rpc,
        Self::Reply,
        Self::Attention,
        Self::Bulk,
        Self::FederatedToken,
        Self::TransactionManager,
        Self::Login7,
        Self::Sspi,
        Self::Prelogin,
    ];

    pub const fn code(self) -> u8 {
        match self {
            Self::Batch => 0x01,
            Self::Rpc => 0x03,
            Self::Reply => 0x04,
            Self::Attention => 0x06,
            Self::Bulk => 0x07,
            Self::FederatedToken => 0x08,
            Self::TransactionManager => 0x0e,
            Self::Login7 => 0x10,
            Self::Sspi => 0x11,
            Self::Prelogin => 0x12,
        }
    }

    pub const fn of(code: u8) -> Option<Self> {
        match code {
            0x01 => Some(Self::Batch),
            0x03 => Some(Self::Rpc),
            0x04 => Some(Self::Reply),
            0x06 => Some(Self::Attention),
            0x07 => Some(Self::Bulk),
            0x08 => Some(Self::FederatedToken),
            0x0e => Some(Self::TransactionManager),
            0x10 => Some(Self::Login7),
            0x11 => Some(Self::Sspi),
            0x12 => Some(Self::Prelogin),
            _ => None,
        }
    }
}

/// Flags, of which several may be set at once ("Status", 2.2.3.1.2). Bits without a name are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(u8);

impl Status {
    pub const NORMAL: Self = Self(0);
    /// The message ends with this packet.
    pub const EOM: Self = Self(0x01);
    /// With `EOM`: the sender takes the message back.
    pub const IGNORE: Self = Self(0x02);
    /// The session begins anew before the message is looked at. On first packets only.
    pub const RESET: Self = Self(0x08);
    /// The same, but an open transaction stays.
    pub const RESET_SKIP_TRAN: Self = Self(0x10);

    pub const fn new(bits: u8) -> Self {
        Self(bits)
    }

    pub const fn bits(self) -> u8 {
        self.0
    }

    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    pub const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status(0x{:02x})", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: PacketKind,
    pub status: Status,
    /// Of the whole packet, in bytes, the header included.
    pub length: usize,
    /// The server's session; clients leave it 0.
    pub spid: u16,
    /// Counts a message's packets, modulo 256. Nobody checks it.
    pub number: u8,
}

impl Header {
    pub const fn body_bytes(&self) -> usize {
        self.length.saturating_sub(HEADER_BYTES)
    }

    pub const fn is_last(&self) -> bool {
        self.status.has(Status::EOM)
    }
}

/// Reads the header at the front of `input`, of which eight bytes are enough; a type that does not exist
/// is told by the first. `packet_bytes_max` is what was agreed on.
pub fn header(input: &[u8], packet_bytes_max: usize) -> Result<Decoded<Header>, PeerMisbehaved> {
    let what = "packet";
    let mut cursor = Cursor::new(what, input);
    let Some(tag) = input.first().copied() else {
        return Ok(Decoded::NeedMore {
            at_least: HEADER_BYTES,
        });
    };
    let kind = PacketKind::of(tag).ok_or(PeerMisbehaved::UnknownTag { tag })?;
    let Ok([_, status, high, low, spid_high, spid_low, number, _window]) = cursor.array() else {
        return Ok(Decoded::NeedMore {
            at_least: HEADER_BYTES,
        });
    };
    let length = u16::from_be_bytes([high, low]);
    let status = Status::new(status);
    if status.has(Status::RESET.with(Status::RESET_SKIP_TRAN)) {
        return Err(PeerMisbehaved::Contradiction {
            what: "packet status",
        });
    }
    let header = Header {
        kind,
        status,
        length: usize::from(length),
        spid: u16::from_be_bytes([spid_high, spid_low]),
        number,
    };
    if header.length < HEADER_BYTES {
        let length = u32::from(length);
        return Err(PeerMisbehaved::LengthTooSmall { what, length });
    }
    if header.length > packet_bytes_max {
        return Err(PeerMisbehaved::TooLarge {
            what,
            length: header.length,
            limit: packet_bytes_max,
        });
    }
    Ok(Decoded::Message(header))
}

/// Appends a header. A length beyond the field is cut to it; packets are made far below.
pub fn put_header(out: &mut Vec<u8>, header: &Header) {
    let length = u16::try_from(header.length).unwrap_or(u16::MAX);
    out.push(header.kind.code());
    out.push(header.status.bits());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&header.spid.to_be_bytes());
    out.push(header.number);
    out.push(0); // Window, unused
}

/// Appends a whole message of a client, cut into packets of at most `packet_bytes`. `first_status` is for
/// the first packet (a reset); `EOM` is set on the last.
pub fn put_message(
    out: &mut Vec<u8>,
    kind: PacketKind,
    first_status: Status,
    packet_bytes: usize,
    payload: &[u8],
) {
    put_packets(out, kind, (first_status, 0), packet_bytes, payload);
}

/// Appends a whole reply of a server whose session is `spid`.
pub fn put_reply(out: &mut Vec<u8>, spid: u16, packet_bytes: usize, payload: &[u8]) {
    let beginning = (Status::NORMAL, spid);
    put_packets(out, PacketKind::Reply, beginning, packet_bytes, payload);
}

fn put_packets(
    out: &mut Vec<u8>,
    kind: PacketKind,
    (mut status, spid): (Status, u16),
    packet_bytes: usize,
    payload: &[u8],
) {
    let packet_bytes = packet_bytes.clamp(PACKET_BYTES_MIN, PACKET_BYTES_MAX);
    let body_bytes = packet_bytes.saturating_sub(HEADER_BYTES);
    let mut rest = payload;
    let mut number: u8 = 1;
    loop {
        let (body, after) = rest.split_at_checked(body_bytes).unwrap_or((rest, &[]));
        if after.is_empty() {
            status = status.with(Status::EOM);
        }
        let header = Header {
            kind,
            status,
            length: body.len().saturating_add(HEADER_BYTES),
            spid,
            number,
        };
        put_header(out, &header);
        out.extend_from_slice(body);
        if after.is_empty() {
            return;
        }
        (rest, status, number) = (after, Status::NORMAL, number.wrapping_add(1));
    }
}

/// A message without its packets.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: PacketKind,
    /// The flags of all packets together.
    pub status: Status,
    /// As the first packet says.
    pub spid: u16,
    pub payload: Vec<u8>,
}

/// Without the payload, which may be a login.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.kind)
            .field("status", &self.status)
            .field("spid", &self.spid)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// What messages an [`Assembler`] takes.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub kinds: &'static [PacketKind],
    /// Named in errors.
    pub what: &'static str,
    /// Of the payloads of one message's packets together.
    pub payload_bytes_max: usize,
    pub packet_bytes_max: usize,
}

/// Collects one message after the other, however its bytes are cut. Holds what has arrived, and never
/// more than `payload_bytes_max` of it.
pub struct Assembler {
    expected: Expected,
    open: Option<Open>,
}

struct Open {
    message: Message,
    /// Of the current packet's body, still to come.
    missing: usize,
}

/// Without the payload, which may be a login.
impl fmt::Debug for Assembler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.open.as_ref().map(|open| &open.message);
        f.debug_struct("Assembler")
            .field("expected", &self.expected)
            .field("open", &open)
            .finish()
    }
}

impl Assembler {
    pub const fn new(expected: Expected) -> Self {
        Self { expected, open: None }
    }

    pub const fn expected(&self) -> Expected {
        self.expected
    }

    /// Takes from the front of `input` what belongs to the message, and says how many bytes that were:
    /// drop them, whatever else comes out. `NeedMore` counts from there.
    pub fn push(&mut self, input: &[u8]) -> Result<(usize, Decoded<Message>), PeerMisbehaved> {
        let mut rest = input;
        loop {
            let mut open = match self.open.take() {
                Some(open) if open.missing > 0 || open.message.status.has(Status::EOM) => open,
                between => match header(rest, self.expected.packet_bytes_max)? {
                    Decoded::Message(header) => {
                        rest = rest.get(HEADER_BYTES..).unwrap_or_default();
                        self.opened(between, &header)?
                    }
                    Decoded::NeedMore { at_least } => {
                        self.check_kind(rest)?;
                        self.open = between;
                        let consumed = input.len().saturating_sub(rest.len());
                        return Ok((consumed, Decoded::NeedMore { at_least }));
                    }
                },
            };
            let (body, after) = rest.split_at_checked(open.missing).unwrap_or((rest, &[]));
            open.message.payload.extend_from_slice(body);
            open.missing = open.missing.saturating_sub(body.len());
            rest = after;
            let consumed = input.len().saturating_sub(rest.len());
            if open.missing > 0 {
                let at_least = open.missing;
                self.open = Some(open);
                return Ok((consumed, Decoded::NeedMore { at_least }));
            }
            if open.message.status.has(Status::EOM) {
                return Ok((consumed, Decoded::Message(open.message)));
            }
            self.open = Some(open);
        }
    }

    /// A packet begins: the message's first, or a further one of `between`.
    fn opened(&self, between: Option<Open>, header: &Header) -> Result<Open, PeerMisbehaved> {
        let what = self.expected.what;
        self.check_code(header.kind.code())?;
        let mut open = between.unwrap_or_else(|| Open {
            message: Message {
                kind: header.kind,
                status: header.status,
                spid: header.spid,
                payload: Vec::new(),
            },
            missing: 0,
        });
        if open.message.kind != header.kind {
            return Err(PeerMisbehaved::Unexpected {
                tag: header.kind.code(),
                awaited: "the rest of a message",
            });
        }
        // Otherwise a message could go on for ever without growing.
        if header.body_bytes() == 0 && !header.is_last() {
            return Err(PeerMisbehaved::Truncated { what });
        }
        let length = open.message.payload.len().saturating_add(header.body_bytes());
        let limit = self.expected.payload_bytes_max;
        if length > limit {
            return Err(PeerMisbehaved::TooLarge { what, length, limit });
        }
        open.message.status = open.message.status.with(header.status);
        open.missing = header.body_bytes();
        Ok(open)
    }

    /// The first byte is judged before the other seven are there.
    fn check_kind(&self, input: &[u8]) -> Result<(), PeerMisbehaved> {
        input.first().map_or(Ok(()), |code| self.check_code(*code))
    }

    fn check_code(&self, code: u8) -> Result<(), PeerMisbehaved> {
        if self.expected.kinds.iter().any(|kind| kind.code() == code) {
            Ok(())
        } else {
            Err(PeerMisbehaved::Unexpected {
                tag: code,
                awaited: self.expected.what,
            })
        }
    }
}

#[cfg(test)]
mod tests;
