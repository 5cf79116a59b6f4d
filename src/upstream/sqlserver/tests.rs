//! What a server is shown, at the bytes of the login.

use std::sync::Arc;

use super::*;
use crate::domain::{AwaitedToken, Engine, NoToken, Secret, TokenSource};
use crate::tls::{ClientSettings, ClientTls};
use crate::wire::Decoded;
use crate::wire::tds::feature;
use crate::wire::tds::fedauth::{Federated, Way};
use crate::wire::tds::login7;
use crate::wire::tds::packet::{self, Assembler};
use crate::wire::tds::prelogin::{Encryption, Prelogin};

#[derive(Debug)]
struct Tokens(Result<&'static str, &'static str>);

impl TokenSource for Tokens {
    fn token(&self) -> AwaitedToken<'_> {
        let token = self.0.map(|token| Secret::new(token.to_owned()));
        let token = token.map_err(|why| NoToken { why: why.to_owned() });
        Box::pin(std::future::ready(token))
    }
}

fn address(mode: Mode) -> TargetAddress {
    let settings = ClientSettings {
        engine: Engine::SqlServer,
        mode,
        ca: None,
        client: None,
    };
    TargetAddress {
        engine: Engine::SqlServer,
        target: "orders".into(),
        host: "db.internal".to_owned(),
        port: 1433,
        tls: ClientTls::load(&settings).unwrap(),
    }
}

fn key() -> PoolKey {
    PoolKey {
        target: "orders".into(),
        database: "orders".into(),
        login: "gatepost-prod".into(),
        identity: None,
        settings: vec![],
    }
}

/// The login that goes out once the server has answered PRELOGIN, inside TLS or without it.
fn shown(address: &TargetAddress, credential: Credential) -> Login7 {
    let mut out = vec![];
    let settings = login_settings(address, &key(), &address.host, credential);
    let login = match Login::start(settings, &mut out) {
        LoginStep::StartTls(awaiting, _) => awaiting.established(&mut out).unwrap(),
        LoginStep::Continue(login) => login,
        other @ (LoginStep::Done(_) | LoginStep::Routed(_)) => panic!("{other:?}"),
    };
    let (mut payload, mut answer) = (vec![], vec![]);
    let answered = Prelogin {
        version: Some(ProgramVersion::default()),
        encryption: Some(Encryption::NotSupported),
        federated: Some(true),
        ..Prelogin::default()
    };
    answered.put(&mut payload);
    packet::put_reply(&mut answer, 0, packet::LOGIN_PACKET_BYTES, &payload);
    out.clear();
    login.step(&answer, &mut out).unwrap();
    let (_, Decoded::Message(message)) = Assembler::new(login7::FROM_CLIENT).push(&out).unwrap() else {
        panic!("half a login")
    };
    Login7::decode(&message.payload).unwrap()
}

#[tokio::test]
async fn a_token_goes_where_it_belongs_and_nothing_beside_it() {
    let token = Password::Token(Arc::new(Tokens(Ok("a.b.c"))));
    let address = address(Mode::Strict);
    let login = shown(&address, credential(&address, &key(), &token).await.unwrap());
    assert_eq!((login.user.as_str(), login.password.expose().as_str()), ("", ""));
    let federated = feature::find(&login.features, feature::id::FEDAUTH).unwrap();
    let way = Way::SecurityToken(Secret::new(b"a.b.c".to_vec()));
    let expected = Federated { echo: true, way };
    assert_eq!(Federated::decode(federated).unwrap(), expected);
    assert_eq!(
        (login.database.as_str(), login.server.as_str()),
        ("orders", "db.internal")
    );
}

#[tokio::test]
async fn a_password_goes_without_a_token() {
    for mode in [Mode::Strict, Mode::Disable] {
        let address = address(mode);
        let password = Password::new("hunter2");
        let login = shown(&address, credential(&address, &key(), &password).await.unwrap());
        assert_eq!(
            (login.user.as_str(), login.password.expose().as_str()),
            ("gatepost-prod", "hunter2")
        );
        assert_eq!(feature::find(&login.features, feature::id::FEDAUTH), None);
    }
}

#[tokio::test]
async fn a_token_is_for_servers_that_tls_proves_and_needs_to_be_had() {
    let token = Password::Token(Arc::new(Tokens(Ok("a.b.c"))));
    for mode in [Mode::Disable, Mode::Require, Mode::VerifyCa] {
        let error = credential(&address(mode), &key(), &token).await.unwrap_err();
        assert!(matches!(error, DialError::ServerNotProven), "{error}");
    }
    for mode in [Mode::VerifyFull, Mode::Strict] {
        assert!(credential(&address(mode), &key(), &token).await.is_ok());
        let none = Password::Token(Arc::new(Tokens(Err("nobody answers"))));
        let error = credential(&address(mode), &key(), &none).await.unwrap_err();
        assert!(matches!(&error, DialError::NoToken(no) if no.why == "nobody answers"));
    }
}
