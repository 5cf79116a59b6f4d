//! The hard cap on connections to one target, shared by all threads: slots, a first-in first-out
//! queue of those who wait for one, and a register of idle connections, so that a waiter can have
//! the oldest idle connection of any thread closed by the thread that owns it.
//!
//! Invariants: never more slots than the cap; a released slot goes to the oldest waiter and no
//! newcomer overtakes; while somebody waits without a promised connection, nothing becomes idle.
//! One uncontended lock per checkout and return; nothing is awaited or sent under it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::domain::TargetName;
use crate::upstream::book::IdleMark;

/// One target's connections over all threads.
#[derive(Debug)]
pub struct Budget {
    target: TargetName,
    ledger: Mutex<Ledger>,
}

/// What the metrics show of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetStats {
    pub max: u32,
    /// Connections that are open or being opened.
    pub taken: u32,
    pub idle: usize,
    pub waiting: usize,
}

#[derive(Debug)]
struct Ledger {
    max: u32,
    taken: u32,
    waiters: VecDeque<Waiter>,
    /// Idle connections over all threads, oldest first, with the member that owns each.
    idle: BTreeMap<IdleMark, MemberId>,
    /// Idle connections that were promised to waiters and are not closed yet.
    promised: usize,
    members: BTreeMap<MemberId, mpsc::UnboundedSender<Errand>>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    place: PlaceId,
    member: MemberId,
    slot: oneshot::Sender<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberId(u64);

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PlaceId(u64);

/// What the budget asks of a thread's pool.
#[derive(Debug)]
pub(super) enum Errand {
    /// Close this idle connection: a waiter needs its slot.
    Close(Promise),
    /// Close what belongs to this login.
    Retire(Arc<str>),
    /// Close all that is idle and keep nothing that comes back.
    CloseAll,
}

/// A pool's membership; dropping it takes the thread's idle connections off the register.
#[derive(Debug)]
pub(super) struct Member {
    id: MemberId,
    budget: Arc<Budget>,
}

/// The right to have one connection open. Dropping it passes the right on.
#[derive(Debug)]
pub(super) struct Slot {
    /// `None` once the right was passed on by other means.
    budget: Option<Arc<Budget>>,
}

/// An idle connection that was promised to a waiter; dropped when it is closed.
#[derive(Debug)]
pub(super) struct Promise {
    mark: IdleMark,
    budget: Arc<Budget>,
}

/// A waiter's place in the queue; dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: PlaceId,
    pub(super) slot: oneshot::Receiver<Slot>,
    budget: Arc<Budget>,
}

/// The answer to somebody who wants to open a connection.
#[derive(Debug)]
pub(super) enum Taken {
    Slot(Slot),
    Wait(Place),
}

/// What becomes of a clean connection that its borrower returns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The oldest waiter can use it as it is; it has left the queue.
    Hand(PlaceId),
    Idle(IdleMark),
    /// Somebody else waits for its slot.
    Close,
}

impl Budget {
    pub fn new(target: TargetName, max_connections: u32) -> Arc<Self> {
        let ledger = Ledger {
            max: max_connections,
            taken: 0,
            waiters: VecDeque::new(),
            idle: BTreeMap::new(),
            promised: 0,
            members: BTreeMap::new(),
            next: 0,
        };
        Arc::new(Self {
            target,
            ledger: Mutex::new(ledger),
        })
    }

    pub fn target(&self) -> &TargetName {
        &self.target
    }

    pub fn stats(&self) -> BudgetStats {
        let ledger = self.ledger();
        BudgetStats {
            max: ledger.max,
            taken: ledger.taken,
            idle: ledger.idle.len(),
            waiting: ledger.waiters.len(),
        }
    }

    /// Has every thread close the idle connections of a login that ends, now, and the lent ones
    /// when they come back.
    pub fn retire(&self, login: &str) {
        let login: Arc<str> = Arc::from(login);
        self.broadcast(|| Errand::Retire(Arc::clone(&login)));
    }

    /// Has every thread close what is idle; what is lent is closed when it comes back.
    pub fn close_all(&self) {
        self.broadcast(|| Errand::CloseAll);
    }

    /// A thread's pool joins; it serves the errands that arrive in its mailbox.
    pub(super) fn join(self: &Arc<Self>) -> (Member, mpsc::UnboundedReceiver<Errand>) {
        // Unbounded: one errand per waiter or retired login, both bounded elsewhere.
        let (mailbox, errands) = mpsc::unbounded_channel();
        let mut ledger = self.ledger();
        let id = MemberId(ledger.number());
        ledger.members.insert(id, mailbox);
        let budget = Arc::clone(self);
        (Member { id, budget }, errands)
    }

    fn broadcast(&self, errand: impl Fn() -> Errand) {
        let mailboxes: Vec<_> = self.ledger().members.values().cloned().collect();
        for mailbox in mailboxes {
            // A pool that is gone has closed its connections.
            let _ = mailbox.send(errand());
        }
    }

    /// Passes a slot to the oldest waiter that is still there, or frees it.
    fn release(self: &Arc<Self>) {
        let mut ledger = self.ledger();
        while let Some(waiter) = ledger.waiters.pop_front() {
            let slot = Slot {
                budget: Some(Arc::clone(self)),
            };
            match waiter.slot.send(slot) {
                Ok(()) => return,
                // Defused: its drop would come back here and find the lock taken.
                Err(mut slot) => slot.budget = None,
            }
        }
        ledger.taken = ledger.taken.saturating_sub(1);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing panics while holding the lock; if it ever did, counts are still whole numbers.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Member {
    /// A slot at once if one is free and nobody waits; else a place in the queue, and the oldest
    /// idle connection of any thread is asked to close for it.
    pub(super) fn take(&self) -> Taken {
        let mut ledger = self.budget.ledger();
        if ledger.waiters.is_empty() && ledger.taken < ledger.max {
            ledger.taken += 1;
            let budget = Some(Arc::clone(&self.budget));
            return Taken::Slot(Slot { budget });
        }
        let (sender, slot) = oneshot::channel();
        let id = PlaceId(ledger.number());
        ledger.waiters.push_back(Waiter {
            place: id,
            member: self.id,
            slot: sender,
        });
        let errand = self.promise_oldest(&mut ledger);
        drop(ledger);
        if let Some((mailbox, promise)) = errand {
            // A pool that is gone closes its connections, and their slots come free by that.
            let _ = mailbox.send(Errand::Close(promise));
        }
        let budget = Arc::clone(&self.budget);
        Taken::Wait(Place { id, slot, budget })
    }

    /// Takes an idle connection of this thread off the register. `false`: it is promised.
    pub(super) fn claim(&self, mark: IdleMark) -> bool {
        self.budget.ledger().idle.remove(&mark).is_some()
    }

    /// Decides what becomes of a clean connection. `can_use` says whether a waiter of this thread
    /// wants exactly its key.
    pub(super) fn settle(&self, can_use: impl FnOnce(PlaceId) -> bool) -> Settled {
        let mut ledger = self.budget.ledger();
        let oldest = ledger.waiters.front();
        let oldest = oldest.filter(|waiter| waiter.member == self.id);
        if let Some(place) = oldest.map(|waiter| waiter.place)
            && can_use(place)
        {
            ledger.waiters.pop_front();
            return Settled::Hand(place);
        }
        if ledger.waiters.len() > ledger.promised {
            return Settled::Close;
        }
        let mark = IdleMark(ledger.number());
        ledger.idle.insert(mark, self.id);
        Settled::Idle(mark)
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn promise_oldest(&self, ledger: &mut Ledger) -> Option<(mpsc::UnboundedSender<Errand>, Promise)> {
        let (mark, owner) = ledger.idle.pop_first()?;
        let mailbox = ledger.members.get(&owner)?.clone();
        ledger.promised += 1;
        let budget = Arc::clone(&self.budget);
        Some((mailbox, Promise { mark, budget }))
    }
}

impl Promise {
    pub(super) fn mark(&self) -> IdleMark {
        self.mark
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut ledger = self.budget.ledger();
        let mailbox = ledger.members.remove(&self.id);
        ledger.idle.retain(|_, owner| *owner != self.id);
        drop(ledger);
        // Outside the lock: it may hold promises, whose drop takes the lock.
        drop(mailbox);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(budget) = self.budget.take() {
            budget.release();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut ledger = self.budget.ledger();
        ledger.promised = ledger.promised.saturating_sub(1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut ledger = self.budget.ledger();
        let place = ledger.waiters.iter().position(|waiter| waiter.place == self.id);
        let waiter = place.and_then(|place| ledger.waiters.remove(place));
        drop(ledger);
        drop(waiter);
    }
}

#[cfg(test)]
mod tests;
