//! Judging what a client sends.

use std::sync::Arc;
use std::time::SystemTime;

use crate::domain::refusal::Reason;
use crate::session::lane::Lane;
use crate::session::statements::Prepared;
use crate::sql;
use crate::sql::{Kind, Reading};
use crate::wire::pg::frame::{self, HEAD_BYTES, Head};
use crate::wire::pg::from_client::{self, Described, FromClient, tag};
use crate::wire::pg::from_server::TransactionStatus;
use crate::wire::pg::turn::{Copying, Owner, Sent};
use crate::wire::{Decoded, PeerMisbehaved};

use super::group::Copy;
use super::probe::Portal;
use super::script::Script;
use super::{
    Conversation, Demand, Fault, MESSAGE_BYTES_MAX, Passing, Phase, STATEMENT_BYTES_MAX, Then, Verdict,
    pass_on,
};

/// Bind without parameters and with all results as text, for the unnamed statement and portal: what
/// a simple Query does.
const BIND_AS_QUERY: &[u8] = b"B\0\0\0\x0c\0\0\0\0\0\0\0\0";

/// What became of one message.
enum Judged {
    On,
    Wait { at_least: usize },
    Demand(Demand),
    Terminated,
}

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
    /// Judges what the client sent, as far as it may go on now.
    pub(in crate::session) fn judge_client(
        &mut self,
        to_server: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault> {
        loop {
            if !pass_on(&mut self.from_client, to_server) {
                return Ok(Verdict::More { at_least: 1 });
            }
            let head = match frame::head(to_server.unjudged(), MESSAGE_BYTES_MAX).map_err(Fault::Client)? {
                Decoded::Message(head) => head,
                Decoded::NeedMore { at_least } => return Ok(Verdict::More { at_least }),
            };
            if !self.admits(head.tag) {
                return Ok(Verdict::More { at_least: 0 });
            }
            match self.client_message(head, to_server, now)? {
                Judged::On => {}
                Judged::Wait { at_least } => return Ok(Verdict::More { at_least }),
                Judged::Demand(demand) => return Ok(Verdict::Demand(demand)),
                Judged::Terminated => return Ok(Verdict::Terminated),
            }
        }
    }

    /// May a message with this tag go on now?
    fn admits(&self, tag: u8) -> bool {
        let copy_data = matches!(tag, tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL);
        match self.phase {
            Phase::Open => !self.turn.is_full(),
            Phase::AwaitingReady | Phase::ConvertedCopy => copy_data && self.turn.copying() == Copying::In,
            Phase::Asking(_) | Phase::Writing(_) | Phase::Settling | Phase::HoldingReady => false,
        }
    }

    fn client_message(&mut self, head: Head, lane: &mut Lane, now: SystemTime) -> Result<Judged, Fault> {
        match head.tag {
            // These stream: neither their bodies nor their ends need to be here.
            tag::COPY_DATA => {
                self.forward(head, lane);
                return Ok(Judged::On);
            }
            tag::BIND => return self.bind(head, lane),
            tag::FUNCTION_CALL => return Ok(self.function_call(head, lane, now)),
            tag::QUERY | tag::PARSE if head.length > STATEMENT_BYTES_MAX => {
                return Err(Fault::StatementTooLarge { length: head.length });
            }
            _ => {}
        }
        let Some(body) = lane.unjudged().get(HEAD_BYTES..head.length) else {
            return Ok(Judged::Wait {
                at_least: head.length,
            });
        };
        match from_client::parse(head.tag, body).map_err(Fault::Client)? {
            FromClient::Query { sql } => {
                let reading = sql::read(sql, self.backslash_escapes);
                let text: Arc<str> = Arc::from(String::from_utf8_lossy(sql));
                return Ok(self.query(head, &reading, &text, lane, now));
            }
            FromClient::Parse { statement, sql } => {
                let reading = sql::read(sql, self.backslash_escapes);
                if let Some(what) = reading.escape {
                    lane.discard(head.length);
                    self.group.begun = true;
                    self.poison(Reason::EscapeStatement { what }, lane);
                    return Ok(Judged::On);
                }
                self.parse(statement, reading, &String::from_utf8_lossy(sql));
            }
            // The server skips it.
            FromClient::Execute { .. } if self.group.failed => self.turn.sent(Sent::Execute, Owner::Client),
            FromClient::Execute { portal, .. } => {
                let statement = self.statements.peek(portal);
                if self.group.ending {
                    return Ok(self.settle_first(lane));
                }
                if !self.cleared {
                    let first = self.statements.execute(portal).1;
                    self.note_execute(&statement, first, now);
                }
                return Ok(self.execute(head, statement.kind, lane));
            }
            FromClient::Describe { kind, .. } => self.turn.sent(described(kind), Owner::Client),
            FromClient::Close { kind, name } => self.close(kind, name),
            FromClient::Sync => return Ok(self.sync(head, lane)),
            FromClient::CopyDone | FromClient::CopyFail => return Ok(self.copy_ended(head, lane)),
            FromClient::Terminate => return Ok(Judged::Terminated),
            FromClient::Flush => {}
            FromClient::Password(_)
            | FromClient::Bind { .. }
            | FromClient::CopyData
            | FromClient::FunctionCall => {
                return Err(unexpected(head.tag, "a query"));
            }
        }
        self.forward(head, lane);
        Ok(Judged::On)
    }

    fn parse(&mut self, name: &[u8], reading: Reading, text: &str) {
        // A Parse of several statements is refused by the server.
        let kind = reading.single().unwrap_or(Kind::Unknown);
        let Reading { sets, comments, .. } = reading;
        self.ledger.comments(&comments);
        if !self.turn.is_skipping() {
            let prepared = Prepared {
                text: Arc::from(text),
                kind,
                sets,
            };
            self.statements.parse(name, Arc::new(prepared));
        }
        self.turn.sent(Sent::Parse, Owner::Client);
    }

    fn close(&mut self, kind: Described, name: &[u8]) {
        match kind {
            Described::Statement => self.statements.close_statement(name),
            Described::Portal => self.statements.close_portal(name),
        }
        self.turn.sent(Sent::Close, Owner::Client);
    }

    /// The message goes on, as far as it is here; the rest follows as it comes.
    fn forward(&mut self, head: Head, lane: &mut Lane) {
        self.group.begun = true;
        self.from_client = Passing::Forward(head.length);
        pass_on(&mut self.from_client, lane);
    }

    /// Drops the message at the front.
    pub(super) fn discard_message(&mut self, lane: &mut Lane) {
        if let Ok(Decoded::Message(head)) = frame::head(lane.unjudged(), MESSAGE_BYTES_MAX) {
            self.from_client = Passing::Discard(head.length);
            pass_on(&mut self.from_client, lane);
        }
    }

    fn bind(&mut self, head: Head, lane: &mut Lane) -> Result<Judged, Fault> {
        let body = lane.unjudged().get(HEAD_BYTES..).unwrap_or_default();
        let body = body.get(..head.body_bytes()).unwrap_or(body);
        match from_client::bind_names(body) {
            Decoded::Message(_) if self.turn.is_skipping() => {}
            Decoded::Message((portal, statement)) => self.statements.bind(portal, statement),
            Decoded::NeedMore { at_least } if at_least <= head.body_bytes() => {
                return Ok(Judged::Wait {
                    at_least: at_least + HEAD_BYTES,
                });
            }
            Decoded::NeedMore { .. } => {
                return Err(unexpected(head.tag, "two names"));
            }
        }
        self.turn.sent(Sent::Bind, Owner::Client);
        self.forward(head, lane);
        Ok(Judged::On)
    }

    // ── simple protocol ────────────────────────────────────────────────────────────────────────

    fn query(
        &mut self,
        head: Head,
        reading: &Reading,
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
        let route = if self.turn.is_skipping() {
            Route::Plain
        } else {
            self.route(&reading.kinds)
        };
        let first = !std::mem::take(&mut self.cleared);
        if first {
            self.note_query(reading, text, now);
        }
        match route {
            Route::Plain => self.forward_query(head, lane),
            Route::WithProbe => {
                self.forward_query(head, lane);
                if self.ledger.wants_id() {
                    self.probe_group(lane);
                }
            }
            Route::Convert => {
                self.convert(head, text, lane);
                self.ask(Portal::Unnamed, lane, Then::Sync);
            }
            Route::ConvertCopy => {
                self.convert(head, text, lane);
                self.add(lane, from_client::put_flush);
                self.phase = Phase::ConvertedCopy;
            }
            Route::IntentThenConvert | Route::IntentThenPlain | Route::Commit if first => {
                return self.gate_query(route, lane);
            }
            Route::IntentThenConvert => {
                self.group.hold_ready = true;
                self.convert(head, text, lane);
                self.probe
                    .put(Portal::Unnamed, &mut self.scratch, lane, &mut self.turn);
                self.proceed(Then::Sync, lane);
            }
            Route::IntentThenPlain => {
                self.group.hold_ready = true;
                self.run_script(head, reading, lane);
            }
            Route::Commit => self.forward_query(head, lane),
        }
        Judged::On
    }

    /// What has to happen before a Query that may commit goes on.
    fn gate_query(&mut self, route: Route, lane: &mut Lane) -> Judged {
        if route == Route::IntentThenPlain {
            self.ledger.announce();
        }
        if route == Route::Commit && self.ledger.wants_id() {
            self.probe_group(lane);
            self.phase = Phase::Asking(Then::Judge);
            return Judged::On;
        }
        self.demand_intent()
    }

    fn route(&self, kinds: &[Kind]) -> Route {
        let commits = |kind: &Kind| matches!(kind, Kind::Commit | Kind::PrepareTransaction | Kind::Unknown);
        match (self.expected, kinds) {
            (TransactionStatus::Failed, _) | (_, []) => Route::Plain,
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
                | Kind::Definition => Route::Convert,
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
                | Kind::Do
                | Kind::Notify
                | Kind::Maintenance
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

    fn note_query(&mut self, reading: &Reading, text: &Arc<str>, now: SystemTime) {
        self.ledger.comments(&reading.comments);
        let mut in_block = self.expected == TransactionStatus::InBlock;
        for kind in &reading.kinds {
            if *kind == Kind::Begin {
                in_block = true;
                self.ledger.began(now);
            }
            self.note_statement(text, *kind, now);
        }
        for set in &reading.sets {
            self.ledger.set_correlation(set, in_block, now);
        }
    }

    fn note_statement(&mut self, text: &Arc<str>, kind: Kind, now: SystemTime) {
        self.ledger.statement(text, kind, now);
        if kind.may_touch_probe() {
            self.probe.distrust();
            self.statements.distrust();
        }
    }

    /// Several statements, their intent on disk: with the probe woven in where that can be.
    fn run_script(&mut self, head: Head, reading: &Reading, lane: &mut Lane) {
        let sql = lane.unjudged().get(HEAD_BYTES..head.length.saturating_sub(1));
        let woven = sql
            .filter(|_| reading.kinds.len() > 1)
            .and_then(|sql| Script::weave(sql, reading));
        let Some((woven, script)) = woven else {
            self.ledger.mark_partial();
            return self.forward_query(head, lane);
        };
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
    fn convert(&mut self, head: Head, text: &str, lane: &mut Lane) {
        // The bytes as they came: `text` may have been made readable.
        let sql = lane.unjudged().get(HEAD_BYTES..head.length.saturating_sub(1));
        let sql = sql.unwrap_or(text.as_bytes());
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

    // ── extended protocol ──────────────────────────────────────────────────────────────────────

    fn note_execute(&mut self, statement: &Prepared, first: bool, now: SystemTime) {
        if !first {
            self.ledger.continued(statement.kind);
            return;
        }
        if statement.kind == Kind::Begin {
            self.ledger.began(now);
        }
        self.note_statement(&statement.text, statement.kind, now);
        let in_block = self.expected == TransactionStatus::InBlock;
        for set in &statement.sets {
            self.ledger.set_correlation(set, in_block, now);
        }
    }

    fn execute(&mut self, head: Head, kind: Kind, lane: &mut Lane) -> Judged {
        let first = !std::mem::take(&mut self.cleared);
        let ends_block = matches!(kind, Kind::Commit | Kind::PrepareTransaction);
        match self.expected {
            TransactionStatus::InBlock if first && (ends_block || kind == Kind::Unknown) => {
                if self.ledger.wants_id() {
                    self.ask(Portal::Named, lane, Then::Judge);
                    return Judged::On;
                }
                if self.ledger.wants_intent() {
                    return self.demand_intent();
                }
            }
            TransactionStatus::Idle if kind.may_commit_itself() => {
                if first {
                    return self.demand_intent();
                }
                self.group.hold_ready = true;
            }
            TransactionStatus::Idle | TransactionStatus::InBlock | TransactionStatus::Failed => {}
        }
        match self.expected {
            TransactionStatus::InBlock if ends_block || kind == Kind::Rollback => {
                self.expected = TransactionStatus::Idle;
                self.group.ending = true;
            }
            TransactionStatus::Idle if kind == Kind::Begin => self.expected = TransactionStatus::InBlock,
            TransactionStatus::Idle | TransactionStatus::InBlock | TransactionStatus::Failed => {}
        }
        if kind == Kind::CopyIn {
            self.group.copy = Copy::Awaited;
        }
        self.group.probe_at_sync |= !kind.takes_no_snapshot();
        self.turn.sent(Sent::Execute, Owner::Client);
        self.forward(head, lane);
        Judged::On
    }

    /// A transaction ended inside the group and another statement follows: its completion is
    /// awaited, so that the two transactions are told apart.
    fn settle_first(&mut self, lane: &mut Lane) -> Judged {
        self.add(lane, from_client::put_flush);
        self.phase = Phase::Settling;
        Judged::On
    }

    fn sync(&mut self, head: Head, lane: &mut Lane) -> Judged {
        let first = !std::mem::take(&mut self.cleared);
        if self.turn.copying() == Copying::In {
            // The server ignores it.
            self.forward(head, lane);
            return Judged::On;
        }
        let probe = !self.group.failed && self.group.copy != Copy::Awaited && self.ledger.wants_id();
        match self.expected {
            TransactionStatus::Idle if probe && first && !self.group.hold_ready && !self.group.ending => {
                self.ask(Portal::Unnamed, lane, Then::Judge);
                return Judged::On;
            }
            TransactionStatus::Idle if probe && self.group.hold_ready => {
                self.probe
                    .put(Portal::Unnamed, &mut self.scratch, lane, &mut self.turn);
            }
            TransactionStatus::InBlock if probe && self.group.probe_at_sync => {
                self.probe
                    .put(Portal::Named, &mut self.scratch, lane, &mut self.turn);
            }
            TransactionStatus::Idle | TransactionStatus::InBlock | TransactionStatus::Failed => {}
        }
        self.turn.sent(Sent::Sync, Owner::Client);
        self.forward(head, lane);
        self.phase = Phase::AwaitingReady;
        Judged::On
    }

    fn copy_ended(&mut self, head: Head, lane: &mut Lane) -> Judged {
        let copying = self.turn.copying() == Copying::In;
        self.turn.copy_data_ended();
        self.forward(head, lane);
        if copying && self.group.copy == Copy::Awaited {
            self.group.copy = Copy::Ended;
        }
        if copying && self.phase == Phase::ConvertedCopy {
            self.ask(Portal::Unnamed, lane, Then::Sync);
        }
        Judged::On
    }

    /// A function called by its number: whatever it does, it does without a statement.
    fn function_call(&mut self, head: Head, lane: &mut Lane, now: SystemTime) -> Judged {
        let first = !std::mem::take(&mut self.cleared);
        if first {
            self.note_statement(&Arc::from("/* function call by number */"), Kind::Unknown, now);
        }
        if self.expected == TransactionStatus::Idle {
            if first {
                return self.demand_intent();
            }
            self.group.hold_ready = true;
        }
        self.turn.sent(Sent::FunctionCall, Owner::Client);
        self.forward(head, lane);
        self.phase = Phase::AwaitingReady;
        Judged::On
    }

    // ── what has to come first ─────────────────────────────────────────────────────────────────

    /// Asks for the transaction id inside the client's group.
    fn ask(&mut self, portal: Portal, lane: &mut Lane, then: Then) {
        self.probe.put(portal, &mut self.scratch, lane, &mut self.turn);
        self.add(lane, from_client::put_flush);
        self.phase = Phase::Asking(then);
    }

    /// Asks for the transaction id in a group of its own, behind a simple Query in a block.
    fn probe_group(&mut self, lane: &mut Lane) {
        self.probe
            .put(Portal::Named, &mut self.scratch, lane, &mut self.turn);
        self.add(lane, from_client::put_sync);
        self.turn.sent(Sent::Sync, Owner::Ours);
    }

    fn demand_intent(&mut self) -> Judged {
        match self.ledger.intent() {
            Some(record) if self.ledger.wants_intent() => {
                self.phase = Phase::Writing(Then::Judge);
                Judged::Demand(Demand::Intent(record))
            }
            // Nothing ran that could have written.
            Some(_) | None => {
                self.cleared = true;
                Judged::On
            }
        }
    }
}

const fn described(kind: Described) -> Sent {
    match kind {
        Described::Statement => Sent::DescribeStatement,
        Described::Portal => Sent::DescribePortal,
    }
}

const fn unexpected(tag: u8, awaited: &'static str) -> Fault {
    Fault::Client(PeerMisbehaved::Unexpected { tag, awaited })
}
