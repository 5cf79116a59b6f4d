//! Records as events of the Open Cybersecurity Schema Framework.
//!
//! What a class has no place for is in `unmapped`, so nothing of a record is lost but the chain, of which
//! `metadata.uid` keeps the record's own hash.

use serde_json::{Map, Value, json};

use crate::audit::entry::{Entry, Identity, split_port};
use crate::audit::export::{PRODUCT, milliseconds, status};
use crate::audit::wording::{Weight, summary, weight};

/// The version of the schema that the events follow.
pub const VERSION: &str = "1.7.0";

/// An event class, and the activity in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    class: u64,
    class_name: &'static str,
    category: u64,
    category_name: &'static str,
    activity: u64,
}

/// `activity_id` for what a class has no word for; `activity_name` says it.
const OTHER: u64 = 99;

const fn authentication(activity: u64) -> Kind {
    kind(3, 2, "Authentication", activity)
}

const fn account_change(activity: u64) -> Kind {
    kind(3, 1, "Account Change", activity)
}

const fn entity_management(activity: u64) -> Kind {
    kind(3, 4, "Entity Management", activity)
}

const fn lifecycle(activity: u64) -> Kind {
    kind(6, 2, "Application Lifecycle", activity)
}

const fn kind(category: u64, class: u64, class_name: &'static str, activity: u64) -> Kind {
    Kind {
        class: category * 1000 + class,
        class_name,
        category,
        category_name: match category {
            3 => "Identity & Access Management",
            6 => "Application Activity",
            _ => "Uncategorized",
        },
        activity,
    }
}

fn kind_of(entry: &Entry) -> Kind {
    match entry.event.as_str() {
        "server.started" => lifecycle(3),
        "server.stopped" => lifecycle(4),
        "session.opened" | "session.denied" | "session.denied_many" => authentication(1),
        "session.closed" => authentication(2),
        "ticket.issued" | "ticket.denied" => authentication(OTHER),
        "login.minted" => account_change(1),
        "login.disabled" => account_change(5),
        "login.dropped" => account_change(6),
        event if event.starts_with("login.") => account_change(OTHER),
        // Activate, Update.
        "policy.loaded" => entity_management(10),
        "policy.rejected" | "secret.rotated" => entity_management(3),
        event if event.starts_with("transaction.") => {
            kind(6, 5, "Datastore Activity", datastore_activity(entry))
        }
        event if event.starts_with("admin.") => kind(6, 3, "API Activity", api_activity(event)),
        _ => kind(0, 0, "Base Event", OTHER),
    }
}

/// What the statements of a transaction do to the data, if all do the same.
fn datastore_activity(entry: &Entry) -> u64 {
    const QUERY: u64 = 4;
    const WRITE: u64 = 5;
    let mut seen = entry.statements().filter_map(|one| match one.kind {
        "begin" | "commit" | "rollback" | "savepoint" | "release" | "rollback_to" | "set" | "show"
        | "empty" => None,
        "select" | "copy_out" => Some(QUERY),
        "insert" | "copy_in" => Some(WRITE),
        "update" => Some(2),
        "delete" | "truncate" => Some(7),
        "create" => Some(6),
        _ => Some(OTHER),
    });
    let first = seen.next();
    match (first, entry.text("scope")) {
        (_, Some("read_only")) => QUERY,
        (None, _) => OTHER,
        (Some(first), _) if seen.all(|one| one == first) => first,
        (Some(_), _) => WRITE,
    }
}

fn api_activity(event: &str) -> u64 {
    match event {
        "admin.revoke" => 1,
        "admin.sessions.kill" | "admin.revocations.lift" => 4,
        _ if event.ends_with(".list") || event.ends_with(".show") => 2,
        _ => 3,
    }
}

/// A record as an event.
pub fn event(entry: &Entry) -> Value {
    let kind = kind_of(entry);
    let (severity_id, severity) = match weight(entry) {
        Weight::Routine => (1, "Informational"),
        Weight::Notable => (2, "Low"),
        Weight::Alarming => (4, "High"),
    };
    let mut event = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            event.insert(name.to_owned(), value);
        }
    };
    set("class_uid", kind.class.into());
    set("class_name", kind.class_name.into());
    set("category_uid", kind.category.into());
    set("category_name", kind.category_name.into());
    set("activity_id", kind.activity.into());
    if kind.activity == OTHER {
        set("activity_name", entry.event.as_str().into());
    }
    set("type_uid", (kind.class * 100 + kind.activity).into());
    set("time", milliseconds(entry.time()).into());
    set("severity_id", severity_id.into());
    set("severity", severity.into());
    set_status(entry, &mut set);
    set("message", format!("{}: {}", entry.event, summary(entry)).into());
    set("metadata", metadata(entry));
    set("unmapped", unmapped(entry));
    match kind.class {
        3002 => set_authentication(entry, &mut set),
        3001 => set_account_change(entry, &mut set),
        3004 => set_entity(entry, &mut set),
        6002 => set("app", product(entry)),
        6003 => set_api(entry, &mut set),
        6005 => set_datastore(entry, &mut set),
        _ => {}
    }
    Value::Object(event)
}

fn set_status(entry: &Entry, set: &mut dyn FnMut(&str, Value)) {
    let word = status(entry);
    let (id, shown) = match word {
        "committed" | "done" | "permitted" => (1, "Success"),
        "aborted" | "refused" | "failed" => (2, "Failure"),
        "in_doubt" => (0, "Unknown"),
        other => (OTHER, other),
    };
    set("status_id", id.into());
    set("status", shown.into());
    set("status_code", entry.text("code").unwrap_or(word).into());
    set(
        "status_detail",
        entry.text("reason").or_else(|| entry.text("why")).into(),
    );
}

fn metadata(entry: &Entry) -> Value {
    let mut metadata = json!({
        "version": VERSION,
        "product": product(entry),
        "event_code": entry.event,
        "uid": entry.hash,
        "sequence": entry.seq,
        "log_name": "audit journal",
        "log_provider": entry.installation,
        "original_time": entry.at,
    });
    if let (Some(first), Some(members)) = (entry.correlation.first(), metadata.as_object_mut()) {
        members.insert("correlation_uid".to_owned(), first.id.as_str().into());
    }
    metadata
}

fn product(entry: &Entry) -> Value {
    let version = (entry.event == "server.started")
        .then(|| entry.text("version"))
        .flatten();
    let mut product = json!({"name": PRODUCT, "vendor_name": PRODUCT});
    if let (Some(version), Some(members)) = (version, product.as_object_mut()) {
        members.insert("version".to_owned(), version.into());
    }
    product
}

fn unmapped(entry: &Entry) -> Value {
    let mut rest = Map::new();
    let mut keep = |name: &str, value: Value| {
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            rest.insert(name.to_owned(), value);
        }
    };
    keep("installation", entry.installation.as_str().into());
    keep("replica", entry.replica.as_str().into());
    keep("epoch", entry.epoch.into());
    keep("engine", entry.engine.as_deref().into());
    keep("role", entry.role.as_deref().into());
    keep("login", entry.login.as_deref().into());
    if let Some(policy) = &entry.policy {
        keep("policy", json!({"rule": policy.rule, "version": policy.version}));
        keep("parameters", policy.parameters.as_deref().into());
    }
    if let Some(identity) = &entry.identity {
        keep("client_id", identity.client_id.as_deref().into());
        keep("token_id", identity.token_id.as_deref().into());
        keep("ticket_id", identity.ticket_id.as_deref().into());
    }
    keep(
        "application",
        entry
            .client
            .as_ref()
            .and_then(|client| client.application.as_deref())
            .into(),
    );
    let ids = entry
        .correlation
        .iter()
        .map(|one| json!({"id": one.id, "source": one.source}));
    keep("correlation", ids.collect());
    keep("detail", entry.detail.clone());
    Value::Object(rest)
}

fn set_authentication(entry: &Entry, set: &mut dyn FnMut(&str, Value)) {
    set("user", user(entry.identity.as_ref()));
    set("service", json!({"name": PRODUCT}));
    // Access tokens are OAuth's; the issuers are OIDC's.
    set("auth_protocol_id", 6.into());
    set("auth_protocol", "OAUTH 2.0".into());
    set("is_remote", true.into());
    set("session", session(entry));
    set("src_endpoint", source(entry));
    set("dst_endpoint", destination(entry));
    if entry.event == "session.denied_many" {
        set("count", entry.number("count").into());
        set(
            "src_endpoint",
            entry.text("address").map(|ip| json!({"ip": ip})).into(),
        );
    }
}

/// The account is the login; who acts is the identity that it is made for.
fn set_account_change(entry: &Entry, set: &mut dyn FnMut(&str, Value)) {
    let name = entry.login.as_deref().unwrap_or("unknown");
    let mut account = json!({"name": name, "type_id": 4, "type": "Service"});
    if let (Some(role), Some(members)) = (&entry.role, account.as_object_mut()) {
        members.insert(
            "groups".to_owned(),
            json!([{"name": role, "type": "database role"}]),
        );
    }
    set("user", account);
    if entry.identity.is_some() {
        set("actor", actor(entry));
    }
    set("src_endpoint", source(entry));
}

fn set_entity(entry: &Entry, set: &mut dyn FnMut(&str, Value)) {
    let entity = if entry.event.starts_with("policy.") {
        let version = entry.policy.as_ref().map(|policy| policy.version.as_str());
        json!({"name": "policy", "type": "policy", "version": version.unwrap_or("unknown")})
    } else {
        let which = entry.text("which").unwrap_or_default();
        json!({"name": entry.text("what").unwrap_or("secret"), "type": "secret", "uid": which})
    };
    set("entity", entity);
    set("actor", json!({"app_name": PRODUCT}));
}

fn set_api(entry: &Entry, set: &mut dyn FnMut(&str, Value)) {
    let operation = entry.event.strip_prefix("admin.").unwrap_or(&entry.event);
    set(
        "api",
        json!({"operation": operation, "service": {"name": PRODUCT}}),
    );
    let who = match (entry.number("uid"), &entry.identity) {
        // A user of the machine, over the socket.
        (Some(uid), None) => json!({"user": {"uid": uid.to_string(), "type_id": 2, "type": "Admin"}}),
        _ => actor(entry),
    };
    set("actor", who);
    let from = source(entry);
    let door = entry.text("door").unwrap_or("unknown");
    set(
        "src_endpoint",
        if from.is_null() {
            json!({"name": door})
        } else {
            from
        },
    );
    if let Some(what) = entry.text("what") {
        set("resources", json!([{"name": what}]));
    }
}

fn set_datastore(entry: &Entry, set: &mut dyn FnMut(&str, Value)) {
    set("actor", actor(entry));
    let from = source(entry);
    set(
        "src_endpoint",
        if from.is_null() {
            json!({"name": "unknown"})
        } else {
            from
        },
    );
    set("dst_endpoint", destination(entry));
    let name = entry.database.as_deref().unwrap_or("unknown");
    set(
        "database",
        json!({"name": name, "type_id": 1, "type": "Relational"}),
    );
    set("type_id", 1.into());
    set("type", "Database".into());
    let began = entry
        .text("began")
        .and_then(|began| humantime::parse_rfc3339(began).ok());
    if began.is_some() {
        set("start_time", milliseconds(began).into());
    }
    if let Some(micros) = entry.number("duration_us") {
        set("end_time", milliseconds(entry.time()).into());
        set("duration", (micros / 1000).into());
    }
}

fn actor(entry: &Entry) -> Value {
    let mut actor = json!({"user": user(entry.identity.as_ref())});
    let session = session(entry);
    if let (false, Some(members)) = (session.is_null(), actor.as_object_mut()) {
        members.insert("session".to_owned(), session);
    }
    actor
}

fn session(entry: &Entry) -> Value {
    entry
        .session
        .as_ref()
        .map_or(Value::Null, |uid| json!({"uid": uid}))
}

fn user(identity: Option<&Identity>) -> Value {
    let Some(identity) = identity else {
        return json!({"name": "unknown", "type_id": 0});
    };
    // Whether it is a person or a program, a token does not say in a way that all issuers share.
    let mut user = json!({
        "uid": identity.subject,
        "name": identity.shown(),
        "domain": identity.provider,
        "type_id": 0,
    });
    if let (Some(tenant), Some(members)) = (&identity.tenant, user.as_object_mut()) {
        members.insert("org".to_owned(), json!({"uid": tenant}));
    }
    user
}

fn source(entry: &Entry) -> Value {
    let Some(client) = &entry.client else {
        return Value::Null;
    };
    match split_port(&client.address) {
        (ip, Some(port)) => json!({"ip": ip, "port": port}),
        ("", None) => Value::Null,
        (ip, None) => json!({"ip": ip}),
    }
}

fn destination(entry: &Entry) -> Value {
    entry
        .target
        .as_ref()
        .map_or(Value::Null, |target| json!({"svc_name": target}))
}
