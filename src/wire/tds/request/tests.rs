//! Batches and transaction manager requests.

use super::*;

const ACTIVITY: Activity = Activity {
    id: [7; 16],
    sequence: 1,
};

fn whole(kind: u8, payload: &[u8]) -> Request<'_> {
    match read(kind, Seen::Whole(payload)).unwrap() {
        Decoded::Message(request) => request,
        Decoded::NeedMore { .. } => panic!("it was whole"),
    }
}

#[test]
fn a_batch_comes_back() {
    let mut payload = vec![];
    put_batch(&mut payload, 5, Some(ACTIVITY), "SELECT 'größer 😀'");
    let Request::Batch(batch) = whole(kind::BATCH, &payload) else {
        panic!()
    };
    assert_eq!(batch.text.decoded().as_deref(), Some("SELECT 'größer 😀'"));
    assert!(!batch.is_cut);
    assert_eq!(batch.headers.activity, Some(ACTIVITY));
    assert_eq!(batch.headers.transaction.map(|it| it.descriptor), Some(5));
}

#[test]
fn a_cut_batch_says_so() {
    let mut payload = vec![];
    put_batch(&mut payload, 0, None, "SELECT 1");
    for at in 0..=payload.len() {
        match read(kind::BATCH, Seen::Head(&payload[..at])).unwrap() {
            Decoded::NeedMore { at_least } => assert!(at < 22 && at_least > at && at_least <= 22),
            Decoded::Message(Request::Batch(batch)) => {
                assert!(at >= 22 && batch.is_cut);
                assert!("SELECT 1".starts_with(&batch.text.lossy()));
            }
            Decoded::Message(other) => panic!("{other:?}"),
        }
    }
    payload.pop();
    let odd = read(kind::BATCH, Seen::Whole(&payload));
    assert!(matches!(odd, Err(PeerMisbehaved::Truncated { .. })));
}

#[test]
fn transaction_requests_come_back() {
    let mut payload = vec![];
    put_begin(&mut payload, Isolation::Snapshot);
    let begin = |isolation| Begin {
        isolation,
        name: Utf16::default(),
    };
    let expected = TransactionRequest::Begin(begin(Isolation::Snapshot));
    assert_eq!(transaction_of(&payload), (0, expected));
    for then in [None, Some(Isolation::Serializable)] {
        let name = Utf16::default();
        let mut payload = vec![];
        put_commit(&mut payload, 4, then);
        let expected = TransactionRequest::Commit {
            name,
            then: then.map(begin),
        };
        assert_eq!(transaction_of(&payload), (4, expected));
        payload.clear();
        put_rollback(&mut payload, 4, then);
        let expected = TransactionRequest::Rollback {
            name,
            then: then.map(begin),
        };
        assert_eq!(transaction_of(&payload), (4, expected));
    }
}

fn transaction_of(payload: &[u8]) -> (u64, TransactionRequest<'_>) {
    let Request::Transaction(headers, request) = whole(kind::TRANSACTION, payload) else {
        panic!("another kind")
    };
    (headers.transaction.unwrap().descriptor, request)
}

fn from(request: &[u8]) -> Vec<u8> {
    let mut payload = vec![];
    headers::put(&mut payload, 1, None);
    payload.extend(request);
    payload
}

#[test]
fn names_are_counted_in_bytes() {
    let payload = from(&[9, 0, 4, b's', 0, b'p', 0]);
    let (_, TransactionRequest::Save { name }) = transaction_of(&payload) else {
        panic!()
    };
    assert_eq!(name.lossy(), "sp");
    let payload = from(&[8, 0, 2, b's', 0, 1, 3, 2, b'n', 0]);
    let (
        _,
        TransactionRequest::Rollback {
            name,
            then: Some(then),
        },
    ) = transaction_of(&payload)
    else {
        panic!()
    };
    assert_eq!(
        (name.lossy(), then.isolation, then.name.lossy()),
        ("s".into(), Isolation::RepeatableRead, "n".into())
    );
}

#[test]
fn what_gatepost_does_not_do_is_still_told_apart() {
    for (request, expected) in [
        (&[0, 0, 0, 0][..], TransactionRequest::GetDtcAddress),
        (&[1, 0, 2, 0, 9, 9], TransactionRequest::Propagate),
        (&[6, 0], TransactionRequest::Promote),
    ] {
        assert_eq!(transaction_of(&from(request)).1, expected);
    }
}

#[test]
fn nonsense_is_refused() {
    for request in [
        &[2, 0][..],
        &[5, 0],
        &[5, 0, 9, 0],
        &[5, 0, 1, 2, 0],
        &[7, 0, 0],
        &[7, 0, 0, 0, 0],
        &[9],
    ] {
        assert!(
            read(kind::TRANSACTION, Seen::Whole(&from(request))).is_err(),
            "{request:?}"
        );
    }
    assert!(matches!(
        read(0x12, Seen::Whole(&[])),
        Err(PeerMisbehaved::UnknownTag { tag: 0x12 })
    ));
}

#[test]
fn a_transaction_request_is_awaited_whole_up_to_a_limit() {
    let head = vec![0; HEAD_BYTES_MAX];
    let wanted = read(kind::TRANSACTION, Seen::Head(&head[..30]));
    assert_eq!(wanted, Ok(Decoded::NeedMore { at_least: 31 }));
    let wanted = read(kind::TRANSACTION, Seen::Head(&head));
    assert!(matches!(wanted, Err(PeerMisbehaved::TooLarge { .. })));
}

#[test]
fn bulk_rows_are_not_read() {
    assert_eq!(whole(kind::BULK, &[1, 2, 3]), Request::Bulk);
}
