//! The journal as an auditor finds it: files of JSON lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::proxy::run_gatepost;
use crate::support::wait::until;

pub(crate) struct JournalFiles {
    pub(crate) directory: PathBuf,
}

/// One `transaction.outcome`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) session: String,
    pub(crate) id: Option<u64>,
    pub(crate) outcome: String,
    pub(crate) scope: String,
    pub(crate) correlation: BTreeSet<String>,
    pub(crate) sources: BTreeSet<String>,
}

impl JournalFiles {
    /// All complete lines; the last may be on its way.
    pub(crate) fn records(&self) -> Vec<Value> {
        let names = fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = names
            .filter(|path| path.extension().is_some_and(|it| it == "jsonl"))
            .collect();
        files.sort();
        let text: String = files
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) fn of(&self, event: &str) -> Vec<Value> {
        let mut records = self.records();
        records.retain(|record| record["event"] == event);
        records
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.of("transaction.outcome").iter().map(outcome).collect()
    }

    /// The outcomes, once every session that was opened is closed and the journal is at rest.
    pub(crate) async fn settled(&self) -> Vec<Outcome> {
        until("every session is closed in the journal", async || {
            let (opened, closed) = (self.of("session.opened").len(), self.of("session.closed").len());
            let refused = self.opened_in_vain();
            (opened == closed + refused).then_some(())
        })
        .await;
        self.outcomes()
    }

    /// Sessions that were opened on record and then got no login or no connection.
    fn opened_in_vain(&self) -> usize {
        let session = |record: &Value| record["session"].as_str().map(str::to_owned);
        let opened: BTreeSet<_> = self.of("session.opened").iter().filter_map(session).collect();
        let denied = self.of("session.denied");
        denied
            .iter()
            .filter_map(session)
            .filter(|it| opened.contains(it))
            .count()
    }

    /// `gatepost audit verify` must find nothing.
    pub(crate) fn verify(&self) {
        let said = run_gatepost(&[
            "audit",
            "verify",
            "--directory",
            &self.directory.display().to_string(),
        ]);
        assert!(said.good, "{}{}", said.out, said.err);
    }
}

fn outcome(record: &Value) -> Outcome {
    let detail = &record["detail"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let correlation = record["correlation"].as_array().cloned().unwrap_or_default();
    Outcome {
        session: text(&record["session"]),
        id: detail["id"]
            .as_u64()
            .or_else(|| detail["id"].as_str()?.parse().ok()),
        outcome: text(&detail["outcome"]),
        scope: text(&detail["scope"]),
        correlation: correlation.iter().map(|it| text(&it["id"])).collect(),
        sources: correlation.iter().map(|it| text(&it["source"])).collect(),
    }
}
