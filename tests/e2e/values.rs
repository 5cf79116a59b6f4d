//! Values of statements are on record as a rule says: nowhere, as hashes, or as they are. Looked for in every
//! file of the journal and in the log at its most talkative.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::config::POLICY;
use crate::harness::journal::of_event;
use crate::harness::sqlserver::SqlServer;
use crate::harness::wait_for;
use crate::harness::world::World;

const VALUE: &str = "kumquat-7731";
const TAKEN: &str = "loquat-7732";
const FAILING: &str = "rambutan-7733";
const ESCAPED: &str = "pomelo-7734";
const SECRET: &str = "hunter-7735";
const BINARY: &str = "tamarillo-7736";

/// A world whose consumers have this in their rule.
fn world(audit: &str) -> World {
    let mut world = World::without_proxy(15);
    let rule = "grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}";
    let policy = POLICY.replacen(rule, &format!("{rule}\n    {audit}"), 1);
    fs::write(world.path("policy.yaml"), policy).unwrap();
    world.config.level = "trace";
    world.serve();
    world
}

/// Work with every value, by two drivers.
fn work(world: &World) {
    let consumer = world.consumer();
    let values = [VALUE, TAKEN, FAILING, ESCAPED, SECRET];
    let said = world.python(&consumer, "psycopg3_values.py", &values).well();
    assert_eq!(said, "unique True\ncopy True\nrefused 42501\nrefused 42501");
    world.runtime.block_on(async {
        let client = world.connect(&consumer, "").await.unwrap();
        let insert = "INSERT INTO orders (customer, cents) VALUES ($1, $2)";
        client.execute(insert, &[&BINARY, &4711_i64]).await.unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_500);
        let insert = "INSERT INTO inbox (message_id, applied_at) VALUES ($1, $2)";
        client.execute(insert, &[&BINARY, &at]).await.unwrap();
    });
}

/// Where a text is, in all that gatepost wrote.
fn written(world: &World, text: &str) -> Vec<String> {
    let journal = fs::read_dir(world.path("audit")).unwrap();
    let mut files: Vec<_> = journal.map(|entry| entry.unwrap().path()).collect();
    files.push(world.path("gatepost.log"));
    let holds = |file: &std::path::PathBuf| {
        let bytes = fs::read(file).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    let found = files.iter().filter(|file| holds(file));
    found.map(|file| file.display().to_string()).collect()
}

/// Parameters and literals of all statements of this kind in outcomes.
fn recorded(world: &World, kind: &str) -> Vec<Value> {
    let records = world.records();
    let outcomes = of_event(&records, "transaction.outcome");
    let statements = outcomes
        .iter()
        .flat_map(|it| it["detail"]["statements"].as_array().unwrap());
    let of_kind = statements.filter(|one| one["kind"] == kind);
    of_kind
        .map(|one| json!({"parameters": one["parameters"], "literals": one["literals"]}))
        .collect()
}

fn hash(world: &World, value: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["audit", "hash", "--signing-key", "certs/signing.key"])
        .current_dir(world.path("."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    command.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let output = command.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn nothing_is_on_record_that_no_rule_asks_for() {
    let mut world = world("");
    work(&world);
    world.stop_proxy();
    for value in [VALUE, TAKEN, FAILING, ESCAPED, SECRET, BINARY] {
        assert_eq!(written(&world, value), [""; 0], "{value}");
    }
    let inserts = recorded(&world, "insert");
    assert!(
        inserts.len() > 8
            && inserts
                .iter()
                .all(|it| it["parameters"].is_null() && it["literals"].is_null())
    );
    world.verify_journal();
}

#[test]
fn hashes_stand_for_values_to_whoever_has_the_key() {
    let mut world = world("audit: {parameters: hashed}");
    work(&world);
    world.stop_proxy();
    for value in [VALUE, TAKEN, FAILING, ESCAPED, SECRET, BINARY] {
        assert_eq!(written(&world, value), [""; 0], "{value}");
    }
    let inserts = recorded(&world, "insert");
    let [value, cents, binary] = [VALUE, "4711", BINARY].map(|value| hash(&world, value));
    let as_literals = json!({"parameters": null, "literals": [value, cents]});
    let as_parameters = json!({"parameters": [value, cents], "literals": null});
    let count = |expected: &Value| inserts.iter().filter(|it| *it == expected).count();
    assert_eq!(count(&as_literals), 1, "{inserts:#?}");
    // Text and binary, prepared or not.
    assert_eq!(count(&as_parameters), 4, "{inserts:#?}");
    let by_the_other = json!({"parameters": [binary, cents], "literals": null});
    assert_eq!(count(&by_the_other), 1, "{inserts:#?}");
    // The one that was refused by the server as well.
    let taken = json!({"parameters": [hash(&world, TAKEN)], "literals": null});
    assert_eq!(count(&taken), 2, "{inserts:#?}");
    world.verify_journal();
}

#[test]
fn plain_values_are_where_they_belong_and_nowhere_else() {
    let mut world = world("audit: {parameters: plain}");
    work(&world);
    world.stop_proxy();
    let log = fs::read_to_string(world.path("gatepost.log")).unwrap();
    for value in [VALUE, TAKEN, ESCAPED, BINARY] {
        assert!(!written(&world, value).is_empty(), "{value}");
        assert!(!log.contains(value), "{value}");
    }
    // Rows of COPY, and what may be a password, are never on record.
    for value in [FAILING, SECRET] {
        assert_eq!(written(&world, value), [""; 0], "{value}");
    }
    let inserts = recorded(&world, "insert");
    let count = |expected: Value| inserts.iter().filter(|it| **it == expected).count();
    assert_eq!(
        count(json!({"parameters": null, "literals": [VALUE, "4711"]})),
        1,
        "{inserts:#?}"
    );
    assert_eq!(
        count(json!({"parameters": [VALUE, "4711"], "literals": null})),
        4,
        "{inserts:#?}"
    );
    assert_eq!(
        count(json!({"parameters": [BINARY, "4711"], "literals": null})),
        1,
        "{inserts:#?}"
    );
    let at = "2026-01-01 00:00:00.5+00";
    assert_eq!(
        count(json!({"parameters": [BINARY, at], "literals": null})),
        1,
        "{inserts:#?}"
    );
    assert_eq!(
        count(json!({"parameters": [TAKEN], "literals": null})),
        2,
        "{inserts:#?}"
    );
    let escaped = format!("E'it\\'s {ESCAPED} '");
    assert_eq!(
        count(json!({"parameters": null, "literals": [escaped]})),
        1,
        "{inserts:#?}"
    );
    let withheld = json!({"withheld": true});
    assert_eq!(recorded(&world, "do")[0]["literals"], json!([withheld]));
    // Every record of the session says how values stand in it.
    let records = world.records();
    for event in ["session.opened", "transaction.intent", "transaction.outcome"] {
        let policy = &of_event(&records, event)[0]["policy"];
        assert_eq!(policy["parameters"], "plain", "{event}");
    }
    let shown = world
        .gatepost(&["audit", "show", "--directory", "audit", "--json"])
        .well();
    let row = shown.lines().find(|line| line.contains(BINARY)).unwrap();
    let row: Value = serde_json::from_str(row).unwrap();
    assert_eq!(row["parameters"], "plain");
    assert_eq!(row["statements"][0]["parameters"], json!([BINARY, "4711"]));
    world.verify_journal();
}

#[test]
fn values_of_calls_to_sql_server_are_on_record() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::behind(&mut world);
    let policy = fs::read_to_string(world.path("policy.yaml")).unwrap();
    let rule = "grant: {role: parcels_writer, login_ttl: 30m, session_max: 8h}";
    let recording = format!("{rule}\n    audit: {{parameters: plain}}");
    fs::write(world.path("policy.yaml"), policy.replacen(rule, &recording, 1)).unwrap();
    world.tell_proxy_to_reload();
    wait_for("the new policy", || {
        (of_event(&world.records(), "policy.loaded").len() == 2).then_some(())
    });
    let token = world.consumer().token;
    world.runtime.block_on(async {
        let mut client = server.connect(&world, &token).await.unwrap();
        let insert = "INSERT INTO dbo.parcels (driver, step, n) VALUES (@P1, N'call', @P2)";
        client.execute(insert, &[&VALUE, &4711_i32]).await.unwrap();
        let insert = format!("INSERT INTO dbo.parcels (driver, step, n) VALUES (N'{BINARY}', N'batch', 2)");
        let stream = client.simple_query(insert).await.unwrap();
        stream.into_results().await.unwrap();
        client.close().await.unwrap();
    });
    world.settled_after(());
    let inserts = recorded(&world, "insert");
    let expected = [
        json!({"parameters": [VALUE, "4711"], "literals": ["call"]}),
        json!({"parameters": null, "literals": [BINARY, "batch", "2"]}),
    ];
    assert_eq!(inserts, expected);
    assert!(!world.log().contains(VALUE));
}
