//! Records in the forms that other systems read. Pure: a record in, bytes out, one record at a time, so
//! that whatever sends records somewhere can use it.

use std::time::SystemTime;

use crate::audit::entry::Entry;

pub mod cef;
pub mod ocsf;
pub mod rfc5424;

#[cfg(test)]
mod tests;

/// Who made it, in every form.
const PRODUCT: &str = "gatepost";

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Ocsf,
    /// ArcSight's Common Event Format, one event a line.
    Cef,
    /// Syslog, with the record's members as structured data and its own line as the message.
    Rfc5424,
}

/// How messages are told apart on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A line feed ends each. No form has line feeds inside.
    LineFeed,
    /// Its length in bytes, a space, and the message (RFC 6587, 3.4.1).
    OctetCounting,
}

/// Appends a record to `out`. `line` is the record's own line, without its line feed.
pub fn export(form: Form, framing: Framing, entry: &Entry, line: &[u8], out: &mut Vec<u8>) {
    let message = match form {
        Form::Ocsf => ocsf::event(entry).to_string().into_bytes(),
        Form::Cef => cef::event(entry).into_bytes(),
        Form::Rfc5424 => rfc5424::message(entry, line),
    };
    match framing {
        Framing::LineFeed => {
            out.extend_from_slice(&message);
            out.push(b'\n');
        }
        Framing::OctetCounting => {
            out.extend_from_slice(message.len().to_string().as_bytes());
            out.push(b' ');
            out.extend_from_slice(&message);
        }
    }
}

/// Milliseconds since 1970; 0 where there is no time.
fn milliseconds(at: Option<SystemTime>) -> u64 {
    let since = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How an act went, in one word.
fn status(entry: &Entry) -> &str {
    match entry.event.as_str() {
        "session.denied" | "session.denied_many" | "ticket.denied" => "refused",
        "policy.rejected" => "failed",
        "transaction.intent" => "intent",
        _ => entry.outcome().unwrap_or("done"),
    }
}
