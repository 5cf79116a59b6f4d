//! Stories of transactions that are marked in a table before they commit.

use super::{
    Argument, Callee, Recorded, SILENT, Story, attention, batch, begin, commit, flagged, in_transaction,
    outcome, rpc,
};
use crate::audit::{Marker, MarkerKey, Marking, SigningKey};
use crate::domain::ids::Installation;
use crate::session::dialogue::Dialogue as _;
use crate::wire::tds::packet::Status;

/// RFC 8410, section 10.3.
const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

fn marking(story: Story) -> Story {
    let marking = Marking {
        key: MarkerKey::of(&SigningKey::read(KEY).unwrap(), &Installation::new("i")),
        table: Some("gatepost.markers".parse().unwrap()),
    };
    Story {
        conversation: story.conversation.marking(Some(&marking), 8),
        ..story
    }
}

fn marker(story: &Story) -> Option<Marker> {
    let Recorded::TransactionIntent(transaction) = &story.intents.last().unwrap().event else {
        panic!("no intent")
    };
    transaction.marker.clone()
}

fn row(nonce: u64) -> Option<Marker> {
    Some(Marker::Row("gatepost.markers".parse().unwrap(), nonce))
}

#[test]
fn the_row_comes_first_then_the_intent_that_names_it_then_the_commit() {
    let mut story = marking(in_transaction());
    assert_eq!(story.client(&commit(7)), ">rpc@7");
    assert!(!story.conversation.is_committing());
    assert_eq!(story.server("marks:11 doneproc"), "intent:70 >COMMIT@7");
    assert_eq!(marker(&story), row(9));
    assert_eq!(
        story.server("commit:7 done"),
        "committed:70:complete <commit:7 done."
    );
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn a_commit_in_text_is_marked_if_it_is_all_of_the_text() {
    for text in [
        "COMMIT",
        "COMMIT TRANSACTION;",
        "/* the end */ commit tran t",
        "IF @@TRANCOUNT > 0 COMMIT TRAN",
        "if @@trancount>0 commit work;",
    ] {
        let mut story = marking(in_transaction());
        assert_eq!(story.client(&batch(7, text)), ">rpc@7", "{text}");
        assert_eq!(
            story.server("marks:11 doneproc"),
            format!("intent:70 >'{text}'@7")
        );
        assert_eq!(marker(&story), row(9), "{text}");
        assert_eq!(
            story.server("commit:7 done"),
            "committed:70:complete <commit:7 done."
        );
    }
    let call = rpc(7, &[(Callee::Number(10), &[Argument::text("", "COMMIT")])]);
    let mut story = marking(in_transaction());
    assert_eq!(story.client(&call), ">rpc@7");
    assert_eq!(story.server("marks:11 doneproc"), "intent:70 >rpc@7");
}

#[test]
fn what_could_take_the_row_back_is_not_marked() {
    for text in [
        "ROLLBACK TRAN s; COMMIT",
        "INSERT a VALUES (2); COMMIT",
        "COMMIT; INSERT a VALUES (2)",
        "IF @@TRANCOUNT > 0 COMMIT TRAN ELSE SELECT 1",
        "IF @@TRANCOUNT > 1 COMMIT TRAN",
        "EXEC finish",
    ] {
        let mut story = marking(in_transaction());
        let sent = story.client(&batch(7, text));
        assert!(sent.starts_with("intent:70 >"), "{text}: {sent}");
        assert_eq!(marker(&story), None, "{text}");
    }
    // What commits by itself has no transaction that a row could belong to.
    let mut story = marking(Story::new());
    assert_eq!(
        story.client(&batch(0, "INSERT a VALUES (1)")),
        "intent:- >'INSERT a VALUES (1)'"
    );
    assert_eq!(marker(&story), None);
}

#[test]
fn a_transaction_that_only_reads_is_not_marked() {
    let mut story = marking(Story::new());
    story.exchange(&begin(), "begin:7 done");
    story.server("bigint:70 done");
    story.exchange(&batch(7, "SELECT 1"), "int:1 done");
    assert_eq!(story.client(&commit(7)), ">COMMIT@7");
}

#[test]
fn without_the_row_nothing_is_committed_and_the_transaction_stays() {
    // No table or no right; the insert failed.
    for answer in ["marks:01 doneproc", "error:208 doneproc"] {
        let mut story = marking(in_transaction());
        assert_eq!(story.client(&commit(7)), ">rpc@7");
        assert_eq!(story.server(answer), "<error:40613 done!.", "{answer}");
        assert!(story.intents.is_empty());
        assert!(!story.conversation.is_at_rest_and_clean());
        // The table was made: it is tried again, with another row.
        assert_eq!(story.client(&batch(7, "COMMIT")), ">rpc@7");
        assert_eq!(story.server("marks:11 doneproc"), "intent:70 >'COMMIT'@7");
        assert_eq!(marker(&story), row(10));
    }
}

#[test]
fn an_error_that_takes_the_transaction_is_told() {
    let mut story = marking(in_transaction());
    story.client(&commit(7));
    assert_eq!(
        story.server("error:2627 rollback:7 doneproc"),
        "aborted:70:complete <error:40613 rollback:7 done!."
    );
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn a_server_that_tells_nothing_is_asked_what_the_error_took() {
    let mut story = marking(Story::with(SILENT));
    story.exchange(&batch(0, "BEGIN TRAN"), "done");
    story.server("bigint:70 done");
    story.exchange(&batch(0, "INSERT a VALUES (1)"), "inserted:1 done");
    assert_eq!(story.client(&batch(0, "COMMIT")), ">rpc");
    assert_eq!(story.server("error:1 doneproc"), ">'SELECT @@TRANCOUNT'");
    assert_eq!(
        story.server("int:0 done"),
        "indoubt:70:complete <error:40613 done!."
    );
}

#[test]
fn an_inner_commit_ends_nothing_and_has_no_row() {
    let mut story = marking(in_transaction());
    story.exchange(&batch(7, "BEGIN TRAN"), "done");
    assert_eq!(story.client(&batch(7, "COMMIT")), ">rpc@7");
    assert_eq!(story.server("marks:2 doneproc"), "intent:70 >'COMMIT'@7");
    assert_eq!(marker(&story), None);
    assert_eq!(story.server("done"), "<done.");
    // The outer one, in an intent that takes the place of the first.
    story.client(&commit(7));
    assert_eq!(story.server("marks:11 doneproc"), "intent:70 >COMMIT@7");
    assert_eq!(marker(&story), row(10));
}

#[test]
fn a_row_that_was_written_before_does_not_count_for_another_commit() {
    let mut story = marking(in_transaction());
    story.client(&commit(7));
    story.server("marks:11 doneproc");
    // It failed, and the transaction is still there.
    story.server("error:1 done!");
    let sent = story.client(&batch(7, "ROLLBACK TRAN s; COMMIT"));
    assert!(sent.starts_with("intent:70 >"), "{sent}");
    assert_eq!(marker(&story), None);
}

#[test]
fn a_commit_that_is_lost_is_in_doubt_and_one_that_never_went_is_not() {
    let mut story = marking(in_transaction());
    story.client(&commit(7));
    let lost = story.conversation.abandon(super::NOW).unwrap();
    assert_eq!(outcome(&lost), "aborted:70:complete");
    let mut story = marking(in_transaction());
    story.client(&commit(7));
    story.server("marks:11 doneproc");
    let lost = story.conversation.abandon(super::NOW).unwrap();
    assert_eq!(outcome(&lost), "indoubt:70:complete");
    let Recorded::TransactionOutcome { transaction, .. } = &lost.event else {
        panic!("no outcome")
    };
    assert_eq!(transaction.marker, row(9));
    assert_eq!(transaction.heard, Some(super::NOW));
}

#[test]
fn a_cancel_waits_for_the_row() {
    let mut story = marking(in_transaction());
    story.client(&commit(7));
    assert_eq!(story.client(&attention()), "");
    assert_eq!(
        story.server("marks:11 doneproc"),
        "intent:70 >COMMIT@7 >attention"
    );
}

#[test]
fn a_reset_with_the_commit_comes_before_it() {
    let mut story = marking(in_transaction());
    assert_eq!(
        story.client(&flagged(Status::RESET, 0, "COMMIT")),
        ">reset:'PRELUDE'"
    );
}
