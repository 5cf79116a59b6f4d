//! Simple queries: one text, several statements perhaps, and no place for a probe but around them.

use std::sync::Arc;
use std::time::SystemTime;

use crate::audit::values::Values;
use crate::domain::refusal::Reason;
use crate::session::lane::Lane;
use crate::session::ledger::IS_AUDITED;
use crate::session::postgres::proofs::Judged as Proof;
use crate::sql::{Kind, Reading};
use crate::wire::pg::frame::{HEAD_BYTES, Head};
use crate::wire::pg::from_client::{self, Described};
use crate::wire::pg::from_server::TransactionStatus;
use crate::wire::pg::turn::{Owner, Sent};

use super::client::Judged;
use super::group::Called;
use super::probe::Portal;
use super::script::Script;
use super::{Conversation, Phase, Then};

/// Bind without parameters and with all results as text, for the unnamed statement and portal: what
/// a simple Query does.
const BIND_AS_QUERY: &[u8] = b"B\0\0\0\x0c\0\0\0\0\0\0\0\0";

/// How a simple Query goes to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// As it is: it can write nothing, or the block that it is in has failed.
    Plain,
    /// As it is, with a probe in a group of its own behind it.
    WithProbe,
    /// As extended messages, with the probe and a Flush before the Sync.
    Convert,
    /// As extended messages; the probe comes behind its data.
    ConvertCopy,
    /// As extended messages, intent first.
    IntentThenConvert,
    /// As it is, intent first: several statements that may commit.
    IntentThenPlain,
    /// It ends the block: the id must be known and the intent on disk.
    Commit,
}

impl Conversation {
    pub(super) fn query(
        &mut self,
        head: Head,
        (reading, proof): (&Reading, &Proof),
        text: &Arc<str>,
        lane: &mut Lane,
        now: SystemTime,
    ) -> Judged {
        if let Some(what) = reading.escape {
            lane.discard(head.length);
            self.group.begun = true;
            self.poison(Reason::EscapeStatement { what }, lane);
            self.proceed(Then::Sync, lane);
            return Judged::On;
        }
        // It would commit what extended messages before it in its group have written.
        let commits = self.expected == TransactionStatus::Idle && self.ledger.may_have_written();
        let plain = proof.is_plain_read() && !commits;
        let route = if self.turn.is_skipping() || plain || !IS_AUDITED {
            Route::Plain
        } else {
            self.route(&reading.kinds)
        };
        let first = !std::mem::take(&mut self.cleared);
        if first && plain {
            self.ledger.comments(&reading.comments);
            let kind = reading.single().unwrap_or(Kind::Unknown);
            let values = self.ledger.allowance().of_text();
            self.ledger.read(text, kind, values, now);
        } else if first {
            if route == Route::IntentThenPlain && reading.kinds.len() > 1 {
                self.ledger.note_provisionally();
            }
            for kind in &reading.kinds {
                self.proofs.runs(*kind, proof);
            }
            self.note_query(reading, text, now);
        }
        match route {
            Route::Plain => self.forward_query(head, lane),
            Route::WithProbe => {
                self.forward_query(head, lane);
                if self.ledger.wants_id() {
                    self.call_group(lane);
                }
            }
            Route::Convert => {
                self.convert(head, lane);
                self.ask(Portal::Unnamed, lane, Then::Sync);
            }
            Route::ConvertCopy => {
                self.convert(head, lane);
                self.add(lane, from_client::put_flush);
                self.phase = Phase::ConvertedCopy;
            }
            Route::IntentThenConvert | Route::IntentThenPlain | Route::Commit if first => {
                let prepares = reading.kinds.contains(&Kind::PrepareTransaction);
                return self.gate_query(route, prepares, lane);
            }
            Route::IntentThenConvert => {
                self.group.hold_ready = true;
                self.convert(head, lane);
                if self.calls_end && !reading.kinds.iter().any(|kind| kind.may_commit_itself()) {
                    self.call(Called::ToEnd, lane);
                } else {
                    self.put_probe(Portal::Unnamed, lane);
                    self.proceed(Then::Sync, lane);
                }
            }
            Route::IntentThenPlain => {
                self.group.hold_ready = true;
                self.run_script(head, reading, text, lane, now);
            }
            Route::Commit => self.forward_query(head, lane),
        }
        Judged::On
    }

    /// What has to happen before a Query that may commit goes on.
    fn gate_query(&mut self, route: Route, prepares: bool, lane: &mut Lane) -> Judged {
        // What is prepared gets an id even when it wrote nothing; of what is converted it is not known yet.
        let unknown = matches!(route, Route::IntentThenPlain | Route::IntentThenConvert);
        if unknown || prepares {
            self.ledger.announce();
        }
        if route == Route::Commit && (self.ledger.wants_id() || self.wants_marker()) {
            self.last_question_group(lane);
            self.phase = Phase::Asking(Then::Judge);
            return Judged::On;
        }
        self.demand_intent()
    }

    fn route(&self, kinds: &[Kind]) -> Route {
        let commits = |kind: &Kind| matches!(kind, Kind::Commit | Kind::PrepareTransaction | Kind::Unknown);
        match (self.expected, kinds) {
            (_, []) | (TransactionStatus::Failed, [_]) => Route::Plain,
            // What stands behind the end of a transaction is another one, and commits with the text.
            (_, kinds) if goes_on(kinds) => Route::IntentThenPlain,
            (TransactionStatus::Failed, kinds) if kinds.iter().any(commits) => Route::IntentThenPlain,
            (TransactionStatus::Failed, _) => Route::Plain,
            (_, kinds) if kinds.iter().all(|kind| kind.is_inert() && !commits(kind)) => Route::Plain,
            (TransactionStatus::InBlock, kinds) if kinds.iter().any(commits) => match kinds {
                [_] => Route::Commit,
                _ => Route::IntentThenPlain,
            },
            (TransactionStatus::InBlock, kinds) => {
                let quiet = |kind: &Kind| kind.takes_no_snapshot() || *kind == Kind::CopyIn;
                if kinds.iter().any(quiet) {
                    Route::Plain
                } else {
                    Route::WithProbe
                }
            }
            (TransactionStatus::Idle, [kind]) => match kind {
                Kind::Commit | Kind::PrepareTransaction => Route::Plain,
                Kind::EndPrepared => Route::IntentThenPlain,
                Kind::CopyIn => Route::ConvertCopy,
                kind if kind.may_commit_itself() => Route::IntentThenConvert,
                Kind::Select
                | Kind::With
                | Kind::Insert
                | Kind::Update
                | Kind::Delete
                | Kind::Merge
                | Kind::Declare
                | Kind::Fetch
                | Kind::Explain
                | Kind::Execute
                | Kind::Lock
                | Kind::CopyOut
                | Kind::CopyServer
                | Kind::Definition => self.convertible(),
                // Either inert, and found so above, or listed as committing by itself.
                Kind::Empty
                | Kind::Begin
                | Kind::Rollback
                | Kind::RollbackTo
                | Kind::Savepoint
                | Kind::Release
                | Kind::Set
                | Kind::Show
                | Kind::Prepare
                | Kind::Deallocate
                | Kind::Discard
                | Kind::Listen
                | Kind::CloseCursor
                | Kind::Call
                | Kind::DeclareHeld
                | Kind::Do
                | Kind::Notify
                | Kind::Maintenance
                | Kind::Use
                | Kind::Print
                | Kind::Control
                | Kind::Unknown => Route::IntentThenPlain,
            },
            // A string that opens a block and leaves it open commits nothing.
            (TransactionStatus::Idle, [Kind::Begin, rest @ ..])
                if !rest.iter().any(|kind| commits(kind) || kind.may_commit_itself()) =>
            {
                Route::Plain
            }
            (TransactionStatus::Idle, _) => Route::IntentThenPlain,
        }
    }

    /// A write outside of a block that a probe can stand behind.
    const fn convertible(&self) -> Route {
        if self.holds_replies() {
            Route::IntentThenConvert
        } else {
            Route::Convert
        }
    }

    fn note_query(&mut self, reading: &Reading, text: &Arc<str>, now: SystemTime) {
        self.ledger.comments(&reading.comments);
        let mut in_block = self.expected == TransactionStatus::InBlock;
        let mut values = self.ledger.allowance().of_text();
        for kind in &reading.kinds {
            if *kind == Kind::Begin {
                in_block = true;
                self.ledger.began(now);
            }
            self.note_statement(text, *kind, values, now);
            values = self.ledger.allowance().of_same_text();
        }
        for set in &reading.sets {
            self.note_set(set, in_block, now);
        }
        self.ledger.prepared_names(&reading.gids);
    }

    pub(super) fn note_statement(
        &mut self,
        text: &Arc<str>,
        kind: Kind,
        values: Option<Values>,
        now: SystemTime,
    ) {
        self.ledger.statement(text, kind, values, now);
        if kind.may_make_code() {
            self.distrust_questions_always();
        }
        if kind.may_touch_probe() {
            self.distrust_questions();
            self.statements.distrust();
        }
    }

    /// Several statements, their intent on disk: with the probe woven in where that can be.
    fn run_script(
        &mut self,
        head: Head,
        reading: &Reading,
        text: &Arc<str>,
        lane: &mut Lane,
        now: SystemTime,
    ) {
        let failed = self.expected == TransactionStatus::Failed;
        let sql = lane.unjudged().get(HEAD_BYTES..head.length.saturating_sub(1));
        let woven = sql
            .filter(|_| reading.kinds.len() > 1)
            .and_then(|sql| Script::weave(sql, text, reading, failed));
        let Some((woven, mut script)) = woven else {
            self.ledger.mark_partial();
            return self.forward_query(head, lane);
        };
        self.ledger.note_one_by_one();
        script.begin_next(&mut self.ledger, now);
        lane.discard(head.length);
        self.add(lane, |out| from_client::put_query(out, &woven));
        self.group.begun = true;
        self.statements.simple_query();
        self.turn.sent(Sent::Query, Owner::Client);
        self.script = Some(script);
        self.phase = Phase::AwaitingReady;
    }

    fn forward_query(&mut self, head: Head, lane: &mut Lane) {
        self.statements.simple_query();
        self.turn.sent(Sent::Query, Owner::Client);
        self.forward(head, lane);
        // Behind an error of extended messages the server ignores even a Query.
        if !self.turn.is_skipping() {
            self.phase = Phase::AwaitingReady;
        }
    }

    /// Replaces a Query by the extended messages that do the same, without the Sync.
    fn convert(&mut self, head: Head, lane: &mut Lane) {
        let sql = lane
            .unjudged()
            .get(HEAD_BYTES..head.length.saturating_sub(1))
            .unwrap_or_default();
        self.scratch.clear();
        from_client::put_parse(&mut self.scratch, b"", sql);
        self.scratch.extend_from_slice(BIND_AS_QUERY);
        from_client::put_describe(&mut self.scratch, Described::Portal, b"");
        from_client::put_execute(&mut self.scratch, b"", 0);
        lane.discard(head.length);
        lane.add(&self.scratch);
        self.group.begun = true;
        self.statements.simple_query();
        for sent in [Sent::Parse, Sent::Bind, Sent::DescribePortal, Sent::Execute] {
            self.turn.sent(sent, Owner::Converted);
        }
    }
}

/// Does a transaction end before the last of these statements?
fn goes_on(kinds: &[Kind]) -> bool {
    let ends = |kind: &Kind| matches!(kind, Kind::Commit | Kind::PrepareTransaction | Kind::Rollback);
    let (_, before) = kinds.split_last().unwrap_or((&Kind::Empty, &[]));
    before.iter().any(ends)
}
