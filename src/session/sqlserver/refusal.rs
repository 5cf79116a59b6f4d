//! Refusals in SQL Server's words: one total table from code to error number, state and class.

use crate::domain::refusal::{Refusal, RefusalCode};
use crate::wire::tds::event::{DoneKind, DoneStatus};
use crate::wire::tds::packet;
use crate::wire::tds::reply::{self, Said};

/// Who says it.
pub(super) const SERVER_NAME: &str = "gatepost";

/// Class 14: for want of a permission. Drivers keep the connection.
const CLASS_PERMISSION: u8 = 14;
/// Class 16: an error that the user can put right.
const CLASS_USER: u8 = 16;
/// From class 20 on drivers drop the connection.
const CLASS_FATAL: u8 = 20;

/// Login failed.
const LOGIN_FAILED: i32 = 18456;
/// The permission was denied on the object.
const PERMISSION_DENIED: i32 = 229;
/// The limit of a resource is reached.
const LIMIT_REACHED: i32 = 10928;
/// The database is not available now: what drivers try again.
const NOT_AVAILABLE: i32 = 40613;
/// The token stream is malformed: the client's driver is broken.
const PROTOCOL_ERROR: i32 = 4002;
/// An error without a number of its own, as RAISERROR makes it.
const USER_ERROR: i32 = 50_000;

/// An error's number, state and class.
type Told = (i32, u8, u8);

/// While the client logs in: every driver prints a failed login, and gives up by its number.
const fn at_login(code: RefusalCode) -> Told {
    match code {
        RefusalCode::TlsRequired => (LOGIN_FAILED, 2, CLASS_PERMISSION),
        RefusalCode::TokenMissing | RefusalCode::TokenRejected | RefusalCode::NotPermitted => {
            (LOGIN_FAILED, 1, CLASS_PERMISSION)
        }
        RefusalCode::TooManySessions
        | RefusalCode::TargetUnavailable
        | RefusalCode::AuditUnavailable
        | RefusalCode::SessionExpired
        | RefusalCode::StatementTimeout
        | RefusalCode::IdleInTransaction
        | RefusalCode::IdleSession
        | RefusalCode::ProtocolViolation
        | RefusalCode::Internal => in_session(code),
    }
}

/// For a statement, and for the end of a session: from class 20 on drivers drop the connection.
const fn in_session(code: RefusalCode) -> Told {
    match code {
        RefusalCode::TlsRequired | RefusalCode::TokenMissing | RefusalCode::TokenRejected => {
            (LOGIN_FAILED, 1, CLASS_FATAL)
        }
        RefusalCode::NotPermitted => (PERMISSION_DENIED, 5, CLASS_PERMISSION),
        RefusalCode::TooManySessions => (LIMIT_REACHED, 1, CLASS_USER),
        RefusalCode::TargetUnavailable => (NOT_AVAILABLE, 1, CLASS_FATAL),
        RefusalCode::AuditUnavailable => (NOT_AVAILABLE, 1, CLASS_USER),
        RefusalCode::SessionExpired | RefusalCode::IdleInTransaction | RefusalCode::IdleSession => {
            (NOT_AVAILABLE, 1, CLASS_FATAL)
        }
        RefusalCode::StatementTimeout => (USER_ERROR, 1, CLASS_USER),
        RefusalCode::ProtocolViolation => (PROTOCOL_ERROR, 1, CLASS_FATAL),
        RefusalCode::Internal => (USER_ERROR, 1, CLASS_FATAL),
    }
}

/// Sentence, hint and reference in one text: the protocol has no field for the latter two.
fn text(refusal: &Refusal) -> String {
    let (sentence, detail) = (refusal.sentence(), refusal.detail());
    match refusal.hint() {
        Some(hint) => format!("{sentence}. {hint} ({detail})"),
        None => format!("{sentence} ({detail})"),
    }
}

fn put(payload: &mut Vec<u8>, (number, state, class): Told, refusal: &Refusal) {
    let text = text(refusal);
    reply::put_error(
        payload,
        &Said {
            number,
            state,
            class,
            text: &text,
            server: SERVER_NAME,
            procedure: "",
            line: 1,
        },
    );
}

/// The payload that ends a login.
pub(super) fn put_at_login(payload: &mut Vec<u8>, refusal: &Refusal) {
    put(payload, at_login(refusal.code), refusal);
    reply::put_done(payload, DoneKind::Batch, DoneStatus::ERROR, 0, 0);
}

/// The ERROR of a statement that is refused; its DONE is the caller's.
pub(super) fn put_in_session(payload: &mut Vec<u8>, refusal: &Refusal) {
    put(payload, in_session(refusal.code), refusal);
}

/// The ERROR that ends a session, whatever its code has for a statement.
pub(super) fn put_farewell(payload: &mut Vec<u8>, refusal: &Refusal) {
    let (number, state, _) = in_session(refusal.code);
    put(payload, (number, state, CLASS_FATAL), refusal);
    reply::put_done(payload, DoneKind::Batch, DoneStatus::ERROR, 0, 0);
}

/// A reply of one message at the size that holds before and after the login.
pub(super) fn put_reply(out: &mut Vec<u8>, spid: u16, payload: &[u8]) {
    packet::put_reply(out, spid, packet::LOGIN_PACKET_BYTES, payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_at_login_lets_a_driver_think_that_it_may_go_on() {
        for code in RefusalCode::ALL {
            assert!(at_login(code).2 >= CLASS_PERMISSION, "{code:?}");
        }
    }

    #[test]
    fn the_numbers_of_the_design() {
        assert_eq!(at_login(RefusalCode::TlsRequired), (18456, 2, 14));
        assert_eq!(at_login(RefusalCode::TokenRejected).0, 18456);
        assert_eq!(at_login(RefusalCode::NotPermitted).0, 18456);
        assert_eq!(in_session(RefusalCode::NotPermitted).0, 229);
        assert_eq!(in_session(RefusalCode::TooManySessions).0, 10928);
        assert_eq!(in_session(RefusalCode::TargetUnavailable).0, 40613);
        assert_eq!(in_session(RefusalCode::AuditUnavailable).0, 40613);
        assert_eq!(in_session(RefusalCode::SessionExpired), (40613, 1, 20));
        assert_eq!(in_session(RefusalCode::ProtocolViolation), (4002, 1, 20));
    }
}
