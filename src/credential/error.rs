//! What can go wrong between gatepost and a database server, told apart by SQLSTATE or number.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::audit::JournalError;
use crate::credential::sqlserver::error::Failure;
use crate::domain::refusal::{Reason, RefusalCode, Refuse};
use crate::domain::target::TargetName;

/// An error of the broker: for logs, `/readyz` and `check --live`. Never shown to a client.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("database server of target {target} cannot be reached: {why}")]
    Unreachable { target: TargetName, why: String },
    #[error("database server of target {target} refuses the broker's password or token ({code})")]
    WrongPassword {
        target: TargetName,
        /// The engine's own word for it, as everywhere below.
        code: &'static str,
    },
    #[error("database server of target {target} refuses the broker ({code}): {why}")]
    NotAdmitted {
        target: TargetName,
        code: &'static str,
        why: String,
    },
    #[error("the broker may not do this at target {target} ({code}): missing {missing}; run: {sql}")]
    MissingPrivilege {
        target: TargetName,
        code: &'static str,
        missing: String,
        /// What an administrator runs to grant it.
        sql: String,
    },
    #[error("role {role} does not exist at target {target} ({code}); run: {sql}")]
    MissingRole {
        target: TargetName,
        code: &'static str,
        role: String,
        sql: String,
    },
    #[error("{what} at target {target} took longer than {} s", limit.as_secs())]
    TimedOut {
        target: TargetName,
        what: &'static str,
        limit: Duration,
    },
    #[error("{what} failed at target {target}")]
    Server {
        target: TargetName,
        what: &'static str,
        #[source]
        source: ServerError,
    },
    #[error("the {what} could not be recorded, so it was not done")]
    Journal {
        what: &'static str,
        #[source]
        source: JournalError,
    },
    #[error(
        "{limit} logins of this installation exist at target {target}, and no more are minted; run: gatepost doctor"
    )]
    TooManyLogins { target: TargetName, limit: usize },
    #[error(
        "the rotation at target {target} stopped after {replaced} logins were replaced and {dropped} dropped; \
         {left} are as they were: {why}"
    )]
    Rotation {
        target: TargetName,
        replaced: usize,
        dropped: usize,
        left: usize,
        why: String,
    },
    #[error("the broker of target {target} has stopped")]
    Stopped { target: TargetName },
}

impl BrokerError {
    /// Is the connection beyond use after this?
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Server { source, .. } => source.ends_connection(),
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::WrongPassword { .. }
            | Self::NotAdmitted { .. }
            | Self::MissingPrivilege { .. }
            | Self::MissingRole { .. }
            | Self::Journal { .. }
            | Self::TooManyLogins { .. }
            | Self::Rotation { .. }
            | Self::Stopped { .. } => false,
        }
    }

    /// What the server said, if it was the server.
    pub(super) const fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { source, .. } => Some(source),
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::WrongPassword { .. }
            | Self::NotAdmitted { .. }
            | Self::MissingPrivilege { .. }
            | Self::MissingRole { .. }
            | Self::Journal { .. }
            | Self::TooManyLogins { .. }
            | Self::Rotation { .. }
            | Self::Stopped { .. } => None,
        }
    }

    pub(super) fn sqlstate(&self) -> Option<&SqlState> {
        match self.server()? {
            ServerError::Postgres(error) => error.code(),
            ServerError::SqlServer(_) => None,
        }
    }
}

/// What a server said, or its driver.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    SqlServer(#[from] Failure),
}

impl ServerError {
    fn ends_connection(&self) -> bool {
        match self {
            Self::Postgres(error) => error.is_closed() || error.code().is_none(),
            Self::SqlServer(failure) => failure.ends_connection(),
        }
    }
}

/// The whole story of an error in one line, for logs.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Why a session got no login.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("no login could be leased")]
    Broker(#[from] BrokerError),
    /// The last attempt failed a moment ago and the next is not due yet.
    #[error("not connected to the database server of target {target}: {why}")]
    NotConnected { target: TargetName, why: String },
}

impl Refuse for LeaseError {
    fn refusal(&self) -> (RefusalCode, Reason) {
        let error = match self {
            Self::NotConnected { .. } => return (RefusalCode::TargetUnavailable, Reason::TargetDown),
            Self::Broker(error) => error,
        };
        match error {
            BrokerError::Unreachable { .. }
            | BrokerError::WrongPassword { .. }
            | BrokerError::NotAdmitted { .. }
            | BrokerError::TimedOut { .. } => (RefusalCode::TargetUnavailable, Reason::TargetDown),
            BrokerError::MissingPrivilege { .. }
            | BrokerError::MissingRole { .. }
            | BrokerError::TooManyLogins { .. }
            | BrokerError::Rotation { .. }
            | BrokerError::Server { .. } => (RefusalCode::TargetUnavailable, Reason::LoginNotMinted),
            BrokerError::Journal { .. } => (RefusalCode::AuditUnavailable, Reason::JournalFailed),
            BrokerError::Stopped { .. } => (RefusalCode::TargetUnavailable, Reason::ShuttingDown),
        }
    }
}
