//! Transactions from intent to outcome, and what their statements touched.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::audit::entry::Entry;
use crate::audit::report::bounded::bounded;
use crate::audit::report::model::{Doubt, GapPart, Place};
use crate::audit::report::retries::{Retries, outcome_word};

/// Transactions that are followed at one time; a busy proxy has thousands under way, and each crash
/// leaves those behind that it had.
const FOLLOWED_MAX: usize = 100_000;
/// Fingerprints whose relations are remembered.
const FINGERPRINTS_MAX: usize = 16_384;
/// Relations that are remembered of one statement.
const RELATIONS_MAX: usize = 16;
/// Correlation ids that are listed of one transaction.
const IDS_SHOWN: usize = 4;

/// Transactions whose outcome is not known yet.
#[derive(Default)]
pub(super) struct Open {
    by_name: BTreeMap<(String, u64), Entry>,
    not_followed: u64,
}

impl Open {
    fn key(entry: &Entry) -> (String, u64) {
        let session = entry.session.clone().unwrap_or_default();
        (session, entry.number("number").unwrap_or_default())
    }

    /// Keeps an intent, or an outcome that is in doubt.
    pub(super) fn keep(&mut self, entry: Entry) {
        if self.by_name.len() < FOLLOWED_MAX {
            self.by_name.insert(Self::key(&entry), entry);
        } else {
            self.not_followed += 1;
        }
    }

    /// The transaction is settled; its record, if it was kept.
    pub(super) fn settle(&mut self, entry: &Entry) -> Option<Entry> {
        self.by_name.remove(&Self::key(entry))
    }

    /// What is left has no outcome; each is told to `note`.
    pub(super) fn end(self, gaps: &mut GapPart, retries: &mut Retries, note: &mut dyn FnMut(&Entry)) {
        gaps.not_followed = self.not_followed;
        let mut left: Vec<_> = self.by_name.into_values().collect();
        left.sort_by_key(|entry| entry.seq);
        for entry in left {
            retries.add(&entry, outcome_word(entry.outcome()));
            match entry.outcome() {
                Some("in_doubt") => gaps.in_doubt.add(doubt(&entry)),
                Some("prepared") => gaps.prepared.add(doubt(&entry)),
                Some(_) | None => {
                    gaps.unknown.add(doubt(&entry));
                    note(&entry);
                }
            }
        }
    }
}

/// A transaction that somebody has to look after.
pub(super) fn doubt(entry: &Entry) -> Doubt {
    let ids = entry
        .correlation
        .iter()
        .take(IDS_SHOWN)
        .map(|one| bounded(&one.id));
    Doubt {
        place: place(entry),
        who: who(entry),
        session: entry.session.clone().unwrap_or_default(),
        number: entry.number("number").unwrap_or_default(),
        xid: entry.number("id"),
        target: database(entry),
        role: bounded(entry.role.as_deref().unwrap_or_default()),
        correlation: ids.collect(),
    }
}

pub(super) fn place(entry: &Entry) -> Place {
    Place {
        seq: entry.seq,
        at: entry.at.clone(),
    }
}

/// `provider/subject (name)`.
pub(super) fn who(entry: &Entry) -> String {
    match &entry.identity {
        Some(identity) => {
            let name = identity.name.as_ref().filter(|name| **name != identity.subject);
            let name = name.map_or_else(String::new, |name| format!(" ({name})"));
            bounded(&format!("{}/{}{name}", identity.provider, identity.subject))
        }
        None => entry
            .number("uid")
            .map_or_else(String::new, |uid| format!("uid {uid}")),
    }
}

/// `target/database`.
pub(super) fn database(entry: &Entry) -> String {
    let target = entry.target.as_deref().unwrap_or_default();
    match &entry.database {
        Some(database) => bounded(&format!("{target}/{database}")),
        None => bounded(target),
    }
}

/// What statements write and read, by fingerprint.
#[derive(Default)]
pub(super) struct Relations {
    by_fingerprint: HashMap<String, Touched>,
}

/// What one statement touches.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub(super) written: Vec<String>,
    pub(super) read: Vec<String>,
}

impl Relations {
    /// Takes in a `statement.seen`.
    pub(super) fn learn(&mut self, entry: &Entry) {
        let Some(fingerprint) = entry.text("fingerprint") else {
            return;
        };
        let touched = touched(&entry.detail);
        let has_room = self.by_fingerprint.len() < FINGERPRINTS_MAX;
        if let Some(touched) = touched.filter(|_| has_room || self.by_fingerprint.contains_key(fingerprint)) {
            self.by_fingerprint.insert(bounded(fingerprint), touched);
        }
    }

    /// What each statement of a transaction touches, where it is known.
    pub(super) fn of<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Touched> {
        entry
            .statements()
            .filter_map(|one| self.by_fingerprint.get(one.fingerprint))
    }
}

fn touched(detail: &Value) -> Option<Touched> {
    let relations = detail.get("relations")?;
    let names = |member: &str| {
        let list = relations.get(member).and_then(Value::as_array);
        let names = list.into_iter().flatten().filter_map(Value::as_str);
        names.take(RELATIONS_MAX).map(bounded).collect()
    };
    Some(Touched {
        written: names("written"),
        read: names("read"),
    })
}
