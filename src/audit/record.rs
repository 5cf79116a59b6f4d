//! What can be recorded: facts about a session, and events.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::audit::chain::Hash;
use crate::audit::marker::Marker;
use crate::audit::marks::EXPIRED;
use crate::audit::values::Values;
use crate::domain::admin::AdminAction;
use crate::domain::correlation::Correlation;
use crate::domain::identity::Identity;
use crate::domain::ids::{ProviderName, RoleName, RuleName, SessionId, TicketId};
use crate::domain::incarnation::Incarnation;
use crate::domain::outline::PolicyOutline;
use crate::domain::parameters::ParameterRule;
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
    /// The ticket that was shown in the token's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<TicketId>,
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
            ticket_id: None,
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
    /// Are the values of its statements on record?
    #[serde(skip_serializing_if = "ParameterRule::is_absent")]
    pub parameters: ParameterRule,
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

    /// Somebody was turned away who is not a user of this machine: beyond a rate such records are only
    /// summed up, unless the session is on record already.
    pub(super) fn is_strangers(&self) -> bool {
        let known = matches!(&self.event, Event::Admin(call) if call.uid.is_some());
        self.event.turns_away() && !known
    }
}

/// What happened. `statement.seen`, `head`, `segment.sealed`, `key.rotated` and `journal.recovered` are made
/// by the journal alone.
#[derive(Clone, Debug)]
pub enum Event {
    ServerStarted {
        version: &'static str,
    },
    ServerStopped,
    /// A policy is in force from now on; what its version says, as far as one record can tell.
    PolicyLoaded {
        rules: usize,
        outline: Box<PolicyOutline>,
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
    /// An operator asked for something, over the API or the socket. A refused call of nobody known
    /// counts as a stranger's, like a denied session's.
    Admin(AdminCall),
    /// Somebody with a good token gets a ticket for it. The target is among the facts, without the
    /// database if it is good for all of them.
    TicketIssued {
        ticket_id: TicketId,
        expires_at: SystemTime,
        /// An address, a network, or `any`.
        bound_to: String,
        single_use: bool,
    },
    /// Like a denied session, where a ticket was asked for.
    TicketDenied {
        code: &'static str,
        reason: String,
    },
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
    /// Before a segment that is too old is removed: everything through its last record, which had this hash.
    JournalExpired {
        through_seq: u64,
        hash: Hash,
    },
    TransactionIntent(Box<Transaction>),
    TransactionOutcome {
        transaction: Box<Transaction>,
        scope: Scope,
        outcome: Outcome,
        duration: Duration,
    },
    /// A transaction whose end nobody had heard of was asked after. Its session is among the facts.
    TransactionReconciled(Box<Reconciled>),
    /// Denials that were not recorded one by one: of an address, of an identity (which is among the
    /// facts), or (with neither) of more than are told apart.
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
    /// Somebody who may do this asked; `done` or `failed` follows when it was tried.
    Permitted,
    Done,
    /// Nobody who may do this asked.
    Refused,
    Failed,
}

/// One database transaction of one session.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Counts the session's transactions from 1. With the session it names the transaction also
    /// where the engine gave it no id.
    pub number: u64,
    /// The engine's own id, once known: PostgreSQL's 64-bit xid, SQL Server's transaction id.
    pub id: Option<u64>,
    /// The name under which it was prepared, or which it ended (`COMMIT PREPARED`).
    pub gid: Option<Arc<str>>,
    pub statements: Vec<Statement>,
    /// Statements beyond the session's limit: they ran, and are counted here only.
    pub statements_omitted: u64,
    pub began: SystemTime,
    /// Backend pid, SPID.
    pub backend: i32,
    /// The life of the server in which `id` means this transaction; in intents only.
    pub incarnation: Option<Incarnation>,
    /// Where the marker is found again that gatepost wrote into it; in intents only.
    pub marker: Option<Marker>,
    /// When the server was last heard in this transaction: it was alive then. Never written.
    pub heard: Option<SystemTime>,
}

/// What was found out about a transaction whose end nobody had heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// With session and number it names the transaction: the run of gatepost that did it.
    #[serde(rename = "of_epoch")]
    pub epoch: u64,
    pub number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    pub outcome: Outcome,
    pub evidence: Evidence,
    /// Why it is in doubt, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Doubtful>,
    /// What the journal said before; none when there was an intent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Outcome>,
    /// The name under which it waits for its COMMIT PREPARED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
}

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The server has not crashed since, and says what became of the id.
    SameIncarnation,
    /// After a crash or failover the id is that of an aborted transaction, or not given out yet.
    AbortedOrFuture,
    /// The server keeps the times of commits, and this one is, or cannot be, the transaction's own.
    CommitTimestamp,
    /// The server's recovery right after the crash had seen the id.
    ControlCheckpoint,
    /// The marker that gatepost wrote into the transaction stands in the WAL.
    WalMarker,
    /// The marker that gatepost wrote into the transaction stands in the table of markers, or is not there
    /// although nobody can have removed it.
    MarkerTable,
    /// It waits, prepared, and the server has not crashed since.
    PreparedTransaction,
    None,
}

/// Why a transaction stays in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubtful {
    /// It committed by itself, before its id could be known.
    NoTransactionId,
    /// The engine cannot be asked.
    EngineCannotTell,
    /// The id is that of a committed transaction, but since a crash or failover perhaps of another one.
    ServerChanged,
    /// It is not known in which life of the server the transaction ran.
    ServerUnknown,
    /// At the target's address is the server of another cluster.
    OtherServer,
    /// It did not end for as long as it was asked after. It is asked after again at the next start.
    StillRunning,
    /// The server no longer keeps what became of the id, or the table of markers the row.
    Forgotten,
    /// In the place of its marker stands one that this signing key did not make.
    MarkerUnknown,
}

impl Doubtful {
    /// May a later question have another answer?
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::StillRunning)
    }
}

/// Bytes of a statement's text that a session keeps for its record: a text is told from others long before
/// its end.
pub const STATEMENT_TEXT_BYTES: usize = 64 << 10;

/// One statement of a transaction.
#[derive(Clone, Debug)]
pub struct Statement {
    /// As the client sent it. Never written: the writer thread records its fingerprint, and once
    /// its normalised text.
    pub text: Arc<str>,
    pub kind: &'static str,
    pub rows: Option<u64>,
    /// Its values, where the rule wants them on record.
    pub values: Option<Values>,
}

/// How much of the transaction the record covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Complete,
    /// More transactions than this one may have been committed under the same intent.
    Partial,
    ReadOnly,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Somebody was turned away. Such records are many when somebody is knocking.
    pub(super) const fn turns_away(&self) -> bool {
        match self {
            Self::SessionDenied { .. } | Self::TicketDenied { .. } => true,
            Self::Admin(call) => matches!(call.result, AdminResult::Refused),
            Self::ServerStarted { .. }
            | Self::ServerStopped
            | Self::PolicyLoaded { .. }
            | Self::PolicyRejected { .. }
            | Self::SecretRotated { .. }
            | Self::TicketIssued { .. }
            | Self::SessionOpened
            | Self::SessionClosed { .. }
            | Self::LoginMinted { .. }
            | Self::LoginRenewed { .. }
            | Self::LoginDisabled { .. }
            | Self::LoginDropped
            | Self::LoginTampered { .. }
            | Self::JournalRepaired { .. }
            | Self::JournalExpired { .. }
            | Self::TransactionIntent(_)
            | Self::TransactionOutcome { .. }
            | Self::TransactionReconciled(_)
            | Self::StrangersDenied { .. } => false,
        }
    }

    /// Will its session have no more transactions?
    pub const fn ends_session(&self) -> bool {
        matches!(self, Self::SessionClosed { .. } | Self::SessionDenied { .. })
    }

    /// Is it true whatever becomes of its record? The others announce something, which does not happen
    /// when they cannot be written.
    pub fn has_happened(&self) -> bool {
        let permission = matches!(self, Self::Admin(call) if call.result == AdminResult::Permitted);
        let announced = matches!(
            self,
            Self::TransactionIntent(_)
                | Self::TicketIssued { .. }
                | Self::SessionOpened
                | Self::LoginMinted { .. }
                | Self::JournalExpired { .. }
        );
        !permission && !announced
    }

    /// Is it one of those that come with every transaction?
    pub const fn is_of_transaction(&self) -> bool {
        matches!(self, Self::TransactionIntent(_) | Self::TransactionOutcome { .. })
    }

    /// The name in the `event` member.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ServerStarted { .. } => "server.started",
            Self::ServerStopped => "server.stopped",
            Self::PolicyLoaded { .. } => "policy.loaded",
            Self::PolicyRejected { .. } => "policy.rejected",
            Self::SecretRotated { .. } => "secret.rotated",
            Self::Admin(call) => call.action.event(),
            Self::TicketIssued { .. } => "ticket.issued",
            Self::TicketDenied { .. } => "ticket.denied",
            Self::SessionOpened => "session.opened",
            Self::SessionDenied { .. } => "session.denied",
            Self::SessionClosed { .. } => "session.closed",
            Self::LoginMinted { .. } => "login.minted",
            Self::LoginRenewed { .. } => "login.renewed",
            Self::LoginDisabled { .. } => "login.disabled",
            Self::LoginDropped => "login.dropped",
            Self::LoginTampered { .. } => "login.tampered",
            Self::JournalRepaired { .. } => "journal.repaired",
            Self::JournalExpired { .. } => EXPIRED,
            Self::TransactionIntent(_) => "transaction.intent",
            Self::TransactionOutcome { .. } => "transaction.outcome",
            Self::TransactionReconciled(_) => "transaction.reconciled",
            Self::StrangersDenied { .. } => "session.denied_many",
        }
    }
}
