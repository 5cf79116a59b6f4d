//! What three parties say about the same messages: the broker's correlation ids and how each message was
//! settled, the journal's transactions, and the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use serde::Deserialize;
use serde_json::Value;

use crate::parts::{Access, Failure};

/// A line of what the consumer noted when it settled a message.
#[derive(Debug, Deserialize)]
struct Settled {
    message: String,
    correlation: String,
    settled: String,
}

/// A transaction of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Transaction {
    xid: Option<u64>,
    outcome: String,
}

#[derive(Debug, Default)]
pub(crate) struct Facts {
    settled: Vec<Settled>,
    /// By correlation id.
    transactions: BTreeMap<String, Vec<Transaction>>,
    /// Message id → the transaction that wrote its row of the inbox, as far as a row knows it (32 bits).
    rows: BTreeMap<String, u64>,
    /// Transactions that were notified.
    confirmed: BTreeSet<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) lines: Vec<String>,
    /// Where the three disagree.
    pub(crate) findings: Vec<String>,
}

impl Facts {
    pub(crate) fn read_settled(&mut self, lines: impl BufRead) -> Result<(), Failure> {
        for line in lines.lines() {
            self.settled.push(serde_json::from_str(&line?)?);
        }
        Ok(())
    }

    /// Of `gatepost audit show --json`.
    pub(crate) fn read_journal(&mut self, lines: impl BufRead) -> Result<(), Failure> {
        for line in lines.lines() {
            let record: Value = serde_json::from_str(&line?)?;
            let transaction = Transaction {
                xid: record.get("xid").and_then(Value::as_u64),
                outcome: record
                    .get("outcome")
                    .and_then(Value::as_str)
                    .unwrap_or("unknown")
                    .to_owned(),
            };
            let ids = record.get("correlation").and_then(Value::as_array);
            for id in ids.into_iter().flatten().filter_map(Value::as_str) {
                let of_id = self.transactions.entry(id.to_owned()).or_default();
                of_id.push(transaction.clone());
            }
        }
        Ok(())
    }

    /// What the listener printed.
    pub(crate) fn read_confirmed(&mut self, lines: impl BufRead) -> Result<(), Failure> {
        for line in lines.lines() {
            if let Some(payload) = line?.strip_prefix("confirmed: ") {
                let xid = payload.split(' ').next().unwrap_or(payload);
                self.confirmed.insert(xid.parse()?);
            }
        }
        Ok(())
    }

    pub(crate) async fn read_rows(&mut self, access: &Access) -> Result<(), Failure> {
        let (client, _) = access.connect("auto", "order-auditor").await?;
        let written = "SELECT message_id, xmin::text FROM inbox";
        for row in client.query(written, &[]).await? {
            let (message, xmin): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            self.rows.insert(message.to_owned(), xmin.parse()?);
        }
        Ok(())
    }

    /// A line for each message. A message that was accepted twice was delivered twice.
    pub(crate) fn join(&self) -> Table {
        let mut table = Table::default();
        table.lines.push(line(
            "MESSAGE",
            "CORRELATION",
            "BROKER",
            "XID",
            "OUTCOME",
            "ROW",
            "NOTIFIED",
        ));
        let mut told = BTreeMap::<(&str, &str, &str), usize>::new();
        for one in &self.settled {
            *told
                .entry((&one.message, &one.correlation, &one.settled))
                .or_default() += 1;
        }
        for ((message, correlation, settled), times) in told {
            self.judge(&mut table, message, correlation, settled, times);
        }
        for message in self.rows.keys() {
            let accepted = |one: &Settled| one.message == *message && one.settled == "accepted";
            if !self.settled.iter().any(accepted) {
                table
                    .findings
                    .push(format!("{message} has a row, and was not accepted"));
            }
        }
        table
    }

    fn judge(&self, table: &mut Table, message: &str, correlation: &str, settled: &str, times: usize) {
        let all = self.transactions.get(correlation).map(Vec::as_slice);
        let all = all.unwrap_or_default();
        let committed: Vec<_> = all.iter().filter(|one| one.outcome == "committed").collect();
        let row = self.rows.get(message);
        let mut finding = |what: &str| table.findings.push(format!("{message}: {what}"));
        match (settled, committed.as_slice()) {
            ("accepted", [one]) => {
                if one.xid.map(lower_half) != row.copied() {
                    finding("its row is of another transaction");
                }
            }
            ("accepted", []) => finding("accepted, and no transaction of it committed"),
            ("accepted", _) => finding("applied more than once"),
            (_, []) if row.is_none() => {}
            (_, _) => finding("not accepted, and yet applied"),
        }
        let shown = committed.first().copied().or(all.last());
        let xid = shown.and_then(|one| one.xid);
        let broker = match times {
            1 => settled.to_owned(),
            times => format!("{settled} {times}×"),
        };
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let notified = xid.is_some_and(|xid| self.confirmed.contains(&xid));
        table.lines.push(line(
            message,
            correlation,
            &broker,
            &number(xid),
            shown.map_or("-", |one| one.outcome.as_str()),
            &number(row.copied()),
            if notified { "yes" } else { "-" },
        ));
    }
}

/// A row knows the lower half of its transaction's id.
fn lower_half(xid: u64) -> u64 {
    xid & 0xffff_ffff
}

#[expect(clippy::too_many_arguments, reason = "a cell each")]
fn line(
    message: &str,
    correlation: &str,
    broker: &str,
    xid: &str,
    outcome: &str,
    row: &str,
    notified: &str,
) -> String {
    format!("{message:<10} {correlation:<14} {broker:<12} {xid:>6}  {outcome:<10} {row:>6}  {notified}")
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(settled: &str, journal: &str, rows: &[(&str, u64)]) -> Facts {
        let mut facts = Facts::default();
        facts.read_settled(settled.as_bytes()).unwrap();
        facts.read_journal(journal.as_bytes()).unwrap();
        facts
            .read_confirmed(&b"listening\nconfirmed: 700 2\n"[..])
            .unwrap();
        facts.rows = rows.iter().map(|(id, xid)| ((*id).to_owned(), *xid)).collect();
        facts
    }

    const SETTLED: &str = r#"{"message":"m-1","correlation":"c-1","settled":"accepted"}
{"message":"m-2","correlation":"c-2","settled":"rejected"}
{"message":"m-1","correlation":"c-1","settled":"accepted"}
"#;
    const JOURNAL: &str = r#"{"correlation":["c-1","c-2"],"xid":699,"outcome":"aborted"}
{"correlation":["c-1"],"xid":700,"outcome":"committed"}
"#;

    #[test]
    fn what_all_three_agree_on_is_no_finding() {
        let table = facts(SETTLED, JOURNAL, &[("m-1", 700)]).join();
        assert_eq!(table.findings, [""; 0]);
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = table.lines.iter().map(|line| cells(line)).collect();
        assert_eq!(
            lines[1],
            ["m-1", "c-1", "accepted", "2×", "700", "committed", "700", "yes"]
        );
        assert_eq!(lines[2], ["m-2", "c-2", "rejected", "699", "aborted", "-", "-"]);
    }

    #[test]
    fn a_row_knows_half_of_the_id() {
        let journal = r#"{"correlation":["c-1"],"xid":4294967997,"outcome":"committed"}"#;
        let settled = SETTLED.lines().next().unwrap();
        assert_eq!(facts(settled, journal, &[("m-1", 701)]).join().findings, [""; 0]);
    }

    #[test]
    fn disagreement_is_told() {
        let findings = |settled: &str, journal: &str, rows: &[(&str, u64)]| {
            let found = facts(settled, journal, rows).join().findings;
            assert_eq!(found.len(), 1, "{found:?}");
            found[0].clone()
        };
        assert!(findings(SETTLED, JOURNAL, &[("m-1", 701)]).contains("another transaction"));
        assert!(findings(SETTLED, "", &[]).contains("no transaction"));
        let twice = JOURNAL.replace("aborted", "committed").replace(r#","c-2""#, "");
        assert!(findings(SETTLED, &twice, &[("m-1", 700)]).contains("more than once"));
        let rejected = JOURNAL
            .replace("aborted", "committed")
            .replace(r#""c-1","c-2""#, r#""c-2""#);
        assert!(findings(SETTLED, &rejected, &[("m-1", 700)]).contains("yet applied"));
        assert!(findings(SETTLED, JOURNAL, &[("m-1", 700), ("m-3", 9)]).contains("was not accepted"));
    }
}
