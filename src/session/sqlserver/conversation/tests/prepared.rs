//! Stories of calls: prepared statements, and what is set by one.

use crate::audit::record::Event;
use crate::audit::values::Values;

use super::{Argument, Callee, Story, batch, commit, in_transaction, rpc};

const PREPARE: Callee<'_> = Callee::Number(11);
const EXECUTE: Callee<'_> = Callee::Number(12);
const PREPEXEC: Callee<'_> = Callee::Number(13);
const UNPREPARE: Callee<'_> = Callee::Number(15);
const EXECUTESQL: Callee<'_> = Callee::Number(10);

fn prepare(descriptor: u64, callee: Callee<'_>, text: &str) -> Vec<u8> {
    let arguments = [
        Argument::int_output("", None),
        Argument::text("", ""),
        Argument::text("", text),
    ];
    rpc(descriptor, &[(callee, &arguments)])
}

fn execute(handle: i32) -> Vec<u8> {
    rpc(0, &[(EXECUTE, &[Argument::int("", handle)])])
}

fn texts(story: &Story) -> Vec<&str> {
    story.statements().into_iter().map(|(text, _)| text).collect()
}

#[test]
fn a_handle_stands_for_its_text() {
    let mut story = Story::new();
    let insert = prepare(0, PREPEXEC, "INSERT a VALUES (1)");
    assert_eq!(
        story.exchange(&insert, "value:3 inserted:1 status:0 doneproc"),
        "intent:- >rpc held:committed:-:partial <value:3 done+ status:0 doneproc."
    );
    assert_eq!(
        story.exchange(&execute(3), "inserted:1 status:0 doneproc"),
        "intent:- >rpc held:committed:-:partial <done+ status:0 doneproc."
    );
    assert_eq!(texts(&story), ["INSERT a VALUES (1)"]);
    // One that reads needs no intent.
    assert_eq!(
        story.exchange(&prepare(0, PREPARE, "SELECT 1"), "value:4 status:0 doneproc"),
        ">rpc <value:4 status:0 doneproc."
    );
    assert_eq!(story.client(&execute(4)), ">rpc");
    story.server("int:1 status:0 doneproc");
    // Until it is given back.
    story.exchange(
        &rpc(0, &[(UNPREPARE, &[Argument::int("", 4)])]),
        "status:0 doneproc",
    );
    assert_eq!(story.client(&execute(4)), "intent:- >rpc");
}

#[test]
fn an_unknown_handle_may_do_anything() {
    let mut story = Story::new();
    assert_eq!(
        story.exchange(&execute(9), "status:0 doneproc"),
        "intent:- >rpc held:committed:-:partial <status:0 doneproc."
    );
    assert_eq!(texts(&story), ["EXECUTE"]);
    let mut story = in_transaction();
    assert_eq!(story.client(&execute(9)), "intent:70 >rpc", "it may commit");
}

#[test]
fn only_the_handle_of_a_prepared_statement_stands_for_its_text() {
    // An output parameter of an sp_executesql is no handle.
    let mut story = Story::new();
    story.exchange(
        &prepare(0, PREPARE, "INSERT a VALUES (1)"),
        "value:1 status:0 doneproc",
    );
    let read = rpc(
        0,
        &[(
            EXECUTESQL,
            &[Argument::text("", "SELECT 1"), Argument::int_output("", None)],
        )],
    );
    story.exchange(&read, "value:1 status:0 doneproc");
    assert_eq!(story.client(&execute(1)), "intent:- >rpc");
    // Of several calls in one request nobody says which handle is whose.
    let mut story = Story::new();
    let arguments = |text| {
        [
            Argument::int_output("", None),
            Argument::text("", ""),
            Argument::text("", text),
        ]
    };
    let both = rpc(
        0,
        &[
            (PREPARE, &arguments("INSERT a VALUES (1)")),
            (PREPARE, &arguments("SELECT 1")),
        ],
    );
    story.exchange(&both, "value:1 value:2 status:0 doneproc");
    assert_eq!(story.client(&execute(1)), "intent:- >rpc");
    story.server("status:0 doneproc");
    assert_eq!(story.client(&execute(2)), "intent:- >rpc");
}

#[test]
fn a_text_is_not_judged_before_it_was_seen() {
    // The first packet ends behind the name of the procedure.
    let call = rpc(0, &[(EXECUTESQL, &[Argument::text("", "ALTER LOGIN x DISABLE")])]);
    let body = &call[8..];
    let (first, rest) = body.split_at(22 + 6);
    let mut story = Story::new();
    let kind = super::PacketKind::Rpc;
    assert_eq!(story.client(&super::part(kind, super::Status::NORMAL, first)), "");
    assert_eq!(
        story.client(&super::part(kind, super::Status::EOM, rest)),
        "<error:229 status:-1 doneproc!."
    );
}

fn set_context(key: &str, value: &str) -> Vec<u8> {
    let arguments = [Argument::text("@key", key), Argument::text("@value", value)];
    rpc(0, &[(Callee::Name("sp_set_session_context"), &arguments)])
}

#[test]
fn the_correlation_is_set_by_a_call() {
    let mut story = Story::new();
    assert_eq!(
        story.exchange(&set_context("correlation_id", "m-17"), "status:0 doneproc"),
        ">rpc <status:0 doneproc."
    );
    story.exchange(&batch(0, "INSERT a VALUES (1)"), "inserted:1 done");
    assert_eq!(story.correlation(), ["m-17"]);
    assert!(story.conversation.is_at_rest_and_clean());
}

#[test]
fn a_key_of_ours_cannot_be_set() {
    let mut story = Story::new();
    assert_eq!(
        story.client(&set_context("gatepost.subject", "root")),
        "<error:229 status:-1 doneproc!."
    );
    assert!(story.conversation.is_at_rest_and_clean());
    assert_eq!(story.client(&set_context("mine", "x")), ">rpc");
}

#[test]
fn the_clients_own_trace_is_a_correlation() {
    let mut story = Story::new();
    let insert = super::message(super::PacketKind::Batch, super::Status::NORMAL, |out| {
        let activity = crate::wire::tds::headers::Activity {
            id: [
                0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 8, 9, 10, 11, 12, 13, 14, 15,
            ],
            sequence: 4,
        };
        super::request::put_batch(out, 0, Some(activity), "INSERT a VALUES (1)");
    });
    story.client(&insert);
    assert_eq!(story.correlation(), ["00112233-4455-6677-0809-0a0b0c0d0e0f:4"]);
}

#[test]
fn a_prepared_insert_belongs_to_its_transaction() {
    let mut story = in_transaction();
    story.exchange(
        &prepare(7, PREPEXEC, "INSERT b VALUES (1)"),
        "value:1 inserted:1 status:0 doneproc",
    );
    assert_eq!(
        story.exchange(&commit(7), "commit:7 done"),
        "intent:70 >COMMIT@7 committed:70:complete <commit:7 done."
    );
    assert_eq!(texts(&story), ["INSERT a VALUES (1)", "INSERT b VALUES (1)"]);
}

#[test]
fn values_of_calls_are_kept_where_a_rule_wants_them() {
    let kept = |mut story: Story| {
        let arguments = [
            Argument::text("", "INSERT a VALUES (@a); INSERT b VALUES ('x')"),
            Argument::text("", "@a nvarchar(9)"),
            Argument::text("", "hunter2"),
        ];
        let calls: [(Callee<'_>, &[Argument<'_>]); 2] = [
            (EXECUTESQL, &arguments),
            (Callee::Name("dbo.apply"), &[Argument::int("", 4711)]),
        ];
        assert_eq!(story.client(&rpc(0, &calls)), "intent:- >rpc");
        let Event::TransactionIntent(transaction) = &story.intents[0].event else {
            panic!()
        };
        let shown = format!("{transaction:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        let call = |values: &Option<Values>| match values {
            Some(Values::Called { call, .. }) => format!("call {call}"),
            Some(Values::OfText) => "text".to_owned(),
            Some(Values::Bound(_) | Values::WithTheFirst | Values::Omitted) => "other".to_owned(),
            None => "none".to_owned(),
        };
        let statements = transaction.statements.iter();
        statements.map(|it| call(&it.values)).collect::<Vec<_>>()
    };
    assert_eq!(kept(Story::recording()), ["call 0", "text", "call 1"]);
    assert_eq!(kept(Story::new()), ["none", "none", "none"]);
}
