//! `serve`: what was built gets its sockets, its journal and its threads, and ends in order:
//! sessions, then logins, then the journal.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::app::build::{self, Built};
use crate::app::clock::SystemClock;
use crate::app::config::settings::Target;
use crate::app::run::{self, DRAIN_WITHIN, Doors, Plan, RunError};
use crate::app::watch::Watched;
use crate::audit::{Event, Facts, Journal, JournalError, Normalised, Record};
use crate::credential::{Broker, LoginName, Retire};
use crate::domain::{Clock, Random, TargetName};
use crate::identity::{ProviderSettings, Verifier};
use crate::ingress::{Client, Drain, ThreadIndex, World};
use crate::session::directory::{Destination, Directory};
use crate::session::registry::Registry;
use crate::session::{self, Counters, Gate, ListenerSettings};
use crate::sql::fingerprint;
use crate::tls::SystemRandom;
use crate::upstream::Budget;
use crate::upstream::dial::TargetAddress;
use crate::upstream::pool::{Pool, Settings as PoolSettings};

pub use crate::app::run::Ending;

/// TCP, TLS and login to a database: a server that needs longer is not reachable for a driver that
/// waits for it, most of which give up after 15 s.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The age at which an upstream connection is replaced: long enough that logins do not show in the
/// load, short enough that a server's memory per connection stays small.
const CONNECTION_LIFE: Duration = Duration::from_secs(60 * 60);

/// How long a transaction that is open when its session ends may still commit.
const EXPIRY_GRACE: Duration = Duration::from_secs(30);

/// Why serving could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot use the audit journal")]
    Journal(#[source] JournalError),
}

/// What the process is made of while it serves.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) built: Built,
    pub(super) verifier: Arc<Verifier>,
    pub(super) journal: Journal,
    pub(super) budgets: BTreeMap<TargetName, Arc<Budget>>,
    pub(super) brokers: HashMap<TargetName, Broker>,
    pub(super) registry: Registry,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) drain: Drain,
}

/// Where the doors are, once they are open.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub postgres: SocketAddr,
    pub metrics: Option<SocketAddr>,
}

/// Serves until a signal ends it. Owns the main thread. `opened` is told where the doors are.
pub fn serve(built: Built, opened: impl FnOnce(Addresses)) -> Result<Ending, StartError> {
    forbid_core_dumps();
    let runtime = run::control()?;
    runtime.block_on(serve_inside(built, runtime.handle().clone(), opened))
}

/// A core file would hold tokens and logins.
fn forbid_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none);
    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = limited.and(undumpable) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}

async fn serve_inside(
    built: Built,
    control: Handle,
    opened: impl FnOnce(Addresses),
) -> Result<Ending, StartError> {
    let signals = run::signals()?;
    // The journal before the doors: without it nobody may come in, and a second process on the same
    // folder must not take the port from the first.
    let shared = Arc::new(share(built, &control)?);
    let settings = &shared.built.settings;
    let doors = match Doors::open(settings.postgres.address, settings.metrics).await {
        Ok(doors) => doors,
        Err(error) => {
            shared.journal.clone().close().await;
            return Err(error.into());
        }
    };
    record(&shared.journal, started());
    let rules = shared.built.policy.rule_count();
    record(&shared.journal, Event::PolicyLoaded { rules });
    shared.verifier.prefetch().await;
    if let Some(addresses) = announce(&doors) {
        opened(addresses);
    }
    let plan = Plan {
        threads: settings.threads,
        drain: shared.drain.clone(),
        drain_within: DRAIN_WITHIN,
        watch: Arc::new(Watched::new(Arc::clone(&shared))),
        signals,
        factory: world_factory(&shared),
    };
    let ending = doors.serve(plan).await;
    for broker in shared.brokers.values() {
        broker.shutdown().await;
    }
    record(&shared.journal, Event::ServerStopped);
    shared.journal.clone().close().await;
    Ok(ending?)
}

/// What one data-path thread owns.
struct ThreadWorld {
    gate: Rc<Gate>,
}

impl World for ThreadWorld {
    async fn serve(self: Rc<Self>, client: Client) {
        let Client {
            stream,
            peer,
            mut admission,
            ..
        } = client;
        let gate = Rc::clone(&self.gate);
        gate.serve(stream, peer, || admission.logged_in()).await;
    }
}

/// Builds each thread's world on that thread: its gate, and its share of the pools.
fn world_factory(
    shared: &Arc<Shared>,
) -> impl FnOnce(ThreadIndex) -> io::Result<ThreadWorld> + Clone + Send + 'static {
    let of_sessions = Arc::new(session_shared(shared));
    let listener = ListenerSettings {
        tls: shared.built.server_tls.clone().map(Arc::new),
        allow_plaintext: shared.built.settings.postgres.allow_plaintext,
    };
    let shared = Arc::clone(shared);
    move |_| {
        let targets = shared.built.settings.targets.iter().zip(&shared.built.client_tls);
        let pools = targets.filter_map(|(target, tls)| {
            let address = TargetAddress {
                target: target.name.clone(),
                host: target.host.clone(),
                port: target.port,
                tls: tls.clone(),
            };
            let budget = shared.budgets.get(&target.name)?;
            let random = Arc::clone(&shared.random);
            Some((
                target.name.clone(),
                Pool::new(Arc::new(address), pool_settings(target), budget, random),
            ))
        });
        let gate = Gate::new(of_sessions, pools.collect(), listener);
        Ok(ThreadWorld { gate: Rc::new(gate) })
    }
}

fn pool_settings(target: &Target) -> PoolSettings {
    PoolSettings {
        max_connections: target.pool.max_connections,
        queue_timeout: target.pool.queue_timeout,
        idle_timeout: target.pool.idle_timeout,
        connect_timeout: CONNECT_WITHIN,
        max_lifetime: CONNECTION_LIFE,
    }
}

fn session_shared(shared: &Arc<Shared>) -> session::Shared {
    let (policy_sender, policy) = watch::channel(Arc::clone(&shared.built.policy));
    let (stop, stopping) = watch::channel(false);
    let mut drain = shared.drain.signal();
    tokio::spawn(async move {
        drain.begun().await;
        stop.send_replace(true);
        // Nobody replaces the policy of a process that ends.
        drop(policy_sender);
    });
    session::Shared {
        verifier: Arc::clone(&shared.verifier),
        policy,
        directory: Arc::new(directory(&shared.built.settings.targets)),
        brokers: shared.brokers.clone(),
        journal: shared.journal.clone(),
        registry: shared.registry.clone(),
        clock: Arc::clone(&shared.clock),
        random: Arc::clone(&shared.random),
        stopping,
        counters: Arc::clone(&shared.counters),
        grace: EXPIRY_GRACE,
    }
}

/// Two databases of one name were refused with the configuration.
fn directory(targets: &[Target]) -> Directory {
    let mut directory = Directory::default();
    for target in targets {
        for database in &target.databases {
            let destination = Destination {
                target: target.name.clone(),
                database: database.name.clone(),
            };
            directory.offer(destination, Some(&database.asked_as));
        }
    }
    directory
}

/// Closes a login's idle connections on all threads.
struct RetireFrom(Arc<Budget>);

impl Retire for RetireFrom {
    fn retire(&self, login: &LoginName) {
        self.0.retire(login.as_str());
    }
}

fn started() -> Event {
    let version = env!("CARGO_PKG_VERSION");
    Event::ServerStarted { version }
}

/// The process's own events. A journal that cannot take them says so in its health.
fn record(journal: &Journal, event: Event) {
    if let Err(error) = journal.submit(Record::new(Arc::new(Facts::default()), event)) {
        tracing::error!(%error, "cannot record an event of the process");
    }
}

fn announce(doors: &Doors) -> Option<Addresses> {
    let postgres = doors.postgres().ok()?;
    tracing::info!(address = %postgres, "accepting PostgreSQL clients");
    let metrics = doors.metrics().and_then(Result::ok);
    if let Some(address) = metrics {
        tracing::info!(%address, "answering operators");
    }
    Some(Addresses { postgres, metrics })
}

fn share(built: Built, control: &Handle) -> Result<Shared, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let settings = &built.settings;
    let opened = Journal::open(build::journal_settings(settings), Arc::clone(&clock), normalise);
    let journal = opened.map_err(StartError::Journal)?;
    let budgets = settings.targets.iter().map(|target| {
        let budget = Budget::new(target.name.clone(), target.pool.max_connections);
        (target.name.clone(), budget)
    });
    let budgets: BTreeMap<_, _> = budgets.collect();
    let brokers = settings
        .targets
        .iter()
        .zip(&built.client_tls)
        .filter_map(|(target, tls)| {
            let retire = Arc::new(RetireFrom(Arc::clone(budgets.get(&target.name)?)));
            let broker = Broker::start(
                build::broker_settings(settings, target, tls),
                journal.clone(),
                Arc::clone(&clock),
                Arc::clone(&random),
                retire,
                control,
            );
            Some((target.name.clone(), broker))
        });
    let brokers = brokers.collect();
    let providers = settings.providers.iter().map(|provider| ProviderSettings {
        name: provider.name.clone(),
        kind: build::provider_kind(provider.kind),
        issuer: provider.issuer.clone(),
        audiences: provider.audiences.clone(),
    });
    let verifier = Verifier::new(providers.collect(), Arc::clone(&built.https), control.clone());
    Ok(Shared {
        built,
        verifier: Arc::new(verifier),
        journal,
        budgets,
        brokers,
        registry: Registry::default(),
        counters: Arc::default(),
        clock,
        random,
        drain: Drain::new(),
    })
}

/// What the journal keeps of a statement: no literal, no parameter.
fn normalise(text: &str) -> Normalised {
    let normal = fingerprint::normalise(text);
    Normalised {
        fingerprint: normal.fingerprint,
        text: normal.text,
    }
}
