//! A journal of ten thousand records, and everything that can be done to it: found, and named right.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::{Hash, Line, Link};
use super::heads::KeptHead;
use super::journal::*;
use super::key::PublicKey;
use super::stored::segments;
use super::tests::{Still, new_key, normalise, opened, run, settings};
use super::verify::{Broken, Demands, Fault, verify, verify_all};

const RECORDS: u64 = 10_000;
/// Each kind of edit is made at so many places.
const PLACES: usize = 6;

/// The same places each time (splitmix64).
struct Places(u64);

impl Places {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }
}

/// A journal as its lines, and the segments that they stand in.
#[derive(Clone)]
struct Written {
    segments: Vec<(PathBuf, Vec<String>)>,
}

impl Written {
    fn make(directory: &Path, pem: &str) -> Self {
        run(async {
            let small = Settings {
                segment_bytes: 400_000,
                durability: Durability::Os,
                ..settings(directory, pem)
            };
            let journal = Journal::open(small, Arc::new(Still), normalise).unwrap();
            // Groups of some records, as a proxy under load makes them.
            for number in 0..RECORDS {
                if number % 7 == 0 {
                    journal.append(opened(number)).await.unwrap();
                } else {
                    journal.submit(opened(number)).unwrap();
                }
            }
            journal.close().await;
        });
        let files = segments(directory).unwrap().into_iter().map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text.lines().map(str::to_owned).collect())
        });
        Self {
            segments: files.collect(),
        }
    }

    fn len(&self) -> usize {
        self.segments.iter().map(|(_, lines)| lines.len()).sum()
    }

    /// The segment and the line in it where record `at + 1` stands.
    fn place(&self, at: usize) -> (usize, usize) {
        let mut left = at;
        for (segment, (_, lines)) in self.segments.iter().enumerate() {
            if left < lines.len() {
                return (segment, left);
            }
            left -= lines.len();
        }
        panic!("no record {at}");
    }

    fn line(&mut self, at: usize) -> &mut String {
        let (segment, line) = self.place(at);
        &mut self.segments[segment].1[line]
    }

    fn remove(&mut self, at: usize) -> String {
        let (segment, line) = self.place(at);
        self.segments[segment].1.remove(line)
    }

    fn insert(&mut self, at: usize, text: String) {
        let (segment, line) = self.place(at);
        self.segments[segment].1.insert(line, text);
    }

    /// Writes it to another folder, and returns what verification says.
    fn verdict(&self, public: &PublicKey, kept: Option<&KeptHead>) -> Broken {
        let folder = tempfile::tempdir().unwrap();
        for (path, lines) in &self.segments {
            let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
        }
        let demands = Demands {
            kept: Box::new(kept.cloned().into_iter().map(Ok)),
            ..Demands::key(public)
        };
        verify_all(folder.path(), demands, &mut |_| {}).expect_err("an altered journal")
    }

    /// The same, and the place that is named as an index into all lines.
    fn found(&self, public: &PublicKey) -> (usize, Fault) {
        let broken = self.verdict(public, None);
        (self.index(&broken), broken.what)
    }

    fn index(&self, broken: &Broken) -> usize {
        let name = broken.file.file_name();
        let before = self
            .segments
            .iter()
            .take_while(|(path, _)| path.file_name() != name);
        let before: usize = before.map(|(_, lines)| lines.len()).sum();
        before + broken.line as usize - 1
    }
}

/// `line` with other contents and a hash that fits, behind `prev`.
fn forged(line: &str, prev: Hash) -> String {
    let (contents, _) = line.split_once(r#","prev":""#).unwrap();
    let mut bytes = format!("{contents}}}").into_bytes();
    let link = Link {
        seq: Line::read(line.as_bytes()).unwrap().seq - 1,
        hash: prev,
    };
    link.seal(&mut bytes, 0);
    String::from_utf8(bytes).unwrap()
}

fn hash_of(line: &str) -> Hash {
    Line::read(line.as_bytes()).unwrap().hash
}

fn is_head(line: &str) -> bool {
    line.contains(r#""event":"head""#)
}

/// A record that another was made of: its number of transactions is another one.
fn altered(line: &str) -> String {
    let changed = line.replacen(r#""transactions":"#, r#""transactions":9"#, 1);
    assert_ne!(changed, line);
    changed
}

/// Edits of single lines at random places. `edit` says which line has to be named, and the fault is looked at.
fn at_places(
    seed: u64,
    edit: impl Fn(&mut Written, usize) -> usize,
    is_right: impl Fn(&Fault) -> bool,
    wanted: impl Fn(&Written, usize) -> bool,
) {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    let written = Written::make(directory.path(), &pem);
    assert!(written.segments.len() > 3 && written.len() > 10_000);
    verify(directory.path(), &public).unwrap();
    let mut places = Places(seed);
    let mut done = 0;
    while done < PLACES {
        let at = 10 + places.below(written.len() - 30);
        if !wanted(&written, at) {
            continue;
        }
        let mut edited = written.clone();
        let named = edit(&mut edited, at);
        let (index, fault) = edited.found(&public);
        assert!(is_right(&fault), "record {}: {fault}", at + 1);
        assert_eq!(index, named, "record {}: {fault}", at + 1);
        done += 1;
    }
}

fn any(_: &Written, _: usize) -> bool {
    true
}

fn plain(written: &Written, at: usize) -> bool {
    let (segment, line) = written.place(at);
    written.segments[segment].1[line].contains("session.closed")
}

#[test]
fn a_changed_byte() {
    let mut places = Places(1);
    let picks: Vec<usize> = (0..64).map(|_| places.below(1 << 20)).collect();
    at_places(
        1,
        |written, at| {
            let line = written.line(at);
            let byte = picks[at % picks.len()] % line.len();
            let mut bytes = line.clone().into_bytes();
            bytes[byte] = if bytes[byte] == b'x' { b'y' } else { b'x' };
            *line = String::from_utf8(bytes).unwrap();
            at
        },
        |fault| {
            matches!(
                fault,
                Fault::Changed | Fault::Rewritten { .. } | Fault::OtherKey { .. }
            )
        },
        any,
    );
}

#[test]
fn a_changed_value_with_a_hash_that_fits() {
    at_places(
        2,
        |written, at| {
            let prev = hash_of(written.line(at - 1));
            let line = written.line(at);
            *line = forged(&altered(line), prev);
            at
        },
        |fault| matches!(fault, Fault::Changed),
        plain,
    );
}

#[test]
fn a_changed_value_and_every_hash_behind_it() {
    at_places(
        3,
        |written, at| {
            let changed = altered(written.line(at));
            *written.line(at) = changed;
            let mut prev = hash_of(written.line(at - 1));
            let mut head = None;
            for later in at..written.len() {
                let line = written.line(later).clone();
                let signature = line.split_once(r#","signature":"#).map(|(_, it)| it.to_owned());
                let mut made = forged(&line, prev);
                if let Some(signature) = signature {
                    made.pop();
                    made.push_str(r#","signature":"#);
                    made.push_str(&signature);
                    head.get_or_insert(later);
                }
                prev = hash_of(&made);
                *written.line(later) = made;
            }
            head.unwrap()
        },
        |fault| matches!(fault, Fault::Rewritten { .. }),
        plain,
    );
}

#[test]
fn a_removed_line_and_a_removed_block() {
    for count in [1, 2, 17] {
        at_places(
            4,
            |written, at| {
                // Removal within one segment, so that the place is one of it.
                for _ in 0..count {
                    written.remove(at);
                }
                at
            },
            |fault| matches!(fault, Fault::Removed { .. }),
            |written, at| written.place(at).1 + count < written.segments[written.place(at).0].1.len(),
        );
    }
}

#[test]
fn an_inserted_forgery() {
    for count in [1, 3] {
        at_places(
            5,
            |written, at| {
                let model = written.line(at).clone();
                for more in 0..count {
                    let before = written.line(at + more - 1).clone();
                    let seq = Line::read(before.as_bytes()).unwrap().seq + 1;
                    let (_, rest) = model.split_once(r#","at":"#).unwrap();
                    let text = altered(&format!(r#"{{"v":1,"seq":{seq},"at":{rest}"#));
                    written.insert(at + more, forged(&text, hash_of(&before)));
                }
                at
            },
            |fault| matches!(fault, Fault::Inserted),
            plain,
        );
    }
}

#[test]
fn an_older_line_once_more() {
    for back in [1, 9] {
        at_places(
            6,
            |written, at| {
                let older = written.line(at - back).clone();
                written.insert(at, older);
                at
            },
            |fault| matches!(fault, Fault::Inserted),
            any,
        );
    }
}

#[test]
fn exchanged_lines() {
    for apart in [1, 12] {
        at_places(
            7,
            |written, at| {
                let (one, other) = (written.line(at).clone(), written.line(at + apart).clone());
                *written.line(at) = other;
                *written.line(at + apart) = one;
                at
            },
            |fault| matches!(fault, Fault::Reordered),
            any,
        );
    }
}

#[test]
fn a_line_in_another_place() {
    at_places(
        8,
        |written, at| {
            let moved = written.remove(at);
            written.insert(at + 9, moved);
            at
        },
        |fault| matches!(fault, Fault::Reordered),
        |written, at| written.place(at).1 + 1 < written.segments[written.place(at).0].1.len(),
    );
}

/// The last head, as somebody kept it.
fn last_head(written: &Written) -> KeptHead {
    let (_, lines) = written.segments.last().unwrap();
    let line = Line::read(lines.last().unwrap().as_bytes()).unwrap();
    let signed = line.signed.as_ref().unwrap();
    KeptHead {
        seq: line.seq,
        hash: line.hash,
        signed: Some((signed.key.to_string(), signed.signature)),
    }
}

#[test]
fn a_cut_end_is_told_by_a_kept_head() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    let written = Written::make(directory.path(), &pem);
    let kept = last_head(&written);
    let mut places = Places(9);
    for _ in 0..PLACES {
        let mut cut = written.clone();
        let (segment, line) = cut.place(10 + places.below(written.len() - 20));
        cut.segments.truncate(segment + 1);
        cut.segments[segment].1.truncate(line.max(1));
        let left = cut.len();
        let broken = cut.verdict(&public, Some(&kept));
        assert!(matches!(broken.what, Fault::Cut), "{broken}");
        assert_eq!(broken.seq as usize, left + 1);
    }
    let mut last_gone = written.clone();
    last_gone.segments.pop();
    assert!(matches!(last_gone.verdict(&public, Some(&kept)).what, Fault::Cut));
}

#[test]
fn whole_segments_removed_exchanged_or_under_another_name() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    let written = Written::make(directory.path(), &pem);
    let count = written.segments.len();
    let first_of = |at: usize| Line::read(written.segments[at].1[0].as_bytes()).unwrap().seq;
    for gone in 0..count - 1 {
        let mut edited = written.clone();
        edited.segments.remove(gone);
        let broken = edited.verdict(&public, None);
        let through = first_of(gone + 1) - 1;
        assert!(
            matches!(broken.what, Fault::Removed { through: it } if it == through),
            "{broken}"
        );
        assert_eq!(broken.seq, first_of(gone));
    }
    for one in 0..count {
        for other in one + 1..count {
            let mut edited = written.clone();
            let lines = edited.segments[one].1.clone();
            edited.segments[one].1 = std::mem::replace(&mut edited.segments[other].1, lines);
            let broken = edited.verdict(&public, None);
            assert!(matches!(broken.what, Fault::Reordered), "{one} {other}: {broken}");
            assert_eq!((broken.seq, broken.line), (first_of(one), 1));
        }
    }
    // A line that went over the border between two segments is in its order, but not where it was sealed.
    let mut edited = written.clone();
    let last = edited.segments[1].1.pop().unwrap();
    edited.segments[2].1.insert(0, last);
    let broken = edited.verdict(&public, None);
    assert!(matches!(broken.what, Fault::OtherSeal), "{broken}");
    assert!(broken.file.ends_with(edited.segments[2].0.file_name().unwrap()));
}

#[test]
fn a_journal_that_was_written_anew_is_told_by_kept_heads() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    let written = Written::make(directory.path(), &pem);
    // Whoever has the private key can write another journal; it has other heads.
    let other = tempfile::tempdir().unwrap();
    let anew = Written::make(other.path(), &pem);
    let line = anew.segments[0].1.iter().find(|line| is_head(line)).unwrap();
    let line = Line::read(line.as_bytes()).unwrap();
    let mut kept = last_head(&written);
    kept.seq = line.seq;
    // Signed for another place, so that it is the kept head that is not as it was written.
    assert!(matches!(
        written
            .verdict(
                &public,
                Some(&KeptHead {
                    signed: None,
                    ..kept.clone()
                })
            )
            .what,
        Fault::Rewritten { .. }
    ));
    kept.hash = Hash::of(&[b"forged"]);
    assert!(matches!(
        written.verdict(&public, Some(&kept)).what,
        Fault::Unreadable(_)
    ));
}
