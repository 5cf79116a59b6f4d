//! `kill -9` under the load of several writers that commit by themselves: what a client was told to be
//! committed is in the journal with its transaction id, and everything in the database at least announced.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tokio_postgres::Client;

use crate::harness::journal::of_event;
use crate::harness::programs::{Caller, Door};
use crate::harness::wait_for;
use crate::harness::world::World;

const WRITERS: usize = 4;
const ROWS_EACH: usize = 250;
const KILLS: usize = 3;

/// What all writers together were told to be committed.
#[derive(Debug, Default)]
struct Told {
    ids: Mutex<BTreeSet<u64>>,
    rows: AtomicUsize,
    reconnects: AtomicUsize,
}

/// Writes its rows one by one, comes back after every loss, and asks whether a row whose answer was lost
/// is there.
async fn write(door: &Door, caller: &Caller, writer: usize, told: &Told) {
    let mut client: Option<Client> = None;
    let mut row = 0;
    while row < ROWS_EACH {
        let Some(connected) = &client else {
            client = door.connect(caller, "orders", "").await.ok();
            told.reconnects
                .fetch_add(usize::from(client.is_some()), Ordering::Relaxed);
            tokio::time::sleep(crate::harness::LOOK_EVERY).await;
            continue;
        };
        let mark = format!("{writer}-{row}");
        match write_once(connected, &mark).await {
            Ok(id) => {
                if let Some(id) = id {
                    told.ids.lock().unwrap().insert(id);
                }
                told.rows.fetch_add(1, Ordering::Relaxed);
                row += 1;
            }
            Err(error) => {
                assert!(
                    error
                        .as_db_error()
                        .is_none_or(|it| it.code().code().starts_with("57P") || it.code().code() == "08006"),
                    "{error:?}"
                );
                client = None;
            }
        }
    }
}

/// `None`: the row was there already.
async fn write_once(client: &Client, mark: &str) -> Result<Option<u64>, tokio_postgres::Error> {
    let there = client
        .query("SELECT 1 FROM orders WHERE customer = $1", &[&mark])
        .await?;
    if !there.is_empty() {
        return Ok(None);
    }
    let insert = "INSERT INTO orders (customer) VALUES ($1) RETURNING pg_current_xact_id()::text";
    let id: String = client.query_one(insert, &[&mark]).await?.get(0);
    Ok(Some(id.parse().unwrap()))
}

fn start_writers(world: &World, told: &Arc<Told>) -> Vec<JoinHandle<()>> {
    let start = |writer| {
        let (door, caller, told) = (world.door(), world.consumer(), Arc::clone(told));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(write(&door, &caller, writer, &told));
        })
    };
    (0..WRITERS).map(start).collect()
}

#[test]
fn what_was_acknowledged_is_on_record() {
    let mut world = World::start();
    let told = Arc::new(Told::default());
    let writers = start_writers(&world, &told);
    let mut dead = BTreeSet::new();
    for kill in 1..=KILLS {
        let enough = WRITERS * ROWS_EACH * kill / (KILLS + 1);
        wait_for("progress", || {
            assert!(
                !writers.iter().any(JoinHandle::is_finished),
                "a writer ended early"
            );
            (told.rows.load(Ordering::Relaxed) >= enough).then_some(())
        });
        world.kill_proxy();
        dead.extend(world.logins());
        assert!(dead.len() >= kill, "{dead:?}");
        world.serve();
    }
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(told.reconnects.load(Ordering::Relaxed) >= WRITERS * (KILLS + 1));
    wait_for("the sweep of the logins of dead processes", || {
        let left = world.logins();
        dead.iter().all(|login| !left.contains(login)).then_some(())
    });
    let records = world.settled();
    let ids = |event: &str| -> BTreeSet<u64> {
        let records = of_event(&records, event).into_iter();
        records.filter_map(|it| it["detail"]["id"].as_u64()).collect()
    };
    let (intents, outcomes) = (ids("transaction.intent"), ids("transaction.outcome"));
    let rows = world.sql("SELECT xmin::text FROM orders");
    let written: BTreeSet<u64> = rows.lines().map(|id| id.parse().unwrap()).collect();
    assert_eq!(written.len(), WRITERS * ROWS_EACH);
    let acknowledged = told.ids.lock().unwrap().clone();
    assert!(acknowledged.is_subset(&written), "acknowledged and not there");
    let known = &intents | &outcomes;
    let unknown: Vec<_> = written.difference(&known).collect();
    assert!(unknown.is_empty(), "not in the journal: {unknown:?}");
    // At each kill every writer can have had one answer whose outcome was not written yet.
    let announced = acknowledged.difference(&outcomes).count();
    assert!(announced <= WRITERS * KILLS, "{announced} without an outcome");
    world.stop_proxy();
    assert_eq!(world.logins(), Vec::<String>::new());
    world.verify_journal();
}
