//! A connection: its beginning, then messages in and out while the session's thread works.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as thread_channel;

use gatepost::tls::{ServerTls, Stream};
use gatepost::wire::Decoded;
use gatepost::wire::tds::fedauth::TokenService;
use gatepost::wire::tds::handshake::{Handshake, Presented, Progress, Settings as HandshakeSettings, Step};
use gatepost::wire::tds::packet::{self, Assembler, Expected, Header, PacketKind, Status};
use gatepost::wire::tds::tls_wrap::is_strict_tls;
use gatepost::wire::tds::version::ProgramVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::fault::Fault;
use super::login;
use super::model::Shared;
use super::out::{Out, Piece};
use super::session::{Session, Settings, Who};
use super::value::Value;
use super::worker::{self, Job};

/// Large parameters and bulk loads; a test's own, so only there to end what runs away.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Pieces of an answer that may wait for the client.
const PIECES: usize = 4;

const FROM_CLIENT: Expected = Expected {
    kinds: &[
        PacketKind::Batch,
        PacketKind::Rpc,
        PacketKind::Bulk,
        PacketKind::TransactionManager,
        PacketKind::Attention,
    ],
    what: "a request",
    payload_bytes_max: MESSAGE_BYTES_MAX,
    packet_bytes_max: packet::PACKET_BYTES_MAX,
};

/// How a listener behaves.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    /// Nothing without it but clear text.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// TLS from the first byte, or nothing.
    pub(crate) strict: bool,
    /// Clients that cannot encrypt are served too.
    pub(crate) plaintext: bool,
}

/// Serves a client to its end.
pub(crate) async fn serve(socket: TcpStream, manners: Manners, shared: Arc<Shared>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    shared.lock().connections_opened += 1;
    let Some((mut stream, presented)) = begin(socket, &manners).await? else {
        return Ok(());
    };
    let (admitted, route) = {
        let mut model = shared.lock();
        let mut seen = login::seen(&presented);
        let admitted = login::admit(&mut model, &presented);
        seen.refused = admitted.as_ref().err().map(|fault| fault.number);
        model.logins_seen.push(seen);
        (admitted, model.orders.route.clone())
    };
    match admitted {
        Err(fault) => send(&mut stream, 0, &login::refusal(&fault)).await?,
        Ok(who) => {
            let welcome = login::welcome(&presented, &who, route.as_ref());
            if send(&mut stream, who.spid, &welcome).await.is_err() || route.is_some() {
                shared.lock().sessions.remove(&who.spid);
                return stream.shutdown().await;
            }
            return converse(stream, who, shared).await;
        }
    }
    stream.shutdown().await
}

async fn send(stream: &mut Stream, spid: u16, payload: &[u8]) -> io::Result<()> {
    let mut out = Vec::new();
    packet::put_reply(&mut out, spid, packet::LOGIN_PACKET_BYTES, payload);
    stream.write_all(&out).await?;
    stream.flush().await
}

/// Up to who the client says it is. Nothing if it went, or is not served this way.
async fn begin(socket: TcpStream, manners: &Manners) -> io::Result<Option<(Stream, Box<Presented>)>> {
    let mut first = [0; 1];
    if socket.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    let is_strict = is_strict_tls(&first);
    if manners.strict && !is_strict {
        return Ok(None);
    }
    let mut state = Handshake::start(HandshakeSettings {
        tls_offered: manners.tls.is_some(),
        cleartext_token_allowed: manners.plaintext,
        token_service: Some(TokenService {
            sts_url: "https://login.scripted.test/".to_owned(),
            spn: "https://database.scripted.test/".to_owned(),
        }),
        version: ProgramVersion {
            major: 16,
            minor: 0,
            build: 4000,
            sub_build: 0,
        },
    });
    let mut stream = Stream::Plain(socket);
    // With TLS at once the first byte stays in the socket, and the machine only looks at it.
    let mut input: Vec<u8> = if is_strict { first.to_vec() } else { Vec::new() };
    let mut reply = Vec::new();
    loop {
        let progress = state.step(&input, &mut reply).map_err(io::Error::other)?;
        stream.write_all(&reply).await?;
        stream.flush().await?;
        reply.clear();
        let step = match progress {
            Progress::NeedMore {
                handshake, consumed, ..
            } => {
                input.drain(..consumed.min(input.len()));
                state = handshake;
                if stream.read_buf(&mut input).await? == 0 {
                    return Ok(None);
                }
                continue;
            }
            Progress::Stepped { step, consumed } => {
                input.drain(..consumed.min(input.len()));
                step
            }
        };
        state = match step {
            Step::Continue(handshake) => handshake,
            Step::StartTls(awaiting, place) => {
                input.clear();
                let (Some(tls), Stream::Plain(socket)) = (&manners.tls, stream) else {
                    return Ok(None);
                };
                stream = tls.accept_tds(socket, place).await.map_err(io::Error::other)?;
                awaiting.established()
            }
            Step::Presented(presented) => return Ok(Some((stream, presented))),
            Step::Refuse(refused) => {
                let fault = Fault::new(18456, 14, format!("Login failed: {refused}."));
                send(&mut stream, 0, &login::refusal(&fault)).await?;
                stream.shutdown().await?;
                return Ok(None);
            }
        };
    }
}

/// Messages and pieces, until one side ends it.
struct Conversation {
    who: Who,
    shared: Arc<Shared>,
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    incoming: Assembler,
    input: Vec<u8>,
    jobs: thread_channel::Sender<Job>,
    pieces: mpsc::Receiver<Piece>,
    cancelled: Arc<AtomicBool>,
    busy: bool,
    attention: bool,
    waiting: VecDeque<Job>,
    /// Of the answer under way, not sent yet.
    answer: Vec<u8>,
    packets: u8,
}

async fn converse(stream: Stream, who: Who, shared: Arc<Shared>) -> io::Result<()> {
    let (jobs, inbox) = thread_channel::channel();
    let (to, pieces) = mpsc::channel(PIECES);
    let cancelled = Arc::new(AtomicBool::new(false));
    let mut session = session(who.clone(), &shared, Arc::clone(&cancelled), Out::new(Some(to)));
    session.find_user();
    let thread = std::thread::Builder::new().name(format!("spid {}", who.spid));
    thread.spawn(move || worker::work(session, &inbox))?;
    let kill = {
        let model = shared.lock();
        model.sessions.get(&who.spid).map(|seen| Arc::clone(&seen.kill))
    };
    let (reader, writer) = tokio::io::split(stream);
    let mut conversation = Conversation {
        who,
        shared: Arc::clone(&shared),
        reader,
        writer,
        incoming: Assembler::new(FROM_CLIENT),
        input: Vec::new(),
        jobs,
        pieces,
        cancelled: Arc::clone(&cancelled),
        busy: false,
        attention: false,
        waiting: VecDeque::new(),
        answer: Vec::new(),
        packets: 0,
    };
    let kill = kill.unwrap_or_default();
    let ended = tokio::select! {
        ended = conversation.run() => ended,
        () = kill.notified() => Ok(()),
    };
    cancelled.store(true, Ordering::Release);
    drop(conversation);
    shared.wake();
    ended
}

fn session(who: Who, shared: &Arc<Shared>, cancelled: Arc<AtomicBool>, out: Out) -> Session {
    Session {
        shared: Arc::clone(shared),
        database: who.database.clone(),
        user: String::new(),
        who,
        settings: Settings::default(),
        context: std::collections::BTreeMap::new(),
        context_info: Vec::new(),
        transaction: None,
        count: 0,
        doomed: false,
        statement_id: 0,
        scopes: Vec::new(),
        caught: Vec::new(),
        tries: 0,
        depth: 0,
        prepared: std::collections::BTreeMap::new(),
        next_handle: 0,
        bulk: None,
        row_count: 0,
        error: 0,
        identity: Value::Null,
        in_procedure: false,
        cancelled,
        out,
    }
}

impl Conversation {
    async fn run(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                piece = self.pieces.recv() => match piece {
                    None => return Ok(()),
                    Some(Piece::Part(bytes)) => self.part(&bytes, false).await?,
                    Some(Piece::End(bytes)) => self.end(&bytes).await?,
                    Some(Piece::Close(bytes)) => {
                        self.part(&bytes, true).await?;
                        return self.writer.shutdown().await;
                    }
                },
                read = self.reader.read(&mut buffer) => {
                    let count = read?;
                    if count == 0 {
                        return Ok(());
                    }
                    self.input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    while self.message().await? {}
                }
            }
        }
    }

    /// Takes one message from the input; false if there is none.
    async fn message(&mut self) -> io::Result<bool> {
        let (consumed, decoded) = self.incoming.push(&self.input).map_err(io::Error::other)?;
        self.input.drain(..consumed.min(self.input.len()));
        let Decoded::Message(message) = decoded else {
            return Ok(false);
        };
        if message.kind == PacketKind::Attention {
            if self.busy {
                self.attention = true;
                self.cancelled.store(true, Ordering::Release);
                self.shared.wake();
            } else {
                self.acknowledge().await?;
            }
            return Ok(true);
        }
        if message.status.has(Status::IGNORE) {
            // Taken back by its sender: an end without anything.
            let mut payload = Vec::new();
            let kind = gatepost::wire::tds::event::DoneKind::Batch;
            let status = gatepost::wire::tds::event::DoneStatus::FINAL;
            gatepost::wire::tds::reply::put_done(&mut payload, kind, status, 0, 0);
            self.part(&payload, true).await?;
            return Ok(true);
        }
        self.waiting.push_back(Job {
            kind: message.kind,
            status: message.status,
            payload: message.payload,
        });
        self.next();
        Ok(true)
    }

    fn next(&mut self) {
        if !self.busy
            && let Some(job) = self.waiting.pop_front()
        {
            self.busy = self.jobs.send(job).is_ok();
        }
    }

    async fn acknowledge(&mut self) -> io::Result<()> {
        self.part(&worker::attention_acknowledged(), true).await
    }

    /// The answer is whole. An attention is acknowledged behind it, in a message of its own.
    async fn end(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.part(bytes, true).await?;
        self.busy = false;
        if std::mem::take(&mut self.attention) {
            self.cancelled.store(false, Ordering::Release);
            self.acknowledge().await?;
        }
        self.next();
        Ok(())
    }

    /// Sends what fills packets, and the rest too if the message ends.
    async fn part(&mut self, bytes: &[u8], is_last: bool) -> io::Result<()> {
        self.answer.extend_from_slice(bytes);
        let body_bytes = self.who.packet_bytes - packet::HEADER_BYTES;
        let mut out = Vec::new();
        while self.answer.len() > body_bytes || is_last {
            let rest = self.answer.split_off(self.answer.len().min(body_bytes));
            let body = std::mem::replace(&mut self.answer, rest);
            let ends = is_last && self.answer.is_empty();
            self.packets = self.packets.wrapping_add(1);
            let header = Header {
                kind: PacketKind::Reply,
                status: if ends { Status::EOM } else { Status::NORMAL },
                length: body.len() + packet::HEADER_BYTES,
                spid: self.who.spid,
                number: self.packets,
            };
            packet::put_header(&mut out, &header);
            out.extend_from_slice(&body);
            if ends {
                self.packets = 0;
                break;
            }
        }
        self.writer.write_all(&out).await?;
        self.writer.flush().await
    }
}

/// Runs a batch as `sa` without a connection.
pub(crate) fn run_alone(shared: &Arc<Shared>, database: &str, batch: &str) -> Result<(), String> {
    let who = Who {
        spid: 0,
        login: "sa".to_owned(),
        database: database.to_owned(),
        program: String::new(),
        host: String::new(),
        packet_bytes: packet::PACKET_BYTES,
    };
    let mut session = session(who, shared, Arc::default(), Out::new(None));
    session.user = "dbo".to_owned();
    session.scopes.push(std::collections::HashMap::new());
    session.tries = 1;
    let ran = session.batch(batch);
    session.end();
    match ran {
        Err(super::fault::Stop::Fault(fault)) => Err(fault.text),
        Err(super::fault::Stop::Aborted) => Err(format!("a syntax error in {batch:?}")),
        _ => Ok(()),
    }
}
