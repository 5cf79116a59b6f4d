//! Rounds of crashes at random moments, of gatepost, of the server, and of one backend, under writers that
//! remember what they were told. Afterwards the table is the judge: what was acknowledged is on record with
//! its transaction, and every verdict is as the table shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::harness::journal::correlation;
use crate::harness::programs::{Caller, Door};
use crate::harness::standby::Standbys;
use crate::harness::world::World;
use crate::harness::{LOOK_EVERY, full, wait_for};

const WRITERS: usize = 4;

/// What crashes in a round.
#[derive(Clone, Copy, Debug)]
enum Crash {
    Gatepost,
    /// The whole server, at once; gatepost goes on.
    Server,
    /// Gatepost, and the server before it is back.
    Both,
    /// One backend: the server ends all others, and recovers.
    Backend,
    /// The server, whose standby takes its place; gatepost goes on.
    FailOver,
    /// Gatepost, and the server fails over before it is back.
    BothFailOver,
}

/// What the writers were told, by the mark of each transaction.
#[derive(Debug, Default)]
struct Told {
    committed: Mutex<BTreeMap<String, u64>>,
    rolled_back: Mutex<BTreeSet<String>>,
    attempts: AtomicUsize,
    stop: AtomicBool,
}

struct Writer {
    door: Door,
    caller: Caller,
    number: usize,
    told: Arc<Told>,
}

impl Writer {
    /// Never tries the same transaction twice: a mark is a transaction.
    async fn run(&self) {
        let mut client: Option<Client> = None;
        let mut attempt = 0;
        while !self.told.stop.load(Ordering::Relaxed) {
            let Some(connected) = &client else {
                client = self.door.connect(&self.caller, "orders", "").await.ok();
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            attempt += 1;
            let mark = format!("{}-{attempt}", self.number);
            self.told.attempts.fetch_add(1, Ordering::Relaxed);
            if self.write(connected, &mark, attempt).await.is_err() {
                client = None;
            }
        }
    }

    /// By extended and by simple messages, alone and in a block, kept and given up.
    async fn write(&self, client: &Client, mark: &str, attempt: usize) -> Result<(), Error> {
        let insert = format!("INSERT INTO work (mark) VALUES ('{mark}') RETURNING top::text");
        client
            .batch_execute(&format!("SET gatepost.correlation_id = '{mark}'"))
            .await?;
        let id = match attempt % 5 {
            0 => client.query_one(&insert, &[]).await?.get::<_, String>(0),
            1 => first_value(&client.simple_query(&insert).await?),
            2 => {
                client.batch_execute("BEGIN").await?;
                let id = client.query_one(&insert, &[]).await?.get(0);
                client.batch_execute("COMMIT").await?;
                id
            }
            3 => first_value(
                &client
                    .simple_query(&format!("BEGIN; {insert}; {insert}; COMMIT"))
                    .await?,
            ),
            _ => {
                client.batch_execute("BEGIN").await?;
                client.simple_query(&insert).await?;
                client.batch_execute("ROLLBACK").await?;
                self.told.rolled_back.lock().unwrap().insert(mark.to_owned());
                return Ok(());
            }
        };
        let id = id.parse().unwrap();
        self.told.committed.lock().unwrap().insert(mark.to_owned(), id);
        Ok(())
    }

    fn start(self) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(self.run());
        })
    }
}

fn first_value(messages: &[SimpleQueryMessage]) -> String {
    let value = |message: &SimpleQueryMessage| {
        let SimpleQueryMessage::Row(row) = message else {
            return None;
        };
        row.get(0).map(str::to_owned)
    };
    messages.iter().find_map(value).unwrap()
}

/// The moments are anybody's guess, also those of a second run.
fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let state = std::collections::hash_map::RandomState::new();
    state.build_hasher().finish() % below
}

fn crash(world: &mut World, standbys: Option<&mut Standbys>, what: Crash) {
    match what {
        Crash::Gatepost => {
            world.kill_proxy();
            world.serve();
        }
        Crash::Server => {
            world.crash_server();
            world.start_server();
        }
        Crash::Both => {
            world.kill_proxy();
            world.crash_server();
            world.start_server();
            world.serve();
        }
        Crash::Backend => {
            let backends = "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'gp\\_%' LIMIT 1";
            let backend = wait_for("a backend", || {
                Some(world.sql(backends)).filter(|it| !it.is_empty())
            });
            world.crash_backend(&backend);
        }
        Crash::FailOver => standbys.unwrap().fail_over(world),
        Crash::BothFailOver => {
            world.kill_proxy();
            standbys.unwrap().fail_over(world);
            world.serve();
        }
    }
}

fn rounds(crashes: &[Crash]) {
    rounds_in(World::with_work(15), crashes);
}

fn rounds_in(mut world: World, crashes: &[Crash]) {
    let fails_over = |it: &Crash| matches!(it, Crash::FailOver | Crash::BothFailOver);
    let mut standbys = crashes.iter().any(fails_over).then(|| Standbys::of(&mut world));
    world.serve();
    let told = Arc::new(Told::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| Writer {
            door: world.door(),
            caller: world.consumer(),
            number,
            told: Arc::clone(&told),
        })
        .map(Writer::start)
        .collect();
    for what in crashes {
        let until = told.committed.lock().unwrap().len() + 8 + usize::try_from(random(24)).unwrap();
        wait_for("commits", || {
            assert!(!writers.iter().any(JoinHandle::is_finished), "a writer ended");
            (told.committed.lock().unwrap().len() >= until).then_some(())
        });
        thread::sleep(Duration::from_micros(random(20_000)));
        crash(&mut world, standbys.as_mut(), *what);
    }
    wait_for("the last commits", || {
        let before = told.committed.lock().unwrap().len();
        thread::sleep(LOOK_EVERY);
        (told.committed.lock().unwrap().len() > before).then_some(())
    });
    told.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    wait_for("an end of every transaction on record", || {
        entries(&world.records())
            .values()
            .all(|it| it.is_over)
            .then_some(())
    });
    world.stop_proxy();
    let survives = crashes.iter().all(|it| matches!(it, Crash::Gatepost));
    judge(&world, &told, crashes.len(), survives);
    world.verify_journal();
}

/// All that the journal says of one transaction.
#[derive(Debug, Default)]
struct Entry {
    mark: String,
    id: Option<u64>,
    /// An outcome, or what was found out later.
    is_over: bool,
    verdicts: BTreeSet<String>,
}

fn entries(records: &[Value]) -> BTreeMap<(String, u64), Entry> {
    let mut entries: BTreeMap<(String, u64), Entry> = BTreeMap::new();
    for record in records {
        let detail = &record["detail"];
        let (Some(session), Some(number)) = (record["session"].as_str(), detail["number"].as_u64()) else {
            continue;
        };
        let entry = entries.entry((session.to_owned(), number)).or_default();
        if let [mark, ..] = correlation(record)[..] {
            mark.clone_into(&mut entry.mark);
        }
        entry.id = detail["id"].as_u64().or(entry.id);
        entry.is_over |= record["event"] != "transaction.intent";
        if detail["scope"] != "read_only" {
            entry
                .verdicts
                .extend(detail["outcome"].as_str().map(str::to_owned));
        }
    }
    entries
}

/// `survives`: the server never crashed, so that its ids are of one life.
fn judge(world: &World, told: &Told, crashes: usize, survives: bool) {
    let rows = world.sql("SELECT DISTINCT mark, top FROM work");
    let rows: BTreeMap<&str, u64> = rows
        .lines()
        .map(|row| row.split_once('|').unwrap())
        .map(|(mark, top)| (mark, top.parse().unwrap()))
        .collect();
    let records = world.records();
    let entries = entries(&records);
    let known: BTreeSet<(&str, u64)> = entries
        .values()
        .filter_map(|entry| Some((entry.mark.as_str(), entry.id?)))
        .collect();
    let announced: BTreeSet<&str> = entries.values().map(|entry| entry.mark.as_str()).collect();
    for (mark, id) in told.committed.lock().unwrap().iter() {
        assert_eq!(
            rows.get(mark.as_str()),
            Some(id),
            "acknowledged and not there: {mark}"
        );
        assert!(
            known.contains(&(mark, *id)),
            "acknowledged and not on record: {mark} by {id}"
        );
    }
    for (mark, id) in &rows {
        assert!(announced.contains(mark), "never announced: {mark} by {id}");
    }
    for mark in told.rolled_back.lock().unwrap().iter() {
        assert!(!rows.contains_key(mark.as_str()), "rolled back and there: {mark}");
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries.values().filter(|entry| !entry.mark.is_empty()) {
        let there = rows.get(entry.mark.as_str());
        let decided = entry
            .verdicts
            .iter()
            .find(|it| *it != "in_doubt")
            .map(String::as_str);
        let verdict = decided.or_else(|| entry.verdicts.first().map(String::as_str));
        *counts.entry(verdict.unwrap_or("undecided")).or_default() += 1;
        let right = match decided {
            Some("committed") => there.is_some() && (entry.id.is_none() || entry.id == there.copied()),
            Some("aborted") => there.is_none(),
            None => true,
            Some(_) => false,
        };
        let decisions = entry.verdicts.iter().filter(|it| *it != "in_doubt").count();
        assert!(right && decisions <= 1, "{entry:?}, in the table: {there:?}");
    }
    eprintln!(
        "{crashes} crashes, server alive {survives}: {counts:?}, {} rows",
        rows.len()
    );
    let open = counts.get("in_doubt").unwrap_or(&0) + counts.get("undecided").unwrap_or(&0);
    // Of each crash every writer can have one that nobody saw end.
    assert!(open <= 2 * WRITERS * crashes, "{counts:?}");
    let attempts = told.attempts.load(Ordering::Relaxed);
    assert!(
        attempts > 8 * crashes && counts["committed"] > 4 * crashes,
        "{counts:?}"
    );
}

#[test]
fn kill_of_gatepost() {
    rounds(&vec![Crash::Gatepost; if full() { 200 } else { 10 }]);
}

#[test]
fn kill_of_gatepost_that_holds_replies() {
    let mut world = World::with_work(15);
    world.config.durability = "batched";
    rounds_in(world, &vec![Crash::Gatepost; if full() { 200 } else { 5 }]);
}

#[test]
fn crashes_of_the_server() {
    let once = [Crash::Server, Crash::Both, Crash::Backend];
    rounds(&once.repeat(if full() { 20 } else { 2 }));
}

#[test]
fn promotions_of_a_standby() {
    let once = [Crash::FailOver, Crash::BothFailOver];
    rounds(&once.repeat(if full() { 20 } else { 1 }));
}
