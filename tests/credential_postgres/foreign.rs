//! A server that speaks German: nothing is told from its words.

use std::path::Path;
use std::process::Command;

use gatepost::credential::doctor;
use gatepost::credential::{Broker, BrokerError, LeaseError};
use gatepost::domain::Password;
use tokio::runtime::Handle;

use crate::bench::{BROKER, Bench, LONG, SHORT, eventually};
use crate::postgres::Options;

/// The locale as the C library compiles it, in a folder of its own: few machines have it.
fn german(folder: &Path) -> Options {
    let locale = folder.join("de_DE.UTF-8");
    let made = Command::new("localedef")
        .args(["-i", "de_DE", "-f", "UTF-8", "--no-archive"])
        .arg(&locale)
        .output()
        .unwrap();
    assert!(
        locale.exists(),
        "localedef: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder, everyone).unwrap();
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Options {
        locale: vec!["--locale=de_DE.UTF-8".to_owned()],
        environment: vec![
            variable("LOCPATH", folder.to_str().unwrap()),
            variable("LC_ALL", "de_DE.UTF-8"),
            variable("LANGUAGE", ""),
        ],
        ..Options::default()
    }
}

#[tokio::test]
async fn a_server_that_speaks_german_is_understood() {
    let locales = tempfile::tempdir().unwrap();
    let bench = Bench::with(german(locales.path())).await;
    let admin = bench.server.admin("orders").await;
    let error = admin.batch_execute("DROP ROLE nobody").await.unwrap_err();
    let words = error.as_db_error().unwrap().message().to_owned();
    // Servers that come without catalogues of messages cannot be asked.
    if std::env::var_os("GATEPOST_TEST_PG_BIN").is_none() {
        assert_eq!(words, "Rolle »nobody« existiert nicht");
    }

    let mut wrong = bench.settings("a");
    wrong.password = Password::new("wrong");
    let broker = bench.start(wrong);
    eventually("refused", async || {
        broker.ready().is_err_and(|why| why.contains("28P01"))
    })
    .await;

    let broker = bench.start(bench.settings("a"));
    let missing = bench.lease(&broker, "nobody", LONG).await;
    assert!(
        matches!(missing, Err(LeaseError::Broker(BrokerError::MissingRole { .. }))),
        "{missing:?}"
    );
    bench.run(&format!("ALTER ROLE {BROKER} NOCREATEROLE")).await;
    let lacking = bench.lease(&broker, "writer", LONG).await;
    assert!(
        matches!(
            lacking,
            Err(LeaseError::Broker(BrokerError::MissingPrivilege { .. }))
        ),
        "{lacking:?}"
    );
    bench.run(&format!("ALTER ROLE {BROKER} CREATEROLE")).await;

    owned_objects_are_handed_over(&bench, &broker).await;

    // Dropped by someone else: told by its code, at the renewal and at the end.
    let held = bench
        .lease_as(&broker, "held", "writer", SHORT_TERMS)
        .await
        .unwrap();
    let idle = bench
        .lease_as(&broker, "idle", "writer", SHORT_TERMS)
        .await
        .unwrap();
    for hold in [&held, &idle] {
        bench.run(&format!("DROP ROLE {}", hold.login())).await;
    }
    let idle_login = idle.login().to_string();
    drop(idle);
    eventually("noticed", async || {
        !bench.tampering(held.login().as_str()).is_empty()
    })
    .await;
    eventually("ended", async || {
        bench
            .events(&idle_login)
            .last()
            .is_some_and(|event| event == "login.dropped")
    })
    .await;
    let diagnosis = doctor::examine(&bench.settings("a"), &[], &Handle::current())
        .await
        .unwrap();
    assert!(diagnosis.logins.is_empty());
    assert!(bench.lease(&broker, "writer", SHORT).await.is_ok());
}

const SHORT_TERMS: &str = "login_ttl: 5s";

async fn owned_objects_are_handed_over(bench: &Bench, broker: &Broker) {
    let admin = bench.server.admin("orders").await;
    // Owned objects are in the way of a drop (2BP01), and handed over.
    let owner = bench
        .lease_as(broker, "owner", "writer", "login_ttl: 5s")
        .await
        .unwrap();
    let client = bench.client(&owner).await;
    client
        .batch_execute("CREATE TABLE app.eigen (a int)")
        .await
        .unwrap();
    let login = owner.login().to_string();
    let in_the_way = admin
        .batch_execute(&format!("DROP ROLE {login}"))
        .await
        .unwrap_err();
    assert_eq!(in_the_way.code().unwrap().code(), "2BP01");
    drop((owner, client));
    bench.gone(&login).await;
}
