//! A session stays who it is: statements that would change that are refused, by either protocol, and
//! the session goes on.

use tokio_postgres::error::SqlState;

use crate::harness::journal::of_event;
use crate::harness::world::World;

const ESCAPES: [&str; 12] = [
    "SET ROLE orders_reader",
    "set local role none",
    "/* x */ SET SESSION ROLE 'postgres'",
    "SET SESSION AUTHORIZATION postgres",
    "SET session_authorization = 'postgres'",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT pg_catalog.set_config(E'ro\\x6ce', 'postgres', true)",
    "ALTER ROLE CURRENT_USER PASSWORD 'known'",
    "ALTER USER CURRENT_USER SET search_path = evil",
    "SELECT 1; SET ROLE postgres",
    "ALTER ROLE ALL SET search_path = evil",
    "ALTER USER CURRENT_USER VALID UNTIL 'infinity'",
];

#[test]
fn escapes_are_refused_and_the_session_goes_on() {
    let world = World::start();
    world.runtime.block_on(async {
        let client = world.connect(&world.consumer(), "").await.unwrap();
        let me = "SELECT session_user || current_user";
        let before: String = client.query_one(me, &[]).await.unwrap().get(0);
        for escape in ESCAPES {
            for extended in [false, true] {
                let refused = if extended {
                    client.prepare(escape).await.err()
                } else {
                    client.batch_execute(escape).await.err()
                };
                let error = refused.unwrap_or_else(|| panic!("{escape} passed, extended: {extended}"));
                // Several statements in one Parse are the server's to refuse.
                let several = extended && escape.contains(';');
                let code = if several {
                    SqlState::SYNTAX_ERROR
                } else {
                    SqlState::INSUFFICIENT_PRIVILEGE
                };
                let own = error.as_db_error().unwrap();
                assert!(
                    *own.code() == code || *own.code() == SqlState::INSUFFICIENT_PRIVILEGE,
                    "{escape}: {own:?}"
                );
                if !several {
                    assert!(
                        own.message().contains("is not permitted through gatepost"),
                        "{own:?}"
                    );
                }
            }
        }
        let after: String = client.query_one(me, &[]).await.unwrap().get(0);
        assert_eq!(before, after);
    });
    world.verify_journal();
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
