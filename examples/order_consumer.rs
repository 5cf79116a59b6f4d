//! A message consumer, as many are written: it takes the messages of a file in order and applies each
//! in a transaction of its own. Two lines make it accountable: the token in place of a password, and
//! the message's id as the transaction's correlation id.
//!
//! Every message is noted in an inbox table in the same transaction, so that one that was applied
//! just before the connection broke is not applied again.

#![expect(clippy::print_stdout, reason = "an example shows its progress")]

use std::fs;
use std::time::Duration;

use clap::Parser;
use parts::{Access, Failure};
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

mod parts;

/// How long a broken connection is tried again before the consumer gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
const PROGRESS_EVERY: usize = 100;

#[derive(Debug, Parser)]
struct Arguments {
    /// One JSON object a line: id, order, customer, cents.
    messages: std::path::PathBuf,
}

#[derive(Debug, Deserialize)]
struct Message {
    id: String,
    order: i64,
    customer: String,
    cents: i64,
}

/// What became of a message.
enum Fate {
    Applied,
    /// An earlier run, or an attempt whose answer was lost, had applied it.
    AlreadyApplied,
    /// The database will never take it.
    Poisoned(String),
}

#[derive(Debug, Default)]
struct Tally {
    applied: usize,
    already_applied: usize,
    poisoned: usize,
    reconnected: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let access = Access::from_environment("CONSUMER")?;
    let text = fs::read_to_string(&arguments.messages)?;
    let messages: Vec<Message> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;

    let began = Instant::now();
    let mut tally = Tally::default();
    let mut client = connect(&access).await?;
    for (index, message) in messages.iter().enumerate() {
        match apply_with_patience(&access, &mut client, message, &mut tally).await? {
            Fate::Applied => tally.applied += 1,
            Fate::AlreadyApplied => tally.already_applied += 1,
            Fate::Poisoned(why) => {
                tally.poisoned += 1;
                println!("  {} refused by the database, rolled back: {why}", message.id);
            }
        }
        if (index + 1) % PROGRESS_EVERY == 0 {
            let seconds = began.elapsed().as_secs_f32();
            println!("  {:5} of {} messages, {seconds:.1} s", index + 1, messages.len());
        }
    }
    println!(
        "applied {}, already applied {}, refused {}, reconnected {} times",
        tally.applied, tally.already_applied, tally.poisoned, tally.reconnected
    );
    Ok(())
}

/// Tries again on a new connection as long as it is the connection that fails.
async fn apply_with_patience(
    access: &Access,
    client: &mut Client,
    message: &Message,
    tally: &mut Tally,
) -> Result<Fate, Failure> {
    loop {
        match apply(client, message).await {
            Ok(fate) => return Ok(fate),
            Err(error) if is_poison(&error) => return Ok(Fate::Poisoned(told(&error))),
            Err(error) if is_loss(&error) => {
                println!("  connection lost at {}: {}", message.id, told(&error));
                *client = connect(access).await?;
                tally.reconnected += 1;
            }
            Err(error) => return Err(told(&error).into()),
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

/// As a literal of SQL. `SET` takes no parameters.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Classes 22 (wrong values) and 23 (broken constraints): trying again changes nothing.
fn is_poison(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| ["22", "23"].iter().any(|class| code.code().starts_with(class)))
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
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |refused| refused.message().to_owned())
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
