//! What became of a transaction, from what its server says of the id. Pure: the decision table, and
//! nothing that is not in it.
//!
//! After a crash or a failover a server gives out ids again that it had given out before, as far as
//! nothing of them had reached the disk. So "committed" is said of the transaction itself only in the
//! life in which it ran; later it needs a proof that the id was not given out a second time.

use std::time::{Duration, SystemTime};

use crate::audit::doubt::Doubt;
use crate::audit::{Doubtful, Evidence, Outcome};
use crate::domain::incarnation::Incarnation;

/// Microseconds within which no server stops, is succeeded by itself or another, gives the same id out
/// again, has it committed, and stops once more: an automatic failover takes seconds, a crash with
/// recovery at least a tenth of one.
const SUCCESSION_MICROS: i64 = 250_000;
/// What two clocks may have drifted apart since they were compared, besides the time of asking.
const DRIFT_MICROS: i64 = 10_000;

/// What a server says of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::credential) enum Status {
    InProgress,
    Committed,
    Aborted,
    /// Not given out yet.
    Future,
    /// Too old to be kept.
    Forgotten,
}

/// The server as it is now. Times are microseconds of its own clock since 1970.
#[derive(Clone, Debug)]
pub(in crate::credential) struct Witness {
    pub(in crate::credential) incarnation: Incarnation,
    /// A standby lags behind, and knows ids less well than the server it follows.
    pub(in crate::credential) in_recovery: bool,
    /// How far its clock is ahead of ours.
    pub(in crate::credential) ahead: i64,
    /// How wrong `ahead` may be: the time that the question took.
    pub(in crate::credential) error: i64,
    /// Only if it is the checkpoint that ends a recovery.
    pub(in crate::credential) recovered: Option<Recovered>,
    /// Does it keep the times of commits?
    pub(in crate::credential) keeps_commit_times: bool,
}

/// The checkpoint at the end of a recovery.
#[derive(Clone, Copy, Debug)]
pub(in crate::credential) struct Recovered {
    /// To the second.
    pub(in crate::credential) at: i64,
    /// No id below this is given out after it.
    pub(in crate::credential) next_xid: u64,
}

/// What it says of one transaction.
#[derive(Clone, Debug)]
pub(in crate::credential) struct Testimony {
    pub(in crate::credential) status: Status,
    pub(in crate::credential) committed_at: Option<i64>,
    /// The name under which it waits for its second phase.
    pub(in crate::credential) prepared_as: Option<String>,
    /// Stands our marker in the WAL, and the commit of its transaction behind it?
    pub(in crate::credential) is_marked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::credential) enum Verdict {
    Final(Outcome, Evidence),
    InDoubt(Doubtful),
    /// It waits for its second phase.
    Prepared(String),
    /// It has not ended yet, or the server cannot know.
    NotYet,
}

/// The verdict on a transaction with an id.
pub(in crate::credential) fn judge(
    doubt: &Doubt,
    id: u64,
    witness: &Witness,
    testimony: &Testimony,
) -> Verdict {
    if testimony.is_marked {
        return Verdict::Final(Outcome::Committed, Evidence::WalMarker);
    }
    let Some(then) = &doubt.incarnation else {
        return Verdict::InDoubt(Doubtful::ServerUnknown);
    };
    if !then.is_of_same_system(&witness.incarnation) {
        return Verdict::InDoubt(Doubtful::OtherServer);
    }
    if witness.in_recovery {
        return Verdict::NotYet;
    }
    let same = then.is_same_as(&witness.incarnation);
    match (testimony.status, same) {
        (Status::InProgress, true) => match &testimony.prepared_as {
            Some(gid) => Verdict::Prepared(gid.clone()),
            None => Verdict::NotYet,
        },
        (Status::InProgress, false) => Verdict::NotYet,
        (Status::Forgotten, _) => Verdict::InDoubt(Doubtful::Forgotten),
        (Status::Committed, true) => Verdict::Final(Outcome::Committed, Evidence::SameIncarnation),
        (Status::Aborted, true) => Verdict::Final(Outcome::Aborted, Evidence::SameIncarnation),
        // It had been given out in this very life.
        (Status::Future, true) => Verdict::InDoubt(Doubtful::ServerChanged),
        (Status::Aborted | Status::Future, false) => {
            Verdict::Final(Outcome::Aborted, Evidence::AbortedOrFuture)
        }
        (Status::Committed, false) => {
            let alive = micros(doubt.alive).saturating_add(witness.ahead);
            let case = Case {
                then,
                id,
                alive,
                error: witness.error.saturating_add(DRIFT_MICROS),
                witness,
            };
            case.by_commit_time(testimony.committed_at)
                .or_else(|| case.by_recovery())
                .unwrap_or_else(|| Verdict::InDoubt(case.doubtful()))
        }
    }
}

/// Rows of the table of markers are kept for so long, by the server's clock, and then removed by whichever broker
/// finds them: commits whose replies were lost are asked after within seconds, and most outages are over in a
/// few hours. Ten transactions a second leave 200,000 rows.
pub(in crate::credential) const ROWS_KEPT_FOR: Duration = Duration::from_secs(6 * 60 * 60);
/// That a row is not there says something for so long only, by our clock: an hour less, for clocks that are put
/// right, and for what passes between the row and its intent.
const ABSENCE_COUNTS_FOR: Duration = Duration::from_secs(5 * 60 * 60);

/// What a table of markers says of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::credential) enum Row {
    /// With our signature.
    Ours,
    /// In its place stands what this key did not sign.
    Foreign,
    Absent,
    /// A transaction that is still open has it, or nobody could read the table.
    Unread,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::credential) struct RowTestimony {
    pub(in crate::credential) row: Row,
    /// A replica that only reads lags behind, and knows nothing of locks.
    pub(in crate::credential) writable: bool,
    /// Is it certain that the transaction is over? Where readers wait for writers, an answer is the proof.
    pub(in crate::credential) over: bool,
}

/// The verdict on a transaction with a row in a table of markers. The intent that leads here was written when the
/// row was there, uncommitted. `since`: how long ago that was.
pub(in crate::credential) fn judge_row(testimony: &RowTestimony, since: Duration) -> Verdict {
    match testimony.row {
        _ if !testimony.writable => Verdict::NotYet,
        Row::Ours => Verdict::Final(Outcome::Committed, Evidence::MarkerTable),
        Row::Foreign => Verdict::InDoubt(Doubtful::MarkerUnknown),
        Row::Unread => Verdict::NotYet,
        Row::Absent if !testimony.over => Verdict::NotYet,
        Row::Absent if since > ABSENCE_COUNTS_FOR => Verdict::InDoubt(Doubtful::Forgotten),
        Row::Absent => Verdict::Final(Outcome::Aborted, Evidence::MarkerTable),
    }
}

/// An id that is committed now, in another life than the transaction's own.
struct Case<'a> {
    then: &'a Incarnation,
    id: u64,
    /// When the transaction was seen alive, on the server's clock.
    alive: i64,
    error: i64,
    witness: &'a Witness,
}

impl Case<'_> {
    fn by_commit_time(&self, committed_at: Option<i64>) -> Option<Verdict> {
        let committed_at = committed_at?;
        let earliest = self.alive.saturating_sub(self.error);
        let latest = self
            .alive
            .saturating_add(SUCCESSION_MICROS)
            .saturating_sub(self.error);
        if (earliest..=latest).contains(&committed_at) {
            return Some(Verdict::Final(Outcome::Committed, Evidence::CommitTimestamp));
        }
        // The transaction was alive before this life began, so what was committed in this life is another.
        let began = self.witness.incarnation.began()?;
        let ended_before = self.alive.saturating_add(self.error) < began;
        (ended_before && committed_at >= began)
            .then_some(Verdict::Final(Outcome::Aborted, Evidence::CommitTimestamp))
    }

    /// The recovery that follows directly on the transaction's own life knew the id, so it was not given
    /// out again; and it is committed.
    fn by_recovery(&self) -> Option<Verdict> {
        let recovered = self.witness.recovered?;
        let began = self.witness.incarnation.began()?;
        let earliest = self.alive.saturating_sub(self.error);
        let latest = self
            .alive
            .saturating_add(SUCCESSION_MICROS)
            .saturating_sub(self.error);
        let directly = (earliest..=latest).contains(&began);
        let of_this_life = recovered.at.saturating_add(1_000_000) > began;
        let seen = self.id < recovered.next_xid;
        let same_machine = self.then.is_on_same_timeline(&self.witness.incarnation);
        (directly && of_this_life && seen && same_machine)
            .then_some(Verdict::Final(Outcome::Committed, Evidence::ControlCheckpoint))
    }

    fn doubtful(&self) -> Doubtful {
        let both_seen = self.then.began().is_some() && self.witness.incarnation.began().is_some();
        if both_seen {
            Doubtful::ServerChanged
        } else {
            Doubtful::ServerUnknown
        }
    }
}

/// Microseconds since 1970.
pub(in crate::credential) fn micros(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    /// Our clock when the transaction was seen alive, in microseconds.
    const ALIVE: i64 = 1_700_000_000_000_000;
    const LATER: i64 = ALIVE + 60_000_000;

    fn doubt(incarnation: Option<Incarnation>) -> Doubt {
        Doubt {
            facts: Arc::default(),
            correlation: vec![],
            epoch: 1,
            number: 1,
            id: Some(700),
            incarnation,
            marker: None,
            backend: None,
            alive: SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(ALIVE).unwrap()),
            previous: None,
        }
    }

    fn life(began: i64) -> Incarnation {
        Incarnation::new("7", 1, Some(began))
    }

    fn witness(incarnation: Incarnation) -> Witness {
        Witness {
            incarnation,
            in_recovery: false,
            ahead: 0,
            error: 1_000,
            recovered: None,
            keeps_commit_times: false,
        }
    }

    fn said(status: Status) -> Testimony {
        Testimony {
            status,
            committed_at: None,
            prepared_as: None,
            is_marked: false,
        }
    }

    fn changed(testimony: &Testimony, witness: &Witness) -> Verdict {
        judge(&doubt(Some(life(5))), 700, witness, testimony)
    }

    #[test]
    fn in_the_same_life_the_server_s_word_is_final() {
        use Evidence::SameIncarnation as Same;
        let cases = [
            (Status::Committed, Verdict::Final(Outcome::Committed, Same)),
            (Status::Aborted, Verdict::Final(Outcome::Aborted, Same)),
            (Status::InProgress, Verdict::NotYet),
            (Status::Future, Verdict::InDoubt(Doubtful::ServerChanged)),
            (Status::Forgotten, Verdict::InDoubt(Doubtful::Forgotten)),
        ];
        for (status, verdict) in cases {
            assert_eq!(changed(&said(status), &witness(life(5))), verdict, "{status:?}");
        }
        let prepared = Testimony {
            prepared_as: Some("x".to_owned()),
            ..said(Status::InProgress)
        };
        assert_eq!(
            changed(&prepared, &witness(life(5))),
            Verdict::Prepared("x".to_owned())
        );
        assert_eq!(changed(&prepared, &witness(life(6))), Verdict::NotYet);
    }

    #[test]
    fn in_another_life_only_what_did_not_commit_is_certain() {
        let aborted = Verdict::Final(Outcome::Aborted, Evidence::AbortedOrFuture);
        for began in [ALIVE - 1, LATER] {
            let now = witness(life(began));
            assert_eq!(changed(&said(Status::Aborted), &now), aborted);
            assert_eq!(changed(&said(Status::Future), &now), aborted);
            let committed = changed(&said(Status::Committed), &now);
            assert_eq!(committed, Verdict::InDoubt(Doubtful::ServerChanged));
        }
    }

    #[test]
    fn what_was_not_seen_decides_nothing() {
        let now = witness(life(5));
        let unknown = Verdict::InDoubt(Doubtful::ServerUnknown);
        for status in [Status::Committed, Status::Aborted, Status::Future] {
            assert_eq!(judge(&doubt(None), 700, &now, &said(status)), unknown);
        }
        let unseen = Incarnation::new("7", 1, None);
        let committed = said(Status::Committed);
        assert_eq!(judge(&doubt(Some(unseen)), 700, &now, &committed), unknown);
        let other = Incarnation::new("8", 1, Some(5));
        let verdict = judge(&doubt(Some(other)), 700, &now, &committed);
        assert_eq!(verdict, Verdict::InDoubt(Doubtful::OtherServer));
        let standby = Witness {
            in_recovery: true,
            ..now
        };
        assert_eq!(changed(&said(Status::Future), &standby), Verdict::NotYet);
    }

    #[test]
    fn a_row_is_there_or_not() {
        let said = |row, writable, over, hours: u64| {
            let testimony = RowTestimony { row, writable, over };
            judge_row(&testimony, Duration::from_secs(hours * 3_600))
        };
        let committed = Verdict::Final(Outcome::Committed, Evidence::MarkerTable);
        let aborted = Verdict::Final(Outcome::Aborted, Evidence::MarkerTable);
        let cases = [
            (said(Row::Ours, true, true, 0), committed.clone()),
            (said(Row::Ours, true, false, 99), committed),
            (said(Row::Absent, true, true, 0), aborted),
            // The row may still come.
            (said(Row::Absent, true, false, 0), Verdict::NotYet),
            (said(Row::Unread, true, true, 0), Verdict::NotYet),
            // It may have been removed.
            (
                said(Row::Absent, true, true, 6),
                Verdict::InDoubt(Doubtful::Forgotten),
            ),
            (
                said(Row::Foreign, true, true, 0),
                Verdict::InDoubt(Doubtful::MarkerUnknown),
            ),
        ];
        for (case, (found, expected)) in cases.into_iter().enumerate() {
            assert_eq!(found, expected, "case {case}");
        }
        for row in [Row::Ours, Row::Foreign, Row::Absent, Row::Unread] {
            assert_eq!(said(row, false, true, 0), Verdict::NotYet, "a replica: {row:?}");
        }
        assert!(ABSENCE_COUNTS_FOR < ROWS_KEPT_FOR);
    }

    #[test]
    fn a_marker_proves_it_in_whatever_life() {
        let marked = Testimony {
            is_marked: true,
            ..said(Status::Committed)
        };
        let proven = Verdict::Final(Outcome::Committed, Evidence::WalMarker);
        assert_eq!(changed(&marked, &witness(life(LATER))), proven);
        assert_eq!(judge(&doubt(None), 700, &witness(life(5)), &marked), proven);
    }

    #[test]
    fn the_time_of_the_commit_tells_the_transaction_from_another_with_its_id() {
        let committed = Verdict::Final(Outcome::Committed, Evidence::CommitTimestamp);
        let another = Verdict::Final(Outcome::Aborted, Evidence::CommitTimestamp);
        let doubtful = Verdict::InDoubt(Doubtful::ServerChanged);
        let at = |committed_at, began| {
            let testimony = Testimony {
                committed_at: Some(committed_at),
                ..said(Status::Committed)
            };
            changed(&testimony, &witness(life(began)))
        };
        assert_eq!(at(ALIVE + 3_000, LATER), committed);
        assert_eq!(
            at(ALIVE + 3_000, ALIVE - 9_000_000),
            committed,
            "after a promotion"
        );
        assert_eq!(at(LATER + 5, LATER), another);
        assert_eq!(
            at(LATER - 5, LATER),
            doubtful,
            "in a life between, or late in its own"
        );
        assert_eq!(at(LATER + 5, ALIVE - 5), doubtful, "promoted: nobody knows when");
        assert_eq!(at(ALIVE - 90_000, LATER), doubtful, "before it was seen alive");
    }

    #[test]
    fn a_recovery_right_behind_the_transaction_knows_its_id() {
        let at = |began, next_xid, timeline| {
            let now = Witness {
                recovered: Some(Recovered {
                    at: began / 1_000_000 * 1_000_000,
                    next_xid,
                }),
                ..witness(Incarnation::new("7", timeline, Some(began)))
            };
            changed(&said(Status::Committed), &now)
        };
        let committed = Verdict::Final(Outcome::Committed, Evidence::ControlCheckpoint);
        let doubtful = Verdict::InDoubt(Doubtful::ServerChanged);
        assert_eq!(at(ALIVE + 100_000, 701, 1), committed);
        assert_eq!(
            at(ALIVE + 100_000, 700, 1),
            doubtful,
            "the id was given out again"
        );
        assert_eq!(
            at(ALIVE + 900_000, 701, 1),
            doubtful,
            "another life may lie between"
        );
        assert_eq!(at(ALIVE - 900_000, 701, 1), doubtful, "it began before");
        assert_eq!(at(ALIVE + 100_000, 701, 2), doubtful, "a promotion");
    }
}
