//! What is proven a plain read passes as it came; what is not, or not any more, does not.

use super::*;
use crate::credential::CatalogueWatch;
use crate::session::postgres::proofs::Proofs;
use crate::sql::pg::catalogue::{Danger, Draft};

/// A database in which the function `evil` is the only one that anybody made.
fn story() -> (Story, CatalogueWatch) {
    let mut draft = Draft::default();
    draft.function("evil", Danger::CALL_RUNS);
    let watch = CatalogueWatch::fixed(draft.finish());
    let mut story = Story::new();
    let utf8 = [("client_encoding".to_owned(), "UTF8".to_owned())];
    story.conversation.proofs = Proofs::new(Some(watch.clone()), &utf8);
    (story, watch)
}

#[test]
fn a_plain_read_needs_neither_probe_nor_intent_nor_rewrite() {
    let (mut story, watch) = story();
    assert_eq!(story.extended("select a from t where b = $1"), "PBES");
    assert_eq!(
        story.server(&[Plain("12"), Complete("SELECT 1"), Ready(Idle)]).0,
        "12CZ"
    );
    assert_eq!(story.query("select 'ü' from t"), "Q");
    assert_eq!(
        story.server(&[Plain("TD"), Complete("SELECT 1"), Ready(Idle)]).0,
        "TDCZ"
    );
    assert!(story.intents.is_empty() && story.outcomes.is_empty());
    assert!(watch.view().believed);
}

#[test]
fn in_a_block_a_plain_read_is_on_record_with_the_write_that_follows() {
    let (mut story, _) = story();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    assert_eq!(story.query("select a from t"), "Q");
    story.server(&[Complete("SELECT 3"), Ready(InBlock)]);
    assert_eq!(story.query("insert into t values (1)"), "QF");
    story.server(&[
        Complete("INSERT 0 1"),
        Ready(InBlock),
        Called(Some(77)),
        Ready(InBlock),
    ]);
    story.query("commit");
    story.server(&[Complete("COMMIT"), Ready(Idle)]);
    assert_eq!(story.last(), (Some(77), Scope::Complete, Outcome::Committed));
    let Event::TransactionOutcome { transaction, .. } = &story.outcomes[0].event else {
        panic!("no outcome")
    };
    let rows: Vec<_> = transaction
        .statements
        .iter()
        .map(|it| (it.kind, it.rows))
        .collect();
    assert_eq!(rows, [("select", Some(3)), ("insert", Some(1))]);
}

#[test]
fn a_block_of_plain_reads_leaves_no_record() {
    let (mut story, _) = story();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    assert_eq!(story.extended("select a from t"), "PBES");
    story.server(&[Plain("12"), Complete("SELECT 3"), Ready(InBlock)]);
    assert_eq!(story.query("commit"), "Q");
    story.server(&[Complete("COMMIT"), Ready(Idle)]);
    assert!(story.intents.is_empty() && story.outcomes.is_empty());
}

#[test]
fn rows_of_a_read_are_not_counted_to_a_write_of_the_same_group() {
    let (mut story, _) = story();
    story.client(|out| {
        put_group(out, "select a from t");
        put_group(out, "insert into t values (1)");
        from_client::put_sync(out);
    });
    story.server(&[
        Plain("12"),
        Complete("SELECT 9"),
        Plain("12"),
        Complete("INSERT 0 1"),
    ]);
    story.server(&probe(Some(5)));
    story.server(&[Ready(Idle)]);
    let Event::TransactionOutcome { transaction, .. } = &story.outcomes[0].event else {
        panic!("no outcome")
    };
    let rows: Vec<_> = transaction
        .statements
        .iter()
        .map(|it| (it.kind, it.rows))
        .collect();
    assert_eq!(rows, [("insert", Some(1))]);
}

#[test]
fn what_may_make_code_takes_belief_from_everybody_until_the_catalogue_was_read_again() {
    let makers = [
        "create view v as select 1",
        "select evil()",
        "do $$begin end$$",
        "select 1; select 2",
    ];
    for text in makers {
        let (mut story, watch) = story();
        story.query(text);
        assert!(!watch.view().believed, "{text}");
        // Its session is gone; nobody has read the catalogue again.
        drop(story);
        assert!(!watch.view().believed, "{text}");
    }
}

/// A Query ends the group in which it stands.
#[test]
fn a_plain_read_does_not_commit_a_write_before_it_without_its_intent() {
    let (mut story, _) = story();
    story.client(|out| put_group(out, "insert into t values (1)"));
    assert_ne!(story.query("select a from t"), "Q");
}

#[test]
fn of_several_statements_in_one_text_nothing_is_proven() {
    let (mut story, watch) = story();
    story.query("select 1; select 2");
    assert!(!watch.view().believed);
}

/// A write that runs no code disturbs nobody; one that is only bound may be run by FETCH.
#[test]
fn writes_of_plain_tables_disturb_nobody_and_a_bind_does() {
    let (mut story, watch) = story();
    story.extended("insert into t values (1)");
    assert!(watch.view().believed);
    let (mut story, watch) = self::story();
    story.client(|out| {
        from_client::put_parse(out, b"", b"select evil()");
        from_client::put_bind(out, b"p", b"");
    });
    assert!(!watch.view().believed);
}

#[test]
fn a_parameter_of_a_type_that_somebody_made_proves_nothing() {
    let (mut story, watch) = story();
    let parse = |oid: u32| {
        move |out: &mut Vec<u8>| {
            let mut body = b"\0select $1\0\0\x01".to_vec();
            body.extend_from_slice(&oid.to_be_bytes());
            out.push(b'P');
            out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            out.extend_from_slice(&body);
            from_client::put_bind(out, b"", b"");
            from_client::put_execute(out, b"", 0);
            from_client::put_sync(out);
        }
    };
    assert_eq!(story.client(parse(25)), "PBES");
    story.server(&[Plain("12"), Complete("SELECT 1"), Ready(Idle)]);
    assert_eq!(story.client(parse(16_400)), "PBECPBEH");
    assert!(!watch.view().believed);
}

/// The plan of a portal was made when it was bound.
#[test]
fn a_portal_that_was_no_plain_read_when_it_was_bound_stays_that() {
    let (mut story, watch) = story();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    let unrest = watch.disturb();
    story.client(|out| {
        from_client::put_parse(out, b"", b"select a from t");
        from_client::put_bind(out, b"p", b"");
        from_client::put_sync(out);
    });
    story.server(&[Plain("12"), Ready(InBlock)]);
    drop(unrest);
    let mut draft = Draft::default();
    draft.function("evil", Danger::CALL_RUNS);
    story.conversation.proofs = Proofs::new(Some(CatalogueWatch::fixed(draft.finish())), &[]);
    let sent = story.client(|out| {
        from_client::put_execute(out, b"p", 0);
        from_client::put_sync(out);
    });
    assert_eq!(sent, "EF");
}
