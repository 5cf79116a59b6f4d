//! What a relay asks of a protocol: what a client and its database say to each other, judged message
//! by message. Pure: bytes come in lanes, decisions go back into them, and what must be on disk
//! first is handed out as a `Demand`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::audit::record::Record;
use crate::domain::refusal::{Reason, Refusal, RefusalCode};
use crate::session::alarms::Activity;
use crate::session::lane::Lane;
use crate::wire::PeerMisbehaved;

/// Largest statement text, which must be read whole to know what it does. Bulk belongs into
/// parameters, COPY or bulk load, which stream.
pub(super) const STATEMENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What judging came to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// All that could be judged is judged. The next message needs `at_least` more bytes.
    More { at_least: usize },
    /// Nothing more goes on before this is on disk.
    Demand(Demand),
    /// The client said good-bye.
    Terminated,
}

/// A record that must be durable before the conversation goes on.
#[derive(Debug)]
pub(super) enum Demand {
    /// Answered by [`Dialogue::intent_written`] or [`Dialogue::intent_failed`].
    Intent(Record),
    /// Answered by [`Dialogue::outcome_written`].
    Outcome(Record),
    /// Not a record but a look at those that are there: the client asks what became of a correlation id.
    /// Answered by [`Dialogue::outcomes_found`].
    Outcomes(Arc<str>),
}

/// The kind of refusal that keeps a client's work from going on, in a session that itself goes on.
pub(super) fn refusal_of_work(reason: &Reason) -> RefusalCode {
    if *reason == Reason::JournalFailed {
        RefusalCode::AuditUnavailable
    } else {
        RefusalCode::NotPermitted
    }
}

/// Somebody broke the protocol; the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the client broke the protocol")]
    Client(#[source] PeerMisbehaved),
    #[error("a statement of {length} bytes is larger than the limit")]
    StatementTooLarge { length: usize },
    #[error("the server broke the protocol")]
    Server(#[source] PeerMisbehaved),
    #[error("the server's reply does not fit what was asked: {what}")]
    OutOfTurn { what: String },
}

/// How what runs is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelling {
    /// Nothing runs that a cancel could be meant for, or it was said in the lane.
    Settled,
    /// By a connection of its own.
    Apart,
}

/// The two sides of one session.
pub(super) trait Dialogue {
    /// Judges what the client sent, as far as it may go on now.
    fn judge_client(
        &mut self,
        to_server: &mut Lane,
        to_client: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault>;

    /// Judges what the server sent.
    fn judge_server(
        &mut self,
        to_client: &mut Lane,
        to_server: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault>;

    /// The intent is on disk.
    fn intent_written(&mut self, to_server: &mut Lane);

    /// The intent could not be written: what waited for it is refused, and rolled back.
    fn intent_failed(&mut self, reason: Reason, to_server: &mut Lane, to_client: &mut Lane);

    /// The outcome is on disk; what was held for it may go on.
    fn outcome_written(&mut self);

    /// What became of the correlation id that was asked for.
    fn outcomes_found(&mut self, _answer: &str, _to_server: &mut Lane) {}

    /// Bytes of the longest answer that its server can keep.
    fn answer_bytes_max(&self) -> usize {
        usize::MAX
    }

    /// Records to submit without waiting.
    fn take_records(&mut self) -> Vec<Record>;

    /// Is no transaction open and nothing owed, so that the session may end here without harm?
    fn is_at_rest(&self) -> bool;

    /// Is no statement under way or cleared to go on, in a block or outside of one? A cancel request
    /// that came until now is for what is over.
    fn owes_nothing(&self) -> bool;

    /// May the upstream connection be reset and kept? Not while part of a message is missing.
    fn leaves_clean(&self) -> bool;

    /// Is a statement of the client running, which a cancel may hit?
    fn is_running_client_statement(&self) -> bool;

    /// Was something sent that commits, and not answered yet?
    fn is_committing(&self) -> bool;

    /// What the session's timers go by.
    fn activity(&self) -> Activity;

    /// The statement that runs is cancelled for its time; its error will say so.
    fn timed_out(&mut self, limit: Duration);

    /// Cancels what the client has running, and expects that its end may be ours.
    fn cancel(&mut self, to_server: &mut Lane) -> Cancelling;

    /// Transactions on record so far.
    fn transactions(&self) -> u64;

    /// One side is gone. Returns the record of a transaction that was open.
    fn abandon(&mut self, now: SystemTime) -> Option<Record>;

    /// Appends what tells the client why its session ends.
    fn put_farewell(&self, out: &mut Vec<u8>, refusal: &Refusal);
}
