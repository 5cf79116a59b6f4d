//! A database's catalogue as sessions see it: a snapshot that is replaced whole, and believed only while nothing
//! can have changed what it says.
//!
//! Three things make sure of that:
//!
//! - A statement that the snapshot calls dangerous (it may make code) holds an [`Unrest`] until its transaction
//!   is over. Meanwhile nothing is believed, and afterwards not before the catalogue was looked at again.
//! - A statement that runs while the snapshot is not believed was judged by something that may be wrong. It holds the
//!   snapshot's [`Pin`]. A new snapshot is believed only when the pins of all before it are gone, and
//!   the catalogue was looked at once more after that and was still the same.
//! - A snapshot is believed for [`CONFIRMED_FOR`] after the server was asked. So what is made past gatepost
//!   counts after that time at the latest; until then its names are judged as they were before.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::credential::broker::BrokerSettings;
use crate::credential::error::{BrokerError, chain};
use crate::credential::postgres::catalogue::Version;
use crate::credential::server::{Access, Connection};
use crate::domain::target::DatabaseName;
use crate::sql::pg::Catalogue;

/// How long a snapshot is believed without being confirmed. The shorter, the sooner a definition made past
/// gatepost counts; three times `POLL_EVERY`, so that one late answer changes nothing.
pub const CONFIRMED_FOR: Duration = Duration::from_secs(3);
/// How often the server is asked whether its catalogue has changed.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// After a statement that may have made code: several of them come one behind the other.
const REST: Duration = Duration::from_millis(50);
/// Of the time, at most one part in so many is spent asking: a large catalogue is asked about less often.
const SHARE: u32 = 20;
/// The same for reading it whole, which is done only when it has changed.
const READ_SHARE: u32 = 4;
/// Without a session that asks, the connection is not kept.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// A snapshot that waits to be believed is looked at again after this.
const UNSETTLED_POLL: Duration = Duration::from_millis(200);
/// A database that cannot be read, or is too large, is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// One database's catalogue. Cheap to clone.
#[derive(Clone)]
pub struct CatalogueWatch(Arc<State>);

struct State {
    published: RwLock<Published>,
    /// Statements under way that may make code.
    unrest: AtomicU64,
    /// Statements that may have made code and are over. Each makes older confirmations worthless.
    stirred: AtomicU64,
    /// Has a session asked since the last look?
    wanted: AtomicBool,
    wake: Notify,
}

#[derive(Clone, Default)]
struct Published {
    catalogue: Option<Arc<Catalogue>>,
    /// Counts snapshots, so that what was judged by one can be remembered.
    number: u64,
    /// Are all statements over that were judged by those before it?
    settled: bool,
    /// `stirred` before it was confirmed, and when the question was asked.
    confirmed: Option<(u64, Instant)>,
    pin: Pin,
}

/// Held by what runs without being sure of its snapshot.
#[derive(Clone, Debug, Default)]
pub struct Pin(Arc<()>);

/// A statement under way that may make code.
pub struct Unrest(Arc<State>);

/// What a session sees at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The last that was read.
    pub catalogue: Option<Arc<Catalogue>>,
    pub number: u64,
    /// Does it hold now? If not, what runs by it holds the pin.
    pub believed: bool,
    pub pin: Pin,
}

impl CatalogueWatch {
    fn new() -> Self {
        Self(Arc::new(State {
            published: RwLock::default(),
            unrest: AtomicU64::new(0),
            stirred: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            wake: Notify::new(),
        }))
    }

    /// A catalogue that nobody reads again, for tests of those who judge by one. It is believed for
    /// [`CONFIRMED_FOR`].
    #[doc(hidden)]
    pub fn fixed(catalogue: Catalogue) -> Self {
        let watch = Self::new();
        watch.0.publish(Published {
            catalogue: Some(Arc::new(catalogue)),
            number: 1,
            settled: true,
            confirmed: Some((0, Instant::now())),
            pin: Pin::default(),
        });
        watch
    }

    /// What there is to judge by.
    pub fn view(&self) -> View {
        let state = &self.0;
        // In this order: what is over by now has been counted.
        let quiet = state.unrest.load(Ordering::SeqCst) == 0;
        let stirred = state.stirred.load(Ordering::SeqCst);
        if !state.wanted.load(Ordering::Relaxed) && !state.wanted.swap(true, Ordering::Relaxed) {
            state.wake.notify_one();
        }
        let published = state.published.read().unwrap_or_else(PoisonError::into_inner);
        let confirmed = published
            .confirmed
            .is_some_and(|(counted, at)| counted == stirred && at.elapsed() < CONFIRMED_FOR);
        View {
            catalogue: published.catalogue.clone(),
            number: published.number,
            believed: quiet && published.settled && confirmed,
            pin: published.pin.clone(),
        }
    }

    /// Something that may make code is about to be sent.
    pub fn disturb(&self) -> Unrest {
        self.0.unrest.fetch_add(1, Ordering::SeqCst);
        Unrest(Arc::clone(&self.0))
    }
}

impl Drop for Unrest {
    fn drop(&mut self) {
        // In this order: at no moment do both look as they did before.
        self.0.stirred.fetch_add(1, Ordering::SeqCst);
        self.0.unrest.fetch_sub(1, Ordering::SeqCst);
        self.0.wake.notify_one();
    }
}

impl fmt::Debug for CatalogueWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogueWatch").finish_non_exhaustive()
    }
}

impl fmt::Debug for Unrest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unrest")
    }
}

impl State {
    fn publish(&self, published: Published) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = published;
    }

    /// Nothing is believed from here on; what is judged meanwhile is judged by the last snapshot.
    fn withdraw(&self) {
        self.published
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .confirmed = None;
    }

    fn published(&self) -> Published {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// All databases of a target whose catalogues sessions have asked for.
pub(super) struct Catalogues {
    settings: watch::Receiver<Arc<BrokerSettings>>,
    watches: Mutex<HashMap<DatabaseName, CatalogueWatch>>,
    control: Handle,
}

impl Catalogues {
    pub(super) fn new(settings: watch::Receiver<Arc<BrokerSettings>>, control: &Handle) -> Self {
        Self {
            settings,
            watches: Mutex::default(),
            control: control.clone(),
        }
    }

    pub(super) fn of(&self, database: &DatabaseName) -> CatalogueWatch {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = watches.entry(database.clone()).or_insert_with(|| {
            let watch = CatalogueWatch::new();
            let reader = Reader {
                state: Arc::clone(&watch.0),
                settings: self.settings.clone(),
                database: database.clone(),
                control: self.control.clone(),
                before: Vec::new(),
            };
            self.control.spawn(reader.run());
            watch
        });
        watch.clone()
    }
}

/// The task that reads one database's catalogue, by a connection of its own: minting does not wait for it.
struct Reader {
    state: Arc<State>,
    settings: watch::Receiver<Arc<BrokerSettings>>,
    database: DatabaseName,
    control: Handle,
    /// The pins of snapshots that were replaced, while anybody holds them.
    before: Vec<Weak<()>>,
}

/// Why a connection is given up.
enum Over {
    NobodyAsks,
    TooLarge,
    Failed(BrokerError),
    /// The broker has stopped.
    Stopped,
}

impl From<BrokerError> for Over {
    fn from(error: BrokerError) -> Self {
        Self::Failed(error)
    }
}

impl Reader {
    async fn run(mut self) {
        loop {
            while !self.state.wanted.load(Ordering::Relaxed) {
                tokio::select! {
                    () = self.state.wake.notified() => {}
                    stopped = self.settings.changed() => if stopped.is_err() { return },
                }
            }
            let over = self.watch().await;
            self.state.withdraw();
            let database = &self.database;
            match over {
                Over::Stopped => return,
                Over::NobodyAsks => continue,
                Over::TooLarge => {
                    tracing::warn!(%database, "the catalogue is too large to be watched: no statement is proven a plain read");
                }
                Over::Failed(error) => {
                    tracing::warn!(%database, error = %chain(&error), "the catalogue cannot be read: no statement is proven a plain read");
                }
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Reads, and asks again and again whether that still holds.
    async fn watch(&mut self) -> Over {
        match self.watching().await {
            Ok(over) | Err(over) => over,
        }
    }

    async fn watching(&mut self) -> Result<Over, Over> {
        let settings = Arc::clone(&self.settings.borrow_and_update());
        let connection = Access::new(&settings, &self.control)
            .connect(&self.database)
            .await?;
        let Connection::Postgres(connection) = connection else {
            return Ok(Over::Stopped);
        };
        let mut known: Option<Version> = None;
        let mut asked = Instant::now();
        let mut read_next = asked;
        loop {
            let begun = Instant::now();
            let stirred = self.state.stirred.load(Ordering::SeqCst);
            if self.state.wanted.swap(false, Ordering::Relaxed) {
                asked = begun;
            } else if asked.elapsed() > IDLE_FOR {
                return Ok(Over::NobodyAsks);
            }
            self.before.retain(|pin| pin.strong_count() > 0);
            let drained = self.before.is_empty();
            let version = connection.catalogue_version(known.as_ref()).await?;
            let spent = begun.elapsed();
            let mut published = self.state.published();
            if known.as_ref().is_some_and(|known| known.is_same_state(&version)) {
                published.settled |= drained;
                published.confirmed = Some((stirred, begun));
                known = Some(version);
            } else if begun < read_next {
                published.confirmed = None;
            } else {
                let reading = Instant::now();
                let catalogue = connection.catalogue().await?.ok_or(Over::TooLarge)?;
                read_next = Instant::now() + reading.elapsed() * READ_SHARE;
                let replaced = std::mem::take(&mut published.pin);
                self.before.push(Arc::downgrade(&replaced.0));
                published = Published {
                    catalogue: Some(Arc::new(catalogue)),
                    number: published.number + 1,
                    settled: false,
                    confirmed: Some((stirred, begun)),
                    pin: published.pin,
                };
                known = Some(version);
            }
            let sure = published.settled && published.confirmed.is_some();
            self.state.publish(published);
            if spent > CONFIRMED_FOR {
                return Err(Over::TooLarge);
            }
            let rest = if sure { REST } else { UNSETTLED_POLL };
            self.pause((spent * SHARE).max(rest), stirred, sure).await?;
        }
    }

    /// Until the next look: at least `rest`, and longer when nothing happens.
    async fn pause(&mut self, rest: Duration, stirred: u64, sure: bool) -> Result<(), Over> {
        sleep(rest).await;
        if !sure {
            return Ok(());
        }
        let next = sleep(POLL_EVERY.saturating_sub(rest));
        tokio::pin!(next);
        loop {
            if self.state.stirred.load(Ordering::SeqCst) != stirred {
                return Ok(());
            }
            tokio::select! {
                () = &mut next => return Ok(()),
                () = self.state.wake.notified() => {}
                changed = self.settings.changed() => {
                    changed.map_err(|_| Over::Stopped)?;
                }
            }
        }
    }
}
