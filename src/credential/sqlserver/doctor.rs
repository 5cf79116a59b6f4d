//! What `gatepost doctor` asks a SQL Server.

use std::collections::{BTreeMap, BTreeSet};

use crate::credential::doctor::{Marking, OBJECTS_MAX, Object, Objects, Sighting};
use crate::credential::error::{BrokerError, chain};
use crate::credential::live::{Finding, FindingKind};
use crate::credential::naming::login_prefix;
use crate::credential::sqlserver::connection::Connection;
use crate::credential::sqlserver::inspection::{Seen, SeenByName, Which};
use crate::credential::sqlserver::naming::{Spoken, quote_name, quote_text};
use crate::credential::sqlserver::statements::owned;
use crate::domain::ids::{Installation, RoleName};
use crate::domain::target::DatabaseName;

/// Every login, and every user without one, that is called like a login of ours.
pub(in crate::credential) async fn sightings(
    connection: &Connection,
    installation: &Installation,
) -> Result<Vec<Sighting>, BrokerError> {
    let prefix = login_prefix(installation);
    let which = Which::Beginning(&prefix);
    let mut all = SeenByName::new();
    connection.inspect_logins(which, &mut all).await?;
    for database in connection.access().databases.iter() {
        if database == connection.database() {
            connection.inspect_users(which, &mut all).await?;
        } else if let Ok(there) = connection.beside(database).await {
            // One that the broker cannot enter is told with what the logins own.
            there.inspect_users(which, &mut all).await?;
        }
    }
    let sessions = sessions(connection, &prefix).await?;
    let sighting = |(name, seen): (String, Seen)| {
        let sessions = sessions.get(&name).copied().unwrap_or_default();
        sighting(name, &seen, sessions, installation, connection.contained())
    };
    Ok(all.into_iter().map(sighting).collect())
}

fn sighting(
    name: String,
    seen: &Seen,
    sessions: i64,
    installation: &Installation,
    contained: bool,
) -> Sighting {
    let role = heir(seen);
    let marking = Spoken::by(&name).map_or(Marking::None, |spoken| {
        let ours = spoken.is_of(installation);
        Marking::Read {
            ours,
            installation: ours.then(|| installation.to_string()),
            replica: None,
            epoch: spoken.epoch,
            generation: spoken.generation,
        }
    });
    let first = seen.user.as_ref().and_then(|user| user.roles.first());
    let mut liberties = seen.liberties(first.map_or("", String::as_str));
    if !contained && seen.home.is_none() {
        liberties.push("is a user whose login is gone".to_owned());
    }
    Sighting {
        name,
        marking,
        role,
        until: None,
        expired: false,
        disabled: seen.disabled,
        sessions,
        liberties,
        certain: false,
    }
}

/// The one role that a login was minted for, as far as its memberships tell.
fn heir(seen: &Seen) -> Option<RoleName> {
    let mut roles = seen.user.as_ref()?.roles.iter();
    let first = roles.next()?;
    roles.next().is_none().then(|| RoleName::new(first.as_str()))
}

async fn sessions(connection: &Connection, prefix: &str) -> Result<BTreeMap<String, i64>, BrokerError> {
    let sql = format!(
        "SELECT original_login_name, COUNT(*) FROM sys.dm_exec_sessions WHERE session_id IS NOT NULL \
         AND LEFT(original_login_name, {}) = {} GROUP BY original_login_name",
        prefix.len(),
        quote_text(prefix)
    );
    let rows = connection.query("counting sessions", &sql).await?;
    let counted = rows
        .iter()
        .filter_map(|row| Some((row.text(0)?.to_lowercase(), row.int(1)?)));
    Ok(counted.collect())
}

/// What the logins own and were granted, database by database. One that the broker may not enter becomes
/// a finding.
pub(in crate::credential) async fn objects(
    connection: &Connection,
    names: &[&str],
    findings: &mut Vec<Finding>,
) -> Result<Objects, BrokerError> {
    let mut objects = Objects::new();
    for database in connection.access().databases.iter() {
        let other;
        let there = if database == connection.database() {
            connection
        } else {
            match connection.beside(database).await {
                Ok(there) => {
                    other = there;
                    &other
                }
                Err(error) => {
                    findings.push(closed(database, &error));
                    continue;
                }
            }
        };
        for name in names {
            let found = objects_of(there, name).await?;
            if !found.is_empty() {
                objects.entry((*name).to_owned()).or_default().extend(found);
            }
        }
    }
    Ok(objects)
}

async fn objects_of(connection: &Connection, name: &str) -> Result<Vec<Object>, BrokerError> {
    let name = quote_text(name);
    let sql = format!(
        "{}; SELECT N'granted', s.permission_name + N' on ' \
         + COALESCE(QUOTENAME(OBJECT_SCHEMA_NAME(s.major_id)) + N'.' + QUOTENAME(OBJECT_NAME(s.major_id)), s.class_desc) \
         FROM sys.database_permissions AS s JOIN sys.database_principals AS p \
         ON p.principal_id = s.grantee_principal_id WHERE s.type <> 'CO' AND p.name = {name}",
        owned(&name)
    );
    let rows = connection.query("listing owned objects", &sql).await?;
    let rows = rows
        .iter()
        .take(usize::try_from(OBJECTS_MAX).unwrap_or(usize::MAX));
    let object = rows.filter_map(|row| {
        let (class, what) = (row.text(0)?, row.text(1)?);
        let owned = class != "granted";
        let what = if owned {
            format!("{} {what}", class.to_lowercase())
        } else {
            what.to_owned()
        };
        Some(Object {
            database: connection.database().clone(),
            what,
            owned,
        })
    });
    Ok(object.collect())
}

fn closed(database: &DatabaseName, error: &BrokerError) -> Finding {
    let (missing, sql) = if let BrokerError::MissingPrivilege { missing, sql, .. } = error {
        (missing.clone(), sql.clone())
    } else {
        (
            format!(
                "the broker cannot look into database {database}: {}",
                chain(error)
            ),
            "-- see docs/sqlserver.md, \"The broker\"".to_owned(),
        )
    };
    Finding {
        missing,
        sql,
        kind: FindingKind::MissingPrivilege,
    }
}

/// In the order in which gatepost would do it.
pub(in crate::credential) fn end_by_hand(
    login: &str,
    role: Option<&RoleName>,
    objects: &[Object],
    databases: &[DatabaseName],
    contained: bool,
) -> Vec<String> {
    let name = quote_name(login);
    let heir = role.map_or_else(|| "[dbo]".to_owned(), |role| quote_name(role.as_str()));
    let mut sql = Vec::new();
    if !contained {
        sql.push(format!("ALTER LOGIN {name} DISABLE"));
    }
    sql.push(format!(
        "SELECT N'KILL ' + CAST(session_id AS nvarchar(20)) FROM sys.dm_exec_sessions \
         WHERE original_login_name = {}",
        quote_text(login)
    ));
    let touched: BTreeSet<&DatabaseName> = objects.iter().map(|object| &object.database).collect();
    for database in databases {
        sql.push(format!("USE {}", quote_name(database.as_str())));
        if touched.contains(database) {
            let owned = objects
                .iter()
                .filter(|object| object.owned && object.database == *database);
            for object in owned {
                let (class, what) = object.what.split_once(' ').unwrap_or(("object", &object.what));
                let class = class.to_uppercase();
                sql.push(format!("ALTER AUTHORIZATION ON {class}::{what} TO {heir}"));
            }
        }
        sql.push(format!("DROP USER IF EXISTS {name}"));
    }
    if !contained {
        sql.push(format!("DROP LOGIN {name}"));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_that_end_a_login_are_in_order() {
        let objects = [Object {
            database: "orders".into(),
            what: "schema [theirs]".to_owned(),
            owned: true,
        }];
        let databases = ["orders".into(), "archive".into()];
        let sql = end_by_hand("gp_a", Some(&"writer".into()), &objects, &databases, false);
        assert_eq!(sql[0], "ALTER LOGIN [gp_a] DISABLE");
        assert_eq!(
            sql[2..],
            [
                "USE [orders]",
                "ALTER AUTHORIZATION ON SCHEMA::[theirs] TO [writer]",
                "DROP USER IF EXISTS [gp_a]",
                "USE [archive]",
                "DROP USER IF EXISTS [gp_a]",
                "DROP LOGIN [gp_a]"
            ]
        );
        let sql = end_by_hand("gp_a", None, &[], &databases[..1], true);
        assert_eq!(sql[1..], ["USE [orders]", "DROP USER IF EXISTS [gp_a]"]);
    }
}
