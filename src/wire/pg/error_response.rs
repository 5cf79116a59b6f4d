//! The error that we ourselves send to a client.

use crate::wire::pg::frame;
use crate::wire::pg::from_server::tag;

/// SQLSTATEs of our refusals (PostgreSQL documentation, appendix "PostgreSQL Error Codes").
pub mod sqlstate {
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const CONNECTION_FAILURE: &str = "08006";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const INVALID_AUTHORIZATION: &str = "28000";
    pub const INVALID_PASSWORD: &str = "28P01";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub const IDLE_IN_TRANSACTION: &str = "25P03";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const IDLE_SESSION: &str = "57P05";
    pub const IO_ERROR: &str = "58030";
    pub const INTERNAL_ERROR: &str = "XX000";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the connection lives on.
    Error,
    /// The connection is closed after this.
    Fatal,
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    pub severity: Severity,
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: Option<&'a str>,
    pub hint: Option<&'a str>,
}

/// Appends an ErrorResponse ("Error and Notice Message Fields"). NULs in texts are left out.
pub fn put_error(out: &mut Vec<u8>, error: &ErrorFields<'_>) {
    let severity = error.severity.word();
    let fields = [
        (b'S', Some(severity)),
        (b'V', Some(severity)), // never localised, unlike S; since 9.6
        (b'C', Some(error.sqlstate)),
        (b'M', Some(error.message)),
        (b'D', error.detail),
        (b'H', error.hint),
    ];
    frame::put(out, tag::ERROR_RESPONSE, |body| {
        for (code, text) in fields {
            if let Some(text) = text {
                body.push(code);
                frame::put_cstr(body, text.as_bytes());
            }
        }
        body.push(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_order_without_nuls() {
        let mut out = Vec::new();
        put_error(
            &mut out,
            &ErrorFields {
                severity: Severity::Fatal,
                sqlstate: sqlstate::INVALID_AUTHORIZATION,
                message: "a token\0 is",
                detail: None,
                hint: Some("Connect"),
            },
        );
        assert_eq!(
            out,
            b"E\0\0\0\x2fSFATAL\0VFATAL\0C28000\0Ma token is\0HConnect\0\0"
        );
    }
}
