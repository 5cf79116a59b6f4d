//! Values of every form, as a record shows them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::audit::key::{SigningKey, generate};
use crate::audit::values::{Called, ParameterTypes};
use crate::wire::pg::value::oid;
use crate::wire::tds::rpc::{Argument, Callee, put_calls};

fn key() -> ValueKey {
    ValueKey::of(&SigningKey::read(generate().unwrap().expose().as_bytes()).unwrap())
}

/// A Bind behind its names, all in one format.
fn bound(format: u16, types: &[u32], values: &[Option<&[u8]>]) -> Values {
    let number = |count: usize| u16::try_from(count).unwrap().to_be_bytes();
    let mut bytes = [number(1), format.to_be_bytes(), number(values.len())].concat();
    for value in values {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
        bytes.extend(length.to_be_bytes());
        bytes.extend(value.unwrap_or_default());
    }
    bytes.extend([0, 0]);
    let types: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    let types = Arc::new(ParameterTypes::declared(&types));
    Values::Bound(Arc::new(Bound::new(&bytes, Some(types))))
}

fn statement(text: &str, values: Values) -> Statement {
    Statement {
        text: text.into(),
        kind: "insert",
        rows: None,
        values: Some(values),
    }
}

fn shown(rule: ParameterRule, key: &ValueKey, statement: &Statement) -> Value {
    let shown = Transcript::new(rule, key).of(Engine::Postgres, statement);
    serde_json::to_value(shown).unwrap()
}

#[test]
fn plain_values_are_shown_as_they_are() {
    let values = [Some(&b"4711"[..]), None, Some(b"\xff"), Some(b"")];
    let text = statement("insert into t values ($1, 'x')", bound(0, &[], &values));
    let expected = json!({"parameters": ["4711", null, {"hex": "ff"}, ""], "literals": ["x"]});
    assert_eq!(shown(ParameterRule::Plain, &key(), &text), expected);
    let types = [oid::INT4, oid::BOOL, 600];
    let values = [Some(&[0, 0, 0, 42][..]), Some(&[1]), Some(&[1, 2])];
    let binary = statement("insert", bound(1, &types, &values));
    let expected = json!({"parameters": ["42", "t", {"hex": "0102"}]});
    assert_eq!(shown(ParameterRule::Plain, &key(), &binary), expected);
}

#[test]
fn a_value_hashes_alike_in_both_formats() {
    let key = key();
    let text = statement("insert '42'", bound(0, &[], &[Some(b"42"), None]));
    let binary = statement("insert 42", bound(1, &[oid::INT4], &[Some(&[0, 0, 0, 42]), None]));
    let hash = key.hash(b"42");
    let expected = json!({"parameters": [hash, null], "literals": [hash]});
    assert_eq!(shown(ParameterRule::Hashed, &key, &text), expected);
    assert_eq!(shown(ParameterRule::Hashed, &key, &binary), expected);
    let unknown = statement("insert", bound(1, &[], &[Some(b"\x00\x01")]));
    let expected = json!({"parameters": [key.hash(b"\x00\x01")]});
    assert_eq!(shown(ParameterRule::Hashed, &key, &unknown), expected);
}

#[test]
fn nothing_is_shown_that_nobody_asked_for() {
    let asked = statement("insert 'x'", bound(0, &[], &[Some(b"y")]));
    assert_eq!(shown(ParameterRule::Absent, &key(), &asked), Value::Null);
    let other = Statement {
        values: None,
        ..asked
    };
    assert_eq!(shown(ParameterRule::Plain, &key(), &other), Value::Null);
    let second = statement("insert 'x'; insert 'y'", Values::WithTheFirst);
    assert_eq!(shown(ParameterRule::Plain, &key(), &second), json!({}));
}

#[test]
fn long_values_are_cut_and_those_that_are_not_here_have_a_length() {
    let long = "é".repeat(VALUE_BYTES_MAX);
    let plain = statement(
        "insert",
        bound(0, &[], &[Some(long.as_bytes()), Some(&[0xff; 2_000])]),
    );
    let told = shown(ParameterRule::Plain, &key(), &plain);
    assert_eq!(told["parameters"][0]["bytes"], 2 * VALUE_BYTES_MAX);
    assert_eq!(told["parameters"][0]["begins"], "é".repeat(VALUE_BYTES_MAX / 2));
    assert_eq!(told["parameters"][1]["bytes"], 2_000);
    assert_eq!(told["parameters"][1]["hex"], "ff".repeat(HEX_BYTES_MAX));

    let key = key();
    let hashed = shown(ParameterRule::Hashed, &key, &plain);
    assert_eq!(
        hashed["parameters"][0],
        key.hash(long.as_bytes()),
        "hashed as a whole"
    );

    let Values::Bound(whole) = bound(0, &[], &[Some(b"here"), Some(&[b'x'; 50]), Some(b"z")]) else {
        panic!()
    };
    let part = Bound::new(&whole.bytes[..30], None);
    let cut = statement("insert", Values::Bound(Arc::new(part)));
    let expected = json!({"parameters": ["here", {"bytes": 50}], "parameters_omitted": true});
    assert_eq!(shown(ParameterRule::Plain, &key, &cut), expected);
    let expected = json!({"parameters": [key.hash(b"here"), {"bytes": 50}], "parameters_omitted": true});
    assert_eq!(shown(ParameterRule::Hashed, &key, &cut), expected);
    let none = statement("insert", Values::Omitted);
    assert_eq!(
        shown(ParameterRule::Plain, &key, &none),
        json!({"parameters_omitted": true})
    );
}

#[test]
fn a_record_is_bounded_however_much_there_is_to_show() {
    let key = key();
    let text = format!(
        "insert into t values (1{})",
        ",1".repeat(STATEMENT_TEXT_BYTES / 2)
    );
    let text = statement(&text[..STATEMENT_TEXT_BYTES], Values::OfText);
    let control = [1; 700];
    let values = statement("insert", bound(0, &[], &[Some(&control[..]); 20]));
    let empty = statement("insert", bound(0, &[], &[Some(&b""[..]); 4_000]));
    for rule in [ParameterRule::Plain, ParameterRule::Hashed] {
        let mut transcript = Transcript::new(rule, &key);
        let all: Vec<_> = [&text, &values, &empty]
            .into_iter()
            .cycle()
            .take(200)
            .map(|statement| transcript.of(Engine::Postgres, statement))
            .collect();
        let bytes = serde_json::to_vec(&all).unwrap().len();
        assert!(bytes < 6 * RECORD_BYTES_MAX + 200 * 100, "{bytes}");
        let told = serde_json::to_value(&all).unwrap();
        assert_eq!(told[0]["literals_omitted"], true);
        assert_eq!(told[199]["parameters_omitted"], true);
    }
}

#[test]
fn what_defines_things_is_withheld() {
    let text = statement("create role x password 'hunter2'", Values::OfText);
    let expected = json!({"literals": [{"withheld": true}]});
    for rule in [ParameterRule::Plain, ParameterRule::Hashed] {
        assert_eq!(shown(rule, &key(), &text), expected);
    }
}

#[test]
fn values_of_calls_are_shown() {
    let mut payload = vec![];
    let arguments = [
        Argument::text("", "insert t values (@a, 'x')"),
        Argument::text("", "@a nvarchar(9)"),
        Argument::text("", "4711"),
        Argument::int("", 4711),
    ];
    put_calls(&mut payload, 0, None, &[(Callee::Number(10), &arguments)]);
    let called = |is_whole| Statement {
        values: Some(Values::Called {
            request: Arc::new(Called::new(&payload, is_whole)),
            call: 0,
        }),
        ..statement("insert t values (@a, 'x')", Values::OfText)
    };
    let key = key();
    let shown = |rule, is_whole| {
        let shown = Transcript::new(rule, &key).of(Engine::SqlServer, &called(is_whole));
        serde_json::to_value(shown).unwrap()
    };
    let expected = json!({"parameters": ["4711", "4711"], "literals": ["x"]});
    assert_eq!(shown(ParameterRule::Plain, true), expected);
    let [hash, x] = ["4711", "x"].map(|value| key.hash(value.as_bytes()));
    let expected = json!({"parameters": [hash, hash], "parameters_omitted": true, "literals": [x]});
    assert_eq!(shown(ParameterRule::Hashed, false), expected);
}
