//! The login against a scripted server, honest and not, and against our own handshake.

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::wire::Decoded;
use crate::wire::pg::error_response::{ErrorFields, Severity, put_error};
use crate::wire::pg::frame;
use crate::wire::pg::handshake::{Handshake, Progress, Step, Transport};

const PASSWORD: &str = "correct horse";
const ITERATIONS: u32 = 16;

fn settings() -> LoginSettings {
    LoginSettings {
        user: "gp_login".into(),
        password: Secret::new(PASSWORD.into()),
        database: "orders".into(),
        parameters: vec![("application_name".into(), "gatepost".into())],
        binding: Binding::None,
        request_minor: 0,
        password_required: true,
        in_clear: InClear::Refused,
    }
}

/// What the server wrote, message by message, through the login; its answers come back.
fn feed(mut login: Login, messages: &[u8]) -> Result<(LoginStep, Vec<u8>), LoginError> {
    let (mut rest, mut out) = (messages, vec![]);
    loop {
        let Decoded::Message((head, body)) = frame::whole(rest, MESSAGE_BYTES_MAX).unwrap() else {
            return Ok((LoginStep::Continue(login), out));
        };
        rest = &rest[head.length..];
        match login.step(head.tag, body, &mut out)? {
            LoginStep::Continue(next) => login = next,
            LoginStep::Done(done) => {
                assert_eq!(rest, b"");
                return Ok((LoginStep::Done(done), out));
            }
        }
    }
}

fn started(settings: LoginSettings) -> Login {
    Login::start(settings, &mut vec![])
}

fn bytes(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![];
    put(&mut out);
    out
}

fn refused(settings: LoginSettings, messages: &[u8]) -> LoginError {
    feed(started(settings), messages).expect_err("it was accepted")
}

fn go_on(step: LoginStep) -> Login {
    match step {
        LoginStep::Continue(login) => login,
        LoginStep::Done(done) => panic!("done: {done:?}"),
    }
}

fn offer(mechanisms: &[&[u8]]) -> Vec<u8> {
    bytes(|out| from_server::put_authentication_sasl(out, mechanisms))
}

fn welcome(key: &[u8]) -> Vec<u8> {
    bytes(|out| {
        from_server::put_authentication_ok(out);
        from_server::put_parameter_status(out, b"TimeZone", b"UTC");
        from_server::put_parameter_status(out, b"DateStyle", b"ISO");
        from_server::put_backend_key_data(out, 77, key);
        from_server::put_ready(out, from_server::TransactionStatus::Idle);
    })
}

/// A SCRAM server (RFC 5802) as far as a client can tell.
struct Server {
    first_bare: String,
    first: String,
}

impl Server {
    /// Reads SASLInitialResponse; checks mechanism and the flag of channel binding.
    fn new(initial: &[u8], mechanism: &str, gs2: &str) -> Self {
        let Ok(Decoded::Message((_, body))) = frame::whole(initial, 10_000) else {
            panic!("no message")
        };
        let prefix = format!("{mechanism}\0");
        let response = body.strip_prefix(prefix.as_bytes()).expect("mechanism");
        let text = std::str::from_utf8(&response[4..]).unwrap();
        let first_bare = text.strip_prefix(gs2).expect("channel binding flag").to_owned();
        let nonce = first_bare.strip_prefix("n=,r=").unwrap();
        let first = format!("r={nonce}server,s={},i={ITERATIONS}", STANDARD.encode("salt"));
        Self { first_bare, first }
    }

    fn challenge(&self) -> Vec<u8> {
        bytes(|out| from_server::put_authentication_sasl_continue(out, self.first.as_bytes()))
    }

    /// Checks the client's proof and makes the server's, as a server would that knows `password`.
    fn proof(&self, response: &[u8], password: &str) -> Vec<u8> {
        let Ok(Decoded::Message((_, body))) = frame::whole(response, 10_000) else {
            panic!("no message")
        };
        let text = std::str::from_utf8(body).unwrap();
        let (without_proof, proof) = text.rsplit_once(",p=").unwrap();
        let authenticated = format!("{},{},{without_proof}", self.first_bare, self.first);
        let mut salted = [0; 32];
        let iterations = ITERATIONS.try_into().unwrap();
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            b"salt",
            password.as_bytes(),
            &mut salted,
        );
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        if password == PASSWORD {
            let client_key = mac(&salted, b"Client Key");
            let stored = digest::digest(&digest::SHA256, client_key.as_ref());
            let signature = mac(stored.as_ref(), authenticated.as_bytes());
            let expected = client_key
                .as_ref()
                .iter()
                .zip(signature.as_ref())
                .map(|(a, b)| a ^ b);
            assert_eq!(STANDARD.decode(proof).unwrap(), expected.collect::<Vec<_>>());
        }
        let signature = mac(mac(&salted, b"Server Key").as_ref(), authenticated.as_bytes());
        let text = format!("v={}", STANDARD.encode(signature));
        bytes(|out| from_server::put_authentication_sasl_final(out, text.as_bytes()))
    }
}

/// Up to the server's last word, which `server_password` goes into.
fn exchange(
    settings: LoginSettings,
    offered: &[&[u8]],
    flags: (&str, &str),
    server_password: &str,
) -> Result<Login, LoginError> {
    let (step, initial) = feed(started(settings), &offer(offered))?;
    let server = Server::new(&initial, flags.0, flags.1);
    let (step, response) = feed(go_on(step), &server.challenge())?;
    let (step, _) = feed(go_on(step), &server.proof(&response, server_password))?;
    Ok(go_on(step))
}

const BOTH: &[&[u8]] = &[b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"];
const PLAIN: (&str, &str) = ("SCRAM-SHA-256", "n,,");

#[test]
fn scram_leads_to_a_ready_connection() {
    let login = exchange(settings(), BOTH, PLAIN, PASSWORD).unwrap();
    let notice = b"N\0\0\0\x05\0";
    let (step, _) = feed(login, &[&notice[..], &welcome(b"key!")].concat()).unwrap();
    let LoginStep::Done(done) = step else {
        panic!("not done")
    };
    assert_eq!((done.process, &done.cancel_key[..]), (77, &b"key!"[..]));
    let parameters = [("TimeZone", "UTC"), ("DateStyle", "ISO")];
    assert_eq!(
        done.parameters,
        parameters.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn tls_is_bound_where_the_server_can() {
    let bound = || LoginSettings {
        binding: Binding::ServerEndPoint(vec![1; 32]),
        ..settings()
    };
    exchange(
        bound(),
        BOTH,
        ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,"),
        PASSWORD,
    )
    .unwrap();
    exchange(bound(), &[b"SCRAM-SHA-256"], ("SCRAM-SHA-256", "y,,"), PASSWORD).unwrap();
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let error = exchange(settings(), BOTH, PLAIN, "another").unwrap_err();
    assert!(matches!(error, LoginError::Scram(_)), "{error}");
    // It skips its proof, before or after the challenge, or asks for none at all.
    let ok = bytes(from_server::put_authentication_ok);
    let skipped = refused(settings(), &[offer(BOTH), ok.clone()].concat());
    assert!(matches!(skipped, LoginError::ServerNotProven));
    let (step, initial) = feed(started(settings()), &offer(BOTH)).unwrap();
    let server = Server::new(&initial, PLAIN.0, PLAIN.1);
    let skipped = feed(go_on(step), &[server.challenge(), ok.clone()].concat()).unwrap_err();
    assert!(matches!(skipped, LoginError::ServerNotProven));
    assert!(matches!(refused(settings(), &ok), LoginError::ServerNotProven));
}

#[test]
fn a_certificate_may_be_enough() {
    let settings = LoginSettings {
        password_required: false,
        ..settings()
    };
    let (step, out) = feed(started(settings), &welcome(b"key!")).unwrap();
    assert!(matches!(step, LoginStep::Done(_)));
    assert_eq!(out, b"");
}

#[test]
fn passwords_are_never_shown() {
    let kinds = [3_i32, 7, 9, 2].map(|kind| [b"R\0\0\0\x08", &kind.to_be_bytes()[..]].concat());
    let md5 = b"R\0\0\0\x0c\0\0\0\x05salt".to_vec();
    for message in kinds.into_iter().chain([md5]) {
        assert!(matches!(
            refused(settings(), &message),
            LoginError::WeakAuthentication { .. }
        ));
    }
    assert!(matches!(
        refused(settings(), &offer(&[b"OAUTHBEARER"])),
        LoginError::NoKnownMechanism
    ));
    assert!(matches!(
        refused(settings(), &offer(&[b"SCRAM-SHA-256-PLUS"])),
        LoginError::NoKnownMechanism
    ));
}

#[test]
fn a_token_is_shown_to_a_server_that_asks_for_it_and_has_proven_itself() {
    let token = || LoginSettings {
        in_clear: InClear::TokenToProvenServer,
        ..settings()
    };
    let cleartext = b"R\0\0\0\x08\0\0\0\x03".to_vec();
    let asked = [cleartext.clone(), welcome(b"key!")].concat();
    let (step, out) = feed(started(token()), &asked).unwrap();
    assert!(matches!(step, LoginStep::Done(_)));
    assert_eq!(
        out,
        bytes(|out| from_client::put_password(out, PASSWORD.as_bytes()))
    );
    // Once, and in no other form.
    let twice = [cleartext.clone(), cleartext].concat();
    assert!(matches!(refused(token(), &twice), LoginError::Misbehaved(_)));
    let md5 = b"R\0\0\0\x0c\0\0\0\x05salt";
    assert!(matches!(
        refused(token(), md5),
        LoginError::WeakAuthentication { .. }
    ));
    // A server that lets everybody in asked for nothing and gets nothing.
    assert!(matches!(
        refused(token(), &welcome(b"key!")),
        LoginError::ServerNotProven
    ));
}

#[test]
fn an_iteration_bomb_is_not_worked_off() {
    let (step, initial) = feed(started(settings()), &offer(BOTH)).unwrap();
    let server = Server::new(&initial, PLAIN.0, PLAIN.1);
    let bomb = server.first.replace(&format!("i={ITERATIONS}"), "i=100001");
    let bomb = bytes(|out| from_server::put_authentication_sasl_continue(out, bomb.as_bytes()));
    let error = feed(go_on(step), &bomb).unwrap_err();
    assert!(
        matches!(error, LoginError::TooManyIterations { asked: 100_001 }),
        "{error}"
    );
}

#[test]
fn the_servers_error_comes_through() {
    let error = bytes(|out| {
        let (sqlstate, message) = ("28P01", "password authentication failed");
        put_error(
            out,
            &ErrorFields {
                severity: Severity::Fatal,
                sqlstate,
                message,
                detail: None,
                hint: None,
            },
        );
    });
    for messages in [error.clone(), [offer(BOTH), error].concat()] {
        let LoginError::Server { sqlstate, message } = refused(settings(), &messages) else {
            panic!()
        };
        assert_eq!(
            (&sqlstate[..], &message[..]),
            ("28P01", "password authentication failed")
        );
    }
}

#[test]
fn cancel_keys_are_as_long_as_the_version_says() {
    let newer = || LoginSettings {
        password_required: false,
        request_minor: 2,
        ..settings()
    };
    let older = || LoginSettings {
        request_minor: 0,
        ..newer()
    };
    let negotiate =
        |minor| bytes(|out| from_server::put_negotiate_protocol(out, startup::version(minor), &[]));
    assert!(feed(started(newer()), &welcome(&[1; 32])).is_ok());
    refused(older(), &welcome(&[1; 32]));
    let negotiated = |key: &[u8]| feed(started(newer()), &[negotiate(0), welcome(key)].concat());
    assert!(negotiated(&[1; 4]).is_ok());
    assert!(negotiated(&[1; 32]).is_err());
    refused(older(), &negotiate(0));
    refused(newer(), &negotiate(2));
}

#[test]
fn what_does_not_belong_is_refused() {
    let trust = || LoginSettings {
        password_required: false,
        ..settings()
    };
    let ok = bytes(from_server::put_authentication_ok);
    let ready = bytes(|out| from_server::put_ready(out, from_server::TransactionStatus::Idle));
    refused(trust(), &ready);
    refused(trust(), &[ok.clone(), ready].concat()); // no cancel key
    refused(trust(), &[ok.clone(), ok.clone()].concat());
    refused(
        trust(),
        &bytes(|out| from_server::put_command_complete(out, b"SELECT 1")),
    );
    let status = bytes(|out| from_server::put_parameter_status(out, b"a", b"b"));
    let error = refused(trust(), &[ok, status.repeat(PARAMETERS_MAX + 1)].concat());
    assert!(matches!(
        error,
        LoginError::Misbehaved(PeerMisbehaved::TooMany { .. })
    ));
}

#[test]
fn our_own_front_asks_for_what_our_own_login_refuses() {
    let (mut first, mut reply) = (vec![], vec![]);
    let login = Login::start(settings(), &mut first);
    assert_eq!(
        format!("{login:?}"),
        "Login(awaiting the choice of authentication)"
    );
    let handshake = Handshake::start(Transport {
        encrypted: true,
        cleartext_token_allowed: false,
    });
    let progress = handshake.step(&first, &mut reply).unwrap();
    assert!(matches!(
        progress,
        Progress::Stepped {
            step: Step::Continue(_),
            ..
        }
    ));
    assert!(matches!(
        feed(login, &reply).unwrap_err(),
        LoginError::WeakAuthentication { .. }
    ));
}

proptest! {
    #[test]
    fn no_message_panics(tag: u8, body: Vec<u8>, scram in "[rsi=,0-9a-zA-Z+/]{0,60}") {
        let _ = started(settings()).step(tag, &body, &mut vec![]);
        let (step, _) = feed(started(settings()), &offer(BOTH)).unwrap();
        let challenge = bytes(|out| from_server::put_authentication_sasl_continue(out, scram.as_bytes()));
        prop_assert!(feed(go_on(step), &challenge).is_err());
    }
}
