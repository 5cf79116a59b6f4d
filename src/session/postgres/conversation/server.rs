//! Judging what the server sends.

use std::time::SystemTime;

use crate::audit::record::Outcome;
use crate::audit::values::TYPES_MAX;
use crate::domain::refusal::{Reason, RefusalCode};
use crate::session::dialogue::{Demand, Fault, Verdict};
use crate::session::lane::Lane;
use crate::session::postgres::proofs;
use crate::sql::Kind;
use crate::wire::Decoded;
use crate::wire::pg::error_response::sqlstate;
use crate::wire::pg::frame::{self, HEAD_BYTES, Head};
use crate::wire::pg::from_server::{self, FromServer, TransactionStatus, tag};
use crate::wire::pg::turn::{Owner, Reply, Sent};

use super::STRING_STYLE;
use super::group::{Called, Group};
use super::script::{self, Script};
use super::{Cancelled, Conversation, MESSAGE_BYTES_MAX, Passing, Phase, Then, pass_on};

/// Largest description of parameters that is read: of as many as are kept.
const PARAMETER_DESCRIPTION_BYTES_MAX: usize = HEAD_BYTES + 2 + 4 * TYPES_MAX;

impl Conversation {
    /// Judges what the server sent.
    pub(super) fn hear_server(
        &mut self,
        to_client: &mut Lane,
        to_server: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault> {
        loop {
            if !pass_on(&mut self.from_server, to_client) {
                return Ok(Verdict::More { at_least: 1 });
            }
            if matches!(self.phase, Phase::HoldingReady) {
                return Ok(Verdict::More { at_least: 0 });
            }
            let head = match frame::head(to_client.unjudged(), MESSAGE_BYTES_MAX).map_err(Fault::Server)? {
                Decoded::Message(head) => head,
                Decoded::NeedMore { at_least } => return Ok(Verdict::More { at_least }),
            };
            let asked = matches!(self.turn.front_owner(), Some(Owner::Probe | Owner::Ours));
            let probed = asked || self.script.as_ref().is_some_and(Script::awaits_probe);
            let read = is_read(head.tag, probed) || self.tells_types(head);
            if read && to_client.unjudged().len() < head.length {
                return Ok(Verdict::More {
                    at_least: head.length,
                });
            }
            let demand = match head.tag {
                tag::READY_FOR_QUERY => self.ready(head, to_client, to_server, now)?,
                tag::ERROR_RESPONSE => self.failed(head, to_client, to_server, now)?,
                _ => self.server_message(head, to_client, to_server, now)?,
            };
            if let Some(demand) = demand {
                return Ok(Verdict::Demand(demand));
            }
        }
    }

    fn server_message(
        &mut self,
        head: Head,
        to_client: &mut Lane,
        to_server: &mut Lane,
        now: SystemTime,
    ) -> Result<Option<Demand>, Fault> {
        let reply = self.turn.received(head.tag, None)?;
        let Reply::To(sent, owner) = reply else {
            self.note_parameter(head, to_client)?;
            self.pass(head, to_client, true);
            return Ok(None);
        };
        match owner {
            Owner::Client if self.is_scripted(head.tag) => {
                if head.tag == tag::DATA_ROW {
                    self.ledger.learned(script::id_in_row(body(head, to_client)));
                }
                self.pass(head, to_client, false);
            }
            Owner::Client => {
                match head.tag {
                    tag::PARSE_COMPLETE => self.statements.parsed(),
                    tag::BIND_COMPLETE => self.statements.bound(),
                    tag::PARAMETER_DESCRIPTION => self.described(head, to_client),
                    _ => self.progress(sent, head, to_client, now),
                }
                self.pass(head, to_client, true);
            }
            Owner::Converted => {
                self.progress(sent, head, to_client, now);
                let shown = !matches!(head.tag, tag::PARSE_COMPLETE | tag::BIND_COMPLETE | tag::NO_DATA);
                self.pass(head, to_client, shown);
            }
            Owner::Ours | Owner::Poison => {
                if head.tag == tag::PARSE_COMPLETE && self.phase != Phase::Answering {
                    self.question_prepared();
                } else if head.tag == tag::FUNCTION_RESULT {
                    self.call_answered(body(head, to_client));
                }
                self.pass(head, to_client, false);
            }
            Owner::Probe => {
                match head.tag {
                    tag::DATA_ROW => self.question_answered(body(head, to_client)),
                    tag::FUNCTION_RESULT => self.call_answered(body(head, to_client)),
                    _ => {}
                }
                self.pass(head, to_client, false);
                let answered = head.tag == tag::COMMAND_COMPLETE && !self.turn.is_own_group();
                if answered {
                    return Ok(self.answered(to_server));
                }
            }
        }
        Ok(None)
    }

    /// Does it describe parameters whose values go on record? One that is too large for them is not read.
    fn tells_types(&self, head: Head) -> bool {
        head.tag == tag::PARAMETER_DESCRIPTION
            && self.ledger.wants_values()
            && head.length <= PARAMETER_DESCRIPTION_BYTES_MAX
    }

    fn described(&mut self, head: Head, to_client: &Lane) {
        if !self.ledger.wants_values() {
            return;
        }
        let body = to_client.unjudged().get(HEAD_BYTES..head.length);
        // Behind their number.
        let types = body.and_then(|body| body.get(2..)).unwrap_or_default();
        self.statements.described(types);
    }

    /// Is it the answer to a probe that was woven into a script?
    fn is_scripted(&mut self, message: u8) -> bool {
        self.script
            .as_mut()
            .is_some_and(|script| script.is_probe(message))
    }

    /// What a reply to the client tells about its statements.
    fn progress(&mut self, sent: Sent, head: Head, to_client: &Lane, now: SystemTime) {
        match head.tag {
            tag::COMMAND_COMPLETE => {
                let body = body(head, to_client);
                let body = body.strip_suffix(b"\0").unwrap_or(body);
                self.replied += 1;
                self.completed(body, now);
            }
            // An empty Query put nothing on record; an empty Execute did.
            tag::EMPTY_QUERY if sent == Sent::Query => {}
            tag::EMPTY_QUERY | tag::PORTAL_SUSPENDED | tag::FUNCTION_RESULT => {
                let kind = self.ledger.completed(None, now);
                if kind == Some(Kind::Unknown) {
                    self.ended();
                }
            }
            // The Sync that was sent behind the COPY will not be answered: the client goes on.
            tag::COPY_IN
                if sent == Sent::Execute && matches!(self.phase, Phase::AwaitingReady | Phase::Settling) =>
            {
                self.phase = Phase::Open;
            }
            _ => {}
        }
    }

    fn completed(&mut self, command: &[u8], now: SystemTime) {
        let Some(kind) = self.ledger.completed(rows(command), now) else {
            return;
        };
        if kind == Kind::Unknown {
            self.unread_completed(command);
        }
        let outcome = match (kind, command) {
            (Kind::Commit | Kind::Unknown, b"COMMIT") => Outcome::Committed,
            (Kind::EndPrepared | Kind::Unknown, b"COMMIT PREPARED") => Outcome::Committed,
            (Kind::EndPrepared | Kind::Unknown, b"ROLLBACK PREPARED") => Outcome::Aborted,
            (Kind::PrepareTransaction | Kind::Unknown, b"PREPARE TRANSACTION") => Outcome::Prepared,
            // Where no block was begun the server answers so, and commits.
            (Kind::PrepareTransaction, b"ROLLBACK") if self.group.unbegun => Outcome::Committed,
            (Kind::Commit | Kind::PrepareTransaction | Kind::Rollback, b"ROLLBACK") => Outcome::Aborted,
            _ => return,
        };
        self.ended();
        let record = self.ledger.close(outcome, now);
        if self.group.hold_ready {
            self.held.extend(record);
        } else {
            self.records.extend(record);
            self.group.commit_sent = false;
        }
        if let Some(script) = &mut self.script {
            script.begin_next(&mut self.ledger, now);
        }
    }

    /// What could not be read is known by its answer.
    fn unread_completed(&mut self, command: &[u8]) {
        self.ended();
        match command {
            b"BEGIN" | b"START TRANSACTION" => self.expected = TransactionStatus::InBlock,
            // After AND CHAIN it is a block again: outside of one is the careful side.
            b"COMMIT" | b"PREPARE TRANSACTION" => self.expected = TransactionStatus::Idle,
            b"ROLLBACK" => {
                self.expected = TransactionStatus::Idle;
                self.ledger.perhaps_rolled_back();
            }
            _ => {}
        }
    }

    /// What may have ended a transaction is answered: the group can go on.
    fn ended(&mut self) {
        self.group.ending = false;
        if self.phase == Phase::Settling {
            self.phase = Phase::Open;
        }
    }

    /// The server's parameters as far as they change how texts are read.
    fn note_parameter(&mut self, head: Head, to_client: &Lane) -> Result<(), Fault> {
        if head.tag != tag::PARAMETER_STATUS {
            return Ok(());
        }
        let body = body(head, to_client);
        if let FromServer::ParameterStatus { name, value } =
            from_server::parse(head.tag, body).map_err(Fault::Server)?
        {
            if name == STRING_STYLE.as_bytes() {
                self.backslash_escapes = value == b"off";
            } else if name == proofs::ENCODING.as_bytes() {
                self.proofs.note_encoding(value);
            }
        }
        Ok(())
    }

    /// Forwards or drops a message, as far as it is here; the rest follows as it comes.
    fn pass(&mut self, head: Head, to_client: &mut Lane, shown: bool) {
        self.from_server = if shown {
            Passing::Forward(head.length)
        } else {
            Passing::Discard(head.length)
        };
        pass_on(&mut self.from_server, to_client);
    }

    /// The probe has answered inside the client's group.
    fn answered(&mut self, to_server: &mut Lane) -> Option<Demand> {
        let Phase::Asking(then) = self.phase else {
            return None;
        };
        if self.ledger.wants_intent()
            && !self.group.failed
            && let Some(record) = self.ledger.intent()
        {
            self.phase = Phase::Writing(then);
            return Some(Demand::Intent(record));
        }
        self.proceed(then, to_server);
        None
    }

    fn ready(
        &mut self,
        head: Head,
        to_client: &mut Lane,
        to_server: &mut Lane,
        now: SystemTime,
    ) -> Result<Option<Demand>, Fault> {
        let body = body(head, to_client);
        let FromServer::ReadyForQuery(status) = from_server::parse(head.tag, body).map_err(Fault::Server)?
        else {
            return Ok(None);
        };
        if self.turn.front_owner() == Some(Owner::Ours) {
            return self.own_group_ended(head, status, to_client);
        }
        if self.group.called == Called::ToEnd && status == TransactionStatus::InBlock {
            self.calls_end = false;
            self.turn.received(head.tag, Some(status))?;
            self.pass(head, to_client, false);
            self.sync_behind_call(to_server);
            return Ok(None);
        }
        if status == TransactionStatus::Idle {
            let outcome = if self.group.failed {
                Outcome::Aborted
            } else {
                Outcome::Committed
            };
            let record = self.ledger.close(outcome, now);
            self.held.extend(record);
            self.statements.transaction_ended();
            self.ledger.allowance().renew();
            self.proofs.settled();
        }
        match self.release_held() {
            Some(record) if self.group.hold_ready => {
                self.phase = Phase::HoldingReady;
                return Ok(Some(Demand::Outcome(record)));
            }
            record => self.records.extend(record),
        }
        self.turn.received(head.tag, Some(status))?;
        let withheld = self.cancelled == Cancelled::Sent
            && status == TransactionStatus::InBlock
            && !self.turn.is_settled();
        self.cancelled = if withheld {
            Cancelled::ReadyWithheld
        } else {
            Cancelled::Not
        };
        self.pass(head, to_client, !withheld);
        self.expected = status;
        self.group = Group::default();
        self.script = None;
        // A cancel that came too late hit nothing.
        if !withheld {
            self.timed_out = None;
        }
        // A probe group may still be on its way behind the client's.
        self.phase = if self.turn.is_settled() {
            Phase::Open
        } else {
            Phase::AwaitingReady
        };
        Ok(None)
    }

    /// The end of a probe's own group, of which the client knows nothing.
    fn own_group_ended(
        &mut self,
        head: Head,
        status: TransactionStatus,
        to_client: &mut Lane,
    ) -> Result<Option<Demand>, Fault> {
        self.turn.received(head.tag, Some(status))?;
        let shown = std::mem::replace(&mut self.cancelled, Cancelled::Not) == Cancelled::ReadyWithheld;
        self.pass(head, to_client, shown);
        self.expected = status;
        if let Phase::Asking(then) = self.phase {
            if status == TransactionStatus::InBlock
                && self.ledger.wants_intent()
                && let Some(record) = self.ledger.intent()
            {
                self.phase = Phase::Writing(then);
                return Ok(Some(Demand::Intent(record)));
            }
            self.cleared = true;
        }
        self.phase = Phase::Open;
        Ok(None)
    }

    /// An error as the server says it, or in our words where our own timer cancelled the statement.
    fn pass_error(&mut self, head: Head, cancelled: bool, to_client: &mut Lane) {
        let timed_out = self.timed_out.take_if(|_| cancelled);
        self.pass(head, to_client, timed_out.is_none());
        if let Some(limit) = timed_out {
            let reason = Reason::StatementTimeout { limit };
            self.put_error(RefusalCode::StatementTimeout, reason, to_client);
        }
    }

    fn failed(
        &mut self,
        head: Head,
        to_client: &mut Lane,
        to_server: &mut Lane,
        now: SystemTime,
    ) -> Result<Option<Demand>, Fault> {
        let own_group = self.turn.is_own_group();
        let owner = match self.turn.received(head.tag, None)? {
            Reply::To(_, owner) => owner,
            Reply::Unasked => Owner::Client,
        };
        let body = body(head, to_client);
        let parsed = from_server::parse(head.tag, body).map_err(Fault::Server)?;
        let fatal = matches!(&parsed, FromServer::ErrorResponse(fields)
            if matches!(fields.get(b'V'), Some(b"FATAL" | b"PANIC")));
        let cancelled = matches!(&parsed, FromServer::ErrorResponse(fields)
            if fields.get(b'C') == Some(sqlstate::QUERY_CANCELED.as_bytes()));
        if own_group && !fatal {
            self.distrust_questions();
            if self.cancelled == Cancelled::ReadyWithheld {
                // A cancel came too late for the client's statement, and the client hears of it now.
                self.pass_error(head, cancelled, to_client);
            } else {
                // The client's statement before it has failed the block, and the client was told.
                self.pass(head, to_client, false);
            }
            return Ok(None);
        }
        if owner == Owner::Poison && !fatal {
            self.pass(head, to_client, false);
            self.put_own_refusal(to_client);
        } else {
            self.pass_error(head, cancelled && !fatal, to_client);
        }
        if matches!(owner, Owner::Probe | Owner::Ours) {
            self.distrust_questions();
        }
        self.replied += 1;
        self.statements.failed();
        self.ledger.failed(now);
        self.group.failed = true;
        self.question = None;
        self.group.ending = false;
        // Nothing follows a fatal error, and it may have come behind the commit.
        self.group.commit_sent &= fatal;
        if self.group.called != Called::Not && self.turn.is_skipping() {
            self.sync_behind_call(to_server);
        }
        match self.phase {
            Phase::Asking(then) => self.proceed(then, to_server),
            Phase::ConvertedCopy => self.proceed(Then::Sync, to_server),
            Phase::Settling => self.phase = Phase::Open,
            // The client's Query is skipped with the rest: a Sync of the client's is what ends this.
            Phase::AwaitingReady if self.turn.is_skipping() => self.phase = Phase::Open,
            Phase::Open
            | Phase::Writing(_)
            | Phase::AwaitingReady
            | Phase::HoldingReady
            | Phase::Looking
            | Phase::Answering => {}
        }
        Ok(None)
    }
}

/// Of a message that is here as a whole.
fn body(head: Head, lane: &Lane) -> &[u8] {
    lane.unjudged().get(HEAD_BYTES..head.length).unwrap_or_default()
}

/// Must the message be here as a whole before it is judged?
fn is_read(tag: u8, probed: bool) -> bool {
    match tag {
        tag::READY_FOR_QUERY | tag::ERROR_RESPONSE | tag::COMMAND_COMPLETE | tag::PARAMETER_STATUS => true,
        tag::DATA_ROW | tag::FUNCTION_RESULT => probed,
        _ => false,
    }
}
/// The row count at the end of a command tag (`INSERT 0 5`, `UPDATE 3`, `SELECT 1`).
fn rows(tag: &[u8]) -> Option<u64> {
    let last = tag.rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(last).ok()?.parse().ok()
}
