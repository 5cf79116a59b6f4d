//! Several installations and replicas on one server: nobody touches what another answers for.

use gatepost::credential::{Broker, BrokerSettings, LoginName};

use crate::bench::{BROKER, Bench, eventually};

const TERMS: &str = "login_ttl: 30m";

async fn ready(broker: &Broker) {
    eventually("ready", async || broker.ready().is_ok()).await;
}

fn of(settings: BrokerSettings, installation: &str) -> BrokerSettings {
    BrokerSettings {
        installation: installation.into(),
        ..settings
    }
}

/// The pid that holds the lock of a login's epoch.
async fn keeper(bench: &Bench, login: &LoginName) -> i32 {
    let installation = bench.mark(login.as_str()).await.installation;
    let epoch = bench.mark(login.as_str()).await.epoch;
    let keys = {
        let text = format!("gatepost\0{installation}\0{}", epoch.as_str());
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let word = |from: usize| i32::from_be_bytes(digest.as_ref()[from..from + 4].try_into().unwrap());
        (word(0), word(4))
    };
    let admin = bench.server.admin("orders").await;
    let sql = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::int4::oid AND objid = $2::int4::oid";
    admin.query_one(sql, &[&keys.0, &keys.1]).await.unwrap().get(0)
}

#[tokio::test]
async fn two_installations_whose_names_begin_alike_keep_to_their_own() {
    let bench = Bench::new().await;
    // In LIKE, `_` would stand for any character, and `pay_eu` begins like `pay`.
    let names = ["pay", "pay_eu", "pay-eu", "payxeu"];
    let (doomed, process) = bench.start_doomed(of(bench.settings("z"), "pay"));
    let hold = bench.lease_as(&doomed, "z", "writer", TERMS).await.unwrap();
    let (dead, pid) = (hold.login().to_string(), keeper(&bench, hold.login()).await);
    assert_eq!(bench.mark(&dead).await.installation.as_str(), "pay");
    let mut holds = Vec::new();
    for name in names {
        for replica in ["a", "b"] {
            let broker = bench.start(of(bench.settings(replica), name));
            let hold = bench.lease_as(&broker, replica, "writer", TERMS).await.unwrap();
            holds.push((broker, hold));
        }
    }
    process.die();
    let admin = bench.server.admin("orders").await;
    let held = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1)";
    eventually("the replica is gone", async || {
        !admin.query_one(held, &[&pid]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    // A sweep of every other installation first: none may take it.
    for name in ["pay_eu", "pay-eu", "payxeu"] {
        let broker = bench.start(of(bench.settings("c"), name));
        ready(&broker).await;
        broker.shutdown().await;
    }
    assert!(bench.exists(&dead).await);
    let sweeper = bench.start(of(bench.settings("c"), "pay"));
    bench.gone(&dead).await;
    ready(&sweeper).await;
    for (_, hold) in &holds {
        assert!(bench.exists(hold.login().as_str()).await, "{}", hold.login());
        bench.client(hold).await;
    }
}

#[tokio::test]
async fn replicas_that_keep_their_locks_in_different_databases_see_one_another() {
    let bench = Bench::new().await;
    let admin = bench.server.admin("postgres").await;
    admin.batch_execute("CREATE DATABASE archive").await.unwrap();
    let first = bench.start(bench.settings("a"));
    let hold = bench.lease_as(&first, "one", "writer", TERMS).await.unwrap();
    // The same installation, after somebody put another database first.
    let mut settings = bench.settings("b");
    settings.databases = vec!["archive".into(), "orders".into()];
    let second = bench.start(settings);
    ready(&second).await;
    // Its sweep has come to its end when it ended an orphan.
    let orphan = "CREATE ROLE gp_test_orphan LOGIN IN ROLE writer, gatepost_minted; COMMENT ON ROLE gp_test_orphan IS \
        '{\"gatepost\":1,\"installation\":\"test\",\"replica\":\"z\",\"epoch\":\"over\",\"generation\":1,\"role\":\"writer\"}'";
    let broker = bench
        .server
        .connect(BROKER, crate::bench::PASSWORD, "orders")
        .await
        .unwrap();
    broker.batch_execute(orphan).await.unwrap();
    second.shutdown().await;
    let mut settings = bench.settings("b");
    settings.databases = vec!["archive".into(), "orders".into()];
    let _third = bench.start(settings);
    bench.gone("gp_test_orphan").await;
    bench.client(&hold).await;
}

#[tokio::test]
async fn a_replica_is_swept_only_when_its_lock_is_free() {
    let bench = Bench::new().await;
    let first = bench.start(bench.settings("a"));
    let hold = bench.lease_as(&first, "one", "writer", TERMS).await.unwrap();
    let login = hold.login().clone();
    let pid = keeper(&bench, &login).await;
    // A second connection keeps the first one's lock from being taken, as a server does that has not
    // noticed yet that a client is gone.
    let second = bench.start(bench.settings("b"));
    let other = bench.lease_as(&second, "two", "writer", TERMS).await.unwrap();
    assert_ne!(keeper(&bench, other.login()).await, pid);
    bench.client(&hold).await;
    // The first loses its connection, again and again, and comes back each time.
    for _ in 0..3 {
        let pid = keeper(&bench, &login).await;
        bench.run(&format!("SELECT pg_terminate_backend({pid})")).await;
        let admin = bench.server.admin("orders").await;
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> $1";
        eventually("locked again", async || {
            admin.query_one(sql, &[&pid]).await.unwrap().get::<_, i64>(0) >= 2
        })
        .await;
    }
    bench.client(&hold).await;
    assert_eq!(first.logins().await.unwrap().len(), 1);
}
