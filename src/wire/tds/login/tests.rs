//! Logins against a server that is played here: our own other side, and servers that are worse.

use proptest::prelude::*;

use super::*;
use crate::wire::tds::event::{DoneKind, DoneStatus};
use crate::wire::tds::fedauth::TokenService;
use crate::wire::tds::handshake::{Arrival, Handshake, Progress, Settings, Step};
use crate::wire::tds::login_ack;
use crate::wire::tds::login_ack::{Acknowledge, LoginAnswer};
use crate::wire::tds::prelogin::Guid;
use crate::wire::tds::reply::{Said, put_done, put_error};

fn settings(tls: Option<TlsPlace>, credential: Credential) -> LoginSettings {
    LoginSettings {
        tls,
        credential,
        login: Login7 {
            database: "orders".to_owned(),
            application: "gatepost".to_owned(),
            ..Login7::default()
        },
        utf8: true,
        trace: Some(TraceId {
            connection: Guid([1; 16]),
            activity: Guid([2; 16]),
            sequence: 3,
        }),
        version: ProgramVersion::default(),
    }
}

fn password() -> Credential {
    Credential::Password {
        user: "gp_minted".to_owned(),
        password: Secret::new("hunter2".to_owned()),
    }
}

fn token(text: &str) -> Credential {
    Credential::Token(Secret::new(text.to_owned()))
}

/// A login that has been sent in clear, awaiting its reply.
fn sent(credential: Credential) -> Login {
    let start = Login::start(settings(None, credential), &mut vec![]);
    let LoginStep::Continue(login) = start else {
        panic!("TLS in clear")
    };
    let answer = prelogin(Some(Encryption::NotSupported));
    let LoginStep::Continue(login) = stepped(login, &answer).unwrap() else {
        panic!("no login")
    };
    login
}

fn prelogin(encryption: Option<Encryption>) -> Vec<u8> {
    let (mut payload, mut out) = (vec![], vec![]);
    Prelogin {
        version: Some(ProgramVersion::default()),
        encryption,
        ..Prelogin::default()
    }
    .put(&mut payload);
    packet::put_reply(&mut out, 0, packet::LOGIN_PACKET_BYTES, &payload);
    out
}

fn reply(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    packet::put_reply(&mut out, 51, packet::LOGIN_PACKET_BYTES, payload);
    out
}

fn accepted(acknowledge: Acknowledge) -> Vec<u8> {
    let mut payload = vec![];
    let answer = LoginAnswer {
        server: "db",
        database: "orders",
        language: "us_english",
        collation: [9, 4, 0xd0, 0, 0x34],
        packet_bytes: 8000,
        packet_bytes_before: 4096,
        version: TdsVersion::V7_4,
        program: "Microsoft SQL Server",
        program_version: [16, 0, 4, 0],
        acknowledge,
    };
    login_ack::put_login_answer(&mut payload, &answer);
    payload
}

fn stepped(login: Login, input: &[u8]) -> Result<LoginStep, LoginError> {
    match login.step(input, &mut vec![])? {
        LoginProgress::Stepped { step, consumed } => {
            assert_eq!(consumed, input.len());
            Ok(step)
        }
        LoginProgress::NeedMore { .. } => panic!("needs more"),
    }
}

/// Both machines against each other, TLS left out of the wire but not out of the steps.
fn both(tls: Option<TlsPlace>, credential: Credential) -> (Login, handshake::Presented) {
    let offered = Settings {
        tls_offered: true,
        cleartext_token_allowed: tls.is_none(),
        token_service: Some(TokenService::default()),
        version: ProgramVersion::default(),
    };
    let (mut to_server, mut to_client) = (vec![], vec![]);
    let mut server = Handshake::start(offered);
    let mut client = Login::start(settings(tls, credential), &mut to_server);
    for _ in 0..10 {
        let login = match client {
            LoginStep::Continue(login) => login,
            LoginStep::StartTls(state, _) => {
                let record = [0x16];
                let hello = if tls == Some(TlsPlace::Strict) {
                    &record[..]
                } else {
                    &[]
                };
                if !hello.is_empty() {
                    let Ok(Progress::Stepped {
                        step: Step::StartTls(tls, _),
                        ..
                    }) = server.step(hello, &mut to_client)
                    else {
                        panic!("no TLS")
                    };
                    server = tls.established();
                }
                state.check_nothing_buffered(&[]).unwrap();
                state.established(&mut to_server).unwrap()
            }
            LoginStep::Done(_) | LoginStep::Routed(_) => panic!("done without an answer"),
        };
        let input = std::mem::take(&mut to_server);
        let Ok(Progress::Stepped { step, consumed }) = server.step(&input, &mut to_client) else {
            panic!("the server needs more")
        };
        assert_eq!(consumed, input.len());
        server = match step {
            Step::Continue(next) => next,
            Step::StartTls(state, _) => state.established(),
            Step::Presented(presented) => return (login, *presented),
            Step::Refuse(refused) => panic!("refused: {refused}"),
        };
        let input = std::mem::take(&mut to_client);
        let Ok(LoginProgress::Stepped { step, .. }) = login.step(&input, &mut to_server) else {
            panic!("the client needs more")
        };
        client = step;
    }
    panic!("no end")
}

#[test]
fn both_sides_understand_each_other() {
    for tls in [None, Some(TlsPlace::InPrelogin), Some(TlsPlace::Strict)] {
        let (login, presented) = both(tls, password());
        assert_eq!(presented.token.expose(), b"hunter2");
        assert_eq!(presented.login.user, "gp_minted");
        assert_eq!(presented.beginning.tls, tls);
        let expected = if tls == Some(TlsPlace::Strict) {
            TdsVersion::V8_0
        } else {
            TdsVersion::V7_4
        };
        assert_eq!(presented.login.version, expected);
        assert!(presented.acknowledge.utf8 && !presented.acknowledge.federated);
        let LoginStep::Done(logged_in) = stepped(login, &reply(&accepted(presented.acknowledge))).unwrap()
        else {
            panic!("not logged in")
        };
        assert_eq!((logged_in.spid, logged_in.packet_bytes), (51, 8000));
        assert_eq!(logged_in.database, "orders");
        assert!(logged_in.utf8_acknowledged);
        assert_eq!(logged_in.infos.len(), 2);

        let text = "t".repeat(4000);
        let (login, presented) = both(tls, token(&text));
        assert_eq!(presented.token.expose(), text.as_bytes());
        assert_eq!(presented.arrival, Arrival::SecurityToken);
        assert_eq!(presented.login.user, "");
        let LoginStep::Done(_) = stepped(login, &reply(&accepted(presented.acknowledge))).unwrap() else {
            panic!("not logged in")
        };
    }
}

#[test]
fn a_long_login_is_cut_at_4096() {
    let mut out = vec![];
    let LoginStep::Continue(login) = Login::start(settings(None, token(&"t".repeat(4500))), &mut vec![])
    else {
        panic!("TLS in clear")
    };
    login
        .step(&prelogin(Some(Encryption::NotSupported)), &mut out)
        .unwrap();
    let mut lengths = vec![];
    let mut rest = &out[..];
    while !rest.is_empty() {
        let Ok(Decoded::Message(header)) = packet::header(rest, 4096) else {
            panic!("cut")
        };
        assert_eq!(header.kind, PacketKind::Login7);
        lengths.push(header.length);
        rest = &rest[header.length..];
    }
    assert_eq!(lengths[..2], [4096, 4096]);
    assert_eq!(lengths.len(), 3);
}

#[test]
fn nothing_is_sent_in_clear_that_should_not_be() {
    for answer in [Some(Encryption::Off), Some(Encryption::NotSupported), None] {
        let LoginStep::Continue(login) =
            Login::start(settings(Some(TlsPlace::InPrelogin), password()), &mut vec![])
        else {
            panic!("not in packets")
        };
        let mut out = vec![];
        let error = login.step(&prelogin(answer), &mut out).unwrap_err();
        assert!(matches!(error, LoginError::TlsRefused));
        assert_eq!(out, b"");
    }
    for answer in [Encryption::On, Encryption::Required] {
        let LoginStep::Continue(login) = Login::start(settings(None, password()), &mut vec![]) else {
            panic!("TLS in clear")
        };
        let error = stepped(login, &prelogin(Some(answer))).unwrap_err();
        assert!(matches!(error, LoginError::TlsDemanded));
    }
    let LoginStep::Continue(login) =
        Login::start(settings(Some(TlsPlace::InPrelogin), password()), &mut vec![])
    else {
        panic!("not in packets")
    };
    let early = [&prelogin(Some(Encryption::On))[..], b"x"].concat();
    assert!(matches!(
        login.step(&early, &mut vec![]),
        Err(LoginError::Misbehaved(PeerMisbehaved::BytesBeforeTls))
    ));
}

#[test]
fn a_refusal_says_why() {
    let mut payload = vec![];
    for (number, text) in [(4060, "Cannot open database"), (18456, "Login failed")] {
        let said = Said {
            number,
            state: 1,
            class: 14,
            text,
            server: "db",
            procedure: "",
            line: 1,
        };
        put_error(&mut payload, &said);
    }
    put_done(&mut payload, DoneKind::Batch, DoneStatus::ERROR, 0, 0);
    let error = stepped(sent(password()), &reply(&payload)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server refused the login (4060, state 1): Cannot open database"
    );
}

#[test]
fn what_a_server_may_not_say() {
    let said = |credential, payload: &[u8]| stepped(sent(credential), &reply(payload));
    let nothing = Acknowledge::default();
    assert!(matches!(said(password(), b""), Err(LoginError::Misbehaved(_))));
    let whole = accepted(nothing);
    let without_done = &whole[..whole.len() - 13];
    assert!(matches!(
        said(password(), without_done),
        Err(LoginError::Misbehaved(_))
    ));
    let federated = Acknowledge {
        federated: true,
        utf8: true,
    };
    assert!(matches!(
        said(password(), &accepted(federated)),
        Err(LoginError::Misbehaved(PeerMisbehaved::UnknownValue { .. }))
    ));
    assert!(matches!(
        said(token("t"), &accepted(nothing)),
        Err(LoginError::TokenNotAcknowledged)
    ));
    let mut fetch = vec![];
    TokenService::default().put(&mut fetch);
    for demand in [&fetch[..], b"\xed\x01\0x"] {
        assert!(matches!(
            said(token("t"), demand),
            Err(LoginError::OtherAuthentication { .. })
        ));
    }
}

#[test]
fn what_was_not_asked_for_is_not_granted() {
    let quiet = LoginSettings {
        utf8: false,
        ..settings(None, password())
    };
    let LoginStep::Continue(login) = Login::start(quiet, &mut vec![]) else {
        panic!("TLS in clear")
    };
    let LoginStep::Continue(login) = stepped(login, &prelogin(Some(Encryption::NotSupported))).unwrap()
    else {
        panic!("no login")
    };
    let utf8 = Acknowledge {
        federated: false,
        utf8: true,
    };
    assert!(matches!(
        stepped(login, &reply(&accepted(utf8))),
        Err(LoginError::Misbehaved(PeerMisbehaved::UnknownValue { .. }))
    ));
}

#[test]
fn a_route_is_followed_by_the_caller() {
    let routing = b"\xe3\x10\0\x14\x0b\0\0\x99\x05\x03\0d\0b\x002\0\0\0";
    let payload = [&routing[..], &accepted(Acknowledge::default())].concat();
    let LoginStep::Routed(routed) = stepped(sent(password()), &reply(&payload)).unwrap() else {
        panic!("not routed")
    };
    assert_eq!((routed.host.as_str(), routed.port), ("db2", 1433));
}

#[test]
fn what_shapes_a_session_is_forwarded() {
    let client = Login7 {
        version: TdsVersion::V8_0,
        flags_two: 0x83,
        type_flags: login7::flags::TYPE_READ_ONLY_INTENT,
        flags_three: 0x09,
        user: "auto".to_owned(),
        password: Secret::new("eyJ".to_owned()),
        application: "reports".to_owned(),
        server: "gatepost.example".to_owned(),
        language: "Deutsch".to_owned(),
        ..Login7::default()
    };
    let sent = forwarded(&client);
    assert_eq!((sent.flags_two, sent.flags_three), (0x03, 0x08));
    assert!(sent.is_odbc() && sent.is_read_only_intent());
    assert_eq!((sent.user.as_str(), sent.password.expose().as_str()), ("", ""));
    assert_eq!((sent.application.as_str(), sent.server.as_str()), ("reports", ""));
    assert_eq!(sent.language, "Deutsch");
}

#[test]
fn debug_tells_no_secret() {
    let step = Login::start(settings(Some(TlsPlace::Strict), password()), &mut vec![]);
    assert!(!format!("{step:?}").contains("hunter2"));
    assert!(!format!("{:?}", settings(None, password())).contains("hunter2"));
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same(chunk in 1_usize..600) {
        let input = reply(&accepted(Acknowledge::default()));
        let (mut login, mut buffer, mut found) = (Some(sent(password())), vec![], None);
        for piece in input.chunks(chunk) {
            buffer.extend_from_slice(piece);
            match login.take().unwrap().step(&buffer, &mut vec![]).unwrap() {
                LoginProgress::NeedMore { login: same, consumed, at_least } => {
                    buffer.drain(..consumed);
                    prop_assert!(at_least > buffer.len());
                    login = Some(same);
                }
                LoginProgress::Stepped { step, .. } => found = Some(step),
            }
        }
        prop_assert!(matches!(found, Some(LoginStep::Done(_))));
    }

    #[test]
    fn no_bytes_panic(payload: Vec<u8>) {
        let _ = sent(token("t")).step(&payload, &mut vec![]);
        let _ = sent(token("t")).step(&reply(&payload), &mut vec![]);
    }
}
