//! Records in ArcSight's Common Event Format, version 0: a header between bars and `key=value` pairs.

use std::fmt::Write as _;

use crate::audit::entry::{Entry, split_port};
use crate::audit::export::{PRODUCT, milliseconds, status};
use crate::audit::wording::{Weight, summary, weight};

/// The longest value: the format's own limit for most of its text fields is 1023.
const VALUE_CHARS_MAX: usize = 1023;

/// A record as one line, without a line feed.
pub fn event(entry: &Entry) -> String {
    let severity = match weight(entry) {
        Weight::Routine => 1,
        Weight::Notable => 5,
        Weight::Alarming => 9,
    };
    let name = entry.event.replace(['.', '_'], " ");
    let mut line = format!(
        "CEF:0|{PRODUCT}|{PRODUCT}|{}|{}|{}|{severity}|",
        env!("CARGO_PKG_VERSION"),
        header(&entry.event),
        header(&name)
    );
    let mut pairs = Pairs(&mut line);
    pairs.add("rt", &milliseconds(entry.time()).to_string());
    pairs.add("externalId", &entry.seq.to_string());
    pairs.add("outcome", status(entry));
    pairs.add("msg", &summary(entry));
    pairs.add("dvchost", &entry.replica);
    pairs.add("deviceExternalId", &entry.installation);
    identity(entry, &mut pairs);
    place(entry, &mut pairs);
    custom(entry, &mut pairs);
    line
}

fn identity(entry: &Entry, pairs: &mut Pairs<'_>) {
    if let Some(identity) = &entry.identity {
        pairs.add("suid", &identity.subject);
        pairs.add("suser", identity.shown());
        pairs.add("sntdom", &identity.provider);
    }
    if let Some(client) = &entry.client {
        let (address, port) = split_port(&client.address);
        pairs.add(if address.contains(':') { "c6a2" } else { "src" }, address);
        if address.contains(':') {
            pairs.add("c6a2Label", "Source IPv6 Address");
        }
        pairs.add("spt", &port.map_or_else(String::new, |port| port.to_string()));
        pairs.add(
            "sourceServiceName",
            client.application.as_deref().unwrap_or_default(),
        );
    }
    if let Some(address) = entry.text("address") {
        pairs.add(if address.contains(':') { "c6a2" } else { "src" }, address);
        pairs.add("cnt", &entry.number("count").unwrap_or_default().to_string());
    }
}

fn place(entry: &Entry, pairs: &mut Pairs<'_>) {
    pairs.add(
        "destinationServiceName",
        entry.target.as_deref().unwrap_or_default(),
    );
    pairs.add("duser", entry.login.as_deref().unwrap_or_default());
    pairs.add("dpriv", entry.role.as_deref().unwrap_or_default());
    pairs.add(
        "reason",
        entry
            .text("code")
            .or_else(|| entry.text("why"))
            .unwrap_or_default(),
    );
}

/// The members that the format has no field of its own for.
fn custom(entry: &Entry, pairs: &mut Pairs<'_>) {
    let ids: Vec<_> = entry.correlation.iter().map(|one| one.id.as_str()).collect();
    let client_id = entry
        .identity
        .as_ref()
        .and_then(|identity| identity.client_id.as_deref());
    let rule = entry.policy.as_ref().and_then(|policy| policy.rule.as_deref());
    let texts = [
        ("cs1", "session", entry.session.as_deref()),
        ("cs2", "database", entry.database.as_deref()),
        ("cs3", "clientId", client_id),
        ("cs4", "correlation", (!ids.is_empty()).then_some(&*ids.join(","))),
        ("cs5", "policyRule", rule),
        ("cs6", "hash", Some(entry.hash.as_str())),
    ]
    .map(|(key, label, value)| (key, label, value.map(str::to_owned)));
    for (key, label, value) in texts {
        pairs.labelled(key, label, &value.unwrap_or_default());
    }
    if entry.is_transaction() {
        let id = entry.number("id").map_or_else(String::new, |id| id.to_string());
        pairs.labelled("cn1", "transactionId", &id);
        let rows = entry
            .statements()
            .filter_map(|one| one.rows)
            .fold(0, u64::saturating_add);
        pairs.labelled("cn2", "rows", &rows.to_string());
    }
}

struct Pairs<'a>(&'a mut String);

impl Pairs<'_> {
    /// Empty values are left out.
    fn add(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if !self.0.ends_with('|') {
            self.0.push(' ');
        }
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{key}={}", extension(value));
    }

    fn labelled(&mut self, key: &str, label: &str, value: &str) {
        if !value.is_empty() {
            self.add(&format!("{key}Label"), label);
            self.add(key, value);
        }
    }
}

/// In the header a bar ends a field, and a line break cannot be said.
fn header(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' | '|' => escaped.extend(['\\', char]),
            _ if char.is_control() => escaped.push(' '),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// In a value an equals sign begins the next pair, and line breaks are written out. Bars stand for
/// themselves.
fn extension(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars().take(VALUE_CHARS_MAX) {
        match char {
            '\\' | '=' => escaped.extend(['\\', char]),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            _ if char.is_control() => escaped.push(' '),
            _ => escaped.push(char),
        }
    }
    escaped
}
