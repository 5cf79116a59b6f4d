//! Every statement that the broker sends to SQL Server over a login's life.
//!
//! Names are quoted by `naming::quote_name`, texts by `quote_text`; no statement's text is ever logged
//! by us. DDL takes no parameters, so no statement has any.

use std::time::{Duration, SystemTime};

use crate::credential::error::{BrokerError, ServerError, chain};
use crate::credential::naming::{Epoch, LoginName, Mark, login_prefix};
use crate::credential::server::{Found, ServerTime};
use crate::credential::sqlserver::connection::{Connection, Product, Row};
use crate::credential::sqlserver::error::Meaning;
use crate::credential::sqlserver::live;
use crate::credential::sqlserver::naming::{Spoken, lock_name, quote_name, quote_text};
use crate::domain::ids::{Installation, RoleName};
use crate::domain::secret::Secret;
use crate::domain::target::DatabaseName;

/// 2020-01-01, from where the server counts seconds for us: they fit into an `int` until 2088.
const SERVER_EPOCH: Duration = Duration::from_secs(1_577_836_800);
/// Deadlocks of DDL end with one of the two going on; the other tries again.
const CLASHES_MAX: usize = 2;

/// Several statements, all or none.
pub(in crate::credential) fn transaction(statements: &[String]) -> String {
    format!(
        "SET XACT_ABORT ON; BEGIN TRY BEGIN TRANSACTION; {}; COMMIT TRANSACTION; END TRY \
         BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; THROW; END CATCH",
        statements.join("; ")
    )
}

/// What an error means, if it is the server's.
pub(in crate::credential) fn meaning(error: &BrokerError) -> Option<Meaning> {
    match error.server() {
        Some(ServerError::SqlServer(failure)) => Some(failure.meaning()),
        Some(ServerError::Postgres(_)) | None => None,
    }
}

/// May it mean that what we asked about is not there? Then the catalogue tells.
fn maybe_gone(error: &BrokerError) -> bool {
    matches!(meaning(error), Some(Meaning::NotThere | Meaning::Unsaid))
}

impl Connection {
    /// The server's clock, `from_now` ahead.
    pub(in crate::credential) async fn time(&self, from_now: Duration) -> Result<ServerTime, BrokerError> {
        let sql = "SELECT DATEDIFF(second, '20200101', SYSUTCDATETIME())";
        let rows = self.query("reading the clock", sql).await?;
        let seconds = rows.first().and_then(|row| row.int(0)).unwrap_or_default();
        let now = SERVER_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let at = SystemTime::UNIX_EPOCH + now + from_now;
        Ok(ServerTime {
            at,
            // The server is not told.
            text: String::new(),
        })
    }

    /// Another connection by the same credential.
    pub(in crate::credential) async fn beside(&self, database: &DatabaseName) -> Result<Self, BrokerError> {
        self.access().connect(database).await
    }

    /// The same for a database that need not be there: one that the broker may not enter holds nothing of
    /// ours.
    async fn beside_if_let_in(&self, database: &DatabaseName) -> Result<Option<Self>, BrokerError> {
        match self.beside(database).await {
            Ok(there) => Ok(Some(there)),
            Err(error @ BrokerError::MissingPrivilege { .. }) => {
                tracing::debug!(database = %database, error = %chain(&error), "could not look into a database");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn other_databases(&self) -> impl Iterator<Item = &DatabaseName> {
        let all = self.access().databases.iter();
        all.filter(|name| *name != self.database())
    }

    /// One transaction: there is never a login that is not yet, or no longer, a member of its role.
    pub(in crate::credential) async fn create(
        &self,
        login: &LoginName,
        mark: &Mark,
        secret: &Secret<String>,
    ) -> Result<(), BrokerError> {
        let database = mark.database.as_ref().unwrap_or_else(|| self.database());
        let other;
        let there = if database == self.database() {
            self
        } else {
            other = self.beside(database).await?;
            &other
        };
        let sql = Secret::new(transaction(&self.creation(login, &mark.role, secret, database)));
        let mut clashes = 0;
        loop {
            let Err(error) = there.run_secret("minting a login", &sql).await else {
                return Ok(());
            };
            let error = match meaning(&error) {
                Some(Meaning::Again) => error,
                _ => live::explain(there, error, &mark.role).await,
            };
            // Babelfish does not say of a clash that it is one: it is what nothing else explains.
            let clashed = matches!(meaning(&error), Some(Meaning::Again | Meaning::Unsaid));
            if !clashed || clashes == CLASHES_MAX {
                return Err(error);
            }
            clashes += 1;
        }
    }

    fn creation(
        &self,
        login: &LoginName,
        role: &RoleName,
        secret: &Secret<String>,
        database: &DatabaseName,
    ) -> Vec<String> {
        let name = quote_name(login.as_str());
        // A secret of ours has no quotes in it.
        let secret = secret.expose().replace('\'', "''");
        let home = quote_name(database.as_str());
        let mut sql = Vec::new();
        if self.contained() {
            sql.push(format!(
                "CREATE USER {name} WITH PASSWORD = '{secret}', DEFAULT_SCHEMA = [dbo]"
            ));
        } else {
            // It is random and short-lived: a policy would only lock it, or ask for a change.
            let policy = if self.product() == Product::Babelfish {
                ""
            } else {
                ", CHECK_POLICY = OFF, CHECK_EXPIRATION = OFF"
            };
            sql.push(format!(
                "CREATE LOGIN {name} WITH PASSWORD = '{secret}', DEFAULT_DATABASE = {home}{policy}"
            ));
            sql.push(format!(
                "CREATE USER {name} FOR LOGIN {name} WITH DEFAULT_SCHEMA = [dbo]"
            ));
        }
        sql.push(format!(
            "ALTER ROLE {} ADD MEMBER {name}",
            quote_name(role.as_str())
        ));
        sql
    }

    /// Whether no new connection can be made with this login any more. `Ok(false)`: it is gone, and its
    /// users too.
    pub(in crate::credential) async fn disable(&self, login: &LoginName) -> Result<bool, BrokerError> {
        if self.contained() {
            return self.lock_out(login).await;
        }
        let sql = format!("ALTER LOGIN {} DISABLE", quote_name(login.as_str()));
        match self.run("disabling a login", &sql).await {
            Ok(()) => Ok(true),
            Err(error) if maybe_gone(&error) => {
                if self.has_login(login).await? != Some(false) {
                    return Err(error);
                }
                // Somebody dropped the login and left its user.
                Ok(!self.databases_touched(login).await?.is_empty())
            }
            Err(error) => Err(error),
        }
    }

    /// A user with a password cannot be disabled by a broker of small rights: it gets a secret that
    /// nobody knows, not even we.
    async fn lock_out(&self, login: &LoginName) -> Result<bool, BrokerError> {
        let name = quote_name(login.as_str());
        let sql = format!(
            "DECLARE @sql nvarchar(max) = N'ALTER USER {} WITH PASSWORD = ''' \
             + CONVERT(nvarchar(100), CRYPT_GEN_RANDOM(32), 1) + N'aZ_''; EXEC (@sql)",
            name.replace('\'', "''")
        );
        let databases = self.databases_touched(login).await?;
        for database in &databases {
            let there = self.beside(database).await?;
            match there.run("disabling a login", &sql).await {
                Err(error) if maybe_gone(&error) && !there.has_user(login).await? => {}
                other => other?,
            }
        }
        Ok(!databases.is_empty())
    }

    /// Ends the sessions of a login; returns how many there were.
    pub(in crate::credential) async fn terminate(&self, login: &LoginName) -> Result<i64, BrokerError> {
        if self.product() != Product::AzureSql {
            return self.terminate_here(login).await;
        }
        // Each database sees its own.
        let mut sessions = 0;
        for database in self.databases_touched(login).await? {
            sessions += self.beside(&database).await?.terminate_here(login).await?;
        }
        Ok(sessions)
    }

    async fn terminate_here(&self, login: &LoginName) -> Result<i64, BrokerError> {
        let login = quote_text(login.as_str());
        // Babelfish has rows of nothing but NULL.
        let sql = format!(
            "SELECT CAST(session_id AS int) FROM sys.dm_exec_sessions WHERE session_id IS NOT NULL \
             AND session_id <> @@SPID AND (login_name = {login} OR original_login_name = {login})"
        );
        let rows = self.query("listing sessions", &sql).await?;
        let mut sessions = 0;
        for session in rows.iter().filter_map(|row| row.int(0)) {
            sessions += 1;
            match self.run("ending a session", &format!("KILL {session}")).await {
                // It ended by itself; where the server does not say, the next look does.
                Err(error) if matches!(meaning(&error), Some(Meaning::NoSession | Meaning::Unsaid)) => {}
                other => other?,
            }
        }
        Ok(sessions)
    }

    /// Databases in which the login has a user. Those that the broker cannot enter are not looked into.
    pub(in crate::credential) async fn databases_touched(
        &self,
        login: &LoginName,
    ) -> Result<Vec<DatabaseName>, BrokerError> {
        let mut touched = Vec::new();
        if self.has_user(login).await? {
            touched.push(self.database().clone());
        }
        for database in self.other_databases() {
            if let Some(there) = self.beside_if_let_in(database).await?
                && there.has_user(login).await?
            {
                touched.push(database.clone());
            }
        }
        Ok(touched)
    }

    /// In this connection's database: what the user owns goes to the role, and the user goes. What it was
    /// granted goes with it.
    pub(in crate::credential) async fn hand_over(
        &self,
        login: &LoginName,
        role: Option<&RoleName>,
    ) -> Result<(), BrokerError> {
        let name = quote_text(login.as_str());
        let owned = self.query("listing owned objects", &owned(&name)).await?;
        if !owned.is_empty() {
            let heir = match role {
                Some(role) => Some(role.as_str().to_owned()),
                None => self.first_role(login).await?,
            };
            // Without an heir it stays, and the server will not drop the user: `dbo` would lend it more
            // rights than its maker had.
            for row in heir.iter().flat_map(|_| &owned) {
                let (class, object) = (row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default());
                let heir = quote_name(heir.as_deref().unwrap_or_default());
                let sql = format!("ALTER AUTHORIZATION ON {class}::{object} TO {heir}");
                self.run("handing over owned objects", &sql).await?;
            }
        }
        let sql = format!("DROP USER {}", quote_name(login.as_str()));
        match self.run("dropping a login's user", &sql).await {
            Err(error) if maybe_gone(&error) && !self.has_user(login).await? => Ok(()),
            other => other,
        }
    }

    pub(in crate::credential) async fn drop_login(&self, login: &LoginName) -> Result<(), BrokerError> {
        if self.contained() {
            return Ok(());
        }
        let sql = format!("DROP LOGIN {}", quote_name(login.as_str()));
        match self.run("dropping a login", &sql).await {
            Err(error) if maybe_gone(&error) && self.has_login(login).await? == Some(false) => Ok(()),
            other => other,
        }
    }

    /// Logins of this installation, whatever replica and epoch made them.
    pub(in crate::credential) async fn minted(
        &self,
        installation: &Installation,
    ) -> Result<Vec<Found>, BrokerError> {
        let found = |name: &String| {
            let spoken = Spoken::by(name).filter(|spoken| spoken.is_of(installation))?;
            Some(Found {
                login: LoginName::found(name)?,
                epoch: spoken.epoch,
                replica: None,
                role: None,
            })
        };
        let names = self.principals(&login_prefix(installation)).await?;
        Ok(names.iter().filter_map(found).collect())
    }

    /// Names of logins, or of users with a password, that begin so.
    pub(in crate::credential) async fn principals(&self, prefix: &str) -> Result<Vec<String>, BrokerError> {
        let view = if self.contained() {
            "sys.database_principals"
        } else {
            "sys.server_principals"
        };
        let sql = format!(
            "SELECT name FROM {view} WHERE type = 'S' AND LEFT(name, {}) = {} ORDER BY name",
            prefix.len(),
            quote_text(prefix)
        );
        let mut names = names(&self.query("listing logins", &sql).await?);
        if self.contained() {
            for database in self.other_databases() {
                if let Some(there) = self.beside_if_let_in(database).await? {
                    let rows = there.query("listing logins", &sql).await?;
                    names.extend(self::names(&rows));
                }
            }
        }
        Ok(names)
    }

    /// `None`: we may not see whether there is one.
    async fn has_login(&self, login: &LoginName) -> Result<Option<bool>, BrokerError> {
        let sql = format!(
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM sys.server_principals WHERE name = {}) THEN 1 ELSE 0 END, \
             CASE WHEN IS_SRVROLEMEMBER('sysadmin') = 1 OR HAS_PERMS_BY_NAME(NULL, NULL, 'ALTER ANY LOGIN') = 1 \
             THEN 1 ELSE 0 END",
            quote_text(login.as_str())
        );
        let rows = self.query("looking for a login", &sql).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok((row.yes(0) || row.yes(1)).then(|| row.yes(0)))
    }

    async fn has_user(&self, login: &LoginName) -> Result<bool, BrokerError> {
        let sql = format!(
            "SELECT 1 FROM sys.database_principals WHERE name = {}",
            quote_text(login.as_str())
        );
        let rows = self.query("looking for a login's user", &sql).await?;
        Ok(!rows.is_empty())
    }

    /// The role that a login left behind was minted for, as far as its memberships tell.
    async fn first_role(&self, login: &LoginName) -> Result<Option<String>, BrokerError> {
        let sql = format!(
            "SELECT r.name FROM sys.database_role_members AS m \
             JOIN sys.database_principals AS r ON r.principal_id = m.role_principal_id \
             JOIN sys.database_principals AS u ON u.principal_id = m.member_principal_id \
             WHERE u.name = {} ORDER BY r.name",
            quote_text(login.as_str())
        );
        let rows = self.query("reading memberships", &sql).await?;
        Ok(names(&rows).into_iter().next())
    }

    /// Takes an epoch's lock for this session, if nobody has it. These locks belong to a database, and a
    /// replica may hold its own in another one, so those count too.
    pub(in crate::credential) async fn try_lock(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<bool, BrokerError> {
        let lock = quote_text(&lock_name(installation, epoch));
        let sql = format!(
            "DECLARE @taken int; EXEC @taken = sp_getapplock @Resource = {lock}, @LockMode = 'Exclusive', \
             @LockOwner = 'Session', @LockTimeout = 0; SELECT @taken"
        );
        let rows = self.query("taking an epoch's lock", &sql).await?;
        let taken = rows.first().and_then(|row| row.int(0));
        if taken.is_none_or(|taken| taken < 0) {
            return Ok(false);
        }
        if self.is_locked_elsewhere(installation, epoch).await? {
            self.unlock(installation, epoch).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether another session holds an epoch's lock, in whatever of our databases.
    pub(in crate::credential) async fn is_locked_by_others(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<bool, BrokerError> {
        Ok(self.is_locked_here(installation, epoch).await?
            || self.is_locked_elsewhere(installation, epoch).await?)
    }

    async fn is_locked_here(&self, installation: &Installation, epoch: &Epoch) -> Result<bool, BrokerError> {
        let lock = quote_text(&lock_name(installation, epoch));
        let sql = format!("SELECT CAST(APPLOCK_TEST('public', {lock}, 'Exclusive', 'Session') AS int)");
        let rows = self.query("looking for an epoch's lock", &sql).await?;
        Ok(rows.first().and_then(|row| row.int(0)) == Some(0))
    }

    /// A home that was another database before the configuration changed. Babelfish's locks are the
    /// whole server's: looked for from elsewhere, our own would be taken for another's.
    async fn is_locked_elsewhere(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<bool, BrokerError> {
        if self.product() == Product::Babelfish {
            return Ok(false);
        }
        for database in self.other_databases() {
            if let Some(there) = self.beside_if_let_in(database).await?
                && there.is_locked_here(installation, epoch).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(in crate::credential) async fn unlock(
        &self,
        installation: &Installation,
        epoch: &Epoch,
    ) -> Result<(), BrokerError> {
        let lock = quote_text(&lock_name(installation, epoch));
        let sql = format!("EXEC sp_releaseapplock @Resource = {lock}, @LockOwner = 'Session'");
        self.run("releasing an epoch's lock", &sql).await
    }
}

/// What a user owns, with the class and the quoted name that `ALTER AUTHORIZATION` takes. `user` is an
/// SQL text. Each kind is a result of its own, so that no collations meet.
pub(in crate::credential) fn owned(user: &str) -> String {
    let of = |select: &str, owner: &str| {
        format!(
            "{select} JOIN sys.database_principals AS u ON u.principal_id = {owner} WHERE u.name = {user}"
        )
    };
    [
        of(
            "SELECT N'SCHEMA', QUOTENAME(s.name) FROM sys.schemas AS s",
            "s.principal_id",
        ),
        of(
            "SELECT N'OBJECT', QUOTENAME(s.name) + N'.' + QUOTENAME(o.name) FROM sys.objects AS o \
             JOIN sys.schemas AS s ON s.schema_id = o.schema_id",
            "o.principal_id",
        ),
        of(
            "SELECT N'TYPE', QUOTENAME(s.name) + N'.' + QUOTENAME(t.name) FROM sys.types AS t \
             JOIN sys.schemas AS s ON s.schema_id = t.schema_id",
            "t.principal_id",
        ),
        of(
            "SELECT N'ROLE', QUOTENAME(r.name) FROM sys.database_principals AS r",
            "r.owning_principal_id",
        ),
    ]
    .join("; ")
}

pub(in crate::credential) fn names(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .filter_map(|row| row.text(0).map(str::to_owned))
        .collect()
}
