//! Which records somebody wants to see. What is not set does not restrict.

use std::time::SystemTime;

use crate::audit::entry::Entry;

/// Where only the intent of a transaction is on record, this is its outcome.
pub const UNKNOWN: &str = "unknown";

/// Every condition that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Part of the provider, subject, client id, tenant or name; upper and lower case alike.
    pub identity: Option<String>,
    /// The whole subject.
    pub subject: Option<String>,
    /// The whole client id.
    pub client_id: Option<String>,
    /// A whole correlation id.
    pub correlation: Option<String>,
    /// The engine's transaction id.
    pub xid: Option<u64>,
    pub session: Option<String>,
    pub target: Option<String>,
    pub role: Option<String>,
    /// Names of events, any of them; a `*` at the end stands for the rest. Transactions as a whole are
    /// not restricted by this.
    pub events: Vec<String>,
    /// As in the record, or [`UNKNOWN`] of a transaction whose intent alone is on record.
    pub outcome: Option<String>,
    /// From here on …
    pub from: Option<SystemTime>,
    /// … and before this.
    pub until: Option<SystemTime>,
}

impl Filter {
    /// Is it this record?
    pub fn admits(&self, entry: &Entry) -> bool {
        self.admits_origin(entry)
            && self.admits_time(entry.time())
            && self.admits_event(&entry.event)
            && wanted(self.outcome.as_deref(), entry.outcome())
            && self.xid.is_none_or(|xid| entry.number("id") == Some(xid))
            && self
                .correlation
                .as_ref()
                .is_none_or(|id| entry.correlation.iter().any(|one| one.id == *id))
    }

    /// Whose it was and where: what all records of one transaction have alike.
    pub(super) fn admits_origin(&self, entry: &Entry) -> bool {
        wanted(self.session.as_deref(), entry.session.as_deref())
            && wanted(self.target.as_deref(), entry.target.as_deref())
            && wanted(self.role.as_deref(), entry.role.as_deref())
            && self.admits_identity(entry)
    }

    fn admits_identity(&self, entry: &Entry) -> bool {
        if self.identity.is_none() && self.subject.is_none() && self.client_id.is_none() {
            return true;
        }
        let Some(identity) = &entry.identity else {
            return false;
        };
        let names = [
            Some(&identity.provider),
            Some(&identity.subject),
            identity.name.as_ref(),
            identity.client_id.as_ref(),
            identity.tenant.as_ref(),
        ];
        let is_named = |part: &String| {
            let part = part.to_lowercase();
            let mut names = names.iter().flatten();
            names.any(|name| name.to_lowercase().contains(&part))
        };
        self.identity.as_ref().is_none_or(is_named)
            && wanted(self.subject.as_deref(), Some(&identity.subject))
            && wanted(self.client_id.as_deref(), identity.client_id.as_deref())
    }

    pub(super) fn admits_time(&self, at: Option<SystemTime>) -> bool {
        self.from.is_none_or(|from| at.is_some_and(|at| at >= from))
            && self.until.is_none_or(|until| at.is_some_and(|at| at < until))
    }

    fn admits_event(&self, event: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => event.starts_with(beginning),
            None => event == pattern,
        };
        self.events.is_empty() || self.events.iter().any(fits)
    }
}

/// Is the value that is wanted, if one is, this value?
pub(super) fn wanted(wanted: Option<&str>, value: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| value == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"seq":7,"at":"2026-01-02T03:04:05.000006Z","event":"transaction.outcome","session":"s-1",
        "identity":{"provider":"entra","subject":"oid-1","client_id":"Worker","name":"Ann"},"target":"orders","role":"writer",
        "correlation":[{"id":"m-1","source":"set"}],"detail":{"id":742,"outcome":"committed"}}"#;

    fn at(text: &str) -> Option<SystemTime> {
        humantime::parse_rfc3339(text).ok()
    }

    #[test]
    fn each_condition_restricts() {
        type Set = fn(&mut Filter, &str);
        let entry = Entry::read(LINE.as_bytes()).unwrap();
        let rows: [(Set, &str, &str); 11] = [
            (|it, value| it.identity = Some(value.to_owned()), "aNN", "bob"),
            (|it, value| it.subject = Some(value.to_owned()), "oid-1", "oid"),
            (
                |it, value| it.client_id = Some(value.to_owned()),
                "Worker",
                "worker",
            ),
            (|it, value| it.correlation = Some(value.to_owned()), "m-1", "m"),
            (|it, value| it.xid = value.parse().ok(), "742", "74"),
            (|it, value| it.session = Some(value.to_owned()), "s-1", "s-2"),
            (|it, value| it.target = Some(value.to_owned()), "orders", "order"),
            (|it, value| it.role = Some(value.to_owned()), "writer", "reader"),
            (
                |it, value| it.events = vec!["x".to_owned(), value.to_owned()],
                "transaction.*",
                "transaction",
            ),
            (
                |it, value| it.outcome = Some(value.to_owned()),
                "committed",
                "unknown",
            ),
            (
                |it, value| it.from = at(value),
                "2026-01-02T03:04:05.000006Z",
                "2026-01-02T03:04:05.000007Z",
            ),
        ];
        for (number, (set, good, bad)) in rows.into_iter().enumerate() {
            for (value, expected) in [(good, true), (bad, false)] {
                let mut filter = Filter::default();
                set(&mut filter, value);
                assert_eq!(filter.admits(&entry), expected, "{number}: {value}");
            }
        }
        let until = |text| Filter {
            until: at(text),
            ..Filter::default()
        };
        assert!(!until("2026-01-02T03:04:05.000006Z").admits(&entry));
        assert!(until("2026-01-02T03:04:05.000007Z").admits(&entry));
        assert!(Filter::default().admits(&entry));
    }
}
