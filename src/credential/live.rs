//! What a broker lacks at a server, in the words of the SQL that would grant it.

use serde::Serialize;

use crate::credential::error::BrokerError;
use crate::domain::target::TargetName;

/// Something that is missing, or too much, at a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub missing: String,
    /// What an administrator runs; a comment where no statement can help.
    pub sql: String,
    pub kind: FindingKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    MissingRole,
    MissingPrivilege,
    /// The broker can do more than it needs.
    TooMuch,
    /// The broker has no right to look, so a person must.
    NotProven,
}

impl Finding {
    pub(super) fn privilege(missing: &str, sql: String) -> Self {
        Self {
            missing: missing.to_owned(),
            sql,
            kind: FindingKind::MissingPrivilege,
        }
    }

    /// Does it stand in the way of minting?
    pub(super) const fn is_lacking(&self) -> bool {
        matches!(
            self.kind,
            FindingKind::MissingRole | FindingKind::MissingPrivilege
        )
    }
}

/// The first finding that stands in the way of minting, as the error that it is. `codes` are the
/// engine's own for a role that is missing and for a right that is.
pub(super) fn as_error(
    findings: Vec<Finding>,
    target: &TargetName,
    (no_role, no_right): (&'static str, &'static str),
) -> Option<BrokerError> {
    let target = target.clone();
    let first = findings.into_iter().find(Finding::is_lacking)?;
    let Finding { missing, sql, kind } = first;
    Some(if kind == FindingKind::MissingRole {
        let (role, code) = (missing, no_role);
        BrokerError::MissingRole {
            target,
            code,
            role,
            sql,
        }
    } else {
        let code = no_right;
        BrokerError::MissingPrivilege {
            target,
            code,
            missing,
            sql,
        }
    })
}
