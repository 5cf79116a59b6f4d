//! A client asks what became of a message, and finds the answer in its session.

use crate::wire::pg::from_client;

use super::{Complete, Error, Failed, Idle, InBlock, Plain, Ready, Reply, Story, probe, put_group};

/// The replies to the group that puts the answer into the session.
fn put() -> [Reply; 4] {
    [Plain("312"), Complete("SET"), Plain("33"), Ready(Idle)]
}

#[test]
fn the_answer_is_there_before_the_next_message_goes_on() {
    let mut story = Story::new();
    assert_eq!(story.query("set gatepost.outcome_of = 'm-1'"), "Q");
    let (to_client, to_server) = story.server(&[Complete("SET"), Ready(Idle)]);
    assert_eq!((to_client.as_str(), to_server.as_str()), ("CZ", "CPBECCS"));
    assert_eq!(story.asked, ["m-1"]);
    assert_eq!(story.query("show gatepost.outcomes"), "", "its turn comes later");
    let (to_client, to_server) = story.server(&put());
    assert_eq!((to_client.as_str(), to_server.as_str()), ("", "Q"));
    assert!(story.intents.is_empty() && story.outcomes.is_empty());
    // What was prepared was not the probe.
    story.server(&[Complete("SHOW"), Ready(Idle)]);
    assert_eq!(story.extended("insert into t values (1)"), "PBECPBEH");
}

#[test]
fn the_id_may_be_a_parameter() {
    let mut story = Story::new();
    let sent = story.client(|out| {
        from_client::put_parse(out, b"s", b"select set_config('gatepost.outcome_of', $1, false)");
        let mut bind = b"B\0\0\0\0\0s\0\0\0\0\x01\0\0\0\x03m-2\0\0".to_vec();
        let length = u8::try_from(bind.len() - 1).unwrap();
        bind[4] = length;
        out.extend_from_slice(&bind);
        from_client::put_execute(out, b"", 0);
        from_client::put_sync(out);
    });
    assert_eq!(sent, "PBECPBEH");
    story.server(&[Plain("12D"), Complete("SELECT 1")]);
    story.server(&probe(None));
    assert!(story.asked.is_empty(), "it has not run yet");
    assert_eq!(story.server(&[Ready(Idle)]).1, "CPBECCS");
    assert_eq!(story.asked, ["m-2"]);
}

#[test]
fn in_a_block_it_is_asked_in_the_block() {
    let mut story = Story::new();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    story.query("set gatepost.outcome_of to 'm-3'");
    let (_, to_server) = story.server(&[Complete("SET"), Ready(InBlock)]);
    assert_eq!(to_server, "CPBECCS");
    story.server(&[Plain("312"), Complete("SET"), Plain("33"), Ready(InBlock)]);
    assert_eq!(story.query("insert into t values (1)"), "QF");
}

#[test]
fn what_failed_asks_nothing() {
    let mut story = Story::new();
    story.client(|out| {
        put_group(out, "set gatepost.outcome_of = 'm-4'");
        put_group(out, "select 1/0");
        from_client::put_sync(out);
    });
    story.server(&[Plain("12"), Complete("SET"), Plain("12"), Error("22012")]);
    let (_, to_server) = story.server(&[Ready(Idle)]);
    assert_eq!(to_server, "");
    assert!(story.asked.is_empty());
    // Nor does a block that has failed.
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    story.query("select 1/0");
    story.server(&[Error("22012"), Ready(Failed), Error("25P02"), Ready(Failed)]);
    story.query("set gatepost.outcome_of = 'm-4'");
    story.server(&[Error("25P02"), Ready(Failed)]);
    assert!(story.asked.is_empty());
}

#[test]
fn taking_the_question_back_asks_nothing() {
    for text in ["reset gatepost.outcome_of", "set gatepost.outcome_of to default"] {
        let mut story = Story::new();
        story.query(text);
        let (_, to_server) = story.server(&[Complete("SET"), Ready(Idle)]);
        assert_eq!((to_server.as_str(), story.asked.len()), ("", 0), "{text}");
    }
}
