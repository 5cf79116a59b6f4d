//! One target's connections on one data-path thread: lends an idle connection of exactly the key,
//! else takes a slot of the budget and dials, else waits in the budget's queue.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::pending;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

pub use crate::upstream::book::PoolKey;

use crate::domain::{Password, Random, Reason, RefusalCode, Refuse};
use crate::upstream::book::{Book, IdleMark, Number};
use crate::upstream::budget::{Budget, BudgetStats, Errand, Member, Place, PlaceId, Settled, Slot, Taken};
use crate::upstream::cancel::{Canceller, Cancels};
use crate::upstream::checkout::{Checkout, Connection};
use crate::upstream::dial::{DialError, dial};
use crate::upstream::measure::{Closing, PoolMeasures};
use crate::upstream::route::Route;
use crate::upstream::share::Share;
use crate::wire::pg::from_client::put_terminate;

/// A connection that was idle for less than this was read from just now, so a look at what already
/// arrived suffices; older ones give the runtime one turn to notice that the server hung up.
const IDLE_UNWATCHED: Duration = Duration::from_millis(50);
/// Up to this share of a connection's life is taken off at random, so that connections opened
/// together are not replaced together.
const LIFETIME_JITTER: f64 = 0.2;

/// How a target's connections are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cap over all threads; [`Budget::new`] takes it.
    pub max_connections: u32,
    /// How long a session waits for a connection.
    pub queue_timeout: Duration,
    /// How long a connection is kept that nobody uses.
    pub idle_timeout: Duration,
    /// TCP, TLS and login together.
    pub connect_timeout: Duration,
    /// The age at which a connection is replaced, less a random share.
    pub max_lifetime: Duration,
}

/// What the metrics show of one thread's pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    pub idle: usize,
    pub lent: usize,
    /// Sessions of this thread that wait for a connection.
    pub waiting: usize,
    /// Connections ever opened by this pool.
    pub opened: u64,
    /// All threads together.
    pub budget: BudgetStats,
}

/// Why no connection could be lent.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error("no connection became free within {waited:?}")]
    QueueTimeout { waited: Duration },
    #[error("this identity had all connections of its share ({most}) for {waited:?}")]
    ShareTimeout { most: u32, waited: Duration },
    #[error("no connection could be opened")]
    Dial(#[from] DialError),
}

/// See the module. Lives on one thread, in a `LocalSet`.
#[derive(Debug)]
pub struct Pool {
    route: Route,
    settings: Settings,
    random: Arc<dyn Random>,
    member: Member,
    book: RefCell<Book<Connection>>,
    /// Who waits on this thread, for what: a returned connection of that key is handed over.
    waiting: RefCell<HashMap<PlaceId, Waiting>>,
    opened: Cell<u64>,
    /// Wakes the janitor when a deadline comes before the one it sleeps for.
    rearm: Rc<Notify>,
    armed: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Waiting {
    key: Rc<PoolKey>,
    handed: oneshot::Sender<Checkout>,
}

/// How a place in the queue ends well.
enum Turn {
    Handed(Box<Checkout>),
    Slot(Slot),
}

/// Leaves `Pool::waiting` when the waiting future ends in whatever way.
struct Queued<'a> {
    pool: &'a Pool,
    place: PlaceId,
}

impl Pool {
    /// Must be called inside a `LocalSet`: the janitor is one of its tasks.
    pub fn new(
        route: impl Into<Route>,
        settings: Settings,
        budget: &Arc<Budget>,
        random: Arc<dyn Random>,
    ) -> Rc<Self> {
        let (member, errands) = budget.join();
        let pool = Rc::new(Self {
            book: RefCell::new(Book::new(settings.idle_timeout)),
            route: route.into(),
            settings,
            random,
            member,
            waiting: RefCell::default(),
            opened: Cell::new(0),
            rearm: Rc::default(),
            armed: Cell::new(None),
        });
        tokio::task::spawn_local(janitor(Rc::downgrade(&pool), Rc::clone(&pool.rearm), errands));
        pool
    }

    /// Borrows a connection of exactly this key, whose login is the holder's. What is opened counts
    /// under `share`. Dropping the future gives up the place.
    pub async fn checkout(
        self: &Rc<Self>,
        key: PoolKey,
        share: &Share,
        password: &Password,
    ) -> Result<Checkout, CheckoutError> {
        let asked = Instant::now();
        if let Some(checkout) = self.reuse(&key).await {
            self.measures().waited_for(Duration::ZERO);
            return Ok(checkout);
        }
        let key = Rc::new(key);
        let taken = self.member.take(share);
        let waits = matches!(taken, Taken::Wait(_));
        let turn = match taken {
            Taken::Slot(slot) => Ok(Turn::Slot(slot)),
            Taken::Wait(place) => self.queue(&key, share, place).await,
        };
        let waited = if waits { asked.elapsed() } else { Duration::ZERO };
        self.measures().waited_for(waited);
        let slot = match turn? {
            Turn::Handed(checkout) => return Ok(*checkout),
            Turn::Slot(slot) if !waits => slot,
            // While waiting, a connection of this key may have become idle.
            Turn::Slot(slot) => match self.reuse(&key).await {
                Some(checkout) => return Ok(checkout),
                None => slot,
            },
        };
        self.open(key, slot, password).await
    }

    /// Closes the idle connections of a login that ends, and the lent ones when they come back.
    /// [`Budget::retire`] does it on every thread.
    pub fn retire(&self, login: &str) {
        let gone = self.book.borrow_mut().retire(login);
        self.close(gone, Closing::LoginEnded);
    }

    /// Closes all idle connections, and the lent ones when they come back.
    pub fn close_all(&self) {
        let gone = self.book.borrow_mut().close_all();
        self.close(gone, Closing::PoolEnded);
    }

    fn measures(&self) -> &PoolMeasures {
        self.member.budget().measures()
    }

    /// When the janitor has to look next.
    fn arm(&self) -> Option<Instant> {
        let deadline = self.book.borrow().next_deadline();
        self.armed.set(deadline);
        deadline
    }

    pub fn stats(&self) -> PoolStats {
        let counts = self.book.borrow().counts();
        PoolStats {
            idle: counts.idle,
            lent: counts.lent,
            waiting: self.waiting.borrow().len(),
            opened: self.opened.get(),
            budget: self.member.budget().stats(),
        }
    }

    pub(super) fn canceller(&self, whom: (i32, &[u8]), cancels: &Arc<Cancels>) -> Canceller {
        Canceller::new(
            &self.route.current(),
            self.settings.connect_timeout,
            whom,
            cancels,
        )
    }

    /// A borrowed connection was closed.
    pub(super) fn forget(&self, number: Number, why: Closing) {
        self.book.borrow_mut().forget(number);
        self.measures().closed_one(why);
    }

    /// Why this borrowed connection may not be lent again, if so.
    pub(super) fn why_not_kept(&self, number: Number) -> Option<Closing> {
        let book = self.book.borrow();
        if book.may_keep(number, Instant::now()) {
            return None;
        }
        Some(match book.is_retired(number) {
            true => Closing::LoginEnded,
            false => Closing::Expired,
        })
    }

    /// A clean connection comes back: to the oldest waiter if it wants exactly this key on this
    /// thread, else to the idle ones, unless somebody waits for its slot.
    pub(super) fn take_back(&self, checkout: Checkout) {
        let wanted = |place| {
            let waiting = self.waiting.borrow();
            waiting
                .get(&place)
                .is_some_and(|waiting| waiting.key == *checkout.key())
        };
        match self.member.settle(checkout.holder(), wanted) {
            Settled::Hand(place) => {
                let waiting = self.waiting.borrow_mut().remove(&place);
                if let Some(waiting) = waiting {
                    // If the waiter is gone, dropping the checkout closes it and passes the slot on.
                    let _ = waiting.handed.send(checkout.hand_over());
                }
            }
            Settled::Idle(mark) => self.shelve(mark, checkout),
            Settled::Close => farewell(checkout.into_connection(Closing::Needed)),
        }
    }

    fn shelve(&self, mark: IdleMark, checkout: Checkout) {
        let (number, connection) = checkout.into_parts();
        let shelved = self
            .book
            .borrow_mut()
            .take_back(number, mark, connection, Instant::now());
        match shelved {
            Ok(deadline) => {
                if self.armed.get().is_none_or(|armed| deadline < armed) {
                    self.rearm.notify_one();
                }
            }
            Err(connection) => self.close(vec![(mark, connection)], Closing::Expired),
        }
    }

    /// The warmest idle connection of this key that the server has not closed meanwhile.
    async fn reuse(self: &Rc<Self>, key: &PoolKey) -> Option<Checkout> {
        loop {
            let claim = |mark| self.member.claim(mark);
            let loan = self.book.borrow_mut().lend(key, Instant::now(), claim)?;
            let unwatched = loan.idle_since.elapsed() < IDLE_UNWATCHED;
            let mut checkout = Checkout::again(self, loan);
            if !unwatched {
                tokio::task::yield_now().await;
            }
            // Nothing may arrive while nothing is asked: an end, an error, or a notification that
            // belongs to nobody. Whatever it is, the connection is closed.
            if checkout.is_silent().await {
                return Some(checkout);
            }
            drop(checkout.into_connection(Closing::Lost));
        }
    }

    /// Waits for its turn: a connection that is handed over, or a slot.
    async fn queue(&self, key: &Rc<PoolKey>, share: &Share, mut place: Place) -> Result<Turn, CheckoutError> {
        let queued_at = Instant::now();
        let (handed, mut handed_over) = oneshot::channel();
        let key = Rc::clone(key);
        self.waiting
            .borrow_mut()
            .insert(place.id, Waiting { key, handed });
        let _queued = Queued {
            pool: self,
            place: place.id,
        };
        // Handed over first: the place in the queue ends in the same moment.
        tokio::select! {
            biased;
            Ok(checkout) = &mut handed_over => Ok(Turn::Handed(Box::new(checkout))),
            Ok(slot) = &mut place.slot => Ok(Turn::Slot(slot)),
            () = sleep_until(queued_at + self.settings.queue_timeout) => {
                let waited = queued_at.elapsed();
                Err(match share.most.filter(|_| place.is_parked()) {
                    Some(most) => CheckoutError::ShareTimeout { most, waited },
                    None => CheckoutError::QueueTimeout { waited },
                })
            }
        }
    }

    async fn open(
        self: &Rc<Self>,
        key: Rc<PoolKey>,
        slot: Slot,
        password: &Password,
    ) -> Result<Checkout, CheckoutError> {
        let incarnation = self.route.incarnation();
        let dialed = dial(
            &self.route.current(),
            &key,
            password,
            self.settings.connect_timeout,
        )
        .await?;
        self.opened.set(self.opened.get() + 1);
        self.measures().opened_one();
        let ends = Instant::now() + self.lifetime();
        let number = self.book.borrow_mut().open(Rc::clone(&key), ends);
        let connection = Connection::new(dialed, slot, incarnation);
        Ok(Checkout::first(self, number, key, connection))
    }

    fn lifetime(&self) -> Duration {
        let mut bytes = [0; 4];
        self.random.fill(&mut bytes);
        let share = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
        self.settings.max_lifetime.mul_f64(1.0 - LIFETIME_JITTER * share)
    }

    fn close(&self, connections: Vec<(IdleMark, Connection)>, why: Closing) {
        for (mark, connection) in connections {
            // Off the register first; if it was promised, closing it keeps the promise.
            self.member.claim(mark);
            self.measures().closed_one(why);
            farewell(connection);
        }
    }

    fn run(&self, errand: Errand) {
        match errand {
            Errand::Close(promise) => {
                let connection = self.book.borrow_mut().evict(promise.mark());
                if let Some(connection) = connection {
                    self.measures().closed_one(Closing::Needed);
                    farewell(connection);
                }
            }
            Errand::Retire(login) => self.retire(&login),
            Errand::CloseAll => self.close_all(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close_all();
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.pool.waiting.borrow_mut().remove(&self.place);
    }
}

impl Refuse for CheckoutError {
    fn refusal(&self) -> (RefusalCode, Reason) {
        match self {
            Self::QueueTimeout { waited } | Self::ShareTimeout { waited, .. } => (
                RefusalCode::TooManySessions,
                Reason::QueueTimeout { waited: *waited },
            ),
            Self::Dial(error) => error.refusal(),
        }
    }
}

/// Says goodbye as far as that needs no waiting, then closes: the server need not find out by
/// itself, and its slot is free the sooner.
fn farewell(mut connection: Connection) {
    let mut goodbye = Vec::new();
    if connection.says_goodbye() {
        put_terminate(&mut goodbye);
    }
    let mut nobody = Context::from_waker(Waker::noop());
    let mut stream = Pin::new(&mut connection.stream);
    if stream.as_mut().poll_write(&mut nobody, &goodbye).is_ready() {
        // Whether it went out makes no difference: the socket is closed next.
        let _ = stream.poll_flush(&mut nobody);
    }
}

/// Closes what is idle for too long or too old, and does what the budget asks, while the pool lives.
async fn janitor(pool: Weak<Pool>, rearm: Rc<Notify>, mut errands: mpsc::UnboundedReceiver<Errand>) {
    while let Some(deadline) = pool.upgrade().map(|pool| pool.arm()) {
        let expired = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        let errand = tokio::select! {
            errand = errands.recv() => match errand {
                Some(errand) => Some(errand),
                None => return,
            },
            () = rearm.notified() => None,
            () = expired => None,
        };
        let Some(pool) = pool.upgrade() else { return };
        if let Some(errand) = errand {
            pool.run(errand);
        }
        let expired = pool.book.borrow_mut().expire(Instant::now());
        pool.close(expired, Closing::Expired);
    }
}
