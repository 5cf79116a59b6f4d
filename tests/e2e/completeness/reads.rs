//! What is proven a plain read leaves no record; what only looks like one is on record with its transaction.

use tokio_postgres::Client;

use super::assert_complete;
use crate::harness::journal::{correlation, of_event};
use crate::harness::programs::Caller;
use crate::harness::wait_for;
use crate::harness::world::World;

/// Everything by which a SELECT can write.
const TRAPS: &str = "
    CREATE VIEW shown AS SELECT writes('view') AS n;
    CREATE VIEW over_shown AS SELECT n FROM shown;
    CREATE FUNCTION claims_stable(text) RETURNS int LANGUAGE plpgsql STABLE AS
      'BEGIN RETURN (SELECT writes($1)); END';
    CREATE FUNCTION compared(int, int) RETURNS bool LANGUAGE sql AS 'SELECT writes(''operator'') = $2';
    CREATE OPERATOR =@= (LEFTARG = int, RIGHTARG = int, FUNCTION = compared);
    CREATE DOMAIN checked AS int CHECK (writes('domain') > 0);
    CREATE TYPE mood AS ENUM ('well');
    CREATE FUNCTION of_mood(mood) RETURNS int LANGUAGE sql AS 'SELECT writes(''cast'')';
    CREATE CAST (mood AS int) WITH FUNCTION of_mood(mood);
    CREATE SEQUENCE numbers;
    CREATE TABLE secured (a int);
    INSERT INTO secured VALUES (1);
    ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
    CREATE POLICY looks ON secured USING (writes('policy') > 0);
    GRANT SELECT ON shown, over_shown, secured TO orders_writer;
    GRANT USAGE ON SEQUENCE numbers TO orders_writer;";

/// The mark that is written, and what writes it.
const READS: [(&str, &str); 14] = [
    ("function", "SELECT writes('function')"),
    ("stable", "SELECT claims_stable('stable')"),
    ("view", "SELECT n FROM shown"),
    ("view", "TABLE over_shown"),
    ("values", "VALUES (writes('values'))"),
    ("operator", "SELECT 1 =@= 1"),
    ("domain", "SELECT 1::checked"),
    ("cast", "SELECT 'well'::mood::int"),
    ("policy", "SELECT a FROM secured"),
    ("sequence", "SELECT nextval('numbers')"),
    ("lock", "SELECT mark FROM work LIMIT 1 FOR UPDATE"),
    ("number", "SELECT pg_current_xact_id()::text"),
    ("object", "SELECT lo_create(0)"),
    (
        "with",
        "WITH w AS (INSERT INTO work (mark) VALUES ('with') RETURNING 1) SELECT 1 FROM w",
    ),
];

pub(super) fn traps(world: &World) {
    world.sql(TRAPS);
}

/// Plain reads first, for a proof has to be there that the traps could profit from.
pub(super) fn judge(world: &World, caller: &Caller) {
    let mut round = 0;
    wait_for("reads that leave no record", || {
        round += 1;
        leave_no_record(world, caller, round).then_some(())
    });
    let since = world.here_in_wal();
    let connect = || world.runtime.block_on(world.connect(caller, "")).unwrap();
    let client = connect();
    for (mark, sql) in READS {
        world.runtime.block_on(run(&client, mark, sql));
    }
    copy(world, caller);
    // A definition counts at once for everybody who comes through here.
    let (other, define) = (connect(), "CREATE VIEW fresh AS SELECT writes('fresh') AS n");
    let read = "SELECT n FROM fresh";
    world.runtime.block_on(async {
        client.batch_execute(define).await.unwrap();
        run(&other, "fresh", read).await;
    });
    drop((client, other));
    let balance = world.balance(&since);
    assert_complete("reads that write", &balance);
    // Each three times, but that a sequence writes ahead for 32 values; the copy, the definition, and what reads
    // by it.
    let expected = 3 * READS.len() - 2 + 1 + 1 + 3;
    assert_eq!(balance.commits.len(), expected, "{balance}");
}

async fn named(client: &Client, mark: &str) {
    let set = format!("SET gatepost.correlation_id = '{mark}'");
    client.batch_execute(&set).await.unwrap();
}

/// As a simple Query, in extended messages, and by its name.
async fn run(client: &Client, mark: &str, sql: &str) {
    named(client, mark).await;
    client.simple_query(sql).await.unwrap();
    let prepared = client.prepare(sql).await.unwrap();
    for _ in 0..2 {
        client.query(&prepared, &[]).await.unwrap();
    }
}

fn copy(world: &World, caller: &Caller) {
    let id = [("PGOPTIONS", "-c gatepost.correlation_id=copy")];
    let told = world.psql_with(caller, &id, "COPY (SELECT writes('copy')) TO STDOUT");
    assert_eq!(told.well(), "1");
}

/// False while the proof is not there yet, or was not for a moment.
fn leave_no_record(world: &World, caller: &Caller, round: u32) -> bool {
    let (read, written) = (format!("read-{round}"), format!("written-{round}"));
    world.runtime.block_on(async {
        let client = world.connect(caller, "").await.unwrap();
        let prepared = client.prepare("SELECT count(*) FROM work WHERE mark = $1").await;
        let prepared = prepared.unwrap();
        named(&client, &read).await;
        for _ in 0..10 {
            client.query(&prepared, &[&"nobody"]).await.unwrap();
            client.simple_query("SELECT upper(mark) FROM work").await.unwrap();
            client.batch_execute("BEGIN").await.unwrap();
            client.query("VALUES (1, now())", &[]).await.unwrap();
            client.batch_execute("COMMIT").await.unwrap();
        }
        named(&client, &written).await;
        let insert = format!("INSERT INTO work (mark) VALUES ('{written}')");
        client.batch_execute(&insert).await.unwrap();
    });
    let records = wait_for("the record of the write", || {
        let records = world.records();
        let outcomes = of_event(&records, "transaction.outcome");
        let is_there = outcomes
            .iter()
            .any(|it| correlation(it).contains(&written.as_str()));
        is_there.then_some(records)
    });
    !records.iter().any(|it| correlation(it).contains(&read.as_str()))
}
