//! Minted logins against a server that speaks T-SQL: they work, are looked after while used, and
//! end in order; nobody else's are touched; a broker that lacks something says what.
//!
//! The server is named by the environment variable `GATEPOST_TEST_SQLSERVER`, in the form
//! `host:port;user;password`. The user makes databases and logins, and is the broker too: on SQL Server
//! and on Babelfish a member of `sysadmin`. Each test makes a database of its own, named `broker_…`, and
//! drops it at its end. Without the variable every test starts a scripted server of its own.
//! With `GATEPOST_TEST_SQLSERVER_CA`, the file of an authority, the broker speaks TLS and verifies the
//! server's certificate.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy spares only the functions that carry the attribute"
)]

mod bench;
#[path = "../support/way.rs"]
mod way;

use bench::{Bench, LONG, SHORT, declaration, eventually};
use gatepost::credential::doctor::{self, Condition};
use gatepost::credential::{BrokerError, FindingKind, LeaseError, TAMPER_CHECK_TSQL, roles};
use gatepost::domain::Password;
use tokio::runtime::Handle;
use way::Way;

#[tokio::test]
async fn a_login_works_and_is_shared() {
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
    assert!(login.len() <= 63 && login.starts_with("gp_test"), "{login}");
    assert_eq!(one.password().secret().unwrap().expose().len(), 64);

    let mut client = bench.client(&one).await;
    client
        .run("INSERT INTO app.orders (id) VALUES (1)")
        .await
        .unwrap();
    assert_eq!(
        client
            .texts("SELECT CAST(COUNT(*) AS nvarchar(9)) FROM app.orders")
            .await,
        ["1"]
    );
    assert!(client.run("DELETE FROM app.orders").await.is_err());
    assert_eq!(client.texts("SELECT SUSER_SNAME()").await, [login]);
    // As every new upstream connection is asked.
    assert_eq!(client.texts(TAMPER_CHECK_TSQL).await, [""; 0]);

    assert_eq!(bench.events(login), ["login.minted"]);
    let views = broker.logins().await.unwrap();
    assert_eq!((views.len(), views[0].holds), (1, 2));
    broker.shutdown().await;
    assert!(!bench.exists(login).await);
    bench.end().await;
}

#[tokio::test]
async fn a_login_is_looked_after_while_held_and_ends_in_order() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", SHORT).await.unwrap();
    let login = hold.login().to_string();
    let mut client = bench.client(&hold).await;
    eventually("renewed", async || {
        bench.events(&login).contains(&"login.renewed".to_owned())
    })
    .await;
    client.run("SELECT 1").await.unwrap();

    drop(hold);
    bench.gone(&login).await;
    assert!(client.run("SELECT 1").await.is_err(), "its sessions are ended");
    assert_eq!(bench.users(&login).await, 0, "its user is gone too");
    assert_eq!(*bench.retired.0.lock().unwrap(), std::slice::from_ref(&login));
    bench.recorded_as_dropped(&login).await;
    let mut events = bench.events(&login);
    events.dedup();
    assert_eq!(
        events,
        ["login.minted", "login.renewed", "login.disabled", "login.dropped"]
    );
    broker.shutdown().await;
    bench.end().await;
}

#[tokio::test]
async fn a_login_that_was_tampered_with_is_ended_and_recorded() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let tamperings = [
        (
            "disabled",
            "ALTER LOGIN [LOGIN_NAME] DISABLE",
            "it was disabled by someone else",
        ),
        (
            "role",
            "ALTER ROLE [reader] ADD MEMBER [LOGIN_NAME]",
            "it was made a member of reader",
        ),
        (
            "left",
            "ALTER ROLE [writer] DROP MEMBER [LOGIN_NAME]",
            "its membership of writer was taken away",
        ),
        (
            "secret",
            "ALTER LOGIN [LOGIN_NAME] WITH PASSWORD = 'Another-0ne'",
            "its secret was changed",
        ),
    ];
    for (subject, tamper, expected) in tamperings {
        let hold = bench.lease_as(&broker, subject, "writer", SHORT).await.unwrap();
        let login = hold.login().to_string();
        bench.run(&tamper.replace("LOGIN_NAME", &login)).await;
        bench.recorded_as_dropped(&login).await;
        assert_eq!(bench.tampering(&login), [expected], "{subject}");
        let other = bench.lease_as(&broker, subject, "writer", SHORT).await.unwrap();
        assert_ne!(other.login().as_str(), login);
    }
    broker.shutdown().await;
    bench.end().await;
}

#[tokio::test]
async fn a_login_that_was_dropped_leaves_no_user_behind() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", SHORT).await.unwrap();
    let login = hold.login().to_string();
    bench.run(&format!("DROP LOGIN [{login}]")).await;
    eventually("its user is dropped", async || bench.users(&login).await == 0).await;
    bench.recorded_as_dropped(&login).await;
    assert_eq!(bench.tampering(&login), ["it was dropped by someone else"]);
    broker.shutdown().await;
    bench.end().await;
}

#[tokio::test]
async fn rotation_and_revocation() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let held = bench.lease_as(&broker, "busy", "writer", LONG).await.unwrap();
    let idle = bench.lease_as(&broker, "idle", "writer", LONG).await.unwrap();
    let idle_name = idle.login().to_string();
    drop(idle);
    let rotated = broker.rotate().await.unwrap();
    assert_eq!((rotated.replaced, rotated.draining, rotated.dropped), (1, 1, 1));
    bench.gone(&idle_name).await;
    // The old one goes on until its last session lets go of it.
    let mut client = bench.client(&held).await;
    client.run("SELECT 1").await.unwrap();
    let next = bench.lease_as(&broker, "busy", "writer", LONG).await.unwrap();
    assert_ne!(next.login(), held.login());
    let old = held.login().to_string();
    drop(held);
    bench.gone(&old).await;

    let mut client = bench.client(&next).await;
    let login = next.login().to_string();
    let struck = broker.end_logins(std::sync::Arc::new(|_| true), "revoked").await;
    assert_eq!(struck, 1);
    // Told to end by the time that the call returns.
    assert!(
        bench
            .connect(&login, next.password().secret().unwrap().expose())
            .await
            .is_err()
    );
    eventually("the session is ended", async || {
        client.run("SELECT 1").await.is_err()
    })
    .await;
    bench.gone(&login).await;
    broker.shutdown().await;
    bench.end().await;
}

#[tokio::test]
async fn a_sweep_ends_what_the_dead_left_and_nothing_else() {
    let bench = Bench::new().await;
    let (first, doomed) = bench.start_doomed(bench.settings("a"));
    let left = bench.lease(&first, "writer", LONG).await.unwrap();
    let orphan = left.login().to_string();
    let mut client = bench.client(&left).await;

    let second = bench.start(bench.settings("b"));
    let live = bench.lease(&second, "writer", LONG).await.unwrap();
    assert_ne!(live.login().as_str(), orphan);
    // Another installation of nearly the same name.
    let mut settings = bench.settings("c");
    settings.installation = bench.installation("Test").as_str().into();
    let stranger = bench.start(settings);
    let foreign = bench.lease(&stranger, "writer", LONG).await.unwrap();

    let control = Handle::current();
    let report = |condition: Condition| move |report: &&doctor::LoginReport| report.condition == condition;
    let examine = async || {
        let settings = bench.settings("d");
        let roles = ["writer".into()];
        let examined = doctor::examine(&settings, &roles, &control);
        examined.await.unwrap()
    };
    let before = examine().await;
    assert_eq!(before.logins.iter().filter(report(Condition::Live)).count(), 2);
    assert!(before.is_healthy(), "{before:?}");

    doomed.die();
    eventually("its lock is free", async || {
        let logins = examine().await.logins;
        logins.iter().filter(report(Condition::LeftOver)).count() == 1
    })
    .await;
    // A third replica starts, and sweeps.
    let third = bench.start(bench.settings("e"));
    bench.gone(&orphan).await;
    assert!(client.run("SELECT 1").await.is_err());
    assert_eq!(bench.users(&orphan).await, 0);
    assert!(bench.exists(live.login().as_str()).await);
    assert!(bench.exists(foreign.login().as_str()).await);
    bench.client(&live).await.run("SELECT 1").await.unwrap();
    for broker in [second, third, stranger] {
        broker.shutdown().await;
    }
    bench.end().await;
}

#[tokio::test]
async fn replicas_with_different_homes_see_one_another() {
    let bench = Bench::new().await;
    // The role is not where this broker is at home.
    let mut settings = bench.settings("a");
    settings.databases.insert(0, "master".into());
    let (first, doomed) = bench.start_doomed(settings.clone());
    let hold = bench.lease(&first, "writer", LONG).await.unwrap();
    let login = hold.login().to_string();
    bench.client(&hold).await.run("SELECT 1").await.unwrap();

    settings.databases.reverse();
    settings.replica = "b".into();
    let control = Handle::current();
    let roles = ["writer".into()];
    let seen = doctor::examine(&settings, &roles, &control).await.unwrap();
    let seen = &seen.logins[0];
    assert_eq!(
        (seen.condition, seen.role.as_ref()),
        (Condition::Live, Some(&roles[0]))
    );
    assert!(seen.is_healthy(), "{seen:?}");
    assert!(doctor::repair(&settings, &control).await.unwrap().is_empty());

    doomed.die();
    eventually("its lock is free", async || {
        let seen = doctor::examine(&settings, &roles, &control).await.unwrap();
        seen.logins[0].condition == Condition::LeftOver
    })
    .await;
    let second = bench.start(settings);
    bench.gone(&login).await;
    assert_eq!(bench.users(&login).await, 0);
    second.shutdown().await;
    bench.end().await;
}

#[tokio::test]
async fn doctor_repairs_what_the_dead_left() {
    let bench = Bench::new().await;
    let (broker, doomed) = bench.start_doomed(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    let login = hold.login().to_string();
    let settings = bench.settings("b");
    let control = Handle::current();
    assert!(doctor::repair(&settings, &control).await.unwrap().is_empty());
    doomed.die();
    eventually("repaired", async || {
        let repaired = doctor::repair(&settings, &control).await.unwrap();
        repaired
            .iter()
            .any(|one| one.login == login && one.failed.is_none())
    })
    .await;
    assert!(!bench.exists(&login).await);
    bench.end().await;
}

#[tokio::test]
async fn a_broker_that_loses_its_connection_comes_back_to_its_logins() {
    let bench = Bench::new().await;
    let server = bench.settings("a").address;
    let way = Way::open(server.clone()).await;
    let mut settings = bench.settings("a");
    settings.address.1 = way.port();
    let broker = bench.start(settings);
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    // It cannot come back before somebody has seen that it is without a connection.
    way.lead_to(None);
    eventually("noticed without being used", async || broker.ready().is_err()).await;
    way.lead_to(Some(server));
    eventually("connected again", async || broker.ready().is_ok()).await;
    let again = bench.lease(&broker, "writer", LONG).await.unwrap();
    assert_eq!(again.login(), hold.login());
    broker.shutdown().await;
    bench.end().await;
}

#[tokio::test]
async fn a_broker_that_cannot_mint_says_what_it_lacks() {
    let bench = Bench::new().await;
    let mut wrong = bench.settings("a");
    wrong.password = Password::new("wrong");
    let broker = bench.start(wrong);
    eventually("refused", async || {
        broker.ready().is_err_and(|why| why.contains("18456"))
    })
    .await;
    // The right one, while it runs.
    broker.update(bench.settings("a"));
    eventually("in use", async || broker.ready().is_ok()).await;
    assert_eq!(broker.update_pending(), None);

    match bench.lease(&broker, "nobody-made-this", LONG).await {
        Err(LeaseError::Broker(BrokerError::MissingRole { role, sql, .. })) => {
            assert_eq!(role, "nobody-made-this");
            assert!(sql.ends_with("CREATE ROLE [nobody-made-this]"), "{sql}");
        }
        other => panic!("{other:?}"),
    }
    let findings = broker
        .check_live(&["writer".into(), "absent".into()])
        .await
        .unwrap();
    let missing = findings
        .iter()
        .filter(|finding| finding.kind == FindingKind::MissingRole);
    assert_eq!(
        missing
            .map(|finding| finding.missing.as_str())
            .collect::<Vec<_>>(),
        ["absent"]
    );

    let mut nowhere = bench.settings("a");
    nowhere.address.1 = 1;
    let nowhere = bench.start(nowhere);
    eventually("unreachable", async || {
        nowhere
            .ready()
            .is_err_and(|why| why.contains("cannot be reached"))
    })
    .await;
    for broker in [broker, nowhere] {
        broker.shutdown().await;
    }
    bench.end().await;
}

#[tokio::test]
async fn odd_names_are_only_names() {
    let bench = Bench::new().await;
    let names = [
        "Orders-Writer",
        "Größe",
        "it's a role; DROP ROLE writer; --",
        "a \"role\"",
    ];
    let declared: Vec<_> = names
        .iter()
        .map(|name| declaration(&bench.database, name))
        .collect();
    let plan = roles::plan(&bench.deploy(), &declared).await.unwrap();
    roles::apply(&bench.deploy(), &plan).await.unwrap();
    let broker = bench.start(bench.settings("a"));
    // A policy refuses the others; this one it takes.
    let hold = bench
        .lease_as(&broker, "Müller]; DROP LOGIN sa", names[0], LONG)
        .await
        .unwrap();
    let mut client = bench.client(&hold).await;
    client
        .run("INSERT INTO app.orders (id) VALUES (2)")
        .await
        .unwrap();
    let left = bench
        .texts("SELECT name FROM sys.database_principals WHERE name = N'writer'")
        .await;
    assert_eq!(left, ["writer"]);
    broker.shutdown().await;
    bench.end().await;
}

#[tokio::test]
async fn roles_are_planned_applied_and_compared() {
    let bench = Bench::new().await;
    let declared = [declaration(&bench.database, "clerk")];
    let plan = roles::plan(&bench.deploy(), &declared).await.unwrap();
    let text = plan.to_string();
    for part in [
        "CREATE ROLE [clerk];",
        "GRANT SELECT ON OBJECT::[app].[orders] TO [clerk];",
        "GRANT INSERT ON OBJECT::[app].[orders] TO [clerk];",
        "GRANT EXECUTE ON OBJECT::[app].[apply] TO [clerk];",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(plan.missing_objects.is_empty(), "{plan}");
    roles::apply(&bench.deploy(), &plan).await.unwrap();
    let again = roles::plan(&bench.deploy(), &declared).await.unwrap();
    assert!(!again.to_string().contains("CREATE ROLE"), "{again}");
    if bench.keeps_permissions().await {
        assert!(again.is_empty() && again.extras.is_empty(), "{again}");
    }
    let mut absent = declaration(&bench.database, "clerk");
    absent.grants[0].objects = gatepost::policy::Objects::Tables(vec!["app.nothing".to_owned()]);
    let plan = roles::plan(&bench.deploy(), &[absent]).await.unwrap();
    assert_eq!(plan.missing_objects.len(), 1, "{plan}");
    bench.end().await;
}
