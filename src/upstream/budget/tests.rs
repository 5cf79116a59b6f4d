//! The budget against a model: the cap, the shares, the order of the queue, places given up, and
//! idle connections that are closed for a waiter, over two threads' pools.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;

const CAP: u32 = 4;
/// Connections of each holder; the last has no share of its own.
const SHARES: [Option<u32>; 3] = [Some(1), Some(2), None];

fn share(whose: usize) -> Share {
    let identity = crate::domain::IdentityKey {
        provider: "p".into(),
        tenant: None,
        subject: format!("subject {whose}"),
    };
    let role = "writer".into();
    Share {
        holder: Arc::new(Holder { identity, role }),
        most: SHARES[whose],
    }
}

/// Somebody whom only the target's cap binds.
fn anybody() -> Share {
    share(2)
}

#[derive(Clone, Debug)]
enum Happening {
    Take { member: usize, whose: usize },
    GiveUp { which: usize },
    Close { which: usize },
    GiveBack { which: usize, fits: bool },
    Lend { which: usize },
    Errands { member: usize },
}

fn happening() -> impl Strategy<Value = Happening> {
    let member = 0..2_usize;
    prop_oneof![
        5 => (member.clone(), 0..3_usize).prop_map(|(member, whose)| Happening::Take { member, whose }),
        1 => (0..6_usize).prop_map(|which| Happening::GiveUp { which }),
        2 => (0..6_usize).prop_map(|which| Happening::Close { which }),
        4 => (0..6_usize, any::<bool>()).prop_map(|(which, fits)| Happening::GiveBack { which, fits }),
        2 => (0..6_usize).prop_map(|which| Happening::Lend { which }),
        2 => member.prop_map(|member| Happening::Errands { member }),
    ]
}

struct Lent {
    member: usize,
    whose: usize,
    slot: Slot,
}

struct Waiting {
    member: usize,
    whose: usize,
    place: Place,
}

struct Model {
    budget: Arc<Budget>,
    members: Vec<(Member, mpsc::UnboundedReceiver<Errand>)>,
    lent: Vec<Lent>,
    idle: Vec<(IdleMark, Lent)>,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
}

impl Model {
    fn new() -> Self {
        let budget = Budget::new("orders".into(), CAP);
        Self {
            members: vec![budget.join(), budget.join()],
            budget,
            lent: Vec::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Take { member, whose } => match self.members[member].0.take(&share(whose)) {
                Taken::Slot(slot) => {
                    let helpable = self.waiting.iter().find(|it| !self.is_capped(it.whose));
                    assert!(helpable.is_none(), "a newcomer overtook the queue");
                    self.lent.push(Lent { member, whose, slot });
                }
                Taken::Wait(place) => self.waiting.push_back(Waiting { member, whose, place }),
            },
            Happening::GiveUp { which } if which < self.waiting.len() => {
                self.waiting.remove(which);
            }
            Happening::Close { which } if which < self.lent.len() => {
                self.lent.remove(which);
            }
            Happening::GiveBack { which, fits } if which < self.lent.len() => self.give_back(which, fits),
            Happening::Lend { which } if which < self.idle.len() => {
                let (mark, lent) = &self.idle[which];
                // A promised one is left for its errand.
                if self.members[lent.member].0.claim(*mark) {
                    let (_, lent) = self.idle.remove(which);
                    self.lent.push(lent);
                }
            }
            Happening::Errands { member } => self.errands(member),
            Happening::GiveUp { .. }
            | Happening::Close { .. }
            | Happening::GiveBack { .. }
            | Happening::Lend { .. } => {}
        }
    }

    fn give_back(&mut self, which: usize, fits: bool) {
        let lent = self.lent.remove(which);
        let holder = Arc::clone(lent.slot.holder());
        let waiting = &self.waiting;
        // The same key means the same holder.
        let can_use = |id| {
            let whom = waiting.iter().find(|it| it.place.id == id).unwrap();
            fits && whom.whose == lent.whose && whom.member == lent.member
        };
        match self.members[lent.member].0.settle(&holder, can_use) {
            Settled::Hand(id) => {
                let place = self.waiting.iter().position(|it| it.place.id == id).unwrap();
                let older = self.waiting.iter().take(place);
                for older in older {
                    let covered = self.is_capped(older.whose) || self.budget.ledger().promised_in_all() > 0;
                    assert!(covered, "an older waiter could have had the slot");
                }
                self.waiting.remove(place);
                self.lent.push(lent);
            }
            Settled::Idle(mark) => self.idle.push((mark, lent)),
            Settled::Close => assert!(!self.waiting.is_empty(), "closed for nobody"),
        }
    }

    fn errands(&mut self, member: usize) {
        while let Ok(errand) = self.members[member].1.try_recv() {
            let Errand::Close(promise) = errand else { panic!() };
            let place = self.idle.iter().position(|(mark, _)| *mark == promise.mark());
            // Only its owner is asked, and nobody else can have taken it.
            let (_, lent) = self.idle.remove(place.unwrap());
            assert_eq!(lent.member, member);
            drop(lent);
        }
    }

    /// Waiters that were served leave; whoever is older and still waits must be at its share.
    fn serve(&mut self) {
        let mut overtaken = Vec::new();
        let mut still = VecDeque::new();
        for mut waiting in self.waiting.drain(..) {
            match waiting.place.slot.try_recv() {
                Ok(slot) => {
                    overtaken.extend(still.iter().map(|it: &Waiting| it.whose));
                    let Waiting { member, whose, .. } = waiting;
                    self.lent.push(Lent { member, whose, slot });
                }
                Err(TryRecvError::Empty) => still.push_back(waiting),
                Err(TryRecvError::Closed) => panic!("a place was lost"),
            }
        }
        self.waiting = still;
        for whose in overtaken {
            assert!(self.is_capped(whose), "a younger waiter was served first");
        }
    }

    fn open(&self, whose: usize) -> usize {
        let idle = self.idle.iter().map(|(_, lent)| lent);
        self.lent
            .iter()
            .chain(idle)
            .filter(|it| it.whose == whose)
            .count()
    }

    /// Has this holder its whole share, counting who is in the queue for the target?
    fn is_capped(&self, whose: usize) -> bool {
        let Share { holder, most } = share(whose);
        let (counted, _, _) = self.budget.ledger().tally_of(&holder);
        most.is_some_and(|most| counted >= most)
    }

    fn check(&self) {
        let stats = self.budget.stats();
        let open = self.lent.len() + self.idle.len();
        assert!(open <= CAP as usize);
        assert_eq!(stats.taken as usize, open);
        assert_eq!(stats.waiting + stats.parked, self.waiting.len());
        if stats.waiting > 0 {
            assert_eq!(stats.taken, CAP, "somebody waits while a slot is free");
            let promised = self.idle.len() - stats.idle;
            assert!(
                stats.idle == 0 || promised >= stats.waiting,
                "idle beside a waiter"
            );
        }
        for whose in 0..SHARES.len() {
            self.check_share(whose);
        }
    }

    fn check_share(&self, whose: usize) {
        let Share { holder, most } = share(whose);
        let (counted, parked, promised) = self.budget.ledger().tally_of(&holder);
        let open = self.open(whose);
        let waiting = self.waiting.iter().filter(|it| it.whose == whose).count();
        assert_eq!(counted as usize + parked, open + waiting);
        let Some(most) = most else {
            assert_eq!(parked, 0);
            return;
        };
        assert!(counted <= most, "{counted} of {most}");
        if parked > 0 {
            assert_eq!(counted, most, "somebody is parked below its share");
            let idle = self.idle.iter().filter(|(_, lent)| lent.whose == whose);
            let free = idle
                .filter(|(mark, _)| self.budget.ledger().is_idle(*mark))
                .count();
            assert!(free == 0 || promised >= parked, "idle beside one that is parked");
        }
    }
}

proptest! {
    #[test]
    fn the_budget_is_what_the_model_says(happenings in vec(happening(), 1..200)) {
        let mut model = Model::new();
        for happening in happenings {
            model.happen(happening);
            model.serve();
            model.check();
        }
        // Whatever happened, serving the errands and closing what is lent lets everybody through.
        while !model.waiting.is_empty() {
            model.errands(0);
            model.errands(1);
            model.lent.clear();
            model.serve();
        }
        model.lent.clear();
        model.idle.clear();
        prop_assert_eq!(model.budget.stats().taken, 0);
        let errands = model.members.iter().map(|(_, errands)| errands.len()).sum::<usize>();
        prop_assert_eq!(model.budget.ledger().promised_in_all(), errands);
        while model.members.iter().any(|(_, errands)| !errands.is_empty()) {
            for (_, errands) in &mut model.members {
                let _ = errands.try_recv();
            }
        }
        for whose in 0..SHARES.len() {
            prop_assert_eq!(model.budget.ledger().tally_of(&share(whose).holder), (0, 0, 0));
        }
        prop_assert!(model.budget.ledger().has_forgotten_everybody());
    }
}

#[test]
fn a_waiter_has_the_oldest_idle_connection_of_any_thread_closed() {
    let budget = Budget::new("orders".into(), 2);
    let (here, _errands) = budget.join();
    let (there, mut errands) = budget.join();
    let mut idle = Vec::new();
    for member in [&there, &here] {
        let Taken::Slot(slot) = member.take(&anybody()) else {
            panic!()
        };
        let Settled::Idle(mark) = member.settle(&anybody().holder, |_| false) else {
            panic!()
        };
        idle.push((mark, slot));
    }
    let Taken::Wait(mut place) = here.take(&anybody()) else {
        panic!()
    };
    let Ok(Errand::Close(promise)) = errands.try_recv() else {
        panic!()
    };
    let (oldest, slot) = idle.remove(0);
    assert_eq!(promise.mark(), oldest);
    assert!(!there.claim(oldest), "what is promised is not lent");
    drop(slot);
    assert!(place.slot.try_recv().is_ok(), "the waiter was woken");
}

#[test]
fn a_slot_that_reaches_nobody_goes_to_the_next() {
    let budget = Budget::new("orders".into(), 1);
    let (member, _errands) = budget.join();
    let Taken::Slot(slot) = member.take(&anybody()) else {
        panic!()
    };
    let Taken::Wait(first) = member.take(&anybody()) else {
        panic!()
    };
    let Taken::Wait(mut second) = member.take(&anybody()) else {
        panic!()
    };
    drop(slot);
    // Served, but gone before it looked.
    drop(first);
    assert!(second.slot.try_recv().is_ok());
}

#[test]
fn a_pool_that_ends_keeps_no_promise_open() {
    let budget = Budget::new("orders".into(), 1);
    let (gone, errands) = budget.join();
    let (member, _errands) = budget.join();
    let Taken::Slot(slot) = gone.take(&anybody()) else {
        panic!()
    };
    let Settled::Idle(_) = gone.settle(&anybody().holder, |_| false) else {
        panic!()
    };
    let Taken::Wait(mut place) = member.take(&anybody()) else {
        panic!()
    };
    drop((errands, gone, slot));
    assert!(place.slot.try_recv().is_ok());
    assert_eq!(budget.ledger().promised_in_all(), 0);
}

#[test]
fn who_has_its_share_waits_apart_and_holds_nobody_up() {
    let budget = Budget::new("orders".into(), 3);
    let (member, _errands) = budget.join();
    let (capped, other) = (share(0), anybody());
    let Taken::Slot(first) = member.take(&capped) else {
        panic!()
    };
    let Taken::Wait(mut parked) = member.take(&capped) else {
        panic!("the share is 1")
    };
    assert!(parked.is_parked());
    let Taken::Slot(_other) = member.take(&other) else {
        panic!("held up behind somebody else's share")
    };
    assert!(parked.slot.try_recv().is_err());
    drop(first);
    let slot = parked.slot.try_recv();
    assert!(slot.is_ok() && !parked.is_parked());
}

#[test]
fn an_idle_connection_of_the_same_holder_makes_room_and_no_other() {
    let budget = Budget::new("orders".into(), 9);
    let (here, mut at_home) = budget.join();
    let (there, mut errands) = budget.join();
    let idle = |member: &Member, share: &Share| {
        let Taken::Slot(slot) = member.take(share) else {
            panic!()
        };
        let Settled::Idle(mark) = member.settle(&share.holder, |_| false) else {
            panic!()
        };
        (mark, slot)
    };
    let (_, _older) = idle(&here, &anybody());
    let (mark, slot) = idle(&there, &share(0));
    let Taken::Wait(mut place) = here.take(&share(0)) else {
        panic!()
    };
    let Ok(Errand::Close(promise)) = errands.try_recv() else {
        panic!()
    };
    assert_eq!(promise.mark(), mark);
    assert!(
        at_home.try_recv().is_err(),
        "another's connection was closed for it"
    );
    drop((slot, promise));
    assert!(place.slot.try_recv().is_ok());
}

#[test]
fn a_connection_that_comes_back_goes_to_the_one_parked_for_it() {
    let budget = Budget::new("orders".into(), 9);
    let (member, _errands) = budget.join();
    let share = share(0);
    let Taken::Slot(slot) = member.take(&share) else {
        panic!()
    };
    let Taken::Wait(place) = member.take(&share) else {
        panic!()
    };
    let id = place.id;
    // Another key or thread: the connection is closed, and its place under the share comes free.
    assert_eq!(member.settle(&share.holder, |_| false), Settled::Close);
    assert_eq!(member.settle(&share.holder, |it| it == id), Settled::Hand(id));
    drop((slot, place));
    assert!(budget.ledger().has_forgotten_everybody());
}

#[test]
fn a_place_given_up_lets_the_next_of_the_same_holder_into_the_queue() {
    let budget = Budget::new("orders".into(), 1);
    let (member, _errands) = budget.join();
    let Taken::Slot(slot) = member.take(&anybody()) else {
        panic!()
    };
    let Taken::Wait(queued) = member.take(&share(0)) else {
        panic!()
    };
    let Taken::Wait(mut parked) = member.take(&share(0)) else {
        panic!()
    };
    let Taken::Wait(mut last) = member.take(&anybody()) else {
        panic!()
    };
    assert!(parked.is_parked());
    drop(queued);
    assert!(!parked.is_parked());
    drop(slot);
    // In the order in which they came, parked or not.
    let served = parked.slot.try_recv();
    assert!(served.is_ok() && last.slot.try_recv().is_err());
}
