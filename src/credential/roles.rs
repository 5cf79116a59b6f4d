//! The roles and grants that policy declares, compared with the databases and brought about at
//! deploy time, with a credential of its own: the broker has no right to grant anything.
//!
//! What is missing becomes a statement. What is there without being declared is reported and never
//! revoked: it may be somebody's deliberate doing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::runtime::Handle;

use crate::credential::broker::Logins;
use crate::credential::connection::{Access, Connection, grant_connect};
use crate::credential::error::BrokerError;
use crate::credential::naming::{MINTED_GROUP, quote_name};
use crate::credential::postgres::ADMIN_PER_ROLE;
use crate::domain::ids::RoleName;
use crate::domain::password::Password;
use crate::domain::target::{DatabaseName, TargetName};
use crate::policy::{Objects, RoleDeclaration};
use crate::tls::ProvenServer;

/// Who compares and applies: an administrator's credential, used at deploy time only.
#[derive(Clone, Debug)]
pub struct DeployAccess {
    pub target: TargetName,
    pub address: (String, u16),
    pub user: String,
    pub password: Password,
    /// `None` connects without TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Of `tls`. Without it no token is shown.
    pub proven_server: Option<ProvenServer>,
    /// The role that mints logins and is to be able to hand the declared roles out; or, where nothing is
    /// minted, the user whose roles they are to be.
    pub broker: String,
    pub logins: Logins,
    pub control: Handle,
}

impl DeployAccess {
    fn access(&self) -> Access {
        Access {
            target: self.target.clone(),
            address: self.address.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            proven_server: self.proven_server,
            tls: self.tls.clone(),
            control: self.control.clone(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    #[error("cannot compare or apply roles at target {target}")]
    Server {
        target: TargetName,
        #[source]
        source: BrokerError,
    },
    #[error("target {target} has no broker role {broker}; create it first (see docs/postgres.md)")]
    NoBroker { target: TargetName, broker: String },
    #[error("the plan names objects that do not exist: {}", .0.join(", "))]
    MissingObjects(Vec<String>),
}

/// What `apply` would run, and what it would not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// There, but not declared.
    pub extras: Vec<String>,
    /// Declared, but there is no such object to grant on.
    pub missing_objects: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub database: DatabaseName,
    pub sql: String,
}

impl Plan {
    /// Is the database as declared?
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.missing_objects.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut database = None;
        for step in &self.steps {
            if database != Some(&step.database) {
                writeln!(f, "-- in database {}", step.database)?;
                database = Some(&step.database);
            }
            writeln!(f, "{};", step.sql)?;
        }
        for object in &self.missing_objects {
            writeln!(f, "-- does not exist: {object}")?;
        }
        for extra in &self.extras {
            writeln!(f, "-- not declared (left alone): {extra}")?;
        }
        if self.is_empty() && self.extras.is_empty() {
            writeln!(f, "-- nothing to do")?;
        }
        Ok(())
    }
}

/// Compares. Changes nothing.
pub async fn plan(access: &DeployAccess, declared: &[RoleDeclaration]) -> Result<Plan, RolesError> {
    let mut databases: BTreeMap<&DatabaseName, Vec<&RoleDeclaration>> = BTreeMap::new();
    for role in declared.iter().filter(|role| role.target == access.target) {
        databases.entry(&role.database).or_default().push(role);
    }
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for (database, roles) in databases {
        let server = |source| RolesError::Server {
            target: access.target.clone(),
            source,
        };
        let connection = access.access().connect(database).await.map_err(server)?;
        if !exists(&connection, &access.broker).await.map_err(server)? {
            return Err(RolesError::NoBroker {
                target: access.target.clone(),
                broker: access.broker.clone(),
            });
        }
        let mut comparison = Comparison {
            connection: &connection,
            database,
            broker: &access.broker,
            logins: access.logins,
            plan: &mut plan,
        };
        if access.logins == Logins::Minted && seen.insert(MINTED_GROUP.to_owned()) {
            comparison.role(MINTED_GROUP).await.map_err(server)?;
        }
        for role in roles {
            if seen.insert(role.name.as_str().to_owned()) {
                comparison.role(role.name.as_str()).await.map_err(server)?;
            }
            comparison.connect(&role.name).await.map_err(server)?;
            comparison.grants(role).await.map_err(server)?;
        }
    }
    Ok(plan)
}

/// Runs a plan's statements, one transaction a database. Refuses a plan that cannot be fulfilled.
pub async fn apply(access: &DeployAccess, plan: &Plan) -> Result<(), RolesError> {
    if !plan.missing_objects.is_empty() {
        return Err(RolesError::MissingObjects(plan.missing_objects.clone()));
    }
    let mut databases: BTreeMap<&DatabaseName, Vec<&str>> = BTreeMap::new();
    for step in &plan.steps {
        databases.entry(&step.database).or_default().push(&step.sql);
    }
    for (database, statements) in databases {
        let server = |source| RolesError::Server {
            target: access.target.clone(),
            source,
        };
        let connection = access.access().connect(database).await.map_err(server)?;
        // Several statements in one message are one transaction.
        let sql = statements.join(";\n");
        connection.run("applying the plan", &sql).await.map_err(server)?;
    }
    Ok(())
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
        let step = Step {
            database: self.database.clone(),
            sql,
        };
        // Several roles of a database need some of them.
        if !self.plan.steps.contains(&step) {
            self.plan.steps.push(step);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Granted {
    /// With its kind, quoted as SQL needs it.
    object: String,
    privilege: String,
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
