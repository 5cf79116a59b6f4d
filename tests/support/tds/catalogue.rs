//! The views of the catalogue that somebody asks for.

use gatepost::wire::tds::reply::ColumnKind;

use super::model::{Database, Model, Principal, PrincipalKind};
use super::query::Relation;
use super::session::Session;
use super::syntax::Name;
use super::value::Value;

const SERVER_ROLES: [(&str, i32); 5] = [
    ("public", 2),
    ("sysadmin", 3),
    ("securityadmin", 4),
    ("processadmin", 5),
    ("dbcreator", 6),
];

const TEXT: ColumnKind = ColumnKind::NVarChar(128);
const INT: ColumnKind = ColumnKind::Int;

/// What a login is known by in databases.
pub(crate) fn sid(id: i32) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

pub(crate) fn view(session: &Session, model: &Model, name: &Name) -> Option<Relation> {
    let schema = name.schema.as_deref()?;
    let database = match name.database.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => model.database(name)?,
        None => model.database(&session.database)?,
    };
    if schema == "information_schema" {
        return (name.object == "tables").then(|| tables(database));
    }
    if schema != "sys" {
        return None;
    }
    Some(match name.object.as_str() {
        "server_principals" | "sql_logins" => server_principals(session, model),
        "server_role_members" => server_role_members(model),
        "server_permissions" => server_permissions(model),
        "database_principals" => database_principals(model, database),
        "database_role_members" => {
            let id = |name: &String| {
                database
                    .principals
                    .get(name)
                    .map(|principal| Value::Int(principal.id))
            };
            let members = database.members.iter();
            let rows = members.filter_map(|(role, member)| Some(vec![id(role)?, id(member)?]));
            of(
                &[("role_principal_id", INT), ("member_principal_id", INT)],
                rows.collect(),
            )
        }
        "database_permissions" => database_permissions(database),
        "schemas" => {
            let rows = database.schemas.values().map(|schema| {
                let owner = owner_id(database, Some(&schema.owner));
                vec![Value::text(&schema.name), Value::Int(schema.id), owner]
            });
            of(
                &[("name", TEXT), ("schema_id", INT), ("principal_id", INT)],
                rows.collect(),
            )
        }
        "objects" | "tables" | "procedures" => objects(database, &name.object),
        "types" => of(
            &[("name", TEXT), ("schema_id", INT), ("principal_id", INT)],
            Vec::new(),
        ),
        "databases" => {
            let rows = model.databases.values().enumerate().map(|(index, database)| {
                let id = i32::try_from(index + 1).unwrap_or_default();
                vec![Value::text(&database.name), Value::Int(id)]
            });
            of(&[("name", TEXT), ("database_id", INT)], rows.collect())
        }
        "dm_exec_sessions" => sessions(session, model),
        _ => return None,
    })
}

fn of(columns: &[(&str, ColumnKind)], rows: Vec<Vec<Value>>) -> Relation {
    let columns = columns
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), Some(*kind)));
    Relation {
        columns: columns.collect(),
        rows,
        ids: Vec::new(),
    }
}

fn tables(database: &Database) -> Relation {
    let rows = database.tables.keys().filter_map(|key| {
        let (schema, name) = key.split_once('.')?;
        Some(vec![Value::text(schema), Value::text(name)])
    });
    of(&[("table_schema", TEXT), ("table_name", TEXT)], rows.collect())
}

fn server_principals(session: &Session, model: &Model) -> Relation {
    let sees_all = model.has_server_permission(&session.who.login, "ALTER ANY LOGIN");
    let own = session.who.login.to_lowercase();
    let visible = model.logins.iter().filter(|(key, _)| sees_all || **key == own);
    let mut rows: Vec<Vec<Value>> = visible
        .map(|(_, login)| {
            vec![
                Value::text(&login.name),
                Value::Int(login.id),
                Value::text("S"),
                Value::Bit(login.disabled),
                Value::text(&login.database),
                Value::Bytes(sid(login.id)),
            ]
        })
        .collect();
    rows.extend(SERVER_ROLES.iter().map(|(name, id)| {
        let (no, nothing) = (Value::Bit(false), Value::Null);
        vec![
            Value::text(name),
            Value::Int(*id),
            Value::text("R"),
            no,
            nothing,
            Value::Bytes(sid(*id)),
        ]
    }));
    let columns = [
        ("name", TEXT),
        ("principal_id", INT),
        ("type", ColumnKind::NVarChar(1)),
        ("is_disabled", ColumnKind::Bit),
        ("default_database_name", TEXT),
        ("sid", ColumnKind::VarBinary(85)),
    ];
    of(&columns, rows)
}

fn server_role_members(model: &Model) -> Relation {
    let rows = model.server_members.iter().filter_map(|(role, member)| {
        let (_, role) = SERVER_ROLES.iter().find(|(name, _)| name == role)?;
        Some(vec![Value::Int(*role), Value::Int(model.logins.get(member)?.id)])
    });
    of(
        &[("role_principal_id", INT), ("member_principal_id", INT)],
        rows.collect(),
    )
}

const PERMISSION_COLUMNS: [(&str, ColumnKind); 8] = [
    ("class", INT),
    ("class_desc", TEXT),
    ("major_id", INT),
    ("minor_id", INT),
    ("grantee_principal_id", INT),
    ("type", ColumnKind::NVarChar(4)),
    ("permission_name", TEXT),
    ("state", ColumnKind::NVarChar(1)),
];

fn permission(
    (class, described): (i32, &str),
    major: i32,
    grantee: i32,
    (kind, name): (&str, &str),
) -> Vec<Value> {
    vec![
        Value::Int(class),
        Value::text(described),
        Value::Int(major),
        Value::Int(0),
        Value::Int(grantee),
        Value::text(kind),
        Value::text(name),
        Value::text("G"),
    ]
}

/// Everybody may connect.
fn server_permissions(model: &Model) -> Relation {
    let server = (100, "SERVER");
    let connects = model.logins.values();
    let connects = connects.map(|login| permission(server, 0, login.id, ("COSQ", "CONNECT SQL")));
    let granted = model.server_grants.iter().filter_map(|(login, name)| {
        let login = model.logins.get(login)?;
        Some(permission(server, 0, login.id, ("AL", name)))
    });
    of(&PERMISSION_COLUMNS, connects.chain(granted).collect())
}

fn database_principals(model: &Model, database: &Database) -> Relation {
    let row = |principal: &Principal| {
        let is_role = principal.kind == PrincipalKind::Role;
        let login = match &principal.kind {
            PrincipalKind::User { login: Some(login) } => model.logins.get(&login.to_lowercase()),
            _ => None,
        };
        vec![
            Value::text(&principal.name),
            Value::Int(principal.id),
            Value::text(if is_role { "R" } else { "S" }),
            if is_role {
                Value::Null
            } else {
                Value::text(&principal.schema)
            },
            login.map_or(Value::Null, |login| Value::Bytes(sid(login.id))),
            owner_id(database, principal.owner.as_ref()),
        ]
    };
    let columns = [
        ("name", TEXT),
        ("principal_id", INT),
        ("type", ColumnKind::NVarChar(1)),
        ("default_schema_name", TEXT),
        ("sid", ColumnKind::VarBinary(85)),
        ("owning_principal_id", INT),
    ];
    of(&columns, database.principals.values().map(row).collect())
}

fn owner_id(database: &Database, owner: Option<&String>) -> Value {
    let owner = owner.and_then(|owner| database.principals.get(&owner.to_lowercase()));
    owner.map_or(Value::Null, |owner| Value::Int(owner.id))
}

fn database_permissions(database: &Database) -> Relation {
    let users = database
        .principals
        .values()
        .filter(|user| user.kind != PrincipalKind::Role);
    let connects = users.map(|user| permission((0, "DATABASE"), 0, user.id, ("CO", "CONNECT")));
    let granted = database.grants.iter().filter_map(|granted| {
        let grantee = database.principals.get(&granted.to)?.id;
        let (class, major) = match granted.class.as_str() {
            "object" => {
                let table = database.tables.get(&granted.on).map(|table| table.id);
                let procedure = || database.procedures.get(&granted.on).map(|procedure| procedure.id);
                ((1, "OBJECT_OR_COLUMN"), table.or_else(procedure)?)
            }
            "schema" => ((3, "SCHEMA"), database.schemas.get(&granted.on)?.id),
            "role" | "user" => (
                (4, "DATABASE_PRINCIPAL"),
                database.principals.get(&granted.on)?.id,
            ),
            _ => ((0, "DATABASE"), 0),
        };
        Some(permission(class, major, grantee, ("GR", &granted.permission)))
    });
    of(&PERMISSION_COLUMNS, connects.chain(granted).collect())
}

fn objects(database: &Database, which: &str) -> Relation {
    let columns = [
        ("name", TEXT),
        ("object_id", INT),
        ("schema_id", INT),
        ("principal_id", INT),
        ("type", ColumnKind::NVarChar(2)),
    ];
    let row = |key: &str, id: i32, owner: Option<&String>, kind: &str| {
        let (schema, name) = key.split_once('.')?;
        let schema = database.schemas.get(schema)?.id;
        Some(vec![
            Value::text(name),
            Value::Int(id),
            Value::Int(schema),
            owner_id(database, owner),
            Value::text(kind),
        ])
    };
    let tables = database.tables.iter().filter(|_| which != "procedures");
    let tables = tables.filter_map(|(key, table)| row(key, table.id, table.owner.as_ref(), "U "));
    let procedures = database.procedures.iter().filter(|_| which != "tables");
    let procedures = procedures.filter_map(|(key, procedure)| row(key, procedure.id, None, "P "));
    of(&columns, tables.chain(procedures).collect())
}

/// Who has no right to see the server's state sees its own sessions.
fn sessions(session: &Session, model: &Model) -> Relation {
    let login = &session.who.login;
    let sees_all = ["VIEW SERVER STATE", "VIEW SERVER PERFORMANCE STATE"]
        .iter()
        .any(|permission| model.has_server_permission(login, permission));
    let visible = model.sessions.iter();
    let visible =
        visible.filter(|(_, seen)| !seen.killed && (sees_all || seen.login.eq_ignore_ascii_case(login)));
    let rows = visible.map(|(spid, seen)| {
        vec![
            Value::Int(i32::from(*spid)),
            Value::text(&seen.login),
            Value::text(&seen.login),
            Value::text(&seen.program),
            Value::text(&seen.host),
            Value::Int(seen.open_transactions),
            Value::Bit(true),
            Value::text(&seen.database),
        ]
    });
    let columns = [
        ("session_id", INT),
        ("login_name", TEXT),
        ("original_login_name", TEXT),
        ("program_name", TEXT),
        ("host_name", TEXT),
        ("open_transaction_count", INT),
        ("is_user_process", ColumnKind::Bit),
        ("database_name", TEXT),
    ];
    of(&columns, rows.collect())
}
