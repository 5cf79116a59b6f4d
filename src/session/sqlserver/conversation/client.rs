//! The client's side: requests are understood by their heads, held until their intent is on disk, and
//! passed on packet by packet.

use std::sync::Arc;
use std::time::SystemTime;

use crate::domain::refusal::{Reason, RefusalCode};
use crate::session::dialogue::{Demand, Fault, STATEMENT_BYTES_MAX, Verdict};
use crate::session::lane::Lane;
use crate::session::sqlserver::refusal;
use crate::session::sqlserver::request::{Managed, Plan};
use crate::sql::correlation::Setting;
use crate::wire::tds::event::{DoneKind, DoneStatus};
use crate::wire::tds::packet::{self, HEADER_BYTES, Header, PacketKind, Status};
use crate::wire::tds::reply::{
    put_database, put_done, put_reset_ack, put_return_status, put_rollback as put_told_rollback,
};
use crate::wire::tds::request::{self, Seen, put_batch, put_rollback};
use crate::wire::tds::turn::{Asked, Attention, Owed, Owner, Turn};
use crate::wire::{Decoded, PeerMisbehaved};

use super::marking::Cleared;
use super::questions::Question;
use super::{Cancelled, Conversation, Phase, whole_packet};

/// What looking at the front of the lane came to.
enum Looked {
    /// Look again.
    On,
    /// More bytes are needed, or something else must happen first.
    Wait {
        at_least: usize,
    },
    Demand(Demand),
}

/// How far a request is there.
enum Walked {
    Part,
    Whole,
    /// An attention stands in place of its end.
    TakenBack,
}

/// A long statement does not keep its memory for the rest of the session.
const HEAD_BYTES_KEPT: usize = 64 * 1024;

/// Waits for something other than bytes of the client.
const WAIT: Looked = Looked::Wait { at_least: 0 };

impl Conversation {
    pub(super) fn hear_client(
        &mut self,
        to_server: &mut Lane,
        to_client: &mut Lane,
        now: SystemTime,
    ) -> Result<Verdict, Fault> {
        loop {
            if let Some(verdict) = self.question_due() {
                return Ok(verdict);
            }
            match self.look(to_server, to_client, now)? {
                Looked::On => {}
                Looked::Wait { at_least } => return Ok(Verdict::More { at_least }),
                Looked::Demand(demand) => return Ok(Verdict::Demand(demand)),
            }
        }
    }

    fn look(&mut self, to_server: &mut Lane, to_client: &mut Lane, now: SystemTime) -> Result<Looked, Fault> {
        let header = match whole_packet(to_server).map_err(Fault::Client)? {
            Decoded::Message(header) => header,
            Decoded::NeedMore { at_least } => return Ok(Looked::Wait { at_least }),
        };
        match self.phase {
            Phase::Open | Phase::Awaiting if header.kind == PacketKind::Attention => {
                self.attention(header, to_server);
                Ok(Looked::On)
            }
            // A request of ours was out of turn, which is a mistake of ours.
            Phase::Open if self.turn == Turn::Spoiled => Err(Fault::OutOfTurn {
                what: "a request behind one that was out of turn".to_owned(),
            }),
            Phase::Open if self.turn.is_idle() => self.request(header, to_server, now),
            Phase::Passing | Phase::Dropping if header.kind == PacketKind::Attention => {
                self.take_back(header, to_server)?;
                Ok(Looked::On)
            }
            Phase::Passing => {
                self.check_kind(header).map_err(Fault::Client)?;
                self.pass(header, to_server)?;
                Ok(Looked::On)
            }
            Phase::Dropping => {
                self.check_kind(header).map_err(Fault::Client)?;
                self.drop_packet(header, to_server, to_client)?;
                Ok(Looked::On)
            }
            Phase::Open
            | Phase::Awaiting
            | Phase::Writing
            | Phase::Asking(_)
            | Phase::Holding
            | Phase::Looking => Ok(WAIT),
        }
    }

    /// The client cancels what runs, or what it thinks runs.
    fn attention(&mut self, header: Header, to_server: &mut Lane) {
        match self.step(Turn::attention) {
            // In a packet of our own, so that no flag comes along.
            Attention::Send => {
                to_server.discard(header.length);
                self.add_packet(to_server, PacketKind::Attention, Status::EOM, &[]);
                self.cancelled = Cancelled::ByClient;
                self.phase = Phase::Awaiting;
            }
            // It is being cancelled for its time already: now the client waits for the acknowledgement.
            Attention::Known => {
                to_server.discard(header.length);
                self.cancelled = Cancelled::ByClient;
            }
            Attention::Misplaced => to_server.discard(header.length),
        }
    }

    /// An attention in place of the rest of a request, as SqlClient ends a bulk load.
    fn take_back(&mut self, header: Header, to_server: &mut Lane) -> Result<(), Fault> {
        if self.phase == Phase::Passing {
            self.taken_back = true;
            self.spoiled = true;
            self.try_step(Turn::ended)?;
            self.attention(header, to_server);
            return Ok(());
        }
        // The server knows nothing of the request; the attention is for it alone.
        self.plan = None;
        self.reset_made = false;
        if self
            .refused
            .take()
            .is_some_and(|(code, _)| code == RefusalCode::AuditUnavailable)
        {
            self.forget_work();
        }
        self.phase = Phase::Open;
        Ok(())
    }

    /// All packets of a message are of one kind: who took another for its end would read another request.
    fn check_kind(&self, header: Header) -> Result<(), PeerMisbehaved> {
        if header.kind == self.kind {
            return Ok(());
        }
        let tag = header.kind.code();
        let awaited = "the rest of a message";
        Err(PeerMisbehaved::Unexpected { tag, awaited })
    }

    /// A request stands at the front of the lane.
    fn request(&mut self, header: Header, to_server: &mut Lane, now: SystemTime) -> Result<Looked, Fault> {
        let Some(asked) = asked(header.kind) else {
            let tag = header.kind.code();
            let awaited = "a request";
            return Err(Fault::Client(PeerMisbehaved::Unexpected { tag, awaited }));
        };
        let reset = resets(header);
        if reset != Status::NORMAL && !self.reset_made {
            self.ask(Question::Reset(reset), to_server)?;
            return Ok(WAIT);
        }
        if self.plan.is_none() {
            self.kind = header.kind;
            let plan = match self.walk(to_server).map_err(Fault::Client)? {
                Walked::TakenBack => {
                    to_server.discard(std::mem::take(&mut self.walked));
                    self.wanted = 0;
                    self.reset_made = false;
                    return Ok(Looked::On);
                }
                Walked::Whole => self.understand(true, to_server)?,
                Walked::Part if self.walked < self.wanted => return self.more(to_server),
                Walked::Part => self.understand(false, to_server)?,
            };
            let Some(plan) = plan else {
                // Twice as much, so that a long text is not read again for every packet.
                self.wanted = self.walked.saturating_mul(2).min(STATEMENT_BYTES_MAX);
                return self.more(to_server);
            };
            (self.walked, self.wanted) = (0, 0);
            if self.head.capacity() > HEAD_BYTES_KEPT {
                self.head = Vec::new();
            }
            if let Some(looked) = self.understood(plan, now) {
                return Ok(looked);
            }
        }
        match self.clear(to_server)? {
            None => {}
            Some(Cleared::Later) => return Ok(WAIT),
            Some(Cleared::Demand(demand)) => return Ok(Looked::Demand(demand)),
            Some(Cleared::Never) => return Ok(Looked::On),
        }
        if self.plan.as_ref().is_some_and(|plan| plan.resets) {
            // By a call instead of the header's flag, as python-tds does it.
            if !self.reset_made {
                self.ask(Question::Reset(Status::RESET), to_server)?;
                return Ok(WAIT);
            }
            self.phase = Phase::Dropping;
            return Ok(Looked::On);
        }
        if self.plan.as_ref().is_some_and(|plan| self.uses_alias(plan)) {
            self.phase = Phase::Dropping;
            return Ok(Looked::On);
        }
        let owed = Owed {
            asked,
            owner: Owner::Client,
        };
        self.try_step(|turn| turn.began(owed))?;
        self.phase = Phase::Passing;
        self.cancelled = Cancelled::Not;
        self.owes_reset = std::mem::take(&mut self.reset_made);
        self.pass(header, to_server)?;
        Ok(Looked::On)
    }

    /// Walks over the packets of the request at the front, as far as they are whole.
    fn walk(&mut self, lane: &Lane) -> Result<Walked, PeerMisbehaved> {
        while let Some(rest) = lane.unjudged().get(self.walked..)
            && let Decoded::Message(header) = packet::header(rest, packet::PACKET_BYTES_MAX)?
            && header.length <= rest.len()
        {
            if header.kind == PacketKind::Attention {
                return Ok(Walked::TakenBack);
            }
            self.check_kind(header)?;
            // Otherwise a message could go on for ever without growing.
            if header.body_bytes() == 0 && !header.is_last() {
                return Err(PeerMisbehaved::Truncated { what: "request" });
            }
            self.walked = self.walked.saturating_add(header.length);
            if header.is_last() {
                return Ok(Walked::Whole);
            }
        }
        Ok(Walked::Part)
    }

    /// Waits for more of a request that cannot be understood yet.
    fn more(&self, lane: &Lane) -> Result<Looked, Fault> {
        let length = lane.unjudged().len();
        if length > STATEMENT_BYTES_MAX {
            return Err(Fault::StatementTooLarge { length });
        }
        Ok(Looked::Wait {
            at_least: self
                .wanted
                .saturating_add(HEADER_BYTES)
                .max(length.saturating_add(1)),
        })
    }

    /// `None`: more of the request must be seen.
    fn understand(&mut self, is_whole: bool, lane: &Lane) -> Result<Option<Plan>, Fault> {
        let Self {
            head,
            texts,
            walked,
            ledger,
            ..
        } = self;
        let packets = lane.unjudged().get(..*walked).unwrap_or_default();
        let bytes = joined(packets, head).map_err(Fault::Client)?;
        let seen = if is_whole {
            Seen::Whole(bytes)
        } else {
            Seen::Head(bytes)
        };
        let read = request::read(self.kind.code(), seen).map_err(Fault::Client)?;
        let plan = match read {
            Decoded::Message(request) => texts.understand(&request, ledger.wants_values()),
            Decoded::NeedMore { .. } => None,
        };
        let plan = plan.map(|plan| Plan {
            payload: (!plan.calls.is_empty())
                .then(|| ledger.keep_calls(bytes, is_whole))
                .flatten(),
            ..plan
        });
        if is_whole && plan.is_none() {
            let what = "request";
            return Err(Fault::Client(PeerMisbehaved::Truncated { what }));
        }
        Ok(plan)
    }

    /// Notes what the request would do. `Some`: it does not go on now.
    fn understood(&mut self, mut plan: Plan, now: SystemTime) -> Option<Looked> {
        if let Some(reason) = plan.refused.take() {
            let code = if matches!(reason, Reason::Malformed { .. }) {
                RefusalCode::ProtocolViolation
            } else {
                RefusalCode::NotPermitted
            };
            self.refused = Some((code, reason));
            self.plan = Some(plan);
            self.phase = Phase::Dropping;
            return Some(Looked::On);
        }
        self.ledger.comments(&plan.ids);
        for set in &plan.sets {
            match set.setting {
                Setting::CorrelationId => self.ledger.set_lasting_correlation(set),
                Setting::OutcomeOf => self.question = set.value.as_ref().map(|asked| Arc::clone(&asked.id)),
            }
        }
        for (index, (text, kind)) in plan.statements.iter().enumerate() {
            let values = plan.values(index, self.ledger.allowance());
            if plan.plain_read {
                self.ledger.read(text, *kind, values, now);
            } else {
                self.ledger.statement(text, *kind, values, now);
                self.asked &= kind.is_inert();
            }
        }
        if self.ledger.may_have_written() && plan.may_commit(self.open.depth, self.implicit) {
            self.due = self.due_before(&plan);
        }
        self.plan = Some(plan);
        None
    }

    /// Without the flag of a reset, which was made; tedious sets it on all packets of a message.
    fn pass(&mut self, header: Header, to_server: &mut Lane) -> Result<(), Fault> {
        let reset = resets(header);
        if reset == Status::NORMAL {
            to_server.forward(header.length);
        } else {
            to_server.discard(HEADER_BYTES);
            self.scratch.clear();
            let status = header.status.without(reset);
            packet::put_header(&mut self.scratch, &Header { status, ..header });
            to_server.add(&self.scratch);
            to_server.forward(header.body_bytes());
        }
        if !header.is_last() {
            return Ok(());
        }
        self.phase = Phase::Awaiting;
        self.taken_back = header.status.has(Status::IGNORE);
        // Before its end is there the server does nothing.
        self.commit_sent = self.cleared && !self.taken_back;
        if self.taken_back {
            self.try_step(Turn::dropped)
        } else {
            self.try_step(Turn::ended)
        }
    }

    /// A packet of a request that is refused. Behind the last one comes the answer.
    fn drop_packet(
        &mut self,
        header: Header,
        to_server: &mut Lane,
        to_client: &mut Lane,
    ) -> Result<(), Fault> {
        to_server.discard(header.length);
        if !header.is_last() {
            return Ok(());
        }
        let plan = self.plan.take().unwrap_or_default();
        if plan.resets && self.refused.is_none() {
            self.acknowledge_reset(to_client);
            return Ok(());
        }
        if self.refused.is_none() && self.uses_alias(&plan) {
            return self.use_by_name(plan, to_server);
        }
        let internal = (RefusalCode::Internal, Reason::Internal);
        let (code, reason) = self.refused.take().unwrap_or(internal);
        self.phase = Phase::Open;
        // Its intent may not be written: what it belongs to can only be taken back.
        let no_intent = matches!(reason, Reason::JournalFailed | Reason::CorrelationMissing);
        let mut payload = Vec::new();
        if std::mem::take(&mut self.reset_made) {
            self.put_reset(&mut payload);
        }
        // A client that drops its request only waits for the end.
        if !header.status.has(Status::IGNORE) {
            let refusal = self.refusal(code, reason);
            refusal::put_in_session(&mut payload, &refusal);
        }
        if let Some(descriptor) = self.taken_away.take() {
            put_told_rollback(&mut payload, descriptor);
        }
        if no_intent && self.open.depth > 0 {
            return self.roll_back_instead(&payload, to_server, to_client);
        }
        if plan.is_rpc {
            put_return_status(&mut payload, -1);
            put_done(&mut payload, DoneKind::Procedure, DoneStatus::ERROR, 0, 0);
        } else {
            put_done(&mut payload, DoneKind::Batch, DoneStatus::ERROR, 0, 0);
        }
        if no_intent {
            self.forget_work();
        }
        self.replied = self.replied.wrapping_add(1);
        self.add_reply(to_client, &payload);
        Ok(())
    }

    /// Is it USE of the database by the name that only gatepost knows?
    fn uses_alias(&self, plan: &Plan) -> bool {
        let alias = self.alias.as_deref();
        let same = |uses: &str| alias.is_some_and(|alias| alias.eq_ignore_ascii_case(uses));
        plan.uses.as_deref().is_some_and(same)
    }

    /// The server is told the database's own name; its answer is the client's.
    fn use_by_name(&mut self, plan: Plan, to_server: &mut Lane) -> Result<(), Fault> {
        let text = format!("USE [{}]", self.database.replace(']', "]]"));
        let mut payload = Vec::new();
        put_batch(&mut payload, self.open.descriptor, None, &text);
        let owed = Owed {
            asked: Asked::Batch,
            owner: Owner::Client,
        };
        self.send((PacketKind::Batch, Status::NORMAL), &payload, owed, to_server)?;
        self.owes_reset = std::mem::take(&mut self.reset_made);
        self.plan = Some(plan);
        self.phase = Phase::Awaiting;
        Ok(())
    }

    /// The reset that a call asked for was made.
    fn acknowledge_reset(&mut self, to_client: &mut Lane) {
        self.phase = Phase::Open;
        self.reset_made = false;
        self.replied = self.replied.wrapping_add(1);
        let mut payload = Vec::new();
        put_reset_ack(&mut payload);
        put_database(&mut payload, &self.database, &self.database);
        put_return_status(&mut payload, 0);
        put_done(&mut payload, DoneKind::Procedure, DoneStatus::FINAL, 0, 0);
        self.add_reply(to_client, &payload);
    }

    /// What would have committed is not on record: the server rolls back, and its answer follows our ERROR.
    fn roll_back_instead(
        &mut self,
        error: &[u8],
        to_server: &mut Lane,
        to_client: &mut Lane,
    ) -> Result<(), Fault> {
        let owed = Owed {
            asked: Asked::Transaction,
            owner: Owner::Client,
        };
        if !error.is_empty() {
            self.add_packet(to_client, PacketKind::Reply, Status::NORMAL, error);
        }
        let mut payload = Vec::new();
        put_rollback(&mut payload, self.open.descriptor, None);
        let kind = PacketKind::TransactionManager;
        self.send((kind, Status::NORMAL), &payload, owed, to_server)?;
        self.plan = Some(Plan {
            managed: Some(Managed::Rollback { then_begin: false }),
            ..Plan::default()
        });
        self.phase = Phase::Awaiting;
        Ok(())
    }
}

const fn asked(kind: PacketKind) -> Option<Asked> {
    match kind {
        PacketKind::Batch => Some(Asked::Batch),
        PacketKind::Rpc => Some(Asked::Rpc),
        PacketKind::TransactionManager => Some(Asked::Transaction),
        PacketKind::Bulk => Some(Asked::Bulk),
        PacketKind::Reply
        | PacketKind::Attention
        | PacketKind::FederatedToken
        | PacketKind::Login7
        | PacketKind::Sspi
        | PacketKind::Prelogin => None,
    }
}

/// The flag of a reset that a packet has.
const fn resets(header: Header) -> Status {
    let flags = Status::RESET.with(Status::RESET_SKIP_TRAN).bits();
    Status::new(header.status.bits() & flags)
}

/// The bodies of whole packets. One is looked at where it lies; several are put together in `head`.
fn joined<'a>(packets: &'a [u8], head: &'a mut Vec<u8>) -> Result<&'a [u8], PeerMisbehaved> {
    head.clear();
    let mut rest = packets;
    while let Decoded::Message(header) = packet::header(rest, packet::PACKET_BYTES_MAX)? {
        let (packet, after) = rest.split_at_checked(header.length).unwrap_or((rest, &[]));
        let body = packet.get(HEADER_BYTES..).unwrap_or_default();
        if head.is_empty() && after.is_empty() {
            return Ok(body);
        }
        head.extend_from_slice(body);
        rest = after;
    }
    Ok(head)
}
