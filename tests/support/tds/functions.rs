//! The functions and `@@` variables that are known.

use std::time::SystemTime;

use super::catalogue;
use super::fault::Fault;
use super::model::Model;
use super::out::SERVER_NAME;
use super::session::Session;
use super::syntax::Name;
use super::value::{Value, seconds};

/// What it calls itself; drivers look for the first words.
const VERSION: &str = "Microsoft SQL Server 2022 - 16.0.4000.0 (scripted, for tests)";
/// `EngineEdition` of Azure SQL Database.
const AZURE: i32 = 5;

pub(crate) fn global(session: &Session, model: &Model, name: &str) -> Option<Value> {
    let _ = model;
    Some(match name {
        "@@trancount" => Value::Int(session.count),
        "@@spid" => Value::Int(i32::from(session.who.spid)),
        "@@rowcount" => Value::integer(session.row_count),
        "@@error" => Value::Int(session.error),
        "@@identity" => session.identity.clone(),
        "@@version" => Value::text(VERSION),
        "@@servername" => Value::text(SERVER_NAME),
        "@@language" => Value::text("us_english"),
        "@@lock_timeout" => Value::integer(session.settings.lock_timeout),
        "@@options" => Value::Int(if session.settings.xact_abort { 16_384 } else { 0 }),
        "@@microsoftversion" => Value::Int(0x1000_0fa0),
        "@@max_precision" => Value::Int(38),
        "@@fetch_status" => Value::Int(-1),
        _ => return None,
    })
}

#[expect(clippy::disallowed_methods, reason = "the server's own clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) fn call(session: &Session, model: &Model, name: &str, values: &[Value]) -> Result<Value, Fault> {
    let value = match name {
        "db_id" | "db_name" | "suser_sname" | "suser_name" | "original_login" | "user_name" | "suser_id"
        | "user_id" | "suser_sid" | "schema_name" | "is_srvrolemember" | "is_member" | "is_rolemember"
        | "has_perms_by_name" | "object_id" | "object_name" | "object_schema_name" | "app_name"
        | "host_name" | "col_name" | "applock_test" | "has_dbaccess" => who(session, model, name, values),
        "session_context"
        | "context_info"
        | "current_transaction_id"
        | "xact_state"
        | "error_number"
        | "error_message"
        | "error_severity"
        | "error_state"
        | "error_line"
        | "error_procedure"
        | "scope_identity" => Some(of_session(session, name, values)),
        "serverproperty" if model.azure && is_edition(values) => Some(Value::Int(AZURE)),
        _ => plain(name, values)?,
    };
    let unknown = || {
        let text = format!("'{name}' is not a recognized built-in function name.");
        Fault::new(195, 15, text).aborting()
    };
    value.ok_or_else(unknown)
}

fn is_edition(values: &[Value]) -> bool {
    text_of(values, 0).is_some_and(|text| text.eq_ignore_ascii_case("EngineEdition"))
}

fn text_of(values: &[Value], place: usize) -> Option<String> {
    values
        .get(place)
        .filter(|value| !value.is_null())
        .map(Value::shown)
}

fn of_session(session: &Session, name: &str, values: &[Value]) -> Value {
    let caught = session.caught.last();
    match name {
        "session_context" => {
            let key = text_of(values, 0).unwrap_or_default();
            let found = session.context.get(&key);
            found.map_or(Value::Null, |(value, _)| value.clone())
        }
        "context_info" if session.context_info.is_empty() => Value::Null,
        "context_info" => Value::Bytes(session.context_info.clone()),
        "current_transaction_id" => Value::BigInt(session.transaction_id()),
        "xact_state" if session.count == 0 => Value::Int(0),
        "xact_state" => Value::Int(if session.doomed { -1 } else { 1 }),
        "scope_identity" => session.identity.clone(),
        "error_number" => caught.map_or(Value::Null, |fault| Value::Int(fault.number)),
        "error_message" => caught.map_or(Value::Null, |fault| Value::text(&fault.text)),
        "error_severity" => caught.map_or(Value::Null, |fault| Value::Int(i32::from(fault.class))),
        "error_state" => caught.map_or(Value::Null, |fault| Value::Int(i32::from(fault.state))),
        "error_line" => caught.map_or(Value::Null, |_| Value::Int(1)),
        _ => Value::Null,
    }
}

/// About principals and objects. The inner `None` of the catalogue is NULL here.
fn who(session: &Session, model: &Model, name: &str, values: &[Value]) -> Option<Value> {
    let database = model.database(&session.database)?;
    let first = text_of(values, 0);
    let login = &session.who.login;
    let yes = |yes: bool| Value::Int(i32::from(yes));
    let id = |id: Option<i32>| id.map_or(Value::Null, Value::Int);
    Some(match name {
        "db_name" => Value::text(&database.name),
        "db_id" => catalogue::database_id(model, first.as_deref().unwrap_or(&database.name)),
        "suser_sname" | "suser_name" | "original_login" => Value::text(login),
        "app_name" => Value::text(&session.who.program),
        "host_name" => Value::text(&session.who.host),
        "user_name" => Value::text(&session.user),
        "suser_id" => {
            let name = first.unwrap_or_else(|| login.clone());
            id(model.logins.get(&name.to_lowercase()).map(|login| login.id))
        }
        "suser_sid" => {
            let name = first.unwrap_or_else(|| login.clone());
            let login = model.logins.get(&name.to_lowercase());
            login.map_or(Value::Null, |login| Value::Bytes(catalogue::sid(login.id)))
        }
        "user_id" => {
            let name = first.unwrap_or_else(|| session.user.clone());
            id(database
                .principals
                .get(&name.to_lowercase())
                .map(|principal| principal.id))
        }
        "schema_name" => {
            let user = database.principals.get(&session.user.to_lowercase());
            Value::text(user.map_or("dbo", |user| user.schema.as_str()))
        }
        "is_srvrolemember" => {
            let of = text_of(values, 1).unwrap_or_else(|| login.clone());
            yes(model.is_server_member(&of, &first?.to_lowercase()))
        }
        "is_member" | "is_rolemember" => {
            let of = text_of(values, 1).unwrap_or_else(|| session.user.clone());
            yes(database.standing(&of).contains(&first?.to_lowercase()))
        }
        "has_dbaccess" => yes(model.database(&first?).is_some()),
        "has_perms_by_name" => {
            let permission = text_of(values, 2)?.to_uppercase();
            match (first, text_of(values, 1)) {
                (None, _) => yes(model.has_server_permission(login, &permission)),
                (Some(on), class) => {
                    let class = class.unwrap_or_else(|| "database".to_owned()).to_lowercase();
                    if class == "object" {
                        let key = key_of(&on);
                        if !database.tables.contains_key(&key) {
                            return Some(Value::Null);
                        }
                        return Some(yes(database.may(&session.user, &permission, &class, &key)));
                    }
                    let on = unquoted(&on);
                    let on = if class == "database" { String::new() } else { on };
                    yes(database.may(&session.user, &permission, &class, &on))
                }
            }
        }
        _ => return object(session, model, name, values),
    })
}

fn object(session: &Session, model: &Model, name: &str, values: &[Value]) -> Option<Value> {
    let database = model.database(&session.database)?;
    let first = text_of(values, 0);
    let yes = |yes: bool| Value::Int(i32::from(yes));
    let id = |id: Option<i32>| id.map_or(Value::Null, Value::Int);
    Some(match name {
        "object_id" => {
            let first = first?;
            if let Some((_, name)) = first.split_once('#') {
                let key = format!("{}:#{}", session.who.spid, name.to_lowercase());
                let temporary = model.database(super::session::TEMPORARY);
                return Some(id(temporary.and_then(|there| Some(there.tables.get(&key)?.id))));
            }
            let key = key_of(&first);
            let table = database.tables.get(&key).map(|table| table.id);
            id(table.or_else(|| database.procedures.get(&key).map(|procedure| procedure.id)))
        }
        "object_name" | "object_schema_name" => {
            let wanted = values.first()?.as_int();
            let found = database
                .tables
                .iter()
                .find(|(_, table)| wanted == Some(i64::from(table.id)));
            let part = if name == "object_name" { 1 } else { 0 };
            let part = found.and_then(|(key, _)| key.split('.').nth(part));
            part.map_or(Value::Null, Value::text)
        }
        "col_name" => Value::Null,
        "applock_test" => {
            let lock = (
                session.database.to_lowercase(),
                text_of(values, 1)?.to_lowercase(),
            );
            let holder = model.locks.get(&lock);
            yes(holder.is_none_or(|holder| *holder == session.who.spid))
        }
        _ => return None,
    })
}

fn unquoted(name: &str) -> String {
    name.trim_start_matches('[')
        .trim_end_matches(']')
        .replace("]]", "]")
        .to_lowercase()
}

/// `dbo.x`, `x`, `[dbo].[x]`.
pub(crate) fn key_of(name: &str) -> String {
    let mut parts = name.rsplit('.').map(unquoted);
    let object = parts.next().unwrap_or_default();
    let name = Name {
        database: None,
        schema: parts.next(),
        object,
        shown: String::new(),
    };
    name.key()
}

/// What depends on nothing but its arguments.
fn plain(name: &str, values: &[Value]) -> Result<Option<Value>, Fault> {
    let first = values.first().cloned().unwrap_or(Value::Null);
    let text = text_of(values, 0);
    Ok(Some(match name {
        "coalesce" | "isnull" => values
            .iter()
            .find(|value| !value.is_null())
            .cloned()
            .unwrap_or(Value::Null),
        "nullif" => {
            let other = values.get(1).cloned().unwrap_or(Value::Null);
            let same = first.compare(&other)?.is_some_and(std::cmp::Ordering::is_eq);
            if same { Value::Null } else { first }
        }
        "abs" => Value::integer(first.as_int().unwrap_or_default().abs()),
        "type_name" => {
            let name = first.as_int().and_then(catalogue::type_name);
            name.map_or(Value::Null, Value::text)
        }
        "scripted_shown" => {
            if first.is_null() {
                Value::Null
            } else {
                Value::Text(first.shown())
            }
        }
        "serverproperty" => match text.unwrap_or_default().to_lowercase().as_str() {
            "engineedition" => Value::Int(3),
            "productversion" => Value::text("16.0.4000.0"),
            "productmajorversion" => Value::text("16"),
            "edition" => Value::text("Developer Edition (64-bit)"),
            "servername" => Value::text(SERVER_NAME),
            _ => Value::Null,
        },
        "databasepropertyex"
            if text_of(values, 1).is_some_and(|it| it.eq_ignore_ascii_case("updateability")) =>
        {
            Value::text("READ_WRITE")
        }
        "databasepropertyex" | "connectionproperty" => Value::Null,
        "getdate" | "sysutcdatetime" | "sysdatetime" | "getutcdate" => Value::at(now()),
        "datediff" => match (values.get(1), values.get(2)) {
            (Some(from), Some(to)) => difference(from, to)?,
            _ => Value::Null,
        },
        "dateadd" => match (values.get(1).and_then(Value::as_int), values.get(2)) {
            (Some(count), Some(at)) => later(&text.unwrap_or_default(), count, at)?,
            _ => Value::Null,
        },
        "crypt_gen_random" | "newid" => random(name, first.as_int().unwrap_or(16)),
        _ => return Ok(of_text(name, values)),
    }))
}

/// What is about texts.
fn of_text(name: &str, values: &[Value]) -> Option<Value> {
    let first = values.first().cloned().unwrap_or(Value::Null);
    let text = text_of(values, 0);
    let of_text = |change: &dyn Fn(&str) -> Value| text.as_deref().map_or(Value::Null, change);
    Some(match name {
        "quotename" => of_text(&|text| Value::Text(format!("[{}]", text.replace(']', "]]")))),
        "upper" => of_text(&|text| Value::Text(text.to_uppercase())),
        "lower" => of_text(&|text| Value::Text(text.to_lowercase())),
        "ltrim" => of_text(&|text| Value::text(text.trim_start())),
        "rtrim" => of_text(&|text| Value::text(text.trim_end())),
        "len" => of_text(&|text| count(text.trim_end().encode_utf16().count())),
        "datalength" => match &first {
            Value::Null => Value::Null,
            Value::Text(text) => Value::integer(2 * i64::try_from(text.encode_utf16().count()).unwrap_or(0)),
            Value::Bytes(bytes) => count(bytes.len()),
            Value::Int(_) => Value::Int(4),
            Value::Bit(_) => Value::Int(1),
            Value::Guid(_) => Value::Int(16),
            _ => Value::Int(8),
        },
        "left" | "substring" | "right" => {
            let chars: Vec<char> = text.unwrap_or_default().chars().collect();
            let number = |place| values.get(place).and_then(Value::as_int).unwrap_or_default();
            let number = |place| usize::try_from(number(place)).unwrap_or_default();
            let (skip, take) = match name {
                "left" => (0, number(1)),
                "right" => (chars.len().saturating_sub(number(1)), chars.len()),
                _ => (number(1).saturating_sub(1), number(2)),
            };
            Value::Text(chars.into_iter().skip(skip).take(take).collect())
        }
        "replicate" => {
            let times = values.get(1).and_then(Value::as_int).unwrap_or_default();
            of_text(&|text| Value::Text(text.repeat(usize::try_from(times).unwrap_or_default())))
        }
        "replace" => {
            let (from, to) = (text_of(values, 1), text_of(values, 2));
            let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
            of_text(&|text| Value::Text(text.replace(&from, &to)))
        }
        "concat" => Value::Text(values.iter().map(Value::shown).collect()),
        _ => return None,
    })
}

fn count(number: usize) -> Value {
    Value::integer(i64::try_from(number).unwrap_or_default())
}

/// In seconds, whatever the part: nothing here asks for another one.
fn difference(from: &Value, to: &Value) -> Result<Value, Fault> {
    let kind = gatepost::wire::tds::reply::ColumnKind::DateTime2 { scale: 7 };
    let of = |value: &Value| match value.cast(kind)? {
        Value::DateTime { days, ticks } => Ok::<_, Fault>(Some(seconds(days, ticks))),
        _ => Ok(None),
    };
    Ok(match (of(from)?, of(to)?) {
        (Some(from), Some(to)) => Value::integer(to - from),
        _ => Value::Null,
    })
}

/// `DATEADD` of whole hours or seconds.
fn later(part: &str, count: i64, at: &Value) -> Result<Value, Fault> {
    let kind = gatepost::wire::tds::reply::ColumnKind::DateTime2 { scale: 7 };
    let Value::DateTime { days, ticks } = at.cast(kind)? else {
        return Ok(Value::Null);
    };
    let seconds = match part {
        "hour" => 3_600,
        "second" => 1,
        other => return Err(Fault::syntax(other)),
    };
    let (day, second) = (864_000_000_000, 10_000_000);
    let all = i64::from(days) * day + i64::try_from(ticks).unwrap_or_default() + count * seconds * second;
    Ok(Value::DateTime {
        days: u32::try_from(all.div_euclid(day)).unwrap_or_default(),
        ticks: u64::try_from(all.rem_euclid(day)).unwrap_or_default(),
    })
}

fn random(name: &str, bytes: i64) -> Value {
    use gatepost::domain::Random as _;
    let mut all = vec![0; usize::try_from(bytes).unwrap_or_default().min(8000)];
    gatepost::tls::SystemRandom.fill(&mut all);
    match all.first_chunk() {
        Some(first) if name == "newid" => Value::Guid(*first),
        _ => Value::Bytes(all),
    }
}
