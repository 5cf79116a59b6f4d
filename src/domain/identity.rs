//! Who a verified token speaks for.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::domain::ids::ProviderName;

/// What a token said about one kind of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The complete list, possibly empty.
    Known(BTreeSet<String>),
    /// The provider said that there is more than it put in the token (Entra's group overage), or
    /// the claim has a type we do not read. Never grants, and always fires a deny.
    Unknown,
}

impl Claimed {
    pub const fn none() -> Self {
        Self::Known(BTreeSet::new())
    }
}

/// A verified identity. Made by `identity/` from a token whose signature, issuer, audience and
/// times were checked, and by nothing else outside tests.
#[derive(Clone, Debug)]
pub struct Identity {
    pub provider: ProviderName,
    /// Entra: `oid` (not `sub`, which differs per application); Okta and others: `sub`.
    pub subject: String,
    /// Entra: `azp` or `appid`; Okta: `cid`; others: `azp` or `client_id`.
    pub client_id: Option<String>,
    /// Entra: `tid`.
    pub tenant: Option<String>,
    /// For people to read (`preferred_username`, `upn`, `name` …); never a key.
    pub name: Option<String>,
    pub roles: Claimed,
    pub groups: Claimed,
    pub scopes: Claimed,
    /// Entra: `uti`; others: `jti`. Names the token without containing it.
    pub token_id: Option<String>,
    pub expires_at: SystemTime,
    /// All verified claims, for `when` expressions.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

/// What makes two tokens the same identity: a login, a pool and a limit belong to one of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityKey {
    pub provider: ProviderName,
    pub tenant: Option<String>,
    pub subject: String,
}

impl Identity {
    pub fn key(&self) -> IdentityKey {
        IdentityKey {
            provider: self.provider.clone(),
            tenant: self.tenant.clone(),
            subject: self.subject.clone(),
        }
    }

    /// Is `name` one of this identity's own names (client id, object id, user name)? Drivers that
    /// follow Azure's habit send such a name as the user.
    pub fn goes_by(&self, name: &str) -> bool {
        let own = [
            Some(self.subject.as_str()),
            self.client_id.as_deref(),
            self.name.as_deref(),
        ];
        own.into_iter()
            .flatten()
            .any(|own| own.eq_ignore_ascii_case(name))
    }
}
