//! Stories of COPY, of scripts, and of messages larger than a buffer.

use super::Reply::{Called, Complete, Error, Plain, Ready, TextId};
use super::TransactionStatus::{Idle, InBlock};
use super::{Event, Outcome, Record, Scope, Story, from_client, probe, take};

#[test]
fn copy_data_streams_and_is_followed_by_the_probe() {
    let mut story = Story::new();
    assert_eq!(story.query("copy t from stdin"), "PBDEH");
    assert_eq!(story.server(&[Plain("12nG")]).0, "G");
    let data: &[u8] = b"d\0\0\0\x06x\n";
    assert_eq!(story.client(|out| out.extend_from_slice(data)), "d");
    assert_eq!(
        story.client(|out| out.extend_from_slice(b"c\0\0\0\x04")),
        "cCPBEH"
    );
    story.server(&[Complete("COPY 1")]);
    assert_eq!(story.server(&probe(Some(6))).1, "S");
    assert_eq!(story.server(&[Ready(Idle)]).0, "Z");
    assert_eq!(story.last(), (Some(6), Scope::Complete, Outcome::Committed));
}

#[test]
fn an_extended_copy_has_nothing_put_before_its_data() {
    let mut story = Story::new();
    assert_eq!(story.extended("copy t from stdin"), "PBEH");
    let (_, to_server) = story.server(&[Plain("12G")]);
    assert_eq!(to_server, "S", "which the server ignores");
    let end = |out: &mut Vec<u8>| {
        out.extend_from_slice(b"d\0\0\0\x06x\nc\0\0\0\x04");
        from_client::put_sync(out);
    };
    assert_eq!(story.client(end), "dcCPBEH");
    story.server(&[Complete("COPY 1")]);
    assert_eq!(story.server(&probe(Some(6))).1, "S");
    story.server(&[Ready(Idle)]);
    assert_eq!(story.last(), (Some(6), Scope::Complete, Outcome::Committed));
}

#[test]
fn a_copy_that_is_refused_ends_its_group() {
    let mut story = Story::new();
    story.query("copy missing from stdin");
    assert_eq!(
        story.server(&[Plain("1"), Error("42P01")]),
        ("E".to_owned(), "S".to_owned())
    );
    story.server(&[Ready(Idle)]);
    assert_eq!(story.query("select 1"), "PBDECPBEH");
}

#[test]
fn several_statements_in_a_string_have_their_intent_first() {
    let mut story = Story::new();
    assert_eq!(
        story.query("insert into t values (1); insert into t values (2)"),
        "Q"
    );
    assert_eq!(story.intended(), [None]);
    let (to_client, _) = story.server(&[
        Complete("INSERT 0 1"),
        Complete("INSERT 0 1"),
        Plain("T"),
        TextId("99"),
        Complete("SELECT 1"),
        Ready(Idle),
    ]);
    assert_eq!(to_client, "CCZ", "the woven probe is not the client's");
    assert_eq!(story.last(), (Some(99), Scope::Complete, Outcome::Committed));
}

#[test]
fn a_script_that_commits_is_answered_when_its_outcome_is_on_disk() {
    let mut story = Story::new();
    story.query("begin; insert into t values (1); commit");
    assert_eq!(story.intended(), [None]);
    story.server(&[
        Complete("BEGIN"),
        Complete("INSERT 0 1"),
        Plain("T"),
        TextId("7"),
        Complete("SELECT 1"),
    ]);
    let (to_client, _) = story.server(&[Complete("COMMIT")]);
    assert_eq!((to_client.as_str(), story.outcomes.len()), ("C", 0));
    assert_eq!(story.server(&[Ready(Idle)]).0, "Z");
    assert_eq!(story.last(), (Some(7), Scope::Complete, Outcome::Committed));
}

#[test]
fn each_transaction_of_a_script_has_its_outcome() {
    let mut story = Story::new();
    story.query("insert into t values (1); commit; insert into t values (2), (3)");
    assert_eq!(story.intended(), [None], "one for all");
    story.server(&[
        Complete("INSERT 0 1"),
        Plain("T"),
        TextId("7"),
        Complete("SELECT 1"),
        Complete("COMMIT"),
        Complete("INSERT 0 2"),
        Plain("T"),
        TextId("8"),
        Complete("SELECT 1"),
        Ready(Idle),
    ]);
    let rows = |record: &Record| {
        let Event::TransactionOutcome { transaction, .. } = &record.event else {
            panic!("no outcome")
        };
        let rows: Vec<_> = transaction.statements.iter().map(|it| it.rows).collect();
        (transaction.id, rows)
    };
    let told: Vec<_> = story.outcomes.iter().map(rows).collect();
    // The first bears the intent's number, and is written last: it says that all are on record.
    assert_eq!(told, [(Some(8), vec![Some(2)]), (Some(7), vec![Some(1)])]);
    assert_eq!(story.last(), (Some(7), Scope::Complete, Outcome::Committed));
}

#[test]
fn what_a_script_does_behind_a_rollback_is_not_rolled_back() {
    let mut story = Story::new();
    story.query("begin; insert into t values (1); rollback; insert into t values (2)");
    story.server(&[
        Complete("BEGIN"),
        Complete("INSERT 0 1"),
        Complete("ROLLBACK"),
        Complete("INSERT 0 1"),
        Plain("T"),
        TextId("8"),
        Complete("SELECT 1"),
        Ready(Idle),
    ]);
    assert_eq!(story.last().2, Outcome::Aborted);
    story.outcomes.pop();
    assert_eq!(story.last(), (Some(8), Scope::Complete, Outcome::Committed));
}

#[test]
fn a_large_bind_streams_through() {
    let mut story = Story::new();
    story.client(|out| from_client::put_parse(out, b"", b"insert into t values ($1)"));
    let mut bind = vec![b'B'];
    bind.extend_from_slice(&1_000_004_u32.to_be_bytes());
    bind.extend_from_slice(b"\0\0");
    story.to_server.push(&bind);
    story.judge();
    assert_eq!(
        take(&mut story.to_server).len(),
        bind.len(),
        "what is here goes on at once"
    );
    story.to_server.push(&vec![0; 999_998]);
    story.judge();
    assert_eq!(take(&mut story.to_server).len(), 999_998);
    assert_eq!(
        story.client(|out| from_client::put_describe(out, from_client::Described::Portal, b"")),
        "D"
    );
}

#[test]
fn a_correlation_id_may_be_a_parameter() {
    let mut story = Story::new();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    let mut bind = b"B\0\0\0\0\0\0\0\0\0\x01\0\0\0\x06msg-17\0\0".to_vec();
    bind[4] = u8::try_from(bind.len() - 1).unwrap();
    let (first, rest) = bind.split_at(9);
    story.client(|out| {
        from_client::put_parse(
            out,
            b"",
            b"select set_config('gatepost.correlation_id', $1, true)",
        );
    });
    story.to_server.push(first);
    story.judge();
    assert_eq!(take(&mut story.to_server).len(), 0, "its parameters are awaited");
    story.client(|out| {
        out.extend_from_slice(rest);
        from_client::put_execute(out, b"", 0);
        from_client::put_sync(out);
    });
    story.server(&[Plain("12"), Complete("SELECT 1"), Called(Some(5)), Ready(InBlock)]);
    story.query("commit");
    let ids: Vec<&str> = story.intents[0]
        .correlation
        .iter()
        .map(|it| it.id.as_ref())
        .collect();
    assert_eq!(ids, ["msg-17"]);
}
