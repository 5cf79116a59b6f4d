//! Every driver connects with a token, writes in its own way, and each of its transactions is in the
//! journal once, with the database's id, the outcome, and the correlation id that the client gave.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::journal::{committed, correlation, of_event};
use crate::harness::provider::Shape;
use crate::harness::world::World;

/// What every driver does is told by rows: each carries as `customer` the correlation id of its own
/// transaction. `aborted` is the id of a transaction that wrote and was rolled back.
fn compare(world: &World, driver: &str, aborted: &str) {
    let records = world.records();
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
        assert!(
            correlation(outcome).contains(&given),
            "{given} is not in {outcome}"
        );
        assert_eq!(outcome["identity"]["client_id"], "order-consumer");
        assert_eq!(outcome["role"], "orders_writer");
        assert_eq!(outcome["client"]["application"], "e2e");
    }
    let written = world.sql("SELECT count(DISTINCT xmin::text) FROM orders");
    assert_eq!(committed(&records).len(), written.parse::<usize>().unwrap());

    let rolled_back = by_id[&aborted.parse().unwrap()];
    assert_eq!(rolled_back["detail"]["outcome"], "aborted");
    assert_eq!(correlation(rolled_back), [format!("{driver}-aborted")]);
    world.verify_journal();
}

#[test]
fn psql_in_three_ways() {
    let world = World::start();
    let consumer = world.consumer();
    let startup = [("PGOPTIONS", "-c gatepost.correlation_id=psql-startup")];
    let insert = "INSERT INTO orders (customer, cents) VALUES";
    world
        .psql_with(&consumer, &startup, &format!("{insert} ('psql-startup', 1)"))
        .well();
    let application = [("PGAPPNAME", "e2e")];
    let comment = format!("{insert} ('psql-comment', 1) /*correlation_id='psql-comment'*/");
    world.psql_with(&consumer, &application, &comment).well();
    // As a person types it: one message a statement.
    let block = format!(
        "BEGIN\\;SET LOCAL gatepost.correlation_id = 'psql-block'\\;{insert} ('psql-block', 1)\\;COMMIT"
    );
    world.psql(&consumer, &block.replace("\\;", ";\n")).well();
    let script = format!(
        "BEGIN;\nSET LOCAL gatepost.correlation_id = 'psql-aborted';\n{insert} ('psql-aborted', 1);\n\
         SELECT pg_current_xact_id();\nROLLBACK;\n"
    );
    let said = world.psql_script(&consumer, &script).well();
    let aborted = said.lines().find(|line| line.parse::<u64>().is_ok()).unwrap();
    compare(&world, "psql", aborted);
}

#[test]
fn psycopg_3() {
    let world = World::start();
    let aborted = world.python(&world.consumer(), "psycopg3.py").well();
    compare(&world, "psycopg3", &aborted);
}

#[test]
fn psycopg_2() {
    let world = World::start();
    let aborted = world.python(&world.consumer(), "psycopg2.py").well();
    compare(&world, "psycopg2", &aborted);
}

#[test]
fn asyncpg() {
    let world = World::start();
    let aborted = world.python(&world.consumer(), "asyncpg_driver.py").well();
    compare(&world, "asyncpg", &aborted);
}

#[test]
fn tokio_postgres() {
    let world = World::start();
    let aborted = world.runtime.block_on(tokio_postgres_writes(&world)).unwrap();
    compare(&world, "rust", &aborted);
}

async fn tokio_postgres_writes(world: &World) -> Result<String, tokio_postgres::Error> {
    let mut client = world
        .connect(&world.consumer(), "-c gatepost.correlation_id=rust-startup")
        .await?;
    let insert = "INSERT INTO orders (customer, cents) VALUES ($1, $2)";
    let block = client.transaction().await?;
    block
        .batch_execute("SET LOCAL gatepost.correlation_id = 'rust-block'")
        .await?;
    block.execute(insert, &[&"rust-block", &1_i64]).await?;
    block.commit().await?;
    client.execute(insert, &[&"rust-startup", &1_i64]).await?;
    let prepared = client.prepare(insert).await?;
    // Pipelined: all are on their way before the first answer.
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&"rust-startup", &2_i64];
    let together = tokio::join!(
        client.execute(&prepared, &parameters),
        client.execute(&prepared, &parameters),
        client.execute(&prepared, &parameters),
    );
    assert_eq!((together.0?, together.1?, together.2?), (1, 1, 1));
    let block = client.transaction().await?;
    block
        .batch_execute("SET LOCAL gatepost.correlation_id = 'rust-aborted'")
        .await?;
    block.execute(insert, &[&"rust-aborted", &1_i64]).await?;
    let id = block
        .query_one("SELECT pg_current_xact_id()::text", &[])
        .await?
        .get(0);
    block.rollback().await?;
    Ok(id)
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
    let records = world.records();
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
    assert_eq!(committed(&world.records()), [id.parse().unwrap()].into());
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
