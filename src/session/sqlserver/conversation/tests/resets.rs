//! Stories of a client whose pool lends its connection to the next of its own.

use super::{Status, Story, batch, commit, flagged, in_transaction};
use crate::session::dialogue::Dialogue as _;

const LASTLY: Status = Status::RESET;

#[test]
fn the_reset_is_made_by_us_and_who_the_client_is_set_again() {
    let mut story = Story::new();
    assert_eq!(story.client(&flagged(LASTLY, 0, "SELECT 1")), ">reset:'PRELUDE'");
    assert_eq!(story.server("reset int:0 done"), ">'SELECT 1'");
    assert_eq!(
        story.server("int:1 done"),
        "<reset database:orders <columns row done."
    );
    assert!(story.conversation.is_at_rest_and_clean());
    assert_eq!(story.client(&batch(0, "SELECT 1")), ">'SELECT 1'");
}

#[test]
fn a_reset_ends_the_open_transaction() {
    let mut story = in_transaction();
    // Under no descriptor: the transaction is gone when the text is looked at.
    assert_eq!(story.client(&flagged(LASTLY, 0, "SELECT 1")), ">reset:'PRELUDE'");
    assert_eq!(
        story.server("reset int:0 done"),
        "aborted:70:complete >'SELECT 1'"
    );
    assert!(story.server("int:1 done").ends_with("done."));
}

#[test]
fn a_reset_that_spares_the_transaction_spares_it() {
    let mut story = in_transaction();
    assert_eq!(
        story.client(&flagged(Status::RESET_SKIP_TRAN, 7, "SELECT 1")),
        ">reset-skip:'PRELUDE'@7"
    );
    assert_eq!(story.server("reset int:1 done"), ">'SELECT 1'@7");
    story.server("int:1 done");
    assert_eq!(
        story.exchange(&commit(7), "commit:7 done"),
        "intent:70 >COMMIT@7 committed:70:complete <commit:7 done."
    );
}

#[test]
fn a_reset_with_a_write_has_its_intent_between() {
    let mut story = Story::new();
    story.client(&flagged(LASTLY, 0, "INSERT a VALUES (1)"));
    assert_eq!(
        story.server("reset int:0 done"),
        "intent:- >'INSERT a VALUES (1)'"
    );
    assert_eq!(
        story.server("inserted:1 done"),
        "held:committed:-:partial <reset database:orders <done+ done."
    );
}

#[test]
fn a_refused_request_tells_of_its_reset_all_the_same() {
    let mut story = Story::new();
    story.client(&flagged(LASTLY, 0, "ALTER LOGIN x DISABLE"));
    assert_eq!(
        story.server("reset int:0 done"),
        "<reset database:orders error:229 done!."
    );
    assert_eq!(
        story.exchange(&batch(0, "SELECT 1"), "done"),
        ">'SELECT 1' <done."
    );
}

#[test]
fn the_flag_goes_on_from_no_packet_at_all() {
    // tedious sets it on all packets of a message.
    let mut story = Story::new();
    let text = "x".repeat(6000);
    let mut request = flagged(LASTLY, 0, &format!("SELECT '{text}'"));
    request[8000 + 1] |= LASTLY.bits();
    story.client(&request);
    assert_eq!(story.server("reset int:0 done"), ">batch+ >batch");
    // An attention cannot bring one along.
    let mut attention = super::attention();
    attention[1] |= LASTLY.bits();
    assert_eq!(story.client(&attention), ">attention");
}

#[test]
fn a_reset_that_was_not_made_ends_the_session() {
    for reply in ["int:0 done", "reset error:5 done!"] {
        let mut story = Story::new();
        story.client(&flagged(LASTLY, 0, "SELECT 1"));
        assert_eq!(story.server(reply), "fault");
    }
}

#[test]
fn handles_and_options_are_gone_behind_a_reset() {
    let mut story = Story::new();
    story.exchange(&batch(0, "SET IMPLICIT_TRANSACTIONS ON"), "done");
    story.client(&flagged(LASTLY, 0, "SELECT 1"));
    story.server("reset int:0 done");
    story.server("int:1 done");
    assert_eq!(
        story.client(&batch(0, "INSERT a VALUES (1)")),
        "intent:- >'INSERT a VALUES (1)'",
        "it commits by itself again"
    );
    assert!(!story.conversation.owes_nothing());
}
