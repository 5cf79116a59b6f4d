//! The journal as a whole: what is written is proved, what is altered is found, what fails is said.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::chain::Line;
use super::filter::Filter;
use super::heads::SecondPlace;
use super::journal::*;
use super::key::{self, PublicKey};
use super::record::*;
use super::retention::Retention;
use super::rotation::Keys;
use super::segment::{Directory, Files, SegmentFile};
use super::show;
use super::stored::{self, Current, Source};
use super::verify::{self, Fault};
use super::walk::{Kept, Walk};
use super::writer::Tuning;
use crate::domain::clock::Clock;
use crate::domain::correlation::{Correlation, CorrelationSource};

#[derive(Debug)]
pub(super) struct Still;
impl Clock for Still {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }
}

pub(super) fn normalise(text: &str) -> Normalised {
    Normalised {
        fingerprint: format!("{:016x}", text.len()),
        text: "insert into t values (?)".to_owned(),
    }
}

pub(super) fn settings(directory: &Path, key: &str) -> Settings {
    Settings {
        directory: directory.to_owned(),
        durability: Durability::Strict,
        signing_key: crate::domain::secret::Secret::new(key.as_bytes().to_vec()),
        installation: "test".into(),
        replica: "one".into(),
        previous_key: None,
        segment_bytes: 1 << 20,
        heads: SecondPlace::default(),
        retention: Retention::default(),
    }
}

pub(super) fn new_key() -> (String, PublicKey) {
    let pem = key::generate().unwrap().expose().clone();
    let public = key::SigningKey::read(pem.as_bytes()).unwrap().public().clone();
    (pem, public)
}

pub(super) fn opened(record: u64) -> Record {
    Record::new(
        Arc::default(),
        Event::SessionClosed {
            why: "done",
            reason: None,
            transactions: record,
        },
    )
}

pub(super) fn transaction(number: u64, outcome: Option<Outcome>) -> Record {
    let transaction = Box::new(Transaction {
        incarnation: None,
        marker: None,
        heard: None,
        number,
        id: outcome.map(|_| 742),
        gid: None,
        statements: vec![Statement {
            text: "insert into t values ('hunter2')".into(),
            kind: "insert",
            rows: Some(1),
            values: None,
        }],
        statements_omitted: 0,
        began: Still.now(),
        backend: 7,
    });
    let event = match outcome {
        None => Event::TransactionIntent(transaction),
        Some(outcome) => Event::TransactionOutcome {
            transaction,
            scope: Scope::Complete,
            outcome,
            duration: Duration::from_millis(2),
        },
    };
    let correlation = vec![Correlation::new("msg-1", CorrelationSource::Set).unwrap()];
    Record {
        facts: Arc::default(),
        correlation,
        event,
    }
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// Writes `count` groups of one record each.
pub(super) fn write(directory: &Path, key: &str, count: u64) {
    run(async {
        let journal = Journal::open(settings(directory, key), Arc::new(Still), normalise).unwrap();
        for number in 1..=count {
            journal.append(opened(number)).await.unwrap();
        }
        journal.close().await;
    });
}

pub(super) fn segment(directory: &Path) -> std::path::PathBuf {
    stored::segments(directory).unwrap().pop().unwrap()
}

/// Lines in memory, as if they stood in one segment.
struct Lines<'a>(std::slice::SplitInclusive<'a, u8, fn(&u8) -> bool>);

impl<'a> Lines<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self(bytes.split_inclusive(|byte| *byte == b'\n'))
    }
}

impl Source for Lines<'_> {
    fn next_line(&mut self, current: &mut Current) -> io::Result<bool> {
        let Some(line) = self.0.next() else {
            return Ok(false);
        };
        current.bytes.clear();
        current.bytes.extend_from_slice(line);
        current.line += 1;
        Ok(true)
    }
}

pub(super) fn check(bytes: &[u8], key: &PublicKey) -> Result<verify::Summary, verify::Broken> {
    let walk = Walk::new(Keys::new([key.clone()]), Kept::new(Box::new(std::iter::empty())));
    walk.run(&mut Lines::of(bytes), &mut |_| {})
}

#[test]
fn every_single_bit_change_is_found_at_its_record() {
    let directory = tempfile::tempdir().unwrap();
    let (pem, public) = new_key();
    write(directory.path(), &pem, 2);
    let bytes = fs::read(segment(directory.path())).unwrap();
    assert_eq!(check(&bytes, &public).unwrap().records, 6);
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let line = bytes[..bit / 8].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        let broken = check(&changed, &public).expect_err("a changed bit");
        assert_eq!(broken.line, line, "bit {bit}: {broken}");
    }
}

#[test]
fn removal_insertion_and_reordering_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (pem, public) = new_key();
    write(directory.path(), &pem, 3);
    let bytes = fs::read(segment(directory.path())).unwrap();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let fault = |order: &[usize]| {
        let bytes: Vec<u8> = order.iter().flat_map(|at| lines[*at].to_vec()).collect();
        let broken = check(&bytes, &public).unwrap_err();
        (broken.seq, broken.what)
    };
    assert!(matches!(
        fault(&[0, 1, 3, 4, 5]),
        (3, Fault::Removed { through: 3 })
    ));
    assert!(matches!(fault(&[0, 1, 3, 2, 4, 5]), (3, Fault::Reordered)));
    assert!(matches!(fault(&[0, 1, 0, 2, 3, 4, 5]), (3, Fault::Inserted)));
    assert!(matches!(fault(&[1, 2, 3]), (1, Fault::Removed { through: 1 })));
    let head = verify::verify(directory.path(), &public).unwrap().head;
    fs::write(segment(directory.path()), lines[..4].concat()).unwrap();
    let cut = verify::verify_expecting(directory.path(), &public, head.as_ref()).unwrap_err();
    assert!(matches!((cut.seq, cut.what), (5, Fault::Cut)));
}

#[test]
fn a_write_cut_at_any_byte_is_repaired_and_continued() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &pem, 2);
    let whole = fs::read(segment(directory.path())).unwrap();
    let feeds: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    // All around the ends of lines, and some in between.
    let near =
        |length: &usize| length.is_multiple_of(7) || feeds.iter().any(|feed| feed.abs_diff(*length) < 4);
    for length in (feeds[1] + 1..whole.len()).filter(near) {
        fs::write(segment(directory.path()), &whole[..length]).unwrap();
        write(directory.path(), &pem, 1);
        let summary = verify::verify(directory.path(), &public).unwrap();
        assert_eq!((summary.unsigned, summary.torn_bytes), (0, 0));
        let text = fs::read_to_string(segment(directory.path())).unwrap();
        assert_eq!(
            text.contains("journal.repaired"),
            length != feeds[1] + 1 && length != feeds[3] + 1,
            "{length}"
        );
    }
}

#[test]
fn a_restart_and_new_segments_continue_the_chain_in_a_new_epoch() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &pem, 2);
    run(async {
        let small = Settings {
            segment_bytes: 1,
            ..settings(directory.path(), &pem)
        };
        let journal = Journal::open(small, Arc::new(Still), normalise).unwrap();
        assert_eq!(journal.epoch(), 2);
        for number in 0..3 {
            journal.append(opened(number)).await.unwrap();
        }
        let locked = Journal::open(settings(directory.path(), &pem), Arc::new(Still), normalise);
        assert!(matches!(locked, Err(JournalError::Locked { .. })));
        journal.close().await;
    });
    let summary = verify::verify(directory.path(), &public).unwrap();
    assert_eq!((summary.segments, summary.records, summary.seals), (4, 15, 4));
}

#[derive(Default)]
struct Disk {
    full: AtomicBool,
    syncs: AtomicUsize,
    /// Bytes that can still be written while it is full, and how many of them are set aside.
    left: AtomicU64,
    reserved: AtomicU64,
}

struct TestFiles(Directory, Arc<Disk>);
struct TestFile(Box<dyn SegmentFile>, Arc<Disk>);

impl Files for TestFiles {
    fn directory(&self) -> &Path {
        self.0.directory()
    }
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(TestFile(self.0.open(path)?, Arc::clone(&self.1))))
    }
    fn free(&self) -> io::Result<u64> {
        let full = self.1.full.load(Ordering::SeqCst);
        Ok(if full { 0 } else { u64::MAX })
    }
    fn hold_reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.1.left.store(0, Ordering::SeqCst);
        self.1.reserved.store(bytes, Ordering::SeqCst);
        Ok(())
    }
    fn release_reserve(&mut self) -> io::Result<()> {
        let bytes = self.1.reserved.swap(0, Ordering::SeqCst);
        self.1.left.store(bytes, Ordering::SeqCst);
        Ok(())
    }
}

impl SegmentFile for TestFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let wanted = bytes.len() as u64;
        if self.1.full.load(Ordering::SeqCst) && self.1.left.load(Ordering::SeqCst) < wanted {
            self.0.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let left = self.1.left.load(Ordering::SeqCst).saturating_sub(wanted);
        self.1.left.store(left, Ordering::SeqCst);
        self.0.write_at(bytes, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::SeqCst);
        self.0.sync()
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.cut(length)
    }
    fn twin(&self) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(Self(self.0.twin()?, Arc::clone(&self.1))))
    }
}

fn on_disk(directory: &Path, pem: &str, reserve: u64) -> (Journal, Arc<Disk>) {
    let disk = Arc::new(Disk::default());
    let files = TestFiles(Directory::new(directory.to_owned()), Arc::clone(&disk));
    let tuning = Tuning {
        retry: Duration::from_millis(1),
        reserve,
        ..Tuning::default()
    };
    let settings = settings(directory, pem);
    let journal = Journal::open_on(settings, Arc::new(Still), normalise, Box::new(files), tuning);
    (journal.unwrap(), disk)
}

#[test]
fn a_full_disk_refuses_and_recovers_and_keeps_outcomes() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    let (journal, disk) = on_disk(directory.path(), &pem, 0);
    run(async {
        journal.append(transaction(1, None)).await.unwrap();
        disk.full.store(true, Ordering::SeqCst);
        let failed = journal.append(transaction(1, Some(Outcome::Committed))).await;
        assert!(matches!(failed, Err(JournalError::Write(_))));
        assert!(journal.health().is_err());
        assert!(journal.append(transaction(2, None)).await.is_err());
        disk.full.store(false, Ordering::SeqCst);
        while journal.health().is_err() {
            tokio::task::yield_now().await;
        }
        journal.append(opened(1)).await.unwrap();
        journal.close().await;
    });
    verify::verify(directory.path(), &public).unwrap();
    let rows = show::rows(
        directory.path(),
        &Filter {
            xid: Some(742),
            ..Filter::default()
        },
    )
    .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].outcome.as_deref(), Some("committed"));
    assert!(show::cells(&rows[0]).contains(&"msg-1".to_owned()));
    let text = fs::read_to_string(segment(directory.path())).unwrap();
    assert!(!text.contains("hunter2"));
    // Once, and once more because a failed write makes the writer forget what it has recorded.
    assert_eq!(text.matches("statement.seen").count(), 2);
}

#[test]
fn many_records_share_syncs_and_receipts_come_in_order() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    let (journal, disk) = on_disk(directory.path(), &pem, 0);
    run(async {
        for _ in 0..10 {
            let pending: Vec<_> = (0..10_000)
                .map(|at| journal.submit(opened(at)).unwrap())
                .collect();
            let mut last = 0;
            for one in pending {
                let seq = one.durable().await.unwrap().seq();
                assert!(seq > last);
                last = seq;
            }
        }
        journal.close().await;
    });
    assert!(disk.syncs.load(Ordering::SeqCst) < 10_000);
    assert!(verify::verify(directory.path(), &public).unwrap().records > 100_000);
    let bytes = fs::read(segment(directory.path())).unwrap();
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap();
    assert!(Line::read(first).unwrap().intact());
}

fn denied(address: [u8; 4]) -> Record {
    let facts = Facts {
        client: Some(ClientFacts {
            address: (address, 1).into(),
            application: None,
        }),
        ..Facts::default()
    };
    let reason = "no token was sent".to_owned();
    Record::new(
        Arc::new(facts),
        Event::SessionDenied {
            code: "token_missing",
            reason,
        },
    )
}

fn records(directory: &Path, event: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(segment(directory)).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    records
        .filter(|record: &serde_json::Value| record["event"] == event)
        .collect()
}

/// Appends until the first error, and says how often it went well.
async fn append_until_refused(journal: &Journal, record: impl Fn(u64) -> Record) -> (u64, JournalError) {
    for at in 0.. {
        if let Err(error) = journal.append(record(at)).await {
            return (at, error);
        }
    }
    unreachable!()
}

#[test]
fn a_full_disk_leaves_its_reserve_to_work_under_way() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    let (journal, disk) = on_disk(directory.path(), &pem, 128 << 10);
    let outcome = |number| transaction(number, Some(Outcome::Committed));
    let mut written = 0;
    run(async {
        disk.full.store(true, Ordering::SeqCst);
        // The write that finds the disk full is done all the same.
        journal.append(transaction(1, None)).await.unwrap();
        assert!(matches!(journal.health(), Err(JournalError::Reserved)));
        let opened = Record::new(Arc::default(), Event::SessionOpened);
        assert!(matches!(
            journal.append(opened).await,
            Err(JournalError::Reserved)
        ));
        for _ in 0..100 {
            let stranger = journal.submit(denied([192, 0, 2, 7]));
            assert!(matches!(stranger, Err(JournalError::Summed)));
        }
        let (intents, refused) = append_until_refused(&journal, |at| transaction(at, None)).await;
        assert!(
            intents > 10 && matches!(refused, JournalError::Reserved),
            "{intents}, {refused}"
        );
        let (outcomes, refused) = append_until_refused(&journal, outcome).await;
        assert!(
            outcomes > 10 && matches!(refused, JournalError::Write(_)),
            "{outcomes}, {refused}"
        );
        // Not even the reserve is left: what has happened waits in memory.
        let later = journal.submit(outcome(0)).unwrap();
        assert!(journal.append(outcome(0)).await.is_err());
        assert!(journal.append(transaction(0, None)).await.is_err());
        disk.full.store(false, Ordering::SeqCst);
        // If the disk was tried once more in between, this says so. It is written all the same.
        let _either = later.durable().await;
        written = outcomes + 3;
        // And the reserve comes back by itself.
        while journal.health().is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(disk.reserved.load(Ordering::SeqCst), 128 << 10);
        journal.close().await;
    });
    verify::verify(directory.path(), &public).unwrap();
    let on_record = records(directory.path(), "transaction.outcome").len() as u64;
    assert_eq!(on_record, written);
    let sums = records(directory.path(), "session.denied_many");
    assert_eq!(sums.len(), 1);
    assert_eq!(sums[0]["detail"]["count"], 100);
    assert!(records(directory.path(), "session.opened").is_empty());
}

/// Fails the write of one denial by which nobody was let in: it is not lost, but summed.
#[test]
fn a_stranger_s_denial_in_a_failed_write_is_counted() {
    let (pem, _) = new_key();
    let directory = tempfile::tempdir().unwrap();
    let (journal, disk) = on_disk(directory.path(), &pem, 0);
    run(async {
        disk.full.store(true, Ordering::SeqCst);
        let pending = journal.submit(denied([192, 0, 2, 7])).unwrap();
        assert!(journal.append(opened(1)).await.is_err());
        assert!(pending.durable().await.is_err());
        disk.full.store(false, Ordering::SeqCst);
        while journal.health().is_err() {
            tokio::task::yield_now().await;
        }
        journal.close().await;
    });
    assert!(records(directory.path(), "session.denied").is_empty());
    let sums = records(directory.path(), "session.denied_many");
    assert_eq!(sums[0]["detail"]["count"], 1);
}

#[test]
fn refused_calls_of_nobody_known_are_summed_up_like_strangers() {
    let call = |uid| {
        Event::Admin(AdminCall {
            action: crate::domain::AdminAction::Reload,
            door: "api",
            uid,
            what: None,
            result: AdminResult::Refused,
            why: Some("no token".to_owned()),
        })
    };
    let stranger = Facts {
        client: Some(ClientFacts {
            address: ([192, 0, 2, 1], 4711).into(),
            application: None,
        }),
        ..Facts::default()
    };
    let known = Facts {
        identity: Some(IdentityFacts {
            provider: "okta".into(),
            subject: "ann".to_owned(),
            client_id: None,
            tenant: None,
            name: None,
            token_id: None,
            ticket_id: None,
        }),
        ..stranger.clone()
    };
    let folder = tempfile::tempdir().unwrap();
    let (key, _) = new_key();
    let (stranger, known) = (Arc::new(stranger), Arc::new(known));
    run(async {
        let journal = Journal::open(settings(folder.path(), &key), Arc::new(Still), normalise).unwrap();
        for _ in 0..30 {
            for (facts, uid) in [(&stranger, None), (&known, None), (&Arc::default(), Some(1000))] {
                // Beyond the rate it says that the call was only counted.
                let _pending = journal.submit(Record::new(Arc::clone(facts), call(uid)));
            }
        }
        journal.close().await;
    });
    let text: String = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "jsonl"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let count = |needle: &str| text.lines().filter(|line| line.contains(needle)).count();
    // Ten of the stranger's, ten of the known one's, all of a user of this machine.
    assert_eq!(count(r#""event":"admin.reload""#), 10 + 10 + 30, "{text}");
    assert_eq!(
        count(r#""detail":{"address":"192.0.2.1","count":20}"#),
        1,
        "{text}"
    );
}
