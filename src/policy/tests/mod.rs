//! The room from outside: whole policies in, decisions and mistakes out.

mod admin;
mod decisions;
mod examples;
mod mistakes;
mod outline;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use crate::domain::access::AccessRequest;
use crate::domain::identity::{Claimed, Identity};
use crate::domain::mistake::Mistake;
use crate::domain::target::{DatabaseName, Engine, TargetName};
use crate::policy::*;

pub(super) const ROLES: &str = "version: 1
roles:
  writer: {target: orders, database: orders, grants: [{privileges: [select, insert], on: {tables: [public.orders]}}]}
  reader: {target: orders, database: orders, grants: [{privileges: [select], on: {tables: [public.orders]}}]}
  rescue: {target: orders, database: orders, break_glass: true, grants: [{privileges: [delete], on: {tables: [public.orders]}}]}
  stock: {target: orders, database: stock, grants: [{privileges: [select], on: {tables: [public.stock]}}]}
";

pub(super) fn surroundings() -> Surroundings {
    let target = |engine, databases: &[&str]| TargetFacts {
        engine,
        databases: databases.iter().map(DatabaseName::new).collect(),
    };
    Surroundings {
        providers: BTreeSet::from(["dev".into(), "okta".into()]),
        targets: BTreeMap::from([
            (
                TargetName::new("orders"),
                target(Engine::Postgres, &["orders", "stock"]),
            ),
            (TargetName::new("legacy"), target(Engine::SqlServer, &["erp"])),
        ]),
    }
}

pub(super) fn source(path: &str, text: &str) -> SourceText {
    SourceText {
        path: path.into(),
        text: text.to_owned(),
    }
}

/// The roles above and these rules.
pub(super) fn load_rules(rules: &str) -> Result<Loaded, Vec<Mistake>> {
    let sources = [
        source("p/a.yaml", ROLES),
        source("p/b.yaml", &format!("version: 1\nrules:\n{rules}")),
    ];
    load(&sources, &surroundings())
}

pub(super) fn policy(rules: &str) -> Policy {
    match load_rules(rules) {
        Ok(loaded) => loaded.policy,
        Err(mistakes) => panic!("{}", shown(&mistakes)),
    }
}

pub(super) fn shown(mistakes: &[Mistake]) -> String {
    let shown: Vec<_> = mistakes.iter().map(Mistake::to_string).collect();
    shown.join("\n")
}

pub(super) fn known(values: &[&str]) -> Claimed {
    Claimed::Known(values.iter().map(|value| (*value).to_owned()).collect())
}

/// `worker` of provider `dev` with the role `W`.
pub(super) fn worker() -> Identity {
    Identity {
        provider: "dev".into(),
        subject: "oid-1".to_owned(),
        client_id: Some("worker".to_owned()),
        tenant: Some("t1".to_owned()),
        name: Some("worker@example.com".to_owned()),
        roles: known(&["W"]),
        groups: known(&["g1"]),
        scopes: Claimed::none(),
        token_id: None,
        expires_at: SystemTime::UNIX_EPOCH,
        claims: serde_json::from_str(r#"{"idtyp": "app", "level": 3}"#).unwrap(),
    }
}

pub(super) fn ask<R>(
    identity: &Identity,
    wanted: &str,
    database: &str,
    answer: impl FnOnce(&AccessRequest<'_>) -> R,
) -> R {
    answer(&AccessRequest {
        identity,
        target: &TargetName::new("orders"),
        database: &DatabaseName::new(database),
        wanted,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        at: SystemTime::UNIX_EPOCH,
    })
}
