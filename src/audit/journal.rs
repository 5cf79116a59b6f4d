//! The door to the journal: submit a record, wait for its receipt, ask whether it is well.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::audit::heads::{Counts, SecondPlace};
use crate::audit::key::{KeyError, SigningKey};
use crate::audit::record::{Event, Normalised, Record, Statement};
use crate::audit::reserve::Room;
use crate::audit::retention::{self, Retention};
use crate::audit::segment::{Directory, Files};
use crate::audit::strangers::Strangers;
use crate::audit::succession::Signers;
use crate::audit::values::Values;
use crate::audit::verify::Broken;
use crate::audit::writer::{self, Tuning};
use crate::domain::clock::Clock;
use crate::domain::ids::{Installation, ReplicaName, SessionId};
use crate::domain::measure::{Histogram, Reading};
use crate::domain::refusal::{Reason, RefusalCode, Refuse};
use crate::domain::secret::Secret;

/// Records that may wait for the disk: a few seconds of a busy proxy, so that a slow disk shows as
/// refusals and not as memory.
const QUEUE_RECORDS_MAX: usize = 16_384;
/// Bytes of statement texts, their values and correlation ids that may wait for the disk.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// When a record counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync`: survives a power cut.
    Strict,
    /// After the write, with `fdatasync` at most every 50 ms: survives a crash of gatepost.
    Batched,
    /// After the write; the operating system decides when it reaches the disk.
    Os,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub directory: PathBuf,
    pub durability: Durability,
    /// PKCS#8 Ed25519, as PEM or DER.
    pub signing_key: Secret<Vec<u8>>,
    pub installation: Installation,
    pub replica: ReplicaName,
    /// The key that was used before, at the start with another one: it signs that it is replaced.
    pub previous_key: Option<Secret<Vec<u8>>>,
    /// A new segment file begins when the current one has reached this size.
    pub segment_bytes: u64,
    /// Where heads are kept besides.
    pub heads: SecondPlace,
    /// What becomes of old segments.
    pub retention: Retention,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot use {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("the audit directory {} is in use by another process", directory.display())]
    Locked { directory: PathBuf },
    #[error("the signing key cannot be used")]
    Key(#[from] KeyError),
    #[error(
        "the audit directory {} was last written with the signing key {id}, whose public key is not there",
        directory.display()
    )]
    OtherKey { directory: PathBuf, id: String },
    #[error(
        "the signing key {id} was replaced before, and is not used again; make a new one, or give the one in use as \
         the previous key"
    )]
    RetiredKey { id: String },
    #[error("the journal is broken, run \"gatepost audit verify\": {0}")]
    Broken(Arc<Broken>),
    #[error("the audit journal cannot be written")]
    Write(#[source] Arc<io::Error>),
    #[error("the disk of the audit journal is full; what is left is reserved for work under way")]
    Reserved,
    #[error("too many audit records wait for the disk")]
    QueueFull,
    #[error("an audit record is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("one of too many denials, which are only summed up")]
    Summed,
    #[error("the audit journal is closed")]
    Closed,
}

impl Refuse for JournalError {
    fn refusal(&self) -> (RefusalCode, Reason) {
        (RefusalCode::AuditUnavailable, Reason::JournalFailed)
    }
}

/// The journal of this process. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    epoch: u64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_all();
    }
}

/// What the doors and the writer thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    pub(super) wake: Condvar,
    pub(super) heads: Arc<Counts>,
    /// From queueing a record that somebody waits for to its receipt, or its failure.
    appended: Histogram,
    /// One write, with its sync where each has one.
    pub(super) written: Histogram,
}

/// What the metrics show of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalMeasures {
    /// How long those waited who wait for their records.
    pub appended: Reading,
    /// How long the disk took for one group of records, as durable as the setting says.
    pub written: Reading,
    /// Records that wait for the disk.
    pub waiting: usize,
    /// Heads that were kept in the second place, and failures.
    pub heads_kept: u64,
    pub heads_failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Queued>,
    pub(super) bytes: usize,
    /// Somebody waits for the receipt of a waiting record.
    pub(super) awaited: bool,
    /// The writer waits to be woken.
    pub(super) is_idle: bool,
    pub(super) failure: Option<JournalError>,
    pub(super) room: Room,
    pub(super) strangers: Strangers,
    /// Sessions that are on record as open. Whoever is denied without being one of them is a stranger.
    open: HashSet<SessionId>,
    /// A key that is to sign from now on.
    pub(super) next_key: Option<NextKey>,
    pub(super) closing: bool,
    /// The writer thread has ended.
    pub(super) ended: bool,
    pub(super) on_end: Vec<oneshot::Sender<()>>,
}

/// A key that is to sign from now on, and who waits for it.
#[derive(Debug)]
pub(super) struct NextKey {
    pub(super) key: SigningKey,
    pub(super) answer: Option<oneshot::Sender<Result<(), JournalError>>>,
}

/// A record on its way to the disk.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) at: SystemTime,
    pub(super) record: Record,
    /// The denial of somebody who was never let in.
    pub(super) stranger: bool,
    pub(super) receipt: Option<oneshot::Sender<Result<Receipt, JournalError>>>,
}

/// Proof that a record is on disk, as far as the durability setting promises.
#[derive(Debug)]
pub struct Receipt {
    seq: u64,
}

impl Receipt {
    pub(super) const fn new(seq: u64) -> Self {
        Self { seq }
    }

    /// The record's sequence number.
    pub const fn seq(&self) -> u64 {
        self.seq
    }
}

/// A record that was queued. Dropping this does not take the record back.
#[derive(Debug)]
pub struct Pending {
    receipt: oneshot::Receiver<Result<Receipt, JournalError>>,
}

impl Pending {
    pub async fn durable(self) -> Result<Receipt, JournalError> {
        self.receipt.await.unwrap_or(Err(JournalError::Closed))
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic while the lock was held leaves the queue as it is: every change to it is one push.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// One that is at work looks again by itself, and waking it once is enough.
    fn wake_writer(&self) {
        if mem::replace(&mut self.lock().is_idle, false) {
            self.wake.notify_one();
        }
    }
}

/// Wakes the writer, whatever becomes of whoever is to wait for it.
struct WakeWriter<'a>(&'a Shared);

impl Drop for WakeWriter<'_> {
    fn drop(&mut self) {
        self.0.wake_writer();
    }
}

impl Queue {
    /// May this record be queued? With an error inside: yes, because it has happened, but it cannot be
    /// written now. A stranger's denial that may not has been counted.
    fn admit(
        &mut self,
        record: &Record,
        cost: usize,
        at: SystemTime,
    ) -> Result<Option<JournalError>, JournalError> {
        let full =
            self.waiting.len() >= QUEUE_RECORDS_MAX || self.bytes.saturating_add(cost) > QUEUE_BYTES_MAX;
        if self.is_stranger(record) {
            let may_record = !full && self.failure.is_none() && self.room == Room::Ample;
            let admitted = self.strangers.admit(&record.facts, at, may_record);
            return admitted.then_some(None).ok_or(JournalError::Summed);
        }
        if full {
            return Err(JournalError::QueueFull);
        }
        match (&self.failure, self.room, &record.event) {
            (Some(failure), ..) if record.event.has_happened() => Ok(Some(failure.clone())),
            (Some(failure), ..) => Err(failure.clone()),
            (None, Room::UnderWay | Room::Ends, Event::SessionOpened | Event::TicketIssued { .. })
            | (None, Room::Ends, Event::TransactionIntent(_)) => Err(JournalError::Reserved),
            (None, Room::Ample | Room::UnderWay | Room::Ends, _) => Ok(None),
        }
    }

    /// Is it the denial of a session that is not on record as open?
    fn is_stranger(&self, record: &Record) -> bool {
        let open = record
            .facts
            .session
            .is_some_and(|session| self.open.contains(&session));
        record.is_strangers() && !open
    }

    fn note_session(&mut self, record: &Record) {
        let Some(session) = record.facts.session else {
            return;
        };
        if matches!(record.event, Event::SessionOpened) {
            self.open.insert(session);
        } else if record.event.ends_session() {
            self.open.remove(&session);
        }
    }
}

impl Journal {
    /// Opens or creates the journal, continues its chain, and starts the writer thread. An
    /// incomplete last write is cut off and recorded; anything else that is wrong with the end of
    /// the journal refuses the start.
    pub fn open(
        settings: Settings,
        clock: Arc<dyn Clock>,
        normalise: fn(&str) -> Normalised,
    ) -> Result<Self, JournalError> {
        let files = Directory::new(settings.directory.clone());
        Self::open_on(settings, clock, normalise, Box::new(files), Tuning::default())
    }

    pub(super) fn open_on(
        settings: Settings,
        clock: Arc<dyn Clock>,
        normalise: fn(&str) -> Normalised,
        files: Box<dyn Files>,
        tuning: Tuning,
    ) -> Result<Self, JournalError> {
        let key = SigningKey::read(settings.signing_key.expose())?;
        let previous = settings.previous_key.as_ref();
        let previous = previous.map(|key| SigningKey::read(key.expose())).transpose()?;
        let retention = settings.retention;
        let directory = settings.directory.clone();
        let shared = Arc::new(Shared::default());
        let mut writer = writer::Writer::start(
            settings,
            Signers { key, previous },
            files,
            tuning,
            writer::Surroundings {
                shared: Arc::clone(&shared),
                clock: Arc::clone(&clock),
                normalise,
            },
        )?;
        let epoch = writer.epoch();
        let inner = Arc::new(Inner { shared, clock, epoch });
        if retention.is_wanted() {
            let asking = Asking(Arc::downgrade(&inner));
            let keeping = retention::start(directory, retention, asking);
            writer.end_with(keeping.map_err(|source| JournalError::Write(Arc::new(source)))?);
        }
        let started = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run());
        started.map_err(|source| JournalError::Write(Arc::new(source)))?;
        Ok(Self { inner })
    }

    /// Counts the runs of gatepost on this journal, from 1.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// Queues a record and never waits for the disk. Nobody is taken to wait for it either: it is
    /// written with the next record that somebody waits for, or a moment later, so that outcomes
    /// share the sync of the intents that follow them.
    pub fn submit(&self, record: Record) -> Result<Pending, JournalError> {
        self.queue(record, false)
    }

    fn queue(&self, record: Record, awaited: bool) -> Result<Pending, JournalError> {
        let cost = cost(&record);
        let (sender, receipt) = oneshot::channel();
        let mut queue = self.inner.shared.lock();
        if queue.closing || queue.ended {
            return Err(JournalError::Closed);
        }
        // Inside the lock, so that the order of the times is the order of the records.
        let at = self.inner.clock.now();
        let stranger = queue.is_stranger(&record);
        let failing = queue.admit(&record, cost, at)?;
        // Whoever waits is told now that it is not on disk; it is written when that works again.
        let told = failing.filter(|_| awaited);
        queue.note_session(&record);
        queue.bytes += cost;
        queue.awaited |= awaited && told.is_none();
        queue.waiting.push_back(Queued {
            at,
            record,
            stranger,
            receipt: told.is_none().then_some(sender),
        });
        // Without anybody waiting, the first record alone sets the writer's clock going.
        let is_first = !awaited && queue.waiting.len() == 1;
        drop(queue);
        if is_first {
            self.inner.shared.wake_writer();
        }
        told.map_or(Ok(Pending { receipt }), Err)
    }

    /// Queues a record and waits until it is as durable as the setting says.
    pub async fn append(&self, record: Record) -> Result<Receipt, JournalError> {
        let begun = Instant::now();
        let pending = self.queue(record, true)?;
        {
            // Others of this thread who have something to record come first: one head, one write and one sync
            // then stand for all of them, and the writer is woken once.
            let _then = WakeWriter(&self.inner.shared);
            yield_now().await;
        }
        let receipt = pending.durable().await;
        self.inner.shared.appended.observe(begun.elapsed());
        receipt
    }

    /// Has another key sign from now on, on record as `key.rotated` and signed with the old one. Nothing
    /// happens if it is the key in use.
    pub async fn rotate(&self, key: SigningKey) -> Result<(), JournalError> {
        let (sender, answer) = oneshot::channel();
        {
            let mut queue = self.inner.shared.lock();
            if queue.closing || queue.ended {
                return Err(JournalError::Closed);
            }
            // Whoever asked before hears that it did not come to it.
            queue.next_key = Some(NextKey {
                key,
                answer: Some(sender),
            });
        }
        self.inner.shared.wake.notify_one();
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    pub fn measures(&self) -> JournalMeasures {
        let shared = &self.inner.shared;
        JournalMeasures {
            appended: shared.appended.read(),
            written: shared.written.read(),
            waiting: shared.lock().waiting.len(),
            heads_kept: shared.heads.kept.load(Ordering::Relaxed),
            heads_failed: shared.heads.failed.load(Ordering::Relaxed),
        }
    }

    /// Why records cannot be written now, if so. Comes back by itself when the cause is gone.
    pub fn health(&self) -> Result<(), JournalError> {
        let queue = self.inner.shared.lock();
        match &queue.failure {
            Some(failure) => Err(failure.clone()),
            None if queue.ended => Err(JournalError::Closed),
            None if queue.room != Room::Ample => Err(JournalError::Reserved),
            None => Ok(()),
        }
    }

    /// Writes what is queued with a signed head behind it, syncs, and ends the writer thread.
    pub async fn close(self) {
        let (sender, ended) = oneshot::channel();
        {
            let mut queue = self.inner.shared.lock();
            queue.closing = true;
            if queue.ended {
                return;
            }
            queue.on_end.push(sender);
        }
        self.inner.shared.wake.notify_all();
        // An error says that the thread has ended, which is what we wait for.
        let _ended = ended.await;
    }
}

/// How the thread that looks after old segments reaches the journal, without keeping it open.
pub(super) struct Asking(Weak<Inner>);

impl Asking {
    /// The time, while the journal is open.
    pub(super) fn now(&self) -> Option<SystemTime> {
        let inner = self.0.upgrade()?;
        let queue = inner.shared.lock();
        (!queue.closing && !queue.ended).then(|| inner.clock.now())
    }

    /// Records something, and waits until it is on disk.
    pub(super) fn append(&self, event: Event) -> Result<Receipt, JournalError> {
        let inner = self.0.upgrade().ok_or(JournalError::Closed)?;
        let shared = Arc::clone(&inner.shared);
        let pending = Journal { inner }.queue(Record::new(Arc::default(), event), true)?;
        shared.wake_writer();
        pending
            .receipt
            .blocking_recv()
            .unwrap_or(Err(JournalError::Closed))
    }
}

/// What a waiting record roughly holds in memory.
fn cost(record: &Record) -> usize {
    let ids: usize = record.correlation.iter().map(|one| one.id.len()).sum();
    let texts: usize = match &record.event {
        Event::TransactionIntent(transaction) | Event::TransactionOutcome { transaction, .. } => {
            let values = |one: &Statement| one.values.as_ref().map_or(0, Values::bytes);
            let statements = transaction.statements.iter();
            statements.map(|one| one.text.len() + values(one)).sum()
        }
        Event::SessionDenied { reason, .. } | Event::TicketDenied { reason, .. } => reason.len(),
        Event::TicketIssued { bound_to, .. } => bound_to.len(),
        Event::LoginTampered { what } => what.len(),
        Event::SessionClosed { reason, .. } => reason.as_ref().map_or(0, String::len),
        Event::SecretRotated { which, .. } => which.as_ref().map_or(0, String::len),
        Event::Admin(call) => [&call.what, &call.why]
            .into_iter()
            .flatten()
            .map(String::len)
            .sum(),
        Event::ServerStarted { .. }
        | Event::ServerStopped
        | Event::PolicyLoaded { .. }
        | Event::PolicyRejected { .. }
        | Event::SessionOpened
        | Event::LoginMinted { .. }
        | Event::LoginRenewed { .. }
        | Event::LoginDisabled { .. }
        | Event::LoginDropped
        | Event::JournalRepaired { .. }
        | Event::TransactionReconciled(_)
        | Event::JournalExpired { .. }
        | Event::StrangersDenied { .. } => 0,
    };
    size_of::<Queued>() + ids + texts
}

/// How long `batched` may go without a sync.
pub(super) const BATCHED_SYNC_EVERY: Duration = Duration::from_millis(50);
