//! The timers and limits of a rule: gatepost keeps them itself, whatever the client sets on the server.

use std::fs;

use tokio_postgres::error::SqlState;

use crate::harness::config::POLICY;
use crate::harness::journal::{committed, of_event};
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

/// The consumers' rule with these limits.
fn world(limits: &str) -> World {
    let mut world = World::without_proxy(15);
    let rule = "    grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}\n  - name: entra-analysts";
    let limited = rule.replacen("8h}\n", &format!("8h}}\n    limits: {{{limits}}}\n"), 1);
    let policy = POLICY.replace(rule, &limited);
    assert_ne!(policy, POLICY);
    fs::write(world.path("policy.yaml"), policy).unwrap();
    world.serve();
    world
}

#[test]
fn a_statement_that_runs_too_long_is_cancelled_and_says_so() {
    let world = world("statement_timeout: 1s");
    let consumer = world.consumer();
    world.runtime.block_on(async {
        let client = world.connect(&consumer, "").await.unwrap();
        // The server's own timeout is the client's to set; gatepost's is not.
        client.batch_execute("SET statement_timeout = 0").await.unwrap();
        for sql in [
            "SELECT pg_sleep(60)",
            "INSERT INTO orders (customer) SELECT 'x' FROM pg_sleep(60)",
        ] {
            let error = client.batch_execute(sql).await.unwrap_err();
            let told = error.as_db_error().unwrap();
            assert_eq!(*told.code(), SqlState::QUERY_CANCELED);
            assert_eq!(told.message(), "the statement ran longer than the limit of 1s");
            assert!(
                told.hint().unwrap().contains("limits.statement_timeout"),
                "{told:?}"
            );
        }
        // In a block, by the extended protocol: the block has failed, the session lives on.
        client.batch_execute("BEGIN").await.unwrap();
        let error = client
            .query("SELECT pg_sleep($1)", &[&60.0_f64])
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
        client.batch_execute("ROLLBACK").await.unwrap();
        // What is quick is never hit, however long the session lives.
        for _ in 0..30 {
            client.batch_execute("SELECT pg_sleep(0.05)").await.unwrap();
        }
        client
            .batch_execute("INSERT INTO orders (customer) VALUES ('quick')")
            .await
            .unwrap();
    });
    let id = world.sql("SELECT xmin::text FROM orders");
    assert_eq!(committed(&world.settled()), [id.parse().unwrap()].into());
    world.verify_journal();
}

#[test]
fn a_transaction_that_waits_too_long_for_its_client_is_rolled_back() {
    let world = world("idle_in_transaction: 1s");
    let consumer = world.consumer();
    world.runtime.block_on(async {
        let waiting = world.connect(&consumer, "").await.unwrap();
        let idle = world.connect(&consumer, "").await.unwrap();
        waiting
            .batch_execute("SET idle_in_transaction_session_timeout = 0; BEGIN; INSERT INTO orders (customer) VALUES ('lost')")
            .await
            .unwrap();
        while !waiting.is_closed() {
            tokio::task::yield_now().await;
        }
        // Being idle outside of a transaction is another thing.
        idle.batch_execute("SELECT 1").await.unwrap();
    });
    assert_eq!(world.sql("SELECT count(*) FROM orders"), "0");
    let records = world.settled();
    let closed = of_event(&records, "session.closed");
    assert_eq!(closed[0]["detail"]["why"], "idle_in_transaction", "{closed:?}");
    assert_eq!(closed[1]["detail"]["why"], "client_left", "{closed:?}");
    let outcomes = of_event(&records, "transaction.outcome");
    assert!(
        outcomes.iter().any(|it| it["detail"]["outcome"] == "aborted"),
        "{outcomes:?}"
    );
}

#[test]
fn a_session_that_waits_too_long_for_its_client_ends() {
    let world = world("idle: 1s");
    let consumer = world.consumer();
    world.runtime.block_on(async {
        let client = world.connect(&consumer, "").await.unwrap();
        for _ in 0..20 {
            client.batch_execute("SELECT pg_sleep(0.1)").await.unwrap();
        }
        while !client.is_closed() {
            tokio::task::yield_now().await;
        }
    });
    let closed = wait_for("the end in the journal", || {
        of_event(&world.records(), "session.closed")
            .first()
            .map(|it| (*it).clone())
    });
    assert_eq!(closed["detail"]["why"], "idle_session");
    assert_eq!(
        closed["detail"]["reason"],
        "the session was idle longer than the limit of 1s"
    );
}

#[test]
fn a_rule_has_so_many_seats_for_everybody_together() {
    let world = world("rule_sessions: 2, sessions: 2");
    let consumer = world.consumer();
    let other = world.caller(Shape::Entra, "brief", "orders_writer");
    world.runtime.block_on(async {
        let first = world.connect(&consumer, "").await.unwrap();
        let second = world.connect(&other, "").await.unwrap();
        let refused = world.connect(&consumer, "").await.err().unwrap();
        let told = refused.as_db_error().unwrap();
        assert_eq!(*told.code(), SqlState::TOO_MANY_CONNECTIONS);
        assert_eq!(
            told.message(),
            "too many sessions under this rule: the limit is 2"
        );
        drop((first, second));
        // Counted down when they leave.
        while world.connect(&consumer, "").await.is_err() {
            tokio::task::yield_now().await;
        }
    });
}
