//! Several statements in one simple Query: the probe is woven into the text, because nothing can be
//! put between the statements of one message, and its rows are taken out of the answer again.
//!
//! Only scripts of one transaction are woven. One that commits in its middle and goes on, or rolls
//! back, is sent as it is, and its record says `partial`.

use std::collections::VecDeque;

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

/// The completions that are still to come.
#[derive(Debug)]
pub(super) struct Script {
    slots: VecDeque<Slot>,
}

impl Script {
    /// Weaves the probe into `text`: before the COMMIT if there is one, else at the end. `None` when
    /// the script is not one transaction.
    pub(super) fn weave(text: &[u8], reading: &Reading) -> Option<(Vec<u8>, Self)> {
        let ends = |kind: &Kind| matches!(kind, Kind::Commit | Kind::PrepareTransaction);
        let rolls_back = |kind: &Kind| matches!(kind, Kind::Rollback | Kind::RollbackTo);
        let end = reading.kinds.iter().position(ends);
        let behind = end
            .and_then(|end| reading.kinds.get(end + 1..))
            .unwrap_or_default();
        if reading.kinds.iter().any(rolls_back) || behind.iter().any(|kind| !kind.is_inert() || ends(kind)) {
            return None;
        }
        let at = match end {
            Some(end) => *reading.starts.get(end)?,
            None => text.len(),
        };
        let mut woven = Vec::with_capacity(text.len() + PROBE.len());
        woven.extend_from_slice(text.get(..at)?);
        woven.extend_from_slice(PROBE);
        woven.extend_from_slice(text.get(at..)?);
        let before = end.unwrap_or(reading.kinds.len());
        let mut slots: VecDeque<_> = std::iter::repeat_n(Slot::Client, before).collect();
        slots.push_back(Slot::Probe);
        slots.extend(std::iter::repeat_n(Slot::Client, reading.kinds.len() - before));
        Some((woven, Self { slots }))
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

    fn woven(text: &str) -> Option<String> {
        let (woven, _) = Script::weave(text.as_bytes(), &read(text.as_bytes(), false))?;
        Some(
            String::from_utf8(woven)
                .unwrap()
                .replace(std::str::from_utf8(PROBE).unwrap(), "<probe>"),
        )
    }

    #[test]
    fn the_probe_stands_where_the_transaction_ends() {
        assert_eq!(woven("insert 1; insert 2").unwrap(), "insert 1; insert 2<probe>");
        assert_eq!(
            woven("insert 1; insert 2 -- x").unwrap(),
            "insert 1; insert 2 -- x<probe>"
        );
        assert_eq!(
            woven("begin; insert 1; commit;").unwrap(),
            "begin; insert 1; <probe>commit;"
        );
        assert_eq!(
            woven("insert 1; commit; set x = 1").unwrap(),
            "insert 1; <probe>commit; set x = 1"
        );
    }

    #[test]
    fn what_is_not_one_transaction_is_left_alone() {
        for text in ["a; commit; b", "begin; insert 1; rollback", "commit; commit"] {
            assert_eq!(woven(text), None, "{text}");
        }
    }

    #[test]
    fn the_probe_s_messages_are_told_apart() {
        let text = b"begin; insert 1; commit";
        let (_, mut script) = Script::weave(text, &read(text, false)).unwrap();
        let own: Vec<bool> = b"CCTDCC"
            .iter()
            .map(|message| script.is_probe(*message))
            .collect();
        assert_eq!(own, [false, false, true, true, true, false]);
    }
}
