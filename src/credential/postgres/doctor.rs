//! What `gatepost doctor` asks a PostgreSQL server.

use std::collections::BTreeSet;

use crate::credential::doctor::{Marking, OBJECTS_MAX, Object, Objects, Sighting};
use crate::credential::error::{BrokerError, chain};
use crate::credential::live::{Finding, FindingKind};
use crate::credential::naming::{MINTED_GROUP, login_prefix};
use crate::credential::postgres::connection::{Access, Connection};
use crate::credential::postgres::inspection::{NamedLook, Seen};
use crate::credential::postgres::naming::{quote_name, quote_text};
use crate::domain::ids::{Installation, RoleName};
use crate::domain::target::DatabaseName;

/// Every role that is called like a login, or has the comment of one.
pub(in crate::credential) async fn sightings(
    connection: &Connection,
    installation: &Installation,
) -> Result<Vec<Sighting>, BrokerError> {
    let looks = connection.inspect_all(&login_prefix(installation)).await?;
    let sighting = |look| sighting(look, installation);
    Ok(looks.into_iter().map(sighting).collect())
}

fn sighting(look: NamedLook, installation: &Installation) -> Sighting {
    let seen = look.seen;
    let mark = seen.mark();
    let heir = heir(&seen);
    let role = mark
        .as_ref()
        .map(|mark| mark.role.clone())
        .or_else(|| heir.clone());
    let mut liberties: Vec<String> = role
        .iter()
        .flat_map(|role| seen.liberties(role.as_str()))
        .collect();
    liberties.extend(seen.until.is_none().then(|| "never expires".to_owned()));
    let minted = seen.member_of.iter().any(|group| group == MINTED_GROUP);
    let marking = match (seen.comment, mark) {
        (None, _) => Marking::None,
        (Some(_), None) => Marking::Unreadable,
        (Some(_), Some(mark)) => Marking::Read {
            ours: mark.installation == *installation,
            installation: Some(mark.installation.to_string()),
            replica: Some(mark.replica.to_string()),
            epoch: mark.epoch,
            generation: mark.generation,
        },
    };
    Sighting {
        name: look.name,
        marking,
        role,
        until: seen.until,
        expired: seen.expired,
        disabled: !seen.can_login,
        sessions: look.sessions,
        liberties,
        // It is one of the minted, and our broker is the one that administers it.
        certain: minted && look.administered && heir.is_some(),
    }
}

/// The one role that a login was minted for, as far as its memberships tell.
fn heir(seen: &Seen) -> Option<RoleName> {
    let mut roles = seen.member_of.iter().filter(|name| *name != MINTED_GROUP);
    let first = roles.next()?;
    roles.next().is_none().then(|| RoleName::new(first.as_str()))
}

/// In the order in which gatepost would do it.
pub(in crate::credential) fn end_by_hand(
    login: &str,
    role: Option<&RoleName>,
    objects: &[Object],
) -> Vec<String> {
    let name = quote_name(login);
    let heir = role.map_or_else(|| "CURRENT_USER".to_owned(), |role| quote_name(role.as_str()));
    let mut sql = vec![
        format!("ALTER ROLE {name} NOLOGIN"),
        format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {}",
            quote_text(login)
        ),
    ];
    let databases: BTreeSet<&DatabaseName> = objects.iter().map(|object| &object.database).collect();
    for database in databases {
        sql.push(format!("\\connect {}", quote_name(database.as_str())));
        sql.push(format!("REASSIGN OWNED BY {name} TO {heir}"));
        sql.push(format!("DROP OWNED BY {name}"));
    }
    sql.push(format!("DROP ROLE {name}"));
    sql
}

/// What the logins own and were granted, database by database. One that the broker may not enter
/// becomes a finding.
pub(in crate::credential) async fn objects(
    access: &Access,
    connection: &Connection,
    names: &[&str],
    findings: &mut Vec<Finding>,
) -> Result<Objects, BrokerError> {
    let sql = "SELECT DISTINCT coalesce(d.datname::text, current_database()::text) FROM pg_shdepend AS s \
               JOIN pg_roles AS r ON r.oid = s.refobjid LEFT JOIN pg_database AS d ON d.oid = s.dbid \
               WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = ANY ($1) \
               AND s.classid <> 'pg_auth_members'::regclass ORDER BY 1";
    let databases = connection.query("listing databases", sql, &[&names]).await?;
    let mut objects = Objects::new();
    for database in databases
        .iter()
        .map(|row| DatabaseName::new(row.get::<_, String>(0)))
    {
        let there = match access.connect(&database).await {
            Ok(there) => there,
            Err(error) => {
                findings.push(closed(&database, &error));
                continue;
            }
        };
        let sql = "SELECT r.rolname::text, pg_describe_object(s.classid, s.objid, s.objsubid), s.deptype = 'o' \
                   FROM pg_shdepend AS s JOIN pg_roles AS r ON r.oid = s.refobjid \
                   WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = ANY ($1) \
                   AND s.classid <> 'pg_auth_members'::regclass AND s.dbid IN (0, \
                   (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1, 2 LIMIT $2";
        let rows = there
            .query("listing owned objects", sql, &[&names, &OBJECTS_MAX])
            .await?;
        for row in rows {
            let object = Object {
                database: database.clone(),
                what: row.get::<_, Option<String>>(1).unwrap_or_default(),
                owned: row.get(2),
            };
            objects.entry(row.get(0)).or_default().push(object);
        }
    }
    Ok(objects)
}

fn closed(database: &DatabaseName, error: &BrokerError) -> Finding {
    let (missing, sql) = if let BrokerError::MissingPrivilege { missing, sql, .. } = error {
        (
            format!("{missing}, in which minted logins own something"),
            sql.clone(),
        )
    } else {
        (
            format!(
                "the broker cannot look into database {database}: {}",
                chain(error)
            ),
            "-- see docs/postgres.md, \"The broker\"".to_owned(),
        )
    };
    Finding {
        missing,
        sql,
        kind: FindingKind::MissingPrivilege,
    }
}
