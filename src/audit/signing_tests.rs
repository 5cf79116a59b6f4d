//! When a head is written: with each group where each is synced, else once for what comes within one span, and at once
//! for all that is no transaction.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::chain::{Hash, Link};
use super::group::Group;
use super::journal::{BATCHED_SYNC_EVERY, Durability, Journal, Settings};
use super::key::PublicKey;
use super::record::Outcome;
use super::tests::{Still, check, new_key, normalise, opened, run, segment, settings, transaction};
use super::tree::Tree;

const ALL: [Durability; 3] = [Durability::Strict, Durability::Batched, Durability::Os];

struct Bench {
    directory: tempfile::TempDir,
    public: PublicKey,
    journal: Journal,
}

fn bench(durability: Durability) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let (pem, public) = new_key();
    let settings = Settings {
        durability,
        ..settings(directory.path(), &pem)
    };
    let journal = Journal::open(settings, Arc::new(Still), normalise).unwrap();
    Bench {
        directory,
        public,
        journal,
    }
}

fn events(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(segment(directory)).unwrap();
    let event = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["event"].as_str().unwrap().to_owned()
    };
    text.lines().map(event).collect()
}

fn heads(directory: &Path) -> usize {
    events(directory).iter().filter(|event| *event == "head").count()
}

#[test]
fn transactions_share_a_head_where_they_do_not_have_a_sync_each() {
    for durability in ALL {
        let bench = bench(durability);
        let begun = Instant::now();
        let receipts = run(async {
            let mut receipts = Vec::new();
            for number in 1..=20 {
                let record = transaction(number, Some(Outcome::Committed));
                receipts.push(bench.journal.append(record).await.unwrap().seq());
            }
            receipts
        });
        let at_most = match durability {
            Durability::Strict => 20,
            // Each signs what was written since the span before it ended.
            Durability::Batched | Durability::Os => {
                begun.elapsed().as_micros() / BATCHED_SYNC_EVERY.as_micros() + 1
            }
        };
        let heads = heads(bench.directory.path());
        assert!(heads as u128 <= at_most, "{durability:?}: {heads} heads");
        assert!(durability != Durability::Strict || heads == 20);
        // And none remains without one.
        let until = Instant::now() + Duration::from_secs(20);
        let last = *receipts.last().unwrap();
        let signed = || {
            let bytes = fs::read(segment(bench.directory.path())).unwrap();
            check(&bytes, &bench.public).is_ok_and(|summary| summary.head.is_some_and(|head| head.seq > last))
        };
        while !signed() {
            assert!(Instant::now() < until, "{durability:?}: not signed");
            std::thread::sleep(Duration::from_millis(5));
        }
        run(bench.journal.close());
    }
}

#[test]
fn what_is_no_transaction_is_signed_before_its_receipt() {
    for durability in ALL {
        let bench = bench(durability);
        run(bench.journal.append(opened(1))).unwrap();
        assert_eq!(events(bench.directory.path()), ["session.closed", "head"]);
        run(bench.journal.close());
    }
}

#[test]
fn the_end_of_the_journal_is_signed() {
    for durability in ALL {
        let Bench {
            directory,
            public,
            journal,
        } = bench(durability);
        run(async {
            journal.append(transaction(1, None)).await.unwrap();
            journal.close().await;
        });
        let bytes = fs::read(segment(directory.path())).unwrap();
        assert_eq!(check(&bytes, &public).unwrap().unsigned, 0);
        assert_eq!(events(directory.path()).last().unwrap(), "head");
    }
}

#[test]
fn so_many_records_do_not_wait_for_the_time() {
    let group = |seq, signed| {
        let hash = Hash::of(&[b"any"]);
        let link = Link { seq, hash };
        Group::new(link, signed, Tree::default(), SystemTime::UNIX_EPOCH, Vec::new())
    };
    assert!(!group(1_100, 77).is_to_be_signed());
    assert!(group(1_101, 77).is_to_be_signed());
}
