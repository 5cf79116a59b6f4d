//! The door to a target's logins: a handle that any thread may hold. The work is done by one task
//! on the control runtime (`actor`), so a login is never minted twice for the same need.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::audit::{Doubt, Facts, Journal, MarkerKey, Receipt};
use crate::credential::actor::{Actor, Command, Rotated, Wish};
use crate::credential::books::Key;
use crate::credential::catalogue::{CatalogueWatch, Catalogues};
use crate::credential::ending::World;
use crate::credential::error::{BrokerError, LeaseError};
use crate::credential::lease::LeaseHold;
use crate::credential::live::Finding;
use crate::credential::naming::LoginName;
use crate::credential::reconcile::{Doubts, Reach, Reconciler};
use crate::credential::server::Access;
use crate::credential::sqlserver::settings::SqlServerSettings;
use crate::credential::unminted::Unminted;
use crate::credential::view::LoginView;
use crate::domain::clock::{Clock, Random};
use crate::domain::ids::{Installation, ReplicaName, RoleName};
use crate::domain::incarnation::Incarnations;
use crate::domain::measure::{Histogram, Reading};
use crate::domain::password::Password;
use crate::domain::target::{DatabaseName, Engine, TargetName};
use crate::policy::Grant;
use crate::tls::ProvenServer;

/// Sessions that may wait for a login at one time: more than a listener admits before login.
const WAITING_MAX: usize = 4096;
/// A little above the time that the task gives itself to end logins.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// What a target's engine is, and what only that engine needs.
#[derive(Clone, Debug)]
pub enum EngineSettings {
    Postgres,
    SqlServer(SqlServerSettings),
}

impl EngineSettings {
    pub const fn engine(&self) -> Engine {
        match self {
            Self::Postgres => Engine::Postgres,
            Self::SqlServer(_) => Engine::SqlServer,
        }
    }
}

/// What clients' connections log in as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logins {
    /// A login of their identity's own, minted by the broker.
    Minted,
    /// The broker's own user, gatepost's managed identity. The server sees one user, whoever the client is.
    BrokersOwn,
}

/// One target's broker.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    pub engine: EngineSettings,
    pub target: TargetName,
    pub address: (String, u16),
    /// The first is where the broker itself connects.
    pub databases: Vec<DatabaseName>,
    pub user: String,
    pub password: Password,
    /// For PostgreSQL; `None` connects without TLS. SQL Server has its own among its settings.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Of `tls`. Without it no token is shown.
    pub proven_server: Option<ProvenServer>,
    pub logins: Logins,
    /// What transactions are marked with, if they are.
    pub marker: Option<MarkerKey>,
    pub installation: Installation,
    pub replica: ReplicaName,
}

impl BrokerSettings {
    pub(super) fn access(&self, control: &Handle) -> Access {
        Access::new(self, control)
    }

    pub(super) fn home(&self) -> DatabaseName {
        let first = self.databases.first().cloned();
        first.unwrap_or_else(|| {
            DatabaseName::new(match self.engine {
                EngineSettings::Postgres => "postgres",
                EngineSettings::SqlServer(_) => "master",
            })
        })
    }
}

/// Called on the control runtime when a login has been disabled and its sessions are about to be
/// ended: close its idle upstream connections now. Must not block.
pub trait Retire: Send + Sync {
    fn retire(&self, login: &LoginName);
}

/// A handle to a target's broker. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    commands: mpsc::Sender<Command>,
    state: Arc<State>,
    settings: Arc<watch::Sender<Arc<BrokerSettings>>>,
    engine: Engine,
    incarnations: Incarnations,
    doubts: Arc<Doubts>,
    control: Handle,
    catalogues: Arc<Catalogues>,
}

/// What `/readyz` is told, why a new credential is not in use yet, and how long minting took.
#[derive(Debug)]
pub(super) struct State(Mutex<(Result<(), String>, Option<String>)>, Histogram);

impl State {
    fn locked(&self) -> MutexGuard<'_, (Result<(), String>, Option<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, state: Result<(), String>) {
        self.locked().0 = state;
    }

    pub(super) fn get(&self) -> Result<(), String> {
        self.locked().0.clone()
    }

    pub(super) fn set_pending(&self, why: Option<String>) {
        self.locked().1 = why;
    }

    pub(super) fn pending(&self) -> Option<String> {
        self.locked().1.clone()
    }

    pub(super) fn minted(&self, took: Duration) {
        self.1.observe(took);
    }
}

impl Broker {
    /// Never fails: the task connects by itself, and again after every loss.
    pub fn start(
        settings: BrokerSettings,
        journal: Journal,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        retire: Arc<dyn Retire>,
        control: &Handle,
    ) -> Self {
        let (commands, inbox) = mpsc::channel(WAITING_MAX);
        let state = Mutex::new((Err("not connected yet".to_owned()), None));
        let state = Arc::new(State(state, Histogram::default()));
        let (access, accesses) = watch::channel(Arc::new(settings.access(control)));
        let (incarnations, doubts) = (Incarnations::default(), Arc::<Doubts>::default());
        let (target, marker) = (settings.target.clone(), settings.marker.clone());
        let engine = settings.engine.engine();
        let (home, logins) = (settings.home(), settings.logins);
        let (settings, updates) = watch::channel(Arc::new(settings));
        let reach: Reach = match logins {
            Logins::Minted => {
                let accesses = accesses.clone();
                Box::new(move || Arc::clone(&accesses.borrow()))
            }
            Logins::BrokersOwn => {
                let (updates, control) = (updates.clone(), control.clone());
                Box::new(move || Arc::new(updates.borrow().access(&control)))
            }
        };
        let reconciler = Reconciler {
            target,
            home: home.clone(),
            reach,
            doubts: Arc::clone(&doubts),
            marker,
            journal: journal.clone(),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
        };
        control.spawn(reconciler.run());
        let catalogues = Arc::new(Catalogues::new(updates.clone(), control));
        match logins {
            Logins::Minted => {
                let server = (retire, incarnations.clone());
                let world = World::new(accesses, home, journal, random, server);
                let actor = Actor::new(world, access, updates, clock, Arc::clone(&state));
                control.spawn(actor.run(inbox));
            }
            Logins::BrokersOwn => {
                let (state, incarnations) = (Arc::clone(&state), incarnations.clone());
                let unminted = Unminted::new(updates, state, random, incarnations, control.clone());
                control.spawn(unminted.run(inbox));
            }
        }
        Self {
            commands,
            state,
            settings: Arc::new(settings),
            engine,
            incarnations,
            doubts,
            control: control.clone(),
            catalogues,
        }
    }

    /// The life that the server is known to be in, for those who open connections to it.
    pub const fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    /// Finds out what became of these transactions, and puts it on record. Does not wait for it.
    pub fn reconcile(&self, doubts: impl IntoIterator<Item = Doubt>) {
        self.doubts.add(doubts);
    }

    /// Transactions whose end is still to be found out.
    pub fn unresolved(&self) -> usize {
        self.doubts.unresolved()
    }

    /// What statements in this database are proven harmless by; none on SQL Server, where the text says enough.
    pub fn catalogue(&self, database: &DatabaseName) -> Option<CatalogueWatch> {
        (self.engine == Engine::Postgres).then(|| self.catalogues.of(database))
    }

    /// A login for what the policy granted. The receipt is proof that the session is on record; the
    /// mint is recorded before it happens.
    pub async fn lease(
        &self,
        grant: &Grant,
        who: &Arc<Facts>,
        _receipt: &Receipt,
    ) -> Result<LeaseHold, LeaseError> {
        let wish = Wish {
            key: Key {
                identity: grant.identity().clone(),
                role: grant.role().clone(),
                database: (self.engine == Engine::SqlServer).then(|| grant.database().clone()),
            },
            ttl: grant.login_ttl(),
            max_age: grant.login_max_age(),
            facts: Arc::clone(who),
        };
        self.ask(|reply| Command::Lease(wish, reply)).await?
    }

    /// Can logins be minted? If not, why not.
    pub fn ready(&self) -> Result<(), String> {
        self.state.get()
    }

    /// How long it took to mint logins.
    pub fn mint_times(&self) -> Reading {
        self.state.1.read()
    }

    /// All logins of this replica, by name.
    pub async fn logins(&self) -> Result<Vec<LoginView>, BrokerError> {
        self.ask(Command::Logins).await
    }

    /// Replaces every login that a session uses by its next generation, minted before this returns:
    /// new sessions get it, and the old one ends with its last session. Logins that no session uses
    /// end at once. Calls at one time share one rotation. An error says how far it came; what was
    /// replaced stays replaced, and the rest goes on as it was.
    pub async fn rotate(&self) -> Result<Rotated, BrokerError> {
        self.ask(Command::Rotate).await?
    }

    /// Ends the logins that `of` chooses, whoever holds them: they are disabled and their sessions
    /// told to end when this returns, unless the server cannot be reached; then the endings are tried
    /// until they succeed. `of` sees the facts of the session that a login was minted for, and the
    /// login's name. Returns how many were chosen. `why` ends in the journal.
    pub async fn end_logins(
        &self,
        of: Arc<dyn Fn(&Facts) -> bool + Send + Sync>,
        why: &'static str,
    ) -> usize {
        let ended = self.ask(|reply| Command::End { of, why, reply }).await;
        // A broker that has stopped has ended all of them.
        ended.unwrap_or(0)
    }

    /// A session saw that its login was changed: this is recorded, and the login ended. `what` ends in
    /// the journal and must hold no secret.
    pub fn tampered(&self, login: &str, what: String) {
        let login = login.to_owned();
        self.tell(Command::Tampered { login, what });
    }

    /// A connection of this login failed in a way that its identity could have brought about: the
    /// login is looked at now instead of at its next renewal.
    pub fn suspect(&self, login: &str) {
        let login = login.to_owned();
        self.tell(Command::Suspect { login });
    }

    /// How the server is reached from now on: user, password, TLS and where tokens come
    /// from; the other settings stay as they were at the start. The old credential stays in use until a connection with the new one succeeded;
    /// until then that is tried again and again, at once if there is no connection at all.
    pub fn update(&self, settings: BrokerSettings) {
        self.settings.send_modify(|current| {
            *current = Arc::new(BrokerSettings {
                user: settings.user,
                password: settings.password,
                tls: settings.tls,
                proven_server: settings.proven_server,
                // A target's engine stays what it is.
                engine: match (&current.engine, settings.engine) {
                    (EngineSettings::SqlServer(_), new @ EngineSettings::SqlServer(_)) => new,
                    (engine, _) => engine.clone(),
                },
                ..BrokerSettings::clone(current)
            });
        });
    }

    /// Why the credential of the last `update` is not in use yet. `None`: it is.
    pub fn update_pending(&self) -> Option<String> {
        self.state.pending()
    }

    /// Ends all logins of this replica, and the broker. Bounded: what cannot be ended in time stays
    /// disabled or expires, and the next start sweeps it.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        let stop = async {
            if self.commands.send(Command::Shutdown(reply)).await.is_ok() {
                let _ = done.await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_LIMIT, stop).await.is_err() {
            tracing::warn!(target_name = %self.settings.borrow().target, "the broker did not stop in time");
        }
    }

    /// What is missing, or too much, at this target for these roles.
    pub async fn check_live(&self, roles: &[RoleName]) -> Result<Vec<Finding>, BrokerError> {
        let settings = Arc::clone(&self.settings.borrow());
        check_live(&settings, roles, &self.control).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || BrokerError::Stopped {
            target: self.settings.borrow().target.clone(),
        };
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    /// Without waiting. Never lost, also when many sessions wait for logins.
    fn tell(&self, command: Command) {
        if let Err(TrySendError::Full(command)) = self.commands.try_send(command) {
            let commands = self.commands.clone();
            self.control.spawn(async move {
                // Fails only when the broker has stopped, and then the login is gone too.
                let _ = commands.send(command).await;
            });
        }
    }
}

/// The same without a running broker, for `gatepost check --live`.
pub async fn check_live(
    settings: &BrokerSettings,
    roles: &[RoleName],
    control: &Handle,
) -> Result<Vec<Finding>, BrokerError> {
    let connection = settings.access(control).connect(&settings.home()).await?;
    if settings.logins == Logins::BrokersOwn {
        return connection.missing_as_principal(roles).await;
    }
    let mut findings = connection.missing(roles).await?;
    findings.extend(connection.surroundings(roles, &settings.databases).await?);
    if settings.marker.is_some() {
        findings.extend(connection.markers_unseen().await?);
    }
    Ok(findings)
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("target", &self.settings.borrow().target)
            .finish_non_exhaustive()
    }
}
