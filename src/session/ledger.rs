//! The client's transactions as they unfold, and the audit records that they become. Pure: the
//! relay says what it saw, the ledger says what is to be written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use crate::audit::Marker;
use crate::audit::record::{Event, Facts, Outcome, Record, Scope, Statement, Transaction};
use crate::audit::values::{Called, Values};
use crate::domain::correlation::{CORRELATION_IDS_MAX, Correlation, CorrelationSource};
use crate::domain::ids::SessionId;
use crate::domain::incarnation::Incarnation;
use crate::session::counters::TargetCounters;
use crate::sql::Kind;
use crate::sql::correlation::{Reach, SetCorrelation};

mod allowance;

pub(super) use allowance::Allowance;

/// Statements of one transaction that are named in its record; the rest is counted.
const STATEMENTS_MAX: usize = 200;

/// Off in what `benches/audit_cost.rs` compares with, and nowhere else: no feature and no setting reaches it.
pub(super) const IS_AUDITED: bool = !cfg!(gatepost_unaudited);

/// One transaction.
#[derive(Clone, Debug)]
struct Work {
    number: u64,
    began: SystemTime,
    statements: Vec<Statement>,
    omitted: u64,
    /// The first statement whose row count has not arrived.
    unanswered: usize,
    /// The engine's transaction id, once known.
    id: Option<u64>,
    /// The name under which it was prepared, or of what it ended.
    gid: Option<Arc<str>>,
    /// It may have been rolled back, under this id, by something that gatepost could not read.
    perhaps_over: Option<Option<u64>>,
    correlation: Vec<Correlation>,
    /// Did something run that may have written?
    may_have_written: bool,
    /// Did the probe answer behind the last of it?
    asked: bool,
    /// Is an intent due although no id is known?
    announced: bool,
    /// Did something run whose effect the probe cannot fully see?
    partial: bool,
    /// The session's own setting when the transaction began: a rollback returns to it.
    session_id_before: Option<Correlation>,
    /// When the server last completed a statement of it.
    heard: Option<SystemTime>,
    /// Where our marker is found again.
    marker: Option<Marker>,
    /// Has nothing run behind the marker?
    is_marked: bool,
}

impl Work {
    fn note(&mut self, text: &Arc<str>, kind: Kind, values: Option<Values>) {
        if self.statements.len() >= STATEMENTS_MAX {
            self.omitted += 1;
            return;
        }
        self.statements.push(Statement {
            text: text.clone(),
            kind: kind.label(),
            rows: None,
            values,
        });
    }
}

/// All transactions of one session, one at a time.
#[derive(Debug)]
pub(super) struct Ledger {
    facts: Arc<Facts>,
    session: SessionId,
    backend: i32,
    /// From the start-up of the connection.
    startup: Option<Correlation>,
    /// By `SET gatepost.correlation_id`.
    session_wide: Option<Correlation>,
    /// In comments of texts that were parsed since the last transaction ended.
    comments: Vec<Correlation>,
    work: Option<Work>,
    /// `work` as it was before a text of several statements.
    before_script: Option<Option<Work>>,
    closed: u64,
    /// The statements whose completion the server still owes, in order, with their arrival.
    /// Whether it is one of the transaction's on record.
    running: VecDeque<(Kind, SystemTime, bool)>,
    /// The names of prepared transactions in statements that were sent and are not completed.
    gids: VecDeque<Option<Arc<str>>>,
    counters: Arc<TargetCounters>,
    allowance: Allowance,
    /// The life of the server that this session's connection is of, as far as anybody knew.
    incarnation: Option<Incarnation>,
}

impl Ledger {
    pub(super) fn new(
        facts: Arc<Facts>,
        session: SessionId,
        backend: i32,
        startup: Option<Correlation>,
        counters: Arc<TargetCounters>,
    ) -> Self {
        Self {
            allowance: Allowance::of(&facts),
            facts,
            session,
            backend,
            startup,
            session_wide: None,
            comments: Vec::new(),
            work: None,
            before_script: None,
            closed: 0,
            running: VecDeque::new(),
            gids: VecDeque::new(),
            counters,
            incarnation: None,
        }
    }

    /// The same, of a connection to a server in this life.
    pub(super) fn of_incarnation(self, incarnation: Option<Incarnation>) -> Self {
        Self { incarnation, ..self }
    }

    /// What may be kept of the values of the transaction at hand.
    pub(super) const fn allowance(&mut self) -> &mut Allowance {
        &mut self.allowance
    }

    /// Keeps a request with calls of procedures, whose statements are noted next.
    pub(super) fn keep_calls(&mut self, payload: &[u8], is_whole: bool) -> Option<Arc<Called>> {
        if self.work.is_none() {
            self.allowance.renew();
        }
        self.allowance.called(payload, is_whole)
    }

    /// Does the rule want values on record?
    pub(super) const fn wants_values(&self) -> bool {
        self.allowance.is_wanted()
    }

    /// Transactions on record so far.
    pub(super) const fn closed(&self) -> u64 {
        self.closed
    }

    fn work(&mut self, now: SystemTime) -> &mut Work {
        let (number, session_id_before) = (self.closed + 1, &self.session_wide);
        self.work.get_or_insert_with(|| Work {
            number,
            began: now,
            statements: Vec::new(),
            omitted: 0,
            unanswered: 0,
            id: None,
            gid: None,
            perhaps_over: None,
            correlation: session_id_before.iter().cloned().collect(),
            may_have_written: false,
            asked: false,
            announced: false,
            partial: false,
            session_id_before: session_id_before.clone(),
            heard: None,
            marker: None,
            is_marked: false,
        })
    }

    /// A BEGIN was sent: what follows is one transaction.
    pub(super) fn began(&mut self, now: SystemTime) {
        self.work(now);
    }

    /// A statement was sent.
    pub(super) fn statement(&mut self, text: &Arc<str>, kind: Kind, values: Option<Values>, now: SystemTime) {
        self.running.push_back((kind, now, true));
        self.again(text, kind, values, now);
    }

    /// A statement that is on record may be part of what comes behind it as well: its text began several
    /// transactions.
    pub(super) fn again(&mut self, text: &Arc<str>, kind: Kind, values: Option<Values>, now: SystemTime) {
        let is_nothing = kind.is_inert() && self.work.is_none();
        if kind.controls_transaction() || is_nothing || !IS_AUDITED {
            return;
        }
        let work = self.work(now);
        work.perhaps_over = None;
        if !kind.is_inert() {
            work.may_have_written = true;
            work.asked = false;
            work.is_marked = false;
        }
        work.partial |= kind.may_commit_itself();
        work.note(text, kind, values);
    }

    /// A statement was sent that is proven to write nothing: it is on record only as part of a transaction
    /// that writes.
    pub(super) fn read(&mut self, text: &Arc<str>, kind: Kind, values: Option<Values>, now: SystemTime) {
        self.running.push_back((kind, now, self.work.is_some()));
        let Some(work) = &mut self.work else { return };
        if kind.controls_transaction() || kind.is_inert() {
            return;
        }
        work.note(text, kind, values);
    }

    /// Statements were sent that name prepared transactions.
    pub(super) fn prepared_names(&mut self, gids: &[Option<Arc<str>>]) {
        self.gids.extend(gids.iter().cloned());
    }

    /// What is noted from here on may be several transactions, for which one intent stands.
    pub(super) fn note_provisionally(&mut self) {
        self.before_script = Some(self.work.clone());
    }

    /// The intent is on disk: each transaction is noted again as it comes.
    pub(super) fn note_one_by_one(&mut self) {
        if let Some(before) = self.before_script.take() {
            self.work = before;
        }
    }

    /// Another part of a statement that is already on record was asked for.
    pub(super) fn continued(&mut self, kind: Kind, now: SystemTime) {
        self.running.push_back((kind, now, true));
    }

    /// A text with these correlation ids in its comments was sent.
    pub(super) fn comments(&mut self, ids: &[Correlation]) {
        let room = CORRELATION_IDS_MAX.saturating_sub(self.comments.len());
        self.comments.extend(ids.iter().take(room).cloned());
    }

    /// A `SET` of the correlation id was sent; `in_block` when it is part of a larger transaction.
    pub(super) fn set_correlation(&mut self, set: &SetCorrelation, in_block: bool, now: SystemTime) {
        match set.reach {
            // Outside of a block the server warns that SET LOCAL has no effect.
            Reach::Transaction if !in_block => {}
            Reach::Transaction => self.note_id(set.value.as_ref(), now),
            Reach::Session => {
                if in_block {
                    self.note_id(set.value.as_ref(), now);
                }
                self.session_wide.clone_from(&set.value);
            }
        }
    }

    /// The session's id was set by something that a rollback does not undo.
    pub(super) fn set_lasting_correlation(&mut self, set: &SetCorrelation) {
        self.session_wide.clone_from(&set.value);
        if let Some(work) = &mut self.work {
            work.session_id_before.clone_from(&set.value);
            if let Some(id) = set.value.as_ref().filter(|id| !work.correlation.contains(id))
                && work.correlation.len() < CORRELATION_IDS_MAX
            {
                work.correlation.push(id.clone());
            }
        }
    }

    fn note_id(&mut self, id: Option<&Correlation>, now: SystemTime) {
        let work = self.work(now);
        if let Some(id) = id.filter(|id| !work.correlation.contains(id))
            && work.correlation.len() < CORRELATION_IDS_MAX
        {
            work.correlation.push(id.clone());
        }
    }

    /// The probe answered.
    pub(super) fn learned(&mut self, id: Option<u64>) {
        if let Some(work) = &mut self.work {
            work.id = id.or(work.id);
            work.asked = true;
            work.perhaps_over = None;
        }
    }

    /// Something that gatepost could not read was answered with ROLLBACK: of the transaction, or to a
    /// savepoint. Its id is asked for anew, and if there is nothing more of it, it is over.
    pub(super) fn perhaps_rolled_back(&mut self) {
        if let Some(work) = &mut self.work {
            work.perhaps_over = Some(work.id.take());
            work.asked = false;
            work.is_marked = false;
            work.partial = true;
        }
    }

    /// Our marker was written into the transaction.
    pub(super) fn marked(&mut self, marker: Marker) {
        if let Some(work) = &mut self.work {
            work.marker = Some(marker);
            work.is_marked = true;
        }
    }

    /// The server answered a question in the transaction, which was open then.
    pub(super) fn heard(&mut self, now: SystemTime) {
        if let Some(work) = &mut self.work {
            work.heard = Some(now);
        }
    }

    /// What commits it next is not covered by a marker that was written before.
    pub(super) fn unmark(&mut self) {
        if let Some(work) = &mut self.work {
            work.marker = None;
            work.is_marked = false;
        }
    }

    /// Is there something to mark that is not marked? Not when the probe has said that nothing was written.
    pub(super) fn wants_marker(&self) -> bool {
        let unmarked =
            |work: &Work| work.may_have_written && !work.is_marked && (work.id.is_some() || !work.asked);
        self.work.as_ref().is_some_and(unmarked)
    }

    /// Is there a transaction at hand?
    pub(super) const fn is_open(&self) -> bool {
        self.work.is_some()
    }

    /// The number of the transaction at hand.
    pub(super) const fn number(&self) -> u64 {
        self.closed + 1
    }

    /// What follows may commit before its id is known: its intent is due.
    pub(super) fn announce(&mut self) {
        if let Some(work) = &mut self.work {
            work.announced = true;
        }
    }

    /// Something partial happened that no kind says (several statements in one string …).
    pub(super) fn mark_partial(&mut self) {
        if let Some(work) = &mut self.work {
            work.partial = true;
        }
    }

    /// Is the transaction id wanted and not known? Not when the probe has said that there is none
    /// and nothing ran since.
    pub(super) fn wants_id(&self) -> bool {
        self.work
            .as_ref()
            .is_some_and(|work| work.may_have_written && work.id.is_none() && !work.asked)
    }

    /// Did something run in the transaction at hand that may have written?
    pub(super) fn may_have_written(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.may_have_written)
    }

    /// The id of the transaction at hand, once known.
    pub(super) fn id(&self) -> Option<u64> {
        self.work.as_ref().and_then(|work| work.id)
    }

    /// Must an intent be on disk before this transaction may commit? Yes as soon as it has a
    /// transaction id, or may have written in a way that the probe cannot see.
    pub(super) fn wants_intent(&self) -> bool {
        self.work
            .as_ref()
            .is_some_and(|work| work.id.is_some() || work.partial || work.announced)
    }

    /// A statement completed, with this many rows. Returns its kind.
    pub(super) fn completed(&mut self, rows: Option<u64>, now: SystemTime) -> Option<Kind> {
        let recorded = self.running.front().is_some_and(|(_, _, recorded)| *recorded);
        let kind = self.answered(now);
        if matches!(kind, Some(Kind::PrepareTransaction | Kind::EndPrepared))
            && let Some(gid) = self.gids.pop_front()
            && let Some(work) = &mut self.work
        {
            work.gid = gid;
        }
        let counts = recorded && kind.is_some_and(|kind| !kind.controls_transaction());
        if let Some(work) = &mut self.work {
            work.heard = Some(now);
        }
        if let Some(work) = self.work.as_mut().filter(|_| counts)
            && let Some(statement) = work.statements.get_mut(work.unanswered)
        {
            statement.rows = rows;
            work.unanswered += 1;
        }
        kind
    }

    /// A statement of this kind has touched so many rows: the first of its kind that is not counted yet.
    pub(super) fn counted(&mut self, kind: Kind, rows: u64) {
        let Some(work) = &mut self.work else { return };
        let mut uncounted = work.statements.iter_mut().filter(|it| it.rows.is_none());
        if let Some(statement) = uncounted.find(|statement| statement.kind == kind.label()) {
            statement.rows = Some(rows);
        }
    }

    /// The server is through with all that was sent.
    pub(super) fn settled(&mut self, now: SystemTime) {
        while self.answered(now).is_some() {}
    }

    /// The server reported an error: nothing that was sent before it is still to complete.
    pub(super) fn failed(&mut self, now: SystemTime) {
        self.answered(now);
        self.running.clear();
        self.gids.clear();
        if let Some(work) = &mut self.work {
            work.unanswered = work.statements.len();
        }
    }

    /// The server is through with the statement that it owed first.
    fn answered(&mut self, now: SystemTime) -> Option<Kind> {
        let (kind, arrived, _) = self.running.pop_front()?;
        // A clock that was set back makes it short, not long.
        let took = now.duration_since(arrived).unwrap_or_default();
        self.counters.statement(kind, took);
        Some(kind)
    }

    /// A reply holds what gatepost cannot read.
    pub(super) fn unread(&self) {
        self.counters.unread_one();
    }

    /// What was to run never did.
    pub(super) fn discard(&mut self) {
        self.work = None;
        self.comments.clear();
        self.running.clear();
        self.gids.clear();
    }

    /// The intent of the transaction that is about to commit.
    pub(super) fn intent(&mut self) -> Option<Record> {
        let correlation = self.correlation();
        let work = self.work.as_ref()?;
        let mut transaction = Box::new(self.transaction(work));
        transaction.gid = self.gids.front().cloned().flatten();
        let event = Event::TransactionIntent(transaction);
        Some(Record {
            facts: self.facts.clone(),
            correlation,
            event,
        })
    }

    /// The transaction ended. `None` when nothing ran in it that is worth a record.
    pub(super) fn close(&mut self, outcome: Outcome, now: SystemTime) -> Option<Record> {
        let correlation = self.correlation();
        self.comments.clear();
        let mut work = self.work.take()?;
        let outcome = match work.perhaps_over.take() {
            Some(id) if outcome == Outcome::Committed => {
                work.id = id;
                Outcome::Aborted
            }
            Some(_) | None => outcome,
        };
        if outcome == Outcome::Aborted {
            self.session_wide.clone_from(&work.session_id_before);
        }
        // What is prepared has an id even when it wrote nothing.
        if !work.may_have_written && outcome != Outcome::Prepared {
            return None;
        }
        self.closed += 1;
        self.counters.transaction(outcome);
        let scope = match work.id {
            _ if work.partial => Scope::Partial,
            None if outcome == Outcome::Prepared => Scope::Partial,
            None if outcome == Outcome::Committed => Scope::ReadOnly,
            None | Some(_) => Scope::Complete,
        };
        let duration = now.duration_since(work.began).unwrap_or_default();
        let transaction = Box::new(self.transaction(&work));
        let event = Event::TransactionOutcome {
            transaction,
            scope,
            outcome,
            duration,
        };
        Some(Record {
            facts: self.facts.clone(),
            correlation,
            event,
        })
    }

    fn transaction(&self, work: &Work) -> Transaction {
        Transaction {
            number: work.number,
            id: work.id,
            gid: work.gid.clone(),
            statements: work.statements.clone(),
            statements_omitted: work.omitted,
            began: work.began,
            backend: self.backend,
            incarnation: self.incarnation.clone(),
            marker: work.marker.clone(),
            heard: work.heard,
        }
    }

    /// All ids that the current transaction carries, most specific source first; one of our own
    /// when the client gave none.
    fn correlation(&self) -> Vec<Correlation> {
        let mut ids: Vec<Correlation> = self
            .work
            .iter()
            .flat_map(|work| &work.correlation)
            .cloned()
            .collect();
        for id in &self.comments {
            if ids.len() < CORRELATION_IDS_MAX && !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        if ids.is_empty() {
            ids.extend(self.startup.clone());
        }
        if ids.is_empty() {
            let own = format!("{}/{}", self.session, self.closed + 1);
            ids.extend(Correlation::new(&own, CorrelationSource::Generated));
        }
        ids
    }
}

#[cfg(test)]
mod tests;
