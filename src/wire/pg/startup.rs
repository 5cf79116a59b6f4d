//! The first packet of a connection: the one kind of message that has no type byte, only a length and
//! a code.

use std::fmt;

use crate::wire::Decoded;
use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::pg::frame;
use crate::wire::pg::from_server;

/// PostgreSQL's MAX_STARTUP_PACKET_LENGTH (`src/include/libpq/pqcomm.h`), which does not count the
/// length word. What it accepts we accept, no more: this is read before anybody is known.
pub const BODY_BYTES_MAX: usize = 10_000;

/// Codes in place of a protocol version ("SSLRequest", "GSSENCRequest", "CancelRequest").
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

pub const MAJOR: u16 = 3;
/// The newest minor version that we speak; 3.2 came with PostgreSQL 18 and changed only the length of
/// cancel keys.
pub const MINOR_MAX: u16 = 2;

/// Parameters so named are protocol extensions, not settings ("Message Flow", "Start-up").
const OPTION_PREFIX: &str = "_pq_.";

/// First byte of a TLS record of type handshake (RFC 8446, 5.1). A start-up packet cannot begin with
/// it: its length would be 352 MiB and more.
const TLS_HANDSHAKE: u8 = 0x16;

/// The version word of 3.`minor`.
pub const fn version(minor: u16) -> u32 {
    // Lossless; `u32::from` is not const yet.
    ((MAJOR as u32) << 16) | minor as u32
}

/// Whether a client begins with TLS at once (`sslnegotiation=direct`), told by its first byte.
pub fn is_direct_tls(input: &[u8]) -> bool {
    input.first() == Some(&TLS_HANDSHAKE)
}

#[derive(Clone, PartialEq, Eq)]
pub struct Startup {
    /// What the client asked for, which may be more than there is.
    pub asked_minor: u16,
    /// The version that both speak: 0 or 2.
    pub minor: u16,
    /// As sent and in that order, without the protocol options.
    pub parameters: Vec<(String, String)>,
    /// Names of `_pq_.` options. We know none.
    pub unknown_options: Vec<String>,
}

impl Startup {
    /// The value of a parameter; of several the last, as in PostgreSQL.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rev().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the client must hear what we do not offer. To one that asked for nothing more the
    /// message is fatal (libpq: "negotiated but asks for no changes").
    pub fn needs_negotiation(&self) -> bool {
        self.asked_minor > MINOR_MAX || !self.unknown_options.is_empty()
    }
}

/// Without values: somebody will put a token into one.
impl fmt::Debug for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Startup")
            .field("asked_minor", &self.asked_minor)
            .field("parameters", &self.parameters.len())
            .field("unknown_options", &self.unknown_options.len())
            .finish()
    }
}

#[derive(Clone, PartialEq, Eq)]
pub enum FirstPacket {
    Ssl,
    Gss,
    Cancel { process: i32, key: Vec<u8> },
    Startup(Startup),
}

/// Without the cancel key, which is a secret.
impl fmt::Debug for FirstPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssl => f.write_str("Ssl"),
            Self::Gss => f.write_str("Gss"),
            Self::Cancel { process, .. } => f.debug_struct("Cancel").field("process", process).finish(),
            Self::Startup(startup) => f.debug_tuple("Startup").field(startup).finish(),
        }
    }
}

/// Reads a first packet at the front of `input`; also says how many bytes it takes.
pub fn first_packet(input: &[u8]) -> Result<Decoded<(FirstPacket, usize)>, PeerMisbehaved> {
    let what = "start-up packet";
    let mut cursor = Cursor::new(what, input);
    let Ok(word) = cursor.u32() else {
        return Ok(Decoded::NeedMore {
            at_least: frame::LENGTH_BYTES,
        });
    };
    let length = usize::try_from(word).unwrap_or(usize::MAX);
    let body_bytes = length.saturating_sub(frame::LENGTH_BYTES);
    if body_bytes > BODY_BYTES_MAX {
        return Err(PeerMisbehaved::TooLarge {
            what,
            length: body_bytes,
            limit: BODY_BYTES_MAX,
        });
    }
    if body_bytes < size_of::<u32>() {
        return Err(PeerMisbehaved::LengthTooSmall { what, length: word });
    }
    let Ok(body) = cursor.bytes(body_bytes) else {
        return Ok(Decoded::NeedMore { at_least: length });
    };
    let mut body = Cursor::new(what, body);
    let packet = match body.u32()? {
        SSL_REQUEST => {
            body.finish()?;
            FirstPacket::Ssl
        }
        GSS_REQUEST => {
            body.finish()?;
            FirstPacket::Gss
        }
        CANCEL_REQUEST => {
            let process = body.i32()?;
            FirstPacket::Cancel {
                process,
                key: from_server::cancel_key("cancel request", body)?.to_vec(),
            }
        }
        version => FirstPacket::Startup(startup(version, body)?),
    };
    Ok(Decoded::Message((packet, length)))
}

fn startup(version: u32, mut body: Cursor<'_>) -> Result<Startup, PeerMisbehaved> {
    let [a, b, c, d] = version.to_be_bytes();
    let (major, asked_minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if major != MAJOR {
        return Err(PeerMisbehaved::UnsupportedProtocol {
            major,
            minor: asked_minor,
        });
    }
    let mut startup = Startup {
        asked_minor,
        // 3.1 was never released; PostgreSQL takes it for 3.0.
        minor: if asked_minor >= MINOR_MAX { MINOR_MAX } else { 0 },
        parameters: Vec::new(),
        unknown_options: Vec::new(),
    };
    loop {
        let name = text("start-up parameter's name", body.cstr()?)?;
        if name.is_empty() {
            break;
        }
        let value = text("start-up parameter", body.cstr()?)?;
        if name.starts_with(OPTION_PREFIX) {
            startup.unknown_options.push(name);
        } else {
            startup.parameters.push((name, value));
        }
    }
    body.finish()?;
    Ok(startup)
}

fn text(what: &'static str, bytes: &[u8]) -> Result<String, PeerMisbehaved> {
    String::from_utf8(bytes.to_vec()).map_err(|_| PeerMisbehaved::NotUtf8 { what })
}

pub fn put_startup<'a>(
    out: &mut Vec<u8>,
    minor: u16,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    frame::put_untagged(out, |body| {
        body.extend_from_slice(&version(minor).to_be_bytes());
        for (name, value) in parameters {
            frame::put_cstr(body, name.as_bytes());
            frame::put_cstr(body, value.as_bytes());
        }
        body.push(0);
    });
}

pub fn put_ssl_request(out: &mut Vec<u8>) {
    frame::put_untagged(out, |body| body.extend_from_slice(&SSL_REQUEST.to_be_bytes()));
}

pub fn put_gss_request(out: &mut Vec<u8>) {
    frame::put_untagged(out, |body| body.extend_from_slice(&GSS_REQUEST.to_be_bytes()));
}

pub fn put_cancel_request(out: &mut Vec<u8>, process: i32, key: &[u8]) {
    frame::put_untagged(out, |body| {
        body.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
        body.extend_from_slice(&process.to_be_bytes());
        body.extend_from_slice(key);
    });
}
