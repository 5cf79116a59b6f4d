//! Generations: by age, by rotation, under load; and logins that are ended by choice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gatepost::audit::Facts;
use gatepost::credential::{BrokerError, LoginState};

use crate::bench::{BROKER, Bench, LONG, eventually, secret_of};

const TERMS: &str = "login_ttl: 30m";

#[tokio::test]
async fn a_rotation_replaces_what_is_used_and_drops_what_is_not() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let held = bench.lease_as(&broker, "held", "writer", TERMS).await.unwrap();
    let idle = bench.lease_as(&broker, "idle", "writer", TERMS).await.unwrap();
    let (old, unused) = (held.login().to_string(), idle.login().to_string());
    drop(idle);
    let client = bench.client(&held).await;

    let rotated = broker.rotate().await.unwrap();
    assert_eq!((rotated.replaced, rotated.draining, rotated.dropped), (1, 1, 1));
    bench.gone(&unused).await;
    // The old generation works for those who hold it, also for further connections.
    client
        .batch_execute("INSERT INTO app.orders VALUES (1)")
        .await
        .unwrap();
    bench.client(&held).await;
    // The new one was there before anybody asked for it.
    let views = broker.logins().await.unwrap();
    let of = |state| views.iter().find(|view| view.state == state).unwrap();
    let (current, replaced) = (of(LoginState::Current), of(LoginState::Replaced));
    assert_eq!((&*replaced.login, replaced.holds), (old.as_str(), 1));
    assert_eq!(current.holds, 0);
    assert!(current.generation > replaced.generation);
    assert_eq!(current.identity.as_ref().unwrap().subject, "held");
    let json = serde_json::to_value(current).unwrap();
    assert_eq!(json["state"], "current");
    assert!(json["expires_at"].as_str().unwrap().ends_with('Z'), "{json}");

    let next = bench.lease_as(&broker, "held", "writer", TERMS).await.unwrap();
    assert_eq!(next.login().as_str(), &*current.login);
    let (before, after) = (bench.mark(&old).await, bench.mark(next.login().as_str()).await);
    assert_eq!(before.epoch, after.epoch);
    assert_eq!(
        (before.generation, after.generation),
        (replaced.generation, current.generation)
    );
    bench.client(&next).await;

    drop(held);
    bench.gone(&old).await;
    assert!(client.simple_query("SELECT 1").await.is_err());
    bench.client(&next).await;
    let records = bench.records(&old);
    let rotated = records
        .iter()
        .find(|record| record["event"] == "secret.rotated")
        .unwrap();
    assert_eq!(
        (
            rotated["detail"]["what"].as_str(),
            rotated["detail"]["which"].as_str()
        ),
        (Some("login"), Some(old.as_str()))
    );
}

#[tokio::test]
async fn rotations_under_load_fail_no_transaction_and_leave_no_login() {
    const WORKERS: usize = 6;
    let bench = Arc::new(Bench::new().await);
    let broker = bench.start(bench.settings("a"));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (bench, broker) = (Arc::clone(&bench), broker.clone());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                // Some share an identity, and every session is short.
                let subject = format!("worker {}", worker % 4);
                while !stop.load(Ordering::Relaxed) {
                    let hold = bench.lease_as(&broker, &subject, "writer", TERMS).await.unwrap();
                    let client = bench.client(&hold).await;
                    let insert = "BEGIN; INSERT INTO app.orders VALUES (1); COMMIT";
                    client.batch_execute(insert).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let full = std::env::var_os("GATEPOST_TEST_FULL").is_some();
    let rotations = if full { 10 } else { 3 };
    for rotation in 0..rotations {
        let before = done.load(Ordering::Relaxed);
        let rotated = if rotation == 0 {
            // Twice at one time: both get an answer.
            let (one, two) = tokio::join!(broker.rotate(), broker.rotate());
            one.unwrap();
            two.unwrap()
        } else {
            broker.rotate().await.unwrap()
        };
        assert!(rotated.replaced + rotated.dropped <= 4, "{rotated:?}");
        eventually(&format!("work goes on after rotation {rotation}"), async || {
            done.load(Ordering::Relaxed) >= before + 3
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let admin = bench.server.admin("orders").await;
    let written = admin
        .query_one("SELECT count(*) FROM app.orders", &[])
        .await
        .unwrap();
    assert_eq!(
        written.get::<_, i64>(0),
        i64::try_from(done.load(Ordering::Relaxed)).unwrap()
    );
    // All are idle now, so one more rotation leaves nothing.
    broker.rotate().await.unwrap();
    eventually("no login is left", async || {
        let sql = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'gp\\_%'";
        admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    eventually("the broker knows of none", async || {
        broker.logins().await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_rotation_that_cannot_mint_says_how_far_it_came_and_breaks_nothing() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    bench.run(&format!("ALTER ROLE {BROKER} NOCREATEROLE")).await;
    match broker.rotate().await {
        Err(BrokerError::Rotation {
            replaced, left, why, ..
        }) => {
            assert_eq!((replaced, left), (0, 1));
            assert!(why.contains("CREATEROLE"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    bench.client(&hold).await;
    bench.run(&format!("ALTER ROLE {BROKER} CREATEROLE")).await;
    let again = bench.lease(&broker, "writer", LONG).await.unwrap();
    assert_eq!(again.login(), hold.login());
    assert_eq!(broker.rotate().await.unwrap().replaced, 1);
}

#[tokio::test]
async fn a_login_that_is_too_old_makes_room_for_the_next_generation() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let terms = "login_ttl: 5s, session_max: 1s, login_max_age: 2s";
    let old = bench.lease_as(&broker, "worker", "writer", terms).await.unwrap();
    let client = bench.client(&old).await;
    let young = bench.lease_as(&broker, "worker", "writer", terms).await.unwrap();
    assert_eq!(young.login(), old.login());
    drop(young);
    let mut next = None;
    eventually("a new generation", async || {
        let lease = bench.lease_as(&broker, "worker", "writer", terms).await.unwrap();
        let new = lease.login() != old.login();
        next = Some(lease);
        new
    })
    .await;
    let next = next.unwrap();
    let generations = (
        bench.mark(old.login().as_str()).await.generation,
        bench.mark(next.login().as_str()).await.generation,
    );
    assert_eq!(generations, (1, 2));
    // Both work side by side, and the old one is renewed as long as it is held.
    bench.client(&next).await;
    eventually("renewed", async || {
        bench
            .events(old.login().as_str())
            .contains(&"login.renewed".to_owned())
    })
    .await;
    client.simple_query("SELECT 1").await.unwrap();
    let login = old.login().to_string();
    drop(old);
    bench.gone(&login).await;
    bench.client(&next).await;
}

#[tokio::test]
async fn chosen_logins_end_at_once_whoever_holds_them() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let struck = bench.lease_as(&broker, "leaver", "writer", TERMS).await.unwrap();
    let spared = bench.lease_as(&broker, "stayer", "writer", TERMS).await.unwrap();
    let client = bench.client(&struck).await;
    let leaver = |facts: &Facts| facts.identity.as_ref().is_some_and(|who| who.subject == "leaver");
    let ended = broker.end_logins(Arc::new(leaver), "revoked").await;
    assert_eq!(ended, 1);
    let (login, password) = (struck.login().as_str(), secret_of(&struck));
    // No waiting: it is disabled by the time that the call returns.
    let refused = bench.server.connect(login, password, "orders").await;
    assert_eq!(refused.err().unwrap().code().unwrap().code(), "28000");
    bench.gone(login).await;
    assert!(client.simple_query("SELECT 1").await.is_err());
    bench.client(&spared).await;
    let records = bench.records(login);
    let disabled = records
        .iter()
        .find(|record| record["event"] == "login.disabled")
        .unwrap();
    assert_eq!(disabled["detail"]["why"], "revoked");
    // The dead hold does no harm, and whoever is allowed to come back gets a new login.
    let again = bench.lease_as(&broker, "leaver", "writer", TERMS).await.unwrap();
    assert_ne!(again.login(), struck.login());
    drop(struck);
    bench.client(&again).await;
}
