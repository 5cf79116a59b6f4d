//! The server's side: replies go on as they are while their tokens tell what became of the transaction;
//! the end of a reply waits for what must be on disk first.

use std::time::SystemTime;

use crate::audit::record::Outcome;
use crate::domain::refusal::{Reason, RefusalCode};
use crate::session::dialogue::{Demand, Fault, Verdict};
use crate::session::lane::Lane;
use crate::session::sqlserver::refusal;
use crate::session::sqlserver::request::Plan;
use crate::sql::Kind;
use crate::sql::tsql::Implicit;
use crate::wire::tds::event::{DoneKind, DoneStatus, EnvChange, Event};
use crate::wire::tds::packet::{HEADER_BYTES, Header, PacketKind, Status};
use crate::wire::tds::reply::{put_database, put_done, put_reset_ack};
use crate::wire::tds::token::End;
use crate::wire::tds::turn::{Reply, Turn};
use crate::wire::{Decoded, PeerMisbehaved};

use super::{Cancelled, Conversation, Open, Phase, whole_packet};

/// Bytes of a DONE: token, status, command, rows.
const DONE_BYTES: usize = 13;
/// In its status, which stands behind the token: more follows.
const DONE_MORE: u8 = 0x01;

/// What a token of a reply means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    Began(u64),
    Committed,
    RolledBack,
    /// Ended, without a word how.
    Ended,
    Counted(Kind, u64),
    Failed,
    Handle(i64),
    Acknowledged,
    Lost,
}

/// What was seen of the reply that is under way.
#[derive(Debug, Default)]
pub(super) struct ReplySoFar {
    notes: Vec<Note>,
    /// A statement failed.
    failed: bool,
    /// One went well and says how many rows it touched.
    succeeded: bool,
    acknowledged: bool,
    /// The packet at the front was read.
    read: bool,
    /// How many transactions are open must be asked for.
    pub(super) count_unclear: bool,
    /// The server told of a transaction that began or ended.
    told: bool,
    /// One did in the request that is answered.
    ended: bool,
    /// The rest of it cannot be read.
    lost: bool,
    /// The packet at the front ends in the middle of a token.
    cut: bool,
    /// The message ended with a DONE that says so.
    complete: bool,
    /// Of a reply that is cancelled for its time: what may be the beginning of the acknowledgement.
    tail: Vec<u8>,
    /// The reply to a request that was cancelled for its time came to its own good end.
    in_time: bool,
}

impl Conversation {
    pub(super) fn hear_server(
        &mut self,
        to_client: &mut Lane,
        to_server: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault> {
        loop {
            let header = match whole_packet(to_client).map_err(Fault::Server)? {
                Decoded::Message(header) => header,
                Decoded::NeedMore { at_least } => return Ok(Verdict::More { at_least }),
            };
            if header.kind != PacketKind::Reply {
                let tag = header.kind.code();
                let awaited = "a reply";
                return Err(Fault::Server(PeerMisbehaved::Unexpected { tag, awaited }));
            }
            match self.phase {
                Phase::Asking(question) => {
                    let body = to_client.unjudged().get(HEADER_BYTES..header.length);
                    let body = body.unwrap_or_default().to_vec();
                    to_client.discard(header.length);
                    self.answering(&body)?;
                    if header.is_last() {
                        self.answered(question, now)?;
                        self.wonder(to_server)?;
                    }
                }
                Phase::Awaiting => {
                    if let Some(demand) = self.reply_packet(header, to_client, now)? {
                        return Ok(Verdict::Demand(demand));
                    }
                    self.wonder(to_server)?;
                }
                // An answer before its question has ended, as when a bulk load fails early: its own end waits.
                Phase::Passing => {
                    self.spoiled = true;
                    if header.is_last() {
                        return Ok(Verdict::More { at_least: 0 });
                    }
                    self.reply_packet(header, to_client, now)?;
                }
                Phase::Holding => return Ok(Verdict::More { at_least: 0 }),
                Phase::Open | Phase::Dropping | Phase::Writing | Phase::Looking => {
                    let tag = header.kind.code();
                    let awaited = "nothing";
                    return Err(Fault::Server(PeerMisbehaved::Unexpected { tag, awaited }));
                }
            }
        }
    }

    /// A packet of the reply to the client's request.
    fn reply_packet(
        &mut self,
        header: Header,
        to_client: &mut Lane,
        now: SystemTime,
    ) -> Result<Option<Demand>, Fault> {
        if !self.reply.read {
            let body = to_client.unjudged().get(HEADER_BYTES..header.length);
            self.read_tokens(body.unwrap_or_default())?;
            self.reply.read = true;
            self.reply.cut = !self.reader.is_between_tokens();
            self.take_notes(now);
            if header.is_last() {
                self.end_of_message(now);
            }
        }
        // What the reply acknowledges must be on disk before its end goes on.
        if header.is_last() && !self.held.is_empty() {
            self.phase = Phase::Holding;
            return Ok(Some(Demand::Outcome(self.held.remove(0))));
        }
        self.reply.read = false;
        if std::mem::take(&mut self.owes_reset) {
            let mut payload = Vec::new();
            self.put_reset(&mut payload);
            self.add_packet(to_client, PacketKind::Reply, Status::NORMAL, &payload);
        }
        self.forward_reply(header, to_client);
        self.torn = self.reply.cut && !header.is_last();
        if header.is_last() {
            self.message_forwarded(now)?;
        }
        Ok(None)
    }

    /// What tells the client of the reset that it asked for.
    pub(super) fn put_reset(&self, payload: &mut Vec<u8>) {
        put_reset_ack(payload);
        put_database(payload, &self.database, &self.database);
    }

    fn read_tokens(&mut self, body: &[u8]) -> Result<(), Fault> {
        let Self { reader, reply, .. } = self;
        reader
            .read(body, &mut |event| reply.notes.extend(note(&event)))
            .map_err(Fault::Server)
    }

    /// In the order in which the server said it.
    fn take_notes(&mut self, now: SystemTime) {
        let mut notes = std::mem::take(&mut self.reply.notes);
        for note in notes.drain(..) {
            match note {
                Note::Began(descriptor) => {
                    if std::mem::take(&mut self.reply.ended) {
                        self.note_again(now);
                    }
                    self.reply.told = true;
                    self.open = Open { depth: 1, descriptor };
                    self.asked = false;
                    self.ledger.began(now);
                    if self.cleared && self.plan.as_ref().is_some_and(|plan| plan.managed.is_none()) {
                        // Some of it may have been committed before.
                        self.ledger.mark_partial();
                    }
                }
                Note::Committed => self.ended(Outcome::Committed, now),
                Note::RolledBack => self.ended(Outcome::Aborted, now),
                Note::Ended => {
                    let by_commit = self.plan.as_ref().and_then(Plan::ends_by_commit);
                    let outcome = match by_commit {
                        Some(true) if !self.reply.failed => Outcome::Committed,
                        Some(false) => Outcome::Aborted,
                        Some(true) | None => Outcome::InDoubt,
                    };
                    self.ended(outcome, now);
                }
                Note::Counted(kind, rows) => {
                    self.reply.succeeded |=
                        matches!(kind, Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge);
                    self.ledger.counted(kind, rows);
                }
                Note::Failed => self.reply.failed = true,
                Note::Handle(handle) => {
                    if let Some(prepared) = self.plan.as_mut().and_then(|plan| plan.awaited.take()) {
                        self.texts.prepared(handle, prepared);
                    }
                }
                Note::Acknowledged => self.reply.acknowledged = true,
                // From here on nobody knows what the reply says: the connection serves nobody after this client.
                Note::Lost => {
                    self.ledger.unread();
                    self.spoiled = true;
                    self.reply.lost = true;
                    self.reply.count_unclear = true;
                }
            }
        }
        self.reply.notes = notes;
    }

    fn ended(&mut self, outcome: Outcome, now: SystemTime) {
        self.reply.told = true;
        self.reply.ended = true;
        self.open = Open::default();
        self.close(outcome, now);
    }

    /// A transaction of the request under way is on record with all its statements. What comes behind it may
    /// be any of them.
    fn note_again(&mut self, now: SystemTime) {
        let Some(plan) = self.plan.as_ref().filter(|plan| !plan.plain_read) else {
            return;
        };
        for (index, (text, kind)) in plan.statements.iter().enumerate() {
            let values = plan.values(index, self.ledger.allowance());
            self.ledger.again(text, *kind, values, now);
        }
    }

    /// The transaction that was open, or what committed by itself, is over.
    pub(super) fn close(&mut self, outcome: Outcome, now: SystemTime) {
        let named = self.ledger.id().is_some();
        if !named {
            // Nobody can look it up by its id: session, number and time must do.
            self.ledger.mark_partial();
        }
        let Some(record) = self.ledger.close(outcome, now) else {
            return;
        };
        if named || outcome != Outcome::Committed {
            self.records.push(record);
        } else {
            self.held.push(record);
        }
    }

    /// All tokens of a message were seen, before its last packet goes on.
    fn end_of_message(&mut self, now: SystemTime) {
        let end = self.reader.end();
        if end == End::Torn {
            self.spoiled = true;
        }
        if matches!(self.cancelled, Cancelled::ForTime(_)) && !self.reply.acknowledged {
            self.reply.in_time = end == End::Complete && !self.reply.failed;
        }
        self.reply.complete = end == End::Complete;
        let Some(plan) = &self.plan else { return };
        let works_on = self.reply.ended && plan.works_behind_its_end();
        let failed = self.reply.failed || self.reply.acknowledged;
        // What the words of the statements say, where the server says nothing.
        if !self.habits.tells_transactions && plan.managed.is_none() && !self.taken_back {
            match plan.depth_after(self.open.depth, self.implicit) {
                Some(depth) if !failed => self.by_words(depth, now),
                // Outside of a transaction a failure ends none.
                Some(0) if self.open.depth == 0 && plan.ends_by_commit().is_none() => {}
                Some(_) | None => self.reply.count_unclear = true,
            }
        }
        if self.open.depth == 0 && works_on {
            self.note_again(now);
        }
        if self.open.depth == 0 && self.ledger.may_have_written() {
            let outcome = self.by_itself(failed);
            if self.reply.count_unclear {
                // The work may be part of a transaction that is open now.
                self.unsettled = Some((outcome, self.cleared));
            } else {
                self.close(outcome, now);
            }
        }
    }

    /// What has become of work outside of a transaction.
    fn by_itself(&self, failed: bool) -> Outcome {
        let one = self.plan.as_ref().is_some_and(Plan::is_one_statement);
        match self.reply {
            _ if self.taken_back => Outcome::Aborted,
            ReplySoFar { lost: true, .. } => Outcome::InDoubt,
            _ if !failed => Outcome::Committed,
            // What was counted may be what was rolled back.
            ReplySoFar { ended: true, .. } => Outcome::InDoubt,
            ReplySoFar { succeeded: true, .. } => Outcome::Committed,
            ReplySoFar { failed: true, .. } if one => Outcome::Aborted,
            // Under NOCOUNT nothing tells what went well before.
            _ => Outcome::InDoubt,
        }
    }

    /// The server told nothing, so the statements' words say how many transactions are open.
    fn by_words(&mut self, depth: u32, now: SystemTime) {
        let before = self.open.depth;
        if self.reply.told || depth == before {
            return;
        }
        if depth == 0 {
            let by_commit = self.plan.as_ref().and_then(Plan::ends_by_commit);
            self.open = Open::default();
            let outcome = match by_commit {
                Some(true) => Outcome::Committed,
                Some(false) => Outcome::Aborted,
                None => Outcome::InDoubt,
            };
            self.close(outcome, now);
        } else {
            self.open.depth = depth;
            if before == 0 {
                self.asked = false;
                self.ledger.began(now);
            }
        }
    }

    /// The packet as it is, or with the end that a statement has which was cancelled for its time.
    fn forward_reply(&mut self, header: Header, to_client: &mut Lane) {
        let Cancelled::ForTime(limit) = self.cancelled else {
            // Of a packet that was cut before its client cancelled as well.
            let tail = std::mem::take(&mut self.reply.tail);
            if !tail.is_empty() {
                self.add_packet(to_client, PacketKind::Reply, Status::NORMAL, &tail);
            }
            return to_client.forward(header.length);
        };
        let mut body = std::mem::take(&mut self.reply.tail);
        let own = to_client.unjudged().get(HEADER_BYTES..header.length);
        body.extend_from_slice(own.unwrap_or_default());
        to_client.discard(header.length);
        if !header.is_last() {
            // The beginning of a DONE may be that of the acknowledgement.
            let left = body.len().saturating_sub(self.reader.unfinished_done());
            self.reply.tail = body.split_off(left);
            return self.put_packets(to_client, Status::NORMAL, &body);
        }
        if self.reply.acknowledged {
            // Of an attention that the client knows nothing of.
            body.truncate(body.len().saturating_sub(DONE_BYTES));
            if self.reply.in_time {
                return;
            }
            let reason = Reason::StatementTimeout { limit };
            let refusal = self.refusal(RefusalCode::StatementTimeout, reason);
            refusal::put_in_session(&mut body, &refusal);
            put_done(&mut body, DoneKind::Batch, DoneStatus::ERROR, 0, 0);
            return self.put_packets(to_client, Status::EOM, &body);
        }
        // Its own end came first. It goes on if it is a good one; else the error is still to come.
        if self.reply.in_time {
            return self.put_packets(to_client, Status::EOM, &body);
        }
        let done = body.len().checked_sub(DONE_BYTES).filter(|_| self.reply.complete);
        if let Some(status) = done.and_then(|at| body.get_mut(at.saturating_add(1))) {
            *status |= DONE_MORE;
        }
        self.put_packets(to_client, Status::NORMAL, &body);
    }

    /// Puts a body into the lane in packets of the size that was agreed on; this status is that of the last.
    fn put_packets(&mut self, to_client: &mut Lane, status: Status, body: &[u8]) {
        let room = self.packet_bytes.saturating_sub(HEADER_BYTES).max(1);
        let mut rest = body;
        while let Some((packet, after)) = rest.split_at_checked(room).filter(|(_, after)| !after.is_empty()) {
            self.add_packet(to_client, PacketKind::Reply, Status::NORMAL, packet);
            rest = after;
        }
        if !rest.is_empty() || status.has(Status::EOM) {
            self.add_packet(to_client, PacketKind::Reply, status, rest);
        }
    }

    /// A message of the server went on whole.
    fn message_forwarded(&mut self, now: SystemTime) -> Result<(), Fault> {
        let acknowledged = std::mem::take(&mut self.reply.acknowledged);
        match self.step(|turn| turn.answered(acknowledged)) {
            Reply::To(_) => self.request_is_over(now),
            Reply::Acknowledgement => {}
            Reply::Unasked => {
                let what = "a reply that nobody asked for".to_owned();
                return Err(Fault::OutOfTurn { what });
            }
        }
        if self.turn == Turn::Spoiled {
            let what = "an acknowledgement that nobody asked for".to_owned();
            return Err(Fault::OutOfTurn { what });
        }
        if self.turn.is_idle() {
            self.phase = Phase::Open;
            self.cancelled = Cancelled::Not;
            let count_unclear = self.reply.count_unclear;
            let notes = std::mem::take(&mut self.reply.notes);
            self.reply = ReplySoFar {
                count_unclear,
                notes,
                ..ReplySoFar::default()
            };
        }
        Ok(())
    }

    fn request_is_over(&mut self, now: SystemTime) {
        self.replied = self.replied.wrapping_add(1);
        self.ledger.settled(now);
        self.commit_sent = false;
        self.cleared = false;
        self.taken_back = false;
        let Some(plan) = self.plan.take() else { return };
        self.spoiled |= plan.poisons;
        let failed = self.reply.failed;
        if failed {
            self.question = None;
        }
        // What failed may have been turned on all the same.
        self.plan_only = if failed {
            self.plan_only.after(plan.plan_only_on, Default::default())
        } else {
            self.plan_only.after(plan.plan_only_on, plan.plan_only_off)
        };
        match plan.implicit {
            Some(Implicit::On | Implicit::Perhaps) => self.implicit = true,
            Some(Implicit::Off) if !failed => self.implicit = false,
            Some(Implicit::Off) | None => {}
        }
        if let Some(handle) = plan.unprepares {
            self.texts.forget(handle);
        }
    }

    /// Work whose intent could not be written never ran.
    pub(super) fn forget_work(&mut self) {
        if self.open.depth == 0 {
            // Its record would say that it ran.
            self.ledger.discard();
        }
    }
}

/// What is looked for in a reply.
fn note(event: &Event<'_>) -> Option<Note> {
    match event {
        Event::EnvChange(change) => match change {
            EnvChange::Begin { descriptor } | EnvChange::EnlistDtc { descriptor } => {
                Some(Note::Began(*descriptor))
            }
            EnvChange::Commit { .. } => Some(Note::Committed),
            EnvChange::Rollback { .. } => Some(Note::RolledBack),
            EnvChange::TransactionEnded { .. } | EnvChange::Defect { .. } => Some(Note::Ended),
            EnvChange::Database { .. }
            | EnvChange::Language { .. }
            | EnvChange::PacketSize { .. }
            | EnvChange::Collation { .. }
            | EnvChange::Promote
            | EnvChange::ResetAck
            | EnvChange::Routing { .. }
            | EnvChange::Other(_) => None,
        },
        Event::Done(done) if done.status.is_attention() => Some(Note::Acknowledged),
        Event::Done(done) if done.status.is_error() => Some(Note::Failed),
        Event::Done(done) if done.status.has(DoneStatus::COUNT) => {
            Some(Note::Counted(counted(done.command), done.rows))
        }
        Event::ReturnValue {
            value: Some(value), ..
        } => Some(Note::Handle(*value)),
        Event::Lost(_) => Some(Note::Lost),
        Event::Error(_)
        | Event::Info(_)
        | Event::Done(_)
        | Event::ReturnStatus(_)
        | Event::ReturnValue { .. }
        | Event::Columns { .. }
        | Event::ColumnsUntold
        | Event::Row { .. }
        | Event::Other { .. } => None,
    }
}

/// The kind of statement by the command of its DONE.
const fn counted(command: u16) -> Kind {
    match command {
        0xc1 => Kind::Select,
        0xc3 | 0xf0 => Kind::Insert,
        0xc4 => Kind::Delete,
        0xc5 => Kind::Update,
        0x117 => Kind::Merge,
        _ => Kind::Unknown,
    }
}
