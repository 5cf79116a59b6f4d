//! A worker between NATS JetStream and PostgreSQL, with gatepost in front of the database.
//!
//! - A message is acknowledged only after its transaction has committed.
//! - A message that the database will never take is terminated, so that it does not come back.
//! - The message's id is the transaction's correlation id.
//! - A message that is delivered again is applied once: the inbox table remembers its id.

#![expect(clippy::print_stdout, reason = "an example shows its progress")]

use std::io::BufRead as _;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{self, Stream};
use async_nats::jetstream::{self, AckKind, Context};
use async_nats::{HeaderMap, header};
use clap::{Parser, Subcommand};
use futures_util::StreamExt as _;

use orders::{Fate, Message, Orders};
use parts::{Access, Failure};

#[path = "../../parts/orders.rs"]
mod orders;
#[path = "../../parts/mod.rs"]
mod parts;
#[path = "../../parts/trouble.rs"]
mod trouble;

const STREAM: &str = "ORDERS";
const SUBJECT: &str = "orders.placed";
const DURABLE: &str = "order-consumer";
/// A message that was not acknowledged comes again after this.
const ACK_WAIT: Duration = Duration::from_secs(2);
const DELIVERIES_MAX: i64 = 10;
/// Messages on their way at one time; they are applied in order.
const BATCH: usize = 50;
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// Tells the script that this was the crash it asked for.
const CRASHED: i32 = 9;

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, value_name = "URL")]
    nats: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Publish the JSON lines of standard input, each under its id.
    Publish,
    /// Apply messages until none is left.
    Consume {
        /// Die right after this many commits, before the last one is acknowledged.
        #[arg(long, value_name = "NUMBER")]
        crash_after: Option<usize>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let broker = jetstream::new(async_nats::connect(&arguments.nats).await?);
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        ..stream::Config::default()
    };
    let stream = broker.get_or_create_stream(config).await?;
    match arguments.what {
        What::Publish => publish(&broker).await,
        What::Consume { crash_after } => consume(&stream, crash_after).await,
    }
}

async fn publish(broker: &Context) -> Result<(), Failure> {
    let (mut published, mut known) = (0, 0);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let message: Message = serde_json::from_str(&line)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, message.id.as_str());
        let stored = broker
            .publish_with_headers(SUBJECT, headers, line.into())
            .await?
            .await?;
        if stored.duplicate {
            known += 1;
        } else {
            published += 1;
        }
    }
    println!("published {published}, known already {known}");
    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    applied: usize,
    already_applied: usize,
    terminated: usize,
}

async fn consume(stream: &Stream, crash_after: Option<usize>) -> Result<(), Failure> {
    let config = pull::Config {
        durable_name: Some(DURABLE.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: DELIVERIES_MAX,
        ..pull::Config::default()
    };
    let mut consumer: PullConsumer = stream.get_or_create_consumer(DURABLE, config).await?;
    let mut orders = Orders::connect(Access::from_environment("CONSUMER")?).await?;
    let mut tally = Tally::default();
    loop {
        let mut batch = consumer
            .fetch()
            .max_messages(BATCH)
            .expires(FETCH_WAIT)
            .messages()
            .await?;
        while let Some(delivery) = batch.next().await {
            one(&mut orders, &delivery?, &mut tally, crash_after).await?;
        }
        let state = consumer.info().await?;
        if state.num_pending == 0 && state.num_ack_pending == 0 {
            break;
        }
    }
    println!(
        "applied {}, already applied {}, terminated {}",
        tally.applied, tally.already_applied, tally.terminated
    );
    Ok(())
}

/// One delivery: the database first, then the broker.
async fn one(
    orders: &mut Orders,
    delivery: &jetstream::Message,
    tally: &mut Tally,
    crash_after: Option<usize>,
) -> Result<(), Failure> {
    let message: Message = match serde_json::from_slice(&delivery.payload) {
        Ok(message) => message,
        Err(error) => {
            println!("  not an order, terminated: {error}");
            tally.terminated += 1;
            return terminate(delivery).await;
        }
    };
    let lost = |why: &str| println!("  connection lost at {}: {why}", message.id);
    match orders.apply(&message, lost).await? {
        Fate::Applied => {
            tally.applied += 1;
            if crash_after == Some(tally.applied) {
                println!("  {} is committed and not acknowledged; dying", message.id);
                std::process::exit(CRASHED);
            }
        }
        Fate::AlreadyApplied => {
            tally.already_applied += 1;
            println!("  {} came again and was applied already", message.id);
        }
        Fate::Poisoned(why) => {
            println!("  {} terminated: {why}", message.id);
            tally.terminated += 1;
            return terminate(delivery).await;
        }
    }
    // Waits until the broker has it: a lost acknowledgement would only bring the message again.
    delivery.double_ack().await
}

async fn terminate(delivery: &jetstream::Message) -> Result<(), Failure> {
    delivery.double_ack_with(AckKind::Term).await
}
