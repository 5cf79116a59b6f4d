//! Refusals in PostgreSQL's words: one total table from code to SQLSTATE.

use crate::domain::refusal::{Refusal, RefusalCode};
use crate::wire::pg::error_response::{ErrorFields, Severity, put_error, sqlstate};

/// The SQLSTATE of a refusal. Drivers act on it: 08006 and 57P01 are retried, 28xxx are not.
pub(in crate::session) const fn sqlstate_of(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::TlsRequired | RefusalCode::TokenRejected => sqlstate::INVALID_AUTHORIZATION,
        RefusalCode::TokenMissing => sqlstate::INVALID_PASSWORD,
        RefusalCode::NotPermitted => sqlstate::INSUFFICIENT_PRIVILEGE,
        RefusalCode::TooManySessions => sqlstate::TOO_MANY_CONNECTIONS,
        RefusalCode::TargetUnavailable => sqlstate::CONNECTION_FAILURE,
        RefusalCode::AuditUnavailable => sqlstate::IO_ERROR,
        RefusalCode::SessionExpired => sqlstate::ADMIN_SHUTDOWN,
        RefusalCode::StatementTimeout => sqlstate::QUERY_CANCELED,
        RefusalCode::IdleInTransaction => sqlstate::IDLE_IN_TRANSACTION,
        RefusalCode::IdleSession => sqlstate::IDLE_SESSION,
        RefusalCode::ProtocolViolation => sqlstate::PROTOCOL_VIOLATION,
        RefusalCode::Internal => sqlstate::INTERNAL_ERROR,
    }
}

/// Appends the ErrorResponse that tells a client why, and under which reference to ask.
pub(in crate::session) fn put_refusal(out: &mut Vec<u8>, severity: Severity, refusal: &Refusal) {
    let (message, detail, hint) = (refusal.sentence(), refusal.detail(), refusal.hint());
    let fields = ErrorFields {
        severity,
        sqlstate: sqlstate_of(refusal.code),
        message: &message,
        detail: Some(&detail),
        hint: hint.as_deref(),
    };
    put_error(out, &fields);
}

#[cfg(test)]
mod tests;
