//! Does a rule speak of this identity? Answers yes, no, or that it cannot be known.

use std::cell::OnceCell;

use crate::domain::identity::{Claimed, Identity};
use crate::domain::ids::ProviderName;

use super::expression::{Claims, Expression};
use super::glob::Glob;

/// Every key that is present must match; within a key, any of its values.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    pub(super) provider: ProviderName,
    pub(super) client_id: Option<Vec<Glob>>,
    pub(super) subject: Option<Vec<Glob>>,
    pub(super) tenant: Option<Vec<Glob>>,
    pub(super) roles: Option<Vec<Glob>>,
    pub(super) groups: Option<Vec<Glob>>,
    pub(super) scopes: Option<Vec<Glob>>,
    pub(super) when: Option<Expression>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdentityPart {
    Provider,
    ClientId,
    Subject,
    Tenant,
    Roles,
    Groups,
    Scopes,
    When,
}

impl IdentityPart {
    /// As policy spells it.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::ClientId => "client_id",
            Self::Subject => "subject",
            Self::Tenant => "tenant",
            Self::Roles => "roles",
            Self::Groups => "groups",
            Self::Scopes => "scopes",
            Self::When => "when",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Yes,
    /// This key does not match, whatever the others would say.
    No(IdentityPart),
    /// No key says no, but this one cannot be answered. Never grants, always fires a deny.
    Unknown(IdentityPart),
}

/// An identity under examination; its claims are converted for CEL at most once.
pub(super) struct Examined<'a> {
    identity: &'a Identity,
    claims: OnceCell<Claims>,
}

impl<'a> Examined<'a> {
    pub(super) const fn new(identity: &'a Identity) -> Self {
        Self {
            identity,
            claims: OnceCell::new(),
        }
    }

    fn claims(&self) -> &Claims {
        self.claims.get_or_init(|| Claims::new(&self.identity.claims))
    }
}

impl Matcher {
    pub(super) fn examine(&self, examined: &Examined<'_>) -> Finding {
        let identity = examined.identity;
        if self.provider != identity.provider {
            return Finding::No(IdentityPart::Provider);
        }
        let single = [
            (
                IdentityPart::ClientId,
                &self.client_id,
                identity.client_id.as_deref(),
            ),
            (
                IdentityPart::Subject,
                &self.subject,
                Some(identity.subject.as_str()),
            ),
            (IdentityPart::Tenant, &self.tenant, identity.tenant.as_deref()),
        ];
        for (part, patterns, value) in single {
            let Some(patterns) = patterns else { continue };
            if !value.is_some_and(|value| matches_any(patterns, value)) {
                return Finding::No(part);
            }
        }
        let lists = [
            (IdentityPart::Roles, &self.roles, &identity.roles),
            (IdentityPart::Groups, &self.groups, &identity.groups),
            (IdentityPart::Scopes, &self.scopes, &identity.scopes),
        ];
        let mut unknown = None;
        for (part, patterns, claimed) in lists {
            let Some(patterns) = patterns else { continue };
            match claimed {
                Claimed::Known(values) if values.iter().any(|value| matches_any(patterns, value)) => {}
                Claimed::Known(_) => return Finding::No(part),
                Claimed::Unknown => unknown = unknown.or(Some(part)),
            }
        }
        match self.condition(examined) {
            Some(Ok(false)) => Finding::No(IdentityPart::When),
            Some(Err(_)) => Finding::Unknown(unknown.unwrap_or(IdentityPart::When)),
            Some(Ok(true)) | None => unknown.map_or(Finding::Yes, Finding::Unknown),
        }
    }

    pub(super) fn condition(&self, examined: &Examined<'_>) -> Option<Result<bool, String>> {
        let when = self.when.as_ref()?;
        Some(when.evaluate(examined.claims()))
    }

    /// Does this match every identity that `other` matches? Proof only; `false` may mean maybe.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let part = |ours: &Option<Vec<Glob>>, theirs: &Option<Vec<Glob>>| match (ours, theirs) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => theirs
                .iter()
                .all(|their| ours.iter().any(|our| our.covers(their))),
        };
        self.when.is_none()
            && self.provider == other.provider
            && part(&self.client_id, &other.client_id)
            && part(&self.subject, &other.subject)
            && part(&self.tenant, &other.tenant)
            && part(&self.roles, &other.roles)
            && part(&self.groups, &other.groups)
            && part(&self.scopes, &other.scopes)
    }

    /// Could one identity match both? Lists never tell two rules apart: an identity may have
    /// several roles, groups and scopes.
    pub(super) fn may_overlap(&self, other: &Self) -> bool {
        let part = |ours: &Option<Vec<Glob>>, theirs: &Option<Vec<Glob>>| {
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                return true;
            };
            ours.iter()
                .any(|our| theirs.iter().any(|their| our.may_overlap(their)))
        };
        self.provider == other.provider
            && part(&self.client_id, &other.client_id)
            && part(&self.subject, &other.subject)
            && part(&self.tenant, &other.tenant)
    }

    pub(super) fn patterns(&self, part: IdentityPart) -> Vec<&str> {
        let patterns = match part {
            IdentityPart::Provider => return vec![self.provider.as_str()],
            IdentityPart::ClientId => &self.client_id,
            IdentityPart::Subject => &self.subject,
            IdentityPart::Tenant => &self.tenant,
            IdentityPart::Roles => &self.roles,
            IdentityPart::Groups => &self.groups,
            IdentityPart::Scopes => &self.scopes,
            IdentityPart::When => return Vec::new(),
        };
        patterns.iter().flatten().map(Glob::as_str).collect()
    }
}

fn matches_any(patterns: &[Glob], value: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(value))
}
