//! `gatepost explain`: which rule decides, and why the others did not.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use serde_json::{Map, Value};

use crate::app::build::{self, Built};
use crate::app::clock::SystemClock;
use crate::app::config::settings::Environment;
use crate::cli::{Answer, Failure, check, say};
use crate::domain::{AccessRequest, Clock, DatabaseName, Identity, ProviderName, TargetName};
use crate::identity::claims;
use crate::policy::Decision;

/// Show which rule decides for an identity, why the others did not, and which role and limits follow.
///
/// Works on the files alone and connects to nothing. A token's signature is NOT verified: this
/// answers "what would the policy say", not "is this token good".
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost explain --claims consumer.json --provider entra --target orders
  gatepost explain --token token.jwt --target orders --role orders_writer --json")]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "gatepost.yaml")]
    config: PathBuf,
    /// A JSON file with the claims of an access token.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "token",
        conflicts_with = "token",
        requires = "provider"
    )]
    claims: Option<PathBuf>,
    /// A file with an access token; its claims are read, its signature is not verified.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// An entry under identity_providers. With --token it is found by the token's issuer.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// An entry under targets.
    #[arg(long, value_name = "NAME")]
    target: String,
    /// The database or alias. May be left out when the target has one.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The role that the client would name as user.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    role: String,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let environment = Environment::of_process();
    let built = match build::build(&arguments.config, &environment, SystemClock.now()) {
        Ok(built) => built,
        Err(mistakes) => {
            check::report(&mistakes);
            return Ok(Answer::No);
        }
    };
    let now = SystemClock.now();
    let identity = identity(arguments, &built)?;
    let target = TargetName::new(&arguments.target);
    let database = database(arguments, &built)?;
    let request = AccessRequest {
        identity: &identity,
        target: &target,
        database: &database,
        wanted: &arguments.role,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        at: now,
    };
    let explanation = built.policy.explain(&request);
    if arguments.json {
        say(&serde_json::to_string_pretty(&explanation)?)?;
    } else {
        say(&explanation)?;
        warn_if_expired(&identity, now)?;
    }
    Ok(match built.policy.decide(&request) {
        Decision::Allow(_) => Answer::Good,
        Decision::Deny(_) => Answer::No,
    })
}

fn warn_if_expired(identity: &Identity, now: SystemTime) -> Result<(), Failure> {
    if identity.expires_at <= now {
        say(
            &"note: these claims have expired; a client with them would be refused before the policy is asked",
        )?;
    }
    Ok(())
}

fn identity(arguments: &Arguments, built: &Built) -> Result<Identity, Failure> {
    let claims = match (&arguments.claims, &arguments.token) {
        (Some(path), _) => read_claims(path)?,
        (None, Some(path)) => token_claims(path)?,
        (None, None) => return Err("give --claims or --token".into()),
    };
    let issuer = claims.get("iss").and_then(Value::as_str);
    let providers = &built.settings.providers;
    let provider = match &arguments.provider {
        Some(name) => providers.iter().find(|provider| provider.name.as_str() == name),
        None => providers
            .iter()
            .find(|provider| Some(provider.issuer.as_str()) == issuer),
    };
    let provider = provider.ok_or("no such provider under identity_providers")?;
    let name = ProviderName::new(provider.name.as_str());
    Ok(claims::read(build::provider_kind(provider.kind), &name, &claims)?)
}

fn read_claims(path: &PathBuf) -> Result<Map<String, Value>, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let claims = serde_json::from_str(&text);
    claims.map_err(|error| format!("{} is not a JSON object: {error}", path.display()).into())
}

/// The middle part of a JWT. No error repeats anything of it.
fn token_claims(path: &PathBuf) -> Result<Map<String, Value>, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let malformed = || format!("{} does not hold a JWT", path.display());
    let mut parts = text.trim().split('.');
    let payload = parts.nth(1).ok_or_else(malformed)?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| malformed())?;
    serde_json::from_slice(&bytes).map_err(|_| malformed().into())
}

fn database(arguments: &Arguments, built: &Built) -> Result<DatabaseName, Failure> {
    let target = built
        .settings
        .targets
        .iter()
        .find(|target| target.name.as_str() == arguments.target);
    let target = target.ok_or_else(|| format!("no target \"{}\" in the configuration", arguments.target))?;
    match (&arguments.database, target.databases.as_slice()) {
        (Some(asked), all) => {
            let found = all
                .iter()
                .find(|database| database.asked_as == *asked || database.name.as_str() == asked);
            let found = found
                .ok_or_else(|| format!("target \"{}\" has no database \"{asked}\"", arguments.target))?;
            Ok(found.name.clone())
        }
        (None, [one]) => Ok(one.name.clone()),
        (None, _) => Err("the target has several databases: give --database".into()),
    }
}
