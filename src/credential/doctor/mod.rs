//! `gatepost doctor`: every login that gatepost made at a target, what has become of it, and the end of
//! those that nobody answers for. It may run beside a living proxy: the locks of the epochs tell which
//! logins are in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use tokio::runtime::Handle;

use crate::credential::broker::{BrokerSettings, check_live};
use crate::credential::doctor::look::Look;
use crate::credential::ending;
use crate::credential::error::{BrokerError, chain};
use crate::credential::live::{Finding, FindingKind};
use crate::credential::naming::{Epoch, LoginName};
use crate::credential::sweep::abandoned;
use crate::domain::ids::RoleName;
use crate::domain::target::{DatabaseName, TargetName};

mod look;

/// Enough to see what kind of thing it is; the server lists the rest.
pub(super) const OBJECTS_MAX: i64 = 1_000;

/// The epochs of this installation that somebody answers for.
type Locked = BTreeSet<Epoch>;
/// By the name of the login.
pub(super) type Objects = BTreeMap<String, Vec<Object>>;

/// A login as the catalogue has it.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) name: String,
    pub(super) marking: Marking,
    /// Who inherits what it owns, if that can be told.
    pub(super) role: Option<RoleName>,
    /// In the server's words; `None`: the server knows of no end.
    pub(super) until: Option<String>,
    pub(super) expired: bool,
    pub(super) disabled: bool,
    pub(super) sessions: i64,
    /// What gives it more than it was minted with, to be read after its name.
    pub(super) liberties: Vec<String>,
    /// It was minted by our broker beyond doubt, whatever its mark says or lacks.
    pub(super) certain: bool,
}

/// What a login's mark says.
#[derive(Clone, Debug)]
pub(super) enum Marking {
    None,
    Unreadable,
    Read {
        ours: bool,
        /// `None`: not kept in words.
        installation: Option<String>,
        replica: Option<String>,
        epoch: Epoch,
        generation: u64,
    },
}

/// One target.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    pub target: TargetName,
    /// By name.
    pub logins: Vec<LoginReport>,
    /// What the broker lacks, or has too much of.
    pub findings: Vec<Finding>,
}

/// One login, and what is to be said about it.
#[derive(Clone, Debug, Serialize)]
pub struct LoginReport {
    pub login: String,
    pub condition: Condition,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Who inherits what it owns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// On the server's clock and in its words; nothing: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    pub expired: bool,
    pub disabled: bool,
    /// Connections that it has now.
    pub sessions: i64,
    /// At most `OBJECTS_MAX` a database are told.
    pub objects: Vec<Object>,
    /// What is wrong with it, to be read after its name.
    pub wrong: Vec<String>,
    /// What a superuser runs to end it, where gatepost may not or cannot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
}

/// Something that a login owns, or was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Object {
    pub database: DatabaseName,
    /// In the server's words.
    pub what: String,
    pub owned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Its replica holds its epoch's lock.
    Live,
    /// Nobody holds its epoch's lock.
    LeftOver,
    /// Called like one of ours, but without the comment that would say whose it is.
    WithoutComment,
    /// Its comment is none that this version understands.
    UnreadableComment,
    /// Another installation's: never touched.
    OtherInstallation,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::LeftOver => "left over",
            Self::WithoutComment => "without comment",
            Self::UnreadableComment => "unreadable comment",
            Self::OtherInstallation => "other installation",
        })
    }
}

impl Diagnosis {
    /// Nothing to be done here, by anyone.
    pub fn is_healthy(&self) -> bool {
        let lacking = |finding: &Finding| {
            matches!(
                finding.kind,
                FindingKind::MissingRole | FindingKind::MissingPrivilege
            )
        };
        self.logins.iter().all(LoginReport::is_healthy) && !self.findings.iter().any(lacking)
    }
}

impl LoginReport {
    pub fn is_healthy(&self) -> bool {
        match self.condition {
            Condition::OtherInstallation => true,
            Condition::Live => self.wrong.is_empty(),
            Condition::LeftOver | Condition::WithoutComment | Condition::UnreadableComment => false,
        }
    }
}

/// What a repair did to one login.
#[derive(Clone, Debug, Serialize)]
pub struct Repaired {
    pub login: String,
    /// Nothing: it is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Looks. Changes nothing. `roles` are those that policy declares here.
pub async fn examine(
    settings: &BrokerSettings,
    roles: &[RoleName],
    control: &Handle,
) -> Result<Diagnosis, BrokerError> {
    let mut findings = check_live(settings, roles, control).await?;
    let look = Look::at(settings, control, &mut findings).await?;
    Ok(Diagnosis {
        target: settings.target.clone(),
        logins: look.reports(settings),
        findings,
    })
}

/// Ends what [`examine`] called left over, in the order in which every login ends, and logins without
/// comment that are proved to be ours and dead. Each epoch is looked at twice, some seconds apart, and
/// its lock is held while its logins end; what a replica answers for is left alone. Nothing of this is
/// in the journal, which belongs to the running proxy.
pub async fn repair(settings: &BrokerSettings, control: &Handle) -> Result<Vec<Repaired>, BrokerError> {
    let access = settings.access(control);
    let connection = access.connect(&settings.home()).await?;
    let look = Look::at(settings, control, &mut Vec::new()).await?;
    let mut repaired = Vec::new();
    let installation = &settings.installation;
    for epoch in abandoned(&connection, installation, &look.left_over()).await? {
        if !connection.try_lock(installation, &epoch).await? {
            continue;
        }
        for orphan in connection.minted_in(installation, &epoch).await? {
            repaired.push(put_to_rest(settings, control, &orphan.login, orphan.role.as_ref()).await);
        }
        connection.unlock(installation, &epoch).await?;
    }
    for (login, role) in look.proved_dead(settings) {
        repaired.push(put_to_rest(settings, control, &login, Some(&role)).await);
    }
    Ok(repaired)
}

async fn put_to_rest(
    settings: &BrokerSettings,
    control: &Handle,
    login: &LoginName,
    role: Option<&RoleName>,
) -> Repaired {
    let ended = ending::steps(&settings.access(control), &settings.home(), login, role, |_| ()).await;
    Repaired {
        login: login.to_string(),
        failed: ended.err().map(|error| chain(&error)),
    }
}
