//! The journal as an auditor with nothing but a JSON reader finds it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::wait_for;
use super::world::World;

/// All complete lines of all segments, in order.
pub(crate) fn records(directory: &Path) -> Vec<Value> {
    lines_with(directory, "")
}

/// Those of one event; a long journal is looked through much faster this way.
pub(crate) fn records_of(directory: &Path, event: &str) -> Vec<Value> {
    let mut records = lines_with(directory, &format!("\"{event}\""));
    records.retain(|record| record["event"] == event);
    records
}

fn lines_with(directory: &Path, word: &str) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "jsonl"))
        .collect();
    files.sort();
    let mut records = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let complete = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n') && line.contains(word));
        records.extend(complete.map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    records
}

pub(crate) fn of_event<'a>(records: &'a [Value], event: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["event"] == event).collect()
}

/// The ids that a transaction's client gave, without those that gatepost made.
pub(crate) fn correlation(record: &Value) -> Vec<&str> {
    let ids = record["correlation"].as_array().into_iter().flatten();
    ids.filter(|id| id["source"] != "generated")
        .map(|id| id["id"].as_str().unwrap())
        .collect()
}

/// Transaction ids of all committed outcomes; two outcomes of one transaction fail the test.
pub(crate) fn committed(records: &[Value]) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for outcome in of_event(records, "transaction.outcome") {
        let detail = &outcome["detail"];
        if detail["outcome"] == "committed" && detail["scope"] != "read_only" {
            let id = detail["id"].as_u64();
            let id = id.unwrap_or_else(|| panic!("a committed transaction without its id: {outcome}"));
            assert!(found.insert(id), "two outcomes of transaction {id}");
        }
    }
    found
}

impl World {
    /// The records when these clients are gone, and that the chain holds.
    pub(crate) fn settled_after<T>(&self, clients: T) -> Vec<Value> {
        drop(clients);
        let records = self.settled();
        self.verify_journal();
        records
    }

    /// All records, once every session that was opened has ended: outcomes of blocks follow their
    /// commits by a moment. Sessions of a process that was killed will never end there.
    pub(crate) fn settled(&self) -> Vec<Value> {
        wait_for("the end of every session in the journal", || {
            // Connections that were dropped in the runtime still have to say so.
            self.runtime.block_on(tokio::task::yield_now());
            let records = self.records();
            let start = records.iter().rposition(|it| it["event"] == "server.started");
            let epoch = &records[start.unwrap_or_default()..];
            let sessions = |event: &str| -> BTreeSet<String> {
                let records = of_event(epoch, event).into_iter();
                records.map(|it| it["session"].to_string()).collect()
            };
            let mut open = sessions("session.opened");
            for over in ["session.closed", "session.denied"] {
                open = &open - &sessions(over);
            }
            open.is_empty().then_some(records)
        })
    }
}

/// Outcomes whose client gave this correlation id.
pub(crate) fn outcomes_under<'a>(records: &'a [Value], given: &str) -> Vec<&'a Value> {
    let mut outcomes = of_event(records, "transaction.outcome");
    outcomes.retain(|outcome| correlation(outcome).contains(&given));
    outcomes
}
