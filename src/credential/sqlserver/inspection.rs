//! Is a minted login still as gatepost left it? Asked by the broker at each renewal, by `doctor`, and by
//! every new connection of the login itself.

use std::collections::BTreeMap;

use crate::credential::error::BrokerError;
use crate::credential::naming::{LoginName, Mark};
use crate::credential::server::Changes;
use crate::credential::sqlserver::connection::{Connection, Product, Row};
use crate::credential::sqlserver::naming::quote_text;
use crate::domain::target::DatabaseName;

/// For a new upstream connection, run as the minted login itself before anything else. Each row of each
/// result is one text: something that is not as gatepost left it, to be read after "the login" (names of
/// roles, never values). No row: nothing was found. An error is as bad an answer as a row.
///
/// Everything is named with its schema, so that no object of the login's own can stand in its place. What
/// only others can see (who may impersonate it) is for the renewal to find.
pub const TAMPER_CHECK_TSQL: &str = "\
    SELECT N'is a member of server role ' + r.name FROM sys.server_role_members AS m \
    JOIN sys.server_principals AS r ON r.principal_id = m.role_principal_id \
    JOIN sys.server_principals AS p ON p.principal_id = m.member_principal_id \
    WHERE p.name = SUSER_SNAME(); \
    SELECT N'is a member of ' + r.name + N' (one role too many)' FROM sys.database_role_members AS m \
    JOIN sys.database_principals AS r ON r.principal_id = m.role_principal_id \
    WHERE m.member_principal_id = USER_ID() AND (SELECT COUNT(*) FROM sys.database_role_members AS n \
    WHERE n.member_principal_id = USER_ID()) > 1; \
    SELECT N'is a member of no role' WHERE NOT EXISTS (SELECT 1 FROM sys.database_role_members AS n \
    WHERE n.member_principal_id = USER_ID()); \
    SELECT N'has another default schema' WHERE SCHEMA_NAME() <> N'dbo'; \
    SELECT N'acts as another' WHERE SUSER_SNAME() <> ORIGINAL_LOGIN()";

/// What the catalogue says about a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::credential) struct Seen {
    pub(in crate::credential) disabled: bool,
    pub(in crate::credential) home: Option<String>,
    pub(in crate::credential) server_roles: Vec<String>,
    /// Rights that it was given itself, of the server and of the database.
    pub(in crate::credential) rights: Vec<String>,
    /// Who may act as this login.
    pub(in crate::credential) impersonators: Vec<String>,
    pub(in crate::credential) user: Option<User>,
}

/// A login's user in one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::credential) struct User {
    pub(in crate::credential) database: String,
    pub(in crate::credential) schema: String,
    pub(in crate::credential) roles: Vec<String>,
}

/// By the name of the login.
pub(in crate::credential) type SeenByName = BTreeMap<String, Seen>;

/// Which logins are looked at.
#[derive(Clone, Copy, Debug)]
pub(in crate::credential) enum Which<'a> {
    Named(&'a LoginName),
    Beginning(&'a str),
}

impl Which<'_> {
    /// As a condition on the column `p.name`.
    fn condition(self) -> String {
        match self {
            Self::Named(login) => format!("p.name = {}", quote_text(login.as_str())),
            Self::Beginning(prefix) => format!("LEFT(p.name, {}) = {}", prefix.len(), quote_text(prefix)),
        }
    }
}

impl Connection {
    pub(in crate::credential) async fn changes(
        &self,
        login: &LoginName,
        mark: &Mark,
    ) -> Result<Changes, BrokerError> {
        let database = mark.database.as_ref().unwrap_or_else(|| self.database());
        let mut all = SeenByName::new();
        self.inspect_logins(Which::Named(login), &mut all).await?;
        if database == self.database() {
            self.inspect_users(Which::Named(login), &mut all).await?;
        } else {
            let there = self.beside(database).await?;
            there.inspect_users(Which::Named(login), &mut all).await?;
        }
        let what = match all.get(login.as_str()) {
            Some(seen) => seen.changes(mark.role.as_str(), database, self.contained()),
            None => vec!["it was dropped by someone else".to_owned()],
        };
        Ok(Changes {
            what,
            // The server knows of no end.
            secret_counts: true,
        })
    }

    /// What the server says. A contained user is in no list of the server's.
    pub(in crate::credential) async fn inspect_logins(
        &self,
        which: Which<'_>,
        all: &mut SeenByName,
    ) -> Result<(), BrokerError> {
        if self.contained() {
            return Ok(());
        }
        let which = which.condition();
        let mut sql = format!(
            "SELECT p.name, N'login', p.default_database_name, CAST(p.is_disabled AS int) \
             FROM sys.server_principals AS p WHERE p.type = 'S' AND {which}; \
             SELECT p.name, N'server role', r.name FROM sys.server_role_members AS m \
             JOIN sys.server_principals AS r ON r.principal_id = m.role_principal_id \
             JOIN sys.server_principals AS p ON p.principal_id = m.member_principal_id WHERE {which}"
        );
        if self.product() != Product::Babelfish {
            // CONNECT SQL comes with the login. 101: a server principal.
            sql = format!(
                "{sql}; SELECT p.name, N'right', s.permission_name FROM sys.server_permissions AS s \
                 JOIN sys.server_principals AS p ON p.principal_id = s.grantee_principal_id \
                 WHERE s.type <> 'COSQ' AND {which}; \
                 SELECT p.name, N'impersonator', g.name FROM sys.server_permissions AS s \
                 JOIN sys.server_principals AS p ON p.principal_id = s.major_id \
                 JOIN sys.server_principals AS g ON g.principal_id = s.grantee_principal_id \
                 WHERE s.class = 101 AND s.state IN ('G', 'W') AND {which}"
            );
        }
        let rows = self.query("inspecting logins", &sql).await?;
        self.take(&rows, all);
        Ok(())
    }

    /// What this connection's database says.
    pub(in crate::credential) async fn inspect_users(
        &self,
        which: Which<'_>,
        all: &mut SeenByName,
    ) -> Result<(), BrokerError> {
        let which = which.condition();
        // CONNECT comes with the user. 4: a database principal.
        let sql = format!(
            "SELECT p.name, N'user', p.default_schema_name FROM sys.database_principals AS p \
             WHERE p.type = 'S' AND {which}; \
             SELECT p.name, N'role', r.name FROM sys.database_role_members AS m \
             JOIN sys.database_principals AS r ON r.principal_id = m.role_principal_id \
             JOIN sys.database_principals AS p ON p.principal_id = m.member_principal_id \
             WHERE {which} ORDER BY r.name; \
             SELECT p.name, N'right', s.permission_name FROM sys.database_permissions AS s \
             JOIN sys.database_principals AS p ON p.principal_id = s.grantee_principal_id \
             WHERE s.type <> 'CO' AND {which}; \
             SELECT p.name, N'impersonator', g.name FROM sys.database_permissions AS s \
             JOIN sys.database_principals AS p ON p.principal_id = s.major_id \
             JOIN sys.database_principals AS g ON g.principal_id = s.grantee_principal_id \
             WHERE s.class = 4 AND s.state IN ('G', 'W') AND {which}"
        );
        let rows = self.query("inspecting users", &sql).await?;
        self.take(&rows, all);
        Ok(())
    }

    fn take(&self, rows: &[Row], all: &mut SeenByName) {
        for row in rows {
            let Some(name) = row.text(0) else { continue };
            let seen = all.entry(name.to_owned()).or_default();
            let value = row.text(2).unwrap_or_default().to_owned();
            let user = || User {
                database: self.database().to_string(),
                ..User::default()
            };
            match row.text(1).unwrap_or_default() {
                "login" => {
                    seen.home = Some(value);
                    seen.disabled = row.yes(3);
                }
                "server role" => seen.server_roles.push(value),
                "right" => seen.rights.push(value),
                "impersonator" => seen.impersonators.push(value),
                "user" => seen.user.get_or_insert_with(user).schema = value,
                "role" => seen.user.get_or_insert_with(user).roles.push(value),
                _ => {}
            }
        }
    }
}

impl Seen {
    /// What is not as gatepost left it: one phrase each, to be read after the login's name.
    fn changes(&self, role: &str, database: &DatabaseName, contained: bool) -> Vec<String> {
        let mut what = self.liberties(role);
        if !contained && self.home.is_none() {
            what.push("it was dropped by someone else".to_owned());
        }
        if self.user.is_none() {
            what.push(format!("its user in database {database} was dropped"));
        }
        if self.disabled {
            what.push("it was disabled by someone else".to_owned());
        }
        // Names of databases are compared as the server does, whatever their case.
        let moved = |home: &&String| !home.eq_ignore_ascii_case(database.as_str());
        if let Some(home) = self.home.as_ref().filter(moved) {
            what.push(format!("its default database was set to {home}"));
        }
        what
    }

    /// What gives a login more than it was minted with, or less.
    pub(in crate::credential) fn liberties(&self, role: &str) -> Vec<String> {
        let mut what = Vec::new();
        let made = |name: &String| format!("it was made a member of server role {name}");
        what.extend(self.server_roles.iter().map(made));
        what.extend(self.rights.iter().map(|right| format!("it was given {right}")));
        let acts = |name: &String| format!("{name} may impersonate it");
        what.extend(self.impersonators.iter().map(acts));
        let Some(user) = &self.user else { return what };
        let other = |name: &&String| name.as_str() != role;
        let made = |name: &String| format!("it was made a member of {name}");
        what.extend(user.roles.iter().filter(other).map(made));
        if user.roles.iter().all(|name| name != role) {
            what.push(format!("its membership of {role} was taken away"));
        }
        if user.schema != "dbo" {
            what.push("its default schema was changed".to_owned());
        }
        what
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted() -> Seen {
        Seen {
            home: Some("orders".to_owned()),
            user: Some(User {
                database: "orders".to_owned(),
                schema: "dbo".to_owned(),
                roles: vec!["writer".to_owned()],
            }),
            ..Seen::default()
        }
    }

    fn changes(change: impl FnOnce(&mut Seen)) -> Vec<String> {
        let mut seen = minted();
        change(&mut seen);
        seen.changes("writer", &"Orders".into(), false)
    }

    #[test]
    fn a_login_as_it_was_minted_has_no_changes() {
        assert_eq!(changes(|_| ()), [""; 0]);
        let contained = Seen {
            home: None,
            ..minted()
        };
        assert_eq!(contained.changes("writer", &"orders".into(), true), [""; 0]);
    }

    #[test]
    fn every_change_is_told() {
        assert_eq!(
            changes(|seen| seen.disabled = true),
            ["it was disabled by someone else"]
        );
        assert_eq!(
            changes(|seen| seen.home = None),
            ["it was dropped by someone else"]
        );
        assert_eq!(
            changes(|seen| seen.home = Some("master".to_owned())),
            ["its default database was set to master"]
        );
        assert_eq!(
            changes(|seen| seen.user = None),
            ["its user in database Orders was dropped"]
        );
        assert_eq!(
            changes(|seen| seen.server_roles.push("sysadmin".to_owned())),
            ["it was made a member of server role sysadmin"]
        );
        assert_eq!(
            changes(|seen| seen.rights.push("CONTROL".to_owned())),
            ["it was given CONTROL"]
        );
        assert_eq!(
            changes(|seen| seen.impersonators.push("eve".to_owned())),
            ["eve may impersonate it"]
        );
        assert_eq!(
            changes(|seen| seen.user.as_mut().unwrap().roles = vec!["db_owner".to_owned()]),
            [
                "it was made a member of db_owner",
                "its membership of writer was taken away"
            ]
        );
        assert_eq!(
            changes(|seen| seen.user.as_mut().unwrap().schema = "evil".to_owned()),
            ["its default schema was changed"]
        );
    }
}
