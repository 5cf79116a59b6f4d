//! Where nothing is minted: what the one user that everybody logs in as should be.

use crate::credential::error::BrokerError;
use crate::credential::live::{Finding, FindingKind};
use crate::credential::sqlserver::connection::{Connection, Row};
use crate::credential::sqlserver::naming::{quote_name, quote_text};
use crate::domain::ids::RoleName;
use crate::domain::target::DatabaseName;

/// For a new upstream connection that logs in as everybody does, before anything else. Each row is one
/// text, to be read after "the login": what one client could have changed of the user, and would reach all
/// others. What the user may do is the operator's, and is not looked at.
pub const SETTINGS_CHECK_TSQL: &str = "\
    SELECT N'has another default schema' WHERE SCHEMA_NAME() <> N'dbo'; \
    SELECT N'acts as another' WHERE SUSER_SNAME() <> ORIGINAL_LOGIN()";

/// What a managed identity lacks, or has too much of, to be everybody's login. `roles` are those that
/// policy declares here; each is to be in one of the target's databases.
pub(in crate::credential) async fn missing(
    connection: &Connection,
    roles: &[RoleName],
) -> Result<Vec<Finding>, BrokerError> {
    let mut findings = Vec::new();
    let mut found = Vec::new();
    let here = connection.database().clone();
    look_into(connection, roles, &mut found, &mut findings).await?;
    let others = connection.access().databases.iter();
    for database in others.filter(|name| **name != here) {
        match connection.beside(database).await {
            Ok(there) => look_into(&there, roles, &mut found, &mut findings).await?,
            Err(BrokerError::MissingPrivilege { missing, sql, .. }) => {
                findings.push(Finding::privilege(&missing, sql));
            }
            Err(error) => return Err(error),
        }
    }
    let absent = roles.iter().filter(|role| !found.contains(role));
    findings.extend(absent.map(|role| Finding {
        missing: role.to_string(),
        sql: format!("CREATE ROLE {}", quote_name(role.as_str())),
        kind: FindingKind::MissingRole,
    }));
    Ok(findings)
}

/// Asked of one database. Roles that are there are added to `found`.
async fn look_into(
    connection: &Connection,
    roles: &[RoleName],
    found: &mut Vec<RoleName>,
    findings: &mut Vec<Finding>,
) -> Result<(), BrokerError> {
    let sql = "SELECT USER_NAME(), SCHEMA_NAME(), CAST(IS_SRVROLEMEMBER('sysadmin') AS int)";
    let standing = connection.query("asking who we are", sql).await?;
    let Some(standing) = standing.first() else {
        return Ok(());
    };
    let database = connection.database();
    findings.extend(judge_user(standing, database));
    let user = standing.text(0).unwrap_or_default();
    let declared: Vec<_> = roles.iter().map(|role| quote_text(role.as_str())).collect();
    // No role is called like this.
    let declared = if declared.is_empty() {
        "N''".to_owned()
    } else {
        declared.join(", ")
    };
    let sql = format!(
        "SELECT r.name, CASE WHEN m.member_principal_id IS NULL THEN 0 ELSE 1 END, \
         CASE WHEN r.name IN ({declared}) THEN 1 ELSE 0 END FROM sys.database_principals AS r \
         LEFT JOIN sys.database_role_members AS m ON m.role_principal_id = r.principal_id \
         AND m.member_principal_id = USER_ID() \
         WHERE r.type = 'R' AND (m.member_principal_id IS NOT NULL OR r.name IN ({declared})) ORDER BY r.name"
    );
    for row in connection.query("reading memberships", &sql).await? {
        let role = row.text(0).unwrap_or_default();
        if row.yes(2) {
            found.push(RoleName::new(role));
        }
        findings.extend(judge_role(&row, user, database));
    }
    Ok(())
}

/// Its name and default schema; is it a sysadmin?
fn judge_user(row: &Row, database: &DatabaseName) -> Option<Finding> {
    let (user, schema) = (row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default());
    if row.yes(2) || user == "dbo" {
        return Some(Finding {
            missing: format!("every client is the owner of database {database}, as gatepost's user there is"),
            sql: "CREATE USER … FROM EXTERNAL PROVIDER, and a role for it".to_owned(),
            kind: FindingKind::TooMuch,
        });
    }
    (schema != "dbo").then(|| Finding {
        missing: format!("a user with default schema dbo: {user} has another in database {database}"),
        sql: format!(
            "USE {}; ALTER USER {} WITH DEFAULT_SCHEMA = dbo",
            quote_name(database.as_str()),
            quote_name(user)
        ),
        kind: FindingKind::MissingPrivilege,
    })
}

/// A role's name; is the user its member, and does policy declare it?
fn judge_role(row: &Row, user: &str, database: &DatabaseName) -> Option<Finding> {
    let role = row.text(0).unwrap_or_default();
    let alter = |what: &str| {
        format!(
            "USE {}; ALTER ROLE {} {what} MEMBER {}",
            quote_name(database.as_str()),
            quote_name(role),
            quote_name(user)
        )
    };
    match (row.yes(1), row.yes(2)) {
        (false, _) => Some(Finding {
            missing: format!("membership of {user} in role {role}"),
            sql: alter("ADD"),
            kind: FindingKind::MissingPrivilege,
        }),
        (true, false) => Some(Finding {
            missing: format!("membership of {user} in role {role}, which policy does not declare here"),
            sql: alter("DROP"),
            kind: FindingKind::TooMuch,
        }),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_user_has_the_declared_role_and_no_other() {
        let sales = DatabaseName::new("sales");
        let told = |member, declared| {
            let row = Row::of(&["writer]"], &[member, declared]);
            judge_role(&row, "gate", &sales).map(|finding| (finding.sql, finding.kind))
        };
        assert_eq!(told(1, 1), None);
        assert_eq!(
            told(0, 1),
            Some((
                "USE [sales]; ALTER ROLE [writer]]] ADD MEMBER [gate]".to_owned(),
                FindingKind::MissingPrivilege
            ))
        );
        assert_eq!(
            told(1, 0),
            Some((
                "USE [sales]; ALTER ROLE [writer]]] DROP MEMBER [gate]".to_owned(),
                FindingKind::TooMuch
            ))
        );
    }

    #[test]
    fn the_shared_user_owns_nothing_and_its_schema_is_nobodys() {
        let sales = DatabaseName::new("sales");
        let told = |user, schema, sysadmin| {
            let finding = judge_user(&Row::of(&[user, schema], &[sysadmin]), &sales);
            finding.map(|finding| finding.kind)
        };
        assert_eq!(told("gate", "dbo", 0), None);
        assert_eq!(told("gate", "planted", 0), Some(FindingKind::MissingPrivilege));
        assert_eq!(told("dbo", "dbo", 0), Some(FindingKind::TooMuch));
        assert_eq!(told("gate", "dbo", 1), Some(FindingKind::TooMuch));
    }
}
