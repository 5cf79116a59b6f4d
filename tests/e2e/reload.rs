//! What changes while the proxy runs: policies, certificates, secrets, providers. What is wrong changes
//! nothing.

use std::fs;

use serde_json::Value;
use tokio_postgres::error::SqlState;

use crate::harness::certificates::replace;
use crate::harness::config::POLICY;
use crate::harness::journal::{committed, of_event};
use crate::harness::wait_for;
use crate::harness::world::World;

/// Policies that were put in force, the first at the start.
fn loads(world: &World) -> usize {
    of_event(&world.records(), "policy.loaded").len()
}

/// Waits until everything was read for the `count`th time.
fn wait_for_load(world: &World, count: usize) {
    wait_for("a reload", || (loads(world) == count).then_some(()));
}

fn last_closed(world: &World) -> Value {
    let records = world.records();
    let closed = of_event(&records, "session.closed");
    (*closed.last().unwrap()).clone()
}

#[test]
fn a_policy_that_grants_no_more_ends_sessions_at_their_transactions_end() {
    let world = World::start();
    let consumer = world.consumer();
    world.runtime.block_on(async {
        let mut busy = world.connect(&consumer, "").await.unwrap();
        let idle = world.connect(&consumer, "").await.unwrap();
        let block = busy.transaction().await.unwrap();
        block
            .batch_execute("INSERT INTO orders (customer) VALUES ('in time')")
            .await
            .unwrap();
        let narrower = POLICY.replace("client_id: [order-consumer, brief], ", "client_id: nobody, ");
        replace(&world.path("policy.yaml"), &narrower);
        while !idle.is_closed() {
            tokio::task::yield_now().await;
        }
        let refused = world.connect(&consumer, "").await.err().unwrap();
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
        block.commit().await.unwrap();
        while !busy.is_closed() {
            tokio::task::yield_now().await;
        }
    });
    let id = world.sql("SELECT xmin::text FROM orders");
    assert_eq!(committed(&world.settled()), [id.parse().unwrap()].into());
    let closed = last_closed(&world);
    assert_eq!(closed["detail"]["why"], "session_expired");
    assert_eq!(
        closed["detail"]["reason"],
        "the policy changed and no longer grants this session"
    );
    let records = world.records();
    let versions: Vec<_> = of_event(&records, "policy.loaded")
        .iter()
        .map(|it| it["policy"]["version"].clone())
        .collect();
    assert_eq!(versions.len(), 2);
    assert_ne!(versions[0], versions[1]);
    world.verify_journal();
}

#[test]
fn a_policy_with_a_mistake_changes_nothing_and_says_why() {
    let world = World::start();
    let consumer = world.consumer();
    let client = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    replace(
        &world.path("policy.yaml"),
        &POLICY.replace("orders_reader, login_ttl", "nothing, login_ttl"),
    );
    wait_for("the refusal", || {
        (of_event(&world.records(), "policy.rejected").len() == 1).then_some(())
    });
    world.runtime.block_on(client.batch_execute("SELECT 1")).unwrap();
    world.psql(&consumer, "SELECT 1").well();
    assert!(world.log().contains("policy.yaml:"), "{}", world.log());
    // A key that only a restart can change is named.
    replace(&world.path("policy.yaml"), POLICY);
    wait_for_load(&world, 2);
    let text = fs::read_to_string(world.path("gatepost.yaml")).unwrap();
    replace(
        &world.path("gatepost.yaml"),
        &text.replace("installation: e2e", "installation: other"),
    );
    world.tell_proxy_to_reload();
    wait_for("the refusal of the frozen key", || {
        world
            .log()
            .contains("installation cannot change while gatepost runs")
            .then_some(())
    });
    replace(&world.path("gatepost.yaml"), &text);
    world.tell_proxy_to_reload();
    wait_for("the next reload", || (loads(&world) >= 3).then_some(()));
    world.runtime.block_on(client.batch_execute("SELECT 1")).unwrap();
    world.verify_journal();
}

#[test]
fn new_certificates_count_for_new_connections_and_hurt_no_old_one() {
    let world = World::start();
    let consumer = world.consumer();
    let client = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    assert_eq!(world.certificate_shown(), world.certificate_on_disk("server"));
    world.reissue("server");
    let serial = world.reissue("client").to_string();
    wait_for("both certificates", || {
        let records = world.records();
        let rotated = of_event(&records, "secret.rotated");
        let has = |what: &str| rotated.iter().any(|it| it["detail"]["what"] == what);
        (has("server_certificate") && has("client_certificate")).then_some(())
    });
    world.runtime.block_on(client.batch_execute("SELECT 1")).unwrap();
    assert_eq!(world.certificate_shown(), world.certificate_on_disk("server"));
    // The server sees the new one on connections that are opened from now on.
    let used = "SELECT client_serial FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let other = [("PGOPTIONS", "-c work_mem=5MB")];
    assert_eq!(world.psql_with(&consumer, &other, used).well(), serial);
    world.verify_journal();
}

#[test]
fn a_new_password_of_the_broker_is_picked_up() {
    let world = World::start();
    let consumer = world.consumer();
    let client = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    world.sql("ALTER ROLE gatepost_broker PASSWORD 'next secret'");
    replace(&world.path("broker-password"), "next secret\n");
    wait_for("the new password", || {
        (of_event(&world.records(), "secret.rotated").len() == 1).then_some(())
    });
    world.runtime.block_on(client.batch_execute("SELECT 1")).unwrap();
    // The broker's old connections are ended: it comes back with the new password, and mints.
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gatepost_broker'");
    wait_for("a new login", || {
        let reader = world.caller(
            crate::harness::provider::Shape::Okta,
            "order-consumer",
            "orders_writer",
        );
        world.psql(&reader, "SELECT 1").good.then_some(())
    });
    let records = world.records();
    let rotated = of_event(&records, "secret.rotated");
    assert_eq!(rotated[0]["detail"]["what"], "broker_password");
    assert_eq!(rotated[0]["detail"]["which"], "orders");
    assert!(!world.log().contains("next secret"));
    world.verify_journal();
}
