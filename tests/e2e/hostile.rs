//! A client with a good token that wants the journal to lie, or to fill the disk: it takes gatepost's
//! question away or answers it, imitates correlation ids and WAL markers, and floods. The write-ahead log is
//! the judge, and the journal's directory is measured.

use std::path::Path;

use serde_json::Value;
use tokio_postgres::Client;

use crate::harness::full;
use crate::harness::journal::of_event;
use crate::harness::plain::Plain;
use crate::harness::programs::Caller;
use crate::harness::wal::Balance;
use crate::harness::world::World;

const I: &str = "INSERT INTO work (mark) VALUES ('hostile')";

/// In place of whatever gatepost prepared: an answer of the client's own.
const FORGE: &str = "DO $$ DECLARE s text; BEGIN
    FOR s IN SELECT name FROM pg_prepared_statements WHERE NOT from_sql LOOP
        EXECUTE format('DEALLOCATE %I', s);
        EXECUTE format('PREPARE %I AS SELECT 4242::text::xid8', s);
    END LOOP; END $$";
const FORGING_FUNCTION: &str = "CREATE OR REPLACE FUNCTION forge() RETURNS int LANGUAGE plpgsql AS $f$
    DECLARE s text; BEGIN
    FOR s IN SELECT name FROM pg_prepared_statements WHERE NOT from_sql LOOP
        EXECUTE format('DEALLOCATE %I', s);
        EXECUTE format('PREPARE %I AS SELECT 4242::text::xid8', s);
    END LOOP; RETURN 1; END $f$";
const OWN_ANSWER: &str = "CREATE FUNCTION public.pg_current_xact_id_if_assigned() RETURNS xid8
    LANGUAGE sql AS 'SELECT ''31337''::xid8'";

/// What is sent between writes, by simple queries.
const ATTEMPTS: [&str; 12] = [
    "DISCARD ALL",
    "DEALLOCATE ALL",
    FORGE,
    FORGING_FUNCTION,
    "SELECT forge()",
    OWN_ANSWER,
    "SET search_path = public, pg_catalog",
    "SELECT pg_logical_emit_message(true, 'gatepost', '4242 s-00000000000000000000 1')",
    "SELECT pg_logical_emit_message(false, 'gatepost', 'COMMIT 4242')",
    "SELECT 1 /* gatepost */ /*correlation_id='another-message',traceparent='00-4242-4242-01'*/",
    "SET gatepost.subject = 'somebody else'",
    "SET application_name = 'corr=somebody-else gatepost'",
];

/// A world in which this client's login stays, and the client.
fn world() -> (World, Client, Caller) {
    let mut world = World::with_work(15);
    world.serve();
    let consumer = world.consumer();
    let keep = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    (world, keep, consumer)
}

/// All records of transactions are of whom gatepost verified, and what the client gives for ids is bounded.
fn assert_bounded(balance: &Balance) {
    assert!(balance.lies.is_empty(), "{balance}");
    let transactions = balance
        .records
        .iter()
        .filter(|it| it["detail"]["number"].is_u64());
    for record in transactions {
        assert_eq!(record["identity"]["client_id"], "order-consumer", "{record}");
        assert_eq!(record["role"], "orders_writer", "{record}");
        let ids = record["correlation"].as_array().unwrap();
        assert!(!ids.is_empty() && ids.len() <= 1_000, "{} ids", ids.len());
        assert!(ids.iter().all(|id| id["id"].as_str().unwrap().len() <= 256));
    }
}

#[test]
fn the_journal_does_not_lie() {
    let (world, _keep, consumer) = world();
    let since = world.here_in_wal();
    let mut session = world.plain(&consumer);
    session.query("SET gatepost.correlation_id = 'hostile'").well();
    for attempt in ATTEMPTS {
        session.query(attempt).well();
        session.query("SET gatepost.correlation_id = 'hostile'").well();
        // By itself, in a block, and with the attempt behind the write, where it is asked for its number.
        session.query(I).well();
        session.query("BEGIN").well();
        session.query(I).well();
        if !attempt.starts_with("DISCARD") && attempt != OWN_ANSWER {
            session.query(attempt).well();
        }
        session.query("COMMIT").well();
    }
    let mut again = world.plain(&consumer);
    again.query("SET gatepost.correlation_id = 'hostile'").well();
    again.query(I).well();
    drop((session, again));
    let balance = world.balance(&since);
    assert_bounded(&balance);
    assert!(balance.unnamed.is_empty(), "{balance}");
    assert!(balance.commits.len() > 2 * ATTEMPTS.len(), "{balance}");
    world.verify_journal();
}

#[test]
fn ids_are_bounded_however_they_come() {
    let (world, _keep, consumer) = world();
    let since = world.here_in_wal();
    let large = "x".repeat(1 << 20);
    let mut session = world.plain(&consumer);
    let before = bytes_in(&world.path("audit"));
    session
        .query(&format!("SET gatepost.correlation_id = '{large}'"))
        .well();
    session.query("INSERT INTO work (mark) VALUES ('by-set')").well();
    session.query("SET gatepost.correlation_id = 'hostile'").well();
    session
        .query(&format!("{I} /*correlation_id='{large}',traceparent='{large}'*/"))
        .well();
    session.query("BEGIN").well();
    for id in 0..3_000 {
        session
            .query(&format!(
                "SET LOCAL gatepost.correlation_id = '{id}-{}'",
                "y".repeat(200)
            ))
            .well();
    }
    session.query("INSERT INTO work (mark) VALUES ('hostile')").well();
    session.query("COMMIT").well();
    let comments: Vec<_> = (0..3_000)
        .map(|id| format!("/*correlation_id='c-{id}'*/"))
        .collect();
    session.query(&format!("{I} {}", comments.join(" "))).well();
    drop(session);
    // By the start-up it is either refused or cut off, and the others are served.
    let options = format!("-c gatepost.correlation_id={large}");
    let refused = world.runtime.block_on(world.connect(&consumer, &options));
    if let Ok(client) = refused {
        world.runtime.block_on(client.batch_execute(I)).unwrap();
    }
    let balance = world.balance(&since);
    // The two that gave nothing that can be used are under ids of gatepost's own.
    let unusable = |lie: &String| lie.contains("under by-set");
    assert!(
        balance.lies.iter().all(unusable) && balance.unnamed.is_empty(),
        "{balance}"
    );
    let most = of_event(&balance.records, "transaction.outcome");
    let most = most
        .iter()
        .map(|it| it["correlation"].as_array().unwrap().len())
        .max();
    assert_eq!(most, Some(1_000));
    let ids = |record: &Value| record["correlation"].as_array().cloned().unwrap_or_default();
    let all = balance.records.iter().flat_map(ids);
    assert!(all.into_iter().all(|id| id["id"].as_str().unwrap().len() <= 256));
    // 4 records of 1,000 ids at most, and some small ones.
    let grown = bytes_in(&world.path("audit")) - before;
    eprintln!("{grown} bytes of journal for some MB of ids");
    assert!(grown < 4 * 1_000 * (256 + 64) + 200_000, "{grown} bytes");
    world.verify_journal();
}

fn bytes_in(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Sends these texts, and gives the journal's growth for each.
fn growth(world: &World, session: &mut Plain, texts: &[String]) -> u64 {
    let before = bytes_in(&world.path("audit"));
    for several in texts.chunks(50) {
        several.iter().for_each(|text| session.ask(text));
        for _ in several {
            session.answer().well();
        }
    }
    // What is not waited for is written before what is.
    session.query("DO 'BEGIN END'").well();
    (bytes_in(&world.path("audit")) - before) / texts.len() as u64
}

/// Bytes of journal for one statement, its text left out: an intent, an outcome, and a head for each.
const RECORDS_BYTES_MAX: u64 = 4_096;
/// A new text is written once, cut to 16 KiB, in which each character may take several to be spelled.
const TEXT_BYTES_MAX: u64 = 16 * 1024 * 2;

#[test]
fn floods_of_statements_are_measured() {
    let (world, _keep, consumer) = world();
    let mut session = world.plain(&consumer);
    let many = if full() { 20_000 } else { 1_000 };
    let column = |n: usize, filling: &str| format!("SELECT 1 AS c{n}{filling}");
    let same = vec![I.to_owned(); many];
    let distinct: Vec<_> = (0..many).map(|n| column(n, "")).collect();
    let literals: Vec<_> = (0..many)
        .map(|n| format!("INSERT INTO work (mark) VALUES ('{n}{}')", "z".repeat(5_000)))
        .collect();
    let large: Vec<_> = (0..many / 50)
        .map(|n| column(n, &format!(", 2 AS {}", "a".repeat(60)).repeat(1_600)))
        .collect();
    for (what, texts, most) in [
        ("the same text", &same, RECORDS_BYTES_MAX),
        ("distinct texts", &distinct, RECORDS_BYTES_MAX),
        ("distinct literals of 5 KB", &literals, RECORDS_BYTES_MAX),
        (
            "distinct texts of 100 KB",
            &large,
            RECORDS_BYTES_MAX + TEXT_BYTES_MAX,
        ),
    ] {
        let each = growth(&world, &mut session, texts);
        eprintln!("{what}: {each} bytes of journal a statement");
        assert!(each < most, "{what}: {each}");
    }
    world.verify_journal();
}
