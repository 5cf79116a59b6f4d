//! Tokens that were verified before: found by a keyed hash, believed only as long as everything that
//! made them good still holds. The tokens themselves are not kept.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::hmac;

use crate::domain::{Identity, Random};
use crate::identity::jwk::Fingerprint;
use crate::identity::keys::KeySet;
use crate::identity::token::Times;

/// Per provider. One entry an identity and token life; a large installation has some thousands.
const ENTRIES_MAX: usize = 10_000;

/// All tokens of a provider's entries together. Their claims take several times as much in memory.
const TOKEN_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Hashes tokens with a key that only this process has, so that nobody can work out a place in the table.
pub(super) struct Fingers(hmac::Key);

pub(super) type Digest = [u8; 32];

impl Fingers {
    pub(super) fn new(random: &dyn Random) -> Self {
        let mut key = [0; 32];
        random.fill(&mut key);
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    pub(super) fn digest(&self, token: &[u8]) -> Digest {
        let mut digest = Digest::default();
        digest.copy_from_slice(hmac::sign(&self.0, token).as_ref());
        digest
    }
}

impl std::fmt::Debug for Fingers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[key]")
    }
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) identity: Arc<Identity>,
    pub(super) times: Times,
    /// The key that signed the token.
    pub(super) key: Fingerprint,
    /// Length of the token.
    pub(super) bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct SeenTokens {
    entries: HashMap<Digest, Entry>,
    by_expiry: BTreeSet<(SystemTime, Digest)>,
    bytes: usize,
}

impl SeenTokens {
    /// `None` when the token must be verified from the start.
    pub(super) fn find(&mut self, digest: &Digest, keys: &KeySet, at: SystemTime) -> Option<Arc<Identity>> {
        let entry = self.entries.get(digest)?;
        if entry.times.check(at).is_err() {
            // The whole verification says why, and what expired takes no place.
            if at > entry.times.expiry {
                self.remove(digest);
            }
            return None;
        }
        if !keys.has(&entry.key) {
            self.remove(digest);
            return None;
        }
        Some(Arc::clone(&entry.identity))
    }

    /// Where there is no place, those go that expire first: the expired, then about the oldest.
    pub(super) fn add(&mut self, digest: Digest, entry: Entry) {
        self.remove(&digest);
        self.bytes += entry.bytes;
        self.by_expiry.insert((entry.times.expiry, digest));
        self.entries.insert(digest, entry);
        while self.entries.len() > ENTRIES_MAX || self.bytes > TOKEN_BYTES_MAX {
            let Some((_, first)) = self.by_expiry.first().copied() else {
                return;
            };
            self.remove(&first);
        }
    }

    pub(super) fn forget_expired(&mut self, at: SystemTime) {
        while let Some((expiry, digest)) = self.by_expiry.first().copied() {
            if expiry > at {
                return;
            }
            self.remove(&digest);
        }
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.remove(digest) {
            self.bytes -= entry.bytes;
            self.by_expiry.remove(&(entry.times.expiry, *digest));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.by_expiry.len());
        self.entries.len()
    }
}
