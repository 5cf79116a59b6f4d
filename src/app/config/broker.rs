//! A target's broker: what it logs in with, and whether it mints logins or lends its own.

use crate::app::config::file::{self, Must, TlsMode, TokenOrigin, Written};
use crate::app::config::resolve::Resolver;
use crate::app::config::settings::BrokerCredential;
use crate::credential::Logins;
use crate::domain::Engine;
use crate::identity::managed::{self, Endpoint, Source};

/// What Azure's public cloud calls its databases; other clouds have other names.
/// <https://learn.microsoft.com/en-us/azure/postgresql/security/security-entra-configure>
const AZURE_POSTGRES: &str = "https://ossrdbms-aad.database.windows.net";
/// <https://learn.microsoft.com/en-us/azure/azure-sql/database/authentication-aad-overview>
const AZURE_SQL: &str = "https://database.windows.net/";

impl Resolver<'_, '_, '_> {
    /// The user, its credential, and what clients' connections log in as.
    pub(super) fn broker(
        &mut self,
        target: &file::Target,
        engine: Option<Engine>,
        mode: Option<TlsMode>,
    ) -> Option<(String, BrokerCredential, Logins)> {
        let written = target.broker.get()?;
        let logins = self.logins(target, &written.value);
        let credential = match (&written.value.password, &written.value.managed_identity) {
            (Some(password), None) => self.secret_line(password.get()).map(BrokerCredential::Password),
            (None, Some(identity)) => {
                let identity = self.managed_identity(identity, engine, mode);
                identity.map(BrokerCredential::ManagedIdentity)
            }
            (None, None) => {
                let message = "\"password\" is missing (or managed_identity, in Azure)";
                self.reader.mistake(written.at, message);
                None
            }
            (Some(_), Some(identity)) => {
                let at = identity.get().map_or(written.at, |identity| identity.at);
                let message = "a broker has either a password or a managed_identity, not both";
                self.reader.mistake(at, message);
                None
            }
        };
        let user = written.value.user.get()?.value.clone();
        Some((user, credential?, logins?))
    }

    fn logins(&mut self, target: &file::Target, broker: &file::Broker) -> Option<Logins> {
        match &target.credential {
            Some(Written {
                value: file::Credential::ManagedIdentity,
                at,
            }) => {
                if broker.managed_identity.is_none() {
                    let message = "clients' connections would log in as the broker's managed identity, \
                                   so the broker needs one: broker: {user: …, managed_identity: {}}";
                    self.reader.mistake(*at, message);
                    return None;
                }
                Some(Logins::BrokersOwn)
            }
            Some(Written {
                value: file::Credential::Password,
                ..
            })
            | None => Some(Logins::Minted),
        }
    }

    fn managed_identity(
        &mut self,
        written: &Must<Written<file::ManagedIdentity>>,
        engine: Option<Engine>,
        mode: Option<TlsMode>,
    ) -> Option<managed::Settings> {
        let Written { value: written, at } = written.get()?;
        let proven = |mode| match mode {
            TlsMode::VerifyFull => true,
            TlsMode::Strict => engine == Some(Engine::SqlServer),
            TlsMode::Disable | TlsMode::Require | TlsMode::VerifyCa => false,
        };
        if mode.is_some_and(|mode| !proven(mode)) {
            let or = if engine == Some(Engine::SqlServer) {
                " or strict"
            } else {
                ""
            };
            let message = format!(
                "a token is shown to the server as it is, so this needs tls: {{mode: verify-full}}{or}"
            );
            self.reader.mistake(*at, message);
        }
        let source = match written.source.as_ref().map(|source| source.value) {
            Some(TokenOrigin::Auto) | None => Source::Auto,
            Some(TokenOrigin::Imds) => Source::Imds,
            Some(TokenOrigin::AppService) => Source::AppService,
            Some(TokenOrigin::Workload) => Source::Workload,
        };
        let resource = self.resource(written.resource.as_ref(), engine);
        let client_id = written.client_id.as_ref().map(|id| id.value.as_str());
        let found = Endpoint::find(source, client_id, self.environment.variable);
        let found = found.map_err(|missing| {
            let at = written.source.as_ref().map_or(*at, |source| source.at);
            self.reader.mistake(at, missing.to_string());
        });
        Some(managed::Settings {
            endpoint: found.ok()?,
            resource: resource?,
        })
    }

    fn resource(&mut self, written: Option<&Written<String>>, engine: Option<Engine>) -> Option<String> {
        let Some(written) = written else {
            return engine.map(|engine| match engine {
                Engine::Postgres => AZURE_POSTGRES.to_owned(),
                Engine::SqlServer => AZURE_SQL.to_owned(),
            });
        };
        let host = written.value.strip_prefix("https://").unwrap_or_default();
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
            let shown = &written.value;
            let message = format!("\"{shown}\" is not an address, like {AZURE_POSTGRES}");
            self.reader.mistake(written.at, message);
            return None;
        }
        Some(written.value.clone())
    }
}
