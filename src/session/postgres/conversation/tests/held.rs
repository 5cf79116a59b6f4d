//! Writes outside of a block that commit in one go with the question for their id: intent first, reply held.

use super::*;
use crate::domain::Autocommit;

fn held() -> Story {
    held_by(Story::new())
}

fn held_by(story: Story) -> Story {
    Story {
        conversation: story.conversation.committing(Autocommit::HoldReply),
        ..story
    }
}

/// The server answers a write with all that it owes; returns what the client sees of it.
fn acknowledged(story: &mut Story, command: &'static str, id: u64) -> String {
    let (shown, _) = story.server(&[Plain("12"), Complete(command), Called(Some(id)), Ready(Idle)]);
    assert_eq!(story.last(), (Some(id), Scope::Complete, Outcome::Committed));
    shown
}

#[test]
fn a_write_goes_in_one_round_trip_behind_its_intent() {
    let mut story = held();
    assert_eq!(story.extended("insert into t values (1)"), "PBEF");
    assert_eq!(story.intended(), [None], "written before anything went on");
    assert!(story.outcomes.is_empty());
    assert_eq!(acknowledged(&mut story, "INSERT 0 1", 700), "12CZ");
    assert_eq!(story.extended("insert into t values (1)"), "PBEF");
    assert_eq!(story.intended(), [None, None]);
    let Event::TransactionIntent(intent) = &story.intents[1].event else {
        panic!("no intent")
    };
    assert_eq!((intent.number, intent.statements.len()), (2, 1));
}

#[test]
fn the_end_of_a_write_waits_for_its_outcome() {
    let mut story = held();
    story.extended("insert into t values (1)");
    story.server(&[Plain("12"), Complete("INSERT 0 1")]);
    story.server(&[Called(Some(7))]);
    let mut bytes = Vec::new();
    Ready(Idle).put(&mut bytes);
    story.to_client.push(&bytes);
    let judged = story
        .conversation
        .judge_server(&mut story.to_client, &mut story.to_server, NOW)
        .unwrap();
    assert!(
        matches!(judged, Verdict::Demand(Demand::Outcome(_))),
        "{judged:?}"
    );
    assert_eq!(tags(&take(&mut story.to_client)), "");
    story.conversation.outcome_written();
    story.judge();
    assert_eq!(tags(&take(&mut story.to_client)), "Z");
}

#[test]
fn a_group_of_several_has_one_intent_with_all_of_them() {
    let mut story = held();
    let sent = story.client(|out| {
        put_group(out, "insert into t values (1)");
        put_group(out, "insert into t values (2)");
        from_client::put_sync(out);
    });
    assert_eq!(sent, "PBEPBEF");
    let Event::TransactionIntent(intent) = &story.intents[0].event else {
        panic!("no intent")
    };
    assert_eq!(intent.statements.len(), 2);
    assert_eq!(story.intents.len(), 1);
}

#[test]
fn a_simple_write_is_held_as_well() {
    let mut story = held();
    assert_eq!(story.query("insert into t values (1)"), "PBDEF");
    assert_eq!(story.intended(), [None]);
    let (shown, _) = story.server(&[Plain("12n"), Complete("INSERT 0 1"), Called(Some(5)), Ready(Idle)]);
    assert_eq!(shown, "CZ");
    assert_eq!(story.last(), (Some(5), Scope::Complete, Outcome::Committed));
}

#[test]
fn where_calls_go_on_a_prepared_question_stands_before_the_sync() {
    let mut story = held_by(Story::with_parameters(&[(
        "server_version",
        "18.4 (Debian 18.4-1)",
    )]));
    assert_eq!(story.extended("insert into t values (1)"), "PBECPBES");
    let [a, b, c, d] = probe(Some(7));
    let (shown, _) = story.server(&[Plain("12"), Complete("INSERT 0 1"), a, b, c, d, Ready(Idle)]);
    assert_eq!(shown, "12CZ");
    assert_eq!(story.last(), (Some(7), Scope::Complete, Outcome::Committed));
    let mut older = held_by(Story::with_parameters(&[("server_version", "17.10")]));
    assert_eq!(older.extended("insert into t values (1)"), "PBEF");
}

#[test]
fn a_call_that_does_not_end_the_transaction_is_found_out_and_followed_by_the_sync() {
    let mut story = held();
    story.extended("insert into t values (1)");
    let (shown, sent) = story.server(&[
        Plain("12"),
        Complete("INSERT 0 1"),
        Called(Some(7)),
        Ready(InBlock),
    ]);
    assert_eq!((shown.as_str(), sent.as_str()), ("12C", "S"));
    assert!(story.outcomes.is_empty(), "it has not committed");
    assert!(!story.conversation.owes_nothing());
    assert_eq!(story.server(&[Ready(Idle)]).0, "Z");
    assert_eq!(story.last(), (Some(7), Scope::Complete, Outcome::Committed));
    assert_eq!(story.extended("insert into t values (1)"), "PBECPBES");
}

#[test]
fn a_deferred_constraint_fails_behind_the_answer_to_the_call() {
    let mut story = held();
    story.extended("insert into t values (1)");
    let (shown, sent) = story.server(&[
        Plain("12"),
        Complete("INSERT 0 1"),
        Called(Some(7)),
        Error("23503"),
        Ready(Idle),
    ]);
    assert_eq!((shown.as_str(), sent.as_str()), ("12CEZ", ""), "no Sync is owed");
    assert_eq!(story.last(), (Some(7), Scope::Complete, Outcome::Aborted));
}

#[test]
fn a_cancel_may_hit_the_call_or_what_it_commits() {
    let mut story = held();
    story.extended("insert into t values (1)");
    story.server(&[Plain("12"), Complete("INSERT 0 1")]);
    assert!(story.conversation.is_running_client_statement());
    let (shown, sent) = story.server(&[Error("57014"), Ready(Idle)]);
    assert_eq!((shown.as_str(), sent.as_str()), ("EZ", ""));
    assert_eq!(story.last().2, Outcome::Aborted);
    assert!(story.conversation.owes_nothing());
}

#[test]
fn a_statement_of_a_block_that_fails_takes_the_call_with_it() {
    let mut story = held();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    assert_eq!(story.extended("insert into t values (1)"), "PBEF");
    let (shown, sent) = story.server(&[Plain("12"), Error("23505")]);
    assert_eq!((shown.as_str(), sent.as_str()), ("12E", "S"));
    assert_eq!(story.server(&[Ready(Failed)]).0, "Z");
    assert_eq!(story.query("rollback"), "Q");
    assert_eq!(story.server(&[Complete("ROLLBACK"), Ready(Idle)]).0, "CZ");
    assert_eq!(story.last().2, Outcome::Aborted);
}

#[test]
fn what_fails_is_aborted_with_its_intent() {
    let mut story = held();
    story.extended("insert into t values (1)");
    // The call was skipped with the rest, and with it the end of the group.
    let (shown, sent) = story.server(&[Plain("12"), Error("23505")]);
    assert_eq!((shown.as_str(), sent.as_str()), ("12E", "S"));
    assert_eq!(story.server(&[Ready(Idle)]).0, "Z");
    assert_eq!(story.last().2, Outcome::Aborted);
    assert_eq!(story.extended("insert into t values (1)"), "PBEF");
}

#[test]
fn without_its_intent_nothing_is_sent_that_commits() {
    let mut story = held();
    story.journal_fails = true;
    assert_eq!(
        story.extended("insert into t values (1)"),
        "PBEBS",
        "a Bind that fails"
    );
    let (shown, _) = story.server(&[Plain("12"), Complete("INSERT 0 1"), Error("26000"), Ready(Idle)]);
    assert_eq!(shown, "12CEZ");
    assert_eq!(story.last().2, Outcome::Aborted);
    assert_eq!(story.query("insert into t values (1)"), "BS");
}

#[test]
fn what_the_server_never_answered_is_in_doubt() {
    let mut story = held();
    story.extended("insert into t values (1)");
    let record = story.conversation.abandon(NOW);
    story.outcomes.extend(record);
    assert_eq!(story.last().2, Outcome::InDoubt);
}

#[test]
fn the_data_of_a_copy_comes_before_its_question() {
    let mut story = held();
    assert_eq!(story.extended("copy t from stdin"), "PBEH");
    story.server(&[Plain("12G")]);
    let sent = story.client(|out| {
        out.extend_from_slice(b"d\0\0\0\x061\n");
        out.extend_from_slice(b"c\0\0\0\x04");
        from_client::put_sync(out);
    });
    assert_eq!(sent, "dcF");
    assert_eq!(story.intended(), [None]);
    let (shown, _) = story.server(&[Complete("COPY 1"), Called(Some(9)), Ready(Idle)]);
    assert_eq!(shown, "CZ");
    assert_eq!(story.last(), (Some(9), Scope::Complete, Outcome::Committed));
}

#[test]
fn blocks_are_as_they_were() {
    let mut story = held();
    assert_eq!(story.query("begin"), "Q");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    assert_eq!(story.query("insert into t values (1)"), "QF");
    story.server(&[
        Complete("INSERT 0 1"),
        Ready(InBlock),
        Called(Some(77)),
        Ready(InBlock),
    ]);
    assert!(story.intents.is_empty());
    assert_eq!(story.query("commit"), "Q");
    assert_eq!(story.intended(), [Some(77)]);
    assert_eq!(story.server(&[Complete("COMMIT"), Ready(Idle)]).0, "CZ");
    assert_eq!(story.last(), (Some(77), Scope::Complete, Outcome::Committed));
}

#[test]
fn in_a_pipeline_each_group_waits_for_the_one_before_it() {
    let mut story = held();
    let sent = story.client(|out| {
        for _ in 0..2 {
            put_group(out, "insert into t values (1)");
            from_client::put_sync(out);
        }
    });
    assert_eq!(sent, "PBEF");
    let (shown, next) = story.server(&[Plain("12"), Complete("INSERT 0 1"), Called(Some(5)), Ready(Idle)]);
    assert_eq!((shown.as_str(), next.as_str()), ("12CZ", "PBEF"));
    assert_eq!(story.intended(), [None, None]);
}
