//! The one thread that writes: drains the queue, serialises, chains, signs, writes once, syncs once,
//! and then hands out the receipts (group commit).

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::audit::chain::Link;
use crate::audit::group::{Group, LINE_BYTES_MAX};
use crate::audit::heads::{Heads, KeptHead};
use crate::audit::journal::{
    BATCHED_SYNC_EVERY, Durability, JournalError, NextKey, Queue, Queued, Receipt, Settings, Shared,
};
use crate::audit::key::{PublicKey, SigningKey};
use crate::audit::line::{Detail, Envelope, Origin, Told};
use crate::audit::members::FactsKept;
use crate::audit::record::{Event, Facts, Normalised, Record};
use crate::audit::reserve::{self, Reserve, Room};
use crate::audit::rotation;
use crate::audit::segment::{self, Files, SegmentFile, open_error};
use crate::audit::statements::Statements;
use crate::audit::stored;
use crate::audit::succession::{Signers, find_end, take_over};
use crate::audit::syncing::Syncs;
use crate::audit::tree::Tree;
use crate::audit::values::{Transcript, ValueKey};
use crate::domain::clock::Clock;
use crate::domain::target::Engine;

/// Records of what has happened that are kept in memory while the disk fails, to be written when it works.
const KEPT_MAX: usize = 16_384;

/// A buffer that grew beyond this is let go: a group of many large records does not keep its memory.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// Where records are not synced each for itself, they are not signed each for itself either: a head costs as much
/// as the records of several transactions.
const SIGNED_EVERY: Duration = BATCHED_SYNC_EVERY;

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
    /// The journal was last signed with this key, which is not at hand; nothing says so yet.
    replaced: Option<PublicKey>,
    files: Box<dyn Files>,
    tuning: Tuning,
    origin: Origin,
    file: Box<dyn SegmentFile>,
    offset: u64,
    link: Link,
    /// Over the segment as far as it is written.
    tree: Tree,
    /// The segment is complete: the next group begins another one.
    is_sealed: bool,
    statements: Statements,
    facts: FactsKept,
    /// Of the key that signs.
    values: ValueKey,
    reserve: Reserve,
    heads: Option<Heads>,
    retention: Option<JoinHandle<()>>,
    /// Bytes may stand behind `offset` that a failed write left there.
    is_dirty: bool,
    syncs: Syncs,
    /// The record of the last head.
    signed: u64,
    unsigned_since: Option<Instant>,
    kept: VecDeque<Queued>,
    lost: u64,
    /// Of the group before, to be filled again.
    buffer: Vec<u8>,
    _lock: File,
}

/// What there is to do.
struct Batch {
    records: VecDeque<Queued>,
    next_key: Option<NextKey>,
    closing: bool,
}

impl Writer {
    pub(super) fn start(
        settings: Settings,
        signers: Signers,
        mut files: Box<dyn Files>,
        tuning: Tuning,
        around: Surroundings,
    ) -> Result<Self, JournalError> {
        let lock = segment::lock(files.directory())?;
        let (end, known) = find_end(files.directory(), &signers)?;
        let opened = files.open(&end.path).and_then(|mut file| {
            if end.bytes_cut > 0 {
                file.cut(end.offset)?;
                file.sync()?;
            }
            Ok(file)
        });
        let file = opened.map_err(open_error(&end.path))?;
        let (key, replaced) = take_over(signers, end.signer, &known, &around.shared)?;
        if replaced.is_none() {
            rotation::keep_current(files.directory(), key.public()).map_err(open_error(files.directory()))?;
        }
        let mut kept = VecDeque::new();
        if end.bytes_cut > 0 || end.unsigned > 0 {
            let repaired = Event::JournalRepaired {
                bytes_cut: end.bytes_cut,
                unsigned_kept: end.unsigned,
            };
            let repaired = Record::new(Arc::new(Facts::default()), repaired);
            kept.push_back(internal(around.clock.now(), repaired));
        }
        let (installation, replica) = (settings.installation.to_string(), settings.replica.to_string());
        let origin = Origin::new(&installation, &replica, end.epoch.saturating_add(1));
        let origin = origin.map_err(|error| JournalError::Write(Arc::new(error.into())))?;
        let heads = start_heads(&settings, &around.shared)?;
        let syncs = Syncs::start(settings.durability);
        let syncs = syncs.map_err(|error| JournalError::Write(Arc::new(error)))?;
        let reserve = Reserve::start(files.as_mut(), tuning.reserve);
        Ok(Self {
            statements: Statements::new(around.normalise),
            facts: FactsKept::default(),
            values: ValueKey::of(&key),
            around,
            settings,
            key,
            replaced,
            files,
            tuning,
            origin,
            file,
            offset: end.offset,
            link: end.link,
            tree: end.tree,
            is_sealed: false,
            reserve,
            heads,
            retention: None,
            is_dirty: false,
            syncs,
            signed: end.link.seq.saturating_sub(end.unsigned),
            unsigned_since: None,
            kept,
            lost: 0,
            buffer: Vec::new(),
            _lock: lock,
        })
    }

    /// The journal is closed when this thread has ended too.
    pub(super) fn end_with(&mut self, retention: JoinHandle<()>) {
        self.retention = Some(retention);
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.origin.epoch
    }

    pub(super) fn run(mut self) {
        // However the thread ends, nobody may wait for it in vain.
        let ending = Ending(Arc::clone(&self.around.shared));
        loop {
            let batch = self.next_batch();
            let closing = batch.closing;
            self.commit(batch);
            if closing {
                let _synced = self.syncs.finish(self.file.as_mut());
                break;
            }
        }
        if let Some(heads) = &self.heads {
            heads.finish();
        }
        if let Some(retention) = self.retention.take() {
            retention.thread().unpark();
            // It looks whether the journal is closing with every block that it compresses.
            let _ended = retention.join();
        }
        drop(self);
        drop(ending);
    }

    /// Waits for something to do: records, a sync that is due, a retry, or the end.
    fn next_batch(&mut self) -> Batch {
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
            } else if self.syncs.are_open() || self.unsigned_since.is_some() {
                Some(BATCHED_SYNC_EVERY)
            } else {
                None
            };
            let may_write = queue.failure.is_none();
            let has_work = queue.awaited || may_write && (!self.kept.is_empty() || queue.next_key.is_some());
            let is_due = limit.is_some_and(|limit| begun.elapsed() >= limit);
            let look = reserve_due.is_some_and(|left| left.is_zero());
            if has_work || is_due || queue.closing || sums_due || look {
                queue.bytes = 0;
                queue.awaited = false;
                return Batch {
                    records: mem::take(&mut queue.waiting),
                    next_key: queue.next_key.take(),
                    closing: queue.closing,
                };
            }
            // Without anything pending, the end of a window of denials is looked at this often.
            let pause = limit.map_or(Duration::from_secs(5), |limit| {
                limit.saturating_sub(begun.elapsed())
            });
            let pause = pause.min(reserve_due.unwrap_or(pause));
            queue.is_idle = true;
            let woken = shared.wake.wait_timeout(queue, pause);
            queue = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            queue.is_idle = false;
        }
    }

    fn commit(&mut self, batch: Batch) {
        let now = self.around.clock.now();
        self.reserve.look(self.files.as_mut(), self.tuning.reserve);
        let failing = self.around.shared.lock().failure.is_some();
        let mut group = self.group(batch.records, now);
        // A head alone proves that the disk takes bytes again, and what was written before.
        group.wants_head |= failing || self.is_head_due();
        let mut next_key = batch.next_key;
        let handed_over = self.hand_over(&mut group, &mut next_key);
        let is_full = group.records > 0 && self.room_taken(&group) >= self.settings.segment_bytes;
        // The lines of a rotation stand together.
        if next_key.is_none() && group.tree.leaves() > 0 && (is_full || batch.closing) {
            group.seal_segment(&self.origin);
        }
        if group.records == 0 && !group.wants_head {
            let synced = self.syncs.begin_if_due(self.file.as_ref(), Instant::now());
            return self.settle(group, synced, next_key);
        }
        let is_strict = self.settings.durability == Durability::Strict;
        if is_strict || next_key.is_some() || group.is_to_be_signed() {
            let signer = next_key.as_ref().map_or(&self.key, |next| &next.key);
            group.sign(&self.origin, signer);
        }
        let begun = Instant::now();
        let written = handed_over.and_then(|()| match self.write(&group) {
            Err(error) if self.reserve.give_way(&error, self.files.as_mut()) => self.write(&group),
            written => written,
        });
        self.around.shared.written.observe(begun.elapsed());
        if written.is_ok() {
            let bytes = u64::try_from(group.bytes.len()).unwrap_or(u64::MAX);
            self.reserve.wrote(bytes);
        }
        self.settle(group, written, next_key);
    }

    /// Records have waited for a head as long as they may.
    fn is_head_due(&self) -> bool {
        self.unsigned_since
            .is_some_and(|since| since.elapsed() >= SIGNED_EVERY)
    }

    /// Says in the chain that another key signs from now on, if one does.
    fn hand_over(&self, group: &mut Group, next_key: &mut Option<NextKey>) -> io::Result<()> {
        if let Some(replaced) = &self.replaced {
            group.hand_over(&self.origin, replaced, self.key.public());
        }
        if let Some(same) = next_key.take_if(|next| next.key.public() == self.key.public()) {
            same.settle(Ok(()));
        }
        let Some(next) = next_key else {
            return Ok(());
        };
        group.hand_over(&self.origin, self.key.public(), next.key.public());
        group.sign(&self.origin, &self.key);
        rotation::keep_key(self.files.directory(), next.key.public())
    }

    /// Bytes of the segment that the group goes to, with the group.
    fn room_taken(&self, group: &Group) -> u64 {
        let written = if self.is_sealed { 0 } else { self.offset };
        written.saturating_add(u64::try_from(group.bytes.len()).unwrap_or(u64::MAX))
    }

    fn group(&mut self, batch: VecDeque<Queued>, now: SystemTime) -> Group {
        let tree = if self.is_sealed {
            Tree::default()
        } else {
            self.tree.clone()
        };
        let mut group = Group::new(self.link, self.signed, tree, now, mem::take(&mut self.buffer));
        if self.lost > 0 {
            let detail = Detail::Recovered {
                records_lost: self.lost,
            };
            group.note(&self.origin, now, "journal.recovered", detail);
            group.wants_head = true;
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
        let mut told = Vec::new();
        if let Event::TransactionIntent(transaction) | Event::TransactionOutcome { transaction, .. } =
            &queued.record.event
        {
            let facts = &queued.record.facts;
            let engine = facts.engine.unwrap_or(Engine::Postgres);
            let rule = facts.policy.as_ref().map(|policy| policy.parameters);
            let mut transcript = Transcript::new(rule.unwrap_or_default(), &self.values);
            for statement in &transaction.statements {
                let place = (&self.origin, queued.at);
                told.push(Told {
                    fingerprint: self.statements.tell(engine, &statement.text, place, group),
                    values: transcript.of(engine, statement),
                });
            }
        }
        let record = &queued.record;
        group.wants_head |= !record.event.is_of_transaction();
        let facts = self.facts.members(&record.facts);
        let added = facts.is_ok_and(|facts| {
            let mut envelope = Envelope::new(&self.origin, group.next(), queued.at, record.event.name());
            envelope.facts = Some(facts);
            envelope.correlation = &record.correlation;
            envelope.detail = Detail::of(&record.event, &told);
            group.add(&envelope)
        });
        if record.event.ends_session() {
            self.facts.forget(&record.facts);
        }
        if added {
            group.written.push((group.link.seq, queued));
        } else {
            let limit = LINE_BYTES_MAX;
            answer(&mut queued, Err(JournalError::TooLarge { limit }));
        }
    }

    fn write(&mut self, group: &Group) -> io::Result<()> {
        self.clean()?;
        if self.is_sealed {
            self.syncs.finish(self.file.as_mut())?;
            let path = stored::path_of(self.files.directory(), self.link.seq.saturating_add(1));
            self.file = self.files.open(&path)?;
            self.offset = 0;
            self.is_sealed = false;
            self.tree = Tree::default();
        }
        self.is_dirty = true;
        self.file.write_at(&group.bytes, self.offset)?;
        self.syncs.wrote(self.file.as_mut(), Instant::now())?;
        self.is_dirty = false;
        Ok(())
    }

    /// The new key signs from now on, if that is on disk.
    fn take_key(&mut self, next: NextKey, group: &Group, failure: Option<&JournalError>) {
        if let Some(failure) = failure {
            let mut queue = self.around.shared.lock();
            if next.answer.is_none() && queue.next_key.is_none() {
                // Nobody would ask again.
                queue.next_key = Some(next);
            } else {
                drop(queue);
                next.settle(Err(failure.clone()));
            }
            return;
        }
        let directory = self.files.directory();
        let kept = rotation::keep(directory, group.last_lines(rotation::LINES))
            .and_then(|()| rotation::keep_current(directory, next.key.public()));
        warn_unkept(&kept);
        let (old, new) = (self.key.public().id(), next.key.public().id());
        tracing::info!(old, new, "the audit journal is signed with a new key");
        let NextKey { key, answer } = next;
        self.values = ValueKey::of(&key);
        self.key = key;
        if let Some(answer) = answer {
            let _unheard = answer.send(Ok(()));
        }
    }

    /// Cuts off what a failed write left, so that the chain stays whole.
    fn clean(&mut self) -> io::Result<()> {
        if self.is_dirty {
            self.file.cut(self.offset)?;
            self.is_dirty = false;
        }
        Ok(())
    }

    /// Notes what was signed last, now that it is on disk.
    fn signed(&mut self, head: Option<KeptHead>) {
        let Some(head) = head else {
            self.unsigned_since.get_or_insert_with(Instant::now);
            return;
        };
        self.unsigned_since = None;
        self.signed = head.seq;
        if let Some(heads) = &self.heads {
            heads.offer(head);
        }
    }

    /// Tells everyone how it went.
    fn settle(&mut self, mut group: Group, written: io::Result<()>, next_key: Option<NextKey>) {
        let failure = written.err().map(|source| JournalError::Write(Arc::new(source)));
        // Before the receipts: who has one must find the journal well.
        {
            let mut queue = self.around.shared.lock();
            queue.failure.clone_from(&failure);
            queue.room = self.reserve.room(self.tuning.reserve);
        }
        if let Some(next) = next_key {
            self.take_key(next, &group, failure.as_ref());
        }
        let Some(failure) = failure else {
            if group.records > 0 {
                self.lost = 0;
                self.link = group.link;
                self.offset += u64::try_from(group.bytes.len()).unwrap_or(u64::MAX);
                self.tree = group.tree;
                self.is_sealed = group.is_sealed;
                if self.replaced.take().is_some() {
                    let kept = rotation::keep_current(self.files.directory(), self.key.public());
                    warn_unkept(&kept);
                }
                self.signed(group.head.take());
            }
            if group.bytes.capacity() <= BUFFER_KEPT_BYTES {
                self.buffer = group.bytes;
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

impl NextKey {
    fn settle(self, result: Result<(), JournalError>) {
        if let Some(answer) = self.answer {
            let _unheard = answer.send(result);
        }
    }
}

/// A copy of the public key is a convenience: the operator has another one where it is safe.
fn warn_unkept(kept: &io::Result<()>) {
    if let Err(error) = kept {
        tracing::error!(%error, "the new public key could not be put beside the audit journal");
    }
}

fn start_heads(settings: &Settings, shared: &Shared) -> Result<Option<Heads>, JournalError> {
    if !settings.heads.is_wanted() {
        return Ok(None);
    }
    let started = Heads::start(settings.heads.clone(), Arc::clone(&shared.heads));
    started
        .map(Some)
        .map_err(|source| JournalError::Write(Arc::new(source)))
}

/// Is there room for more than what has to be written?
fn is_well(queue: &Queue) -> bool {
    queue.failure.is_none() && queue.room == Room::Ample
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
