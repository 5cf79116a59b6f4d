//! Which messages took several transactions: correlation ids, compared without keeping them all.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};

use crate::audit::entry::Entry;
use crate::audit::report::bounded::{Listing, bounded};
use crate::audit::report::model::{Attempt, Place, ROWS, Retried, RetryPart};

/// Correlation ids that are told apart, by 64 bits of a hash: some 60 MB.
const COMPARED_MAX: usize = 1 << 20;
/// Correlation ids with several transactions that are kept in full, to find those worth listing.
const KEPT_MAX: usize = 16 * ROWS;

/// The first transaction of an id, as small as it can be kept.
#[derive(Clone, Copy)]
struct First {
    seq: u64,
    xid: Option<u64>,
    outcome: &'static str,
    /// Microseconds are lost; the record has them.
    second: u64,
}

/// Collects attempts.
#[derive(Default)]
pub(super) struct Retries {
    hasher: RandomState,
    first: HashMap<u64, First>,
    several: BTreeMap<String, Retried>,
    not_compared: u64,
    not_kept: u64,
}

/// The words of outcomes, which live as long as the program.
pub(super) fn outcome_word(outcome: Option<&str>) -> &'static str {
    match outcome {
        Some("committed") => "committed",
        Some("aborted") => "aborted",
        Some("in_doubt") => "in_doubt",
        Some("prepared") => "prepared",
        Some(_) => "other",
        None => "unknown",
    }
}

impl Retries {
    /// A transaction came to its end, or is known to have none. Reads do not count.
    pub(super) fn add(&mut self, entry: &Entry, outcome: &'static str) {
        if entry.text("scope") == Some("read_only") {
            return;
        }
        for correlation in &entry.correlation {
            // Those are made for one transaction each.
            if correlation.source != "generated" {
                self.attempt(&correlation.id, entry, outcome);
            }
        }
    }

    fn attempt(&mut self, id: &str, entry: &Entry, outcome: &'static str) {
        let attempt = Attempt {
            place: Place {
                seq: entry.seq,
                at: entry.at.clone(),
            },
            xid: entry.number("id"),
            outcome,
        };
        if let Some(known) = self.several.get_mut(id) {
            count(known, attempt);
            return;
        }
        let hash = self.hasher.hash_one(id);
        if let Some(first) = self.first.get(&hash) {
            if self.several.len() >= KEPT_MAX {
                self.not_kept += 1;
                return;
            }
            let mut both = Retried {
                correlation: bounded(id),
                attempts: Listing::default(),
                committed: 0,
                failed: 0,
            };
            count(&mut both, first.attempt());
            count(&mut both, attempt);
            self.several.insert(id.to_owned(), both);
        } else if self.first.len() < COMPARED_MAX {
            let since = entry
                .time()
                .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let first = First {
                seq: entry.seq,
                xid: attempt.xid,
                outcome,
                second: since.unwrap_or_default().as_secs(),
            };
            self.first.insert(hash, first);
        } else {
            self.not_compared += 1;
        }
    }

    pub(super) fn end(self) -> RetryPart {
        let mut part = RetryPart {
            compared: u64::try_from(self.first.len()).unwrap_or(u64::MAX),
            not_compared: self.not_compared.saturating_add(self.not_kept),
            ..RetryPart::default()
        };
        let mut all: Vec<_> = self.several.into_values().collect();
        for one in &all {
            part.committed_twice += u64::from(one.committed > 1);
            part.committed_after_failure += u64::from(one.committed == 1 && one.failed > 0);
            part.never_committed += u64::from(one.committed == 0);
        }
        // What needs a person first.
        all.sort_by_key(|one| {
            let rank = match (one.committed, one.failed) {
                (0, _) => 0,
                (1, _) => 2,
                (_, _) => 1,
            };
            (
                rank,
                one.attempts.rows.first().map_or(0, |attempt| attempt.place.seq),
            )
        });
        all.into_iter().for_each(|one| part.ids.add(one));
        part
    }
}

impl First {
    fn attempt(&self) -> Attempt {
        let at = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(self.second));
        Attempt {
            place: Place {
                seq: self.seq,
                at: at.map_or_else(String::new, |at| {
                    humantime::format_rfc3339_seconds(at).to_string()
                }),
            },
            xid: self.xid,
            outcome: self.outcome,
        }
    }
}

fn count(retried: &mut Retried, attempt: Attempt) {
    if attempt.outcome == "committed" {
        retried.committed += 1;
    } else {
        retried.failed += 1;
    }
    retried.attempts.add(attempt);
}
