//! Stories of a server that says nothing of transactions which statements begin and end.

use super::{SILENT, Story, batch, begin, commit};

/// By statements, with the id 70.
fn begun() -> Story {
    let mut story = Story::with(SILENT);
    assert_eq!(
        story.exchange(&batch(0, "BEGIN TRAN"), "done"),
        ">'BEGIN TRAN' <done. >'ID?'"
    );
    assert_eq!(story.server("bigint:70 done"), "");
    assert_eq!(
        story.exchange(&batch(0, "INSERT a VALUES (1)"), "inserted:1 done"),
        ">'INSERT a VALUES (1)' <done+ done."
    );
    story
}

#[test]
fn the_words_count() {
    let mut story = begun();
    assert_eq!(
        story.exchange(&batch(0, "COMMIT"), "done"),
        "intent:70 >'COMMIT' committed:70:complete <done."
    );
    let mut story = begun();
    assert_eq!(
        story.exchange(&batch(0, "ROLLBACK"), "done"),
        ">'ROLLBACK' aborted:70:complete <done."
    );
    // In one text.
    let mut story = Story::with(SILENT);
    let text = "BEGIN TRAN; INSERT a VALUES (1); COMMIT";
    assert_eq!(
        story.exchange(&batch(0, text), "inserted:1 done"),
        format!("intent:- >'{text}' held:committed:-:partial <done+ done.")
    );
}

#[test]
fn the_id_is_asked_for_again_behind_work_if_there_was_none_before() {
    let mut story = Story::with(SILENT);
    story.exchange(&batch(0, "BEGIN TRAN"), "done");
    story.server("null done");
    assert_eq!(
        story.exchange(&batch(0, "SELECT 1"), "int:1 done"),
        ">'SELECT 1' <columns row done."
    );
    assert_eq!(
        story.exchange(&batch(0, "INSERT a VALUES (1)"), "inserted:1 done"),
        ">'INSERT a VALUES (1)' <done+ done. >'ID?'"
    );
    story.server("bigint:71 done");
    assert_eq!(story.client(&batch(0, "COMMIT")), "intent:71 >'COMMIT'");
}

#[test]
fn the_transaction_manager_is_believed() {
    let mut story = Story::with(SILENT);
    story.exchange(&begin(), "begin:7 done");
    story.server("bigint:70 done");
    story.exchange(&batch(7, "INSERT a VALUES (1)"), "inserted:1 done");
    assert_eq!(
        story.exchange(&commit(7), "commit:7 done"),
        "intent:70 >COMMIT@7 committed:70:complete <commit:7 done."
    );
}

#[test]
fn what_the_words_leave_open_is_asked_for() {
    let mut story = begun();
    assert_eq!(
        story.exchange(&batch(0, "EXEC p"), "done"),
        "intent:70 >'EXEC p' <done. >'SELECT @@TRANCOUNT'"
    );
    // Still open, so that what comes next is part of it …
    assert_eq!(story.server("int:1 done"), "");
    assert_eq!(
        story.exchange(&batch(0, "IF 1 = 1 COMMIT"), "done"),
        "intent:70 >'IF 1 = 1 COMMIT' <done. >'SELECT @@TRANCOUNT'"
    );
    // … or over, and nobody knows how.
    assert_eq!(story.server("int:0 done"), "indoubt:70:complete");
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn a_procedure_outside_of_a_transaction_gets_an_outcome() {
    let mut story = Story::with(SILENT);
    assert_eq!(
        story.exchange(&batch(0, "EXEC p"), "inserted:1 done"),
        "intent:- >'EXEC p' <done+ done. >'SELECT @@TRANCOUNT'"
    );
    assert_eq!(story.server("int:0 done"), "committed:-:partial");
    let mut story = Story::with(SILENT);
    story.exchange(&batch(0, "EXEC p"), "error:50000 done!");
    assert_eq!(story.server("int:0 done"), "indoubt:-:partial");
}

#[test]
fn a_procedure_may_leave_a_transaction_open() {
    let mut story = Story::with(SILENT);
    story.exchange(&batch(0, "EXEC p"), "done");
    assert_eq!(story.server("int:1 done"), ">'ID?'");
    story.server("bigint:70 done");
    assert_eq!(
        story.exchange(&batch(0, "COMMIT"), "done"),
        "intent:70 >'COMMIT' committed:70:partial <done."
    );
}

#[test]
fn an_error_in_a_text_that_begins_or_ends_is_asked_about() {
    let mut story = Story::with(SILENT);
    assert_eq!(
        story.exchange(
            &batch(0, "BEGIN TRAN; INSERT a VALUES (1); COMMIT"),
            "error:2627 done!"
        ),
        "intent:- >'BEGIN TRAN; INSERT a VALUES (1); COMMIT' <error:2627 done!. >'SELECT @@TRANCOUNT'"
    );
    assert_eq!(story.server("int:0 done"), "indoubt:-:partial");
    // A plain statement outside of one cannot have begun one.
    let mut story = Story::with(SILENT);
    assert_eq!(
        story.exchange(&batch(0, "INSERT a VALUES (1)"), "error:2627 done!"),
        "intent:- >'INSERT a VALUES (1)' aborted:-:partial <error:2627 done!."
    );
    // Within one it may have ended it.
    let mut story = begun();
    assert_eq!(
        story.exchange(&batch(0, "INSERT a VALUES (1)"), "error:1205 done!"),
        ">'INSERT a VALUES (1)' <error:1205 done!. >'SELECT @@TRANCOUNT'"
    );
    assert_eq!(story.server("int:0 done"), "indoubt:70:complete");
}

#[test]
fn implicit_transactions_are_asked_about() {
    let mut story = Story::with(SILENT);
    story.exchange(&batch(0, "SET IMPLICIT_TRANSACTIONS ON"), "done");
    assert_eq!(
        story.exchange(&batch(0, "INSERT a VALUES (1)"), "inserted:1 done"),
        ">'INSERT a VALUES (1)' <done+ done. >'SELECT @@TRANCOUNT'"
    );
    assert_eq!(story.server("int:1 done"), ">'ID?'");
}

#[test]
fn a_count_that_does_not_come_spoils_the_connection() {
    let mut story = Story::with(SILENT);
    story.exchange(&batch(0, "EXEC p"), "done");
    story.server("error:5 done!");
    assert!(!story.conversation.is_at_rest_and_clean());
}
