//! Statement texts become fingerprints; each normalised text is recorded once while it is remembered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::audit::record::Normalised;

/// Fingerprints that count as recorded. A text that returns after this many others is recorded
/// again, which costs a line and loses nothing.
const SEEN_MAX: usize = 16_384;
/// Raw texts whose fingerprints are kept: prepared statements and the like, which repeat.
const KNOWN_MAX: usize = 4_096;
/// Raw texts longer than this are not kept; 4,096 of them must fit in memory.
const KNOWN_BYTES_MAX: usize = 8 << 10;

pub(super) struct Statements {
    normalise: fn(&str) -> Normalised,
    known: HashMap<Arc<str>, Arc<str>>,
    seen: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Statements {
    pub(super) fn new(normalise: fn(&str) -> Normalised) -> Self {
        Self {
            normalise,
            known: HashMap::new(),
            seen: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// The fingerprint, and the normalised text if it has to be recorded now.
    pub(super) fn fingerprint(&mut self, raw: &Arc<str>) -> (Arc<str>, Option<String>) {
        if let Some(fingerprint) = self.known.get(raw)
            && self.seen.contains(fingerprint)
        {
            return (Arc::clone(fingerprint), None);
        }
        let normalised = (self.normalise)(raw);
        let fingerprint: Arc<str> = Arc::from(normalised.fingerprint);
        if raw.len() <= KNOWN_BYTES_MAX {
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(Arc::clone(raw), Arc::clone(&fingerprint));
        }
        if !self.seen.insert(Arc::clone(&fingerprint)) {
            return (fingerprint, None);
        }
        self.order.push_back(Arc::clone(&fingerprint));
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        (fingerprint, Some(normalised.text))
    }

    /// The records of these texts could not be written: all count as new again.
    pub(super) fn forget_seen(&mut self) {
        self.seen.clear();
        self.order.clear();
    }
}
