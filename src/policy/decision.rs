//! What the policy answers. A [`Grant`] is the proof that a rule said yes: its fields are private
//! and only `decide` makes one.

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::domain::identity::IdentityKey;
use crate::domain::ids::{RoleName, RuleName};
use crate::domain::parameters::ParameterRule;
use crate::domain::target::{DatabaseName, TargetName};

#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(Grant),
    Deny(Denial),
}

/// The policy said yes, to this and to nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    role: RoleName,
    rule: RuleName,
    target: TargetName,
    database: DatabaseName,
    identity: IdentityKey,
    terms: Terms,
}

/// What a rule attaches to a role when it grants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) login_ttl: Duration,
    pub(super) session_max: Duration,
    pub(super) login_max_age: Duration,
    pub(super) limits: Limits,
    pub(super) correlation: CorrelationRule,
    pub(super) parameters: ParameterRule,
}

/// Where a granted role lives.
pub(super) struct Granted<'a> {
    pub(super) role: &'a RoleName,
    pub(super) rule: &'a RuleName,
    pub(super) target: &'a TargetName,
    pub(super) database: &'a DatabaseName,
}

impl Grant {
    pub(super) fn new(granted: &Granted<'_>, identity: IdentityKey, terms: &Terms) -> Self {
        Self {
            role: granted.role.clone(),
            rule: granted.rule.clone(),
            target: granted.target.clone(),
            database: granted.database.clone(),
            identity,
            terms: terms.clone(),
        }
    }

    pub const fn role(&self) -> &RoleName {
        &self.role
    }

    pub const fn rule(&self) -> &RuleName {
        &self.rule
    }

    pub const fn target(&self) -> &TargetName {
        &self.target
    }

    pub const fn database(&self) -> &DatabaseName {
        &self.database
    }

    pub const fn identity(&self) -> &IdentityKey {
        &self.identity
    }

    /// How long the minted login lives in the database after its last renewal.
    pub const fn login_ttl(&self) -> Duration {
        self.terms.login_ttl
    }

    /// The life of one client session.
    pub const fn session_max(&self) -> Duration {
        self.terms.session_max
    }

    /// When a new generation replaces the login; never less than `session_max`.
    pub const fn login_max_age(&self) -> Duration {
        self.terms.login_max_age
    }

    pub const fn limits(&self) -> &Limits {
        &self.terms.limits
    }

    pub const fn correlation(&self) -> CorrelationRule {
        self.terms.correlation
    }

    /// Are the values of statements on record?
    pub const fn parameters(&self) -> ParameterRule {
        self.terms.parameters
    }
}

/// Must a transaction that writes carry a correlation id of its client's?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CorrelationRule {
    #[default]
    Optional,
    Required,
}

/// Limits that a rule sets. Every field here is enforced; keys for limits that are not enforced
/// yet are refused when the policy is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Sessions that one identity may have open in this role.
    pub sessions: Option<u32>,
    /// Sessions that all identities together may have open under this rule.
    pub rule_sessions: Option<u32>,
    /// Upstream connections that one identity may have in this role, lent or idle; whoever would
    /// exceed it waits in line.
    pub connections: Option<u32>,
    /// How long one statement may run; it is cancelled then.
    #[serde(serialize_with = "in_seconds")]
    pub statement_timeout: Option<Duration>,
    /// How long a transaction may wait for its client; the session ends then.
    #[serde(serialize_with = "in_seconds")]
    pub idle_in_transaction: Option<Duration>,
    /// How long a session may wait for its client outside of a transaction.
    #[serde(serialize_with = "in_seconds")]
    pub idle: Option<Duration>,
}

fn in_seconds<S: Serializer>(limit: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    limit.map(|limit| limit.as_secs()).serialize(serializer)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The deny rule that fired, if one did.
    pub rule: Option<RuleName>,
    /// For the operator and the journal; a client hears only `own_roles`.
    pub why: DenialWhy,
    /// The roles that this identity would get here if it asked for them.
    pub own_roles: Vec<RoleName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum DenialWhy {
    /// A deny rule matched. Holds the rule's own words.
    #[error("denied by a rule: {0}")]
    DenyRule(Arc<str>),
    /// A deny rule could not be evaluated, which counts as a match. Holds what was missing.
    #[error("a deny rule could not be evaluated and therefore wins: {0}")]
    DenyUncertain(Arc<str>),
    #[error("no rule grants this identity any role here")]
    NothingGranted,
    /// A role was asked for by name, or by a name that is neither a role nor the identity's own.
    #[error("no rule grants the wanted role")]
    WantedNotGranted,
    /// `auto` or an own name, but more than one role is granted.
    #[error("several roles are granted, so one must be named")]
    SeveralRoles,
    /// `auto` or an own name, but only `break_glass` roles are granted.
    #[error("only break_glass roles are granted, and those must be named")]
    OnlyBreakGlass,
}
