//! Declared roles and grants compared with a PostgreSQL database.

use std::collections::BTreeSet;

use crate::credential::broker::Logins;
use crate::credential::error::BrokerError;
use crate::credential::naming::MINTED_GROUP;
use crate::credential::postgres::connection::{Connection, grant_connect};
use crate::credential::postgres::naming::quote_name;
use crate::credential::postgres::statements::ADMIN_PER_ROLE;
use crate::credential::roles::{Granted, Place, Plan};
use crate::domain::ids::RoleName;
use crate::domain::target::DatabaseName;
use crate::policy::{Objects, RoleDeclaration};

/// `Ok(false)`: there is no such broker. `seen` are the roles that other databases of the server led to
/// already.
pub(in crate::credential) async fn compare(
    connection: &Connection,
    place: Place<'_>,
    roles: &[&RoleDeclaration],
    seen: &mut BTreeSet<String>,
    plan: &mut Plan,
) -> Result<bool, BrokerError> {
    if !exists(connection, place.broker).await? {
        return Ok(false);
    }
    let mut comparison = Comparison {
        connection,
        database: place.database,
        broker: place.broker,
        logins: place.logins,
        plan,
    };
    if place.logins == Logins::Minted && seen.insert(MINTED_GROUP.to_owned()) {
        comparison.role(MINTED_GROUP).await?;
    }
    for role in roles {
        if seen.insert(role.name.as_str().to_owned()) {
            comparison.role(role.name.as_str()).await?;
        }
        comparison.connect(&role.name).await?;
        comparison.grants(role).await?;
    }
    Ok(true)
}

struct Comparison<'a> {
    connection: &'a Connection,
    database: &'a DatabaseName,
    broker: &'a str,
    logins: Logins,
    plan: &'a mut Plan,
}

impl Comparison<'_> {
    /// The role itself, and that the broker can hand it out, or has it.
    async fn role(&mut self, name: &str) -> Result<(), BrokerError> {
        let quoted = quote_name(name);
        let there = exists(self.connection, name).await?;
        if !there {
            self.step(format!("CREATE ROLE {quoted} NOLOGIN"));
        }
        let broker = quote_name(self.broker);
        if self.logins == Logins::BrokersOwn {
            if !(there && self.broker_has(name, "USAGE").await?) {
                self.step(format!("GRANT {quoted} TO {broker}"));
            }
        } else if !(there && self.broker_has(name, "MEMBER WITH ADMIN OPTION").await?)
            && self.connection.version().await? >= ADMIN_PER_ROLE
        {
            // Neither inheriting nor SET: the broker gets what a role may do only through a login that
            // it is about to drop.
            self.step(format!(
                "GRANT {quoted} TO {broker} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
            ));
        }
        if there {
            self.attributes(name).await?;
        }
        Ok(())
    }

    async fn broker_has(&self, role: &str, how: &str) -> Result<bool, BrokerError> {
        let sql = "SELECT pg_has_role($1::name, oid, $3) FROM pg_roles WHERE rolname = $2";
        let rows = self
            .connection
            .query("reading memberships", sql, &[&self.broker, &role, &how])
            .await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// What a least-privilege role should not be.
    async fn attributes(&mut self, name: &str) -> Result<(), BrokerError> {
        let sql = "SELECT a.attribute FROM pg_roles AS r, LATERAL (VALUES ('SUPERUSER', rolsuper), ('LOGIN', rolcanlogin), \
                   ('CREATEROLE', rolcreaterole), ('CREATEDB', rolcreatedb), ('REPLICATION', rolreplication), \
                   ('BYPASSRLS', rolbypassrls)) AS a (attribute, there) WHERE r.rolname = $1 AND a.there \
                   UNION ALL SELECT 'member of ' || quote_ident(g.rolname) FROM pg_auth_members AS m \
                   JOIN pg_roles AS g ON g.oid = m.roleid JOIN pg_roles AS r ON r.oid = m.member WHERE r.rolname = $1 \
                   ORDER BY 1";
        let rows = self
            .connection
            .query("reading role attributes", sql, &[&name])
            .await?;
        for row in rows {
            self.plan
                .extras
                .push(format!("role {name}: {}", row.get::<_, String>(0)));
        }
        Ok(())
    }

    /// `CONNECT` for the role and for the broker, wherever `PUBLIC` does not have it.
    async fn connect(&mut self, role: &RoleName) -> Result<(), BrokerError> {
        for name in [role.as_str(), self.broker] {
            let sql = "SELECT has_database_privilege(r.oid, current_database(), 'CONNECT') FROM pg_roles AS r \
                       WHERE r.rolname = $1 \
                       UNION ALL SELECT bool_or(a.grantee = 0) FROM pg_database AS d, \
                       aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a \
                       WHERE d.datname = current_database() AND a.privilege_type = 'CONNECT'";
            let rows = self.connection.query("reading privileges", sql, &[&name]).await?;
            let connects = rows
                .iter()
                .any(|row| row.get::<_, Option<bool>>(0).unwrap_or(false));
            if !connects {
                self.step(grant_connect(self.database, name));
            }
        }
        Ok(())
    }

    async fn grants(&mut self, role: &RoleDeclaration) -> Result<(), BrokerError> {
        let there = self.granted(&role.name).await?;
        let mut declared = BTreeSet::new();
        for grant in &role.grants {
            for name in grant.objects.names() {
                let Some(object) = self.find(&grant.objects, name).await? else {
                    let kind = kind_of(&grant.objects).to_lowercase();
                    let missing = format!("{kind} {name} in database {}", self.database);
                    self.plan.missing_objects.push(missing);
                    continue;
                };
                for privilege in &grant.privileges {
                    let granted = Granted {
                        object: object.clone(),
                        privilege: privilege.label().to_uppercase(),
                    };
                    if !there.contains(&granted) && declared.insert(granted.clone()) {
                        let role = quote_name(role.name.as_str());
                        self.step(format!(
                            "GRANT {} ON {} TO {role}",
                            granted.privilege, granted.object
                        ));
                    }
                    declared.insert(granted);
                }
            }
        }
        for extra in there.difference(&declared) {
            self.plan.extras.push(format!(
                "role {}: {} on {} in database {}",
                role.name, extra.privilege, extra.object, self.database
            ));
        }
        Ok(())
    }

    /// An object's kind and name as SQL writes them. The parts of the name are looked up as they stand
    /// in the catalogue; only argument types are read by the server's own rules.
    async fn find(&self, objects: &Objects, name: &str) -> Result<Option<String>, BrokerError> {
        let kind = kind_of(objects);
        let (schema, rest) = name.split_once('.').unwrap_or(("public", name));
        let sql = match objects {
            Objects::Tables(_) => {
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n \
                 ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
            }
            Objects::Sequences(_) => {
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n \
                 ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'S'"
            }
            Objects::Routines(_) => {
                "SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.oid = to_regprocedure(format('%I.%I(%s)', \
                 $1::text, split_part($2::text, '(', 1), rtrim(substr($2::text, strpos($2::text, '(') + 1), ')')))"
            }
            Objects::Schemas(_) => {
                let sql = "SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname = $1";
                return self.named(kind, sql, &[&name]).await;
            }
        };
        self.named(kind, sql, &[&schema, &rest]).await
    }

    async fn named(
        &self,
        kind: &str,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Option<String>, BrokerError> {
        let rows = self
            .connection
            .query("looking up an object", sql, parameters)
            .await?;
        Ok(rows
            .first()
            .map(|row| format!("{kind} {}", row.get::<_, String>(0))))
    }

    /// What was granted to the role itself in this database.
    async fn granted(&self, role: &RoleName) -> Result<BTreeSet<Granted>, BrokerError> {
        let sql = "WITH r AS (SELECT oid FROM pg_roles WHERE rolname = $1) \
             SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || format('%I.%I', n.nspname, c.relname), \
                    a.privilege_type \
             FROM r, pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace, aclexplode(c.relacl) AS a \
             WHERE a.grantee = r.oid \
             UNION ALL SELECT format('COLUMN %I.%I.%I', n.nspname, c.relname, t.attname), a.privilege_type \
             FROM r, pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid \
             JOIN pg_namespace AS n ON n.oid = c.relnamespace, aclexplode(t.attacl) AS a WHERE a.grantee = r.oid \
             UNION ALL SELECT 'ROUTINE ' || p.oid::regprocedure, a.privilege_type \
             FROM r, pg_proc AS p, aclexplode(p.proacl) AS a WHERE a.grantee = r.oid \
             UNION ALL SELECT 'SCHEMA ' || quote_ident(n.nspname), a.privilege_type \
             FROM r, pg_namespace AS n, aclexplode(n.nspacl) AS a WHERE a.grantee = r.oid";
        let rows = self
            .connection
            .query("reading grants", sql, &[&role.as_str()])
            .await?;
        let granted = rows.iter().map(|row| Granted {
            object: row.get(0),
            privilege: row.get(1),
        });
        Ok(granted.collect())
    }

    fn step(&mut self, sql: String) {
        self.plan.step(self.database, sql);
    }
}

const fn kind_of(objects: &Objects) -> &'static str {
    match objects {
        Objects::Tables(_) => "TABLE",
        Objects::Sequences(_) => "SEQUENCE",
        Objects::Routines(_) => "ROUTINE",
        Objects::Schemas(_) => "SCHEMA",
    }
}

async fn exists(connection: &Connection, role: &str) -> Result<bool, BrokerError> {
    let sql = "SELECT 1 FROM pg_roles WHERE rolname = $1";
    let rows = connection.query("looking up a role", sql, &[&role]).await?;
    Ok(!rows.is_empty())
}
