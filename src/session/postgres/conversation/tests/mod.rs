//! Stories told in message types: what goes to the server, what reaches the client, what is on disk
//! in between. The replies are those that PostgreSQL gives.

mod bulk;
mod held;
mod marking;
mod pipelines;
mod plain;
mod question;

use std::sync::Arc;
use std::time::SystemTime;

use crate::audit::record::{Event, Facts, Outcome, Record, Scope};
use crate::domain::{Random, Reason, SessionId};
use crate::session::lane::Lane;
use crate::session::ledger::Ledger;
use crate::session::postgres::proofs::Proofs;
use crate::wire::pg::from_client;
use crate::wire::pg::from_server::{self, TransactionStatus};

use crate::session::dialogue::{Demand, Dialogue as _, Verdict};

use super::Conversation;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

#[derive(Debug)]
struct Seven;

impl Random for Seven {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// A client and a server that exist only as bytes, and a journal that can be told to fail.
struct Story {
    conversation: Conversation,
    to_server: Lane,
    to_client: Lane,
    journal_fails: bool,
    intents: Vec<Record>,
    outcomes: Vec<Record>,
    /// Correlation ids that the client asked for.
    asked: Vec<String>,
}

fn take(lane: &mut Lane) -> Vec<u8> {
    let mut slices = Lane::no_slices();
    let used = lane.slices(&mut slices);
    let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
    lane.written(bytes.len());
    bytes
}

/// The types of whole messages, as text.
fn tags(mut bytes: &[u8]) -> String {
    let mut tags = String::new();
    while let [tag, a, b, c, d, ..] = bytes {
        tags.push(char::from(*tag));
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty(), "half a message");
    tags
}

impl Story {
    fn new() -> Self {
        Self::with_parameters(&[])
    }

    /// The server has reported these.
    fn with_parameters(parameters: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let parameters: Vec<_> = parameters.iter().map(owned).collect();
        let session = SessionId::random(&Seven);
        let ledger = Ledger::new(Arc::new(Facts::default()), session, 1, None, Arc::default());
        Self {
            conversation: Conversation::new(session, ledger, "probe", &parameters, Proofs::new(None, &[])),
            to_server: Lane::default(),
            to_client: Lane::default(),
            journal_fails: false,
            intents: vec![],
            outcomes: vec![],
            asked: vec![],
        }
    }

    fn judge(&mut self) {
        loop {
            let verdict = self
                .conversation
                .judge_server(&mut self.to_client, &mut self.to_server, NOW)
                .unwrap();
            self.outcomes.extend(self.conversation.take_records());
            if self.demanded(verdict) {
                continue;
            }
            let verdict = self.conversation.hear_client(&mut self.to_server, NOW).unwrap();
            if !self.demanded(verdict) {
                return;
            }
        }
    }

    fn demanded(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Demand(Demand::Intent(_)) if self.journal_fails => {
                self.conversation.intent_failed(
                    Reason::JournalFailed,
                    &mut self.to_server,
                    &mut self.to_client,
                );
            }
            Verdict::Demand(Demand::Intent(record)) => {
                self.intents.push(record);
                self.conversation.intent_written(&mut self.to_server);
            }
            Verdict::Demand(Demand::Outcome(record)) => {
                self.outcomes.push(record);
                self.conversation.outcome_written();
            }
            Verdict::Demand(Demand::Outcomes(asked)) => {
                self.asked.push(asked.to_string());
                self.conversation.outcomes_found("{}", &mut self.to_server);
            }
            Verdict::More { .. } => return false,
            Verdict::Terminated => panic!("nobody said good-bye"),
        }
        true
    }

    /// The client sends this; returns what reaches the server, as types.
    fn client(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        put(&mut bytes);
        self.to_server.push(&bytes);
        self.judge();
        tags(&take(&mut self.to_server))
    }

    fn query(&mut self, sql: &str) -> String {
        self.client(|out| from_client::put_query(out, sql.as_bytes()))
    }

    fn extended(&mut self, sql: &str) -> String {
        self.client(|out| {
            put_group(out, sql);
            from_client::put_sync(out);
        })
    }

    /// The server replies; returns what reaches the client and what goes to the server meanwhile.
    fn server(&mut self, replies: &[Reply]) -> (String, String) {
        let mut bytes = Vec::new();
        replies.iter().for_each(|reply| reply.put(&mut bytes));
        self.to_client.push(&bytes);
        self.judge();
        (tags(&take(&mut self.to_client)), tags(&take(&mut self.to_server)))
    }

    fn last(&self) -> (Option<u64>, Scope, Outcome) {
        let Event::TransactionOutcome {
            transaction,
            scope,
            outcome,
            ..
        } = &self.outcomes.last().unwrap().event
        else {
            panic!("no outcome")
        };
        (transaction.id, *scope, *outcome)
    }

    fn intended(&self) -> Vec<Option<u64>> {
        let id = |record: &Record| {
            let Event::TransactionIntent(transaction) = &record.event else {
                panic!("no intent")
            };
            transaction.id
        };
        self.intents.iter().map(id).collect()
    }
}

fn put_group(out: &mut Vec<u8>, sql: &str) {
    from_client::put_parse(out, b"", sql.as_bytes());
    from_client::put_bind(out, b"", b"");
    from_client::put_execute(out, b"", 0);
}

enum Reply {
    /// Messages without a body, by their types.
    Plain(&'static str),
    Complete(&'static str),
    /// The probe's row.
    Id(Option<u64>),
    /// The row of a probe that was woven into a script.
    TextId(&'static str),
    /// The row of a probe that marks as well: id and place in the WAL.
    Marked(u64, u64),
    /// The answer to a probe that is a call.
    Called(Option<u64>),
    Error(&'static str),
    Ready(TransactionStatus),
}
use Reply::{Called, Complete, Error, Id, Marked, Plain, Ready, TextId};
use TransactionStatus::{Failed, Idle, InBlock};

impl Reply {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Plain(tags) => tags
                .bytes()
                .for_each(|tag| out.extend_from_slice(&[tag, 0, 0, 0, 4])),
            Complete(command) => from_server::put_command_complete(out, command.as_bytes()),
            Id(None) => out.extend_from_slice(&[b'D', 0, 0, 0, 10, 0, 1, 255, 255, 255, 255]),
            Id(Some(id)) => {
                out.extend_from_slice(&[b'D', 0, 0, 0, 18, 0, 1, 0, 0, 0, 8]);
                out.extend_from_slice(&id.to_be_bytes());
            }
            TextId(id) => {
                let length = u8::try_from(id.len()).unwrap();
                out.extend_from_slice(&[b'D', 0, 0, 0, 10 + length, 0, 1, 0, 0, 0, length]);
                out.extend_from_slice(id.as_bytes());
            }
            Marked(id, place) => {
                out.extend_from_slice(&[b'D', 0, 0, 0, 42, 0, 3]);
                for value in [id, place, place] {
                    out.extend_from_slice(&[0, 0, 0, 8]);
                    out.extend_from_slice(&value.to_be_bytes());
                }
            }
            Called(None) => out.extend_from_slice(&[b'V', 0, 0, 0, 8, 255, 255, 255, 255]),
            Called(Some(id)) => {
                out.extend_from_slice(&[b'V', 0, 0, 0, 16, 0, 0, 0, 8]);
                out.extend_from_slice(&id.to_be_bytes());
            }
            Error(sqlstate) => {
                let mut body = b"VERROR\0C".to_vec();
                body.extend_from_slice(sqlstate.as_bytes());
                body.extend_from_slice(b"\0Mno\0\0");
                out.push(b'E');
                out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
                out.extend_from_slice(&body);
            }
            Ready(status) => from_server::put_ready(out, *status),
        }
    }
}

/// The replies to a probe whose statement is not prepared yet.
fn probe(id: Option<u64>) -> [Reply; 4] {
    [Plain("31"), Plain("2"), Id(id), Complete("SELECT 1")]
}

#[test]
fn an_autocommit_write_commits_only_when_its_intent_is_on_disk() {
    let mut story = Story::new();
    assert_eq!(story.extended("insert into t values (1)"), "PBECPBEH");
    story.server(&[Plain("12"), Complete("INSERT 0 1")]);
    assert!(story.intents.is_empty());
    let (_, to_server) = story.server(&probe(Some(700)));
    assert_eq!((story.intended(), to_server.as_str()), (vec![Some(700)], "S"));
    assert!(story.outcomes.is_empty());
    assert_eq!(story.server(&[Ready(Idle)]).0, "Z");
    assert_eq!(story.last(), (Some(700), Scope::Complete, Outcome::Committed));
    // The second time the probe is prepared.
    assert_eq!(story.extended("insert into t values (1)"), "PBEBEH");
}

#[test]
fn a_read_needs_no_intent() {
    let mut story = Story::new();
    story.extended("select 1");
    story.server(&[Plain("12"), Complete("SELECT 1")]);
    let (to_client, to_server) = story.server(&probe(None));
    assert_eq!((to_client.as_str(), to_server.as_str()), ("", "S"));
    story.server(&[Ready(Idle)]);
    assert!(story.intents.is_empty());
    assert_eq!(story.last(), (None, Scope::ReadOnly, Outcome::Committed));
}

#[test]
fn a_failed_write_is_aborted() {
    let mut story = Story::new();
    story.extended("insert into t values (1)");
    let (to_client, to_server) = story.server(&[Plain("12"), Error("23505")]);
    assert_eq!((to_client.as_str(), to_server.as_str()), ("12E", "S"));
    story.server(&[Ready(Idle)]);
    assert_eq!(story.last().2, Outcome::Aborted);
    assert!(story.intents.is_empty());
    // The probe's Parse was skipped with the rest: it must not be believed in.
    assert_eq!(story.extended("insert into t values (1)"), "PBECPBEH");
}

#[test]
fn a_deferred_constraint_fails_behind_the_intent() {
    let mut story = Story::new();
    story.extended("insert into t values (1)");
    story.server(&[Plain("12"), Complete("INSERT 0 1")]);
    story.server(&probe(Some(9)));
    assert_eq!(story.server(&[Error("23505"), Ready(Idle)]).0, "EZ");
    assert_eq!(story.last(), (Some(9), Scope::Complete, Outcome::Aborted));
}

#[test]
fn a_simple_write_is_sent_as_extended_messages_and_answered_as_simple() {
    let mut story = Story::new();
    assert_eq!(story.query("insert into t values (1)"), "PBDECPBEH");
    let (to_client, _) = story.server(&[Plain("12n"), Complete("INSERT 0 1")]);
    assert_eq!(to_client, "C");
    assert_eq!(story.server(&probe(Some(5))).1, "S");
    assert_eq!(story.server(&[Ready(Idle)]).0, "Z");
    assert_eq!(story.last(), (Some(5), Scope::Complete, Outcome::Committed));
}

#[test]
fn a_simple_select_keeps_its_row_description() {
    let mut story = Story::new();
    story.query("select 1");
    assert_eq!(story.server(&[Plain("12TDD"), Complete("SELECT 2")]).0, "TDDC");
}

#[test]
fn in_a_block_the_id_is_known_before_commit_goes_on() {
    let mut story = Story::new();
    assert_eq!(story.query("begin"), "Q");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    assert_eq!(story.query("insert into t values (1)"), "QF");
    assert_eq!(story.server(&[Complete("INSERT 0 1"), Ready(InBlock)]).0, "CZ");
    assert_eq!(
        story.query("insert into t values (2)"),
        "",
        "the probe's answer comes first"
    );
    let (to_client, to_server) = story.server(&[Called(Some(77)), Ready(InBlock)]);
    assert_eq!(
        (to_client.as_str(), to_server.as_str()),
        ("", "Q"),
        "and is not asked again"
    );
    story.server(&[Complete("INSERT 0 1"), Ready(InBlock)]);
    assert_eq!(story.query("commit"), "Q");
    assert_eq!(story.intended(), [Some(77)]);
    story.server(&[Complete("COMMIT"), Ready(Idle)]);
    assert_eq!(story.last(), (Some(77), Scope::Complete, Outcome::Committed));
    assert_eq!(story.outcomes.len(), 1);
}

/// A block in which a statement runs with our question behind it, and whether a cancel was sent.
fn asked_behind_a_statement(cancelled: bool) -> Story {
    let mut story = Story::new();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    assert_eq!(story.query("update t set a = 1"), "QF");
    if cancelled {
        story.conversation.cancel(&mut Lane::default());
    }
    story
}

#[test]
fn a_cancel_that_hits_our_own_question_is_told_to_the_client() {
    let update = [Complete("UPDATE 1"), Ready(InBlock)];
    // Without a cancel the client does not wait for our question.
    let mut story = asked_behind_a_statement(false);
    assert_eq!(story.server(&update).0, "CZ");
    // With one it does, whether it comes too late for both …
    let mut story = asked_behind_a_statement(true);
    assert_eq!(story.server(&update).0, "C");
    assert!(!story.conversation.is_running_client_statement() && !story.conversation.owes_nothing());
    assert_eq!(story.server(&[Called(Some(700)), Ready(InBlock)]).0, "Z");
    assert!(story.conversation.owes_nothing());
    // … or hits the question.
    let mut story = asked_behind_a_statement(true);
    assert_eq!(story.server(&update).0, "C");
    assert_eq!(story.server(&[Error("57014"), Ready(Failed)]).0, "EZ");
    // What hits the statement itself is told once.
    let mut story = asked_behind_a_statement(true);
    assert_eq!(story.server(&[Error("57014"), Ready(Failed)]).0, "EZ");
    assert_eq!(story.server(&[Error("25P02"), Ready(Failed)]).0, "");
}

#[test]
fn a_read_only_block_ends_without_another_question() {
    let mut story = Story::new();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    story.query("select 1");
    story.server(&[Plain("T"), Complete("SELECT 1"), Ready(InBlock)]);
    story.server(&[Called(None), Ready(InBlock)]);
    assert_eq!(story.query("commit"), "Q");
    story.server(&[Complete("COMMIT"), Ready(Idle)]);
    assert_eq!(story.last(), (None, Scope::ReadOnly, Outcome::Committed));
    assert!(story.intents.is_empty());
}

#[test]
fn a_failed_block_rolls_back() {
    let mut story = Story::new();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    story.query("insert into t values ('x')");
    assert_eq!(story.server(&[Error("22P02"), Ready(Failed)]).0, "EZ");
    assert_eq!(
        story.server(&[Error("25P02"), Ready(Failed)]).0,
        "",
        "the probe's failure is not the client's"
    );
    assert_eq!(story.query("commit"), "Q");
    story.server(&[Complete("ROLLBACK"), Ready(Idle)]);
    assert_eq!(story.last().2, Outcome::Aborted);
    assert!(story.intents.is_empty());
}

#[test]
fn an_extended_commit_in_the_same_group_waits_for_its_intent() {
    let mut story = Story::new();
    let to_server = story.client(|out| {
        for sql in ["begin", "insert into t values (1)", "commit"] {
            put_group(out, sql);
        }
        from_client::put_sync(out);
    });
    assert_eq!(to_server, "PBEPBEPBCPBECH", "the COMMIT's Execute is held back");
    story.server(&[
        Plain("12"),
        Complete("BEGIN"),
        Plain("12"),
        Complete("INSERT 0 1"),
        Plain("12"),
    ]);
    let [a, b, c, d] = probe(Some(8));
    let (_, to_server) = story.server(&[a, b, c, d]);
    assert_eq!((story.intended(), to_server.as_str()), (vec![Some(8)], "ES"));
    story.server(&[Plain("3"), Complete("COMMIT"), Ready(Idle)]);
    assert_eq!(story.last(), (Some(8), Scope::Complete, Outcome::Committed));
}

#[test]
fn two_transactions_in_one_group_are_told_apart() {
    let mut story = Story::new();
    let to_server = story.client(|out| {
        for sql in [
            "begin",
            "insert into t values (1)",
            "rollback",
            "insert into t values (2)",
        ] {
            put_group(out, sql);
        }
        from_client::put_sync(out);
    });
    assert_eq!(to_server, "PBEPBEPBEH", "the answer to ROLLBACK comes first");
    let (_, to_server) = story.server(&[
        Plain("12"),
        Complete("BEGIN"),
        Plain("12"),
        Complete("INSERT 0 1"),
        Plain("12"),
        Complete("ROLLBACK"),
    ]);
    assert_eq!(story.last().2, Outcome::Aborted);
    assert_eq!(to_server, "PBECPBEH");
    story.server(&[Plain("12"), Complete("INSERT 0 1")]);
    assert_eq!(story.server(&probe(Some(3))).1, "S");
    story.server(&[Ready(Idle)]);
    assert_eq!(story.last(), (Some(3), Scope::Complete, Outcome::Committed));
}

#[test]
fn behind_an_error_a_query_is_skipped_until_the_client_says_sync() {
    let mut story = Story::new();
    let sent = story.client(|out| {
        from_client::put_parse(out, b"", b"selec 1");
        from_client::put_query(out, b"select 1; select 2");
    });
    assert!(sent.starts_with('P'), "{sent}");
    assert_eq!(story.server(&[Error("42601")]).0, "E");
    assert_eq!(story.client(from_client::put_sync), "S");
    assert_eq!(story.server(&[Ready(Idle)]).0, "Z");
    assert!(story.conversation.owes_nothing());
}

#[test]
fn without_a_journal_nothing_is_committed() {
    let mut story = Story::new();
    story.journal_fails = true;
    story.extended("insert into t values (1)");
    story.server(&[Plain("12"), Complete("INSERT 0 1")]);
    assert_eq!(
        story.server(&probe(Some(4))).1,
        "BS",
        "a message that fails goes before the Sync"
    );
    let (to_client, _) = story.server(&[Error("26000"), Ready(Idle)]);
    assert_eq!(to_client, "EZ");
    assert_eq!(story.last().2, Outcome::Aborted);

    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    story.query("insert into t values (1)");
    story.server(&[Complete("INSERT 0 1"), Ready(InBlock)]);
    story.server(&[Called(Some(5)), Ready(InBlock)]);
    assert_eq!(story.query("commit"), "BS", "the COMMIT does not go on");
    assert_eq!(story.server(&[Error("26000"), Ready(Failed)]).0, "EZ");
    assert_eq!(story.query("rollback"), "Q");
    story.server(&[Complete("ROLLBACK"), Ready(Idle)]);
    assert_eq!(story.last(), (Some(5), Scope::Complete, Outcome::Aborted));
}

#[test]
fn a_statement_that_commits_by_itself_has_its_intent_first_and_its_reply_last() {
    let mut story = Story::new();
    assert_eq!(story.query("vacuum t"), "PBDECPBES");
    assert_eq!(story.intended(), [None]);
    story.server(&[Plain("12n"), Complete("VACUUM")]);
    story.server(&probe(None));
    assert!(story.outcomes.is_empty());
    assert_eq!(story.server(&[Ready(Idle)]).0, "Z");
    assert_eq!(story.last().1, Scope::Partial);
    story.journal_fails = true;
    assert_eq!(story.query("call p()"), "BS");
}

#[test]
fn escapes_are_refused_without_reaching_the_server() {
    let mut story = Story::new();
    assert_eq!(story.query("set role postgres"), "BS");
    assert_eq!(story.server(&[Error("26000"), Ready(Idle)]).0, "EZ");
    assert_eq!(story.extended("alter role current_user password 'x'"), "BBES");
    assert_eq!(story.server(&[Error("26000"), Ready(Idle)]).0, "EZ");
}

#[test]
fn what_follows_an_error_up_to_the_sync_is_skipped() {
    let mut story = Story::new();
    story.client(|out| from_client::put_parse(out, b"", b"select nonsense from nowhere"));
    assert_eq!(story.server(&[Error("42P01")]).0, "E");
    let rest = |out: &mut Vec<u8>| {
        put_group(out, "insert into t values (1)");
        from_client::put_sync(out);
    };
    assert_eq!(story.client(rest), "PBES");
    assert_eq!(story.server(&[Ready(Idle)]).0, "Z");
    assert_eq!(story.extended("insert into t values (1)"), "PBECPBEH");
    assert_eq!(story.server(&[Plain("12"), Complete("INSERT 0 1")]).0, "12C");
}

#[test]
fn settings_and_transaction_control_are_left_alone() {
    let mut story = Story::new();
    for sql in [
        "set work_mem = '1MB'",
        "show work_mem",
        "",
        ";",
        "begin; set local x.y = '1'",
    ] {
        assert_eq!(story.query(sql), "Q", "{sql}");
        story.server(&[Complete("SET"), Ready(Idle)]);
    }
    assert!(story.outcomes.is_empty());
}

#[test]
fn a_named_statement_of_sql_is_not_trusted() {
    let mut story = Story::new();
    story.query("prepare x as insert into t values (1)");
    story.server(&[Complete("PREPARE"), Ready(Idle)]);
    let to_server = story.client(|out| {
        from_client::put_bind(out, b"", b"x");
        from_client::put_execute(out, b"", 0);
        from_client::put_sync(out);
    });
    assert_eq!(story.intended(), [None], "unknown: intent first");
    assert_eq!(to_server, "BECPBES");
}

#[test]
fn a_lost_server_leaves_the_outcome_in_doubt_only_behind_the_commit() {
    let mut story = Story::new();
    story.extended("insert into t values (1)");
    story.server(&[Plain("12"), Complete("INSERT 0 1")]);
    let outcome = |record: Option<Record>| {
        let Event::TransactionOutcome { outcome, .. } = record.unwrap().event else {
            panic!("no outcome")
        };
        outcome
    };
    assert_eq!(outcome(story.conversation.abandon(NOW)), Outcome::Aborted);
    let mut story = Story::new();
    story.extended("insert into t values (1)");
    story.server(&[Plain("12"), Complete("INSERT 0 1")]);
    story.server(&probe(Some(1)));
    assert_eq!(outcome(story.conversation.abandon(NOW)), Outcome::InDoubt);
}
