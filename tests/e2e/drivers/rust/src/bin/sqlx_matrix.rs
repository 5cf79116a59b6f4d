//! sqlx through the list of `tests/e2e/matrix.rs`: the extended protocol with its own statement cache. See
//! `psycopg3_matrix.py`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints what it did"
)]

use std::time::Duration;

use futures_util::TryStreamExt as _;
use rust_drivers::{LARGE, env, steps, token};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgPoolOptions, PgSslMode};
use sqlx::types::JsonValue;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Connection as _, Executor as _, Row as _};

const INSERT: &str = "INSERT INTO parcels (driver, step, n) VALUES ($1, $2, $3)";
/// Such a row's xmin is the subtransaction's; the journal names the transaction.
const IN_SAVEPOINT: &str =
    "INSERT INTO parcels (driver, step, n, body) VALUES ($1, 'recovery', 4, pg_current_xact_id()::text)";

/// Longer than anything sleeps here.
const PATIENCE: Duration = Duration::from_secs(60);

/// All is in the environment but the name of the authority's file, which libpq spells otherwise.
fn options() -> PgConnectOptions {
    PgConnectOptions::new()
        .password(&env("PGPASSWORD"))
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(env("PGSSLROOTCERT"))
        .application_name(&env("PGAPPNAME"))
}

async fn session() -> PgConnection {
    PgConnection::connect_with(&options()).await.unwrap()
}

async fn insert(session: &mut PgConnection, step: &str, n: i32) -> Result<(), sqlx::Error> {
    let name = env("PGAPPNAME");
    let query = sqlx::query(INSERT).bind(name).bind(step).bind(n);
    query.execute(session).await.map(|_| ())
}

async fn count(session: &mut PgConnection, step: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM parcels WHERE driver = $1 AND step = $2")
        .bind(env("PGAPPNAME"))
        .bind(step)
        .fetch_one(session)
        .await
        .unwrap()
}

#[track_caller]
fn raised<T>(code: &str, result: Result<T, sqlx::Error>) -> Box<PgDatabaseError> {
    let Err(sqlx::Error::Database(error)) = result else {
        panic!("no {code}: {:?}", result.err());
    };
    let error = error.downcast::<PgDatabaseError>();
    assert_eq!(error.code(), code, "{error:?}");
    error
}

async fn connect() {
    let pool = PgPoolOptions::new().max_connections(3).connect_with(options());
    let pool = pool.await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(name, "orders");
    pool.close().await;
}

async fn refused() {
    let error = raised(
        "42501",
        PgConnection::connect_with(&options().database("nowhere")).await,
    );
    assert!(
        error.detail().unwrap().starts_with("gatepost session s-"),
        "{error:?}"
    );
    assert!(error.hint().is_some(), "{error:?}");
}

async fn prepared() {
    type Got = (
        i32,
        Option<String>,
        Vec<u8>,
        JsonValue,
        DateTime<Utc>,
        Vec<Option<i32>>,
    );
    let mut session = session().await;
    let at = DateTime::from_timestamp_micros(1_767_323_045_678_901).unwrap();
    for n in 1..=100_i32 {
        let row: Got = (
            n,
            (n % 2 == 0).then(|| format!("text {n} ☃")),
            vec![0, 255, u8::try_from(n).unwrap()],
            serde_json::json!({"n": [n, null]}),
            at,
            vec![Some(n), None, Some(-n)],
        );
        let got: Got = sqlx::query_as(
            "INSERT INTO parcels (driver, step, n, body, raw, doc, at, list)
             VALUES ($1, 'prepared', $2, $3, $4, $5, $6, $7) RETURNING n, body, raw, doc, at, list",
        )
        .bind(env("PGAPPNAME"))
        .bind(row.0)
        .bind(&row.1)
        .bind(&row.2)
        .bind(&row.3)
        .bind(row.4)
        .bind(&row.5)
        .fetch_one(&mut session)
        .await
        .unwrap();
        assert_eq!(got, row);
    }
    assert_eq!(count(&mut session, "prepared").await, 100);
    session.close().await.unwrap();
}

/// Not a pipeline, which this driver has not: one after the other, and many statements in one message.
async fn pipeline() {
    let mut session = session().await;
    for n in 1..26 {
        insert(&mut session, "pipeline", n).await.unwrap();
    }
    let values = |numbers: std::ops::Range<i32>| -> String {
        let values = numbers
            .map(|n| format!("INSERT INTO parcels (driver, step, n) VALUES ('sqlx', 'pipeline', {n})"));
        values.collect::<Vec<_>>().join("; ")
    };
    session
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(values(26..51))))
        .await
        .unwrap();
    // One message is one transaction: nothing of it stays.
    let twice = values(50..52);
    raised(
        "23505",
        session.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(twice))).await,
    );
    assert_eq!(count(&mut session, "pipeline").await, 50);
    session.close().await.unwrap();
}

async fn copy() {
    let mut session = session().await;
    let into = "COPY parcels (driver, step, n) FROM STDIN";
    let lines: String = (1..=10_000).map(|n| format!("sqlx\tcopy\t{n}\n")).collect();
    let mut sink = session.copy_in_raw(into).await.unwrap();
    for block in lines.as_bytes().chunks(1000) {
        sink.send(block).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 10_000);
    let mut sink = session.copy_in_raw(into).await.unwrap();
    sink.send(&b"sqlx\tcopy\tmany\n"[..]).await.unwrap();
    raised("22P02", sink.finish().await);
    let mut sink = session.copy_in_raw(into).await.unwrap();
    sink.send(&b"sqlx\tcopy\t10001\n"[..]).await.unwrap();
    sink.abort("given up").await.unwrap();
    let source = session
        .copy_out_raw("COPY (SELECT n FROM parcels WHERE driver = 'sqlx' AND step = 'copy') TO STDOUT")
        .await
        .unwrap();
    let text: Vec<_> = source.try_collect().await.unwrap();
    let text = String::from_utf8(text.concat()).unwrap();
    assert_eq!(
        text.lines().map(|n| n.parse::<i64>().unwrap()).sum::<i64>(),
        50_005_000
    );
    session.close().await.unwrap();
}

async fn large() {
    let mut session = session().await;
    let text = "ß".repeat(LARGE / 2);
    let raw: Vec<u8> = (0..LARGE).map(|i| u8::try_from(i * 31 % 256).unwrap()).collect();
    sqlx::query("INSERT INTO parcels (driver, step, n, body, raw) VALUES ($1, 'large', 1, $2, $3)")
        .bind(env("PGAPPNAME"))
        .bind(&text)
        .bind(&raw)
        .execute(&mut session)
        .await
        .unwrap();
    let got: (String, Vec<u8>) =
        sqlx::query_as("SELECT body, raw FROM parcels WHERE driver = $1 AND step = 'large'")
            .bind(env("PGAPPNAME"))
            .fetch_one(&mut session)
            .await
            .unwrap();
    assert!(got == (text, raw));
    session.close().await.unwrap();
}

async fn stream() {
    let mut session = session().await;
    let rows: i64 = env("STORY_ROWS").parse().unwrap();
    let query = "SELECT i, 'row ' || i FROM generate_series(1, $1::bigint) AS i";
    let mut seen = sqlx::query(query).bind(rows).fetch(&mut session);
    let mut sum = 0;
    while let Some(row) = seen.try_next().await.unwrap() {
        sum += row.get::<i64, _>(0);
    }
    drop(seen);
    assert_eq!(sum, rows * (rows + 1) / 2);
    // Left in the middle: the driver reads the rest before the next statement.
    let mut seen = sqlx::query(query).bind(10_000_i64).fetch(&mut session);
    assert!(seen.try_next().await.unwrap().is_some());
    drop(seen);
    let seven: i32 = sqlx::query_scalar("SELECT 7")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(seven, 7);
    session.close().await.unwrap();
}

/// This driver sends no CancelRequest; its users ask the server in another session, or set a timeout.
async fn cancel() {
    let (mut session, mut watcher) = (session().await, session().await);
    let process: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut session)
        .await
        .unwrap();
    let sleep = session.execute("SELECT pg_sleep(30)");
    let cancel = async {
        let asleep =
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        loop {
            let done: Option<bool> = sqlx::query_scalar(asleep)
                .bind(process)
                .fetch_optional(&mut watcher)
                .await
                .unwrap();
            if done == Some(true) {
                break;
            }
        }
    };
    let both = async { tokio::join!(sleep, cancel) };
    let (slept, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    raised("57014", slept);
    session.execute("SELECT pg_sleep(0.1)").await.unwrap();
    session.execute("SET statement_timeout = '200ms'").await.unwrap();
    raised("57014", session.execute("SELECT pg_sleep(30)").await);
    session.execute("SELECT pg_sleep(0.1)").await.unwrap();
    session.close().await.unwrap();
    watcher.close().await.unwrap();
}

async fn recovery() {
    let mut session = session().await;
    raised("42P01", session.execute("SELECT * FROM nothing").await);
    insert(&mut session, "recovery", 1).await.unwrap();
    let twice = raised("23505", insert(&mut session, "recovery", 1).await);
    assert_eq!(twice.constraint(), Some("parcels_once"));
    let mut block = session.begin().await.unwrap();
    insert(&mut block, "recovery", 2).await.unwrap();
    raised("22012", block.execute("SELECT 1 / 0").await);
    raised("25P02", block.execute("SELECT 7").await);
    block.rollback().await.unwrap();
    let mut block = session.begin().await.unwrap();
    insert(&mut block, "recovery", 3).await.unwrap();
    let mut inner = block.begin().await.unwrap();
    raised("23505", insert(&mut inner, "recovery", 1).await);
    inner.rollback().await.unwrap();
    let mut inner = block.begin().await.unwrap();
    let query = sqlx::query(IN_SAVEPOINT).bind(env("PGAPPNAME"));
    query.execute(&mut *inner).await.unwrap();
    inner.commit().await.unwrap();
    block.commit().await.unwrap();
    assert_eq!(count(&mut session, "recovery").await, 3);
    session.close().await.unwrap();
}

async fn transactions() {
    let mut session = session().await;
    let levels = [
        ("BEGIN ISOLATION LEVEL READ UNCOMMITTED", "read uncommitted"),
        ("BEGIN ISOLATION LEVEL READ COMMITTED", "read committed"),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", "repeatable read"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "serializable"),
    ];
    for (n, (begin, level)) in (1..).zip(levels) {
        let mut block = session.begin_with(begin).await.unwrap();
        insert(&mut block, "transactions", n).await.unwrap();
        let now: String = sqlx::query_scalar("SHOW transaction_isolation")
            .fetch_one(&mut *block)
            .await
            .unwrap();
        assert_eq!(now, level);
        block.commit().await.unwrap();
    }
    let mut block = session.begin().await.unwrap();
    insert(&mut block, "transactions", 99).await.unwrap();
    // Dropped without a word: the driver rolls back before the next statement.
    drop(block);
    let mut block = session.begin_with("BEGIN READ ONLY").await.unwrap();
    raised("25006", insert(&mut block, "transactions", 98).await);
    block.rollback().await.unwrap();
    assert_eq!(count(&mut session, "transactions").await, 4);
    session.close().await.unwrap();
}

/// A worker whose token ends again and again: what was answered is there, once.
async fn expiry() {
    let mut done = 0;
    for _ in 0..2 {
        let mut worker = match PgConnection::connect_with(&options().password(&token())).await {
            Ok(worker) => worker,
            // On a slow machine a token of some seconds may be over before it arrives.
            Err(slow) => {
                raised::<()>("28000", Err(slow));
                continue;
            }
        };
        let end = loop {
            match insert(&mut worker, "expiry", done + 1).await {
                Ok(()) => done += 1,
                Err(end) => break end,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        match end {
            sqlx::Error::Io(_) => {}
            end => {
                let told = raised::<()>("57P01", Err(end));
                assert!(told.hint().unwrap().contains("new token"), "{told:?}");
            }
        }
    }
    let mut session = session().await;
    assert!(done > 1);
    assert_eq!(count(&mut session, "expiry").await, i64::from(done));
    session.close().await.unwrap();
    println!("expiry {done}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    steps!(
        connect,
        refused,
        prepared,
        pipeline,
        copy,
        large,
        stream,
        cancel,
        recovery,
        transactions,
        expiry
    );
}
