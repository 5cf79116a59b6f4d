//! The consumer: the database first, then the broker.

#![expect(clippy::print_stdout, reason = "an example shows its progress")]

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, Inlet, Line, Lost, Taken};
use crate::delivery::{self, Delivery};
use crate::inbox::{Applied, Fate, Inbox, Trouble};
use crate::parts::Failure;

/// How long a broker that cannot be reached is tried before the worker gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Between two looks at the signal and at the broker's token.
const WAIT: Duration = Duration::from_millis(500);
/// After a try that failed by no fault of the messages.
const PAUSE: Duration = Duration::from_secs(1);
/// Tells a script that this was the crash it asked for.
const CRASHED: i32 = 9;

pub(crate) struct Consumer {
    pub(crate) broker: Broker,
    pub(crate) queue: String,
    pub(crate) inbox: Inbox,
    /// The most messages in one transaction.
    pub(crate) batch: u32,
    pub(crate) idle: Option<Duration>,
    /// Die after this many messages are committed, before the broker knows of the last batch.
    pub(crate) crash_after: Option<usize>,
    /// What the broker was told, a line of JSON for each message.
    pub(crate) settled: Option<File>,
    pub(crate) tally: Tally,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    applied: usize,
    already_applied: usize,
    dead_lettered: usize,
    given_back: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "applied {}, already applied {}, dead-lettered {}, given back {}",
            self.applied, self.already_applied, self.dead_lettered, self.given_back
        )
    }
}

impl Consumer {
    /// Until it is told to end, or no message came for `idle`.
    pub(crate) async fn run(&mut self) -> Result<(), Failure> {
        let mut end = signal(SignalKind::terminate())?;
        loop {
            // No message is locked before the database can be reached.
            self.inbox.ready().await?;
            let mut line = open(&self.broker, &self.queue).await?;
            let mut inlet = Inlet::open(&mut line, &self.queue).await?;
            let served = self.serve(&mut line, &mut inlet, &mut end).await;
            let closed = line.close(inlet).await;
            match served {
                // What was settled last is with the broker only when it has said good-bye.
                Ok(()) => return Ok(closed?),
                Err(failure) => match failure.downcast::<Lost>() {
                    Ok(lost) => println!("  broker lost: {lost}"),
                    Err(lasting) => return Err(lasting),
                },
            }
        }
    }

    async fn serve(&mut self, line: &mut Line, inlet: &mut Inlet, end: &mut Signal) -> Result<(), Failure> {
        let mut last = Instant::now();
        loop {
            line.keep().await?;
            self.inbox.ready().await?;
            // A batch that is complete is applied before the signal counts: it is locked already.
            let taken = tokio::select! {
                biased;
                taken = inlet.take(self.batch, WAIT) => taken?,
                _ = end.recv() => return Ok(()),
            };
            if !taken.is_empty() {
                self.all(inlet, taken).await?;
                last = Instant::now();
            } else if self.idle.is_some_and(|idle| last.elapsed() >= idle) {
                return Ok(());
            }
        }
    }

    async fn all(&mut self, inlet: &Inlet, taken: Vec<Taken>) -> Result<(), Failure> {
        let mut batch = Vec::with_capacity(taken.len());
        for taken in taken {
            match delivery::read(taken.correlation.as_deref(), taken.body.as_deref()) {
                Ok((order, correlation)) => batch.push(Delivery {
                    taken,
                    order,
                    correlation,
                }),
                Err(malformed) => {
                    let why = format!("no order: {malformed}");
                    self.reject(inlet, &taken, &why).await?;
                }
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        if !self.some(inlet, &batch).await? {
            // One that the database will never take spoils its batch: each for itself.
            for one in batch.chunks(1) {
                self.some(inlet, one).await?;
            }
        }
        Ok(())
    }

    /// False when the batch was refused, and has to be taken apart.
    async fn some(&mut self, inlet: &Inlet, batch: &[Delivery]) -> Result<bool, Failure> {
        match self.inbox.apply(batch).await {
            Ok(Fate::Settled(applied)) => self.settle(inlet, batch, &applied).await?,
            Ok(Fate::Poisoned(why)) => match batch {
                [alone] => self.reject(inlet, &alone.taken, &why).await?,
                _ => {
                    println!("  a batch of {} is refused, each for itself: {why}", batch.len());
                    return Ok(false);
                }
            },
            Err(Trouble::Away(why)) => {
                self.give_back(inlet, batch, false, &why).await?;
                self.inbox.ready().await?;
            }
            Err(Trouble::Clash(why)) => {
                self.give_back(inlet, batch, true, &why).await?;
                sleep(PAUSE).await;
            }
            Err(Trouble::Lasting(failure)) => {
                // At once for whoever has the right deployment.
                self.give_back(inlet, batch, false, &failure.to_string()).await?;
                return Err(failure);
            }
        }
        Ok(true)
    }

    async fn settle(
        &mut self,
        inlet: &Inlet,
        batch: &[Delivery],
        applied: &[Applied],
    ) -> Result<(), Failure> {
        let before = self.tally.applied;
        for (delivery, applied) in batch.iter().zip(applied) {
            let again = again(&delivery.taken);
            match applied {
                Applied::Now => {
                    self.tally.applied += 1;
                    println!("  {}: applied{again}", delivery.order.id);
                }
                Applied::Before => {
                    self.tally.already_applied += 1;
                    println!("  {}: was applied already{again}", delivery.order.id);
                }
            }
        }
        if let Some(after) = self.crash_after
            && before < after
            && after <= self.tally.applied
        {
            println!(
                "  {} are committed, and the broker does not know; dying",
                batch.len()
            );
            std::process::exit(CRASHED);
        }
        for delivery in batch {
            inlet.accept(&delivery.taken).await?;
            self.note(&delivery.order.id, &delivery.correlation, "accepted")?;
        }
        Ok(())
    }

    async fn reject(&mut self, inlet: &Inlet, taken: &Taken, why: &str) -> Result<(), Failure> {
        let id = taken.id.as_deref().unwrap_or("a message without an id");
        println!("  {id}: dead-lettered{}: {why}", again(taken));
        self.tally.dead_lettered += 1;
        inlet.reject(taken, why).await?;
        self.note(id, taken.correlation.as_deref().unwrap_or(id), "rejected")
    }

    async fn give_back(
        &mut self,
        inlet: &Inlet,
        batch: &[Delivery],
        counted: bool,
        why: &str,
    ) -> Result<(), Failure> {
        println!("  {} given back: {why}", batch.len());
        for delivery in batch {
            self.tally.given_back += 1;
            inlet.give_back(&delivery.taken, counted).await?;
        }
        Ok(())
    }

    fn note(&mut self, message: &str, correlation: &str, settled: &str) -> Result<(), Failure> {
        if let Some(file) = &mut self.settled {
            let line = json!({"message": message, "correlation": correlation, "settled": settled});
            writeln!(file, "{line}")?;
        }
        Ok(())
    }
}

fn again(taken: &Taken) -> &'static str {
    if taken.again { ", delivered again" } else { "" }
}

/// A refusal ends the worker; a broker that cannot be reached is tried again for a minute.
async fn open(broker: &Broker, queue: &str) -> Result<Line, Failure> {
    let until = Instant::now() + PATIENCE;
    let mut pause = RETRY_FIRST;
    loop {
        let failure = match Line::open(broker, queue).await {
            Ok(line) => return Ok(line),
            Err(failure) => failure,
        };
        let passing = failure.is::<std::io::Error>() || failure.is::<Lost>();
        if !passing || Instant::now() + pause > until {
            return Err(failure);
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}
