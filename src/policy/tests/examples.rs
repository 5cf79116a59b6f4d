//! The published example loads and its cases hold; and the schema accepts exactly what the reader
//! accepts, tried on the example and on thousands of damaged copies of it.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::*;
use crate::domain::ids::ProviderName;
use crate::policy::document::Document;
use crate::policy::reading::{Notes, Read};
use crate::policy::tree::{Node, Page, Spot, Written, parse};

const ORDERS: &str = include_str!("../../../policies/orders.yaml");

/// Every key that the reader takes.
const EVERYTHING: &str = r#"{"version": 1,
"roles": {"a": {"target": "t", "database": "d", "break_glass": true, "grants": [
  {"privileges": ["select", "update"], "on": {"tables": ["s.t"]}},
  {"privileges": ["usage"], "on": {"sequences": ["s.q"]}},
  {"privileges": ["execute"], "on": {"routines": ["s.f(int, text[])"]}},
  {"privileges": ["usage"], "on": {"schemas": ["s"]}}]}},
"rules": [
  {"name": "r", "identity": {"provider": "p", "client_id": "c", "subject": ["s", "u*"], "tenant": "t", "roles": ["r"],
    "groups": "g", "scopes": "*", "when": "claims.a == 1"},
   "grant": {"role": "a", "login_ttl": "30m", "session_max": "8h", "login_max_age": "7d"},
   "limits": {"sessions": 3}, "correlation": "optional", "audit": {"parameters": "hashed"}},
  {"name": "n", "identity": {"provider": "p"}, "deny": "gone"}],
"admin": [{"name": "o", "identity": {"provider": "p", "groups": "g"}, "allow": ["read", "sessions.kill", "all"]}],
"cases": [
  {"claims": "c.json", "provider": "p", "target": "t", "database": "d", "role": "a", "expect": {"role": "a", "rule": "r"}},
  {"claims": "c.json", "provider": "p", "target": "t", "expect": "deny"}]}"#;

fn dev() -> Surroundings {
    Surroundings {
        providers: BTreeSet::from(["dev".into()]),
        targets: BTreeMap::from([(
            TargetName::new("orders"),
            TargetFacts {
                engine: Engine::Postgres,
                databases: BTreeSet::from([DatabaseName::new("orders")]),
            },
        )]),
    }
}

fn fixture(path: &Path) -> std::io::Result<String> {
    let text = match path.to_str() {
        Some("policies/fixtures/analyst.json") => include_str!("../../../policies/fixtures/analyst.json"),
        Some("policies/fixtures/former-analyst.json") => {
            include_str!("../../../policies/fixtures/former-analyst.json")
        }
        Some("policies/fixtures/order-consumer.json") => {
            include_str!("../../../policies/fixtures/order-consumer.json")
        }
        Some("policies/fixtures/stranger.json") => include_str!("../../../policies/fixtures/stranger.json"),
        Some(_) | None => return Err(std::io::ErrorKind::NotFound.into()),
    };
    Ok(text.to_owned())
}

/// Stands in for the identity room, which tests its own reading of claims.
fn read_claims(provider: &ProviderName, claims: &Map<String, Value>) -> Result<Identity, String> {
    let text = |key: &str| claims.get(key)?.as_str().map(str::to_owned);
    let roles = claims.get("roles").and_then(Value::as_array).ok_or("no roles")?;
    Ok(Identity {
        provider: provider.clone(),
        subject: text("sub").ok_or("no sub")?,
        client_id: text("client_id"),
        tenant: None,
        name: None,
        roles: Claimed::Known(
            roles
                .iter()
                .filter_map(|role| role.as_str().map(str::to_owned))
                .collect(),
        ),
        groups: Claimed::none(),
        scopes: Claimed::none(),
        token_id: None,
        expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        claims: claims.clone(),
    })
}

#[test]
fn the_example_loads_without_a_warning_and_its_cases_hold() {
    let loaded = match load(&[source("policies/orders.yaml", ORDERS)], &dev()) {
        Ok(loaded) => loaded,
        Err(mistakes) => panic!("{}", shown(&mistakes)),
    };
    assert_eq!(loaded.warnings, []);
    assert!(loaded.policy.cases().len() >= 6);
    let failed = run_cases(&loaded.policy, &fixture, &read_claims, SystemTime::UNIX_EPOCH);
    assert!(failed.is_empty(), "{}", shown(&failed));
}

/// Does the reader take the form of this? (Names are looked up later.)
fn reader_accepts(tree: &Written<Node>) -> bool {
    let page = Page {
        path: Path::new("x.yaml"),
        text: "",
    };
    let mut notes = Notes {
        page,
        mistakes: Vec::new(),
    };
    Document::read(tree, &mut notes).is_some() && notes.mistakes.is_empty()
}

fn tree(text: &str) -> Written<Node> {
    let path = Path::new("x.yaml");
    parse(Page { path, text }).unwrap()
}

/// What `parse` makes of this JSON, without the detour over text.
fn planted(value: &Value) -> Written<Node> {
    let value = match value {
        Value::Null => Node::Nothing,
        Value::Bool(flag) => Node::Flag(*flag),
        Value::Number(number) => number.as_u64().map_or(Node::OtherNumber, Node::Whole),
        Value::String(text) => Node::Text(text.clone()),
        Value::Array(items) => Node::List(items.iter().map(planted).collect()),
        Value::Object(entries) => {
            let key = |key: &String| Written {
                value: key.clone(),
                spot: Spot::default(),
            };
            Node::Map(
                entries
                    .iter()
                    .map(|(name, inner)| (key(name), planted(inner)))
                    .collect(),
            )
        }
    };
    let spot = Spot::default();
    Written { value, spot }
}

#[test]
fn the_schema_accepts_exactly_what_the_reader_accepts() {
    let schema = Validator::new(schema());
    let example: Value = serde_saphyr::from_str(ORDERS).unwrap();
    let everything: Value = serde_json::from_str(EVERYTHING).unwrap();
    assert!(reader_accepts(&tree(ORDERS)) && schema.accepts(&example));
    assert!(reader_accepts(&tree(EVERYTHING)) && schema.accepts(&everything));
    let (mut accepted, mut refused) = (0, 0);
    for damaged in damage(&everything) {
        let reader = reader_accepts(&planted(&damaged));
        assert_eq!(
            reader,
            schema.accepts(&damaged),
            "reader says {reader}:\n{damaged}"
        );
        if reader { accepted += 1 } else { refused += 1 }
    }
    assert!(accepted > 100 && refused > 1_000, "{accepted} {refused}");
}

#[test]
fn every_key_is_in_the_reference() {
    let reference = include_str!("../../../docs/policy.md");
    let mut keys = BTreeSet::new();
    collect_keys(&schema(), &mut keys);
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !reference.contains(&format!("`{key}`")))
        .collect();
    assert!(missing.is_empty(), "not in docs/policy.md: {missing:?}");
}

fn collect_keys(schema: &Value, keys: &mut BTreeSet<String>) {
    if let Some(object) = schema.as_object() {
        let properties = object.get("properties").and_then(Value::as_object);
        keys.extend(properties.into_iter().flatten().map(|(key, _)| key.clone()));
        object.values().for_each(|inner| collect_keys(inner, keys));
    }
}

/// Values to put in every place.
fn probes() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(2),
        json!(-1),
        json!(1.5),
        json!(4_294_967_296_u64),
        json!(""),
        json!(" "),
        json!("x"),
        json!("a b"),
        json!("a.b"),
        json!("a.b.c"),
        json!("a.*"),
        json!("a.f()"),
        json!("a.f(x;)"),
        json!("deny"),
        json!("select"),
        json!("sessions.list"),
        json!("Reload"),
        json!("SELECT"),
        json!("optional"),
        json!("required"),
        json!("5s"),
        json!("05s"),
        json!("5"),
        json!("5w"),
        json!("12345678s"),
        json!("a\nb"),
        json!("ä".repeat(63)),
        json!("x".repeat(512)),
        json!("x".repeat(513)),
        json!("x".repeat(1_025)),
        json!([]),
        json!(["x"]),
        json!([1]),
        json!([["x"]]),
        json!({}),
        json!({"role": "x"}),
        json!({"tables": ["a.b"]}),
        json!({"0": {}}),
    ]
}

/// Copies of `value` with one thing changed: replaced, removed, added or doubled.
fn damage(value: &Value) -> Vec<Value> {
    let mut copies = probes();
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let place = |inner: Value| {
                    let mut copy = items.clone();
                    copy[index] = inner;
                    Value::Array(copy)
                };
                copies.extend(damage(item).into_iter().map(place));
                copies.push(Value::Array(
                    [items.as_slice(), std::slice::from_ref(item)].concat(),
                ));
            }
        }
        Value::Object(entries) => {
            let with = |key: &str, inner: Value| {
                let mut copy = entries.clone();
                copy.insert(key.to_owned(), inner);
                Value::Object(copy)
            };
            for (key, inner) in entries {
                copies.extend(damage(inner).into_iter().map(|inner| with(key, inner)));
                let mut copy = entries.clone();
                copy.remove(key);
                copies.push(Value::Object(copy));
            }
            for key in ["colour", "tags", "statements", "guardrails", "a b", "1x"] {
                let inner = entries.values().next().cloned().unwrap_or_default();
                copies.push(with(key, inner));
            }
            copies.push(with("deny", json!("no")));
            copies.push(with("sequences", json!(["a.b"])));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    copies
}

/// As much of JSON Schema as the policy's schema uses; a keyword it does not know is a failure.
struct Validator {
    root: Value,
    matched: RefCell<BTreeMap<(String, String), bool>>,
}

impl Validator {
    fn new(root: Value) -> Self {
        Self {
            root,
            matched: RefCell::default(),
        }
    }

    fn accepts(&self, value: &Value) -> bool {
        self.valid(&self.root, value)
    }

    fn valid(&self, schema: &Value, value: &Value) -> bool {
        match schema {
            Value::Bool(answer) => *answer,
            Value::Object(keywords) => keywords
                .iter()
                .all(|(keyword, rule)| self.holds(keyword, rule, keywords, value)),
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => panic!("not a schema"),
        }
    }

    fn holds(&self, keyword: &str, rule: &Value, schema: &Map<String, Value>, value: &Value) -> bool {
        let (text, list, map) = (value.as_str(), value.as_array(), value.as_object());
        let rules = || rule.as_array().unwrap().iter();
        let count = || usize::try_from(rule.as_u64().unwrap()).unwrap();
        match keyword {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                self.valid(self.root.pointer(pointer).unwrap(), value)
            }
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_u64() || value.is_i64(),
                other => panic!("type {other}"),
            },
            "const" => value == rule,
            "enum" => rules().any(|one| one == value),
            "anyOf" => rules().any(|one| self.valid(one, value)),
            "oneOf" => rules().filter(|one| self.valid(one, value)).count() == 1,
            "not" => !self.valid(rule, value),
            "required" => map.is_none_or(|map| rules().all(|key| map.contains_key(key.as_str().unwrap()))),
            "properties" => map.is_none_or(|map| {
                let known = map
                    .iter()
                    .filter_map(|(key, inner)| Some((rule.get(key)?, inner)));
                known.into_iter().all(|(rule, inner)| self.valid(rule, inner))
            }),
            "additionalProperties" => map.is_none_or(|map| {
                let properties = schema.get("properties");
                let mut others = map
                    .iter()
                    .filter(|(key, _)| properties.and_then(|known| known.get(*key)).is_none());
                others.all(|(_, inner)| self.valid(rule, inner))
            }),
            "propertyNames" => map.is_none_or(|map| map.keys().all(|key| self.valid(rule, &json!(key)))),
            "minProperties" => map.is_none_or(|map| map.len() >= count()),
            "maxProperties" => map.is_none_or(|map| map.len() <= count()),
            "items" => list.is_none_or(|list| list.iter().all(|item| self.valid(rule, item))),
            "minItems" => list.is_none_or(|list| list.len() >= count()),
            "minLength" => text.is_none_or(|text| text.chars().count() >= count()),
            "maxLength" => text.is_none_or(|text| text.chars().count() <= count()),
            "pattern" => text.is_none_or(|text| self.matches(rule.as_str().unwrap(), text)),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value
                .as_f64()
                .is_none_or(|number| number <= rule.as_f64().unwrap()),
            other => panic!("keyword {other}"),
        }
    }

    /// CEL's regular expressions, since they are at hand. Most values come again in every copy.
    fn matches(&self, pattern: &str, text: &str) -> bool {
        let key = (pattern.to_owned(), text.to_owned());
        *self.matched.borrow_mut().entry(key).or_insert_with(|| {
            let program = cel::Program::compile("text.matches(pattern)").unwrap();
            let mut scope = cel::Context::default();
            scope.add_variable_from_value("text", text);
            scope.add_variable_from_value("pattern", pattern);
            program.execute(&scope).unwrap() == cel::Value::Bool(true)
        })
    }
}
