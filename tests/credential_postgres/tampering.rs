//! What a client can do to its own minted login from inside, where no statement fence sees it; and what
//! others can do to it. The server refuses it, or it is undone and recorded.

use gatepost::credential::{Broker, LeaseHold, TAMPER_CHECK_SQL};
use tokio_postgres::Client;

use crate::bench::{BROKER, Bench, LONG, PASSWORD, SHORT, eventually, secret_of};

/// Runs a statement where only the server can judge it.
async fn from_inside(client: &Client, sql: &str) -> Result<(), String> {
    let hidden = format!("DO $do$ BEGIN EXECUTE $sql${sql}$sql$; END $do$");
    let done = client.batch_execute(&hidden).await;
    done.map_err(|error| error.code().map_or("none", |code| code.code()).to_owned())
}

async fn version(client: &Client) -> i32 {
    let sql = "SELECT current_setting('server_version_num')::int4";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// What a new upstream connection of the login would be told.
async fn check(bench: &Bench, hold: &LeaseHold) -> Vec<String> {
    let client = bench.client(hold).await;
    let rows = client.query(TAMPER_CHECK_SQL, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Ends what was tampered with, and gives the identity a new login.
async fn undone(bench: &Bench, broker: &Broker, hold: LeaseHold, word: &str) {
    let login = hold.login().to_string();
    bench.gone(&login).await;
    let told = bench.tampering(&login);
    assert!(told.iter().any(|what| what.contains(word)), "{word}: {told:?}");
    let next = bench.lease(broker, "writer", SHORT).await.unwrap();
    assert_ne!(next.login().as_str(), login);
    bench.client(&next).await;
}

#[tokio::test]
async fn the_server_refuses_what_a_login_has_no_right_to() {
    let bench = Bench::new().await;
    bench
        .run(
            "CREATE ROLE powerful NOLOGIN; CREATE ROLE stranger NOLOGIN; GRANT ALL ON app.orders TO powerful",
        )
        .await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    let client = bench.client(&hold).await;
    let login = hold.login().as_str();
    let refused = [
        "SET ROLE powerful".to_owned(),
        format!("SET ROLE {BROKER}"),
        "SET ROLE postgres".to_owned(),
        "SET SESSION AUTHORIZATION powerful".to_owned(),
        "SET SESSION AUTHORIZATION postgres".to_owned(),
        "CREATE ROLE mine LOGIN".to_owned(),
        "CREATE USER mine SUPERUSER".to_owned(),
        "GRANT powerful TO CURRENT_USER".to_owned(),
        "GRANT writer TO stranger".to_owned(),
        "GRANT gatepost_minted TO stranger".to_owned(),
        "SELECT rolpassword FROM pg_authid".to_owned(),
        format!("SELECT set_config('role', '{BROKER}', false)"),
        "ALTER ROLE powerful PASSWORD 'x'".to_owned(),
        format!("ALTER ROLE {BROKER} PASSWORD 'x'"),
        "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'".to_owned(),
        "ALTER ROLE CURRENT_USER CREATEROLE".to_owned(),
        "ALTER ROLE CURRENT_USER SUPERUSER".to_owned(),
        "ALTER ROLE CURRENT_USER CONNECTION LIMIT 1".to_owned(),
        "ALTER ROLE CURRENT_USER NOINHERIT".to_owned(),
        format!("ALTER ROLE {login} RENAME TO mine"),
        format!("COMMENT ON ROLE {login} IS NULL"),
        format!("DROP ROLE {login}"),
        "ALTER ROLE CURRENT_USER SET session_preload_libraries = 'x'".to_owned(),
        "ALTER SYSTEM SET log_statement = 'none'".to_owned(),
        "COPY app.orders TO PROGRAM 'true'".to_owned(),
        "SELECT pg_read_file('PG_VERSION')".to_owned(),
    ];
    for sql in refused {
        let code = from_inside(&client, &sql).await.expect_err(&sql);
        // The last is for what cannot stand in a block at all: it is as good as refused.
        assert!(
            ["42501", "0LP01", "22023", "25001", "0A000", "55006", "42939"].contains(&code.as_str()),
            "{sql}: {code}"
        );
    }
    let minted = from_inside(&client, "SET ROLE gatepost_minted").await;
    if version(&client).await >= 160_000 {
        assert_eq!(
            minted,
            Err("42501".to_owned()),
            "nobody needs to become the group"
        );
    } else {
        // The group has no rights, so nothing is won.
        assert_eq!(minted, Ok(()));
        assert!(
            client
                .execute("INSERT INTO app.orders VALUES (1)", &[])
                .await
                .is_err()
        );
        client.batch_execute("RESET ROLE").await.unwrap();
    }
    assert_eq!(check(&bench, &hold).await, [""; 0]);
    assert_eq!(broker.logins().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_password_of_its_own_is_noticed_recorded_and_ends_the_login() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", SHORT).await.unwrap();
    let client = bench.client(&hold).await;
    from_inside(&client, "ALTER ROLE CURRENT_USER PASSWORD 'stolen'")
        .await
        .unwrap();
    let login = hold.login().to_string();
    bench.server.connect(&login, "stolen", "orders").await.unwrap();
    undone(&bench, &broker, hold, "secret").await;
    assert!(bench.server.connect(&login, "stolen", "orders").await.is_err());
}

#[tokio::test]
async fn settings_of_its_own_are_told_to_the_next_connection_and_end_the_login() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    let client = bench.client(&hold).await;
    // The schema in front of pg_catalog has its own idea of every name that a careless check would use.
    client
        .batch_execute(
            "CREATE FUNCTION app.no(name, name) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false'; \
             CREATE OPERATOR app.= (LEFTARG = name, RIGHTARG = name, FUNCTION = app.no); \
             CREATE FUNCTION app.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT NULL::text WHERE false'; \
             CREATE VIEW app.pg_roles AS SELECT * FROM pg_catalog.pg_roles WHERE false; \
             CREATE VIEW app.pg_db_role_setting AS SELECT * FROM pg_catalog.pg_db_role_setting WHERE false",
        )
        .await
        .unwrap();
    from_inside(
        &client,
        "ALTER ROLE CURRENT_USER SET search_path = app, pg_catalog",
    )
    .await
    .unwrap();
    from_inside(
        &client,
        "ALTER ROLE CURRENT_USER IN DATABASE orders SET work_mem = '1GB'",
    )
    .await
    .unwrap();
    let mut told = check(&bench, &hold).await;
    told.sort();
    assert_eq!(told, ["set search_path for itself", "set work_mem for itself"]);
    broker.tampered(hold.login().as_str(), format!("it {}", told.join(", ")));
    undone(&bench, &broker, hold, "search_path").await;
}

#[tokio::test]
async fn a_suspected_login_is_looked_at_before_its_renewal() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    let client = bench.client(&hold).await;
    // From now on nobody can log in with it.
    from_inside(
        &client,
        "ALTER ROLE CURRENT_USER SET local_preload_libraries = 'nonsense'",
    )
    .await
    .unwrap();
    let (login, password) = (hold.login().as_str(), secret_of(&hold));
    assert!(bench.server.connect(login, password, "orders").await.is_err());
    broker.suspect(login);
    undone(&bench, &broker, hold, "local_preload_libraries").await;
    // One that is as it should be outlives any suspicion.
    let honest = bench
        .lease_as(&broker, "honest", "writer", "login_ttl: 30m")
        .await
        .unwrap();
    for _ in 0..10 {
        broker.suspect(honest.login().as_str());
    }
    eventually("looked at", async || {
        bench
            .events(honest.login().as_str())
            .contains(&"login.renewed".to_owned())
    })
    .await;
    assert!(bench.tampering(honest.login().as_str()).is_empty());
}

/// What somebody with more rights does to a login: at its next renewal it ends.
#[tokio::test]
async fn what_others_do_to_a_login_ends_it_at_its_renewal() {
    let bench = Bench::new().await;
    bench
        .run("CREATE ROLE accomplice LOGIN PASSWORD 'x'; CREATE ROLE powerful NOLOGIN")
        .await;
    let broker = bench.start(bench.settings("a"));
    let cases = [
        ("ALTER ROLE {} VALID UNTIL 'infinity'", "end was moved"),
        (
            "ALTER ROLE {} CONNECTION LIMIT 7",
            "connection limit was set to 7",
        ),
        ("ALTER ROLE {} NOINHERIT", "NOINHERIT"),
        ("ALTER ROLE {} CREATEDB", "CREATEDB"),
        ("GRANT powerful TO {}", "member of powerful"),
        ("GRANT {} TO accomplice", "accomplice was made a member of it"),
        (
            "REVOKE gatepost_minted FROM {}",
            "membership of gatepost_minted was taken away",
        ),
        ("COMMENT ON ROLE {} IS 'mine now'", "comment was changed"),
        (
            "ALTER ROLE {} RENAME TO gp_test_other",
            "renamed to gp_test_other",
        ),
        ("ALTER ROLE {} NOLOGIN", "disabled by someone else"),
        ("DROP ROLE {}", "dropped by someone else"),
        (
            "ALTER ROLE {} IN DATABASE postgres SET statement_timeout = 1",
            "statement_timeout",
        ),
    ];
    // All at one time, each for an identity of its own.
    let mut holds = Vec::new();
    for (sql, word) in cases {
        let hold = bench
            .lease_as(&broker, word, "writer", "login_ttl: 5s")
            .await
            .unwrap();
        let sql = sql.replace("{}", hold.login().as_str());
        if sql.starts_with("REVOKE") {
            // From 16 on a grant is revoked by the one who made it.
            let granter = bench.server.connect(BROKER, PASSWORD, "orders").await.unwrap();
            granter.batch_execute(&sql).await.unwrap();
        } else {
            bench.run(&sql).await;
        }
        holds.push((hold, word));
    }
    for (hold, word) in &holds {
        let login = hold.login().as_str();
        eventually(word, async || !bench.tampering(login).is_empty()).await;
        bench.gone(login).await;
        let told = bench.tampering(login);
        assert!(told[0].contains(word), "{word}: {told:?}");
    }
    assert!(!bench.exists("gp_test_other").await);
    assert!(broker.logins().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_login_that_hands_itself_to_another_is_ended_or_refused() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", SHORT).await.unwrap();
    let other = bench
        .lease_as(&broker, "accomplice", "writer", "login_ttl: 30m")
        .await
        .unwrap();
    let client = bench.client(&hold).await;
    // Early releases of 15 let a session administer the role that it logged in as.
    let grant = format!("GRANT {} TO {}", hold.login(), other.login());
    if let Err(refused) = client.batch_execute(&grant).await {
        assert_eq!(refused.code().unwrap().code(), "42501");
        // Whoever can do it all the same is found out.
        bench.run(&grant).await;
    }
    // The accomplice is told at its next connection, and the giver found out at its renewal.
    assert!(!check(&bench, &other).await.is_empty());
    undone(&bench, &broker, hold, "was made a member of it").await;
    assert_eq!(check(&bench, &other).await, [""; 0]);
}
