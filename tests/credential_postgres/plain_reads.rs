//! What is proven a plain read never writes, on a real server with every trap that SQL offers; and what
//! drivers and tools read all day is proven.

use std::time::Duration;

use gatepost::credential::{CatalogueWatch, View};
use gatepost::sql::pg::{Proven, prove};
use gatepost::sql::read;
use tokio_postgres::Client;

use crate::bench::{Bench, eventually};

/// A function that writes, and what wraps it. `evil` is volatile, `liar` says that it is stable, `folded` that it
/// is immutable; both call it.
const EVIL: &str = "
CREATE SCHEMA first; GRANT USAGE ON SCHEMA first TO writer;
CREATE TABLE app.log (a int);
CREATE TABLE app.plain (a int, t text);
INSERT INTO app.plain VALUES (1, 'x'), (2, 'y');
CREATE SEQUENCE app.s;
CREATE FUNCTION app.evil(a int DEFAULT 1) RETURNS int LANGUAGE plpgsql VOLATILE
  AS $$BEGIN INSERT INTO app.log VALUES (a); RETURN a; END$$;
CREATE FUNCTION app.liar(a int) RETURNS int LANGUAGE plpgsql STABLE AS $$BEGIN RETURN (SELECT app.evil(a)); END$$;
CREATE FUNCTION app.folded(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN (SELECT app.evil(a)); END$$;
CREATE FUNCTION app.sql_evil(a int) RETURNS int LANGUAGE sql AS 'SELECT app.evil(a)';
CREATE FUNCTION app.rows(a int) RETURNS SETOF int LANGUAGE sql AS 'SELECT app.evil(a)';
CREATE FUNCTION app.evil_text(a text) RETURNS text LANGUAGE sql AS $$SELECT app.evil(1)::text$$;
CREATE FUNCTION app.evil_row(r app.plain) RETURNS int LANGUAGE sql AS 'SELECT app.evil(1)';
CREATE FUNCTION first.lower(text) RETURNS text LANGUAGE sql AS $$SELECT app.evil(1)::text$$;
CREATE FUNCTION app.step(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT app.evil(b)';
CREATE AGGREGATE app.evil_sum(int) (SFUNC = app.step, STYPE = int);
CREATE FUNCTION app.both(a int, b int) RETURNS bool LANGUAGE sql AS 'SELECT app.evil(a) = b';
CREATE OPERATOR app.=@= (LEFTARG = int, RIGHTARG = int, FUNCTION = app.both);
CREATE DOMAIN app.checked AS int CHECK (app.evil(VALUE) > 0);
CREATE DOMAIN app.over_checked AS app.checked;
CREATE TYPE app.pair AS (a app.checked, b int);
CREATE TYPE app.mood AS ENUM ('well', 'bad');
CREATE FUNCTION app.cast_mood(app.mood) RETURNS int LANGUAGE sql AS 'SELECT app.evil(1)';
CREATE CAST (app.mood AS int) WITH FUNCTION app.cast_mood(app.mood);
CREATE TYPE app.size AS ENUM ('small', 'large');
CREATE FUNCTION app.compared(app.size, app.size) RETURNS int LANGUAGE sql AS 'SELECT app.evil(1)';
CREATE FUNCTION app.size_lt(app.size, app.size) RETURNS bool LANGUAGE internal IMMUTABLE AS 'enum_lt';
CREATE FUNCTION app.size_le(app.size, app.size) RETURNS bool LANGUAGE internal IMMUTABLE AS 'enum_le';
CREATE FUNCTION app.size_eq(app.size, app.size) RETURNS bool LANGUAGE internal IMMUTABLE AS 'enum_eq';
CREATE FUNCTION app.size_ge(app.size, app.size) RETURNS bool LANGUAGE internal IMMUTABLE AS 'enum_ge';
CREATE FUNCTION app.size_gt(app.size, app.size) RETURNS bool LANGUAGE internal IMMUTABLE AS 'enum_gt';
CREATE OPERATOR app.%< (LEFTARG = app.size, RIGHTARG = app.size, FUNCTION = app.size_lt);
CREATE OPERATOR app.%<= (LEFTARG = app.size, RIGHTARG = app.size, FUNCTION = app.size_le);
CREATE OPERATOR app.%= (LEFTARG = app.size, RIGHTARG = app.size, FUNCTION = app.size_eq);
CREATE OPERATOR app.%>= (LEFTARG = app.size, RIGHTARG = app.size, FUNCTION = app.size_ge);
CREATE OPERATOR app.%> (LEFTARG = app.size, RIGHTARG = app.size, FUNCTION = app.size_gt);
CREATE OPERATOR CLASS app.sizes DEFAULT FOR TYPE app.size USING btree AS
  OPERATOR 1 app.%<, OPERATOR 2 app.%<=, OPERATOR 3 app.%=, OPERATOR 4 app.%>=, OPERATOR 5 app.%>,
  FUNCTION 1 app.compared(app.size, app.size);
CREATE TABLE app.sorted (s app.size); INSERT INTO app.sorted VALUES ('small'), ('large'), ('small');
CREATE VIEW app.evil_view AS SELECT app.evil(1) AS a;
CREATE VIEW first.shown AS SELECT app.evil(1) AS a;
CREATE VIEW app.over_view AS SELECT * FROM app.evil_view;
CREATE VIEW app.seq_view AS SELECT nextval('app.s') AS a;
CREATE VIEW app.lock_view AS SELECT * FROM app.plain FOR UPDATE;
CREATE VIEW app.good_view AS SELECT a, upper(t) AS t FROM app.plain WHERE a > 0;
CREATE TABLE app.secured (a int); INSERT INTO app.secured VALUES (1);
ALTER TABLE app.secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON app.secured USING (app.evil(a) > 0);
CREATE TABLE app.mild (a int); INSERT INTO app.mild VALUES (1);
ALTER TABLE app.mild ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON app.mild USING (a > 0);
CREATE TABLE app.triggered (a int);
CREATE FUNCTION app.fire() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM app.evil(1); RETURN NEW; END$$;
CREATE TRIGGER t BEFORE INSERT ON app.triggered FOR EACH ROW EXECUTE FUNCTION app.fire();
CREATE TABLE app.defaulted (a int DEFAULT app.evil(1), b int);
CREATE TABLE app.generated (a int, b int GENERATED ALWAYS AS (app.folded(a)) STORED);
CREATE TABLE app.ruled (a int);
CREATE RULE r AS ON INSERT TO app.ruled DO ALSO INSERT INTO app.log VALUES (1);
CREATE TABLE app.indexed (a int); CREATE INDEX ON app.indexed ((app.folded(1)));
CREATE TABLE app.with_column (a app.checked, m app.mood);
CREATE TABLE app.parent (a int) PARTITION BY RANGE (a);
CREATE TABLE app.child PARTITION OF app.parent FOR VALUES FROM (0) TO (10);
CREATE TABLE app.referenced (a int PRIMARY KEY);
CREATE TABLE app.referring (a int REFERENCES app.referenced ON DELETE CASCADE);
CREATE TRIGGER t BEFORE DELETE ON app.referring FOR EACH ROW EXECUTE FUNCTION app.fire();
CREATE MATERIALIZED VIEW app.stored AS SELECT 1 AS a;
GRANT ALL ON ALL TABLES IN SCHEMA app, first TO writer; GRANT ALL ON ALL SEQUENCES IN SCHEMA app TO writer;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA app, first TO writer; GRANT USAGE, CREATE ON SCHEMA app TO writer;";

/// What runs before it in its transaction, the statement, and whether it writes here.
const TRAPS: [(&str, &str, bool); 63] = [
    ("", "SELECT app.evil(1)", true),
    ("", "SELECT app.liar(1)", true),
    ("", "SELECT app.folded(1)", true),
    ("", "SELECT app.sql_evil(1)", true),
    ("", "SELECT * FROM app.rows(1)", true),
    ("", "SELECT * FROM ROWS FROM (app.rows(1)) WITH ORDINALITY", true),
    (
        "SET LOCAL search_path = app",
        "SELECT p.evil_row FROM app.plain p",
        true,
    ),
    (
        "SET LOCAL search_path = app",
        "SELECT (p).evil_row FROM app.plain p",
        true,
    ),
    ("", "SELECT app.evil_sum(a) FROM app.plain", true),
    (
        "",
        "SELECT app.evil_sum(a) OVER (ORDER BY a) FROM app.plain",
        true,
    ),
    ("", "SELECT 1 OPERATOR(app.=@=) 1", true),
    ("SET LOCAL search_path = app", "SELECT 1=@=1", true),
    ("", "SELECT 1::app.checked", true),
    ("", "SELECT app.checked '1'", true),
    ("", "SELECT app.checked(1)", true),
    ("", "SELECT CAST(1 AS app.over_checked)", true),
    ("", "SELECT ARRAY[1]::app.checked[]", true),
    ("", "SELECT ROW(1, 2)::app.pair", true),
    (
        "",
        "SELECT (json_populate_record(null::app.pair, '{\"a\": 1}')).a",
        true,
    ),
    (
        "",
        "SELECT (json_populate_record(null::app.with_column, '{\"a\": 1}')).a",
        true,
    ),
    (
        "",
        "SELECT x.a FROM json_to_record('{\"a\": 1}') AS x(a app.checked)",
        true,
    ),
    (
        "",
        "SELECT pg_catalog.domain_in('1', 'app.checked'::regtype, -1) IS NULL",
        true,
    ),
    (
        "",
        "SELECT pg_catalog.array_in('{1}', 'app.checked'::regtype, -1)",
        true,
    ),
    ("", "SELECT 'well'::app.mood::int", true),
    ("", "SELECT m::int FROM app.with_column", false),
    ("", "SELECT * FROM app.evil_view", true),
    ("", "TABLE app.evil_view", true),
    ("", "SELECT * FROM app.over_view", true),
    ("SET LOCAL search_path = app", "SELECT a FROM over_view", true),
    ("", "SELECT * FROM app.seq_view", true),
    ("", "SELECT * FROM app.lock_view", true),
    ("", "SELECT * FROM app.secured", true),
    ("", "SELECT * FROM app.indexed WHERE a = 1", true),
    // The view above has logged its values ahead.
    ("", "SELECT nextval('app.s')", false),
    ("", "SELECT setval('app.s', 4)", true),
    ("", "SELECT lo_create(0)", true),
    ("", "SELECT pg_current_xact_id()", true),
    ("", "SELECT txid_current()", true),
    ("", "SELECT pg_logical_emit_message(true, 'a', 'b')", true),
    (
        "",
        "SELECT query_to_xml('SELECT app.evil(1)', true, true, '')",
        true,
    ),
    (
        "",
        "SELECT query_to_xml_and_xmlschema('SELECT app.evil(1)', true, true, '')",
        true,
    ),
    ("", "SELECT table_to_xml('app.evil_view', true, true, '')", true),
    ("", "SELECT schema_to_xml('first', true, true, '')", true),
    (
        "",
        "SELECT * FROM ts_stat('SELECT app.evil_text(''x'')::tsvector')",
        true,
    ),
    (
        "",
        "SELECT ts_rewrite('a'::tsquery, 'SELECT app.evil_text(''a'')::tsquery, ''b''::tsquery')",
        true,
    ),
    (
        "SET LOCAL search_path = first, app, pg_catalog",
        "SELECT lower('X')",
        true,
    ),
    (
        "SET LOCAL search_path = first, app, pg_catalog",
        "SELECT \"lower\"(t) FROM plain",
        true,
    ),
    ("", "SELECT * FROM app.plain FOR UPDATE", true),
    ("", "SELECT * FROM app.plain FOR NO KEY UPDATE", true),
    ("", "SELECT * FROM app.plain FOR SHARE", true),
    ("", "SELECT * FROM app.plain FOR KEY SHARE", true),
    (
        "",
        "WITH x AS (INSERT INTO app.plain VALUES (3) RETURNING a) SELECT * FROM x",
        true,
    ),
    (
        "",
        "WITH x AS (DELETE FROM app.plain RETURNING a) SELECT * FROM x",
        true,
    ),
    ("", "SELECT 1 AS a INTO app.made", true),
    ("", "COPY (SELECT app.evil(1)) TO STDOUT", true),
    ("", "VALUES (app.evil(1))", true),
    ("", "SELECT 1 ORDER BY app.evil(1)", true),
    ("", "SELECT 1 LIMIT app.evil(1)", true),
    ("", "SELECT s FROM app.sorted ORDER BY 1", true),
    (
        "",
        "SELECT * FROM app.plain, LATERAL (SELECT app.evil(a)) x",
        true,
    ),
    (
        "CREATE TEMP VIEW lying AS SELECT app.evil(1) AS a",
        "SELECT * FROM lying",
        true,
    ),
    (
        "CREATE TEMP VIEW plain AS SELECT app.evil(1) AS a",
        "SELECT * FROM plain",
        true,
    ),
    ("PREPARE s AS SELECT app.evil(1)", "EXECUTE s", true),
];

/// What runs code of others although it only writes plain tables.
const RUN_CODE: [&str; 10] = [
    "INSERT INTO app.triggered VALUES (1)",
    "INSERT INTO app.defaulted (b) VALUES (1)",
    "INSERT INTO app.generated (a) VALUES (1)",
    "INSERT INTO app.ruled VALUES (1)",
    "INSERT INTO app.indexed VALUES (1)",
    "INSERT INTO app.with_column (a) VALUES (1)",
    "INSERT INTO app.secured VALUES (1)",
    "DELETE FROM app.referenced",
    "INSERT INTO app.good_view VALUES (1)",
    "UPDATE app.plain SET a = app.evil(1)",
];

/// Writes that run none.
const QUIET: [&str; 6] = [
    "INSERT INTO app.plain VALUES (1, 'a') ON CONFLICT DO NOTHING",
    "UPDATE app.plain SET a = a + 1 WHERE t = upper('X') RETURNING a",
    "DELETE FROM app.plain WHERE a = 7",
    "INSERT INTO app.parent VALUES (1)",
    "INSERT INTO app.plain SELECT nextval('app.s')",
    "SELECT a FROM app.plain FOR UPDATE SKIP LOCKED",
];

/// What applications, drivers and tools read.
const ORDINARY: [&str; 26] = [
    "SELECT 1",
    "select version()",
    "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
    "SELECT a, t FROM app.plain WHERE a = ANY($1) ORDER BY t DESC NULLS LAST LIMIT 10 OFFSET 5",
    "SELECT count(*), max(a), string_agg(t, ',') FROM app.plain GROUP BY a HAVING count(*) > 1",
    "SELECT p.a, row_number() OVER (PARTITION BY p.t) FROM app.plain p LEFT JOIN app.child c USING (a)",
    "SELECT * FROM app.good_view WHERE t ILIKE '%x%' AND a BETWEEN 1 AND 3",
    "SELECT * FROM app.parent",
    "SELECT * FROM app.mild",
    "SELECT * FROM app.stored",
    "SELECT * FROM app.triggered",
    "SELECT last_value FROM app.s",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT sum(i) FROM n",
    "SELECT now(), clock_timestamp(), random(), gen_random_uuid(), current_setting('search_path')",
    "SELECT to_jsonb(p), p.t::varchar(5), extract(year from now()), interval '1 day' FROM app.plain p",
    "SELECT EXISTS (SELECT 1 FROM app.plain WHERE a IN (1, 2)) AND NOT pg_is_in_recovery()",
    "COPY (SELECT a FROM app.plain) TO STDOUT WITH (FORMAT csv)",
    "SELECT pg_advisory_xact_lock(1)",
    // psql's \d.
    "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = \
     c.relnamespace WHERE c.relname OPERATOR(pg_catalog.~) '^(plain)$' COLLATE pg_catalog.default AND \
     pg_catalog.pg_table_is_visible(c.oid) ORDER BY 2, 3",
    "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), (SELECT pg_catalog.pg_get_expr(d.adbin, \
     d.adrelid, true) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND \
     a.atthasdef), a.attnotnull FROM pg_catalog.pg_attribute a WHERE a.attrelid = '1259' AND a.attnum > 0 AND NOT \
     a.attisdropped ORDER BY a.attnum",
    // pgjdbc's metadata, psycopg's and SQLAlchemy's look for types, tokio-postgres' own.
    "SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, c.relname AS TABLE_NAME, CASE n.nspname ~ '^pg_' OR \
     n.nspname = 'information_schema' WHEN true THEN 'SYSTEM' ELSE 'TABLE' END AS TABLE_TYPE, d.description AS REMARKS \
     FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_description d ON (c.oid = d.objoid)",
    "SELECT typname AS name, oid, typarray AS array_oid, oid::regtype::text AS regtype, typdelim AS delimiter FROM \
     pg_type t WHERE t.oid = to_regtype($1) ORDER BY t.oid",
    "select pg_catalog.version()",
    "SELECT t.typname, t.typtype, t.typelem, r.rngsubtype, t.typbasetype, n.nspname, t.typrelid FROM \
     pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid INNER JOIN \
     pg_catalog.pg_namespace n ON t.typnamespace = n.oid WHERE t.oid = $1",
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'app'",
    "SELECT * FROM pg_stat_activity WHERE pid = pg_backend_pid()",
];

fn judged(view: &View, text: &str) -> Proven {
    let Some(kind) = read(text.as_bytes(), false).single() else {
        return Proven::Nothing;
    };
    prove(text.as_bytes(), kind, true, view.catalogue.as_ref().unwrap())
}

async fn believed(watch: &CatalogueWatch, newer_than: u64) -> View {
    eventually("believed", async || {
        let view = watch.view();
        view.believed && view.number > newer_than
    })
    .await;
    watch.view()
}

/// Runs it in a transaction that is rolled back. Did it write?
async fn writes(client: &Client, before: &str, text: &str) -> Result<bool, tokio_postgres::Error> {
    client.batch_execute("BEGIN; SET LOCAL ROLE writer").await?;
    let ran = async {
        client.batch_execute(before).await?;
        // What prepared the trap may have taken an id; a savepoint's own id shows that of the statement.
        client.batch_execute("SAVEPOINT here").await?;
        let count =
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'transactionid'";
        let earlier: i64 = client.query_one(count, &[]).await?.get(0);
        client.batch_execute(text).await?;
        let later: i64 = client.query_one(count, &[]).await?.get(0);
        Ok(later > earlier)
    };
    let ran = ran.await;
    client.batch_execute("ROLLBACK").await?;
    ran
}

#[tokio::test]
async fn what_is_proven_a_plain_read_never_writes() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let admin = bench.server.admin("orders").await;
    let watch = broker.catalogue(&"orders".into()).unwrap();
    // Whoever keeps a view keeps its pin.
    let before = believed(&watch, 0).await.number;
    admin.batch_execute(EVIL).await.unwrap();
    let view = believed(&watch, before).await;
    let mut wrong = Vec::new();
    for (first, text, expected) in TRAPS {
        match writes(&admin, first, text).await {
            // COPY's answer is not for this client.
            _ if text.starts_with("COPY") => {}
            Ok(wrote) if wrote != expected => wrong.push(format!("{text}: wrote is {wrote}")),
            Err(error) if expected => wrong.push(format!("{text}: {error:?}")),
            Ok(_) | Err(_) => {}
        }
        // A temporary view is not committed here, so what it hides is looked at below.
        if judged(&view, text) == Proven::PlainRead && !first.contains("TEMP VIEW") {
            wrong.push(format!("{text}: proven"));
        }
    }
    for text in RUN_CODE {
        if judged(&view, text) != Proven::Nothing {
            wrong.push(format!("{text}: runs code"));
        }
    }
    for text in QUIET {
        if judged(&view, text) != Proven::RunsNoCode {
            wrong.push(format!("{text}: {:?}", judged(&view, text)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn ordinary_reads_are_proven_and_write_nothing() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let admin = bench.server.admin("orders").await;
    let tables = "CREATE TABLE pgbench_accounts (aid int, abalance int)";
    admin.batch_execute(tables).await.unwrap();
    // Without the names that search_path could put before the server's own.
    let evil = EVIL.lines().filter(|line| !line.contains("first.lower"));
    admin
        .batch_execute(&evil.collect::<Vec<_>>().join("\n"))
        .await
        .unwrap();
    let watch = broker.catalogue(&"orders".into()).unwrap();
    let view = believed(&watch, 0).await;
    let mut wrong = Vec::new();
    for text in ORDINARY {
        if judged(&view, text) != Proven::PlainRead {
            wrong.push(format!("{text}: {:?}", judged(&view, text)));
        }
        let runs = !text.contains('$') && !text.starts_with("COPY");
        if runs && writes(&admin, "", text).await.unwrap() {
            wrong.push(format!("{text}: writes"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Between two executions of one text another session puts something else under its name.
#[tokio::test]
async fn a_definition_counts_before_its_session_hears_of_it() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let admin = bench.server.admin("orders").await;
    admin.batch_execute(EVIL).await.unwrap();
    let watch = broker.catalogue(&"orders".into()).unwrap();
    let text = "SELECT a FROM app.swapped";
    let mut number = 0;
    for round in 0..3 {
        admin
            .batch_execute("CREATE TABLE app.swapped (a int)")
            .await
            .unwrap();
        let view = believed(&watch, number).await;
        assert_eq!(judged(&view, text), Proven::PlainRead, "{round}");
        number = view.number;
        drop(view);
        // As a session does it that sends this through gatepost.
        let unrest = watch.disturb();
        assert!(!watch.view().believed);
        admin
            .batch_execute("DROP TABLE app.swapped; CREATE VIEW app.swapped AS SELECT app.evil(1) AS a")
            .await
            .unwrap();
        drop(unrest);
        for _ in 0..40 {
            let view = watch.view();
            assert!(!view.believed || judged(&view, text) == Proven::Nothing);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        number = believed(&watch, number).await.number;
        admin.batch_execute("DROP VIEW app.swapped").await.unwrap();
    }
    // Past gatepost it counts after a while. A temporary view does as well.
    number = believed(&watch, number).await.number;
    admin
        .batch_execute("CREATE TEMP VIEW plain AS SELECT app.evil(1) AS a")
        .await
        .unwrap();
    let view = believed(&watch, number).await;
    assert_eq!(judged(&view, "SELECT a FROM plain"), Proven::Nothing);
}

/// What ran by a snapshot of which nobody was sure may still be making code.
#[tokio::test]
async fn a_new_snapshot_waits_for_what_ran_by_the_old_one() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let admin = bench.server.admin("orders").await;
    let watch = broker.catalogue(&"orders".into()).unwrap();
    let early = watch.view();
    assert!(early.catalogue.is_none() && !early.believed);
    eventually("read", async || watch.view().catalogue.is_some()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!watch.view().believed, "somebody runs by none at all");
    drop(early);
    let view = believed(&watch, 0).await;
    admin.batch_execute("CREATE TABLE app.new (a int)").await.unwrap();
    eventually("read again", async || watch.view().number > view.number).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!watch.view().believed, "somebody runs by the old one");
    let number = view.number;
    drop(view);
    believed(&watch, number).await;
}
