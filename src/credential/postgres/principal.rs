//! Where nothing is minted: what the one user that everybody logs in as should be.

use crate::credential::error::BrokerError;
use crate::credential::live::{Finding, FindingKind};
use crate::credential::postgres::connection::Connection;
use crate::credential::postgres::naming::quote_name;
use crate::domain::ids::RoleName;

/// For a new upstream connection that logs in as everybody does, before anything else. A row is a setting
/// that the user has of its own, to be read after "the login": a client can plant one (`ALTER ROLE` in
/// dynamic SQL), and it would reach all others. Says where everything is from, as the check of minted
/// logins does.
pub const SETTINGS_CHECK_SQL: &str = "\
    SELECT pg_catalog.concat('set ', pg_catalog.split_part(s.text, '=', 1), ' for itself') \
    FROM pg_catalog.pg_roles AS r \
    JOIN pg_catalog.pg_db_role_setting AS d ON d.setrole OPERATOR(pg_catalog.=) r.oid \
    CROSS JOIN LATERAL pg_catalog.unnest(d.setconfig) AS s (text) \
    WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER";

/// What a managed identity lacks, or has too much of, to be everybody's login. `roles` are those that
/// policy declares here.
pub(in crate::credential) async fn missing(
    connection: &Connection,
    roles: &[RoleName],
) -> Result<Vec<Finding>, BrokerError> {
    let user: String = {
        let sql = "SELECT current_user::text";
        let row = connection.client().query_one(sql, &[]);
        connection.limited("asking who we are", row).await?.get(0)
    };
    let mut findings = Vec::new();
    for role in roles {
        let sql = "SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = $1";
        let rows = connection
            .query("reading memberships", sql, &[&role.as_str()])
            .await?;
        let quoted = quote_name(role.as_str());
        match rows.first().map(|row| row.get::<_, bool>(0)) {
            None => findings.push(Finding {
                missing: role.to_string(),
                sql: format!("CREATE ROLE {quoted} NOLOGIN"),
                kind: FindingKind::MissingRole,
            }),
            Some(false) => findings.push(Finding {
                missing: format!("membership of {user} in role {role}"),
                sql: format!("GRANT {quoted} TO {}", quote_name(&user)),
                kind: FindingKind::MissingPrivilege,
            }),
            Some(true) => {}
        }
    }
    for row in connection
        .query("reading the user's settings", SETTINGS_CHECK_SQL, &[])
        .await?
    {
        findings.push(Finding {
            missing: format!(
                "a user without settings of its own: {user} {}",
                row.get::<_, String>(0)
            ),
            sql: format!("ALTER ROLE {} RESET ALL", quote_name(&user)),
            kind: FindingKind::MissingPrivilege,
        });
    }
    findings.extend(too_much(connection, &user, roles).await?);
    Ok(findings)
}

/// Whatever the user has, every client has.
async fn too_much(
    connection: &Connection,
    user: &str,
    roles: &[RoleName],
) -> Result<Vec<Finding>, BrokerError> {
    let sql = "SELECT a.attribute, true FROM pg_roles AS r, LATERAL (VALUES ('SUPERUSER', rolsuper), \
               ('CREATEROLE', rolcreaterole), ('CREATEDB', rolcreatedb), ('REPLICATION', rolreplication), \
               ('BYPASSRLS', rolbypassrls)) AS a (attribute, there) WHERE r.rolname = current_user AND a.there \
               UNION ALL SELECT g.rolname::text, false FROM pg_roles AS r JOIN pg_auth_members AS m ON m.member = r.oid \
               JOIN pg_roles AS g ON g.oid = m.roleid WHERE r.rolname = current_user AND g.rolname <> ALL ($1) ORDER BY 1";
    let roles: Vec<_> = roles.iter().map(RoleName::as_str).collect();
    let rows = connection
        .query("reading the user's rights", sql, &[&roles])
        .await?;
    let quoted = quote_name(user);
    let finding = |row: &tokio_postgres::Row| {
        let (name, is_attribute): (String, bool) = (row.get(0), row.get(1));
        let (missing, sql) = if is_attribute {
            (
                format!("{name} of {user}, which every client has through it"),
                format!("ALTER ROLE {quoted} NO{name}"),
            )
        } else {
            (
                format!("membership of {user} in role {name}, which policy does not declare here"),
                format!("REVOKE {} FROM {quoted}", quote_name(&name)),
            )
        };
        Finding {
            missing,
            sql,
            kind: FindingKind::TooMuch,
        }
    };
    Ok(rows.iter().map(finding).collect())
}
