//! `doctor` tells the living from the dead, and ends only what is proved to be dead and ours.

use gatepost::credential::doctor::{self, Condition, Diagnosis};
use tokio::runtime::Handle;

use crate::bench::{BROKER, Bench, LONG, PASSWORD};

async fn examine(bench: &Bench) -> Diagnosis {
    doctor::examine(&bench.settings("doctor"), &["writer".into()], &Handle::current())
        .await
        .unwrap()
}

async fn repair(bench: &Bench) -> Vec<String> {
    let repaired = doctor::repair(&bench.settings("doctor"), &Handle::current())
        .await
        .unwrap();
    assert!(
        repaired.iter().all(|repaired| repaired.failed.is_none()),
        "{repaired:?}"
    );
    repaired.into_iter().map(|repaired| repaired.login).collect()
}

fn condition(diagnosis: &Diagnosis, login: &str) -> Condition {
    let found = diagnosis.logins.iter().find(|report| report.login == login);
    found
        .unwrap_or_else(|| panic!("{login}: {diagnosis:?}"))
        .condition
}

fn mark(installation: &str, epoch: &str) -> String {
    format!(
        r#"{{"gatepost":1,"installation":"{installation}","replica":"z","epoch":"{epoch}","generation":1,"role":"writer"}}"#
    )
}

#[tokio::test]
async fn the_living_are_told_from_the_dead() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    let live = hold.login().as_str();
    let diagnosis = examine(&bench).await;
    assert!(diagnosis.is_healthy(), "{diagnosis:?}");
    assert_eq!(condition(&diagnosis, live), Condition::Live);

    let as_broker = bench.server.connect(BROKER, PASSWORD, "orders").await.unwrap();
    let made = |name: &str, comment: Option<&str>| {
        let comment = comment.map_or("NULL".to_owned(), |text| format!("'{text}'"));
        format!(
            "CREATE ROLE {name} LOGIN VALID UNTIL '2100-01-01' IN ROLE writer, gatepost_minted; \
             COMMENT ON ROLE {name} IS {comment};"
        )
    };
    let sql = [
        made("gp_test_left", Some(&mark("test", "over"))),
        made("gp_test_eu_theirs", Some(&mark("test_eu", "over"))),
        made("gp_test_bare", None),
        made("gp_test_odd", Some("a note")),
        // Called like one of ours, and nothing to do with us.
        "CREATE ROLE gp_test_person LOGIN".to_owned(),
    ];
    for sql in sql {
        as_broker.batch_execute(&sql).await.unwrap();
    }
    bench
        .run("CREATE TABLE app.left_things (a int); ALTER TABLE app.left_things OWNER TO gp_test_left")
        .await;
    let diagnosis = examine(&bench).await;
    assert!(!diagnosis.is_healthy());
    assert_eq!(condition(&diagnosis, "gp_test_left"), Condition::LeftOver);
    assert_eq!(
        condition(&diagnosis, "gp_test_eu_theirs"),
        Condition::OtherInstallation
    );
    assert_eq!(condition(&diagnosis, "gp_test_bare"), Condition::WithoutComment);
    assert_eq!(condition(&diagnosis, "gp_test_person"), Condition::WithoutComment);
    assert_eq!(condition(&diagnosis, "gp_test_odd"), Condition::UnreadableComment);
    let left = diagnosis
        .logins
        .iter()
        .find(|report| report.login == "gp_test_left")
        .unwrap();
    assert_eq!(
        left.objects
            .iter()
            .map(|object| object.what.as_str())
            .collect::<Vec<_>>(),
        ["table app.left_things"]
    );

    assert_eq!(repair(&bench).await, ["gp_test_left"]);
    let admin = bench.server.admin("orders").await;
    let owner = "SELECT tableowner::text FROM pg_tables WHERE tablename = 'left_things'";
    assert_eq!(
        admin.query_one(owner, &[]).await.unwrap().get::<_, String>(0),
        "writer"
    );
    for spared in [
        live,
        "gp_test_eu_theirs",
        "gp_test_bare",
        "gp_test_odd",
        "gp_test_person",
    ] {
        assert!(bench.exists(spared).await, "{spared}");
    }
    bench.client(&hold).await;
}

#[tokio::test]
async fn a_login_without_comment_ends_only_with_proof() {
    let bench = Bench::new().await;
    let as_broker = bench.server.connect(BROKER, PASSWORD, "orders").await.unwrap();
    let made = "CREATE ROLE gp_test_bare LOGIN VALID UNTIL '2001-01-01' IN ROLE writer, gatepost_minted";
    as_broker.batch_execute(made).await.unwrap();
    let neighbour = format!(
        "CREATE ROLE gp_other_one IN ROLE writer, gatepost_minted; COMMENT ON ROLE gp_other_one IS '{}'",
        mark("other", "x")
    );
    as_broker.batch_execute(&neighbour).await.unwrap();
    // With another installation on the server it could be theirs.
    assert!(repair(&bench).await.is_empty());
    let diagnosis = examine(&bench).await;
    let report = diagnosis
        .logins
        .iter()
        .find(|report| report.login == "gp_test_bare")
        .unwrap();
    assert!(report.expired && !diagnosis.is_healthy());
    assert!(
        report.sql.contains(&"DROP ROLE \"gp_test_bare\"".to_owned()),
        "{report:?}"
    );

    bench.run("DROP ROLE gp_other_one").await;
    let admin = bench.server.admin("orders").await;
    let sql = "SELECT current_setting('server_version_num')::int4";
    let version: i32 = admin.query_one(sql, &[]).await.unwrap().get(0);
    if version >= 160_000 {
        // One that somebody else made is not ours, whatever it is called.
        bench
            .run("CREATE ROLE gp_test_foreign VALID UNTIL '2001-01-01' IN ROLE writer, gatepost_minted")
            .await;
        assert_eq!(repair(&bench).await, ["gp_test_bare"]);
        assert!(bench.exists("gp_test_foreign").await);
    } else {
        // The server does not keep who made a role.
        assert!(repair(&bench).await.is_empty());
    }
}

#[tokio::test]
async fn a_living_login_that_was_tampered_with_is_told() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    let login = hold.login();
    bench
        .run(&format!(
            "ALTER ROLE {login} SET work_mem = '1GB'; CREATE ROLE powerful; GRANT powerful TO {login}"
        ))
        .await;
    let diagnosis = examine(&bench).await;
    assert!(!diagnosis.is_healthy());
    let wrong = diagnosis.logins[0].wrong.join("; ");
    assert!(
        wrong.contains("work_mem") && wrong.contains("powerful"),
        "{wrong}"
    );
}
