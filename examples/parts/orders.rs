//! The work of the example consumers: one order message, applied in one transaction that carries the
//! message's id.
//!
//! Every message is noted in an inbox table in the same transaction, so that one that was applied
//! just before the connection broke, or that a broker delivers again, is not applied twice.

use serde::Deserialize;
use tokio_postgres::Client;

use crate::parts::{Access, Failure};
use crate::trouble::{is_loss, is_poison, patiently, told};

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

async fn connect(access: &Access) -> Result<Client, Failure> {
    let (client, _) = patiently(|| access.connect("orders_writer", "order-consumer")).await?;
    Ok(client)
}
