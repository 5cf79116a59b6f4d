//! Minted logins against a real PostgreSQL: they work, expire by the server's clock, are renewed
//! while used, and end in order; nobody else's are touched; a broker that lacks a right says which.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy spares only the functions that carry the attribute"
)]

mod bench;
#[path = "../support/postgres.rs"]
mod postgres;

mod doctor;
mod estate;
mod fence;
mod foreign;
mod hardened;
mod neighbours;
mod plain_reads;
mod rotation;
mod tampering;
mod update;

use bench::{BROKER, Bench, LONG, PASSWORD, SHORT, declaration, eventually, secret_of};
use gatepost::credential::{BrokerError, FindingKind, LeaseError, Mark, roles};
use gatepost::domain::Password;

#[tokio::test]
async fn a_login_works_is_shared_and_expires_by_the_servers_clock() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let (one, two) = tokio::join!(
        bench.lease(&broker, "writer", LONG),
        bench.lease(&broker, "writer", LONG)
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.login(), two.login());
    assert_eq!(broker.ready(), Ok(()));
    let login = one.login().as_str();
    assert!(login.starts_with("gp_test_orders_drop_role_writer_"), "{login}");

    let client = bench
        .server
        .connect(login, secret_of(&one), "orders")
        .await
        .unwrap();
    client
        .execute("INSERT INTO app.orders VALUES (1)", &[])
        .await
        .unwrap();
    assert!(client.execute("DELETE FROM app.orders", &[]).await.is_err());

    let life = bench.life(login).await;
    assert!((1700.0..1801.0).contains(&life), "{life}");
    let admin = bench.server.admin("orders").await;
    let sql = "SELECT rolpassword, shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname = $1";
    let row = admin.query_one(sql, &[&login]).await.unwrap();
    assert!(row.get::<_, &str>(0).starts_with("SCRAM-SHA-256$4096:"));
    let mark = Mark::parse(row.get(1)).unwrap();
    assert_eq!((mark.replica.as_str(), mark.generation), ("a", 1));
    assert_eq!(bench.events(login), ["login.minted"]);

    admin
        .batch_execute(&format!(
            "ALTER ROLE {login} VALID UNTIL '{}'",
            "2001-01-01 00:00:00Z"
        ))
        .await
        .unwrap();
    let expired = bench.server.connect(login, secret_of(&one), "orders").await;
    assert_eq!(expired.unwrap_err().code().unwrap().code(), "28P01");
    assert!(!bench.server.log().contains(secret_of(&one)));
}

#[tokio::test]
async fn a_login_is_renewed_while_held_and_ends_in_order() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", SHORT).await.unwrap();
    let login = hold.login().to_string();
    let client = bench
        .server
        .connect(&login, secret_of(&hold), "orders")
        .await
        .unwrap();
    client
        .batch_execute("CREATE TABLE app.mine (a int)")
        .await
        .unwrap();
    eventually("renewed", async || {
        bench.events(&login).contains(&"login.renewed".to_owned())
    })
    .await;
    assert!(bench.life(&login).await > 1.0);
    let again = bench.server.connect(&login, secret_of(&hold), "orders").await;
    assert!(again.is_ok());

    drop(hold);
    bench.gone(&login).await;
    assert!(
        client.simple_query("SELECT 1").await.is_err(),
        "its sessions are ended"
    );
    let admin = bench.server.admin("orders").await;
    let owner = "SELECT tableowner::text FROM pg_tables WHERE tablename = 'mine'";
    assert_eq!(
        admin.query_one(owner, &[]).await.unwrap().get::<_, String>(0),
        "writer"
    );
    assert_eq!(*bench.retired.0.lock().unwrap(), std::slice::from_ref(&login));
    eventually("recorded", async || {
        bench.events(&login).last().unwrap() == "login.dropped"
    })
    .await;
    let mut events = bench.events(&login);
    events.dedup();
    assert_eq!(
        events,
        ["login.minted", "login.renewed", "login.disabled", "login.dropped"]
    );
}

#[tokio::test]
async fn a_login_that_changed_its_settings_is_ended() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", SHORT).await.unwrap();
    let login = hold.login().to_string();
    let client = bench
        .server
        .connect(&login, secret_of(&hold), "orders")
        .await
        .unwrap();
    client
        .batch_execute("ALTER ROLE CURRENT_USER SET search_path = app")
        .await
        .unwrap();
    bench.gone(&login).await;
    assert!(bench.events(&login).contains(&"login.tampered".to_owned()));
    let other = bench.lease(&broker, "writer", SHORT).await.unwrap();
    assert_ne!(other.login().as_str(), login);
}

#[tokio::test]
async fn a_sweep_ends_what_the_dead_left_and_nothing_else() {
    let bench = Bench::new().await;
    let first = bench.start(bench.settings("a"));
    let live = bench.lease(&first, "writer", LONG).await.unwrap();
    let admin = bench.server.connect(BROKER, PASSWORD, "orders").await.unwrap();
    let orphan = |installation: &str| {
        let name = format!("gp_{installation}_orphan");
        let mark = format!(
            r#"{{"gatepost":1,"installation":"{installation}","replica":"z","epoch":"over","generation":1,"role":"writer"}}"#
        );
        let sql = format!(
            "CREATE ROLE {name} LOGIN IN ROLE writer, gatepost_minted; COMMENT ON ROLE {name} IS '{mark}'"
        );
        (name, sql)
    };
    let (own, sql) = orphan("test");
    admin.batch_execute(&sql).await.unwrap();
    let (foreign, sql) = orphan("other");
    admin.batch_execute(&sql).await.unwrap();

    let second = bench.start(bench.settings("b"));
    bench.gone(&own).await;
    assert!(bench.exists(&foreign).await);
    assert!(bench.exists(live.login().as_str()).await);
    let password = secret_of(&live);
    let still = bench
        .server
        .connect(live.login().as_str(), password, "orders")
        .await;
    assert!(still.is_ok());
    assert_eq!(second.ready(), Ok(()));

    // The broker's connection is cut: it comes back, and its logins are still its own.
    let root = bench.server.admin("orders").await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
    root.query(cut, &[&BROKER]).await.unwrap();
    let again = bench.lease(&first, "writer", LONG).await.unwrap();
    assert_eq!(again.login(), live.login());
    eventually("connected again", async || first.ready().is_ok()).await;

    first.shutdown().await;
    assert!(!bench.exists(live.login().as_str()).await);
    assert!(matches!(
        bench.lease(&first, "writer", LONG).await,
        Err(LeaseError::Broker(BrokerError::Stopped { .. }))
    ));
}

#[tokio::test]
async fn a_broker_that_cannot_mint_says_what_it_lacks() {
    let bench = Bench::new().await;
    let admin = bench.server.admin("orders").await;

    let mut wrong = bench.settings("a");
    wrong.password = Password::new("wrong");
    let broker = bench.start(wrong);
    eventually("refused", async || {
        broker.ready().is_err_and(|why| why.contains("28P01"))
    })
    .await;

    let mut nowhere = bench.settings("a");
    nowhere.address.1 = 1;
    let broker = bench.start(nowhere);
    eventually("unreachable", async || {
        broker.ready().is_err_and(|why| why.contains("cannot be reached"))
    })
    .await;

    let broker = bench.start(bench.settings("a"));
    match bench.lease(&broker, "nobody-made-this", LONG).await {
        Err(LeaseError::Broker(BrokerError::MissingRole { role, sql, .. })) => {
            assert_eq!(role, "nobody-made-this");
            assert_eq!(sql, "CREATE ROLE \"nobody-made-this\" NOLOGIN");
        }
        other => panic!("{other:?}"),
    }

    admin
        .batch_execute(&format!("ALTER ROLE {BROKER} NOCREATEROLE"))
        .await
        .unwrap();
    match bench.lease(&broker, "writer", LONG).await {
        Err(LeaseError::Broker(BrokerError::MissingPrivilege { missing, sql, .. })) => {
            assert_eq!(missing, "CREATEROLE");
            assert_eq!(sql, "ALTER ROLE \"gatepost_broker\" CREATEROLE");
            admin.batch_execute(&sql).await.unwrap();
        }
        other => panic!("{other:?}"),
    }
    bench.lease(&broker, "writer", LONG).await.unwrap();
}

#[tokio::test]
async fn a_new_server_is_reported_and_set_up_by_plan_and_apply() {
    let bench = Bench::new().await;
    let hostile = "it's \"a\"; DROP ROLE writer; --";
    // A policy refuses such a name; one that only needs quotes it accepts.
    let quoted = "Orders-Writer";
    let declared = [declaration("writer"), declaration(hostile), declaration(quoted)];
    let plan = roles::plan(&bench.deploy(), &declared).await.unwrap();
    assert!(
        plan.to_string().contains("CREATE ROLE \"it's \"\"a\"\"; DROP"),
        "{plan}"
    );
    roles::apply(&bench.deploy(), &plan).await.unwrap();
    let plan = roles::plan(&bench.deploy(), &declared).await.unwrap();
    assert!(plan.is_empty() && plan.extras.is_empty(), "{plan}");

    let admin = bench.server.admin("orders").await;
    let more = "GRANT DELETE ON app.orders TO writer; REVOKE INSERT ON app.orders FROM writer";
    admin.batch_execute(more).await.unwrap();
    let plan = roles::plan(&bench.deploy(), &declared).await.unwrap();
    assert_eq!(plan.steps.len(), 1, "{plan}");
    assert_eq!(
        plan.extras,
        ["role writer: DELETE on TABLE app.orders in database orders"]
    );

    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, quoted, SHORT).await.unwrap();
    let login = hold.login().to_string();
    let client = bench.server.connect(&login, secret_of(&hold), "orders").await;
    let client = client.unwrap();
    client
        .batch_execute("CREATE TABLE app.theirs (a int)")
        .await
        .unwrap();
    drop(hold);
    bench.gone(&login).await;
    assert!(bench.exists("writer").await);
    let findings = broker
        .check_live(&["writer".into(), "absent".into()])
        .await
        .unwrap();
    let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::MissingRole, FindingKind::NotProven]);
}
