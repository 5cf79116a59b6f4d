//! The scripted server that other tests and the examples use in place of a SQL Server, held against clients
//! that others wrote: tiberius for whole sessions, `tds-protocol` for bytes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends by panicking; of the second opinion's many tokens a few are looked for"
)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tds_protocol::packet::{PACKET_HEADER_SIZE, PacketHeader, PacketStatus, PacketType};
use tds_protocol::token::{EnvChangeType, EnvChangeValue, Token, TokenParser};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt as _};

#[path = "support/tds/mod.rs"]
#[expect(dead_code, reason = "other tests look at the rest")]
mod scripted;

use scripted::{Options, Server};

const SETUP: &str = "
    CREATE TABLE dbo.orders (id int NOT NULL CONSTRAINT orders_once PRIMARY KEY, body nvarchar(100) NULL);
    CREATE ROLE writer; GRANT SELECT, INSERT, UPDATE, DELETE ON dbo.orders TO writer;
    CREATE LOGIN app WITH PASSWORD = 'app-Password1', DEFAULT_DATABASE = [shop];
    CREATE USER app FOR LOGIN app; ALTER ROLE writer ADD MEMBER app;
    CREATE LOGIN stranger WITH PASSWORD = 'stranger-Password1';
    CREATE USER stranger FOR LOGIN stranger";
const TOKEN: &str = "the-token-of-a-managed-identity";

async fn server() -> Server {
    Server::start(Options {
        sa: "sa-Password1".to_owned(),
        tokens: vec![(TOKEN.to_owned(), "app".to_owned())],
        setup: vec![("shop".to_owned(), SETUP.to_owned())],
        ..Options::default()
    })
    .await
    .unwrap()
}

type Sql = Client<Compat<TcpStream>>;

async fn connect(
    server: &Server,
    authentication: AuthMethod,
    database: &str,
) -> Result<Sql, tiberius::error::Error> {
    let mut config = Config::new();
    config.host("127.0.0.1");
    config.port(server.address.port());
    config.database(database);
    config.authentication(authentication);
    config.encryption(EncryptionLevel::NotSupported);
    let stream = TcpStream::connect(server.address).await.unwrap();
    Client::connect(config, stream.compat_write()).await
}

fn app() -> AuthMethod {
    AuthMethod::sql_server("app", "app-Password1")
}

async fn run(client: &mut Sql, sql: &str) -> Result<(), u32> {
    let ran = match client.simple_query(sql).await {
        Ok(stream) => stream.into_results().await.map(drop),
        Err(error) => Err(error),
    };
    ran.map_err(|error| number(&error))
}

fn number(error: &tiberius::error::Error) -> u32 {
    match error {
        tiberius::error::Error::Server(told) => told.code(),
        other => panic!("{other}"),
    }
}

async fn int(client: &mut Sql, sql: &str) -> i32 {
    let row = client.simple_query(sql).await.unwrap().into_row().await.unwrap();
    row.unwrap().get(0).unwrap()
}

#[tokio::test]
async fn logins_are_checked() {
    let server = server().await;
    for (user, password, database, expected) in [
        ("app", "wrong", "shop", 18_456),
        ("nobody", "app-Password1", "shop", 18_456),
        ("app", "app-Password1", "nowhere", 4_060),
    ] {
        let error = connect(&server, AuthMethod::sql_server(user, password), database)
            .await
            .unwrap_err();
        assert_eq!(number(&error), expected, "{user} {database}");
    }
    let mut client = connect(&server, app(), "").await.unwrap();
    assert_eq!(int(&mut client, "SELECT 42, N'hi äöü'").await, 42);
    server.run("master", "ALTER LOGIN app DISABLE").unwrap();
    let error = connect(&server, app(), "shop").await.unwrap_err();
    assert_eq!(number(&error), 18_470);
    assert_eq!(int(&mut client, "SELECT 1").await, 1);
    server.run("master", "ALTER LOGIN app ENABLE").unwrap();
    connect(&server, AuthMethod::aad_token(TOKEN), "shop")
        .await
        .unwrap();
    connect(&server, AuthMethod::aad_token("another"), "shop")
        .await
        .unwrap_err();
    server.refuse_logins(Some(40_613));
    let error = connect(&server, app(), "shop").await.unwrap_err();
    assert_eq!(number(&error), 40_613);
    let seen = server.logins_seen();
    assert_eq!(seen.iter().filter(|login| login.refused.is_none()).count(), 2);
    assert!(seen.iter().any(|login| login.by_token));
    assert!(!format!("{server:?}").contains("Password1"));
}

#[tokio::test]
async fn transactions_are_isolated_and_recorded() {
    let server = server().await;
    let mut one = connect(&server, app(), "shop").await.unwrap();
    let mut two = connect(&server, app(), "shop").await.unwrap();
    run(
        &mut one,
        "EXEC sp_set_session_context N'gatepost.subject', N'alice', 1",
    )
    .await
    .unwrap();
    run(&mut one, "EXEC sp_set_session_context N'correlation_id', N'm-1'")
        .await
        .unwrap();
    let again = run(
        &mut one,
        "EXEC sp_set_session_context N'gatepost.subject', N'eve', 1",
    )
    .await;
    assert_eq!(again, Err(15_664));
    run(&mut one, "BEGIN TRANSACTION").await.unwrap();
    let inserted = one
        .execute(
            "INSERT INTO dbo.orders (id, body) VALUES (@P1, @P2)",
            &[&1, &"äöü"],
        )
        .await;
    assert_eq!(inserted.unwrap().total(), 1);
    assert_eq!(int(&mut one, "SELECT COUNT(*) FROM dbo.orders").await, 1);
    assert_eq!(int(&mut two, "SELECT COUNT(*) FROM dbo.orders").await, 0);
    // Whoever would make the same row waits for the outcome.
    let waits = tokio::spawn(async move { run(&mut two, "INSERT INTO dbo.orders (id) VALUES (1)").await });
    let row = one
        .simple_query("SELECT CURRENT_TRANSACTION_ID(), @@TRANCOUNT")
        .await
        .unwrap();
    let row = row.into_row().await.unwrap().unwrap();
    let (id, count): (i64, i32) = (row.get(0).unwrap(), row.get(1).unwrap());
    assert_eq!(count, 1);
    run(&mut one, "COMMIT").await.unwrap();
    assert_eq!(waits.await.unwrap(), Err(2_627));
    let committed = server.committed();
    let [committed] = committed.as_slice() else {
        panic!("{committed:?}")
    };
    assert_eq!(
        (committed.id, committed.login.as_str(), committed.wrote),
        (id, "app", true)
    );
    assert_eq!(committed.subject.as_deref(), Some("alice"));
    assert_eq!(committed.correlation.as_deref(), Some("m-1"));
    assert!(committed.statements[0].starts_with("INSERT INTO dbo.orders"));
}

#[tokio::test]
async fn what_is_rolled_back_is_gone() {
    let server = server().await;
    let mut one = connect(&server, app(), "shop").await.unwrap();
    run(&mut one, "INSERT INTO dbo.orders (id, body) VALUES (1, N'äöü')")
        .await
        .unwrap();
    run(
        &mut one,
        "BEGIN TRAN; UPDATE dbo.orders SET body = N'other'; SAVE TRAN here; DELETE FROM dbo.orders",
    )
    .await
    .unwrap();
    assert_eq!(
        int(
            &mut one,
            "ROLLBACK TRAN here; SELECT COUNT(*) FROM dbo.orders WHERE body = N'other'"
        )
        .await,
        1
    );
    run(&mut one, "ROLLBACK").await.unwrap();
    assert_eq!(
        int(&mut one, "SELECT COUNT(*) FROM dbo.orders WHERE body = N'äöü'").await,
        1
    );
    assert_eq!(run(&mut one, "ROLLBACK").await, Err(3_903));
    run(
        &mut one,
        "SET XACT_ABORT ON; BEGIN TRAN; INSERT INTO dbo.orders (id) VALUES (2)",
    )
    .await
    .unwrap();
    assert_eq!(
        run(&mut one, "INSERT INTO dbo.orders (id) VALUES (2)").await,
        Err(2_627)
    );
    assert_eq!(int(&mut one, "SELECT @@TRANCOUNT").await, 0);
}

#[tokio::test]
async fn errors_have_their_numbers() {
    let server = server().await;
    let mut app_client = connect(&server, app(), "shop").await.unwrap();
    for (sql, expected) in [
        ("SELECT 1 / 0", 8_134),
        ("SELECT * FROM nowhere", 208),
        ("SELECT nothing FROM dbo.orders", 207),
        ("SELECT FROM", 102),
        ("THROW 50001, N'stated', 1", 50_001),
        ("RAISERROR(N'said %s', 16, 1, N'so')", 50_000),
        ("EXEC nothing", 2_812),
        ("CREATE LOGIN x WITH PASSWORD = 'x'", 15_247),
        ("KILL 51", 6_102),
        ("COMMIT", 3_902),
        ("SELECT CAST(N'x' AS int)", 245),
        ("INSERT INTO dbo.orders (id) VALUES (NULL)", 515),
    ] {
        assert_eq!(run(&mut app_client, sql).await, Err(expected), "{sql}");
        assert_eq!(int(&mut app_client, "SELECT 7").await, 7, "{sql}");
    }
    let stranger = AuthMethod::sql_server("stranger", "stranger-Password1");
    let mut stranger = connect(&server, stranger, "shop").await.unwrap();
    assert_eq!(run(&mut stranger, "SELECT id FROM dbo.orders").await, Err(229));
    let caught = "BEGIN TRY SELECT 1 / 0 END TRY BEGIN CATCH SELECT ERROR_NUMBER() END CATCH";
    let results = stranger
        .simple_query(caught)
        .await
        .unwrap()
        .into_results()
        .await
        .unwrap();
    let last = results.iter().flatten().last().unwrap();
    assert_eq!(last.get::<i32, _>(0), Some(8_134));
}

#[tokio::test]
async fn a_session_ends_by_kill_and_its_work_is_undone() {
    let server = server().await;
    let mut admin = connect(&server, AuthMethod::sql_server("sa", "sa-Password1"), "shop")
        .await
        .unwrap();
    let mut client = connect(&server, app(), "shop").await.unwrap();
    let spid = int(&mut client, "SELECT CAST(@@SPID AS int)").await;
    run(&mut client, "BEGIN TRAN; INSERT INTO dbo.orders (id) VALUES (1)")
        .await
        .unwrap();
    let drop = "DROP LOGIN app";
    assert_eq!(run(&mut admin, drop).await, Err(15_434));
    run(&mut admin, &format!("KILL {spid}")).await.unwrap();
    assert!(client.simple_query("SELECT 1").await.is_err());
    run(&mut admin, "DROP USER app; DROP LOGIN app").await.unwrap();
    // The row's place is free as soon as the transaction has ended.
    run(&mut admin, "INSERT INTO dbo.orders (id) VALUES (1)")
        .await
        .unwrap();
    assert_eq!(
        server.committed().iter().filter(|one| one.login == "app").count(),
        0
    );
    assert_eq!(run(&mut admin, &format!("KILL {spid}")).await, Err(6_106));
}

/// Bytes of another codec, and replies by packets.
struct Raw {
    stream: TcpStream,
}

impl Raw {
    async fn log_in(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let mut raw = Self { stream };
        let prelogin = tds_protocol::prelogin::PreLogin::new()
            .with_encryption(tds_protocol::prelogin::EncryptionLevel::NotSupported);
        raw.send(
            PacketType::PreLogin,
            PacketStatus::END_OF_MESSAGE,
            &prelogin.encode(),
        )
        .await;
        raw.reply().await;
        let login = tds_protocol::login7::Login7::new()
            .with_sql_auth("app", "app-Password1")
            .with_database("shop");
        raw.send(
            PacketType::Tds7Login,
            PacketStatus::END_OF_MESSAGE,
            &login.encode(),
        )
        .await;
        let (_, spid) = raw.reply().await;
        assert_eq!(spid, 51);
        raw
    }

    async fn send(&mut self, kind: PacketType, status: PacketStatus, payload: &[u8]) {
        let length = u16::try_from(PACKET_HEADER_SIZE + payload.len()).unwrap();
        let mut out = BytesMut::new();
        PacketHeader::new(kind, status, length).encode(&mut out);
        out.extend_from_slice(payload);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn batch(&mut self, sql: &str, descriptor: u64, status: PacketStatus) {
        let payload = tds_protocol::__private::encode_sql_batch_with_transaction(sql, descriptor);
        self.send(
            PacketType::SqlBatch,
            status | PacketStatus::END_OF_MESSAGE,
            &payload,
        )
        .await;
    }

    /// The payload of a whole message, and the session's number.
    async fn reply(&mut self) -> (Bytes, u16) {
        let mut payload = BytesMut::new();
        loop {
            let mut head = [0; PACKET_HEADER_SIZE];
            self.stream.read_exact(&mut head).await.unwrap();
            let header = PacketHeader::decode(&mut &head[..]).unwrap();
            assert_eq!(header.packet_type, PacketType::TabularResult);
            let mut body = vec![0; usize::from(header.length) - PACKET_HEADER_SIZE];
            self.stream.read_exact(&mut body).await.unwrap();
            payload.extend_from_slice(&body);
            if header.status.contains(PacketStatus::END_OF_MESSAGE) {
                return (payload.freeze(), header.spid);
            }
        }
    }

    async fn tokens(&mut self) -> Vec<Token> {
        let (payload, _) = self.reply().await;
        let mut parser = TokenParser::new(payload);
        let (mut tokens, mut columns) = (vec![], None);
        while let Some(token) = parser.next_token_with_metadata(columns.as_ref()).unwrap() {
            if let Token::ColMetaData(described) = &token {
                columns = Some(described.clone());
            }
            tokens.push(token);
        }
        tokens
    }

    async fn changes(&mut self) -> Vec<(EnvChangeType, EnvChangeValue, EnvChangeValue)> {
        let tokens = self.tokens().await.into_iter();
        let changes = tokens.filter_map(|token| match token {
            Token::EnvChange(change) => Some((change.env_type, change.new_value, change.old_value)),
            _ => None,
        });
        changes.collect()
    }

    async fn errors(&mut self) -> Vec<i32> {
        let tokens = self.tokens().await.into_iter();
        let errors = tokens.filter_map(|token| match token {
            Token::Error(error) => Some(error.number),
            _ => None,
        });
        errors.collect()
    }
}

fn descriptor(value: &EnvChangeValue) -> u64 {
    match value {
        EnvChangeValue::Binary(bytes) => u64::from_le_bytes(bytes[..].try_into().unwrap()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn transactions_are_told_by_descriptor() {
    let server = server().await;
    let mut raw = Raw::log_in(&server).await;
    raw.batch("BEGIN TRANSACTION", 0, PacketStatus::NORMAL).await;
    let begun = raw.changes().await;
    assert_eq!(begun[0].0, EnvChangeType::BeginTransaction);
    let first = descriptor(&begun[0].1);
    assert_ne!(first, 0);
    raw.batch("BEGIN TRANSACTION; COMMIT", first, PacketStatus::NORMAL)
        .await;
    assert!(raw.changes().await.is_empty());
    raw.batch("COMMIT", first, PacketStatus::NORMAL).await;
    let ended = raw.changes().await;
    assert_eq!(
        (ended[0].0, descriptor(&ended[0].2)),
        (EnvChangeType::CommitTransaction, first)
    );
    raw.batch("SELECT 1", first, PacketStatus::NORMAL).await;
    assert_eq!(raw.errors().await, [3_971]);
    raw.batch(
        "SET IMPLICIT_TRANSACTIONS ON; INSERT INTO dbo.orders (id) VALUES (1)",
        0,
        PacketStatus::NORMAL,
    )
    .await;
    let begun = raw.changes().await;
    let second = descriptor(&begun[0].1);
    assert_ne!(second, first);
    raw.batch("ROLLBACK", second, PacketStatus::NORMAL).await;
    let ended = raw.changes().await;
    assert_eq!(
        (ended[0].0, descriptor(&ended[0].2)),
        (EnvChangeType::RollbackTransaction, second)
    );
}

#[tokio::test]
async fn a_reset_is_told_and_leaves_nothing_but_the_isolation_level() {
    let server = server().await;
    let mut raw = Raw::log_in(&server).await;
    let before = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; CREATE TABLE #t (n int); \
        EXEC sp_set_session_context N'k', N'v', 1; BEGIN TRAN; INSERT INTO dbo.orders (id) VALUES (1)";
    raw.batch(before, 0, PacketStatus::NORMAL).await;
    assert_eq!(raw.errors().await, [0; 0]);
    let after = "IF @@TRANCOUNT > 0 OR SESSION_CONTEXT(N'k') IS NOT NULL THROW 50001, N'kept', 1; \
        IF EXISTS (SELECT 1 FROM dbo.orders) THROW 50002, N'kept', 1; SELECT n FROM #t";
    raw.batch(after, 0, PacketStatus::RESET_CONNECTION).await;
    let tokens = raw.tokens().await;
    let Token::EnvChange(change) = &tokens[0] else {
        panic!("{tokens:?}")
    };
    assert_eq!(change.env_type, EnvChangeType::ResetConnectionCompletionAck);
    let errors = tokens.iter().filter_map(|token| match token {
        Token::Error(error) => Some(error.number),
        _ => None,
    });
    assert_eq!(errors.collect::<Vec<_>>(), [208]);
    // The temporary table was committed, the row was not.
    let committed = server.committed();
    let statements: Vec<_> = committed.iter().flat_map(|one| &one.statements).collect();
    assert_eq!(statements, ["CREATE TABLE #t (n int)"]);
}

#[tokio::test]
async fn an_attention_is_answered_at_once_in_a_message_of_its_own() {
    let server = server().await;
    let mut raw = Raw::log_in(&server).await;
    for sql in ["WAITFOR DELAY '00:01:00'", "EXEC scripted_rows 100000000, 200"] {
        raw.batch(sql, 0, PacketStatus::NORMAL).await;
        let began = Instant::now();
        raw.send(PacketType::Attention, PacketStatus::END_OF_MESSAGE, b"")
            .await;
        // What was under way ends first, wherever it was.
        let (first, _) = raw.reply().await;
        assert_eq!(first[first.len() - 13], 0xfd, "{sql}");
        let (second, _) = raw.reply().await;
        assert_eq!(&second[..], b"\xfd\x20\0\0\0\0\0\0\0\0\0\0\0", "{sql}");
        assert!(began.elapsed() < Duration::from_secs(20), "{sql}");
    }
    raw.batch("SELECT 1", 0, PacketStatus::NORMAL).await;
    assert_eq!(raw.errors().await, [0; 0]);
    assert_eq!(server.batches(51).last().map(String::as_str), Some("SELECT 1"));
    assert_eq!((server.connections_opened(), server.sessions().len()), (1, 1));
}
