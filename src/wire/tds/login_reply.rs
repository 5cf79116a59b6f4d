//! What a server says to our login, read whole: it is short, and nothing of it is passed on as it is
//! (MS-TDS 2.2.7, the tokens that section 3.2.5.5 permits here).

use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::event::{DoneStatus, kind};
use crate::wire::tds::feature;
use crate::wire::tds::feature::Feature;
use crate::wire::tds::fedauth;
use crate::wire::tds::packet;
use crate::wire::tds::packet::{Expected, PACKET_BYTES_MAX, PacketKind};
use crate::wire::tds::tag;
use crate::wire::tds::utf16;
use crate::wire::tds::version::TdsVersion;

/// Real ones take some hundred bytes; triggers at login may add messages.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Of messages that are kept; further ones are passed over.
pub const MESSAGES_MAX: usize = 32;

/// What a client awaits after its login.
pub const FROM_SERVER: Expected = Expected {
    kinds: &[PacketKind::Reply],
    what: "the answer to the login",
    payload_bytes_max: PAYLOAD_BYTES_MAX,
    packet_bytes_max: PACKET_BYTES_MAX,
};

const WHAT: &str = "login reply";

/// "Protocol" of routing data: TCP.
const TCP: u8 = 0;

/// An ERROR or an INFO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginMessage {
    pub number: u32,
    pub state: u8,
    pub class: u8,
    pub message: String,
}

/// The login goes on at another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    pub host: String,
    pub port: u16,
    /// Only with enhanced routing, which we do not ask for.
    pub database: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginAck {
    pub version: TdsVersion,
    pub program: String,
    pub program_version: [u8; 4],
}

/// Everything that was said; what was not is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginReply {
    pub ack: Option<LoginAck>,
    pub errors: Vec<LoginMessage>,
    pub infos: Vec<LoginMessage>,
    pub database: Option<String>,
    pub language: Option<String>,
    pub collation: Option<[u8; 5]>,
    pub packet_bytes: Option<usize>,
    pub routed: Option<Routed>,
    pub features: Vec<Feature>,
    /// The server would have us fetch a token.
    pub token_asked: bool,
    /// The server would have us prove ourselves as Windows does.
    pub sspi_asked: bool,
    /// There was a DONE, and it was the end. Only what asks something of us ends otherwise.
    pub done: bool,
}

impl LoginReply {
    pub fn decode(payload: &[u8]) -> Result<Self, PeerMisbehaved> {
        let mut reply = Self::default();
        let mut cursor = Cursor::new(WHAT, payload);
        while cursor.remaining() > 0 {
            if reply.done {
                return Err(PeerMisbehaved::TrailingBytes { what: WHAT });
            }
            let token = cursor.u8()?;
            reply.token(token, &mut cursor)?;
        }
        Ok(reply)
    }

    fn token(&mut self, token: u8, cursor: &mut Cursor<'_>) -> Result<(), PeerMisbehaved> {
        match token {
            tag::LOGINACK => self.ack = Some(login_ack_in(counted(cursor)?)?),
            tag::ENVCHANGE => self.changed(counted(cursor)?)?,
            tag::FEATUREEXTACK => self.features = feature::list("FEATUREEXTACK", cursor)?,
            tag::ERROR => keep(&mut self.errors, message(counted(cursor)?)?),
            tag::INFO => keep(&mut self.infos, message(counted(cursor)?)?),
            tag::DONE | tag::DONEPROC | tag::DONEINPROC => {
                let status = DoneStatus(cursor.u16_le()?);
                let _command = cursor.u16_le()?;
                let _rows = cursor.u64_le()?;
                self.done = !status.has_more();
            }
            fedauth::FEDAUTHINFO => {
                fedauth::TokenService::decode(cursor)?;
                self.token_asked = true;
            }
            tag::SSPI => {
                counted(cursor)?;
                self.sspi_asked = true;
            }
            tag::SESSIONSTATE => {
                let length = cursor.u32_le()?;
                cursor.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
            }
            tag::RETURNSTATUS => {
                cursor.u32_le()?;
            }
            tag => return Err(PeerMisbehaved::UnknownTag { tag }),
        }
        Ok(())
    }

    /// An ENVCHANGE. What was before is of no interest.
    fn changed(&mut self, mut body: Cursor<'_>) -> Result<(), PeerMisbehaved> {
        match body.u8()? {
            kind::DATABASE => self.database = Some(b_varchar(&mut body)?),
            kind::LANGUAGE => self.language = Some(b_varchar(&mut body)?),
            kind::PACKET_SIZE => {
                let what = "packet size";
                let size = b_varchar(&mut body)?.parse().ok();
                let size =
                    size.filter(|size| (packet::PACKET_BYTES_MIN..=packet::PACKET_BYTES_MAX).contains(size));
                self.packet_bytes = Some(size.ok_or(PeerMisbehaved::UnknownValue { what })?);
            }
            kind::COLLATION => {
                let length = usize::from(body.u8()?);
                let mut value = Cursor::new("collation", body.bytes(length)?);
                // Empty for "no longer".
                self.collation = if length == 0 { None } else { Some(value.array()?) };
                value.finish()?;
            }
            kind::ROUTING => self.routed = Some(routed(&mut body, false)?),
            kind::ENHANCED_ROUTING => self.routed = Some(routed(&mut body, true)?),
            _ => {}
        }
        Ok(())
    }
}

fn keep(messages: &mut Vec<LoginMessage>, message: LoginMessage) {
    if messages.len() < MESSAGES_MAX {
        messages.push(message);
    }
}

/// A body behind its length in two bytes.
fn counted<'a>(cursor: &mut Cursor<'a>) -> Result<Cursor<'a>, PeerMisbehaved> {
    let length = usize::from(cursor.u16_le()?);
    Ok(Cursor::new(WHAT, cursor.bytes(length)?))
}

fn login_ack_in(mut body: Cursor<'_>) -> Result<LoginAck, PeerMisbehaved> {
    let _interface = body.u8()?;
    let version = TdsVersion(body.u32()?);
    let program = b_varchar(&mut body)?;
    // Drivers find a NUL or two at its end.
    let program = program.trim_end_matches('\0').to_owned();
    let program_version = body.array()?;
    body.finish()?;
    Ok(LoginAck {
        version,
        program,
        program_version,
    })
}

fn message(mut body: Cursor<'_>) -> Result<LoginMessage, PeerMisbehaved> {
    let number = body.u32_le()?;
    let (state, class) = (body.u8()?, body.u8()?);
    let text = us_varchar(&mut body)?;
    let _server = b_varchar(&mut body)?;
    let _procedure = b_varchar(&mut body)?;
    let _line = body.u32_le()?;
    body.finish()?;
    Ok(LoginMessage {
        number,
        state,
        class,
        message: utf16::shown(text),
    })
}

/// A count of characters in one byte, and the text.
fn b_varchar(body: &mut Cursor<'_>) -> Result<String, PeerMisbehaved> {
    let count = usize::from(body.u8()?);
    let bytes = body.bytes(count.saturating_mul(utf16::UNIT_BYTES))?;
    Ok(utf16::shown(bytes))
}

/// A count of characters in two bytes, and the text.
fn us_varchar<'a>(body: &mut Cursor<'a>) -> Result<&'a [u8], PeerMisbehaved> {
    let count = usize::from(body.u16_le()?);
    body.bytes(count.saturating_mul(utf16::UNIT_BYTES))
}

fn routed(body: &mut Cursor<'_>, enhanced: bool) -> Result<Routed, PeerMisbehaved> {
    let what = "routing";
    let length = usize::from(body.u16_le()?);
    let mut value = Cursor::new(what, body.bytes(length)?);
    if value.u8()? != TCP {
        return Err(PeerMisbehaved::UnknownValue { what });
    }
    let port = value.u16_le()?;
    let host = utf16::text(what, us_varchar(&mut value)?)?;
    let database = if enhanced {
        Some(utf16::text(what, us_varchar(&mut value)?)?)
    } else {
        None
    };
    value.finish()?;
    Ok(Routed { host, port, database })
}

#[cfg(test)]
mod tests;
