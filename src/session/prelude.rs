//! What a session sets on its upstream connection before the client is welcomed: the things that
//! differ between sessions which share a pool. Each protocol has its own words for them.

use std::io;

use crate::audit::Marking;
use crate::audit::record::Facts;
use crate::domain::autocommit::Autocommit;
use crate::domain::correlation::Correlation;
use crate::domain::ids::SessionId;
use crate::domain::refusal::{Reason, RefusalCode, Refuse};
use crate::wire::PeerMisbehaved;

/// What a session has of its own.
#[derive(Debug)]
pub(super) struct Prelude<'a> {
    /// If not, only what one client could have done to all others is looked for.
    pub(super) minted: bool,
    /// What the client calls itself.
    pub(super) application: Option<&'a str>,
    pub(super) session: SessionId,
    pub(super) correlation: Option<&'a Correlation>,
    /// What its transactions are marked with, where they are.
    pub(super) marker: Option<&'a Marking>,
    pub(super) autocommit: Autocommit,
    /// Who it is, as far as the database is to know.
    pub(super) facts: &'a Facts,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PreludeError {
    #[error("the server did not answer in time")]
    TimedOut,
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    #[error("the server broke the protocol")]
    Misbehaved(#[from] PeerMisbehaved),
    #[error("the server refused a setting, error {code}")]
    Refused { code: String },
    #[error("the server left the transaction open")]
    NotIdle,
    /// What was set is not what is there.
    #[error("the server did not take {what}")]
    NotTaken { what: &'static str },
    /// Names only; values may hold anything.
    #[error("the login {what}")]
    Tampered { what: String },
}

impl Refuse for PreludeError {
    fn refusal(&self) -> (RefusalCode, Reason) {
        let reason = match self {
            Self::Tampered { .. } => Reason::LoginTampered,
            Self::TimedOut
            | Self::Broken(_)
            | Self::Misbehaved(_)
            | Self::Refused { .. }
            | Self::NotIdle
            | Self::NotTaken { .. } => Reason::TargetDown,
        };
        (RefusalCode::TargetUnavailable, reason)
    }
}
