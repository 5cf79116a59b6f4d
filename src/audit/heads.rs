//! Heads in a second place: a file on another disk, the log. Who can rewrite or cut the journal cannot
//! rewrite what was kept elsewhere.
//!
//! A thread of its own takes the newest head when it has time for one. The journal never waits for it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::audit::chain::{Hash, read_signature};
use crate::audit::key::Signature;
use crate::audit::segment::FILE_MODE;

/// A head in the file stands for all before it, so that more of them would only narrow what can be cut
/// off unnoticed. One a second is some 20 MB a day at the most.
const FILE_EVERY: Duration = Duration::from_secs(1);
/// The log is read by people too.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// At the stop a file that does not answer (a network mount) is waited for this long.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Where heads go besides the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecondPlace {
    /// A file that lines are added to; on another disk than the journal.
    pub file: Option<PathBuf>,
    /// The process's log.
    pub log: bool,
}

impl SecondPlace {
    pub(super) const fn is_wanted(&self) -> bool {
        self.file.is_some() || self.log
    }
}

/// A head as it is kept: `<seq> <hash> <key id> <signature>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptHead {
    pub seq: u64,
    pub hash: Hash,
    /// Both are missing in a head that somebody noted by hand.
    pub signed: Option<(String, Signature)>,
}

impl fmt::Display for KeptHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.seq, self.hash)?;
        self.signed
            .as_ref()
            .map_or(Ok(()), |(key, signature)| write!(f, " {key} {signature}"))
    }
}

impl KeptHead {
    /// Reads a line of the file, or the first two words of one.
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let seq = words.next()?.parse().ok()?;
        let hash = Hash::read(words.next()?)?;
        let signed = match (words.next(), words.next(), words.next()) {
            (None, ..) => None,
            (Some(key), Some(signature), None) => Some((key.to_owned(), read_signature(signature)?)),
            (Some(_), ..) => return None,
        };
        Some(Self { seq, hash, signed })
    }
}

/// The heads of a file, in their order. A line that was interrupted says nothing, and is passed over.
pub fn kept_in(path: &Path) -> io::Result<impl Iterator<Item = io::Result<KeptHead>> + use<>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut number = 0_u64;
    let mut last = 0;
    let mut line = String::new();
    Ok(std::iter::from_fn(move || {
        loop {
            line.clear();
            number += 1;
            match reader.read_line(&mut line) {
                Err(error) => return Some(Err(error)),
                Ok(0) => return None,
                Ok(_) => {}
            }
            let Some(head) = KeptHead::read(&line).filter(|_| line.ends_with('\n')) else {
                continue;
            };
            let in_order = head.seq >= last;
            last = head.seq;
            let text = format!("line {number} of the kept heads is not in order");
            let wrong = || io::Error::new(io::ErrorKind::InvalidData, text);
            return Some(in_order.then_some(head).ok_or_else(wrong));
        }
    }))
}

/// How often heads were kept.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) kept: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// The door to the thread.
pub(super) struct Heads {
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    newest: Option<KeptHead>,
    is_closing: bool,
    has_ended: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done` or for `limit`.
    fn wait(&self, limit: Option<Duration>, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let begun = Instant::now();
        let mut state = self.lock();
        while !done(&state) {
            let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            state = match left {
                Some(left) => {
                    let woken = self.wake.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state
    }
}

impl Heads {
    pub(super) fn start(place: SecondPlace, counts: Arc<Counts>) -> io::Result<Self> {
        let slot = Arc::new(Slot::default());
        let keeping = Keeping {
            place,
            counts,
            slot: Arc::clone(&slot),
            is_failing: false,
            logged: None,
            unlogged: None,
        };
        let builder = thread::Builder::new().name("journal-heads".to_owned());
        builder.spawn(move || keeping.run())?;
        Ok(Self { slot })
    }

    /// This is the newest head. Never waits for the second place.
    pub(super) fn offer(&self, head: KeptHead) {
        let before = self.slot.lock().newest.replace(head);
        // Where one waits already, the thread knows.
        if before.is_none() {
            self.slot.wake.notify_all();
        }
    }

    /// Keeps the last head, if the second place answers in time.
    pub(super) fn finish(&self) {
        self.slot.lock().is_closing = true;
        self.slot.wake.notify_all();
        let ended = self
            .slot
            .wait(Some(END_WITHIN), |state| state.has_ended)
            .has_ended;
        if !ended {
            tracing::error!("the second place of the journal's heads does not answer");
        }
    }
}

struct Keeping {
    place: SecondPlace,
    counts: Arc<Counts>,
    slot: Arc<Slot>,
    is_failing: bool,
    logged: Option<Instant>,
    unlogged: Option<KeptHead>,
}

impl Keeping {
    fn run(mut self) {
        loop {
            let mut state = self
                .slot
                .wait(None, |state| state.newest.is_some() || state.is_closing);
            let (head, is_last) = (state.newest.take(), state.is_closing);
            drop(state);
            if let Some(head) = head {
                let is_kept = self.keep(&head);
                self.unlogged = Some(head.clone());
                if !is_kept {
                    // Tried again, unless a newer one has come.
                    self.slot.lock().newest.get_or_insert(head);
                }
            }
            self.log(is_last);
            if is_last {
                break;
            }
            drop(self.slot.wait(Some(FILE_EVERY), |state| state.is_closing));
        }
        self.slot.lock().has_ended = true;
        self.slot.wake.notify_all();
    }

    fn keep(&mut self, head: &KeptHead) -> bool {
        let Some(path) = &self.place.file else {
            return true;
        };
        let kept = append(path, head);
        let count = if kept.is_ok() {
            &self.counts.kept
        } else {
            &self.counts.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
        match (&kept, self.is_failing) {
            (Err(error), false) => {
                let path = path.display();
                tracing::error!(%path, %error, "the journal's heads cannot be kept in their second place");
            }
            (Ok(()), true) => tracing::info!("the journal's heads are kept in their second place again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.is_failing = kept.is_err();
        kept.is_ok()
    }

    fn log(&mut self, is_last: bool) {
        let is_due = self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY);
        if self.place.log
            && (is_due || is_last)
            && let Some(head) = self.unlogged.take()
        {
            tracing::info!(%head, "audit head");
            self.logged = Some(Instant::now());
        }
    }
}

/// Opened anew each time: the disk may have been mounted, or the file moved away, since.
fn append(path: &Path, head: &KeptHead) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true).mode(FILE_MODE);
    let mut file = options.open(path)?;
    // A write that was interrupted must not spoil this line too.
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(-1)).is_ok() {
        file.read_exact(&mut last)?;
    }
    let feed = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{feed}{head}\n").as_bytes())?;
    file.sync_data()
}
