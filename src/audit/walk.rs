//! The way through a journal, line by line: does each continue the one before, is each head signed, is
//! everything there that was kept elsewhere; and if not, what happened.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::audit::chain::{Line, Link};
use crate::audit::heads::KeptHead;
use crate::audit::key::PublicKey;
use crate::audit::marks::{EXPIRED, KEY_ROTATED, Mark, SEALED};
use crate::audit::rotation::Keys;
use crate::audit::signatures::{Claim, Signatures};
use crate::audit::stored::{Current, Source, first_of};
use crate::audit::tree::{Tree, leaf};
use crate::audit::verify::{Broken, Fault, Head, Summary};

/// Who watches hears of it after so many lines: some milliseconds.
const PROGRESS_EVERY: u64 = 4096;

/// Heads from the second place, one ahead.
pub(super) struct Kept {
    rest: Box<dyn Iterator<Item = io::Result<KeptHead>>>,
    next: Option<KeptHead>,
    failed: Option<io::Error>,
}

impl Kept {
    pub(super) fn new(rest: Box<dyn Iterator<Item = io::Result<KeptHead>>>) -> Self {
        let mut kept = Self {
            rest,
            next: None,
            failed: None,
        };
        kept.advance();
        kept
    }

    fn advance(&mut self) {
        self.next = None;
        match self.rest.next() {
            Some(Ok(head)) => self.next = Some(head),
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
    }
}

pub(super) struct Walk {
    keys: Keys,
    kept: Kept,
    signatures: Signatures,
    link: Link,
    /// The last line that was accepted.
    last: Option<(Arc<Path>, u64)>,
    /// The last head, and what was accepted behind it, with their lines.
    since_head: Vec<(Link, u64)>,
    /// Over the segment so far.
    tree: Tree,
    /// The signing key is being replaced; the next head says how.
    rotated: Option<(PublicKey, PublicKey)>,
    start: Start,
    summary: Summary,
}

/// How the first segment that is left follows those that have expired.
#[derive(Default)]
struct Start {
    /// What the first record says it follows.
    claimed: Option<Link>,
    file: Option<Arc<Path>>,
    /// A record says that this expired …
    is_recorded: bool,
    /// … and a head signs it.
    is_signed: bool,
    /// The last record that expired before.
    expired: u64,
}

enum Step {
    Sound,
    Torn(u64),
    Misplaced,
    Wrong(Fault),
}

impl Walk {
    pub(super) fn new(keys: Keys, kept: Kept) -> Self {
        Self {
            keys,
            kept,
            signatures: Signatures::default(),
            link: Link::START,
            last: None,
            since_head: Vec::new(),
            tree: Tree::default(),
            rotated: None,
            start: Start::default(),
            summary: Summary::default(),
        }
    }

    pub(super) fn run(
        mut self,
        source: &mut dyn Source,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Summary, Broken> {
        let found = self.walk(source, progress);
        let wrong = std::mem::take(&mut self.signatures).first_wrong();
        // A signature is looked at late. What stands first is named.
        let chain_first = |claim: &Claim| found.as_ref().is_some_and(|found| found.seq <= claim.seq);
        if let Some(claim) = wrong.filter(|claim| !chain_first(claim)) {
            return Err(Broken {
                file: claim.file.to_path_buf(),
                line: claim.line,
                seq: claim.seq,
                what: Fault::Rewritten { after: claim.after },
            });
        }
        found.map_or_else(|| self.end(), Err)
    }

    /// The first fault that the walk itself sees.
    fn walk(&mut self, source: &mut dyn Source, progress: &mut dyn FnMut(u64)) -> Option<Broken> {
        let mut current = Current::new();
        loop {
            match source.next_line(&mut current) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(self.broken(&current, Fault::Unreadable(error))),
            }
            match self.step(&current) {
                Step::Sound => {}
                Step::Torn(bytes) => {
                    let broken = self.broken(&current, Fault::Changed);
                    // Only the last line of all can be an interrupted write.
                    if matches!(source.next_line(&mut current), Ok(true)) {
                        return Some(broken);
                    }
                    self.summary.torn_bytes = bytes;
                    return None;
                }
                Step::Wrong(fault) => return Some(self.broken(&current, fault)),
                Step::Misplaced => return Some(self.name(current, source)),
            }
            if self.summary.records.is_multiple_of(PROGRESS_EVERY) {
                progress(source.bytes_read());
                if self.signatures.any_wrong() {
                    return None;
                }
            }
        }
    }

    fn step(&mut self, current: &Current) -> Step {
        let Some(text) = current.text() else {
            // What an interrupted write leaves is the beginning of a line, never more than a line.
            let is_beginning = !contains_whole_line(&current.bytes);
            let length = u64::try_from(current.bytes.len()).unwrap_or(u64::MAX);
            return if is_beginning {
                Step::Torn(length)
            } else {
                Step::Wrong(Fault::Changed)
            };
        };
        let Some(line) = Line::read(text) else {
            return Step::Misplaced;
        };
        if self.last.is_none() {
            self.begin(&line, &current.file);
        }
        if !line.continues(self.link) {
            return Step::Misplaced;
        }
        if let Err(fault) = self.judge(&line, text, current) {
            return Step::Wrong(fault);
        }
        self.accept(&line, text, current);
        Step::Sound
    }

    /// The first segment that is there may begin behind others that have expired. Its name has to say so
    /// too, or else it stands in another's place.
    fn begin(&mut self, line: &Line<'_>, file: &Arc<Path>) {
        if line.seq > 1 && line.intact() && first_of(file) == Some(line.seq) {
            self.link = Link {
                seq: line.seq - 1,
                hash: line.prev,
            };
            self.start.claimed = Some(self.link);
            self.start.file = Some(Arc::clone(file));
        }
        self.summary.first = line.seq;
        // What was kept of the expired part says nothing any more, but for its very end.
        while self
            .kept
            .next
            .as_ref()
            .is_some_and(|kept| kept.seq < self.link.seq)
        {
            self.kept.advance();
        }
    }

    /// A line that continues the chain: is it what a line of its kind has to be?
    fn judge(&mut self, line: &Line<'_>, text: &[u8], current: &Current) -> Result<(), Fault> {
        if self.is_new_file(current) {
            self.tree = Tree::default();
        }
        if line.signed.is_some() {
            self.judge_head(line, current)?;
        }
        match line.event.as_ref() {
            SEALED => match Mark::read(SEALED, text) {
                Some(Mark::Sealed(seal))
                    if seal.last == self.link.seq
                        && seal.last.checked_sub(self.tree.leaves()).map(|it| it + 1) == Some(seal.first)
                        && seal.root == self.tree.root() =>
                {
                    self.summary.seals += 1;
                }
                _ => return Err(Fault::OtherSeal),
            },
            KEY_ROTATED => match Mark::read(KEY_ROTATED, text) {
                Some(Mark::Rotated { old, new }) => self.rotated = Some((old, new)),
                _ => return Err(Fault::Changed),
            },
            EXPIRED => {
                if let Some(Mark::Expired { through, hash }) = Mark::read(EXPIRED, text) {
                    self.note_expired(Link { seq: through, hash });
                }
            }
            _ => {}
        }
        self.compare(line)
    }

    fn is_new_file(&self, current: &Current) -> bool {
        let last = self.last.as_ref();
        !last.is_some_and(|(file, _)| Arc::ptr_eq(file, &current.file))
    }

    fn note_expired(&mut self, expired: Link) {
        if self.start.claimed == Some(expired) {
            self.start.is_recorded = true;
        }
        if self
            .start
            .claimed
            .is_some_and(|claimed| expired.seq < claimed.seq)
        {
            self.start.expired = expired.seq;
        }
    }

    fn judge_head(&mut self, line: &Line<'_>, current: &Current) -> Result<(), Fault> {
        let Some(signed) = &line.signed else {
            return Ok(());
        };
        let Some(key) = self.keys.get(&signed.key).map(Arc::clone) else {
            let id = signed.key.to_string();
            return Err(if self.keys.any(&id).is_some() {
                Fault::RetiredKey { id }
            } else {
                Fault::OtherKey { id }
            });
        };
        if let Some((old, new)) = self.rotated.take() {
            // Signed with the old key, the new one is as good. Signed with the new one, it was known.
            if *key == old {
                self.keys.trust(new.clone());
            }
            self.keys.hand_over(&old, &new);
            self.summary.rotations += 1;
        }
        self.signatures.add(Claim {
            seq: line.seq,
            hash: line.hash,
            signature: signed.signature,
            key,
            after: self.last_head(),
            file: Arc::clone(&current.file),
            line: current.line,
        });
        Ok(())
    }

    fn last_head(&self) -> u64 {
        self.summary.head.as_ref().map_or(0, |head| head.seq)
    }

    /// Is it what was kept of it elsewhere?
    fn compare(&mut self, line: &Line<'_>) -> Result<(), Fault> {
        // The end of what has expired is known by what follows it.
        for link in [self.link, line.link()] {
            while let Some(kept) = self.kept.next.as_ref().filter(|kept| kept.seq <= link.seq) {
                if kept.seq < link.seq || kept.hash != link.hash {
                    return Err(self.contradicted(kept));
                }
                self.summary.kept_heads += 1;
                self.kept.advance();
            }
        }
        self.kept
            .failed
            .take()
            .map_or(Ok(()), |error| Err(Fault::Unreadable(error)))
    }

    /// The journal is not what was kept of it: one of the two was written anew.
    fn contradicted(&self, kept: &KeptHead) -> Fault {
        let forged = kept.signed.as_ref().is_some_and(|(id, signature)| {
            let key = self.keys.any(id);
            key.is_some_and(|key| !key.verifies(&kept.hash, signature))
        });
        if forged {
            let text = format!("the head that was kept of record {} is not signed", kept.seq);
            return Fault::Unreadable(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Fault::Rewritten {
            after: self.last_head(),
        }
    }

    fn accept(&mut self, line: &Line<'_>, text: &[u8], current: &Current) {
        self.tree.push(leaf(text));
        self.link = line.link();
        if self.is_new_file(current) {
            self.last = Some((Arc::clone(&current.file), current.line));
        } else if let Some((_, last)) = &mut self.last {
            *last = current.line;
        }
        self.summary.records += 1;
        self.summary.unsigned += 1;
        if line.signed.is_some() {
            self.summary.unsigned = 0;
            self.summary.heads += 1;
            self.summary.head = Some(Head {
                seq: line.seq,
                hash: line.hash.to_string(),
            });
            self.start.is_signed = self.start.is_recorded;
            self.since_head.clear();
        }
        self.since_head.push((self.link, current.line));
    }

    /// Says what happened where `found` does not continue the chain: looks whether the record that
    /// belongs here comes later.
    fn name(&self, mut current: Current, source: &mut dyn Source) -> Broken {
        let place = (Arc::clone(&current.file), current.line);
        let found = Line::read(current.text().unwrap_or(&current.bytes));
        let found = found.filter(Line::intact).map(|line| (line.seq, line.prev));
        let wanted = self.link.seq.saturating_add(1);
        let comes_later = self.comes_later(&mut current, source);
        let at = |(file, line): (Arc<Path>, u64), seq, what| Broken {
            file: file.to_path_buf(),
            line,
            seq,
            what,
        };
        let last = self.last.clone().unwrap_or_else(|| place.clone());
        match (found, comes_later) {
            (Some((seq, _)), true) if seq > wanted => at(place, wanted, Fault::Reordered),
            (Some(_) | None, true) => at(place, wanted, Fault::Inserted),
            (Some((seq, _)), false) if seq > wanted => at(place, wanted, Fault::Removed { through: seq - 1 }),
            (Some((seq, prev)), false) if seq < wanted => {
                // If it follows one of the last, then what stands between was put there.
                let mut between = self
                    .since_head
                    .iter()
                    .skip_while(|(link, _)| link.seq.saturating_add(1) != seq || link.hash != prev);
                between.next();
                let between = between.next().map(|(_, line)| (last.0, *line));
                at(between.unwrap_or(place), seq, Fault::Inserted)
            }
            // An untouched record that names another predecessor: the predecessor was changed and
            // given a fitting hash.
            (Some(_), false) if self.last.is_some() => at(last, self.link.seq, Fault::Changed),
            (Some(_) | None, false) => at(place, wanted, Fault::Changed),
        }
    }

    fn comes_later(&self, current: &mut Current, source: &mut dyn Source) -> bool {
        // What cannot be read is not there.
        while matches!(source.next_line(current), Ok(true)) {
            let line = current.text().and_then(Line::read);
            if line.is_some_and(|line| line.continues(self.link)) {
                return true;
            }
        }
        false
    }

    fn broken(&self, current: &Current, what: Fault) -> Broken {
        Broken {
            file: current.file.to_path_buf(),
            line: current.line,
            seq: self.link.seq.saturating_add(1),
            what,
        }
    }

    fn end(self) -> Result<Summary, Broken> {
        if let (Some(claimed), false) = (self.start.claimed, self.start.is_signed) {
            let file = self.start.file.unwrap_or_else(|| Arc::from(Path::new("")));
            return Err(Broken {
                file: file.to_path_buf(),
                line: 1,
                seq: self.start.expired.saturating_add(1),
                what: Fault::Removed { through: claimed.seq },
            });
        }
        let what = match (&self.kept.next, self.kept.failed) {
            (Some(kept), _) if kept.seq > self.link.seq => Fault::Cut,
            (_, Some(error)) => Fault::Unreadable(error),
            (_, None) => return Ok(self.summary),
        };
        let (file, line) = self.last.unwrap_or_else(|| (Arc::from(Path::new("")), 0));
        Err(Broken {
            file: file.to_path_buf(),
            line,
            seq: self.link.seq.saturating_add(1),
            what,
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
