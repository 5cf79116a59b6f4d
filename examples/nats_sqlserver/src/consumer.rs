//! The consumer of one domain: the database first, then the result, then the acknowledgement.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use async_nats::{HeaderMap, header};
use futures_util::StreamExt as _;
use serde_json::json;
use sqlserver_inbox::{Delivery, Domain, Failure, Fate, Inbox, Server, Trouble};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::broker::Broker;

/// A message that met a passing trouble comes again after this.
const PUT_OFF: Duration = Duration::from_secs(1);
/// One at a time: a worker holds no message that it does not work on.
const BATCH: usize = 1;
const FETCH_WAIT: Duration = Duration::from_secs(5);
const CORRELATION: &str = "correlation-id";
/// Tells a script that this was the crash it asked for.
const CRASHED: i32 = 9;

/// Where the worker is to die, and after how many.
#[derive(Debug)]
pub(crate) struct Crash {
    pub(crate) after_commit: Option<usize>,
    pub(crate) after_result: Option<usize>,
}

pub(crate) struct Consumer {
    broker: Broker,
    inbox: Inbox,
    domain: Domain,
    crash: Crash,
    pub(crate) tally: Tally,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    applied: usize,
    already_applied: usize,
    terminated: usize,
    put_off: usize,
    results: usize,
    results_known: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "applied {}, already applied {}, terminated {}, put off {}; results {}, known already {}",
            self.applied,
            self.already_applied,
            self.terminated,
            self.put_off,
            self.results,
            self.results_known
        )
    }
}

impl Consumer {
    pub(crate) fn new(
        broker: Broker,
        server: Server,
        domain: Domain,
        crash: Crash,
        cut_at: Option<usize>,
    ) -> Self {
        Self {
            broker,
            inbox: Inbox::new(server, domain.consumer(), cut_at),
            domain,
            crash,
            tally: Tally::default(),
        }
    }

    /// Until it is told to end, or no message came for `idle`.
    pub(crate) async fn run(&mut self, ack_wait: Duration, idle: Option<Duration>) -> Result<(), Failure> {
        let mut end = signal(SignalKind::terminate())?;
        let consumer = self.broker.consumer(self.domain, ack_wait).await?;
        loop {
            // Takes no message before the database can be reached.
            match self.inbox.ready().await {
                Ok(()) => {}
                Err(Trouble::Passing(why)) => return Err(why.into()),
                Err(Trouble::Lasting(failure)) => return Err(failure),
            }
            let message = tokio::select! {
                biased;
                _ = end.recv() => return Ok(()),
                message = next(&consumer, idle) => message?,
            };
            match message {
                Some(message) => self.one(&message).await?,
                None => return Ok(()),
            }
        }
    }

    /// One delivery.
    async fn one(&mut self, message: &Message) -> Result<(), Failure> {
        let information = message.info()?;
        let again = match information.delivered {
            ..=1 => String::new(),
            times => format!(", delivery {times}"),
        };
        let correlation = text(message.headers.as_ref(), CORRELATION);
        let delivery = match Delivery::read(self.domain, correlation, &message.payload) {
            Ok(delivery) => delivery,
            Err(malformed) => {
                let sequence = information.stream_sequence;
                let id = text(message.headers.as_ref(), header::NATS_MESSAGE_ID.as_ref());
                let id = id.map_or_else(|| format!("#{sequence}"), str::to_owned);
                println!("  {id}: malformed{again}, terminated: {malformed}");
                return self.terminate(message, &id, &malformed.to_string()).await;
            }
        };
        let id = &delivery.id;
        match self.inbox.apply(&delivery).await {
            Ok(Fate::Applied) => {
                self.tally.applied += 1;
                println!("  {id}: applied{again}");
                if self.crash.after_commit == Some(self.tally.applied) {
                    println!("  {id}: committed, and its result is not published; dying");
                    std::process::exit(CRASHED);
                }
                self.publish(id, "applied", None).await?;
                if self
                    .crash
                    .after_result
                    .is_some_and(|after| self.tally.results >= after)
                {
                    println!("  {id}: its result is published, and it is not acknowledged; dying");
                    std::process::exit(CRASHED);
                }
                message.double_ack().await
            }
            Ok(Fate::AlreadyApplied) => {
                self.tally.already_applied += 1;
                println!("  {id}: was applied already{again}");
                self.publish(id, "applied", None).await?;
                message.double_ack().await
            }
            Ok(Fate::Poisoned(why)) => {
                println!("  {id}: terminated{again}: {why}");
                self.terminate(message, id, &why).await
            }
            Err(Trouble::Passing(why)) => {
                self.tally.put_off += 1;
                println!("  {id}: put off{again}: {why}");
                message.double_ack_with(AckKind::Nak(Some(PUT_OFF))).await
            }
            Err(Trouble::Lasting(failure)) => {
                // At once for whoever has the right deployment.
                message.double_ack_with(AckKind::Nak(None)).await?;
                Err(failure)
            }
        }
    }

    /// The result is stored first: once the message is terminated nothing would bring it.
    async fn terminate(&mut self, message: &Message, id: &str, why: &str) -> Result<(), Failure> {
        self.tally.terminated += 1;
        self.publish(id, "refused", Some(why)).await?;
        message.double_ack_with(AckKind::Term).await
    }

    async fn publish(&mut self, message: &str, outcome: &str, why: Option<&str>) -> Result<(), Failure> {
        let body = match why {
            None => json!({"message": message, "outcome": outcome}),
            Some(why) => json!({"message": message, "outcome": outcome, "reason": why}),
        };
        let new = self
            .broker
            .publish_result(self.domain, message, body.to_string())
            .await?;
        if new {
            self.tally.results += 1;
        } else {
            self.tally.results_known += 1;
            println!("  {message}: its result was published already");
        }
        Ok(())
    }
}

/// `None` when nothing came for `idle`. May be dropped while it waits; a message that is then on its way
/// comes again.
async fn next(consumer: &PullConsumer, idle: Option<Duration>) -> Result<Option<Message>, Failure> {
    match idle {
        None => wait(consumer).await.map(Some),
        Some(idle) => match timeout(idle, wait(consumer)).await {
            Ok(message) => message.map(Some),
            Err(_) => Ok(None),
        },
    }
}

async fn wait(consumer: &PullConsumer) -> Result<Message, Failure> {
    loop {
        let fetch = consumer.fetch().max_messages(BATCH).expires(FETCH_WAIT);
        if let Some(message) = fetch.messages().await?.next().await {
            return message;
        }
    }
}

fn text<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    Some(headers?.get(name)?.as_str())
}
