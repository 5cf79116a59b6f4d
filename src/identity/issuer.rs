//! Which `iss` a provider stands for: one, or those of listed tenants behind Entra's shared address.

use crate::identity::{ProviderKind, ProviderSettings};

/// Entra writes this into the documents of its shared addresses, where the tenant's id belongs.
const TENANT: &str = "{tenantid}";

/// Entra's addresses that speak for every tenant: work accounts only, and personal ones too.
const SHARED: [&str; 2] = ["/organizations/v2.0", "/common/v2.0"];

/// Does this issuer speak for many tenants? Then only listed ones may be believed: anybody can have
/// a tenant, and tokens of all of them are signed with the same keys.
pub fn speaks_for_many(kind: ProviderKind, issuer: &str) -> bool {
    kind == ProviderKind::Entra && origin_of_shared(issuer).is_some()
}

fn origin_of_shared(issuer: &str) -> Option<&str> {
    SHARED.into_iter().find_map(|path| issuer.strip_suffix(path))
}

#[derive(Debug)]
pub(super) enum Issuer {
    Exact(String),
    Tenants {
        /// `https://host/{tenantid}/v2.0`: what the discovery document names.
        template: String,
        tenants: Vec<String>,
    },
}

impl Issuer {
    pub(super) fn of(settings: &ProviderSettings) -> Self {
        match origin_of_shared(&settings.issuer) {
            Some(origin) if settings.kind == ProviderKind::Entra => Self::Tenants {
                template: format!("{origin}/{TENANT}/v2.0"),
                tenants: settings.tenants.clone(),
            },
            _ => Self::Exact(settings.issuer.clone()),
        }
    }

    /// What the discovery document must name, byte for byte.
    pub(super) fn discovered(&self) -> &str {
        match self {
            Self::Exact(issuer) => issuer,
            Self::Tenants { template, .. } => template,
        }
    }

    /// Compared byte for byte: no case folding, no slash more or less, no other spelling of a host.
    pub(super) fn accepts(&self, issuer: &str, tenant: Option<&str>) -> bool {
        match self {
            Self::Exact(own) => own == issuer,
            Self::Tenants { template, tenants } => tenant.is_some_and(|tenant| {
                tenants.iter().any(|listed| listed == tenant) && template.replace(TENANT, tenant) == issuer
            }),
        }
    }
}

/// Entra says beside some keys whose tokens they sign.
/// <https://learn.microsoft.com/en-us/entra/identity-platform/access-tokens#validate-the-issuer>
pub(super) fn key_signs_for(key_issuer: &str, issuer: &str, tenant: Option<&str>) -> bool {
    match tenant {
        Some(tenant) => key_issuer.replace(TENANT, tenant) == issuer,
        None => key_issuer == issuer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entras_shared_addresses_speak_for_many() {
        for (kind, issuer, many) in [
            (
                ProviderKind::Entra,
                "https://login.example/organizations/v2.0",
                true,
            ),
            (ProviderKind::Entra, "https://login.example/common/v2.0", true),
            (ProviderKind::Entra, "https://login.example/common/v2.0/", false),
            (ProviderKind::Entra, "https://login.example/tenant/v2.0", false),
            (ProviderKind::Oidc, "https://login.example/common/v2.0", false),
        ] {
            assert_eq!(speaks_for_many(kind, issuer), many, "{issuer}");
        }
    }

    #[test]
    fn a_tenant_must_be_listed_and_the_issuer_must_be_its_own() {
        let issuer = Issuer::Tenants {
            template: "https://login.example/{tenantid}/v2.0".to_owned(),
            tenants: vec!["a".to_owned(), "b".to_owned()],
        };
        assert!(issuer.accepts("https://login.example/a/v2.0", Some("a")));
        for (iss, tenant) in [
            ("https://login.example/a/v2.0", Some("b")),
            ("https://login.example/c/v2.0", Some("c")),
            ("https://login.example/a/v2.0", None),
            ("https://login.example/{tenantid}/v2.0", Some("{tenantid}")),
            ("https://login.example/a/v2.0/", Some("a")),
            ("https://login.evil/a/v2.0", Some("a")),
        ] {
            assert!(!issuer.accepts(iss, tenant), "{iss} {tenant:?}");
        }
    }
}
