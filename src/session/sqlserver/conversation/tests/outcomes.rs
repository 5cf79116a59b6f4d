//! Stories of clients that ask what became of a message.

use super::{Story, batch, in_transaction};

const QUESTION: &str = "EXEC sp_set_session_context N'gatepost.outcome_of', N'm-1'";
/// The answer of these stories has an apostrophe.
const ANSWER: &str = "'EXEC sp_set_session_context N'gatepost.outcomes', '{it''s}''";

#[test]
fn a_question_is_answered_before_anything_else_goes_on() {
    let mut story = Story::new();
    let next = batch(0, "SELECT 1");
    let both = [batch(0, QUESTION), next].concat();
    assert_eq!(story.client(&both), format!(">'{QUESTION}'"));
    assert_eq!(story.server("done"), format!("<done. asked:m-1 >{ANSWER}"));
    assert_eq!(story.server("status:0 done"), ">'SELECT 1'");
    assert_eq!(story.server("int:1 done"), "<columns row done.");
    assert!(story.intents.is_empty() && story.outcomes.is_empty());
}

#[test]
fn in_a_transaction_it_is_answered_as_well() {
    let mut story = in_transaction();
    assert_eq!(
        story.exchange(&batch(7, QUESTION), "done"),
        format!(">'{QUESTION}'@7 <done. asked:m-1 >{ANSWER}@7")
    );
    assert_eq!(story.server("done"), "");
}

#[test]
fn what_failed_asked_nothing() {
    let mut story = Story::new();
    assert_eq!(
        story.exchange(&batch(0, QUESTION), "error:15664 done!"),
        format!(">'{QUESTION}' <error:15664 done!.")
    );
    assert_eq!(story.client(&batch(0, "SELECT 1")), ">'SELECT 1'");
}

#[test]
fn an_answer_that_is_not_taken_ends_the_session() {
    let mut story = Story::new();
    story.exchange(&batch(0, QUESTION), "done");
    assert_eq!(story.server("error:15664 done!"), "fault");
}

#[test]
fn the_answer_is_not_the_client_s_to_set() {
    let mut story = Story::new();
    let forged = "EXEC sp_set_session_context N'gatepost.outcomes', N'{}'";
    let told = story.client(&batch(0, forged));
    assert!(told.starts_with("<error:"), "{told}");
}
