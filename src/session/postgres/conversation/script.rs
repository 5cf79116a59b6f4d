//! Several statements in one simple Query: the probe is woven into the text, because nothing can be
//! put between the statements of one message, and its rows are taken out of the answer again.
//!
//! A text of several transactions has one intent, which names all of its statements, and an outcome for each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use crate::domain::correlation::Correlation;
use crate::session::ledger::Ledger;
use crate::sql::correlation::{SetCorrelation, Setting};
use crate::sql::{Kind, Reading};
use crate::wire::pg::from_server::{self, FromServer, tag};

/// A statement of its own; the line feed before it ends a comment that the client left open. The
/// text is as the protocol's simple form wants it: the answer is one row of text.
const PROBE: &[u8] = b"\n;SELECT pg_catalog.pg_current_xact_id_if_assigned() /* gatepost */;\n";

/// Whose completion comes next in the answer to a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Client,
    Probe,
}

/// What is still to come of the answer.
#[derive(Debug)]
pub(super) struct Script {
    slots: VecDeque<Slot>,
    /// The statements of each transaction that is still to come.
    transactions: VecDeque<Vec<Kind>>,
    text: Arc<str>,
    comments: Vec<Correlation>,
    sets: Vec<SetCorrelation>,
}

impl Script {
    /// Weaves the probe into `sql`: before each COMMIT, and at its end. `text` is what is recorded of it.
    pub(super) fn weave(
        sql: &[u8],
        text: &Arc<str>,
        reading: &Reading,
        in_failed_block: bool,
    ) -> Option<(Vec<u8>, Self)> {
        let mut woven = Vec::with_capacity(sql.len() + PROBE.len());
        let mut slots = VecDeque::new();
        let mut transactions = VecDeque::new();
        let mut statements = Vec::new();
        let mut copied = 0;
        // In a failed block the question would fail the text.
        let mut may_ask = !in_failed_block;
        // What came before the text may have written.
        let mut may_have_written = true;
        for (kind, start) in reading.kinds.iter().zip(&reading.starts) {
            let commits = matches!(kind, Kind::Commit | Kind::PrepareTransaction);
            if commits && may_ask && may_have_written {
                woven.extend_from_slice(sql.get(copied..*start)?);
                woven.extend_from_slice(PROBE);
                copied = *start;
                slots.push_back(Slot::Probe);
            }
            slots.push_back(Slot::Client);
            statements.push(*kind);
            if commits || *kind == Kind::Rollback {
                transactions.push_back(std::mem::take(&mut statements));
                may_have_written = false;
                may_ask = true;
            }
            may_have_written |= !kind.is_inert();
            may_ask |= *kind == Kind::RollbackTo;
        }
        woven.extend_from_slice(sql.get(copied..)?);
        // A block that is left open is asked before its COMMIT.
        if may_ask && may_have_written && !statements.contains(&Kind::Begin) {
            woven.extend_from_slice(PROBE);
            slots.push_back(Slot::Probe);
        }
        transactions.push_back(statements);
        let script = Self {
            slots,
            transactions,
            text: text.clone(),
            comments: reading.comments.clone(),
            sets: reading.sets.clone(),
        };
        Some((woven, script))
    }

    /// Puts the next transaction on record: all that was asserted of the text may be about it.
    pub(super) fn begin_next(&mut self, ledger: &mut Ledger, now: SystemTime) {
        let statements = self.transactions.pop_front().unwrap_or_default();
        ledger.comments(&self.comments);
        let mut values = ledger.allowance().of_text();
        for kind in &statements {
            if *kind == Kind::Begin {
                ledger.began(now);
            }
            ledger.again(&self.text, *kind, values, now);
            values = ledger.allowance().of_same_text();
        }
        let ids = self
            .sets
            .iter()
            .filter(|set| set.setting == Setting::CorrelationId);
        for set in ids.filter(|_| !statements.is_empty()) {
            ledger.set_correlation(set, true, now);
        }
    }

    /// Is a message with this tag the probe's? Counts completions.
    pub(super) fn is_probe(&mut self, message: u8) -> bool {
        let of_probe = self.slots.front() == Some(&Slot::Probe);
        if message == tag::COMMAND_COMPLETE {
            self.slots.pop_front();
        }
        of_probe
            && matches!(
                message,
                tag::ROW_DESCRIPTION | tag::DATA_ROW | tag::COMMAND_COMPLETE
            )
    }

    /// Does the probe answer next?
    pub(super) fn awaits_probe(&self) -> bool {
        self.slots.front() == Some(&Slot::Probe)
    }
}

/// The id in the probe's row: one decimal `xid8`, or NULL.
pub(super) fn id_in_row(body: &[u8]) -> Option<u64> {
    let Ok(FromServer::DataRow(row)) = from_server::parse(tag::DATA_ROW, body) else {
        return None;
    };
    std::str::from_utf8(row.column(0)??).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::read;

    fn woven_in(text: &str, in_failed_block: bool) -> String {
        let (sql, reading) = (text.as_bytes(), read(text.as_bytes(), false));
        let (woven, _) = Script::weave(sql, &Arc::from(text), &reading, in_failed_block).unwrap();
        let probe = String::from_utf8_lossy(PROBE).into_owned();
        String::from_utf8(woven).unwrap().replace(&probe, "<probe>")
    }

    #[test]
    fn the_probe_stands_before_each_commit_and_at_the_end() {
        let table = [
            ("insert 1; insert 2 -- x", "insert 1; insert 2 -- x<probe>"),
            ("begin; insert 1; commit;", "begin; insert 1; <probe>commit;"),
            (
                "insert 1; commit; set x = 1",
                "insert 1; <probe>commit; set x = 1",
            ),
            (
                "insert 1; commit; insert 2",
                "insert 1; <probe>commit; insert 2<probe>",
            ),
            (
                "begin; insert 1; rollback; insert 2",
                "begin; insert 1; rollback; insert 2<probe>",
            ),
            ("commit; commit", "<probe>commit; commit"),
            (
                "insert 1; commit; begin; insert 2",
                "insert 1; <probe>commit; begin; insert 2",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(woven_in(text, false), expected);
        }
    }

    #[test]
    fn a_failed_block_is_not_asked() {
        let table = [
            ("commit; insert 1", "commit; insert 1<probe>"),
            (
                "rollback to a; insert 1; commit",
                "rollback to a; insert 1; <probe>commit",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(woven_in(text, true), expected);
        }
    }

    #[test]
    fn the_probe_s_messages_are_told_apart() {
        let text = "begin; insert 1; commit";
        let reading = read(text.as_bytes(), false);
        let (_, mut script) = Script::weave(text.as_bytes(), &Arc::from(text), &reading, false).unwrap();
        let own: Vec<bool> = b"CCTDCC"
            .iter()
            .map(|message| script.is_probe(*message))
            .collect();
        assert_eq!(own, [false, false, true, true, true, false]);
    }
}
