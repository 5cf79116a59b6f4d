//! tokio-postgres through the list of `tests/e2e/matrix.rs`: pipelined whenever futures wait together. See
//! `psycopg3_matrix.py`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints what it did"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use futures_util::{SinkExt as _, TryStreamExt as _};
use rust_drivers::{LARGE, env, steps, token};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, IsolationLevel};
use tokio_postgres_rustls::MakeRustlsConnect;

const INSERT: &str = "INSERT INTO parcels (driver, step, n) VALUES ($1, $2, $3)";
/// Such a row's xmin is the subtransaction's; the journal names the transaction.
const IN_SAVEPOINT: &str =
    "INSERT INTO parcels (driver, step, n, body) VALUES ($1, 'recovery', 4, pg_current_xact_id()::text)";
/// Longer than anything sleeps here.
const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "tokio-postgres";

fn tls() -> MakeRustlsConnect {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(env("PGSSLROOTCERT")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    MakeRustlsConnect::new(tls)
}

async fn open(database: &str, token: &str) -> Result<Client, Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(env("PGHOST")).port(env("PGPORT").parse().unwrap());
    config.user(env("PGUSER")).password(token).dbname(database);
    config.application_name(env("PGAPPNAME"));
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(tls()).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn session() -> Client {
    open("orders", &env("PGPASSWORD")).await.unwrap()
}

async fn insert(client: &Client, step: &str, n: i32) -> Result<u64, Error> {
    client.execute(INSERT, &[&NAME, &step, &n]).await
}

async fn count(client: &Client, step: &str) -> i64 {
    let query = "SELECT count(*) FROM parcels WHERE driver = $1 AND step = $2";
    client.query_one(query, &[&NAME, &step]).await.unwrap().get(0)
}

#[track_caller]
fn raised<T>(code: &SqlState, result: Result<T, Error>) -> DbError {
    let error = result.err().unwrap_or_else(|| panic!("no {}", code.code()));
    let told = error.as_db_error();
    let told = told
        .unwrap_or_else(|| panic!("no word from the server: {error:?}"))
        .clone();
    assert_eq!(told.code(), code, "{told:?}");
    told
}

async fn connect() {
    let client = session().await;
    let row = client
        .query_one("SELECT current_database()::text", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "orders");
}

async fn refused() {
    let told = raised(
        &SqlState::INSUFFICIENT_PRIVILEGE,
        open("nowhere", &env("PGPASSWORD")).await,
    );
    assert!(
        told.detail().unwrap().starts_with("gatepost session s-"),
        "{told:?}"
    );
    assert!(told.hint().is_some(), "{told:?}");
}

async fn prepared() {
    let client = session().await;
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_323_045_678_901);
    let statement = client
        .prepare(
            "INSERT INTO parcels (driver, step, n, body, raw, doc, at, list)
             VALUES ($1, 'prepared', $2, $3, $4, $5, $6, $7) RETURNING n, body, raw, doc, at, list",
        )
        .await
        .unwrap();
    for n in 1..=100_i32 {
        let body = (n % 2 == 0).then(|| format!("text {n} ☃"));
        let raw = vec![0, 255, u8::try_from(n).unwrap()];
        let doc = serde_json::json!({"n": [n, null]});
        let list = vec![Some(n), None, Some(-n)];
        let sent: [&(dyn ToSql + Sync); 7] = [&NAME, &n, &body, &raw, &doc, &at, &list];
        let row = client.query_one(&statement, &sent).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), n);
        assert_eq!(row.get::<_, Option<String>>(1), body);
        assert_eq!(row.get::<_, Vec<u8>>(2), raw);
        assert_eq!(row.get::<_, serde_json::Value>(3), doc);
        assert_eq!(row.get::<_, SystemTime>(4), at);
        assert_eq!(row.get::<_, Vec<Option<i32>>>(5), list);
    }
    assert_eq!(count(&client, "prepared").await, 100);
}

async fn pipeline() {
    let mut client = session().await;
    let all = try_join_all((1..26).map(|n| insert(&client, "pipeline", n))).await;
    assert_eq!(all.unwrap(), [1; 25]);
    // Each is a transaction of its own: the ones that fail take nothing with them.
    let mixed = join_all([1, 26, 1, 27].map(|n| insert(&client, "pipeline", n))).await;
    assert_eq!(
        mixed.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [false, true, false, true]
    );
    let block = client.transaction().await.unwrap();
    try_join_all((28..51).map(|n| insert(block.client(), "pipeline", n)))
        .await
        .unwrap();
    block.commit().await.unwrap();
    assert_eq!(count(&client, "pipeline").await, 50);
}

async fn copy() {
    let client = session().await;
    let into = "COPY parcels (driver, step, n) FROM STDIN";
    let sink = client.copy_in::<_, Bytes>(into).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    for n in 1..=10_000 {
        sink.send(format!("{NAME}\tcopy\t{n}\n").into()).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 10_000);
    let bad = client.copy_in::<_, Bytes>(into).await.unwrap();
    let mut bad = std::pin::pin!(bad);
    bad.send(format!("{NAME}\tcopy\tmany\n").into()).await.unwrap();
    raised(&SqlState::INVALID_TEXT_REPRESENTATION, bad.finish().await);
    // Dropped without a word: the driver gives the COPY up.
    let given_up = Box::pin(client.copy_in::<_, Bytes>(into).await.unwrap());
    drop(given_up);
    let from = format!("COPY (SELECT n FROM parcels WHERE driver = '{NAME}' AND step = 'copy') TO STDOUT");
    let text: Vec<_> = client.copy_out(&from).await.unwrap().try_collect().await.unwrap();
    let text = String::from_utf8(text.concat()).unwrap();
    assert_eq!(
        text.lines().map(|n| n.parse::<i64>().unwrap()).sum::<i64>(),
        50_005_000
    );
}

async fn large() {
    let client = session().await;
    let text = "ß".repeat(LARGE / 2);
    let raw: Vec<u8> = (0..LARGE).map(|i| u8::try_from(i * 31 % 256).unwrap()).collect();
    let into = "INSERT INTO parcels (driver, step, n, body, raw) VALUES ($1, 'large', 1, $2, $3)";
    client.execute(into, &[&NAME, &text, &raw]).await.unwrap();
    let query = "SELECT body, raw FROM parcels WHERE driver = $1 AND step = 'large'";
    let row = client.query_one(query, &[&NAME]).await.unwrap();
    assert!(row.get::<_, &str>(0) == text && row.get::<_, &[u8]>(1) == raw);
}

async fn stream() {
    let mut client = session().await;
    let rows: i64 = env("STORY_ROWS").parse().unwrap();
    let query = "SELECT i, 'row ' || i FROM generate_series(1, $1::bigint) AS i";
    let mut seen = std::pin::pin!(client.query_raw(query, [rows]).await.unwrap());
    let mut sum = 0;
    while let Some(row) = seen.try_next().await.unwrap() {
        sum += row.get::<_, i64>(0);
    }
    assert_eq!(sum, rows * (rows + 1) / 2);
    // By a portal, in parts.
    let block = client.transaction().await.unwrap();
    let portal = block.bind(query, &[&rows]).await.unwrap();
    for part in 0..3 {
        let part_rows = block.query_portal(&portal, 1000).await.unwrap();
        let last = part_rows.last().unwrap();
        assert_eq!(last.get::<_, i64>(0), (part + 1) * 1000);
    }
    block.commit().await.unwrap();
}

async fn cancel() {
    let (client, watcher) = (session().await, session().await);
    let process: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    // Inside TLS, as the session itself.
    let token = client.cancel_token();
    let cancel = async {
        let asleep = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        while watcher.query_opt(asleep, &[&process]).await.unwrap().is_none() {}
        token.cancel_query(tls()).await.unwrap();
    };
    let both = async { tokio::join!(client.execute("SELECT pg_sleep(30)", &[]), cancel) };
    let (slept, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    raised(&SqlState::QUERY_CANCELED, slept);
    // This driver does not wait until its request was dealt with, so the next statement may be what runs
    // when it arrives, here as at the server itself. It hits no more than that one.
    token.cancel_query(tls()).await.unwrap();
    if let Err(error) = client.execute("SELECT pg_sleep(0.1)", &[]).await {
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
    }
    client.execute("SELECT pg_sleep(0.1)", &[]).await.unwrap();
}

async fn recovery() {
    let mut client = session().await;
    raised(
        &SqlState::UNDEFINED_TABLE,
        client.batch_execute("SELECT * FROM nothing").await,
    );
    insert(&client, "recovery", 1).await.unwrap();
    let twice = raised(&SqlState::UNIQUE_VIOLATION, insert(&client, "recovery", 1).await);
    assert_eq!(twice.constraint(), Some("parcels_once"));
    let block = client.transaction().await.unwrap();
    insert(block.client(), "recovery", 2).await.unwrap();
    raised(
        &SqlState::DIVISION_BY_ZERO,
        block.execute("SELECT 1 / 0", &[]).await,
    );
    raised(
        &SqlState::IN_FAILED_SQL_TRANSACTION,
        block.execute("SELECT 7", &[]).await,
    );
    block.rollback().await.unwrap();
    let mut block = client.transaction().await.unwrap();
    insert(block.client(), "recovery", 3).await.unwrap();
    let inner = block.savepoint("here").await.unwrap();
    raised(
        &SqlState::UNIQUE_VIOLATION,
        insert(inner.client(), "recovery", 1).await,
    );
    inner.rollback().await.unwrap();
    let inner = block.savepoint("again").await.unwrap();
    inner.execute(IN_SAVEPOINT, &[&NAME]).await.unwrap();
    inner.commit().await.unwrap();
    block.commit().await.unwrap();
    assert_eq!(count(&client, "recovery").await, 3);
}

async fn transactions() {
    let mut client = session().await;
    let levels = [
        (IsolationLevel::ReadUncommitted, "read uncommitted"),
        (IsolationLevel::ReadCommitted, "read committed"),
        (IsolationLevel::RepeatableRead, "repeatable read"),
        (IsolationLevel::Serializable, "serializable"),
    ];
    for (n, (level, name)) in (1..).zip(levels) {
        let block = client
            .build_transaction()
            .isolation_level(level)
            .start()
            .await
            .unwrap();
        insert(block.client(), "transactions", n).await.unwrap();
        let now = block.query_one("SHOW transaction_isolation", &[]).await.unwrap();
        assert_eq!(now.get::<_, &str>(0), name);
        block.commit().await.unwrap();
    }
    let block = client.transaction().await.unwrap();
    insert(block.client(), "transactions", 99).await.unwrap();
    // Dropped without a word: the driver rolls back.
    drop(block);
    let block = client.build_transaction().read_only(true).start().await.unwrap();
    raised(
        &SqlState::READ_ONLY_SQL_TRANSACTION,
        insert(block.client(), "transactions", 98).await,
    );
    block.rollback().await.unwrap();
    assert_eq!(count(&client, "transactions").await, 4);
}

/// A worker whose token ends again and again: what was answered is there, once.
async fn expiry() {
    let mut done = 0;
    for _ in 0..2 {
        let worker = match open("orders", &token()).await {
            Ok(worker) => worker,
            // On a slow machine a token of some seconds may be over before it arrives.
            Err(slow) => {
                raised::<()>(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION, Err(slow));
                continue;
            }
        };
        let end = loop {
            match insert(&worker, "expiry", done + 1).await {
                Ok(_) => done += 1,
                Err(end) => break end,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        // While at rest the driver's background task is told, and the next statement finds it gone.
        if !end.is_closed() {
            let told = raised::<()>(&SqlState::ADMIN_SHUTDOWN, Err(end));
            assert!(told.hint().unwrap().contains("new token"), "{told:?}");
        }
    }
    assert!(done > 1);
    assert_eq!(count(&session().await, "expiry").await, i64::from(done));
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
