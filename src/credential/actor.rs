//! The task that owns a target's broker connection and its books: mints, renews, and decides what
//! ends. One thing at a time, so that sessions that need the same login wait for one mint.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::audit::{Event, Facts, Record};
use crate::credential::books::{Books, Entry, Key, Usage};
use crate::credential::broker::{BrokerSettings, State};
use crate::credential::connection::Connection;
use crate::credential::ending::{Backoff, Ended, World, end};
use crate::credential::error::{BrokerError, LeaseError, chain};
use crate::credential::lease::{Lease, LeaseHold, LeaseId};
use crate::credential::live::{self, FindingKind};
use crate::credential::naming::{Epoch, LoginName, Mark};
use crate::credential::sweep::sweep;
use crate::credential::verifier::{random_secret, verifier};
use crate::domain::clock::Clock;
use crate::domain::target::Engine;

/// How often the connection is looked at when nothing else happens.
const TICK: Duration = Duration::from_secs(2);
/// A replica that dies while this one lives is swept within this time.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// Logins end in tens of milliseconds each; a client's container gets some 30 s to stop.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(15);
const RECONNECT_EVERY: Duration = Duration::from_millis(500);
/// Beyond this, tokens and certificates are judged by another time than the one in the database.
const SKEW_MAX: Duration = Duration::from_secs(30);

pub(super) enum Command {
    Lease(Wish, oneshot::Sender<Result<LeaseHold, LeaseError>>),
    Shutdown(oneshot::Sender<()>),
}

/// What a session needs, as its grant says.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) key: Key,
    pub(super) ttl: Duration,
    pub(super) max_age: Duration,
    pub(super) facts: Arc<Facts>,
}

pub(super) struct Actor {
    world: World,
    settings: Arc<BrokerSettings>,
    clock: Arc<dyn Clock>,
    state: Arc<State>,
    epoch: Epoch,
    generation: u64,
    books: Books,
    link: Link,
    connected: Instant,
    /// Does our connection hold our epoch's lock? Otherwise others may sweep our logins.
    locked: bool,
    next_sweep: Instant,
    ending: JoinSet<()>,
    sweeping: JoinSet<()>,
    released: mpsc::UnboundedSender<LeaseId>,
    releases: mpsc::UnboundedReceiver<LeaseId>,
}

enum Link {
    Up(Connection),
    Down {
        why: String,
        retry: Instant,
        backoff: Backoff,
    },
}

impl Actor {
    pub(super) fn new(
        world: World,
        settings: Arc<BrokerSettings>,
        clock: Arc<dyn Clock>,
        state: Arc<State>,
    ) -> Self {
        let (released, releases) = mpsc::unbounded_channel();
        let now = Instant::now();
        Self {
            epoch: Epoch::random(&*world.random),
            world,
            settings,
            clock,
            state,
            generation: 0,
            books: Books::default(),
            link: Link::Down {
                why: "not connected yet".to_owned(),
                retry: now,
                backoff: Backoff::default(),
            },
            connected: now,
            locked: false,
            next_sweep: now,
            ending: JoinSet::new(),
            sweeping: JoinSet::new(),
            released,
            releases,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            self.maintain().await;
            let wake = self.wake_at();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Lease(wish, reply)) => {
                        let result = self.lease(&wish).await;
                        // When nobody waits any more, the hold in it is dropped and so released.
                        let _ = reply.send(result);
                    }
                    Some(Command::Shutdown(reply)) => {
                        self.stop().await;
                        let _ = reply.send(());
                        return;
                    }
                    None => return self.stop().await,
                },
                Some(id) = self.releases.recv() => self.books.release(id, Instant::now()),
                Some(_) = self.ending.join_next(), if !self.ending.is_empty() => {}
                Some(_) = self.sweeping.join_next(), if !self.sweeping.is_empty() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let mut wake = Instant::now() + TICK;
        if let Link::Down { retry, .. } = &self.link {
            return wake.min(*retry);
        }
        if let Some(due) = self.books.next_due() {
            wake = wake.min(due);
        }
        wake
    }

    /// Everything that is due. Errors are kept in the state, and what failed is due again later.
    async fn maintain(&mut self) {
        if self.connect().await.is_err() {
            return;
        }
        if self.state.get().is_err() {
            self.judge().await;
        }
        if !self.locked {
            self.lock().await;
        }
        let now = Instant::now();
        if now >= self.next_sweep && self.sweeping.is_empty() {
            self.next_sweep = now + SWEEP_EVERY;
            let (world, installation) = (self.world.clone(), self.settings.installation.clone());
            self.sweeping
                .spawn(sweep(world, installation, self.epoch.clone()));
        }
        for id in self.books.renewals_due(now) {
            let Some(ttl) = self.books.get(id).map(|entry| entry.ttl) else {
                continue;
            };
            if let Err(error) = self.renew(id, ttl).await {
                tracing::warn!(error = %chain(&error), "could not renew a login");
                self.books.renewal_failed(id, Instant::now());
                self.failed(&error);
            }
        }
        for id in self.books.ends_due(Instant::now()) {
            self.end(id, "no session needs it any more");
        }
    }

    /// `Err`: not connected, and either just tried or not due yet.
    async fn connect(&mut self) -> Result<(), LeaseError> {
        if let Link::Up(connection) = &self.link
            && connection.is_closed()
        {
            self.lost("the connection was closed");
        }
        let Link::Down { why, retry, backoff } = &mut self.link else {
            return Ok(());
        };
        if Instant::now() < *retry {
            return Err(LeaseError::NotConnected {
                target: self.settings.target.clone(),
                why: why.clone(),
            });
        }
        match self.world.access.connect(&self.world.home).await {
            Ok(connection) => {
                self.compare_clocks(&connection).await;
                self.link = Link::Up(connection);
                self.connected = Instant::now();
                self.next_sweep = Instant::now();
                self.lock().await;
                self.judge().await;
                Ok(())
            }
            Err(error) => {
                *why = chain(&error);
                *retry = Instant::now() + backoff.next(&*self.world.random);
                tracing::warn!(target_name = %self.settings.target, error = %why, "broker cannot connect");
                self.state.set(Err(why.clone()));
                Err(error.into())
            }
        }
    }

    fn lost(&mut self, why: &str) {
        self.locked = false;
        self.state.set(Err(why.to_owned()));
        self.link = Link::Down {
            why: why.to_owned(),
            // At once, unless the server lets us in only to throw us out again.
            retry: self.connected + RECONNECT_EVERY,
            backoff: Backoff::default(),
        };
    }

    fn failed(&mut self, error: &BrokerError) {
        if error.ends_connection() {
            self.lost(&chain(error));
        }
    }

    fn connection(&self) -> Result<&Connection, BrokerError> {
        match &self.link {
            Link::Up(connection) => Ok(connection),
            Link::Down { why, .. } => Err(BrokerError::Unreachable {
                target: self.settings.target.clone(),
                why: why.clone(),
            }),
        }
    }

    /// Can this broker mint at all? Asked at each connect, and again until the answer is yes.
    async fn judge(&mut self) {
        let Ok(connection) = self.connection() else {
            return;
        };
        let state = match live::missing(connection, &[]).await {
            Ok(findings) => {
                let lacks = |kind| matches!(kind, FindingKind::MissingRole | FindingKind::MissingPrivilege);
                let lacking = findings.into_iter().find(|finding| lacks(finding.kind));
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
    async fn lock(&mut self) {
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
        let there = |login: &LoginName| minted.iter().any(|found| found.login == *login);
        let swept = self.books.all().filter(|(_, entry)| !there(entry.lease.login()));
        let swept: Vec<_> = swept.map(|(id, _)| id).collect();
        for id in swept {
            self.end(id, "it was no longer in the database");
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

    async fn lease(&mut self, wish: &Wish) -> Result<LeaseHold, LeaseError> {
        // Releases that came first are older than this wish.
        while let Ok(id) = self.releases.try_recv() {
            self.books.release(id, Instant::now());
        }
        let result = self.find_or_mint(wish).await;
        let id = match result {
            // A connection that went stale is found out by the first use; the second try is on a new one.
            Err(LeaseError::Broker(error)) if error.ends_connection() && self.was_up(&error) => {
                self.find_or_mint(wish).await?
            }
            other => other?,
        };
        let lease = self.books.hold(id).ok_or_else(|| BrokerError::Stopped {
            target: self.settings.target.clone(),
        })?;
        Ok(LeaseHold::new(lease, id, self.released.clone()))
    }

    fn was_up(&mut self, error: &BrokerError) -> bool {
        let up = matches!(self.link, Link::Up(_));
        self.failed(error);
        up
    }

    async fn find_or_mint(&mut self, wish: &Wish) -> Result<LeaseId, LeaseError> {
        let now = Instant::now();
        if let Some(id) = self.books.current(&wish.key, wish.max_age, now) {
            let fresh = self
                .books
                .get(id)
                .is_some_and(|entry| entry.renewal_due > now && entry.ttl <= wish.ttl);
            if fresh {
                return Ok(id);
            }
            self.connect().await?;
            self.renew(id, wish.ttl).await?;
            if self.books.get(id).is_some() {
                return Ok(id);
            }
        }
        self.connect().await?;
        Ok(self.mint(wish).await?)
    }

    async fn mint(&mut self, wish: &Wish) -> Result<LeaseId, BrokerError> {
        let connection = self.connection()?;
        let random = &*self.world.random;
        let login = LoginName::mint(&self.settings.installation, &wish.key.identity, random);
        let password = random_secret(random);
        let verifier = verifier(&password, random);
        let until = connection.time(wish.ttl).await?;
        let facts = Arc::new(Facts {
            target: Some(self.settings.target.clone()),
            engine: Some(Engine::Postgres),
            role: Some(wish.key.role.clone()),
            login: Some(login.shared()),
            ..Facts::clone(&wish.facts)
        });
        // On record before it exists: no crash leaves a login in the database that the journal lacks.
        let minted = Event::LoginMinted { expires_at: until.at };
        let recorded = self.world.journal.append(Record::new(Arc::clone(&facts), minted));
        recorded
            .await
            .map_err(|source| BrokerError::Journal { what: "mint", source })?;
        let mark = Mark {
            gatepost: Mark::VERSION,
            installation: self.settings.installation.clone(),
            replica: self.settings.replica.clone(),
            epoch: self.epoch.clone(),
            generation: self.generation + 1,
            role: wish.key.role.clone(),
        };
        let created = connection.create(&login, &mark, &verifier, &until).await;
        self.generation += 1;
        if let Err(error) = created {
            // It may exist all the same: the answer may be what was lost.
            self.spawn_end(login, wish.key.clone(), facts, "it could not be minted");
            return Err(error);
        }
        let now = Instant::now();
        Ok(self.books.insert(Entry {
            key: wish.key.clone(),
            lease: Arc::new(Lease {
                login,
                password,
                target: self.settings.target.clone(),
                role: wish.key.role.clone(),
            }),
            verifier,
            facts,
            ttl: wish.ttl,
            minted: now,
            renewal_due: now + wish.ttl / 2,
            usage: Usage::Idle { since: now },
            replaced: false,
        }))
    }

    /// Afterwards the entry is gone if the login had been tampered with.
    async fn renew(&mut self, id: LeaseId, ttl: Duration) -> Result<(), BrokerError> {
        let Some(entry) = self.books.get(id) else {
            return Ok(());
        };
        let connection = self.connection()?;
        let login = entry.lease.login();
        let settings = connection.own_settings(login).await?;
        if !settings.is_empty() {
            let what = format!("it set {} for itself", settings.join(", "));
            self.tampered(id, what);
            return Ok(());
        }
        let until = connection.time(ttl).await?;
        match connection.renew(login, &entry.verifier, &until).await {
            Err(error) if error.sqlstate() == Some(&tokio_postgres::error::SqlState::UNDEFINED_OBJECT) => {
                self.tampered(id, "it was dropped by someone else".to_owned());
                return Ok(());
            }
            other => other?,
        }
        let renewed = Event::LoginRenewed { expires_at: until.at };
        self.world.note(&entry.facts, renewed);
        self.books.renewed(id, ttl, Instant::now());
        Ok(())
    }

    fn tampered(&mut self, id: LeaseId, what: String) {
        if let Some(entry) = self.books.get(id) {
            tracing::warn!(login = %entry.lease.login(), what, "a login was tampered with");
            self.world.note(&entry.facts, Event::LoginTampered { what });
            self.end(id, "it was tampered with");
        }
    }

    fn end(&mut self, id: LeaseId, why: &'static str) {
        if let Some(entry) = self.books.remove(id) {
            self.spawn_end(entry.lease.login().clone(), entry.key, entry.facts, why);
        }
    }

    fn spawn_end(&mut self, login: LoginName, key: Key, facts: Arc<Facts>, why: &'static str) {
        let role = key.role;
        let ended = Ended {
            login,
            role,
            facts,
            why,
        };
        self.ending.spawn(end(self.world.clone(), ended));
    }

    async fn stop(&mut self) {
        self.state.set(Err("shutting down".to_owned()));
        let all: Vec<_> = self.books.all().map(|(id, _)| id).collect();
        for id in all {
            self.end(id, "gatepost is shutting down");
        }
        let ended = async { while self.ending.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_LIMIT, ended).await.is_err() {
            let left = self.ending.len();
            tracing::warn!(target_name = %self.settings.target, left, "logins could not be ended in time; the next start sweeps them");
        }
    }
}
