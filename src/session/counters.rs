//! What is counted about sessions, over all threads. A session finds its target's counters once; a
//! statement only writes to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::audit::record::Outcome;
use crate::domain::measure::{Counter, Histogram, Reading};
use crate::domain::ration::Ration;
use crate::domain::refusal::RefusalCode;
use crate::domain::target::TargetName;
use crate::session::cancels::Heard;
use crate::sql::Kind;

/// Lines in the log about strangers' refusals, one by one: enough to see what is tried, and below
/// 50 MB a day.
const STRANGERS_LOGGED: u64 = 60;
/// Lines in the log about records that the journal did not take: on a full disk every statement that
/// writes brings one.
const UNRECORDED_LOGGED: u64 = 60;
const LOG_WINDOW: Duration = Duration::from_secs(60);

/// Everything that sessions count.
#[derive(Debug)]
pub struct Counters {
    opened: Counter,
    refusals: [Counter; RefusalCode::ALL.len()],
    cancels: [Counter; Heard::ALL.len()],
    targets: BTreeMap<TargetName, Arc<TargetCounters>>,
    /// For facts without a target, which no open session has.
    nowhere: Arc<TargetCounters>,
    /// Which refusals of strangers are in the log one by one.
    pub(super) strangers: Ration,
    /// Which failures of the journal are.
    pub(super) unrecorded: Ration,
}

/// One target's share of the counters.
#[derive(Debug)]
pub struct TargetCounters {
    sessions: AtomicU64,
    outcomes: [Counter; OUTCOMES.len()],
    statements: [Histogram; Kind::ALL.len()],
    unread: Counter,
}

/// How transactions end, with the label of each.
const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Committed, "committed"),
    (Outcome::Aborted, "aborted"),
    (Outcome::InDoubt, "in_doubt"),
    (Outcome::Prepared, "prepared"),
];

/// An open session among its target's; counted down when dropped.
#[derive(Debug)]
pub(super) struct Presence(Arc<TargetCounters>);

impl Counters {
    pub fn new(targets: impl IntoIterator<Item = TargetName>) -> Self {
        let targets = targets.into_iter().map(|target| (target, Arc::default()));
        Self {
            opened: Counter::default(),
            refusals: Default::default(),
            cancels: Default::default(),
            targets: targets.collect(),
            nowhere: Arc::default(),
            strangers: Ration::new(STRANGERS_LOGGED, LOG_WINDOW),
            unrecorded: Ration::new(UNRECORDED_LOGGED, LOG_WINDOW),
        }
    }

    pub(super) fn opened_one(&self) {
        self.opened.add(1);
    }

    pub(super) fn refused(&self, code: RefusalCode) {
        let at = RefusalCode::ALL.iter().position(|known| *known == code);
        if let Some(counter) = at.and_then(|at| self.refusals.get(at)) {
            counter.add(1);
        }
    }

    pub(super) fn cancel_heard(&self, heard: Heard) {
        let at = Heard::ALL.iter().position(|known| *known == heard);
        if let Some(counter) = at.and_then(|at| self.cancels.get(at)) {
            counter.add(1);
        }
    }

    pub(super) fn target(&self, target: Option<&TargetName>) -> Arc<TargetCounters> {
        let known = target.and_then(|target| self.targets.get(target));
        Arc::clone(known.unwrap_or(&self.nowhere))
    }

    /// Sessions that were let in so far.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// Refusals so far, by code.
    pub fn refusals(&self) -> impl Iterator<Item = (RefusalCode, u64)> {
        let counts = self.refusals.iter().map(Counter::get);
        RefusalCode::ALL.into_iter().zip(counts)
    }

    /// Cancel requests so far, by what became of them.
    pub fn cancels(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.cancels.iter().map(Counter::get);
        Heard::ALL.into_iter().map(Heard::label).zip(counts)
    }

    pub fn targets(&self) -> impl Iterator<Item = (&TargetName, &TargetCounters)> {
        self.targets
            .iter()
            .map(|(target, counters)| (target, counters.as_ref()))
    }
}

impl TargetCounters {
    pub(super) fn enter(self: &Arc<Self>) -> Presence {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Presence(Arc::clone(self))
    }

    pub(super) fn transaction(&self, outcome: Outcome) {
        let at = OUTCOMES.iter().position(|(known, _)| *known == outcome);
        if let Some(counter) = at.and_then(|at| self.outcomes.get(at)) {
            counter.add(1);
        }
    }

    pub(super) fn statement(&self, kind: Kind, took: Duration) {
        if let Some(histogram) = self.statements.get(kind.index()) {
            histogram.observe(took);
        }
    }

    /// A reply went to the client that gatepost cannot read to its end.
    pub(super) fn unread_one(&self) {
        self.unread.add(1);
    }

    /// Replies so far that went to the client and that gatepost cannot read to their end.
    pub fn unread(&self) -> u64 {
        self.unread.get()
    }

    /// Open sessions.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Transactions on record, by how they ended.
    pub fn transactions(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.outcomes.iter().map(Counter::get);
        OUTCOMES.into_iter().map(|(_, label)| label).zip(counts)
    }

    /// How long statements took, by kind; kinds that nobody used are left out.
    pub fn statements(&self) -> impl Iterator<Item = (Kind, Reading)> {
        let readings = self.statements.iter().map(Histogram::read);
        Kind::ALL
            .into_iter()
            .zip(readings)
            .filter(|(_, reading)| reading.count > 0)
    }
}

impl Default for TargetCounters {
    fn default() -> Self {
        Self {
            sessions: AtomicU64::default(),
            outcomes: Default::default(),
            statements: std::array::from_fn(|_| Histogram::default()),
            unread: Counter::default(),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_its_own_counts() {
        let counters = Counters::new(["a".into(), "b".into()]);
        let of = |target: &str| counters.target(Some(&target.into()));
        let presence = of("a").enter();
        of("a").transaction(Outcome::InDoubt);
        of("b").statement(Kind::Insert, Duration::from_millis(3));
        assert_eq!((of("a").sessions(), of("b").sessions()), (1, 0));
        drop(presence);
        assert_eq!(of("a").sessions(), 0);
        let ended: Vec<_> = of("a").transactions().filter(|(_, count)| *count > 0).collect();
        assert_eq!(ended, [("in_doubt", 1)]);
        let kinds: Vec<_> = of("b")
            .statements()
            .map(|(kind, it)| (kind.label(), it.count))
            .collect();
        assert_eq!(kinds, [("insert", 1)]);
    }
}
