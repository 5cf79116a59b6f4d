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

/// A view of the numbers from nought on, in every database.
pub(crate) const NUMBERS: &str = "dbo.numbers";
/// As many as the view of that name has on a real server.
const NUMBERS_MAX: i64 = 1_000_000;
/// It is there without having been made.
const NUMBERS_ID: i32 = i32::MAX;

/// Only so many of the numbers as are below `limit`.
pub(crate) fn numbers(limit: Option<i64>) -> Relation {
    let limit = limit.unwrap_or(NUMBERS_MAX).clamp(0, NUMBERS_MAX);
    let rows = (0..limit).map(|number| vec![Value::integer(number)]);
    of(&[("n", INT)], rows.collect())
}

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
        "columns" | "all_columns" => columns(database),
        "types" => of(
            &[("name", TEXT), ("schema_id", INT), ("principal_id", INT)],
            Vec::new(),
        ),
        "databases" => {
            let rows = model
                .databases
                .values()
                .map(|database| vec![Value::text(&database.name), database_id(model, &database.name)]);
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

/// By its place among all: good for comparing while none is made.
pub(crate) fn database_id(model: &Model, name: &str) -> Value {
    let place = model
        .databases
        .keys()
        .position(|key| key.eq_ignore_ascii_case(name));
    let id = place.and_then(|place| i32::try_from(place + 1).ok());
    id.map_or(Value::Null, Value::Int)
}

fn tables(database: &Database) -> Relation {
    let rows = database.tables.keys().filter_map(|key| {
        let (schema, name) = key.split_once('.')?;
        Some(vec![Value::text(schema), Value::text(name)])
    });
    of(&[("table_schema", TEXT), ("table_name", TEXT)], rows.collect())
}

/// The number of a type, its name, and how long its values may be.
const fn type_of(kind: ColumnKind) -> (i32, &'static str, i32) {
    match kind {
        ColumnKind::Bit => (104, "bit", 1),
        ColumnKind::Int => (56, "int", 4),
        ColumnKind::BigInt => (127, "bigint", 8),
        ColumnKind::Float => (62, "float", 8),
        ColumnKind::Decimal { .. } => (106, "decimal", 17),
        ColumnKind::DateTime2 { .. } => (42, "datetime2", 8),
        ColumnKind::UniqueIdentifier => (36, "uniqueidentifier", 16),
        ColumnKind::NVarChar(units) => (231, "nvarchar", units as i32 * 2),
        ColumnKind::NVarCharMax => (231, "nvarchar", -1),
        ColumnKind::VarBinary(bytes) => (165, "varbinary", bytes as i32),
        ColumnKind::VarBinaryMax => (165, "varbinary", -1),
    }
}

pub(crate) fn type_name(number: i64) -> Option<&'static str> {
    let known = [
        ColumnKind::Bit,
        ColumnKind::Int,
        ColumnKind::BigInt,
        ColumnKind::Float,
        ColumnKind::DateTime2 { scale: 7 },
        ColumnKind::UniqueIdentifier,
        ColumnKind::NVarCharMax,
        ColumnKind::VarBinaryMax,
        ColumnKind::Decimal {
            precision: 18,
            scale: 0,
        },
    ];
    let found = known
        .into_iter()
        .map(type_of)
        .find(|(id, ..)| i64::from(*id) == number);
    found.map(|(_, name, _)| name)
}

fn columns(database: &Database) -> Relation {
    let rows = database.tables.values().flat_map(|table| {
        table.columns.iter().zip(1..).map(|(column, place)| {
            let (id, _, length) = type_of(column.kind);
            let (precision, scale) = match column.kind {
                ColumnKind::Decimal { precision, scale } => (i32::from(precision), i32::from(scale)),
                _ => (0, 0),
            };
            vec![
                Value::Int(table.id),
                Value::text(&column.name),
                Value::Int(place),
                Value::Int(id),
                Value::Int(length),
                Value::Int(precision),
                Value::Int(scale),
                Value::Bit(!column.required),
                Value::Bit(column.identity),
            ]
        })
    });
    let columns = [
        ("object_id", INT),
        ("name", TEXT),
        ("column_id", INT),
        ("system_type_id", INT),
        ("max_length", INT),
        ("precision", INT),
        ("scale", INT),
        ("is_nullable", ColumnKind::Bit),
        ("is_identity", ColumnKind::Bit),
    ];
    of(&columns, rows.collect())
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
        let kind = match principal.kind {
            PrincipalKind::User { .. } | PrincipalKind::Contained(_) => "S",
            PrincipalKind::External => "E",
            PrincipalKind::Role => "R",
        };
        let login = match &principal.kind {
            PrincipalKind::User { login: Some(login) } => model.logins.get(&login.to_lowercase()),
            _ => None,
        };
        vec![
            Value::text(&principal.name),
            Value::Int(principal.id),
            Value::text(kind),
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
                let numbers = || (granted.on == NUMBERS).then_some(NUMBERS_ID);
                let object = table.or_else(procedure).or_else(numbers)?;
                ((1, "OBJECT_OR_COLUMN"), object)
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
    let views = (which == "objects")
        .then(|| row(NUMBERS, NUMBERS_ID, None, "V "))
        .flatten();
    of(&columns, tables.chain(procedures).chain(views).collect())
}

/// Who has no right to see the server's state sees its own sessions.
fn sessions(session: &Session, model: &Model) -> Relation {
    let login = &session.who.login;
    let sees = |there: &str| {
        ["VIEW SERVER STATE", "VIEW SERVER PERFORMANCE STATE"]
            .iter()
            .any(|right| model.may_of_sessions((login, &session.user), there, (right, "VIEW DATABASE STATE")))
    };
    let visible = model.sessions.iter().filter(|(_, seen)| {
        let is_here = !model.azure || seen.database.eq_ignore_ascii_case(&session.database);
        let own = seen.login.eq_ignore_ascii_case(login);
        !seen.killed && is_here && (own || sees(&seen.database))
    });
    let rows = visible.map(|(spid, seen)| {
        vec![
            Value::Int(i32::from(*spid)),
            Value::text(&seen.login),
            Value::text(&seen.login),
            Value::text(&seen.program),
            Value::text(&seen.host),
            Value::Int(seen.open_transactions),
            Value::Bit(true),
            database_id(model, &seen.database),
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
        ("database_id", INT),
    ];
    of(&columns, rows.collect())
}
