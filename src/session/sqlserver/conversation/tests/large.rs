//! Stories of requests that are larger than a packet.

use std::fmt::Write as _;

use super::{Argument, Callee, Cell, ColumnKind, PacketKind, Story, batch, packet, rpc};
use crate::session::dialogue::Fault;

const MEGABYTE: usize = 1 << 20;

#[test]
fn a_long_text_is_waited_for_whole_and_goes_on_packet_by_packet() {
    let mut story = Story::new();
    story.piece = 64 * 1024;
    let mut text = String::from("INSERT a VALUES (1)");
    while text.len() < 3 * MEGABYTE / 2 {
        write!(text, ", ({})", text.len()).unwrap();
    }
    let request = batch(0, &text);
    let told = story.client(&request);
    assert!(told.starts_with("intent:- >batch+ >batch+"), "{}", &told[..60]);
    assert!(told.ends_with(">batch"));
    assert!(story.most_unjudged > 3 * MEGABYTE - 64 * 1024);
    assert!(story.conversation.head.capacity() < MEGABYTE);
    assert_eq!(
        story.server("inserted:1 done"),
        "held:committed:-:partial <done+ done."
    );
}

#[test]
fn a_large_parameter_is_not_kept() {
    let mut story = Story::new();
    story.piece = 64 * 1024;
    let value = vec![1; 20 * MEGABYTE];
    let large = Argument {
        name: "@p",
        kind: ColumnKind::VarBinaryMax,
        value: Cell::Bytes(&value),
        is_output: false,
    };
    let arguments = [
        Argument::text("", "INSERT a VALUES (@p)"),
        Argument::text("", "@p varbinary(max)"),
        large,
    ];
    let told = story.client(&rpc(0, &[(Callee::Number(10), &arguments)]));
    assert!(told.starts_with("intent:- >rpc+ >rpc+"), "{}", &told[..60]);
    assert!(told.ends_with(">rpc"));
    assert!(story.most_unjudged < 128 * 1024, "{}", story.most_unjudged);
    story.server("inserted:1 status:0 doneproc");
    assert_eq!(story.statements()[0].0, "INSERT a VALUES (@p)");
}

#[test]
fn a_text_without_end_ends_the_session() {
    let mut story = Story::new();
    story.piece = MEGABYTE;
    let body = [0x20_u8, 0].repeat(3900);
    let mut request = Vec::new();
    let mut first = true;
    while request.len() < 65 * MEGABYTE {
        let mut payload = Vec::new();
        if first {
            crate::wire::tds::headers::put(&mut payload, 0, None);
        }
        first = false;
        payload.extend_from_slice(&body);
        request.extend(super::part(PacketKind::Batch, packet::Status::NORMAL, &payload));
    }
    assert_eq!(story.client(&request), "fault");
    assert!(matches!(story.fault, Some(Fault::StatementTooLarge { .. })));
}

#[test]
fn a_cut_through_a_packet_changes_nothing() {
    let text = format!("INSERT a VALUES ('{}')", "x".repeat(9000));
    let tell = |piece| {
        let mut story = Story::new();
        story.piece = piece;
        story.exchange(&batch(0, &text), "inserted:1 done")
    };
    let whole = tell(usize::MAX);
    assert_eq!(
        whole,
        "intent:- >batch+ >batch+ >batch held:committed:-:partial <done+ done."
    );
    for piece in [1, 7, 100, 7999, 8000, 8001] {
        assert_eq!(tell(piece), whole, "in pieces of {piece}");
    }
}
