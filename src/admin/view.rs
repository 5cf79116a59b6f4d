//! What operators are shown, as JSON: names and numbers, never a secret. Times are RFC 3339, UTC.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::credential;
use crate::domain::revocation::Struck;
use crate::domain::{ProviderName, Revocation, TargetName};
use crate::upstream::budget::BudgetStats;

/// The connections to one target, over all threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolView {
    pub target: TargetName,
    /// The hard cap.
    pub max: u32,
    /// Lent to sessions, or being opened.
    pub lent: u32,
    pub idle: usize,
    /// Sessions in line for a connection.
    pub waiting: usize,
}

impl PoolView {
    pub fn new(target: TargetName, stats: BudgetStats) -> Self {
        let idle = u32::try_from(stats.idle).unwrap_or(u32::MAX);
        Self {
            target,
            max: stats.max,
            lent: stats.taken.saturating_sub(idle),
            idle: stats.idle,
            waiting: stats.waiting,
        }
    }
}

/// The minted logins of all targets that could be asked.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoginsView {
    pub logins: Vec<LoginView>,
    pub unreachable: Vec<Unreachable>,
}

/// One minted login, and where.
#[derive(Clone, Debug, Serialize)]
pub struct LoginView {
    pub target: TargetName,
    #[serde(flatten)]
    pub login: credential::LoginView,
}

/// A target that could not be asked, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreachable {
    pub target: TargetName,
    pub why: String,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyView {
    /// SHA-256 over the sources; the same as in audit records.
    pub version: Arc<str>,
    pub files: Vec<String>,
    pub rules: usize,
    pub admin_rules: usize,
    pub roles: usize,
    /// Counts what was put in force since the start.
    pub epoch: u64,
    #[serde(serialize_with = "rfc3339")]
    pub loaded_at: SystemTime,
}

/// What a reload put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    pub epoch: u64,
    pub policy_version: Arc<str>,
    /// The id of the key that signs the journal.
    pub signing_key: String,
    /// `policies`, `tls`, `identity_providers` …; empty when nothing had changed.
    pub changed: Vec<String>,
}

/// A revocation that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRevocation {
    pub struck: Struck,
    pub provider: Option<ProviderName>,
    pub lasts: Duration,
    /// The operator, for the list.
    pub by: String,
    pub reason: Option<String>,
}

impl NewRevocation {
    pub fn at(self, now: SystemTime) -> Revocation {
        let made = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Revocation {
            struck: self.struck,
            provider: self.provider,
            made,
            until: made.saturating_add(self.lasts.as_secs()),
            by: self.by,
            reason: self.reason,
        }
    }
}

/// A revocation in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RevocationView {
    pub id: String,
    /// `subject`, `client_id`, `token_id` or `session`.
    pub kind: &'static str,
    pub whom: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
    #[serde(serialize_with = "rfc3339")]
    pub made: SystemTime,
    #[serde(serialize_with = "rfc3339")]
    pub until: SystemTime,
    pub by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<&Revocation> for RevocationView {
    fn from(revocation: &Revocation) -> Self {
        let (kind, whom) = revocation.struck.parts();
        let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Self {
            id: revocation.id(),
            kind,
            whom: whom.to_owned(),
            provider: revocation.provider.clone(),
            made: at(revocation.made).unwrap_or(UNIX_EPOCH),
            until: at(revocation.until).unwrap_or(UNIX_EPOCH),
            by: revocation.by.clone(),
            reason: revocation.reason.clone(),
        }
    }
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    /// 9999-12-31T23:59:59Z, the last second that RFC 3339 can say.
    const LAST_SECOND: u64 = 253_402_300_799;
    let at = (*at).clamp(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(LAST_SECOND));
    serializer.collect_str(&humantime::format_rfc3339_seconds(at))
}
