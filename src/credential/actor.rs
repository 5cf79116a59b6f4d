//! The task that owns a target's broker connection and its books: mints, renews, and decides what
//! ends. One thing at a time, so that sessions that need the same login wait for one mint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::audit::{Event, Facts, Record};
use crate::credential::actor::link::{Candidate, Link};
use crate::credential::actor::operate::Rotation;
use crate::credential::books::{Books, Entry, Key, Usage};
use crate::credential::broker::{BrokerSettings, State};
use crate::credential::ending::{Backoff, Ended, World, end};
use crate::credential::error::{BrokerError, LeaseError, chain};
use crate::credential::lease::{Lease, LeaseHold, LeaseId};
use crate::credential::naming::{Epoch, LoginName, Mark};
use crate::credential::server::{Access, Changes, Connection};
use crate::credential::sweep::sweep;
use crate::credential::view::{LoginState, LoginView};
use crate::domain::clock::Clock;

mod link;
mod operate;

pub use operate::Rotated;

/// How often the connection is looked at when nothing else happens.
const TICK: Duration = Duration::from_secs(2);
/// A replica that dies while this one lives is swept within this time.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// Logins end in tens of milliseconds each; a client's container gets some 30 s to stop.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(15);
/// Of one installation at one target, whatever replica made them. A thousand identities in a few roles
/// on a few replicas fit in; more is a loop somewhere that mints and never comes back, and the
/// server's catalogue is not to pay for that.
const MINTED_MAX: usize = 10_000;

/// Chooses logins by what is known about the session that they were minted for.
pub(super) type Chosen = Arc<dyn Fn(&Facts) -> bool + Send + Sync>;

pub(super) enum Command {
    Lease(Wish, oneshot::Sender<Result<LeaseHold, LeaseError>>),
    Logins(oneshot::Sender<Vec<LoginView>>),
    Rotate(operate::Reply),
    End {
        of: Chosen,
        why: &'static str,
        reply: oneshot::Sender<usize>,
    },
    Tampered {
        login: String,
        what: String,
    },
    Suspect {
        login: String,
    },
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
    updates: watch::Receiver<Arc<BrokerSettings>>,
    access: watch::Sender<Arc<Access>>,
    candidate: Option<Candidate>,
    proving: JoinSet<(Arc<Access>, Result<Connection, BrokerError>)>,
    link: Link,
    connected: Instant,
    /// Does our connection hold our epoch's lock? Otherwise others may sweep our logins.
    locked: bool,
    next_sweep: Instant,
    ending: JoinSet<LoginName>,
    /// Logins that are being ended, for those who ask.
    leaving: BTreeMap<LoginName, LoginView>,
    sweeping: JoinSet<Option<usize>>,
    /// Logins of other replicas and epochs of this installation, when they were last counted.
    others: usize,
    rotation: Option<Rotation>,
    rotations_asked: Vec<operate::Reply>,
    released: mpsc::UnboundedSender<LeaseId>,
    releases: mpsc::UnboundedReceiver<LeaseId>,
}

impl Actor {
    pub(super) fn new(
        world: World,
        access: watch::Sender<Arc<Access>>,
        updates: watch::Receiver<Arc<BrokerSettings>>,
        clock: Arc<dyn Clock>,
        state: Arc<State>,
    ) -> Self {
        let (released, releases) = mpsc::unbounded_channel();
        let now = Instant::now();
        let settings = Arc::clone(&updates.borrow());
        Self {
            epoch: Epoch::random(&*world.random),
            world,
            settings,
            clock,
            state,
            generation: 0,
            books: Books::default(),
            updates,
            access,
            candidate: None,
            proving: JoinSet::new(),
            link: Link::Down {
                why: "not connected yet".to_owned(),
                retry: now,
                backoff: Backoff::default(),
            },
            connected: now,
            locked: false,
            next_sweep: now,
            ending: JoinSet::new(),
            leaving: BTreeMap::new(),
            sweeping: JoinSet::new(),
            others: 0,
            rotation: None,
            rotations_asked: Vec::new(),
            released,
            releases,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            self.maintain().await;
            self.begin_rotation();
            let wake = self.wake_at();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Shutdown(reply)) => {
                        self.stop().await;
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.obey(command).await,
                    None => return self.stop().await,
                },
                Some(id) = self.releases.recv() => self.books.release(id, Instant::now()),
                Some(ended) = self.ending.join_next(), if !self.ending.is_empty() => {
                    if let Ok(login) = ended {
                        self.leaving.remove(&login);
                    }
                }
                Some(swept) = self.sweeping.join_next(), if !self.sweeping.is_empty() => {
                    if let Ok(Some(others)) = swept {
                        self.others = others;
                    }
                }
                Some(proved) = self.proving.join_next(), if !self.proving.is_empty() => {
                    if let Ok((access, result)) = proved {
                        self.proved(&access, result).await;
                    }
                }
                Ok(()) = self.updates.changed() => self.updated(),
                // Always ready, and so taken in turn with the other work, however much there is.
                () = std::future::ready(()), if self.rotation.is_some() => self.rotate_step().await,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        // When nobody waits for an answer any more, what was done stays done; a hold that nobody
        // takes is dropped and so released.
        match command {
            Command::Lease(wish, reply) => {
                let result = self.lease(&wish).await;
                let _ = reply.send(result);
            }
            Command::Logins(reply) => {
                let _ = reply.send(self.logins());
            }
            Command::Rotate(reply) => self.rotations_asked.push(reply),
            Command::End { of, why, reply } => {
                let ended = self.end_logins(&*of, why).await;
                let _ = reply.send(ended);
            }
            Command::Tampered { login, what } => self.reported_tampered(&login, what),
            Command::Suspect { login } => self.suspect(&login),
            // The loop takes it before it comes here.
            Command::Shutdown(_) => {}
        }
    }

    fn wake_at(&self) -> Instant {
        let mut wake = Instant::now() + TICK;
        if let Some(link) = self.link_wakes_at() {
            wake = wake.min(link);
        }
        if matches!(self.link, Link::Up(_))
            && let Some(due) = self.books.next_due()
        {
            wake = wake.min(due);
        }
        wake
    }

    /// Everything that is due. Errors are kept in the state, and what failed is due again later.
    async fn maintain(&mut self) {
        if self.connect().await.is_err() {
            return;
        }
        self.prove();
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

    /// Sessions that ended before now do not count any more.
    fn take_releases(&mut self) {
        while let Ok(id) = self.releases.try_recv() {
            self.books.release(id, Instant::now());
        }
    }

    async fn lease(&mut self, wish: &Wish) -> Result<LeaseHold, LeaseError> {
        self.take_releases();
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

    /// The same for a login that nobody waits for.
    async fn mint_on_a_working_link(&mut self, wish: &Wish) -> Result<LeaseId, LeaseError> {
        self.connect().await?;
        match self.mint(wish).await {
            Err(error) if error.ends_connection() && self.was_up(&error) => {
                self.connect().await?;
                Ok(self.mint(wish).await?)
            }
            other => Ok(other?),
        }
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
        let begun = Instant::now();
        let minted = self.mint(wish).await?;
        self.state.minted(begun.elapsed());
        Ok(minted)
    }

    async fn mint(&mut self, wish: &Wish) -> Result<LeaseId, BrokerError> {
        if self.books.len() + self.leaving.len() + self.others >= MINTED_MAX {
            return Err(BrokerError::TooManyLogins {
                target: self.settings.target.clone(),
                limit: MINTED_MAX,
            });
        }
        let connection = self.connection()?;
        let random = &*self.world.random;
        let access = self.world.access();
        let mark = Mark {
            gatepost: Mark::VERSION,
            installation: self.settings.installation.clone(),
            replica: self.settings.replica.clone(),
            epoch: self.epoch.clone(),
            generation: self.generation + 1,
            role: wish.key.role.clone(),
            database: wish.key.database.clone(),
        };
        let login = access.name(&mark, &wish.key.identity, random);
        let (password, verifier) = access.secret(random);
        let until = connection.time(wish.ttl).await?;
        let facts = Arc::new(Facts {
            target: Some(self.settings.target.clone()),
            engine: Some(access.engine()),
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
        let created = connection.create(&login, &mark, &verifier, &until).await;
        self.generation += 1;
        let now = Instant::now();
        let entry = Entry {
            key: wish.key.clone(),
            lease: Arc::new(Lease {
                login,
                password: password.into(),
                target: self.settings.target.clone(),
                role: wish.key.role.clone(),
                minted: true,
            }),
            verifier,
            facts,
            ttl: wish.ttl,
            mark,
            minted: now,
            minted_at: self.clock.now(),
            until,
            wanted: None,
            renewal_due: now + wish.ttl / 2,
            looked: now,
            usage: Usage::Idle { since: now },
            replaced: false,
        };
        match created {
            Ok(()) => Ok(self.books.insert(entry)),
            Err(error) => {
                // It may exist all the same: the answer may be what was lost.
                self.spawn_end(&entry, "it could not be minted");
                Err(error)
            }
        }
    }

    /// Afterwards the entry is gone if the login had been tampered with.
    async fn renew(&mut self, id: LeaseId, ttl: Duration) -> Result<(), BrokerError> {
        let Some(entry) = self.books.get(id) else {
            return Ok(());
        };
        let what = self.changes(entry).await?;
        if !what.is_empty() {
            self.tampered(id, what.join("; "));
            return Ok(());
        }
        let until = self.connection()?.time(ttl).await?;
        self.books.renewing(id, until.clone());
        let Some(entry) = self.books.get(id) else {
            return Ok(());
        };
        let renewed = self
            .connection()?
            .renew(entry.lease.login(), &entry.verifier, &until);
        if !renewed.await? {
            self.tampered(id, "it was dropped by someone else".to_owned());
            return Ok(());
        }
        let renewed = Event::LoginRenewed { expires_at: until.at };
        self.world.note(&entry.facts, renewed);
        self.books.renewed(id, ttl, until, Instant::now());
        Ok(())
    }

    /// What is not as gatepost left it.
    async fn changes(&self, entry: &Entry) -> Result<Vec<String>, BrokerError> {
        let untils = [Some(&entry.until), entry.wanted.as_ref()];
        let untils: Vec<_> = untils.into_iter().flatten().collect();
        let changes = self
            .connection()?
            .changes(entry.lease.login(), &entry.mark, &untils);
        let Changes {
            mut what,
            secret_counts,
        } = changes.await?;
        // A password cannot be read; that ours still works is asked of the server.
        if what.is_empty() && secret_counts {
            let database = entry.mark.database.as_ref().or(entry.facts.database.as_ref());
            let database = database.unwrap_or(&self.world.home);
            if self.world.access().refuses_secret(&entry.lease, database).await {
                what.push("its secret was changed".to_owned());
            }
        }
        Ok(what)
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
            self.spawn_end(&entry, why);
        }
    }

    fn spawn_end(&mut self, entry: &Entry, why: &'static str) {
        let login = entry.lease.login().clone();
        let leaving = LoginView {
            state: LoginState::Ending,
            ..operate::view(entry)
        };
        self.leaving.insert(login.clone(), leaving);
        let ended = Ended {
            login: login.clone(),
            role: Some(entry.key.role.clone()),
            facts: Arc::clone(&entry.facts),
            why,
        };
        let world = self.world.clone();
        self.ending.spawn(async move {
            end(world, ended).await;
            login
        });
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
