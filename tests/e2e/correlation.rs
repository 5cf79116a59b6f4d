//! A rule may require that every write says what it belongs to.

use std::fs;

use crate::harness::certificates::replace;
use crate::harness::config::POLICY;
use crate::harness::journal::{committed, of_event};
use crate::harness::sqlserver::{SqlServer, Way};
use crate::harness::wait_for;
use crate::harness::world::World;

const RULE: &str = "grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}";
const SENTENCE: &str = "the policy requires a correlation id for writes, and there is none";

fn requiring(policy: &str) -> String {
    policy.replacen(RULE, &format!("{RULE}\n    correlation: required"), 1)
}

#[test]
fn a_write_without_an_id_is_refused_and_told_how_to_set_one() {
    let mut world = World::without_proxy(15);
    fs::write(world.path("policy.yaml"), requiring(POLICY)).unwrap();
    world.serve();
    let consumer = world.consumer();
    let insert = "INSERT INTO orders (customer) VALUES ('ada')";
    let refused = [
        insert.to_owned(),
        format!("BEGIN; {insert}; COMMIT"),
        // It commits by itself, and nothing of it runs.
        format!("DO $$ BEGIN {insert}; END $$"),
        // What is no id is no id.
        format!("BEGIN; SET LOCAL gatepost.correlation_id = ''; {insert}; COMMIT"),
        format!("/*traceparent=''*/ {insert}"),
    ];
    for sql in &refused {
        let told = world.psql(&consumer, sql).refusal();
        assert!(told.contains(SENTENCE), "{sql}: {told}");
        assert!(
            told.contains("SET LOCAL gatepost.correlation_id"),
            "{sql}: {told}"
        );
    }
    assert_eq!(world.psql(&consumer, "SELECT count(*) FROM orders").well(), "0");
    let good = [
        format!("BEGIN; SET LOCAL gatepost.correlation_id = 'message-1'; {insert}; COMMIT"),
        format!("/*correlation_id='message-2'*/ {insert}"),
    ];
    for sql in &good {
        world.psql(&consumer, sql).well();
    }
    let options = [("PGOPTIONS", "-c gatepost.correlation_id=message-3")];
    world.psql_with(&consumer, &options, insert).well();
    assert_eq!(world.sql("SELECT count(*) FROM orders"), "3");
    let rows = world.sql("SELECT string_agg(xmin::text, ',') FROM orders");
    let rows = rows.split(',').map(|id| id.parse().unwrap()).collect();
    assert_eq!(committed(&world.settled()), rows);
    // What was refused is on record as what it was.
    let records = world.records();
    let outcomes = of_event(&records, "transaction.outcome");
    let aborted = outcomes.iter().filter(|it| it["detail"]["outcome"] == "aborted");
    assert!(aborted.count() >= 2, "{outcomes:#?}");
    world.verify_journal();
}

/// The block that COMMIT was refused for can only be rolled back; the session goes on.
#[test]
fn open_sessions_follow_the_rule_and_survive_the_refusal() {
    let world = World::start();
    let consumer = world.consumer();
    world.runtime.block_on(async {
        let mut client = world.connect(&consumer, "").await.unwrap();
        let insert = "INSERT INTO orders (customer) VALUES ('ada')";
        client.execute(insert, &[]).await.unwrap();
        replace(&world.path("policy.yaml"), &requiring(POLICY));
        wait_for("the new policy", || {
            (of_event(&world.records(), "policy.loaded").len() == 2).then_some(())
        });
        // The bell has rung; whatever was under way may still have gone by the old one.
        let told = loop {
            match client.execute(insert, &[]).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(told) => break told,
            }
        };
        assert_eq!(told.as_db_error().unwrap().message(), SENTENCE);
        let block = client.transaction().await.unwrap();
        block.execute(insert, &[]).await.unwrap();
        let told = block.commit().await.unwrap_err();
        assert_eq!(told.as_db_error().unwrap().message(), SENTENCE);
        client.batch_execute("ROLLBACK").await.unwrap();
        let block = client.transaction().await.unwrap();
        block
            .execute(
                "SELECT set_config('gatepost.correlation_id', $1, true)",
                &[&"message-4"],
            )
            .await
            .unwrap();
        block.execute(insert, &[]).await.unwrap();
        block.commit().await.unwrap();
    });
}

#[test]
fn on_sql_server_as_well() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::prepared(&mut world, &Way::default());
    let policy = fs::read_to_string(world.path("policy.yaml")).unwrap();
    let rule = "grant: {role: parcels_writer, login_ttl: 30m, session_max: 8h}";
    let policy = policy.replace(rule, &format!("{rule}\n    correlation: required"));
    fs::write(world.path("policy.yaml"), policy).unwrap();
    server.apply_roles(&world);
    world.serve();
    let token = world.consumer().token;
    world.runtime.block_on(async {
        let mut client = server.connect(&world, &token).await.unwrap();
        let insert = "INSERT INTO dbo.parcels (driver, step, n) VALUES (N'story', N'required', 1)";
        let run = async |client: &mut tiberius::Client<_>, batch: &str| {
            client.simple_query(batch).await?.into_results().await
        };
        let told = run(&mut client, insert).await.unwrap_err();
        assert_eq!(told.code(), Some(229), "{told}");
        assert!(told.to_string().contains(SENTENCE), "{told}");
        run(&mut client, "SELECT COUNT(*) FROM dbo.parcels")
            .await
            .unwrap();
        let set = "EXEC sp_set_session_context N'correlation_id', N'message-1'";
        run(&mut client, set).await.unwrap();
        run(&mut client, insert).await.unwrap();
        client.close().await.unwrap();
    });
}
