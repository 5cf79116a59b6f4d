//! Declared roles and grants compared with a SQL Server database.

use std::collections::BTreeSet;

use crate::credential::broker::Logins;
use crate::credential::error::BrokerError;
use crate::credential::roles::{Granted, Place, Plan};
use crate::credential::sqlserver::connection::{Connection, Product};
use crate::credential::sqlserver::naming::{quote_name, quote_object, quote_text};
use crate::credential::sqlserver::statements::transaction;
use crate::domain::marker_table::MarkerTable;
use crate::policy::{GrantDeclaration, Objects, Privilege, RoleDeclaration};

/// `Ok(false)`: there is no such broker.
pub(in crate::credential) async fn compare(
    connection: &Connection,
    place: Place<'_>,
    roles: &[&RoleDeclaration],
    plan: &mut Plan,
) -> Result<bool, BrokerError> {
    let mut comparison = Comparison {
        connection,
        place,
        broker: None,
        plan,
    };
    if !comparison.broker().await? {
        return Ok(false);
    }
    let mut seen = BTreeSet::new();
    for role in roles {
        if seen.insert(&role.name) {
            comparison.role(role.name.as_str()).await?;
        }
        comparison.grants(role).await?;
    }
    Ok(true)
}

/// Runs a plan's statements for one database, all or none.
pub(in crate::credential) async fn apply(
    connection: &Connection,
    statements: &[&str],
) -> Result<(), BrokerError> {
    let statements: Vec<String> = statements.iter().map(|sql| (*sql).to_owned()).collect();
    connection
        .run("applying the plan", &transaction(&statements))
        .await
}

struct Comparison<'a> {
    connection: &'a Connection,
    place: Place<'a>,
    /// Whom the broker's rights are granted to; `None` where it has them all, or there are none to grant.
    broker: Option<String>,
    plan: &'a mut Plan,
}

impl Comparison<'_> {
    /// The broker itself, and its user in this database.
    async fn broker(&mut self) -> Result<bool, BrokerError> {
        let broker = quote_text(self.place.broker);
        let sql = format!(
            "SELECT CASE WHEN SUSER_ID({broker}) IS NOT NULL OR USER_ID({broker}) IS NOT NULL THEN 1 ELSE 0 END, \
             CAST(IS_SRVROLEMEMBER('sysadmin', {broker}) AS int), \
             (SELECT MIN(name) FROM sys.database_principals WHERE sid = SUSER_SID({broker}) OR name = {broker})"
        );
        let rows = self.connection.query("looking up the broker", &sql).await?;
        let Some(row) = rows.first().filter(|row| row.yes(0)) else {
            return Ok(false);
        };
        let all = row.yes(1) || self.connection.product() == Product::Babelfish || row.text(2) == Some("dbo");
        if all {
            return Ok(true);
        }
        let user = row.text(2).unwrap_or(self.place.broker).to_owned();
        if row.text(2).is_none() {
            let name = quote_name(self.place.broker);
            self.step(format!("CREATE USER {name} FOR LOGIN {name}"));
        }
        if self.place.logins == Logins::BrokersOwn {
            self.broker = Some(user);
            return Ok(true);
        }
        let sql = format!(
            "SELECT 1 FROM sys.database_permissions AS s JOIN sys.database_principals AS p \
             ON p.principal_id = s.grantee_principal_id WHERE s.permission_name = 'ALTER ANY USER' \
             AND s.state IN ('G', 'W') AND p.name = {}",
            quote_text(&user)
        );
        if self
            .connection
            .query("reading privileges", &sql)
            .await?
            .is_empty()
        {
            self.step(format!("GRANT ALTER ANY USER TO {}", quote_name(&user)));
        }
        self.broker_of_markers(&user).await?;
        self.broker = Some(user);
        Ok(true)
    }

    /// Where every role of the target marks its transactions, if it does.
    fn marker_table(&self) -> Option<MarkerTable> {
        self.connection.access().settings.marker_table.clone()
    }

    /// The broker reads the markers, and removes the old ones.
    async fn broker_of_markers(&mut self, user: &str) -> Result<(), BrokerError> {
        let Some(table) = self.marker_table() else {
            return Ok(());
        };
        let objects = Objects::Tables(vec![table.to_string()]);
        // That it is missing is said with the roles.
        let Some(FoundObject { object, .. }) = self.find(&objects, &table.to_string()).await? else {
            return Ok(());
        };
        let there = self.granted(user).await?;
        for privilege in ["SELECT", "DELETE"] {
            let wanted = Granted {
                object: object.clone(),
                privilege: privilege.to_owned(),
            };
            if !there.contains(&wanted) {
                self.step(format!("GRANT {privilege} ON {object} TO {}", quote_name(user)));
            }
        }
        Ok(())
    }

    /// The role itself, and that the broker can hand it out, or has it.
    async fn role(&mut self, name: &str) -> Result<(), BrokerError> {
        let quoted = quote_name(name);
        let text = quote_text(name);
        let sql = format!(
            "SELECT r.name FROM sys.database_principals AS p \
             LEFT JOIN sys.database_role_members AS m ON m.member_principal_id = p.principal_id \
             LEFT JOIN sys.database_principals AS r ON r.principal_id = m.role_principal_id \
             WHERE p.type = 'R' AND p.name = {text} ORDER BY r.name"
        );
        let rows = self.connection.query("looking up a role", &sql).await?;
        if rows.is_empty() {
            self.step(format!("CREATE ROLE {quoted}"));
        }
        // What a least-privilege role should not be.
        for of in rows.iter().filter_map(|row| row.text(0)) {
            self.plan.extras.push(format!("role {name}: member of {of}"));
        }
        let Some(broker) = self.broker.clone() else {
            return Ok(());
        };
        if self.place.logins == Logins::BrokersOwn {
            return self.member(name, &broker).await;
        }
        let sql = format!(
            "SELECT 1 FROM sys.database_permissions AS s \
             JOIN sys.database_principals AS p ON p.principal_id = s.grantee_principal_id \
             JOIN sys.database_principals AS r ON r.principal_id = s.major_id \
             WHERE s.class = 4 AND s.permission_name IN ('ALTER', 'CONTROL') AND s.state IN ('G', 'W') \
             AND p.name = {} AND r.name = {text}",
            quote_text(&broker)
        );
        if self
            .connection
            .query("reading privileges", &sql)
            .await?
            .is_empty()
        {
            self.step(format!(
                "GRANT ALTER ON ROLE::{quoted} TO {}",
                quote_name(&broker)
            ));
        }
        Ok(())
    }

    async fn member(&mut self, role: &str, user: &str) -> Result<(), BrokerError> {
        let sql = format!(
            "SELECT 1 FROM sys.database_role_members AS m \
             JOIN sys.database_principals AS r ON r.principal_id = m.role_principal_id \
             JOIN sys.database_principals AS p ON p.principal_id = m.member_principal_id \
             WHERE r.name = {} AND p.name = {}",
            quote_text(role),
            quote_text(user)
        );
        let rows = self.connection.query("reading memberships", &sql).await?;
        if rows.is_empty() {
            let (role, user) = (quote_name(role), quote_name(user));
            self.step(format!("ALTER ROLE {role} ADD MEMBER {user}"));
        }
        Ok(())
    }

    async fn grants(&mut self, role: &RoleDeclaration) -> Result<(), BrokerError> {
        let there = self.granted(role.name.as_str()).await?;
        let mut declared = BTreeSet::new();
        let marks = self.marker_table().map(|table| GrantDeclaration {
            privileges: vec![Privilege::Insert],
            objects: Objects::Tables(vec![table.to_string()]),
        });
        for grant in role.grants.iter().chain(&marks) {
            for name in grant.objects.names() {
                let Some(found) = self.find(&grant.objects, name).await? else {
                    let kind = kind_of(&grant.objects);
                    let missing = format!("{kind} {name} in database {}", self.place.database);
                    self.plan.missing_objects.push(missing);
                    continue;
                };
                for privilege in &grant.privileges {
                    let permission = match permission(&grant.objects, *privilege, found.tabular) {
                        Permission::Grant(permission) => permission,
                        Permission::Implied => continue,
                        Permission::Unknown => {
                            let what = format!(
                                "{privilege} on {} (SQL Server has no such permission)",
                                found.object
                            );
                            self.plan.missing_objects.push(what);
                            continue;
                        }
                    };
                    let granted = Granted {
                        object: found.object.clone(),
                        privilege: permission.to_owned(),
                    };
                    if declared.insert(granted.clone()) && !there.contains(&granted) {
                        let to = quote_name(role.name.as_str());
                        self.step(format!("GRANT {permission} ON {} TO {to}", found.object));
                    }
                }
            }
        }
        for extra in there.difference(&declared) {
            self.plan.extras.push(format!(
                "role {}: {} on {} in database {}",
                role.name, extra.privilege, extra.object, self.place.database
            ));
        }
        Ok(())
    }

    /// An object as `GRANT` names it. The parts of the name are looked up as the catalogue has them.
    async fn find(&self, objects: &Objects, name: &str) -> Result<Option<FoundObject>, BrokerError> {
        let of_types = match objects {
            Objects::Schemas(_) => {
                let sql = format!(
                    "SELECT N'SCHEMA::' + QUOTENAME(name), N'' FROM sys.schemas WHERE name = {}",
                    quote_text(name)
                );
                return self.first(&sql).await;
            }
            Objects::Tables(_) => "'U', 'V'",
            Objects::Sequences(_) => "'SO'",
            Objects::Routines(_) => "'P', 'PC', 'FN', 'FS', 'IF', 'TF', 'FT'",
        };
        // Routines have one meaning each here: argument types tell nothing.
        let name = name.split_once('(').map_or(name, |(name, _)| name);
        let (schema, object) = quote_object(name);
        let sql = format!(
            "SELECT N'OBJECT::' + QUOTENAME(s.name) + N'.' + QUOTENAME(o.name), o.type FROM sys.objects AS o \
             JOIN sys.schemas AS s ON s.schema_id = o.schema_id \
             WHERE s.name = {} AND o.name = {} AND o.type IN ({of_types})",
            quote_text(&schema),
            quote_text(&object)
        );
        self.first(&sql).await
    }

    async fn first(&self, sql: &str) -> Result<Option<FoundObject>, BrokerError> {
        let rows = self.connection.query("looking up an object", sql).await?;
        let found = rows.first().and_then(|row| {
            Some(FoundObject {
                object: row.text(0)?.to_owned(),
                tabular: matches!(row.text(1)?.trim(), "IF" | "TF" | "FT"),
            })
        });
        Ok(found)
    }

    /// What was granted to the role itself in this database.
    async fn granted(&self, role: &str) -> Result<BTreeSet<Granted>, BrokerError> {
        let role = quote_text(role);
        let grantee = format!(
            "JOIN sys.database_principals AS p ON p.principal_id = s.grantee_principal_id \
             WHERE s.state IN ('G', 'W') AND p.name = {role}"
        );
        let sql = format!(
            "SELECT N'OBJECT::' + QUOTENAME(c.name) + N'.' + QUOTENAME(o.name) \
             + CASE WHEN s.minor_id = 0 THEN N'' ELSE N' (' + COL_NAME(s.major_id, s.minor_id) + N')' END, \
             s.permission_name FROM sys.database_permissions AS s \
             JOIN sys.objects AS o ON s.class = 1 AND o.object_id = s.major_id \
             JOIN sys.schemas AS c ON c.schema_id = o.schema_id {grantee}; \
             SELECT N'SCHEMA::' + QUOTENAME(c.name), s.permission_name FROM sys.database_permissions AS s \
             JOIN sys.schemas AS c ON s.class = 3 AND c.schema_id = s.major_id {grantee}; \
             SELECT N'DATABASE', s.permission_name FROM sys.database_permissions AS s {grantee} AND s.class = 0"
        );
        let rows = self.connection.query("reading grants", &sql).await?;
        let granted = rows.iter().filter_map(|row| {
            Some(Granted {
                object: row.text(0)?.to_owned(),
                privilege: row.text(1)?.to_owned(),
            })
        });
        Ok(granted.collect())
    }

    fn step(&mut self, sql: String) {
        self.plan.step(self.place.database, sql);
    }
}

struct FoundObject {
    /// With its class, quoted as `GRANT` takes it.
    object: String,
    /// A function that is read like a table.
    tabular: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Grant(&'static str),
    /// Whoever may use what is in it needs nothing for the thing itself.
    Implied,
    Unknown,
}

/// What a privilege of the policy is called here.
const fn permission(objects: &Objects, privilege: Privilege, tabular: bool) -> Permission {
    match (objects, privilege) {
        (Objects::Schemas(_), Privilege::Usage) => Permission::Implied,
        // NEXT VALUE FOR asks for it.
        (Objects::Sequences(_), Privilege::Usage | Privilege::Update) => Permission::Grant("UPDATE"),
        (Objects::Sequences(_), _) => Permission::Unknown,
        (Objects::Routines(_), Privilege::Execute) if tabular => Permission::Grant("SELECT"),
        (Objects::Routines(_) | Objects::Schemas(_), Privilege::Execute) => Permission::Grant("EXECUTE"),
        (Objects::Tables(_) | Objects::Schemas(_), Privilege::Select) => Permission::Grant("SELECT"),
        (Objects::Tables(_) | Objects::Schemas(_), Privilege::Insert) => Permission::Grant("INSERT"),
        (Objects::Tables(_) | Objects::Schemas(_), Privilege::Update) => Permission::Grant("UPDATE"),
        (Objects::Tables(_) | Objects::Schemas(_), Privilege::Delete) => Permission::Grant("DELETE"),
        (Objects::Tables(_) | Objects::Schemas(_), Privilege::References) => Permission::Grant("REFERENCES"),
        (Objects::Tables(_) | Objects::Routines(_) | Objects::Schemas(_), _) => Permission::Unknown,
    }
}

const fn kind_of(objects: &Objects) -> &'static str {
    match objects {
        Objects::Tables(_) => "table",
        Objects::Sequences(_) => "sequence",
        Objects::Routines(_) => "routine",
        Objects::Schemas(_) => "schema",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_of_the_policy_in_the_words_of_the_server() {
        let names = || vec!["dbo.x".to_owned()];
        let table = [
            (
                Objects::Tables(names()),
                Privilege::Select,
                false,
                Permission::Grant("SELECT"),
            ),
            (
                Objects::Tables(names()),
                Privilege::Truncate,
                false,
                Permission::Unknown,
            ),
            (
                Objects::Sequences(names()),
                Privilege::Usage,
                false,
                Permission::Grant("UPDATE"),
            ),
            (
                Objects::Sequences(names()),
                Privilege::Select,
                false,
                Permission::Unknown,
            ),
            (
                Objects::Routines(names()),
                Privilege::Execute,
                false,
                Permission::Grant("EXECUTE"),
            ),
            (
                Objects::Routines(names()),
                Privilege::Execute,
                true,
                Permission::Grant("SELECT"),
            ),
            (
                Objects::Schemas(names()),
                Privilege::Usage,
                false,
                Permission::Implied,
            ),
            (
                Objects::Schemas(names()),
                Privilege::Create,
                false,
                Permission::Unknown,
            ),
            (
                Objects::Schemas(names()),
                Privilege::Execute,
                false,
                Permission::Grant("EXECUTE"),
            ),
        ];
        for (objects, privilege, tabular, expected) in table {
            assert_eq!(
                permission(&objects, privilege, tabular),
                expected,
                "{privilege} on {objects:?}"
            );
        }
    }
}
