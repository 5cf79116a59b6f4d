//! Dialling against scripted servers on loopback: one line of the table per way to fail.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::*;
use crate::domain::{AwaitedToken, TokenSource};
use crate::tls::ClientSettings;
use crate::upstream::cancel::Canceller;
use crate::wire::pg::error_response::{ErrorFields, Severity, put_error};

const LIMIT: Duration = Duration::from_secs(5);

/// Dials a server that reads the client's first packet, says `answer` and closes.
async fn dial_scripted(mode: Mode, answer: Vec<u8>) -> Result<Dialed, DialError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let length = socket.read_u32().await.unwrap();
        let mut packet = vec![0; length as usize - 4];
        socket.read_exact(&mut packet).await.unwrap();
        socket.write_all(&answer).await.unwrap();
    };
    let address = address(port, mode);
    let password = Password::new("secret");
    let key = key();
    let (dialed, ()) = tokio::join!(dial(&address, &key, &password, LIMIT), server);
    dialed
}

fn address(port: u16, mode: Mode) -> TargetAddress {
    let settings = ClientSettings {
        engine: Engine::Postgres,
        mode,
        ca: None,
        client: None,
    };
    TargetAddress {
        engine: Engine::Postgres,
        target: "orders".into(),
        host: "127.0.0.1".to_owned(),
        port,
        tls: ClientTls::load(&settings).unwrap(),
    }
}

fn key() -> PoolKey {
    PoolKey {
        target: "orders".into(),
        database: "orders".into(),
        login: "gp_test".into(),
        identity: None,
        settings: vec![],
    }
}

fn refusal(code: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let fields = ErrorFields {
        severity: Severity::Fatal,
        sqlstate: code,
        message: "no",
        detail: None,
        hint: None,
    };
    put_error(&mut answer, &fields);
    answer
}

/// The name of the variant, which is all that the table compares.
fn variant(error: &DialError) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_name() {
    let table: Vec<(Mode, Vec<u8>, &str)> = vec![
        (Mode::Disable, refusal("28P01"), "LoginStopped"),
        (Mode::Disable, refusal("28000"), "LoginStopped"),
        (Mode::Disable, refusal("53300"), "ServerFull"),
        (Mode::Disable, refusal("57P03"), "ServerNotReady"),
        (Mode::Disable, refusal("3D000"), "Refused"),
        (Mode::Disable, vec![], "Closed"),
        (Mode::Disable, b"R\xff\xff\xff\xff".to_vec(), "Misbehaved"),
        (Mode::Require, b"N".to_vec(), "TlsNotOffered"),
        (Mode::Require, vec![], "Closed"),
        (Mode::Require, b"SE".to_vec(), "BytesBeforeTls"),
    ];
    for (mode, answer, expected) in table {
        let error = dial_scripted(mode, answer.clone()).await.unwrap_err();
        assert_eq!(variant(&error), expected, "{mode:?} {answer:?}");
        assert_eq!(error.login_stopped(), expected == "LoginStopped");
        let (code, _) = error.refusal();
        assert_eq!(code, RefusalCode::TargetUnavailable);
    }
}

#[tokio::test]
async fn a_silent_server_and_a_closed_port_end_in_time() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = address(listener.local_addr().unwrap().port(), Mode::Disable);
    let password = Password::new("");
    let limit = Duration::from_millis(20);
    let error = dial(&address, &key(), &password, limit).await.unwrap_err();
    assert!(matches!(error, DialError::TimedOut(_)));
    drop(listener);
    let error = dial(&address, &key(), &password, LIMIT).await.unwrap_err();
    assert!(matches!(error, DialError::Connect(_)));
}

#[tokio::test]
async fn a_cancel_request_carries_number_and_key_and_waits_for_the_close() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = Arc::new(address(listener.local_addr().unwrap().port(), Mode::Disable));
    let canceller = Canceller::new(&address, LIMIT, (7, &[1, 2, 3, 4]), &Arc::default());
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut packet = [0; 16];
        socket.read_exact(&mut packet).await.unwrap();
        packet
    };
    let (cancelled, packet) = tokio::join!(canceller.cancel(), server);
    cancelled.unwrap();
    assert_eq!(packet, *b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\x01\x02\x03\x04");
}

#[test]
fn the_application_is_named_unless_the_key_names_it() {
    let mut key = key();
    assert_eq!(
        parameters(&key),
        [("application_name".to_owned(), "gatepost".to_owned())]
    );
    key.settings = vec![("application_name".to_owned(), "own".to_owned())];
    assert_eq!(parameters(&key), key.settings);
}

#[derive(Debug)]
struct Tokens(Result<&'static str, &'static str>);

impl TokenSource for Tokens {
    fn token(&self) -> AwaitedToken<'_> {
        let token = self.0.map(|token| Secret::new(token.to_owned()));
        let token = token.map_err(|why| NoToken { why: why.to_owned() });
        Box::pin(std::future::ready(token))
    }
}

#[tokio::test]
async fn a_token_is_for_servers_that_tls_proves_and_needs_to_be_had() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let token = Password::Token(Arc::new(Tokens(Ok("a.b.c"))));
    for mode in [Mode::Disable, Mode::Require] {
        let error = dial(&address(port, mode), &key(), &token, LIMIT)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::ServerNotProven), "{error}");
    }
    let none = Password::Token(Arc::new(Tokens(Err("nobody answers"))));
    let error = shown(&address(port, Mode::VerifyFull), &none).await.unwrap_err();
    assert!(matches!(&error, DialError::NoToken(no) if no.why == "nobody answers"));
    let (shown, in_clear) = shown(&address(port, Mode::VerifyFull), &token).await.unwrap();
    assert_eq!(
        (shown.expose().as_str(), in_clear),
        ("a.b.c", InClear::TokenToProvenServer)
    );
    // Not even a connection was made.
    let waited = timeout(Duration::from_millis(1), listener.accept()).await;
    assert!(waited.is_err());
}

#[test]
fn the_server_is_told_whose_connection_it_is_where_the_login_does_not_say_it() {
    let identity = |tenant: Option<&str>| IdentityKey {
        provider: "entra".into(),
        tenant: tenant.map(str::to_owned),
        subject: "a\0b".to_owned(),
    };
    let forged = ("gatepost.identity".to_owned(), "somebody".to_owned());
    for (tenant, text) in [(Some("t"), "entra/t/ab"), (None, "entra//ab")] {
        let key = PoolKey {
            identity: Some(identity(tenant)),
            settings: vec![forged.clone()],
            ..key()
        };
        let told = parameters(&key);
        assert_eq!(
            told.last().unwrap(),
            &("gatepost.identity".to_owned(), text.to_owned())
        );
    }
}
