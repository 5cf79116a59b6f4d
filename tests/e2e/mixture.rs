//! Statements of every class, by both protocols: each COMMIT that they left in the write-ahead log is in
//! the journal, with its id where it is promised, else in a record that says that it is partial.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::journal::of_event;
use crate::harness::programs::{Caller, Said};
use crate::harness::wait_for;
use crate::harness::world::World;

/// What a script leaves in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Every COMMIT of the WAL has its outcome with this id.
    Complete,
    /// The record says that there may be more than it names.
    Partial,
    /// Nothing was committed.
    Nothing,
}
use Expected::{Complete, Nothing, Partial};

/// Scripts as psql sends them: a message a statement, `\;` keeps several in one.
const SCRIPTS: &[(&str, Expected)] = &[
    (
        "INSERT INTO orders (customer) SELECT 'x' FROM generate_series(1, 3);",
        Complete,
    ),
    (
        "WITH w AS (INSERT INTO orders (customer) VALUES ('x') RETURNING id) SELECT count(*) FROM w;",
        Complete,
    ),
    ("UPDATE orders SET cents = cents + 1;", Complete),
    ("SELECT * FROM orders FOR UPDATE;", Complete),
    (
        "MERGE INTO orders USING (SELECT 1) AS s ON false WHEN NOT MATCHED THEN INSERT (customer) VALUES ('x');",
        Complete,
    ),
    ("SELECT writes('x');", Complete),
    (
        "EXPLAIN ANALYZE INSERT INTO orders (customer) VALUES ('x');",
        Complete,
    ),
    (
        "PREPARE p AS INSERT INTO orders (customer) VALUES ($1);\nEXECUTE p('x');\nEXECUTE p('y');",
        Complete,
    ),
    (
        "BEGIN;\nINSERT INTO orders (customer) VALUES ('x');\nCOMMIT AND CHAIN;\nINSERT INTO orders (customer) VALUES ('y');\nCOMMIT;",
        Complete,
    ),
    (
        "BEGIN;\nSAVEPOINT s;\nINSERT INTO orders (customer) VALUES ('x');\nROLLBACK TO s;\nCOMMIT;",
        Complete,
    ),
    (
        "BEGIN;\nSAVEPOINT s;\nINSERT INTO orders (customer) VALUES ('x');\nRELEASE s;\nCOMMIT;",
        Complete,
    ),
    (
        "BEGIN;\nLOCK TABLE orders IN ROW EXCLUSIVE MODE;\nINSERT INTO orders (customer) VALUES ('x');\nEND;",
        Complete,
    ),
    (
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE;\nINSERT INTO orders (customer) VALUES ('x');\nCOMMIT WORK;",
        Complete,
    ),
    (
        "BEGIN;\nDECLARE c CURSOR WITH HOLD FOR SELECT writes('x');\nCOMMIT;\nFETCH ALL c;",
        Partial,
    ),
    (
        "DECLARE c CURSOR WITH HOLD FOR SELECT writes('x');\nFETCH ALL c;",
        Partial,
    ),
    (
        "BEGIN;\nDECLARE c CURSOR WITH HOLD FOR SELECT writes('x');\nROLLBACK;",
        Nothing,
    ),
    ("COPY orders (customer) FROM STDIN;\na\nb\n\\.", Complete),
    (
        "COPY (INSERT INTO orders (customer) VALUES ('x') RETURNING id) TO STDOUT;",
        Complete,
    ),
    (
        "BEGIN\\; INSERT INTO orders (customer) VALUES ('x')\\; COMMIT;",
        Complete,
    ),
    (
        "BEGIN;\nINSERT INTO orders (customer) VALUES ('x');\nROLLBACK;",
        Nothing,
    ),
    (
        "BEGIN;\nINSERT INTO orders (customer) VALUES ('x');\nROLLBACK AND CHAIN;\nCOMMIT;",
        Nothing,
    ),
    ("SELECT count(*) FROM orders;", Nothing),
    (
        "CREATE TEMP TABLE t (x int);\nINSERT INTO t VALUES (1);\nDROP TABLE t;",
        Complete,
    ),
    (
        "INSERT INTO orders (customer) VALUES ('x')\\; INSERT INTO orders (customer) VALUES ('y');",
        Complete,
    ),
    (
        "BEGIN\\; INSERT INTO orders (customer) VALUES ('x')\\; COMMIT\\; INSERT INTO orders (customer) VALUES ('y');",
        Complete,
    ),
    (
        "DO $$ BEGIN INSERT INTO orders (customer) VALUES ('x'); COMMIT; INSERT INTO orders (customer) VALUES ('y'); END $$;",
        Partial,
    ),
    ("CALL commits('x');", Partial),
    (
        "BEGIN;\nINSERT INTO orders (customer) VALUES ('x');\nPREPARE TRANSACTION 'two';\nCOMMIT PREPARED 'two';",
        Partial,
    ),
    ("VACUUM orders;", Nothing),
    ("ANALYZE t_own;", Partial),
    ("NOTIFY somebody, 'x';", Partial),
];

const FUNCTIONS: &str = "
    CREATE FUNCTION writes(text) RETURNS bigint LANGUAGE sql AS 'INSERT INTO orders (customer) VALUES ($1) RETURNING id';
    CREATE PROCEDURE commits(text) LANGUAGE plpgsql AS
      'BEGIN INSERT INTO orders (customer) VALUES ($1); COMMIT; INSERT INTO orders (customer) VALUES ($1); END';
    GRANT TEMP ON DATABASE orders TO orders_writer;
    GRANT CREATE ON SCHEMA public TO orders_writer;
    CREATE EXTENSION pg_walinspect;";

fn commits(world: &World, begin: &str) -> BTreeSet<u64> {
    let sql = format!(
        "SELECT xid FROM pg_get_wal_records_info('{begin}', pg_current_wal_flush_lsn())
         WHERE resource_manager = 'Transaction' AND record_type LIKE 'COMMIT%' AND xid <> '0'"
    );
    // Commits that nobody waits for are flushed later by themselves.
    world.sql("CHECKPOINT");
    world.sql(&sql).lines().map(|id| id.parse().unwrap()).collect()
}

/// All records, once nobody but the keeper of the login is there.
fn at_rest(world: &World) -> Vec<Value> {
    wait_for("the end of the session", || {
        // Connections that were dropped in the runtime still have to say so.
        world.runtime.block_on(tokio::task::yield_now());
        let records = world.records();
        let count = |event| of_event(&records, event).len();
        (count("session.opened") == count("session.closed") + 1).then_some(records)
    })
}

/// Statements without what only psql can send, each as Parse, Bind and Execute.
fn extended(world: &World, caller: &Caller, script: &str) -> Said {
    let ran: Result<(), tokio_postgres::Error> = world.runtime.block_on(async {
        let client = world.connect(caller, "").await?;
        for statement in script.trim_end_matches(';').split(";\n") {
            client.execute(statement, &[]).await?;
        }
        Ok(())
    });
    Said {
        good: ran.is_ok(),
        out: String::new(),
        err: format!("{ran:?}"),
    }
}

#[test]
fn every_class_of_statement_leaves_what_it_should() {
    each_class(&|_| true, &|world, caller, script| {
        world.psql_script(caller, &format!("{script}\n"))
    });
}

#[test]
fn every_class_leaves_the_same_by_extended_messages() {
    let only_psql = |script: &str| ["\\;", "STDIN", "STDOUT"].iter().any(|it| script.contains(it));
    each_class(&|script| !only_psql(script), &extended);
}

fn each_class(wanted: &dyn Fn(&str) -> bool, run: &dyn Fn(&World, &Caller, &str) -> Said) {
    let mut world = World::without_proxy(15);
    world.sql(FUNCTIONS);
    for setting in ["autovacuum = off", "max_prepared_transactions = 5"] {
        world.sql(&format!("ALTER SYSTEM SET {setting}"));
    }
    world.stop_server();
    world.start_server();
    world.serve();
    let consumer = world.consumer();
    // Keeps the login, so that the broker writes nothing beside.
    let _keep = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    world
        .psql(&consumer, "CREATE TABLE t_own AS SELECT 1 AS x")
        .well();
    let mut wrong = Vec::new();
    for (script, expected) in SCRIPTS.iter().filter(|(script, _)| wanted(script)) {
        let before = at_rest(&world).len();
        let begin = world.sql("SELECT pg_current_wal_insert_lsn()");
        let said = run(&world, &consumer, script);
        let committed = commits(&world, &begin);
        let records = at_rest(&world).split_off(before);
        let outcomes = of_event(&records, "transaction.outcome");
        let told: BTreeSet<u64> = outcomes
            .iter()
            .filter(|it| it["detail"]["outcome"] == "committed")
            .filter_map(|it| it["detail"]["id"].as_u64())
            .collect();
        let partial = outcomes.iter().any(|it| it["detail"]["scope"] == "partial");
        let right = said.good
            && match expected {
                Complete => told == committed && !committed.is_empty() && !partial,
                Partial => told.is_subset(&committed) && partial,
                Nothing => committed.is_empty() && told.is_empty(),
            };
        if !right {
            wrong.push(format!(
                "{expected:?}: {script}\n  WAL {committed:?}, journal {told:?}, partial {partial}, {}",
                said.err
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.verify_journal();
}
