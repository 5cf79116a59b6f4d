//! One group commit: its lines, built beside the writer's state and taken over only when written.

use std::time::SystemTime;

use crate::audit::chain::{self, HEAD, Link};
use crate::audit::heads::KeptHead;
use crate::audit::journal::Queued;
use crate::audit::key::{PublicKey, SigningKey};
use crate::audit::line::{Detail, Envelope, Origin};
use crate::audit::marks::{KEY_ROTATED, SEALED};
use crate::audit::tree::{Tree, leaf};

/// A larger record is refused: 1,000 correlation ids of 256 bytes, escaped, and 20,000 statements fit.
pub(super) const LINE_BYTES_MAX: usize = 4 << 20;

/// Records behind the last head, from which on their group ends with a head whatever the time: a proof shows about as
/// many lines, and a start reads as many again.
const UNSIGNED_MAX: u64 = 1_024;

/// The bytes of one group, and what the journal is when they are on disk.
pub(super) struct Group {
    pub(super) bytes: Vec<u8>,
    pub(super) link: Link,
    pub(super) records: u64,
    pub(super) written: Vec<(u64, Queued)>,
    /// Over the segment that the group goes to, with the group.
    pub(super) tree: Tree,
    /// The segment ends with this group.
    pub(super) is_sealed: bool,
    /// The last head.
    pub(super) head: Option<KeptHead>,
    /// What the last head before it signs.
    signed: u64,
    at: SystemTime,
    /// Something is in it that a head has to follow at once: all but statements and their transactions.
    pub(super) wants_head: bool,
}

impl Group {
    /// `signed` is the record of the last head, `buffer` any that may be overwritten.
    pub(super) fn new(link: Link, signed: u64, tree: Tree, at: SystemTime, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self {
            bytes: buffer,
            link,
            records: 0,
            written: Vec::new(),
            tree,
            is_sealed: false,
            head: None,
            signed,
            at,
            wants_head: false,
        }
    }

    /// The sequence number of the next line.
    pub(super) const fn next(&self) -> u64 {
        self.link.seq.saturating_add(1)
    }

    /// Adds one line; `false` and nothing added if it would be too long.
    pub(super) fn add(&mut self, envelope: &Envelope<'_>) -> bool {
        let Some(start) = self.seal(envelope) else {
            return false;
        };
        self.end_line(start);
        true
    }

    /// A line that the journal writes about itself.
    pub(super) fn note(
        &mut self,
        origin: &Origin,
        at: SystemTime,
        event: &'static str,
        detail: Detail<'_>,
    ) -> bool {
        let mut envelope = Envelope::new(origin, self.next(), at, event);
        envelope.detail = detail;
        self.add(&envelope)
    }

    /// Records for which no head stands yet, of the groups before it too.
    pub(super) const fn unsigned(&self) -> u64 {
        self.link.seq.saturating_sub(self.signed)
    }

    /// It does not wait for others to share a head with.
    pub(super) const fn is_to_be_signed(&self) -> bool {
        self.wants_head || self.is_sealed || self.unsigned() >= UNSIGNED_MAX
    }

    /// A signed head. It signs everything before it.
    pub(super) fn sign(&mut self, origin: &Origin, key: &SigningKey) {
        let mut envelope = Envelope::new(origin, self.next(), self.at, HEAD);
        envelope.detail = Detail::Head {
            key: key.public().id(),
            records: self.unsigned(),
        };
        // A head is far below the limit of a line.
        let Some(start) = self.seal(&envelope) else {
            return;
        };
        let signature = key.sign(&self.link.hash);
        chain::sign(&mut self.bytes, &signature);
        self.end_line(start);
        self.head = Some(KeptHead {
            seq: self.link.seq,
            hash: self.link.hash,
            signed: Some((key.public().id().to_owned(), signature)),
        });
    }

    /// Says that another key signs from now on.
    pub(super) fn hand_over(&mut self, origin: &Origin, old: &PublicKey, new: &PublicKey) {
        let detail = Detail::KeyRotated {
            old: old.id(),
            new: new.id(),
            old_public: old.to_base64(),
            new_public: new.to_base64(),
        };
        self.note(origin, self.at, KEY_ROTATED, detail);
        self.wants_head = true;
    }

    /// Says what the segment holds, up to here. The head that follows signs it.
    pub(super) fn seal_segment(&mut self, origin: &Origin) {
        let last = self.link.seq;
        let detail = Detail::Sealed {
            first: last.saturating_sub(self.tree.leaves()).saturating_add(1),
            last,
            root: self.tree.root(),
        };
        self.is_sealed = self.note(origin, self.at, SEALED, detail);
    }

    /// The last `count` lines.
    pub(super) fn last_lines(&self, count: usize) -> &[u8] {
        let feeds = self.bytes.iter().enumerate().rev();
        let mut feeds = feeds.filter(|(_, byte)| **byte == b'\n').skip(count);
        let start = feeds.next().map_or(0, |(at, _)| at + 1);
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Chains one line, without its line feed; says where it begins.
    fn seal(&mut self, envelope: &Envelope<'_>) -> Option<usize> {
        let start = self.bytes.len();
        let put = envelope.put(&mut self.bytes);
        if put.is_err() || self.bytes.len() - start > LINE_BYTES_MAX {
            self.bytes.truncate(start);
            return None;
        }
        self.link = self.link.seal(&mut self.bytes, start);
        self.records += 1;
        Some(start)
    }

    fn end_line(&mut self, start: usize) {
        self.tree.push(leaf(self.bytes.get(start..).unwrap_or_default()));
        self.bytes.push(b'\n');
    }
}
