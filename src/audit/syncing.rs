//! When what was written is synced: each group before its receipts; or every so often on a thread of its own, so that
//! nobody waits for a sync who was promised no more than that it comes; or never.

use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::audit::journal::{BATCHED_SYNC_EVERY, Durability};
use crate::audit::segment::SegmentFile;

/// While one sync takes longer than this, whoever writes waits for it: a disk that hangs must not let what a
/// power cut would take grow without end.
const SYNC_LAG_MAX: Duration = BATCHED_SYNC_EVERY.saturating_mul(4);

pub(super) struct Syncs {
    durability: Durability,
    /// Bytes were written for which no sync has begun.
    unsynced_since: Option<Instant>,
    beside: Option<Beside>,
    begun: Option<Instant>,
}

impl Syncs {
    pub(super) fn start(durability: Durability) -> io::Result<Self> {
        let beside = (durability == Durability::Batched).then(Beside::start);
        Ok(Self {
            durability,
            unsynced_since: None,
            beside: beside.transpose()?,
            begun: None,
        })
    }

    /// Something waits for a sync, or for how one ended.
    pub(super) fn are_open(&self) -> bool {
        self.unsynced_since.is_some() || self.beside.as_ref().is_some_and(|beside| !beside.is_idle())
    }

    /// Something was written. An error may be that of a sync that was begun before.
    pub(super) fn wrote(&mut self, file: &mut dyn SegmentFile, now: Instant) -> io::Result<()> {
        match self.durability {
            Durability::Strict => file.sync(),
            Durability::Batched => {
                self.unsynced_since.get_or_insert(now);
                self.begin_if_due(file, now)
            }
            Durability::Os => Ok(()),
        }
    }

    /// Begins a sync, if what was written has waited for one long enough.
    pub(super) fn begin_if_due(&mut self, file: &dyn SegmentFile, now: Instant) -> io::Result<()> {
        let Some(beside) = &self.beside else {
            return Ok(());
        };
        if let Some(failure) = beside.failure() {
            // What it was for is still to be synced.
            self.unsynced_since.get_or_insert(now);
            return Err(failure);
        }
        let is_for = |since: Option<Instant>, span| since.is_some_and(|since| now - since >= span);
        let is_due = is_for(self.unsynced_since, BATCHED_SYNC_EVERY);
        if !is_due || beside.is_busy() && !is_for(self.begun, SYNC_LAG_MAX) {
            return Ok(());
        }
        beside.settle()?;
        beside.begin(file.twin()?);
        self.begun = Some(now);
        self.unsynced_since = None;
        Ok(())
    }

    /// Comes back when everything is synced, as far as it is to be.
    pub(super) fn finish(&mut self, file: &mut dyn SegmentFile) -> io::Result<()> {
        let Some(beside) = &self.beside else {
            return Ok(());
        };
        let settled = beside.settle();
        if self.unsynced_since.is_some() || settled.is_err() {
            file.sync()?;
            self.unsynced_since = None;
        }
        settled
    }
}

/// The thread that waits for the disk.
struct Beside {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stage: Mutex<Stage>,
    moved: Condvar,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Wanted(Box<dyn SegmentFile>),
    Running,
    Failed(io::Error),
    Over,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        // Every change is one assignment.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, stage: MutexGuard<'a, Stage>) -> MutexGuard<'a, Stage> {
        self.moved.wait(stage).unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(mut file) = self.next() {
            let synced = file.sync();
            let mut stage = self.lock();
            if matches!(*stage, Stage::Running) {
                *stage = synced.map_or_else(Stage::Failed, |()| Stage::Idle);
            }
            drop(stage);
            self.moved.notify_all();
        }
    }

    fn next(&self) -> Option<Box<dyn SegmentFile>> {
        let mut stage = self.lock();
        loop {
            match mem::take(&mut *stage) {
                Stage::Wanted(file) => {
                    *stage = Stage::Running;
                    return Some(file);
                }
                Stage::Over => return None,
                other @ (Stage::Idle | Stage::Running | Stage::Failed(_)) => *stage = other,
            }
            stage = self.wait(stage);
        }
    }
}

impl Beside {
    fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let running = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal-sync".to_owned());
        Ok(Self {
            shared,
            thread: Some(thread.spawn(move || running.run())?),
        })
    }

    fn begin(&self, file: Box<dyn SegmentFile>) {
        *self.shared.lock() = Stage::Wanted(file);
        self.shared.moved.notify_all();
    }

    fn is_busy(&self) -> bool {
        matches!(*self.shared.lock(), Stage::Wanted(_) | Stage::Running)
    }

    fn is_idle(&self) -> bool {
        matches!(*self.shared.lock(), Stage::Idle)
    }

    /// Of the last sync, told once.
    fn failure(&self) -> Option<io::Error> {
        let mut stage = self.shared.lock();
        match mem::take(&mut *stage) {
            Stage::Failed(error) => Some(error),
            other @ (Stage::Idle | Stage::Wanted(_) | Stage::Running | Stage::Over) => {
                *stage = other;
                None
            }
        }
    }

    /// Waits for the sync that is under way, if one is.
    fn settle(&self) -> io::Result<()> {
        let mut stage = self.shared.lock();
        while matches!(*stage, Stage::Wanted(_) | Stage::Running) {
            stage = self.shared.wait(stage);
        }
        drop(stage);
        self.failure().map_or(Ok(()), Err)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        *self.shared.lock() = Stage::Over;
        self.shared.moved.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A file whose syncs end when the test says so.
    #[derive(Default)]
    struct Disk {
        begun: AtomicUsize,
        /// How each is to end, in their order.
        ends: Mutex<Vec<io::Result<()>>>,
        told: Condvar,
    }

    struct Gated(Arc<Disk>);

    impl SegmentFile for Gated {
        fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            self.0.begun.fetch_add(1, Ordering::SeqCst);
            let mut ends = self.0.ends.lock().unwrap();
            while ends.is_empty() {
                ends = self.0.told.wait(ends).unwrap();
            }
            ends.remove(0)
        }
        fn cut(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn twin(&self) -> io::Result<Box<dyn SegmentFile>> {
            Ok(Box::new(Self(Arc::clone(&self.0))))
        }
    }

    impl Disk {
        fn ends(&self, how: io::Result<()>) {
            self.ends.lock().unwrap().push(how);
            self.told.notify_all();
        }
    }

    fn start(durability: Durability) -> (Syncs, Gated, Arc<Disk>) {
        let disk = Arc::new(Disk::default());
        (Syncs::start(durability).unwrap(), Gated(Arc::clone(&disk)), disk)
    }

    /// Until the thread has come so far.
    fn wait_for(what: &str, done: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_writes_does_not_wait_for_a_sync_that_is_under_way() {
        let (mut syncs, mut file, disk) = start(Durability::Batched);
        let mut now = Instant::now();
        syncs.wrote(&mut file, now).unwrap();
        assert!(syncs.unsynced_since.is_some());
        now += BATCHED_SYNC_EVERY;
        syncs.wrote(&mut file, now).unwrap();
        assert!(syncs.unsynced_since.is_none(), "one has begun that covers it");
        wait_for("the sync", || disk.begun.load(Ordering::SeqCst) == 1);
        for _ in 0..3 {
            syncs.wrote(&mut file, now).unwrap();
            now += BATCHED_SYNC_EVERY;
        }
        assert!(syncs.unsynced_since.is_some());
        // Longer than this nobody goes on without the disk.
        now += BATCHED_SYNC_EVERY;
        std::thread::scope(|threads| {
            let writing = threads.spawn(|| syncs.wrote(&mut file, now));
            std::thread::sleep(Duration::from_millis(30));
            assert!(!writing.is_finished());
            disk.ends(Ok(()));
            writing.join().unwrap().unwrap();
        });
        assert!(syncs.unsynced_since.is_none());
        wait_for("the next one", || disk.begun.load(Ordering::SeqCst) == 2);
        disk.ends(Ok(()));
        syncs.finish(&mut file).unwrap();
        assert_eq!(disk.begun.load(Ordering::SeqCst), 2, "nothing was left to sync");
    }

    #[test]
    fn a_sync_that_failed_is_told_to_the_next_write_and_asked_for_again() {
        let (mut syncs, mut file, disk) = start(Durability::Batched);
        let mut now = Instant::now();
        syncs.wrote(&mut file, now).unwrap();
        now += BATCHED_SYNC_EVERY;
        disk.ends(Err(io::ErrorKind::StorageFull.into()));
        syncs.wrote(&mut file, now).unwrap();
        wait_for("its end", || !syncs.beside.as_ref().unwrap().is_busy());
        assert!(syncs.are_open(), "nobody has heard of it");
        let error = syncs.wrote(&mut file, now).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(syncs.unsynced_since.is_some());
        now += BATCHED_SYNC_EVERY;
        disk.ends(Ok(()));
        syncs.wrote(&mut file, now).unwrap();
        syncs.finish(&mut file).unwrap();
        assert_eq!(disk.begun.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn the_end_waits_for_what_is_under_way_and_syncs_the_rest() {
        let (mut syncs, mut file, disk) = start(Durability::Batched);
        let mut now = Instant::now();
        syncs.wrote(&mut file, now).unwrap();
        now += BATCHED_SYNC_EVERY;
        syncs.wrote(&mut file, now).unwrap();
        syncs.wrote(&mut file, now).unwrap();
        disk.ends(Ok(()));
        disk.ends(Ok(()));
        syncs.finish(&mut file).unwrap();
        assert_eq!(disk.begun.load(Ordering::SeqCst), 2);
        assert!(!syncs.are_open());
    }

    #[test]
    fn strict_syncs_each_and_os_none() {
        let (mut syncs, mut file, disk) = start(Durability::Strict);
        let now = Instant::now();
        disk.ends(Err(io::ErrorKind::StorageFull.into()));
        assert!(syncs.wrote(&mut file, now).is_err());
        let (mut syncs, mut file, disk_of_os) = start(Durability::Os);
        syncs.wrote(&mut file, now).unwrap();
        syncs.finish(&mut file).unwrap();
        assert_eq!(disk.begun.load(Ordering::SeqCst), 1);
        assert_eq!(disk_of_os.begun.load(Ordering::SeqCst), 0);
    }
}
