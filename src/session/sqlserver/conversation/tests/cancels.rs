//! Stories of attentions: the client's, and our own for a statement that takes too long.

use std::time::Duration;

use super::{Status, Story, attention, batch, begin, in_transaction};
use crate::session::dialogue::{Cancelling, Dialogue as _};

const LIMIT: Duration = Duration::from_secs(5);

impl Story {
    /// The time of what runs is over.
    fn time_is_over(&mut self) -> String {
        self.conversation.timed_out(LIMIT);
        assert_eq!(self.conversation.cancel(&mut self.to_server), Cancelling::Settled);
        self.settle();
        self.told()
    }
}

fn running() -> Story {
    let mut story = Story::new();
    assert_eq!(story.client(&batch(0, "SELECT 1")), ">'SELECT 1'");
    story
}

#[test]
fn a_cancel_goes_on_at_once_and_is_acknowledged() {
    let mut story = running();
    assert_eq!(story.client(&attention()), ">attention");
    assert_eq!(story.server("done~"), "<done~.");
    assert!(story.conversation.is_at_rest_and_clean());
    // In a message of its own.
    let mut story = running();
    story.client(&attention());
    assert_eq!(story.server("error:0 done!"), "<error:0 done!.");
    assert_eq!(
        story.client(&batch(0, "SELECT 2")),
        "",
        "not before the acknowledgement"
    );
    assert_eq!(story.server("done~"), "<done~. >'SELECT 2'");
}

#[test]
fn a_cancel_may_cross_the_end_of_the_reply() {
    let mut story = running();
    story.server("int:1 done");
    assert_eq!(story.client(&attention()), ">attention");
    assert!(!story.conversation.owes_nothing());
    assert_eq!(story.server("done~"), "<done~.");
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn a_cancel_waits_for_our_own_question() {
    let mut story = Story::new();
    story.exchange(&begin(), "begin:7 done");
    assert_eq!(story.client(&attention()), "");
    assert_eq!(story.server("bigint:70 done"), ">attention");
    assert_eq!(story.server("done~"), "<done~.");
    assert!(story.conversation.owes_nothing());
}

#[test]
fn a_second_cancel_is_not_sent() {
    let mut story = running();
    story.client(&attention());
    assert_eq!(story.client(&attention()), "");
    assert_eq!(story.server("done~"), "<done~.");
}

#[test]
fn a_cancelled_write_is_on_record_as_far_as_it_came() {
    for (reply, outcome) in [
        ("error:3621 done!+ done~", "aborted:-:partial"),
        ("done~", "indoubt:-:partial"),
        ("inserted:1 done~", "held:committed:-:partial"),
    ] {
        let mut story = Story::new();
        story.client(&batch(0, "INSERT a VALUES (1)"));
        story.client(&attention());
        let told = story.server(reply);
        assert!(told.starts_with(outcome), "{reply}: {told}");
    }
    let mut story = in_transaction();
    story.client(&batch(7, "UPDATE a SET b = 1"));
    story.client(&attention());
    assert_eq!(story.server("done~"), "<done~.");
    assert!(
        !story.conversation.is_at_rest_and_clean(),
        "the transaction is open"
    );
}

#[test]
fn a_statement_that_takes_too_long_ends_with_an_error() {
    // In one message, as in two.
    let mut story = running();
    assert_eq!(story.time_is_over(), ">attention");
    assert_eq!(story.server("int:1 done~"), "<columns row error:50000 done!.");
    assert!(story.conversation.is_at_rest_and_clean());
    let mut story = running();
    story.time_is_over();
    assert_eq!(story.server("error:0 done!"), "<error:0 done!+");
    assert_eq!(story.server("done~"), "<error:50000 done!.");
    assert_eq!(
        story.exchange(&batch(0, "SELECT 1"), "done"),
        ">'SELECT 1' <done."
    );
}

#[test]
fn an_end_that_came_in_time_is_a_good_one() {
    let mut story = running();
    story.time_is_over();
    assert_eq!(story.server("int:1 done"), "<columns row done.");
    // The client may go on; its request waits for an acknowledgement that it does not see.
    assert_eq!(story.client(&batch(0, "SELECT 2")), "");
    assert_eq!(story.server("done~"), ">'SELECT 2'");
    assert_eq!(story.server("done"), "<done.");
}

#[test]
fn an_acknowledgement_that_is_cut_leaves_no_trace() {
    for cut in 1..13 {
        let mut story = running();
        story.time_is_over();
        let mut end = super::payload("int:1 done~");
        let rest = end.split_off(end.len() - cut);
        assert_eq!(
            story.server_bytes(&super::reply_packet(Status::NORMAL, &end)),
            "<columns row"
        );
        assert_eq!(
            story.server_bytes(&super::reply_packet(Status::EOM, &rest)),
            "<error:50000 done!.",
            "{cut} bytes of it in the last packet"
        );
    }
}

#[test]
fn a_client_that_cancels_what_is_being_cancelled_gets_its_acknowledgement() {
    let mut story = running();
    story.time_is_over();
    assert_eq!(story.client(&attention()), "");
    assert_eq!(story.server("done~"), "<done~.");
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn time_runs_only_for_the_clients_own_statements() {
    let mut story = Story::new();
    assert_eq!(story.time_is_over(), "");
    story.exchange(&begin(), "begin:7 done");
    assert_eq!(story.time_is_over(), "", "our question runs");
    story.server("bigint:70 done");
    story.client(&batch(7, "SELECT 1"));
    story.server("int:1 done");
    assert_eq!(story.time_is_over(), "");
}

#[test]
fn an_acknowledgement_that_nobody_asked_for_ends_the_session() {
    let mut story = running();
    assert_eq!(story.server("done~"), "<done~. fault");
    let mut story = Story::new();
    assert_eq!(story.server("done"), "fault");
}
