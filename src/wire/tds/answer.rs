//! What gatepost itself says to a client: messages and the end of a reply (MS-TDS 2.2.7.10 ERROR,
//! 2.2.7.13 INFO, 2.2.7.6 DONE).

use crate::wire::tds::utf16;

pub const ERROR: u8 = 0xaa;
pub const INFO: u8 = 0xab;
pub const DONE: u8 = 0xfd;

/// SQL Server cuts its own at 2,047 characters (RAISERROR); ours are short.
pub const MESSAGE_CHARS_MAX: usize = 2047;

/// The names in a message have one byte for their length.
const NAME_CHARS_MAX: usize = 255;

/// Flags of DONE's status.
pub mod done {
    pub const FINAL: u16 = 0x00;
    pub const MORE: u16 = 0x01;
    pub const ERROR: u16 = 0x02;
    pub const COUNT: u16 = 0x10;
    pub const ATTENTION: u16 = 0x20;
    pub const SERVER_ERROR: u16 = 0x100;
}

/// From this class on drivers drop the connection.
pub const CLASS_FATAL: u8 = 20;

/// An ERROR or an INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerMessage<'a> {
    pub number: u32,
    pub state: u8,
    /// Severity: up to 10 it is information.
    pub class: u8,
    pub message: &'a str,
    /// Who says it.
    pub server: &'a str,
    /// Of the batch; from 1 on.
    pub line: u32,
}

pub fn put_error(out: &mut Vec<u8>, error: &ServerMessage<'_>) {
    put(out, ERROR, error);
}

pub fn put_info(out: &mut Vec<u8>, info: &ServerMessage<'_>) {
    put(out, INFO, info);
}

fn put(out: &mut Vec<u8>, token: u8, message: &ServerMessage<'_>) {
    out.push(token);
    put_counted(out, |body| {
        body.extend_from_slice(&message.number.to_le_bytes());
        body.extend_from_slice(&[message.state, message.class]);
        put_us_varchar(body, message.message);
        put_b_varchar(body, message.server);
        put_b_varchar(body, ""); // procedure
        body.extend_from_slice(&message.line.to_le_bytes());
    });
}

/// Appends the end of a reply or, with [`done::MORE`], of one statement. `command` is what it was (0 if
/// nothing).
pub fn put_done(out: &mut Vec<u8>, status: u16, command: u16, rows: u64) {
    out.push(DONE);
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&command.to_le_bytes());
    out.extend_from_slice(&rows.to_le_bytes());
}

/// A body behind its length in two bytes. What we write is far below what fits.
pub(super) fn put_counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; size_of::<u16>()]);
    body(out);
    let written = out.len().saturating_sub(at).saturating_sub(size_of::<u16>());
    let length = u16::try_from(written).unwrap_or(u16::MAX);
    if let Some(word) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *word = length.to_le_bytes();
    }
}

/// A text behind its count of characters in one byte; what is longer is cut.
pub(super) fn put_b_varchar(out: &mut Vec<u8>, text: &str) {
    let text = utf16::cut(text, NAME_CHARS_MAX);
    let count = text.encode_utf16().count();
    out.push(u8::try_from(count).unwrap_or(u8::MAX));
    utf16::put(out, text);
}

fn put_us_varchar(out: &mut Vec<u8>, text: &str) {
    let text = utf16::cut(text, MESSAGE_CHARS_MAX);
    let count = u16::try_from(text.encode_utf16().count()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    utf16::put(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_laid_out_as_it_should() {
        let mut out = vec![];
        let error = ServerMessage {
            number: 18456,
            state: 1,
            class: 14,
            message: "no",
            server: "g",
            line: 1,
        };
        put_error(&mut out, &error);
        assert_eq!(
            out,
            b"\xaa\x14\0\x18\x48\0\0\x01\x0e\x02\0n\0o\0\x01g\0\0\x01\0\0\0"
        );
        put_info(&mut out, &error);
        assert_eq!(out[23], INFO);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut out = vec![];
        let message = "🐘".repeat(2000);
        put_error(
            &mut out,
            &ServerMessage {
                number: 1,
                state: 1,
                class: 14,
                message: &message,
                server: &message,
                line: 1,
            },
        );
        let length = usize::from(u16::from_le_bytes([out[1], out[2]]));
        assert_eq!(out.len(), 3 + length);
        assert_eq!(u16::from_le_bytes([out[9], out[10]]), 2046);
        assert_eq!(out[11 + 2 * 2046], 254);
    }

    #[test]
    fn the_end_takes_thirteen_bytes() {
        let mut out = vec![];
        put_done(&mut out, done::ERROR | done::COUNT, 0xc1, 7);
        assert_eq!(out, b"\xfd\x12\0\xc1\0\x07\0\0\0\0\0\0\0");
    }
}
