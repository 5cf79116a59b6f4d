//! What a client and its SQL Server say to each other, judged packet by packet. Pure: bytes come in
//! lanes, decisions go back into them, and what must be on disk first is handed out as a `Demand`.
//!
//! The rules:
//!
//! - One request is under way at a time; only an attention may follow it. Both sides' packets have one
//!   size, so packets go on as they are.
//! - Nothing that may have written commits before its intent is on disk: a COMMIT, or whatever may commit
//!   by itself, waits for it. Where the intent could not name the transaction, the end of the reply waits
//!   for the outcome as well.
//! - Truth about transactions is what the server tells (ENVCHANGE). Where it tells nothing of statements
//!   that begin and end them, the words of the statements count, and `@@TRANCOUNT` where they are not clear.
//! - Where there is a table of markers, a transaction that may have written gets its row there before its COMMIT
//!   and before the intent, which names the row.
//! - The id of a transaction is asked for while the client thinks, under its descriptor.
//! - A reset that the client asks for is made by gatepost, which then sets again who the client is: the
//!   client's own request must not be the first behind it.
//! - What is refused is answered here, and the server never sees it.

mod client;
mod marking;
mod outcomes;
mod questions;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::audit::record::{Outcome, Record};
use crate::domain::ids::SessionId;
use crate::domain::refusal::{Reason, Refusal, RefusalCode};
use crate::session::alarms::Activity;
use crate::session::dialogue::{Cancelling, Dialogue, Fault, Verdict, refusal_of_work};
use crate::session::lane::Lane;
use crate::session::ledger::Ledger;
use crate::session::prelude::Prelude;
use crate::session::sqlserver::prelude;
use crate::session::sqlserver::refusal;
use crate::session::sqlserver::request::{Plan, Texts};
use crate::sql::tsql::PlanOnly;
use crate::upstream::checkout::{Checkout, Habits};
use crate::wire::tds::packet::{self, Header, PacketKind, Status};
use crate::wire::tds::token::Reader;
use crate::wire::tds::turn::{Attention, Owed, Owner, Turn};
use crate::wire::{Decoded, PeerMisbehaved};

use marking::{Due, Marker};
use questions::Question;
use server::ReplySoFar;

/// What the client's next packet has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client's next request.
    Open,
    /// The rest of a request that goes on packet by packet.
    Passing,
    /// The rest of a request that goes nowhere, and is answered at its end.
    Dropping,
    /// An intent on its way to disk; the request stands at the front of the lane.
    Writing,
    /// The reply.
    Awaiting,
    /// The answer to a question of our own.
    Asking(Question),
    /// Outcomes on their way to disk; the last packet of the reply waits as well.
    Holding,
    /// A look through the journal for what the client asked.
    Looking,
}

/// Is what runs being cancelled, and by whom?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancelled {
    Not,
    /// The client sees the acknowledgement that it waits for.
    ByClient,
    /// For its time: the client sees an error in its place.
    ForTime(Duration),
}

/// The transaction that is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Open {
    /// 0: none.
    depth: u32,
    /// As the server names it; 0 where it did not.
    descriptor: u64,
}

#[derive(Debug)]
pub(in crate::session) struct Conversation {
    reference: SessionId,
    ledger: Ledger,
    /// Of the server's session.
    spid: u16,
    packet_bytes: usize,
    database: String,
    /// By what the client asked for the database, where that is another name. Some drivers say USE with it.
    alias: Option<String>,
    habits: Habits,
    /// What is set again after a reset.
    prelude: String,
    turn: Turn,
    phase: Phase,
    open: Open,
    implicit: bool,
    plan_only: PlanOnly,
    texts: Texts,
    /// The request under way, understood.
    plan: Option<Plan>,
    /// Its intent is on disk.
    cleared: bool,
    /// What it waits for before it goes on.
    due: Due,
    /// What transactions are marked with, where they are.
    marker: Option<Marker>,
    /// A transaction ended under its client's COMMIT, which is to be told so.
    taken_away: Option<u64>,
    /// The kind of its packets.
    kind: PacketKind,
    /// Bytes of whole packets of a request that is still to be understood.
    walked: usize,
    /// With fewer of them it is not read again.
    wanted: usize,
    /// Its client took it back before it was whole.
    taken_back: bool,
    /// The reset that its header asks for was made.
    reset_made: bool,
    /// The client waits for the acknowledgement of a reset.
    owes_reset: bool,
    /// Why what is being dropped is refused.
    refused: Option<(RefusalCode, Reason)>,
    /// What commits was sent, and is not answered.
    commit_sent: bool,
    cancelled: Cancelled,
    reader: Reader,
    reply: ReplySoFar,
    /// The answer to our question, as far as it has come.
    answer: Vec<u8>,
    /// The correlation id whose attempts the client asks for, once what asked it is over.
    question: Option<Arc<str>>,
    /// What reached the client ends in the middle of a token.
    torn: bool,
    /// What has become of work outside of a transaction, should none be open. Is its intent on disk?
    unsettled: Option<(Outcome, bool)>,
    /// Has the id of this transaction been asked for since the last work in it?
    asked: bool,
    /// Must the connection be closed in the end?
    spoiled: bool,
    replied: u64,
    records: Vec<Record>,
    /// Outcomes that the end of the reply waits for.
    held: Vec<Record>,
    scratch: Vec<u8>,
    head: Vec<u8>,
}

impl Conversation {
    pub(super) fn new(ledger: Ledger, upstream: &Checkout, prelude: &Prelude<'_>) -> Self {
        let server = upstream.sqlserver();
        let unknown = Habits {
            id_question: None,
            session: 0,
            tells_transactions: true,
        };
        Self::begin(
            ledger,
            prelude.session,
            (
                server.map_or(packet::LOGIN_PACKET_BYTES, |it| it.packet_bytes),
                server.map_or(0, |it| it.spid),
            ),
            upstream.habits().unwrap_or(unknown),
            (
                server.map(|it| it.database.clone()).unwrap_or_default(),
                prelude::text(prelude),
            ),
        )
    }

    /// The client asked for the database by this name.
    pub(super) fn asked_for(mut self, name: &str) -> Self {
        let other = !name.is_empty() && !name.eq_ignore_ascii_case(&self.database);
        self.alias = other.then(|| name.to_owned());
        self
    }

    fn begin(
        ledger: Ledger,
        reference: SessionId,
        (packet_bytes, spid): (usize, u16),
        habits: Habits,
        (database, prelude): (String, String),
    ) -> Self {
        Self {
            reference,
            ledger,
            spid,
            packet_bytes,
            database,
            alias: None,
            habits,
            prelude,
            turn: Turn::Idle,
            phase: Phase::Open,
            open: Open::default(),
            implicit: false,
            plan_only: PlanOnly::NONE,
            texts: Texts::default(),
            plan: None,
            cleared: false,
            due: Due::Nothing,
            marker: None,
            taken_away: None,
            kind: PacketKind::Batch,
            walked: 0,
            wanted: 0,
            taken_back: false,
            reset_made: false,
            owes_reset: false,
            refused: None,
            commit_sent: false,
            cancelled: Cancelled::Not,
            reader: Reader::default(),
            reply: ReplySoFar::default(),
            answer: Vec::new(),
            question: None,
            torn: false,
            unsettled: None,
            asked: false,
            spoiled: false,
            replied: 0,
            records: Vec::new(),
            held: Vec::new(),
            scratch: Vec::new(),
            head: Vec::new(),
        }
    }

    /// Changes the turn, which is consumed by every step.
    fn step<T>(&mut self, step: impl FnOnce(Turn) -> (Turn, T)) -> T {
        let (turn, result) = step(std::mem::replace(&mut self.turn, Turn::Spoiled));
        self.turn = turn;
        result
    }

    /// The same for a step that can be out of turn, which is a mistake of ours.
    fn try_step(
        &mut self,
        step: impl FnOnce(Turn) -> Result<Turn, crate::wire::tds::turn::TurnError>,
    ) -> Result<(), Fault> {
        let turn = std::mem::replace(&mut self.turn, Turn::Spoiled);
        self.turn = step(turn).map_err(|error| Fault::OutOfTurn {
            what: error.to_string(),
        })?;
        Ok(())
    }

    /// Puts a whole reply of our own into the lane.
    fn add_reply(&mut self, to_client: &mut Lane, payload: &[u8]) {
        self.scratch.clear();
        packet::put_reply(&mut self.scratch, self.spid, self.packet_bytes, payload);
        to_client.add(&self.scratch);
    }

    /// Puts one packet into the lane, with these flags.
    fn add_packet(&mut self, lane: &mut Lane, kind: PacketKind, status: Status, body: &[u8]) {
        self.scratch.clear();
        let header = Header {
            kind,
            status,
            length: body.len() + packet::HEADER_BYTES,
            spid: if kind == PacketKind::Reply { self.spid } else { 0 },
            number: 1,
        };
        packet::put_header(&mut self.scratch, &header);
        self.scratch.extend_from_slice(body);
        lane.add(&self.scratch);
    }

    /// Sends a request of our own, whole.
    fn send(
        &mut self,
        (kind, status): (PacketKind, Status),
        payload: &[u8],
        owed: Owed,
        to_server: &mut Lane,
    ) -> Result<(), Fault> {
        self.scratch.clear();
        packet::put_message(&mut self.scratch, kind, status, self.packet_bytes, payload);
        to_server.add(&self.scratch);
        self.try_step(|turn| turn.began(owed)?.ended())
    }

    fn refusal(&self, code: RefusalCode, reason: Reason) -> Refusal {
        Refusal {
            code,
            reason,
            reference: self.reference,
        }
    }

    fn is_of_client(&self) -> bool {
        self.turn
            .owed()
            .is_some_and(|owed: Owed| owed.owner == Owner::Client)
    }
}

/// The packet at the front of the lane, if all of it is there; else how many bytes it takes.
fn whole_packet(lane: &Lane) -> Result<Decoded<Header>, PeerMisbehaved> {
    let unjudged = lane.unjudged();
    Ok(match packet::header(unjudged, packet::PACKET_BYTES_MAX)? {
        Decoded::Message(header) if header.length > unjudged.len() => Decoded::NeedMore {
            at_least: header.length,
        },
        decoded @ (Decoded::Message(_) | Decoded::NeedMore { .. }) => decoded,
    })
}

impl Dialogue for Conversation {
    fn judge_client(
        &mut self,
        to_server: &mut Lane,
        to_client: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault> {
        self.hear_client(to_server, to_client, now)
    }

    fn judge_server(
        &mut self,
        to_client: &mut Lane,
        to_server: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault> {
        self.hear_server(to_client, to_server, now)
    }

    fn intent_written(&mut self, _: &mut Lane) {
        self.cleared = true;
        self.phase = Phase::Open;
    }

    /// A transaction that is open is rolled back by the server in place of what was asked; what would have
    /// been a transaction by itself is not begun.
    fn intent_failed(&mut self, reason: Reason, _: &mut Lane, _: &mut Lane) {
        self.refused = Some((refusal_of_work(&reason), reason));
        self.phase = Phase::Dropping;
    }

    fn outcome_written(&mut self) {
        self.phase = Phase::Awaiting;
    }

    fn outcomes_found(&mut self, answer: &str, to_server: &mut Lane) {
        if self.put_answer(answer, to_server).is_err() {
            // Nothing was owed, so that nothing can have been out of turn; the next request will be, and say so.
            self.phase = Phase::Open;
        }
    }

    fn answer_bytes_max(&self) -> usize {
        outcomes::ANSWER_BYTES_MAX
    }

    fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    fn is_at_rest(&self) -> bool {
        self.owes_nothing() && self.open.depth == 0
    }

    fn owes_nothing(&self) -> bool {
        self.phase == Phase::Open && self.turn.is_idle() && self.plan.is_none()
    }

    fn leaves_clean(&self) -> bool {
        self.is_at_rest() && !self.spoiled
    }

    fn is_running_client_statement(&self) -> bool {
        matches!(self.phase, Phase::Awaiting) && self.is_of_client()
    }

    fn is_committing(&self) -> bool {
        self.commit_sent
    }

    fn activity(&self) -> Activity {
        match self.phase {
            Phase::Open | Phase::Asking(_) if self.plan.is_none() && self.open.depth == 0 => Activity::Idle,
            Phase::Open | Phase::Asking(_) if self.plan.is_none() => Activity::IdleInTransaction,
            Phase::Open
            | Phase::Asking(_)
            | Phase::Passing
            | Phase::Dropping
            | Phase::Writing
            | Phase::Awaiting
            | Phase::Holding
            | Phase::Looking => Activity::Running(self.replied),
        }
    }

    fn timed_out(&mut self, limit: Duration) {
        if self.is_running_client_statement() && self.cancelled == Cancelled::Not {
            self.cancelled = Cancelled::ForTime(limit);
        }
    }

    /// By an attention on the connection itself.
    fn cancel(&mut self, to_server: &mut Lane) -> Cancelling {
        if self.is_running_client_statement() && self.step(Turn::attention) == Attention::Send {
            self.add_packet(to_server, PacketKind::Attention, Status::EOM, &[]);
        }
        Cancelling::Settled
    }

    fn transactions(&self) -> u64 {
        self.ledger.closed()
    }

    fn abandon(&mut self, now: SystemTime) -> Option<Record> {
        // Told by the server, with nobody left to wait for it.
        self.records.append(&mut self.held);
        let outcome = if self.commit_sent || self.unsettled.is_some() {
            Outcome::InDoubt
        } else {
            Outcome::Aborted
        };
        if self.ledger.id().is_none() {
            self.ledger.mark_partial();
        }
        self.ledger.close(outcome, now)
    }

    fn put_farewell(&self, out: &mut Vec<u8>, refusal: &Refusal) {
        // In the middle of a token nothing that follows could be read.
        if !self.torn {
            let mut payload = Vec::new();
            refusal::put_farewell(&mut payload, refusal);
            refusal::put_reply(out, self.spid, &payload);
        }
    }
}
