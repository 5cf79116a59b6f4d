//! `serve`: what was built gets its sockets, its journal and its threads, and ends in order:
//! sessions, then logins, then the journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::app::build::{self, Built};
use crate::app::clock::SystemClock;
use crate::app::run::{self, DRAIN_WITHIN, Doors, Ending, Plan, RunError};
use crate::app::watch::Watched;
use crate::audit::{Event, Facts, Journal, JournalError, Normalised, Record};
use crate::domain::{Clock, Random, TargetName};
use crate::identity::{ProviderSettings, Verifier};
use crate::ingress::{Drain, ThreadIndex, World};
use crate::sql::fingerprint;
use crate::tls::SystemRandom;
use crate::upstream::Budget;

/// Why serving could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot use the audit journal")]
    Journal(#[source] JournalError),
}

/// Everything that the data-path threads share. Cheap to hand out behind an `Arc`.
#[derive(Debug)]
pub struct Shared {
    pub built: Built,
    pub verifier: Verifier,
    pub journal: Journal,
    pub budgets: BTreeMap<TargetName, Arc<Budget>>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub drain: Drain,
}

/// Serves until a signal ends it. Owns the main thread.
///
/// `door` is the seam to the session: from what is shared it makes the factory that builds each
/// data-path thread's world on that thread.
pub fn serve<W, F>(built: Built, door: impl FnOnce(&Arc<Shared>) -> F) -> Result<Ending, StartError>
where
    W: World,
    F: FnOnce(ThreadIndex) -> std::io::Result<W> + Clone + Send + 'static,
{
    let runtime = run::control()?;
    runtime.block_on(serve_inside(built, runtime.handle().clone(), door))
}

async fn serve_inside<W, F>(
    built: Built,
    control: Handle,
    door: impl FnOnce(&Arc<Shared>) -> F,
) -> Result<Ending, StartError>
where
    W: World,
    F: FnOnce(ThreadIndex) -> std::io::Result<W> + Clone + Send + 'static,
{
    let signals = run::signals()?;
    // The journal before the doors: without it nobody may come in, and a second process on the same
    // folder must not take the port from the first.
    let shared = Arc::new(share(built, &control)?);
    let settings = &shared.built.settings;
    let doors = Doors::open(settings.postgres.address, settings.metrics).await?;
    record(&shared.journal, started());
    let rules = shared.built.policy.rule_count();
    record(&shared.journal, Event::PolicyLoaded { rules });
    shared.verifier.prefetch().await;
    announce(&doors);
    let plan = Plan {
        threads: settings.threads,
        drain: shared.drain.clone(),
        drain_within: DRAIN_WITHIN,
        watch: Arc::new(Watched::new(Arc::clone(&shared))),
        signals,
        factory: door(&shared),
    };
    let ending = doors.serve(plan).await;
    // SEAM: shut the brokers down here, after the sessions and before the journal.
    record(&shared.journal, Event::ServerStopped);
    shared.journal.clone().close().await;
    Ok(ending?)
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

fn announce(doors: &Doors) {
    if let Ok(address) = doors.postgres() {
        tracing::info!(%address, "accepting PostgreSQL clients");
    }
    if let Some(Ok(address)) = doors.metrics() {
        tracing::info!(%address, "answering operators");
    }
}

fn share(built: Built, control: &Handle) -> Result<Shared, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let settings = &built.settings;
    let opened = Journal::open(build::journal_settings(settings), Arc::clone(&clock), normalise);
    let journal = opened.map_err(StartError::Journal)?;
    // SEAM: start one broker per target here (`credential::Broker::start`), with `tls.rustls_config()`
    // of `built.client_tls` and a `Retire` that calls `Budget::retire`.
    let budgets = settings.targets.iter().map(|target| {
        let budget = Budget::new(target.name.clone(), target.pool.max_connections);
        (target.name.clone(), budget)
    });
    let budgets = budgets.collect();
    let providers = settings.providers.iter().map(|provider| ProviderSettings {
        name: provider.name.clone(),
        kind: build::provider_kind(provider.kind),
        issuer: provider.issuer.clone(),
        audiences: provider.audiences.clone(),
    });
    let verifier = Verifier::new(providers.collect(), Arc::clone(&built.https), control.clone());
    Ok(Shared {
        built,
        verifier,
        journal,
        budgets,
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
