//! The files of a journal, behind a trait so that tests can count syncs and fill the disk; and how
//! the end of a journal is read at start-up.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit::chain::{Line, Link};
use crate::audit::journal::JournalError;
use crate::audit::key::PublicKey;
use crate::audit::marks::SEALED;
use crate::audit::reserve;
use crate::audit::stored::{self, Current, Source as _, is_compressed, path_of, segments};
use crate::audit::tree::{Tree, leaf};
use crate::audit::verify::{Broken, Fault};

const LOCK_FILE: &str = "lock";
/// Only gatepost writes; reading is granted by group or ACL on purpose, not by default.
pub(super) const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// How much of a segment's end is read first; doubled until it holds a head.
const TAIL_BYTES: u64 = 64 << 10;

/// Where segments are written.
pub(super) trait Files: Send {
    fn directory(&self) -> &Path;
    /// Opens or creates a segment, and makes its name durable.
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    /// Bytes that can still be written.
    fn free(&self) -> io::Result<u64>;
    /// Sets this much of the disk aside, whole or not at all.
    fn hold_reserve(&mut self, bytes: u64) -> io::Result<()>;
    /// Gives what was set aside to whoever writes next.
    fn release_reserve(&mut self) -> io::Result<()>;
}

/// One segment that is being written.
pub(super) trait SegmentFile: Send {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to this length.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// The same file for another thread, which syncs it.
    fn twin(&self) -> io::Result<Box<dyn SegmentFile>>;
}

/// A real directory.
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Files for Directory {
    fn directory(&self) -> &Path {
        &self.path
    }

    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(path)?;
        File::open(&self.path)?.sync_all()?;
        Ok(Box::new(file))
    }

    fn free(&self) -> io::Result<u64> {
        reserve::free(&self.path)
    }

    fn hold_reserve(&mut self, bytes: u64) -> io::Result<()> {
        reserve::hold(&self.path, bytes)
    }

    fn release_reserve(&mut self) -> io::Result<()> {
        reserve::release(&self.path)
    }
}

impl SegmentFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn twin(&self) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(self.try_clone()?))
    }
}

pub(super) fn open_error(path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Open {
        path,
        source: Arc::new(source),
    }
}

/// Makes the directory if need be and takes its lock, which the returned file holds.
pub(super) fn lock(directory: &Path) -> Result<File, JournalError> {
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(open_error(directory))?;
    let path = directory.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(FILE_MODE);
    let file = options.open(&path).map_err(open_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked {
            directory: directory.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(open_error(&path)(source)),
    }
}

/// The end of a journal, ready to be continued.
#[derive(Debug)]
pub(super) struct End {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) link: Link,
    /// Of the last record; 0 for a new journal.
    pub(super) epoch: u64,
    pub(super) bytes_cut: u64,
    pub(super) unsigned: u64,
    /// Who signed the last head.
    pub(super) signer: Option<PublicKey>,
    /// Over what stands in the segment that is continued.
    pub(super) tree: Tree,
}

/// Reads the end of the journal backwards to its last head, and verifies it from there. `keys` are those
/// that may have signed it. A segment that was sealed, or compressed, is not continued: a new one begins.
pub(super) fn find_end(directory: &Path, keys: &[PublicKey]) -> Result<End, JournalError> {
    let files = segments(directory).map_err(open_error(directory))?;
    let mut end = End {
        path: path_of(directory, 1),
        offset: 0,
        link: Link::START,
        epoch: 0,
        bytes_cut: 0,
        unsigned: 0,
        signer: None,
        tree: Tree::default(),
    };
    let Some((last, before)) = files.split_last() else {
        return Ok(end);
    };
    end.path.clone_from(last);
    let (tail, has_head, start) = read_tail(last)?;
    if !has_head && let Some(previous) = before.last() {
        // The first write into a new segment was interrupted; the one before ends with a head.
        let (tail, _, _) = read_tail(previous)?;
        scan(&tail, previous, keys, &mut end)?;
        if end.bytes_cut > 0 || end.unsigned > 0 {
            return Err(broken(previous, end.link.seq, Fault::Changed));
        }
        end.offset = 0;
    }
    let before = end.link;
    scan(&tail, last, keys, &mut end)?;
    end.offset += start;
    let (tree, is_sealed) = retrace(last, end.offset, has_head.then_some(end.link), before)?;
    if is_sealed && end.bytes_cut == 0 || is_compressed(last) {
        end.path = path_of(directory, end.link.seq.saturating_add(1));
        end.offset = 0;
    } else {
        end.tree = tree;
    }
    Ok(end)
}

/// Follows the chain through what is kept of a segment that may be continued, so that no seal of this
/// process can cover what another wrote into it meanwhile: the last head signs the end, and the end says
/// all before it. Says also whether the segment is sealed.
fn retrace(file: &Path, length: u64, end: Option<Link>, before: Link) -> Result<(Tree, bool), JournalError> {
    let mut tree = Tree::default();
    let mut link = end.is_none().then_some(before);
    let (mut is_seal, mut is_sealed) = (false, false);
    let (mut read, mut current) = (0, Current::new());
    let mut files = stored::Files::new(vec![file.to_owned()]);
    while read < length && files.next_line(&mut current).map_err(open_error(file))? {
        read += u64::try_from(current.bytes.len()).unwrap_or(u64::MAX);
        let line = current.text().and_then(|text| Some((text, Line::read(text)?)));
        let seq = link.map_or(0, |link: Link| link.seq.saturating_add(1));
        let (text, line) = line.ok_or_else(|| broken(file, seq, Fault::Changed))?;
        if !link.map_or_else(|| line.intact(), |link| line.continues(link)) {
            return Err(broken(file, line.seq, Fault::Changed));
        }
        is_sealed = is_seal && line.signed.is_some();
        is_seal = line.event == SEALED;
        link = Some(line.link());
        tree.push(leaf(text));
    }
    match (link, end) {
        (Some(link), Some(end)) if link != end => Err(broken(file, link.seq, Fault::Changed)),
        _ => Ok((tree, is_sealed)),
    }
}

/// Takes the lines of `tail` from its last head on (from its beginning without one), and says in
/// `end` where the sound part stops.
fn scan(tail: &[u8], file: &Path, keys: &[PublicKey], end: &mut End) -> Result<(), JournalError> {
    let mut at = last_head(tail).unwrap_or(0);
    end.offset = 0;
    let mut is_first = last_head(tail).is_some();
    while let Some(rest) = tail.get(at..).filter(|rest| !rest.is_empty()) {
        let length = rest.iter().position(|byte| *byte == b'\n').map(|feed| feed + 1);
        let whole = length.and_then(|length| rest.get(..length));
        // Blocks that a power cut lost read as zeros, which no line holds.
        let Some(whole) = whole.filter(|whole| !whole.contains(&0)) else {
            end.bytes_cut = u64::try_from(rest.len()).unwrap_or(u64::MAX);
            break;
        };
        let seq = end.link.seq.saturating_add(1);
        let line = whole.strip_suffix(b"\n").and_then(Line::read);
        let line = line.ok_or_else(|| broken(file, seq, Fault::Changed))?;
        let sound = if is_first {
            line.intact()
        } else {
            line.continues(end.link)
        };
        if !sound {
            return Err(broken(file, line.seq, Fault::Changed));
        }
        end.unsigned += 1;
        if let Some(signed) = &line.signed {
            let Some(key) = keys.iter().find(|key| key.id() == signed.key) else {
                let directory = file.parent().unwrap_or(file).to_owned();
                let id = signed.key.to_string();
                return Err(JournalError::OtherKey { directory, id });
            };
            if !key.verifies(&line.hash, &signed.signature) {
                return Err(broken(file, line.seq, Fault::Rewritten { after: 0 }));
            }
            end.unsigned = 0;
            end.signer = Some(key.clone());
        }
        is_first = false;
        end.link = line.link();
        end.epoch = line.epoch;
        at += whole.len();
    }
    end.offset = u64::try_from(at).unwrap_or(u64::MAX);
    Ok(())
}

fn broken(file: &Path, seq: u64, what: Fault) -> JournalError {
    JournalError::Broken(Arc::new(Broken {
        file: file.to_owned(),
        line: 0,
        seq,
        what,
    }))
}

/// Where the last whole line that is a head begins.
fn last_head(tail: &[u8]) -> Option<usize> {
    let mut stop = tail.iter().rposition(|byte| *byte == b'\n')?;
    loop {
        let lines = tail.get(..stop)?;
        let start = lines
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |feed| feed + 1);
        if Line::read(lines.get(start..)?).is_some_and(|line| line.signed.is_some()) {
            return Some(start);
        }
        stop = start.checked_sub(1)?;
    }
}

/// The last bytes of a segment, as many as it takes to hold a head or else all; whether they hold
/// one; and where they start in the file.
fn read_tail(path: &Path) -> Result<(Vec<u8>, bool, u64), JournalError> {
    if is_compressed(path) {
        let bytes = stored::read_whole(path).map_err(open_error(path))?;
        let has_head = last_head(&bytes).is_some();
        return Ok((bytes, has_head, 0));
    }
    let mut file = File::open(path).map_err(open_error(path))?;
    let length = file.metadata().map_err(open_error(path))?.len();
    let mut wanted = TAIL_BYTES;
    loop {
        let start = length.saturating_sub(wanted);
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(start)).map_err(open_error(path))?;
        file.read_to_end(&mut tail).map_err(open_error(path))?;
        let has_head = last_head(&tail).is_some();
        if has_head || start == 0 {
            return Ok((tail, has_head, start));
        }
        wanted = wanted.saturating_mul(2);
    }
}
