//! What an auditor does with the journal: finds a message's transaction, proves the chain, and is told
//! where somebody changed it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::programs::Said;
use crate::harness::world::World;

fn show(world: &World, filter: &[&str]) -> Vec<Value> {
    let arguments = [&["audit", "show", "--directory", "audit", "--json"], filter].concat();
    let said = world.gatepost(&arguments);
    said.out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn verify(world: &World) -> Said {
    world.gatepost(&[
        "audit",
        "verify",
        "--directory",
        "audit",
        "--public-key",
        "certs/signing.pub",
    ])
}

fn written() -> (World, PathBuf) {
    let mut world = World::start();
    let consumer = world.consumer();
    for message in ["m-1", "m-2", "m-3"] {
        let insert =
            format!("INSERT INTO orders (customer) VALUES ('{message}') /*correlation_id='{message}'*/");
        world.psql(&consumer, &insert).well();
    }
    world.stop_proxy();
    let mut segments = fs::read_dir(world.path("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let segment = segments
        .find(|path| path.extension().is_some_and(|it| it == "jsonl"))
        .unwrap();
    (world, segment)
}

#[test]
fn a_message_leads_to_its_transaction_and_back() {
    let (world, _) = written();
    for message in ["m-1", "m-2", "m-3"] {
        let id = world.sql(&format!(
            "SELECT xmin::text FROM orders WHERE customer = '{message}'"
        ));
        for filter in [["--correlation", message], ["--xid", &id]] {
            let [row] = &show(&world, &filter)[..] else {
                panic!("not one row for {filter:?}");
            };
            assert_eq!(row["xid"].as_u64(), id.parse().ok());
            assert_eq!(row["outcome"], "committed");
            assert_eq!(row["correlation"], serde_json::json!([message]));
            assert_eq!(row["client_id"], "order-consumer");
        }
    }
    assert_eq!(show(&world, &["--identity", "order-consumer"]).len(), 3);
    assert!(show(&world, &["--identity", "somebody-else"]).is_empty());
}

#[test]
fn whatever_is_done_to_the_journal_is_found_and_named() {
    let (world, segment) = written();
    assert!(verify(&world).good);
    let sound = fs::read_to_string(&segment).unwrap();
    let lines: Vec<_> = sound.lines().collect();
    let at = lines.iter().position(|line| line.contains("\"m-2\"")).unwrap();
    let change = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        edit(&mut lines);
        lines.join("\n") + "\n"
    };
    let cases = [
        (
            "a changed record",
            change(&|lines| lines[at] = lines[at].replace("m-2", "m-9")),
        ),
        ("a removed record", change(&|lines| drop(lines.remove(at)))),
        (
            "an inserted record",
            change(&|lines| lines.insert(at, lines[at - 1].clone())),
        ),
        ("exchanged records", change(&|lines| lines.swap(at, at + 1))),
    ];
    for (what, text) in cases {
        fs::write(&segment, text).unwrap();
        let said = verify(&world);
        let told = format!("{}{}", said.out, said.err);
        assert!(!said.good, "{what} was not found: {told}");
        let name = segment.file_name().unwrap().to_str().unwrap();
        assert!(told.contains(name), "{what}: {told}");
        let near = [at, at + 1, at + 2]
            .iter()
            .any(|line| told.contains(&format!("line {line}")));
        assert!(near, "{what} near line {}: {told}", at + 1);
    }
    fs::write(&segment, sound).unwrap();
    assert!(verify(&world).good);
}

/// The operator replaces the key while clients work; the auditor goes on with the first public key, and
/// one record is proved to somebody who has nothing but it.
#[test]
fn the_signing_key_is_replaced_under_way_and_one_record_is_proved() {
    let mut world = World::start();
    let consumer = world.consumer();
    let insert = |message| {
        format!("INSERT INTO orders (customer) VALUES ('{message}') /*correlation_id='{message}'*/")
    };
    world.psql(&consumer, &insert("m-1")).well();
    let key = gatepost::audit::key::generate().unwrap();
    fs::write(world.path("certs/signing.key"), key.expose()).unwrap();
    let said = world.gatepost(&["rotate", "--signing-key", "--config", "gatepost.yaml"]);
    assert!(
        said.good && said.out.contains("the journal is signed with key"),
        "{}",
        said.err
    );
    world.psql(&consumer, &insert("m-2")).well();
    world.stop_proxy();
    let said = verify(&world);
    assert!(said.good, "{}", said.err);
    assert!(
        said.out.contains("the signing key was replaced 1 times"),
        "{}",
        said.out
    );
    let records = world.records();
    let one = records
        .iter()
        .find(|record| record["event"] == "transaction.outcome" && record["correlation"][0]["id"] == "m-2");
    let seq = one.unwrap()["seq"].to_string();
    let proof = world.gatepost(&["audit", "prove", "--directory", "audit", "--seq", &seq]);
    assert!(proof.good && !proof.out.contains("m-1"), "{}", proof.err);
    fs::write(world.path("proof.json"), &proof.out).unwrap();
    let prove = || {
        world.gatepost(&[
            "audit",
            "verify-proof",
            "proof.json",
            "--key",
            "certs/signing.pub",
        ])
    };
    let said = prove();
    assert!(said.good && said.out.contains("m-2"), "{}", said.err);
    fs::write(world.path("proof.json"), proof.out.replace("m-2", "m-3")).unwrap();
    assert!(!prove().good);
}
