//! What hurt the users of other access proxies, by name, and where it is proved not to happen here.
//!
//! | hurt | proved by |
//! | --- | --- |
//! | prepared statements missing from the audit log | `many_transactions::prepared`, `mixture` |
//! | a cancel that hits nothing, another client, or a later statement | `protocol`, `cancel` |
//! | messages cut elsewhere than expected | `wire_vectors`, codecs cut at each byte |
//! | a token that fits no password buffer | here |
//! | sessions that outlive their token, or end without a word | `ending` |
//! | an expired token that looks like any failed login | `bad_tokens` |
//! | an idle timeout that ends those who work | here, `timers` |
//! | idle or stuck clients that freeze the others | here |
//! | workers that stop after the first renewal, a pool for each token | `long_lived` |
//! | a second connection refused because the user has several roles, or because they changed | here |
//! | errors understood by their English words | `credential_postgres::foreign` |
//! | rights assumed from PUBLIC | `credential_postgres::hardened`, every world (PUBLIC has none) |
//! | a login that cannot be dropped: it owns something, is in use, is gone already | `credential_postgres::{estate, main, tampering}` |
//! | logins left by a crash, a restart that chokes on them | `crash`, `many_writers`, `credential_postgres::{main, doctor}` |
//! | a rotation that tries the same refused password for ever | `rotation`, `credential_postgres::update` |
//! | a control that is configured and does nothing | `bad_beginnings`, `policy::tests::mistakes`, `config` |
//! | a restriction to one database that is none | `bad_tokens`, `policy::tests::decisions` |
//! | nobody knows whether a session is really over | `operators`, `long_lived` |
//! | a large result that ends the proxy | here |
//! | notifications that get lost in between | here |
//! | a pool that is held by waiters | `bounds` |
//! | keys that rotate, a provider that is away | `keys` |

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::harness::certificates::replace;
use crate::harness::config::POLICY;
use crate::harness::journal::{committed, of_event};
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

const WRITERS_RULE: &str =
    "    grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}\n  - name: entra-analysts";

#[test]
fn a_token_may_be_longer_than_any_password_field() {
    let world = World::start();
    // A plain one; one beyond 1 KB; as with some hundred groups; just below 16 KiB in base64.
    for size in [0, 900, 8_000, 11_000] {
        let mut caller = world.consumer();
        let wish = format!("&size={size}");
        caller.token = world.provider.token_with(Shape::Entra, "order-consumer", &wish);
        assert!(caller.token.len() > size && caller.token.len() < 16 * 1024);
        assert_eq!(world.psql(&caller, "SELECT 1").well(), "1", "{size}");
        let client = world.runtime.block_on(world.connect(&caller, "")).unwrap();
        world.runtime.block_on(client.batch_execute("SELECT 1")).unwrap();
    }
    let mut caller = world.consumer();
    caller.token = world
        .provider
        .token_with(Shape::Entra, "order-consumer", "&size=13000");
    assert!(caller.token.len() > 16 * 1024);
    let told = world.turned_away(&caller, "orders");
    assert!(
        told.message().contains("too long") || told.message().contains("large"),
        "{told:?}"
    );
}

#[test]
fn the_servers_own_view_and_log_name_the_session() {
    let world = World::start();
    world.sql("ALTER SYSTEM SET log_line_prefix = 'application=%a '; ");
    world.sql("ALTER SYSTEM SET log_statement = 'all'");
    world.sql("SELECT pg_reload_conf()");
    let name = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let consumer = world.consumer();
    let told = world.psql(&consumer, name).well();
    let records = world.settled();
    let session = of_event(&records, "session.opened")[0]["session"]
        .as_str()
        .unwrap();
    assert_eq!(told, format!("e2e {session}"));
    let log = std::fs::read_to_string(world.path("postgres/postgres.log")).unwrap();
    assert!(log.contains(&format!("application=e2e {session} ")), "{log}");
}

#[test]
fn a_user_with_several_roles_has_all_of_them_and_each_more_than_once() {
    let world = World::start();
    let writer = world.consumer();
    let mut reader = writer.clone();
    reader.user = "orders_reader";
    let refused = world.turned_away(&reader, "orders");
    assert_eq!(*refused.code(), SqlState::INSUFFICIENT_PRIVILEGE);
    let first = world.runtime.block_on(world.connect(&writer, "")).unwrap();
    // The set of roles grows while sessions live.
    let second_role = WRITERS_RULE.replace(
        "  - name: entra-analysts",
        "  - name: consumers-may-read
    identity: {provider: entra, client_id: order-consumer}
    grant: {role: orders_reader, login_ttl: 30m, session_max: 8h}
  - name: entra-analysts",
    );
    let policy = POLICY.replace(WRITERS_RULE, &second_role);
    assert_ne!(policy, POLICY);
    replace(&world.path("policy.yaml"), &policy);
    wait_for("the new policy", || {
        (of_event(&world.records(), "policy.loaded").len() == 2).then_some(())
    });
    let login = "SELECT session_user::text";
    let names: Vec<String> = world.runtime.block_on(async {
        let mut names = Vec::new();
        let open = [
            world.connect(&reader, "").await.unwrap(),
            world.connect(&writer, "").await.unwrap(),
            world.connect(&reader, "").await.unwrap(),
            first,
        ];
        for client in &open {
            names.push(client.query_one(login, &[]).await.unwrap().get(0));
        }
        let insert = "INSERT INTO orders (customer) VALUES ('x')";
        let told = open[0].batch_execute(insert).await.unwrap_err();
        assert_eq!(told.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
        open[3].batch_execute(insert).await.unwrap();
        names
    });
    // A login of its own for each role; sessions of one role share it.
    assert_eq!(names[0], names[2]);
    assert_eq!(names[1], names[3]);
    assert_ne!(names[0], names[1]);
    assert_eq!(world.logins().len(), 2);
}

#[test]
fn an_idle_limit_is_for_those_who_are_idle() {
    let mut world = World::without_proxy(15);
    let limited = WRITERS_RULE.replace("8h}\n", "8h}\n    limits: {idle: 1s}\n");
    fs::write(world.path("policy.yaml"), POLICY.replace(WRITERS_RULE, &limited)).unwrap();
    world.serve();
    let consumer = world.consumer();
    world.runtime.block_on(async {
        let mut client = world.connect(&consumer, "").await.unwrap();
        // Twice the limit, in a statement and in a transaction that waits for its client.
        client.batch_execute("SELECT pg_sleep(2)").await.unwrap();
        let block = client.transaction().await.unwrap();
        let insert = "INSERT INTO orders (customer) VALUES ('slow')";
        block.batch_execute(insert).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        block.batch_execute(insert).await.unwrap();
        block.commit().await.unwrap();
        while !client.is_closed() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(committed(&world.settled()).len(), 1);
    let records = world.records();
    assert_eq!(
        of_event(&records, "session.closed")[0]["detail"]["why"],
        "idle_session"
    );
}

/// Tells a process something that is not for it to refuse.
fn tell(process: &std::process::Child, signal: &str) {
    let id = process.id().to_string();
    let told = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &id])
        .status();
    assert!(told.unwrap().success());
}

#[test]
fn a_client_that_does_not_read_stops_nobody_else() {
    let mut world = World::without_proxy(15);
    world.config.threads = 1;
    world.serve();
    let consumer = world.consumer();
    let idle = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    let mut stuck = world.psql_command(&consumer);
    // Rows without end, thrown away as they come.
    let rows = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000000)) TO STDOUT";
    stuck.args(["-c", rows]);
    let mut stuck = stuck.stdout(Stdio::null()).spawn().unwrap();
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'gp\\_%' AND wait_event = 'ClientWrite'";
    wait_for("the rows to flow", || {
        (world
            .sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND usename LIKE 'gp\\_%'")
            == "1")
            .then_some(())
    });
    tell(&stuck, "STOP");
    // The server waits for gatepost, and gatepost for the client.
    wait_for("the server to wait", || (world.sql(waits) == "1").then_some(()));
    for _ in 0..5 {
        world.runtime.block_on(idle.batch_execute("SELECT 1")).unwrap();
        let insert = "INSERT INTO orders (customer) VALUES ('others')";
        world.psql(&consumer, insert).well();
    }
    assert_eq!(world.sql(waits), "1");
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    assert_eq!(world.sql("SELECT count(*) FROM orders"), "5");
}

#[test]
fn a_large_result_passes_through_and_leaves_no_mark() {
    const ROWS: usize = 250_000;
    let world = World::start();
    let consumer = world.consumer();
    world.psql(&consumer, "SELECT 1").well();
    let before = world.peak();
    for statement in ["SELECT", "COPY"] {
        let rows = format!("SELECT n, repeat('x', 200) FROM generate_series(1, {ROWS}) AS n");
        let sql = match statement {
            "COPY" => format!("COPY ({rows}) TO STDOUT"),
            _ => rows,
        };
        let told = world.psql(&consumer, &sql).well();
        assert_eq!(told.lines().count(), ROWS);
        assert!(told.lines().last().unwrap().starts_with(&ROWS.to_string()));
    }
    // More than 50 MB went through, twice.
    let grown = world.peak().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
}

#[test]
fn notifications_reach_those_who_listen() {
    let world = World::start();
    let consumer = world.consumer();
    let fifo = world.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut listener = world.psql_command(&consumer);
    listener.args(["-c", "LISTEN news", "-c", "\\! cat fifo", "-c", "SELECT 'awake'"]);
    let listener = listener.stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the listener", || {
        let last = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN news' AND state = 'idle'";
        (world.sql(last) == "1").then_some(())
    });
    world.psql(&consumer, "NOTIFY news, 'of the first'").well();
    let script = "BEGIN;\nSELECT pg_notify('news', 'undone');\nROLLBACK;\nSELECT pg_notify('news', 'of the second');\n";
    world.psql_script(&consumer, script).well();
    fs::write(&fifo, "").unwrap();
    let told = listener.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("awake"), "{told}");
    let payloads: Vec<_> = told.lines().filter(|line| line.contains("\"news\"")).collect();
    assert_eq!(payloads.len(), 2, "{told}");
    assert!(
        payloads[0].contains("of the first") && payloads[1].contains("of the second"),
        "{told}"
    );
}
