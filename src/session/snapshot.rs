//! Everything that a reload or a revocation swaps, as one immutable value.
//!
//! A session subscribes before it decides and looks again after it has been let in, and from then on
//! at every new snapshot: nothing can slip between.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::domain::access::AccessRequest;
use crate::domain::clock::Clock;
use crate::domain::identity::Identity;
use crate::domain::ids::{RoleName, SessionId};
use crate::domain::refusal::{Reason, RefusalCode};
use crate::domain::revocation::Revocations;
use crate::domain::target::{DatabaseName, TargetName};
use crate::identity::Verifier;
use crate::policy::{CorrelationRule, Decision, Grant, Limits, Policy};
use crate::session::door::Listeners;

/// What an operator ended may finish what it has open within this time: together with the work of
/// ending its login it stays below the second that a revocation promises.
pub const REVOKED_GRACE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the snapshots of this process from 1.
    pub epoch: u64,
    pub policy: Arc<Policy>,
    pub verifier: Arc<Verifier>,
    pub revocations: Arc<Revocations>,
    pub listeners: Listeners,
    /// How long a transaction that is open when its session ends may still commit.
    pub grace: Duration,
}

/// Where sessions look for the current snapshot.
pub type Snapshots = watch::Receiver<Arc<Snapshot>>;

/// Why a session ends, and how long a transaction that it has open may still take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) code: RefusalCode,
    pub(super) reason: Reason,
    pub(super) grace: Duration,
}

impl Notice {
    pub(super) const fn expired(reason: Reason, grace: Duration) -> Self {
        Self {
            code: RefusalCode::SessionExpired,
            reason,
            grace,
        }
    }
}

/// What a session may do from now on, and until when.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) ends_at: SystemTime,
    pub(super) notice: Notice,
    pub(super) limits: Limits,
    pub(super) correlation: CorrelationRule,
}

/// What a session was admitted on.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    snapshots: Snapshots,
    session: SessionId,
    identity: Arc<Identity>,
    target: TargetName,
    database: DatabaseName,
    role: RoleName,
    client: IpAddr,
    opened: SystemTime,
}

impl Standing {
    pub(super) fn new(
        snapshots: Snapshots,
        (session, client): (SessionId, IpAddr),
        identity: Arc<Identity>,
        grant: &Grant,
        opened: SystemTime,
    ) -> Self {
        Self {
            snapshots,
            session,
            identity,
            target: grant.target().clone(),
            database: grant.database().clone(),
            role: grant.role().clone(),
            client,
            opened,
        }
    }

    /// Looks at the current snapshot: may the session go on, and on which terms?
    pub(super) fn judge(&mut self, now: SystemTime) -> Result<Terms, Notice> {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        if snapshot
            .revocations
            .strike(&self.identity, Some(self.session), now)
            .is_some()
        {
            return Err(Notice::expired(Reason::Revoked, REVOKED_GRACE));
        }
        let changed = || Notice::expired(Reason::PolicyChanged, snapshot.grace);
        if !snapshot.verifier.still_accepts(&self.identity) {
            return Err(changed());
        }
        let request = AccessRequest {
            identity: &self.identity,
            target: &self.target,
            database: &self.database,
            // What it has, not what it asked for: `auto` may lead elsewhere by now.
            wanted: self.role.as_str(),
            client: self.client,
            at: now,
        };
        match snapshot.policy.decide(&request) {
            Decision::Allow(grant) => Ok(self.terms(&grant, snapshot.grace)),
            Decision::Deny(_) => Err(changed()),
        }
    }

    /// Is there a newer snapshot than the one that was looked at?
    pub(super) fn is_in_question(&self) -> bool {
        // An error says that nobody is left who could publish one.
        self.snapshots.has_changed().unwrap_or(false)
    }

    /// Ready when a snapshot grants the session no more. Cancel-safe.
    pub(super) async fn struck(&mut self, clock: &dyn Clock) -> Notice {
        while self.snapshots.changed().await.is_ok() {
            if let Err(notice) = self.judge(clock.now()) {
                return notice;
            }
        }
        // Nobody is left who could publish one.
        pending().await
    }

    /// The last look before the welcome: has anything changed since the snapshot that `grant` was
    /// decided on?
    pub(super) fn still_holds(
        &mut self,
        grant: &Grant,
        decided_on: &Snapshot,
        now: SystemTime,
    ) -> Result<Terms, Notice> {
        if self.is_in_question() {
            self.judge(now)
        } else {
            Ok(self.terms(grant, decided_on.grace))
        }
    }

    /// A session ends with its token or with the rule's session life, whatever is first.
    fn terms(&self, grant: &Grant, grace: Duration) -> Terms {
        let life_over = self.opened + grant.session_max();
        let (ends_at, reason) = if self.identity.expires_at <= life_over {
            (self.identity.expires_at, Reason::IdentityExpired)
        } else {
            (life_over, Reason::SessionLifeOver)
        };
        Terms {
            ends_at,
            notice: Notice::expired(reason, grace),
            limits: grant.limits().clone(),
            correlation: grant.correlation(),
        }
    }
}
