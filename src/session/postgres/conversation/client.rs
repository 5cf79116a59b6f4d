//! Judging what a client sends.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use crate::audit::record::STATEMENT_TEXT_BYTES;
use crate::audit::values::ParameterTypes;
use crate::domain::refusal::Reason;
use crate::session::dialogue::{Demand, Fault, STATEMENT_BYTES_MAX, Verdict};
use crate::session::lane::Lane;
use crate::session::ledger::IS_AUDITED;
use crate::session::postgres::proofs::{Judged as Judgement, Memory};
use crate::session::postgres::statements::{Execution, Prepared};
use crate::sql;
use crate::sql::correlation::{SetCorrelation, Setting};
use crate::sql::standard::with_escapes;
use crate::sql::{Kind, Reading};
use crate::wire::pg::frame::{self, HEAD_BYTES, Head};
use crate::wire::pg::from_client::{self, Described, FromClient, tag};
use crate::wire::pg::from_server::TransactionStatus;
use crate::wire::pg::turn::{Copying, Owner, Sent};
use crate::wire::{Decoded, PeerMisbehaved};

use super::group::{Called, Copy};
use super::probe::Portal;
use super::{Conversation, MESSAGE_BYTES_MAX, Passing, Phase, Then, pass_on};

/// Largest Bind that is read whole for the correlation id among its parameters (an id has at most 256 bytes,
/// and what sets it has no other large parameter), and as much as is waited for of one whose parameters go on
/// record: what is longer streams, and of a value that is not here by then only the length is known.
const BIND_BYTES_AWAITED_MAX: usize = 16 * 1024;

/// What became of one message.
pub(super) enum Judged {
    On,
    Wait { at_least: usize },
    Demand(Demand),
    Terminated,
}

impl Conversation {
    /// Judges what the client sent, as far as it may go on now.
    pub(super) fn hear_client(&mut self, to_server: &mut Lane, now: SystemTime) -> Result<Verdict, Fault> {
        loop {
            if let Some(verdict) = self.question_due() {
                return Ok(verdict);
            }
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
            Phase::Asking(_)
            | Phase::Writing(_)
            | Phase::Settling
            | Phase::HoldingReady
            | Phase::Looking
            | Phase::Answering => false,
        }
    }

    fn client_message(&mut self, head: Head, lane: &mut Lane, now: SystemTime) -> Result<Judged, Fault> {
        let begins_statement = matches!(
            head.tag,
            tag::PARSE | tag::EXECUTE | tag::QUERY | tag::FUNCTION_CALL
        );
        if self.group.ending && begins_statement {
            return Ok(self.settle_first(lane));
        }
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
                let kind = reading.single().unwrap_or(Kind::Unknown);
                let judged = self.proofs.judge(sql, kind, !self.group.begun);
                let text = self.noted(sql, &judged);
                return Ok(self.query(head, (&reading, &judged), &text, lane, now));
            }
            FromClient::Parse {
                statement,
                sql,
                types,
            } => {
                let reading = sql::read(sql, self.backslash_escapes);
                if let Some(what) = reading.escape {
                    lane.discard(head.length);
                    self.group.begun = true;
                    self.poison(Reason::EscapeStatement { what }, lane);
                    return Ok(Judged::On);
                }
                let text = self.recorded(sql);
                let memory = self.proofs.memory(sql, &text, types, !self.group.begun);
                let wanted = self.ledger.wants_values();
                let types = wanted.then(|| Arc::new(ParameterTypes::declared(types)));
                self.parse(statement, reading, &text, (memory, types));
            }
            // The server skips it.
            FromClient::Execute { .. } if self.group.failed => self.turn.sent(Sent::Execute, Owner::Client),
            FromClient::Execute { portal, .. } => {
                let statement = self.run_portal(portal, now);
                return Ok(self.execute(head, statement.kind, lane));
            }
            FromClient::Describe { kind, name } => self.describe(kind, name),
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

    fn parse(
        &mut self,
        name: &[u8],
        reading: Reading,
        text: &str,
        (memory, types): (Memory, Option<Arc<ParameterTypes>>),
    ) {
        // A Parse of several statements is refused by the server.
        let kind = reading.single().unwrap_or(Kind::Unknown);
        let Reading {
            sets, comments, gids, ..
        } = reading;
        self.ledger.comments(&comments);
        if !self.turn.is_skipping() {
            let prepared = Prepared {
                text: Arc::from(text),
                kind,
                sets,
                gids,
                memory,
                types,
            };
            self.statements.parse(name, prepared);
        }
        self.turn.sent(Sent::Parse, Owner::Client);
    }

    fn describe(&mut self, kind: Described, name: &[u8]) {
        let tells_types = kind == Described::Statement && self.ledger.wants_values();
        if tells_types && !self.turn.is_skipping() {
            self.statements.describe(name);
        }
        self.turn.sent(described(kind), Owner::Client);
    }

    fn close(&mut self, kind: Described, name: &[u8]) {
        match kind {
            Described::Statement => self.statements.close_statement(name),
            Described::Portal => self.statements.close_portal(name),
        }
        self.turn.sent(Sent::Close, Owner::Client);
    }

    /// The message goes on, as far as it is here; the rest follows as it comes.
    pub(super) fn forward(&mut self, head: Head, lane: &mut Lane) {
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
            Decoded::Message((_, statement))
                if self.statements.wants_parameters(statement) && !is_here(head, lane) =>
            {
                return Ok(Judged::Wait {
                    at_least: head.length,
                });
            }
            Decoded::Message(_) if self.ledger.wants_values() && !is_begun(head, lane) => {
                return Ok(Judged::Wait {
                    at_least: head.length.min(BIND_BYTES_AWAITED_MAX),
                });
            }
            Decoded::Message(_) if self.turn.is_skipping() => {}
            Decoded::Message(names) => {
                let body = body.get(..BIND_BYTES_AWAITED_MAX).unwrap_or(body);
                let allowance = self.ledger.allowance();
                self.statements.bind(names, body, &mut self.proofs, allowance);
            }
            Decoded::NeedMore { at_least } if at_least <= head.body_bytes() => {
                let at_least = at_least + HEAD_BYTES;
                return Ok(Judged::Wait { at_least });
            }
            Decoded::NeedMore { .. } => return Err(unexpected(head.tag, "two names")),
        }
        self.turn.sent(Sent::Bind, Owner::Client);
        self.forward(head, lane);
        Ok(Judged::On)
    }

    /// This portal is about to run, or goes on after a wait. Returns its statement.
    fn run_portal(&mut self, portal: &[u8], now: SystemTime) -> Arc<Prepared> {
        let (statement, bound_plain) = self.statements.peek(portal);
        if !self.cleared {
            let execution = self.statements.execute(portal);
            let plain = self.runs(&statement) && bound_plain;
            self.note_execute((&statement, plain), execution, now);
        }
        statement
    }

    /// A prepared statement is about to run. Is it a plain read?
    fn runs(&mut self, statement: &Prepared) -> bool {
        let judged = statement.judged(&self.proofs);
        self.proofs.runs(statement.kind, &judged);
        judged.is_plain_read()
    }

    fn note_execute(&mut self, (statement, plain): (&Prepared, bool), execution: Execution, now: SystemTime) {
        if !execution.first {
            self.ledger.continued(statement.kind, now);
            return;
        }
        if statement.kind == Kind::Begin {
            self.ledger.began(now);
        }
        if plain {
            self.ledger
                .read(&statement.text, statement.kind, execution.values, now);
            return;
        }
        self.note_statement(&statement.text, statement.kind, execution.values, now);
        self.ledger.prepared_names(&statement.gids);
        let in_block = self.expected == TransactionStatus::InBlock;
        for set in &execution.sets {
            self.note_set(set, in_block, now);
        }
    }

    /// A text as the ledger takes it, which has no use for that of a plain read alone.
    fn noted(&self, sql: &[u8], judged: &Judgement) -> Arc<str> {
        if judged.is_plain_read() && !self.ledger.is_open() {
            return Arc::default();
        }
        Arc::from(self.recorded(sql))
    }

    /// What is kept of a text for its record. Its values are written only where a rule wants them, and a text
    /// is told from others long before its end.
    fn recorded<'a>(&self, sql: &'a [u8]) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(sql.get(..STATEMENT_TEXT_BYTES).unwrap_or(sql));
        if !self.backslash_escapes {
            return text;
        }
        match text {
            Cow::Borrowed(text) => with_escapes(text),
            Cow::Owned(text) => Cow::Owned(with_escapes(&text).into_owned()),
        }
    }

    pub(super) fn note_set(&mut self, set: &SetCorrelation, in_block: bool, now: SystemTime) {
        match set.setting {
            Setting::CorrelationId => self.ledger.set_correlation(set, in_block, now),
            Setting::OutcomeOf => self.question = set.value.as_ref().map(|asked| asked.id.clone()),
        }
    }

    fn execute(&mut self, head: Head, kind: Kind, lane: &mut Lane) -> Judged {
        let first = !std::mem::take(&mut self.cleared);
        if first
            && IS_AUDITED
            && let Some(judged) = self.gate_execute(kind, lane)
        {
            return judged;
        }
        let ends = matches!(kind, Kind::Commit | Kind::PrepareTransaction | Kind::Rollback);
        match self.expected {
            TransactionStatus::Idle if kind == Kind::Begin => self.expected = TransactionStatus::InBlock,
            TransactionStatus::Failed if kind == Kind::RollbackTo => {
                self.expected = TransactionStatus::InBlock;
            }
            before if ends => {
                // After AND CHAIN it is a block again: outside of one is the careful side.
                self.expected = TransactionStatus::Idle;
                self.group.ending = true;
                self.group.unbegun = before == TransactionStatus::Idle;
            }
            TransactionStatus::Idle | TransactionStatus::InBlock | TransactionStatus::Failed => {}
        }
        self.group.hold_ready |= self.expected == TransactionStatus::Idle && kind.may_commit_itself();
        // They commit at once; what cannot be read may do so.
        self.group.ending |= matches!(kind, Kind::Unknown | Kind::EndPrepared);
        self.group.probe_at_sync |= !kind.takes_no_snapshot();
        self.turn.sent(Sent::Execute, Owner::Client);
        self.forward(head, lane);
        if kind == Kind::CopyIn {
            self.group.copy = Copy::Awaited;
            // What the client sends behind it counts as data, or does not, only once the server has said so.
            return self.settle_first(lane);
        }
        Judged::On
    }

    /// What has to come before an Execute that may commit.
    fn gate_execute(&mut self, kind: Kind, lane: &mut Lane) -> Option<Judged> {
        let ends = matches!(kind, Kind::Commit | Kind::PrepareTransaction);
        if self.expected == TransactionStatus::Idle && kind.may_commit_itself() {
            return Some(self.demand_intent());
        }
        // A COMMIT commits what its group did before it even when no BEGIN was sent.
        let commits = ends || (kind == Kind::Unknown && self.expected == TransactionStatus::InBlock);
        if !commits || self.expected == TransactionStatus::Failed {
            return None;
        }
        if kind == Kind::PrepareTransaction {
            // It gets an id even when it wrote nothing.
            self.ledger.announce();
        }
        if self.ledger.wants_id() || self.wants_marker() {
            self.ask(Portal::Named, lane, Then::Judge);
            return Some(Judged::On);
        }
        self.ledger.wants_intent().then(|| self.demand_intent())
    }

    /// What comes next means one thing or another depending on an answer that is not here yet: a
    /// transaction ended inside the group and another statement follows, or data of a COPY.
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
        // Its intent is on disk, without an id.
        let announced = !first && self.holds_replies() && !self.group.ending;
        let probe = !self.group.failed && self.group.copy != Copy::Awaited && self.ledger.wants_id();
        match self.expected {
            TransactionStatus::Idle if probe && first && !self.group.hold_ready && !self.group.ending => {
                if self.holds_replies() {
                    self.ledger.announce();
                    return self.demand_intent();
                }
                self.ask(Portal::Unnamed, lane, Then::Judge);
                return Judged::On;
            }
            TransactionStatus::Idle if probe && (self.group.hold_ready || announced) => {
                let commits_itself = std::mem::replace(&mut self.group.hold_ready, true);
                if self.calls_end && !commits_itself {
                    lane.discard(head.length);
                    self.call(Called::ToEnd, lane);
                    return Judged::On;
                }
                self.put_probe(Portal::Unnamed, lane);
            }
            TransactionStatus::InBlock if probe && self.group.probe_at_sync => {
                lane.discard(head.length);
                self.call(Called::InBlock, lane);
                return Judged::On;
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
            self.proofs.runs(Kind::Unknown, &Judgement::BY_ITS_KIND);
            self.note_statement(
                &Arc::from("/* function call by number */"),
                Kind::Unknown,
                None,
                now,
            );
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

    pub(super) fn demand_intent(&mut self) -> Judged {
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

/// Is the whole message here, or too large to wait for?
fn is_here(head: Head, lane: &Lane) -> bool {
    head.length > BIND_BYTES_AWAITED_MAX || lane.unjudged().len() >= head.length
}

/// Is as much of the message here as is waited for?
fn is_begun(head: Head, lane: &Lane) -> bool {
    lane.unjudged().len() >= head.length.min(BIND_BYTES_AWAITED_MAX)
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
