//! How a record looks as a line of JSON: the members in their fixed order.

use std::fmt;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::audit::chain::{FORMAT, Hash};
use crate::audit::marker::Marker;
use crate::audit::members::Members;
use crate::audit::record::{AdminCall, Event, Outcome, Reconciled, Scope, Statement, Transaction};
use crate::audit::values::StatementValues;
use crate::domain::correlation::Correlation;
use crate::domain::ids::TicketId;
use crate::domain::incarnation::Incarnation;
use crate::domain::outline::PolicyOutline;
use crate::sql::tsql::{Name, Relations};

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can say.
const LAST_SECOND: u64 = 253_402_300_799;

/// One line, without the chain's own members.
pub(super) struct Envelope<'a> {
    origin: &'a Origin,
    seq: u64,
    at: Time,
    event: &'static str,
    pub(super) facts: Option<&'a Members>,
    pub(super) correlation: &'a [Correlation],
    pub(super) detail: Detail<'a>,
}

/// What every line of one run has alike.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) epoch: u64,
    members: Members,
}

impl Origin {
    pub(super) fn new(installation: &str, replica: &str, epoch: u64) -> serde_json::Result<Self> {
        #[derive(Serialize)]
        struct Shown<'a> {
            installation: &'a str,
            replica: &'a str,
            epoch: u64,
        }
        let members = Members::of(&Shown {
            installation,
            replica,
            epoch,
        })?;
        Ok(Self { epoch, members })
    }
}

impl<'a> Envelope<'a> {
    pub(super) const fn new(origin: &'a Origin, seq: u64, at: SystemTime, event: &'static str) -> Self {
        Self {
            origin,
            seq,
            at: Time(at),
            event,
            facts: None,
            correlation: &[],
            detail: Detail::None,
        }
    }

    /// Appends the line as one JSON object, its members in their fixed order. With an error it may have
    /// appended a part of it.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let (seq, at, event) = (self.seq, self.at, self.event);
        write!(out, r#"{{"v":{FORMAT},"seq":{seq},"at":"{at}","#)?;
        out.extend_from_slice(self.origin.members.bytes());
        // Names of events are words with dots.
        write!(out, r#","event":"{event}""#)?;
        if let Some(facts) = self.facts.map(Members::bytes).filter(|facts| !facts.is_empty()) {
            out.push(b',');
            out.extend_from_slice(facts);
        }
        if !self.correlation.is_empty() {
            out.extend_from_slice(br#","correlation":"#);
            serde_json::to_writer(&mut *out, self.correlation)?;
        }
        if !self.detail.is_none() {
            out.extend_from_slice(br#","detail":"#);
            serde_json::to_writer(&mut *out, &self.detail)?;
        }
        out.push(b'}');
        Ok(())
    }
}

/// A time in UTC with microseconds.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
        // Outside of these the formatter would fail; no such time is real.
        let at = self.0.clamp(UNIX_EPOCH, last);
        fmt::Display::fmt(&humantime::format_rfc3339_micros(at), f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an event says besides the facts.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Detail<'a> {
    None,
    Version {
        version: &'a str,
    },
    Policy {
        rules: usize,
        #[serde(flatten)]
        outline: &'a PolicyOutline,
    },
    Mistakes {
        mistakes: usize,
    },
    Rotated {
        what: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        which: Option<&'a str>,
    },
    Admin(&'a AdminCall),
    Ticket {
        ticket_id: TicketId,
        expires_at: Time,
        bound_to: &'a str,
        single_use: bool,
    },
    Denial {
        code: &'a str,
        reason: &'a str,
    },
    Closed {
        why: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        transactions: u64,
    },
    Expiry {
        expires_at: Time,
    },
    Why {
        why: &'a str,
    },
    What {
        what: &'a str,
    },
    Repaired {
        bytes_cut: u64,
        unsigned_kept: u64,
    },
    Recovered {
        records_lost: u64,
    },
    Strangers {
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        count: u64,
    },
    Seen {
        fingerprint: &'a str,
        text: &'a str,
        truncated: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        relations: Option<RelationNames>,
    },
    Head {
        key: &'a str,
        records: u64,
    },
    KeyRotated {
        old: &'a str,
        new: &'a str,
        old_public: String,
        new_public: String,
    },
    Sealed {
        first: u64,
        last: u64,
        root: Hash,
    },
    Expired {
        through_seq: u64,
        hash: Hash,
    },
    Transaction(TransactionDetail<'a>),
    Reconciled(&'a Reconciled),
}

#[derive(Serialize)]
pub(super) struct TransactionDetail<'a> {
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    began: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    backend: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<&'a Incarnation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marker: Option<&'a Marker>,
    statements: Vec<StatementDetail<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    statements_omitted: u64,
}

#[derive(Serialize)]
struct StatementDetail<'a> {
    fingerprint: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    #[serde(flatten)]
    values: Option<&'a StatementValues>,
}

/// A statement as it is written: its text's fingerprint, and its values where they are wanted.
pub(super) struct Told {
    pub(super) fingerprint: Arc<str>,
    pub(super) values: Option<StatementValues>,
}

/// What a text names, as `schema.object`.
#[derive(Serialize)]
pub(super) struct RelationNames {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    read: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    written: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    called: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

impl RelationNames {
    pub(super) fn of(relations: &Relations) -> Self {
        let shown = |names: &[Name]| names.iter().map(Name::to_string).collect();
        Self {
            read: shown(&relations.read),
            written: shown(&relations.written),
            called: shown(&relations.called),
            truncated: relations.truncated,
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Detail<'a> {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// `told` are the event's statements, in their order.
    pub(super) fn of(event: &'a Event, told: &'a [Told]) -> Self {
        match event {
            Event::ServerStarted { version } => Self::Version { version },
            Event::PolicyLoaded { rules, outline } => Self::Policy {
                rules: *rules,
                outline,
            },
            Event::PolicyRejected { mistakes } => Self::Mistakes { mistakes: *mistakes },
            Event::SecretRotated { what, which } => Self::Rotated {
                what,
                which: which.as_deref(),
            },
            Event::Admin(call) => Self::Admin(call),
            Event::TicketIssued {
                ticket_id,
                expires_at,
                bound_to,
                single_use,
            } => Self::Ticket {
                ticket_id: *ticket_id,
                expires_at: Time(*expires_at),
                bound_to,
                single_use: *single_use,
            },
            Event::SessionDenied { code, reason } | Event::TicketDenied { code, reason } => {
                Self::Denial { code, reason }
            }
            Event::SessionClosed {
                why,
                reason,
                transactions,
            } => Self::Closed {
                why,
                reason: reason.as_deref(),
                transactions: *transactions,
            },
            Event::LoginMinted { expires_at } | Event::LoginRenewed { expires_at } => Self::Expiry {
                expires_at: Time(*expires_at),
            },
            Event::LoginDisabled { why } => Self::Why { why },
            Event::LoginTampered { what } => Self::What { what },
            Event::JournalRepaired {
                bytes_cut,
                unsigned_kept,
            } => Self::Repaired {
                bytes_cut: *bytes_cut,
                unsigned_kept: *unsigned_kept,
            },
            Event::JournalExpired { through_seq, hash } => Self::Expired {
                through_seq: *through_seq,
                hash: *hash,
            },
            Event::StrangersDenied { address, count } => Self::Strangers {
                address: *address,
                count: *count,
            },
            Event::TransactionIntent(transaction) => {
                Self::Transaction(TransactionDetail::of(transaction, told))
            }
            Event::TransactionReconciled(reconciled) => Self::Reconciled(reconciled),
            Event::TransactionOutcome {
                transaction,
                scope,
                outcome,
                duration,
            } => {
                let ended = TransactionDetail::of(transaction, told);
                Self::Transaction(ended.ended(*scope, *outcome, *duration))
            }
            Event::ServerStopped | Event::SessionOpened | Event::LoginDropped => Self::None,
        }
    }
}

impl<'a> TransactionDetail<'a> {
    /// How it ended, without what was only needed to find that out.
    fn ended(self, scope: Scope, outcome: Outcome, duration: Duration) -> Self {
        Self {
            scope: Some(scope),
            outcome: Some(outcome),
            incarnation: None,
            marker: None,
            duration_us: Some(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
            ..self
        }
    }

    fn of(transaction: &'a Transaction, told: &'a [Told]) -> Self {
        let statements = transaction.statements.iter().zip(told);
        let detail = |(statement, told): (&'a Statement, &'a Told)| StatementDetail {
            fingerprint: &told.fingerprint,
            kind: statement.kind,
            rows: statement.rows,
            values: told.values.as_ref(),
        };
        Self {
            number: transaction.number,
            id: transaction.id,
            gid: transaction.gid.as_deref(),
            scope: None,
            outcome: None,
            began: Time(transaction.began),
            duration_us: None,
            backend: transaction.backend,
            incarnation: transaction.incarnation.as_ref(),
            marker: transaction.marker.as_ref(),
            statements: statements.map(detail).collect(),
            statements_omitted: transaction.statements_omitted,
        }
    }
}
