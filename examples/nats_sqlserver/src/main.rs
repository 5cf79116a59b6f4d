//! Workers between NATS JetStream and SQL Server, with gatepost in front of the database: one for every
//! domain, each with an identity and a database role of its own.
//!
//! - A message is acknowledged only after its transaction has committed and its result is published.
//! - A result is published under an id made of its message's, so that JetStream stores it once.
//! - A message that the database will never take is terminated, and the result says why.
//! - While the database cannot be reached, the message is put off, and no other is taken.
//! - The message's id is the session's correlation id, unless a header names another.
//! - A message that is delivered again is applied once: the inbox table remembers its id.

#![expect(clippy::print_stdout, reason = "an example shows its progress")]

use std::io::BufRead as _;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream;
use clap::{Args, Parser, Subcommand};
use sqlserver_inbox::{Domain, Envelope, Failure, Server, choose_cryptography, rows, run_script};

use broker::Broker;
use consumer::{Consumer, Crash};

mod broker;
mod consumer;

#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Publish the JSON lines of standard input, each under its id.
    Publish {
        #[command(flatten)]
        nats: Nats,
        domain: Domain,
    },
    /// Apply messages. Ends on SIGTERM, after the message that it works on.
    Consume(Consume),
    /// Show what the broker knows about the fate of every message.
    Fates {
        #[command(flatten)]
        nats: Nats,
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
struct Nats {
    /// `nats://HOST:PORT`, `tls://HOST:PORT`, with `USER:PASSWORD@` or `TOKEN@` before the host if need be.
    #[arg(long = "nats", env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    url: String,
}

#[derive(Args, Debug)]
struct Consume {
    #[command(flatten)]
    nats: Nats,
    #[command(flatten)]
    server: Server,
    domain: Domain,
    /// A message that was not answered for so long comes again. Longer than a transaction may take; counts
    /// when the durable consumer is made.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    ack_wait: u64,
    /// End when no message came for so long.
    #[arg(long, value_name = "SECONDS")]
    idle_exit: Option<u64>,
    /// Die right after this many commits, before the last one's result is published.
    #[arg(long, value_name = "NUMBER")]
    crash_after_commit: Option<usize>,
    /// Die right after this many results, before the last one's message is acknowledged.
    #[arg(long, value_name = "NUMBER")]
    crash_after_result: Option<usize>,
    /// Cut the connection to the database in the middle of this transaction, once.
    #[arg(long, value_name = "NUMBER")]
    cut_at: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    choose_cryptography();
    match Arguments::parse().what {
        What::Publish { nats, domain } => publish(&connect(&nats).await?, domain).await?,
        What::Consume(wanted) => {
            let crash = Crash {
                after_commit: wanted.crash_after_commit,
                after_result: wanted.crash_after_result,
            };
            let broker = connect(&wanted.nats).await?;
            let mut consumer = Consumer::new(broker, wanted.server, wanted.domain, crash, wanted.cut_at);
            let ack_wait = Duration::from_secs(wanted.ack_wait);
            let idle = wanted.idle_exit.map(Duration::from_secs);
            let ended = consumer.run(ack_wait, idle).await;
            println!("{}", consumer.tally);
            ended?;
        }
        What::Fates { nats } => fates(&connect(&nats).await?).await?,
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
    Ok(())
}

async fn connect(nats: &Nats) -> Result<Broker, Failure> {
    Broker::new(jetstream::new(async_nats::connect(&nats.url).await?)).await
}

/// What cannot be read is published too: a subject takes anything, and the consumer has to live with it.
async fn publish(broker: &Broker, domain: Domain) -> Result<(), Failure> {
    let (mut published, mut known) = (0, 0);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let id = serde_json::from_str::<Envelope>(&line).ok().map(|it| it.id);
        if broker.publish(domain, id.as_deref(), line).await? {
            published += 1;
        } else {
            known += 1;
        }
    }
    println!("published {published}, known already {known}");
    Ok(())
}

async fn fates(broker: &Broker) -> Result<(), Failure> {
    for domain in Domain::ALL {
        println!("{}: {}", domain.name(), broker.fate(domain).await?);
    }
    for line in broker.results().await? {
        println!("  {line}");
    }
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
