//! The hard cap on connections to one target, shared by all threads: slots, a first-in first-out
//! queue of those who wait for one, and a register of idle connections, so that a waiter can have
//! the oldest idle connection of any thread closed by the thread that owns it. Below it each holder
//! has a share: who would exceed it is parked, apart from the queue, and stands in nobody's way.
//!
//! Invariants: never more slots than the cap, nor more of one holder than its share; a released slot
//! goes to the oldest waiter whose share allows it, and no newcomer overtakes; while somebody waits
//! without a promised connection, nothing that would help becomes idle.
//! One uncontended lock per checkout and return; nothing is awaited or sent to a pool under it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::domain::TargetName;
use crate::upstream::book::IdleMark;
use crate::upstream::measure::PoolMeasures;
use crate::upstream::share::{Holder, Share};

use ledger::{Errands, Ledger};

mod ledger;

/// One target's connections over all threads.
#[derive(Debug)]
pub struct Budget {
    target: TargetName,
    ledger: Mutex<Ledger>,
    measures: PoolMeasures,
}

/// What the metrics show of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetStats {
    pub max: u32,
    /// Connections that are open or being opened.
    pub taken: u32,
    pub idle: usize,
    /// Who waits for a slot of the target.
    pub waiting: usize,
    /// Who waits because its holder has its whole share.
    pub parked: usize,
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
    holder: Arc<Holder>,
}

/// An idle connection that was promised to a waiter; dropped when it is closed.
#[derive(Debug)]
pub(super) struct Promise {
    mark: IdleMark,
    holder: Arc<Holder>,
    whom: Promised,
    budget: Arc<Budget>,
}

/// To whom an idle connection was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promised {
    /// To somebody who waits for a slot of the target.
    Queue,
    /// To somebody who is parked under the connection's holder.
    Parked,
}

/// A waiter's place in the queue; dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: PlaceId,
    pub(super) slot: oneshot::Receiver<Slot>,
    holder: Arc<Holder>,
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
        Arc::new(Self {
            target,
            ledger: Mutex::new(Ledger::new(max_connections)),
            measures: PoolMeasures::default(),
        })
    }

    pub fn target(&self) -> &TargetName {
        &self.target
    }

    pub fn measures(&self) -> &PoolMeasures {
        &self.measures
    }

    pub fn stats(&self) -> BudgetStats {
        self.ledger().stats()
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
        let id = self.ledger().join(mailbox);
        let budget = Arc::clone(self);
        (Member { id, budget }, errands)
    }

    fn broadcast(&self, errand: impl Fn() -> Errand) {
        let mailboxes: Vec<_> = self.ledger().mailboxes().cloned().collect();
        for mailbox in mailboxes {
            // A pool that is gone has closed its connections.
            let _ = mailbox.send(errand());
        }
    }

    /// Changes the ledger, then asks for the idle connections that somebody needs now.
    fn change<T>(self: &Arc<Self>, holder: &Arc<Holder>, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger();
        let changed = change(&mut ledger);
        ledger.serve(self);
        let errands = ledger.promise(holder, self);
        drop(ledger);
        send(errands);
        changed
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing panics while holding the lock; if it ever did, counts are still whole numbers.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pool that is gone closes its connections, and their slots come free by that; a promise that
/// cannot be delivered takes the lock when it is dropped.
fn send(errands: Errands) {
    for (mailbox, promise) in errands {
        let _ = mailbox.send(Errand::Close(promise));
    }
}

impl Member {
    /// A slot at once if one is free, nobody waits for it and the share allows it; else a place in
    /// line, and the oldest idle connection that would help is asked to close for it.
    pub(super) fn take(&self, share: &Share) -> Taken {
        let budget = &self.budget;
        let mut ledger = budget.ledger();
        if ledger.take_at_once(share) {
            return Taken::Slot(Slot {
                budget: Some(Arc::clone(budget)),
                holder: Arc::clone(&share.holder),
            });
        }
        let (sender, slot) = oneshot::channel();
        let id = ledger.line_up(share, self.id, sender);
        let errands = ledger.promise(&share.holder, budget);
        drop(ledger);
        send(errands);
        Taken::Wait(Place {
            id,
            slot,
            holder: Arc::clone(&share.holder),
            budget: Arc::clone(budget),
        })
    }

    /// Takes an idle connection of this thread off the register. `false`: it is promised.
    pub(super) fn claim(&self, mark: IdleMark) -> bool {
        self.budget.ledger().claim(mark)
    }

    /// Decides what becomes of a clean connection. `can_use` says whether a waiter of this thread
    /// wants exactly its key.
    pub(super) fn settle(&self, holder: &Arc<Holder>, can_use: impl Fn(PlaceId) -> bool) -> Settled {
        self.budget
            .change(holder, |ledger| ledger.settle(self.id, holder, can_use))
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

impl Slot {
    pub(super) fn holder(&self) -> &Arc<Holder> {
        &self.holder
    }
}

impl Promise {
    pub(super) fn mark(&self) -> IdleMark {
        self.mark
    }
}

impl Place {
    /// Does it wait because its holder has its whole share?
    pub(super) fn is_parked(&self) -> bool {
        self.budget.ledger().is_parked(&self.holder, self.id)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mailbox = self.budget.ledger().leave(self.id);
        // Outside the lock: it may hold promises, whose drop takes the lock.
        drop(mailbox);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(budget) = self.budget.take() {
            budget.change(&self.holder, |ledger| ledger.release(&self.holder));
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let budget = &self.budget;
        budget.change(&self.holder, |ledger| ledger.kept(&self.holder, self.whom));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let budget = &self.budget;
        let waiter = budget.change(&self.holder, |ledger| ledger.give_up(&self.holder, self.id));
        // Outside the lock, as everything that may hold a slot.
        drop(waiter);
    }
}

#[cfg(test)]
mod tests;
