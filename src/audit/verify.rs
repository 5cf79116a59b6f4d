//! Proves a journal: nothing in it was changed, removed, inserted or reordered since it was signed.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::audit::chain::{Hash, Line, Link};
use crate::audit::key::PublicKey;

/// What a sound journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub segments: u64,
    pub records: u64,
    pub heads: u64,
    /// The last signed head: keep it elsewhere, and expect it the next time.
    pub head: Option<Head>,
    /// Whole records behind the last head: a write that is going on now, or was interrupted. They
    /// are chained and not signed, so nothing is proved about them.
    pub unsigned: u64,
    /// Bytes of an incomplete last line, for the same reason.
    pub torn_bytes: u64,
}

/// A head, as kept in a second place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    pub seq: u64,
    pub hash: String,
}

/// The first place where a journal is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("{}, line {line}, record {seq}: {what}", file.display())]
pub struct Broken {
    pub file: PathBuf,
    /// From 1; 0 means the file or the directory as a whole.
    pub line: u64,
    /// The record that is at fault: for `Removed` the first that is missing.
    pub seq: u64,
    pub what: Fault,
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("changed")]
    Changed,
    #[error("removed, through record {through}")]
    Removed { through: u64 },
    #[error("inserted here; gatepost did not write it here")]
    Inserted,
    #[error("not in its place: reordered")]
    Reordered,
    #[error("the head is not signed with this key: a record after record {after} was rewritten")]
    Rewritten { after: u64 },
    #[error("cut off: the journal ends before the head that was expected")]
    Cut,
    #[error("signed with another key, {id}")]
    OtherKey { id: String },
    #[error("cannot be read")]
    Unreadable(#[source] io::Error),
}

/// Verifies every segment in `directory`.
pub fn verify(directory: &Path, key: &PublicKey) -> Result<Summary, Broken> {
    verify_expecting(directory, key, None)
}

/// As [`verify`], and proves besides that the journal still reaches `expected`, a head that was
/// kept elsewhere: only so can a cut end be told from an end.
pub fn verify_expecting(
    directory: &Path,
    key: &PublicKey,
    expected: Option<&Head>,
) -> Result<Summary, Broken> {
    let files = segments(directory).map_err(|source| Broken {
        file: directory.to_owned(),
        line: 0,
        seq: 0,
        what: Fault::Unreadable(source),
    })?;
    let count = u64::try_from(files.len()).unwrap_or(u64::MAX);
    let mut lines = files.into_iter().flat_map(lines_of);
    let mut summary = verify_lines(&mut lines, key, expected)?;
    summary.segments = count;
    if summary.records == 0 && expected.is_none() {
        return Err(Broken {
            file: directory.to_owned(),
            line: 0,
            seq: 1,
            what: Fault::Cut,
        });
    }
    Ok(summary)
}

/// One line of a segment, wherever it came from.
pub struct Spot {
    pub file: Arc<Path>,
    /// From 1.
    pub line: u64,
    /// With its line feed, if it has one.
    pub bytes: io::Result<Vec<u8>>,
}

/// The pure core: verifies the lines of a whole journal in order.
pub fn verify_lines(
    lines: &mut dyn Iterator<Item = Spot>,
    key: &PublicKey,
    expected: Option<&Head>,
) -> Result<Summary, Broken> {
    let mut walk = Walk {
        key,
        expected,
        link: Link::START,
        last: None,
        summary: Summary::default(),
    };
    while let Some(spot) = lines.next() {
        let what = match walk.step(&spot) {
            Step::Sound => continue,
            Step::Torn(bytes) => match lines.next() {
                None => {
                    walk.summary.torn_bytes = bytes;
                    break;
                }
                // Only the last line of all can be an interrupted write.
                Some(_) => Fault::Changed,
            },
            Step::Wrong(fault) => fault,
            Step::Misplaced => return Err(walk.name(spot, lines)),
        };
        return Err(walk.broken(&spot, what));
    }
    walk.end()
}

struct Walk<'a> {
    key: &'a PublicKey,
    expected: Option<&'a Head>,
    link: Link,
    last: Option<(Arc<Path>, u64)>,
    summary: Summary,
}

enum Step {
    Sound,
    Torn(u64),
    Misplaced,
    Wrong(Fault),
}

impl Walk<'_> {
    fn step(&mut self, spot: &Spot) -> Step {
        let bytes = match &spot.bytes {
            Ok(bytes) => bytes,
            Err(error) => return Step::Wrong(Fault::Unreadable(io::Error::from(error.kind()))),
        };
        let Some(text) = bytes.strip_suffix(b"\n") else {
            // What an interrupted write leaves is the beginning of a line, never more than a line.
            let is_beginning = !contains_whole_line(bytes);
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            return if is_beginning {
                Step::Torn(length)
            } else {
                Step::Wrong(Fault::Changed)
            };
        };
        let Some(line) = Line::read(text) else {
            return Step::Misplaced;
        };
        if !line.continues(self.link) {
            return Step::Misplaced;
        }
        if let Some(signed) = &line.signed {
            if signed.key != self.key.id() {
                return Step::Wrong(Fault::OtherKey {
                    id: signed.key.to_string(),
                });
            }
            if !self.key.verifies(&line.hash, &signed.signature) {
                let after = self.summary.head.as_ref().map_or(0, |head| head.seq);
                return Step::Wrong(Fault::Rewritten { after });
            }
        }
        self.accept(&line, spot)
    }

    fn accept(&mut self, line: &Line<'_>, spot: &Spot) -> Step {
        if let Some(expected) = self.expected
            && expected.seq == line.seq
            && Hash::read(&expected.hash) != Some(line.hash)
        {
            let after = self.summary.head.as_ref().map_or(0, |head| head.seq);
            return Step::Wrong(Fault::Rewritten { after });
        }
        self.link = line.link();
        self.last = Some((Arc::clone(&spot.file), spot.line));
        self.summary.records += 1;
        self.summary.unsigned += 1;
        if line.signed.is_some() {
            self.summary.unsigned = 0;
            self.summary.heads += 1;
            self.summary.head = Some(Head {
                seq: line.seq,
                hash: line.hash.to_string(),
            });
        }
        Step::Sound
    }

    /// Says what happened where `spot` does not continue the chain: looks whether the record that
    /// belongs here comes later.
    fn name(&self, spot: Spot, rest: &mut dyn Iterator<Item = Spot>) -> Broken {
        let bytes = spot.bytes.as_deref().unwrap_or_default();
        let found = Line::read(bytes.strip_suffix(b"\n").unwrap_or(bytes));
        let found = found.filter(Line::intact).map(|line| (line.seq, line.prev));
        let wanted = self.link.seq.saturating_add(1);
        let mut rest = rest;
        let comes_later = Iterator::any(&mut rest, |later| {
            let bytes = later.bytes.unwrap_or_default();
            let line = bytes.strip_suffix(b"\n").and_then(Line::read);
            line.is_some_and(|line| line.continues(self.link))
        });
        match (found, comes_later) {
            (Some((seq, _)), true) if seq > wanted => self.broken(&spot, Fault::Reordered),
            (Some(_) | None, true) => self.broken(&spot, Fault::Inserted),
            (Some((seq, _)), false) if seq > wanted => {
                self.broken(&spot, Fault::Removed { through: seq - 1 })
            }
            (Some((seq, _)), false) if seq < wanted => self.broken(&spot, Fault::Inserted),
            // An untouched record that names another predecessor: the predecessor was changed and
            // given a fitting hash.
            (Some(_), false) => match &self.last {
                Some((file, line)) => Broken {
                    file: file.to_path_buf(),
                    line: *line,
                    seq: self.link.seq,
                    what: Fault::Changed,
                },
                None => self.broken(&spot, Fault::Changed),
            },
            (None, false) => self.broken(&spot, Fault::Changed),
        }
    }

    fn broken(&self, spot: &Spot, what: Fault) -> Broken {
        Broken {
            file: spot.file.to_path_buf(),
            line: spot.line,
            seq: self.link.seq.saturating_add(1),
            what,
        }
    }

    fn end(self) -> Result<Summary, Broken> {
        let Some(expected) = self.expected.filter(|expected| expected.seq > self.link.seq) else {
            return Ok(self.summary);
        };
        let (file, line) = self.last.unwrap_or_else(|| (Arc::from(Path::new("")), 0));
        let _ = expected;
        Err(Broken {
            file: file.to_path_buf(),
            line,
            seq: self.link.seq.saturating_add(1),
            what: Fault::Cut,
        })
    }
}

/// Does a line end somewhere in `bytes`? Tried at every `"}`, which strings cannot hold unescaped.
fn contains_whole_line(bytes: &[u8]) -> bool {
    let ends = bytes.windows(2).enumerate().filter(|(_, pair)| *pair == b"\"}");
    ends.map(|(at, _)| at + 2)
        .filter(|end| *end < bytes.len())
        .any(|end| {
            bytes
                .get(..end)
                .and_then(Line::read)
                // A head without its signature reads as nothing, so a torn head is no whole line.
                .is_some_and(|line| line.intact())
        })
}

/// The segments of a journal in order.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with("segment-") && name.ends_with(".jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads one segment line by line.
pub(super) fn lines_of(path: PathBuf) -> Box<dyn Iterator<Item = Spot>> {
    let file: Arc<Path> = Arc::from(path);
    let spot = |file: &Arc<Path>, line, bytes| Spot {
        file: Arc::clone(file),
        line,
        bytes,
    };
    let mut reader = match File::open(&file) {
        Ok(open) => BufReader::with_capacity(256 << 10, open),
        Err(error) => return Box::new(std::iter::once(spot(&file, 0, Err(error)))),
    };
    let mut line = 0;
    Box::new(std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        line += 1;
        match reader.read_until(b'\n', &mut bytes) {
            Ok(0) => None,
            Ok(_) => Some(spot(&file, line, Ok(bytes))),
            Err(error) => Some(spot(&file, line, Err(error))),
        }
    }))
}
