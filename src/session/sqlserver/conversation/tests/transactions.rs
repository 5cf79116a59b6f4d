//! Stories of a server that tells of every transaction.

use super::{PacketKind, Status, Story, batch, begin, commit, in_transaction, message, request, rollback};
use crate::session::dialogue::Dialogue as _;
use crate::wire::tds::request::Isolation;

#[test]
fn the_id_is_asked_for_while_the_client_thinks_and_named_before_commit() {
    let mut story = Story::new();
    assert_eq!(
        story.exchange(&begin(), "begin:7 done"),
        ">BEGIN <begin:7 done. >'ID?'@7"
    );
    // A request that comes sooner waits for the answer.
    assert_eq!(story.client(&batch(7, "INSERT a VALUES (1)")), "");
    assert_eq!(story.server("bigint:70 done"), ">'INSERT a VALUES (1)'@7");
    assert_eq!(story.server("inserted:1 done"), "<done+ done.");
    assert_eq!(story.client(&commit(7)), "intent:70 >COMMIT@7");
    assert_eq!(
        story.server("commit:7 done"),
        "committed:70:complete <commit:7 done."
    );
    assert_eq!(story.statements(), [("INSERT a VALUES (1)", Some(1))]);
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn one_text_with_a_whole_transaction_is_answered_when_its_outcome_is_on_disk() {
    let mut story = Story::new();
    let text = "BEGIN TRAN; INSERT a VALUES (1); COMMIT";
    assert_eq!(story.client(&batch(0, text)), format!("intent:- >'{text}'"));
    assert_eq!(story.server_begins("begin:7 done+"), "<begin:7 done+");
    assert_eq!(
        story.server("inserted:1 commit:7 done"),
        "held:committed:-:partial <done+ commit:7 done."
    );
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn what_commits_by_itself_has_its_intent_first_and_its_outcome_before_the_end() {
    let mut story = Story::new();
    assert_eq!(
        story.client(&batch(0, "INSERT a VALUES (1)")),
        "intent:- >'INSERT a VALUES (1)'"
    );
    assert!(story.conversation.is_committing());
    assert_eq!(
        story.server("inserted:1 done"),
        "held:committed:-:partial <done+ done."
    );
    assert!(!story.conversation.is_committing());
    assert_eq!(story.conversation.transactions(), 1);
}

#[test]
fn a_plain_read_leaves_no_trace() {
    let mut story = Story::new();
    assert_eq!(
        story.exchange(&batch(0, "SELECT 1"), "int:1 selected:1 done"),
        ">'SELECT 1' <columns row done+ done."
    );
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn a_transaction_that_only_reads_leaves_none_either() {
    let mut story = Story::new();
    story.exchange(&begin(), "begin:7 done");
    story.server("bigint:70 done");
    story.exchange(&batch(7, "SELECT 1"), "int:1 done");
    assert_eq!(
        story.exchange(&commit(7), "commit:7 done"),
        ">COMMIT@7 <commit:7 done."
    );
}

#[test]
fn a_rollback_needs_no_intent() {
    let mut story = in_transaction();
    assert_eq!(
        story.exchange(&rollback(7), "rollback:7 done"),
        ">ROLLBACK@7 aborted:70:complete <rollback:7 done."
    );
    assert!(story.intents.is_empty());
}

#[test]
fn an_error_leaves_the_transaction_open() {
    let mut story = in_transaction();
    assert_eq!(
        story.exchange(&batch(7, "INSERT a VALUES (1)"), "error:2627 done!"),
        ">'INSERT a VALUES (1)'@7 <error:2627 done!."
    );
    assert!(!story.conversation.is_at_rest_and_clean());
    assert_eq!(
        story.exchange(&commit(7), "commit:7 done"),
        "intent:70 >COMMIT@7 committed:70:complete <commit:7 done."
    );
}

#[test]
fn an_error_that_ends_the_transaction_is_told_in_its_reply() {
    let mut story = in_transaction();
    assert_eq!(
        story.exchange(&batch(7, "INSERT a VALUES (1)"), "error:2627 rollback:7 done!"),
        ">'INSERT a VALUES (1)'@7 aborted:70:complete <error:2627 rollback:7 done!."
    );
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn implicit_transactions_begin_with_the_first_work() {
    let mut story = Story::new();
    story.exchange(&batch(0, "SET IMPLICIT_TRANSACTIONS ON"), "done");
    // It cannot commit by itself.
    assert_eq!(
        story.exchange(&batch(0, "INSERT a VALUES (1)"), "begin:8 inserted:1 done"),
        ">'INSERT a VALUES (1)' <begin:8 done+ done. >'ID?'@8"
    );
    story.server("bigint:80 done");
    assert_eq!(
        story.exchange(&batch(8, "COMMIT"), "commit:8 done"),
        "intent:80 >'COMMIT'@8 committed:80:complete <commit:8 done."
    );
}

#[test]
fn a_commit_may_begin_the_next_transaction() {
    let mut story = in_transaction();
    let commit = message(PacketKind::TransactionManager, Status::NORMAL, |out| {
        request::put_commit(out, 7, Some(Isolation::Unchanged));
    });
    assert_eq!(
        story.exchange(&commit, "commit:7 begin:8 done"),
        "intent:70 >COMMIT@7 committed:70:complete <commit:7 begin:8 done. >'ID?'@8"
    );
    story.server("bigint:80 done");
    story.exchange(&batch(8, "INSERT a VALUES (2)"), "inserted:1 done");
    assert_eq!(
        story.exchange(&rollback(8), "rollback:8 done"),
        ">ROLLBACK@8 aborted:80:complete <rollback:8 done."
    );
}

#[test]
fn only_the_outermost_commit_commits() {
    let mut story = in_transaction();
    assert_eq!(
        story.exchange(&batch(7, "BEGIN TRAN"), "done"),
        ">'BEGIN TRAN'@7 <done."
    );
    story.exchange(&batch(7, "INSERT a VALUES (2)"), "inserted:1 done");
    // Whose depth is not told, so that each may be the last.
    assert_eq!(
        story.exchange(&batch(7, "COMMIT"), "done"),
        "intent:70 >'COMMIT'@7 <done."
    );
    assert!(!story.conversation.is_committing());
    assert_eq!(
        story.exchange(&batch(7, "COMMIT"), "commit:7 done"),
        "intent:70 >'COMMIT'@7 committed:70:complete <commit:7 done."
    );
    assert_eq!(story.statements().len(), 2);
}

#[test]
fn savepoints_end_nothing() {
    let mut story = in_transaction();
    assert_eq!(
        story.exchange(&batch(7, "SAVE TRAN s"), "done"),
        ">'SAVE TRAN s'@7 <done."
    );
    let text = "SAVE TRAN s; INSERT a VALUES (2); ROLLBACK TRAN s";
    assert_eq!(
        story.exchange(&batch(7, text), "inserted:1 done"),
        format!(">'{text}'@7 <done+ done.")
    );
    // By the transaction manager, with a name.
    let back = message(PacketKind::TransactionManager, Status::NORMAL, |out| {
        crate::wire::tds::headers::put(out, 7, None);
        out.extend_from_slice(&[8, 0, 2, b's', 0, 0]);
    });
    assert_eq!(story.exchange(&back, "done"), ">ROLLBACK@7 <done.");
    assert_eq!(
        story.exchange(&commit(7), "commit:7 done"),
        "intent:70 >COMMIT@7 committed:70:complete <commit:7 done."
    );
}

#[test]
fn an_end_of_which_nobody_says_how_is_in_doubt_unless_it_was_asked_for() {
    let mut story = in_transaction();
    assert_eq!(
        story.exchange(&batch(7, "EXEC p"), "ended:7 done"),
        "intent:70 >'EXEC p'@7 indoubt:70:complete <ended:7 done."
    );
    let mut story = in_transaction();
    assert_eq!(
        story.exchange(&commit(7), "ended:7 done"),
        "intent:70 >COMMIT@7 committed:70:complete <ended:7 done."
    );
}

#[test]
fn a_second_transaction_in_a_text_is_on_record_as_well() {
    let mut story = Story::new();
    let text = "BEGIN TRAN; INSERT a VALUES (1); ROLLBACK; BEGIN TRAN; INSERT b VALUES (1); COMMIT";
    story.client(&batch(0, text));
    assert_eq!(
        story.server("begin:7 inserted:1 rollback:7 begin:8 inserted:1 commit:8 done"),
        "aborted:-:partial held:committed:-:partial \
         <begin:7 done+ rollback:7 begin:8 done+ commit:8 done."
    );
}

#[test]
fn two_commits_in_a_text_are_on_record_in_their_order() {
    let mut story = Story::new();
    let text = "BEGIN TRAN; INSERT a VALUES (1); COMMIT; BEGIN TRAN; INSERT b VALUES (1); COMMIT";
    story.client(&batch(0, text));
    story.server("begin:7 inserted:1 commit:7 begin:8 inserted:1 commit:8 done");
    let numbers = story.outcomes.iter().map(|record| {
        let super::Recorded::TransactionOutcome { transaction, .. } = &record.event else {
            panic!("no outcome")
        };
        transaction.number
    });
    assert!(numbers.eq([1, 2]));
}

#[test]
fn work_behind_a_rollback_in_a_text_is_on_record_as_well() {
    let mut story = Story::new();
    let text = "BEGIN TRAN; INSERT a VALUES (1); ROLLBACK; INSERT b VALUES (1)";
    story.client(&batch(0, text));
    assert_eq!(
        story.server("begin:7 inserted:1 rollback:7 inserted:1 done"),
        "aborted:-:partial held:committed:-:partial <begin:7 done+ rollback:7 done+ done."
    );
}

#[test]
fn a_failed_statement_is_aborted_only_if_nothing_else_can_have_stayed() {
    for (text, reply, outcome) in [
        ("INSERT a VALUES (1)", "error:2627 done!", "aborted:-:partial"),
        // NOCOUNT may hide what went well before.
        (
            "INSERT a VALUES (1); INSERT b VALUES (1)",
            "done+ error:2627 done!",
            "indoubt:-:partial",
        ),
        ("EXEC p", "error:50000 done!", "indoubt:-:partial"),
        (
            "WHILE 1 = 1 INSERT a VALUES (1)",
            "error:2627 done!",
            "indoubt:-:partial",
        ),
    ] {
        let mut story = Story::new();
        story.client(&batch(0, text));
        let told = story.server(reply);
        assert!(told.starts_with(outcome), "{text}: {told}");
    }
    let mut story = Story::new();
    story.client(&batch(0, "INSERT a VALUES (1); INSERT b VALUES (1)"));
    assert!(
        story
            .server("inserted:1 error:2627 done!")
            .starts_with("held:committed:-:partial"),
        "the first one stays"
    );
    let mut story = Story::new();
    story.client(&batch(0, "SELECT a FROM b; INSERT b VALUES (1)"));
    assert!(
        story
            .server("selected:5 error:2627 done!")
            .starts_with("indoubt:-:partial"),
        "what a SELECT says is no commit"
    );
}

#[test]
fn an_intent_that_cannot_be_written_rolls_back() {
    let mut story = in_transaction();
    story.journal_fails = true;
    assert_eq!(story.client(&commit(7)), "refused <error:40613 >ROLLBACK@7");
    assert!(!story.conversation.is_committing());
    assert_eq!(
        story.server("rollback:7 done"),
        "aborted:70:complete <rollback:7 done."
    );
    story.journal_fails = false;
    assert!(
        story
            .client(&batch(0, "INSERT a VALUES (1)"))
            .starts_with("intent:-")
    );
}

#[test]
fn an_intent_that_cannot_be_written_hides_autocommit_work_from_the_server() {
    let mut story = Story::new();
    story.journal_fails = true;
    assert_eq!(
        story.client(&batch(0, "INSERT a VALUES (1)")),
        "refused <error:40613 done!."
    );
    assert!(story.conversation.is_at_rest_and_clean());
    assert_eq!(story.conversation.transactions(), 0);
    // Reading goes on.
    assert_eq!(story.client(&batch(0, "SELECT 1")), ">'SELECT 1'");
}

#[test]
fn nothing_depends_on_how_the_bytes_are_cut() {
    let tell = |piece| {
        let mut story = Story::new();
        story.piece = piece;
        let all = [
            story.exchange(&begin(), "begin:7 done"),
            story.server("bigint:70 done"),
            story.exchange(&batch(7, "INSERT a VALUES (1)"), "inserted:1 done"),
            story.exchange(&commit(7), "commit:7 done"),
            story.exchange(&batch(0, "DELETE a"), "error:5 done!"),
            story.exchange(&batch(0, "ALTER LOGIN x DISABLE"), ""),
        ];
        all.join("\n")
    };
    let whole = tell(usize::MAX);
    for piece in 1..40 {
        assert_eq!(tell(piece), whole, "in pieces of {piece}");
    }
}
