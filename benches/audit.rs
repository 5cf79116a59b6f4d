//! How fast a journal is written, verified, proved and compressed: `cargo bench --bench audit`.
//!
//! `GATEPOST_BENCH_MB` sets the size (default 1024), `GATEPOST_BENCH_GROUP` how many records share a head
//! (default 4; 1 is a proxy with one client at a time, the slowest to verify).

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on stops; it tells what it measured; it is about real time"
)]

use std::env;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gatepost::audit::heads::SecondPlace;
use gatepost::audit::proof::prove;
use gatepost::audit::retention::Retention;
use gatepost::audit::rotation::Keys;
use gatepost::audit::verify::{Demands, stored_bytes, verify_all};
use gatepost::audit::{
    ClientFacts, Durability, Event, Facts, IdentityFacts, Journal, Normalised, Outcome, Record, Scope,
    Settings, SigningKey, Statement, Transaction, key,
};
use gatepost::domain::{Clock, Secret};

#[derive(Debug)]
struct Ahead(Duration);

impl Clock for Ahead {
    fn now(&self) -> SystemTime {
        SystemTime::now() + self.0
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

fn open(directory: &Path, pem: &str, retention: Retention, ahead: Duration) -> Journal {
    let settings = Settings {
        directory: directory.to_owned(),
        durability: Durability::Os,
        signing_key: Secret::new(pem.as_bytes().to_vec()),
        previous_key: None,
        installation: "bench".into(),
        replica: "one".into(),
        segment_bytes: 64 << 20,
        heads: SecondPlace::default(),
        retention,
    };
    let normalise = |text: &str| Normalised {
        fingerprint: "0".repeat(16),
        text: text.to_owned(),
    };
    Journal::open(settings, Arc::new(Ahead(ahead)), normalise).unwrap()
}

/// As a worker's insert leaves it.
fn outcome(facts: &Arc<Facts>, number: u64) -> Record {
    Record::new(
        Arc::clone(facts),
        Event::TransactionOutcome {
            transaction: Box::new(Transaction {
                number,
                id: Some(1_000_000 + number),
                statements: vec![Statement {
                    text: "INSERT INTO orders (customer, total) VALUES ($1, $2)".into(),
                    kind: "insert",
                    rows: Some(1),
                    values: None,
                }],
                statements_omitted: 0,
                began: SystemTime::now(),
                backend: 4711,
                incarnation: None,
                marker: None,
                heard: None,
                gid: None,
            }),
            scope: Scope::Complete,
            outcome: Outcome::Committed,
            duration: Duration::from_micros(1_234),
        },
    )
}

fn facts() -> Arc<Facts> {
    Arc::new(Facts {
        identity: Some(IdentityFacts {
            provider: "entra".into(),
            subject: "9a0d1c2e-77b1-4c53-8f0e-5f5a6f1b2c3d".to_owned(),
            client_id: Some("7b1c5d0e-1a2b-4c3d-9e8f-0a1b2c3d4e5f".to_owned()),
            tenant: Some("1a1a1a1a-2222-4333-8444-555555555555".to_owned()),
            name: None,
            token_id: Some("AbCdEfGhIjKlMnOp".to_owned()),
            ticket_id: None,
        }),
        client: Some(ClientFacts {
            address: ([192, 0, 2, 17], 40_000).into(),
            application: Some("order-consumer".to_owned()),
        }),
        ..Facts::default()
    })
}

fn main() {
    let (megabytes, group) = (
        number("GATEPOST_BENCH_MB", 1024),
        number("GATEPOST_BENCH_GROUP", 4),
    );
    let folder = tempfile::tempdir().unwrap();
    let pem = key::generate().unwrap().expose().clone();
    let public = SigningKey::read(pem.as_bytes()).unwrap().public().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let begun = Instant::now();
    let records = runtime.block_on(write(folder.path(), &pem, megabytes, group));
    let size = stored_bytes(folder.path()).unwrap();
    let took = begun.elapsed();
    println!("wrote {records} records, {} MB, in {took:?}", size >> 20);

    let verified = |what: &str| {
        let (begun, busy) = (Instant::now(), cpu_seconds());
        let summary = verify_all(folder.path(), Demands::key(&public), &mut |_| {}).unwrap();
        let took = begun.elapsed();
        let (lines, heads, segments) = (summary.records, summary.heads, summary.segments);
        let busy = cpu_seconds() - busy;
        println!(
            "verified {what}: {lines} lines, {heads} heads, {segments} segments in {took:?}, {busy:.1} s of CPU"
        );
    };
    verified("as written");

    let begun = Instant::now();
    let proof = prove(folder.path(), 1000).unwrap();
    let bytes = serde_json::to_string(&proof).unwrap().len();
    println!("proved one record in {:?}: {bytes} bytes", begun.elapsed());
    proof.verify(&Keys::new([public.clone()])).unwrap();

    let compressing = Retention {
        compress_after: Some(Duration::from_secs(3600)),
        keep: None,
    };
    let begun = Instant::now();
    let day = Duration::from_secs(24 * 60 * 60);
    runtime.block_on(async {
        let journal = open(folder.path(), &pem, compressing, day);
        let marker = Record::new(Arc::default(), Event::ServerStopped);
        journal.append(marker).await.unwrap();
        journal.close().await;
        // The thread looks when it starts: by now there is a record behind all old segments.
        let journal = open(folder.path(), &pem, compressing, 2 * day);
        while plain(folder.path()) > 2 {
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(10));
        }
        journal.close().await;
    });
    let small = stored_bytes(folder.path()).unwrap();
    println!("compressed to {} MB in {:?}", small >> 20, begun.elapsed());
    verified("compressed");
}

/// What all threads of this process have used: tells the work from the waiting on a busy machine.
fn cpu_seconds() -> f64 {
    /// The kernel counts in hundredths, whatever its own clock (proc(5)).
    const TICKS: f64 = 100.0;
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    let numbers = fields.split_ascii_whitespace().skip(11).take(2);
    numbers.map(|ticks| ticks.parse::<f64>().unwrap() / TICKS).sum()
}

async fn write(folder: &Path, pem: &str, megabytes: u64, group: u64) -> u64 {
    let journal = open(folder, pem, Retention::default(), Duration::ZERO);
    let facts = facts();
    let mut records = 0;
    while records % 4096 != 0 || stored_bytes(folder).unwrap() < megabytes << 20 {
        for _ in 1..group {
            records += 1;
            journal.submit(outcome(&facts, records)).unwrap();
        }
        records += 1;
        journal.append(outcome(&facts, records)).await.unwrap();
    }
    journal.close().await;
    records
}

fn plain(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str()
                .is_some_and(|name| name.ends_with(".jsonl") && name.starts_with("segment-"))
        })
        .count()
}
