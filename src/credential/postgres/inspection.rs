//! Is a minted login still as gatepost left it? Asked by the broker at each renewal, by `doctor`, and
//! by every new connection of the login itself.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;

use crate::credential::error::BrokerError;
use crate::credential::naming::{LoginName, MINTED_GROUP, Mark};
use crate::credential::postgres::connection::Connection;
use crate::credential::postgres::naming::quote_name;
use crate::credential::server::{Changes, ServerTime};

/// For a new upstream connection, run as the minted login itself before anything else. Each row that
/// comes back is one text: something that is not as gatepost left it, to be read after "the login"
/// (names of settings, roles and attributes, never values). No row: nothing was found. An error is as
/// bad an answer as a row.
///
/// A setting of the login may have put a schema of its own in front of `pg_catalog`, so every function,
/// operator and type says where it is from. What only others can see (the password, who was made a
/// member of the login) is for the renewal to find.
pub const TAMPER_CHECK_SQL: &str = "\
    SELECT pg_catalog.concat('set ', pg_catalog.split_part(s.text, '=', 1), ' for itself') \
    FROM pg_catalog.pg_roles AS r \
    JOIN pg_catalog.pg_db_role_setting AS d ON d.setrole OPERATOR(pg_catalog.=) r.oid \
    CROSS JOIN LATERAL pg_catalog.unnest(d.setconfig) AS s (text) \
    WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER \
    UNION ALL SELECT pg_catalog.concat('is a member of ', g.rolname, ' (one role too many, or too few)') \
    FROM pg_catalog.pg_roles AS r \
    JOIN pg_catalog.pg_auth_members AS m ON m.member OPERATOR(pg_catalog.=) r.oid \
    JOIN pg_catalog.pg_roles AS g ON g.oid OPERATOR(pg_catalog.=) m.roleid \
    WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER \
    AND (SELECT pg_catalog.count(DISTINCT n.roleid) FROM pg_catalog.pg_auth_members AS n \
         WHERE n.member OPERATOR(pg_catalog.=) r.oid) OPERATOR(pg_catalog.<>) 2 \
    UNION ALL SELECT 'has an attribute that no minted login has' FROM pg_catalog.pg_roles AS r \
    WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER \
    AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls)";

/// What the catalogue says about a login.
#[derive(Clone, Debug)]
pub(in crate::credential) struct Seen {
    pub(in crate::credential) can_login: bool,
    pub(in crate::credential) inherits: bool,
    pub(in crate::credential) connection_limit: i32,
    /// As the server writes it; `None`: for ever.
    pub(in crate::credential) until: Option<String>,
    pub(in crate::credential) expired: bool,
    /// `SUPERUSER`, `CREATEROLE` …
    pub(in crate::credential) attributes: Vec<String>,
    /// Names only: values may hold anything.
    pub(in crate::credential) settings: Vec<String>,
    pub(in crate::credential) member_of: Vec<String>,
    /// Memberships that the login could hand on.
    pub(in crate::credential) admin_of: Vec<String>,
    /// Who else may act as this login.
    pub(in crate::credential) members: Vec<String>,
    pub(in crate::credential) comment: Option<String>,
    /// The server's clock.
    pub(in crate::credential) now: SystemTime,
}

/// A login that was found by name or group, with what only `doctor` asks.
#[derive(Clone, Debug)]
pub(in crate::credential) struct NamedLook {
    pub(in crate::credential) name: String,
    pub(in crate::credential) seen: Seen,
    pub(in crate::credential) sessions: i64,
    /// The broker has `ADMIN` on it, which the one that makes a role is given. Always false before
    /// PostgreSQL 16, where who made a role is not kept.
    pub(in crate::credential) administered: bool,
}

const INSPECT: &str = "SELECT r.rolcanlogin, r.rolinherit, r.rolconnlimit, r.rolvaliduntil::text, \
    coalesce(r.rolvaliduntil <= clock_timestamp(), false), \
    ARRAY(SELECT a.name FROM (VALUES ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole), \
        ('CREATEDB', r.rolcreatedb), ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)) AS a (name, there) \
        WHERE a.there), \
    ARRAY(SELECT DISTINCT split_part(s.text, '=', 1) FROM pg_db_role_setting AS d, unnest(d.setconfig) AS s (text) \
        WHERE d.setrole = r.oid ORDER BY 1), \
    ARRAY(SELECT DISTINCT g.rolname::text FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid \
        WHERE m.member = r.oid ORDER BY 1), \
    ARRAY(SELECT DISTINCT g.rolname::text FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid \
        WHERE m.member = r.oid AND m.admin_option ORDER BY 1), \
    ARRAY(SELECT DISTINCT u.rolname::text FROM pg_auth_members AS m JOIN pg_roles AS u ON u.oid = m.member \
        WHERE m.roleid = r.oid AND u.rolname <> current_user ORDER BY 1), \
    shobj_description(r.oid, 'pg_authid'), extract(epoch FROM clock_timestamp())::float8, r.rolname::text, \
    (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid), \
    EXISTS (SELECT FROM pg_auth_members AS m WHERE m.roleid = r.oid AND m.admin_option \
        AND m.member = (SELECT oid FROM pg_roles WHERE rolname = current_user)) \
    FROM pg_roles AS r WHERE ";

fn seen(row: &Row) -> Seen {
    Seen {
        can_login: row.get(0),
        inherits: row.get(1),
        connection_limit: row.get(2),
        until: row.get(3),
        expired: row.get(4),
        attributes: row.get(5),
        settings: row.get(6),
        member_of: row.get(7),
        admin_of: row.get(8),
        members: row.get(9),
        comment: row.get(10),
        now: SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(row.get(11)).unwrap_or_default(),
    }
}

impl Connection {
    pub(in crate::credential) async fn changes(
        &self,
        login: &LoginName,
        mark: &Mark,
        untils: &[&ServerTime],
    ) -> Result<Changes, BrokerError> {
        let Some(seen) = self.inspect(login).await? else {
            let renamed = self.undo_rename(login, mark).await?;
            let what = renamed.map_or_else(
                || "it was dropped by someone else".to_owned(),
                |name| format!("it was renamed to {name}"),
            );
            return Ok(Changes {
                what: vec![what],
                secret_counts: false,
            });
        };
        let ends = untils.iter().map(|until| until.at).min();
        Ok(Changes {
            what: seen.changes(mark, untils.iter().copied()),
            // An end that has passed refuses the secret too, and is for the renewal to move.
            secret_counts: ends.is_some_and(|ends| seen.now < ends),
        })
    }

    /// `None`: no role of this name.
    async fn inspect(&self, login: &LoginName) -> Result<Option<Seen>, BrokerError> {
        let sql = format!("{INSPECT} r.rolname = $1");
        let rows = self.query("inspecting a login", &sql, &[&login.as_str()]).await?;
        Ok(rows.first().map(seen))
    }

    /// Every role that is called like a login, or has the comment of one.
    pub(in crate::credential) async fn inspect_all(
        &self,
        prefix: &str,
    ) -> Result<Vec<NamedLook>, BrokerError> {
        let sql = format!(
            "{INSPECT} r.rolname <> current_user AND (starts_with(r.rolname::text, $1) \
             OR starts_with(shobj_description(r.oid, 'pg_authid'), '{{\"gatepost\":') \
             OR (starts_with(r.rolname::text, 'gp_') AND EXISTS (SELECT FROM pg_auth_members AS m \
             JOIN pg_roles AS g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname = $2))) ORDER BY r.rolname"
        );
        let rows = self
            .query("inspecting all logins", &sql, &[&prefix, &MINTED_GROUP])
            .await?;
        let named = |row: &Row| NamedLook {
            name: row.get(12),
            seen: seen(row),
            sessions: row.get(13),
            administered: row.get(14),
        };
        Ok(rows.iter().map(named).collect())
    }

    /// A login that is not there may go by another name; its comment tells, and it gets its own back,
    /// so that it can be ended. Returns the other name.
    async fn undo_rename(&self, login: &LoginName, mark: &Mark) -> Result<Option<String>, BrokerError> {
        let sql = "SELECT r.rolname::text FROM pg_roles AS r JOIN pg_shdescription AS d ON d.objoid = r.oid \
                   AND d.classoid = 'pg_authid'::regclass WHERE d.description = $1";
        let comment = mark.to_comment();
        let rows = self
            .query("looking for a renamed login", sql, &[&comment])
            .await?;
        let Some(name) = rows.first().map(|row| row.get::<_, String>(0)) else {
            return Ok(None);
        };
        let sql = format!(
            "ALTER ROLE {} RENAME TO {}",
            quote_name(&name),
            quote_name(login.as_str())
        );
        self.run("undoing a login's new name", &sql).await?;
        Ok(Some(name))
    }
}

impl Seen {
    pub(in crate::credential) fn mark(&self) -> Option<Mark> {
        self.comment.as_deref().and_then(Mark::parse)
    }

    /// What is not as gatepost left it: one phrase each, to be read after the login's name.
    pub(in crate::credential) fn changes<'a>(
        &self,
        mark: &Mark,
        untils: impl Iterator<Item = &'a ServerTime>,
    ) -> Vec<String> {
        let mut what = self.liberties(mark.role.as_str());
        if !self.can_login {
            what.push("it was disabled by someone else".to_owned());
        }
        if self.connection_limit != -1 {
            what.push(format!(
                "its connection limit was set to {}",
                self.connection_limit
            ));
        }
        if !self.inherits {
            what.push("it was set to NOINHERIT".to_owned());
        }
        if !untils
            .into_iter()
            .any(|until| self.until.as_ref() == Some(&until.text))
        {
            what.push("its end was moved".to_owned());
        }
        if self.comment.as_deref() != Some(mark.to_comment().as_str()) {
            what.push("its comment was changed".to_owned());
        }
        what
    }

    /// What gives a login more than it was minted with.
    pub(in crate::credential) fn liberties(&self, role: &str) -> Vec<String> {
        let mut what = Vec::new();
        if !self.settings.is_empty() {
            what.push(format!("it set {} for itself", self.settings.join(", ")));
        }
        if !self.attributes.is_empty() {
            what.push(format!("it was given {}", self.attributes.join(", ")));
        }
        let expected = [MINTED_GROUP, role];
        let extra = self
            .member_of
            .iter()
            .filter(|name| !expected.contains(&name.as_str()));
        what.extend(extra.map(|name| format!("it was made a member of {name}")));
        let lacking = expected
            .iter()
            .filter(|name| self.member_of.iter().all(|there| there != *name));
        what.extend(lacking.map(|name| format!("its membership of {name} was taken away")));
        what.extend(
            self.admin_of
                .iter()
                .map(|name| format!("it was given ADMIN on {name}")),
        );
        what.extend(
            self.members
                .iter()
                .map(|name| format!("{name} was made a member of it")),
        );
        what
    }
}
