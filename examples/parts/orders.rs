//! The work of the example consumers: one order message, applied in one transaction that carries the
//! message's id.
//!
//! Every message is noted in an inbox table in the same transaction, so that one that was applied
//! just before the connection broke, or that a broker delivers again, is not applied twice.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::parts::{Access, Failure};

/// How long a broken connection is tried again before the consumer gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    order: i64,
    customer: String,
    cents: i64,
}

/// What became of a message.
pub(crate) enum Fate {
    Applied,
    /// An earlier delivery, or an attempt whose answer was lost, had applied it.
    AlreadyApplied,
    /// The database will never take it.
    Poisoned(String),
}

/// A connection that is made again when it breaks.
pub(crate) struct Orders {
    access: Access,
    client: Client,
    pub(crate) reconnected: usize,
}

impl Orders {
    pub(crate) async fn connect(access: Access) -> Result<Self, Failure> {
        let client = connect(&access).await?;
        Ok(Self {
            access,
            client,
            reconnected: 0,
        })
    }

    /// Tries again on a new connection as long as it is the connection that fails. `lost` is told.
    pub(crate) async fn apply(&mut self, message: &Message, lost: impl Fn(&str)) -> Result<Fate, Failure> {
        loop {
            match apply(&mut self.client, message).await {
                Ok(fate) => return Ok(fate),
                Err(error) if is_poison(&error) => return Ok(Fate::Poisoned(told(&error))),
                Err(error) if is_loss(&error) => {
                    lost(&told(&error));
                    self.client = connect(&self.access).await?;
                    self.reconnected += 1;
                }
                Err(error) => return Err(told(&error).into()),
            }
        }
    }
}

async fn apply(client: &mut Client, message: &Message) -> Result<Fate, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let correlate = format!("SET LOCAL gatepost.correlation_id = {}", literal(&message.id));
    transaction.batch_execute(&correlate).await?;
    let noted = "INSERT INTO inbox (message_id) VALUES ($1) ON CONFLICT DO NOTHING";
    if transaction.execute(noted, &[&message.id]).await? == 0 {
        transaction.rollback().await?;
        return Ok(Fate::AlreadyApplied);
    }
    let placed = "INSERT INTO orders (id, customer, cents) VALUES ($1, $2, $3)";
    transaction
        .execute(placed, &[&message.order, &message.customer, &message.cents])
        .await?;
    transaction.commit().await?;
    Ok(Fate::Applied)
}

/// As a literal of SQL: `SET` takes no parameters. A backslash means itself.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Classes 22 (wrong values) and 23 (broken constraints): trying again changes nothing.
fn is_poison(error: &tokio_postgres::Error) -> bool {
    let class = |code: &SqlState| ["22", "23"].iter().any(|class| code.code().starts_with(class));
    error.code().is_some_and(class)
}

/// No answer, class 08 (connection), or a server that is going away or starting.
fn is_loss(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| {
        let passing = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::IO_ERROR,
        ];
        code.code().starts_with("08") || passing.contains(code)
    })
}

fn told(error: &tokio_postgres::Error) -> String {
    let refused = error.as_db_error().map(|refused| refused.message().to_owned());
    refused.unwrap_or_else(|| error.to_string())
}

/// Connects with a fresh token; a refusal ends the consumer, a failure is tried again for a while.
async fn connect(access: &Access) -> Result<Client, Failure> {
    let until = Instant::now() + PATIENCE;
    let mut pause = RETRY_FIRST;
    loop {
        let failure = match access.connect("orders_writer", "order-consumer").await {
            Ok((client, _)) => return Ok(client),
            Err(failure) => failure,
        };
        let passing = match failure.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => is_loss(error),
            None => failure.is::<std::io::Error>(),
        };
        if !passing || Instant::now() + pause > until {
            return Err(failure);
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}
