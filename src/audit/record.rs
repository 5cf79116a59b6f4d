//! What can be recorded: facts about a session, and events.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::domain::correlation::Correlation;
use crate::domain::identity::Identity;
use crate::domain::ids::{ProviderName, RoleName, RuleName, SessionId};
use crate::domain::target::{DatabaseName, Engine, TargetName};

/// What is known about a session so far. Shared by all of its records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyFacts>,
}

/// The verified identity, without its memberships and claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdentityFacts {
    pub provider: ProviderName,
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Names the token without containing it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
}

impl From<&Identity> for IdentityFacts {
    fn from(identity: &Identity) -> Self {
        Self {
            provider: identity.provider.clone(),
            subject: identity.subject.clone(),
            client_id: identity.client_id.clone(),
            tenant: identity.tenant.clone(),
            name: identity.name.clone(),
            token_id: identity.token_id.clone(),
        }
    }
}

/// Where the client came from and what it calls itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientFacts {
    pub address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
}

/// Which policy decided, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyFacts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
    pub version: Arc<str>,
}

/// One thing that happened. The journal adds when, the sequence number and the chain.
#[derive(Clone, Debug)]
pub struct Record {
    pub facts: Arc<Facts>,
    pub correlation: Vec<Correlation>,
    pub event: Event,
}

impl Record {
    /// A record that belongs to no transaction of a client.
    pub const fn new(facts: Arc<Facts>, event: Event) -> Self {
        Self {
            facts,
            correlation: Vec::new(),
            event,
        }
    }
}

/// What happened. `statement.seen`, `head` and `journal.recovered` are made by the journal alone.
#[derive(Clone, Debug)]
pub enum Event {
    ServerStarted {
        version: &'static str,
    },
    ServerStopped,
    PolicyLoaded {
        rules: usize,
    },
    PolicyRejected {
        mistakes: usize,
    },
    /// Something that is a secret, or proves one, was replaced while the process ran.
    SecretRotated {
        /// `broker_password`, `server_certificate`, `client_certificate`, `login` …
        what: &'static str,
        /// Which one of several: the serial number of a certificate, the name of a login.
        which: Option<String>,
    },
    /// An operator asked for something, over the API or the socket.
    Admin(AdminCall),
    SessionOpened,
    /// Without a verified identity this counts as a stranger: beyond a rate it is only summed up.
    SessionDenied {
        code: &'static str,
        reason: String,
    },
    SessionClosed {
        why: &'static str,
        /// What the client was told, unless it left by itself.
        reason: Option<String>,
        transactions: u64,
    },
    LoginMinted {
        expires_at: SystemTime,
    },
    LoginRenewed {
        expires_at: SystemTime,
    },
    LoginDisabled {
        why: &'static str,
    },
    LoginDropped,
    LoginTampered {
        what: String,
    },
    /// Made at start-up when the last run ended in the middle of a write.
    JournalRepaired {
        /// Bytes of an incomplete write that were cut off. None of them had been acknowledged.
        bytes_cut: u64,
        /// Whole records that stood behind the last signed head. They were kept.
        unsigned_kept: u64,
    },
    TransactionIntent(Box<Transaction>),
    TransactionOutcome {
        transaction: Box<Transaction>,
        scope: Scope,
        outcome: Outcome,
        duration: Duration,
    },
    /// Denials that were not recorded one by one. `None`: from more addresses than are told apart.
    StrangersDenied {
        address: Option<IpAddr>,
        count: u64,
    },
}

/// What an operator asked for, and whether it was done. The caller's identity is among the facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdminCall {
    /// `sessions.list`, `sessions.kill`, `reload` …; the event is `admin.` and this.
    #[serde(skip)]
    pub action: AdminAction,
    /// `api` or `socket`.
    pub door: &'static str,
    /// The user id of a caller on the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// What it was about: a session's reference, a provider, whom a revocation strikes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    pub result: AdminResult,
    /// Why it was refused or failed, or what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminResult {
    Done,
    /// Nobody who may do this asked.
    Refused,
    Failed,
}

/// Everything that can be asked for; one word in policies, routes and records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminAction {
    SessionsList,
    SessionsKill,
    PoolsList,
    LoginsList,
    LoginsRotate,
    PolicyShow,
    Reload,
    KeysRefresh,
    RevocationsList,
    Revoke,
    RevocationLift,
}

impl AdminAction {
    /// The name of the event.
    pub const fn event(self) -> &'static str {
        match self {
            Self::SessionsList => "admin.sessions_list",
            Self::SessionsKill => "admin.sessions_kill",
            Self::PoolsList => "admin.pools_list",
            Self::LoginsList => "admin.logins_list",
            Self::LoginsRotate => "admin.logins_rotate",
            Self::PolicyShow => "admin.policy_show",
            Self::Reload => "admin.reload",
            Self::KeysRefresh => "admin.keys_refresh",
            Self::RevocationsList => "admin.revocations_list",
            Self::Revoke => "admin.revoke",
            Self::RevocationLift => "admin.revocation_lift",
        }
    }
}

/// One database transaction of one session.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Counts the session's transactions from 1. With the session it names the transaction also
    /// where the engine gave it no id.
    pub number: u64,
    /// The engine's own id, once known: PostgreSQL's 64-bit xid, SQL Server's transaction id.
    pub id: Option<u64>,
    pub statements: Vec<Statement>,
    /// Statements beyond the session's limit: they ran, and are counted here only.
    pub statements_omitted: u64,
    pub began: SystemTime,
    /// Backend pid, SPID.
    pub backend: i32,
}

/// One statement of a transaction.
#[derive(Clone, Debug)]
pub struct Statement {
    /// As the client sent it. Never written: the writer thread records its fingerprint, and once
    /// its normalised text.
    pub text: Arc<str>,
    pub kind: &'static str,
    pub rows: Option<u64>,
}

/// How much of the transaction the record covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Complete,
    /// More transactions than this one may have been committed under the same intent.
    Partial,
    ReadOnly,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Committed,
    Aborted,
    /// The connection was lost between asking for the commit and hearing of it.
    InDoubt,
    /// `PREPARE TRANSACTION`: decided later, perhaps by another session.
    Prepared,
}

/// A statement text without its literals, and the fingerprint that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised {
    /// 16 hexadecimal digits.
    pub fingerprint: String,
    pub text: String,
}

impl Event {
    /// The name in the `event` member.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ServerStarted { .. } => "server.started",
            Self::ServerStopped => "server.stopped",
            Self::PolicyLoaded { .. } => "policy.loaded",
            Self::PolicyRejected { .. } => "policy.rejected",
            Self::SecretRotated { .. } => "secret.rotated",
            Self::Admin(call) => call.action.event(),
            Self::SessionOpened => "session.opened",
            Self::SessionDenied { .. } => "session.denied",
            Self::SessionClosed { .. } => "session.closed",
            Self::LoginMinted { .. } => "login.minted",
            Self::LoginRenewed { .. } => "login.renewed",
            Self::LoginDisabled { .. } => "login.disabled",
            Self::LoginDropped => "login.dropped",
            Self::LoginTampered { .. } => "login.tampered",
            Self::JournalRepaired { .. } => "journal.repaired",
            Self::TransactionIntent(_) => "transaction.intent",
            Self::TransactionOutcome { .. } => "transaction.outcome",
            Self::StrangersDenied { .. } => "session.denied_many",
        }
    }
}
