//! What a client and its database say to each other, judged message by message. Pure: bytes come in
//! lanes, decisions go back into them, and what must be on disk first is handed out as a `Demand`.
//!
//! The rules, proven byte by byte on PostgreSQL 15 to 18:
//!
//! - One message group (up to a Sync or a Query) is under way at a time, so the transaction status
//!   at its start is always known.
//! - Whatever may write is asked for its transaction id by a probe inside its own transaction,
//!   behind the client's last statement and never before it. In a block the id is known before
//!   COMMIT goes on, with its intent on disk.
//! - Outside of a block the probe is followed by a Flush; the Sync that commits goes on only when
//!   the intent naming the id is on disk. Or, as the setting says ([`Autocommit`]), the intent is
//!   written without the id, probe and Sync go on together, and the reply waits until the outcome
//!   naming the id is on disk.
//! - A statement that may commit by itself always goes this second way.
//! - Where nothing has to come between the question and the end of its group, the question is a
//!   function call that stands in place of the Sync. An error before it makes the server skip it,
//!   and then the Sync is sent.
//! - What is refused is replaced by a message that fails, so that the server itself keeps count of
//!   what it skips.

mod client;
mod group;
mod marking;
mod probe;
mod question;
mod script;
mod server;
mod simple;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::audit::record::{Outcome, Record};
use crate::domain::autocommit::Autocommit;
use crate::domain::ids::SessionId;
use crate::domain::refusal::{Reason, Refusal, RefusalCode};
use crate::session::alarms::Activity;
use crate::session::dialogue::{Cancelling, Dialogue, Fault, Verdict, refusal_of_work};
use crate::session::lane::Lane;
use crate::session::ledger::Ledger;
use crate::session::postgres::proofs::Proofs;
use crate::session::postgres::refusal::put_refusal;
use crate::session::postgres::statements::Statements;
use crate::wire::pg::error_response::Severity;
use crate::wire::pg::from_client;
use crate::wire::pg::from_server::TransactionStatus;
use crate::wire::pg::turn::{Owner, Sent, Turn, TurnError};

use group::{Called, Group};
use marking::Marker;
use probe::Probe;
use script::Script;

/// Largest message from either side: PostgreSQL's own bound for one field is 1 GiB, and a row or a
/// Bind holds several.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// The server's parameter that says whether a backslash in a plain constant is only a backslash.
const STRING_STYLE: &str = "standard_conforming_strings";

/// The server's parameter that says which PostgreSQL it is (`17.10 (Debian …)`).
const VERSION: &str = "server_version";
const CALLS_GO_ON_SINCE: u32 = 18;

/// A prepared statement that never exists: binding it fails in any state and any language.
const POISON: &[u8] = b"gatepost refuses this";

/// What the client's next message has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing.
    Open,
    /// The probe's answer.
    Asking(Then),
    /// An intent on its way to disk.
    Writing(Then),
    /// The end of the group that was sent.
    AwaitingReady,
    /// The data of a COPY that came as a simple Query, and was converted.
    ConvertedCopy,
    /// The completion of a COMMIT or ROLLBACK in the middle of a group.
    Settling,
    /// An outcome on its way to disk; the server's ReadyForQuery waits as well.
    HoldingReady,
    /// A look through the journal for what the client asked.
    Looking,
    /// The group of ours that tells the client's session what was found.
    Answering,
}

/// How the conversation goes on when what it waited for has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The client's message that was held back is judged again, and is cleared.
    Judge,
    /// The Sync of a converted Query is sent.
    Sync,
}

/// Is the client's group being cancelled?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancelled {
    Not,
    Sent,
    /// The group is over and well, and its ReadyForQuery was dropped: the one of our own group behind
    /// it will do, with its error if the cancel hits that.
    ReadyWithheld,
}

/// Bytes of a message that is larger than what was read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    Forward(usize),
    Discard(usize),
}

#[derive(Debug)]
pub(in crate::session) struct Conversation {
    reference: SessionId,
    turn: Turn,
    statements: Statements,
    ledger: Ledger,
    probe: Probe,
    marker: Option<Marker>,
    autocommit: Autocommit,
    /// Outside of a block a function call ends the transaction of the statements before it, as a Sync would.
    calls_end: bool,
    phase: Phase,
    /// The transaction status after all that was sent, if none of it fails.
    expected: TransactionStatus,
    group: Group,
    /// The message that was held back may go on.
    cleared: bool,
    /// What the poison's error is replaced by.
    refusal: Option<Reason>,
    /// What the error of a cancelled statement is replaced by.
    timed_out: Option<Duration>,
    /// Replies to statements of the client so far.
    replied: u64,
    from_client: Passing,
    from_server: Passing,
    backslash_escapes: bool,
    /// The answer to a Query of several statements that is under way.
    script: Option<Script>,
    cancelled: Cancelled,
    /// The correlation id whose attempts the client asks for, once what asked it is over.
    question: Option<Arc<str>>,
    proofs: Proofs,
    /// Records that nobody waits for.
    records: Vec<Record>,
    /// The outcomes of transactions that ended in a group whose end waits for them.
    held: Vec<Record>,
    scratch: Vec<u8>,
}

impl Conversation {
    /// `probe_name` must not be guessable, so that no client hits it by accident. `parameters` are what
    /// the server reported about itself so far.
    pub(super) fn new(
        reference: SessionId,
        ledger: Ledger,
        probe_name: &str,
        parameters: &[(String, String)],
        proofs: Proofs,
    ) -> Self {
        let is_off = |(name, value): &(String, String)| name == STRING_STYLE && value == "off";
        Self {
            reference,
            turn: Turn::idle(),
            statements: Statements::default(),
            ledger,
            probe: Probe::new(probe_name),
            marker: None,
            autocommit: Autocommit::AskFirst,
            calls_end: calls_end(parameters),
            phase: Phase::Open,
            expected: TransactionStatus::Idle,
            group: Group::default(),
            cleared: false,
            refusal: None,
            timed_out: None,
            replied: 0,
            from_client: Passing::Forward(0),
            from_server: Passing::Forward(0),
            backslash_escapes: parameters.iter().any(is_off),
            script: None,
            cancelled: Cancelled::Not,
            question: None,
            proofs,
            records: Vec::new(),
            held: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The same, with writes outside of a block put on record in this way.
    pub(super) fn committing(self, autocommit: Autocommit) -> Self {
        Self { autocommit, ..self }
    }

    /// Does a write outside of a block commit in one go with its question? Not where the question marks it: the
    /// intent has to say from where on the marker is looked for, and the answer tells that.
    const fn holds_replies(&self) -> bool {
        matches!(self.autocommit, Autocommit::HoldReply) && self.marker.is_none()
    }

    fn proceed(&mut self, then: Then, to_server: &mut Lane) {
        match then {
            Then::Judge => {
                self.cleared = true;
                self.phase = Phase::Open;
            }
            Then::Sync => {
                self.add(to_server, from_client::put_sync);
                self.turn.sent(Sent::Sync, Owner::Client);
                self.phase = Phase::AwaitingReady;
            }
        }
    }

    /// What was held, the first of it last: it bears the number of the intent, which so stays open until
    /// all that stood under it is on record.
    fn release_held(&mut self) -> Option<Record> {
        let mut held = std::mem::take(&mut self.held).into_iter();
        let first = held.next();
        self.records.extend(held);
        first
    }

    /// Puts a message of our own into the lane.
    fn add(&mut self, lane: &mut Lane, put: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        put(&mut self.scratch);
        lane.add(&self.scratch);
    }

    /// Sends a message that fails; its error is replaced by `reason`.
    fn poison(&mut self, reason: Reason, to_server: &mut Lane) {
        self.refusal = Some(reason);
        self.group.failed = true;
        self.add(to_server, |out| from_client::put_bind(out, b"", POISON));
        self.turn.sent(Sent::Bind, Owner::Poison);
    }

    /// The error that a client sees in place of the poison's.
    fn put_own_refusal(&mut self, to_client: &mut Lane) {
        let reason = self.refusal.take().unwrap_or(Reason::JournalFailed);
        self.put_error(refusal_of_work(&reason), reason, to_client);
    }

    fn put_error(&mut self, code: RefusalCode, reason: Reason, to_client: &mut Lane) {
        let refusal = Refusal {
            code,
            reason,
            reference: self.reference,
        };
        self.add(to_client, |out| put_refusal(out, Severity::Error, &refusal));
    }
}

impl Dialogue for Conversation {
    fn judge_client(
        &mut self,
        to_server: &mut Lane,
        _: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault> {
        self.hear_client(to_server, now)
    }

    fn judge_server(
        &mut self,
        to_client: &mut Lane,
        to_server: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault> {
        self.hear_server(to_client, to_server, now)
    }

    fn is_at_rest(&self) -> bool {
        self.phase == Phase::Open && self.turn.is_clean() && self.group.is_empty()
    }

    fn owes_nothing(&self) -> bool {
        let settled = self.phase == Phase::Open && self.turn.is_settled();
        settled && self.group.is_empty() && !self.cleared
    }

    fn leaves_clean(&self) -> bool {
        self.is_at_rest()
            && self.from_client == Passing::Forward(0)
            && self.from_server == Passing::Forward(0)
    }

    fn is_running_client_statement(&self) -> bool {
        match self.phase {
            // The call commits in the client's name.
            Phase::AwaitingReady if self.group.called == Called::ToEnd => true,
            Phase::AwaitingReady | Phase::Asking(_) | Phase::ConvertedCopy | Phase::Settling => {
                self.turn.is_client_waiting()
            }
            Phase::Open => !self.turn.is_settled(),
            Phase::Writing(_) | Phase::HoldingReady | Phase::Looking | Phase::Answering => false,
        }
    }

    fn is_committing(&self) -> bool {
        self.group.commit_sent
    }

    fn activity(&self) -> Activity {
        if self.phase != Phase::Open || !self.turn.is_settled() {
            Activity::Running(self.replied)
        } else if self.turn.status() == TransactionStatus::Idle {
            Activity::Idle
        } else {
            Activity::IdleInTransaction
        }
    }

    fn timed_out(&mut self, limit: Duration) {
        self.timed_out = Some(limit);
    }

    fn transactions(&self) -> u64 {
        self.ledger.closed()
    }

    fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    fn intent_written(&mut self, to_server: &mut Lane) {
        if let Phase::Writing(then) = self.phase {
            self.group.commit_sent = true;
            self.proceed(then, to_server);
        }
    }

    fn intent_failed(&mut self, reason: Reason, to_server: &mut Lane, _: &mut Lane) {
        let Phase::Writing(then) = self.phase else { return };
        self.group.commit_sent = false;
        let held = to_server.unjudged().first().copied();
        match (then, held) {
            (Then::Sync, _) => {
                self.poison(reason, to_server);
                self.proceed(Then::Sync, to_server);
            }
            // The Sync itself goes on behind the poison: it ends a transaction that has failed.
            (Then::Judge, Some(from_client::tag::SYNC)) => {
                self.poison(reason, to_server);
                self.proceed(Then::Judge, to_server);
            }
            (Then::Judge, Some(from_client::tag::EXECUTE)) => {
                self.discard_message(to_server);
                self.poison(reason, to_server);
                self.phase = Phase::Open;
            }
            (Then::Judge, _) => {
                self.discard_message(to_server);
                self.poison(reason, to_server);
                self.proceed(Then::Sync, to_server);
            }
        }
    }

    fn outcome_written(&mut self) {
        self.phase = Phase::AwaitingReady;
    }

    fn outcomes_found(&mut self, answer: &str, to_server: &mut Lane) {
        self.put_answer(answer, to_server);
    }

    fn abandon(&mut self, now: SystemTime) -> Option<Record> {
        let outcome = if self.group.commit_sent {
            Outcome::InDoubt
        } else {
            Outcome::Aborted
        };
        let record = self.ledger.close(outcome, now);
        self.held.extend(record);
        self.release_held()
    }

    /// The cancel may hit our own question behind the client's last statement, so the client is not
    /// told that the statement is over before that is answered.
    fn cancel(&mut self, _: &mut Lane) -> Cancelling {
        if !self.is_running_client_statement() {
            return Cancelling::Settled;
        }
        self.cancelled = Cancelled::Sent;
        Cancelling::Apart
    }

    fn put_farewell(&self, out: &mut Vec<u8>, refusal: &Refusal) {
        put_refusal(out, Severity::Fatal, refusal);
    }
}

impl From<TurnError> for Fault {
    fn from(error: TurnError) -> Self {
        Self::OutOfTurn {
            what: error.to_string(),
        }
    }
}

/// Up to PostgreSQL 17 a function call is the end of what stands before it in its group; from 18 on the transaction
/// goes on until the Sync. Whoever is taken for the first and is the second is found out by the first answer.
fn calls_end(parameters: &[(String, String)]) -> bool {
    let version = parameters.iter().find(|(name, _)| name == VERSION);
    let major = version.and_then(|(_, value)| value.split(|c: char| !c.is_ascii_digit()).next());
    let major = major.and_then(|major| major.parse::<u32>().ok());
    major.is_none_or(|major| major < CALLS_GO_ON_SINCE)
}

/// Moves along what is left of a message that was judged by its head. Says whether it is through.
fn pass_on(passing: &mut Passing, lane: &mut Lane) -> bool {
    let available = lane.unjudged().len();
    match passing {
        Passing::Forward(left) => {
            let taken = available.min(*left);
            lane.forward(taken);
            *left -= taken;
            *left == 0
        }
        Passing::Discard(left) => {
            let taken = available.min(*left);
            lane.discard(taken);
            *left -= taken;
            *left == 0
        }
    }
}
