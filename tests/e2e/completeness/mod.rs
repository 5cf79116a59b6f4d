//! Completeness on PostgreSQL: every COMMIT record in the write-ahead log against the journal. No commit
//! without a record that names it, but for a few classes that are counted one by one, and no record of a
//! commit that did not happen.

mod random;
mod raw;
mod reads;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use crate::harness::full;
use crate::harness::programs::Caller;
use crate::harness::wal::Balance;
use crate::harness::world::World;

const DRIVERS: [&str; 3] = [
    "psycopg3_complete.py",
    "psycopg2_complete.py",
    "asyncpg_complete.py",
];

#[test]
fn programs_on_postgresql_15() {
    programs(15, 400);
}

#[test]
fn programs_on_postgresql_17() {
    programs(17, 100);
}

#[test]
fn programs_on_postgresql_18() {
    programs(18, 100);
}

#[test]
fn messages_on_postgresql_15() {
    messages(15, if full() { 100 } else { 6 });
}

#[test]
fn messages_on_postgresql_17() {
    messages(17, if full() { 20 } else { 2 });
}

#[test]
fn messages_on_postgresql_18() {
    messages(18, if full() { 20 } else { 2 });
}

#[test]
fn programs_whose_replies_are_held() {
    let held = quiet_world_with(15, hold_replies);
    programs_in(held, 15, 100);
}

#[test]
fn messages_whose_replies_are_held() {
    let held = quiet_world_with(15, hold_replies);
    messages_in(held, 15, if full() { 50 } else { 3 });
}

/// Here a transaction outside of a block does not end with a function call.
#[test]
fn messages_whose_replies_are_held_on_postgresql_18() {
    let held = quiet_world_with(18, hold_replies);
    messages_in(held, 18, if full() { 50 } else { 3 });
}

fn hold_replies(world: &mut World) {
    world.config.durability = "batched";
}

#[test]
fn reads_on_postgresql_15() {
    reads(15);
}

#[test]
fn reads_on_postgresql_18() {
    reads(18);
}

fn reads(major: u32) {
    let (world, _keep, consumer) = quiet_world_with(major, |world| reads::traps(world));
    reads::judge(&world, &consumer);
    world.verify_journal();
}

/// A world whose WAL holds the clients' commits alone, for as long as the client of the second part stays:
/// it keeps the login, so that the broker commits nothing beside.
fn quiet_world(major: u32) -> (World, Client, Caller) {
    quiet_world_with(major, |_| {})
}

/// With more in it before gatepost comes.
fn quiet_world_with(major: u32, more: impl FnOnce(&mut World)) -> (World, Client, Caller) {
    let mut world = World::with_work(major);
    more(&mut world);
    world.serve();
    let consumer = world.consumer();
    let keep = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    (world, keep, consumer)
}

/// Drivers, and so many `transactions` of pgbench in each of its modes.
fn programs(major: u32, transactions: usize) {
    programs_in(quiet_world(major), major, transactions);
}

fn programs_in((world, _keep, consumer): (World, Client, Caller), major: u32, transactions: usize) {
    for program in DRIVERS {
        let since = world.here_in_wal();
        let told = world.python(&consumer, program, &[&major.to_string()]).well();
        let balance = world.balance(&since);
        eprintln!("--- {program} on PostgreSQL {major}: {balance}");
        assert_as_told(&told, &balance, world.config.durability == "strict");
    }
    pgbench(&world, &consumer, transactions);
    world.verify_journal();
}

/// What no driver sends, and so many sessions of random statements.
fn messages(major: u32, sessions: u64) {
    messages_in(quiet_world(major), major, sessions);
}

fn messages_in((world, _keep, consumer): (World, Client, Caller), major: u32, sessions: u64) {
    raw::classes(&world, &consumer, major);
    random::sessions(&world, &consumer, sessions);
    world.verify_journal();
}

/// Partial are the steps that the program named, and unnamed as many commits as it counted. Late, with an id that
/// its outcome names and its intent does not, are those that it named too; where replies are held, what commits
/// by itself is as well.
fn assert_as_told(told: &str, balance: &Balance, asks_first: bool) {
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    let mut late: BTreeSet<String> = BTreeSet::new();
    let mut steps = 0;
    for line in told.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["step", _] => steps += 1,
            ["unnamed", mark, count] => {
                *expected.entry(mark).or_default() += count.parse::<usize>().unwrap();
            }
            ["late", mark] => drop(late.insert(mark.to_owned())),
            _ => panic!("what does {line} mean?"),
        }
    }
    assert!(steps > 3, "{told}");
    assert!(balance.lies.is_empty(), "{balance}");
    let partial: Vec<_> = balance.partial.keys().map(String::as_str).collect();
    let wanted: Vec<_> = expected.keys().copied().collect();
    assert_eq!(partial, wanted, "steps with partial records: {balance}");
    let found = &balance.late - &expected.keys().map(|it| (*it).to_owned()).collect();
    assert!(found.is_superset(&late), "{late:?}: {balance}");
    assert!(found == late || !asks_first, "{late:?}: {balance}");
    let unnamed: usize = expected.values().sum();
    assert_eq!(balance.unnamed.len(), unnamed, "{balance}");
}

/// Nothing partial, and every commit has its name.
fn assert_complete(what: &str, balance: &Balance) {
    assert!(balance.lies.is_empty(), "{what}: {balance}");
    assert!(balance.unnamed.is_empty(), "{what}: {balance}");
    assert!(balance.partial.is_empty(), "{what}: {balance}");
    assert!(balance.late.is_empty(), "{what}: {balance}");
}

fn pgbench(world: &World, caller: &Caller, transactions: usize) {
    world.sql(
        "INSERT INTO pgbench_branches VALUES (1, 0, '');
         INSERT INTO pgbench_tellers SELECT t, 1, 0, '' FROM generate_series(1, 10) AS t;
         INSERT INTO pgbench_accounts SELECT a, 1, 0, '' FROM generate_series(1, 100000) AS a;",
    );
    for mode in ["simple", "extended", "prepared"] {
        let since = world.here_in_wal();
        let each = (transactions / 4).to_string();
        let arguments = ["--client", "4", "--builtin", "tpcb-like", "--transactions", &each];
        let mut pgbench = world.pgbench(caller, &arguments);
        let output = pgbench.args(["--protocol", mode]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let balance = world.balance(&since);
        assert_complete(mode, &balance);
        assert_eq!(balance.commits.len(), transactions / 4 * 4, "{mode}");
    }
}
