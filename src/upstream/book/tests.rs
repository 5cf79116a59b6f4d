//! The book against a model: whatever the order of events, its invariants hold.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const IDLE_SECONDS: u64 = 10;

fn key(login: u8) -> PoolKey {
    PoolKey {
        target: "orders".into(),
        database: "orders".into(),
        login: format!("login-{login}").into(),
        identity: None,
        settings: vec![],
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Open { login: u8, life: u64 },
    Lend { login: u8 },
    TakeBack { which: usize },
    Forget { which: usize },
    Evict { which: usize },
    Retire { login: u8 },
    Pass { seconds: u64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    let login = 0..3_u8;
    prop_oneof![
        3 => (login.clone(), 1..40_u64).prop_map(|(login, life)| Happening::Open { login, life }),
        4 => login.clone().prop_map(|login| Happening::Lend { login }),
        4 => (0..8_usize).prop_map(|which| Happening::TakeBack { which }),
        1 => (0..8_usize).prop_map(|which| Happening::Forget { which }),
        1 => (0..8_usize).prop_map(|which| Happening::Evict { which }),
        1 => login.prop_map(|login| Happening::Retire { login }),
        2 => (1..8_u64).prop_map(|seconds| Happening::Pass { seconds }),
    ]
}

/// A connection as the model knows it: its own name, whose it is, and when its life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    name: u64,
    login: u8,
    ends: Instant,
}

struct Model {
    book: Book<Socket>,
    now: Instant,
    lent: Vec<(Number, Socket, bool)>,
    idle: BTreeMap<IdleMark, (Socket, Instant)>,
    next: u64,
}

impl Model {
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Open { login, life } => {
                self.next += 1;
                let ends = self.now + Duration::from_secs(life);
                let number = self.book.open(Rc::new(key(login)), ends);
                let socket = Socket {
                    name: self.next,
                    login,
                    ends,
                };
                self.lent.push((number, socket, false));
            }
            Happening::Lend { login } => self.lend(login),
            Happening::TakeBack { which } if which < self.lent.len() => self.take_back(which),
            Happening::Forget { which } if which < self.lent.len() => {
                let (number, ..) = self.lent.remove(which);
                self.book.forget(number);
            }
            Happening::Evict { which } => {
                let mark = self.idle.keys().nth(which).copied();
                let mark = mark.unwrap_or(IdleMark(u64::MAX));
                let expected = self.idle.remove(&mark).map(|(socket, _)| socket);
                assert_eq!(self.book.evict(mark), expected);
            }
            Happening::Retire { login } => {
                let gone = self.book.retire(&format!("login-{login}"));
                self.gone(gone, |socket, _| socket.login == login);
                let lent = self
                    .lent
                    .iter_mut()
                    .filter(|(_, socket, _)| socket.login == login);
                lent.for_each(|(_, _, retired)| *retired = true);
            }
            Happening::Pass { seconds } => {
                self.now += Duration::from_secs(seconds);
                // Not every passing of time finds the janitor awake.
                if seconds % 2 == 0 {
                    let now = self.now;
                    let gone = self.book.expire(now);
                    self.gone(gone, |_, deadline| deadline <= now);
                }
            }
            Happening::TakeBack { .. } | Happening::Forget { .. } => {}
        }
    }

    fn lend(&mut self, login: u8) {
        // Every fifth mark is promised to a waiter.
        let loan = self
            .book
            .lend(&key(login), self.now, |mark| !mark.0.is_multiple_of(5));
        let now = self.now;
        let usable = |mark: &IdleMark, (socket, deadline): &(Socket, Instant)| {
            !mark.0.is_multiple_of(5) && socket.login == login && now < *deadline
        };
        // The most recently returned one that may be lent.
        let expected = self.idle.iter().rev().find(|(mark, idle)| usable(mark, idle));
        let expected = expected.map(|(mark, (socket, _))| (*mark, *socket));
        assert_eq!(
            loan.as_ref().map(|loan| loan.connection),
            expected.map(|(_, socket)| socket)
        );
        let (Some(loan), Some((mark, socket))) = (loan, expected) else {
            return;
        };
        self.idle.remove(&mark);
        assert_eq!(*loan.key, key(login));
        assert!(
            self.lent
                .iter()
                .all(|(number, other, _)| *number != loan.number && other.name != socket.name)
        );
        self.lent.push((loan.number, socket, false));
    }

    fn take_back(&mut self, which: usize) {
        let (number, socket, retired) = self.lent.remove(which);
        self.next += 1;
        let mark = IdleMark(self.next);
        match self.book.take_back(number, mark, socket, self.now) {
            Ok(deadline) => {
                assert!(!retired && self.now < socket.ends);
                assert_eq!(
                    deadline,
                    socket.ends.min(self.now + Duration::from_secs(IDLE_SECONDS))
                );
                self.idle.insert(mark, (socket, deadline));
            }
            Err(closed) => {
                assert!(retired || self.now >= socket.ends);
                assert_eq!(closed, socket);
            }
        }
    }

    fn gone(&mut self, gone: Vec<(IdleMark, Socket)>, which: impl Fn(&Socket, Instant) -> bool) {
        let mut gone: BTreeMap<_, _> = gone.into_iter().collect();
        self.idle.retain(|mark, (socket, deadline)| {
            let expected = which(socket, *deadline);
            assert_eq!(gone.remove(mark).is_some(), expected);
            !expected
        });
        assert!(gone.is_empty());
    }

    fn check(&self) {
        let counts = Counts {
            idle: self.idle.len(),
            lent: self.lent.len(),
        };
        assert_eq!(self.book.counts(), counts);
        let next = self.idle.values().map(|(_, deadline)| *deadline).min();
        assert_eq!(self.book.next_deadline(), next);
    }
}

proptest! {
    #[test]
    fn the_book_is_what_the_model_says(happenings in vec(happening(), 1..120)) {
        let mut model = Model {
            book: Book::new(Duration::from_secs(IDLE_SECONDS)),
            now: Instant::now(),
            lent: Vec::new(),
            idle: BTreeMap::new(),
            next: 0,
        };
        for happening in happenings {
            model.happen(happening);
            model.check();
        }
    }
}

#[test]
fn keys_differ_by_every_part() {
    let base = key(1);
    let mut others = vec![base.clone(), base.clone(), base.clone(), key(2)];
    others[0].target = "other".into();
    others[1].database = "other".into();
    others[2].settings = vec![("TimeZone".to_owned(), "UTC".to_owned())];
    let now = Instant::now();
    let mut book = Book::new(Duration::from_secs(IDLE_SECONDS));
    let number = book.open(Rc::new(base.clone()), now + Duration::from_secs(60));
    book.take_back(number, IdleMark(1), (), now).unwrap();
    for other in &others {
        assert!(book.lend(other, now, |_| true).is_none(), "{other:?}");
    }
    assert!(book.lend(&base, now, |_| true).is_some());
}
