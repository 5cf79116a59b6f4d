//! The broker's own connection: opened, lost, opened again, and changed over to a new credential.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::audit::{Event, Facts};
use crate::credential::actor::Actor;
use crate::credential::ending::Backoff;
use crate::credential::error::{BrokerError, LeaseError, chain};
use crate::credential::live::Finding;
use crate::credential::naming::LoginName;
use crate::credential::server::{Access, Connection};

const RECONNECT_EVERY: Duration = Duration::from_millis(500);
/// A little above the time that connecting is given.
const PROOF_LIMIT: Duration = Duration::from_secs(15);
/// Beyond this, tokens and certificates are judged by another time than the one in the database.
const SKEW_MAX: Duration = Duration::from_secs(30);

pub(super) enum Link {
    Up(Connection),
    Down {
        why: String,
        retry: Instant,
        backoff: Backoff,
    },
}

/// A credential that has not been seen to work yet.
pub(super) struct Candidate {
    access: Arc<Access>,
    retry: Instant,
    backoff: Backoff,
}

impl Actor {
    pub(super) fn link_wakes_at(&self) -> Option<Instant> {
        let retry = match &self.link {
            Link::Down { retry, .. } => Some(*retry),
            Link::Up(_) => None,
        };
        // A proof that is under way wakes by itself.
        let candidate = self.candidate.as_ref().filter(|_| self.proving.is_empty());
        let candidate = candidate.map(|candidate| candidate.retry);
        retry.into_iter().chain(candidate).min()
    }

    /// Somebody changed how the server is reached: that is tried at once.
    pub(super) fn updated(&mut self) {
        let access = Arc::new(
            self.updates
                .borrow_and_update()
                .access(self.world.access().control()),
        );
        self.state.set_pending(None);
        if access.same_as(&self.world.access()) {
            self.candidate = None;
            return;
        }
        let now = Instant::now();
        self.candidate = Some(Candidate {
            access,
            retry: now,
            backoff: Backoff::default(),
        });
        if let Link::Down { retry, .. } = &mut self.link {
            *retry = now;
        }
    }

    /// Proves a new credential by a new connection, beside the work that goes on by the old one.
    pub(super) fn prove(&mut self) {
        let now = Instant::now();
        let home = self.world.home.clone();
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        if now < candidate.retry || !self.proving.is_empty() {
            return;
        }
        candidate.retry = now + PROOF_LIMIT;
        let access = Arc::clone(&candidate.access);
        self.proving.spawn(async move {
            let result = access.connect(&home).await;
            (access, result)
        });
    }

    /// A proof came to its end. What works until then is kept.
    pub(super) async fn proved(&mut self, access: &Arc<Access>, result: Result<Connection, BrokerError>) {
        let wanted = self.candidate.as_ref();
        if !wanted.is_some_and(|candidate| Arc::ptr_eq(&candidate.access, access)) {
            return;
        }
        let Some(connection) = self.judge_candidate(result) else {
            return;
        };
        // Another replica that looks in this moment looks again seconds later, and finds it taken.
        if let Link::Up(old) = &self.link
            && let Err(error) = old.unlock(&self.settings.installation, &self.epoch).await
        {
            tracing::debug!(error = %chain(&error), "could not release the epoch's lock on the old connection");
        }
        self.up(connection).await;
    }

    /// A connection by the new credential, when there is none to go on with.
    async fn try_candidate(&mut self) -> Option<Connection> {
        let candidate = self.candidate.as_ref()?;
        let result = candidate.access.connect(&self.world.home).await;
        self.judge_candidate(result)
    }

    /// A credential that worked is from then on the one that counts.
    fn judge_candidate(&mut self, result: Result<Connection, BrokerError>) -> Option<Connection> {
        let candidate = self.candidate.as_mut()?;
        match result {
            Ok(connection) => {
                let access = Arc::clone(&candidate.access);
                self.candidate = None;
                self.adopt(access);
                Some(connection)
            }
            Err(error) => {
                candidate.retry = Instant::now() + candidate.backoff.next(&*self.world.random);
                let why = chain(&error);
                tracing::warn!(target_name = %self.settings.target, error = %why, "the broker's new credential does not work yet");
                self.state.set_pending(Some(why));
                None
            }
        }
    }

    fn adopt(&mut self, access: Arc<Access>) {
        self.state.set_pending(None);
        let old = self.access.send_replace(Arc::clone(&access));
        tracing::info!(target_name = %self.settings.target, "the broker's new credential is in use");
        if !access.same_login_as(&old) {
            let facts = Facts {
                target: Some(self.settings.target.clone()),
                engine: Some(access.engine()),
                ..Facts::default()
            };
            let rotated = Event::SecretRotated {
                what: "broker_password",
                which: Some(self.settings.target.to_string()),
            };
            self.world.note(&Arc::new(facts), rotated);
        }
    }

    /// `Err`: not connected, and either just tried or not due yet.
    pub(super) async fn connect(&mut self) -> Result<(), LeaseError> {
        if let Link::Up(connection) = &self.link
            && connection.is_closed()
        {
            self.lost("the connection was closed");
        }
        let Link::Down { why, retry, .. } = &self.link else {
            return Ok(());
        };
        if Instant::now() < *retry {
            return Err(LeaseError::NotConnected {
                target: self.settings.target.clone(),
                why: why.clone(),
            });
        }
        if let Some(connection) = self.try_candidate().await {
            self.up(connection).await;
            return Ok(());
        }
        match self.world.access().connect(&self.world.home).await {
            Ok(connection) => {
                self.up(connection).await;
                Ok(())
            }
            Err(error) => {
                let error = self.better_told(error);
                let told = chain(&error);
                tracing::warn!(target_name = %self.settings.target, error = %told, "broker cannot connect");
                self.state.set(Err(told.clone()));
                if let Link::Down { why, retry, backoff } = &mut self.link {
                    *why = told;
                    *retry = Instant::now() + backoff.next(&*self.world.random);
                }
                Err(error.into())
            }
        }
    }

    /// When old and new credential are both refused, the new one is what an operator asks about.
    fn better_told(&self, error: BrokerError) -> BrokerError {
        match (self.state.pending(), error) {
            (Some(why), BrokerError::WrongPassword { target, .. }) => BrokerError::Unreachable {
                target,
                why: format!("neither the old credential works nor the new one: {why}"),
            },
            (_, error) => error,
        }
    }

    async fn up(&mut self, connection: Connection) {
        self.compare_clocks(&connection).await;
        self.world.note_incarnation(&connection).await;
        self.link = Link::Up(connection);
        self.locked = false;
        self.connected = Instant::now();
        self.next_sweep = Instant::now();
        self.lock().await;
        self.judge().await;
    }

    pub(super) fn lost(&mut self, why: &str) {
        self.world.incarnations.set(None);
        self.locked = false;
        self.state.set(Err(why.to_owned()));
        self.link = Link::Down {
            why: why.to_owned(),
            // At once, unless the server lets us in only to throw us out again.
            retry: self.connected + RECONNECT_EVERY,
            backoff: Backoff::default(),
        };
    }

    pub(super) fn failed(&mut self, error: &BrokerError) {
        if error.ends_connection() {
            self.lost(&chain(error));
        }
    }

    pub(super) fn connection(&self) -> Result<&Connection, BrokerError> {
        match &self.link {
            Link::Up(connection) => Ok(connection),
            Link::Down { why, .. } => Err(BrokerError::Unreachable {
                target: self.settings.target.clone(),
                why: why.clone(),
            }),
        }
    }

    /// Can this broker mint at all? Asked at each connect, and again until the answer is yes.
    pub(super) async fn judge(&mut self) {
        let Ok(connection) = self.connection() else {
            return;
        };
        let state = match connection.missing(&[]).await {
            Ok(findings) => {
                let lacking = findings.into_iter().find(Finding::is_lacking);
                lacking.map_or(Ok(()), |finding| {
                    Err(format!(
                        "the broker lacks {}; run: {}",
                        finding.missing, finding.sql
                    ))
                })
            }
            Err(error) => Err(chain(&error)),
        };
        self.state.set(state);
    }

    /// Takes our epoch's lock. The server may still hold it for a connection that we lost; until it
    /// notices, nobody else can have it either.
    pub(super) async fn lock(&mut self) {
        let Ok(connection) = self.connection() else {
            return;
        };
        let installation = &self.settings.installation;
        match connection.try_lock(installation, &self.epoch).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.failed(&error),
        }
        let minted = connection.minted(installation).await;
        self.locked = true;
        // While the lock was free, somebody may have taken us for dead.
        let minted = match minted {
            Ok(minted) => minted,
            Err(error) => return self.failed(&error),
        };
        self.others = minted.iter().filter(|found| found.epoch != self.epoch).count();
        let there = |login: &LoginName| minted.iter().any(|found| found.login == *login);
        let missing = self.books.all().filter(|(_, entry)| !there(entry.lease.login()));
        let missing: Vec<_> = missing.map(|(id, _)| id).collect();
        // Gone, renamed or without its comment: a look at each says which.
        for id in missing {
            self.books.suspect(id, Instant::now());
        }
    }

    async fn compare_clocks(&self, connection: &Connection) {
        if let Ok(theirs) = connection.time(Duration::ZERO).await {
            let ours = self.clock.now();
            let ahead = theirs.at.duration_since(ours);
            let skew = ahead.unwrap_or_else(|behind| behind.duration());
            if skew > SKEW_MAX {
                tracing::warn!(target_name = %self.settings.target, skew_seconds = skew.as_secs(),
                    "the database server's clock and ours differ");
            }
        }
    }
}
