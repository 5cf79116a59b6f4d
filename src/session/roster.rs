//! Who is here: every session that presented a verified token, what it is doing, and a bell to make
//! it look up.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use dashmap::DashMap;
use serde::{Serialize, Serializer};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::audit::record::Facts;
use crate::domain::ids::SessionId;

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// Its token is verified; policy, journal, broker and pool are being asked.
    Opening,
    Idle,
    Running,
    IdleInTransaction,
}

impl Doing {
    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Idle,
            2 => Self::Running,
            3 => Self::IdleInTransaction,
            _ => Self::Opening,
        }
    }
}

/// A session as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct SessionView {
    #[serde(flatten)]
    pub facts: Arc<Facts>,
    #[serde(serialize_with = "as_rfc3339")]
    pub opened: SystemTime,
    pub doing: Doing,
    /// Transactions that ended, on record.
    pub transactions: u64,
}

fn as_rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_seconds(*at))
}

/// All sessions of all threads.
#[derive(Debug, Default)]
pub(super) struct Roster {
    present: DashMap<SessionId, Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    facts: Mutex<Arc<Facts>>,
    opened: SystemTime,
    doing: AtomicU8,
    transactions: AtomicU64,
    /// An operator wants it gone.
    killed: AtomicBool,
    /// Somebody rang since the session looked up last.
    rung: AtomicBool,
    bell: Arc<Notify>,
}

/// A session's place on the roster; struck out when dropped.
#[derive(Debug)]
pub(super) struct Place {
    roster: Arc<Roster>,
    session: SessionId,
    entry: Arc<Entry>,
}

impl Roster {
    pub(super) fn enter(self: &Arc<Self>, session: SessionId, facts: Arc<Facts>, now: SystemTime) -> Place {
        let entry = Arc::new(Entry {
            facts: Mutex::new(facts),
            opened: now,
            doing: AtomicU8::new(0),
            transactions: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            bell: Arc::default(),
        });
        self.present.insert(session, Arc::clone(&entry));
        Place {
            roster: Arc::clone(self),
            session,
            entry,
        }
    }

    pub(super) fn view(&self) -> Vec<SessionView> {
        let mut all: Vec<_> = self.present.iter().map(|entry| entry.value().view()).collect();
        all.sort_by_key(|view| (view.opened, view.facts.session));
        all
    }

    pub(super) fn len(&self) -> usize {
        self.present.len()
    }

    /// Marks a session for its end. `false`: there is none of that name.
    pub(super) fn kill(&self, reference: &str) -> bool {
        let named = self
            .present
            .iter()
            .find(|entry| entry.key().to_string() == reference);
        let Some(entry) = named else { return false };
        entry.killed.store(true, Ordering::Release);
        entry.ring();
        true
    }

    pub(super) fn ring_all(&self) {
        for entry in &self.present {
            entry.ring();
        }
    }
}

impl Entry {
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        // Kept for a session that does not listen yet.
        self.bell.notify_one();
    }

    fn view(&self) -> SessionView {
        SessionView {
            facts: Arc::clone(&self.facts.lock().unwrap_or_else(PoisonError::into_inner)),
            opened: self.opened,
            doing: Doing::from_number(self.doing.load(Ordering::Relaxed)),
            transactions: self.transactions.load(Ordering::Relaxed),
        }
    }
}

impl Place {
    /// What became known of the session meanwhile.
    pub(super) fn note(&self, facts: &Arc<Facts>) {
        *self.entry.facts.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(facts);
    }

    pub(super) fn is_doing(&self, doing: Doing, transactions: u64) {
        let number = match doing {
            Doing::Opening => 0,
            Doing::Idle => 1,
            Doing::Running => 2,
            Doing::IdleInTransaction => 3,
        };
        self.entry.doing.store(number, Ordering::Relaxed);
        self.entry.transactions.store(transactions, Ordering::Relaxed);
    }

    pub(super) fn is_killed(&self) -> bool {
        self.entry.killed.load(Ordering::Acquire)
    }

    /// Did somebody ring? Forgets it.
    pub(super) fn was_rung(&self) -> bool {
        self.entry.rung.load(Ordering::Relaxed) && self.entry.rung.swap(false, Ordering::AcqRel)
    }

    /// Ready when somebody rings, also if that was before.
    pub(super) fn listen(&self) -> OwnedNotified {
        Arc::clone(&self.entry.bell).notified_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.roster.present.remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Random;

    #[derive(Debug)]
    struct Fixed(u8);

    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[tokio::test]
    async fn a_bell_that_rang_before_is_heard_and_only_the_named_one_is_killed() {
        let roster = Arc::new(Roster::default());
        let enter = |number| {
            let session = SessionId::random(&Fixed(number));
            let facts = Facts {
                session: Some(session),
                ..Facts::default()
            };
            roster.enter(session, Arc::new(facts), SystemTime::UNIX_EPOCH)
        };
        let (one, two) = (enter(1), enter(2));
        assert!(!roster.kill("s-03030303030303030303"));
        assert!(roster.kill("s-01010101010101010101"));
        one.listen().await;
        assert!(one.is_killed() && one.was_rung() && !one.was_rung());
        assert!(!two.is_killed() && !two.was_rung());
        roster.ring_all();
        two.listen().await;
        two.is_doing(Doing::IdleInTransaction, 7);
        let views = roster.view();
        assert_eq!(views.len(), 2);
        assert_eq!(
            (views[1].doing, views[1].transactions),
            (Doing::IdleInTransaction, 7)
        );
        drop((one, two));
        assert_eq!(roster.len(), 0);
    }
}
