//! The pool's bookkeeping on one thread: what is idle under which key, what is lent, and until
//! when. Pure: it holds connections without touching them, and time is passed in.
//!
//! Invariants: a connection is either idle or lent, never both; an idle one is lent only to the key
//! it was opened for; one that is past its deadline, or whose login was retired, is not lent again.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{DatabaseName, IdentityKey, TargetName};

/// What makes two connections interchangeable, compared by value. One identity's login is in it, or the
/// identity itself, so one identity's connection is never lent to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    pub target: TargetName,
    pub database: DatabaseName,
    pub login: std::sync::Arc<str>,
    /// Whose connection it is, where one login serves all identities: the server is told when the
    /// connection begins. `None`: the login says it.
    pub identity: Option<IdentityKey>,
    /// Start-up parameters that a reset does not undo.
    pub settings: Vec<(String, String)>,
}

/// Names one connection of one thread's pool for as long as that pool lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number(u64);

/// The budget's mark on an idle connection: older marks are smaller, over all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdleMark(pub(super) u64);

/// A connection on its way out of the book to one borrower.
#[derive(Debug)]
pub struct Loan<C> {
    pub number: Number,
    pub key: Rc<PoolKey>,
    pub connection: C,
    pub idle_since: Instant,
}

/// How many connections stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub idle: usize,
    pub lent: usize,
}

/// See the module. `C` is the connection, opaque here.
#[derive(Debug)]
pub struct Book<C> {
    idle_timeout: Duration,
    /// Per key, the most recently used last: reuse takes the warmest and lets the surplus expire.
    idle: HashMap<Rc<PoolKey>, Vec<Idle<C>>>,
    lent: HashMap<Number, Lent>,
    next: u64,
}

#[derive(Debug)]
struct Idle<C> {
    number: Number,
    mark: IdleMark,
    since: Instant,
    /// When it is closed for being idle or for its age, whichever comes first.
    deadline: Instant,
    ends: Instant,
    connection: C,
}

#[derive(Debug)]
struct Lent {
    key: Rc<PoolKey>,
    /// End of the connection's life.
    ends: Instant,
    /// Its login was retired while it was lent.
    retired: bool,
}

impl<C> Book<C> {
    pub fn new(idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            idle: HashMap::new(),
            lent: HashMap::new(),
            next: 0,
        }
    }

    /// Enters a new connection that its opener borrows at once.
    pub fn open(&mut self, key: Rc<PoolKey>, ends: Instant) -> Number {
        let number = Number(self.next);
        self.next += 1;
        let retired = false;
        self.lent.insert(number, Lent { key, ends, retired });
        number
    }

    /// Lends the most recently used idle connection of exactly this key. `claim` asks the budget
    /// for it: a connection that the budget promised to a waiter stays where it is.
    pub fn lend(
        &mut self,
        key: &PoolKey,
        now: Instant,
        mut claim: impl FnMut(IdleMark) -> bool,
    ) -> Option<Loan<C>> {
        let (owned, _) = self.idle.get_key_value(key)?;
        let owned = Rc::clone(owned);
        let row = self.idle.get_mut(key)?;
        let place = row
            .iter()
            .rposition(|idle| now < idle.deadline && claim(idle.mark))?;
        let idle = row.remove(place);
        let lent = Lent {
            key: Rc::clone(&owned),
            ends: idle.ends,
            retired: false,
        };
        self.lent.insert(idle.number, lent);
        Some(Loan {
            number: idle.number,
            key: owned,
            connection: idle.connection,
            idle_since: idle.since,
        })
    }

    /// May this lent connection be lent again, or must it be closed instead?
    pub fn may_keep(&self, number: Number, now: Instant) -> bool {
        let lent = self.lent.get(&number);
        lent.is_some_and(|lent| !lent.retired && now < lent.ends)
    }

    /// Was its login retired while it was lent?
    pub fn is_retired(&self, number: Number) -> bool {
        self.lent.get(&number).is_some_and(|lent| lent.retired)
    }

    /// Moves a lent connection to the idle ones and says when it expires. Gives it back, forgotten,
    /// when it may not be kept.
    pub fn take_back(
        &mut self,
        number: Number,
        mark: IdleMark,
        connection: C,
        now: Instant,
    ) -> Result<Instant, C> {
        let keep = self.may_keep(number, now);
        let Some(lent) = self.lent.remove(&number).filter(|_| keep) else {
            return Err(connection);
        };
        let deadline = lent.ends.min(now + self.idle_timeout);
        let idle = Idle {
            number,
            mark,
            since: now,
            deadline,
            ends: lent.ends,
            connection,
        };
        self.idle.entry(lent.key).or_default().push(idle);
        Ok(deadline)
    }

    /// A lent connection was closed by its borrower.
    pub fn forget(&mut self, number: Number) {
        self.lent.remove(&number);
    }

    /// Gives out the idle connection that the budget promised to a waiter.
    pub fn evict(&mut self, mark: IdleMark) -> Option<C> {
        self.idle.values_mut().find_map(|row| {
            let place = row.iter().position(|idle| idle.mark == mark)?;
            Some(row.remove(place).connection)
        })
    }

    /// Gives out what is past its deadline, and tidies keys that have nothing left.
    pub fn expire(&mut self, now: Instant) -> Vec<(IdleMark, C)> {
        self.remove(|_, idle| idle.deadline <= now)
    }

    /// Gives out the idle connections of a login that ends, and bars the lent ones from coming back.
    pub fn retire(&mut self, login: &str) -> Vec<(IdleMark, C)> {
        for lent in self.lent.values_mut() {
            lent.retired |= *lent.key.login == *login;
        }
        self.remove(|key, _| *key.login == *login)
    }

    /// Gives out all idle connections, and bars the lent ones from coming back.
    pub fn close_all(&mut self) -> Vec<(IdleMark, C)> {
        for lent in self.lent.values_mut() {
            lent.retired = true;
        }
        self.remove(|_, _| true)
    }

    /// When `expire` has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.idle.values().flatten().map(|idle| idle.deadline).min()
    }

    pub fn counts(&self) -> Counts {
        Counts {
            idle: self.idle.values().map(Vec::len).sum(),
            lent: self.lent.len(),
        }
    }

    fn remove(&mut self, mut which: impl FnMut(&PoolKey, &Idle<C>) -> bool) -> Vec<(IdleMark, C)> {
        let mut removed = Vec::new();
        for (key, row) in &mut self.idle {
            removed.extend(row.extract_if(.., |idle| which(key, idle)));
        }
        self.idle.retain(|_, row| !row.is_empty());
        removed
            .into_iter()
            .map(|idle| (idle.mark, idle.connection))
            .collect()
    }
}

#[cfg(test)]
mod tests;
