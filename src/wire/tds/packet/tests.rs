//! Packets as bytes, and messages out of any cut of them.

use proptest::prelude::*;

use super::*;

const BATCHES: Expected = Expected {
    kinds: &[PacketKind::Batch, PacketKind::Attention],
    what: "a statement",
    payload_bytes_max: 2000,
    packet_bytes_max: PACKET_BYTES_MAX,
};

fn batch(status: Status, packet_bytes: usize, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    put_message(&mut out, PacketKind::Batch, status, packet_bytes, payload);
    out
}

/// One message, fed in pieces of `chunk` bytes, and what was left over.
fn collected(input: &[u8], chunk: usize) -> Result<(Message, Vec<u8>), PeerMisbehaved> {
    let mut assembler = Assembler::new(BATCHES);
    let mut buffer = vec![];
    for (index, piece) in input.chunks(chunk).enumerate() {
        buffer.extend_from_slice(piece);
        let (consumed, decoded) = assembler.push(&buffer)?;
        buffer.drain(..consumed);
        match decoded {
            Decoded::NeedMore { at_least } => assert!(at_least > buffer.len()),
            Decoded::Message(message) => {
                buffer.extend(input.chunks(chunk).skip(index + 1).flatten());
                return Ok((message, buffer));
            }
        }
    }
    panic!("the input ends in its message")
}

#[test]
fn a_header_is_eight_bytes() {
    let bytes = b"\x04\x01\x00\x15\x00\x33\x02\x00";
    let expected = Header {
        kind: PacketKind::Reply,
        status: Status::EOM,
        length: 21,
        spid: 51,
        number: 2,
    };
    for cut in 0..bytes.len() {
        assert_eq!(
            header(&bytes[..cut], PACKET_BYTES_MAX),
            Ok(Decoded::NeedMore {
                at_least: HEADER_BYTES
            })
        );
    }
    assert_eq!(header(bytes, PACKET_BYTES_MAX), Ok(Decoded::Message(expected)));
    let mut out = vec![];
    put_header(&mut out, &expected);
    assert_eq!(out, bytes);
}

#[test]
fn headers_that_cannot_be() {
    let refused = |bytes: &[u8]| header(bytes, 4096).unwrap_err();
    assert_eq!(refused(b"G"), PeerMisbehaved::UnknownTag { tag: b'G' });
    assert_eq!(refused(b"\x16\x03\x01"), PeerMisbehaved::UnknownTag { tag: 0x16 });
    for length in [0_u16, 7] {
        let [high, low] = length.to_be_bytes();
        assert!(matches!(
            refused(&[1, 1, high, low, 0, 0, 1, 0]),
            PeerMisbehaved::LengthTooSmall { .. }
        ));
    }
    assert!(matches!(
        refused(b"\x01\x01\x10\x01\0\0\x01\0"),
        PeerMisbehaved::TooLarge {
            length: 4097,
            limit: 4096,
            ..
        }
    ));
    assert_eq!(
        refused(b"\x01\x19\x00\x08\0\0\x01\0"),
        PeerMisbehaved::Contradiction {
            what: "packet status"
        }
    );
    // A reset goes with the end of a message: flags, not values.
    let Ok(Decoded::Message(reset)) = header(b"\x01\x09\x00\x08\0\0\x01\0", 4096) else {
        panic!("a reset is a status")
    };
    assert!(reset.status.has(Status::RESET) && reset.is_last());
}

#[test]
fn every_kind_has_its_code() {
    for kind in PacketKind::ALL {
        assert_eq!(PacketKind::of(kind.code()), Some(kind));
    }
    let known = (0..=u8::MAX).filter(|code| PacketKind::of(*code).is_some());
    assert_eq!(known.count(), PacketKind::ALL.len());
}

#[test]
fn messages_are_cut_and_numbered() {
    let payload = vec![7; 504 + 504 + 1];
    let bytes = batch(Status::RESET, 512, &payload);
    let mut rest = &bytes[..];
    let mut found = vec![];
    while !rest.is_empty() {
        let Ok(Decoded::Message(header)) = header(rest, 512) else {
            panic!("cut")
        };
        found.push((header.status.bits(), header.length, header.number));
        rest = &rest[header.length..];
    }
    assert_eq!(found, [(0x08, 512, 1), (0x00, 512, 2), (0x01, 9, 3)]);
    assert_eq!(batch(Status::NORMAL, 512, b"").len(), HEADER_BYTES);
    assert_eq!(batch(Status::NORMAL, 512, &payload[..504]).len(), 512);
}

#[test]
fn many_packets_count_around() {
    let bytes = batch(Status::NORMAL, 512, &vec![0; 504 * 256]);
    let last = &bytes[512 * 255..];
    assert_eq!(last[6], 0, "the 256th packet's number");
}

#[test]
fn what_does_not_belong_is_refused() {
    let mut other = vec![];
    put_message(&mut other, PacketKind::Rpc, Status::NORMAL, 512, b"x");
    assert!(matches!(
        Assembler::new(BATCHES).push(&other[..1]),
        Err(PeerMisbehaved::Unexpected { tag: 3, .. })
    ));
    let first = &batch(Status::NORMAL, 512, &[7; 505])[..512];
    let mut attention = vec![];
    put_message(&mut attention, PacketKind::Attention, Status::NORMAL, 512, b"");
    assert!(matches!(
        Assembler::new(BATCHES).push(&[first, &attention].concat()),
        Err(PeerMisbehaved::Unexpected { tag: 6, .. })
    ));
    assert!(matches!(
        Assembler::new(BATCHES).push(b"\x01\x00\x00\x08\0\0\x01\0"),
        Err(PeerMisbehaved::Truncated { .. })
    ));
}

#[test]
fn a_cap_is_kept_by_what_is_announced() {
    let bytes = batch(Status::NORMAL, 4096, &[7; 2001]);
    assert!(matches!(
        Assembler::new(BATCHES).push(&bytes[..HEADER_BYTES]),
        Err(PeerMisbehaved::TooLarge {
            length: 2001,
            limit: 2000,
            ..
        })
    ));
    let bytes = batch(Status::NORMAL, 512, &[7; 2001]);
    assert!(matches!(
        Assembler::new(BATCHES).push(&bytes),
        Err(PeerMisbehaved::TooLarge { .. })
    ));
}

#[test]
fn debug_tells_no_payload() {
    let mut assembler = Assembler::new(BATCHES);
    assembler
        .push(&batch(Status::NORMAL, 512, &[251; 505])[..512])
        .unwrap();
    assert!(!format!("{assembler:?}").contains("251"));
}

proptest! {
    #[test]
    fn any_cut_gives_the_message(payload in prop::collection::vec(any::<u8>(), 0..1999), chunk in 1_usize..700, packet_bytes in 512_usize..700) {
        let mut input = batch(Status::RESET, packet_bytes, &payload);
        input.extend_from_slice(b"next");
        let (message, left) = collected(&input, chunk).unwrap();
        prop_assert_eq!(message.payload, payload);
        prop_assert_eq!(message.kind, PacketKind::Batch);
        prop_assert!(message.status.has(Status::RESET.with(Status::EOM)));
        prop_assert_eq!(left, b"next");
    }

    #[test]
    fn arbitrary_bytes_never_panic(input: Vec<u8>) {
        let _ = header(&input, PACKET_BYTES);
        let _ = Assembler::new(BATCHES).push(&input);
        let behind = [&[1][..], &input].concat();
        let _ = Assembler::new(BATCHES).push(&behind);
    }
}
