//! Every event in every form: read back by the rules of the form, whatever the names in it are.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::audit::specimens::{HOSTILE, HOSTILE_ID, found};

const SCHEMA: &str = include_str!("../../../tests/vectors/ocsf/schema-1.7.0.json");

/// What is wrong with `object`, by the schema of a class or an object.
fn faults(schema: &Value, shape: &Value, object: &Value, path: &str, faults: &mut Vec<String>) {
    let attributes = shape["attributes"].as_object().unwrap();
    let Some(members) = object.as_object() else {
        faults.push(format!("{path} is no object"));
        return;
    };
    for (name, attribute) in attributes {
        if attribute["required"] == true && !members.contains_key(name) {
            faults.push(format!("{path}.{name} is required"));
        }
    }
    for (name, value) in members {
        let place = format!("{path}.{name}");
        match (attributes.get(name), name.as_str()) {
            (None, _) => faults.push(format!("{place} is not in the schema")),
            (Some(_), "unmapped") => {}
            (Some(attribute), _) => {
                let values = if attribute["array"] == true {
                    value.as_array().cloned().unwrap_or_default()
                } else {
                    vec![value.clone()]
                };
                for value in values {
                    check_value(schema, attribute, &value, &place, faults);
                }
            }
        }
    }
    let one_of = shape["constraints"]["at_least_one"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if !one_of.is_empty()
        && !one_of
            .iter()
            .any(|name| members.contains_key(name.as_str().unwrap()))
    {
        faults.push(format!("{path} needs one of {one_of:?}"));
    }
}

fn check_value(schema: &Value, attribute: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let is_fitting = match attribute["type"].as_str().unwrap() {
        "string_t" | "username_t" | "hostname_t" => value.is_string(),
        "integer_t" | "long_t" | "timestamp_t" => value.is_u64(),
        "port_t" => value.as_u64().is_some_and(|port| port <= 65_535),
        "boolean_t" => value.is_boolean(),
        "ip_t" => value
            .as_str()
            .is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok()),
        object => {
            faults(schema, &schema["objects"][object], value, place, found);
            true
        }
    };
    if !is_fitting {
        found.push(format!("{place} is not a {}: {value}", attribute["type"]));
    }
    if let Some(words) = attribute["enum"].as_array()
        && !place.ends_with(".category_uid")
        && !place.ends_with(".class_uid")
        && !words.contains(value)
    {
        found.push(format!("{place} has no {value}"));
    }
}

#[test]
fn every_event_is_one_of_the_ocsf_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    assert_eq!(schema["version"], ocsf::VERSION);
    let mut classes = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for found in found() {
        let event = ocsf::event(&found.entry);
        let class = &schema["classes"][event["class_uid"].to_string()];
        assert_eq!(event["class_name"], class["caption"]);
        assert_eq!(event["category_uid"], class["category_uid"]);
        let type_uid = event["class_uid"].as_u64().unwrap() * 100 + event["activity_id"].as_u64().unwrap();
        assert_eq!(event["type_uid"].as_u64(), Some(type_uid));
        let mut wrong = Vec::new();
        faults(&schema, class, &event, &found.entry.event, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:#?}\n{event:#}");
        classes.insert(event["class_uid"].as_u64().unwrap());
        seen.insert(found.entry.event);
    }
    assert_eq!(classes, BTreeSet::from([0, 3001, 3002, 3004, 6002, 6003, 6005]));
    assert!(seen.len() > 25, "{seen:?}");
}

/// The validator itself sees what it should see.
#[test]
fn a_wrong_ocsf_event_is_found() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let found = found()
        .into_iter()
        .find(|found| found.entry.event == "transaction.outcome");
    let sound = ocsf::event(&found.unwrap().entry);
    let wrongs = |change: &dyn Fn(&mut Value)| {
        let mut event = sound.clone();
        change(&mut event);
        let mut wrong = Vec::new();
        faults(&schema, &schema["classes"]["6005"], &event, "", &mut wrong);
        wrong.join("; ")
    };
    assert_eq!(wrongs(&|_| {}), "");
    let without =
        |name: &'static str| move |event: &mut Value| drop(event.as_object_mut().unwrap().remove(name));
    assert_eq!(wrongs(&without("actor")), ".actor is required");
    assert!(wrongs(&without("database")).contains("needs one of"));
    assert_eq!(
        wrongs(&|event| event["invented"] = 1.into()),
        ".invented is not in the schema"
    );
    assert_eq!(
        wrongs(&|event| event["status_id"] = 7.into()),
        ".status_id has no 7"
    );
    assert!(wrongs(&|event| event["src_endpoint"]["ip"] = "nowhere".into()).contains("ip_t"));
}

#[test]
fn ocsf_says_what_happened_and_loses_nothing() {
    let found = found();
    let event = |name: &str| {
        let found = found.iter().find(|found| found.entry.event == name).unwrap();
        ocsf::event(&found.entry)
    };
    let committed = event("transaction.outcome");
    assert_eq!(
        (committed["type_uid"].as_u64(), &committed["status"]),
        (Some(600_505), &"Success".into())
    );
    assert_eq!(committed["actor"]["user"]["uid"], HOSTILE);
    assert_eq!(committed["metadata"]["correlation_uid"], "m-1");
    assert_eq!(committed["unmapped"]["detail"]["id"], 742);
    assert_eq!(committed["unmapped"]["correlation"][1]["id"], HOSTILE_ID);
    assert_eq!(
        committed["src_endpoint"],
        serde_json::json!({"ip": "192.0.2.1", "port": 4711})
    );
    let denied = event("session.denied");
    assert_eq!(
        (&denied["status"], &denied["status_code"]),
        (&"Failure".into(), &"not_permitted".into())
    );
    let tampered = event("login.tampered");
    assert_eq!(tampered["severity"], "High");
}

/// Reads a line of CEF by its specification: header fields between bars, then pairs whose values reach to
/// the next ` key=`.
fn read_cef(line: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let mut header = vec![String::new()];
    let mut chars = line.chars();
    while header.len() < 8 {
        match chars.next().unwrap() {
            '\\' => header.last_mut().unwrap().push(chars.next().unwrap()),
            '|' => header.push(String::new()),
            char => header.last_mut().unwrap().push(char),
        }
    }
    header.pop();
    let mut pairs: Vec<(String, String)> = Vec::new();
    let (mut key, mut value) = (None::<String>, String::new());
    while let Some(char) = chars.next() {
        match char {
            '\\' => value.push(match chars.next().unwrap() {
                'n' => '\n',
                'r' => '\r',
                char => char,
            }),
            '=' => {
                let (before, next) = value
                    .rsplit_once(' ')
                    .map_or((String::new(), value.clone()), |(before, next)| {
                        (before.to_owned(), next.to_owned())
                    });
                if let Some(key) = key.replace(next) {
                    pairs.push((key, before));
                }
                value.clear();
            }
            char => value.push(char),
        }
    }
    pairs.extend(key.map(|key| (key, value)));
    let count = pairs.len();
    let map: BTreeMap<_, _> = pairs.into_iter().collect();
    assert_eq!(map.len(), count, "a key stands twice: {line}");
    (header, map)
}

#[test]
fn cef_can_be_read_back_whatever_the_names_are() {
    let tamed: String = HOSTILE
        .chars()
        .map(|char| {
            if char == '\t' || char == '\u{1b}' {
                ' '
            } else {
                char
            }
        })
        .collect();
    for found in found() {
        let line = cef::event(&found.entry);
        assert!(!line.contains(['\n', '\r', '\u{1b}']), "{line}");
        let (header, pairs) = read_cef(&line);
        assert_eq!(header[0], "CEF:0");
        assert_eq!(header[4], found.entry.event);
        assert!(header[6].parse::<u8>().is_ok_and(|severity| severity <= 10));
        assert_eq!(pairs["externalId"], found.entry.seq.to_string());
        assert_eq!(pairs["deviceExternalId"], tamed);
        assert_eq!(pairs["cs6"], found.entry.hash);
        if found.entry.identity.is_some() {
            assert_eq!(pairs["suid"], tamed);
            assert_eq!(pairs["dpriv"], tamed);
        }
        for (key, _) in pairs.iter().filter(|(key, _)| key.ends_with("Label")) {
            assert!(pairs.contains_key(key.trim_end_matches("Label")), "{key}");
        }
    }
}

/// Reads structured data by RFC 5424, 6.3.
fn read_structure(text: &str) -> (BTreeMap<String, String>, usize) {
    let mut map = BTreeMap::new();
    let mut chars = text.char_indices().skip_while(|(_, char)| *char != ' ').skip(1);
    loop {
        let key: String = chars
            .by_ref()
            .map(|(_, char)| char)
            .take_while(|char| *char != '=')
            .collect();
        assert_eq!(chars.next().unwrap().1, '"');
        let mut value = String::new();
        loop {
            match chars.next().unwrap().1 {
                '\\' => value.push(chars.next().unwrap().1),
                '"' => break,
                char => {
                    assert_ne!(char, ']', "unescaped");
                    value.push(char);
                }
            }
        }
        map.insert(key, value);
        match chars.next().unwrap() {
            (at, ']') => return (map, at),
            (_, char) => assert_eq!(char, ' '),
        }
    }
}

#[test]
fn syslog_can_be_read_back_and_carries_the_record_byte_for_byte() {
    for found in found() {
        let message = rfc5424::message(&found.entry, &found.line);
        let text = std::str::from_utf8(&message).unwrap();
        assert!(!text.contains(['\n', '\r', '\u{1b}']));
        let fields: Vec<_> = text.splitn(7, ' ').collect();
        let priority = fields[0].strip_prefix('<').unwrap().strip_suffix(">1").unwrap();
        assert!((104..=111).contains(&priority.parse::<u8>().unwrap()));
        assert_eq!(fields[1], found.entry.at);
        assert!(fields[2].chars().all(|char| char.is_ascii_graphic()) && fields[2].len() <= 255);
        assert_eq!((fields[3], fields[4]), ("gatepost", "1"));
        assert!(fields[5].len() <= 32);
        assert!(fields[6].starts_with("[gatepost@32473 "));
        let (structure, end) = read_structure(fields[6]);
        assert_eq!(structure["seq"], found.entry.seq.to_string());
        if found.entry.identity.is_some() {
            assert!(structure["subject"].contains("']=a\\b|c"), "{structure:?}");
        }
        assert_eq!(fields[6].as_bytes()[end + 1..], [b" ", &found.line[..]].concat());
    }
}

#[test]
fn framing_tells_messages_apart() {
    let found = found();
    for form in [Form::Ocsf, Form::Cef, Form::Rfc5424] {
        let (mut lines, mut counted) = (Vec::new(), Vec::new());
        for found in &found {
            export(form, Framing::LineFeed, &found.entry, &found.line, &mut lines);
            export(
                form,
                Framing::OctetCounting,
                &found.entry,
                &found.line,
                &mut counted,
            );
        }
        let by_line: Vec<_> = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .collect();
        assert_eq!(by_line.len(), found.len());
        let mut rest = &counted[..];
        for line in by_line {
            let space = rest.iter().position(|byte| *byte == b' ').unwrap();
            let length: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
            assert_eq!(&rest[space + 1..space + 1 + length], line);
            rest = &rest[space + 1 + length..];
        }
        assert!(rest.is_empty());
    }
}
