//! Every driver connects with a token, writes in its own way, and each of its transactions is in the
//! journal once, with the database's id, the outcome, and the correlation id that the client gave.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::harness::journal::{committed, correlation, of_event, outcomes_under};
use crate::harness::provider::Shape;
use crate::harness::world::World;

/// What every driver does is told by rows: each carries as `customer` the correlation id of its own
/// transaction. `told` are lines of the driver itself: `aborted`, a correlation id, the transaction's id.
fn compare(world: &World, told: &str) {
    let records = world.settled();
    let outcomes = of_event(&records, "transaction.outcome");
    let by_id: BTreeMap<u64, &Value> = outcomes
        .iter()
        .filter_map(|outcome| Some((outcome["detail"]["id"].as_u64()?, *outcome)))
        .collect();
    let rows = world.sql("SELECT DISTINCT xmin::text::bigint, customer FROM orders ORDER BY 1");
    assert!(rows.lines().count() >= 3, "{rows}");
    for row in rows.lines() {
        let (id, given) = row.split_once('|').unwrap();
        let outcome = by_id.get(&id.parse().unwrap());
        let outcome = outcome.unwrap_or_else(|| panic!("no outcome of transaction {id} ({given})"));
        assert_eq!(outcome["detail"]["outcome"], "committed", "{outcome}");
        assert_eq!(outcome["detail"]["scope"], "complete", "{outcome}");
        assert!(
            correlation(outcome).contains(&given),
            "{given} is not in {outcome}"
        );
        assert_eq!(outcome["identity"]["client_id"], "order-consumer");
        assert_eq!(outcome["role"], "orders_writer");
    }
    let written = world.sql("SELECT count(DISTINCT xmin::text) FROM orders");
    assert_eq!(committed(&records).len(), written.parse::<usize>().unwrap());
    for line in told.lines() {
        let [how, given, id] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let [outcome] = outcomes_under(&records, given)[..] else {
            panic!("not one outcome under {given}");
        };
        assert_eq!(outcome["detail"]["outcome"], how, "{outcome}");
        assert_eq!(outcome["detail"]["id"].as_u64(), id.parse().ok(), "{outcome}");
    }
    world.verify_journal();
}

/// Runs a script with tokens of both shapes. It leaves this many rows each time.
fn python(script: &str, rows: usize) {
    let world = World::start();
    for (turn, shape) in [Shape::Entra, Shape::Okta].into_iter().enumerate() {
        let consumer = world.caller(shape, "order-consumer", "orders_writer");
        let told = world.python(&consumer, script, &[&format!("{shape:?}")]).well();
        assert!(!told.is_empty());
        compare(&world, &told);
        let count = world.sql("SELECT count(*) FROM orders");
        assert_eq!(count, (rows * (turn + 1)).to_string());
    }
}

#[test]
fn psycopg_3() {
    python(
        "psycopg3_story.py",
        1 + 1 + 1 + 1000 + 50 + 1 + 20 + 1 + 1 + 10 + 1 + 5,
    );
}

#[test]
fn psycopg_2() {
    python("psycopg2_story.py", 1 + 1 + 1000 + 30 + 30 + 1 + 1 + 1);
}

#[test]
fn asyncpg() {
    python("asyncpg_story.py", 1 + 1 + 1000 + 50 + 1 + 1 + 1 + 10 + 20 + 1);
}

#[test]
fn psql() {
    let world = World::start();
    for shape in [Shape::Entra, Shape::Okta] {
        let consumer = world.caller(shape, "order-consumer", "orders_writer");
        let mark = |what: &str| format!("psql-{shape:?}-{what}");
        let insert = |what: &str| format!("INSERT INTO orders (customer) VALUES ('{}')", mark(what));
        let set = |what: &str| format!("SET LOCAL gatepost.correlation_id = '{}'", mark(what));
        let startup = format!("-c gatepost.correlation_id={}", mark("startup"));
        let options = [("PGOPTIONS", startup.as_str())];
        world.psql_with(&consumer, &options, &insert("startup")).well();
        let application = format!("psql corr={}", mark("application"));
        let options = [("PGAPPNAME", application.as_str())];
        world
            .psql_with(&consumer, &options, &insert("application"))
            .well();
        let comment = format!("{} /*correlation_id='{}'*/", insert("comment"), mark("comment"));
        world.psql(&consumer, &comment).well();
        // One message that holds a whole block.
        let block = format!("BEGIN; {}; {}; COMMIT", set("block"), insert("block"));
        world.psql(&consumer, &block).well();
        // As a person types it: one message a statement.
        let script = [
            "BEGIN",
            &set("typed"),
            &insert("typed"),
            "COMMIT",
            "BEGIN",
            &set("aborted"),
            &insert("aborted"),
            "SELECT pg_current_xact_id()",
            "ROLLBACK",
        ];
        let said = world.psql_script(&consumer, &(script.join(";\n") + ";\n")).well();
        let id = said.lines().find(|line| line.parse::<u64>().is_ok()).unwrap();
        compare(&world, &format!("aborted {} {id}", mark("aborted")));
    }
    assert_eq!(world.sql("SELECT count(*) FROM orders"), "10");
}

#[test]
fn tokio_postgres() {
    let world = World::start();
    let told = world.runtime.block_on(tokio_postgres_writes(&world)).unwrap();
    compare(&world, &told);
    let rows = 1 + 10 + 3 + 5000 + 1;
    assert_eq!(world.sql("SELECT count(*) FROM orders"), rows.to_string());
}

async fn tokio_postgres_writes(world: &World) -> Result<String, tokio_postgres::Error> {
    const INSERT: &str = "INSERT INTO orders (customer) VALUES ($1)";
    let consumer = world.consumer();
    let mut client = world
        .connect(&consumer, "-c gatepost.correlation_id=rust-startup")
        .await?;
    client.execute(INSERT, &[&"rust-startup"]).await?;
    let set = |what: &str| format!("SET LOCAL gatepost.correlation_id = 'rust-{what}'");

    let block = client.transaction().await?;
    block.batch_execute(&set("prepared")).await?;
    let prepared = block.prepare(INSERT).await?;
    for _ in 0..10 {
        block.execute(&prepared, &[&"rust-prepared"]).await?;
    }
    block.commit().await?;

    // Pipelined: all are on their way before the first answer.
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&"rust-startup"];
    let together = tokio::join!(
        client.execute(&prepared, &parameters),
        client.execute(&prepared, &parameters),
        client.execute(&prepared, &parameters),
    );
    assert_eq!((together.0?, together.1?, together.2?), (1, 1, 1));

    let block = client.transaction().await?;
    block.batch_execute(&set("aborted")).await?;
    block.execute(INSERT, &[&"rust-aborted"]).await?;
    let id = block.query_one("SELECT pg_current_xact_id()::text", &[]).await?;
    let told = format!("aborted rust-aborted {}", id.get::<_, &str>(0));
    let failed = block
        .execute("INSERT INTO orders (customer, cents) VALUES ('x', 0)", &[])
        .await;
    assert_eq!(failed.unwrap_err().code(), Some(&SqlState::CHECK_VIOLATION));
    // Dropped without a word: the driver rolls back.
    drop(block);

    let block = client.transaction().await?;
    block.batch_execute(&set("copy")).await?;
    let sink = block.copy_in("COPY orders (customer) FROM STDIN BINARY").await?;
    let mut rows = std::pin::pin!(BinaryCopyInWriter::new(sink, &[Type::TEXT]));
    for _ in 0..5000 {
        rows.as_mut().write(&[&"rust-copy"]).await?;
    }
    assert_eq!(rows.finish().await?, 5000);
    block.commit().await?;
    drop(client);

    let again = world
        .connect(&consumer, "-c gatepost.correlation_id=rust-again")
        .await?;
    again.execute(INSERT, &[&"rust-again"]).await?;
    Ok(told)
}

#[test]
fn okta_speaks_for_the_same_work() {
    let world = World::start();
    let consumer = world.caller(Shape::Okta, "order-consumer", "auto");
    let written = world.psql(
        &consumer,
        "INSERT INTO orders (customer, cents) VALUES ('okta', 1)",
    );
    written.well();
    let records = world.settled();
    let outcome = of_event(&records, "transaction.outcome").pop().unwrap();
    assert_eq!(outcome["identity"]["provider"], "okta");
    assert_eq!(outcome["policy"]["rule"], "okta-consumers");
}

#[test]
fn a_new_server_serves_as_well() {
    let mut world = World::without_proxy(18);
    world.serve();
    let consumer = world.consumer();
    let insert = "INSERT INTO orders (customer, cents) VALUES ('eighteen', 1)";
    world.psql(&consumer, insert).well();
    let id = world.sql("SELECT xmin::text FROM orders");
    assert_eq!(committed(&world.settled()), [id.parse().unwrap()].into());
    world.stop_proxy();
    assert_eq!(world.logins(), Vec::<String>::new());
}

/// What a client learns about itself does not let it in past gatepost.
#[test]
fn a_minted_login_is_useless_elsewhere() {
    let world = World::start();
    let consumer = world.consumer();
    let login = world.psql(&consumer, "SELECT session_user").well();
    assert!(login.starts_with("gp_e2e_"), "{login}");
    world.sql(&format!("ALTER ROLE \"{login}\" PASSWORD 'known'"));
    let refusal = world.direct(&login, "known", "SELECT 1").refusal();
    assert!(refusal.contains("valid client certificate"), "{refusal}");
}

#[test]
fn logins_end_with_the_proxy_that_made_them() {
    let mut world = World::start();
    world.psql(&world.consumer(), "SELECT 1").well();
    assert_eq!(world.logins().len(), 1);
    world.stop_proxy();
    assert_eq!(world.logins(), Vec::<String>::new());
    world.verify_journal();
}
