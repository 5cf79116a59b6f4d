//! The books behind the lock: who has how much, who waits, and what is idle. Nothing here waits.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::upstream::book::IdleMark;
use crate::upstream::share::{Holder, Share};

use super::{Budget, BudgetStats, Errand, MemberId, PlaceId, Promise, Promised, Settled, Slot};

/// Promises with the mailboxes that they go to, sent when the lock is free again.
pub(super) type Errands = Vec<(mpsc::UnboundedSender<Errand>, Promise)>;

#[derive(Debug)]
pub(super) struct Ledger {
    max: u32,
    taken: u32,
    /// Who waits for a slot, in the order of their places. Each counts under its holder already.
    waiters: VecDeque<Waiter>,
    /// Idle connections over all threads, oldest first.
    idle: BTreeMap<IdleMark, Idle>,
    /// Idle connections that were promised to waiters and are not closed yet.
    promised: usize,
    /// Holders that have a connection, wait for one, or are promised one.
    tallies: HashMap<Arc<Holder>, Tally>,
    members: BTreeMap<MemberId, mpsc::UnboundedSender<Errand>>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    place: PlaceId,
    member: MemberId,
    holder: Arc<Holder>,
    slot: oneshot::Sender<Slot>,
}

/// Who waits until its holder has fewer than `most` connections.
#[derive(Debug)]
struct Parked {
    most: u32,
    waiter: Waiter,
}

#[derive(Debug)]
struct Idle {
    member: MemberId,
    holder: Arc<Holder>,
}

#[derive(Debug, Default)]
struct Tally {
    /// Connections that are open or being opened, and waiters for a slot.
    counted: u32,
    /// In the order of their places.
    parked: VecDeque<Parked>,
    /// Idle connections of this holder that were promised to its parked ones.
    promised: usize,
}

impl Tally {
    fn is_over(&self) -> bool {
        self.counted == 0 && self.parked.is_empty() && self.promised == 0
    }
}

/// Somebody who may get a connection that came back.
struct Candidate {
    place: PlaceId,
    member: MemberId,
    parked: bool,
    /// May it use the connection without exceeding its share?
    may_use: bool,
    /// Is no other connection on its way to it?
    in_need: bool,
}

impl Ledger {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max,
            taken: 0,
            waiters: VecDeque::new(),
            idle: BTreeMap::new(),
            promised: 0,
            tallies: HashMap::new(),
            members: BTreeMap::new(),
            next: 0,
        }
    }

    pub(super) fn stats(&self) -> BudgetStats {
        BudgetStats {
            max: self.max,
            taken: self.taken,
            idle: self.idle.len(),
            waiting: self.waiters.len(),
            parked: self.tallies.values().map(|tally| tally.parked.len()).sum(),
        }
    }

    pub(super) fn join(&mut self, mailbox: mpsc::UnboundedSender<Errand>) -> MemberId {
        let id = MemberId(self.number());
        self.members.insert(id, mailbox);
        id
    }

    pub(super) fn leave(&mut self, member: MemberId) -> Option<mpsc::UnboundedSender<Errand>> {
        self.idle.retain(|_, idle| idle.member != member);
        self.members.remove(&member)
    }

    pub(super) fn mailboxes(&self) -> impl Iterator<Item = &mpsc::UnboundedSender<Errand>> {
        self.members.values()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes a slot if one is free, nobody waits for it and the share allows it.
    pub(super) fn take_at_once(&mut self, share: &Share) -> bool {
        let free = self.waiters.is_empty() && self.taken < self.max;
        if !free || self.counted(&share.holder) >= share.most() {
            return false;
        }
        self.taken += 1;
        self.tally(&share.holder).counted += 1;
        true
    }

    /// Puts somebody in line: in the queue, or aside when its holder has its whole share.
    pub(super) fn line_up(
        &mut self,
        share: &Share,
        member: MemberId,
        slot: oneshot::Sender<Slot>,
    ) -> PlaceId {
        let place = PlaceId(self.number());
        let holder = Arc::clone(&share.holder);
        let waiter = Waiter {
            place,
            member,
            holder,
            slot,
        };
        let most = share.most();
        let tally = self.tally(&share.holder);
        if tally.counted >= most {
            tally.parked.push_back(Parked { most, waiter });
        } else {
            tally.counted += 1;
            self.waiters.push_back(waiter);
        }
        place
    }

    pub(super) fn is_parked(&self, holder: &Arc<Holder>, place: PlaceId) -> bool {
        let parked = self.tallies.get(holder).map(|tally| &tally.parked);
        parked.is_some_and(|parked| parked.iter().any(|parked| parked.waiter.place == place))
    }

    pub(super) fn claim(&mut self, mark: IdleMark) -> bool {
        self.idle.remove(&mark).is_some()
    }

    pub(super) fn settle(
        &mut self,
        member: MemberId,
        holder: &Arc<Holder>,
        can_use: impl Fn(PlaceId) -> bool,
    ) -> Settled {
        for candidate in self.candidates(holder).into_iter().flatten() {
            if candidate.member == member && candidate.may_use && can_use(candidate.place) {
                self.leave_line(holder, &candidate);
                return Settled::Hand(candidate.place);
            }
            if candidate.in_need {
                return Settled::Close;
            }
        }
        let mark = IdleMark(self.number());
        let holder = Arc::clone(holder);
        self.idle.insert(mark, Idle { member, holder });
        Settled::Idle(mark)
    }

    /// The oldest of the queue and the oldest that is parked under this holder, older first.
    fn candidates(&self, holder: &Arc<Holder>) -> [Option<Candidate>; 2] {
        let queue = self.waiters.front().map(|waiter| Candidate {
            place: waiter.place,
            member: waiter.member,
            parked: false,
            may_use: true,
            in_need: self.waiters.len() > self.promised,
        });
        let tally = self.tallies.get(holder);
        let parked = tally.and_then(|tally| {
            let first = tally.parked.front()?;
            Some(Candidate {
                place: first.waiter.place,
                member: first.waiter.member,
                parked: true,
                may_use: tally.counted <= first.most,
                in_need: tally.parked.len() > tally.promised,
            })
        });
        match (&queue, &parked) {
            (Some(waiter), Some(first)) if first.place < waiter.place => [parked, queue],
            _ => [queue, parked],
        }
    }

    /// A candidate goes with the connection that it was handed.
    fn leave_line(&mut self, holder: &Arc<Holder>, candidate: &Candidate) {
        if candidate.parked {
            self.tally(holder).parked.pop_front();
        } else if let Some(waiter) = self.waiters.pop_front() {
            self.uncount(&waiter.holder);
        }
    }

    /// A slot is free.
    pub(super) fn release(&mut self, holder: &Arc<Holder>) {
        self.taken = self.taken.saturating_sub(1);
        self.uncount(holder);
    }

    /// A promised connection is closed, or its pool is gone.
    pub(super) fn kept(&mut self, holder: &Arc<Holder>, whom: Promised) {
        match whom {
            Promised::Queue => self.promised = self.promised.saturating_sub(1),
            Promised::Parked => {
                let tally = self.tally(holder);
                tally.promised = tally.promised.saturating_sub(1);
                self.forget_if_over(holder);
            }
        }
    }

    /// Somebody who may still wait does so no longer. What is returned is dropped outside the lock.
    pub(super) fn give_up(&mut self, holder: &Arc<Holder>, place: PlaceId) -> Option<oneshot::Sender<Slot>> {
        if let Ok(at) = self.waiters.binary_search_by_key(&place, |waiter| waiter.place) {
            let waiter = self.waiters.remove(at)?;
            self.uncount(holder);
            return Some(waiter.slot);
        }
        let parked = &mut self.tallies.get_mut(holder)?.parked;
        let at = parked.iter().position(|parked| parked.waiter.place == place)?;
        let gone = parked.remove(at)?;
        self.forget_if_over(holder);
        Some(gone.waiter.slot)
    }

    /// Gives free slots to the oldest waiters that are still there.
    pub(super) fn serve(&mut self, budget: &Arc<Budget>) {
        while self.taken < self.max
            && let Some(waiter) = self.waiters.pop_front()
        {
            self.taken += 1;
            let slot = Slot {
                budget: Some(Arc::clone(budget)),
                holder: waiter.holder,
            };
            if let Err(mut slot) = waiter.slot.send(slot) {
                // Defused: its drop would come back here and find the lock taken.
                slot.budget = None;
                self.release(&slot.holder);
            }
        }
    }

    /// Promises idle connections to those who wait and have no other on its way: the oldest of all
    /// to the queue, the oldest of the holder to its parked ones.
    pub(super) fn promise(&mut self, holder: &Arc<Holder>, budget: &Arc<Budget>) -> Errands {
        let mut errands = Errands::new();
        while self.waiters.len() > self.promised {
            let Some(errand) = self.promise_oldest(Promised::Queue, budget, |_| true) else {
                break;
            };
            self.promised += 1;
            errands.push(errand);
        }
        while self
            .tallies
            .get(holder)
            .is_some_and(|tally| tally.parked.len() > tally.promised)
        {
            let of_holder = |idle: &Idle| idle.holder == *holder;
            let Some(errand) = self.promise_oldest(Promised::Parked, budget, of_holder) else {
                break;
            };
            self.tally(holder).promised += 1;
            errands.push(errand);
        }
        errands
    }

    fn promise_oldest(
        &mut self,
        whom: Promised,
        budget: &Arc<Budget>,
        which: impl Fn(&Idle) -> bool,
    ) -> Option<(mpsc::UnboundedSender<Errand>, Promise)> {
        let (mark, _) = self.idle.iter().find(|(_, idle)| which(idle))?;
        let mark = *mark;
        let idle = self.idle.remove(&mark)?;
        let mailbox = self.members.get(&idle.member)?.clone();
        let promise = Promise {
            mark,
            holder: idle.holder,
            whom,
            budget: Arc::clone(budget),
        };
        Some((mailbox, promise))
    }

    fn counted(&self, holder: &Arc<Holder>) -> u32 {
        self.tallies.get(holder).map_or(0, |tally| tally.counted)
    }

    fn tally(&mut self, holder: &Arc<Holder>) -> &mut Tally {
        self.tallies.entry(Arc::clone(holder)).or_default()
    }

    /// One connection or waiter of this holder less: who was parked for it joins the queue, in the
    /// order of its place.
    fn uncount(&mut self, holder: &Arc<Holder>) {
        let Some(tally) = self.tallies.get_mut(holder) else {
            return;
        };
        tally.counted = tally.counted.saturating_sub(1);
        while let Some(at) = tally.parked.iter().position(|it| it.most > tally.counted)
            && let Some(parked) = tally.parked.remove(at)
        {
            tally.counted += 1;
            let behind = |waiter: &Waiter| waiter.place < parked.waiter.place;
            let place = self.waiters.partition_point(behind);
            self.waiters.insert(place, parked.waiter);
        }
        self.forget_if_over(holder);
    }

    fn forget_if_over(&mut self, holder: &Arc<Holder>) {
        if self.tallies.get(holder).is_some_and(Tally::is_over) {
            self.tallies.remove(holder);
        }
    }
}

#[cfg(test)]
impl Ledger {
    pub(super) fn promised_in_all(&self) -> usize {
        let parked: usize = self.tallies.values().map(|tally| tally.promised).sum();
        self.promised + parked
    }

    /// Counted, parked and promised.
    pub(super) fn tally_of(&self, holder: &Arc<Holder>) -> (u32, usize, usize) {
        self.tallies.get(holder).map_or((0, 0, 0), |tally| {
            (tally.counted, tally.parked.len(), tally.promised)
        })
    }

    pub(super) fn is_idle(&self, mark: IdleMark) -> bool {
        self.idle.contains_key(&mark)
    }

    pub(super) fn has_forgotten_everybody(&self) -> bool {
        self.tallies.is_empty()
    }
}
