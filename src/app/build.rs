//! From a configuration file to everything that a running proxy is made of. Binds no address and
//! connects to nothing, so `check` takes exactly the same steps as `serve`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::app::clock::SystemClock;
use crate::app::config::settings::{self, BrokerCredential, Environment, Settings};
use crate::app::policies;
use crate::audit;
use crate::credential::{
    BrokerSettings, EngineSettings, Logins, SqlServerSettings, SqlServerTls, SqlServerTlsMode,
};
use crate::domain::{Clock, Engine, Identity, Mistake, Password, ProviderName, TokenSource};
use crate::identity::managed::ManagedIdentity;
use crate::identity::{self, ProviderSettings};
use crate::policy::{self, Policy, SourceText, Surroundings, TargetFacts};
use crate::tls::{self, ClientTls, HttpsTrust, ServerTls};

/// Everything that can be made without a socket.
#[derive(Debug)]
pub struct Built {
    pub settings: Settings,
    pub policy: Arc<Policy>,
    /// Overlaps of rules: worth reading, not wrong.
    pub warnings: Vec<Mistake>,
    pub server_tls: Option<ServerTls>,
    /// In the order of `settings.targets`.
    pub client_tls: Vec<ClientTls>,
    /// What brokers log in with, in the order of `settings.targets`.
    pub passwords: Vec<Password>,
    /// Whose tokens are among `passwords`, each once.
    pub own_identities: Vec<Arc<ManagedIdentity>>,
    /// In the order of `settings.providers`.
    pub providers: Vec<ProviderSettings>,
}

/// Takes every step of `serve` up to the first socket. All mistakes that can be found are told.
pub fn build(config: &Path, environment: &Environment<'_>, now: SystemTime) -> Result<Built, Vec<Mistake>> {
    let settings = Settings::load(config, environment)?;
    let mut mistakes = Vec::new();
    let loaded = keep(load_policy(&settings, now), &mut mistakes);
    let server_tls = keep(server_tls(&settings, now), &mut mistakes);
    let client_tls: Vec<_> = settings
        .targets
        .iter()
        .map(|target| keep(client_tls(target), &mut mistakes))
        .collect();
    let providers = keep(providers(&settings), &mut mistakes);
    let passwords = keep(passwords(&settings), &mut mistakes);
    if let Some(loaded) = &loaded {
        mistakes.extend(roles_that_would_be_one(&settings, &loaded.policy));
    }
    if let Err(error) = audit::SigningKey::read(settings.audit.signing_key.expose()) {
        mistakes.push(about("audit.signing_key", &error));
    }
    if let Some(previous) = &settings.audit.previous_signing_key
        && let Err(error) = audit::SigningKey::read(previous.expose())
    {
        mistakes.push(about("audit.previous_signing_key", &error));
    }
    let client_tls: Option<Vec<_>> = client_tls.into_iter().collect();
    match (loaded, server_tls, client_tls, providers, passwords) {
        (Some(loaded), Some(server_tls), Some(client_tls), Some(providers), Some(passwords))
            if mistakes.is_empty() =>
        {
            let (passwords, own_identities) = passwords;
            Ok(Built {
                settings,
                policy: Arc::new(loaded.policy),
                warnings: loaded.warnings,
                server_tls,
                client_tls,
                passwords,
                own_identities,
                providers,
            })
        }
        _ => Err(mistakes),
    }
}

/// The value, or its mistakes added to the others.
fn keep<T>(made: Result<T, Vec<Mistake>>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    made.map_err(|told| mistakes.extend(told)).ok()
}

/// A mistake in what a key of the configuration leads to.
fn about(key: &str, error: &dyn std::error::Error) -> Mistake {
    let mut text = format!("{key}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Mistake::general(text)
}

fn load_policy(settings: &Settings, now: SystemTime) -> Result<policy::Loaded, Vec<Mistake>> {
    let texts = policies::read(&settings.policies)?;
    let sources: Vec<_> = texts
        .into_iter()
        .map(|it| SourceText {
            path: it.path,
            text: it.text,
        })
        .collect();
    let loaded = policy::load(&sources, &surroundings(settings))?;
    let kinds: BTreeMap<_, _> = settings
        .providers
        .iter()
        .map(|it| (it.name.clone(), it.kind))
        .collect();
    let read_claims = |provider: &ProviderName, claims: &serde_json::Map<String, serde_json::Value>| {
        let kind = kinds
            .get(provider)
            .ok_or_else(|| format!("no identity provider \"{provider}\""))?;
        let read: Result<Identity, _> = identity::claims::read(provider_kind(*kind), provider, claims);
        read.map_err(|error| error.to_string())
    };
    let failed = policy::run_cases(
        &loaded.policy,
        &|path: &Path| fs::read_to_string(path),
        &read_claims,
        now,
    );
    if failed.is_empty() {
        Ok(loaded)
    } else {
        Err(failed)
    }
}

/// What the policy may refer to.
pub fn surroundings(settings: &Settings) -> Surroundings {
    let targets = settings.targets.iter().map(|target| {
        let databases = target.databases.iter().map(|database| database.name.clone());
        let facts = TargetFacts {
            engine: target.engine,
            databases: databases.collect(),
        };
        (target.name.clone(), facts)
    });
    Surroundings {
        providers: settings
            .providers
            .iter()
            .map(|provider| provider.name.clone())
            .collect(),
        targets: targets.collect(),
    }
}

pub fn provider_kind(kind: settings::ProviderKind) -> identity::ProviderKind {
    match kind {
        settings::ProviderKind::Entra => identity::ProviderKind::Entra,
        settings::ProviderKind::Okta => identity::ProviderKind::Okta,
        settings::ProviderKind::Oidc => identity::ProviderKind::Oidc,
    }
}

fn server_tls(settings: &Settings, now: SystemTime) -> Result<Option<ServerTls>, Vec<Mistake>> {
    let Some(written) = &settings.tls else {
        return Ok(None);
    };
    let wanted = tls::ServerSettings {
        certificate: written.certificate.clone(),
        private_key: written.private_key.clone(),
    };
    let loaded = ServerTls::load(&wanted, now);
    loaded.map(Some).map_err(|error| vec![about("tls", &error)])
}

fn client_tls(target: &settings::Target) -> Result<ClientTls, Vec<Mistake>> {
    let mode = match target.tls.mode {
        settings::TlsMode::Disable => tls::Mode::Disable,
        settings::TlsMode::Require => tls::Mode::Require,
        settings::TlsMode::VerifyCa => tls::Mode::VerifyCa,
        settings::TlsMode::VerifyFull => tls::Mode::VerifyFull,
        settings::TlsMode::Strict => tls::Mode::Strict,
    };
    let wanted = tls::ClientSettings {
        engine: target.engine,
        mode,
        ca: target.tls.ca.clone(),
        client: target.tls.client.clone(),
    };
    ClientTls::load(&wanted).map_err(|error| vec![about(&format!("targets.{}.tls", target.name), &error)])
}

/// How the broker of a target reaches it.
pub fn broker_settings(
    settings: &Settings,
    target: &settings::Target,
    tls: &ClientTls,
    password: &Password,
) -> BrokerSettings {
    BrokerSettings {
        engine: engine_settings(target),
        target: target.name.clone(),
        address: (target.host.clone(), target.port),
        databases: target
            .databases
            .iter()
            .map(|database| database.name.clone())
            .collect(),
        user: target.broker_user.clone(),
        password: password.clone(),
        tls: tls.rustls_config(),
        proven_server: tls.proven_server(),
        logins: target.logins,
        marker: marking(settings, target).map(|marking| marking.key),
        installation: settings.installation.clone(),
        replica: settings.replica.clone(),
    }
}

/// What transactions at this target are marked with, if they are.
pub fn marking(settings: &Settings, target: &settings::Target) -> Option<audit::Marking> {
    let marks = target.wal_marker || target.marker_table.is_some();
    let key = marks.then(|| audit::SigningKey::read(settings.audit.signing_key.expose()));
    // A key that cannot be read has stopped the start.
    let key = audit::MarkerKey::of(&key?.ok()?, &settings.installation);
    let table = target.marker_table.clone();
    Some(audit::Marking { key, table })
}

/// What the broker needs to know besides, by the target's engine.
pub fn engine_settings(target: &settings::Target) -> EngineSettings {
    match target.engine {
        Engine::Postgres => EngineSettings::Postgres,
        Engine::SqlServer => EngineSettings::SqlServer(SqlServerSettings {
            contained: target.contained,
            marker_table: target.marker_table.clone(),
            tls: SqlServerTls {
                mode: match target.tls.mode {
                    settings::TlsMode::Disable => SqlServerTlsMode::Disable,
                    settings::TlsMode::Require => SqlServerTlsMode::Require,
                    settings::TlsMode::VerifyCa
                    | settings::TlsMode::VerifyFull
                    | settings::TlsMode::Strict => SqlServerTlsMode::Verify,
                },
                ca: target.tls.ca.clone(),
                host_in_certificate: None,
                strict: target.tls.mode == settings::TlsMode::Strict,
            },
        }),
    }
}

type Passwords = (Vec<Password>, Vec<Arc<ManagedIdentity>>);

/// Targets whose tokens are the same share their source.
fn passwords(settings: &Settings) -> Result<Passwords, Vec<Mistake>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (mut passwords, mut identities) = (Vec::new(), Vec::<Arc<ManagedIdentity>>::new());
    for target in &settings.targets {
        let wanted = match &target.broker {
            BrokerCredential::Password(secret) => {
                passwords.push(Password::Secret(secret.clone()));
                continue;
            }
            BrokerCredential::ManagedIdentity(wanted) => wanted,
        };
        let known = identities.iter().find(|known| known.settings() == wanted);
        let identity = if let Some(known) = known {
            Arc::clone(known)
        } else {
            let https = wanted.endpoint.is_https().then(|| HttpsTrust::load(None));
            let key = format!("targets.{}.broker.managed_identity", target.name);
            let https = https.transpose().map_err(|error| vec![about(&key, &error)])?;
            let identity = ManagedIdentity::new(wanted.clone(), https, Arc::clone(&clock));
            let identity = Arc::new(identity);
            identities.push(Arc::clone(&identity));
            identity
        };
        let source: Arc<dyn TokenSource> = identity;
        passwords.push(Password::Token(source));
    }
    Ok((passwords, identities))
}

/// Where everybody logs in as one user, roles of different rights would only look like it.
fn roles_that_would_be_one(settings: &Settings, policy: &Policy) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for target in settings
        .targets
        .iter()
        .filter(|it| it.logins == Logins::BrokersOwn)
    {
        let declared = policy.roles().iter().filter(|role| role.target == target.name);
        let names: BTreeSet<_> = declared.map(|role| role.name.to_string()).collect();
        if names.len() > 1 {
            let names: Vec<_> = names.into_iter().collect();
            mistakes.push(Mistake::general(format!(
                "targets.{}.credential: managed_identity logs everybody in as {}, so policy can have only one role \
                 there, and it has {}",
                target.name,
                target.broker_user,
                names.join(", ")
            )));
        }
    }
    mistakes
}

/// Each provider with its own authority, or the system's.
fn providers(settings: &Settings) -> Result<Vec<ProviderSettings>, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut providers = Vec::new();
    for provider in &settings.providers {
        match HttpsTrust::load(provider.ca.as_deref()) {
            Ok(https) => providers.push(ProviderSettings {
                name: provider.name.clone(),
                kind: provider_kind(provider.kind),
                issuer: provider.issuer.clone(),
                tenants: provider.tenants.clone(),
                audiences: provider.audiences.clone(),
                https,
            }),
            Err(error) => mistakes.push(about(&format!("identity_providers.{}", provider.name), &error)),
        }
    }
    if mistakes.is_empty() {
        Ok(providers)
    } else {
        Err(mistakes)
    }
}

/// The journal's settings; opening it takes the folder for this process.
pub fn journal_settings(settings: &Settings) -> audit::Settings {
    /// Large enough that a year is thousands of files, small enough for one to be mailed.
    const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
    let durability = match settings.audit.durability {
        settings::Durability::Strict => audit::Durability::Strict,
        settings::Durability::Batched => audit::Durability::Batched,
        settings::Durability::Os => audit::Durability::Os,
    };
    audit::Settings {
        directory: settings.audit.directory.clone(),
        durability,
        signing_key: settings.audit.signing_key.clone(),
        previous_key: settings.audit.previous_signing_key.clone(),
        installation: settings.installation.clone(),
        replica: settings.replica.clone(),
        segment_bytes: SEGMENT_BYTES,
        heads: settings.audit.heads.clone(),
        retention: settings.audit.retention,
    }
}
