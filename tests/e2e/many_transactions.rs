//! pgbench in its three modes: every transaction in the journal once, and the journal's transaction ids
//! are those of the COMMIT records in the write-ahead log, neither more nor fewer.

use std::collections::BTreeSet;

use crate::harness::journal::{committed, correlation, of_event};
use crate::harness::world::World;

/// Transactions of one mode; with `GATEPOST_TEST_FULL` set, as in CI, the larger number.
const TRANSACTIONS: usize = 2_000;
const TRANSACTIONS_FULL: usize = 10_000;
const CLIENTS: usize = 4;

fn transactions() -> usize {
    if std::env::var_os("GATEPOST_TEST_FULL").is_some() {
        TRANSACTIONS_FULL
    } else {
        TRANSACTIONS
    }
}

#[test]
fn simple() {
    mode("simple");
}

#[test]
fn extended() {
    mode("extended");
}

#[test]
fn prepared() {
    mode("prepared");
}

fn mode(mode: &str) {
    let world = World::start();
    world.sql("CREATE EXTENSION pg_walinspect");
    world.sql(
        "INSERT INTO pgbench_branches VALUES (1, 0, '');
         INSERT INTO pgbench_tellers SELECT t, 1, 0, '' FROM generate_series(1, 10) AS t;
         INSERT INTO pgbench_accounts SELECT a, 1, 0, '' FROM generate_series(1, 100000) AS a;",
    );
    // Half of them in blocks of seven statements, half single statements that commit by themselves.
    let single = world.path("single.sql");
    std::fs::write(
        &single,
        "INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES (1, 1, 1, 1);\n",
    )
    .unwrap();
    let single = single.display().to_string();
    let each = (transactions() / 2 / CLIENTS).to_string();
    let begin = world.sql("SELECT pg_current_wal_flush_lsn()");
    let caller = world.consumer();
    for script in [["--builtin", "tpcb-like"], ["--file", &single]] {
        let mut pgbench = world.pgbench(&caller, &["--protocol", mode, "--transactions", &each]);
        pgbench
            .args(["--client", &CLIENTS.to_string(), "--jobs", "2"])
            .args(script);
        pgbench.env("PGOPTIONS", "-c gatepost.correlation_id=pgbench");
        let output = pgbench.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
    }

    let logged = commits_in_wal(&world, &begin);
    let records = world.settled();
    let journal = committed(&records);
    let missing: Vec<_> = logged.difference(&journal).take(5).collect();
    let invented: Vec<_> = journal.difference(&logged).take(5).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "missing {missing:?}, invented {invented:?}"
    );
    assert_eq!(journal.len(), transactions() / 2 / CLIENTS * CLIENTS * 2);
    for outcome in of_event(&records, "transaction.outcome") {
        if outcome["detail"]["outcome"] == "committed" && outcome["detail"]["scope"] != "read_only" {
            assert_eq!(correlation(outcome), ["pgbench"], "{outcome}");
        }
    }
    world.verify_journal();
}

/// COMMIT records of transactions that wrote to pgbench_history; gatepost's own logins commit too.
fn commits_in_wal(world: &World, begin: &str) -> BTreeSet<u64> {
    let sql = format!(
        "WITH log AS MATERIALIZED (
           SELECT xid, resource_manager, record_type, block_ref
           FROM pg_get_wal_records_info('{begin}', pg_current_wal_flush_lsn())),
         ours AS (
           SELECT DISTINCT xid FROM log WHERE resource_manager = 'Heap' AND block_ref LIKE
             '%rel ' || (SELECT oid FROM pg_tablespace WHERE spcname = 'pg_default') || '/' ||
             (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' ||
             pg_relation_filenode('pgbench_history') || ' %')
         SELECT log.xid FROM log JOIN ours USING (xid)
         WHERE resource_manager = 'Transaction' AND record_type = 'COMMIT'"
    );
    world.sql(&sql).lines().map(|id| id.parse().unwrap()).collect()
}
