//! A consumer that has lost the reply to its COMMIT asks in SQL what became of it, with whatever driver.

use serde_json::Value;

use crate::harness::journal::of_event;
use crate::harness::programs::Caller;
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

/// As psql types it: two statements, two messages.
fn ask(world: &World, caller: &Caller, correlation: &str) -> Value {
    let script = format!("SET gatepost.outcome_of = '{correlation}';\nSHOW gatepost.outcomes;\n");
    let told = world.psql_script(caller, &script).well();
    let answer = told.lines().last().unwrap();
    serde_json::from_str(answer).unwrap_or_else(|_| panic!("no answer: {told}"))
}

/// One row under this correlation id; gives the transaction's number.
fn write(world: &World, caller: &Caller, correlation: &str) -> u64 {
    let options = format!("-c gatepost.correlation_id={correlation}");
    let sql = "INSERT INTO orders (customer) VALUES ('x') RETURNING pg_current_xact_id()";
    let told = world.psql_with(caller, &[("PGOPTIONS", &options)], sql).well();
    told.lines().next().unwrap().parse().unwrap()
}

#[test]
fn its_own_attempts_are_told_and_nobody_else_s() {
    let world = World::start();
    let consumer = world.consumer();
    let other = world.caller(Shape::Okta, "order-consumer", "orders_writer");
    let first = write(&world, &consumer, "m-1");
    let answer = ask(&world, &consumer, "m-1");
    assert_eq!(answer["known"], true, "{answer}");
    assert_eq!(answer["complete"], true, "{answer}");
    assert_eq!(answer["attempts"][0]["transaction_id"], first, "{answer}");
    assert_eq!(answer["attempts"][0]["outcome"], "committed", "{answer}");
    assert_eq!(answer["attempts"][0]["evidence"], "server_reply", "{answer}");

    // A second attempt, and one that failed.
    let second = write(&world, &consumer, "m-1");
    let options = [("PGOPTIONS", "-c gatepost.correlation_id=m-1")];
    let failing = "INSERT INTO orders (customer, cents) VALUES ('x', 0)";
    world.psql_with(&consumer, &options, failing).refusal();
    let answer = ask(&world, &consumer, "m-1");
    let told: Vec<_> = answer["attempts"].as_array().unwrap().iter().collect();
    assert_eq!(told.len(), 3, "{answer}");
    assert_eq!(told[1]["transaction_id"], second, "{answer}");
    assert_eq!(told[2]["outcome"], "aborted", "{answer}");

    // To somebody else it reads like one that was never used.
    let of_other = ask(&world, &other, "m-1");
    let mut of_nobody = ask(&world, &other, "m-2");
    assert_eq!(of_other["known"], false, "{of_other}");
    assert!(
        of_other["note"]
            .as_str()
            .unwrap()
            .contains("not the same as not applied")
    );
    of_nobody["correlation_id"] = "m-1".into();
    assert_eq!(of_other, of_nobody);

    // Asking is no work: it left no transaction on record.
    let records = world.records();
    let written = of_event(&records, "transaction.outcome")
        .into_iter()
        .filter(|it| it["detail"]["scope"] != "read_only");
    assert_eq!(written.count(), 3);
}

#[test]
fn psycopg_asks_with_a_parameter() {
    let world = World::start();
    let consumer = world.consumer();
    let id = write(&world, &consumer, "m-1");
    let told = world
        .python(&consumer, "psycopg3_outcomes.py", &["m-1", "m-\u{e9}"])
        .well();
    let known = format!("m-1 True [[{id}, \"committed\"]]");
    let unknown = "m-\u{e9} False []";
    let expected = [known.as_str(), unknown, &known, unknown, "mine"];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn tokio_postgres_asks_prepared_and_simple() {
    let world = World::start();
    let consumer = world.consumer();
    let id = write(&world, &consumer, "m-1");
    world.runtime.block_on(async {
        let client = world.connect(&consumer, "").await.unwrap();
        let question = "SELECT set_config('gatepost.outcome_of', $1, false)";
        let question = client.prepare(question).await.unwrap();
        for asked in ["m-1", "m-2", "m-1"] {
            client.query_one(&question, &[&asked]).await.unwrap();
            let row = client.query_one("SHOW gatepost.outcomes", &[]).await.unwrap();
            let answer: Value = serde_json::from_str(row.get(0)).unwrap();
            assert_eq!(answer["correlation_id"], asked);
            assert_eq!(answer["known"], asked == "m-1", "{answer}");
        }
        let simple = "SET gatepost.outcome_of TO 'm-1'";
        client.batch_execute(simple).await.unwrap();
        // In a block as well, before anything that takes a snapshot.
        client.batch_execute("BEGIN").await.unwrap();
        client
            .batch_execute("SET gatepost.outcome_of TO 'm-1'")
            .await
            .unwrap();
        client
            .batch_execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            .await
            .unwrap();
        let row = client.query_one("SHOW gatepost.outcomes", &[]).await.unwrap();
        let answer: Value = serde_json::from_str(row.get(0)).unwrap();
        assert_eq!(answer["attempts"][0]["transaction_id"], id, "{answer}");
        client.batch_execute("COMMIT").await.unwrap();
    });
    // The next client of the connection does not see it.
    let left = world
        .psql(
            &consumer,
            "SELECT coalesce(current_setting('gatepost.outcomes', true), '')",
        )
        .well();
    assert_eq!(left.trim(), "");
}

#[test]
fn an_attempt_that_was_cut_off_is_told_when_it_is_known() {
    let mut world = World::with_plain_door();
    world.serve();
    let mut client = world.plain(&world.consumer());
    client.query("SET gatepost.correlation_id = 'm-1'").well();
    world.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep(4); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    client.ask("INSERT INTO orders (customer) VALUES ('x')");
    wait_for("the commit", || {
        let active = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        (world.sql(active) == "1").then_some(())
    });
    // The client's line is cut: gatepost goes on, and whoever asks too early is told so.
    drop(client);
    let answer = ask(&world, &world.consumer(), "m-1");
    assert_eq!(answer["attempts"][0]["outcome"], "unresolved", "{answer}");
    wait_for("the outcome", || {
        let answer = ask(&world, &world.consumer(), "m-1");
        (answer["attempts"][0]["outcome"] == "committed").then_some(())
    });
}
