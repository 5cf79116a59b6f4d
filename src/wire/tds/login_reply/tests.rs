//! Replies to logins: ours, a server's, and what no server would say.

use proptest::prelude::*;

use super::*;
use crate::wire::tds::event::DoneKind;
use crate::wire::tds::login_ack::{self, Acknowledge, LoginAnswer};
use crate::wire::tds::reply::{self, Said};

pub(super) fn ours() -> Vec<u8> {
    let mut out = vec![];
    let answer = LoginAnswer {
        server: "gatepost",
        database: "orders",
        language: "us_english",
        collation: [9, 4, 0xd0, 0, 0x34],
        packet_bytes: 8000,
        packet_bytes_before: 4096,
        version: TdsVersion::V7_4,
        program: "Microsoft SQL Server",
        program_version: [16, 0, 4, 0],
        acknowledge: Acknowledge {
            federated: true,
            utf8: true,
        },
    };
    login_ack::put_login_answer(&mut out, &answer);
    out
}

#[test]
fn what_we_write_we_read() {
    let reply = LoginReply::decode(&ours()).unwrap();
    let expected = LoginReply {
        ack: Some(LoginAck {
            version: TdsVersion::V7_4,
            program: "Microsoft SQL Server".to_owned(),
            program_version: [16, 0, 4, 0],
        }),
        infos: [
            (5701, "Changed database context to 'orders'."),
            (5703, "Changed language setting to us_english."),
        ]
        .map(|(number, message)| LoginMessage {
            number,
            state: 1,
            class: 0,
            message: message.to_owned(),
        })
        .to_vec(),
        database: Some("orders".to_owned()),
        language: Some("us_english".to_owned()),
        collation: Some([9, 4, 0xd0, 0, 0x34]),
        packet_bytes: Some(8000),
        features: vec![
            Feature {
                id: feature::id::FEDAUTH,
                data: vec![],
            },
            Feature {
                id: feature::id::UTF8_SUPPORT,
                data: vec![1],
            },
        ],
        done: true,
        ..LoginReply::default()
    };
    assert_eq!(reply, expected);
}

#[test]
fn nothing_granted_is_nothing_said() {
    let mut out = vec![];
    login_ack::put_feature_ack(&mut out, Acknowledge::default());
    assert_eq!(out, b"");
}

#[test]
fn a_cut_reply_is_no_reply() {
    let whole = ours();
    for cut in 0..whole.len() {
        let decoded = LoginReply::decode(&whole[..cut]);
        assert!(!decoded.is_ok_and(|reply| reply.done), "{cut}");
    }
    let more = [&whole[..], &[0x79, 0, 0, 0, 0]].concat();
    assert_eq!(
        LoginReply::decode(&more),
        Err(PeerMisbehaved::TrailingBytes { what: WHAT })
    );
}

#[test]
fn routing_is_read() {
    let plain = b"\xe3\x11\0\x14\x0c\0\0\x99\x05\x03\0d\0b\x002\0\0\0\0";
    let mut bytes = plain.to_vec();
    bytes[4] = 11;
    // type, length, protocol, port, name: 1 + 2 + 1 + 2 + 2 + 6, then the old value.
    bytes.truncate(3 + 1 + 2 + 11);
    bytes.extend_from_slice(b"\0\0");
    let length = u16::try_from(bytes.len() - 3).unwrap().to_le_bytes();
    bytes[1..3].copy_from_slice(&length);
    let routed = |bytes: &[u8]| LoginReply::decode(bytes).map(|reply| reply.routed);
    assert_eq!(
        routed(&bytes),
        Ok(Some(Routed {
            host: "db2".to_owned(),
            port: 1433,
            database: None
        }))
    );
    bytes[6] = 1;
    assert!(routed(&bytes).is_err(), "not TCP");
}

#[test]
fn sizes_are_within_bounds() {
    for (size, fine) in [
        ("512", true),
        ("32767", true),
        ("511", false),
        ("32768", false),
        ("", false),
        ("-1", false),
    ] {
        let mut out = vec![];
        reply::put_text_change(&mut out, kind::PACKET_SIZE, size, "4096");
        assert_eq!(LoginReply::decode(&out).is_ok(), fine, "{size}");
    }
}

#[test]
fn only_so_many_messages_are_kept() {
    let mut out = vec![];
    for number in 0..100 {
        let said = Said {
            number,
            state: 1,
            class: 0,
            text: "",
            server: "",
            procedure: "",
            line: 1,
        };
        reply::put_info(&mut out, &said);
    }
    reply::put_done(&mut out, DoneKind::Batch, DoneStatus::FINAL, 0, 0);
    let reply = LoginReply::decode(&out).unwrap();
    assert_eq!((reply.infos.len(), reply.done), (MESSAGES_MAX, true));
}

#[test]
fn a_changed_bit_never_panics() {
    let mut bytes = ours();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = LoginReply::decode(&bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = LoginReply::decode(&bytes);
    }
}
