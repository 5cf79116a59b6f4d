//! A worker between ActiveMQ (over STOMP) and SQL Server, with gatepost in front of the database.
//!
//! - A message is acknowledged only after its transaction has committed, each one for itself.
//! - A message that the database will never take goes to the dead-letter queue.
//! - While the database cannot be reached, the message is given back and delivered again later.
//! - The message's correlation id is the session's.
//! - A message that is delivered again is applied once: the inbox table remembers its id.

#![expect(clippy::print_stdout, reason = "an example shows its progress")]

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sqlserver_inbox::{Domain, Envelope, Failure, Server, choose_cryptography, rows, run_script};

use consumer::Consumer;
use stomp::{Broker, Connection};

mod consumer;
mod stomp;

const QUEUE: &str = "orders";
/// The one kind of messages that this worker knows.
const DOMAIN: Domain = Domain::Orders;
/// ActiveMQ's own, unless its policy names another.
const DEAD_LETTERS: &str = "ActiveMQ.DLQ";

#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send the lines of standard input as messages.
    Publish {
        #[command(flatten)]
        broker: Broker,
    },
    /// Apply messages. Ends on SIGTERM, after the message that it works on.
    Consume(Consume),
    /// Show the messages of a queue without taking them.
    Browse {
        #[command(flatten)]
        broker: Broker,
        #[arg(default_value = DEAD_LETTERS)]
        queue: String,
    },
    /// Run a T-SQL script, with `GO` between its batches.
    Script {
        #[command(flatten)]
        server: Server,
        file: PathBuf,
    },
    /// Show the orders and payments in the database.
    Rows {
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Args, Debug)]
struct Consume {
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    server: Server,
    /// End when no message came for so long.
    #[arg(long, value_name = "SECONDS")]
    idle_exit: Option<u64>,
    /// Die right after this many commits, before the last one is acknowledged.
    #[arg(long, value_name = "NUMBER")]
    crash_after: Option<usize>,
    /// Cut the connection to the database in the middle of this transaction, once.
    #[arg(long, value_name = "NUMBER")]
    cut_at: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Failure> {
    choose_cryptography();
    match Arguments::parse().what {
        What::Publish { broker } => publish(&broker).await?,
        What::Consume(wanted) => {
            let idle = wanted.idle_exit.map(Duration::from_secs);
            let mut consumer = Consumer::new(wanted.broker, wanted.server, wanted.crash_after, wanted.cut_at);
            let ended = consumer.run(idle).await;
            println!("{}", consumer.tally);
            ended?;
        }
        What::Browse { broker, queue } => browse(&broker, &queue).await?,
        What::Script { server, file } => {
            let batches = run_script(&server, &file).await?;
            println!("ran {batches} batches of {}", file.display());
        }
        What::Rows { server } => {
            for line in rows(&server).await? {
                println!("{line}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What cannot be read is sent too: a queue takes anything, and the consumer has to live with it.
async fn publish(broker: &Broker) -> Result<(), Failure> {
    let mut connection = Connection::open(broker).await?;
    let mut published = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let id = match serde_json::from_str::<Envelope>(&line) {
            Ok(envelope) => envelope.id,
            Err(_) => "unknown".to_owned(),
        };
        connection
            .send(QUEUE, &format!("case-{id}"), line.as_bytes())
            .await?;
        published += 1;
    }
    connection.close().await?;
    println!("published {published} to {QUEUE}");
    Ok(())
}

async fn browse(broker: &Broker, queue: &str) -> Result<(), Failure> {
    let mut connection = Connection::open(broker).await?;
    let messages = connection.browse(queue).await?;
    for message in &messages {
        println!(
            "  {} from {}: {}",
            message.header("correlation-id").unwrap_or("uncorrelated"),
            message.header("original-destination").unwrap_or(queue),
            String::from_utf8_lossy(&message.body)
        );
    }
    connection.close().await?;
    println!("{} in {queue}", messages.len());
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
