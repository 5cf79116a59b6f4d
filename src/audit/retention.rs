//! What becomes of old segments: they are compressed, and later removed.
//!
//! A thread of its own, with low priority, does both; the journal never waits for it. It touches only
//! segments behind which another one has begun. Every step leaves a journal that can be read: the
//! compressed file is whole and on disk before the plain one goes, and a segment is removed when the record
//! that says so is on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::audit::chain::{Hash, Line};
use crate::audit::journal::{Asking, JournalError};
use crate::audit::record::Event;
use crate::audit::reserve::free;
use crate::audit::segment::FILE_MODE;
use crate::audit::stored::{COMPRESSED, Current, Files, Source as _, is_compressed, lines_of, segments};

/// Ages are days, so that an hour more does not matter.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// Compressed at once: after each block the thread looks whether the process is to end.
const BLOCK: usize = 1 << 20;
/// Behind the segment's own name, while it is written.
const UNFINISHED: &str = ".new";
/// Added to the thread's nice value: whoever serves a client goes first.
const NICE: i32 = 10;

/// How long segments are kept, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// From this age on a segment is kept compressed.
    pub compress_after: Option<Duration>,
    /// From this age on a segment is removed.
    pub keep: Option<Duration>,
}

impl Retention {
    pub(super) const fn is_wanted(&self) -> bool {
        self.compress_after.is_some() || self.keep.is_some()
    }
}

/// Why a segment stays as it is until the next look.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error("the journal is closing")]
    Closing,
    #[error("cannot work on {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not as it was written; run \"gatepost audit verify\"", path.display())]
    Unsound { path: PathBuf },
    #[error("its end cannot be recorded")]
    Unrecorded(#[source] JournalError),
}

/// Starts the thread. It ends soon after the journal begins to close, if it is woken.
pub(super) fn start(directory: PathBuf, retention: Retention, asking: Asking) -> io::Result<JoinHandle<()>> {
    let keeping = Keeping {
        directory,
        retention,
        asking,
    };
    let builder = thread::Builder::new().name("journal-old".to_owned());
    builder.spawn(move || keeping.run())
}

struct Keeping {
    directory: PathBuf,
    retention: Retention,
    asking: Asking,
}

impl Keeping {
    fn run(self) {
        // On Linux this counts for the calling thread alone. Without it the thread is only less polite.
        let _polite = rustix::process::nice(NICE);
        while let Some(now) = self.asking.now() {
            match self.look(now) {
                Ok(()) | Err(Stuck::Closing) => {}
                Err(stuck) => {
                    let error: &dyn std::error::Error = &stuck;
                    tracing::error!(error, "an old segment of the audit journal stays as it is");
                }
            }
            if self.asking.now().is_some() {
                thread::park_timeout(LOOK_EVERY);
            }
        }
    }

    /// Brings every old segment into the state that its age asks for, the oldest first.
    fn look(&self, now: SystemTime) -> Result<(), Stuck> {
        let files = self.files()?;
        // One that is stuck does not hold up the compression of others. Removal goes by age, without gaps.
        let (mut may_expire, mut done) = (true, Ok(()));
        // Everything in a segment is older than the first record of the next one.
        for pair in files.windows(2) {
            let [old, next] = pair else { continue };
            let Some(begun) = begun(next) else {
                // The last segment has no record yet, so this one is still the end of the chain.
                continue;
            };
            let age = now.duration_since(begun).unwrap_or_default();
            let is_reached = |limit: Option<Duration>| limit.is_some_and(|limit| age >= limit);
            let step = if may_expire && is_reached(self.retention.keep) {
                let expired = self.expire(old, next);
                may_expire = expired.is_ok();
                expired
            } else if is_reached(self.retention.compress_after) {
                self.compress(old)
            } else {
                Ok(())
            };
            done = done.and(step);
        }
        done
    }

    /// The segments, without what an interrupted compression left.
    fn files(&self) -> Result<Vec<PathBuf>, Stuck> {
        let here = |source| Stuck::File {
            path: self.directory.clone(),
            source,
        };
        for entry in fs::read_dir(&self.directory).map_err(here)? {
            let path = entry.map_err(here)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with("segment-") && name.ends_with(UNFINISHED)) {
                fs::remove_file(&path).map_err(here)?;
            }
        }
        segments(&self.directory).map_err(here)
    }

    /// Removes a segment, when it is on record with the hash of its last record.
    fn expire(&self, old: &Path, next: &Path) -> Result<(), Stuck> {
        let unsound = || Stuck::Unsound { path: old.to_owned() };
        let failed = failed(old);
        // The next segment says what it follows, and its first record's hash covers that.
        let first = lines_of(next.to_owned()).next().ok_or_else(unsound)?;
        let first = first.bytes.map_err(&failed)?;
        let first = first.strip_suffix(b"\n").and_then(Line::read);
        let first = first.filter(Line::intact).ok_or_else(unsound)?;
        let through_seq = first.seq.saturating_sub(1);
        if last_of(old).map_err(&failed)? != Some((through_seq, first.prev)) {
            return Err(unsound());
        }
        let hash = first.prev;
        let recorded = self.asking.append(Event::JournalExpired { through_seq, hash });
        recorded.map_err(Stuck::Unrecorded)?;
        fs::remove_file(old).map_err(&failed)?;
        // What an interrupted compression left of it.
        let _none_left = fs::remove_file(compressed(old));
        sync(&self.directory).map_err(&failed)?;
        tracing::info!(segment = %old.display(), through_seq, "an old segment of the audit journal was removed");
        Ok(())
    }

    fn compress(&self, plain: &Path) -> Result<(), Stuck> {
        if is_compressed(plain) {
            return Ok(());
        }
        let failed = failed(plain);
        let size = fs::metadata(plain).map_err(&failed)?.len();
        // The journal's own room comes first: it compresses to a tenth, but that is not known before.
        if free(&self.directory).map_err(&failed)? < size {
            return Err(failed(io::ErrorKind::StorageFull.into()));
        }
        let done = compressed(plain);
        let unfinished = appended(&done, UNFINISHED);
        let copied = self.copy(plain, &unfinished);
        if copied.is_err() {
            let _none_left = fs::remove_file(&unfinished);
        }
        copied?;
        fs::rename(&unfinished, &done).map_err(&failed)?;
        sync(&self.directory).map_err(&failed)?;
        fs::remove_file(plain).map_err(&failed)?;
        sync(&self.directory).map_err(&failed)
    }

    /// Writes the compressed file, and reads it back.
    fn copy(&self, plain: &Path, unfinished: &Path) -> Result<(), Stuck> {
        let failed = failed(plain);
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = options.open(unfinished).map_err(&failed)?;
        let mut encoder = GzEncoder::new(file, Compression::default());
        let mut input = File::open(plain).map_err(&failed)?;
        let written = self.blocks(&mut input, plain, |block| encoder.write_all(block))?;
        let file = encoder.finish().map_err(&failed)?;
        file.sync_all().map_err(&failed)?;
        drop(file);
        let file = File::open(unfinished).map_err(&failed)?;
        let mut inflated = MultiGzDecoder::new(BufReader::new(file));
        let read = self.blocks(&mut inflated, plain, |_| Ok(()))?;
        if read == written {
            Ok(())
        } else {
            Err(failed(io::ErrorKind::InvalidData.into()))
        }
    }

    /// Hands on everything in blocks, and returns a hash over them.
    fn blocks(
        &self,
        input: &mut dyn Read,
        path: &Path,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Hash, Stuck> {
        let failed = failed(path);
        let mut block = Vec::with_capacity(BLOCK);
        let mut hash = Hash::ZERO;
        let limit = u64::try_from(BLOCK).unwrap_or(u64::MAX);
        loop {
            block.clear();
            let count = input.take(limit).read_to_end(&mut block).map_err(&failed)?;
            if count == 0 {
                return Ok(hash);
            }
            hash = Hash::of(&[&hash.bytes(), &block]);
            each(&block).map_err(&failed)?;
            if self.asking.now().is_none() {
                return Err(Stuck::Closing);
            }
        }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Stuck {
    let path = path.to_owned();
    move |source| Stuck::File {
        path: path.clone(),
        source,
    }
}

fn compressed(plain: &Path) -> PathBuf {
    appended(plain, COMPRESSED)
}

fn appended(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// When the first record of a segment was made.
fn begun(segment: &Path) -> Option<SystemTime> {
    #[derive(serde::Deserialize)]
    struct Dated<'a> {
        at: &'a str,
    }
    let first = lines_of(segment.to_owned()).next()?.bytes.ok()?;
    let dated: Dated<'_> = serde_json::from_slice(&first).ok()?;
    humantime::parse_rfc3339(dated.at).ok()
}

/// The last record of a segment and its hash.
fn last_of(segment: &Path) -> io::Result<Option<(u64, Hash)>> {
    let mut files = Files::new(vec![segment.to_owned()]);
    let mut current = Current::new();
    let mut last = Vec::new();
    while files.next_line(&mut current)? {
        std::mem::swap(&mut last, &mut current.bytes);
    }
    let line = last.strip_suffix(b"\n").and_then(Line::read);
    Ok(line.filter(Line::intact).map(|line| (line.seq, line.hash)))
}
