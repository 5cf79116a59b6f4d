//! Where gatepost's own tokens come from, and how each place is asked. Which place it is follows from
//! the environment, as in Azure's own libraries; the answers have one form (`answer`).

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::domain::Secret;

/// The instance metadata service of a virtual machine, and of whatever runs on one.
/// <https://learn.microsoft.com/en-us/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>
const IMDS: &str = "http://169.254.169.254";
const IMDS_PATH: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01";
/// App Service, Functions and Container Apps.
/// <https://learn.microsoft.com/en-us/azure/app-service/overview-managed-identity#rest-endpoint-reference>
const APP_SERVICE_VERSION: &str = "api-version=2019-08-01";
/// Entra's public cloud; `AZURE_AUTHORITY_HOST` names others.
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// Who is asked for tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Workload identity if its variables are set, else App Service likewise, else the instance metadata
    /// service.
    #[default]
    Auto,
    Imds,
    AppService,
    Workload,
}

/// Equal settings are asked once for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub endpoint: Endpoint,
    /// What the tokens are for, as an address: <https://ossrdbms-aad.database.windows.net> for Azure
    /// Database for PostgreSQL, <https://database.windows.net/> for Azure SQL.
    pub resource: String,
}

/// A source found in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Imds {
        origin: String,
        /// Of a user-assigned identity; `None`: the machine's own.
        client_id: Option<String>,
    },
    AppService {
        url: String,
        /// Proves that the request is from the app itself.
        header: Secret<String>,
        client_id: Option<String>,
    },
    /// Workload identity federation: a token of the cluster is exchanged for one of Entra.
    /// <https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow>
    Workload {
        authority: String,
        tenant: String,
        client_id: String,
        /// Holds the cluster's token; written anew long before that ends.
        assertion: PathBuf,
    },
}

/// What is missing in the environment, in words that end a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

impl Endpoint {
    /// `client_id` as configured; `variable` reads the environment. An empty variable counts as none.
    pub fn find(
        source: Source,
        client_id: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, NotFound> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let client_id = client_id.map(str::to_owned);
        match source {
            Source::Auto if variable("AZURE_FEDERATED_TOKEN_FILE").is_some() => {
                workload(client_id, &variable)
            }
            Source::Auto if variable("IDENTITY_ENDPOINT").is_some() => app_service(client_id, &variable),
            Source::Workload => workload(client_id, &variable),
            Source::AppService => app_service(client_id, &variable),
            Source::Auto | Source::Imds => {
                // As Azure's libraries name it; for tests, and for whatever stands in for the service.
                let origin = variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
                let origin = origin.unwrap_or_else(|| IMDS.to_owned());
                Ok(Self::Imds {
                    origin: without_slash(&origin),
                    client_id,
                })
            }
        }
    }

    /// What is asked, without what must stay secret; for errors.
    pub(super) fn url(&self, resource: &str) -> String {
        let (mut url, client_id) = match self {
            Self::Imds { origin, client_id } => (format!("{origin}{IMDS_PATH}"), client_id),
            Self::AppService { url, client_id, .. } => (format!("{url}?{APP_SERVICE_VERSION}"), client_id),
            Self::Workload {
                authority, tenant, ..
            } => return format!("{authority}/{tenant}/oauth2/v2.0/token"),
        };
        url.push_str("&resource=");
        encode(resource, &mut url);
        if let Some(client_id) = client_id {
            url.push_str("&client_id=");
            encode(client_id, &mut url);
        }
        url
    }

    /// Does it go through the network, so that TLS must protect it?
    pub fn is_https(&self) -> bool {
        let url = match self {
            Self::Imds { origin, .. } => origin,
            Self::AppService { url, .. } => url,
            Self::Workload { authority, .. } => authority,
        };
        url.starts_with("https://")
    }
}

fn workload(
    client_id: Option<String>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Endpoint, NotFound> {
    let needed = |name: &str| {
        let what = "workload identity needs AZURE_FEDERATED_TOKEN_FILE, AZURE_TENANT_ID and a client id";
        variable(name).ok_or_else(|| NotFound(format!("{what}, but {name} is not set in the environment")))
    };
    let assertion = PathBuf::from(needed("AZURE_FEDERATED_TOKEN_FILE")?);
    let tenant = needed("AZURE_TENANT_ID")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if !tenant.chars().all(plain) {
        return Err(NotFound(
            "AZURE_TENANT_ID is not a tenant's id or domain".to_owned(),
        ));
    }
    let client_id = match client_id {
        Some(client_id) => client_id,
        None => needed("AZURE_CLIENT_ID")?,
    };
    let authority = variable("AZURE_AUTHORITY_HOST").unwrap_or_else(|| AUTHORITY.to_owned());
    Ok(Endpoint::Workload {
        authority: without_slash(&authority),
        tenant,
        client_id,
        assertion,
    })
}

fn app_service(
    client_id: Option<String>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Endpoint, NotFound> {
    let Some(url) = variable("IDENTITY_ENDPOINT") else {
        return Err(NotFound(
            "app_service needs IDENTITY_ENDPOINT, which is not set in the environment".to_owned(),
        ));
    };
    // Azure Arc has the address and no header, and another way to prove who asks.
    let Some(header) = variable("IDENTITY_HEADER") else {
        return Err(NotFound(
            "IDENTITY_ENDPOINT is set without IDENTITY_HEADER: Azure Arc is not supported; \
             name another source, if there is one"
                .to_owned(),
        ));
    };
    if variable("IDENTITY_SERVER_THUMBPRINT").is_some() {
        return Err(NotFound(
            "IDENTITY_SERVER_THUMBPRINT is set: Service Fabric is not supported".to_owned(),
        ));
    }
    Ok(Endpoint::AppService {
        url,
        header: Secret::new(header),
        client_id,
    })
}

fn without_slash(origin: &str) -> String {
    origin.trim_end_matches('/').to_owned()
}

/// For a query or a form: everything but the unreserved characters of RFC 3986 is escaped.
pub(super) fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The form of the exchange.
pub(super) fn form(client_id: &str, resource: &str, assertion: &str) -> String {
    let scope = format!("{}/.default", without_slash(resource));
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("scope", &scope),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", assertion),
    ];
    let mut form = String::new();
    for (name, value) in fields {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        encode(value, &mut form);
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(source: Source, client_id: Option<&str>, set: &[(&str, &str)]) -> Result<Endpoint, NotFound> {
        let set: Vec<_> = set
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let variable = move |name: &str| {
            let found = set.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        Endpoint::find(source, client_id, &variable)
    }

    const FEDERATED: [(&str, &str); 3] = [
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token"),
        ("AZURE_TENANT_ID", "1a1a-2222"),
        ("AZURE_CLIENT_ID", "from-environment"),
    ];
    const APP: [(&str, &str); 2] = [
        ("IDENTITY_ENDPOINT", "http://169.254.129.2:8081/msi/token"),
        ("IDENTITY_HEADER", "hunter2"),
    ];

    #[test]
    fn the_environment_chooses_as_azures_libraries_do() {
        let both = [FEDERATED.as_slice(), APP.as_slice()].concat();
        let workload = find(Source::Auto, None, &both).unwrap();
        let expected = Endpoint::Workload {
            authority: AUTHORITY.to_owned(),
            tenant: "1a1a-2222".to_owned(),
            client_id: "from-environment".to_owned(),
            assertion: "/var/run/token".into(),
        };
        assert_eq!(workload, expected);
        assert!(matches!(
            find(Source::Auto, None, &APP),
            Ok(Endpoint::AppService { .. })
        ));
        assert!(matches!(find(Source::Auto, None, &[]), Ok(Endpoint::Imds { .. })));
        // A source that is named is not looked for elsewhere.
        assert!(matches!(
            find(Source::Imds, None, &both),
            Ok(Endpoint::Imds { .. })
        ));
        let empty = [("IDENTITY_ENDPOINT", "")];
        assert!(matches!(
            find(Source::Auto, None, &empty),
            Ok(Endpoint::Imds { .. })
        ));
    }

    #[test]
    fn what_is_missing_is_told_and_what_is_not_supported_is_not_guessed() {
        let (endpoint, header) = (APP[0], APP[1]);
        for (source, set, told) in [
            (Source::AppService, vec![header], "IDENTITY_ENDPOINT"),
            (Source::Auto, vec![endpoint], "Azure Arc"),
            (
                Source::Auto,
                vec![endpoint, header, ("IDENTITY_SERVER_THUMBPRINT", "ab")],
                "Service Fabric",
            ),
            (Source::Workload, vec![], "AZURE_FEDERATED_TOKEN_FILE is not set"),
            (Source::Auto, vec![FEDERATED[0]], "AZURE_TENANT_ID is not set"),
            (
                Source::Auto,
                FEDERATED[..2].to_vec(),
                "AZURE_CLIENT_ID is not set",
            ),
            (
                Source::Workload,
                vec![FEDERATED[0], ("AZURE_TENANT_ID", "a/../b")],
                "not a tenant's id",
            ),
        ] {
            let NotFound(why) = find(source, None, &set).unwrap_err();
            assert!(why.contains(told), "{why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn each_place_is_asked_in_its_own_way() {
        let resource = "https://database.windows.net/";
        let url = |endpoint: Endpoint| endpoint.url(resource);
        assert_eq!(
            url(find(Source::Imds, None, &[]).unwrap()),
            "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
             &resource=https%3A%2F%2Fdatabase.windows.net%2F"
        );
        assert_eq!(
            url(find(Source::Auto, Some("c d"), &APP).unwrap()),
            "http://169.254.129.2:8081/msi/token?api-version=2019-08-01\
             &resource=https%3A%2F%2Fdatabase.windows.net%2F&client_id=c%20d"
        );
        let elsewhere = [("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/")];
        let set = [FEDERATED.as_slice(), &elsewhere].concat();
        let workload = find(Source::Auto, Some("configured"), &set).unwrap();
        assert!(workload.is_https());
        assert!(matches!(&workload, Endpoint::Workload { client_id, .. } if client_id == "configured"));
        assert_eq!(
            url(workload),
            "https://login.microsoftonline.us/1a1a-2222/oauth2/v2.0/token"
        );
        assert_eq!(
            form("c", resource, "a.b.c"),
            "grant_type=client_credentials&client_id=c&scope=https%3A%2F%2Fdatabase.windows.net%2F.default\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
             &client_assertion=a.b.c"
        );
    }

    #[test]
    fn the_header_is_not_shown() {
        let endpoint = find(Source::AppService, None, &APP).unwrap();
        assert!(!format!("{endpoint:?}").contains("hunter2"));
    }
}
