//! Tables that are right, and every way in which one can be wrong.

use proptest::prelude::*;

use super::*;

fn put(prelogin: &Prelogin) -> Vec<u8> {
    let mut out = vec![];
    prelogin.put(&mut out);
    out
}

fn full() -> Prelogin {
    Prelogin {
        version: Some(ProgramVersion {
            major: 17,
            minor: 0,
            build: 0x1234,
            sub_build: 2,
        }),
        encryption: Some(Encryption::On),
        instance: Some(b"MSSQLSERVER".to_vec()),
        thread: Some(0xdead_beef),
        mars: Some(false),
        trace: Some(TraceId {
            connection: Guid([1; 16]),
            activity: Guid([2; 16]),
            sequence: 3,
        }),
        federated: Some(true),
        nonce: Some([9; NONCE_BYTES]),
    }
}

#[test]
fn a_table_goes_there_and_back() {
    for prelogin in [Prelogin::default(), full()] {
        assert_eq!(Prelogin::decode(&put(&prelogin)), Ok(prelogin));
    }
}

/// The example of MS-TDS 4.1: version 9.0, encryption on, an instance, a thread, MARS.
#[test]
fn the_specification_is_understood() {
    let payload = b"\x00\x00\x1a\x00\x06\x01\x00\x20\x00\x01\x02\x00\x21\x00\x01\x03\x00\x22\x00\x04\x04\x00\x26\x00\x01\xff\x09\x00\x00\x00\x00\x00\x01\x00\xb8\x0d\x00\x00\x01";
    let prelogin = Prelogin::decode(payload).unwrap();
    assert_eq!(prelogin.version.map(|version| version.major), Some(9));
    assert_eq!(prelogin.encryption, Some(Encryption::On));
    assert_eq!(prelogin.instance, Some(vec![]));
    assert_eq!(prelogin.thread, Some(0x0db8));
    assert_eq!(prelogin.mars, Some(true));
    assert_eq!(put(&prelogin), payload);
}

#[test]
fn every_cut_is_refused() {
    let whole = put(&full());
    for cut in 0..whole.len() {
        assert!(Prelogin::decode(&whole[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn wrong_tables_are_refused() {
    let option = "PRELOGIN option";
    let rows: [(&[u8], PeerMisbehaved); 9] = [
        (
            b"\x01\x00\x05\x00\x01\xff\x01",
            PeerMisbehaved::Overlapping { what: option },
        ),
        (
            b"\x01\x00\x06\x00\x02\xff\x01",
            PeerMisbehaved::OutOfRange { what: option },
        ),
        (
            b"\x01\xff\xff\xff\xff\xff\x01",
            PeerMisbehaved::OutOfRange { what: option },
        ),
        (
            b"\x01\x00\x0b\x00\x01\x04\x00\x0b\x00\x01\xff\x01",
            PeerMisbehaved::Overlapping { what: option },
        ),
        (
            b"\x01\x00\x0b\x00\x01\x01\x00\x0c\x00\x01\xff\x01\x01",
            PeerMisbehaved::Twice { what: option },
        ),
        (
            b"\x01\x00\x06\x00\x01\xff\x20",
            PeerMisbehaved::UnknownValue {
                what: "PRELOGIN encryption",
            },
        ),
        (
            b"\x01\x00\x06\x00\x02\xff\x01\x01",
            PeerMisbehaved::TrailingBytes {
                what: "PRELOGIN encryption",
            },
        ),
        (
            b"\x04\x00\x06\x00\x01\xff\x02",
            PeerMisbehaved::UnknownValue {
                what: "PRELOGIN MARS",
            },
        ),
        (b"", PeerMisbehaved::Truncated { what: "PRELOGIN" }),
    ];
    for (payload, expected) in rows {
        assert_eq!(Prelogin::decode(payload), Err(expected), "{payload:02x?}");
    }
    let many: Vec<u8> = (0x40..0x51).flat_map(|token| [token, 0, 0, 0, 0]).collect();
    assert!(matches!(
        Prelogin::decode(&[&many[..], &[0xff]].concat()),
        Err(PeerMisbehaved::TooMany { .. })
    ));
}

#[test]
fn what_is_unknown_or_empty_is_passed_over() {
    let payload = b"\x01\x00\x10\x00\x01\x03\x00\x00\x00\x00\x2a\x00\x11\x00\x02\xff\x81xy";
    let expected = Prelogin {
        encryption: Some(Encryption::On),
        ..Prelogin::default()
    };
    assert_eq!(Prelogin::decode(payload), Ok(expected));
}

#[test]
fn a_guid_reads_as_windows_prints_it() {
    let guid = Guid(*b"\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
    assert_eq!(guid.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(payload: Vec<u8>) {
        let _ = Prelogin::decode(&payload);
    }

    #[test]
    fn a_changed_bit_never_panics(bit in 0_usize..1000) {
        let mut payload = put(&full());
        let bit = bit % (payload.len() * 8);
        payload[bit / 8] ^= 1 << (bit % 8);
        let _ = Prelogin::decode(&payload);
    }
}
