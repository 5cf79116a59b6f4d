//! What a minted login owned when it ends.

use gatepost::credential::doctor::{self, Condition};
use tokio::runtime::Handle;

use crate::bench::{Bench, LONG, SHORT, eventually, secret_of};

/// One of each kind that a role may make.
const EVERYTHING: &str = "CREATE TABLE app.things (id serial PRIMARY KEY, a int); CREATE INDEX ON app.things (a); \
    CREATE VIEW app.seen AS SELECT * FROM app.things; CREATE MATERIALIZED VIEW app.kept AS SELECT 1 AS a; \
    CREATE TYPE app.mood AS ENUM ('good', 'bad'); CREATE DOMAIN app.age AS int CHECK (VALUE > 0); \
    CREATE FUNCTION app.twice(a int) RETURNS int LANGUAGE sql AS 'SELECT 2 * a'; \
    CREATE PROCEDURE app.nothing() LANGUAGE sql AS ''; \
    CREATE AGGREGATE app.total (int) (SFUNC = int4pl, STYPE = int); \
    CREATE COLLATION app.plain FROM \"C\"; CREATE SCHEMA theirs; CREATE TABLE theirs.inside (a int); \
    CREATE STATISTICS app.numbers ON id, a FROM app.things; SELECT lo_create(4242); \
    GRANT SELECT ON app.things TO reader; GRANT EXECUTE ON FUNCTION app.twice TO reader; \
    ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO reader; \
    ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO reader; \
    CREATE TEMPORARY TABLE passing (a app.mood)";

/// What the role owns, by name.
const INHERITED: &str = "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE n.nspname IN ('app', 'theirs') AND c.relowner = 'writer'::regrole AND c.relkind IN ('r', 'v', 'm', 'S') \
    UNION ALL SELECT proname FROM pg_proc WHERE proowner = 'writer'::regrole \
    UNION ALL SELECT typname FROM pg_type WHERE typowner = 'writer'::regrole AND typtype IN ('e', 'd') \
    UNION ALL SELECT nspname FROM pg_namespace WHERE nspowner = 'writer'::regrole \
    UNION ALL SELECT collname FROM pg_collation WHERE collowner = 'writer'::regrole \
    UNION ALL SELECT stxname FROM pg_statistic_ext WHERE stxowner = 'writer'::regrole \
    UNION ALL SELECT oid::text FROM pg_largeobject_metadata WHERE lomowner = 'writer'::regrole ORDER BY 1";

/// A second database in which the role may make things.
async fn archive(bench: &Bench) -> tokio_postgres::Client {
    let postgres = bench.server.admin("postgres").await;
    postgres.batch_execute("CREATE DATABASE archive").await.unwrap();
    let archive = bench.server.admin("archive").await;
    let schema = "CREATE SCHEMA app; GRANT ALL ON SCHEMA app TO writer";
    archive.batch_execute(schema).await.unwrap();
    archive
}

#[tokio::test]
async fn everything_that_a_login_owned_goes_to_its_role() {
    let bench = Bench::new().await;
    bench
        .run("CREATE ROLE reader NOLOGIN; GRANT CREATE, TEMPORARY ON DATABASE orders TO writer")
        .await;
    let archive = archive(&bench).await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", SHORT).await.unwrap();
    let login = hold.login().to_string();
    let client = bench.client(&hold).await;
    client.batch_execute(EVERYTHING).await.unwrap();
    let there = bench
        .server
        .connect(&login, secret_of(&hold), "archive")
        .await
        .unwrap();
    there
        .batch_execute("CREATE TABLE app.elsewhere (a int)")
        .await
        .unwrap();

    let diagnosis = doctor::examine(&bench.settings("a"), &[], &Handle::current())
        .await
        .unwrap();
    let report = &diagnosis.logins[0];
    assert_eq!((report.condition, report.sessions), (Condition::Live, 2));
    let owned = |what: &str, database: &str| {
        let here = |object: &&doctor::Object| object.owned && object.database.as_str() == database;
        report
            .objects
            .iter()
            .filter(here)
            .any(|object| object.what.contains(what))
    };
    assert!(owned("function app.twice(integer)", "orders") && owned("large object 4242", "orders"));
    assert!(owned("table app.elsewhere", "archive"));

    drop(hold);
    bench.gone(&login).await;
    assert!(client.simple_query("SELECT 1").await.is_err());
    let admin = bench.server.admin("orders").await;
    let rows = admin.query(INHERITED, &[]).await.unwrap();
    let inherited: Vec<String> = rows.iter().map(|row| row.get::<_, String>(0)).collect();
    assert_eq!(
        inherited,
        [
            "4242",
            "age",
            "app.kept",
            "app.seen",
            "app.things",
            "app.things_id_seq",
            "mood",
            "nothing",
            "numbers",
            "plain",
            "theirs",
            "theirs.inside",
            "total",
            "twice"
        ]
    );
    // What it granted on its own things still holds; what it would have granted in future is gone.
    let sql =
        "SELECT has_table_privilege('reader', 'app.things', 'SELECT'), (SELECT count(*) FROM pg_default_acl)";
    let row = admin.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get::<_, i64>(1)), (true, 0));
    let owner = "SELECT tableowner::text FROM pg_tables WHERE tablename = 'elsewhere'";
    assert_eq!(
        archive.query_one(owner, &[]).await.unwrap().get::<_, String>(0),
        "writer"
    );
}

#[tokio::test]
async fn what_cannot_be_handed_over_is_told_with_the_statements_that_do_it() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    let login = hold.login().to_string();
    let client = bench.client(&hold).await;
    client
        .batch_execute("CREATE FUNCTION app.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        .await
        .unwrap();
    // The role may not own anything there any more.
    bench.run("REVOKE CREATE ON SCHEMA app FROM writer").await;
    broker.tampered(&login, "a test says so".to_owned());
    let admin = bench.server.admin("orders").await;
    let disabled = "SELECT NOT rolcanlogin FROM pg_roles WHERE rolname = $1";
    eventually("disabled", async || {
        admin.query_one(disabled, &[&login]).await.unwrap().get(0)
    })
    .await;
    let examine = async || {
        doctor::examine(&bench.settings("a"), &[], &Handle::current())
            .await
            .unwrap()
    };
    eventually("told", async || {
        let diagnosis = examine().await;
        let report = diagnosis
            .logins
            .iter()
            .find(|report| report.login == login)
            .unwrap();
        report.wrong.iter().any(|wrong| wrong.contains("still owns"))
    })
    .await;
    let diagnosis = examine().await;
    assert!(!diagnosis.is_healthy());
    // It is not given up, and it does not keep others from ending.
    let other = bench
        .lease_as(&broker, "other", "writer", "login_ttl: 30m")
        .await
        .unwrap();
    let ended = other.login().to_string();
    broker.tampered(&ended, "a test says so".to_owned());
    bench.gone(&ended).await;
    assert!(bench.exists(&login).await);
    let report = diagnosis
        .logins
        .iter()
        .find(|report| report.login == login)
        .unwrap();
    for sql in report.sql.iter().filter(|sql| !sql.starts_with('\\')) {
        bench.run(sql).await;
    }
    bench.gone(&login).await;
    eventually("the broker has noticed", async || {
        broker.logins().await.unwrap().is_empty()
    })
    .await;
    assert!(examine().await.logins.is_empty());
}
