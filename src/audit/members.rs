//! What many lines have alike, as JSON: made once, and copied into each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde::Serialize;

use crate::audit::record::Facts;

/// Sessions whose facts are kept as text, at about a kilobyte each: more than have anything to record at one
/// time. Beyond it those that nobody holds any more are let go.
const FACTS_KEPT_MAX: usize = 4_096;

/// Members of a JSON object, without the braces around them.
#[derive(Debug, Default)]
pub(super) struct Members(Box<[u8]>);

impl Members {
    /// Those of an `object`, which has to become one in JSON.
    pub(super) fn of(object: &impl Serialize) -> serde_json::Result<Self> {
        let text = serde_json::to_vec(object)?;
        let inner = text
            .strip_prefix(b"{")
            .and_then(|text| text.strip_suffix(b"}"))
            .unwrap_or_default();
        Ok(Self(inner.into()))
    }

    pub(super) const fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The facts of the sessions that were recorded last.
#[derive(Debug, Default)]
pub(super) struct FactsKept {
    /// By where they are in memory: holding them keeps other facts from coming to the same place.
    known: HashMap<usize, (Arc<Facts>, Members)>,
}

impl FactsKept {
    pub(super) fn members(&mut self, facts: &Arc<Facts>) -> serde_json::Result<&Members> {
        let place = Arc::as_ptr(facts).addr();
        if self.known.len() >= FACTS_KEPT_MAX && !self.known.contains_key(&place) {
            self.known.retain(|_, (facts, _)| Arc::strong_count(facts) > 1);
            if self.known.len() >= FACTS_KEPT_MAX {
                self.known.clear();
            }
        }
        let members = match self.known.entry(place) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert((Arc::clone(facts), Members::of(&**facts)?)),
        };
        Ok(&members.1)
    }

    /// These will not be recorded again.
    pub(super) fn forget(&mut self, facts: &Arc<Facts>) {
        self.known.remove(&Arc::as_ptr(facts).addr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::RoleName;

    fn facts(role: &str) -> Arc<Facts> {
        Arc::new(Facts {
            role: Some(RoleName::new(role)),
            ..Facts::default()
        })
    }

    #[test]
    fn members_are_those_of_the_object() {
        assert_eq!(Members::of(&Facts::default()).unwrap().bytes(), b"");
        let mut kept = FactsKept::default();
        let (first, second) = (facts("a\"b"), facts("c"));
        for _ in 0..2 {
            assert_eq!(kept.members(&first).unwrap().bytes(), br#""role":"a\"b""#);
            assert_eq!(kept.members(&second).unwrap().bytes(), br#""role":"c""#);
        }
        kept.forget(&first);
        assert_eq!(kept.known.len(), 1);
        assert_eq!(Arc::strong_count(&first), 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = FactsKept::default();
        let held: Vec<_> = (0..FACTS_KEPT_MAX).map(|at| facts(&at.to_string())).collect();
        for facts in &held {
            kept.members(facts).unwrap();
        }
        kept.members(&facts("one more")).unwrap();
        assert_eq!(kept.known.len(), 1, "all were held by somebody");
        for at in 0..2 * FACTS_KEPT_MAX {
            let role = at.to_string();
            let shown = format!("\"role\":\"{role}\"");
            assert_eq!(kept.members(&facts(&role)).unwrap().bytes(), shown.as_bytes());
            assert!(kept.known.len() <= FACTS_KEPT_MAX);
        }
    }
}
