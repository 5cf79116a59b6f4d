//! Moves bytes between a client and its database as the conversation judges them: one task, no
//! channels, one read and one vectored write per direction and turn.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::io::poll_read_buf;

use crate::audit::journal::Journal;
use crate::domain::clock::Clock;
use crate::domain::refusal::{Reason, RefusalCode};
use crate::session::conversation::{Conversation, Demand, Fault, STATEMENT_BYTES_MAX, Verdict};
use crate::session::lane::{BACKLOG_BYTES_MAX, Lane, READ_BYTES};
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
    pub(super) cancels: &'a mut mpsc::Receiver<()>,
    /// Turns true when gatepost shuts down.
    pub(super) stopping: watch::Receiver<bool>,
    /// When the session has to end, and why.
    pub(super) ends: (Instant, RefusalCode, Reason),
    /// How long after that an open transaction may still finish.
    pub(super) grace: std::time::Duration,
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

/// What ends a session from outside; made once, so that a turn of the relay only looks at it.
struct Alarms {
    /// The session's end, then the end of its grace.
    end: Pin<Box<Sleep>>,
    /// Gatepost shuts down. Not polled again once it has come.
    stop: Pin<Box<dyn Future<Output = ()>>>,
}

impl Alarms {
    fn new(around: &Surroundings<'_>) -> Self {
        let mut stopping = around.stopping.clone();
        let stop = async move {
            if stopping.wait_for(|stop| *stop).await.is_err() {
                // Nobody is left who could stop anything.
                std::future::pending::<()>().await;
            }
        };
        Self {
            end: Box::pin(sleep_until(around.ends.0)),
            stop: Box::pin(stop),
        }
    }
}

/// What woke the relay.
enum Event {
    Moved,
    ClientClosed,
    ServerClosed,
    Cancel,
    Stopping,
    TimeOver,
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
    pub(super) async fn run(&mut self, conversation: &mut Conversation) -> Ending {
        let mut alarms = Alarms::new(&self.around);
        let mut over: Option<(RefusalCode, Reason)> = None;
        loop {
            match self.judge(conversation).await {
                Ok(None) => {}
                Ok(Some(ending)) => return ending,
                Err(fault) => return refused(&fault),
            }
            if let Some((code, reason)) = over.take_if(|_| conversation.is_at_rest()) {
                return Ending::Refused(code, reason);
            }
            match self.event(&mut alarms, over.is_none()).await {
                Ok(Event::Moved) => {}
                Ok(Event::ClientClosed) => return self.drain_server(conversation).await,
                Ok(Event::ServerClosed) => return Ending::ServerLost,
                Ok(Event::Cancel) => self.cancel(conversation),
                Ok(Event::Stopping) => over = Some((RefusalCode::SessionExpired, Reason::ShuttingDown)),
                Ok(Event::TimeOver) => match over.take() {
                    // The grace is over as well.
                    Some((code, reason)) => return Ending::Refused(code, reason),
                    None => {
                        let (_, code, reason) = self.around.ends.clone();
                        over = Some((code, reason));
                        alarms.end.as_mut().reset(Instant::now() + self.around.grace);
                    }
                },
                Err((side, error)) => {
                    tracing::debug!(error = %error, side = ?side, "a connection broke");
                    return match side {
                        Side::Client => self.drain_server(conversation).await,
                        Side::Server => Ending::ServerLost,
                    };
                }
            }
        }
    }

    /// Judges both directions until neither can go on without more bytes.
    async fn judge(&mut self, conversation: &mut Conversation) -> Result<Option<Ending>, Fault> {
        loop {
            let now = self.around.clock.now();
            let from_server = conversation.judge_server(&mut self.to_client, &mut self.to_server, now)?;
            self.submit(conversation);
            if let Some(ending) = self.verdict(from_server, conversation, Side::Server).await {
                if let Some(ending) = ending {
                    return Ok(Some(ending));
                }
                continue;
            }
            if self.to_server.is_backed_up() {
                return Ok(None);
            }
            // A cancel that is under way must not hit what the client sends next.
            if conversation.is_at_rest()
                && let Some(cancel) = self.cancelling.take()
            {
                let _ = cancel.await;
            }
            let from_client = conversation.judge_client(&mut self.to_server, now)?;
            match self.verdict(from_client, conversation, Side::Client).await {
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
        conversation: &mut Conversation,
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
            Demand::Intent(record) => match self.around.journal.append(record).await {
                Ok(_receipt) => conversation.intent_written(&mut self.to_server),
                Err(error) => {
                    tracing::error!(error = %error, "an intent could not be written; the work is refused");
                    conversation.intent_failed(Reason::JournalFailed, &mut self.to_server);
                }
            },
            Demand::Outcome(record) => match self.around.journal.append(record).await {
                Ok(_receipt) => conversation.outcome_written(),
                Err(error) => {
                    // Without its record the commit must not be acknowledged; its intent is on disk.
                    tracing::error!(error = %error, "an outcome could not be written; the session ends");
                    return Some(Some(Ending::Refused(
                        RefusalCode::AuditUnavailable,
                        Reason::JournalFailed,
                    )));
                }
            },
        }
        Some(None)
    }

    /// Records that nobody waits for. If the journal takes them no longer, the next intent fails.
    fn submit(&self, conversation: &mut Conversation) {
        for record in conversation.take_records() {
            if let Err(error) = self.around.journal.submit(record) {
                tracing::error!(error = %error, "an outcome could not be recorded");
            }
        }
    }

    /// Sends the client's cancel on, if it has something running that it can be meant for.
    fn cancel(&mut self, conversation: &Conversation) {
        let under_way = self.cancelling.as_ref().is_some_and(|task| !task.is_finished());
        if under_way || !conversation.is_running_client_statement() {
            return;
        }
        let canceller = self.upstream.canceller();
        self.cancelling = Some(tokio::task::spawn_local(async move {
            if let Err(error) = canceller.cancel().await {
                tracing::warn!(error = %error, "a cancel request could not be delivered");
            }
        }));
    }

    /// The client is gone. What it left running is waited for as long as its outcome matters.
    async fn drain_server(&mut self, conversation: &mut Conversation) -> Ending {
        let limit = sleep_until(Instant::now() + self.around.grace);
        let mut limit = std::pin::pin!(limit);
        while conversation.is_committing() {
            match self.judge(conversation).await {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => break,
            }
            // Nobody reads what the server says.
            self.to_client.clear_output();
            if !conversation.is_committing() {
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
    async fn event(&mut self, alarms: &mut Alarms, may_stop: bool) -> Result<Event, (Side, io::Error)> {
        poll_fn(|turn| {
            if let Poll::Ready(event) = self.poll_move(turn) {
                return Poll::Ready(event);
            }
            if let Poll::Ready(Some(())) = self.around.cancels.poll_recv(turn) {
                return Poll::Ready(Ok(Event::Cancel));
            }
            if alarms.end.as_mut().poll(turn).is_ready() {
                return Poll::Ready(Ok(Event::TimeOver));
            }
            if may_stop && alarms.stop.as_mut().poll(turn).is_ready() {
                return Poll::Ready(Ok(Event::Stopping));
            }
            Poll::Pending
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

    pub(super) const fn client(&mut self) -> &mut Stream {
        self.client
    }

    /// Writes out what was judged for the client, for a farewell behind it.
    pub(super) async fn finish_client(&mut self) -> io::Result<()> {
        poll_fn(|turn| {
            while self.to_client.has_output() || self.client_unflushed {
                if !poll_write(self.client, &mut self.to_client, &mut self.client_unflushed, turn)? {
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

fn refused(fault: &Fault) -> Ending {
    tracing::warn!(error = %fault, "a session ends because somebody broke the protocol");
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
        Fault::Server(_) | Fault::Turn(_) => {
            Ending::Refused(RefusalCode::TargetUnavailable, Reason::TargetDown)
        }
    }
}
