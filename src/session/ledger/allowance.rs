//! What may be kept of the values of one transaction, if anything.

use std::sync::Arc;

use crate::audit::record::Facts;
use crate::audit::values::{Bound, Called, ParameterTypes, TRANSACTION_BYTES_MAX, Values};

/// Bytes that are kept of one request with calls: most are one packet or two.
const CALLS_BYTES_MAX: usize = 16 << 10;

/// Nothing is copied where the rule does not want it.
#[derive(Debug)]
pub(in crate::session) struct Allowance {
    wanted: bool,
    left: usize,
}

impl Allowance {
    /// By the rule that the session was opened under.
    pub(in crate::session) fn of(facts: &Facts) -> Self {
        let rule = facts.policy.as_ref().map(|policy| policy.parameters);
        Self {
            wanted: rule.is_some_and(|rule| !rule.is_absent()),
            left: TRANSACTION_BYTES_MAX,
        }
    }

    pub(in crate::session) const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Of a statement without parameters: its text has its literals.
    pub(in crate::session) fn of_text(&self) -> Option<Values> {
        self.wanted.then_some(Values::OfText)
    }

    /// Of a statement whose text another one has as well, which was noted before it.
    pub(in crate::session) fn of_same_text(&self) -> Option<Values> {
        self.wanted.then_some(Values::WithTheFirst)
    }

    /// Keeps a copy of a Bind behind its names, as far as it is here.
    pub(in crate::session) fn bound(
        &mut self,
        behind_names: &[u8],
        types: Option<&Arc<ParameterTypes>>,
    ) -> Option<Values> {
        if !self.wanted {
            return None;
        }
        let Some(left) = self.left.checked_sub(behind_names.len()) else {
            self.left = 0;
            return Some(Values::Omitted);
        };
        self.left = left;
        Some(Values::Bound(Arc::new(Bound::new(behind_names, types.cloned()))))
    }

    /// Keeps a copy of a request with calls, as far as it is here: no more than of a Bind. None if it is not
    /// wanted, or there is no room.
    pub(in crate::session) fn called(&mut self, payload: &[u8], is_whole: bool) -> Option<Arc<Called>> {
        let cut = payload.get(..CALLS_BYTES_MAX);
        let (payload, is_whole) = cut.map_or((payload, is_whole), |cut| (cut, false));
        if !self.wanted || self.left < payload.len() {
            return None;
        }
        self.left -= payload.len();
        Some(Arc::new(Called::new(payload, is_whole)))
    }

    /// The transaction is over, and nothing is left that was bound in it.
    pub(in crate::session) const fn renew(&mut self) {
        self.left = TRANSACTION_BYTES_MAX;
    }
}
