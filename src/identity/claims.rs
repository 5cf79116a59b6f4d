//! Verified claims → `Identity`: one reading for Entra ID, Okta and any other OIDC issuer.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::domain::{Claimed, Identity, ProviderName};
use crate::identity::ProviderKind;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    #[error("claim \"{name}\" is missing")]
    Missing { name: &'static str },
    #[error("claim \"{name}\" has the wrong type or an impossible value")]
    WrongType { name: &'static str },
}

type Claims = Map<String, Value>;

/// Reads claims that were verified, or that `explain` and the policy's cases assume. `exp` may be
/// absent only for the latter (a token without it is refused before), and then is far away.
pub fn read(kind: ProviderKind, provider: &ProviderName, claims: &Claims) -> Result<Identity, ClaimsError> {
    let (subject, tenant, client_id, token_id) = match kind {
        ProviderKind::Entra => (
            required(claims, "oid")?,
            Some(required(claims, "tid")?),
            either(claims, "azp", "appid")?,
            text(claims, "uti")?,
        ),
        ProviderKind::Okta => (
            required(claims, "sub")?,
            None,
            text(claims, "cid")?,
            text(claims, "jti")?,
        ),
        ProviderKind::Oidc => (
            required(claims, "sub")?,
            None,
            either(claims, "azp", "client_id")?,
            text(claims, "jti")?,
        ),
    };
    let scopes = match kind {
        ProviderKind::Entra => words(claims.get("scp")),
        ProviderKind::Okta => list(claims.get("scp")),
        ProviderKind::Oidc => words(claims.get("scope")),
    };
    Ok(Identity {
        provider: provider.clone(),
        subject,
        client_id,
        tenant,
        name: name(claims),
        roles: list(claims.get("roles")),
        groups: groups(claims),
        scopes,
        token_id,
        expires_at: expiry(claims)?,
        claims: claims.clone(),
    })
}

/// Seconds after 1970 as a time; `None` after the year 9999, where later sums could leave the clock's range.
pub(super) fn time(seconds: u64) -> Option<SystemTime> {
    const SECONDS_MAX: u64 = 253_402_300_799;
    let seconds = Some(seconds).filter(|it| *it <= SECONDS_MAX)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn expiry(claims: &Claims) -> Result<SystemTime, ClaimsError> {
    /// The year 2100: what assumed claims without `exp` get.
    const FAR_AWAY: u64 = 4_102_444_800;
    let wrong = ClaimsError::WrongType { name: "exp" };
    let seconds = match claims.get("exp") {
        None => FAR_AWAY,
        Some(value) => value.as_u64().ok_or(wrong.clone())?,
    };
    time(seconds).ok_or(wrong)
}

fn text(claims: &Claims, name: &'static str) -> Result<Option<String>, ClaimsError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && !text.contains(char::is_control) => {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(ClaimsError::WrongType { name }),
    }
}

fn required(claims: &Claims, name: &'static str) -> Result<String, ClaimsError> {
    text(claims, name)?.ok_or(ClaimsError::Missing { name })
}

fn either(claims: &Claims, first: &'static str, second: &'static str) -> Result<Option<String>, ClaimsError> {
    Ok(match text(claims, first)? {
        Some(found) => Some(found),
        None => text(claims, second)?,
    })
}

/// For people to read; one of a wrong type is passed over, because nothing hangs on it.
fn name(claims: &Claims) -> Option<String> {
    [
        "preferred_username",
        "upn",
        "unique_name",
        "email",
        "name",
        "app_displayname",
    ]
    .into_iter()
    .find_map(|key| text(claims, key).ok().flatten())
}

fn list(value: Option<&Value>) -> Claimed {
    let Some(value) = value else {
        return Claimed::none();
    };
    let items: Option<BTreeSet<String>> = value.as_array().and_then(|items| {
        items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect()
    });
    items.map_or(Claimed::Unknown, Claimed::Known)
}

fn words(value: Option<&Value>) -> Claimed {
    match value {
        None => Claimed::none(),
        Some(Value::String(text)) => {
            Claimed::Known(text.split_ascii_whitespace().map(str::to_owned).collect())
        }
        Some(_) => Claimed::Unknown,
    }
}

/// Entra leaves the groups out when there are too many and points elsewhere instead: by
/// `_claim_names`/`_claim_sources`, or `hasgroups` in the implicit flow.
fn groups(claims: &Claims) -> Claimed {
    let pointed_at = match claims.get("_claim_names") {
        None => false,
        Some(Value::Object(names)) => names.contains_key("groups"),
        Some(_) => true,
    };
    let has_more = match claims.get("hasgroups") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::String(text)) => text != "false",
        Some(_) => true,
    };
    if pointed_at || has_more {
        return Claimed::Unknown;
    }
    list(claims.get("groups"))
}
