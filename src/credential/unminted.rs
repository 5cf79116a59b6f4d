//! Targets at which nothing is minted: every connection logs in as the broker's own user, gatepost's
//! managed identity, with a token of the moment. Nothing is renewed, replaced or dropped, and the server
//! cannot tell one client from another but by what gatepost tells it.
//!
//! One connection is kept open all the same, so that readiness says whether the server lets us in.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::credential::actor::{Command, Rotated, Wish};
use crate::credential::broker::{BrokerSettings, State};
use crate::credential::ending::Backoff;
use crate::credential::error::{BrokerError, chain};
use crate::credential::lease::{Lease, LeaseHold, LeaseId};
use crate::credential::naming::LoginName;
use crate::credential::server::{Access, Connection};
use crate::domain::clock::Random;
use crate::domain::incarnation::Incarnations;

/// How often the connection is looked at.
const TICK: Duration = Duration::from_secs(2);

/// See the module. Answers what the task that mints answers.
pub(super) struct Unminted {
    settings: Arc<BrokerSettings>,
    updates: watch::Receiver<Arc<BrokerSettings>>,
    state: Arc<State>,
    random: Arc<dyn Random>,
    incarnations: Incarnations,
    control: Handle,
    link: Option<Connection>,
    connecting: JoinSet<Result<Connection, BrokerError>>,
    retry: Instant,
    backoff: Backoff,
}

impl Unminted {
    pub(super) fn new(
        updates: watch::Receiver<Arc<BrokerSettings>>,
        state: Arc<State>,
        random: Arc<dyn Random>,
        incarnations: Incarnations,
        control: Handle,
    ) -> Self {
        let settings = Arc::clone(&updates.borrow());
        Self {
            settings,
            updates,
            state,
            random,
            incarnations,
            control,
            link: None,
            connecting: JoinSet::new(),
            retry: Instant::now(),
            backoff: Backoff::default(),
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let (released, mut releases) = mpsc::unbounded_channel();
        loop {
            self.look();
            let wake = self.wake_at();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Shutdown(reply)) => {
                        self.state.set(Err("shutting down".to_owned()));
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.obey(command, &released),
                    None => return,
                },
                // Nothing ends with its last session.
                Some(LeaseId(_)) = releases.recv() => {}
                Some(connected) = self.connecting.join_next(), if !self.connecting.is_empty() => {
                    if let Ok(result) = connected {
                        self.connected(result);
                    }
                }
                Ok(()) = self.updates.changed() => self.updated(),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn obey(&self, command: Command, released: &mpsc::UnboundedSender<LeaseId>) {
        // When nobody waits for an answer any more, there is nothing to undo.
        match command {
            Command::Lease(wish, reply) => {
                let hold = LeaseHold::new(Arc::new(self.lease(wish)), LeaseId(0), released.clone());
                let _ = reply.send(Ok(hold));
            }
            Command::Logins(reply) => {
                let _ = reply.send(Vec::new());
            }
            Command::Rotate(reply) => {
                let nothing = Rotated {
                    target: self.settings.target.clone(),
                    replaced: 0,
                    draining: 0,
                    dropped: 0,
                };
                let _ = reply.send(Ok(nothing));
            }
            // No login is an identity's own; its sessions end by themselves.
            Command::End { reply, .. } => {
                let _ = reply.send(0);
            }
            Command::Tampered { login, what } => {
                tracing::warn!(login, what, "the managed identity's user is not as it should be");
            }
            // Nobody could have changed it for one identity alone, and the loop takes the last one.
            Command::Suspect { .. } | Command::Shutdown(_) => {}
        }
    }

    fn lease(&self, wish: Wish) -> Lease {
        Lease {
            login: LoginName::of_principal(&self.settings.user),
            password: self.settings.password.clone(),
            target: self.settings.target.clone(),
            role: wish.key.role,
            minted: false,
        }
    }

    fn wake_at(&self) -> Instant {
        let tick = Instant::now() + TICK;
        match (&self.link, self.connecting.is_empty()) {
            (None, true) => tick.min(self.retry),
            (Some(_), _) | (None, false) => tick,
        }
    }

    /// Connects beside the other work, when there is no connection and it is time.
    fn look(&mut self) {
        if self.link.as_ref().is_some_and(Connection::is_closed) {
            self.link = None;
            self.incarnations.set(None);
            self.state.set(Err("the connection was closed".to_owned()));
        }
        if self.link.is_none() && self.connecting.is_empty() && Instant::now() >= self.retry {
            let (access, home) = (self.access(), self.settings.home());
            let incarnations = self.incarnations.clone();
            self.connecting.spawn(async move {
                let connection = access.connect(&home).await?;
                incarnations.set(connection.incarnation().await.ok().flatten());
                Ok(connection)
            });
        }
    }

    fn access(&self) -> Access {
        self.settings.access(&self.control)
    }

    fn connected(&mut self, result: Result<Connection, BrokerError>) {
        match result {
            Ok(connection) => {
                self.link = Some(connection);
                self.backoff = Backoff::default();
                self.state.set(Ok(()));
            }
            Err(error) => {
                let why = chain(&error);
                tracing::warn!(target_name = %self.settings.target, error = %why, "cannot connect as the managed identity");
                self.state.set(Err(why));
                self.retry = Instant::now() + self.backoff.next(&*self.random);
            }
        }
    }

    /// Somebody changed how the server is reached: that is tried at once.
    fn updated(&mut self) {
        self.settings = Arc::clone(&self.updates.borrow_and_update());
        self.link = None;
        self.connecting = JoinSet::new();
        self.retry = Instant::now();
    }
}
