//! What is counted and timed about a target's connections, over all threads.

use std::time::Duration;

use crate::domain::measure::{Counter, Histogram, Reading};

/// Why a connection was closed. A connection that was never opened counts nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Idle for too long, or too old.
    Expired,
    /// Its login was retired.
    LoginEnded,
    /// Somebody waited for its slot, or for its place under a share.
    Needed,
    /// Its borrower did not give it back, or could not prove it clean.
    NotClean,
    /// A cancel request was under way when its borrower gave it back.
    Cancelling,
    /// The server had closed it, or said something that nobody asked for.
    Lost,
    /// Its pool ended.
    PoolEnded,
}

impl Closing {
    pub const ALL: [Self; 7] = [
        Self::Expired,
        Self::LoginEnded,
        Self::Needed,
        Self::NotClean,
        Self::Cancelling,
        Self::Lost,
        Self::PoolEnded,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::LoginEnded => "login_ended",
            Self::Needed => "needed",
            Self::NotClean => "not_clean",
            Self::Cancelling => "cancelling",
            Self::Lost => "lost",
            Self::PoolEnded => "pool_ended",
        }
    }
}

/// Written by all threads without waiting.
#[derive(Debug, Default)]
pub struct PoolMeasures {
    opened: Counter,
    closed: [Counter; Closing::ALL.len()],
    waited: Histogram,
}

impl PoolMeasures {
    pub(super) fn opened_one(&self) {
        self.opened.add(1);
    }

    pub(super) fn closed_one(&self, why: Closing) {
        let at = Closing::ALL.iter().position(|known| *known == why);
        if let Some(counter) = at.and_then(|at| self.closed.get(at)) {
            counter.add(1);
        }
    }

    /// How long a checkout stood in line; zero when it did not.
    pub(super) fn waited_for(&self, took: Duration) {
        self.waited.observe(took);
    }

    /// Connections that were opened and logged in.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    pub fn closed(&self) -> impl Iterator<Item = (Closing, u64)> {
        let counts = self.closed.iter().map(Counter::get);
        Closing::ALL.into_iter().zip(counts)
    }

    /// Every checkout, with the time that it stood in line.
    pub fn waited(&self) -> Reading {
        self.waited.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closings_are_counted_under_their_own_reason() {
        let measures = PoolMeasures::default();
        for (times, why) in Closing::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| measures.closed_one(why));
        }
        let counts: Vec<_> = measures.closed().map(|(_, count)| count).collect();
        assert_eq!(counts, [0, 1, 2, 3, 4, 5, 6]);
    }
}
