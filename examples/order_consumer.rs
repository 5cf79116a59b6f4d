//! A message consumer, as many are written: it takes the messages of a file in order and applies each
//! in a transaction of its own. Two lines make it accountable: the token in place of a password
//! (`parts/mod.rs`), and the message's id as the transaction's correlation id (`parts/orders.rs`).

#![expect(clippy::print_stdout, reason = "an example shows its progress")]

use std::fs;

use clap::Parser;
use tokio::time::Instant;

use orders::{Fate, Message, Orders};
use parts::{Access, Failure};

#[path = "parts/orders.rs"]
mod orders;
mod parts;
#[path = "parts/trouble.rs"]
mod trouble;

const PROGRESS_EVERY: usize = 100;

#[derive(Debug, Parser)]
struct Arguments {
    /// One JSON object a line: id, order, customer, cents.
    messages: std::path::PathBuf,
}

#[derive(Debug, Default)]
struct Tally {
    applied: usize,
    already_applied: usize,
    poisoned: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let text = fs::read_to_string(&arguments.messages)?;
    let messages: Vec<Message> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;

    let began = Instant::now();
    let mut tally = Tally::default();
    let mut orders = Orders::connect(Access::from_environment("CONSUMER")?).await?;
    for (index, message) in messages.iter().enumerate() {
        let lost = |why: &str| println!("  connection lost at {}: {why}", message.id);
        match orders.apply(message, lost).await? {
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
        tally.applied, tally.already_applied, tally.poisoned, orders.reconnected
    );
    Ok(())
}
