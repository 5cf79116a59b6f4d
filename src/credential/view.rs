//! A minted login as operators see it.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::audit::IdentityFacts;
use crate::domain::ids::RoleName;

/// One login of this replica. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoginView {
    pub login: Arc<str>,
    pub role: RoleName,
    /// Whose it is. The token is the one that the login was minted for; others of the same identity
    /// share the login.
    pub identity: Option<IdentityFacts>,
    /// Counts the logins that this replica minted at this target since it started.
    pub generation: u64,
    /// On gatepost's clock; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub minted_at: SystemTime,
    /// On the database server's clock; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub expires_at: SystemTime,
    /// Sessions that use it.
    pub holds: usize,
    pub state: LoginState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginState {
    /// New sessions of this identity and role get it.
    Current,
    /// A newer generation took its place; it ends with its last session.
    Replaced,
    /// Being disabled and dropped.
    Ending,
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*at))
}
