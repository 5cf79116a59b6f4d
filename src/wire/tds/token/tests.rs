//! However a reply is cut, it tells the same; whatever comes, nothing panics.

use proptest::prelude::*;

use super::*;
use crate::wire::tds::reply::{self, Cell, Column, ColumnKind, Said};
use crate::wire::tds::utf16;

/// What the reader says about a payload that comes in these pieces, and how it ends.
fn told<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, End) {
    let mut reader = Reader::default();
    let mut shown = vec![];
    for piece in pieces {
        reader.read(piece, &mut |event| shown.push(show(event))).unwrap();
    }
    (shown, reader.end())
}

/// With the texts that `Debug` leaves out.
fn show(event: Event<'_>) -> String {
    if let Event::Error(message) | Event::Info(message) = event {
        let texts = [message.text, message.server, message.procedure].map(utf16::Utf16::lossy);
        format!("{message:?} {texts:?} {}", message.line)
    } else if let Event::EnvChange(EnvChange::Database { new, old }) = event {
        format!("database {} {}", new.lossy(), old.lossy())
    } else if let Event::ReturnValue { name, value, .. } = event {
        format!("value {} {value:?}", name.lossy())
    } else {
        format!("{event:?}")
    }
}

const SAID: Said<'static> = Said {
    number: 229,
    state: 5,
    class: 14,
    text: "The SELECT permission was denied on »t«. 😀",
    server: "db",
    procedure: "p",
    line: 3,
};

fn columns() -> Vec<Column<'static>> {
    let column = |name, kind| Column { name, kind };
    vec![
        column("a", ColumnKind::Int),
        column("b", ColumnKind::NVarChar(40)),
        column("", ColumnKind::NVarCharMax),
        column("d", ColumnKind::VarBinary(300)),
        column("e", ColumnKind::VarBinaryMax),
        column(
            "f",
            ColumnKind::Decimal {
                precision: 38,
                scale: 3,
            },
        ),
        column("g", ColumnKind::DateTime2 { scale: 7 }),
        column("h", ColumnKind::UniqueIdentifier),
        column("i", ColumnKind::Bit),
        column("j", ColumnKind::Float),
    ]
}

/// A reply with a bit of everything.
fn reply() -> Vec<u8> {
    let mut out = vec![];
    let columns = columns();
    reply::put_reset_ack(&mut out);
    reply::put_database(&mut out, "orders", "master");
    reply::put_begin(&mut out, 0x11_0000_0001);
    reply::put_columns(&mut out, &columns);
    reply::put_order(&mut out, &[1, 2]);
    let long = "x".repeat(300);
    let cells = [
        Cell::Int(-1),
        Cell::Text("hi"),
        Cell::Text(&long),
        Cell::Bytes(&[9; 300]),
        Cell::Bytes(b""),
        Cell::Decimal(-12345),
        Cell::DateTime2 { ticks: 1, days: 2 },
        Cell::UniqueIdentifier([7; 16]),
        Cell::Bit(true),
    ];
    reply::put_row(&mut out, &columns, &cells);
    reply::put_compact_row(&mut out, &columns, &cells);
    reply::put_row(&mut out, &columns, &[]);
    reply::put_compact_row(&mut out, &columns, &[]);
    reply::put_done(
        &mut out,
        DoneKind::InProcedure,
        DoneStatus::COUNT.and(DoneStatus::MORE),
        0xC1,
        4,
    );
    reply::put_info(&mut out, &SAID);
    reply::put_error(&mut out, &SAID);
    reply::put_return_status(&mut out, -6);
    reply::put_return_value(&mut out, 0, "@handle", ColumnKind::Int, Cell::Int(77));
    reply::put_return_value(&mut out, 1, "@text", ColumnKind::NVarCharMax, Cell::Text("out"));
    reply::put_commit(&mut out, 0x11_0000_0001);
    reply::put_done(&mut out, DoneKind::Procedure, DoneStatus::FINAL, 0xE0, 0);
    out
}

#[test]
fn a_reply_is_told() {
    let payload = reply();
    let (shown, end) = told([&payload[..]]);
    assert_eq!(end, End::Complete);
    assert_eq!(shown.iter().filter(|event| event.starts_with("Row")).count(), 4);
    let rest: Vec<_> = shown.iter().filter(|event| !event.starts_with("Row")).collect();
    assert_eq!(rest[0], "EnvChange(ResetAck)");
    assert_eq!(rest[1], "database orders master");
    assert_eq!(rest[2], "EnvChange(Begin { descriptor: 73014444033 })");
    assert!(rest[3].starts_with("Columns {") && rest[3].ends_with("count: 10 }"));
    assert_eq!(rest[4], "Other { token: 169 }");
    assert!(rest[5].contains("InProcedure") && rest[5].contains("rows: 4"));
    let said =
        "Message(229, state 5, class 14) [\"The SELECT permission was denied on »t«. 😀\", \"db\", \"p\"] 3";
    assert_eq!([rest[6], rest[7]], [said, said]);
    assert_eq!(rest[8], "ReturnStatus(-6)");
    assert_eq!(rest[9], "value @handle Some(77)");
    assert_eq!(rest[10], "value @text None");
    assert_eq!(rest[11], "EnvChange(Commit { descriptor: 73014444033 })");
    let at = payload.len() - tag::DONE_BYTES;
    assert!(rest[12].ends_with(&format!("at: {at} }})")));
}

#[test]
fn it_does_not_matter_where_a_reply_is_cut() {
    let payload = reply();
    let whole = told([&payload[..]]);
    for at in 0..=payload.len() {
        let (front, back) = payload.split_at(at);
        assert_eq!(told([front, back]), whole, "cut at {at}");
    }
    assert_eq!(told(payload.chunks(1)), whole);
}

#[test]
fn the_reader_knows_where_tokens_end() {
    let payload = reply();
    let mut reader = Reader::default();
    let mut ends = vec![];
    for (index, byte) in payload.iter().enumerate() {
        reader.read(&[*byte], &mut |_| {}).unwrap();
        assert_eq!(reader.position(), index as u64 + 1);
        if reader.is_between_tokens() {
            ends.push(index + 1);
        }
        assert_eq!(reader.is_final(), index + 1 == payload.len());
    }
    // 5 before the rows, 4 rows, 8 behind them.
    assert_eq!(ends.len(), 17);
    assert_eq!(ends[16], payload.len());
}

#[test]
fn messages_end_in_four_ways() {
    let payload = reply();
    let torn = &payload[..payload.len() - 1];
    let open = &payload[..payload.len() - tag::DONE_BYTES];
    assert_eq!(told([torn]).1, End::Torn);
    assert_eq!(told([open]).1, End::Open);
    assert_eq!(told([open, &[0x42]]).1, End::Lost);
    assert_eq!(told([&[][..]]).1, End::Open);
}

#[test]
fn after_a_lost_message_the_next_is_read() {
    let mut reader = Reader::default();
    let mut lost = vec![];
    let mut note = |event: Event<'_>| lost.push(format!("{event:?}"));
    reader.read(&[0x42, 1, 2, 3], &mut note).unwrap();
    reader.read(&reply(), &mut note).unwrap();
    assert_eq!(lost, ["Lost(Token(66))"]);
    assert_eq!(reader.end(), End::Lost);
    reader.read(&reply(), &mut |_| {}).unwrap();
    assert_eq!(reader.end(), End::Complete);
}

#[test]
fn what_is_not_known_is_not_guessed() {
    // User type, flags, type 0xF9.
    let unknown_type = [tag::COLMETADATA, 1, 0, 0, 0, 0, 0, 0, 0, 0xF9, 4, 0, 0];
    let encrypted = [tag::COLMETADATA, 1, 0, 0, 0, 0, 0, 0, 0x08, 0xA5, 4, 0, 0];
    let as_before = [tag::COLMETADATA, 0xFF, 0xFF, tag::ROW, 1, 2, 3];
    let cases = [
        (&unknown_type[..], "Lost(DataType(249))"),
        (&encrypted[..], "Lost(DataType(165))"),
        (&as_before[..], "Lost(ColumnsUntold)"),
        (&[tag::ROW], "Lost(ColumnsUntold)"),
        (&[tag::NBCROW], "Lost(ColumnsUntold)"),
        (&[tag::ALTROW, 1, 0], "Lost(ColumnsUntold)"),
        (&[tag::DATACLASSIFICATION, 0, 0], "Lost(Token(163))"),
    ];
    for (payload, expected) in cases {
        for pieces in [vec![payload], payload.chunks(1).collect()] {
            let (shown, end) = told(pieces);
            assert_eq!(shown.last().map(String::as_str), Some(expected));
            assert_eq!(end, End::Lost);
        }
    }
}

#[test]
fn the_columns_of_one_message_do_not_serve_the_next() {
    let mut reader = Reader::default();
    reader.read(&reply(), &mut |_| {}).unwrap();
    reader.end();
    reader.read(&[tag::ROW], &mut |_| {}).unwrap();
    assert_eq!(reader.end(), End::Lost);
}

#[test]
fn rarely_seen_tokens_are_passed_over() {
    let mut payload = vec![];
    payload.extend([tag::COLINFO, 3, 0, 1, 2, 3, tag::TABNAME, 0, 0]);
    payload.extend([
        tag::OFFSET,
        1,
        2,
        3,
        4,
        tag::SSPI,
        1,
        0,
        9,
        tag::LOGINACK,
        1,
        0,
        9,
    ]);
    payload.extend([
        tag::FEDAUTHINFO,
        2,
        0,
        0,
        0,
        9,
        9,
        tag::SESSIONSTATE,
        1,
        0,
        0,
        0,
        9,
    ]);
    payload.extend([tag::FEATUREEXTACK, 2, 0, 0, 0, 0, 10, 1, 0, 0, 0, 1, 0xFF]);
    // A result with a COMPUTE of two sums: operator, column, user type, flags, type, name.
    reply::put_columns(&mut payload, &columns()[..1]);
    payload.extend([tag::ALTMETADATA, 2, 0, 7, 0, 1, 1, 0]);
    for _ in 0..2 {
        payload.extend([0x4D, 1, 0, 0, 0, 0, 0, 0, 0, 0x26, 4, 0]);
    }
    payload.extend([tag::ROW, 0, tag::ALTROW, 7, 0, 4, 1, 0, 0, 0, 0]);
    reply::put_done(&mut payload, DoneKind::Batch, DoneStatus::FINAL, 0, 0);
    let whole = told([&payload[..]]);
    assert_eq!(whole.1, End::Complete);
    let others = whole.0.iter().filter(|event| event.starts_with("Other")).count();
    let rows = whole.0.iter().filter(|event| event.starts_with("Row")).count();
    assert_eq!((others, rows), (8, 2));
    assert_eq!(told(payload.chunks(1)), whole);
}

#[test]
fn env_changes_are_told_apart() {
    let mut payload = vec![];
    reply::put_language(&mut payload, "us_english", "");
    reply::put_packet_size(&mut payload, 8000, 4096);
    reply::put_collation(&mut payload, reply::COLLATION, Some([0; 5]));
    reply::put_rollback(&mut payload, 2);
    reply::put_enlist_dtc(&mut payload, 3);
    reply::put_defect(&mut payload, 4);
    reply::put_promote(&mut payload, &[1; 200]);
    reply::put_transaction_ended(&mut payload, 5);
    reply::put_routing(&mut payload, 1433, "other.example");
    // Kind 13, a mirror; a commit without descriptor.
    payload.extend([tag::ENVCHANGE, 3, 0, 13, 0, 0, tag::ENVCHANGE, 3, 0, 9, 0, 0]);
    let (shown, _) = told([&payload[..]]);
    let expected = [
        "EnvChange(Language { new: Utf16(10 units), old: Utf16(0 units) })",
        "EnvChange(PacketSize { new: Utf16(4 units), old: Utf16(4 units) })",
        "EnvChange(Collation { new: [9, 4, 208, 0, 52], old: [0, 0, 0, 0, 0] })",
        "EnvChange(Rollback { descriptor: 2 })",
        "EnvChange(EnlistDtc { descriptor: 3 })",
        "EnvChange(Defect { descriptor: 4 })",
        "EnvChange(Promote)",
        "EnvChange(TransactionEnded { descriptor: 5 })",
        "EnvChange(Routing { port: 1433, server: Utf16(13 units) })",
        "EnvChange(Other(13))",
        "EnvChange(Commit { descriptor: 0 })",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_token_that_lies_about_its_inside_is_refused() {
    for payload in [
        &[tag::ENVCHANGE, 0, 0][..],
        &[tag::ENVCHANGE, 2, 0, 1, 9],
        &[tag::ENVCHANGE, 4, 0, 8, 9, 0, 0],
        &[tag::ERROR, 4, 0, 1, 2, 3, 4],
        &[tag::INFO, 9, 0, 0, 0, 0, 0, 1, 1, 255, 255, 0],
    ] {
        let read = Reader::default().read(payload, &mut |_| {});
        assert!(
            matches!(read, Err(PeerMisbehaved::Truncated { .. })),
            "{payload:?}"
        );
    }
}

#[test]
fn an_endless_description_is_refused_and_not_kept() {
    // A text column of a table whose name has 255 parts of 128 KiB.
    let mut reader = Reader::default();
    let head = [tag::COLMETADATA, 1, 0, 0, 0, 0, 0, 0, 0, 0x22, 0, 0, 0, 0, 255];
    reader.read(&head, &mut |_| {}).unwrap();
    let part = [&[0xFF, 0xFF][..], &vec![0; 2 * 0xFFFF]].concat();
    let refused = (0..255).find_map(|_| reader.read(&part, &mut |_| {}).err());
    assert!(matches!(refused, Some(PeerMisbehaved::TooLarge { .. })));
}

#[test]
fn room_for_a_long_item_is_given_back() {
    // An INFO with a text of 30000 units and two empty names.
    let mut payload = vec![tag::INFO, 0, 0, 0, 0, 0, 0, 1, 0];
    payload.extend(30_000_u16.to_le_bytes());
    payload.extend(vec![b'x'; 60_000]);
    payload.extend([0, 0, 1, 0, 0, 0]);
    let length = u16::try_from(payload.len() - 3).unwrap();
    payload[1..3].copy_from_slice(&length.to_le_bytes());
    let mut reader = Reader::default();
    for piece in payload.chunks(4088) {
        reader.read(piece, &mut |_| {}).unwrap();
    }
    assert!(reader.is_between_tokens());
    assert!(reader.kept.capacity() <= ITEM_BYTES_KEPT);
}

#[test]
fn long_values_are_not_kept() {
    let text = "y".repeat(3 << 20);
    let columns = [Column {
        name: "t",
        kind: ColumnKind::NVarCharMax,
    }];
    let mut payload = vec![];
    reply::put_columns(&mut payload, &columns);
    reply::put_row(&mut payload, &columns, &[Cell::Text(&text)]);
    // The same in chunks, behind an unknown length.
    payload.push(tag::ROW);
    let at = payload.len();
    reply::put_chunked(&mut payload, text.as_bytes(), 8000);
    payload[at..at + 8].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    reply::put_done(&mut payload, DoneKind::Batch, DoneStatus::FINAL, 0, 2);
    let mut reader = Reader::default();
    for piece in payload.chunks(4088) {
        reader.read(piece, &mut |_| {}).unwrap();
        assert!(reader.kept.capacity() <= ITEM_BYTES_KEPT);
    }
    assert_eq!(reader.end(), End::Complete);
}

#[test]
fn a_flipped_bit_never_panics() {
    let payload = reply();
    for at in 0..payload.len() {
        for bit in 0..8 {
            let mut payload = payload.clone();
            payload[at] ^= 1 << bit;
            let mut reader = Reader::default();
            if reader.read(&payload, &mut |_| {}).is_ok() {
                assert_eq!(reader.position(), payload.len() as u64);
            }
            reader.end();
        }
    }
}

proptest! {
    #[test]
    fn pieces_of_any_size_tell_the_same(cuts in prop::collection::vec(0_usize..400, 0..40)) {
        let payload = reply();
        let mut rest = &payload[..];
        let mut pieces = vec![];
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        prop_assert_eq!(told(pieces), told([&payload[..]]));
    }

    #[test]
    fn arbitrary_bytes_end_somehow(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1_usize..20) {
        let mut whole = Reader::default();
        let mut cut = Reader::default();
        let all = whole.read(&bytes, &mut |_| {});
        let pieces = bytes.chunks(size).try_for_each(|piece| cut.read(piece, &mut |_| {}));
        prop_assert_eq!(&all, &pieces);
        if all.is_ok() {
            prop_assert_eq!(whole.end(), cut.end());
        }
    }
}
