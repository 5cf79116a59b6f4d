//! The story of one client connection, from its first byte to its last.
//!
//! `Gate::open` is the file's heart: every step consumes the proof that the step before it made, so
//! none can be left out. A token becomes an `Identity`, an identity a `Grant`, a record on disk a
//! `Receipt`, grant and receipt a leased login, the login an upstream connection; only then is the
//! client welcomed, and everything it does from there is judged by the `conversation`.

mod conversation;
pub mod directory;
mod front;
mod lane;
mod ledger;
mod postgres;
mod prelude;
pub mod registry;
mod relay;
mod startup;
mod statements;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::audit::journal::{Journal, Receipt};
use crate::audit::record::{ClientFacts, Event, Facts, PolicyFacts, Record};
use crate::credential::{Broker, LeaseHold};
use crate::domain::access::AccessRequest;
use crate::domain::clock::{Clock, Random};
use crate::domain::correlation::Correlation;
use crate::domain::identity::Identity;
use crate::domain::ids::SessionId;
use crate::domain::refusal::{Reason, Refusal, RefusalCode, Refuse};
use crate::domain::target::{Engine, TargetName};
use crate::identity::Verifier;
use crate::policy::{Decision, Grant, Policy};
use crate::upstream::checkout::Checkout;
use crate::upstream::pool::{Pool, PoolKey};
use crate::upstream::reset;

use conversation::Conversation;
use directory::{Destination, Directory};
use front::{Front, Opening, Presented, WelcomePermit};
use ledger::Ledger;
pub use postgres::ListenerSettings;
use postgres::{PostgresFront, farewell};
use registry::{CancelDesk, Registry, Seat};
use relay::{Ending, Relay, Surroundings};

/// What all sessions of all threads share.
#[derive(Debug)]
pub struct Shared {
    pub verifier: Arc<Verifier>,
    /// Replaced whole; a session takes the current one once.
    pub policy: watch::Receiver<Arc<Policy>>,
    pub directory: Arc<Directory>,
    pub brokers: HashMap<TargetName, Broker>,
    pub journal: Journal,
    pub registry: Registry,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// Turns true when gatepost shuts down.
    pub stopping: watch::Receiver<bool>,
    pub counters: Arc<Counters>,
    /// How long a transaction that is open when its session ends may still commit.
    pub grace: Duration,
}

/// Counted over all threads, once a session or a transaction.
#[derive(Debug, Default)]
pub struct Counters {
    pub opened: AtomicU64,
    pub transactions: AtomicU64,
    refusals: [AtomicU64; RefusalCode::ALL.len()],
}

impl Counters {
    fn refused(&self, code: RefusalCode) {
        let at = RefusalCode::ALL.iter().position(|known| *known == code);
        if let Some(counter) = at.and_then(|at| self.refusals.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refusals so far, by code.
    pub fn refusals(&self) -> impl Iterator<Item = (RefusalCode, u64)> {
        let counts = self
            .refusals
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed));
        RefusalCode::ALL.into_iter().zip(counts)
    }
}

/// Where clients of one data-path thread come in.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    pools: HashMap<TargetName, Rc<Pool>>,
    listener: ListenerSettings,
}

/// A session that policy, journal, broker and pool have said yes to.
struct Opened {
    facts: Arc<Facts>,
    correlation: Option<Correlation>,
    ends: (Instant, RefusalCode, Reason),
    checkout: Checkout,
    desk: CancelDesk,
    permit: WelcomePermit,
    /// Kept for as long as the session lives: the login, and the place under the rule's limit.
    _lease: LeaseHold,
    _seat: Seat,
}

/// A refusal on its way out, with what was known of the session by then.
struct Refused {
    facts: Arc<Facts>,
    code: RefusalCode,
    reason: Reason,
}

impl Gate {
    /// `pools` are this thread's, one for each target.
    pub fn new(
        shared: Arc<Shared>,
        pools: HashMap<TargetName, Rc<Pool>>,
        listener: ListenerSettings,
    ) -> Self {
        Self {
            shared,
            pools,
            listener,
        }
    }

    /// One client connection. `logged_in` is called when it counts as a session.
    pub async fn serve(self: Rc<Self>, socket: TcpStream, peer: SocketAddr, logged_in: impl FnOnce()) {
        let session = SessionId::random(self.shared.random.as_ref());
        let mut front = PostgresFront::new(socket, self.listener.clone());
        let presented = match front.open().await {
            Opening::Presented(presented) => presented,
            Opening::Cancel { process, key } => {
                self.shared.registry.cancel(process, &key);
                return front.close().await;
            }
            Opening::Gone => return,
            Opening::Refused(code, reason) => {
                let facts = Arc::new(stranger(session, peer, None));
                return self.refuse(front, Refused { facts, code, reason }, session).await;
            }
        };
        let opened = match self.open(session, peer, presented).await {
            Ok(opened) => opened,
            Err(refused) => return self.refuse(front, refused, session).await,
        };
        logged_in();
        self.shared.counters.opened.fetch_add(1, Ordering::Relaxed);
        self.converse(front, opened, session).await;
    }

    /// The security flow, written once: verify, decide, record, lease, check out.
    async fn open(
        &self,
        session: SessionId,
        peer: SocketAddr,
        presented: Presented,
    ) -> Result<Opened, Refused> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let mut facts = stranger(session, peer, presented.application.clone());

        let verified = shared.verifier.verify(&presented.token, now).await;
        let identity = verified.map_err(|error| refused(&facts, logged(session, &error)))?;
        facts.identity = Some((&identity).into());

        let no_grant = || {
            (
                RefusalCode::NotPermitted,
                Reason::NoGrant {
                    own_roles: Vec::new(),
                },
            )
        };
        let destination = shared.directory.find(&presented.database);
        let Destination { target, database } =
            destination.ok_or_else(|| refused(&facts, no_grant()))?.clone();
        facts.target = Some(target.clone());
        facts.database = Some(database.clone());
        facts.engine = Some(Engine::Postgres);

        let grant = self.decide(&mut facts, &identity, &presented.wanted, peer, now)?;
        let limit = grant.limits().sessions;
        let seat = shared.registry.take_seat(grant.rule(), grant.identity(), limit);
        let seat = seat.map_err(|limit| {
            refused(
                &facts,
                (RefusalCode::TooManySessions, Reason::SessionLimit { limit }),
            )
        })?;

        let recorded = Record::new(Arc::new(facts.clone()), Event::SessionOpened);
        let receipt = shared.journal.append(recorded).await.map_err(|error| {
            tracing::error!(%session, error = %error, "a session could not be recorded");
            refused(&facts, (RefusalCode::AuditUnavailable, Reason::JournalFailed))
        })?;

        let lease = self.lease(session, &grant, &mut facts, receipt).await?;
        let (checkout, desk) = self.connect(session, &facts, &lease, &presented).await?;
        Ok(Opened {
            facts: Arc::new(facts),
            correlation: presented.correlation,
            ends: ends(&grant, &identity, now),
            checkout,
            desk,
            permit: WelcomePermit(()),
            _lease: lease,
            _seat: seat,
        })
    }

    /// Grant and receipt become a login.
    async fn lease(
        &self,
        session: SessionId,
        grant: &Grant,
        facts: &mut Facts,
        receipt: Receipt,
    ) -> Result<LeaseHold, Refused> {
        let Some(broker) = self.shared.brokers.get(grant.target()) else {
            return Err(refused(facts, (RefusalCode::Internal, Reason::Internal)));
        };
        let lease = broker.lease(grant, &Arc::new(facts.clone()), receipt).await;
        let lease = lease.map_err(|error| refused(facts, logged(session, &error)))?;
        facts.login = Some(Arc::from(lease.lease().login().as_str()));
        Ok(lease)
    }

    /// The login becomes an upstream connection with this session's settings, and a cancel key.
    async fn connect(
        &self,
        session: SessionId,
        facts: &Facts,
        lease: &LeaseHold,
        presented: &Presented,
    ) -> Result<(Checkout, CancelDesk), Refused> {
        let internal = || refused(facts, (RefusalCode::Internal, Reason::Internal));
        let (Some(target), Some(database)) = (&facts.target, &facts.database) else {
            return Err(internal());
        };
        let pool = self.pools.get(target).ok_or_else(internal)?;
        let key = PoolKey {
            target: target.clone(),
            database: database.clone(),
            login: Arc::from(lease.lease().login().as_str()),
            settings: presented.settings.clone(),
        };
        let checkout = pool.checkout(key, lease.lease().password()).await;
        let mut checkout = checkout.map_err(|error| refused(facts, logged(session, &error)))?;
        let (application, correlation) = (presented.application.as_deref(), presented.correlation.as_ref());
        prelude::play(&mut checkout, application, correlation)
            .await
            .map_err(|error| {
                tracing::warn!(%session, error = %error, "the session's settings could not be made");
                refused(facts, (RefusalCode::TargetUnavailable, Reason::TargetDown))
            })?;
        let desk = self
            .shared
            .registry
            .open_desk(presented.minor, self.shared.random.as_ref());
        Ok((checkout, desk.ok_or_else(internal)?))
    }

    /// Asks the policy, and notes in the facts what it said.
    fn decide(
        &self,
        facts: &mut Facts,
        identity: &Identity,
        wanted: &str,
        peer: SocketAddr,
        at: SystemTime,
    ) -> Result<Grant, Refused> {
        let policy = self.shared.policy.borrow().clone();
        let version = policy.version().clone();
        let (Some(target), Some(database)) = (facts.target.clone(), facts.database.clone()) else {
            return Err(Refused {
                facts: Arc::new(facts.clone()),
                code: RefusalCode::Internal,
                reason: Reason::Internal,
            });
        };
        let request = AccessRequest {
            identity,
            target: &target,
            database: &database,
            wanted,
            client: peer.ip(),
            at,
        };
        match policy.decide(&request) {
            Decision::Allow(grant) => {
                facts.policy = Some(PolicyFacts {
                    rule: Some(grant.rule().clone()),
                    version,
                });
                facts.role = Some(grant.role().clone());
                Ok(grant)
            }
            Decision::Deny(denial) => {
                facts.policy = Some(PolicyFacts {
                    rule: denial.rule,
                    version,
                });
                let reason = Reason::NoGrant {
                    own_roles: denial.own_roles,
                };
                Err(Refused {
                    facts: Arc::new(facts.clone()),
                    code: RefusalCode::NotPermitted,
                    reason,
                })
            }
        }
    }

    /// Tells a client no, and writes down that it was told.
    async fn refuse(&self, front: PostgresFront, refused: Refused, session: SessionId) {
        let Refused { facts, code, reason } = refused;
        self.shared.counters.refused(code);
        tracing::info!(%session, code = code.label(), reason = %reason, "session refused");
        let event = Event::SessionDenied {
            code: code.label(),
            reason: reason.to_string(),
        };
        if let Err(error) = self.shared.journal.submit(Record::new(facts, event)) {
            tracing::error!(%session, error = %error, "a refusal could not be recorded");
        }
        front
            .refuse(Refusal {
                code,
                reason,
                reference: session,
            })
            .await;
    }

    /// Welcome, relay, and what is left to do behind them.
    async fn converse(&self, mut front: PostgresFront, opened: Opened, session: SessionId) {
        let Opened {
            facts,
            correlation,
            ends,
            mut checkout,
            mut desk,
            permit,
            _lease,
            _seat,
        } = opened;
        if front.welcome(permit, &checkout, &desk).await.is_err() {
            return self.close(checkout, true, &facts, "client_left", 0).await;
        }
        let Some((mut client, already_read)) = front.into_parts() else {
            return;
        };
        let ledger = Ledger::new(facts.clone(), session, checkout.process(), correlation);
        let mut conversation = Conversation::new(session, ledger, &self.probe_name());
        let surroundings = Surroundings {
            journal: &self.shared.journal,
            clock: self.shared.clock.as_ref(),
            cancels: &mut desk.requests,
            stopping: self.shared.stopping.clone(),
            ends,
            grace: self.shared.grace,
        };
        let mut relay = Relay::new(&mut client, &mut checkout, surroundings, &already_read);
        let ending = relay.run(&mut conversation).await;
        let abandoned = conversation.abandon(self.shared.clock.now());
        let why = self.say_goodbye(relay, ending, session).await;
        drop(client);
        if conversation.is_running_client_statement() {
            // Nobody waits for it any more.
            let _ = checkout.canceller().cancel().await;
        }
        if let Some(Err(error)) = abandoned.map(|record| self.shared.journal.submit(record)) {
            tracing::error!(%session, error = %error, "an open transaction could not be recorded");
        }
        let transactions = conversation.transactions();
        self.shared
            .counters
            .transactions
            .fetch_add(transactions, Ordering::Relaxed);
        self.close(checkout, conversation.leaves_clean(), &facts, why, transactions)
            .await;
    }

    /// Tells the client why it ends, unless it left by itself. Returns the reason for the record.
    async fn say_goodbye(&self, mut relay: Relay<'_>, ending: Ending, session: SessionId) -> &'static str {
        let (code, reason, why) = match ending {
            Ending::ClientLeft => return "client_left",
            Ending::ServerLost => (RefusalCode::TargetUnavailable, Reason::TargetDown, "server_lost"),
            Ending::Refused(code, reason) => (code, reason, code.label()),
        };
        if why != "server_lost" {
            self.shared.counters.refused(code);
        }
        if relay.finish_client().await.is_ok() {
            farewell(
                relay.client(),
                &Refusal {
                    code,
                    reason,
                    reference: session,
                },
            )
            .await;
        }
        why
    }

    /// Returns the upstream connection if it can be proved clean, and records the end.
    async fn close(
        &self,
        mut checkout: Checkout,
        clean: bool,
        facts: &Arc<Facts>,
        why: &'static str,
        transactions: u64,
    ) {
        let event = Event::SessionClosed { why, transactions };
        if let Err(error) = self.shared.journal.submit(Record::new(facts.clone(), event)) {
            tracing::error!(error = %error, "the end of a session could not be recorded");
        }
        if !clean {
            return;
        }
        match reset::clean(&mut checkout).await {
            Ok(slate) => checkout.give_back(slate),
            Err(error) => {
                tracing::warn!(error = %error, "an upstream connection was closed: it could not be reset")
            }
        }
    }

    /// A name that no client hits by accident.
    fn probe_name(&self) -> String {
        let mut bytes = [0; 8];
        self.shared.random.fill(&mut bytes);
        format!("gatepost_probe_{:016x}", u64::from_be_bytes(bytes))
    }
}

/// A refusal with what is known so far.
fn refused(facts: &Facts, (code, reason): (RefusalCode, Reason)) -> Refused {
    Refused {
        facts: Arc::new(facts.clone()),
        code,
        reason,
    }
}

/// The facts of a session before its identity is known.
fn stranger(session: SessionId, peer: SocketAddr, application: Option<String>) -> Facts {
    Facts {
        session: Some(session),
        client: Some(ClientFacts {
            address: peer,
            application,
        }),
        ..Facts::default()
    }
}

/// What the client may know of an error; the log keeps the rest.
fn logged(session: SessionId, error: &impl Refuse) -> (RefusalCode, Reason) {
    let mut chain = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        chain.push_str(": ");
        chain.push_str(&cause.to_string());
        source = cause.source();
    }
    tracing::warn!(%session, error = %chain, "session not opened");
    error.refusal()
}

/// When a session ends: at the end of its token or of the rule's session life, whatever is first.
fn ends(grant: &Grant, identity: &Identity, now: SystemTime) -> (Instant, RefusalCode, Reason) {
    let token = identity.expires_at.duration_since(now).unwrap_or_default();
    let (left, reason) = if token <= grant.session_max() {
        (token, Reason::IdentityExpired)
    } else {
        (grant.session_max(), Reason::SessionLifeOver)
    };
    (Instant::now() + left, RefusalCode::SessionExpired, reason)
}
