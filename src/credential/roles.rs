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

use crate::credential::broker::{EngineSettings, Logins};
use crate::credential::error::BrokerError;
use crate::credential::postgres;
use crate::credential::server::{Access, Connection};
use crate::credential::sqlserver;
use crate::domain::password::Password;
use crate::domain::target::{DatabaseName, Engine, TargetName};
use crate::policy::RoleDeclaration;
use crate::tls::ProvenServer;

/// Who compares and applies: an administrator's credential, used at deploy time only.
#[derive(Clone, Debug)]
pub struct DeployAccess {
    pub engine: EngineSettings,
    pub target: TargetName,
    pub address: (String, u16),
    pub user: String,
    pub password: Password,
    /// For PostgreSQL; `None` connects without TLS.
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
        match &self.engine {
            EngineSettings::Postgres => Access::Postgres(postgres::connection::Access {
                target: self.target.clone(),
                address: self.address.clone(),
                user: self.user.clone(),
                password: self.password.clone(),
                tls: self.tls.clone(),
                proven_server: self.proven_server,
                control: self.control.clone(),
            }),
            EngineSettings::SqlServer(settings) => Access::SqlServer(sqlserver::connection::Access {
                target: self.target.clone(),
                address: self.address.clone(),
                user: self.user.clone(),
                password: self.password.clone(),
                settings: settings.clone(),
                // Each database is gone to by itself.
                databases: Arc::default(),
                control: self.control.clone(),
            }),
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
    #[error("target {target} has no broker role {broker}; create it first (see docs/{engine}.md)")]
    NoBroker {
        target: TargetName,
        engine: Engine,
        broker: String,
    },
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

/// Where roles are compared, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) database: &'a DatabaseName,
    pub(super) broker: &'a str,
    pub(super) logins: Logins,
}

/// A privilege that a role has, or is to have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Granted {
    /// With its kind, quoted as SQL needs it.
    pub(super) object: String,
    pub(super) privilege: String,
}

impl Plan {
    pub(super) fn step(&mut self, database: &DatabaseName, sql: String) {
        let step = Step {
            database: database.clone(),
            sql,
        };
        // Several roles of a database need some of them.
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }

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
        let place = Place {
            database,
            broker: &access.broker,
            logins: access.logins,
        };
        let there = match &connection {
            Connection::Postgres(connection) => {
                postgres::roles::compare(connection, place, &roles, &mut seen, &mut plan).await
            }
            Connection::SqlServer(connection) => {
                sqlserver::roles::compare(connection, place, &roles, &mut plan).await
            }
        };
        if !there.map_err(server)? {
            return Err(RolesError::NoBroker {
                target: access.target.clone(),
                engine: access.engine.engine(),
                broker: access.broker.clone(),
            });
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
        let applied = match &connection {
            Connection::Postgres(connection) => {
                // Several statements in one message are one transaction.
                let sql = statements.join(";\n");
                connection.run("applying the plan", &sql).await
            }
            Connection::SqlServer(connection) => sqlserver::roles::apply(connection, &statements).await,
        };
        applied.map_err(server)?;
    }
    Ok(())
}
