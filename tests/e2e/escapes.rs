//! A session stays who it is, whatever it says: what the statement fence sees is refused, what it cannot
//! see the server refuses, and nothing of either meets the next session of the same connection.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::harness::journal::{of_event, outcomes_under};
use crate::harness::world::World;

const SPELLINGS: &str = include_str!("../vectors/escapes.txt");

/// The other role, what only it may read, and what a hostile client may have at hand: objects that the
/// spellings name, a schema of its own, and temporary objects.
const HOSTILE: &str = "
    CREATE ROLE x;
    CREATE ROLE y;
    CREATE TABLE secrets (what text); INSERT INTO secrets VALUES ('of x'); GRANT SELECT ON secrets TO x;
    CREATE TABLE t (a text); GRANT ALL ON t TO orders_writer;
    CREATE TABLE settings AS SELECT 'ro' || 'le' AS name; GRANT SELECT ON settings TO orders_writer;
    CREATE SCHEMA evil AUTHORIZATION orders_writer;
    GRANT TEMP ON DATABASE orders TO orders_writer;";

/// Spellings with this tag.
fn spelt(wanted: &str) -> Vec<String> {
    let lines = SPELLINGS.lines().filter_map(|line| line.split_once(' '));
    let texts = lines.filter(|(tag, _)| *tag == wanted);
    let texts = texts.map(|(_, text)| {
        let parts: Vec<_> = text.split("\\\\").collect();
        let resolved = parts.into_iter().map(|part| {
            part.replace("\\n", "\n")
                .replace("\\r", "\r")
                .replace("\\t", "\t")
                .replace("\\f", "\u{c}")
        });
        resolved.collect::<Vec<_>>().join("\\")
    });
    texts.collect()
}

/// One connection, so that each session meets what the last one left.
fn hostile_world(major: u32) -> World {
    let mut world = World::without_proxy(major);
    world.config.max_connections = 1;
    world.config.threads = 1;
    world.sql(HOSTILE);
    world.serve();
    world
}

/// What a session may leave to the next one, and must not.
const STATE: &str = "SELECT pg_catalog.concat_ws('|', session_user, current_user,
    pg_catalog.current_setting('role'), pg_catalog.current_setting('search_path'),
    pg_catalog.current_setting('client_encoding'), pg_catalog.current_setting('work_mem'),
    pg_catalog.current_setting('standard_conforming_strings'),
    pg_catalog.current_setting('session_replication_role'),
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements WHERE name = 'p'))";

/// By simple queries only, so that nothing is prepared.
async fn ask(client: &Client, sql: &str) -> String {
    let answer = client.simple_query(sql).await.unwrap();
    let row = answer.iter().find_map(|message| {
        let SimpleQueryMessage::Row(row) = message else {
            return None;
        };
        row.get(0)
    });
    row.unwrap_or_default().to_owned()
}

/// The session is still who it was: the login, or (which the server allows it) the role behind it.
async fn assert_itself(client: &Client, login: &str, text: &str) {
    // A spelling may have left a block open, or a failed one.
    client.batch_execute("ROLLBACK").await.unwrap();
    let me = ask(client, "SELECT session_user || ' ' || current_user").await;
    let (session, current) = me.split_once(' ').unwrap();
    assert_eq!(session, login, "{text}");
    assert!(
        current == login || current == "orders_writer",
        "{text}: {current}"
    );
    let read = client
        .simple_query("SELECT * FROM public.secrets")
        .await
        .unwrap_err();
    assert_eq!(read.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{text}");
}

/// Runs a text by both protocols. `Some` when both refused it, with the sentence of the simple one.
async fn attempt(client: &Client, text: &str) -> Option<String> {
    let simple = client.batch_execute(text).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    let extended = match client.prepare(text).await {
        Ok(statement) => {
            let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
            if statement.params().is_empty() {
                client.execute(&statement, &none).await.map(drop)
            } else {
                client.execute(&statement, &[&"role", &"x"]).await.map(drop)
            }
        }
        Err(error) => Err(error),
    };
    let told = simple
        .err()?
        .as_db_error()
        .map(|error| error.message().to_owned());
    extended.err().and(told)
}

fn every_spelling(major: u32) {
    let world = hostile_world(major);
    let caller = world.consumer();
    let connect = || async { world.connect(&caller, "").await.unwrap() };
    world.runtime.block_on(async {
        let first = connect().await;
        let clean = ask(&first, STATE).await;
        let login = ask(&first, "SELECT session_user").await;
        drop(first);
        // A changed password is another story, below.
        let unseen = spelt("unseen").into_iter().filter(|it| !it.contains("password"));
        for (text, seen) in spelt("seen")
            .into_iter()
            .map(|text| (text, true))
            .chain(unseen.map(|text| (text, false)))
        {
            let client = connect().await;
            let told = attempt(&client, &text).await;
            if seen {
                let told = told.unwrap_or_else(|| panic!("not refused: {text}"));
                assert!(
                    told.contains("is not permitted through gatepost"),
                    "{text}: {told}"
                );
            }
            assert_itself(&client, &login, &text).await;
            drop(client);
            let next = connect().await;
            assert_eq!(ask(&next, STATE).await, clean, "left behind by {text}");
        }
    });
    assert_eq!(
        world.sql("SELECT count(*) FROM pg_roles WHERE rolname IN ('x', 'y')"),
        "2"
    );
    let members = "SELECT count(*) FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid IN (m.roleid, m.member) \
                   WHERE r.rolname IN ('x', 'y')";
    assert_eq!(world.sql(members), "0");
    world.verify_journal();
}

#[test]
fn no_spelling_makes_a_session_somebody_else_on_15() {
    every_spelling(15);
}

#[test]
fn no_spelling_makes_a_session_somebody_else_on_18() {
    every_spelling(18);
}

#[test]
fn an_escape_in_a_block_fails_the_block() {
    let world = World::start();
    world.runtime.block_on(async {
        let mut client = world.connect(&world.consumer(), "").await.unwrap();
        let block = client.transaction().await.unwrap();
        block
            .batch_execute("INSERT INTO orders (customer) VALUES ('lost')")
            .await
            .unwrap();
        let refused = block.batch_execute("SET ROLE postgres").await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
        let behind = block.batch_execute("SELECT 1").await.unwrap_err();
        assert_eq!(behind.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        // The server answers a COMMIT of a failed block with ROLLBACK.
        block.commit().await.unwrap();
        client.batch_execute("SELECT 1").await.unwrap();
    });
    assert_eq!(world.sql("SELECT count(*) FROM orders"), "0");
    let records = world.settled();
    let outcomes = of_event(&records, "transaction.outcome");
    assert!(
        outcomes.iter().any(|it| it["detail"]["outcome"] == "aborted"),
        "{outcomes:#?}"
    );
}

/// What the fence cannot see and the server allows: the role behind the login, settings of all kinds, the
/// login's own password and settings. None of it meets the next session of the connection.
const TAMPERING: [&str; 7] = [
    "DO $$ BEGIN EXECUTE 'SET ROLE orders_writer'; END $$",
    "SELECT set_config('ro' || 'le', 'orders_writer', false)",
    "DO $$ BEGIN PERFORM set_config('search_path', 'evil', false); END $$",
    "DO $$ BEGIN EXECUTE 'SET standard_conforming_strings = off'; END $$",
    "DO $$ BEGIN EXECUTE 'ALTER ROLE CURRENT_USER SET search_path = evil'; END $$",
    "DO $$ BEGIN EXECUTE 'ALTER ROLE CURRENT_USER SET role = orders_writer'; END $$",
    "DO $$ BEGIN EXECUTE 'ALTER ROLE CURRENT_USER PASSWORD ''known'''; END $$",
];

fn tampering(major: u32) {
    let world = hostile_world(major);
    let caller = world.consumer();
    world.runtime.block_on(async {
        let first = world.connect(&caller, "").await.unwrap();
        let state = STATE.replace("session_user, current_user,", "session_user = current_user,");
        let clean = ask(&first, &state).await;
        drop(first);
        for text in TAMPERING {
            let client = world.connect(&caller, "").await.unwrap();
            client.batch_execute(text).await.unwrap();
            drop(client);
            let next = world.connect(&caller, "").await.unwrap();
            assert_eq!(ask(&next, &state).await, clean, "left behind by {text}");
        }
    });
    // A password that the login gave itself opens nothing past gatepost.
    for login in world.logins() {
        let direct = world.direct(&login, "known", "SELECT 1");
        assert!(!direct.good, "{login} got in: {direct:?}");
    }
}

#[test]
fn tampering_that_only_the_server_sees_does_not_meet_the_next_session_on_15() {
    tampering(15);
}

#[test]
fn tampering_that_only_the_server_sees_does_not_meet_the_next_session_on_18() {
    tampering(18);
}

/// Start-up options, and what becomes of them: the SQLSTATE of a refusal, or none.
const SMUGGLED: [(&str, Option<&str>); 16] = [
    ("-c role=x", Some("42501")),
    ("-crole=x", Some("42501")),
    ("--role=x", Some("42501")),
    ("-c ROLE=x", Some("42501")),
    (r"-c ro\le=x", Some("42501")),
    ("-c session_authorization=x", Some("42501")),
    ("--session-authorization=x", Some("42501")),
    ("-c session_replication_role=replica", Some("42501")),
    ("-c session_preload_libraries=evil", Some("42501")),
    ("-c local_preload_libraries=evil", Some("42501")),
    ("-c client_encoding=SJIS", Some("08P01")),
    ("-c no_such_setting=1", Some("42501")),
    ("-c log_statement=all", Some("42501")),
    ("-c work_mem=much", Some("42501")),
    ("-c search_path=evil,pg_catalog", None),
    ("-c standard_conforming_strings=off", None),
];

#[test]
fn options_at_start_up_change_nobody() {
    let world = hostile_world(15);
    let caller = world.consumer();
    world.runtime.block_on(async {
        for (options, refused) in SMUGGLED {
            match (world.connect(&caller, options).await, refused) {
                (Ok(client), None) => {
                    let login = ask(&client, "SELECT session_user").await;
                    assert_itself(&client, &login, options).await;
                }
                (Err(error), Some(code)) => {
                    let told = error.as_db_error().unwrap();
                    assert_eq!(told.code().code(), code, "{options}: {told:?}");
                    assert!(told.hint().is_some() && told.detail().is_some(), "{told:?}");
                }
                (outcome, _) => panic!("{options}: {:?}", outcome.err()),
            }
        }
    });
}

/// In `evil`, first in the path: everything that an unqualified statement of ours could call.
const LOOKALIKES: &str = "
    CREATE FUNCTION evil.pg_current_xact_id_if_assigned() RETURNS xid8 LANGUAGE sql AS $$ SELECT '31337'::xid8 $$;
    CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'evil' $$;
    CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'evil' $$;
    CREATE FUNCTION evil.nothing(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$;
    CREATE OPERATOR evil.= (FUNCTION = evil.nothing, LEFTARG = text, RIGHTARG = text);
    CREATE TABLE evil.pg_prepared_statements (name text);
    CREATE TABLE evil.pg_db_role_setting (setrole oid);
    CREATE TABLE evil.pg_roles (rolname name)";

/// Takes the probe's name away from it.
const STEAL: &str = "CREATE FUNCTION pg_temp.steal() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE probe text;
    BEGIN
        FOR probe IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE name LIKE 'gatepost%' LOOP
            EXECUTE pg_catalog.format('DEALLOCATE %I', probe);
            EXECUTE pg_catalog.format('PREPARE %I AS SELECT NULL::xid8', probe);
        END LOOP;
    END $$";

#[test]
fn no_search_path_and_no_temporary_function_answers_for_the_server() {
    let world = hostile_world(15);
    let caller = world.consumer();
    let ids = world.runtime.block_on(async {
        let options = "-c search_path=evil,pg_catalog,public -c gatepost.correlation_id=hijack";
        let client = world.connect(&caller, options).await.unwrap();
        for statement in LOOKALIKES.split(";\n") {
            client.batch_execute(statement).await.unwrap();
        }
        let insert = "INSERT INTO public.orders (customer) VALUES ('hijack')
                      RETURNING pg_catalog.pg_current_xact_id()::text";
        let mut ids = vec![client.query_one(insert, &[]).await.unwrap().get::<_, String>(0)];
        client.batch_execute(STEAL).await.unwrap();
        for by_query in [true, false] {
            if by_query {
                client.simple_query("SELECT pg_temp.steal()").await.unwrap();
            } else {
                client.execute("SELECT pg_temp.steal()", &[]).await.unwrap();
            }
            ids.push(client.query_one(insert, &[]).await.unwrap().get(0));
            ids.push(ask(&client, insert).await);
        }
        drop(client);
        // And the next session of the connection.
        let client = world.connect(&caller, options).await.unwrap();
        ids.push(client.query_one(insert, &[]).await.unwrap().get(0));
        ids
    });
    let records = world.settled();
    let outcomes = outcomes_under(&records, "hijack");
    for id in &ids {
        let id: u64 = id.parse().unwrap();
        let found = outcomes.iter().find(|outcome| outcome["detail"]["id"] == id);
        let found = found.unwrap_or_else(|| panic!("{id} is not on record"));
        assert_eq!(found["detail"]["scope"], "complete", "{found}");
    }
    assert_eq!(ids.len(), 6);
    assert!(!outcomes.iter().any(|outcome| outcome["detail"]["id"] == 31337));
}

#[test]
fn names_are_names_and_never_sql() {
    let world = hostile_world(15);
    let caller = world.consumer();
    let sql = "'; DROP TABLE t; --\n\\'\"$$;\u{30c3}\\";
    let long = sql.repeat(400);
    world.runtime.block_on(async {
        for name in [sql, &long[..long.floor_char_boundary(8_000)]] {
            let door = world.door();
            let as_database = door.connect(&caller, name, "").await.err().unwrap();
            let refused = as_database.as_db_error().unwrap();
            assert_eq!(*refused.code(), SqlState::INSUFFICIENT_PRIVILEGE, "{refused:?}");
            assert!(!format!("{refused:?}").contains("DROP"), "{refused:?}");
            let client = door.connect_as(&caller, "orders", "", name).await.unwrap();
            assert_eq!(ask(&client, "SELECT count(*) FROM t").await, "0");
            let shown = ask(&client, "SELECT current_setting('application_name')").await;
            assert!(shown.contains("'; DROP TABLE t; --"), "{shown}");
        }
        let value = format!("-c a.b={}", sql.replace('\\', r"\\").replace([' ', '\n'], r"\ "));
        let client = world.connect(&caller, &value).await.unwrap();
        let kept = ask(&client, "SELECT current_setting('a.b')").await;
        assert!(kept.starts_with("'; DROP TABLE t;"), "{kept}");
        drop(client);
        let named = world.connect(&caller, "-c x';DROP=1").await.err().unwrap();
        assert_eq!(named.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
        let correlation = "-c gatepost.correlation_id=';DROP\u{30c3}\\\\";
        let client = world.connect(&caller, correlation).await.unwrap();
        let kept = ask(&client, "SELECT current_setting('gatepost.correlation_id')").await;
        assert_eq!(kept, "';DROP\u{30c3}\\");
    });
    let records = world.settled();
    let longest = records.iter().map(|it| it.to_string().len()).max().unwrap();
    assert!(longest < 4_000, "a record of {longest} bytes");
}

/// As a person sees it.
#[test]
fn psql_shows_sentence_reference_and_hint() {
    let world = World::start();
    let caller = world.consumer();
    let in_session = world.psql(&caller, "SET ROLE postgres").refusal();
    let lines: Vec<_> = in_session.lines().collect();
    assert_eq!(lines[0], "ERROR:  SET ROLE is not permitted through gatepost");
    assert!(
        lines[1].starts_with("DETAIL:  gatepost session s-"),
        "{in_session}"
    );
    assert!(
        lines[2].starts_with("HINT:  Connect with the role"),
        "{in_session}"
    );
    let at_start = world
        .psql_with(&caller, &[("PGOPTIONS", "-c role=postgres")], "SELECT 1")
        .refusal();
    let lines: Vec<_> = at_start.lines().collect();
    assert!(
        lines[0].ends_with("FATAL:  start-up parameter \"role\" is not permitted"),
        "{at_start}"
    );
    assert!(lines[1].starts_with("DETAIL:  gatepost session s-"), "{at_start}");
    assert_eq!(lines[2], "HINT:  Remove it from the connection settings.");
}
