//! What the server keeps: principals, databases, sessions, locks, and what was committed. One lock guards
//! all of it; statements hold it for their whole run, so each of them is atomic.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost::domain::Secret;

use super::store::Table;
use super::syntax::{Parameter, Spoken};

#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) password: Secret<String>,
    pub(crate) disabled: bool,
    pub(crate) database: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PrincipalKind {
    /// Of this login.
    User {
        login: Option<String>,
    },
    Contained(Secret<String>),
    /// Of an identity that comes with a token, without a login of the server.
    External,
    Role,
}

#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) kind: PrincipalKind,
    pub(crate) schema: String,
    pub(crate) owner: Option<String>,
}

/// All names in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Granted {
    pub(crate) to: String,
    /// In upper case.
    pub(crate) permission: String,
    /// `object`, `schema`, `role`, `user`, `database`.
    pub(crate) class: String,
    pub(crate) on: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Procedure {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Arc<Vec<Spoken>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Schema {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) owner: String,
}

/// Maps have names in lower case for keys.
#[derive(Debug, Default)]
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) principals: BTreeMap<String, Principal>,
    /// Role, member.
    pub(crate) members: BTreeSet<(String, String)>,
    pub(crate) grants: BTreeSet<Granted>,
    pub(crate) schemas: BTreeMap<String, Schema>,
    /// By schema and name, with a dot.
    pub(crate) tables: BTreeMap<String, Table>,
    pub(crate) procedures: BTreeMap<String, Procedure>,
}

/// What others can know of a session.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) login: String,
    pub(crate) database: String,
    pub(crate) program: String,
    pub(crate) host: String,
    pub(crate) open_transactions: i32,
    pub(crate) killed: bool,
    pub(crate) kill: Arc<tokio::sync::Notify>,
}

/// A transaction that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) id: i64,
    pub(crate) spid: u16,
    pub(crate) login: String,
    pub(crate) database: String,
    /// `gatepost.subject` and `correlation_id` of the session context at the commit.
    pub(crate) subject: Option<String>,
    pub(crate) correlation: Option<String>,
    /// It changed rows or definitions.
    pub(crate) wrote: bool,
    /// Their texts, without those of logins.
    pub(crate) statements: Vec<String>,
}

/// A login as it came, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginSeen {
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) application: String,
    pub(crate) host: String,
    pub(crate) server: String,
    pub(crate) language: String,
    pub(crate) version: u32,
    pub(crate) packet_bytes: u32,
    pub(crate) flags: [u8; 4],
    /// By a token instead of a password.
    pub(crate) by_token: bool,
    /// What carried it: `None` for clear text.
    pub(crate) tls: Option<gatepost::wire::tds::tls_wrap::TlsPlace>,
    /// The number of the error that answered it.
    pub(crate) refused: Option<i32>,
}

/// What a test told the server to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    pub(crate) refuse_logins: Option<i32>,
    pub(crate) delay: Duration,
    pub(crate) route: Option<(String, u16)>,
    pub(crate) lose: Option<Loss>,
}

/// What becomes of the next COMMIT of a login whose name begins with `gp_`. It is never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The server closes the connection; else it waits until its client does.
    pub(crate) cut: bool,
    /// So long after the connection is gone …
    pub(crate) late: Duration,
    /// … it is done all the same; or rolled back.
    pub(crate) done: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) logins: BTreeMap<String, Login>,
    /// Server role, member.
    pub(crate) server_members: BTreeSet<(String, String)>,
    pub(crate) server_grants: BTreeSet<(String, String)>,
    pub(crate) databases: BTreeMap<String, Database>,
    /// Access tokens and whose they are.
    pub(crate) tokens: Vec<(Secret<String>, String)>,
    /// See the server's options.
    pub(crate) azure: bool,
    pub(crate) sessions: BTreeMap<u16, Seen>,
    /// Database and resource, to the sessions that hold it.
    pub(crate) locks: HashMap<(String, String), u16>,
    pub(crate) committed: Vec<Committed>,
    pub(crate) logins_seen: Vec<LoginSeen>,
    /// SPID, text.
    pub(crate) batches: Vec<(u16, String)>,
    pub(crate) connections_opened: u64,
    pub(crate) orders: Orders,
    pub(crate) journal: Option<std::fs::File>,
    next_id: i32,
    next_transaction: i64,
    next_descriptor: u64,
}

/// The first number of a user, as on a real server.
const SPID_MIN: u16 = 51;
/// Ids that are not the system's begin here.
const ID_MIN: i32 = 256;
/// Far from what anybody would take for a count.
const TRANSACTION_MIN: i64 = 40_000;
const DESCRIPTOR_MIN: u64 = 0x0000_0034_0000_0001;

impl Model {
    pub(crate) fn id(&mut self) -> i32 {
        self.next_id += 1;
        ID_MIN + self.next_id
    }

    pub(crate) const fn transaction_id(&mut self) -> i64 {
        self.next_transaction += 1;
        TRANSACTION_MIN + self.next_transaction
    }

    pub(crate) const fn descriptor(&mut self) -> u64 {
        self.next_descriptor += 1;
        DESCRIPTOR_MIN + (self.next_descriptor << 32)
    }

    pub(crate) fn free_spid(&self) -> u16 {
        (SPID_MIN..u16::MAX)
            .find(|spid| !self.sessions.contains_key(spid))
            .unwrap_or(u16::MAX)
    }

    pub(crate) fn database(&self, name: &str) -> Option<&Database> {
        self.databases.get(&name.to_lowercase())
    }

    pub(crate) fn database_mut(&mut self, name: &str) -> Option<&mut Database> {
        self.databases.get_mut(&name.to_lowercase())
    }

    /// Is the login a member of this role of the server, or of sysadmin?
    pub(crate) fn is_server_member(&self, login: &str, role: &str) -> bool {
        let login = login.to_lowercase();
        let is = |role: &str| self.server_members.contains(&(role.to_owned(), login.clone()));
        is("sysadmin") || is(role)
    }

    pub(crate) fn has_server_permission(&self, login: &str, permission: &str) -> bool {
        let granted = (login.to_lowercase(), permission.to_owned());
        self.is_server_member(login, "sysadmin")
            || self.server_grants.contains(&granted)
            || permission == "ALTER ANY LOGIN" && self.is_server_member(login, "securityadmin")
            || permission == "ALTER ANY CONNECTION" && self.is_server_member(login, "processadmin")
    }

    /// In Azure each database has the rights over its own sessions.
    pub(crate) fn may_of_sessions(&self, who: (&str, &str), there: &str, rights: (&str, &str)) -> bool {
        let ((login, user), (of_server, of_database)) = (who, rights);
        if !self.azure {
            return self.has_server_permission(login, of_server);
        }
        let database = self.database(there);
        database.is_some_and(|database| database.may(user, of_database, "database", ""))
    }

    pub(crate) fn add_database(&mut self, name: &str) {
        let mut database = Database {
            name: name.to_owned(),
            ..Database::default()
        };
        for schema in ["dbo", "sys", "guest"] {
            let id = self.id();
            database.schemas.insert(
                schema.to_owned(),
                Schema {
                    id,
                    name: schema.to_owned(),
                    owner: "dbo".to_owned(),
                },
            );
        }
        let roles = [
            "public",
            "db_owner",
            "db_datareader",
            "db_datawriter",
            "db_ddladmin",
        ];
        for (index, role) in roles.into_iter().enumerate() {
            let principal = Principal {
                id: i32::try_from(index).unwrap_or_default(),
                name: role.to_owned(),
                kind: PrincipalKind::Role,
                schema: String::new(),
                owner: Some("dbo".to_owned()),
            };
            database.principals.insert(role.to_owned(), principal);
        }
        let dbo = Principal {
            id: 99,
            name: "dbo".to_owned(),
            kind: PrincipalKind::User { login: None },
            schema: "dbo".to_owned(),
            owner: None,
        };
        database.principals.insert("dbo".to_owned(), dbo);
        self.databases.insert(name.to_lowercase(), database);
    }

    pub(crate) fn add_login(&mut self, name: &str, password: &str, database: &str) {
        let login = Login {
            id: self.id(),
            name: name.to_owned(),
            password: Secret::new(password.to_owned()),
            disabled: false,
            database: database.to_owned(),
        };
        self.logins.insert(name.to_lowercase(), login);
    }
}

impl Database {
    /// The user that a login is here; `None` if it may not enter.
    pub(crate) fn user_of(&self, model_is_sysadmin: bool, login: &str) -> Option<String> {
        if model_is_sysadmin {
            return Some("dbo".to_owned());
        }
        let login = login.to_lowercase();
        let mapped = self.principals.values().find(|principal| match &principal.kind {
            PrincipalKind::User { login: Some(of) } => of.to_lowercase() == login,
            PrincipalKind::Contained(_) | PrincipalKind::External => principal.name.to_lowercase() == login,
            PrincipalKind::User { login: None } | PrincipalKind::Role => false,
        });
        match mapped {
            Some(principal) => Some(principal.name.clone()),
            None if self.name == "master" || self.name == "tempdb" => Some("guest".to_owned()),
            None => None,
        }
    }

    /// The user itself, `public`, and the roles it is in, directly or not.
    pub(crate) fn standing(&self, user: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::from([user.to_lowercase(), "public".to_owned()]);
        loop {
            let of = |(_, member): &&(String, String)| all.contains(member);
            let more: Vec<String> = self
                .members
                .iter()
                .filter(of)
                .map(|(role, _)| role.clone())
                .collect();
            let before = all.len();
            all.extend(more);
            if all.len() == before {
                return all;
            }
        }
    }

    pub(crate) fn may(&self, user: &str, permission: &str, class: &str, on: &str) -> bool {
        let standing = self.standing(user);
        if user.eq_ignore_ascii_case("dbo") || standing.contains("db_owner") {
            return true;
        }
        let fixed = match permission {
            "SELECT" => "db_datareader",
            "INSERT" | "UPDATE" | "DELETE" => "db_datawriter",
            "CREATE TABLE" | "CREATE PROCEDURE" => "db_ddladmin",
            _ => "",
        };
        let schema = on.split('.').next().unwrap_or_default();
        let fits = |granted: &Granted| match granted.class.as_str() {
            "database" => true,
            "schema" if class == "object" => granted.on == schema,
            class_there => class_there == class && granted.on == on,
        };
        // Whoever owns an object, or the schema that it is in, may do everything to it.
        let of_schema = self.schemas.get(schema).map(|it| it.owner.as_str());
        let own = self.tables.get(on).and_then(|it| it.owner.as_deref());
        let owners = [own, of_schema];
        let owns = class == "object" && owners.into_iter().flatten().any(|it| standing.contains(it));
        owns || standing.contains(fixed)
            || self.grants.iter().any(|granted| {
                let named = granted.permission == permission || granted.permission == "CONTROL";
                named && standing.contains(&granted.to) && fits(granted)
            })
    }
}

/// The model, and who waits for it to change.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    model: Mutex<Model>,
    changed: Condvar,
}

impl Shared {
    /// A thread that panicked fails its test; the others go on.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changed, at most so long.
    pub(crate) fn wait<'a>(&self, guard: MutexGuard<'a, Model>, most: Duration) -> MutexGuard<'a, Model> {
        let waited = self.changed.wait_timeout(guard, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Wakes who waits. With the lock taken once, nobody misses it.
    pub(crate) fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }
}

/// What a principal was granted goes with it.
pub(crate) fn forget(database: &mut Database, key: &str) {
    database
        .members
        .retain(|(role, member)| role != key && member != key);
    database.grants.retain(|granted| granted.to != key);
}
