//! The one thread that writes: drains the queue, serialises, chains, signs, writes once, syncs once,
//! and then hands out the receipts (group commit).

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::audit::chain::{self, HEAD, Link};
use crate::audit::journal::{
    BATCHED_SYNC_EVERY, Durability, JournalError, Queue, Queued, Receipt, Settings, Shared,
};
use crate::audit::key::SigningKey;
use crate::audit::line::{Detail, Envelope, Origin, RelationNames};
use crate::audit::record::{Event, Facts, Normalised, Record};
use crate::audit::reserve::{self, Reserve, Room};
use crate::audit::segment::{self, Files, SegmentFile};
use crate::audit::statements::{New, Statements};
use crate::domain::clock::Clock;
use crate::domain::target::Engine;

/// A larger record is refused: 1,000 correlation ids of 256 bytes, escaped, and 20,000 statements fit.
const LINE_BYTES_MAX: usize = 4 << 20;
/// A normalised text is cut to this: enough to recognise any statement, too little to fill a disk.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Records of what has happened that are kept in memory while the disk fails, to be written when it works.
const KEPT_MAX: usize = 16_384;

/// How long the thread waits for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// Denials alone wait this long for company, so that strangers cause no sync each.
    pub(super) denials_wait: Duration,
    /// Records that nobody waits for are written after this at the latest.
    pub(super) unawaited_wait: Duration,
    /// A failed disk is tried again after this.
    pub(super) retry: Duration,
    /// Disk that is set aside for work under way.
    pub(super) reserve: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            denials_wait: Duration::from_secs(1),
            unawaited_wait: Duration::from_millis(50),
            retry: Duration::from_millis(500),
            reserve: reserve::BYTES,
        }
    }
}

/// What the writer is given besides its settings.
pub(super) struct Surroundings {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) normalise: fn(&str) -> Normalised,
}

pub(super) struct Writer {
    around: Surroundings,
    settings: Settings,
    key: SigningKey,
    files: Box<dyn Files>,
    tuning: Tuning,
    origin: Origin,
    file: Box<dyn SegmentFile>,
    offset: u64,
    link: Link,
    statements: Statements,
    reserve: Reserve,
    /// Bytes may stand behind `offset` that a failed write left there.
    is_dirty: bool,
    unsynced_since: Option<Instant>,
    kept: VecDeque<Queued>,
    lost: u64,
    _lock: File,
}

/// The bytes of one group commit, built beside the state and taken over only when written.
struct Group {
    bytes: Vec<u8>,
    link: Link,
    records: u64,
    written: Vec<(u64, Queued)>,
}

impl Writer {
    pub(super) fn start(
        settings: Settings,
        key: SigningKey,
        mut files: Box<dyn Files>,
        tuning: Tuning,
        around: Surroundings,
    ) -> Result<Self, JournalError> {
        let lock = segment::lock(files.directory())?;
        segment::keep_public_key(files.directory(), key.public())?;
        let end = segment::find_end(files.directory(), key.public())?;
        let opened = files.open(&end.path).and_then(|mut file| {
            if end.bytes_cut > 0 {
                file.cut(end.offset)?;
                file.sync()?;
            }
            Ok(file)
        });
        let file = opened.map_err(|source| JournalError::Open {
            path: end.path.clone(),
            source: Arc::new(source),
        })?;
        let mut kept = VecDeque::new();
        if end.bytes_cut > 0 || end.unsigned > 0 {
            let repaired = Event::JournalRepaired {
                bytes_cut: end.bytes_cut,
                unsigned_kept: end.unsigned,
            };
            let repaired = Record::new(Arc::new(Facts::default()), repaired);
            kept.push_back(internal(around.clock.now(), repaired));
        }
        let origin = Origin {
            installation: settings.installation.to_string(),
            replica: settings.replica.to_string(),
            epoch: end.epoch.saturating_add(1),
        };
        let reserve = Reserve::start(files.as_mut(), tuning.reserve);
        Ok(Self {
            statements: Statements::new(around.normalise),
            around,
            settings,
            key,
            files,
            tuning,
            origin,
            file,
            offset: end.offset,
            link: end.link,
            reserve,
            is_dirty: false,
            unsynced_since: None,
            kept,
            lost: 0,
            _lock: lock,
        })
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.origin.epoch
    }

    pub(super) fn run(mut self) {
        // However the thread ends, nobody may wait for it in vain.
        let ending = Ending(Arc::clone(&self.around.shared));
        loop {
            let (batch, closing) = self.next_batch();
            self.commit(batch);
            if closing {
                let _synced = self.sync_if(self.settings.durability != Durability::Os);
                break;
            }
        }
        drop(self);
        drop(ending);
    }

    /// Waits for something to do: records, a sync that is due, a retry, or the end.
    fn next_batch(&mut self) -> (VecDeque<Queued>, bool) {
        let shared = Arc::clone(&self.around.shared);
        let begun = Instant::now();
        let mut queue = shared.lock();
        loop {
            let now = self.around.clock.now();
            let only_denials = queue.waiting.iter().all(|one| one.stranger);
            let sums_due = queue.strangers.is_due(now) && is_well(&queue);
            let reserve_due = self.reserve.due_in();
            let limit = if queue.failure.is_some() {
                Some(self.tuning.retry)
            } else if !only_denials {
                Some(self.tuning.unawaited_wait)
            } else if !queue.waiting.is_empty() {
                Some(self.tuning.denials_wait)
            } else if self.unsynced_since.is_some() {
                Some(BATCHED_SYNC_EVERY)
            } else {
                None
            };
            let has_work = queue.awaited || !self.kept.is_empty() && queue.failure.is_none();
            let is_due = limit.is_some_and(|limit| begun.elapsed() >= limit);
            let look = reserve_due.is_some_and(|left| left.is_zero());
            if has_work || is_due || queue.closing || sums_due || look {
                queue.bytes = 0;
                queue.awaited = false;
                return (mem::take(&mut queue.waiting), queue.closing);
            }
            // Without anything pending, the end of a window of denials is looked at this often.
            let pause = limit.map_or(Duration::from_secs(5), |limit| {
                limit.saturating_sub(begun.elapsed())
            });
            let pause = pause.min(reserve_due.unwrap_or(pause));
            let woken = shared.wake.wait_timeout(queue, pause);
            queue = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    fn commit(&mut self, batch: VecDeque<Queued>) {
        let now = self.around.clock.now();
        self.reserve.look(self.files.as_mut(), self.tuning.reserve);
        let failing = self.around.shared.lock().failure.is_some();
        let mut group = self.group(batch, now);
        if failing && group.records == 0 && self.lost == 0 {
            // Nothing to write: a head alone proves that the disk takes bytes again.
            group.records = 1;
        }
        if group.records == 0 {
            let synced = self.sync_if(self.settings.durability == Durability::Batched);
            return self.settle(group, synced);
        }
        self.head(&mut group, now);
        let begun = Instant::now();
        let written = match self.write(&group) {
            Err(error) if self.reserve.give_way(&error, self.files.as_mut()) => self.write(&group),
            written => written,
        };
        self.around.shared.written.observe(begun.elapsed());
        if written.is_ok() {
            let bytes = u64::try_from(group.bytes.len()).unwrap_or(u64::MAX);
            self.reserve.wrote(bytes);
        }
        self.settle(group, written);
    }

    fn group(&mut self, batch: VecDeque<Queued>, now: SystemTime) -> Group {
        let mut group = Group {
            bytes: Vec::new(),
            link: self.link,
            records: 0,
            written: Vec::new(),
        };
        if self.lost > 0 {
            let detail = Detail::Recovered {
                records_lost: self.lost,
            };
            self.line(&mut group, now, "journal.recovered", detail);
        }
        for queued in mem::take(&mut self.kept).into_iter().chain(batch) {
            self.add(&mut group, queued);
        }
        for sum in self.sums(now) {
            self.add(&mut group, internal(now, sum));
        }
        group
    }

    /// The denials of a window that is over. They wait while there are only the reserve's bytes to have.
    fn sums(&self, now: SystemTime) -> Vec<Record> {
        let mut queue = self.around.shared.lock();
        let due = queue.strangers.is_due(now) && is_well(&queue);
        if due || queue.closing {
            return queue.strangers.drain();
        }
        Vec::new()
    }

    /// Adds one record, and before it the texts of its statements that were not recorded yet.
    fn add(&mut self, group: &mut Group, mut queued: Queued) {
        let mut fingerprints = Vec::new();
        if let Event::TransactionIntent(transaction) | Event::TransactionOutcome { transaction, .. } =
            &queued.record.event
        {
            let engine = queued.record.facts.engine.unwrap_or(Engine::Postgres);
            for statement in &transaction.statements {
                let (fingerprint, new) = self.statements.fingerprint(engine, &statement.text);
                if let Some(New { text, relations }) = new {
                    let shown = text
                        .get(..text.floor_char_boundary(TEXT_BYTES_MAX))
                        .unwrap_or_default();
                    let detail = Detail::Seen {
                        fingerprint: &fingerprint,
                        text: shown,
                        truncated: shown.len() < text.len(),
                        relations: relations.as_ref().map(RelationNames::of),
                    };
                    self.line(group, queued.at, "statement.seen", detail);
                }
                fingerprints.push(fingerprint);
            }
        }
        let record = &queued.record;
        let seq = group.link.seq.saturating_add(1);
        let mut envelope = Envelope::new(&self.origin, seq, queued.at, record.event.name());
        envelope.facts = Some(&record.facts);
        envelope.correlation = &record.correlation;
        envelope.detail = Detail::of(&record.event, &fingerprints);
        if seal(group, &envelope) {
            group.bytes.push(b'\n');
            group.written.push((seq, queued));
        } else {
            let limit = LINE_BYTES_MAX;
            answer(&mut queued, Err(JournalError::TooLarge { limit }));
        }
    }

    fn line(&self, group: &mut Group, at: SystemTime, event: &'static str, detail: Detail<'_>) {
        let seq = group.link.seq.saturating_add(1);
        let mut envelope = Envelope::new(&self.origin, seq, at, event);
        envelope.detail = detail;
        if seal(group, &envelope) {
            group.bytes.push(b'\n');
        }
    }

    /// The signed end of the group.
    fn head(&self, group: &mut Group, now: SystemTime) {
        let detail = Detail::Head {
            key: self.key.public().id(),
            records: group.link.seq.saturating_sub(self.link.seq),
        };
        self.line(group, now, HEAD, detail);
        group.bytes.pop();
        chain::sign(&mut group.bytes, &self.key.sign(&group.link.hash));
        group.bytes.push(b'\n');
    }

    fn write(&mut self, group: &Group) -> io::Result<()> {
        self.clean()?;
        if self.offset > 0 && self.offset >= self.settings.segment_bytes {
            self.sync_if(self.settings.durability != Durability::Os)?;
            let path = segment::path_of(self.files.directory(), self.link.seq.saturating_add(1));
            self.file = self.files.open(&path)?;
            self.offset = 0;
        }
        self.is_dirty = true;
        self.file.write_at(&group.bytes, self.offset)?;
        match self.settings.durability {
            Durability::Strict => self.file.sync()?,
            Durability::Batched => {
                let since = *self.unsynced_since.get_or_insert_with(Instant::now);
                self.sync_if(since.elapsed() >= BATCHED_SYNC_EVERY)?;
            }
            Durability::Os => {}
        }
        self.is_dirty = false;
        Ok(())
    }

    /// Cuts off what a failed write left, so that the chain stays whole.
    fn clean(&mut self) -> io::Result<()> {
        if self.is_dirty {
            self.file.cut(self.offset)?;
            self.is_dirty = false;
        }
        Ok(())
    }

    fn sync_if(&mut self, wanted: bool) -> io::Result<()> {
        if wanted && self.unsynced_since.is_some() {
            self.file.sync()?;
            self.unsynced_since = None;
        }
        Ok(())
    }

    /// Tells everyone how it went.
    fn settle(&mut self, group: Group, written: io::Result<()>) {
        let failure = written.err().map(|source| JournalError::Write(Arc::new(source)));
        // Before the receipts: who has one must find the journal well.
        {
            let mut queue = self.around.shared.lock();
            queue.failure.clone_from(&failure);
            queue.room = self.reserve.room(self.tuning.reserve);
        }
        let Some(failure) = failure else {
            if group.records > 0 {
                self.lost = 0;
                self.link = group.link;
                self.offset += u64::try_from(group.bytes.len()).unwrap_or(u64::MAX);
            }
            for (seq, mut queued) in group.written {
                answer(&mut queued, Ok(Receipt::new(seq)));
            }
            return;
        };
        // A retry cleans again, so a failure here is not the last word.
        let _cut = self.clean();
        self.statements.forget_seen();
        for (_, mut queued) in group.written {
            answer(&mut queued, Err(failure.clone()));
            if queued.stranger {
                let facts = &queued.record.facts;
                self.around.shared.lock().strangers.admit(facts, queued.at, false);
            } else if queued.record.event.has_happened() && self.kept.len() < KEPT_MAX {
                self.kept.push_back(queued);
            } else {
                self.lost += 1;
            }
        }
    }
}

/// Is there room for more than what has to be written?
fn is_well(queue: &Queue) -> bool {
    queue.failure.is_none() && queue.room == Room::Ample
}

/// Writes one line without its line feed; `false` and nothing written if it would be too long.
fn seal(group: &mut Group, envelope: &Envelope<'_>) -> bool {
    let start = group.bytes.len();
    let serialised = serde_json::to_writer(&mut group.bytes, envelope);
    if serialised.is_err() || group.bytes.len() - start > LINE_BYTES_MAX {
        group.bytes.truncate(start);
        return false;
    }
    group.link = group.link.seal(&mut group.bytes, start);
    group.records += 1;
    true
}

fn answer(queued: &mut Queued, result: Result<Receipt, JournalError>) {
    if let Some(receipt) = queued.receipt.take() {
        // Nobody has to wait for a receipt.
        let _unheard = receipt.send(result);
    }
}

fn internal(at: SystemTime, record: Record) -> Queued {
    Queued {
        at,
        record,
        stranger: false,
        receipt: None,
    }
}

struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.ended = true;
        queue.waiting.clear();
        for ended in queue.on_end.drain(..) {
            let _unheard = ended.send(());
        }
    }
}
