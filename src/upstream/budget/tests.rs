//! The budget against a model: the cap, the order of the queue, places given up, and idle
//! connections that are closed for a waiter, over two threads' pools.

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;

const CAP: u32 = 3;

#[derive(Clone, Debug)]
enum Happening {
    Take { member: usize },
    GiveUp { which: usize },
    Close { which: usize },
    GiveBack { which: usize, fits: bool },
    Lend { which: usize },
    Errands { member: usize },
}

fn happening() -> impl Strategy<Value = Happening> {
    let member = 0..2_usize;
    prop_oneof![
        4 => member.clone().prop_map(|member| Happening::Take { member }),
        1 => (0..6_usize).prop_map(|which| Happening::GiveUp { which }),
        2 => (0..6_usize).prop_map(|which| Happening::Close { which }),
        4 => (0..6_usize, any::<bool>()).prop_map(|(which, fits)| Happening::GiveBack { which, fits }),
        2 => (0..6_usize).prop_map(|which| Happening::Lend { which }),
        2 => member.prop_map(|member| Happening::Errands { member }),
    ]
}

struct Model {
    budget: Arc<Budget>,
    members: Vec<(Member, mpsc::UnboundedReceiver<Errand>)>,
    lent: Vec<(usize, Slot)>,
    idle: Vec<(usize, IdleMark, Slot)>,
    waiting: VecDeque<(usize, Place)>,
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
            Happening::Take { member } => match self.members[member].0.take() {
                Taken::Slot(slot) => {
                    assert!(self.waiting.is_empty(), "a newcomer overtook the queue");
                    self.lent.push((member, slot));
                }
                Taken::Wait(place) => self.waiting.push_back((member, place)),
            },
            Happening::GiveUp { which } if which < self.waiting.len() => {
                self.waiting.remove(which);
            }
            Happening::Close { which } if which < self.lent.len() => {
                self.lent.remove(which);
            }
            Happening::GiveBack { which, fits } if which < self.lent.len() => self.give_back(which, fits),
            Happening::Lend { which } if which < self.idle.len() => {
                let (member, mark, _) = &self.idle[which];
                // A promised one is left for its errand.
                if self.members[*member].0.claim(*mark) {
                    let (member, _, slot) = self.idle.remove(which);
                    self.lent.push((member, slot));
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
        let (member, slot) = self.lent.remove(which);
        match self.members[member].0.settle(|_| fits) {
            Settled::Hand(id) => {
                let (waiter, place) = self.waiting.pop_front().unwrap();
                assert!(
                    fits && waiter == member && place.id == id,
                    "not the oldest waiter"
                );
                self.lent.push((member, slot));
            }
            Settled::Idle(mark) => self.idle.push((member, mark, slot)),
            Settled::Close => assert!(!self.waiting.is_empty(), "closed for nobody"),
        }
    }

    fn errands(&mut self, member: usize) {
        while let Ok(errand) = self.members[member].1.try_recv() {
            let Errand::Close(promise) = errand else { panic!() };
            let place = self.idle.iter().position(|(_, mark, _)| *mark == promise.mark());
            // Only its owner is asked, and nobody else can have taken it.
            let (owner, _, slot) = self.idle.remove(place.unwrap());
            assert_eq!(owner, member);
            drop(slot);
        }
    }

    /// Waiters that were served leave, and must be the oldest ones.
    fn serve(&mut self) {
        let mut someone_waits = false;
        let mut still = VecDeque::new();
        for (member, mut place) in self.waiting.drain(..) {
            match place.slot.try_recv() {
                Ok(slot) => {
                    assert!(!someone_waits, "a younger waiter was served first");
                    self.lent.push((member, slot));
                }
                Err(TryRecvError::Empty) => {
                    someone_waits = true;
                    still.push_back((member, place));
                }
                Err(TryRecvError::Closed) => panic!("a place was lost"),
            }
        }
        self.waiting = still;
    }

    fn check(&self) {
        let stats = self.budget.stats();
        let open = self.lent.len() + self.idle.len();
        assert!(open <= CAP as usize);
        assert_eq!(stats.taken as usize, open);
        assert_eq!(stats.waiting, self.waiting.len());
        if !self.waiting.is_empty() {
            assert_eq!(stats.taken, CAP, "somebody waits while a slot is free");
            let promised = self.idle.len() - stats.idle;
            assert!(
                stats.idle == 0 || promised >= self.waiting.len(),
                "idle beside a waiter"
            );
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
        let ledger = model.budget.ledger();
        prop_assert_eq!(ledger.promised, model.members.iter().map(|(_, errands)| errands.len()).sum::<usize>());
    }
}

#[test]
fn a_waiter_has_the_oldest_idle_connection_of_any_thread_closed() {
    let budget = Budget::new("orders".into(), 2);
    let (here, _errands) = budget.join();
    let (there, mut errands) = budget.join();
    let mut idle = Vec::new();
    for member in [&there, &here] {
        let Taken::Slot(slot) = member.take() else {
            panic!()
        };
        let Settled::Idle(mark) = member.settle(|_| false) else {
            panic!()
        };
        idle.push((mark, slot));
    }
    let Taken::Wait(mut place) = here.take() else {
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
    let Taken::Slot(slot) = member.take() else {
        panic!()
    };
    let Taken::Wait(first) = member.take() else {
        panic!()
    };
    let Taken::Wait(mut second) = member.take() else {
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
    let Taken::Slot(slot) = gone.take() else { panic!() };
    let Settled::Idle(_) = gone.settle(|_| false) else {
        panic!()
    };
    let Taken::Wait(mut place) = member.take() else {
        panic!()
    };
    drop((errands, gone, slot));
    assert!(place.slot.try_recv().is_ok());
    assert_eq!(budget.ledger().promised, 0);
}
