//! Reading a journal while it is written: what is there, and then, at each look, what has been added,
//! also across the change to a new segment.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::audit::entry::{Entry, Found, ReadError};
use crate::audit::stored::{Spot, lines_of, segments};

/// Follows a journal. It reads the segment at the end as it grows; what does not continue what was read
/// before (a failed write that was cut off, and written again) is read anew from its segment's beginning.
/// A gap that is there then too is passed over: proving is for `verify`.
pub struct Follower {
    directory: PathBuf,
    /// The last record that was given out.
    seen: u64,
    open: Option<Open>,
    /// Looks that ended before a line that is no record.
    stuck: u32,
}

/// Looks after which a line that is no record is not taken for one that is being cut off any more.
const STUCK_MAX: u32 = 10;

struct Open {
    path: PathBuf,
    lines: Box<dyn Iterator<Item = Spot>>,
    /// The beginning of a line that is still being written.
    torn: Vec<u8>,
    /// Lines that were read.
    read: u64,
}

enum Next {
    Found(Box<Found>),
    /// Nothing more for now.
    End,
    /// A line that is no record.
    Amiss,
}

impl Follower {
    /// Begins behind record `seen`; 0 is the beginning of the journal.
    pub fn new(directory: &Path, seen: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            seen,
            open: None,
            stuck: 0,
        }
    }

    /// The records since the last look, each handed to `emit`. Returns when there are no more for now.
    pub fn look<E: From<ReadError>>(
        &mut self,
        emit: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        // Whether a segment comes after this one is asked before this one is read to its end: so its end
        // cannot be missed.
        loop {
            let files = segments(&self.directory).map_err(ReadError::Read)?;
            let next = match &self.open {
                None => beginning(&files, self.seen).cloned(),
                Some(open) => files.into_iter().find(|file| *file > open.path),
            };
            self.read_open(emit)?;
            let Some(path) = next else {
                return Ok(());
            };
            self.open = Some(Open::new(path));
        }
    }

    fn read_open<E: From<ReadError>>(
        &mut self,
        emit: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let mut is_fresh = false;
        loop {
            match open.next(self.seen)? {
                Next::Found(found) if is_fresh || found.entry.seq == self.seen + 1 || self.seen == 0 => {
                    self.seen = found.entry.seq;
                    self.stuck = 0;
                    if let Err(enough) = emit(*found) {
                        // The next look goes on behind it.
                        self.open = Some(open);
                        return Err(enough);
                    }
                }
                Next::Found(_) | Next::Amiss if !is_fresh => {
                    open = Open::new(open.path);
                    is_fresh = true;
                }
                Next::Found(_) | Next::Amiss => {
                    self.stuck += 1;
                    if self.stuck > STUCK_MAX {
                        let file = open.path.display().to_string();
                        return Err(ReadError::NotARecord {
                            file,
                            line: open.read,
                        }
                        .into());
                    }
                    open = Open::new(open.path);
                    break;
                }
                Next::End => break,
            }
        }
        self.open = Some(open);
        Ok(())
    }
}

/// The segment that holds the record behind `seen`; the first one that is left, where that one is gone.
fn beginning(files: &[PathBuf], seen: u64) -> Option<&PathBuf> {
    let earlier = files.iter().take_while(|file| {
        let first = first_seq(file);
        first.is_some_and(|first| first <= seen.saturating_add(1))
    });
    earlier.last().or_else(|| files.first())
}

/// Of `segment-0000000000000042.jsonl`.
fn first_seq(file: &Path) -> Option<u64> {
    let name = file.file_name()?.to_str()?.strip_prefix("segment-")?;
    name.split('.').next()?.parse().ok()
}

/// The number of the newest whole record of a journal, from the end of its last segment.
pub fn newest(directory: &Path) -> Option<u64> {
    /// Records have a few KiB as a rule; a longer one makes the answer that of the record before.
    const END_BYTES: u64 = 256 * 1024;
    let mut file = File::open(segments(directory).ok()?.last()?).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))
        .ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    let mut lines = end.split_inclusive(|byte| *byte == b'\n').rev();
    lines.find_map(|line| Some(Entry::read(line.strip_suffix(b"\n")?)?.seq))
}

impl Open {
    fn new(path: PathBuf) -> Self {
        let lines = lines_of(path.clone());
        Self {
            path,
            lines,
            torn: Vec::new(),
            read: 0,
        }
    }

    /// The next record behind `seen`.
    fn next(&mut self, seen: u64) -> Result<Next, ReadError> {
        // At the end of the file the iterator says `None`, and goes on when the file has grown.
        for spot in self.lines.by_ref() {
            self.torn.extend(spot.bytes?);
            if self.torn.last() != Some(&b'\n') {
                continue;
            }
            let mut line = std::mem::take(&mut self.torn);
            line.pop();
            self.read += 1;
            let Some(entry) = Entry::read(&line) else {
                return Ok(Next::Amiss);
            };
            if entry.seq <= seen {
                continue;
            }
            return Ok(Next::Found(Box::new(Found { entry, line })));
        }
        Ok(Next::End)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;

    use super::*;

    fn seen(follower: &mut Follower) -> Vec<u64> {
        let mut seqs = Vec::new();
        let looked = follower.look(&mut |found| {
            seqs.push(found.entry.seq);
            Ok::<_, ReadError>(())
        });
        looked.unwrap();
        seqs
    }

    fn line(seq: u64) -> String {
        format!("{{\"seq\":{seq},\"event\":\"x\"}}\n")
    }

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_growing_journal_is_followed_across_segments_and_torn_lines() {
        let folder = tempfile::tempdir().unwrap();
        let segment = |seq: u64| folder.path().join(format!("segment-{seq:016}.jsonl"));
        let mut follower = Follower::new(folder.path(), 0);
        assert_eq!(seen(&mut follower), [0; 0]);
        append(&segment(1), &(line(1) + &line(2) + &line(3)[..9]));
        assert_eq!(seen(&mut follower), [1, 2]);
        append(&segment(1), &line(3)[9..]);
        assert_eq!(seen(&mut follower), [3]);
        append(&segment(1), &line(4));
        append(&segment(5), &(line(5) + &line(6)));
        append(&segment(7), &line(7));
        assert_eq!(seen(&mut follower), [4, 5, 6, 7]);
        assert_eq!(seen(&mut follower), [0; 0]);
    }

    #[test]
    fn what_was_cut_off_and_written_again_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment-0000000000000001.jsonl");
        append(&path, &(line(1) + "{\"seq\":2,\"event\":\"half of a failed wri"));
        let mut follower = Follower::new(folder.path(), 0);
        assert_eq!(seen(&mut follower), [1]);
        fs::write(&path, line(1)).unwrap();
        append(&path, &(line(2) + &line(3) + &line(4) + &line(5)));
        let mut all = seen(&mut follower);
        all.extend(seen(&mut follower));
        assert_eq!(all, [2, 3, 4, 5]);
    }

    #[test]
    fn only_what_comes_behind_a_record_can_be_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment-0000000000000001.jsonl");
        append(&path, &(line(1) + &line(2) + &line(3)));
        assert_eq!(seen(&mut Follower::new(folder.path(), 2)), [3]);
    }
}
