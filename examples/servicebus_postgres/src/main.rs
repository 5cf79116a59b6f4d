//! A worker between a broker of AMQP 1.0 (Azure Service Bus, RabbitMQ) and PostgreSQL, with gatepost in front
//! of the database.
//!
//! - Messages are taken under a lock, several to a transaction; each gives it its correlation id.
//! - A message is accepted only after its transaction has committed.
//! - A message that the database will never take goes to the dead-letter queue.
//! - While the database cannot be reached, messages are given back.
//! - When the reply to a COMMIT is lost, gatepost is asked what became of it.
//! - A message that is delivered again is applied once: the inbox table remembers its id.

#![expect(clippy::print_stdout, reason = "an example shows its progress")]

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

use broker::{Broker, Inlet, Line, Outlet};
use consumer::{Consumer, Tally};
use inbox::{Inbox, Mishaps};
use parts::{Access, Failure};
use table::Facts;

mod broker;
mod consumer;
mod delivery;
mod inbox;
mod listener;
#[path = "../../parts/mod.rs"]
mod parts;
mod script;
mod table;
#[path = "../../parts/trouble.rs"]
mod trouble;

#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send the lines of standard input as messages, each under its id and a correlation id of its own.
    Publish(Place),
    /// Apply messages. Ends on SIGTERM, after the batch that it works on.
    Consume(Consume),
    /// Print what the database confirms, until SIGTERM.
    Listen,
    /// Show the messages of a queue, and give them back.
    Browse(Place),
    /// Run SQL as the administrator of `gatepost dev`'s server.
    Script { file: PathBuf },
    /// Join what the broker was told with the journal (`gatepost audit show --json` on standard input) and the rows.
    Table {
        /// What the consumers noted with --settled.
        #[arg(long, value_name = "FILE")]
        settled: PathBuf,
        /// What the listener printed.
        #[arg(long, value_name = "FILE")]
        confirmed: PathBuf,
    },
}

#[derive(Args, Debug)]
struct Place {
    #[command(flatten)]
    broker: Broker,
    /// The address of the queue: its name in Service Bus, `/amq/queue/NAME` in RabbitMQ.
    queue: String,
}

#[derive(Args, Debug)]
struct Consume {
    #[command(flatten)]
    place: Place,
    /// The most messages in one transaction.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=500))]
    batch: u32,
    /// End when no message came for so long.
    #[arg(long, value_name = "SECONDS")]
    idle_exit: Option<u64>,
    /// Append to this file what the broker was told of each message.
    #[arg(long, value_name = "FILE")]
    settled: Option<PathBuf>,
    /// Die when this many messages are committed, before the broker knows of the last batch.
    #[arg(long, value_name = "NUMBER")]
    crash_after: Option<usize>,
    /// Break the connection to the database in the middle of this batch, before COMMIT is sent.
    #[arg(long, value_name = "NUMBER")]
    cut_before_commit: Option<usize>,
    /// Break it when the reply to the COMMIT of this batch comes.
    #[arg(long, value_name = "NUMBER")]
    lose_reply: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    match Arguments::parse().what {
        What::Publish(place) => publish(&place).await,
        What::Consume(wanted) => consume(wanted).await,
        What::Listen => listener::listen(&Access::from_environment("ANALYST")?).await,
        What::Browse(place) => browse(&place).await,
        What::Script { file } => script::run(&file).await,
        What::Table { settled, confirmed } => {
            let mut facts = Facts::default();
            facts.read_settled(BufReader::new(File::open(settled)?))?;
            facts.read_confirmed(BufReader::new(File::open(confirmed)?))?;
            facts.read_journal(std::io::stdin().lock())?;
            facts.read_rows(&Access::from_environment("ANALYST")?).await?;
            let table = facts.join();
            for line in &table.lines {
                println!("{line}");
            }
            match table.findings.as_slice() {
                [] => Ok(()),
                findings => Err(findings.join("\n").into()),
            }
        }
    }
}

async fn consume(wanted: Consume) -> Result<(), Failure> {
    let mishaps = Mishaps {
        cut_before_commit: wanted.cut_before_commit,
        lose_reply: wanted.lose_reply,
    };
    let settled = wanted
        .settled
        .map(|file| OpenOptions::new().create(true).append(true).open(file))
        .transpose()?;
    let mut consumer = Consumer {
        broker: wanted.place.broker,
        queue: wanted.place.queue,
        inbox: Inbox::new(Access::from_environment("CONSUMER")?, mishaps),
        batch: wanted.batch,
        idle: wanted.idle_exit.map(Duration::from_secs),
        crash_after: wanted.crash_after,
        settled,
        tally: Tally::default(),
    };
    let ended = consumer.run().await;
    println!("{}", consumer.tally);
    ended
}

/// The one thing that every message has.
#[derive(Deserialize)]
struct Envelope {
    id: String,
}

/// What cannot be read is sent too: a queue takes anything, and the consumer has to live with it.
async fn publish(place: &Place) -> Result<(), Failure> {
    let mut line = Line::open(&place.broker, &place.queue).await?;
    let mut outlet = Outlet::open(&mut line, &place.queue).await?;
    let mut published = 0;
    for text in std::io::stdin().lock().lines() {
        let text = text?;
        let id = match serde_json::from_str::<Envelope>(&text) {
            Ok(envelope) => envelope.id,
            Err(_) => "unknown".to_owned(),
        };
        outlet.send(&id, &format!("case-{id}"), text.into_bytes()).await?;
        published += 1;
    }
    line.close(outlet).await?;
    println!("published {published} to {}", place.queue);
    Ok(())
}

async fn browse(place: &Place) -> Result<(), Failure> {
    let mut line = Line::open(&place.broker, &place.queue).await?;
    let mut inlet = Inlet::open(&mut line, &place.queue).await?;
    let seen = broker::browse(&mut inlet).await?;
    for taken in &seen {
        let body = taken.body.as_deref().unwrap_or(b"(no bytes)");
        println!(
            "  {}{}: {}",
            taken.correlation.as_deref().unwrap_or("uncorrelated"),
            taken
                .reason
                .as_ref()
                .map(|why| format!(" ({why})"))
                .unwrap_or_default(),
            String::from_utf8_lossy(body)
        );
    }
    line.close(inlet).await?;
    println!("{} in {}", seen.len(), place.queue);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }
}
