//! One message, applied once, in one transaction.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::change::{Change, Delivery};
use crate::server::{Cable, Server, Session};
use crate::trouble::{Refusal, Trouble, of_connecting, of_statement, plainly, told};

/// How long a database that cannot be reached is tried before the worker gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What became of a message.
#[derive(Debug)]
pub enum Fate {
    Applied,
    /// An earlier delivery, or an attempt whose answer was lost, had applied it.
    AlreadyApplied,
    /// The database will never take it.
    Poisoned(String),
}

/// The database's side of a consumer. Its session is opened when it is needed, and again after it broke.
#[derive(Debug)]
pub struct Inbox {
    server: Server,
    application: &'static str,
    open: Option<Open>,
    /// The connection is cut in the middle of this transaction (the first is 1), once.
    cut_at: Option<usize>,
    transactions: usize,
}

#[derive(Debug)]
struct Open {
    session: Session,
    cable: Cable,
}

impl Inbox {
    /// `cut_at` is for showing what happens when a connection breaks.
    pub fn new(server: Server, application: &'static str, cut_at: Option<usize>) -> Self {
        Self {
            server,
            application,
            open: None,
            cut_at,
            transactions: 0,
        }
    }

    /// Opens the session if there is none. While the database cannot be reached it is tried again, less
    /// and less often, for a minute.
    pub async fn ready(&mut self) -> Result<(), Trouble> {
        if self.open.is_some() {
            return Ok(());
        }
        let until = Instant::now() + PATIENCE;
        let mut pause = RETRY_FIRST;
        loop {
            let failure = match self.server.connect(self.application).await {
                Ok((session, cable)) => {
                    self.open = Some(Open { session, cable });
                    return Ok(());
                }
                Err(failure) => failure,
            };
            if of_connecting(&failure) != Refusal::Passing || Instant::now() + pause > until {
                return Err(Trouble::Lasting(plainly(failure)));
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// After trouble the session is gone, and with it the transaction; the next call opens another.
    pub async fn apply(&mut self, delivery: &Delivery) -> Result<Fate, Trouble> {
        self.ready().await?;
        self.transactions += 1;
        let cut = self.cut_at == Some(self.transactions);
        let Some(mut open) = self.open.take() else {
            return Err(Trouble::Lasting("there is no session".into()));
        };
        let error = match open.apply(delivery, cut).await {
            Ok(applied) => {
                self.open = Some(open);
                return Ok(if applied {
                    Fate::Applied
                } else {
                    Fate::AlreadyApplied
                });
            }
            Err(error) => error,
        };
        match of_statement(&error) {
            Refusal::Poison => {
                // The session goes on only if it is certain that nothing is left of the transaction.
                if open.session.rollback_transaction().await.is_ok() {
                    self.open = Some(open);
                }
                Ok(Fate::Poisoned(told(&error)))
            }
            Refusal::Passing => Err(Trouble::Passing(told(&error))),
            Refusal::Lasting => Err(Trouble::Lasting(told(&error).into())),
        }
    }
}

impl Open {
    /// False when the inbox holds the message already.
    async fn apply(&mut self, delivery: &Delivery, cut: bool) -> Result<bool, tiberius::error::Error> {
        self.session.begin_transaction().await?;
        let correlate = format!(
            "EXEC sp_set_session_context N'correlation_id', {}",
            literal(&delivery.correlation)
        );
        self.session.simple_query(correlate).await?.into_results().await?;
        if !self.note(delivery).await? {
            self.session.rollback_transaction().await?;
            return Ok(false);
        }
        if cut {
            self.cable.cut();
        }
        self.change(&delivery.change).await?;
        self.session.commit_transaction().await?;
        Ok(true)
    }

    /// Two that apply the same message at once meet here: the second waits for the first.
    async fn note(&mut self, delivery: &Delivery) -> Result<bool, tiberius::error::Error> {
        let note = "INSERT INTO dbo.inbox (consumer, message_id) VALUES (@P1, @P2)";
        let consumer = delivery.domain.consumer();
        match self.session.execute(note, &[&consumer, &&*delivery.id]).await {
            Ok(_) => Ok(true),
            Err(error) if error.code().is_some_and(|number| DUPLICATE.contains(&number)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn change(&mut self, change: &Change) -> Result<(), tiberius::error::Error> {
        match change {
            Change::Order(it) => {
                let place = "INSERT INTO dbo.orders (id, customer, cents) VALUES (@P1, @P2, @P3)";
                self.session
                    .execute(place, &[&it.order, &&*it.customer, &it.cents])
                    .await?
            }
            Change::Payment(it) => {
                let book = "INSERT INTO dbo.payments (id, order_id, cents) VALUES (@P1, @P2, @P3)";
                self.session
                    .execute(book, &[&it.payment, &it.order, &it.cents])
                    .await?
            }
        };
        Ok(())
    }
}

/// A unique constraint, a unique index.
const DUPLICATE: [u32; 2] = [2627, 2601];

/// As a literal of T-SQL, in which only the quote is special.
fn literal(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn a_literal_ends_where_it_should() {
        assert_eq!(literal("msg-1"), "N'msg-1'");
        assert_eq!(literal("'; DROP TABLE inbox --"), "N'''; DROP TABLE inbox --'");
        assert_eq!(literal(r"\'"), r"N'\'''");
    }
}
