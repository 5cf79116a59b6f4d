//! A record as it is read back: leniently, so that journals of other versions can be read. What is
//! unknown is passed over; what is missing is empty.

use std::path::Path;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;

use crate::audit::chain::HEAD;
use crate::audit::stored::{lines_of, segments};

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read the journal")]
    Read(#[from] std::io::Error),
    #[error("{file}, line {line} is not an audit record; run \"gatepost audit verify\"")]
    NotARecord { file: String, line: u64 },
}

/// One record.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Entry {
    pub seq: u64,
    /// RFC 3339, UTC.
    pub at: String,
    pub installation: String,
    pub replica: String,
    pub epoch: u64,
    pub event: String,
    pub session: Option<String>,
    pub identity: Option<Identity>,
    pub client: Option<Client>,
    pub target: Option<String>,
    pub engine: Option<String>,
    pub database: Option<String>,
    pub role: Option<String>,
    pub login: Option<String>,
    pub policy: Option<Policy>,
    pub correlation: Vec<CorrelationId>,
    /// What the event says besides.
    pub detail: Value,
    pub hash: String,
}

/// Whose it was, as verified.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Identity {
    pub provider: String,
    pub subject: String,
    pub client_id: Option<String>,
    pub tenant: Option<String>,
    pub name: Option<String>,
    pub token_id: Option<String>,
    pub ticket_id: Option<String>,
}

/// Where they came from, and as what.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Client {
    /// With the port.
    pub address: String,
    pub application: Option<String>,
}

/// By which policy it was decided.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Policy {
    pub rule: Option<String>,
    pub version: String,
    /// How the values of statements are on record, if they are.
    pub parameters: Option<String>,
}

/// Asserted by the client.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CorrelationId {
    pub id: String,
    pub source: String,
}

/// A statement of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct StatementOf<'a> {
    pub fingerprint: &'a str,
    pub kind: &'a str,
    pub rows: Option<u64>,
    written: &'a Value,
}

impl<'a> StatementOf<'a> {
    /// A member that is a list.
    pub fn list(&self, member: &str) -> &'a [Value] {
        let list = self.written.get(member).and_then(Value::as_array);
        list.map_or(&[], Vec::as_slice)
    }

    /// Is this member there, and true?
    pub fn is(&self, member: &str) -> bool {
        self.written.get(member) == Some(&Value::Bool(true))
    }
}

impl Entry {
    /// Reads one line, without its line feed.
    pub fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    pub fn time(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(&self.at).ok()
    }

    /// A member of `detail` that is a text.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.detail.get(member)?.as_str()
    }

    /// A member of `detail` that is a number.
    pub fn number(&self, member: &str) -> Option<u64> {
        self.detail.get(member)?.as_u64()
    }

    /// A member of `detail` that is a list.
    pub fn list(&self, member: &str) -> &[Value] {
        self.detail
            .get(member)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// The statements of a transaction.
    pub fn statements(&self) -> impl Iterator<Item = StatementOf<'_>> {
        self.list("statements").iter().map(|one| StatementOf {
            fingerprint: one.get("fingerprint").and_then(Value::as_str).unwrap_or_default(),
            kind: one.get("kind").and_then(Value::as_str).unwrap_or_default(),
            rows: one.get("rows").and_then(Value::as_u64),
            written: one,
        })
    }

    /// How it ended: of a transaction, or of what an operator asked for.
    pub fn outcome(&self) -> Option<&str> {
        self.text("outcome").or_else(|| self.text("result"))
    }

    /// Is it about one transaction?
    pub fn is_transaction(&self) -> bool {
        self.event.starts_with("transaction.")
    }

    pub fn is_head(&self) -> bool {
        self.event == HEAD
    }

    /// The client's address without the port.
    pub fn address(&self) -> Option<&str> {
        Some(split_port(&self.client.as_ref()?.address).0)
    }
}

/// Splits `192.0.2.1:4711` or `[::1]:4711`.
pub fn split_port(address: &str) -> (&str, Option<u16>) {
    let Some((host, port)) = address.rsplit_once(':') else {
        return (address, None);
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    // A bare IPv6 address has no port behind its last colon.
    let host = bracketed.or_else(|| (!host.contains(':')).then_some(host));
    match (host, port.parse()) {
        (Some(host), Ok(port)) => (host, Some(port)),
        (Some(_) | None, _) => (address, None),
    }
}

impl Identity {
    /// What people know them by: the name, or else the subject.
    pub fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.subject)
    }
}

/// A record and its own line, without the line feed.
#[derive(Clone, Debug)]
pub struct Found {
    pub entry: Entry,
    pub line: Vec<u8>,
}

/// Every record of a journal, in order. A line that is still being written is passed over.
pub fn entries(directory: &Path) -> Result<impl Iterator<Item = Result<Found, ReadError>>, ReadError> {
    let spots = segments(directory)?.into_iter().flat_map(lines_of);
    Ok(spots.filter_map(|spot| {
        let mut line = match spot.bytes {
            Ok(line) => line,
            Err(error) => return Some(Err(ReadError::Read(error))),
        };
        if line.pop() != Some(b'\n') {
            return None;
        }
        let found = Entry::read(&line).map(|entry| Found { entry, line });
        Some(found.ok_or_else(|| ReadError::NotARecord {
            file: spot.file.display().to_string(),
            line: spot.line,
        }))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_are_passed_over_and_missing_ones_are_empty() {
        let entry = Entry::read(br#"{"v":9,"seq":3,"event":"x","new":[1],"detail":{"outcome":"committed"}}"#);
        let entry = entry.unwrap();
        assert_eq!((entry.seq, entry.event.as_str()), (3, "x"));
        assert_eq!(entry.outcome(), Some("committed"));
        assert_eq!((entry.number("outcome"), entry.list("none").len()), (None, 0));
        assert!(Entry::read(b"no record").is_none());
    }

    #[test]
    fn addresses_lose_their_port_and_nothing_else() {
        let cases = [
            ("192.0.2.1:4711", "192.0.2.1", Some(4711)),
            ("[2001:db8::1]:80", "2001:db8::1", Some(80)),
            ("2001:db8::1", "2001:db8::1", None),
            ("192.0.2.1", "192.0.2.1", None),
            ("nonsense:port", "nonsense:port", None),
            ("", "", None),
        ];
        for (address, host, port) in cases {
            assert_eq!(split_port(address), (host, port), "{address}");
        }
    }
}
