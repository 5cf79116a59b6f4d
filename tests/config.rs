//! The configuration's outside: its JSON Schema, its reference document and its examples agree
//! with what the program reads.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops"
)]

use std::collections::BTreeSet;
use std::fs;

use gatepost::app::config::file;
use serde_json::{Value, json};

/// A file that uses every key, as JSON (which is YAML).
fn example() -> Value {
    json!({
        "installation": "payments-prod",
        "replica": "a",
        "listen": {
            "postgres": {"address": "127.0.0.1:6432", "allow_plaintext": true},
            "sqlserver": {"address": "127.0.0.1:1433", "token_provider": "entra"},
            "metrics": {"address": "127.0.0.1:9090"},
            "api": {"address": "127.0.0.1:8443"},
            "admin_socket": {"path": "admin.sock"}
        },
        "tls": {"certificate": "server.crt", "private_key": {"file": "server.key"}},
        "identity_providers": {
            "entra": {
                "issuer": "https://login.microsoftonline.com/organizations/v2.0", "audiences": ["a"], "kind": "entra",
                "tenants": ["1a1a1a1a-2222-4333-8444-555555555555"], "ca": "ca.crt",
                "sts_url": "https://login.microsoftonline.com/common", "spn": "api://gatepost"
            }
        },
        "targets": {
            "orders": {
                "engine": "postgres",
                "address": "db:5432",
                "tls": {"mode": "verify-full", "ca": "ca.crt", "client_certificate": "c.crt", "client_key": {"file": "c.key"}},
                "databases": ["orders", {"name": "stock", "alias": "stock-eu"}],
                "broker": {"user": "b", "password": {"env": "BROKER"}},
                "credential": "password",
                "wal_marker": false,
                "pool": {"max_connections": 40, "mode": "session", "queue_timeout": "30s", "idle_timeout": "5m"}
            },
            "azure": {
                "engine": "postgres",
                "address": "orders.postgres.database.azure.com:5432",
                "databases": ["accounts"],
                "broker": {
                    "user": "gatepost-prod",
                    "managed_identity": {
                        "source": "auto", "client_id": "c", "resource": "https://ossrdbms-aad.database.windows.net"
                    }
                },
                "credential": "managed_identity"
            },
            "ledger": {
                "engine": "sqlserver",
                "address": "db.example.com:1433",
                "databases": ["ledger"],
                "broker": {"user": "gatepost", "password": {"file": "ledger.password"}},
                "marker_table": "gatepost.markers",
                "contained": true
            }
        },
        "policies": ["policies/"],
        "audit": {
            "directory": "audit",
            "durability": "strict",
            "autocommit": "ask_first",
            "signing_key": {"file": "sign.key"},
            "previous_signing_key": {"env": "OLD_KEY"},
            "heads": {"file": "/mnt/other/heads", "log": true},
            "retention": {"compress_after": "7d", "keep": "400d"},
            "sinks": {
                "siem": {"syslog": {"address": "siem:6514", "ca": "ca.crt", "form": "cef", "allow_plaintext": false}},
                "collector": {"otlp": {"url": "https://c/v1/logs", "ca": "ca.crt", "token": {"env": "T"}}}
            }
        },
        "threads": 2,
        "log": {"format": "json", "level": "info"},
        "session": {"expiry_grace": "30s"},
        "tickets": {"networks": ["10.0.0.0/8"], "any_address": false}
    })
}

#[test]
fn the_schema_accepts_the_example() {
    let schema = file::schema();
    assert_eq!(wrong(&schema, &schema, &example()), None);
}

#[test]
fn the_schema_refuses_an_unknown_key_everywhere() {
    let schema = file::schema();
    let mut objects = Vec::new();
    pointers(&example(), String::new(), &mut objects);
    // Under these two, keys are names.
    let named = ["/identity_providers", "/targets"];
    for pointer in objects
        .iter()
        .filter(|pointer| !named.contains(&pointer.as_str()))
    {
        let mut document = example();
        let object = document.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
        object.insert("surprise".to_owned(), json!(1));
        assert!(
            wrong(&schema, &schema, &document).is_some(),
            "accepted at {pointer}"
        );
    }
}

#[test]
fn the_schema_refuses_a_missing_key_and_an_inline_secret() {
    let schema = file::schema();
    let mut lacking = example();
    lacking.as_object_mut().unwrap().remove("audit");
    assert!(wrong(&schema, &schema, &lacking).is_some());
    let mut inline = example();
    *inline.pointer_mut("/targets/orders/broker/password").unwrap() = json!("hunter2");
    assert!(wrong(&schema, &schema, &inline).is_some());
}

#[test]
fn every_key_stands_in_the_reference_document() {
    let document = fs::read_to_string("docs/configuration.md").unwrap();
    let mut keys = BTreeSet::new();
    schema_keys(&file::schema(), &mut keys);
    assert!(keys.len() > 40, "{keys:?}");
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !document.contains(&format!("`{key}`")))
        .collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?}");
}

#[test]
fn the_example_uses_every_key() {
    let (mut keys, mut used) = (BTreeSet::new(), BTreeSet::new());
    schema_keys(&file::schema(), &mut keys);
    object_keys(&example(), &mut used);
    assert!(keys.is_subset(&used), "{:?}", keys.difference(&used));
}

fn schema_keys(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(properties) = object.get("properties").and_then(Value::as_object) {
                keys.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| schema_keys(value, keys));
        }
        Value::Array(items) => items.iter().for_each(|item| schema_keys(item, keys)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn object_keys(value: &Value, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            keys.extend(object.keys().cloned());
            object.values().for_each(|value| object_keys(value, keys));
        }
        Value::Array(items) => items.iter().for_each(|item| object_keys(item, keys)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The JSON pointers of all objects.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                pointers(value, format!("{at}/{key}"), found);
            }
            found.push(at);
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, format!("{at}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Checks `value` against the part of JSON Schema that our schemas use, and says what is wrong.
fn wrong(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(target) = schema["$ref"].as_str() {
        let target = root
            .pointer(target.trim_start_matches('#'))
            .expect("the reference leads somewhere");
        return wrong(root, target, value);
    }
    for word in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[word].as_array()
            && !choices.iter().any(|choice| wrong(root, choice, value).is_none())
        {
            return Some(format!("{value} is none of {word}"));
        }
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Some(format!("{value} is not in {words:?}"));
    }
    if schema.get("const").is_some_and(|word| word != value) {
        return Some(format!("{value} is not {}", schema["const"]));
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        Value::Null => vec![],
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            vec![schema["type"].clone()]
        }
    };
    if !types.is_empty() && !types.iter().any(|it| is_type(it.as_str().unwrap(), value)) {
        return Some(format!("{value} is not {types:?}"));
    }
    match value {
        Value::Object(object) => wrong_object(root, schema, object),
        Value::Array(items) => items.iter().find_map(|item| wrong(root, &schema["items"], item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn wrong_object(root: &Value, schema: &Value, object: &serde_json::Map<String, Value>) -> Option<String> {
    let required = schema["required"].as_array().into_iter().flatten();
    for key in required.filter_map(Value::as_str) {
        if !object.contains_key(key) {
            return Some(format!("lacks {key}"));
        }
    }
    object.iter().find_map(|(key, value)| {
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => Some(format!("unknown {key}")),
            (Value::Null, others) => wrong(root, others, value),
            (known, _) => wrong(root, known, value),
        }
    })
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("the schema uses {other}"),
    }
}
