//! Unit tests that a policy brings along, run by `gatepost check`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::domain::access::AccessRequest;
use crate::domain::identity::Identity;
use crate::domain::ids::{ProviderName, RoleName, RuleName};
use crate::domain::mistake::{Mistake, Place};
use crate::domain::target::{DatabaseName, TargetName};

use super::compile::Policy;
use super::decision::Decision;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The claims file, joined to the folder of the policy file that names it.
    pub claims: PathBuf,
    pub provider: ProviderName,
    pub target: TargetName,
    pub database: DatabaseName,
    /// The start-up `user` of the case; `auto` unless it says otherwise.
    pub wanted: String,
    pub expected: Expected,
    pub place: Place,
    pub(super) excerpt: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Deny,
    Role { role: RoleName, rule: Option<RuleName> },
}

/// Turns the claims of a token of this provider into an identity, exactly as the proxy would.
pub type ReadClaims<'a> = dyn Fn(&ProviderName, &Map<String, Value>) -> Result<Identity, String> + 'a;

/// Runs every case at time `at`; a case that does not come out as expected is a mistake.
pub fn run_cases(
    policy: &Policy,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
    read_claims: &ReadClaims<'_>,
    at: SystemTime,
) -> Vec<Mistake> {
    let cases = policy.cases().iter();
    cases
        .filter_map(|case| {
            let message = run(policy, case, read_file, read_claims, at).err()?;
            Some(Mistake {
                place: Some(case.place.clone()),
                message,
                excerpt: case.excerpt.clone(),
            })
        })
        .collect()
}

fn run(
    policy: &Policy,
    case: &Case,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
    read_claims: &ReadClaims<'_>,
    at: SystemTime,
) -> Result<(), String> {
    let file = case.claims.display();
    let text = read_file(&case.claims).map_err(|error| format!("{file} cannot be read: {error}"))?;
    let claims: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| format!("{file} is not a JSON object: {error}"))?;
    let identity = read_claims(&case.provider, &claims)
        .map_err(|error| format!("{file} does not read as claims of `{}`: {error}", case.provider))?;
    let decision = policy.decide(&AccessRequest {
        identity: &identity,
        target: &case.target,
        database: &case.database,
        wanted: &case.wanted,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        at,
    });
    let (came, fits) = match (&decision, &case.expected) {
        (Decision::Deny(denial), expected) => {
            let rule = denial.rule.as_ref().map(|rule| format!(" (rule `{rule}`)"));
            let came = format!("deny{}: {}", rule.unwrap_or_default(), denial.why);
            (came, *expected == Expected::Deny)
        }
        (Decision::Allow(grant), expected) => {
            let came = format!("role `{}` by rule `{}`", grant.role(), grant.rule());
            let fits = match expected {
                Expected::Deny => false,
                Expected::Role { role, rule } => {
                    role == grant.role() && rule.as_ref().is_none_or(|rule| rule == grant.rule())
                }
            };
            (came, fits)
        }
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "the case does not hold: expected {}, came {came}",
        told(&case.expected)
    ))
}

fn told(expected: &Expected) -> String {
    match expected {
        Expected::Deny => "deny".to_owned(),
        Expected::Role { role, rule: None } => format!("role `{role}`"),
        Expected::Role {
            role,
            rule: Some(rule),
        } => format!("role `{role}` by rule `{rule}`"),
    }
}
