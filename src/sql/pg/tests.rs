//! Texts against small catalogues.

use super::*;
use crate::sql::pg::catalogue::{Draft, Key};
use crate::sql::read;

/// A database with one dangerous thing of each sort.
fn catalogue() -> Catalogue {
    let mut draft = Draft::default();
    for name in ["evil", "query_to_xml", "Mixed"] {
        draft.function(name, Danger::CALL_RUNS);
    }
    draft.function("nextval", Danger::CALL_WRITES);
    draft.operator("=@=");
    let runs = Danger::READ_RUNS | Danger::WRITE_RUNS;
    draft.object(Key::Relation(1), "evil_view", runs);
    draft.object(Key::Relation(2), "above", Danger::WRITE_RUNS);
    draft.reads(Key::Relation(2), Key::Relation(1));
    draft.object(Key::Relation(3), "triggered", Danger::WRITE_RUNS);
    draft.object(Key::Relation(4), "parent", Danger::NONE);
    draft.writes(Key::Relation(4), Key::Relation(3));
    draft.object(Key::Relation(5), "quiet", Danger::NONE);
    draft.object(Key::Type(6), "checked", runs);
    draft.object(Key::Relation(7), "with_column", Danger::NONE);
    draft.reads(Key::Relation(7), Key::Type(6));
    draft.finish()
}

fn proven(text: &str) -> Proven {
    let kind = read(text.as_bytes(), false).single().unwrap();
    prove(text.as_bytes(), kind, true, &catalogue())
}

#[test]
fn ordinary_reads_are_plain() {
    let texts = [
        "select 1",
        "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
        "values (1), (2)",
        "table quiet;",
        "with x as (select lower(a) from quiet) select count(*) over (), sum(b) from x group by 1",
        "select 'größer', $$evil()$$, 1.5, 1e5, 2e-3 -- evil()",
        "select substring(a for 3), \"evil\" from \"quiet\" where b between $1 and $2",
        "select a as evil from quiet order by evil",
        "copy quiet to stdout",
        "select * from triggered",
        "select c.relname from pg_catalog.pg_class c where c.relname operator(pg_catalog.~) '^(x)$'",
    ];
    for text in texts {
        assert_eq!(proven(text), Proven::PlainRead, "{text}");
    }
}

#[test]
fn what_writes_without_code_of_others_is_told_apart() {
    let texts = [
        "insert into quiet values (1) on conflict do nothing",
        "update quiet set a = 1",
        "delete from quiet",
        "with x as (insert into quiet values (1) returning *) select * from x",
        "select * from quiet for update",
        "select * from quiet for no key update",
        "select nextval('s')",
        "select pg_catalog . nextval ( 's' )",
        "lock quiet",
        "copy quiet from stdin",
        "declare c cursor for select 1",
    ];
    for text in texts {
        assert_eq!(proven(text), Proven::RunsNoCode, "{text}");
    }
}

#[test]
fn names_that_may_run_anything_prove_nothing_in_any_spelling() {
    let texts = [
        "select evil()",
        "select EVIL ()",
        "select evil /* ( */ ()",
        "select public.evil(1)",
        "select \"evil\"(1)",
        "select \"Mixed\"(1)",
        "select q.evil from quiet q",
        "select (q).evil from quiet q",
        "select query_to_xml('delete from t', true, true, '')",
        "select * from evil_view",
        "select * from public.\"evil_view\"",
        "table evil_view",
        "select * from above",
        "select a =@= b from quiet",
        "select a = @= b from quiet",
        "select 1::checked",
        "select checked '1'",
        "select cast(1 as checked)",
        "select * from with_column",
        "select null::with_column",
        "insert into triggered values (1)",
        "delete from parent",
        "with x as (delete from parent returning 1) select 1",
        "select 1 into new_table from quiet",
        "with x as (select 1) select * into y from x",
        "select u&\"\\0065vil\"()",
        "select u&\"!0065vil\" uescape '!' ()",
        "select 1evil()",
        "select 1 where $1evil()",
        "select 'a\\'",
        "select größe from quiet",
        "explain analyze select evil()",
        "create table t (a int)",
        "do $$ begin end $$",
        "call p()",
        "execute s",
        "select pg_notify('a', 'b')",
    ];
    for text in texts {
        assert_eq!(proven(text), Proven::Nothing, "{text}");
    }
    let long = format!("select 1 from {}", "x".repeat(64));
    assert_eq!(proven(&long), Proven::Nothing);
}

#[test]
fn bytes_of_another_encoding_prove_nothing() {
    let text = "select 'ü'".as_bytes();
    assert_eq!(
        prove(text, crate::sql::Kind::Select, false, &catalogue()),
        Proven::Nothing
    );
}

#[test]
fn what_reaches_every_text_leaves_nothing_provable() {
    for operator in ["=", "~~", "<"] {
        let mut draft = Draft::default();
        draft.operator(operator);
        let verdict = prove(b"select 1", crate::sql::Kind::Select, true, &draft.finish());
        assert_eq!(verdict, Proven::Nothing, "{operator}");
    }
}

#[test]
fn large_and_deep_texts_take_no_stack() {
    let deep = format!("select {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    assert_eq!(proven(&deep), Proven::PlainRead);
    let large = format!("select '{}'", "x".repeat(1 << 20));
    assert_eq!(proven(&large), Proven::Nothing);
    let bytes: Vec<u8> = (0..=255).cycle().take(40_000).collect();
    assert_eq!(
        prove(&bytes, crate::sql::Kind::Select, true, &catalogue()),
        Proven::Nothing
    );
}

#[test]
fn loops_among_views_and_types_end() {
    let mut draft = Draft::default();
    for (one, other) in [(1, 2), (2, 3), (3, 1)] {
        draft.object(Key::Relation(one), &format!("v{one}"), Danger::NONE);
        draft.reads(Key::Relation(one), Key::Relation(other));
    }
    draft.mark(Key::Relation(2), Danger::READ_RUNS);
    let catalogue = draft.finish();
    for name in ["v1", "v2", "v3"] {
        assert!(catalogue.danger(name).has(Danger::READ_RUNS), "{name}");
    }
}
