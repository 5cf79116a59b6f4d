//! Sends the journal's records on to other systems: syslog over TLS, OpenTelemetry's logs over HTTP.
//!
//! Each sink is a thread of its own that reads the journal's files as they grow, so it holds up nobody: a
//! receiver that is away leaves it behind, and the files are its backlog. What was delivered is kept in a
//! small file beside the journal; behind a crash or a lost connection the last batch may go out twice.

mod feed;
mod otlp;
mod place;
mod syslog;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::audit::entry::Found;
use crate::tls::TlsError;

use feed::Feed;
pub use otlp::{OtlpAddress, OtlpSettings};
use place::Place;
pub use syslog::SyslogSettings;

/// How often the journal is looked at: records arrive within the second.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// One batch, from the connection to the answer.
const SEND_WITHIN: Duration = Duration::from_secs(15);
/// A receiver that is away is tried again after this long, then twice as long, and so on.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// At the end of the process what is left is sent within this time; the rest follows at the next start.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    Syslog(SyslogSettings),
    Otlp(OtlpSettings),
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Unique; in metrics, and in the name of the file beside the journal.
    pub name: String,
    /// The journal.
    pub directory: PathBuf,
    pub receiver: Receiver,
}

/// Why a batch did not arrive.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("cannot connect to {to}")]
    Connect {
        to: String,
        #[source]
        source: io::Error,
    },
    #[error("TLS with {to} failed")]
    Tls {
        to: String,
        #[source]
        source: TlsError,
    },
    #[error("the connection broke")]
    Write(#[source] io::Error),
    #[error("no HTTP answer")]
    Http(#[source] hyper::Error),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it did not take them in time")]
    TimedOut,
}

/// What operators are told of one sink.
#[derive(Debug, Default)]
struct Counted {
    sent: AtomicU64,
    failures: AtomicU64,
    behind: AtomicU64,
}

/// As counted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// Records that were delivered.
    pub sent: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Records of the journal that are not delivered yet, at the last look.
    pub behind: u64,
}

/// A sink that runs until it is closed.
#[derive(Debug)]
pub struct Sink {
    name: String,
    counted: Arc<Counted>,
    stop: watch::Sender<bool>,
    /// Nobody sends any more when the thread has ended.
    ended: watch::Receiver<()>,
}

impl Sink {
    /// Starts its thread. Errors: the file beside the journal cannot be read, or no thread can be had.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let place = Place::open(&settings.directory, &settings.name)?;
        let counted = Arc::<Counted>::default();
        let (stop, stopping) = watch::channel(false);
        let (ending, ended) = watch::channel(());
        let (name, counts) = (settings.name.clone(), Arc::clone(&counted));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let builder = thread::Builder::new().name(format!("sink {name}"));
        builder.spawn(move || {
            let courier = Courier {
                feed: Feed::new(&settings.directory, place.seq()),
                place,
                line: Line::new(settings.receiver),
                name: settings.name,
                counted: counts,
                stopping,
                trouble: Trouble::default(),
            };
            runtime.block_on(courier.run());
            drop(ending);
        })?;
        Ok(Self {
            name,
            counted,
            stop,
            ended,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn measures(&self) -> Measures {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Measures {
            sent: read(&self.counted.sent),
            failures: read(&self.counted.failures),
            behind: read(&self.counted.behind),
        }
    }

    /// Sends what the journal holds now, if that can be done soon, and ends. Call it when the journal is
    /// closed.
    pub async fn close(&self) {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

/// The connection to the receiver.
enum Line {
    Syslog(syslog::Syslog),
    Otlp(otlp::Otlp),
}

impl Line {
    fn new(receiver: Receiver) -> Self {
        match receiver {
            Receiver::Syslog(settings) => Self::Syslog(syslog::Syslog::new(settings)),
            Receiver::Otlp(settings) => Self::Otlp(otlp::Otlp::new(settings)),
        }
    }

    async fn send(&mut self, batch: &[Found]) -> Result<(), SendError> {
        let sent = async {
            match self {
                Self::Syslog(syslog) => syslog.send(batch).await,
                Self::Otlp(otlp) => otlp.send(batch).await,
            }
        };
        timeout(SEND_WITHIN, sent)
            .await
            .unwrap_or(Err(SendError::TimedOut))
    }
}

/// What the thread does.
struct Courier {
    feed: Feed,
    place: Place,
    line: Line,
    name: String,
    counted: Arc<Counted>,
    stopping: watch::Receiver<bool>,
    trouble: Trouble,
}

impl Courier {
    async fn run(mut self) {
        let mut stopping = self.stopping.clone();
        let go_on = self.forward();
        tokio::select! {
            () = go_on => return,
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        // What was under way is sent again: the receiver may not have it.
        self.feed.back_to(self.place.seq());
        let _late = timeout(LAST_WITHIN, self.rest()).await;
    }

    /// For as long as the process runs.
    async fn forward(&mut self) {
        loop {
            match self.feed.next() {
                Ok(batch) if batch.is_empty() => sleep(LOOK_EVERY).await,
                Ok(batch) => self.deliver(&batch).await,
                Err(error) => {
                    let pause = self.failed(&error);
                    sleep(pause).await;
                }
            }
        }
    }

    /// What there is, once.
    async fn rest(&mut self) {
        while let Ok(batch) = self.feed.next() {
            if batch.is_empty() || self.line.send(&batch).await.is_err() {
                return;
            }
            self.delivered(&batch);
        }
    }

    async fn deliver(&mut self, batch: &[Found]) {
        self.count_behind();
        while let Err(error) = self.line.send(batch).await {
            self.counted.failures.fetch_add(1, Ordering::Relaxed);
            self.count_behind();
            let pause = self.failed(&error);
            sleep(pause).await;
        }
        self.delivered(batch);
        self.count_behind();
        if self.trouble.over() {
            tracing::info!(sink = self.name, "records arrive again");
        }
    }

    fn delivered(&mut self, batch: &[Found]) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.counted.sent.fetch_add(count, Ordering::Relaxed);
        let Some(last) = batch.last() else { return };
        if let Err(error) = self.place.keep(last.entry.seq) {
            // They go out a second time after a restart, which is better than not at all.
            tracing::warn!(sink = self.name, %error, "cannot keep what was delivered");
        }
    }

    fn count_behind(&self) {
        let last = self.feed.newest();
        let behind = last.saturating_sub(self.place.seq());
        self.counted.behind.store(behind, Ordering::Relaxed);
    }

    /// Says it once, and how long to wait.
    fn failed(&mut self, error: &dyn std::error::Error) -> Duration {
        let (first, pause) = self.trouble.next();
        if first {
            let why = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::error!(sink = self.name, %error, why, "records cannot be sent on; they wait in the journal");
        }
        pause
    }
}

/// What stands in the way, said once for as long as it does.
#[derive(Debug, Default)]
struct Trouble(Option<Duration>);

impl Trouble {
    fn next(&mut self) -> (bool, Duration) {
        let pause = self.0.map_or(RETRY_FIRST, |last| (last * 2).min(RETRY_MAX));
        (self.0.replace(pause).is_none(), pause)
    }

    /// Was there any?
    fn over(&mut self) -> bool {
        self.0.take().is_some()
    }
}
