//! The door to a target's logins: a handle that any thread may hold. The work is done by one task
//! on the control runtime (`actor`), so a login is never minted twice for the same need.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::audit::{Facts, Journal, Receipt};
use crate::credential::actor::{Actor, Command, Wish};
use crate::credential::books::Key;
use crate::credential::connection::Access;
use crate::credential::ending::World;
use crate::credential::error::{BrokerError, LeaseError};
use crate::credential::lease::LeaseHold;
use crate::credential::live::{self, Finding};
use crate::credential::naming::LoginName;
use crate::domain::clock::{Clock, Random};
use crate::domain::ids::{Installation, ReplicaName, RoleName};
use crate::domain::secret::Secret;
use crate::domain::target::{DatabaseName, TargetName};
use crate::policy::Grant;

/// Sessions that may wait for a login at one time: more than a listener admits before login.
const WAITING_MAX: usize = 4096;
/// A little above the time that the task gives itself to end logins.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// One target's broker.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    pub target: TargetName,
    pub address: (String, u16),
    /// The first is where the broker itself connects.
    pub databases: Vec<DatabaseName>,
    pub user: String,
    pub password: Secret<String>,
    /// `None` connects without TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub installation: Installation,
    pub replica: ReplicaName,
}

impl BrokerSettings {
    fn access(&self, control: &Handle) -> Access {
        Access {
            target: self.target.clone(),
            address: self.address.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            tls: self.tls.clone(),
            control: control.clone(),
        }
    }

    fn home(&self) -> DatabaseName {
        let first = self.databases.first().cloned();
        first.unwrap_or_else(|| DatabaseName::new("postgres"))
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
    settings: Arc<BrokerSettings>,
    control: Handle,
}

/// What `/readyz` is told.
#[derive(Debug)]
pub(super) struct State(Mutex<Result<(), String>>);

impl State {
    pub(super) fn set(&self, state: Result<(), String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn get(&self) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let state = Arc::new(State(Mutex::new(Err("not connected yet".to_owned()))));
        let settings = Arc::new(settings);
        let world = World::new(settings.access(control), settings.home(), journal, random, retire);
        let actor = Actor::new(world, Arc::clone(&settings), clock, Arc::clone(&state));
        control.spawn(actor.run(inbox));
        Self {
            commands,
            state,
            settings,
            control: control.clone(),
        }
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
            },
            ttl: grant.login_ttl(),
            max_age: grant.login_max_age(),
            facts: Arc::clone(who),
        };
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Lease(wish, reply)).await;
        sent.map_err(|_| self.stopped())?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// Can logins be minted? If not, why not.
    pub fn ready(&self) -> Result<(), String> {
        self.state.get()
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
            tracing::warn!(target_name = %self.settings.target, "the broker did not stop in time");
        }
    }

    /// What is missing, or too much, at this target for these roles.
    pub async fn check_live(&self, roles: &[RoleName]) -> Result<Vec<Finding>, BrokerError> {
        check_live(&self.settings, roles, &self.control).await
    }

    pub fn tampered(&self, _: &str, _: String) {}

    pub fn update(&self, _: BrokerSettings) {}

    fn stopped(&self) -> BrokerError {
        BrokerError::Stopped {
            target: self.settings.target.clone(),
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
    let mut findings = live::missing(&connection, roles).await?;
    findings.extend(live::surroundings(&connection, roles, &settings.databases).await?);
    Ok(findings)
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("target", &self.settings.target)
            .finish_non_exhaustive()
    }
}
