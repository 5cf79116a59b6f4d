//! The story of one client connection, from its first byte to its last.
//!
//! `Gate::open` is the file's heart: every step consumes the proof that the step before it made, so
//! none can be left out. A token becomes an `Identity`, an identity a `Grant`, a record on disk a
//! `Receipt`, grant and receipt a leased login, the login an upstream connection; only then is the
//! client welcomed, and everything it does from there is judged by the `conversation`.

mod alarms;
mod cancels;
pub mod counters;
mod course;
mod dialogue;
pub mod directory;
pub mod door;
mod farewell;
mod front;
mod lane;
mod ledger;
mod notices;
mod outcomes;
mod postgres;
mod prelude;
mod presented;
mod proof;
pub mod registry;
mod relay;
pub mod roster;
pub mod snapshot;
mod sqlserver;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::audit::Marking;
use crate::audit::journal::{Journal, JournalError, Receipt};
use crate::audit::record::{ClientFacts, Event, Facts, PolicyFacts, Record};
use crate::credential::{Broker, LeaseHold};
use crate::domain::access::AccessRequest;
use crate::domain::autocommit::Autocommit;
use crate::domain::clock::{Clock, Random};
use crate::domain::correlation::Correlation;
use crate::domain::identity::Identity;
use crate::domain::ids::SessionId;
use crate::domain::parameters::ParameterRule;
use crate::domain::refusal::{Reason, Refusal, RefusalCode, Refuse};
use crate::domain::target::TargetName;
use crate::identity::Tickets;
use crate::policy::{Decision, Grant, Policy};
use crate::upstream::DialError;
use crate::upstream::checkout::Checkout;
use crate::upstream::pool::{CheckoutError, Pool, PoolKey};
use crate::upstream::share::{Holder, Share};

pub use cancels::WrongKeys;
pub use counters::{Counters, TargetCounters};
use directory::{Destination, Directory};
pub use door::{Door, Listeners};
use front::{Front, Opening, Presented, WelcomePermit};
use notices::{Notices, chain};
pub use outcomes::OutcomeDesk;
use prelude::{Prelude, PreludeError};
use registry::{CancelDesk, Registry, Seat};
use roster::Place;
use snapshot::{Notice, Snapshots, Standing, Terms};

/// What all sessions of all threads share.
#[derive(Debug)]
pub struct Shared {
    pub snapshots: Snapshots,
    pub directory: Arc<Directory>,
    pub tickets: Arc<Tickets>,
    pub brokers: HashMap<TargetName, Broker>,
    pub journal: Journal,
    pub registry: Registry,
    pub wrong_keys: WrongKeys,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// Turns true when gatepost shuts down; the registry's bell says when to look.
    pub stopping: watch::Receiver<bool>,
    pub counters: Arc<Counters>,
    pub outcomes: OutcomeDesk,
    pub autocommit: Autocommit,
    /// What transactions are marked with, of the targets where they are.
    pub markers: HashMap<TargetName, Marking>,
}

/// Where clients of one data-path thread come in.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    pools: HashMap<TargetName, Rc<Pool>>,
}

/// A session that policy, journal, broker and pool have said yes to.
struct Opened {
    facts: Arc<Facts>,
    correlation: Option<Correlation>,
    standing: Standing,
    terms: Terms,
    grace: Duration,
    checkout: Checkout,
    desk: CancelDesk,
    permit: WelcomePermit,
    place: Place,
    /// Kept for as long as the session lives: the login, and the seats under the rule's limits.
    lease: LeaseHold,
    seats: [Seat; 2],
}

/// A refusal on its way out, with what was known of the session by then.
struct Refused {
    facts: Arc<Facts>,
    code: RefusalCode,
    reason: Reason,
    /// The error behind it with its causes, for the log alone.
    cause: Option<String>,
}

/// Why a login and a connection could not be brought together.
enum Unconnected {
    Refused(Refused),
    /// The login was changed behind our back; it has been withdrawn, and a new one can be minted.
    Tampered(Refused),
}

impl Gate {
    /// `pools` are this thread's, one for each target.
    pub fn new(shared: Arc<Shared>, pools: HashMap<TargetName, Rc<Pool>>) -> Self {
        Self { shared, pools }
    }

    /// One client connection. `logged_in` is called when it counts as a session.
    async fn converse_by<F: Front>(self: Rc<Self>, mut front: F, peer: SocketAddr, logged_in: impl FnOnce()) {
        let session = SessionId::random(self.shared.random.as_ref());
        let presented = match front.open().await {
            Opening::Presented(presented) => presented,
            Opening::Cancel { process, key } => {
                self.hear_cancel(peer, process, &key).await;
                return front.close().await;
            }
            Opening::Gone => return,
            Opening::Refused(code, reason) => {
                let refused = refused(&stranger(session, peer, None), (code, reason));
                return self.refuse(front, refused, session).await;
            }
        };
        let mut recorded = None;
        let opened = tokio::select! {
            opened = self.open::<F>(session, peer, presented, &mut recorded) => Some(opened),
            () = front.gone() => None,
        };
        match opened {
            Some(Ok(opened)) => {
                logged_in();
                self.shared.counters.opened_one();
                self.converse(front, opened, session).await;
            }
            Some(Err(refused)) => self.refuse(front, refused, session).await,
            // It left while it waited. Its place in line, its seats and its lease are free again.
            None => {
                if let Some(facts) = recorded {
                    self.record_end(&facts, "client_left", None, 0);
                }
            }
        }
    }

    /// Nobody is told whether a cancel request was right; one that was is waited for.
    async fn hear_cancel(&self, peer: SocketAddr, process: i32, key: &[u8]) {
        let (shared, now) = (&self.shared, self.shared.clock.now());
        let mut dealt_with = None;
        let heard = shared.wrong_keys.hear(peer.ip(), now, || {
            dealt_with = shared.registry.cancel(process, key);
            dealt_with.is_some()
        });
        shared.counters.cancel_heard(heard);
        if let Some(dealt_with) = dealt_with {
            dealt_with.await;
        }
    }

    /// The security flow, written once: verify, register, decide, record, lease, check out, and look
    /// whether what it was decided on still holds.
    async fn open<F: Front>(
        &self,
        session: SessionId,
        peer: SocketAddr,
        presented: Presented,
        on_record: &mut Option<Arc<Facts>>,
    ) -> Result<Opened, Refused> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let mut facts = stranger(session, peer, presented.application.clone());
        // Whatever is published from here on is noticed below, or by the session's relay.
        let mut snapshots = shared.snapshots.clone();
        let snapshot = Arc::clone(&snapshots.borrow_and_update());

        let shown = &presented.token;
        let proof = proof::verify(shared, &snapshot, shown, peer.ip(), &mut facts, now).await;
        let proof = proof.map_err(|error| caused(&facts, &error))?;
        let place = shared.registry.enter(session, Arc::new(facts.clone()), now);
        if snapshot
            .revocations
            .strike(proof.claimed(), Some(session), now)
            .is_some()
        {
            return Err(refused(&facts, (RefusalCode::NotPermitted, Reason::Revoked)));
        }

        let destination = shared.directory.find(F::ENGINE, &presented.database);
        let redeemed = proof.redeem(shared, destination);
        let identity = redeemed.map_err(|error| caused(&facts, &error))?;
        let Destination { target, database } = destination.ok_or_else(|| unknown(&facts))?.clone();
        facts.target = Some(target);
        facts.database = Some(database);
        facts.engine = Some(F::ENGINE);

        let whose = (identity.as_ref(), presented.wanted.as_str());
        let grant = decide(&snapshot.policy, &mut facts, whose, peer, now)?;
        let seats = self.take_seats(&facts, &grant)?;
        place.note(&Arc::new(facts.clone()));

        let recorded = Record::new(Arc::new(facts.clone()), Event::SessionOpened);
        let receipt = shared.journal.append(recorded).await;
        let receipt = receipt.map_err(|error| caused(&facts, &error))?;
        *on_record = Some(Arc::new(facts.clone()));

        let mut standing = Standing::new(snapshots, (session, peer.ip()), identity, &grant, now);
        let mut watch = standing.clone();
        let connecting =
            self.lease_and_connect::<F>(session, &grant, &mut facts, &receipt, (&presented, &standing));
        let connected = tokio::select! {
            connected = connecting => connected,
            // Whoever waits in line need not wait to its end to hear that it was in vain.
            Notice { code, reason, .. } = watch.struck(shared.clock.as_ref()) => {
                return Err(refused(&facts, (code, reason)));
            }
        };
        // First of all: whoever was struck meanwhile is told that, whatever else went wrong.
        let terms = match standing.still_holds(&grant, &snapshot, shared.clock.now()) {
            Ok(terms) => terms,
            Err(Notice { code, reason, .. }) => return Err(refused(&facts, (code, reason))),
        };
        let (lease, checkout) = connected?;
        place.note(&Arc::new(facts.clone()));
        let desk = shared
            .registry
            .open_desk(presented.cancel_key_bytes, shared.random.as_ref());
        let desk = desk.ok_or_else(|| refused(&facts, (RefusalCode::Internal, Reason::Internal)))?;
        Ok(Opened {
            facts: Arc::new(facts),
            correlation: presented.correlation,
            standing,
            terms,
            grace: snapshot.grace,
            checkout,
            desk,
            permit: WelcomePermit(()),
            place,
            lease,
            seats,
        })
    }

    /// A seat under the rule for this identity, and one for the rule as a whole.
    fn take_seats(&self, facts: &Facts, grant: &Grant) -> Result<[Seat; 2], Refused> {
        let registry = &self.shared.registry;
        let limits = grant.limits();
        let too_many = |reason| refused(facts, (RefusalCode::TooManySessions, reason));
        let own = registry
            .take_seat(grant.rule(), Some(grant.identity()), limits.sessions)
            .map_err(|limit| too_many(Reason::SessionLimit { limit }))?;
        let of_rule = registry
            .take_seat(grant.rule(), None, limits.rule_sessions)
            .map_err(|limit| too_many(Reason::RuleLimit { limit }))?;
        Ok([own, of_rule])
    }

    /// Grant and receipt become a login, and the login an upstream connection. A login that was
    /// tampered with is replaced once.
    async fn lease_and_connect<F: Front>(
        &self,
        session: SessionId,
        grant: &Grant,
        facts: &mut Facts,
        receipt: &Receipt,
        (presented, standing): (&Presented, &Standing),
    ) -> Result<(LeaseHold, Checkout), Refused> {
        let lease = self.lease(grant, facts, receipt).await?;
        match self
            .connect::<F>(session, share(grant), facts, &lease, presented)
            .await
        {
            Ok(checkout) => return Ok((lease, checkout)),
            Err(Unconnected::Refused(refused)) => return Err(refused),
            // It may have been ended because the identity was struck, which mints nothing new.
            Err(Unconnected::Tampered(refused)) if standing.is_in_question() => return Err(refused),
            Err(Unconnected::Tampered(_)) => drop(lease),
        }
        let lease = self.lease(grant, facts, receipt).await?;
        match self
            .connect::<F>(session, share(grant), facts, &lease, presented)
            .await
        {
            Ok(checkout) => Ok((lease, checkout)),
            Err(Unconnected::Refused(refused) | Unconnected::Tampered(refused)) => Err(refused),
        }
    }

    async fn lease(&self, grant: &Grant, facts: &mut Facts, receipt: &Receipt) -> Result<LeaseHold, Refused> {
        let Some(broker) = self.shared.brokers.get(grant.target()) else {
            return Err(refused(facts, (RefusalCode::Internal, Reason::Internal)));
        };
        let lease = broker.lease(grant, &Arc::new(facts.clone()), receipt).await;
        let lease = lease.map_err(|error| caused(facts, &error))?;
        facts.login = Some(Arc::from(lease.lease().login().as_str()));
        Ok(lease)
    }

    /// The login becomes an upstream connection with this session's settings.
    async fn connect<F: Front>(
        &self,
        session: SessionId,
        share: Share,
        facts: &Facts,
        lease: &LeaseHold,
        presented: &Presented,
    ) -> Result<Checkout, Unconnected> {
        let internal = || Unconnected::Refused(refused(facts, (RefusalCode::Internal, Reason::Internal)));
        let (Some(target), Some(database)) = (&facts.target, &facts.database) else {
            return Err(internal());
        };
        let pool = self.pools.get(target).ok_or_else(internal)?;
        let key = PoolKey {
            target: target.clone(),
            database: database.clone(),
            login: Arc::from(lease.lease().login().as_str()),
            identity: (!lease.is_minted()).then(|| share.holder.identity.clone()),
            settings: presented.settings.clone(),
        };
        let (broker, login) = (self.shared.brokers.get(target), lease.lease().login().as_str());
        let tampered = |what: String| {
            if let Some(broker) = broker {
                broker.tampered(login, what);
            }
        };
        // What fails may be the login's own doing: it is looked at now, not at its next renewal.
        let suspect = || {
            if let Some(broker) = broker {
                broker.suspect(login);
            }
        };
        let checkout = pool.checkout(key, &share, lease.lease().password()).await;
        let mut checkout = checkout.map_err(|error| {
            let refused = caused(facts, &error);
            if matches!(&error, CheckoutError::Dial(error) if error.login_stopped()) {
                tampered("it no longer works with its secret".to_owned());
                return Unconnected::Tampered(refused);
            }
            if matches!(error, CheckoutError::Dial(DialError::Refused { .. })) {
                suspect();
            }
            Unconnected::Refused(refused)
        })?;
        let prelude = Prelude {
            minted: lease.is_minted(),
            application: presented.application.as_deref(),
            session,
            correlation: presented.correlation.as_ref(),
            marker: None,
            autocommit: self.shared.autocommit,
            facts,
        };
        match F::prepare(&mut checkout, &prelude).await {
            Ok(()) => Ok(checkout),
            Err(PreludeError::Tampered { what }) => {
                tampered(format!("it {what}"));
                let told = (RefusalCode::TargetUnavailable, Reason::LoginTampered);
                Err(Unconnected::Tampered(refused(facts, told)))
            }
            Err(error) => {
                suspect();
                Err(Unconnected::Refused(caused(facts, &error)))
            }
        }
    }

    /// Tells a client no, and writes down that it was told.
    async fn refuse(&self, front: impl Front, refused: Refused, session: SessionId) {
        self.shared.counters.refused(refused.code);
        let notices = Notices::new(&refused.facts, &self.shared.counters);
        let told = notices.refused(&refused, self.shared.clock.as_ref());
        let Refused {
            facts, code, reason, ..
        } = refused;
        let event = Event::SessionDenied {
            code: code.label(),
            reason: reason.to_string(),
        };
        match self.shared.journal.submit(Record::new(facts, event)) {
            // One of many of the same kind is counted there.
            Ok(_) | Err(JournalError::Summed) => {}
            Err(error) if told => {
                let clock = self.shared.clock.as_ref();
                notices.unrecorded(&error, "a refusal could not be recorded", clock);
            }
            // As rationed as the refusal itself.
            Err(_) => {}
        }
        front
            .refuse(Refusal {
                code,
                reason,
                reference: session,
            })
            .await;
    }
}

/// An unknown target reads like a denial.
fn unknown(facts: &Facts) -> Refused {
    let own_roles = Vec::new();
    refused(facts, (RefusalCode::NotPermitted, Reason::NoGrant { own_roles }))
}

/// Asks the policy, and notes in the facts what it said.
fn decide(
    policy: &Policy,
    facts: &mut Facts,
    (identity, wanted): (&Identity, &str),
    peer: SocketAddr,
    at: SystemTime,
) -> Result<Grant, Refused> {
    let version = policy.version().clone();
    let (Some(target), Some(database)) = (facts.target.clone(), facts.database.clone()) else {
        return Err(refused(facts, (RefusalCode::Internal, Reason::Internal)));
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
                parameters: grant.parameters(),
            });
            facts.role = Some(grant.role().clone());
            Ok(grant)
        }
        Decision::Deny(denial) => {
            let rule = denial.rule;
            let parameters = ParameterRule::Absent;
            facts.policy = Some(PolicyFacts {
                rule,
                version,
                parameters,
            });
            let own_roles = denial.own_roles;
            Err(refused(
                facts,
                (RefusalCode::NotPermitted, Reason::NoGrant { own_roles }),
            ))
        }
    }
}

/// A refusal with what is known so far.
fn refused(facts: &Facts, (code, reason): (RefusalCode, Reason)) -> Refused {
    Refused {
        facts: Arc::new(facts.clone()),
        code,
        reason,
        cause: None,
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

/// A refusal because of an error: the client may know a part of it, the log keeps the rest.
fn caused(facts: &Facts, error: &impl Refuse) -> Refused {
    Refused {
        cause: Some(chain(error)),
        ..refused(facts, error.refusal())
    }
}

/// What the grant leaves its identity of the target's connections.
fn share(grant: &Grant) -> Share {
    let holder = Holder {
        identity: grant.identity().clone(),
        role: grant.role().clone(),
    };
    Share {
        holder: Arc::new(holder),
        most: grant.limits().connections,
    }
}
