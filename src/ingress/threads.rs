//! The data-path threads. Each has a runtime of its own and a [`World`] that was built on it; a
//! client, the upstream connections that it borrows and its share of the pools live on one thread,
//! so that nothing on the data path wakes another thread.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};

use crate::ingress::acceptor::ListenerId;
use crate::ingress::drain::{Drain, OpenSession};
use crate::ingress::limits::Admission;

/// Sockets that wait for one thread. A thread takes them within microseconds; one that is this far
/// behind takes no more, and the acceptor closes what it cannot hand over.
const HANDOVER_MAX: usize = 1_024;

/// Which data-path thread, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadIndex(pub usize);

/// A socket on its way to a thread.
#[derive(Debug)]
pub struct Arrival {
    /// Non-blocking.
    pub socket: std::net::TcpStream,
    pub peer: SocketAddr,
    pub listener: ListenerId,
    pub admission: Admission,
}

/// A socket that has arrived on its thread.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub listener: ListenerId,
    /// Kept as long as the connection; told when the login is over.
    pub admission: Admission,
}

/// What one thread owns: pools, caches, the way to serve a client. Need not be `Send`.
pub trait World: 'static {
    /// One client connection from its first byte to its last. Runs as a task of its own.
    fn serve(self: Rc<Self>, client: Client) -> impl Future<Output = ()> + 'static;
}

/// The running threads. Dropping it ends them, and their sessions, without waiting.
#[derive(Debug)]
pub struct Threads {
    dispatcher: Dispatcher,
    stop: watch::Sender<bool>,
    joins: Vec<JoinHandle<()>>,
}

/// Hands sockets to threads: to the one with the fewest sessions, in turn among equals.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    desks: Arc<[Desk]>,
    turn: Arc<AtomicUsize>,
    drain: Drain,
}

/// One thread as the dispatcher sees it.
#[derive(Debug)]
struct Desk {
    arrivals: mpsc::Sender<Handover>,
    sessions: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Handover {
    arrival: Arrival,
    seat: Seat,
}

/// Counts a session for its thread and for the drain.
#[derive(Debug)]
struct Seat {
    sessions: Arc<AtomicUsize>,
    _open: OpenSession,
}

impl Threads {
    /// Starts `count` threads (at least one). `factory` builds each thread's world on that thread,
    /// inside its `LocalSet`; if it fails on one, none is left running.
    pub fn start<W, F>(count: usize, drain: &Drain, factory: F) -> io::Result<Self>
    where
        W: World,
        F: FnOnce(ThreadIndex) -> io::Result<W> + Clone + Send + 'static,
    {
        let stop = watch::Sender::new(false);
        let mut joins = Vec::new();
        let mut desks = Vec::new();
        let mut started = Vec::new();
        for index in 0..count.max(1) {
            let (arrivals, queue) = mpsc::channel(HANDOVER_MAX);
            let (report, outcome) = std::sync::mpsc::channel();
            let factory = factory.clone();
            let stop = stop.subscribe();
            let join = std::thread::Builder::new()
                .name(format!("data-{index}"))
                .spawn(move || run(|| factory(ThreadIndex(index)), queue, stop, &report))?;
            joins.push(join);
            let sessions = Arc::default();
            desks.push(Desk { arrivals, sessions });
            started.push(outcome);
        }
        // From here on, leaving early drops `desks` and `stop`, which ends the threads.
        for outcome in started {
            let ended = |_| io::Error::other("a data-path thread ended before it began");
            outcome.recv().map_err(ended)??;
        }
        let dispatcher = Dispatcher {
            desks: desks.into(),
            turn: Arc::default(),
            drain: drain.clone(),
        };
        Ok(Self {
            dispatcher,
            stop,
            joins,
        })
    }

    pub fn dispatcher(&self) -> Dispatcher {
        self.dispatcher.clone()
    }

    /// Sessions of each thread.
    pub fn sessions(&self) -> Vec<usize> {
        self.dispatcher.desks.iter().map(Desk::load).collect()
    }

    /// Ends all sessions that are left and waits for the threads. Blocks: drain first, and call it
    /// where blocking is allowed.
    pub fn stop(self) {
        self.stop.send_replace(true);
        for join in self.joins {
            if join.join().is_err() {
                tracing::error!("a data-path thread had panicked");
            }
        }
    }
}

impl Dispatcher {
    /// Hands a socket over. Gives it back when no thread takes it (all far behind, or ended).
    pub fn dispatch(&self, mut arrival: Arrival) -> Result<(), Arrival> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (after, before) = (
            self.desks.iter().skip(turn % self.desks.len().max(1)),
            self.desks.iter(),
        );
        let mut desks: Vec<&Desk> = after.chain(before).take(self.desks.len()).collect();
        desks.sort_by_key(|desk| desk.load());
        for desk in desks {
            let seat = desk.seat(&self.drain);
            let Err(refused) = desk.arrivals.try_send(Handover { arrival, seat }) else {
                return Ok(());
            };
            arrival = refused.into_inner().arrival;
        }
        Err(arrival)
    }
}

impl Desk {
    fn load(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    fn seat(&self, drain: &Drain) -> Seat {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Seat {
            sessions: Arc::clone(&self.sessions),
            _open: drain.enter(),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One thread from start to end. Reports once whether its world could be built.
fn run<W: World>(
    factory: impl FnOnce() -> io::Result<W>,
    queue: mpsc::Receiver<Handover>,
    mut stop: watch::Receiver<bool>,
    report: &std::sync::mpsc::Sender<io::Result<()>>,
) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    let tasks = LocalSet::new();
    let life = async {
        let world = match factory() {
            Ok(world) => Rc::new(world),
            Err(error) => {
                let _ = report.send(Err(error));
                return;
            }
        };
        let _ = report.send(Ok(()));
        tokio::select! {
            // Turned, or the switch is gone: the end either way.
            _ = stop.wait_for(|stop| *stop) => {}
            () = welcome(world, queue) => {}
        }
    };
    tasks.block_on(&runtime, life);
    // Drops the tasks that are left, and with them their sockets, inside the runtime.
    let _inside = runtime.enter();
    drop(tasks);
}

async fn welcome<W: World>(world: Rc<W>, mut queue: mpsc::Receiver<Handover>) {
    while let Some(Handover { arrival, seat }) = queue.recv().await {
        let stream = match TcpStream::from_std(arrival.socket) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a socket could not be taken over");
                continue;
            }
        };
        let client = Client {
            stream,
            peer: arrival.peer,
            listener: arrival.listener,
            admission: arrival.admission,
        };
        let world = Rc::clone(&world);
        // A bug ends one session, not the thread: also when it strikes before the task exists.
        match catch_unwind(AssertUnwindSafe(|| world.serve(client))) {
            Ok(session) => {
                spawn_local(async move {
                    session.await;
                    drop(seat);
                });
            }
            Err(_) => tracing::error!("a session panicked before it began"),
        }
    }
}

#[cfg(test)]
mod tests;
