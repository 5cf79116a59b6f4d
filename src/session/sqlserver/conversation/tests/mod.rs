//! Stories told in packets and tokens: what goes to the server, what reaches the client, and what is on
//! disk in between.
//!
//! All that happens is written down in one line. `>` is a packet for the server, `<` what reaches the client,
//! a full stop the end of a message. Replies are written in the words in which they are written down:
//! `begin:7 done`. An intent and an outcome that something waited for stand between what went before them and
//! what went behind.

mod cancels;
mod endings;
mod large;
mod marking;
mod outcomes;
mod prepared;
mod refusals;
mod resets;
mod transactions;
mod untold;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use crate::audit::record::{Event as Recorded, Facts, PolicyFacts, Record};
use crate::domain::{ParameterRule, Random, Reason, SessionId};
use crate::session::counters::TargetCounters;
use crate::session::dialogue::{Demand, Dialogue as _, Fault, Verdict};
use crate::session::lane::Lane;
use crate::session::ledger::Ledger;
use crate::upstream::checkout::Habits;
use crate::wire::Decoded;
use crate::wire::tds::event::{DoneKind, DoneStatus, EnvChange, Event};
use crate::wire::tds::packet::{self, Header, PacketKind, Status};
use crate::wire::tds::reply::{self, Cell, Column, ColumnKind, Said};
use crate::wire::tds::request::{self, Isolation, Request, Seen, TransactionRequest};
use crate::wire::tds::rpc::{self, Argument, Callee};
use crate::wire::tds::token::Reader;

use super::Conversation;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const SPID: u16 = 53;

/// A server that tells of all transactions, and one that does so only where the transaction manager is asked.
const TELLS: Habits = Habits {
    session: 51,
    id_question: Some("ID?"),
    tells_transactions: true,
};
const SILENT: Habits = Habits {
    session: 51,
    id_question: Some("ID?"),
    tells_transactions: false,
};

#[derive(Debug)]
struct Seven;

impl Random for Seven {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// A client and a server that exist only as bytes, and a journal that can be told to fail.
struct Story {
    conversation: Conversation,
    counters: Arc<TargetCounters>,
    to_server: Lane,
    to_client: Lane,
    /// Reads what reaches the client.
    reader: Reader,
    journal_fails: bool,
    intents: Vec<Record>,
    outcomes: Vec<Record>,
    fault: Option<Fault>,
    written_down: String,
    /// Bytes of both sides arrive in pieces of so many.
    piece: usize,
    /// Bytes that wait to be judged were never more.
    most_unjudged: usize,
}

fn take(lane: &mut Lane) -> Vec<u8> {
    let mut all = Vec::new();
    while lane.has_output() {
        let mut slices = Lane::no_slices();
        let used = lane.slices(&mut slices);
        let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
        lane.written(bytes.len());
        all.extend(bytes);
    }
    all
}

impl Story {
    fn new() -> Self {
        Self::with(TELLS)
    }

    fn with(habits: Habits) -> Self {
        Self::under(habits, Facts::default())
    }

    /// Under a rule that wants values on record.
    fn recording() -> Self {
        let policy = PolicyFacts {
            rule: None,
            version: "1".into(),
            parameters: ParameterRule::Plain,
        };
        let policy = Some(policy);
        Self::under(
            TELLS,
            Facts {
                policy,
                ..Facts::default()
            },
        )
    }

    fn under(habits: Habits, facts: Facts) -> Self {
        let session = SessionId::random(&Seven);
        let counters = Arc::<TargetCounters>::default();
        let ledger = Ledger::new(Arc::new(facts), session, 53, None, Arc::clone(&counters));
        let texts = ("orders".to_owned(), "PRELUDE".to_owned());
        let conversation = Conversation::begin(ledger, session, (packet::PACKET_BYTES, SPID), habits, texts);
        Self {
            conversation,
            counters,
            to_server: Lane::default(),
            to_client: Lane::default(),
            reader: Reader::default(),
            journal_fails: false,
            intents: vec![],
            outcomes: vec![],
            fault: None,
            written_down: String::new(),
            piece: usize::MAX,
            most_unjudged: 0,
        }
    }

    /// What the client sends; returns all that happens then.
    fn client(&mut self, bytes: &[u8]) -> String {
        for piece in bytes.chunks(self.piece) {
            self.to_server.push(piece);
            self.settle();
        }
        self.told()
    }

    /// What the server replies, in one message.
    fn server(&mut self, reply: &str) -> String {
        let mut bytes = Vec::new();
        packet::put_reply(&mut bytes, SPID, packet::PACKET_BYTES, &payload(reply));
        self.server_bytes(&bytes)
    }

    /// What the server says first; more of the same message is to come.
    fn server_begins(&mut self, reply: &str) -> String {
        self.server_bytes(&reply_packet(Status::NORMAL, &payload(reply)))
    }

    fn server_bytes(&mut self, bytes: &[u8]) -> String {
        for piece in bytes.chunks(self.piece) {
            self.to_client.push(piece);
            self.settle();
        }
        self.told()
    }

    /// A request and its whole reply.
    fn exchange(&mut self, request: &[u8], reply: &str) -> String {
        let sent = self.client(request);
        let came = self.server(reply);
        format!("{sent} {came}")
    }

    fn told(&mut self) -> String {
        std::mem::take(&mut self.written_down).trim().to_owned()
    }

    fn settle(&mut self) {
        loop {
            self.judge();
            self.most_unjudged = self.most_unjudged.max(self.to_server.unjudged().len());
            if !self.write_down() {
                return;
            }
        }
    }

    fn judge(&mut self) {
        while self.fault.is_none() {
            let verdict = self
                .conversation
                .judge_server(&mut self.to_client, &mut self.to_server, NOW);
            for record in self.conversation.take_records() {
                // Handed to the journal before anything of the same turn is written to a socket.
                write!(self.written_down, " {}", outcome(&record)).unwrap();
                self.outcomes.push(record);
            }
            if self.demanded(verdict) {
                continue;
            }
            if self.fault.is_some() {
                return;
            }
            let verdict = self
                .conversation
                .judge_client(&mut self.to_server, &mut self.to_client, NOW);
            if !self.demanded(verdict) {
                return;
            }
        }
    }

    fn demanded(&mut self, verdict: Result<Verdict, Fault>) -> bool {
        match verdict {
            Ok(Verdict::Demand(Demand::Intent(_))) if self.journal_fails => {
                self.note("refused");
                self.conversation.intent_failed(
                    Reason::JournalFailed,
                    &mut self.to_server,
                    &mut self.to_client,
                );
            }
            Ok(Verdict::Demand(Demand::Intent(record))) => {
                let Recorded::TransactionIntent(transaction) = &record.event else {
                    panic!("no intent")
                };
                self.note(&format!("intent:{}", id(transaction.id)));
                self.intents.push(record);
                self.conversation.intent_written(&mut self.to_server);
            }
            Ok(Verdict::Demand(Demand::Outcome(record))) => {
                self.note(&format!("held:{}", outcome(&record)));
                self.outcomes.push(record);
                self.conversation.outcome_written();
            }
            Ok(Verdict::Demand(Demand::Outcomes(asked))) => {
                self.note(&format!("asked:{asked}"));
                self.conversation.outcomes_found("{it's}", &mut self.to_server);
            }
            Ok(Verdict::More { .. }) => return false,
            Ok(Verdict::Terminated) => panic!("nobody said good-bye"),
            Err(fault) => {
                self.note("fault");
                self.fault = Some(fault);
                return false;
            }
        }
        true
    }

    /// Behind all that was forwarded up to now.
    fn note(&mut self, what: &str) {
        self.write_down();
        write!(self.written_down, " {what}").unwrap();
    }

    /// Says whether there was anything.
    fn write_down(&mut self) -> bool {
        let (to_client, to_server) = (take(&mut self.to_client), take(&mut self.to_server));
        let wrote = !to_client.is_empty() || !to_server.is_empty();
        self.show_replies(&to_client);
        for (header, body) in packets(&to_server) {
            write!(self.written_down, " >{}", shown_request(header, body)).unwrap();
        }
        wrote
    }

    fn show_replies(&mut self, bytes: &[u8]) {
        for (header, body) in packets(bytes) {
            assert_eq!(header.spid, SPID);
            let mut shown = String::new();
            self.reader
                .read(body, &mut |event| show_event(&mut shown, &event))
                .unwrap();
            if header.is_last() {
                shown.push('.');
                self.reader.end();
            }
            let shown = shown.trim();
            if !shown.is_empty() {
                write!(self.written_down, " <{shown}").unwrap();
            }
        }
    }

    /// The correlation ids of the last intent.
    fn correlation(&self) -> Vec<&str> {
        let record = self.intents.last().unwrap();
        record.correlation.iter().map(|it| it.id.as_ref()).collect()
    }

    /// The texts in the last outcome.
    fn statements(&self) -> Vec<(&str, Option<u64>)> {
        let Recorded::TransactionOutcome { transaction, .. } = &self.outcomes.last().unwrap().event else {
            panic!("no outcome")
        };
        let statements = transaction.statements.iter();
        statements.map(|it| (it.text.as_ref(), it.rows)).collect()
    }
}

fn id(id: Option<u64>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| id.to_string())
}

fn outcome(record: &Record) -> String {
    let Recorded::TransactionOutcome {
        transaction,
        scope,
        outcome,
        ..
    } = &record.event
    else {
        panic!("no outcome")
    };
    format!("{outcome:?}:{}:{scope:?}", id(transaction.id)).to_lowercase()
}

fn packets(mut bytes: &[u8]) -> Vec<(Header, &[u8])> {
    let mut found = vec![];
    while !bytes.is_empty() {
        let Ok(Decoded::Message(header)) = packet::header(bytes, packet::PACKET_BYTES) else {
            panic!("not a packet, or half of one")
        };
        let (packet, rest) = bytes.split_at(header.length);
        found.push((header, &packet[packet::HEADER_BYTES..]));
        bytes = rest;
    }
    found
}

fn shown_request(header: Header, body: &[u8]) -> String {
    let mut shown = String::new();
    for (flag, name) in [
        (Status::RESET, "reset:"),
        (Status::RESET_SKIP_TRAN, "reset-skip:"),
        (Status::IGNORE, "ignore:"),
    ] {
        if header.status.has(flag) {
            shown.push_str(name);
        }
    }
    let Some(Ok(Decoded::Message(request))) = header
        .is_last()
        .then(|| request::read(header.kind.code(), Seen::Whole(body)))
    else {
        let more = if header.is_last() { "" } else { "+" };
        return format!("{shown}{:?}{more}", header.kind).to_lowercase();
    };
    let descriptor = |headers: &crate::wire::tds::headers::Headers| {
        let transaction = headers.transaction.map(|it| it.descriptor);
        transaction
            .filter(|it| *it != 0)
            .map(|it| format!("@{it}"))
            .unwrap_or_default()
    };
    let what = match request {
        Request::Batch(batch) => {
            let text: String = batch.text.lossy().chars().take(60).collect();
            format!("'{text}'{}", descriptor(&batch.headers))
        }
        Request::Rpc(calls) => format!("rpc{}", descriptor(&calls.headers)),
        Request::Transaction(headers, request) => {
            let name = match request {
                TransactionRequest::Begin(_) => "BEGIN",
                TransactionRequest::Commit { .. } => "COMMIT",
                TransactionRequest::Rollback { .. } => "ROLLBACK",
                TransactionRequest::Save { .. } => "SAVE",
                TransactionRequest::GetDtcAddress
                | TransactionRequest::Propagate
                | TransactionRequest::Promote => "DTC",
            };
            format!("{name}{}", descriptor(&headers))
        }
        Request::Bulk => "bulk".to_owned(),
    };
    format!("{shown}{what}")
}

fn show_event(shown: &mut String, event: &Event<'_>) {
    let what = match event {
        Event::EnvChange(EnvChange::Begin { descriptor }) => format!("begin:{descriptor}"),
        Event::EnvChange(EnvChange::Commit { descriptor }) => format!("commit:{descriptor}"),
        Event::EnvChange(EnvChange::Rollback { descriptor }) => format!("rollback:{descriptor}"),
        Event::EnvChange(EnvChange::TransactionEnded { descriptor }) => format!("ended:{descriptor}"),
        Event::EnvChange(EnvChange::ResetAck) => "reset".to_owned(),
        Event::EnvChange(EnvChange::Database { new, .. }) => format!("database:{}", new.lossy()),
        Event::EnvChange(_) => "change".to_owned(),
        Event::Error(message) => format!("error:{}", message.number),
        Event::Info(_) => "info".to_owned(),
        Event::Done(done) if done.status.is_attention() => "done~".to_owned(),
        Event::Done(done) => {
            let proc = if done.kind == DoneKind::Procedure {
                "proc"
            } else {
                ""
            };
            let error = if done.status.is_error() { "!" } else { "" };
            let more = if done.status.has_more() { "+" } else { "" };
            format!("done{proc}{error}{more}")
        }
        Event::ReturnStatus(status) => format!("status:{status}"),
        Event::ReturnValue { value, .. } => format!("value:{}", value.unwrap_or_default()),
        Event::Columns { .. } => "columns".to_owned(),
        Event::Row { .. } => "row".to_owned(),
        Event::ColumnsUntold | Event::Other { .. } => "other".to_owned(),
        Event::Lost(_) => "lost".to_owned(),
    };
    write!(shown, " {what}").unwrap();
}

/// A reply in words.
fn payload(words: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in words.split_ascii_whitespace() {
        let (name, value) = word.split_once(':').unwrap_or((word, "0"));
        let number: u64 = value.parse().unwrap();
        let rows = |status: DoneStatus| status.and(DoneStatus::COUNT).and(DoneStatus::MORE);
        let mut done =
            |status, command, rows| reply::put_done(&mut out, DoneKind::Batch, status, command, rows);
        match name {
            "done" => done(DoneStatus::FINAL, 0, 0),
            "done+" => done(DoneStatus::MORE, 0, 0),
            "done!" => done(DoneStatus::ERROR, 0, 0),
            "done!+" => done(DoneStatus::ERROR.and(DoneStatus::MORE), 0, 0),
            "done~" => done(DoneStatus::ATTENTION, 0, 0),
            "selected" => done(rows(DoneStatus::FINAL), 0xc1, number),
            "inserted" => done(rows(DoneStatus::FINAL), 0xc3, number),
            "doneproc" => reply::put_done(&mut out, DoneKind::Procedure, DoneStatus::FINAL, 0, 0),
            "begin" => reply::put_begin(&mut out, number),
            "commit" => reply::put_commit(&mut out, number),
            "rollback" => reply::put_rollback(&mut out, number),
            "ended" => reply::put_transaction_ended(&mut out, number),
            "reset" => reply::put_reset_ack(&mut out),
            "error" => reply::put_error(&mut out, &said(number)),
            "status" => reply::put_return_status(&mut out, number as i32),
            "value" => {
                let cell = Cell::Int(number as i32);
                reply::put_return_value(&mut out, 0, "@h", ColumnKind::Int, cell);
            }
            "bigint" => put_number(&mut out, ColumnKind::BigInt, Cell::BigInt(number as i64)),
            "int" => put_number(&mut out, ColumnKind::Int, Cell::Int(number as i32)),
            // Two digits: is the row there, how many transactions are open.
            "marks" => put_numbers(&mut out, [number / 10, number % 10]),
            "null" => put_number(&mut out, ColumnKind::BigInt, Cell::Null),
            "unknown" => out.extend_from_slice(&[0x02, 1, 2, 3]),
            other => panic!("{other}: no such word"),
        }
    }
    out
}

fn put_number(out: &mut Vec<u8>, kind: ColumnKind, cell: Cell<'_>) {
    let columns = [Column { name: "", kind }];
    reply::put_columns(out, &columns);
    reply::put_row(out, &columns, &[cell]);
}

fn put_numbers(out: &mut Vec<u8>, numbers: [u64; 2]) {
    let kind = ColumnKind::Int;
    let columns = [Column { name: "", kind }, Column { name: "", kind }];
    reply::put_columns(out, &columns);
    reply::put_row(out, &columns, &numbers.map(|number| Cell::Int(number as i32)));
}

fn said<'a>(number: u64) -> Said<'a> {
    Said {
        number: number as i32,
        state: 1,
        class: 16,
        text: "no",
        server: "s",
        procedure: "",
        line: 1,
    }
}

fn reply_packet(status: Status, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header {
        kind: PacketKind::Reply,
        status,
        length: body.len() + packet::HEADER_BYTES,
        spid: SPID,
        number: 1,
    };
    packet::put_header(&mut bytes, &header);
    bytes.extend_from_slice(body);
    bytes
}

fn message(kind: PacketKind, status: Status, put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let (mut payload, mut bytes) = (Vec::new(), Vec::new());
    put(&mut payload);
    packet::put_message(&mut bytes, kind, status, packet::PACKET_BYTES, &payload);
    bytes
}

/// One packet of a request.
fn part(kind: PacketKind, status: Status, body: &[u8]) -> Vec<u8> {
    let mut bytes = reply_packet(status, body);
    bytes[0] = kind.code();
    bytes
}

fn batch(descriptor: u64, text: &str) -> Vec<u8> {
    flagged(Status::NORMAL, descriptor, text)
}

fn flagged(status: Status, descriptor: u64, text: &str) -> Vec<u8> {
    message(PacketKind::Batch, status, |out| {
        request::put_batch(out, descriptor, None, text);
    })
}

fn begin() -> Vec<u8> {
    message(PacketKind::TransactionManager, Status::NORMAL, |out| {
        request::put_begin(out, Isolation::Unchanged);
    })
}

fn commit(descriptor: u64) -> Vec<u8> {
    message(PacketKind::TransactionManager, Status::NORMAL, |out| {
        request::put_commit(out, descriptor, None);
    })
}

fn rollback(descriptor: u64) -> Vec<u8> {
    message(PacketKind::TransactionManager, Status::NORMAL, |out| {
        request::put_rollback(out, descriptor, None);
    })
}

fn rpc(descriptor: u64, calls: &[(Callee<'_>, &[Argument<'_>])]) -> Vec<u8> {
    message(PacketKind::Rpc, Status::NORMAL, |out| {
        rpc::put_calls(out, descriptor, None, calls);
    })
}

fn attention() -> Vec<u8> {
    message(PacketKind::Attention, Status::NORMAL, |_| {})
}

/// A transaction that is open, has the descriptor 7 and the id 70, and has inserted.
fn in_transaction() -> Story {
    let mut story = Story::new();
    assert_eq!(
        story.exchange(&begin(), "begin:7 done"),
        ">BEGIN <begin:7 done. >'ID?'@7"
    );
    assert_eq!(story.server("bigint:70 done"), "");
    assert_eq!(
        story.exchange(&batch(7, "INSERT a VALUES (1)"), "inserted:1 done"),
        ">'INSERT a VALUES (1)'@7 <done+ done."
    );
    story
}
