//! `serve`: what was built gets its sockets, its journal and its threads, and ends in order:
//! sessions, then logins, then the journal.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::admin::Proxy;
use crate::app::build::{self, Built};
use crate::app::clock::SystemClock;
use crate::app::config::settings::{Settings, Target};
use crate::app::operate::Operations;
use crate::app::reload::{Reloader, loaded};
use crate::app::run::{self, DRAIN_WITHIN, Doors, Plan, RunError, SQLSERVER, Wanted};
use crate::app::tickets::TicketOffice;
use crate::app::unresolved;
use crate::app::watch::Watched;
use crate::app::watching::keep_current;
use crate::audit::{Event, Facts, Journal, JournalError, Normalised, Record};
use crate::credential::{Broker, LoginName, Retire};
use crate::domain::{Clock, Random, TargetName};
use crate::identity::Verifier;
use crate::ingress::{Client, Drain, ThreadIndex, World};
use crate::session::directory::{Destination, Directory};
use crate::session::registry::Registry;
use crate::session::snapshot::Snapshots;
use crate::session::{self, Counters, Door, Gate, OutcomeDesk, WrongKeys};
use crate::sink::{self, Sink};
use crate::sql::fingerprint;
use crate::tls::{ClientTls, SystemRandom};
use crate::upstream::dial::TargetAddress;
use crate::upstream::pool::{Pool, Settings as PoolSettings};
use crate::upstream::{Budget, Route};

pub use crate::app::run::Ending;

/// TCP, TLS and login to a database: a server that needs longer is not reachable for a driver that
/// waits for it, most of which give up after 15 s.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The age at which an upstream connection is replaced: long enough that logins do not show in the
/// load, short enough that a server's memory per connection stays small.
const CONNECTION_LIFE: Duration = Duration::from_secs(60 * 60);

/// Why serving could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot use the audit journal")]
    Journal(#[source] JournalError),
    #[error("cannot send audit records on to \"{name}\"")]
    Sink {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the list of revocations beside the journal; without it nobody may be let in")]
    Revocations(#[source] io::Error),
}

/// What the process is made of while it serves; what a reload swaps is in the `Reloader`.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) verifier: Arc<Verifier>,
    pub(super) journal: Journal,
    pub(super) budgets: BTreeMap<TargetName, Arc<Budget>>,
    pub(super) routes: BTreeMap<TargetName, Route>,
    pub(super) brokers: HashMap<TargetName, Broker>,
    pub(super) directory: Arc<Directory>,
    pub(super) office: TicketOffice,
    pub(super) registry: Registry,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) drain: Drain,
    pub(super) sinks: Vec<Sink>,
}

/// Where the doors are, once they are open.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub postgres: Option<SocketAddr>,
    pub sqlserver: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub api: Option<SocketAddr>,
}

/// Serves until a signal ends it. Owns the main thread. `config` is read again at a reload; `opened` is
/// told where the doors are.
pub fn serve(config: &Path, built: Built, opened: impl FnOnce(Addresses)) -> Result<Ending, StartError> {
    forbid_core_dumps();
    let runtime = run::control()?;
    let control = runtime.handle().clone();
    runtime.block_on(serve_inside(config.to_owned(), built, control, opened))
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
    config: PathBuf,
    built: Built,
    control: Handle,
    opened: impl FnOnce(Addresses),
) -> Result<Ending, StartError> {
    let (signals, hangups) = (run::signals()?, run::hangups()?);
    // The journal before the doors: without it nobody may come in, and a second process on the same
    // folder must not take the port from the first.
    let shared = Arc::new(share(&built, &control)?);
    let settings = &built.settings;
    let wanted = Wanted {
        postgres: settings.postgres.as_ref().map(|door| door.address),
        sqlserver: settings.sqlserver.as_ref().map(|it| it.door.address),
        metrics: settings.metrics,
        api: settings.api,
        admin_socket: settings.admin_socket.as_deref(),
    };
    let mut doors = match Doors::open(wanted).await {
        Ok(doors) => doors,
        Err(error) => {
            shared.journal.clone().close().await;
            return Err(error.into());
        }
    };
    record(&shared.journal, Facts::default(), started());
    unresolved::take_up(&shared, settings.audit.directory.clone());
    let (facts, event) = loaded(&built.policy);
    record(&shared.journal, facts, event);
    let threads = settings.threads;
    let reloader = Reloader::new(config, built, Arc::clone(&shared));
    let (reloader, snapshots) = reloader.map_err(StartError::Revocations)?;
    let reloader = Arc::new(reloader);
    shared.verifier.prefetch().await;
    if let Some(addresses) = announce(&doors) {
        opened(addresses);
    }
    let operations = Operations::new(Arc::clone(&shared), Arc::clone(&reloader));
    let operations: Arc<dyn Proxy> = Arc::new(operations);
    doors.admit_operators(&operations);
    let keeping = tokio::spawn(keep_current(Arc::clone(&reloader), hangups));
    let plan = Plan {
        threads,
        drain: shared.drain.clone(),
        drain_within: DRAIN_WITHIN,
        watch: Arc::new(Watched::new(Arc::clone(&shared), Arc::clone(&reloader))),
        signals,
        factory: world_factory(&shared, &reloader.built(), snapshots),
    };
    let ending = doors.serve(plan).await;
    keeping.abort();
    for broker in shared.brokers.values() {
        broker.shutdown().await;
    }
    record(&shared.journal, Facts::default(), Event::ServerStopped);
    shared.journal.clone().close().await;
    // Behind the last record of all.
    for sink in &shared.sinks {
        sink.close().await;
    }
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
            listener,
            mut admission,
        } = client;
        let gate = Rc::clone(&self.gate);
        let door = match listener {
            SQLSERVER => Door::SqlServer,
            _ => Door::Postgres,
        };
        gate.serve(door, stream, peer, || admission.logged_in()).await;
    }
}

/// Builds each thread's world on that thread: its gate, and its share of the pools.
fn world_factory(
    shared: &Arc<Shared>,
    built: &Built,
    snapshots: Snapshots,
) -> impl FnOnce(ThreadIndex) -> io::Result<ThreadWorld> + Clone + Send + 'static {
    let targets = &built.settings.targets;
    let of_sessions = Arc::new(session_shared(shared, built, snapshots));
    let settings: Vec<_> = targets
        .iter()
        .map(|target| (target.name.clone(), pool_settings(target)))
        .collect();
    let shared = Arc::clone(shared);
    move |_| {
        let pools = settings.into_iter().filter_map(|(target, settings)| {
            let route = shared.routes.get(&target)?.clone();
            let budget = shared.budgets.get(&target)?;
            let random = Arc::clone(&shared.random);
            Some((target, Pool::new(route, settings, budget, random)))
        });
        let gate = Gate::new(of_sessions, pools.collect());
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

fn session_shared(shared: &Arc<Shared>, built: &Built, snapshots: Snapshots) -> session::Shared {
    let (stop, stopping) = watch::channel(false);
    let (mut drain, registry) = (shared.drain.signal(), shared.registry.clone());
    tokio::spawn(async move {
        drain.begun().await;
        stop.send_replace(true);
        registry.ring_all();
    });
    session::Shared {
        snapshots,
        directory: Arc::clone(&shared.directory),
        tickets: Arc::clone(&shared.office.tickets),
        brokers: shared.brokers.clone(),
        journal: shared.journal.clone(),
        registry: shared.registry.clone(),
        wrong_keys: WrongKeys::default(),
        clock: Arc::clone(&shared.clock),
        random: Arc::clone(&shared.random),
        stopping,
        counters: Arc::clone(&shared.counters),
        markers: built
            .settings
            .targets
            .iter()
            .filter_map(|target| Some((target.name.clone(), build::marking(&built.settings, target)?)))
            .collect(),
        autocommit: built.settings.audit.autocommit,
        outcomes: OutcomeDesk::new(built.settings.audit.directory.clone()),
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
            directory.offer(target.engine, destination, Some(&database.asked_as));
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
fn record(journal: &Journal, facts: Facts, event: Event) {
    if let Err(error) = journal.submit(Record::new(Arc::new(facts), event)) {
        tracing::error!(%error, "cannot record an event of the process");
    }
}

fn announce(doors: &Doors) -> Option<Addresses> {
    let postgres = doors.postgres().transpose().ok()?;
    if let Some(address) = postgres {
        tracing::info!(%address, "accepting PostgreSQL clients");
    }
    let sqlserver = doors.sqlserver().transpose().ok()?;
    if let Some(address) = sqlserver {
        tracing::info!(%address, "accepting SQL Server clients");
    }
    let metrics = doors.metrics().and_then(Result::ok);
    if let Some(address) = metrics {
        tracing::info!(%address, "answering operators");
    }
    let api = doors.api().and_then(Result::ok);
    if let Some(address) = api {
        tracing::info!(%address, "answering operators with a token");
    }
    if let Some(path) = doors.admin_socket() {
        tracing::info!(path = %path.display(), "answering the local operator");
    }
    Some(Addresses {
        postgres,
        sqlserver,
        metrics,
        api,
    })
}

/// They begin to read at once; the journal is open by then.
fn sinks(settings: &Settings) -> Result<Vec<Sink>, StartError> {
    let start = |settings: &sink::Settings| {
        let name = settings.name.clone();
        Sink::start(settings.clone()).map_err(|source| StartError::Sink { name, source })
    };
    settings.audit.sinks.iter().map(start).collect()
}

fn share(built: &Built, control: &Handle) -> Result<Shared, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let settings = &built.settings;
    let opened = Journal::open(build::journal_settings(settings), Arc::clone(&clock), normalise);
    let journal = opened.map_err(StartError::Journal)?;
    let (mut budgets, mut routes, mut brokers) = (BTreeMap::new(), BTreeMap::new(), HashMap::new());
    for identity in &built.own_identities {
        identity.tend_from_now_on(control);
    }
    let targets = settings.targets.iter().zip(&built.client_tls);
    for ((target, tls), password) in targets.zip(&built.passwords) {
        let budget = Budget::new(target.name.clone(), target.pool.max_connections);
        let broker = Broker::start(
            build::broker_settings(settings, target, tls, password),
            journal.clone(),
            Arc::clone(&clock),
            Arc::clone(&random),
            Arc::new(RetireFrom(Arc::clone(&budget))),
            control,
        );
        budgets.insert(target.name.clone(), budget);
        routes.insert(
            target.name.clone(),
            Route::new(target_address(target, tls), broker.incarnations().clone()),
        );
        brokers.insert(target.name.clone(), broker);
    }
    let counters = Counters::new(settings.targets.iter().map(|target| target.name.clone()));
    let verifier = Verifier::new(
        built.providers.clone(),
        Arc::clone(&clock),
        random.as_ref(),
        control.clone(),
    );
    Ok(Shared {
        verifier: Arc::new(verifier),
        journal,
        budgets,
        routes,
        brokers,
        directory: Arc::new(directory(&settings.targets)),
        office: TicketOffice::new(Arc::clone(&clock), Arc::clone(&random)),
        registry: Registry::default(),
        counters: Arc::new(counters),
        clock,
        random,
        drain: Drain::new(),
        sinks: sinks(settings)?,
    })
}

pub(super) fn target_address(target: &Target, tls: &ClientTls) -> TargetAddress {
    TargetAddress {
        target: target.name.clone(),
        engine: target.engine,
        host: target.host.clone(),
        port: target.port,
        tls: tls.clone(),
    }
}

/// What the journal keeps of a statement: no literal, no parameter.
fn normalise(text: &str) -> Normalised {
    let normal = fingerprint::normalise(text);
    Normalised {
        fingerprint: normal.fingerprint,
        text: normal.text,
    }
}
