//! Every statement that the broker sends to PostgreSQL.
//!
//! Names are quoted by `naming::quote_name`, texts by `quote_text`; a secret appears only as a SCRAM
//! verifier, and no statement's text is ever logged by us.

use std::time::{Duration, SystemTime};

use tokio_postgres::error::SqlState;

use crate::credential::error::BrokerError;
use crate::credential::naming::{Epoch, LoginName, MINTED_GROUP, Mark};
use crate::credential::postgres::connection::Connection;
use crate::credential::postgres::live;
use crate::credential::postgres::naming::{lock_keys, quote_name, quote_text};
use crate::credential::server::{Found, ServerTime};
use crate::domain::ids::{Installation, RoleName};
use crate::domain::secret::Secret;
use crate::domain::target::DatabaseName;

/// PostgreSQL 16 changed who may hand out a role: from then on it takes `ADMIN` on that role.
pub(in crate::credential) const ADMIN_PER_ROLE: i32 = 160_000;

/// PostgreSQL 16 lets `pg_hba.conf` include files, so that line numbers say nothing of the order.
pub(in crate::credential) const INCLUDES_IN_HBA: i32 = 160_000;

impl Connection {
    /// The server's clock, `from_now` ahead.
    pub(in crate::credential) async fn time(&self, from_now: Duration) -> Result<ServerTime, BrokerError> {
        let sql = "SELECT at::text, extract(epoch FROM at)::float8 \
                   FROM (SELECT clock_timestamp() + make_interval(secs => $1::float8) AS at) AS t";
        let seconds = from_now.as_secs_f64();
        let row = self
            .limited("reading the clock", self.client().query_one(sql, &[&seconds]))
            .await?;
        let epoch: f64 = row.get(1);
        Ok(ServerTime {
            at: SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(epoch).unwrap_or_default(),
            text: row.get(0),
        })
    }

    /// One transaction: there is never a login without the comment that says whose it is.
    pub(in crate::credential) async fn create(
        &self,
        login: &LoginName,
        mark: &Mark,
        verifier: &Secret<String>,
        until: &ServerTime,
    ) -> Result<(), BrokerError> {
        let name = quote_name(login.as_str());
        // The group is there for pg_hba.conf alone; nobody needs to become it.
        let without_set = if self.version().await? >= ADMIN_PER_ROLE {
            " WITH SET FALSE"
        } else {
            ""
        };
        let sql = format!(
            "CREATE ROLE {name} LOGIN PASSWORD {} VALID UNTIL {} IN ROLE {}; GRANT {} TO {name}{without_set}; \
             COMMENT ON ROLE {name} IS {}",
            quote_text(verifier.expose()),
            quote_text(&until.text),
            quote_name(mark.role.as_str()),
            quote_name(MINTED_GROUP),
            quote_text(&mark.to_comment()),
        );
        match self.run("minting a login", &sql).await {
            Ok(()) => Ok(()),
            Err(error) => Err(live::explain(self, error, &mark.role).await),
        }
    }

    /// Sets the end and the secret again, which undoes a password that the login gave itself.
    /// `Ok(false)`: it is gone.
    pub(in crate::credential) async fn renew(
        &self,
        login: &LoginName,
        verifier: &Secret<String>,
        until: &ServerTime,
    ) -> Result<bool, BrokerError> {
        let sql = format!(
            "ALTER ROLE {} LOGIN PASSWORD {} VALID UNTIL {}",
            quote_name(login.as_str()),
            quote_text(verifier.expose()),
            quote_text(&until.text),
        );
        match self.run("renewing a login", &sql).await {
            Err(error) if gone(&error) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Whether no new connection can be made with this login any more. `Ok(false)`: it is gone.
    pub(in crate::credential) async fn disable(&self, login: &LoginName) -> Result<bool, BrokerError> {
        let name = quote_name(login.as_str());
        match self
            .run("disabling a login", &format!("ALTER ROLE {name} NOLOGIN"))
            .await
        {
            Ok(()) => {}
            Err(error) if gone(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        // Ends the login's sessions and hands over what it owns without pg_signal_backend and without
        // being a member of the role: both rights come with the login for the rest of its life. From 16
        // on a new owner must be one that we could `SET ROLE` to.
        let how = if self.version().await? >= ADMIN_PER_ROLE {
            " WITH INHERIT TRUE, SET TRUE"
        } else {
            ""
        };
        let sql = format!("GRANT {name} TO CURRENT_USER{how}");
        match self.run("taking over a login", &sql).await {
            Err(error) if gone(&error) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Asks the sessions of a login to end; returns how many there still are.
    pub(in crate::credential) async fn terminate(&self, login: &LoginName) -> Result<i64, BrokerError> {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
        let row = self
            .limited(
                "ending sessions",
                self.client().query_one(sql, &[&login.as_str()]),
            )
            .await?;
        Ok(row.get(0))
    }

    /// Databases in which a login owns something or was granted something. Shared objects (a database,
    /// a tablespace) are handled from any one of them.
    pub(in crate::credential) async fn databases_touched(
        &self,
        login: &LoginName,
    ) -> Result<Vec<DatabaseName>, BrokerError> {
        let sql = "SELECT DISTINCT coalesce(d.datname::text, current_database()::text) FROM pg_shdepend AS s \
                   LEFT JOIN pg_database AS d ON d.oid = s.dbid WHERE s.refclassid = 'pg_authid'::regclass \
                   AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1) ORDER BY 1";
        let rows = self
            .limited(
                "listing owned objects",
                self.client().query(sql, &[&login.as_str()]),
            )
            .await?;
        let named = |row: &tokio_postgres::Row| DatabaseName::new(row.get::<_, String>(0));
        Ok(rows.iter().map(named).collect())
    }

    /// In this connection's database: what the login owns goes to the role, what it was granted goes.
    pub(in crate::credential) async fn hand_over(
        &self,
        login: &LoginName,
        role: Option<&RoleName>,
    ) -> Result<(), BrokerError> {
        let role = role.map_or_else(|| "CURRENT_USER".to_owned(), |role| quote_name(role.as_str()));
        let login = quote_name(login.as_str());
        let sql = format!("REASSIGN OWNED BY {login} TO {role}; DROP OWNED BY {login}");
        match self.run("handing over owned objects", &sql).await {
            Err(error) if gone(&error) => Ok(()),
            other => other,
        }
    }

    pub(in crate::credential) async fn drop_login(&self, login: &LoginName) -> Result<(), BrokerError> {
        let sql = format!("DROP ROLE IF EXISTS {}", quote_name(login.as_str()));
        self.run("dropping a login", &sql).await
    }

    /// Logins of this installation, whatever replica and epoch made them.
    pub(in crate::credential) async fn minted(
        &self,
        installation: &Installation,
    ) -> Result<Vec<Found>, BrokerError> {
        let sql = "SELECT r.rolname::text, d.description FROM pg_roles AS r \
                   JOIN pg_auth_members AS m ON m.member = r.oid \
                   JOIN pg_roles AS g ON g.oid = m.roleid AND g.rolname = $1 \
                   JOIN pg_shdescription AS d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass \
                   WHERE starts_with(r.rolname::text, 'gp_') ORDER BY 1";
        let rows = self
            .limited("listing logins", self.client().query(sql, &[&MINTED_GROUP]))
            .await?;
        let found = rows.iter().filter_map(|row| {
            let login = LoginName::found(row.get(0))?;
            let mark = Mark::parse(row.get(1))?;
            (mark.installation == *installation).then_some(Found {
                login,
                epoch: mark.epoch,
                replica: Some(mark.replica),
                role: Some(mark.role),
            })
        });
        Ok(found.collect())
    }

    /// Takes an epoch's lock for this connection, if nobody has it. Advisory locks belong to a database, and
    /// a replica may hold its own in another one, so those count too.
    pub(in crate::credential) async fn try_lock(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<bool, BrokerError> {
        let (high, low) = lock_keys(installation, epoch);
        let sql = "SELECT pg_try_advisory_lock($1, $2)";
        let row = self
            .limited(
                "taking an epoch's lock",
                self.client().query_one(sql, &[&high, &low]),
            )
            .await?;
        if !row.get::<_, bool>(0) {
            return Ok(false);
        }
        if self.is_locked_by_others(installation, epoch).await? {
            self.unlock(installation, epoch).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether another connection holds an epoch's lock, in whatever database.
    pub(in crate::credential) async fn is_locked_by_others(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<bool, BrokerError> {
        let (high, low) = lock_keys(installation, epoch);
        let sql = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 \
                   AND classid = $1::int4::oid AND objid = $2::int4::oid AND pid <> pg_backend_pid())";
        let rows = self
            .query("looking for an epoch's lock", sql, &[&high, &low])
            .await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    pub(in crate::credential) async fn unlock(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<(), BrokerError> {
        let (high, low) = lock_keys(installation, epoch);
        let sql = "SELECT pg_advisory_unlock($1, $2)";
        self.query("releasing an epoch's lock", sql, &[&high, &low])
            .await
            .map(drop)
    }
}

fn gone(error: &BrokerError) -> bool {
    error.sqlstate() == Some(&SqlState::UNDEFINED_OBJECT)
}
