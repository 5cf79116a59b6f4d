//! Databases that give PUBLIC nothing, and a cap on what gatepost itself puts into a server.

use gatepost::credential::{BrokerError, FindingKind, LeaseError, roles};

use crate::bench::{BROKER, Bench, LONG, PASSWORD, declaration, eventually};

const HARDENED: &str = "REVOKE CONNECT, TEMPORARY ON DATABASE orders FROM PUBLIC; \
    REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC; \
    REVOKE ALL ON DATABASE postgres FROM PUBLIC; REVOKE ALL ON DATABASE template1 FROM PUBLIC";

#[tokio::test]
async fn a_database_without_public_grants_says_exactly_what_is_missing() {
    let bench = Bench::new().await;
    bench.run(HARDENED).await;
    let grants = [
        format!("GRANT CONNECT ON DATABASE \"orders\" TO \"{BROKER}\""),
        "GRANT CONNECT ON DATABASE \"orders\" TO \"writer\"".to_owned(),
    ];
    let broker = bench.start(bench.settings("a"));
    match bench.lease(&broker, "writer", LONG).await {
        Err(LeaseError::Broker(BrokerError::MissingPrivilege { sql, .. })) => assert_eq!(sql, grants[0]),
        Err(LeaseError::NotConnected { why, .. }) => assert!(why.contains(&grants[0]), "{why}"),
        other => panic!("{other:?}"),
    }
    eventually("told", async || {
        broker.ready().is_err_and(|why| why.contains(&grants[0]))
    })
    .await;
    let plan = roles::plan(&bench.deploy(), &[declaration("writer")])
        .await
        .unwrap();
    let mut steps: Vec<_> = plan.steps.iter().map(|step| step.sql.clone()).collect();
    steps.sort();
    assert_eq!(steps, grants);

    // With the broker's own grant alone, `check --live` names the other.
    bench.run(&grants[0]).await;
    let findings = broker.check_live(&["writer".into()]).await.unwrap();
    let missing = findings
        .iter()
        .find(|finding| finding.kind == FindingKind::MissingPrivilege)
        .unwrap();
    assert_eq!(missing.sql, grants[1]);

    roles::apply(&bench.deploy(), &plan).await.unwrap();
    eventually("in", async || broker.ready().is_ok()).await;
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    let client = bench.client(&hold).await;
    client
        .batch_execute("INSERT INTO app.orders VALUES (1); SELECT app.apply('{}')")
        .await
        .unwrap();
    // What a pool sends between two clients.
    client
        .batch_execute(
            "RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES",
        )
        .await
        .unwrap();
    client
        .simple_query("SELECT pg_catalog.pg_current_xact_id_if_assigned()")
        .await
        .unwrap();
    client
        .simple_query(gatepost::credential::TAMPER_CHECK_SQL)
        .await
        .unwrap();
    client
        .batch_execute("CREATE TABLE app.mine (a int)")
        .await
        .unwrap();
    let login = hold.login().to_string();
    broker.tampered(&login, "a test says so".to_owned());
    bench.gone(&login).await;
    let findings = broker.check_live(&["writer".into()]).await.unwrap();
    assert!(
        findings
            .iter()
            .all(|finding| finding.kind == FindingKind::NotProven),
        "{findings:?}"
    );
}

#[tokio::test]
async fn there_are_never_more_logins_than_the_cap() {
    let bench = Bench::new().await;
    // Of another replica, which lives: its lock is held here.
    let other = bench.server.connect(BROKER, PASSWORD, "orders").await.unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"gatepost\0test\0busy");
    let word = |from: usize| i32::from_be_bytes(digest.as_ref()[from..from + 4].try_into().unwrap());
    other
        .query("SELECT pg_advisory_lock($1, $2)", &[&word(0), &word(4)])
        .await
        .unwrap();
    let mark =
        r#"{"gatepost":1,"installation":"test","replica":"z","epoch":"busy","generation":1,"role":"writer"}"#;
    let flood = format!(
        "DO $$ BEGIN FOR i IN 1..10000 LOOP EXECUTE format('CREATE ROLE gp_test_%s IN ROLE writer, gatepost_minted', i); \
         EXECUTE format('COMMENT ON ROLE gp_test_%s IS %L', i, '{mark}'); END LOOP; END $$"
    );
    bench.run(&flood).await;
    let broker = bench.start(bench.settings("a"));
    match bench.lease(&broker, "writer", LONG).await {
        Err(LeaseError::Broker(error @ BrokerError::TooManyLogins { .. })) => {
            assert!(
                error.to_string().contains("10000") && error.to_string().contains("doctor"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    // Another installation is not held to account for it.
    let mut settings = bench.settings("a");
    settings.installation = "test_two".into();
    let neighbour = bench.start(settings);
    bench.lease(&neighbour, "writer", LONG).await.unwrap();
}
