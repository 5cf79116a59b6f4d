//! A batch of messages, applied once, in one transaction that carries each one's correlation id.
//!
//! Every message is noted in an inbox table in the transaction that applies it, so one that was applied just
//! before a connection broke, or that a broker delivers again, is not applied twice. When the reply to a
//! COMMIT is lost, gatepost is asked what became of it.

#![expect(clippy::print_stdout, reason = "an example shows its progress")]

use std::time::Duration;

use tokio::time::sleep;

use crate::delivery::Delivery;
use crate::parts::{Access, Failure};
use crate::trouble::{is_loss, is_poison, patiently, told};
use outcomes::Verdict;
use session::{Lost, Session, Stopped};

mod cable;
mod outcomes;
mod session;

/// gatepost waits two seconds by itself before it says that an end is not known yet.
const QUESTIONS_MAX: usize = 15;
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// A batch whose COMMIT stays without an answer so often is given back.
const TRIES_MAX: usize = 3;

pub(crate) enum Fate {
    /// Committed by this transaction, or known already: one word for each message, in their order.
    Settled(Vec<Applied>),
    /// The database will never take the batch as it is.
    Poisoned(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Now,
    /// By an earlier delivery, or by an attempt whose reply was lost.
    Before,
}

/// Why a batch is not applied, when it is not the messages' fault.
pub(crate) enum Trouble {
    /// The database cannot be reached: that says nothing about the messages.
    Away(String),
    /// This try failed, and another may not (deadlock, lock, time-out).
    Clash(String),
    /// The deployment is wrong (not permitted, no such table). No message must be lost over it.
    Lasting(Failure),
}

/// Where a connection is made to break, to show what happens then. Batches are counted from 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mishaps {
    pub(crate) cut_before_commit: Option<usize>,
    pub(crate) lose_reply: Option<usize>,
}

/// The database's side of a consumer. Its session is opened when it is needed, and again after it broke.
pub(crate) struct Inbox {
    access: Access,
    open: Option<Session>,
    mishaps: Mishaps,
    batches: usize,
    pub(crate) resolved: usize,
}

impl Inbox {
    pub(crate) fn new(access: Access, mishaps: Mishaps) -> Self {
        Self {
            access,
            open: None,
            mishaps,
            batches: 0,
            resolved: 0,
        }
    }

    /// Opens the session if there is none. While the database cannot be reached it is tried again, less and
    /// less often, for a minute.
    pub(crate) async fn ready(&mut self) -> Result<(), Failure> {
        if self.open.as_ref().is_none_or(Session::is_closed) {
            self.open = Some(patiently(|| Session::open(&self.access)).await?);
        }
        Ok(())
    }

    pub(crate) async fn apply(&mut self, batch: &[Delivery]) -> Result<Fate, Trouble> {
        self.batches += 1;
        for _ in 0..TRIES_MAX {
            match self.once(batch).await {
                Ok(settled) => return Ok(Fate::Settled(settled)),
                Err(Stopped::Refused(error)) => return self.refused(&error).await,
                Err(Stopped::TimedOut) => {
                    self.open = None;
                    return Err(Trouble::Away("the database does not answer".to_owned()));
                }
                Err(Stopped::CommitLost(lost)) => {
                    // Whatever is left of it belongs to a transaction of which nothing is known.
                    self.open = None;
                    if let Some(settled) = self.resolve(lost).await? {
                        return Ok(Fate::Settled(settled));
                    }
                }
            }
        }
        Err(Trouble::Away("COMMIT stays without an answer".to_owned()))
    }

    async fn once(&mut self, batch: &[Delivery]) -> Result<Vec<Applied>, Stopped> {
        let Some(session) = &self.open else {
            return Err(Stopped::TimedOut);
        };
        // Once: the tries that follow are to succeed.
        let here = |at: &mut Option<usize>| at.take_if(|at| *at == self.batches).is_some();
        let mut mishaps = self.mishaps;
        let cut = here(&mut mishaps.cut_before_commit);
        let lose = here(&mut mishaps.lose_reply);
        self.mishaps = mishaps;
        session.apply(batch, cut, lose).await
    }

    /// An error before COMMIT was sent: nothing is applied.
    async fn refused(&mut self, error: &tokio_postgres::Error) -> Result<Fate, Trouble> {
        let why = told(error);
        if is_loss(error) {
            self.open = None;
            return Err(Trouble::Away(why));
        }
        if let Some(session) = self.open.take()
            && session.roll_back().await
        {
            self.open = Some(session);
        }
        if is_poison(error) {
            Ok(Fate::Poisoned(why))
        } else if is_clash(error) {
            Err(Trouble::Clash(why))
        } else {
            Err(Trouble::Lasting(why.into()))
        }
    }

    /// What became of a COMMIT without a reply; `None` to try again, when it came to nothing or nobody knows.
    /// Then the inbox decides: messages of a transaction that committed after all are in it, and one that is
    /// still running is waited for by whoever notes the same messages.
    async fn resolve(&mut self, lost: Lost) -> Result<Option<Vec<Applied>>, Trouble> {
        println!(
            "  transaction {}: its COMMIT was not answered: {}",
            lost.xid, lost.why
        );
        for _ in 0..QUESTIONS_MAX {
            self.ready().await.map_err(Trouble::Lasting)?;
            let Some(session) = &self.open else { continue };
            match session.outcome_of(&lost.correlation, lost.xid).await {
                Ok(Verdict::Committed(evidence)) => {
                    println!("  transaction {}: gatepost says committed ({evidence})", lost.xid);
                    self.resolved += 1;
                    return Ok(Some(lost.applied));
                }
                Ok(Verdict::Aborted(evidence)) => {
                    println!(
                        "  transaction {}: gatepost says aborted ({evidence}); again",
                        lost.xid
                    );
                    return Ok(None);
                }
                Ok(Verdict::Unresolved) => sleep(ASK_AGAIN).await,
                Ok(Verdict::Unknown) => break,
                Err(failure) => {
                    println!("  transaction {}: no answer, asking again: {failure}", lost.xid);
                    self.open = None;
                    sleep(ASK_AGAIN).await;
                }
            }
        }
        println!("  transaction {}: nobody can tell; the inbox decides", lost.xid);
        Ok(None)
    }
}

/// Deadlock, serialization, a lock or the statement not had in time.
fn is_clash(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| ["40001", "40P01", "55P03", "57014"].contains(&code.code()))
}
