//! Lists and counts that cannot grow without end: what does not fit is counted, and said.

use std::collections::BTreeMap;

use serde::Serialize;

/// Bytes of one text in a report; a name that is longer is cut.
const TEXT_BYTES_MAX: usize = 256;

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally<const KEYS: usize> {
    pub counts: BTreeMap<String, u64>,
    /// What was counted under names that are not told apart.
    #[serde(skip_serializing_if = "is_zero")]
    pub others: u64,
}

impl<const KEYS: usize> Tally<KEYS> {
    pub fn add(&mut self, name: &str, count: u64) {
        let name = bounded(name);
        if let Some(known) = self.counts.get_mut(&name) {
            *known = known.saturating_add(count);
        } else if self.counts.len() < KEYS {
            self.counts.insert(name, count);
        } else {
            self.others = self.others.saturating_add(count);
        }
    }

    pub fn total(&self) -> u64 {
        self.counts
            .values()
            .fold(self.others, |sum, count| sum.saturating_add(*count))
    }

    pub fn get(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// The largest first.
    pub fn sorted(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self
            .counts
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The first of many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing<T, const ROWS: usize> {
    pub rows: Vec<T>,
    /// Those that are not listed.
    pub more: u64,
}

impl<T, const ROWS: usize> Default for Listing<T, ROWS> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            more: 0,
        }
    }
}

impl<T, const ROWS: usize> Listing<T, ROWS> {
    pub fn add(&mut self, row: T) {
        if self.rows.len() < ROWS {
            self.rows.push(row);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    pub fn total(&self) -> u64 {
        u64::try_from(self.rows.len())
            .unwrap_or(u64::MAX)
            .saturating_add(self.more)
    }
}

/// `text`, cut to what a report holds of one.
pub fn bounded(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let kept = text
        .get(..text.floor_char_boundary(TEXT_BYTES_MAX))
        .unwrap_or_default();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut tally = Tally::<2>::default();
        for name in ["a", "b", "c", "b", "d"] {
            tally.add(name, 1);
        }
        assert_eq!(
            (tally.sorted(), tally.others, tally.total()),
            (vec![("b", 2), ("a", 1)], 2, 5)
        );
        let mut listing = Listing::<_, 1>::default();
        listing.add(1);
        listing.add(2);
        assert_eq!(
            (&listing.rows[..], listing.more, listing.total()),
            (&[1][..], 1, 2)
        );
        assert_eq!(bounded(&"ä".repeat(200)), format!("{}…", "ä".repeat(128)));
    }
}
