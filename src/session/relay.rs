//! Moves bytes between a client and its database as the dialogue judges them: one task, no
//! channels, one read and one vectored write per direction and turn.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::io::poll_read_buf;

use crate::audit::journal::Journal;
use crate::audit::record::{Facts, Record};
use crate::domain::clock::Clock;
use crate::domain::refusal::{Reason, RefusalCode};
use crate::policy::CorrelationRule;
use crate::session::alarms::{Alarm, Alarms};
use crate::session::dialogue::{Cancelling, Demand, Dialogue, Fault, STATEMENT_BYTES_MAX, Verdict};
use crate::session::lane::{BACKLOG_BYTES_MAX, Lane, READ_BYTES};
use crate::session::notices::Notices;
use crate::session::outcomes::OutcomeDesk;
use crate::session::registry::CancelRequest;
use crate::session::roster::Place;
use crate::session::snapshot::{Notice, REVOKED_GRACE, Standing, Terms};
use crate::tls::Stream;
use crate::upstream::checkout::Checkout;

/// Reads of one side in one turn, so that a bulk result cannot hold the thread's other clients.
const READS_PER_TURN: usize = 4;

/// How a relay ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The client left; the upstream connection may be clean.
    ClientLeft,
    /// The server closed the connection, or broke it.
    ServerLost,
    /// Gatepost ends the session and says why.
    Refused(RefusalCode, Reason),
}

/// What a relay needs besides the two streams.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) journal: &'a Journal,
    pub(super) clock: &'a dyn Clock,
    pub(super) cancels: &'a mut mpsc::Receiver<CancelRequest>,
    pub(super) notices: Notices,
    /// True once gatepost shuts down; the bell says when to look.
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) place: &'a Place,
    pub(super) standing: &'a mut Standing,
    pub(super) terms: Terms,
    /// How long a commit that is under way is waited for when its client is gone.
    pub(super) grace: Duration,
    /// Where the client's questions after outcomes are answered, and who asks.
    pub(super) desk: &'a OutcomeDesk,
    pub(super) facts: &'a Facts,
}

/// One session's relay.
pub(super) struct Relay<'a> {
    client: &'a mut Stream,
    upstream: &'a mut Checkout,
    to_server: Lane,
    to_client: Lane,
    /// Bytes that the next message of either side still needs.
    client_needs: usize,
    server_needs: usize,
    around: Surroundings<'a>,
    /// A cancel request on its way to the server.
    cancelling: Option<JoinHandle<()>>,
    /// Flushed up to what was written?
    client_unflushed: bool,
    server_unflushed: bool,
}

/// What woke the relay.
enum Event {
    Moved,
    ClientClosed,
    ServerClosed,
    Cancel(CancelRequest),
    Alarm(Alarm),
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        client: &'a mut Stream,
        upstream: &'a mut Checkout,
        around: Surroundings<'a>,
        already_read: &BytesMut,
    ) -> Self {
        let mut to_server = Lane::default();
        to_server.push(already_read);
        Self {
            client,
            upstream,
            to_server,
            to_client: Lane::default(),
            client_needs: 0,
            server_needs: 0,
            around,
            cancelling: None,
            client_unflushed: false,
            server_unflushed: false,
        }
    }

    /// Runs until one side leaves or the session has to end.
    pub(super) async fn run(&mut self, dialogue: &mut impl Dialogue) -> Ending {
        let mut alarms = Alarms::new(
            self.around.terms.limits.clone(),
            self.instant(self.around.terms.ends_at),
            self.around.place,
        );
        let mut over: Option<Over> = None;
        // What happened while the session was let in.
        self.look_up(&mut alarms, &mut over);
        loop {
            match self.judge(dialogue).await {
                Ok(None) => {}
                Ok(Some(ending)) => return ending,
                Err(fault) => {
                    self.around.notices.misbehaved(&fault);
                    return refused(&fault);
                }
            }
            if let Some(over) = over.take_if(|_| dialogue.is_at_rest()) {
                return over.ending();
            }
            self.note_activity(dialogue, &mut alarms);
            match self.event(&mut alarms).await {
                Ok(Event::Moved) => {}
                Ok(Event::ClientClosed) => return self.drain_server(dialogue).await,
                Ok(Event::ServerClosed) => return Ending::ServerLost,
                Ok(Event::Cancel(request)) => self.cancel(dialogue, Some(request)),
                Ok(Event::Alarm(alarm)) => {
                    if let Some(ending) = self.alarmed(alarm, dialogue, &mut alarms, &mut over) {
                        return ending;
                    }
                }
                Err((side, error)) => {
                    self.around.notices.broke(side.label(), &error);
                    return match side {
                        Side::Client => self.drain_server(dialogue).await,
                        Side::Server => Ending::ServerLost,
                    };
                }
            }
        }
    }

    /// `Some`: the session ends now.
    fn alarmed(
        &mut self,
        alarm: Alarm,
        dialogue: &mut impl Dialogue,
        alarms: &mut Alarms,
        over: &mut Option<Over>,
    ) -> Option<Ending> {
        match alarm {
            Alarm::Bell => self.look_up(alarms, over),
            Alarm::End => match over.take() {
                // The grace is over as well.
                Some(over) => return Some(over.ending()),
                None => announce(self.around.terms.notice.clone(), alarms, over),
            },
            Alarm::StatementTimeout(limit) => {
                dialogue.timed_out(limit);
                self.cancel(dialogue, None);
            }
            Alarm::CancelIgnored(limit) => {
                let reason = Reason::StatementTimeout { limit };
                return Some(Ending::Refused(RefusalCode::StatementTimeout, reason));
            }
            Alarm::IdleInTransaction(limit) => {
                let reason = Reason::IdleInTransaction { limit };
                return Some(Ending::Refused(RefusalCode::IdleInTransaction, reason));
            }
            Alarm::Idle(limit) => {
                let reason = Reason::IdleSession { limit };
                return Some(Ending::Refused(RefusalCode::IdleSession, reason));
            }
        }
        None
    }

    /// Somebody rang: a new snapshot, an operator, the end of the process.
    fn look_up(&mut self, alarms: &mut Alarms, over: &mut Option<Over>) {
        if self.around.place.is_killed() {
            let notice = Notice::expired(Reason::EndedByOperator, REVOKED_GRACE);
            announce(notice, alarms, over);
        }
        if *self.around.stopping.borrow() {
            let notice = Notice::expired(Reason::ShuttingDown, self.around.grace);
            announce(notice, alarms, over);
        }
        if self.around.standing.is_in_question() {
            match self.around.standing.judge(self.around.clock.now()) {
                Ok(terms) => {
                    alarms.set_limits(terms.limits.clone());
                    if over.is_none() {
                        alarms.set_end(self.instant(terms.ends_at));
                    }
                    self.around.terms = terms;
                }
                Err(notice) => announce(notice, alarms, over),
            }
        }
    }

    /// What the rule's timers and the operators' list go by.
    fn note_activity(&mut self, dialogue: &impl Dialogue, alarms: &mut Alarms) {
        let activity = dialogue.activity();
        if alarms.note(activity) {
            self.around
                .place
                .is_doing(activity.doing(), dialogue.transactions());
        }
    }

    /// A time on the wall as one on the timers' clock.
    fn instant(&self, at: SystemTime) -> Instant {
        let left = at.duration_since(self.around.clock.now()).unwrap_or_default();
        Instant::now() + left
    }

    /// Judges both directions until neither can go on without more bytes.
    async fn judge(&mut self, dialogue: &mut impl Dialogue) -> Result<Option<Ending>, Fault> {
        loop {
            let now = self.around.clock.now();
            let from_server = dialogue.judge_server(&mut self.to_client, &mut self.to_server, now)?;
            self.submit(dialogue);
            if let Some(ending) = self.verdict(from_server, dialogue, Side::Server).await {
                if let Some(ending) = ending {
                    return Ok(Some(ending));
                }
                continue;
            }
            if self.to_server.is_backed_up() {
                return Ok(None);
            }
            if dialogue.owes_nothing() {
                self.settle_cancels().await;
            }
            let from_client = dialogue.judge_client(&mut self.to_server, &mut self.to_client, now)?;
            match self.verdict(from_client, dialogue, Side::Client).await {
                Some(None) => {}
                Some(ending) => return Ok(ending),
                None => return Ok(None),
            }
        }
    }

    /// Does what a verdict asks for. `None`: nothing more to judge; `Some(None)`: judge again.
    async fn verdict(
        &mut self,
        verdict: Verdict,
        dialogue: &mut impl Dialogue,
        side: Side,
    ) -> Option<Option<Ending>> {
        let demand = match verdict {
            Verdict::More { at_least } => {
                match side {
                    Side::Client => self.client_needs = at_least,
                    Side::Server => self.server_needs = at_least,
                }
                return None;
            }
            Verdict::Terminated => return Some(Some(Ending::ClientLeft)),
            Verdict::Demand(demand) => demand,
        };
        match demand {
            Demand::Intent(record) if self.lacks_correlation(&record) => {
                let reason = Reason::CorrelationMissing;
                dialogue.intent_failed(reason, &mut self.to_server, &mut self.to_client);
            }
            Demand::Intent(record) => match self.around.journal.append(record).await {
                Ok(_receipt) => dialogue.intent_written(&mut self.to_server),
                Err(error) => {
                    let what = "an intent could not be written; the work is refused";
                    self.around.notices.unrecorded(&error, what, self.around.clock);
                    dialogue.intent_failed(Reason::JournalFailed, &mut self.to_server, &mut self.to_client);
                }
            },
            Demand::Outcome(record) => match self.around.journal.append(record).await {
                Ok(_receipt) => dialogue.outcome_written(),
                Err(error) => {
                    // Without its record the commit must not be acknowledged; its intent is on disk.
                    let what = "an outcome could not be written; the session ends";
                    self.around.notices.unrecorded(&error, what, self.around.clock);
                    return Some(Some(Ending::Refused(
                        RefusalCode::AuditUnavailable,
                        Reason::JournalFailed,
                    )));
                }
            },
            Demand::Outcomes(asked) => {
                let (desk, facts) = (self.around.desk, self.around.facts);
                let found = desk.answer(&asked, facts, dialogue.answer_bytes_max()).await;
                dialogue.outcomes_found(&found, &mut self.to_server);
            }
        }
        Some(None)
    }

    /// Must the work that is about to commit carry an id of its client's, and does not?
    fn lacks_correlation(&self, intent: &Record) -> bool {
        let required = self.around.terms.correlation == CorrelationRule::Required;
        required && !intent.correlation.iter().any(|it| it.source.is_chosen())
    }

    /// Records that nobody waits for. If the journal takes them no longer, the next intent fails.
    fn submit(&self, dialogue: &mut impl Dialogue) {
        for record in dialogue.take_records() {
            if let Err(error) = self.around.journal.submit(record) {
                let what = "an outcome could not be recorded";
                self.around.notices.unrecorded(&error, what, self.around.clock);
            }
        }
    }

    /// Nothing runs, in a block or outside of one: a cancel that is under way must not hit what the
    /// client sends next, and requests that came until now are for what is over.
    async fn settle_cancels(&mut self) {
        while self.around.cancels.try_recv().is_ok() {}
        if let Some(cancel) = self.cancelling.take() {
            let _ = cancel.await;
        }
    }

    /// Sends a cancel on, if the client has something running that it can be meant for. `request` when it
    /// is the client's own, none when a timer asks.
    fn cancel(&mut self, dialogue: &mut impl Dialogue, request: Option<CancelRequest>) {
        let under_way = self.cancelling.as_ref().is_some_and(|task| !task.is_finished());
        if under_way || dialogue.cancel(&mut self.to_server) == Cancelling::Settled {
            return;
        }
        let Some(canceller) = self.upstream.canceller() else {
            return;
        };
        let notices = self.around.notices.clone();
        self.cancelling = Some(tokio::task::spawn_local(async move {
            if let Err(error) = canceller.cancel().await {
                notices.cancel_lost(&error);
            }
            drop(request);
        }));
    }

    /// The client is gone. What it left running is waited for as long as its outcome matters.
    async fn drain_server(&mut self, dialogue: &mut impl Dialogue) -> Ending {
        let limit = sleep_until(Instant::now() + self.around.grace);
        let mut limit = std::pin::pin!(limit);
        while dialogue.is_committing() {
            match self.judge(dialogue).await {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => break,
            }
            // Nobody reads what the server says.
            self.to_client.clear_output();
            if !dialogue.is_committing() {
                break;
            }
            let moved = poll_fn(|turn| {
                if limit.as_mut().poll(turn).is_ready() {
                    return Poll::Ready(false);
                }
                self.poll_server(turn)
                    .map(|moved| matches!(moved, Ok(Event::Moved)))
            });
            if !moved.await {
                break;
            }
        }
        Ending::ClientLeft
    }

    /// Waits for the next thing to happen, moving bytes meanwhile.
    async fn event(&mut self, alarms: &mut Alarms) -> Result<Event, (Side, io::Error)> {
        poll_fn(|turn| {
            if let Poll::Ready(event) = self.poll_move(turn) {
                return Poll::Ready(event);
            }
            if let Poll::Ready(Some(request)) = self.around.cancels.poll_recv(turn) {
                return Poll::Ready(Ok(Event::Cancel(request)));
            }
            alarms
                .poll(self.around.place, turn)
                .map(|alarm| Ok(Event::Alarm(alarm)))
        })
        .await
    }

    /// Writes what waits and reads what came, on both sides.
    fn poll_move(&mut self, turn: &mut Context<'_>) -> Poll<Result<Event, (Side, io::Error)>> {
        let server = self.poll_server(turn);
        if let Poll::Ready(Err(_) | Ok(Event::ServerClosed)) = server {
            return server;
        }
        let of_client = |error| (Side::Client, error);
        let mut moved = server.is_ready();
        if self.to_client.has_output() || self.client_unflushed {
            moved |= poll_write(self.client, &mut self.to_client, &mut self.client_unflushed, turn)
                .map_err(of_client)?;
        }
        let room = self.client_needs.clamp(BACKLOG_BYTES_MAX, UNJUDGED_MAX);
        if !self.to_server.is_backed_up() && self.to_server.unjudged().len() < room {
            match poll_read(self.client, &mut self.to_server, self.client_needs, turn).map_err(of_client)? {
                Poll::Ready(0) => return Poll::Ready(Ok(Event::ClientClosed)),
                Poll::Ready(_) => moved = true,
                Poll::Pending => {}
            }
        }
        if moved {
            Poll::Ready(Ok(Event::Moved))
        } else {
            Poll::Pending
        }
    }

    fn poll_server(&mut self, turn: &mut Context<'_>) -> Poll<Result<Event, (Side, io::Error)>> {
        let of_server = |error| (Side::Server, error);
        let mut moved = false;
        if self.to_server.has_output() || self.server_unflushed {
            let stream = self.upstream.stream();
            moved |= poll_write(stream, &mut self.to_server, &mut self.server_unflushed, turn)
                .map_err(of_server)?;
        }
        if !self.to_client.is_backed_up() {
            let stream = self.upstream.stream();
            match poll_read(stream, &mut self.to_client, self.server_needs, turn).map_err(of_server)? {
                Poll::Ready(0) => return Poll::Ready(Ok(Event::ServerClosed)),
                Poll::Ready(_) => moved = true,
                Poll::Pending => {}
            }
        }
        if moved {
            Poll::Ready(Ok(Event::Moved))
        } else {
            Poll::Pending
        }
    }

    /// What was judged for the client and is not written yet, for a farewell behind it.
    pub(super) fn into_outbound(self) -> Outbound {
        Outbound {
            lane: self.to_client,
            unflushed: self.client_unflushed,
        }
    }
}

/// Bytes that a client is still to get.
#[derive(Debug)]
pub(super) struct Outbound {
    lane: Lane,
    unflushed: bool,
}

impl Outbound {
    pub(super) async fn write_to(&mut self, client: &mut Stream) -> io::Result<()> {
        poll_fn(|turn| {
            while self.lane.has_output() || self.unflushed {
                if !poll_write(client, &mut self.lane, &mut self.unflushed, turn)? {
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

/// Unjudged bytes of a client at which no more is read: one statement of the largest size, and what
/// one read brings beyond it.
const UNJUDGED_MAX: usize = STATEMENT_BYTES_MAX + READ_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Reads what is there into the lane. Ready with 0 at the end of the stream.
fn poll_read(
    stream: &mut Stream,
    lane: &mut Lane,
    needs: usize,
    turn: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let missing = needs.saturating_sub(lane.unjudged().len());
    let mut total = 0;
    for _ in 0..READS_PER_TURN {
        let space = lane.space(missing.min(UNJUDGED_MAX));
        let room = space.capacity() - space.len();
        match poll_read_buf(Pin::new(&mut *stream), turn, space) {
            // A short read has emptied the socket; asking again would cost a call to learn it.
            Poll::Ready(Ok(count)) if count < room => return Poll::Ready(Ok(total + count)),
            Poll::Ready(Ok(count)) => total += count,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if total > 0 => return Poll::Ready(Ok(total)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(total))
}

/// Writes what waits in the lane, and flushes. Says whether anything moved.
fn poll_write(
    stream: &mut Stream,
    lane: &mut Lane,
    unflushed: &mut bool,
    turn: &mut Context<'_>,
) -> io::Result<bool> {
    let mut moved = false;
    while lane.has_output() {
        let mut slices = Lane::no_slices();
        let used = lane.slices(&mut slices);
        let slices: &[IoSlice<'_>] = slices.get(..used).unwrap_or_default();
        match Pin::new(&mut *stream).poll_write_vectored(turn, slices) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => {
                lane.written(count);
                *unflushed = true;
                moved = true;
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(moved),
        }
    }
    if *unflushed {
        match Pin::new(&mut *stream).poll_flush(turn) {
            Poll::Ready(Ok(())) => *unflushed = false,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
    }
    Ok(moved)
}

/// A session that ends at the next boundary of a transaction, or when its grace is over.
#[derive(Debug)]
struct Over {
    notice: Notice,
    until: Instant,
}

impl Over {
    fn ending(self) -> Ending {
        Ending::Refused(self.notice.code, self.notice.reason)
    }
}

/// The session is to end. Of several reasons the one that leaves the least time counts.
fn announce(notice: Notice, alarms: &mut Alarms, over: &mut Option<Over>) {
    let until = Instant::now() + notice.grace;
    if over.as_ref().is_none_or(|over| until < over.until) {
        alarms.set_end(until);
        *over = Some(Over { notice, until });
    }
}

fn refused(fault: &Fault) -> Ending {
    match fault {
        Fault::Client(_) => Ending::Refused(
            RefusalCode::ProtocolViolation,
            Reason::Malformed { what: "message" },
        ),
        Fault::StatementTooLarge { .. } => {
            let reason = Reason::TooLarge {
                what: "a statement's text",
                limit: STATEMENT_BYTES_MAX,
            };
            Ending::Refused(RefusalCode::ProtocolViolation, reason)
        }
        Fault::Server(_) | Fault::OutOfTurn { .. } => {
            Ending::Refused(RefusalCode::TargetUnavailable, Reason::TargetDown)
        }
    }
}
