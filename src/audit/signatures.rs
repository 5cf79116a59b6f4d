//! Signatures of heads, checked beside the walk through the journal: they cost more than all the rest.

use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::audit::chain::Hash;
use crate::audit::key::{PublicKey, Signature};

/// Checked at once by one thread: some ten milliseconds of work, so that handing it over costs nothing.
const BATCH: usize = 256;
/// Batches that may wait: the walk is held back rather than filling the memory.
const WAITING_MAX: usize = 64;
/// More threads than this wait for the walk.
const THREADS_MAX: usize = 8;

/// A head whose signature is to be checked.
pub(super) struct Claim {
    pub(super) seq: u64,
    pub(super) hash: Hash,
    pub(super) signature: Signature,
    pub(super) key: Arc<PublicKey>,
    /// The head before it; 0 if there is none.
    pub(super) after: u64,
    pub(super) file: Arc<Path>,
    pub(super) line: u64,
}

impl Claim {
    fn holds(&self) -> bool {
        self.key.verifies(&self.hash, &self.signature)
    }
}

/// What the threads share.
#[derive(Default)]
struct Found {
    any: AtomicBool,
    first: Mutex<Option<Claim>>,
}

impl Found {
    fn check(&self, batch: Vec<Claim>) {
        let Some(wrong) = batch.into_iter().find(|claim| !claim.holds()) else {
            return;
        };
        // The claim is whole, whoever panicked.
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|first| wrong.seq < first.seq) {
            *first = Some(wrong);
        }
        self.any.store(true, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Signatures {
    batch: Vec<Claim>,
    found: Arc<Found>,
    threads: Option<Threads>,
}

struct Threads {
    sender: SyncSender<Vec<Claim>>,
    handles: Vec<JoinHandle<()>>,
}

impl Signatures {
    pub(super) fn add(&mut self, claim: Claim) {
        self.batch.push(claim);
        if self.batch.len() < BATCH {
            return;
        }
        let batch = mem::take(&mut self.batch);
        let threads = self.threads.get_or_insert_with(|| Threads::start(&self.found));
        if let Err(unsent) = threads.sender.send(batch) {
            // Without a thread it is done here.
            self.found.check(unsent.0);
        }
    }

    /// Is one known to be wrong? It is the first only when [`Self::first_wrong`] says so.
    pub(super) fn any_wrong(&self) -> bool {
        self.found.any.load(Ordering::Relaxed)
    }

    /// Waits for all checks.
    pub(super) fn first_wrong(mut self) -> Option<Claim> {
        self.found.check(mem::take(&mut self.batch));
        if let Some(Threads { sender, handles }) = self.threads {
            drop(sender);
            for handle in handles {
                let _ended = handle.join();
            }
        }
        let mut first = self.found.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.take()
    }
}

impl Threads {
    fn start(found: &Arc<Found>) -> Self {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let handles = (0..count.min(THREADS_MAX)).filter_map(|_| {
            let (receiver, found) = (Arc::clone(&receiver), Arc::clone(found));
            let builder = thread::Builder::new().name("signatures".to_owned());
            builder.spawn(move || work(&receiver, &found)).ok()
        });
        let handles = handles.collect();
        Self { sender, handles }
    }
}

fn work(receiver: &Mutex<Receiver<Vec<Claim>>>, found: &Found) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(batch) => found.check(batch),
            Err(_) => return,
        }
    }
}
