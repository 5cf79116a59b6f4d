//! STOMP 1.2 frames (stomp.github.io/stomp-specification-1.2.html): bytes in, frames or "need more" out.

use std::error::Error;
use std::fmt;

/// Of the command and the headers together. The broker's own lists stay far below.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 200;
/// A business message is some hundred bytes; the broker's limit is larger, and not ours to fill memory with.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// What a decoder holds at most: one frame and its end, and the read that brought it.
const UNREAD_BYTES_MAX: usize = HEAD_BYTES_MAX + BODY_BYTES_MAX + 64 * 1024;

/// One frame. Of a header that is repeated the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) command: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(command: &str) -> Self {
        Self {
            command: command.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn with_body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        // For old servers' sake these two are not escaped (section "Value Encoding").
        let escaped = !matches!(&*self.command, "CONNECT" | "CONNECTED");
        bytes.extend_from_slice(self.command.as_bytes());
        bytes.push(b'\n');
        for (name, value) in &self.headers {
            for (text, end) in [(name, b':'), (value, b'\n')] {
                if escaped {
                    escape(text, &mut bytes);
                } else {
                    // A line end would start another header.
                    bytes.extend(text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)));
                }
                bytes.push(end);
            }
        }
        if !self.body.is_empty() {
            bytes.extend_from_slice(format!("content-length:{}\n", self.body.len()).as_bytes());
        }
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes.push(0);
        bytes
    }
}

fn escape(text: &str, bytes: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => bytes.extend_from_slice(br"\\"),
            b'\n' => bytes.extend_from_slice(br"\n"),
            b'\r' => bytes.extend_from_slice(br"\r"),
            b':' => bytes.extend_from_slice(br"\c"),
            other => bytes.push(other),
        }
    }
}

/// Bytes that are not STOMP, or too many of them. The connection cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotStomp(&'static str);

impl fmt::Display for NotStomp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the broker's bytes are not STOMP: {}", self.0)
    }
}

impl Error for NotStomp {}

/// Takes what was read from the connection, in whatever pieces, and gives frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    unread: Vec<u8>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), NotStomp> {
        if self.unread.len() + bytes.len() > UNREAD_BYTES_MAX {
            return Err(NotStomp("a frame that is too large"));
        }
        self.unread.extend_from_slice(bytes);
        Ok(())
    }

    /// `None` until more bytes are there. Line ends between frames are the other side's heartbeat.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, NotStomp> {
        let beats = self
            .unread
            .iter()
            .take_while(|byte| matches!(byte, b'\n' | b'\r'));
        let beats = beats.count();
        self.unread.drain(..beats);
        let Some((head, body_at)) = split_head(&self.unread)? else {
            return Ok(None);
        };
        let mut frame = read_head(head)?;
        let rest = self.unread.get(body_at..).unwrap_or_default();
        let Some(length) = body_length(&frame, rest)? else {
            return Ok(None);
        };
        frame.body = rest.get(..length).unwrap_or_default().to_vec();
        // The NUL byte behind the body.
        self.unread.drain(..=body_at + length);
        Ok(Some(frame))
    }
}

/// The command and the headers, and where the body begins.
fn split_head(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, NotStomp> {
    let mut line_at = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if at > HEAD_BYTES_MAX {
            return Err(NotStomp("headers that are too large"));
        }
        match byte {
            0 => return Err(NotStomp("a NUL byte among the headers")),
            b'\n' => {
                let line = bytes.get(line_at..at).unwrap_or_default();
                if line.is_empty() || line == b"\r" {
                    return Ok(Some((bytes.get(..line_at).unwrap_or_default(), at + 1)));
                }
                line_at = at + 1;
            }
            _ => {}
        }
    }
    Ok(None)
}

fn read_head(head: &[u8]) -> Result<Frame, NotStomp> {
    let text = std::str::from_utf8(head).map_err(|_| NotStomp("headers that are not UTF-8"))?;
    // `lines` takes the carriage return away too.
    let mut lines = text.lines();
    let command = lines.next().unwrap_or_default();
    if command.is_empty() || !command.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(NotStomp("not a command"));
    }
    let mut frame = Frame::new(command);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(NotStomp("a header without a colon"))?;
        if frame.headers.len() == HEADERS_MAX {
            return Err(NotStomp("too many headers"));
        }
        let header = if command == "CONNECTED" {
            (name.to_owned(), value.to_owned())
        } else {
            (unescape(name)?, unescape(value)?)
        };
        frame.headers.push(header);
    }
    Ok(frame)
}

/// `None` until the whole body and its NUL byte are there.
fn body_length(frame: &Frame, rest: &[u8]) -> Result<Option<usize>, NotStomp> {
    let Some(told) = frame.header("content-length") else {
        let end = rest.iter().position(|byte| *byte == 0);
        return match end.unwrap_or(rest.len()) {
            0..=BODY_BYTES_MAX => Ok(end),
            _ => Err(NotStomp("a body that is too large")),
        };
    };
    // `parse` would take a sign.
    let digits = !told.is_empty() && told.bytes().all(|byte| byte.is_ascii_digit());
    let length = told.parse::<usize>().ok().filter(|_| digits);
    match length.ok_or(NotStomp("a length that is not a number"))? {
        length @ 0..=BODY_BYTES_MAX => match rest.get(length) {
            None => Ok(None),
            Some(0) => Ok(Some(length)),
            Some(_) => Err(NotStomp("a body longer than it says")),
        },
        _ => Err(NotStomp("a body that is too large")),
    }
}

fn unescape(text: &str) -> Result<String, NotStomp> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        plain.push(match character {
            '\\' => match rest.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('c') => ':',
                _ => return Err(NotStomp("an escape that there is not")),
            },
            other => other,
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::{BODY_BYTES_MAX, Decoder, Frame, HEAD_BYTES_MAX, HEADERS_MAX, NotStomp};

    /// Everything in `bytes`, once in one piece and once byte by byte.
    fn read(bytes: &[u8]) -> Result<Vec<Frame>, NotStomp> {
        let whole = read_in_pieces(bytes, bytes.len().max(1));
        assert_eq!(whole, read_in_pieces(bytes, 1));
        whole
    }

    fn read_in_pieces(bytes: &[u8], size: usize) -> Result<Vec<Frame>, NotStomp> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(size) {
            decoder.push(piece)?;
            while let Some(frame) = decoder.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn what_is_written_is_read() {
        let plain = Frame::new("RECEIPT").with("receipt-id", "7");
        let odd = Frame::new("MESSAGE")
            .with("a:b", "c:\\d\r\ne")
            .with("empty", "")
            .with_body(b"one\0two\n\n");
        let bytes = [plain.encode(), b"\n\r\n".to_vec(), odd.encode()].concat();
        let frames = read(&bytes).unwrap();
        assert_eq!(frames[0], plain);
        assert_eq!(frames[1].header("a:b"), Some("c:\\d\r\ne"));
        assert_eq!(frames[1].header("empty"), Some(""));
        assert_eq!(frames[1].body, odd.body);
        assert_eq!(frames.len(), 2);
    }

    #[test]
    fn other_brokers_spell_it_otherwise() {
        // Carriage returns, no length, a header twice.
        let frames = read(b"MESSAGE\r\nkey:first\r\nkey:second\r\n\r\nbody\0").unwrap();
        assert_eq!(frames[0].header("key"), Some("first"));
        assert_eq!(frames[0].body, b"body");
        // CONNECTED is not escaped.
        let frames = read(b"CONNECTED\nserver:a\\b\n\n\0").unwrap();
        assert_eq!(frames[0].header("server"), Some("a\\b"));
    }

    #[test]
    fn a_secret_cannot_become_a_header() {
        let connect = Frame::new("CONNECT").with("passcode", "a\nlogin:root\0");
        assert_eq!(connect.encode(), b"CONNECT\npasscode:alogin:root\n\n\0");
    }

    #[test]
    fn a_part_is_not_a_frame() {
        let whole = Frame::new("SEND")
            .with("destination", "/queue/a")
            .with_body(b"text")
            .encode();
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Ok(vec![]), "{end}");
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let refused = |bytes: &[u8]| {
            assert!(read(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        };
        refused(b"HTTP/1.1 200 OK\r\n\r\n");
        refused(b"message\n\n\0");
        refused(b"MESSAGE\nno colon\n\n\0");
        refused(b"MESSAGE\nkey:\\t\n\n\0");
        refused(b"MESSAGE\nkey:\\\n\n\0");
        refused(b"MESSAGE\nkey:\xff\n\n\0");
        refused(b"MESS\0AGE\n\n\0");
        for length in ["", "-1", "+1", "x", "99999999999999999999"] {
            refused(format!("MESSAGE\ncontent-length:{length}\n\nab\0").as_bytes());
        }
        refused(b"MESSAGE\ncontent-length:1\n\nab\0");
        let large = [b"MESSAGE\nk:".to_vec(), vec![b'x'; HEAD_BYTES_MAX]].concat();
        assert!(read_in_pieces(&large, 512).is_err());
        let many = "k:v\n".repeat(HEADERS_MAX + 1);
        refused(format!("MESSAGE\n{many}\n\0").as_bytes());
        refused(format!("MESSAGE\ncontent-length:{}\n\n", BODY_BYTES_MAX + 1).as_bytes());
        assert!(
            read_in_pieces(
                &[b"MESSAGE\n\n".to_vec(), vec![b'x'; BODY_BYTES_MAX + 1]].concat(),
                8192
            )
            .is_err()
        );
    }
}
