//! All that a client can ever be told when it does not get what it wants. The sentences stand here,
//! once; the fronts only add the protocol's own code (SQLSTATE, SQL Server error number).

use std::fmt;
use std::time::Duration;

use crate::domain::ids::{RoleName, SessionId};
use crate::domain::marker_table::MarkerTable;

// What those can do whose driver has no room for a token; apart, so that the table below stays one.
const NO_TOKEN_HINT: &str = "Send an OIDC access token in the password field. Drivers that drop long passwords (FreeTDS, \
     pymssql) need a ticket: see \"gatepost ticket --help\".";
const TOKEN_MALFORMED_HINT: &str = "Send an OIDC access token (a JWT) in the password field, whole and unquoted; where a driver \
     cuts it, send a ticket: see \"gatepost ticket --help\".";
const TICKET_UNKNOWN_HINT: &str = "Get a new ticket with \"gatepost ticket\", from the machine and for the database that it is \
     used with, and connect before it expires.";

/// The kinds of refusal; each front maps them to its protocol's codes by one total table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    TlsRequired,
    TokenMissing,
    TokenRejected,
    NotPermitted,
    TooManySessions,
    TargetUnavailable,
    AuditUnavailable,
    SessionExpired,
    StatementTimeout,
    IdleInTransaction,
    IdleSession,
    ProtocolViolation,
    Internal,
}

impl RefusalCode {
    pub const ALL: [Self; 13] = [
        Self::TlsRequired,
        Self::TokenMissing,
        Self::TokenRejected,
        Self::NotPermitted,
        Self::TooManySessions,
        Self::TargetUnavailable,
        Self::AuditUnavailable,
        Self::SessionExpired,
        Self::StatementTimeout,
        Self::IdleInTransaction,
        Self::IdleSession,
        Self::ProtocolViolation,
        Self::Internal,
    ];

    /// The label in metrics and audit records.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TlsRequired => "tls_required",
            Self::TokenMissing => "token_missing",
            Self::TokenRejected => "token_rejected",
            Self::NotPermitted => "not_permitted",
            Self::TooManySessions => "too_many_sessions",
            Self::TargetUnavailable => "target_unavailable",
            Self::AuditUnavailable => "audit_unavailable",
            Self::SessionExpired => "session_expired",
            Self::StatementTimeout => "statement_timeout",
            Self::IdleInTransaction => "idle_in_transaction",
            Self::IdleSession => "idle_session",
            Self::ProtocolViolation => "protocol_violation",
            Self::Internal => "internal",
        }
    }
}

/// Why, in the detail that a client may know. Typed, so that no internal text can slip through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    TokenInClear,
    NoToken,
    /// An empty password from a protocol whose drivers drop long ones.
    PasswordDropped,
    /// A way to log in that brings no token of ours.
    LoginWay {
        what: &'static str,
    },
    /// Not three base64url parts, too long, or not a JWT at all.
    TokenMalformed,
    TokenExpired {
        ago: Duration,
    },
    TokenNotYetValid,
    TokenSignature,
    TokenIssuerUnknown,
    TokenAudience,
    /// An ID token, or a token of another kind than an access token.
    TokenNotAccess,
    TokenClaims,
    /// A ticket that is none, or none any more, or not for this connection. One reason for all of it:
    /// whoever found or guessed one does not learn what is wrong with it.
    TicketUnknown,
    /// The provider's keys cannot be had, so nothing can be verified.
    ProviderUnavailable,
    /// A start-up parameter holds what looks like a token and would end in server logs.
    TokenInParameter {
        parameter: &'static str,
    },
    /// No rule grants it, or a deny fired. Lists the caller's own roles at this target, which is
    /// empty for a stranger and for an unknown target alike.
    NoGrant {
        own_roles: Vec<RoleName>,
    },
    /// The statement would change who the login is (`SET ROLE`, `ALTER ROLE` …).
    EscapeStatement {
        what: &'static str,
    },
    /// A start-up parameter that is not allowed through.
    StartupParameter {
        name: String,
    },
    /// The database refuses what the start-up packet asks to be set.
    SettingsRefused,
    SessionLimit {
        limit: u32,
    },
    /// The sessions of all identities under one rule.
    RuleLimit {
        limit: u32,
    },
    QueueTimeout {
        waited: Duration,
    },
    TargetDown,
    LoginNotMinted,
    JournalFailed,
    /// A transaction got no row in the table of markers.
    NotMarked {
        table: MarkerTable,
    },
    /// The rule wants writes to say what message they belong to.
    CorrelationMissing,
    SessionLifeOver,
    /// The token that opened the session has expired.
    IdentityExpired,
    /// A reload of the policy took away what this session was granted.
    PolicyChanged,
    /// An operator withdrew the identity, its client, its token or the session.
    Revoked,
    /// An operator ended this session; nothing keeps the client from coming back.
    EndedByOperator,
    /// The session's database login was changed behind gatepost's back.
    LoginTampered,
    StatementTimeout {
        limit: Duration,
    },
    IdleInTransaction {
        limit: Duration,
    },
    IdleSession {
        limit: Duration,
    },
    ShuttingDown,
    TimedOut {
        what: &'static str,
    },
    Malformed {
        what: &'static str,
    },
    TooLarge {
        what: &'static str,
        limit: usize,
    },
    Unsupported {
        what: &'static str,
    },
    Internal,
}

/// A refusal on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: RefusalCode,
    pub reason: Reason,
    /// The session under which the operator finds the rest.
    pub reference: SessionId,
}

/// An error that knows what a client may be told of it. There is no default, and it is never
/// implemented for library errors: their text is internal.
pub trait Refuse: std::error::Error {
    fn refusal(&self) -> (RefusalCode, Reason);
}

impl Refusal {
    /// One clear sentence, lower case, no full stop.
    pub fn sentence(&self) -> String {
        self.reason.to_string()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        self.reason.hint()
    }

    /// How the operator finds it.
    pub fn detail(&self) -> String {
        format!("gatepost session {}", self.reference)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = match self {
            Self::TokenExpired { ago } => {
                let ago = humantime::format_duration(seconds(*ago));
                return write!(f, "token expired {ago} ago");
            }
            Self::TokenInParameter { parameter } => {
                return write!(f, "the {parameter} looks like a token");
            }
            Self::EscapeStatement { what } => return write!(f, "{what} is not permitted through gatepost"),
            Self::StartupParameter { name } => {
                return write!(f, "start-up parameter \"{name}\" is not permitted");
            }
            Self::SessionLimit { limit } => return write!(f, "too many sessions: the limit is {limit}"),
            Self::RuleLimit { limit } => {
                return write!(f, "too many sessions under this rule: the limit is {limit}");
            }
            Self::StatementTimeout { limit } => {
                let limit = humantime::format_duration(*limit);
                return write!(f, "the statement ran longer than the limit of {limit}");
            }
            Self::IdleInTransaction { limit } => {
                let limit = humantime::format_duration(*limit);
                return write!(f, "the transaction was idle longer than the limit of {limit}");
            }
            Self::IdleSession { limit } => {
                let limit = humantime::format_duration(*limit);
                return write!(f, "the session was idle longer than the limit of {limit}");
            }
            Self::QueueTimeout { waited } => {
                let waited = humantime::format_duration(seconds(*waited));
                return write!(f, "no database connection became free within {waited}");
            }
            Self::LoginWay { what } => return write!(f, "{what} is not possible through gatepost"),
            Self::TimedOut { what } => return write!(f, "{what} took too long"),
            Self::Malformed { what } => return write!(f, "malformed {what}"),
            Self::TooLarge { what, limit } => {
                return write!(f, "{what} is larger than the limit of {limit} bytes");
            }
            Self::NotMarked { table } => return write!(f, "table {table} took no marker: not committed"),
            Self::Unsupported { what } => return write!(f, "{what} is not supported"),
            Self::TokenInClear => "a token is only accepted inside TLS",
            Self::NoToken => "no token was sent",
            Self::PasswordDropped => "no token was sent: the password is empty",
            Self::TokenMalformed => "the password is not a token",
            Self::TokenNotYetValid => "token is not valid yet",
            Self::TokenSignature => "token signature cannot be verified",
            Self::TokenIssuerUnknown => "token issuer is not a configured identity provider",
            Self::TokenAudience => "token was issued for another audience",
            Self::TokenNotAccess => "token is not an access token",
            Self::TokenClaims => "token lacks a required claim or has one of the wrong type",
            Self::TicketUnknown => {
                "the ticket is unknown, expired or used up, or is for another address or database"
            }
            Self::ProviderUnavailable => "the identity provider's keys are not available",
            Self::NoGrant { .. } => "no rule permits this identity, database and role",
            Self::SettingsRefused => "the database refuses the start-up settings",
            Self::TargetDown => "the database is not reachable",
            Self::LoginNotMinted => "no database login could be made for this identity",
            Self::JournalFailed => "the audit journal cannot be written, so writes are refused",
            Self::CorrelationMissing => "the policy requires a correlation id for writes, and there is none",
            Self::SessionLifeOver => "the session has reached its maximum life",
            Self::IdentityExpired => "the token of this session has expired",
            Self::PolicyChanged => "the policy changed and no longer grants this session",
            Self::Revoked => "access was revoked",
            Self::EndedByOperator => "an operator ended this session",
            Self::LoginTampered => "the session's database login was changed and has been withdrawn",
            Self::ShuttingDown => "gatepost is shutting down",
            Self::Internal => "internal error",
        };
        f.write_str(fixed)
    }
}

const PASSWORD_DROPPED_HINT: &str = "FreeTDS clients (pymssql is one) send an empty password in place of one over 128 characters. \
     Exchange the token for a ticket (POST /v1/ticket) and send that as the password.";
const UNSUPPORTED_HINT: &str = "Change the client driver's settings or take a newer one; \
     on PostgreSQL client_encoding UTF8 always works.";

const CORRELATION_HINT: &str = "Set it in the transaction: SET LOCAL gatepost.correlation_id = '...' on PostgreSQL, \
     EXEC sp_set_session_context N'correlation_id', N'...' on SQL Server, or send a traceparent in a comment.";

impl Reason {
    fn hint(&self) -> Option<String> {
        let fixed = match self {
            Self::NoGrant { own_roles } if own_roles.is_empty() => {
                "Check the database name, the user (a role's name or \"auto\") and the policy; \
                 \"gatepost explain\" shows which rule decides."
            }
            Self::NoGrant { own_roles } => {
                let roles: Vec<_> = own_roles.iter().map(RoleName::as_str).collect();
                return Some(format!(
                    "Your roles here: {}. Connect with one of them as user.",
                    roles.join(", ")
                ));
            }
            Self::TokenInClear => "Connect with TLS (sslmode=verify-full, or at least sslmode=require).",
            Self::NoToken => NO_TOKEN_HINT,
            Self::TokenMalformed => TOKEN_MALFORMED_HINT,
            Self::PasswordDropped => PASSWORD_DROPPED_HINT,
            Self::LoginWay { .. } => "Connect with an access token, or send it or a ticket as the password.",
            Self::TicketUnknown => TICKET_UNKNOWN_HINT,
            Self::TokenExpired { .. } => "Fetch a new access token and connect again.",
            Self::TokenNotYetValid => "Compare the clocks of this machine and of the identity provider.",
            Self::TokenSignature => "Fetch a new access token from the configured identity provider.",
            Self::TokenIssuerUnknown => "Use a token from an identity provider that gatepost.yaml names.",
            Self::TokenAudience => "Request the token for the audience that gatepost expects.",
            Self::TokenNotAccess => "Send the access token, not the ID token.",
            Self::TokenClaims => {
                "Ask the operator to compare the token's claims with what this provider should issue."
            }
            Self::ProviderUnavailable | Self::TargetDown | Self::LoginNotMinted => {
                "Try again shortly; if it stays so, tell the operator the session reference."
            }
            Self::ShuttingDown => "Connect again.",
            Self::TokenInParameter { .. } => {
                "Put the token in the password field only; names and options end in logs. Treat this token as exposed."
            }
            Self::EscapeStatement { .. } => {
                "Connect with the role that you need as user and with client_encoding UTF8; \
                 roles and logins are the operator's to change."
            }
            Self::StartupParameter { .. } => "Remove it from the connection settings.",
            Self::SettingsRefused => "Try the settings of the connection's options with SET in a session.",
            Self::SessionLimit { .. } | Self::RuleLimit { .. } | Self::QueueTimeout { .. } => {
                "Close idle connections or ask the operator for a higher limit."
            }
            Self::JournalFailed => {
                "Tell the operator: the audit directory is full or failing. Reads still work."
            }
            Self::NotMarked { table } => return Some(how_to_mark(table)),
            Self::CorrelationMissing => CORRELATION_HINT,
            Self::SessionLifeOver | Self::EndedByOperator => "Connect again.",
            Self::LoginTampered => "Connect again: another login is made. The change is on record.",
            Self::PolicyChanged => "Connect again; \"gatepost explain\" shows what the policy grants now.",
            Self::Revoked => "Ask the operator; a new token does not help while the revocation lasts.",
            Self::StatementTimeout { .. } => {
                "Make the statement shorter, or ask the operator for a higher limits.statement_timeout."
            }
            Self::IdleInTransaction { .. } => {
                "Commit or roll back before waiting for something else; the transaction was rolled back."
            }
            Self::IdleSession { .. } => "Connect again when there is work, or keep connections in use.",
            Self::IdentityExpired => "Connect again with a new token.",
            Self::TooLarge { .. } => {
                "Send less at once; large values belong into parameters or COPY. \
                 See the limits in gatepost's documentation."
            }
            Self::Unsupported { .. } => UNSUPPORTED_HINT,
            Self::TimedOut { .. } | Self::Malformed { .. } => "Check the client driver and its settings.",
            Self::Internal => "Tell the operator the session reference.",
        };
        Some(fixed.to_owned())
    }
}

/// For whoever may create tables in the session's database.
fn how_to_mark(table: &MarkerTable) -> String {
    let (creation, quoted) = (table.creation(), table.quoted());
    format!(
        "Roll back. The operator runs in this database: {creation}; and GRANT INSERT ON {quoted} TO the role, or \
         \"gatepost roles apply\"."
    )
}

fn seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_and_an_unknown_target_read_the_same() {
        let stranger = Reason::NoGrant { own_roles: vec![] };
        assert_eq!(
            stranger.to_string(),
            "no rule permits this identity, database and role"
        );
        assert!(stranger.hint().unwrap().contains("gatepost explain"));
    }

    #[test]
    fn own_roles_are_listed() {
        let reason = Reason::NoGrant {
            own_roles: vec!["orders_writer".into()],
        };
        assert!(reason.hint().unwrap().contains("orders_writer"));
    }
}
