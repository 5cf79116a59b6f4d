//! What a broker lacks at a PostgreSQL server, in the words of the SQL that would grant it.

use tokio_postgres::error::SqlState;

use crate::credential::error::BrokerError;
use crate::credential::live::{Finding, FindingKind, as_error};
use crate::credential::naming::MINTED_GROUP;
use crate::credential::postgres::connection::Connection;
use crate::credential::postgres::fence::{self, Gap};
use crate::credential::postgres::naming::quote_name;
use crate::credential::postgres::statements::ADMIN_PER_ROLE;
use crate::domain::ids::RoleName;
use crate::domain::target::DatabaseName;

struct Standing {
    user: String,
    superuser: bool,
    create_role: bool,
    inherit: bool,
    version: i32,
}

/// What stands in the way of minting members of `roles`, most basic first.
pub(in crate::credential) async fn missing(
    connection: &Connection,
    roles: &[RoleName],
) -> Result<Vec<Finding>, BrokerError> {
    let standing = standing(connection).await?;
    let broker = quote_name(&standing.user);
    let mut findings = Vec::new();
    if !standing.superuser && !standing.create_role {
        findings.push(Finding::privilege(
            "CREATEROLE",
            format!("ALTER ROLE {broker} CREATEROLE"),
        ));
    }
    if !standing.superuser && !standing.inherit && standing.version < ADMIN_PER_ROLE {
        findings.push(Finding::privilege(
            "INHERIT",
            format!("ALTER ROLE {broker} INHERIT"),
        ));
    }
    let names = std::iter::once(MINTED_GROUP).chain(roles.iter().map(RoleName::as_str));
    for name in names {
        let quoted = quote_name(name);
        match admin_of(connection, name).await? {
            None => findings.push(Finding {
                missing: name.to_owned(),
                sql: format!("CREATE ROLE {quoted} NOLOGIN"),
                kind: FindingKind::MissingRole,
            }),
            Some(false) if !standing.superuser && standing.version >= ADMIN_PER_ROLE => {
                findings.push(Finding::privilege(
                    &format!("ADMIN on role {name}"),
                    format!("GRANT {quoted} TO {broker} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"),
                ));
            }
            Some(_) => {}
        }
    }
    if standing.superuser {
        findings.push(Finding {
            missing: format!("{} is a superuser, which the broker need not be", standing.user),
            sql: format!("ALTER ROLE {broker} NOSUPERUSER CREATEROLE"),
            kind: FindingKind::TooMuch,
        });
    }
    Ok(findings)
}

/// `CONNECT` of the roles on their database, and the fence in `pg_hba.conf` as far as it can be seen.
pub(in crate::credential) async fn surroundings(
    connection: &Connection,
    roles: &[RoleName],
    databases: &[DatabaseName],
) -> Result<Vec<Finding>, BrokerError> {
    let mut findings = Vec::new();
    let sql = "SELECT r.rolname::text, d.datname::text FROM pg_roles AS r, pg_database AS d \
               WHERE (r.rolname = ANY ($1) OR r.rolname = current_user) AND d.datname = ANY ($2) \
               AND NOT has_database_privilege(r.oid, d.oid, 'CONNECT') ORDER BY 1, 2";
    let roles: Vec<_> = roles.iter().map(RoleName::as_str).collect();
    let databases: Vec<_> = databases.iter().map(DatabaseName::as_str).collect();
    let rows = connection
        .query("reading privileges", sql, &[&roles, &databases])
        .await?;
    for row in rows {
        let (role, database): (String, String) = (row.get(0), row.get(1));
        findings.push(Finding::privilege(
            &format!("CONNECT on database {database} for role {role}"),
            format!(
                "GRANT CONNECT ON DATABASE {} TO {}",
                quote_name(&database),
                quote_name(&role)
            ),
        ));
    }
    findings.extend(fence(connection, &roles).await?);
    findings.extend(connection.unseen().await?);
    Ok(findings)
}

/// What lets minted logins in by their password alone.
async fn fence(connection: &Connection, roles: &[&str]) -> Result<Vec<Finding>, BrokerError> {
    const SEE: &str = "-- see docs/postgres.md, \"The fence\"";
    let finding = |missing, kind| Finding {
        missing,
        sql: SEE.to_owned(),
        kind,
    };
    match connection.hba_rules().await {
        Ok(rules) => {
            let told = |gap: Gap| {
                let kind = if gap.local {
                    FindingKind::TooMuch
                } else {
                    FindingKind::MissingPrivilege
                };
                finding(format!("a fence: pg_hba.conf line {}", gap.text), kind)
            };
            Ok(fence::gaps(&rules, roles).into_iter().map(told).collect())
        }
        Err(error) if error.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let missing = format!(
                "could not see pg_hba.conf: the broker may not read pg_hba_file_rules, so the fence for \
                 +{MINTED_GROUP} is not proven"
            );
            Ok(vec![finding(missing, FindingKind::NotProven)])
        }
        Err(error) => Err(error),
    }
}

/// Turns the server's "insufficient privilege" and "undefined object" into what is missing exactly.
pub(in crate::credential) async fn explain(
    connection: &Connection,
    error: BrokerError,
    role: &RoleName,
) -> BrokerError {
    let known = [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::UNDEFINED_OBJECT];
    if !error.sqlstate().is_some_and(|code| known.contains(code)) {
        return error;
    }
    let Ok(findings) = missing(connection, std::slice::from_ref(role)).await else {
        return error;
    };
    as_error(findings, connection.target(), ("42704", "42501")).unwrap_or(error)
}

async fn standing(connection: &Connection) -> Result<Standing, BrokerError> {
    let sql = "SELECT rolname::text, rolsuper, rolcreaterole, rolinherit, \
               current_setting('server_version_num')::int4 FROM pg_roles WHERE rolname = current_user";
    let row = connection.client().query_one(sql, &[]);
    let row = connection.limited("reading the broker's rights", row).await?;
    Ok(Standing {
        user: row.get(0),
        superuser: row.get(1),
        create_role: row.get(2),
        inherit: row.get(3),
        version: row.get(4),
    })
}

/// `None`: no such role.
async fn admin_of(connection: &Connection, role: &str) -> Result<Option<bool>, BrokerError> {
    let sql = "SELECT pg_has_role(oid, 'MEMBER WITH ADMIN OPTION') FROM pg_roles WHERE rolname = $1";
    let rows = connection
        .query("reading the broker's rights", sql, &[&role])
        .await?;
    Ok(rows.first().map(|row| row.get(0)))
}
