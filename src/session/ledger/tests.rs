//! What becomes of what the ledger is told.

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

struct Fixed;
impl std::fmt::Debug for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fixed")
    }
}
impl crate::domain::Random for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

fn ledger() -> Ledger {
    let startup = Correlation::new("boot", CorrelationSource::Startup);
    Ledger::new(
        Arc::new(Facts::default()),
        SessionId::random(&Fixed),
        42,
        startup,
        Arc::default(),
    )
}

fn ids(record: &Record) -> Vec<&str> {
    record.correlation.iter().map(|it| it.id.as_ref()).collect()
}

fn set(value: &str, reach: Reach) -> SetCorrelation {
    SetCorrelation {
        setting: crate::sql::correlation::Setting::CorrelationId,
        reach,
        parameter: None,
        value: Correlation::new(value, CorrelationSource::Set),
    }
}

#[test]
fn a_local_id_beats_the_start_up_and_ends_with_its_transaction() {
    let mut ledger = ledger();
    let text: Arc<str> = Arc::from("insert");
    ledger.began(NOW);
    ledger.set_correlation(&set("message-1", Reach::Transaction), true, NOW);
    ledger.statement(&text, Kind::Insert, None, NOW);
    ledger.learned(Some(700));
    let record = ledger.close(Outcome::Committed, NOW).unwrap();
    assert_eq!(ids(&record), ["message-1"]);
    ledger.statement(&text, Kind::Insert, None, NOW);
    assert_eq!(ids(&ledger.close(Outcome::Committed, NOW).unwrap()), ["boot"]);
}

#[test]
fn a_rollback_returns_to_the_earlier_session_id() {
    let mut ledger = ledger();
    let text: Arc<str> = Arc::from("insert");
    ledger.set_correlation(&set("a", Reach::Session), false, NOW);
    ledger.began(NOW);
    ledger.set_correlation(&set("b", Reach::Session), true, NOW);
    ledger.statement(&text, Kind::Insert, None, NOW);
    assert_eq!(ids(&ledger.close(Outcome::Aborted, NOW).unwrap()), ["a", "b"]);
    ledger.statement(&text, Kind::Insert, None, NOW);
    assert_eq!(ids(&ledger.close(Outcome::Committed, NOW).unwrap()), ["a"]);
}

#[test]
fn transactions_without_work_leave_no_record() {
    let mut ledger = ledger();
    ledger.began(NOW);
    ledger.statement(&Arc::from("set x = 1"), Kind::Set, None, NOW);
    assert!(ledger.close(Outcome::Committed, NOW).is_none());
}

#[test]
fn row_counts_reach_their_statements() {
    let mut ledger = ledger();
    ledger.statement(&Arc::from("begin"), Kind::Begin, None, NOW);
    ledger.statement(&Arc::from("insert"), Kind::Insert, None, NOW);
    ledger.statement(&Arc::from("update"), Kind::Update, None, NOW);
    for rows in [None, Some(3), Some(2)] {
        ledger.completed(rows, NOW);
    }
    let record = ledger.close(Outcome::Committed, NOW).unwrap();
    let Event::TransactionOutcome { transaction, .. } = record.event else {
        panic!()
    };
    let rows: Vec<_> = transaction.statements.iter().map(|it| it.rows).collect();
    assert_eq!(rows, [Some(3), Some(2)]);
}
