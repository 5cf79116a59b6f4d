//! Identity providers as meant: issuers that may be believed, how they write, and whose tenants count.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::app::build;
use crate::app::config::file::{self, Must, Named, Written};
use crate::app::config::resolve::Resolver;
use crate::app::config::settings::{Provider, ProviderKind};
use crate::domain::ProviderName;
use crate::identity;

impl Resolver<'_, '_, '_> {
    pub(super) fn providers(
        &mut self,
        written: &Must<Written<Named<file::Provider>>>,
    ) -> Option<Vec<Provider>> {
        let written = written.get()?;
        if written.value.0.is_empty() && self.reader.is_clean() {
            self.reader
                .mistake(written.at, "at least one identity provider is needed");
        }
        let mut issuers = BTreeMap::new();
        let mut providers = Vec::new();
        for (name, provider) in &written.value.0 {
            if let Some(issuer) = provider.issuer.get()
                && let Some(earlier) = issuers.insert(issuer.value.clone(), name.value.clone())
            {
                let message = format!("this issuer is already configured as \"{earlier}\"");
                self.reader.mistake(issuer.at, message);
            }
            providers.extend(self.provider(name, provider));
        }
        Some(providers)
    }

    fn provider(&mut self, name: &Written<String>, written: &file::Provider) -> Option<Provider> {
        let host = written.issuer.get().and_then(|issuer| self.issuer_host(issuer));
        let audiences = written.audiences.get();
        if let Some(audiences) = audiences
            && audiences.value.is_empty()
        {
            self.reader
                .mistake(audiences.at, "at least one audience is needed");
        }
        let ca = match &written.ca {
            Some(ca) => self.existing_path(Some(ca)).map(Some),
            None => Some(None),
        };
        let host = host?;
        let kind = written.kind.as_ref();
        let kind = kind.map_or_else(|| infer_kind(&host), |kind| kind.value);
        let issuer = written.issuer.get()?;
        let tenants = self.tenants(kind, issuer, written.tenants.as_ref());
        let first = audiences.and_then(|audiences| audiences.value.first());
        let spn = written.spn.as_ref().or(first);
        let sts_url = written.sts_url.as_ref().map(|url| &url.value);
        let sts_url = sts_url.map_or_else(|| without_version(&issuer.value), Clone::clone);
        Some(Provider {
            name: ProviderName::new(&name.value),
            kind,
            issuer: issuer.value.clone(),
            tenants: tenants?,
            audiences: audiences?.value.iter().map(|it| it.value.clone()).collect(),
            ca: ca?,
            sts_url,
            spn: spn.map(|spn| spn.value.clone()).unwrap_or_default(),
        })
    }

    /// Anybody can have a tenant: whoever accepts all of them accepts everybody.
    fn tenants(
        &mut self,
        kind: ProviderKind,
        issuer: &Written<String>,
        written: Option<&Written<Vec<Written<String>>>>,
    ) -> Option<Vec<String>> {
        let many = identity::speaks_for_many(build::provider_kind(kind), &issuer.value);
        let Some(tenants) = written else {
            if many {
                let message = "this issuer speaks for every tenant of Entra ID: list those whose tokens are accepted under \"tenants\"";
                self.reader.mistake(issuer.at, message);
            }
            return (!many).then(Vec::new);
        };
        if !many {
            let message = "only Entra's shared issuers (https://…/organizations/v2.0, https://…/common/v2.0) take a list of tenants";
            self.reader.mistake(tenants.at, message);
            return None;
        }
        if tenants.value.is_empty() {
            self.reader.mistake(tenants.at, "at least one tenant is needed");
        }
        for tenant in &tenants.value {
            if !is_tenant_id(&tenant.value) {
                let shown = &tenant.value;
                let message = format!(
                    "\"{shown}\" is not a tenant's id, like 11111111-2222-4333-8444-555555555555 (in lower case; there is no wildcard)"
                );
                self.reader.mistake(tenant.at, message);
            }
        }
        Some(tenants.value.iter().map(|it| it.value.clone()).collect())
    }

    /// The host of an issuer, which must be https except on this machine.
    fn issuer_host(&mut self, issuer: &Written<String>) -> Option<String> {
        let (https, rest) = match (
            issuer.value.strip_prefix("https://"),
            issuer.value.strip_prefix("http://"),
        ) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => {
                self.reader
                    .mistake(issuer.at, "the issuer must begin with https://");
                return None;
            }
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = without_port(authority);
        let wrong = if host.is_empty() || authority.contains('@') || rest.contains(char::is_whitespace) {
            Some("the issuer is not a URL like https://host/path")
        } else if rest.contains(['?', '#']) {
            Some("an issuer has no query and no fragment")
        } else if !https && !is_loopback(host) {
            Some("the issuer must be https: its keys decide who gets in (http is accepted on loopback only)")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.reader.mistake(issuer.at, wrong);
            return None;
        }
        Some(host.to_ascii_lowercase())
    }
}

fn without_port(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A GUID as Entra writes it into `tid`.
fn is_tenant_id(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || hexadecimal(byte))
}

/// Drivers add the version of the endpoint by themselves.
fn without_version(issuer: &str) -> String {
    issuer.strip_suffix("/v2.0").unwrap_or(issuer).to_owned()
}

/// Entra's and Okta's own domains say how their tokens are written; all others are plain OIDC.
fn infer_kind(host: &str) -> ProviderKind {
    const ENTRA: [&str; 5] = [
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.partner.microsoftonline.cn",
        "sts.windows.net",
        "ciamlogin.com",
    ];
    const OKTA: [&str; 4] = ["okta.com", "oktapreview.com", "okta-emea.com", "okta-gov.com"];
    let under = |domain: &&str| host == *domain || host.ends_with(&format!(".{domain}"));
    if ENTRA.iter().any(under) {
        ProviderKind::Entra
    } else if OKTA.iter().any(under) {
        ProviderKind::Okta
    } else {
        ProviderKind::Oidc
    }
}
