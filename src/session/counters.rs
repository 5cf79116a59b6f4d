//! What is counted of sessions and transactions.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::refusal::RefusalCode;

/// Counted over all threads, once a session or a transaction.
#[derive(Debug, Default)]
pub struct Counters {
    pub opened: AtomicU64,
    pub transactions: AtomicU64,
    refusals: [AtomicU64; RefusalCode::ALL.len()],
}

impl Counters {
    pub(super) fn refused(&self, code: RefusalCode) {
        let at = RefusalCode::ALL.iter().position(|known| *known == code);
        if let Some(counter) = at.and_then(|at| self.refusals.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refusals so far, by code.
    pub fn refusals(&self) -> impl Iterator<Item = (RefusalCode, u64)> {
        let counts = self
            .refusals
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed));
        RefusalCode::ALL.into_iter().zip(counts)
    }
}
