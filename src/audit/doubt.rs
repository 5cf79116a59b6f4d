//! Transactions whose end is not on record: those of a session that has just lost its server, and those
//! that a process which died has left in the journal.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::audit::marker::Marker;
use crate::audit::reading::{Key, Said, Told, newest, told};
use crate::audit::record::{Event, Facts, Outcome, Record};
use crate::audit::stored::lines_of;
use crate::domain::correlation::Correlation;
use crate::domain::incarnation::Incarnation;
use crate::domain::target::Engine;

/// Newest segments that are looked through at a start: 1 GiB, some two million transactions. What a
/// dead process has left open is at the end of what it wrote, and each start closes what it can.
const SEGMENTS_MAX: usize = 16;
/// Transactions in doubt that are kept at one time: far more than connections could have had under way.
/// What is left off is found again at the next start.
const DOUBTS_MAX: usize = 65_536;
/// Bytes of their correlation ids, for the same reason.
const CORRELATION_BYTES_MAX: usize = 64 << 20;

/// A transaction whose end nobody has heard of.
#[derive(Clone, Debug)]
pub struct Doubt {
    pub facts: Arc<Facts>,
    pub correlation: Vec<Correlation>,
    /// The run of gatepost that did it.
    pub epoch: u64,
    pub number: u64,
    /// The engine's own id, if it was known in time.
    pub id: Option<u64>,
    /// The life of the server in which the id means this transaction.
    pub incarnation: Option<Incarnation>,
    /// Where its marker is found again, if one was written.
    pub marker: Option<Marker>,
    /// Backend pid, SPID.
    pub backend: Option<i32>,
    /// When the server was heard last in this transaction.
    pub alive: SystemTime,
    /// What is on record of it besides its intent.
    pub previous: Option<Outcome>,
}

/// What a start finds.
#[derive(Debug, Default)]
pub struct Open {
    pub doubts: Vec<Doubt>,
    /// Those that there was no room for.
    pub left_off: u64,
}

impl Doubt {
    /// The doubt that a record leaves which was written just now, if it does.
    pub fn left_by(record: &Record, epoch: u64, now: SystemTime) -> Option<Self> {
        let Event::TransactionOutcome {
            transaction,
            outcome: Outcome::InDoubt,
            ..
        } = &record.event
        else {
            return None;
        };
        let doubt = Self {
            facts: Arc::clone(&record.facts),
            correlation: record.correlation.clone(),
            epoch,
            number: transaction.number,
            id: transaction.id,
            incarnation: transaction.incarnation.clone(),
            marker: transaction.marker.clone(),
            backend: Some(transaction.backend),
            alive: transaction.heard.unwrap_or(now),
            previous: Some(Outcome::InDoubt),
        };
        doubt.can_be_asked().then_some(doubt)
    }

    fn of_intent(told: Told) -> Self {
        Self {
            facts: Arc::new(told.facts),
            correlation: told.correlation,
            epoch: told.key.epoch,
            number: told.key.number,
            id: told.id,
            incarnation: told.incarnation,
            marker: told.marker,
            backend: told.backend,
            alive: told.at,
            previous: None,
        }
    }

    fn correlation_bytes(&self) -> usize {
        self.correlation.iter().map(|one| one.id.len()).sum()
    }

    /// Can asking the server lead to anything? Without an id, or a row of its own, it stays in doubt.
    pub fn can_be_asked(&self) -> bool {
        match self.facts.engine {
            Some(Engine::Postgres) => self.id.is_some(),
            Some(Engine::SqlServer) => matches!(self.marker, Some(Marker::Row(..))),
            None => false,
        }
    }
}

/// What is still open of the runs before `epoch`, oldest first. Blocks.
pub fn open(directory: &Path, epoch: u64) -> io::Result<Open> {
    let mut walk = Walk::default();
    for spot in newest(directory, SEGMENTS_MAX)?.into_iter().flat_map(lines_of) {
        if let Some(told) = spot.bytes.ok().and_then(|line| told(&line))
            && told.key.epoch < epoch
        {
            walk.step(told);
        }
    }
    let mut doubts: Vec<_> = walk.open.into_values().collect();
    doubts.sort_by_key(|doubt| (doubt.epoch, doubt.alive));
    Ok(Open {
        doubts,
        left_off: walk.left_off,
    })
}

#[derive(Default)]
struct Walk {
    open: HashMap<Key, Doubt>,
    bytes: usize,
    left_off: u64,
}

impl Walk {
    fn step(&mut self, told: Told) {
        let key = told.key;
        match told.said {
            Said::Intent => self.add(key, told),
            Said::Outcome(outcome) => self.told_of(key, outcome, None),
            Said::Reconciled { outcome, why, .. } => {
                let passing = why.is_some_and(|why| why.is_passing());
                self.told_of(key, outcome, Some(passing));
            }
        }
    }

    fn add(&mut self, key: Key, told: Told) {
        let doubt = Doubt::of_intent(told);
        let bytes = doubt.correlation_bytes();
        if self.open.len() >= DOUBTS_MAX || self.bytes + bytes > CORRELATION_BYTES_MAX {
            self.left_off += 1;
            return;
        }
        self.bytes += bytes;
        // A transaction may have been announced before its id was known.
        if let Some(earlier) = self.open.insert(key, doubt) {
            self.bytes -= earlier.correlation_bytes();
        }
    }

    /// `reconciled`: it was asked after, and a later question may have another answer.
    fn told_of(&mut self, key: Key, outcome: Outcome, reconciled: Option<bool>) {
        let Some(doubt) = self.open.get_mut(&key) else {
            return;
        };
        let stays = match (outcome, reconciled) {
            (Outcome::Committed | Outcome::Aborted, _) => false,
            (Outcome::Prepared, _) | (Outcome::InDoubt, None) => doubt.can_be_asked(),
            (Outcome::InDoubt, Some(passing)) => passing,
        };
        if stays {
            doubt.previous = Some(outcome);
        } else if let Some(doubt) = self.open.remove(&key) {
            self.bytes -= doubt.correlation_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTENT: &str = r#"{"v":1,"seq":5,"at":"2026-01-01T00:00:00.000000Z","installation":"i","replica":"r","epoch":1,"event":"transaction.intent","session":"s-00112233445566778899","identity":{"provider":"p","subject":"s"},"target":"orders","engine":"postgres","database":"d","correlation":[{"id":"m-1","source":"set"}],"detail":{"number":1,"id":700,"began":"2026-01-01T00:00:00.000000Z","backend":1,"incarnation":"1/1/5","statements":[]},"prev":"","hash":""}"#;

    fn outcome(outcome: &str) -> String {
        let detail = format!(r#""detail":{{"number":1,"id":700,"outcome":"{outcome}","#);
        let text = INTENT.replace("transaction.intent", "transaction.outcome");
        text.replace(r#""detail":{"number":1,"id":700,"#, &detail)
    }

    fn reconciled(outcome: &str, more: &str) -> String {
        let text = INTENT.replace("transaction.intent", "transaction.reconciled");
        let text = text.replace(r#""epoch":1"#, r#""epoch":2"#);
        let at = text.find(r#""detail""#).unwrap();
        let head = &text[..at];
        format!(
            r#"{head}"detail":{{"of_epoch":1,"number":1,"id":700,"outcome":"{outcome}",{more}}},"prev":"","hash":""}}"#
        )
    }

    fn left(lines: &[&str]) -> Vec<Doubt> {
        let folder = tempfile::tempdir().unwrap();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(folder.path().join("segment-0000000000000001.jsonl"), text).unwrap();
        open(folder.path(), 2).unwrap().doubts
    }

    #[test]
    fn an_intent_without_an_outcome_is_open() {
        let doubts = left(&[INTENT]);
        assert_eq!(doubts.len(), 1);
        assert_eq!(doubts[0].id, Some(700));
        assert_eq!(doubts[0].incarnation, Some(Incarnation::new("1", 1, Some(5))));
        assert_eq!(doubts[0].correlation[0].id.as_ref(), "m-1");
        assert!(doubts[0].facts.identity.is_some());
    }

    #[test]
    fn what_is_final_is_not_asked_again() {
        assert!(left(&[INTENT, &outcome("committed")]).is_empty());
        assert!(left(&[INTENT, &outcome("aborted")]).is_empty());
        assert_eq!(left(&[INTENT, &outcome("in_doubt")]).len(), 1);
        assert_eq!(left(&[INTENT, &outcome("prepared")]).len(), 1);
        let same = r#""evidence":"same_incarnation""#;
        let lost = r#""evidence":"none","why":"server_changed""#;
        let runs = r#""evidence":"none","why":"still_running""#;
        assert!(left(&[INTENT, &reconciled("committed", same)]).is_empty());
        assert!(left(&[INTENT, &reconciled("in_doubt", lost)]).is_empty());
        assert_eq!(left(&[INTENT, &reconciled("in_doubt", runs)]).len(), 1);
        let doubts = left(&[INTENT, &outcome("in_doubt"), &reconciled("prepared", same)]);
        assert_eq!(doubts[0].previous, Some(Outcome::Prepared));
    }

    #[test]
    fn without_an_id_the_first_verdict_is_the_last() {
        let nameless = INTENT.replace(r#""id":700,"#, "");
        assert_eq!(left(&[&nameless]).len(), 1);
        let lost = outcome("in_doubt").replace(r#""id":700,"#, "");
        assert!(left(&[&nameless, &lost]).is_empty());
    }

    #[test]
    fn this_run_s_own_are_not_looked_at() {
        let own = INTENT.replace(r#""epoch":1"#, r#""epoch":2"#);
        assert!(left(&[&own]).is_empty());
    }
}
