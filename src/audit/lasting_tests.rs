//! What lasts: keys that change, heads in a second place, proofs of single records, old segments.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::chain::Line;
use super::filter::Filter;
use super::heads::{SecondPlace, kept_in};
use super::journal::*;
use super::key::{PublicKey, SigningKey};
use super::proof::{NotProved, Proof, ProveError, prove};
use super::retention::Retention;
use super::rotation::Keys;
use super::show;
use super::stored::{is_compressed, lines_of, segments};
use super::tests::{Still, new_key, normalise, opened, run, settings, write};
use super::verify::{Broken, Demands, Fault, Summary, verify, verify_all};
use crate::domain::clock::Clock;
use crate::domain::secret::Secret;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn key_of(pem: &str) -> SigningKey {
    SigningKey::read(pem.as_bytes()).unwrap()
}

fn check(directory: &Path, keys: &[&PublicKey]) -> Result<Summary, Broken> {
    let demands = Demands {
        keys: Keys::new(keys.iter().map(|key| (*key).clone())),
        kept: Box::new(std::iter::empty()),
    };
    verify_all(directory, demands, &mut |_| {})
}

/// Writes some records in small segments, and rotates to each key in turn.
fn write_rotating(directory: &Path, first: &str, others: &[&str]) {
    run(async {
        let small = Settings {
            segment_bytes: 4_000,
            ..settings(directory, first)
        };
        let journal = Journal::open(small, Arc::new(Still), normalise).unwrap();
        for number in 0..20 {
            journal.append(opened(number)).await.unwrap();
        }
        for other in others {
            journal.rotate(key_of(other)).await.unwrap();
            for number in 0..20 {
                journal.append(opened(number)).await.unwrap();
            }
        }
        journal.close().await;
    });
}

#[test]
fn whoever_trusts_one_key_can_follow_to_the_others() {
    let [(a, a_public), (b, b_public), (c, c_public)] = [new_key(), new_key(), new_key()];
    let directory = tempfile::tempdir().unwrap();
    // Asking for the key in use changes nothing.
    write_rotating(directory.path(), &a, &[&a, &b, &b, &c]);
    for public in [&a_public, &b_public, &c_public] {
        let summary = check(directory.path(), &[public]).unwrap();
        assert_eq!(summary.rotations, 2);
    }
    let (_, stranger) = new_key();
    let broken = check(directory.path(), &[&stranger]).unwrap_err();
    assert!(matches!(broken.what, Fault::OtherKey { id } if id == a_public.id()));
    // Forwards the chain alone is enough.
    fs::remove_file(directory.path().join("rotations")).unwrap();
    check(directory.path(), &[&a_public]).unwrap();
    check(directory.path(), &[&b_public]).unwrap_err();
    for public in [&a_public, &b_public, &c_public] {
        let file = directory.path().join(format!("signing-{}.pub", public.id()));
        assert_eq!(
            PublicKey::read(&fs::read_to_string(file).unwrap()).as_ref(),
            Ok(public)
        );
    }
    let current = fs::read_to_string(directory.path().join("signing.pub")).unwrap();
    assert_eq!(PublicKey::read(&current), Ok(c_public));
    // And the journal goes on with the last.
    write(directory.path(), &c, 3);
    check(directory.path(), &[&a_public]).unwrap();
}

#[test]
fn a_start_with_another_key_is_on_record_and_needs_both() {
    let [(a, a_public), (b, b_public)] = [new_key(), new_key()];
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &a, 2);
    write(directory.path(), &b, 2);
    for known in [&a_public, &b_public] {
        let broken = check(directory.path(), &[known]).unwrap_err();
        assert!(matches!(broken.what, Fault::OtherKey { .. }), "{broken}");
    }
    let summary = check(directory.path(), &[&a_public, &b_public]).unwrap();
    assert_eq!(summary.rotations, 1);
    // There is no way back to a key that was replaced, but for one that the key in use signs.
    let back = Journal::open(settings(directory.path(), &a), Arc::new(Still), normalise);
    assert!(matches!(back, Err(JournalError::RetiredKey { id }) if id == a_public.id()));
    write_rotating(directory.path(), &b, &[&a]);
    check(directory.path(), &[&a_public, &b_public]).unwrap();
}

#[test]
fn a_start_with_the_previous_key_at_hand_is_signed_with_both() {
    let [(a, a_public), (b, b_public)] = [new_key(), new_key()];
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &a, 2);
    for _ in 0..2 {
        run(async {
            let with_previous = Settings {
                previous_key: Some(Secret::new(a.clone().into_bytes())),
                ..settings(directory.path(), &b)
            };
            let journal = Journal::open(with_previous, Arc::new(Still), normalise).unwrap();
            journal.append(opened(1)).await.unwrap();
            journal.close().await;
        });
    }
    for public in [&a_public, &b_public] {
        assert_eq!(check(directory.path(), &[public]).unwrap().rotations, 1);
    }
}

/// A key that was replaced and stolen later: what it signs behind its rotation does not count.
#[test]
fn a_replaced_key_signs_nothing_more() {
    let [(a, a_public), (b, b_public)] = [new_key(), new_key()];
    let directory = tempfile::tempdir().unwrap();
    write_rotating(directory.path(), &a, &[&b]);
    let files = segments(directory.path()).unwrap();
    // What gatepost itself refuses to do: goes on with the old key and says nothing.
    let last = fs::read(files.last().unwrap()).unwrap();
    let end = last.strip_suffix(b"\n").unwrap();
    let end = Line::read(&end[end.iter().rposition(|byte| *byte == b'\n').unwrap() + 1..]).unwrap();
    let mut head = format!(
        r#"{{"v":1,"seq":{},"at":"2023-11-14T22:13:20.000000Z","installation":"test","replica":"one","epoch":1,"event":"head","detail":{{"key":"{}","records":0}}}}"#,
        end.seq + 1,
        a_public.id()
    )
    .into_bytes();
    let link = end.link().seal(&mut head, 0);
    super::chain::sign(&mut head, &key_of(&a).sign(&link.hash));
    head.push(b'\n');
    fs::write(files.last().unwrap(), [last.clone(), head].concat()).unwrap();
    let broken = check(directory.path(), &[&a_public, &b_public]).unwrap_err();
    assert!(matches!(broken.what, Fault::RetiredKey { id } if id == a_public.id()));
}

#[test]
fn heads_reach_their_second_place_and_prove_the_end() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("heads");
    // A line that was interrupted spoils nothing.
    fs::write(&file, "17 ab").unwrap();
    for _ in 0..3 {
        run(async {
            let kept = Settings {
                heads: SecondPlace {
                    file: Some(file.clone()),
                    log: true,
                },
                ..settings(directory.path(), &pem)
            };
            let journal = Journal::open(kept, Arc::new(Still), normalise).unwrap();
            for number in 0..50 {
                journal.append(opened(number)).await.unwrap();
            }
            let measuring = journal.clone();
            journal.close().await;
            let measures = measuring.measures();
            assert!(measures.heads_kept >= 1 && measures.heads_failed == 0);
        });
    }
    let demands = || Demands {
        kept: Box::new(kept_in(&file).unwrap()),
        ..Demands::key(&public)
    };
    let summary = verify_all(directory.path(), demands(), &mut |_| {}).unwrap();
    let kept: Vec<_> = kept_in(&file).unwrap().map(Result::unwrap).collect();
    assert_eq!(summary.kept_heads, kept.len() as u64);
    // One or two each: at once, and at the stop.
    assert!((3..=6).contains(&kept.len()), "{}", kept.len());
    assert_eq!(Some(kept.last().unwrap().seq), summary.head.map(|head| head.seq));
    // The last segment is gone: nothing in the journal itself tells.
    fs::remove_file(segments(directory.path()).unwrap().pop().unwrap()).unwrap();
    verify(directory.path(), &public).unwrap();
    let cut = verify_all(directory.path(), demands(), &mut |_| {}).unwrap_err();
    assert!(matches!(cut.what, Fault::Cut), "{cut}");
}

#[test]
fn a_second_place_that_fails_holds_nothing_up() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let kept = Settings {
            heads: SecondPlace {
                file: Some(directory.path().join("no-such-folder/heads")),
                log: false,
            },
            ..settings(directory.path(), &pem)
        };
        let journal = Journal::open(kept, Arc::new(Still), normalise).unwrap();
        for number in 0..50 {
            journal.append(opened(number)).await.unwrap();
        }
        let measuring = journal.clone();
        journal.close().await;
        let measures = measuring.measures();
        assert!(measures.heads_failed >= 1 && measures.heads_kept == 0);
    });
    verify(directory.path(), &public).unwrap();
}

/// Every record has a proof, and it shows nothing of the others where the segment is sealed.
#[test]
fn every_record_can_be_proved_alone() {
    let [(a, a_public), (b, b_public)] = [new_key(), new_key()];
    let directory = tempfile::tempdir().unwrap();
    write_rotating(directory.path(), &a, &[&b]);
    let records = check(directory.path(), &[&a_public]).unwrap().records;
    for seq in 1..=records {
        let proof = prove(directory.path(), seq).unwrap();
        let text = serde_json::to_string(&proof).unwrap();
        let read: Proof = serde_json::from_str(&text).unwrap();
        for public in [&a_public, &b_public] {
            let proved = read.verify(&Keys::new([public.clone()])).unwrap();
            assert_eq!(proved.seq, seq);
        }
        let (_, stranger) = new_key();
        let refused = read.verify(&Keys::new([stranger]));
        assert!(matches!(refused, Err(NotProved::OtherKey { .. })));
        if proved_event(&proof) == "session.closed" {
            assert_eq!(text.matches("session.closed").count(), 1, "{text}");
        }
    }
    for seq in [0, records + 1] {
        let absent = prove(directory.path(), seq);
        assert!(matches!(absent, Err(ProveError::Absent { .. })), "{absent:?}");
    }
}

fn proved_event(proof: &Proof) -> String {
    let value = serde_json::to_value(proof).unwrap();
    let record: serde_json::Value = serde_json::from_str(value["record"].as_str().unwrap()).unwrap();
    record["event"].as_str().unwrap().to_owned()
}

#[test]
fn a_record_of_an_open_segment_is_proved_by_what_follows() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let journal = Journal::open(settings(directory.path(), &pem), Arc::new(Still), normalise).unwrap();
        for number in 0..10 {
            journal.submit(opened(number)).unwrap();
        }
        journal.append(opened(10)).await.unwrap();
        for seq in 1..=12 {
            let proof = prove(directory.path(), seq).unwrap();
            assert_eq!(proof.verify(&Keys::new([public.clone()])).unwrap().head, 12);
        }
        journal.close().await;
    });
    // Without the head that follows nothing is proved.
    let file = segments(directory.path()).unwrap().pop().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    fs::write(&file, lines[..11].concat()).unwrap();
    assert!(matches!(
        prove(directory.path(), 3),
        Err(ProveError::Unsigned { seq: 3 })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    /// Any altered byte in what is proved, sealed or signed, and the proof fails.
    #[test]
    fn an_altered_proof_proves_nothing(seq in 1_u64..60, picks: [prop::sample::Index; 40], to in 0_u8..128) {
        let (proof, keys) = made(seq);
        let value = serde_json::to_value(&proof).unwrap();
        let mut places = vec!["/record".to_owned()];
        for list in ["path", "chain"] {
            let count = value[list].as_array().map_or(0, Vec::len);
            places.extend((0..count).map(|at| format!("/{list}/{at}")));
        }
        for pick in picks {
            let mut altered = value.clone();
            let place = altered.pointer_mut(&places[pick.index(places.len())]).unwrap();
            let mut bytes = place.as_str().unwrap().as_bytes().to_vec();
            let at = pick.index(bytes.len());
            if bytes[at] == to {
                continue;
            }
            bytes[at] = to;
            *place = String::from_utf8(bytes).unwrap().into();
            let altered: Proof = serde_json::from_value(altered).unwrap();
            prop_assert!(altered.verify(&keys).is_err(), "byte {at}");
        }
    }
}

/// A proof from a journal that is made once.
fn made(seq: u64) -> (Proof, Keys) {
    use std::sync::OnceLock;
    static MADE: OnceLock<(tempfile::TempDir, PublicKey)> = OnceLock::new();
    let (directory, public) = MADE.get_or_init(|| {
        let (pem, public) = new_key();
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &pem, 40);
        (directory, public)
    });
    let proof = prove(directory.path(), seq).unwrap();
    (proof, Keys::new([public.clone()]))
}

/// A clock that is set by hand.
#[derive(Debug, Default)]
struct Days(AtomicU64);

impl Clock for Days {
    fn now(&self) -> SystemTime {
        Still.now() + DAY * u32::try_from(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// One run on each of these days, with a segment for each record. The thread looks at its start; the run
/// goes on until it has looked.
fn write_on_days(directory: &Path, pem: &str, days: std::ops::Range<u64>, retention: Retention) {
    for day in days {
        run(async {
            let clock = Arc::new(Days(AtomicU64::new(day)));
            let keeping = Settings {
                segment_bytes: 1,
                retention,
                ..settings(directory, pem)
            };
            let journal = Journal::open(keeping, clock, normalise).unwrap();
            for number in 0..3 {
                journal.append(opened(day * 100 + number)).await.unwrap();
            }
            journal.close().await;
        });
    }
}

/// Waits until the thread has left the folder in this state.
fn run_until(directory: &Path, pem: &str, day: u64, retention: Retention, done: impl Fn(&Path) -> bool) {
    run(async {
        let clock = Arc::new(Days(AtomicU64::new(day)));
        let keeping = Settings {
            retention,
            ..settings(directory, pem)
        };
        let journal = Journal::open(keeping, clock, normalise).unwrap();
        while !done(directory) {
            tokio::task::yield_now().await;
        }
        journal.close().await;
    });
}

const COMPRESSING: Retention = Retention {
    compress_after: Some(DAY),
    keep: None,
};
const EXPIRING: Retention = Retention {
    compress_after: Some(DAY),
    keep: Some(Duration::from_secs(10 * 24 * 60 * 60)),
};

fn plain_segments(directory: &Path) -> usize {
    let files = segments(directory).unwrap();
    files.iter().filter(|path| !is_compressed(path)).count()
}

#[test]
fn old_segments_are_compressed_and_read_like_others() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    write_on_days(directory.path(), &pem, 0..3, Retention::default());
    let before: Vec<Vec<u8>> = segments(directory.path())
        .unwrap()
        .into_iter()
        .flat_map(lines_of)
        .map(|spot| spot.bytes.unwrap())
        .collect();
    // What an interrupted compression leaves: a half file, and both.
    let first = segments(directory.path()).unwrap().remove(0);
    fs::write(first.with_extension("jsonl.gz.new"), "half").unwrap();
    fs::write(
        first.with_extension("jsonl.gz"),
        "whole, but the plain one is still there",
    )
    .unwrap();
    verify(directory.path(), &public).unwrap();
    // The last one of day 1 is followed by day 2, which is a day old on day 3.
    run_until(directory.path(), &pem, 3, COMPRESSING, |it| {
        plain_segments(it) <= 3
    });
    let files = segments(directory.path()).unwrap();
    assert!(files.iter().filter(|path| is_compressed(path)).count() >= 6);
    assert!(!first.exists() && !first.with_extension("jsonl.gz.new").exists());
    let summary = verify(directory.path(), &public).unwrap();
    assert!(summary.seals >= 9);
    let after: Vec<Vec<u8>> = files
        .iter()
        .cloned()
        .flat_map(lines_of)
        .map(|spot| spot.bytes.unwrap())
        .collect();
    assert_eq!(before, after[..before.len()]);
    // Any gunzip reads them.
    let mut text = String::new();
    let mut gz = flate2_reader(&files[0]);
    gz.read_to_string(&mut text).unwrap();
    assert_eq!(text.as_bytes(), before[..3].concat());
    let proof = prove(directory.path(), 1).unwrap();
    proof.verify(&Keys::new([public.clone()])).unwrap();
    assert!(
        show::rows(directory.path(), &Filter::default())
            .unwrap()
            .is_empty()
    );
    // An altered byte in a compressed segment is found.
    let mut bytes = fs::read(&files[2]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&files[2], bytes).unwrap();
    let broken = verify(directory.path(), &public).unwrap_err();
    assert_eq!(broken.file, files[2], "{broken}");
}

fn flate2_reader(path: &Path) -> impl std::io::Read {
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap())
}

#[test]
fn expired_segments_go_and_the_rest_is_still_proved() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    write_on_days(directory.path(), &pem, 0..12, Retention::default());
    let all = segments(directory.path()).unwrap();
    let seen = verify(directory.path(), &public).unwrap();
    assert_eq!(seen.first, 1);
    // On day 13, all but the last segment of day 3 are followed by one that is ten days old.
    run_until(directory.path(), &pem, 13, EXPIRING, |it| {
        segments(it).unwrap()[0].to_str().unwrap().contains(".gz") && plain_segments(it) <= 2
    });
    let left = segments(directory.path()).unwrap();
    assert_eq!(left[0].with_extension(""), all[11], "{left:?}");
    let summary = verify(directory.path(), &public).unwrap();
    assert_eq!(summary.first, 34);
    // Removal by hand is not what is on record.
    fs::remove_file(&left[0]).unwrap();
    let broken = verify(directory.path(), &public).unwrap_err();
    assert!(
        matches!(broken.what, Fault::Removed { through: 36 }) && broken.seq == 34,
        "{broken}"
    );
}

/// A copy of the folder is a backup; what is restored goes on.
#[test]
fn a_restored_copy_is_proved_and_continued() {
    let (pem, public) = new_key();
    let directory = tempfile::tempdir().unwrap();
    write_on_days(directory.path(), &pem, 0..4, Retention::default());
    run_until(directory.path(), &pem, 5, COMPRESSING, |it| {
        plain_segments(it) <= 3
    });
    let restored = tempfile::tempdir().unwrap();
    // A copy that is made while gatepost writes may end in the middle of a line.
    let mut files = segments(directory.path()).unwrap();
    // The last run wrote nothing into its own.
    files.retain(|file| fs::metadata(file).unwrap().len() > 0);
    let (last, whole) = files.split_last().unwrap();
    for file in whole {
        fs::copy(file, restored.path().join(file.file_name().unwrap())).unwrap();
    }
    let bytes = fs::read(last).unwrap();
    let half = restored.path().join(last.file_name().unwrap());
    fs::write(half, &bytes[..bytes.len() / 2]).unwrap();
    let copy = verify(restored.path(), &public).unwrap();
    assert!(copy.torn_bytes > 0 || copy.unsigned > 0);
    write(restored.path(), &pem, 2);
    let gone_on = verify(restored.path(), &public).unwrap();
    assert!(gone_on.records > copy.records && gone_on.unsigned == 0);
    assert_eq!(gone_on.first, 1);
}

/// A segment that was altered while gatepost was stopped is not sealed as if nothing had happened.
#[test]
fn a_start_follows_the_chain_of_the_segment_that_it_continues() {
    let (pem, _) = new_key();
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &pem, 20);
    let file = segments(directory.path()).unwrap().pop().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    // As after kill -9: not sealed.
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let open = lines[..lines.len() - 2].concat();
    fs::write(&file, &open).unwrap();
    write(directory.path(), &pem, 1);
    fs::write(
        &file,
        open.replacen(r#""transactions":3"#, r#""transactions":4"#, 1),
    )
    .unwrap();
    for later in segments(directory.path()).unwrap().split_off(1) {
        fs::remove_file(later).unwrap();
    }
    let refused = Journal::open(settings(directory.path(), &pem), Arc::new(Still), normalise);
    assert!(matches!(refused, Err(JournalError::Broken(_))), "{refused:?}");
}
