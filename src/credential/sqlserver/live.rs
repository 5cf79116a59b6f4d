//! What a broker lacks at a SQL Server, in the words of the T-SQL that would grant it.

use crate::credential::error::BrokerError;
use crate::credential::live::{Finding, FindingKind, as_error};
use crate::credential::sqlserver::connection::{Connection, Product, Row};
use crate::credential::sqlserver::error::Meaning;
use crate::credential::sqlserver::naming::{quote_name, quote_text};
use crate::credential::sqlserver::statements::meaning;
use crate::domain::ids::RoleName;
use crate::domain::target::DatabaseName;

/// The rights of a server that the broker needs, and what to grant: the narrowest first.
const SERVER_RIGHTS: [(&str, &[&str]); 3] = [
    ("ALTER ANY LOGIN", &["ALTER ANY LOGIN"]),
    ("ALTER ANY CONNECTION", &["ALTER ANY CONNECTION"]),
    // The second is what SQL Server 2022 asks for instead.
    (
        "VIEW SERVER STATE",
        &["VIEW SERVER STATE", "VIEW SERVER PERFORMANCE STATE"],
    ),
];
/// The same of a database on Azure SQL, where each has its own sessions.
const AZURE_RIGHTS: [&str; 2] = ["KILL DATABASE CONNECTION", "VIEW DATABASE STATE"];

/// What lets a broker into a database.
pub(in crate::credential) fn create_user(database: &DatabaseName, user: &str) -> String {
    let user = quote_name(user);
    format!(
        "USE {}; CREATE USER {user} FOR LOGIN {user}",
        quote_name(database.as_str())
    )
}

/// What stands in the way of minting members of `roles`, most basic first. Without roles only the home
/// is looked at.
pub(in crate::credential) async fn missing(
    connection: &Connection,
    roles: &[RoleName],
) -> Result<Vec<Finding>, BrokerError> {
    let mut findings = server_rights(connection).await?;
    let mut found = Vec::new();
    let here = connection.database().clone();
    look_into(connection, roles, &mut found, &mut findings).await?;
    let others = connection.access().databases.iter();
    for database in others.filter(|name| **name != here && !roles.is_empty()) {
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

async fn server_rights(connection: &Connection) -> Result<Vec<Finding>, BrokerError> {
    let rights = SERVER_RIGHTS.iter().map(|(_, any)| {
        let tests = any
            .iter()
            .map(|right| format!("HAS_PERMS_BY_NAME(NULL, NULL, {}) = 1", quote_text(right)));
        let tests: Vec<_> = tests.collect();
        format!("CASE WHEN {} THEN 1 ELSE 0 END", tests.join(" OR "))
    });
    let rights: Vec<_> = rights.collect();
    let sql = format!(
        "SELECT SUSER_SNAME(), CAST(IS_SRVROLEMEMBER('sysadmin') AS int), {}",
        rights.join(", ")
    );
    let rows = connection.query("reading the broker's rights", &sql).await?;
    let Some(row) = rows.first() else {
        return Ok(Vec::new());
    };
    Ok(judge_server(row, connection.product(), connection.contained()))
}

fn judge_server(row: &Row, product: Product, contained: bool) -> Vec<Finding> {
    let user = row.text(0).unwrap_or_default();
    let (broker, sysadmin) = (quote_name(user), row.yes(1));
    match product {
        // It has no rights of the server but this one.
        Product::Babelfish if sysadmin => return Vec::new(),
        Product::Babelfish => {
            let sql = format!("ALTER SERVER ROLE sysadmin ADD MEMBER {broker}");
            return vec![Finding::privilege("membership of sysadmin", sql)];
        }
        // Logins are not the broker's business there, and sessions are the databases'.
        Product::AzureSql => return Vec::new(),
        Product::SqlServer => {}
    }
    if sysadmin {
        return vec![Finding {
            missing: format!("{user} is a member of sysadmin, which the broker need not be"),
            sql: format!("ALTER SERVER ROLE sysadmin DROP MEMBER {broker}"),
            kind: FindingKind::TooMuch,
        }];
    }
    let lacking = SERVER_RIGHTS.iter().enumerate().filter(|(index, (right, _))| {
        let needed = !contained || *right != "ALTER ANY LOGIN";
        needed && !row.yes(index + 2)
    });
    lacking
        .map(|(_, (right, _))| Finding::privilege(right, format!("USE master; GRANT {right} TO {broker}")))
        .collect()
}

/// What the broker lacks in the connection's database. Roles that are there are added to `found`.
async fn look_into(
    connection: &Connection,
    roles: &[RoleName],
    found: &mut Vec<RoleName>,
    findings: &mut Vec<Finding>,
) -> Result<(), BrokerError> {
    let database = quote_name(connection.database().as_str());
    let mut sql = "SELECT USER_NAME(), CAST(IS_SRVROLEMEMBER('sysadmin') AS int), \
        HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'ALTER ANY USER'), \
        HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'KILL DATABASE CONNECTION'), \
        HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'VIEW DATABASE STATE')"
        .to_owned();
    for role in roles {
        let role = quote_text(role.as_str());
        sql = format!(
            "{sql}; SELECT name, HAS_PERMS_BY_NAME(QUOTENAME(name), 'ROLE', 'ALTER') \
             FROM sys.database_principals WHERE type = 'R' AND name = {role}"
        );
    }
    let rows = connection.query("reading the broker's rights", &sql).await?;
    let Some((standing, there)) = rows.split_first() else {
        return Ok(());
    };
    let broker = quote_name(standing.text(0).unwrap_or_default());
    // Babelfish has no single rights, and a sysadmin has them all.
    let judged = connection.product() != Product::Babelfish && !standing.yes(1);
    let mut lacks = |right: &str, missing: String| {
        let sql = format!("USE {database}; GRANT {right} TO {broker}");
        findings.push(Finding::privilege(&missing, sql));
    };
    if judged && !standing.yes(2) {
        lacks(
            "ALTER ANY USER",
            format!("ALTER ANY USER in database {}", connection.database()),
        );
    }
    if connection.product() == Product::AzureSql {
        for (index, right) in AZURE_RIGHTS.iter().enumerate() {
            if !standing.yes(index + 3) {
                lacks(right, format!("{right} in database {}", connection.database()));
            }
        }
    }
    for row in there {
        let name = row.text(0).unwrap_or_default();
        found.push(RoleName::new(name));
        if judged && !row.yes(1) {
            let right = format!("ALTER ON ROLE::{}", quote_name(name));
            lacks(&right, format!("ALTER on role {name}"));
        }
    }
    Ok(())
}

/// Turns "not there, or not allowed" into what is missing exactly. `connection` is in the role's
/// database.
pub(in crate::credential) async fn explain(
    connection: &Connection,
    error: BrokerError,
    role: &RoleName,
) -> BrokerError {
    let unclear = [Meaning::NotThere, Meaning::NotAllowed, Meaning::Unsaid];
    if !meaning(&error).is_some_and(|meaning| unclear.contains(&meaning)) {
        return error;
    }
    let Ok(mut findings) = server_rights(connection).await else {
        return error;
    };
    let mut found = Vec::new();
    let looked = look_into(connection, std::slice::from_ref(role), &mut found, &mut findings).await;
    if looked.is_err() {
        return error;
    }
    if found.is_empty() {
        findings.push(Finding {
            missing: role.to_string(),
            sql: format!(
                "USE {}; CREATE ROLE {}",
                quote_name(connection.database().as_str()),
                quote_name(role.as_str())
            ),
            kind: FindingKind::MissingRole,
        });
    }
    as_error(findings, connection.target(), ("15151", "15151")).unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ints: &[i64], product: Product, contained: bool) -> Vec<(String, FindingKind)> {
        let row = Row::of(&["broker]"], ints);
        let findings = judge_server(&row, product, contained).into_iter();
        findings.map(|finding| (finding.sql, finding.kind)).collect()
    }

    #[test]
    fn rights_of_the_server_are_asked_for_one_by_one() {
        let lacking = told(&[0, 0, 1, 0], Product::SqlServer, false);
        assert_eq!(
            lacking,
            [
                (
                    "USE master; GRANT ALTER ANY LOGIN TO [broker]]]".to_owned(),
                    FindingKind::MissingPrivilege
                ),
                (
                    "USE master; GRANT VIEW SERVER STATE TO [broker]]]".to_owned(),
                    FindingKind::MissingPrivilege
                )
            ]
        );
        // A contained user needs no login.
        assert_eq!(told(&[0, 0, 1, 1], Product::SqlServer, true), []);
        assert_eq!(told(&[0, 1, 1, 1], Product::SqlServer, false), []);
    }

    #[test]
    fn sysadmin_is_too_much_except_where_it_is_all_there_is() {
        let sysadmin = told(&[1, 1, 1, 1], Product::SqlServer, false);
        assert_eq!(sysadmin[0].1, FindingKind::TooMuch);
        assert_eq!(told(&[1, 0, 0, 0], Product::Babelfish, false), []);
        assert_eq!(
            told(&[0, 0, 0, 0], Product::Babelfish, false)[0].0,
            "ALTER SERVER ROLE sysadmin ADD MEMBER [broker]]]"
        );
        assert_eq!(told(&[0, 0, 0, 0], Product::AzureSql, true), []);
    }
}
