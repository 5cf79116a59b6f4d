//! How many may come in, what one may do to another (nothing), and what a session leaves behind
//! (nothing).

use std::process::Stdio;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

#[test]
fn a_rule_limits_its_sessions_and_counts_them_down() {
    let world = World::start();
    let analyst = world.caller(Shape::Entra, "analyst", "orders_reader");
    let connect = || world.runtime.block_on(world.connect(&analyst, "")).unwrap();
    let both = [connect(), connect()];
    let third = world.turned_away(&analyst, "orders");
    assert_eq!(*third.code(), SqlState::TOO_MANY_CONNECTIONS);
    assert_eq!(third.message(), "too many sessions: the limit is 2");
    // Nobody else's limit.
    world.psql(&world.consumer(), "SELECT 1").well();
    drop(both);
    for _ in 0..3 {
        wait_for("a seat", || {
            world.runtime.block_on(async {
                tokio::task::yield_now().await;
                world.connect(&analyst, "").await.ok()
            })
        });
    }
}

#[test]
fn a_full_pool_makes_wait_and_then_says_so() {
    let mut world = World::without_proxy(15);
    world.config.max_connections = 1;
    world.config.queue_timeout = "1s";
    world.serve();
    let consumer = world.consumer();
    let first = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    let second = world.turned_away(&consumer, "orders");
    assert_eq!(*second.code(), SqlState::TOO_MANY_CONNECTIONS);
    assert_eq!(second.message(), "no database connection became free within 1s");
    drop(first);
    wait_for("the connection", || {
        world.runtime.block_on(tokio::task::yield_now());
        world.psql(&consumer, "SELECT 1").good.then_some(())
    });
    // Another identity on the same single connection's slot: its own login, never the other's.
    let login = |caller| world.psql(caller, "SELECT session_user").well();
    let analyst = world.caller(Shape::Entra, "analyst", "orders_reader");
    assert_ne!(login(&consumer), login(&analyst));
}

#[test]
fn a_rule_limits_an_identity_s_connections_and_nobody_else_s() {
    let mut world = World::without_proxy(15);
    world.config.queue_timeout = "1s";
    let policy = std::fs::read_to_string(world.path("policy.yaml")).unwrap();
    let capped = policy.replace("limits: {sessions: 2}", "limits: {connections: 1}");
    assert_ne!(policy, capped);
    std::fs::write(world.path("policy.yaml"), capped).unwrap();
    world.serve();
    let analyst = world.caller(Shape::Entra, "analyst", "orders_reader");
    let connect = |options| world.runtime.block_on(world.connect(&analyst, options));
    let first = connect("").unwrap();
    let second = world.turned_away(&analyst, "orders");
    assert_eq!(*second.code(), SqlState::TOO_MANY_CONNECTIONS);
    assert_eq!(second.message(), "no database connection became free within 1s");
    assert!(world.log().contains("all connections of its share (1)"));
    // Its own limit: others come in, past whoever waits for it.
    world.psql(&world.consumer(), "SELECT 1").well();
    drop(first);
    // With other settings the idle connection cannot be lent, and is closed to make room.
    for options in ["", "-c work_mem=7MB", "", "-c work_mem=7MB"] {
        let client = wait_for("a connection", || {
            world.runtime.block_on(tokio::task::yield_now());
            connect(options).ok()
        });
        let open = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'gp\\_%'
            AND pg_has_role(usename, 'orders_reader', 'MEMBER')";
        assert_eq!(world.sql(open), "1");
        drop(client);
    }
}

/// What a session can leave on its connection.
const TRACES: &str = "
    SET search_path = pg_catalog;
    SET work_mem = '77MB';
    SET TIME ZONE 'Asia/Tokyo';
    SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE;
    SET gatepost.correlation_id = 'of-the-first';
    SET my.own = 'secret of the first';
    CREATE TEMP TABLE left_behind AS SELECT 1 AS x;
    PREPARE left_behind AS SELECT 1;
    DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1;
    LISTEN left_behind;
    SELECT pg_advisory_lock(4711);
    INSERT INTO public.orders (customer) VALUES ('of-the-first') RETURNING lastval();
";

const FOUND: &str = "SELECT concat_ws('|', pg_backend_pid(),
    current_setting('search_path'), current_setting('work_mem'), current_setting('timezone'),
    current_setting('default_transaction_isolation'),
    -- The server keeps the names of such settings, without their values.
    nullif(current_setting('gatepost.correlation_id', true), ''), nullif(current_setting('my.own', true), ''),
    to_regclass('pg_temp.left_behind'),
    (SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE 'gatepost_probe%' AND name NOT LIKE 's%'),
    (SELECT count(*) FROM pg_cursors WHERE name = 'left_behind'),
    (SELECT count(*) FROM pg_listening_channels()),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()))";

async fn found(client: &Client) -> (String, String) {
    let found: String = client.query_one(FOUND, &[]).await.unwrap().get(0);
    let (backend, rest) = found.split_once('|').unwrap();
    (backend.to_owned(), rest.to_owned())
}

#[test]
fn nothing_is_left_for_the_next_session_of_the_same_connection() {
    let mut world = World::without_proxy(15);
    world.config.max_connections = 1;
    world.config.threads = 1;
    world.sql("GRANT TEMP ON DATABASE orders TO orders_writer");
    world.serve();
    let consumer = world.consumer();
    let clean = world.runtime.block_on(async {
        let first = world.connect(&consumer, "").await.unwrap();
        let clean = found(&first).await;
        first.batch_execute(TRACES).await.unwrap();
        assert_ne!(found(&first).await.1, clean.1);
        clean
    });
    let next = world.runtime.block_on(async {
        // Waits in the queue until the first session's connection is clean.
        let second = world.connect(&consumer, "").await.unwrap();
        let lastval = second.query_one("SELECT lastval()", &[]).await.unwrap_err();
        assert_eq!(lastval.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
        found(&second).await
    });
    // The same backend, and nothing of the first.
    assert_eq!(next, clean);
    world.runtime.block_on(tokio::task::yield_now());
    let records = world.settled();
    let second = records
        .iter()
        .rfind(|it| it["event"] == "transaction.outcome")
        .unwrap();
    assert!(!second.to_string().contains("of-the-first"), "{second}");
}

/// A statement during which the client is killed, and how its transaction is found in the server.
const INTERRUPTED: [&str; 3] = [
    "SELECT pg_sleep(100)",
    "COPY orders (customer) FROM STDIN",
    "SELECT 1 FROM orders, generate_series(1, 100000000)",
];

#[test]
fn what_a_killed_client_leaves_undone_is_rolled_back() {
    let mut world = World::without_proxy(15);
    world.config.max_connections = 1;
    world.config.threads = 1;
    world.serve();
    let consumer = world.consumer();
    for statement in INTERRUPTED {
        let mut psql = world.psql_command(&consumer);
        psql.args([
            "-c",
            "BEGIN",
            "-c",
            "INSERT INTO orders (customer) VALUES ('undone')",
            "-c",
            statement,
        ]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        wait_for("the statement", || {
            let active =
                "SELECT query FROM pg_stat_activity WHERE usename LIKE 'gp\\_%' AND state = 'active'";
            world.sql(active).starts_with(statement).then_some(())
        });
        psql.kill().unwrap();
        psql.wait().unwrap();
        // Waits in the queue until the server's one connection is free again.
        assert_eq!(world.psql(&consumer, "SELECT count(*) FROM orders").well(), "0");
    }
    world
        .psql(&consumer, "INSERT INTO orders (customer) VALUES ('done')")
        .well();
    assert_eq!(world.sql("SELECT customer FROM orders"), "done");
    let records = world.settled();
    let aborted = records.iter().filter(|it| it["detail"]["outcome"] == "aborted");
    assert_eq!(aborted.count(), INTERRUPTED.len());
    world.verify_journal();
}
