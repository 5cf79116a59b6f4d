//! The files of a journal as readers see them: plain or compressed segments, line by line.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

const PREFIX: &str = "segment-";
const PLAIN: &str = ".jsonl";
/// What follows a segment's name when it was compressed.
pub(super) const COMPRESSED: &str = ".gz";
/// Read at once: large against a line, small against a cache.
const BUFFER: usize = 256 << 10;
/// No line is longer; a file without line feeds must not fill the memory of who reads it.
const LINE_MAX: u64 = 8 << 20;

/// One line of a segment, wherever it came from.
pub struct Spot {
    pub file: Arc<Path>,
    /// From 1.
    pub line: u64,
    /// With its line feed, if it has one.
    pub bytes: io::Result<Vec<u8>>,
}

/// The path of the segment whose first record is `seq`.
pub(super) fn path_of(directory: &Path, seq: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{seq:016}{PLAIN}"))
}

/// The first record of a segment, as its name says.
pub(super) fn first_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(COMPRESSED).unwrap_or(name);
    name.strip_prefix(PREFIX)?.strip_suffix(PLAIN)?.parse().ok()
}

pub(super) fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "gz")
}

/// The segments of a journal in order. Where one is there plain and compressed, because the compression
/// was interrupted, the plain one counts.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let plain = name.map(|name| name.strip_suffix(COMPRESSED).unwrap_or(name));
        if plain.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(PLAIN)) {
            files.push(path);
        }
    }
    // `….jsonl` comes before `….jsonl.gz`.
    files.sort();
    files.dedup_by(|later, earlier| {
        is_compressed(later) && later.with_extension("").as_path() == earlier.as_path()
    });
    Ok(files)
}

/// Reads a segment, compressed or not; `read` counts the bytes of the file itself.
fn open(path: &Path, read: &Arc<AtomicU64>) -> io::Result<Box<dyn BufRead + Send>> {
    let opened = File::open(path);
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    if opened.as_ref().is_err_and(is_gone) && !is_compressed(path) {
        // It may have been compressed since it was listed.
        let mut compressed = path.as_os_str().to_owned();
        compressed.push(COMPRESSED);
        if Path::new(&compressed).exists() {
            return open(Path::new(&compressed), read);
        }
    }
    let file = Counting {
        file: opened?,
        read: Arc::clone(read),
    };
    Ok(if is_compressed(path) {
        let inflated = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file));
        Box::new(BufReader::with_capacity(BUFFER, inflated))
    } else {
        Box::new(BufReader::with_capacity(BUFFER, file))
    })
}

/// All of a segment, in memory.
pub(super) fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, &Arc::default())?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Counting {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        let more = u64::try_from(count).unwrap_or(u64::MAX);
        self.read.fetch_add(more, Ordering::Relaxed);
        Ok(count)
    }
}

/// A line that is looked at now; its buffer is used again for the next one.
pub(super) struct Current {
    pub(super) file: Arc<Path>,
    /// From 1; 0 before the first line of a file.
    pub(super) line: u64,
    /// With its line feed, if it has one.
    pub(super) bytes: Vec<u8>,
}

impl Current {
    pub(super) fn new() -> Self {
        Self {
            file: Arc::from(Path::new("")),
            line: 0,
            bytes: Vec::new(),
        }
    }

    /// Without its line feed; `None` if it has none.
    pub(super) fn text(&self) -> Option<&[u8]> {
        self.bytes.strip_suffix(b"\n")
    }
}

/// Where lines come from, one after the other.
pub(super) trait Source {
    /// Puts the next line into `current`; `false` at the end of all.
    fn next_line(&mut self, current: &mut Current) -> io::Result<bool>;

    /// How far it is, in bytes of the files.
    fn bytes_read(&self) -> u64 {
        0
    }
}

/// All lines of these files.
pub(super) struct Files {
    files: std::vec::IntoIter<PathBuf>,
    reader: Option<Box<dyn BufRead + Send>>,
    read: Arc<AtomicU64>,
}

impl Files {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        Self {
            files: files.into_iter(),
            reader: None,
            read: Arc::default(),
        }
    }
}

impl Source for Files {
    fn next_line(&mut self, current: &mut Current) -> io::Result<bool> {
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => {
                    let Some(path) = self.files.next() else {
                        return Ok(false);
                    };
                    current.file = Arc::from(path);
                    current.line = 0;
                    self.reader.insert(open(&current.file, &self.read)?)
                }
            };
            current.bytes.clear();
            let count = reader.take(LINE_MAX).read_until(b'\n', &mut current.bytes)?;
            if count > 0 {
                current.line += 1;
                return Ok(true);
            }
            self.reader = None;
        }
    }

    fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// Reads one segment line by line. Behind its end it says `None`, and goes on when the file has grown.
pub(super) fn lines_of(path: PathBuf) -> Box<dyn Iterator<Item = Spot>> {
    let file: Arc<Path> = Arc::from(path);
    let (mut reader, mut line, mut failed) = (None, 0, false);
    Box::new(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let mut bytes = Vec::new();
        let read = match &mut reader {
            Some(reader) => next_of(reader, &mut bytes),
            None => open(&file, &Arc::default()).and_then(|new| next_of(reader.insert(new), &mut bytes)),
        };
        let bytes = match read {
            Ok(0) => return None,
            Ok(_) => Ok(bytes),
            Err(error) => {
                failed = true;
                Err(error)
            }
        };
        line += 1;
        Some(Spot {
            file: Arc::clone(&file),
            line,
            bytes,
        })
    }))
}

fn next_of(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<usize> {
    reader.take(LINE_MAX).read_until(b'\n', bytes)
}
