//! What the catalogue says about all logins at once, and what follows from it.

use std::collections::BTreeSet;

use tokio::runtime::Handle;

use crate::credential::broker::BrokerSettings;
use crate::credential::connection::{Access, Connection};
use crate::credential::doctor::{Condition, Locked, LoginReport, Object, Objects};
use crate::credential::error::{BrokerError, chain};
use crate::credential::inspection::{NamedLook, Seen};
use crate::credential::live::{Finding, FindingKind};
use crate::credential::naming::{Epoch, LoginName, MINTED_GROUP, Mark, login_prefix, quote_name, quote_text};
use crate::domain::ids::RoleName;
use crate::domain::target::DatabaseName;

/// Enough to see what kind of thing it is; the server lists the rest.
pub(super) const OBJECTS_MAX: i64 = 1_000;

pub(super) struct Look {
    logins: Vec<NamedLook>,
    locked: Locked,
    objects: Objects,
}

impl Look {
    pub(super) async fn at(
        settings: &BrokerSettings,
        control: &Handle,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, BrokerError> {
        let access = settings.access(control);
        let connection = access.connect(&settings.home()).await?;
        let logins = connection
            .inspect_all(&login_prefix(&settings.installation))
            .await?;
        let mut locked = BTreeSet::new();
        let ours = |mark: &Mark| mark.installation == settings.installation;
        let epochs: BTreeSet<Epoch> = logins
            .iter()
            .filter_map(|login| login.seen.mark())
            .filter(ours)
            .map(|mark| mark.epoch)
            .collect();
        for epoch in epochs {
            if connection
                .is_locked_by_others(&settings.installation, &epoch)
                .await?
            {
                locked.insert(epoch);
            }
        }
        let objects = objects(&access, &connection, &logins, findings).await?;
        Ok(Self {
            logins,
            locked,
            objects,
        })
    }

    fn condition(&self, seen: &Seen, settings: &BrokerSettings) -> Condition {
        match (seen.comment.as_deref(), seen.mark()) {
            (None, _) => Condition::WithoutComment,
            (Some(_), None) => Condition::UnreadableComment,
            (Some(_), Some(mark)) if mark.installation != settings.installation => {
                Condition::OtherInstallation
            }
            (Some(_), Some(mark)) if self.locked.contains(&mark.epoch) => Condition::Live,
            (Some(_), Some(_)) => Condition::LeftOver,
        }
    }

    pub(super) fn reports(&self, settings: &BrokerSettings) -> Vec<LoginReport> {
        let report = |login: &NamedLook| self.report(login, settings);
        self.logins.iter().map(report).collect()
    }

    fn report(
        &self,
        NamedLook {
            name, seen, sessions, ..
        }: &NamedLook,
        settings: &BrokerSettings,
    ) -> LoginReport {
        let condition = self.condition(seen, settings);
        let mark = seen.mark();
        let role = mark.as_ref().map(|mark| mark.role.clone()).or_else(|| heir(seen));
        let objects = self.objects.get(name).cloned().unwrap_or_default();
        // Somebody gave it a name under which no sweep looks for it.
        let renamed = LoginName::found(name).is_none();
        let mut wrong = Vec::new();
        match condition {
            Condition::Live => {
                wrong.extend(role.iter().flat_map(|role| seen.liberties(role.as_str())));
                wrong.extend(seen.until.is_none().then(|| "never expires".to_owned()));
            }
            Condition::LeftOver if renamed => {
                wrong.push("was left behind by a replica that is gone, and renamed".to_owned());
            }
            Condition::LeftOver => wrong.push("was left behind by a replica that is gone".to_owned()),
            Condition::WithoutComment if self.is_proved_dead(seen, *sessions, settings, name) => {
                wrong.push("has no comment, is ours and has expired".to_owned());
            }
            Condition::WithoutComment => {
                wrong.push("has no comment, so it is not proved whose it is".to_owned());
            }
            Condition::UnreadableComment => {
                wrong.push("has a comment that this version does not understand".to_owned());
            }
            Condition::OtherInstallation => {}
        }
        let stuck = !seen.can_login && *sessions == 0 && objects.iter().any(|object| object.owned);
        if stuck && condition == Condition::Live {
            wrong.push("is disabled and still owns something: its end does not succeed".to_owned());
        }
        let by_hand = stuck
            || matches!(
                condition,
                Condition::WithoutComment | Condition::UnreadableComment
            );
        let sql = if by_hand && condition != Condition::OtherInstallation {
            end_by_hand(name, role.as_ref(), &objects)
        } else {
            Vec::new()
        };
        LoginReport {
            login: name.clone(),
            condition,
            installation: mark.as_ref().map(|mark| mark.installation.to_string()),
            replica: mark.as_ref().map(|mark| mark.replica.to_string()),
            epoch: mark.as_ref().map(|mark| mark.epoch.as_str().to_owned()),
            generation: mark.as_ref().map(|mark| mark.generation),
            role,
            until: seen.until.clone(),
            expired: seen.expired,
            disabled: !seen.can_login,
            sessions: *sessions,
            objects,
            wrong,
            sql,
        }
    }

    /// Epochs of ours whose lock was free.
    pub(super) fn left_over(&self) -> BTreeSet<Epoch> {
        let marks = self.logins.iter().filter_map(|login| login.seen.mark());
        marks
            .map(|mark| mark.epoch)
            .filter(|epoch| !self.locked.contains(epoch))
            .collect()
    }

    /// Logins without comment that are ours and dead, with who inherits what they own.
    pub(super) fn proved_dead(&self, settings: &BrokerSettings) -> Vec<(LoginName, RoleName)> {
        let dead = self.logins.iter().filter(|login| {
            login.seen.comment.is_none()
                && self.is_proved_dead(&login.seen, login.sessions, settings, &login.name)
        });
        dead.filter_map(|login| Some((LoginName::found(&login.name)?, heir(&login.seen)?)))
            .collect()
    }

    /// Ours: it is called so, it is one of the minted, our broker is the one that administers it, and no
    /// other installation is here whose it could be. Dead: it has expired, which a replica that used it
    /// would have seen to, and it has no sessions.
    fn is_proved_dead(&self, seen: &Seen, sessions: i64, settings: &BrokerSettings, name: &str) -> bool {
        let alone = self.logins.iter().all(|login| {
            let mark = login.seen.mark();
            mark.is_none_or(|mark| mark.installation == settings.installation)
        });
        let administered = self
            .logins
            .iter()
            .any(|login| login.name == name && login.administered);
        name.starts_with(&login_prefix(&settings.installation))
            && seen.member_of.iter().any(|group| group == MINTED_GROUP)
            && heir(seen).is_some()
            && administered
            && alone
            && seen.expired
            && sessions == 0
    }
}

/// The one role that a login was minted for, as far as its memberships tell.
fn heir(seen: &Seen) -> Option<RoleName> {
    let mut roles = seen.member_of.iter().filter(|name| *name != MINTED_GROUP);
    let first = roles.next()?;
    roles.next().is_none().then(|| RoleName::new(first.as_str()))
}

/// In the order in which gatepost would do it.
fn end_by_hand(login: &str, role: Option<&RoleName>, objects: &[Object]) -> Vec<String> {
    let name = quote_name(login);
    let heir = role.map_or_else(|| "CURRENT_USER".to_owned(), |role| quote_name(role.as_str()));
    let mut sql = vec![
        format!("ALTER ROLE {name} NOLOGIN"),
        format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {}",
            quote_text(login)
        ),
    ];
    let databases: BTreeSet<&DatabaseName> = objects.iter().map(|object| &object.database).collect();
    for database in databases {
        sql.push(format!("\\connect {}", quote_name(database.as_str())));
        sql.push(format!("REASSIGN OWNED BY {name} TO {heir}"));
        sql.push(format!("DROP OWNED BY {name}"));
    }
    sql.push(format!("DROP ROLE {name}"));
    sql
}

/// What the logins own and were granted, database by database. One that the broker may not enter
/// becomes a finding.
async fn objects(
    access: &Access,
    connection: &Connection,
    logins: &[NamedLook],
    findings: &mut Vec<Finding>,
) -> Result<Objects, BrokerError> {
    let names: Vec<&str> = logins.iter().map(|login| login.name.as_str()).collect();
    let sql = "SELECT DISTINCT coalesce(d.datname::text, current_database()::text) FROM pg_shdepend AS s \
               JOIN pg_roles AS r ON r.oid = s.refobjid LEFT JOIN pg_database AS d ON d.oid = s.dbid \
               WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = ANY ($1) \
               AND s.classid <> 'pg_auth_members'::regclass ORDER BY 1";
    let databases = connection.query("listing databases", sql, &[&names]).await?;
    let mut objects = Objects::new();
    for database in databases
        .iter()
        .map(|row| DatabaseName::new(row.get::<_, String>(0)))
    {
        let there = match access.connect(&database).await {
            Ok(there) => there,
            Err(error) => {
                findings.push(closed(&database, &error));
                continue;
            }
        };
        let sql = "SELECT r.rolname::text, pg_describe_object(s.classid, s.objid, s.objsubid), s.deptype = 'o' \
                   FROM pg_shdepend AS s JOIN pg_roles AS r ON r.oid = s.refobjid \
                   WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = ANY ($1) \
                   AND s.classid <> 'pg_auth_members'::regclass AND s.dbid IN (0, \
                   (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1, 2 LIMIT $2";
        let rows = there
            .query("listing owned objects", sql, &[&names, &OBJECTS_MAX])
            .await?;
        for row in rows {
            let object = Object {
                database: database.clone(),
                what: row.get::<_, Option<String>>(1).unwrap_or_default(),
                owned: row.get(2),
            };
            objects.entry(row.get(0)).or_default().push(object);
        }
    }
    Ok(objects)
}

fn closed(database: &DatabaseName, error: &BrokerError) -> Finding {
    let (missing, sql) = if let BrokerError::MissingPrivilege { missing, sql, .. } = error {
        (
            format!("{missing}, in which minted logins own something"),
            sql.clone(),
        )
    } else {
        (
            format!(
                "the broker cannot look into database {database}: {}",
                chain(error)
            ),
            "-- see docs/postgres.md, \"The broker\"".to_owned(),
        )
    };
    Finding {
        missing,
        sql,
        kind: FindingKind::MissingPrivilege,
    }
}
