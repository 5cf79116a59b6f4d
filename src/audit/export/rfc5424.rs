//! Records as syslog messages (RFC 5424): the members that one filters by as structured data, and the
//! record's own line, byte for byte, as the message.

use std::fmt::Write as _;

use crate::audit::entry::Entry;
use crate::audit::export::{PRODUCT, status};
use crate::audit::wording::{Weight, weight};

/// "log audit" (RFC 5424, table 1).
const FACILITY: u8 = 13;
/// The enterprise number that RFC 5612 keeps for examples: gatepost has none of its own.
const STRUCTURE: &str = "gatepost@32473";
/// The longest host name (RFC 5424, 6.2.4) and message id (6.2.7).
const HOST_MAX: usize = 255;
const MESSAGE_ID_MAX: usize = 32;
/// The longest value of structured data; the whole text is in the message.
const VALUE_CHARS_MAX: usize = 512;

/// A record as one message. `line` is its own line, without its line feed.
pub fn message(entry: &Entry, line: &[u8]) -> Vec<u8> {
    let severity: u8 = match weight(entry) {
        Weight::Routine => 6,
        Weight::Notable => 5,
        Weight::Alarming => 4,
    };
    let time = if entry.time().is_some() {
        entry.at.as_str()
    } else {
        "-"
    };
    let mut text = format!(
        "<{}>1 {time} {} {PRODUCT} {} {} [{STRUCTURE}",
        FACILITY * 8 + severity,
        name(&entry.replica, HOST_MAX),
        entry.epoch,
        name(&entry.event, MESSAGE_ID_MAX),
    );
    let identity = entry.identity.clone().unwrap_or_default();
    let seq = entry.seq.to_string();
    let xid = entry.number("id").map(|id| id.to_string());
    let correlation: Vec<_> = entry.correlation.iter().map(|one| one.id.as_str()).collect();
    let correlation = correlation.join(",");
    let parameters = [
        ("seq", Some(seq.as_str())),
        ("installation", Some(&entry.installation)),
        ("outcome", Some(status(entry))),
        ("session", entry.session.as_deref()),
        ("provider", Some(&identity.provider)),
        ("subject", Some(&identity.subject)),
        ("clientId", identity.client_id.as_deref()),
        ("address", entry.address()),
        ("target", entry.target.as_deref()),
        ("database", entry.database.as_deref()),
        ("role", entry.role.as_deref()),
        ("login", entry.login.as_deref()),
        ("xid", xid.as_deref()),
        ("correlation", Some(&correlation)),
        ("hash", Some(&entry.hash)),
    ];
    for (key, value) in parameters {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            // Writing to a string cannot fail.
            let _ = write!(text, " {key}=\"{}\"", escaped(value));
        }
    }
    text.push_str("] ");
    let mut message = text.into_bytes();
    message.extend_from_slice(line);
    message
}

/// Visible ASCII only; nothing left is `-`.
fn name(text: &str, most: usize) -> String {
    let visible = text
        .chars()
        .map(|char| if char.is_ascii_graphic() { char } else { '_' });
    let name: String = visible.take(most).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

/// A quote, a backslash and a closing bracket are escaped (RFC 5424, 6.3.3). Control characters may
/// stand there; some receivers take them badly, so they are spaces.
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for char in value.chars().take(VALUE_CHARS_MAX) {
        match char {
            '"' | '\\' | ']' => escaped.extend(['\\', char]),
            _ if char.is_control() => escaped.push(' '),
            _ => escaped.push(char),
        }
    }
    escaped
}
