//! The consumer: the database first, then the broker.

use std::fmt;
use std::time::Duration;

use sqlserver_inbox::{Delivery, Failure, Fate, Inbox, Server, Trouble};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::stomp::{Broker, Connection, Frame, Lost};
use crate::{DOMAIN, QUEUE};

/// How long a broker that cannot be reached is tried before the worker gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Tells a script that this was the crash it asked for.
const CRASHED: i32 = 9;

pub(crate) struct Consumer {
    broker: Broker,
    inbox: Inbox,
    crash_after: Option<usize>,
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

/// Why a subscription is read no further.
enum Pause {
    /// Told to end, or nothing came for long enough.
    Over,
    /// The database cannot be reached.
    Database,
}

impl Consumer {
    pub(crate) fn new(
        broker: Broker,
        server: Server,
        crash_after: Option<usize>,
        cut_at: Option<usize>,
    ) -> Self {
        Self {
            broker,
            inbox: Inbox::new(server, DOMAIN.consumer(), cut_at),
            crash_after,
            tally: Tally::default(),
        }
    }

    /// Until it is told to end, or no message came for `idle`.
    pub(crate) async fn run(&mut self, idle: Option<Duration>) -> Result<(), Failure> {
        let mut end = signal(SignalKind::terminate())?;
        loop {
            let mut connection = open(&self.broker).await?;
            match self.serve(&mut connection, &mut end, idle).await {
                Ok(()) => {
                    // Everything is confirmed already.
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(failure) => match failure.downcast::<Lost>() {
                    Ok(lost) => println!("  broker lost: {lost}"),
                    Err(lasting) => return Err(lasting),
                },
            }
        }
    }

    /// Takes no message before the database can be reached, so that none is held for nothing.
    async fn serve(
        &mut self,
        connection: &mut Connection,
        end: &mut Signal,
        idle: Option<Duration>,
    ) -> Result<(), Failure> {
        loop {
            match self.inbox.ready().await {
                Ok(()) => {}
                Err(Trouble::Passing(why)) => return Err(why.into()),
                Err(Trouble::Lasting(failure)) => return Err(failure),
            }
            connection.subscribe(QUEUE).await?;
            let pause = self.read(connection, end, idle).await?;
            connection.unsubscribe().await?;
            match pause {
                Pause::Over => return Ok(()),
                Pause::Database => {}
            }
        }
    }

    async fn read(
        &mut self,
        connection: &mut Connection,
        end: &mut Signal,
        idle: Option<Duration>,
    ) -> Result<Pause, Failure> {
        loop {
            let message = tokio::select! {
                biased;
                _ = end.recv() => return Ok(Pause::Over),
                message = next(connection, idle) => message?,
            };
            let Some(message) = message else {
                return Ok(Pause::Over);
            };
            if !self.one(connection, &message).await? {
                return Ok(Pause::Database);
            }
        }
    }

    /// One delivery. False when the message is not answered and must come again.
    async fn one(&mut self, connection: &mut Connection, message: &Frame) -> Result<bool, Failure> {
        let again = match message.header("redelivered") {
            Some("true") => ", delivered again",
            _ => "",
        };
        let delivery = match Delivery::read(DOMAIN, message.header("correlation-id"), &message.body) {
            Ok(delivery) => delivery,
            Err(malformed) => {
                let id = message.header("message-id").unwrap_or("a message");
                println!("  {id}: not an order{again}, dead-lettered: {malformed}");
                self.tally.dead_lettered += 1;
                connection.nack(message).await?;
                return Ok(true);
            }
        };
        let id = &delivery.id;
        match self.inbox.apply(&delivery).await {
            Ok(Fate::Applied) => {
                self.tally.applied += 1;
                println!("  {id}: applied{again}");
                if self.crash_after == Some(self.tally.applied) {
                    println!("  {id}: committed and not acknowledged; dying");
                    std::process::exit(CRASHED);
                }
                connection.ack(message).await?;
            }
            Ok(Fate::AlreadyApplied) => {
                self.tally.already_applied += 1;
                println!("  {id}: was applied already{again}");
                connection.ack(message).await?;
            }
            Ok(Fate::Poisoned(why)) => {
                self.tally.dead_lettered += 1;
                println!("  {id}: dead-lettered{again}: {why}");
                connection.nack(message).await?;
            }
            Err(Trouble::Passing(why)) => {
                self.tally.given_back += 1;
                println!("  {id}: given back{again}: {why}");
                return Ok(false);
            }
            // It stays in the queue: the connection ends without an answer.
            Err(Trouble::Lasting(failure)) => return Err(failure),
        }
        Ok(true)
    }
}

/// `None` when nothing came for `idle`.
async fn next(connection: &mut Connection, idle: Option<Duration>) -> Result<Option<Frame>, Lost> {
    match idle {
        None => connection.next().await.map(Some),
        Some(idle) => match timeout(idle, connection.next()).await {
            Ok(message) => message.map(Some),
            Err(_) => Ok(None),
        },
    }
}

/// A refusal ends the worker; a broker that cannot be reached is tried again for a minute.
async fn open(broker: &Broker) -> Result<Connection, Failure> {
    let until = Instant::now() + PATIENCE;
    let mut pause = RETRY_FIRST;
    loop {
        let failure = match Connection::open(broker).await {
            Ok(connection) => return Ok(connection),
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
