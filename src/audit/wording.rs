//! What a record says, in one line of plain words, and how much it matters. The words come from the
//! record, so whoever shows them has to make them harmless first.

use std::fmt::Write as _;

use serde_json::Value;

use crate::audit::entry::Entry;

/// Kinds of statements that one line names.
const KINDS_SHOWN: usize = 6;

/// How much somebody who watches should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// The ordinary course of things.
    Routine,
    /// An act or a refusal: worth counting.
    Notable,
    /// Something has to be looked into.
    Alarming,
}

/// How much a record matters.
pub fn weight(entry: &Entry) -> Weight {
    match entry.event.as_str() {
        "login.tampered" | "journal.recovered" => Weight::Alarming,
        "transaction.outcome" | "transaction.reconciled" => match entry.outcome() {
            Some("in_doubt") => Weight::Alarming,
            Some("prepared") => Weight::Notable,
            _ => Weight::Routine,
        },
        "session.denied"
        | "session.denied_many"
        | "ticket.denied"
        | "policy.rejected"
        | "journal.repaired"
        | "secret.rotated" => Weight::Notable,
        event if event.starts_with("admin.") => match entry.outcome() {
            Some("refused" | "failed") => Weight::Notable,
            _ if event.ends_with(".list") || event.ends_with(".show") => Weight::Routine,
            _ => Weight::Notable,
        },
        _ => Weight::Routine,
    }
}

/// One line of plain words.
pub fn summary(entry: &Entry) -> String {
    let text = |member| entry.text(member).unwrap_or_default();
    match entry.event.as_str() {
        "server.started" => format!("gatepost {} started", text("version")),
        "server.stopped" => "gatepost stopped".to_owned(),
        "policy.loaded" => {
            let version = entry.policy.as_ref().map_or("", |policy| policy.version.as_str());
            let rules = entry.number("rules").unwrap_or_default();
            format!("policy {} in force, {rules} rules", short(version))
        }
        "policy.rejected" => {
            let mistakes = entry.number("mistakes").unwrap_or_default();
            format!("a new configuration was refused, {mistakes} mistakes")
        }
        "secret.rotated" => words(&["rotated", text("what"), text("which")]),
        "ticket.issued" => format!("ticket for {}, until {}", text("bound_to"), text("expires_at")),
        "ticket.denied" | "session.denied" => format!("{}: {}", text("code"), text("reason")),
        "session.denied_many" => {
            let count = entry.number("count").unwrap_or_default();
            words(&[&format!("{count} more denials"), text("address")])
        }
        "session.opened" => "opened".to_owned(),
        "session.closed" => closed(entry),
        "login.minted" => format!("minted, expires {}", text("expires_at")),
        "login.renewed" => format!("renewed, expires {}", text("expires_at")),
        "login.disabled" => format!("disabled: {}", text("why")),
        "login.dropped" => "dropped".to_owned(),
        "login.tampered" => format!("TAMPERED: {}", text("what")),
        "statement.seen" => format!("{} {}", text("fingerprint"), text("text")),
        "transaction.intent" => format!("intent of {}", transaction(entry)),
        "transaction.reconciled" => {
            let id = entry
                .number("id")
                .map_or_else(String::new, |id| format!("xid {id}"));
            words(&[
                entry.outcome().unwrap_or("-"),
                &id,
                "by",
                text("evidence"),
                text("why"),
            ])
        }
        event if event.starts_with("transaction.") => {
            format!("{} {}", entry.outcome().unwrap_or("-"), transaction(entry))
        }
        "journal.repaired" => {
            let bytes = entry.number("bytes_cut").unwrap_or_default();
            let kept = entry.number("unsigned_kept").unwrap_or_default();
            format!("{bytes} bytes of an interrupted write cut, {kept} unsigned records kept")
        }
        "journal.recovered" => {
            let lost = entry.number("records_lost").unwrap_or_default();
            format!("writes again; {lost} refused records lost")
        }
        "head" => format!(
            "signed by {} for {} records",
            text("key"),
            entry.number("records").unwrap_or_default()
        ),
        event if event.starts_with("admin.") => {
            words(&[text("result"), text("what"), text("why"), "by", text("door")])
        }
        _ => other(&entry.detail),
    }
}

fn closed(entry: &Entry) -> String {
    let count = entry.number("transactions").unwrap_or_default();
    let why = entry.text("why").unwrap_or_default();
    match entry.text("reason") {
        Some(reason) => format!("{why}: {reason}; {count} transactions"),
        None => format!("{why}; {count} transactions"),
    }
}

/// The engine's id if it is known, and what kinds of statements there were.
fn transaction(entry: &Entry) -> String {
    let id = entry.number("id").map_or_else(
        || format!("no {} of the session", entry.number("number").unwrap_or_default()),
        |id| format!("xid {id}"),
    );
    let scope = match entry.text("scope") {
        Some("partial") => ", partial",
        Some("read_only") => ", read only",
        _ => "",
    };
    format!("{id}{scope}: {}", kinds(entry))
}

/// The kinds of statements in their order, equal neighbours as one.
pub fn kinds(entry: &Entry) -> String {
    let mut runs: Vec<(&str, u64)> = Vec::new();
    for statement in entry.statements() {
        match runs.last_mut() {
            Some((kind, count)) if *kind == statement.kind => *count += 1,
            _ => runs.push((statement.kind, 1)),
        }
    }
    let more = runs.len().saturating_sub(KINDS_SHOWN);
    let mut shown: Vec<String> = runs
        .iter()
        .take(KINDS_SHOWN)
        .map(|(kind, count)| {
            if *count == 1 {
                (*kind).to_owned()
            } else {
                format!("{kind}×{count}")
            }
        })
        .collect();
    if more > 0 {
        shown.push("…".to_owned());
    }
    shown.join(",")
}

/// The beginning of a hash, as people tell them apart.
pub fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

fn words(words: &[&str]) -> String {
    let present: Vec<_> = words.iter().copied().filter(|word| !word.is_empty()).collect();
    present.join(" ")
}

/// Of an event that this gatepost does not know.
fn other(detail: &Value) -> String {
    let mut shown = String::new();
    for (name, value) in detail.as_object().into_iter().flatten() {
        if !shown.is_empty() {
            shown.push(' ');
        }
        // Writing to a string cannot fail.
        let _ = match value.as_str() {
            Some(text) => write!(shown, "{name}={text}"),
            None => write!(shown, "{name}={value}"),
        };
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: &str, detail: &str) -> Entry {
        let line =
            format!(r#"{{"event":"{event}","policy":{{"version":"0123456789abcdef"}},"detail":{detail}}}"#);
        Entry::read(line.as_bytes()).unwrap()
    }

    #[test]
    fn records_say_what_happened() {
        let many = r#"{"id":7,"outcome":"committed","scope":"partial","statements":[
            {"kind":"insert","fingerprint":"f"},{"kind":"insert","fingerprint":"f"},{"kind":"update","fingerprint":"g"}]}"#;
        let rows = [
            (
                "transaction.outcome",
                many,
                "committed xid 7, partial: insert×2,update",
                Weight::Routine,
            ),
            (
                "transaction.intent",
                r#"{"number":3}"#,
                "intent of no 3 of the session: ",
                Weight::Routine,
            ),
            (
                "transaction.outcome",
                r#"{"outcome":"in_doubt"}"#,
                "in_doubt no 0 of the session: ",
                Weight::Alarming,
            ),
            (
                "session.denied",
                r#"{"code":"not_permitted","reason":"no rule"}"#,
                "not_permitted: no rule",
                Weight::Notable,
            ),
            (
                "policy.loaded",
                r#"{"rules":3}"#,
                "policy 0123456789ab in force, 3 rules",
                Weight::Routine,
            ),
            (
                "session.closed",
                r#"{"why":"done","transactions":2}"#,
                "done; 2 transactions",
                Weight::Routine,
            ),
            (
                "admin.sessions.kill",
                r#"{"door":"socket","result":"done","what":"s-1"}"#,
                "done s-1 by socket",
                Weight::Notable,
            ),
            (
                "admin.pools.list",
                r#"{"door":"api","result":"done"}"#,
                "done by api",
                Weight::Routine,
            ),
            (
                "future.thing",
                r#"{"a":1,"b":"two"}"#,
                "a=1 b=two",
                Weight::Routine,
            ),
            (
                "login.tampered",
                r#"{"what":"password"}"#,
                "TAMPERED: password",
                Weight::Alarming,
            ),
        ];
        for (event, detail, expected, heavy) in rows {
            let entry = entry(event, detail);
            assert_eq!(summary(&entry), expected, "{event}");
            assert_eq!(weight(&entry), heavy, "{event}");
        }
    }
}
