//! Everything that a client can be told, as one table: `docs/refusals.md` must say the same.

use std::collections::BTreeSet;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use super::*;
use crate::domain::clock::Random;
use crate::domain::ids::SessionId;
use crate::domain::refusal::Reason;

/// A reason with the code that it comes with, and when.
type Row = (RefusalCode, Reason, &'static str);

const LIMIT: Duration = Duration::from_secs(15);

fn about_tokens() -> Vec<Row> {
    use RefusalCode::{TlsRequired, TokenMissing, TokenRejected};
    let ago = Duration::from_secs(90);
    vec![
        (TlsRequired, Reason::TokenInClear, "a start-up packet outside TLS"),
        (TokenMissing, Reason::NoToken, "an empty password"),
        (
            TokenRejected,
            Reason::TokenMalformed,
            "a password that is no JWT, or too long for one",
        ),
        (TokenRejected, Reason::TokenExpired { ago }, "`exp` has passed"),
        (
            TokenRejected,
            Reason::TokenNotYetValid,
            "`nbf` or `iat` lies ahead",
        ),
        (
            TokenRejected,
            Reason::TokenSignature,
            "wrong key, algorithm or signature",
        ),
        (
            TokenRejected,
            Reason::TokenIssuerUnknown,
            "`iss` is nobody that gatepost.yaml names",
        ),
        (
            TokenRejected,
            Reason::TokenAudience,
            "`aud` is not one of the provider's `audiences`",
        ),
        (
            TokenRejected,
            Reason::TokenNotAccess,
            "an ID token, or another kind",
        ),
        (
            TokenRejected,
            Reason::TokenClaims,
            "no subject, say, or groups that are no list",
        ),
        (
            TokenRejected,
            Reason::TicketUnknown,
            "a password that begins with `gpt_`; which of these it is stands in the log",
        ),
        (
            TokenRejected,
            Reason::ProviderUnavailable,
            "the keys could not be fetched, and none are kept",
        ),
        (
            TokenRejected,
            Reason::TokenInParameter {
                parameter: "user name",
            },
            "user, database, application name or options look like a JWT or a ticket; never repeated",
        ),
    ]
}

/// Of SQL Server's logins, told with the same sentences.
fn about_logins() -> Vec<Row> {
    use RefusalCode::TokenMissing;
    vec![
        (
            TokenMissing,
            Reason::PasswordDropped,
            "an empty password from a SQL Server client",
        ),
        (
            TokenMissing,
            Reason::LoginWay {
                what: "a Windows login",
            },
            "a login to SQL Server that brings no token: Windows authentication, a new password",
        ),
    ]
}

fn about_packets() -> Vec<Row> {
    use RefusalCode::{NotPermitted, ProtocolViolation};
    vec![
        (
            NotPermitted,
            Reason::StartupParameter {
                name: "role".to_owned(),
            },
            "a setting that would change who the login is",
        ),
        (
            ProtocolViolation,
            Reason::Malformed {
                what: "start-up packet",
            },
            "bytes that are not the protocol",
        ),
        (
            ProtocolViolation,
            Reason::TooLarge {
                what: "message",
                limit: 10_000,
            },
            "more than a limit allows",
        ),
        (
            ProtocolViolation,
            Reason::Unsupported {
                what: "this client_encoding",
            },
            "a protocol version, or an encoding such as SJIS, in which texts cannot be read byte by byte",
        ),
        (
            ProtocolViolation,
            Reason::TimedOut { what: "the login" },
            "no token within 30 seconds",
        ),
    ]
}

fn about_access() -> Vec<Row> {
    use RefusalCode::{AuditUnavailable, Internal, NotPermitted, TargetUnavailable, TooManySessions};
    let (none, some) = (Vec::new(), vec!["orders_writer".into()]);
    vec![
        (
            NotPermitted,
            Reason::NoGrant { own_roles: none },
            "no rule grants it, a rule denies it, or there is no such database",
        ),
        (
            NotPermitted,
            Reason::NoGrant { own_roles: some },
            "the same, for an identity with other roles there",
        ),
        (
            NotPermitted,
            Reason::Revoked,
            "an operator withdrew the identity, its client, its token or the session",
        ),
        (
            NotPermitted,
            Reason::EscapeStatement { what: "SET ROLE" },
            "a statement that would change who the login is",
        ),
        (
            NotPermitted,
            Reason::SettingsRefused,
            "an unknown setting, a wrong value, or one for superusers",
        ),
        (
            TooManySessions,
            Reason::SessionLimit { limit: 200 },
            "`limits.sessions` of the rule, for one identity",
        ),
        (
            TooManySessions,
            Reason::RuleLimit { limit: 500 },
            "the limit of the rule, for all its identities together",
        ),
        (
            TooManySessions,
            Reason::QueueTimeout { waited: LIMIT },
            "`pool.queue_timeout` passed",
        ),
        (
            TargetUnavailable,
            Reason::TargetDown,
            "the server is down, full, or does not let gatepost in",
        ),
        (
            TargetUnavailable,
            Reason::LoginNotMinted,
            "the broker lacks a right, or a role is missing",
        ),
        (
            TargetUnavailable,
            Reason::ShuttingDown,
            "the process ends while a login is being made",
        ),
        (
            TargetUnavailable,
            Reason::LoginTampered,
            "the login was changed behind gatepost's back",
        ),
        (
            AuditUnavailable,
            Reason::JournalFailed,
            "the audit directory is full or failing",
        ),
        (Internal, Reason::Internal, "a mistake in gatepost"),
    ]
}

fn about_sessions() -> Vec<Row> {
    use RefusalCode::{IdleInTransaction, IdleSession, NotPermitted, SessionExpired, StatementTimeout};
    let limit = LIMIT;
    vec![
        (
            NotPermitted,
            Reason::CorrelationMissing,
            "`correlation: required`, and a write that carries no id of its client's",
        ),
        (
            SessionExpired,
            Reason::SessionLifeOver,
            "`session_max` of the rule, at a transaction's end",
        ),
        (
            SessionExpired,
            Reason::IdentityExpired,
            "`exp` of the session's token, at a transaction's end",
        ),
        (
            SessionExpired,
            Reason::PolicyChanged,
            "a reload took the grant away",
        ),
        (
            SessionExpired,
            Reason::Revoked,
            "a revocation met an open session",
        ),
        (
            SessionExpired,
            Reason::EndedByOperator,
            "`gatepost sessions kill`",
        ),
        (SessionExpired, Reason::ShuttingDown, "the process ends"),
        (
            StatementTimeout,
            Reason::StatementTimeout { limit },
            "`limits.statement_timeout`; the session goes on",
        ),
        (
            IdleInTransaction,
            Reason::IdleInTransaction { limit },
            "`limits.idle_in_transaction`",
        ),
        (
            IdleSession,
            Reason::IdleSession { limit },
            "the rule's limit for sessions without work",
        ),
    ]
}

fn about_markers() -> Vec<Row> {
    let table = "gatepost.markers".parse().unwrap();
    vec![(
        RefusalCode::AuditUnavailable,
        Reason::NotMarked { table },
        "SQL Server: `marker_table` is set, and the table or the right to it is missing; the transaction stays open",
    )]
}

fn rows() -> Vec<Row> {
    [
        about_tokens(),
        about_logins(),
        about_packets(),
        about_access(),
        about_sessions(),
        about_markers(),
    ]
    .concat()
}

/// Fails to compile when a reason is added: then add it to the rows too, and here.
const fn number(reason: &Reason) -> usize {
    match reason {
        Reason::TokenInClear => 0,
        Reason::NoToken => 1,
        Reason::TokenMalformed => 2,
        Reason::TokenExpired { .. } => 3,
        Reason::TokenNotYetValid => 4,
        Reason::TokenSignature => 5,
        Reason::TokenIssuerUnknown => 6,
        Reason::TokenAudience => 7,
        Reason::TokenNotAccess => 8,
        Reason::TokenClaims => 9,
        Reason::ProviderUnavailable => 10,
        Reason::TokenInParameter { .. } => 11,
        Reason::NoGrant { .. } => 12,
        Reason::EscapeStatement { .. } => 13,
        Reason::StartupParameter { .. } => 14,
        Reason::SettingsRefused => 15,
        Reason::SessionLimit { .. } => 16,
        Reason::RuleLimit { .. } => 17,
        Reason::QueueTimeout { .. } => 18,
        Reason::TargetDown => 19,
        Reason::LoginNotMinted => 20,
        Reason::JournalFailed => 21,
        Reason::SessionLifeOver => 22,
        Reason::IdentityExpired => 23,
        Reason::PolicyChanged => 24,
        Reason::Revoked => 25,
        Reason::EndedByOperator => 26,
        Reason::LoginTampered => 27,
        Reason::StatementTimeout { .. } => 28,
        Reason::IdleInTransaction { .. } => 29,
        Reason::IdleSession { .. } => 30,
        Reason::ShuttingDown => 31,
        Reason::TimedOut { .. } => 32,
        Reason::Malformed { .. } => 33,
        Reason::TooLarge { .. } => 34,
        Reason::Unsupported { .. } => 35,
        Reason::Internal => 36,
        Reason::PasswordDropped => 37,
        Reason::LoginWay { .. } => 38,
        Reason::TicketUnknown => 39,
        Reason::CorrelationMissing => 40,
        Reason::NotMarked { .. } => 41,
    }
}
const REASONS: usize = 42;

#[derive(Debug)]
struct Zero;
impl Random for Zero {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

fn refusal((code, reason, _): &Row) -> Refusal {
    Refusal {
        code: *code,
        reason: reason.clone(),
        reference: SessionId::random(&Zero),
    }
}

fn table() -> String {
    let mut table =
        String::from("| code | SQLSTATE | sentence | hint | when |\n| --- | --- | --- | --- | --- |\n");
    for row in rows() {
        let refusal = refusal(&row);
        table.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            row.0.label(),
            sqlstate_of(row.0),
            refusal.sentence(),
            refusal.hint().unwrap_or_default(),
            row.2
        ));
    }
    table
}

#[test]
fn the_documented_table_is_this_one() {
    let page = include_str!("../../../../docs/refusals.md");
    let table = table();
    assert!(
        page.contains(&table),
        "docs/refusals.md has another table than:\n{table}"
    );
}

#[test]
fn every_reason_and_every_code_has_its_row() {
    let numbers: BTreeSet<_> = rows().iter().map(|row| number(&row.1)).collect();
    assert_eq!(numbers, (0..REASONS).collect());
    for code in RefusalCode::ALL {
        assert!(rows().iter().any(|row| row.0 == code), "{code:?}");
        let state = sqlstate_of(code);
        let plain = state.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(state.len() == 5 && plain, "{code:?}");
    }
}

/// What a client reads is short, says what to do, and speaks of nothing behind the door.
#[test]
fn sentences_are_short_and_hints_say_what_to_do() {
    const INSIDE: [&str; 12] = [
        "upstream", "checkout", "lease", "broker", "prelude", "relay", "mutex", "channel", "panic", "socket",
        "/var", "::",
    ];
    let mut same: Vec<(Discriminant<Reason>, String)> = Vec::new();
    for row in rows() {
        let refusal = refusal(&row);
        let (sentence, hint) = (refusal.sentence(), refusal.hint().unwrap());
        assert!(sentence.len() < 100 && !sentence.ends_with('.'), "{sentence}");
        assert!(
            sentence
                .starts_with(|c: char| c.is_lowercase() || c == '"' || row.1.to_string().starts_with("SET")),
            "{sentence}"
        );
        assert!(
            hint.len() > 10 && hint.ends_with('.') && hint.starts_with(char::is_uppercase),
            "{hint}"
        );
        for inside in INSIDE {
            assert!(
                !format!("{sentence} {hint}").contains(inside),
                "{sentence} {hint}"
            );
        }
        // Whoever sees a sentence can find its row.
        let kind = discriminant(&row.1);
        assert!(
            !same
                .iter()
                .any(|(other, known)| *known == sentence && *other != kind),
            "{sentence}"
        );
        same.push((kind, sentence));
    }
}

#[test]
fn all_of_it_is_in_the_message() {
    for row in rows() {
        let refusal = refusal(&row);
        let mut out = Vec::new();
        put_refusal(&mut out, Severity::Fatal, &refusal);
        let text = String::from_utf8_lossy(&out);
        for part in [
            format!("C{}\0", sqlstate_of(row.0)),
            format!("M{}\0", refusal.sentence()),
            format!("H{}\0", refusal.hint().unwrap()),
            format!("Dgatepost session {}\0", refusal.reference),
        ] {
            assert!(text.contains(&part), "{part} is not in {text}");
        }
    }
}
