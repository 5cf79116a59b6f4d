//! The journal as an auditor with nothing but a JSON reader finds it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// All complete lines of all segments, in order.
pub(crate) fn records(directory: &Path) -> Vec<Value> {
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
        let complete = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
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
