//! Stories of groups that end transactions in their middle, and of names that may mean something else by now.

use super::Reply::{Called, Complete, Plain, Ready};
use super::TransactionStatus::{Failed, Idle, InBlock};
use super::{Event, Outcome, Scope, Story, from_client, probe, put_group};

impl Story {
    /// One group of these statements.
    fn pipeline(&mut self, statements: &[&str]) -> String {
        self.client(|out| {
            statements.iter().for_each(|sql| put_group(out, sql));
            from_client::put_sync(out);
        })
    }

    /// A statement under a name.
    fn prepare(&mut self, name: &str, sql: &str) {
        self.client(|out| {
            from_client::put_parse(out, name.as_bytes(), sql.as_bytes());
            from_client::put_sync(out);
        });
        self.server(&[Plain("1"), Ready(Idle)]);
    }

    fn begin_and_write(&mut self, id: u64) {
        self.query("begin");
        self.server(&[Complete("BEGIN"), Ready(InBlock)]);
        self.query("insert into t values (1)");
        self.server(&[Complete("INSERT 0 1"), Ready(InBlock)]);
        self.server(&[Called(Some(id)), Ready(InBlock)]);
    }

    fn gid(&self) -> Option<String> {
        let Event::TransactionOutcome { transaction, .. } = &self.outcomes.last().unwrap().event else {
            panic!("no outcome")
        };
        transaction.gid.as_deref().map(str::to_owned)
    }
}

#[test]
fn a_commit_that_nobody_began_is_asked_before_it() {
    for (last, answer) in [("commit", "COMMIT"), ("prepare transaction 'x'", "ROLLBACK")] {
        let mut story = Story::new();
        let to_server = story.pipeline(&["insert into t values (1)", last]);
        assert_eq!(to_server, "PBEPBCPBECH");
        story.server(&[Plain("12"), Complete("INSERT 0 1"), Plain("12")]);
        let (_, to_server) = story.server(&probe(Some(5)));
        assert_eq!((story.intended(), to_server.as_str()), (vec![Some(5)], "ES"));
        story.server(&[Plain("3"), Complete(answer), Ready(Idle)]);
        assert_eq!(
            story.last(),
            (Some(5), Scope::Complete, Outcome::Committed),
            "{last}"
        );
    }
}

#[test]
fn the_second_commit_of_a_chain_is_asked_as_well() {
    let mut story = Story::new();
    story.begin_and_write(5);
    assert_eq!(
        story.pipeline(&["commit and chain", "insert into t values (2)", "commit"]),
        "PBEH"
    );
    story.server(&[Plain("12"), Complete("COMMIT")]);
    assert_eq!(story.last(), (Some(5), Scope::Complete, Outcome::Committed));
    story.server(&[Plain("12"), Complete("INSERT 0 1"), Plain("12")]);
    let (_, to_server) = story.server(&probe(Some(6)));
    assert_eq!(
        (story.intended(), to_server.as_str()),
        (vec![Some(5), Some(6)], "ES")
    );
    story.server(&[Plain("3"), Complete("COMMIT"), Ready(Idle)]);
    assert_eq!(story.last(), (Some(6), Scope::Complete, Outcome::Committed));
}

#[test]
fn behind_the_end_of_a_failed_block_writes_are_asked() {
    let mut story = Story::new();
    story.begin_and_write(5);
    story.query("select 1 / 0");
    story.server(&[super::Error("22012"), Ready(Failed)]);
    assert_eq!(story.pipeline(&["rollback", "insert into t values (2)"]), "PBEH");
    story.server(&[Plain("12"), Complete("ROLLBACK")]);
    assert_eq!(story.last(), (Some(5), Scope::Complete, Outcome::Aborted));
    story.server(&[Plain("12"), Complete("INSERT 0 1")]);
    assert_eq!(story.server(&probe(Some(6))).1, "S");
    story.server(&[Ready(Idle)]);
    assert_eq!(story.last(), (Some(6), Scope::Complete, Outcome::Committed));
}

#[test]
fn a_rollback_whose_name_may_have_been_taken_is_a_rollback() {
    let mut story = Story::new();
    story.prepare("r", "rollback");
    story.query("deallocate other");
    story.server(&[Complete("DEALLOCATE"), Ready(Idle)]);
    story.begin_and_write(5);
    story.client(|out| {
        from_client::put_bind(out, b"", b"r");
        from_client::put_execute(out, b"", 0);
        from_client::put_sync(out);
    });
    story.server(&[Plain("2"), Complete("ROLLBACK"), Ready(Idle)]);
    assert_eq!(story.last(), (Some(5), Scope::Partial, Outcome::Aborted));
}

#[test]
fn data_of_a_copy_waits_for_the_answer() {
    let mut story = Story::new();
    let to_server = story.client(|out| {
        put_group(out, "copy t from stdin");
        out.extend_from_slice(b"d\0\0\0\x06x\nc\0\0\0\x04");
        from_client::put_sync(out);
    });
    assert_eq!(to_server, "PBEH");
    assert_eq!(story.server(&[Plain("12G")]).1, "dcCPBEH");
    story.server(&[Complete("COPY 1")]);
    assert_eq!(story.server(&probe(Some(6))).1, "S");
    story.server(&[Ready(Idle)]);
    assert_eq!(story.last(), (Some(6), Scope::Complete, Outcome::Committed));
}

#[test]
fn two_phases_bear_one_name() {
    let mut story = Story::new();
    story.begin_and_write(5);
    story.query("prepare transaction 'it''s'");
    story.server(&[Complete("PREPARE TRANSACTION"), Ready(Idle)]);
    assert_eq!(story.last(), (Some(5), Scope::Complete, Outcome::Prepared));
    assert_eq!(story.gid().unwrap(), "it's");
    for (sql, answer, outcome) in [
        ("commit prepared 'it''s'", "COMMIT PREPARED", Outcome::Committed),
        ("rollback prepared 'it''s'", "ROLLBACK PREPARED", Outcome::Aborted),
    ] {
        story.query(sql);
        story.server(&[Complete(answer), Ready(Idle)]);
        assert_eq!(story.last(), (None, Scope::Partial, outcome));
        assert_eq!(story.gid().unwrap(), "it's");
    }
}

#[test]
fn what_is_prepared_without_a_write_is_on_record() {
    let mut story = Story::new();
    story.pipeline(&["begin", "prepare transaction 'x'"]);
    story.server(&[
        Plain("12"),
        Complete("BEGIN"),
        Plain("12"),
        Complete("PREPARE TRANSACTION"),
        Ready(Idle),
    ]);
    assert_eq!(story.intended(), [None]);
    assert_eq!(story.last(), (None, Scope::Partial, Outcome::Prepared));
}
