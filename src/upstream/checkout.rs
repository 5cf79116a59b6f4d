//! A borrowed connection. It goes back to its pool only with a [`CleanSlate`] made for exactly this
//! loan; dropped in whatever state, it closes the socket and frees the slot.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop::unconstrained;

use crate::domain::Incarnation;
use crate::tls::Stream;
use crate::upstream::book::{Loan, Number, PoolKey};
use crate::upstream::budget::Slot;
use crate::upstream::cancel::{Canceller, Cancels};
use crate::upstream::dial::{Dialed, Server};
use crate::upstream::measure::Closing;
use crate::upstream::pool::Pool;
use crate::upstream::reset::CleanSlate;
use crate::upstream::share::Holder;
use crate::wire::tds::login::LoggedIn;

/// See the module. Field order matters: the socket closes before the book forgets it.
#[derive(Debug)]
pub struct Checkout {
    connection: Connection,
    key: Rc<PoolKey>,
    fresh: bool,
    loan: OpenLoan,
}

/// A logged-in connection with its right to exist. The socket closes before the slot is freed.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    server: Server,
    habits: Option<Habits>,
    /// The life that the server was known to be in before this was opened.
    incarnation: Option<Incarnation>,
    /// How often the stream was given out: a slate made before the last time is void.
    touches: u64,
    slot: Slot,
}

/// The book's entry for a borrowed connection; struck out when dropped.
#[derive(Debug)]
struct OpenLoan {
    pool: Rc<Pool>,
    number: Number,
    /// Why the connection is closed when this is dropped; `None` once the book knows better.
    closing: Option<Closing>,
    /// Made when somebody wants to cancel.
    cancels: OnceCell<Arc<Cancels>>,
}

/// How servers that speak TDS differ in what they tell of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// The statement that asks for the id of the transaction at hand; `None` if there is no way.
    pub id_question: Option<&'static str>,
    /// `@@SPID`, which a server need not put into its packets' headers.
    pub session: i32,
    /// Does it tell of transactions that statements begin and end (ENVCHANGE 8 to 10)?
    pub tells_transactions: bool,
}

/// Ties a slate to one loan of one connection in one state.
#[derive(Debug)]
pub(super) struct Stamp {
    pool: Rc<Pool>,
    number: Number,
    touches: u64,
}

impl Checkout {
    /// The socket. A slate made before this call no longer counts.
    pub fn stream(&mut self) -> &mut Stream {
        self.connection.touches += 1;
        &mut self.connection.stream
    }

    pub fn key(&self) -> &Rc<PoolKey> {
        &self.key
    }

    /// What a PostgreSQL server reported about itself, as of login and every [`Self::note_parameter`]
    /// since; empty for others.
    pub fn parameters(&self) -> &[(String, String)] {
        match &self.connection.server {
            Server::Postgres(server) => &server.parameters,
            Server::SqlServer(_) => &[],
        }
    }

    /// Keeps a ParameterStatus that the borrower saw.
    pub fn note_parameter(&mut self, name: &str, value: &str) {
        let Server::Postgres(server) = &mut self.connection.server else {
            return;
        };
        let parameters = &mut server.parameters;
        match parameters.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => parameters.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The server's process number, or its session's.
    pub fn process(&self) -> i32 {
        match &self.connection.server {
            Server::Postgres(server) => server.process,
            Server::SqlServer(server) => match self.connection.habits {
                Some(habits) => habits.session,
                None => server.spid.into(),
            },
        }
    }

    /// What a SQL Server said at login; `None` for others.
    pub fn sqlserver(&self) -> Option<&LoggedIn> {
        match &self.connection.server {
            Server::Postgres(_) => None,
            Server::SqlServer(server) => Some(server),
        }
    }

    /// What was found out about the server of this connection, once somebody has.
    pub const fn habits(&self) -> Option<Habits> {
        self.connection.habits
    }

    pub const fn note_habits(&mut self, habits: Habits) {
        self.connection.habits = Some(habits);
    }

    /// The life of the server that this connection is of, or an earlier one. `None`: nobody knew.
    pub const fn incarnation(&self) -> Option<&Incarnation> {
        self.connection.incarnation.as_ref()
    }

    /// Is this the first loan of a connection that was opened just now?
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// Cancels what runs on this connection during this loan, from wherever.
    ///
    /// `None` where a cancel travels on the connection itself.
    pub fn canceller(&self) -> Option<Canceller> {
        let Server::Postgres(server) = &self.connection.server else {
            return None;
        };
        let cancels = self.loan.cancels.get_or_init(Arc::default);
        let whom = (server.process, server.cancel_key.as_slice());
        Some(self.loan.pool.canceller(whom, cancels))
    }

    /// Returns the connection to its pool. It is closed instead with a slate of another loan or one
    /// that is older than the last use of the stream, and when a cancel is still under way.
    pub fn give_back(mut self, slate: CleanSlate) {
        let pool = Rc::clone(&self.loan.pool);
        let uncancelled = self.loan.cancels.take().is_none_or(|cancels| cancels.end());
        if !uncancelled {
            self.loan.closing = Some(Closing::Cancelling);
        } else if let Some(why) = pool.why_not_kept(self.loan.number) {
            self.loan.closing = Some(why);
        } else if slate.stamp().fits(&self) {
            pool.take_back(self);
        }
    }

    pub(super) fn first(pool: &Rc<Pool>, number: Number, key: Rc<PoolKey>, connection: Connection) -> Self {
        let loan = OpenLoan::new(pool, number);
        Self {
            connection,
            key,
            fresh: true,
            loan,
        }
    }

    pub(super) fn again(pool: &Rc<Pool>, lent: Loan<Connection>) -> Self {
        let loan = OpenLoan::new(pool, lent.number);
        Self {
            connection: lent.connection,
            key: lent.key,
            fresh: false,
            loan,
        }
    }

    /// The same connection for the next borrower.
    pub(super) fn hand_over(mut self) -> Self {
        self.fresh = false;
        self
    }

    /// For the shelf: the book's entry stays.
    pub(super) fn into_parts(mut self) -> (Number, Connection) {
        self.loan.closing = None;
        (self.loan.number, self.connection)
    }

    /// For closing: the book's entry is struck out.
    pub(super) fn into_connection(mut self, why: Closing) -> Connection {
        self.loan.closing = Some(why);
        self.connection
    }

    pub(super) fn holder(&self) -> &Arc<Holder> {
        self.connection.slot.holder()
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp {
            pool: Rc::clone(&self.loan.pool),
            number: self.loan.number,
            touches: self.connection.touches,
        }
    }

    /// Has nothing arrived that nobody asked for, and is the connection still open?
    pub(super) async fn is_silent(&mut self) -> bool {
        let stream = &mut self.connection.stream;
        let look = poll_fn(|turn| {
            let mut byte = [0; 1];
            let mut byte = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(&mut *stream).poll_read(turn, &mut byte).is_pending())
        });
        // Outside the runtime's fairness budget, whose end would look like silence.
        unconstrained(look).await
    }
}

impl Connection {
    pub(super) fn new(dialed: Dialed, slot: Slot, incarnation: Option<Incarnation>) -> Self {
        Self {
            stream: dialed.stream,
            server: dialed.server,
            habits: None,
            incarnation,
            touches: 0,
            slot,
        }
    }
}

impl Connection {
    /// Does its protocol have a word for the end?
    pub(super) const fn says_goodbye(&self) -> bool {
        matches!(self.server, Server::Postgres(_))
    }
}

impl OpenLoan {
    fn new(pool: &Rc<Pool>, number: Number) -> Self {
        Self {
            pool: Rc::clone(pool),
            number,
            closing: Some(Closing::NotClean),
            cancels: OnceCell::new(),
        }
    }
}

impl Drop for OpenLoan {
    fn drop(&mut self) {
        if let Some(why) = self.closing {
            self.pool.forget(self.number, why);
        }
    }
}

impl Stamp {
    fn fits(&self, checkout: &Checkout) -> bool {
        let loan = &checkout.loan;
        let touches = checkout.connection.touches;
        Rc::ptr_eq(&self.pool, &loan.pool) && self.number == loan.number && self.touches == touches
    }
}
