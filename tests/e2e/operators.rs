//! What operators do to the running proxy with gatepost's own commands, over the socket and over the API,
//! and what those in the middle of their work notice of it.

use std::fs;

use serde_json::Value;
use tokio_postgres::error::SqlState;

use crate::harness::config::POLICY;
use crate::harness::journal::{committed, of_event};
use crate::harness::programs::{Caller, Said};
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

impl World {
    /// A command of an operator at the machine.
    fn locally(&self, arguments: &[&str]) -> Said {
        self.gatepost(&[arguments, &["--config", "gatepost.yaml"]].concat())
    }

    /// What it answers as JSON.
    fn told(&self, arguments: &[&str]) -> Value {
        let said = self.locally(&[arguments, &["--json"]].concat()).well();
        serde_json::from_str(&said).unwrap()
    }

    /// A command of an operator far away, with this token.
    fn by_api(&self, token: &str, arguments: &[&str]) -> Said {
        fs::write(self.path("operator.jwt"), format!("{token}\n")).unwrap();
        let url = format!("https://{}", self.config.api);
        let way = [
            "--api",
            &url,
            "--token-file",
            "operator.jwt",
            "--ca",
            "certs/ca.crt",
        ];
        self.gatepost(&[arguments, &way].concat())
    }

    /// The references of the open sessions, oldest first.
    fn sessions(&self) -> Vec<String> {
        let mut sessions = self.told(&["sessions", "list"])["sessions"]
            .as_array()
            .unwrap()
            .clone();
        sessions.sort_by_key(|it| it["opened"].to_string());
        let reference = |it: &Value| it["session"].as_str().unwrap().to_owned();
        sessions.iter().map(reference).collect()
    }

    /// Nobody is let in, and is told that it is a revocation.
    fn is_shut_out(&self, caller: &Caller) -> bool {
        let refusal = self.psql(caller, "SELECT 1");
        !refusal.good && refusal.err.contains("the revocation lasts")
    }
}

/// What a client is told at its next statement when it was ended while it was at rest.
async fn ended(client: &tokio_postgres::Client) {
    while !client.is_closed() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn sessions_are_seen_and_one_is_ended() {
    let world = World::start();
    let consumer = world.consumer();
    let first = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    let one = world.sessions();
    let second = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    let both = world.sessions();
    assert_eq!((one.len(), both.len()), (1, 2));
    let seen = world.told(&["sessions", "list"]);
    for session in seen["sessions"].as_array().unwrap() {
        assert_eq!(session["identity"]["client_id"], "order-consumer");
        assert_eq!(session["client"]["application"], "e2e");
        assert_eq!(session["role"], "orders_writer");
        assert_eq!(session["doing"], "idle");
    }
    let table = world.locally(&["sessions", "list"]).well();
    assert!(table.starts_with("SESSION") && table.contains(&one[0]), "{table}");

    world.locally(&["sessions", "kill", &one[0]]).well();
    world.runtime.block_on(async {
        ended(&first).await;
        second.batch_execute("SELECT 1").await.unwrap();
    });
    wait_for("the end of the first", || {
        (world.sessions().len() == 1).then_some(())
    });
    let refusal = world.locally(&["sessions", "kill", &one[0]]).refusal();
    assert!(refusal.contains("is not open"), "{refusal}");
    // Nothing keeps a killed client from coming back.
    world.psql(&consumer, "SELECT 1").well();

    let records = world.records();
    let kills = of_event(&records, "admin.sessions.kill");
    let results: Vec<_> = kills
        .iter()
        .map(|it| it["detail"]["result"].as_str().unwrap())
        .collect();
    assert_eq!(results, ["permitted", "done", "permitted", "failed"]);
    assert_eq!(kills[0]["detail"]["what"], one[0].as_str());
    assert_eq!(kills[0]["detail"]["door"], "socket");
    assert!(kills[0]["detail"]["uid"].is_u64());
    drop(second);
    world.verify_journal();
}

#[test]
fn a_revocation_ends_sessions_and_logins_and_survives_a_restart() {
    let mut world = World::start();
    let consumer = world.consumer();
    let analyst = world.caller(Shape::Entra, "analyst", "orders_reader");
    let (client, other) = world.runtime.block_on(async {
        let client = world.connect(&consumer, "").await.unwrap();
        (client, world.connect(&analyst, "").await.unwrap())
    });
    assert_eq!(world.logins().len(), 2);
    let made = world.told(&[
        "revoke",
        "--client-id",
        "order-consumer",
        "--provider",
        "entra",
        "--reason",
        "laptop stolen",
    ]);
    // When the command comes back, it is out and its login lets nobody in; dropping that follows.
    world.runtime.block_on(async {
        ended(&client).await;
        other.batch_execute("SELECT 1").await.unwrap();
    });
    assert_eq!(world.sessions().len(), 1);
    assert_eq!(world.logins_in_use().len(), 1);
    assert!(world.is_shut_out(&consumer));
    wait_for("the end of the login", || {
        (world.logins().len() == 1).then_some(())
    });
    // The same application of another provider is somebody else.
    let okta = world.caller(Shape::Okta, "order-consumer", "orders_writer");
    world.psql(&okta, "SELECT 1").well();
    drop(other);

    world.stop_proxy();
    world.serve();
    assert!(world.is_shut_out(&consumer));
    let listed = world.told(&["revoke", "list"]);
    assert_eq!(listed["revocations"][0]["id"], made["id"]);
    assert_eq!(listed["revocations"][0]["reason"], "laptop stolen");
    world
        .locally(&["revoke", "lift", made["id"].as_str().unwrap()])
        .well();
    world.psql(&consumer, "SELECT 1").well();
    let unknown = world.locally(&["revoke", "lift", made["id"].as_str().unwrap()]);
    assert!(!unknown.good, "{unknown:?}");

    // One that ends by itself.
    world
        .locally(&["revoke", "--client-id", "order-consumer", "--for", "2s"])
        .well();
    wait_for("the end of the revocation", || {
        world.psql(&consumer, "SELECT 1").good.then_some(())
    });
    assert_eq!(world.told(&["revoke", "list"])["total"], 0);
    // One that would strike nobody.
    let nobody = world
        .locally(&["revoke", "--subject", "x", "--provider", "nope"])
        .refusal();
    assert!(nobody.contains("there is no identity provider nope"), "{nobody}");
    world.verify_journal();
}

#[test]
fn a_reload_says_what_it_did_and_a_bad_one_changes_nothing() {
    let world = World::start();
    let before = world.told(&["policy", "show"]);
    assert_eq!(before["admin_rules"], 1);
    fs::write(
        world.path("policy.yaml"),
        POLICY.replace("orders_reader, login_ttl", "nothing, login_ttl"),
    )
    .unwrap();
    let refusal = world.locally(&["reload"]).refusal();
    assert!(
        refusal.contains("unknown role `nothing`") && refusal.contains('^'),
        "{refusal}"
    );
    assert_eq!(world.told(&["policy", "show"])["version"], before["version"]);

    fs::write(
        world.path("policy.yaml"),
        POLICY.replace("login_ttl: 30m", "login_ttl: 29m"),
    )
    .unwrap();
    world.locally(&["reload"]).well();
    let after = world.told(&["policy", "show"]);
    assert_ne!(after["version"], before["version"]);
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64());
    let records = world.records();
    let results: Vec<_> = of_event(&records, "admin.reload")
        .iter()
        .map(|it| it["detail"]["result"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(results, ["permitted", "failed", "permitted", "done"]);
    world.verify_journal();
}

#[test]
fn logins_are_replaced_under_open_transactions() {
    let world = World::start();
    let consumer = world.consumer();
    let mut client = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    let old = world.logins();
    world.runtime.block_on(async {
        let block = client.transaction().await.unwrap();
        block
            .batch_execute("INSERT INTO orders (customer) VALUES ('during')")
            .await
            .unwrap();
        let rotated = world.told(&["rotate", "--logins", "--target", "orders"]);
        assert_eq!(rotated["rotated"][0]["replaced"], 1);
        block.commit().await.unwrap();
        client
            .batch_execute("INSERT INTO orders (customer) VALUES ('after')")
            .await
            .unwrap();
    });
    let generations = |world: &World| -> Vec<u64> {
        let logins = world.told(&["logins"]);
        let logins = logins["logins"].as_array().unwrap().clone();
        let mut found: Vec<_> = logins
            .iter()
            .map(|it| it["generation"].as_u64().unwrap())
            .collect();
        found.sort_unstable();
        found
    };
    let now = generations(&world);
    // A newcomer gets the new generation.
    world
        .psql(&consumer, "INSERT INTO orders (customer) VALUES ('newcomer')")
        .well();
    drop(client);
    wait_for("the end of the old login", || {
        world.runtime.block_on(tokio::task::yield_now());
        world
            .logins()
            .iter()
            .all(|login| !old.contains(login))
            .then_some(())
    });
    assert!(generations(&world).iter().min() > now.iter().min(), "{now:?}");
    assert_eq!(committed(&world.settled()).len(), 3);
    assert!(!world.locally(&["rotate", "--logins", "--target", "nope"]).good);
    world.verify_journal();
}

#[test]
fn over_the_api_only_what_a_rule_allows() {
    let world = World::start();
    let looker = world.provider.token(Shape::Entra, "analyst");
    let pools = world.by_api(&looker, &["pools"]).well();
    assert!(pools.starts_with("TARGET") && pools.contains("orders"), "{pools}");
    for act in [
        &["reload"][..],
        &["rotate", "--logins"],
        &["sessions", "kill", "s-00"],
        &["revoke", "--subject", "x"],
    ] {
        let refusal = world.by_api(&looker, act).refusal();
        assert!(refusal.contains("no admin rule allows"), "{act:?}: {refusal}");
    }
    for (token, told) in [
        (
            world.provider.token(Shape::Entra, "order-consumer"),
            "no admin rule allows pools.list",
        ),
        (
            world.provider.token(Shape::Okta, "analyst"),
            "no admin rule allows pools.list",
        ),
        (
            world.provider.token(Shape::Stranger, "analyst"),
            "not a configured identity provider",
        ),
        (world.provider.token(Shape::Entra, "late"), "expired"),
        (world.provider.id_token(Shape::Entra, "analyst"), "access token"),
    ] {
        let refusal = world.by_api(&token, &["pools"]).refusal();
        assert!(refusal.contains(told), "{told}: {refusal}");
        assert!(!refusal.contains(&token), "{refusal}");
    }
    // Whom a revocation strikes is no operator any more.
    world.locally(&["revoke", "--client-id", "analyst"]).well();
    let refusal = world.by_api(&looker, &["pools"]).refusal();
    assert!(refusal.contains("no admin rule allows"), "{refusal}");

    let records = world.records();
    let listed = of_event(&records, "admin.pools.list");
    assert_eq!(listed[0]["identity"]["client_id"], "analyst");
    assert_eq!(listed[0]["policy"]["rule"], "lookers");
    assert_eq!(listed[0]["detail"]["door"], "api");
    let text = records.iter().map(Value::to_string).collect::<String>() + &world.log();
    let signature = looker.rsplit('.').next().unwrap();
    assert!(!text.contains(signature));
    assert_eq!(listed.last().unwrap()["detail"]["result"], "refused");
    world.verify_journal();
}

#[test]
fn the_socket_goes_with_its_process_and_not_with_another() {
    let mut world = World::start();
    let socket = world.path("admin.sock");
    assert!(socket.exists());
    // Killed, it cannot clean up; the next one can.
    world.kill_proxy();
    assert!(socket.exists());
    let refusal = world.locally(&["pools"]).refusal();
    assert!(refusal.contains("no gatepost answers"), "{refusal}");
    world.serve();
    world.locally(&["pools"]).well();
    world.stop_proxy();
    assert!(!socket.exists());
    // What is not a dead process's socket is nobody's to remove.
    fs::write(&socket, "not a socket").unwrap();
    world.launch();
    assert_eq!(world.proxy_ends(), Some(1));
    assert!(world.log().contains("is not a socket"), "{}", world.log());
    assert_eq!(fs::read_to_string(&socket).unwrap(), "not a socket");
}

#[test]
fn an_ended_client_is_told_why() {
    let world = World::start();
    let consumer = world.consumer();
    let client = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    let reference = world.sessions().remove(0);
    let told = world.runtime.block_on(async {
        let running = client.batch_execute("SELECT pg_sleep(600)");
        let killing = async {
            wait_for("the statement", || {
                let seen = world.told(&["sessions", "list"]);
                (seen["sessions"][0]["doing"] == "running").then_some(())
            });
            world.told(&["revoke", "--session", &reference]);
        };
        let (told, ()) = tokio::join!(running, async {
            // The statement has to be sent first.
            tokio::task::yield_now().await;
            killing.await;
        });
        told.unwrap_err()
    });
    let told = told.as_db_error().unwrap().clone();
    assert_eq!(*told.code(), SqlState::ADMIN_SHUTDOWN);
    assert!(
        told.detail().unwrap_or_default().contains(&reference) || told.hint().is_some(),
        "{told:?}"
    );
    // Only that session was struck.
    world.psql(&consumer, "SELECT 1").well();
}
