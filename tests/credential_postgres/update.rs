//! The broker's own credential changes while it runs; and what it never tells a server.

use std::sync::Arc;
use std::time::Duration;

use gatepost::credential::{BrokerSettings, Logins};
use gatepost::domain::{AwaitedToken, Password, Secret, TokenSource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{BROKER, Bench, LONG, PASSWORD, eventually};

fn with_password(settings: BrokerSettings, password: &str) -> BrokerSettings {
    BrokerSettings {
        password: Password::new(password),
        ..settings
    }
}

/// Cuts every connection of the broker, as a restart of the server would.
async fn cut(bench: &Bench) {
    bench
        .run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{BROKER}'"
        ))
        .await;
}

#[tokio::test]
async fn a_new_password_is_proved_before_the_old_connection_is_given_up() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();

    // The file came first: the server does not know the password yet.
    broker.update(with_password(bench.settings("a"), "second"));
    eventually("refused", async || {
        broker.update_pending().is_some_and(|why| why.contains("28P01"))
    })
    .await;
    assert_eq!(broker.ready(), Ok(()));
    let other = bench.lease_as(&broker, "other", "writer", "login_ttl: 30m").await;
    assert!(other.is_ok(), "the old connection still mints");
    // Even a lost connection comes back by the old password.
    cut(&bench).await;
    eventually("connected again", async || {
        bench
            .lease_as(&broker, "third", "writer", "login_ttl: 30m")
            .await
            .is_ok()
    })
    .await;

    bench.run(&format!("ALTER ROLE {BROKER} PASSWORD 'second'")).await;
    eventually("proved", async || broker.update_pending().is_none()).await;
    assert_eq!(broker.ready(), Ok(()));
    let again = bench.lease(&broker, "writer", LONG).await.unwrap();
    assert_eq!(again.login(), hold.login(), "logins outlive the change");
    // Endings open connections of their own.
    let third = bench
        .lease_as(&broker, "fourth", "writer", "login_ttl: 30m")
        .await
        .unwrap();
    let login = third.login().to_string();
    broker.tampered(&login, "a test says so".to_owned());
    bench.gone(&login).await;
    assert_eq!(bench.tampering(&login), ["a test says so"]);
    let rotated = bench
        .all_records()
        .into_iter()
        .find(|record| record["event"] == "secret.rotated")
        .unwrap();
    assert_eq!(
        (
            rotated["detail"]["what"].as_str(),
            rotated["detail"]["which"].as_str()
        ),
        (Some("broker_password"), Some("orders"))
    );
}

#[tokio::test]
async fn a_password_that_changed_first_in_the_database_is_picked_up_at_once() {
    let bench = Bench::new().await;
    let broker = bench.start(bench.settings("a"));
    let hold = bench.lease(&broker, "writer", LONG).await.unwrap();
    bench.run(&format!("ALTER ROLE {BROKER} PASSWORD 'second'")).await;
    cut(&bench).await;
    eventually("locked out", async || {
        broker.ready().is_err_and(|why| why.contains("28P01"))
    })
    .await;
    broker.update(with_password(bench.settings("a"), "second"));
    eventually("in again", async || broker.ready().is_ok()).await;
    let again = bench.lease(&broker, "writer", LONG).await.unwrap();
    assert_eq!(again.login(), hold.login());
    // Another replica does not take this one for dead.
    let second = bench.start(with_password(bench.settings("b"), "second"));
    eventually("ready", async || second.ready().is_ok()).await;
    assert!(bench.exists(hold.login().as_str()).await);
}

/// Accepts a connection and its start-up message.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut length = [0; 4];
    socket.read_exact(&mut length).await.unwrap();
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
    socket.read_exact(&mut rest).await.unwrap();
    assert!(
        rest.starts_with(&[0, 3, 0, 0]),
        "a start-up message of protocol 3.0"
    );
    socket
}

/// Sends in two pieces, so that whoever reads along has to put them together; returns what comes back
/// until the connection ends.
async fn demand(socket: &mut TcpStream, message: &[u8]) -> Vec<u8> {
    let (front, back) = message.split_at(3);
    socket.write_all(front).await.unwrap();
    socket.flush().await.unwrap();
    socket.write_all(back).await.unwrap();
    let mut told = Vec::new();
    let _ = socket.read_to_end(&mut told).await;
    told
}

fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&b"R"[..], &length.to_be_bytes(), &kind.to_be_bytes(), body].concat()
}

#[tokio::test]
async fn no_server_is_given_the_password_in_clear_or_as_md5() {
    let bench = Bench::new().await;
    for (message, word) in [
        (authentication(3, b""), "clear"),
        (authentication(5, b"salt"), "MD5"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = bench.settings("a");
        settings.address.1 = listener.local_addr().unwrap().port();
        let broker = bench.start(settings);
        let mut socket = accept(&listener).await;
        let told = demand(&mut socket, &message).await;
        assert!(told.is_empty(), "the server was told {} bytes", told.len());
        eventually(word, async || broker.ready().is_err_and(|why| why.contains(word))).await;
        assert!(!broker.ready().unwrap_err().contains(PASSWORD));
    }
}

#[derive(Debug)]
struct Tokens;

impl TokenSource for Tokens {
    fn token(&self) -> AwaitedToken<'_> {
        Box::pin(std::future::ready(Ok(Secret::new("a.b.c".to_owned()))))
    }
}

#[tokio::test]
async fn no_server_that_is_not_proven_is_given_a_token() {
    let bench = Bench::new().await;
    for logins in [Logins::Minted, Logins::BrokersOwn] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = BrokerSettings {
            password: Password::Token(Arc::new(Tokens)),
            address: ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port()),
            logins,
            ..bench.settings("a")
        };
        let broker = bench.start(settings);
        eventually("refused", async || {
            broker.ready().is_err_and(|why| why.contains("verify-full"))
        })
        .await;
        let knocked = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(knocked.is_err(), "nothing is begun with such a server");
    }
}

#[tokio::test]
async fn no_server_sets_the_broker_to_endless_work() {
    let bench = Bench::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = bench.settings("a");
    settings.address.1 = listener.local_addr().unwrap().port();
    let broker = bench.start(settings);
    let mut socket = accept(&listener).await;
    socket
        .write_all(&authentication(10, b"SCRAM-SHA-256\0\0"))
        .await
        .unwrap();
    let mut first = vec![0; 1024];
    let read = socket.read(&mut first).await.unwrap();
    let text = String::from_utf8_lossy(&first[..read]).into_owned();
    let nonce = text.split_once(",r=").unwrap().1;
    let challenge = format!("r={nonce}x,s=c2FsdA==,i=2000000000");
    let told = demand(&mut socket, &authentication(11, challenge.as_bytes())).await;
    assert!(told.is_empty());
    eventually("refused", async || {
        broker
            .ready()
            .is_err_and(|why| why.contains("2000000000 SCRAM iterations"))
    })
    .await;
}
