//! Stories of what the server never sees.

use super::{
    Argument, Callee, PacketKind, Status, Story, batch, commit, in_transaction, message, part, request, rpc,
};
use crate::session::dialogue::{Dialogue as _, Fault};

#[test]
fn an_escape_is_answered_here() {
    let mut story = Story::new();
    assert_eq!(
        story.client(&batch(0, "ALTER LOGIN x WITH PASSWORD = 'y'")),
        "<error:229 done!."
    );
    let call = rpc(
        0,
        &[(Callee::Number(10), &[Argument::text("", "ALTER LOGIN x DISABLE")])],
    );
    assert_eq!(story.client(&call), "<error:229 status:-1 doneproc!.");
    assert!(story.conversation.is_at_rest_and_clean());
    assert_eq!(
        story.exchange(&batch(0, "SELECT 1"), "int:1 done"),
        ">'SELECT 1' <columns row done."
    );
}

#[test]
fn an_escape_in_a_transaction_leaves_it_open() {
    let mut story = in_transaction();
    assert_eq!(
        story.client(&batch(7, "ALTER LOGIN x DISABLE")),
        "<error:229 done!."
    );
    assert_eq!(
        story.exchange(&commit(7), "commit:7 done"),
        "intent:70 >COMMIT@7 committed:70:complete <commit:7 done."
    );
    assert_eq!(story.statements().len(), 1);
}

/// python-tds and pymssql say USE with the name that they asked for, which may be gatepost's alias.
#[test]
fn use_of_an_alias_reaches_the_server_by_the_real_name() {
    let mut story = Story::new();
    let real = story.conversation.database.clone();
    story.conversation.alias = Some("orders-eu".to_owned());
    assert_eq!(
        story.exchange(&batch(0, "use [Orders-EU]"), "done"),
        format!(">'USE [{real}]' <done.")
    );
    // Another database is the server's to refuse, and so is more than one statement.
    assert_eq!(
        story.exchange(&batch(0, "USE other"), "done"),
        ">'USE other' <done."
    );
    let two = "USE [orders-eu]; SET NOCOUNT ON";
    assert_eq!(story.exchange(&batch(0, two), "done"), format!(">'{two}' <done."));
}

#[test]
fn a_prepared_escape_is_refused_at_once() {
    let mut story = Story::new();
    let arguments = [
        Argument::int_output("", None),
        Argument::text("", ""),
        Argument::text("", "ALTER LOGIN x DISABLE"),
    ];
    assert_eq!(
        story.client(&rpc(0, &[(Callee::Number(11), &arguments)])),
        "<error:229 status:-1 doneproc!."
    );
}

#[test]
fn a_distributed_transaction_is_refused() {
    let mut story = Story::new();
    let address = message(PacketKind::TransactionManager, Status::NORMAL, |out| {
        crate::wire::tds::headers::put(out, 0, None);
        out.extend_from_slice(&[0, 0, 0, 0]);
    });
    assert_eq!(story.client(&address), "<error:229 done!.");
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn a_query_notification_is_refused() {
    let mut story = Story::new();
    let asked = message(PacketKind::Batch, Status::NORMAL, |out| {
        out.extend_from_slice(&[16, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, b'x', 0]);
        out.extend("SELECT a FROM b".encode_utf16().flat_map(u16::to_le_bytes));
    });
    assert_eq!(story.client(&asked), "<error:229 done!.");
}

#[test]
fn a_text_that_is_no_text_is_refused() {
    let mut story = Story::new();
    let torn = message(PacketKind::Batch, Status::NORMAL, |out| {
        request::put_batch(out, 0, None, "SELECT ");
        out.extend_from_slice(&[0, 0xD8, b'x', 0]);
    });
    assert_eq!(story.client(&torn), "<error:4002 done!.");
}

#[test]
fn what_is_no_request_ends_the_session() {
    for bytes in [
        part(PacketKind::Reply, Status::EOM, &[]),
        part(PacketKind::Login7, Status::EOM, &[]),
        part(PacketKind::TransactionManager, Status::EOM, &[1, 2, 3]),
    ] {
        let mut story = Story::new();
        assert_eq!(story.client(&bytes), "fault");
        assert!(matches!(story.fault, Some(Fault::Client(_))));
    }
}

#[test]
fn a_message_has_one_kind() {
    // Else the server might read another request than we.
    let mut story = Story::new();
    let text = &batch(0, "SELECT 1")[8..];
    story.client(&part(PacketKind::Batch, Status::NORMAL, text));
    assert_eq!(
        story.client(&part(PacketKind::Rpc, Status::EOM, &[0, 0])),
        "fault"
    );
    let mut story = bulk_under_way();
    assert_eq!(story.client(&part(PacketKind::Batch, Status::EOM, text)), "fault");
}

#[test]
fn an_attention_takes_a_request_back_that_is_not_whole() {
    // While it goes on,
    let mut story = bulk_under_way();
    assert_eq!(story.client(&super::attention()), ">attention");
    assert_eq!(story.server("done~"), "aborted:-:partial <done~.");
    assert!(story.conversation.owes_nothing() && !story.conversation.leaves_clean());
    // while it is waited for,
    let text = &batch(0, "ALTER LOGIN x DISABLE")[8..];
    let mut story = Story::new();
    story.client(&part(PacketKind::Batch, Status::NORMAL, text));
    assert_eq!(story.client(&super::attention()), ">attention");
    assert_eq!(story.server("done~"), "<done~.");
    assert!(story.conversation.is_at_rest_and_clean());
    // and while it is dropped.
    let mut story = Story::new();
    let call = rpc(
        0,
        &[(Callee::Number(10), &[Argument::text("", "ALTER LOGIN x DISABLE")])],
    );
    story.client(&part(PacketKind::Rpc, Status::NORMAL, &call[8..]));
    assert_eq!(story.client(&super::attention()), ">attention");
    assert_eq!(story.server("done~"), "<done~.");
}

#[test]
fn a_message_without_end_or_bytes_is_not_waited_for() {
    let mut story = Story::new();
    story.client(&part(
        PacketKind::Batch,
        Status::NORMAL,
        &batch(0, "SELECT 1")[8..],
    ));
    assert_eq!(
        story.client(&part(PacketKind::Batch, Status::NORMAL, &[])),
        "fault"
    );
}

/// Rows are on their way, and their end is not.
fn bulk_under_way() -> Story {
    let mut story = Story::new();
    assert_eq!(
        story.exchange(&batch(0, "INSERT BULK a (b int)"), "done"),
        ">'INSERT BULK a (b int)' <done."
    );
    assert_eq!(
        story.client(&part(PacketKind::Bulk, Status::NORMAL, &[1; 3000])),
        "intent:- >bulk+"
    );
    story
}

#[test]
fn a_bulk_load_is_on_record_with_its_rows() {
    let mut story = bulk_under_way();
    assert!(!story.conversation.is_committing(), "not whole yet");
    assert_eq!(
        story.client(&part(PacketKind::Bulk, Status::EOM, &[1; 3000])),
        ">bulk"
    );
    assert!(story.conversation.is_committing());
    assert_eq!(
        story.server("inserted:9 done"),
        "held:committed:-:partial <done+ done."
    );
    assert_eq!(story.statements(), [("INSERT BULK a (b int)", Some(9))]);
}

#[test]
fn a_bulk_load_that_is_answered_early_is_answered_once() {
    let mut story = bulk_under_way();
    // Its end waits for the end of the request; what comes before goes on.
    assert_eq!(story.server_begins("error:4815"), "<error:4815");
    assert_eq!(story.server("done!"), "");
    assert_eq!(
        story.client(&part(PacketKind::Bulk, Status::EOM.with(Status::IGNORE), &[])),
        ">ignore:bulk aborted:-:partial <done!."
    );
    assert!(story.conversation.owes_nothing());
    assert!(!story.conversation.leaves_clean());
    assert_eq!(story.client(&batch(0, "SELECT 1")), ">'SELECT 1'");
}

#[test]
fn what_stands_beside_an_insert_bulk_is_seen() {
    let mut story = Story::new();
    let text = "INSERT BULK a (b int); DELETE FROM c";
    assert_eq!(story.client(&batch(0, text)), format!("intent:- >'{text}'"));
}

#[test]
fn a_request_that_its_client_takes_back_did_nothing() {
    let mut story = bulk_under_way();
    assert_eq!(
        story.client(&part(PacketKind::Bulk, Status::EOM.with(Status::IGNORE), &[])),
        ">ignore:bulk"
    );
    assert_eq!(story.server("done"), "aborted:-:partial <done.");
    // A refused one is only ended.
    let mut story = Story::new();
    let refused = batch(0, "ALTER LOGIN x DISABLE");
    let ignored = part(PacketKind::Batch, Status::EOM.with(Status::IGNORE), &refused[8..]);
    assert_eq!(story.client(&ignored), "<done!.");
}
