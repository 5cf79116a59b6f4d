//! Opens the doors, serves, and ends well: the first SIGTERM or SIGINT drains, the second ends.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::ingress::{Acceptor, Drain, Limits, ListenerId, ThreadIndex, Threads, World};

/// How long sessions may go on after the first signal. Orchestrators kill after 30 s by default; the
/// rest of that time belongs to the logins and the journal.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(20);
/// Clients of PostgreSQL come in here.
pub const POSTGRES: ListenerId = ListenerId(0);
/// And those of SQL Server here.
pub const SQLSERVER: ListenerId = ListenerId(1);
/// Signals that wait to be noticed; the second already ends everything.
const SIGNALS_MAX: usize = 4;

/// Why the doors could not be opened or kept open.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot start the control runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot listen on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the admin socket")]
    Socket(#[from] admin::SocketError),
    #[error("cannot start the data-path threads")]
    Threads(#[source] io::Error),
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every session ended by itself.
    Drained,
    /// This many sessions were cut off, by the deadline or by a second signal.
    Cut(usize),
}

/// The runtime of the main thread: admin, brokers, key fetches, acceptor, signals.
pub fn control() -> Result<Runtime, RunError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(RunError::Runtime)
}

/// SIGTERM and SIGINT as messages. Must be called inside the control runtime.
pub fn signals() -> Result<mpsc::Receiver<()>, RunError> {
    let (seen, signals) = mpsc::channel(SIGNALS_MAX);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut stream = signal(kind).map_err(RunError::Signals)?;
        let seen = seen.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && seen.send(()).await.is_ok() {} });
    }
    Ok(signals)
}

/// SIGHUP as messages. Must be called inside the control runtime.
pub fn hangups() -> Result<mpsc::Receiver<()>, RunError> {
    let (seen, hangups) = mpsc::channel(1);
    let mut stream = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    // One that waits stands for all that follow it.
    tokio::spawn(async move {
        while stream.recv().await.is_some() {
            if let Err(mpsc::error::TrySendError::Closed(())) = seen.try_send(()) {
                return;
            }
        }
    });
    Ok(hangups)
}

/// Listeners that are bound and do not accept yet.
#[derive(Debug)]
pub struct Doors {
    postgres: Option<Acceptor>,
    sqlserver: Option<Acceptor>,
    metrics: Option<TcpListener>,
    api: Option<admin::ApiDoor>,
    socket: Option<admin::SocketDoor>,
    /// Says true when operators are served no longer.
    stop_admin: watch::Sender<bool>,
}

/// Where the doors shall be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub postgres: Option<SocketAddr>,
    pub sqlserver: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub api: Option<SocketAddr>,
    pub admin_socket: Option<&'a Path>,
}

impl Doors {
    /// Binds everything, or nothing stays bound. Must be called inside the control runtime.
    pub async fn open(wanted: Wanted<'_>) -> Result<Self, RunError> {
        let refused = |address| move |source| RunError::Bind { address, source };
        let accept = |id, address: Option<SocketAddr>| {
            let bind = |address| Acceptor::bind(id, address, Limits::default()).map_err(refused(address));
            address.map(bind).transpose()
        };
        let postgres = accept(POSTGRES, wanted.postgres)?;
        let sqlserver = accept(SQLSERVER, wanted.sqlserver)?;
        let metrics = match wanted.metrics {
            Some(address) => Some(TcpListener::bind(address).await.map_err(refused(address))?),
            None => None,
        };
        let api = match wanted.api {
            Some(address) => Some(admin::ApiDoor::bind(address).await.map_err(refused(address))?),
            None => None,
        };
        let socket = match wanted.admin_socket {
            Some(path) => Some(admin::SocketDoor::bind(path).await?),
            None => None,
        };
        Ok(Self {
            postgres,
            sqlserver,
            metrics,
            api,
            socket,
            stop_admin: watch::Sender::new(false),
        })
    }

    /// Lets operators in, until the last session is gone.
    pub fn admit_operators(&mut self, proxy: &Arc<dyn admin::Proxy>) {
        if let Some(api) = self.api.take() {
            tokio::spawn(api.serve(Arc::clone(proxy), self.stop_admin.subscribe()));
        }
        if let Some(socket) = self.socket.take() {
            tokio::spawn(socket.serve(Arc::clone(proxy), self.stop_admin.subscribe()));
        }
    }

    /// Where PostgreSQL clients connect: tells the port when the configuration says 0.
    pub fn postgres(&self) -> Option<io::Result<SocketAddr>> {
        self.postgres.as_ref().map(Acceptor::address)
    }

    /// The same for SQL Server's.
    pub fn sqlserver(&self) -> Option<io::Result<SocketAddr>> {
        self.sqlserver.as_ref().map(Acceptor::address)
    }

    pub fn metrics(&self) -> Option<io::Result<SocketAddr>> {
        self.metrics.as_ref().map(TcpListener::local_addr)
    }

    pub fn api(&self) -> Option<io::Result<SocketAddr>> {
        self.api.as_ref().map(admin::ApiDoor::address)
    }

    pub fn admin_socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(admin::SocketDoor::path)
    }

    /// Serves until the first signal, then drains until `within` is over, nobody is left, or a
    /// second signal comes. Each data-path thread builds its world with `factory`.
    pub async fn serve<W, F>(self, plan: Plan<F>) -> Result<Ending, RunError>
    where
        W: World,
        F: FnOnce(ThreadIndex) -> io::Result<W> + Clone + Send + 'static,
    {
        let Plan {
            threads,
            drain,
            drain_within,
            watch,
            mut signals,
            factory,
        } = plan;
        let threads = Threads::start(threads, &drain, factory).map_err(RunError::Threads)?;
        if let Some(listener) = self.metrics {
            tokio::spawn(admin::serve(listener, watch, self.stop_admin.subscribe()));
        }
        let (dispatcher, signal) = (threads.dispatcher(), drain.signal());
        let accept = |acceptor: Option<Acceptor>| {
            let (dispatcher, signal) = (dispatcher.clone(), signal.clone());
            async move {
                if let Some(acceptor) = acceptor {
                    acceptor.run(dispatcher, signal).await;
                }
            }
        };
        let (postgres, sqlserver) = (accept(self.postgres), accept(self.sqlserver));
        let accepting = async { _ = tokio::join!(postgres, sqlserver) };
        let ending = accept_and_drain(accepting, &drain, drain_within, &mut signals).await;
        // Joining blocks, and a session that ends may need the control runtime meanwhile.
        let joined = tokio::task::spawn_blocking(move || threads.stop()).await;
        if let Err(error) = joined {
            tracing::error!(%error, "stopping the data-path threads failed");
        }
        self.stop_admin.send_replace(true);
        Ok(ending)
    }
}

/// What [`Doors::serve`] needs besides its listeners.
#[derive(Debug)]
pub struct Plan<F> {
    pub threads: usize,
    pub drain: Drain,
    pub drain_within: Duration,
    pub watch: Arc<dyn admin::Watch>,
    pub signals: mpsc::Receiver<()>,
    pub factory: F,
}

async fn accept_and_drain(
    accepting: impl Future<Output = ()>,
    drain: &Drain,
    within: Duration,
    signals: &mut mpsc::Receiver<()>,
) -> Ending {
    tokio::pin!(accepting);
    tokio::select! {
        () = &mut accepting => {}
        // A closed channel counts as a signal: whoever could ask is gone.
        _ = signals.recv() => {}
    }
    tracing::info!(sessions = drain.sessions(), "draining");
    drain.begin();
    let drained = async {
        accepting.await;
        drain.finished(within).await
    };
    tokio::select! {
        drained = drained => drained.map_or_else(Ending::Cut, |()| Ending::Drained),
        Some(()) = signals.recv() => Ending::Cut(drain.sessions()),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::ingress::Client;

    struct Echo;

    impl World for Echo {
        async fn serve(self: Rc<Self>, mut client: Client) {
            let (mut from, mut to) = client.stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    }

    #[derive(Debug)]
    struct Quiet;

    impl admin::Watch for Quiet {
        fn unready(&self) -> Vec<admin::Unready> {
            vec![]
        }

        fn measure(&self, _: &mut admin::Page) {}
    }

    /// Serves echoes, and gives what stops them and the way in.
    async fn echoes() -> (
        mpsc::Sender<()>,
        tokio::task::JoinHandle<Ending>,
        TcpStream,
        SocketAddr,
    ) {
        let any = "127.0.0.1:0".parse().unwrap();
        let wanted = Wanted {
            postgres: Some(any),
            sqlserver: None,
            metrics: Some(any),
            api: None,
            admin_socket: None,
        };
        let doors = Doors::open(wanted).await.unwrap();
        let (address, metrics) = (
            doors.postgres().unwrap().unwrap(),
            doors.metrics().unwrap().unwrap(),
        );
        let (stop, signals) = mpsc::channel(SIGNALS_MAX);
        let plan = Plan {
            threads: 2,
            drain: Drain::new(),
            drain_within: DRAIN_WITHIN,
            watch: Arc::new(Quiet),
            signals,
            factory: |_: ThreadIndex| Ok(Echo),
        };
        let serving = tokio::spawn(async move { doors.serve(plan).await.unwrap() });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        (stop, serving, client, metrics)
    }

    #[tokio::test]
    async fn the_first_signal_waits_for_sessions() {
        let (stop, serving, mut client, metrics) = echoes().await;
        stop.send(()).await.unwrap();
        // The open session still works, and probes are still answered.
        client.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
        assert!(TcpStream::connect(metrics).await.is_ok());
        drop(client);
        assert_eq!(serving.await.unwrap(), Ending::Drained);
    }

    #[tokio::test]
    async fn the_second_signal_ends() {
        let (stop, serving, mut client, _) = echoes().await;
        stop.send(()).await.unwrap();
        stop.send(()).await.unwrap();
        assert_eq!(serving.await.unwrap(), Ending::Cut(1));
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
