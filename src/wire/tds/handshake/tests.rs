//! Stories of beginnings, honest and not.

use proptest::prelude::*;

use super::*;
use crate::wire::tds::feature::Feature;
use crate::wire::tds::login7::flags;
use crate::wire::tds::packet::{PacketKind, put_message};
use crate::wire::tds::prelogin::Guid;

const TRACE: TraceId = TraceId {
    connection: Guid([1; 16]),
    activity: Guid([2; 16]),
    sequence: 3,
};

fn settings() -> Settings {
    Settings {
        tls_offered: true,
        cleartext_token_allowed: false,
        token_service: Some(TokenService {
            sts_url: "https://login.example".to_owned(),
            spn: "api://gatepost".to_owned(),
        }),
        version: ProgramVersion {
            major: 16,
            ..ProgramVersion::default()
        },
    }
}

fn loopback() -> Settings {
    Settings {
        cleartext_token_allowed: true,
        ..settings()
    }
}

fn message(kind: PacketKind, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    put_message(
        &mut out,
        kind,
        Status::NORMAL,
        packet::LOGIN_PACKET_BYTES,
        payload,
    );
    out
}

fn hello(encryption: Option<Encryption>, federated: Option<bool>) -> Vec<u8> {
    let mut payload = vec![];
    Prelogin {
        version: Some(ProgramVersion::default()),
        encryption,
        mars: Some(true),
        trace: Some(TRACE),
        federated,
        ..Prelogin::default()
    }
    .put(&mut payload);
    message(PacketKind::Prelogin, &payload)
}

fn login(change: impl FnOnce(&mut Login7)) -> Vec<u8> {
    let mut login = Login7 {
        user: "writer".to_owned(),
        database: "orders".to_owned(),
        features: vec![Feature {
            id: feature::id::JSON_SUPPORT,
            data: vec![1],
        }],
        ..Login7::default()
    };
    change(&mut login);
    let mut payload = vec![];
    login.put(&mut payload).unwrap();
    message(PacketKind::Login7, &payload)
}

fn with_password(password: &str) -> Vec<u8> {
    login(|login| login.password = Secret::new(password.to_owned()))
}

fn fedauth(echo: bool, way: Way) -> Vec<u8> {
    let mut data = vec![];
    Federated { echo, way }.put(&mut data);
    login(|login| {
        let id = feature::id::FEDAUTH;
        login.features.push(Feature { id, data });
        let id = feature::id::UTF8_SUPPORT;
        login.features.push(Feature { id, data: vec![] });
    })
}

fn token(text: &str) -> Way {
    Way::SecurityToken(Secret::new(text.as_bytes().to_vec()))
}

/// One step that must be taken, with the whole of `input`.
fn step(handshake: Handshake, input: &[u8]) -> (Step, Vec<u8>) {
    let mut reply = vec![];
    match handshake.step(input, &mut reply).unwrap() {
        Progress::Stepped { step, consumed } => {
            assert_eq!(consumed, input.len());
            (step, reply)
        }
        Progress::NeedMore { .. } => panic!("needs more"),
    }
}

fn misbehaved(handshake: Handshake, input: &[u8]) -> PeerMisbehaved {
    let mut reply = vec![];
    let error = handshake.step(input, &mut reply).unwrap_err();
    assert_eq!(reply, b"", "nothing is said to a peer that misbehaves");
    error
}

fn refused(step: Step) -> PeerRefused {
    let Step::Refuse(refused) = step else {
        panic!("not refused: {step:?}")
    };
    refused
}

fn go_on(step: Step) -> Handshake {
    let Step::Continue(handshake) = step else {
        panic!("not a continuation: {step:?}")
    };
    handshake
}

fn presented(step: Step) -> Presented {
    let Step::Presented(presented) = step else {
        panic!("not presented: {step:?}")
    };
    *presented
}

/// The payload of the one message in `reply`.
fn answered(reply: &[u8]) -> Vec<u8> {
    let (consumed, Decoded::Message(message)) = Assembler::new(prelogin::FROM_SERVER).push(reply).unwrap()
    else {
        panic!("no reply")
    };
    assert_eq!(consumed, reply.len());
    message.payload
}

fn through_tls(encryption: Option<Encryption>, federated: Option<bool>) -> Handshake {
    let (step, _) = step(Handshake::start(settings()), &hello(encryption, federated));
    let Step::StartTls(state, TlsPlace::InPrelogin) = step else {
        panic!("no TLS: {step:?}")
    };
    assert_eq!(
        state.check_nothing_buffered(b"x"),
        Err(PeerMisbehaved::BytesBeforeTls)
    );
    state.established()
}

fn strict() -> Handshake {
    let mut reply = vec![];
    let progress = Handshake::start(settings()).step(b"\x16", &mut reply).unwrap();
    let Progress::Stepped {
        step: Step::StartTls(state, TlsPlace::Strict),
        consumed: 0,
    } = progress
    else {
        panic!("no TLS: {progress:?}")
    };
    assert_eq!(reply, b"");
    assert_eq!(state.check_nothing_buffered(b"\x16\x03"), Ok(()));
    state.established()
}

#[test]
fn encryption_is_agreed_by_one_table() {
    use Encryption::{NotSupported, Off, On, Required};
    let in_packets = Some(TlsPlace::InPrelogin);
    let closed = Settings {
        tls_offered: false,
        ..settings()
    };
    let bare = Settings {
        tls_offered: false,
        ..loopback()
    };
    let rows = [
        (settings(), Some(Off), Some((Required, in_packets))),
        (settings(), Some(On), Some((On, in_packets))),
        (settings(), Some(NotSupported), Some((Required, in_packets))),
        (settings(), Some(Required), Some((On, in_packets))),
        (settings(), None, Some((Required, in_packets))),
        (loopback(), Some(Off), Some((Required, in_packets))),
        (loopback(), Some(On), Some((On, in_packets))),
        (loopback(), Some(NotSupported), Some((NotSupported, None))),
        (bare.clone(), Some(NotSupported), Some((NotSupported, None))),
        (bare, Some(Off), Some((NotSupported, None))),
        (closed.clone(), Some(On), None),
        (closed, Some(NotSupported), None),
    ];
    for (settings, asked, expected) in rows {
        let shown = format!("{settings:?} {asked:?}");
        let (step, reply) = step(Handshake::start(settings), &hello(asked, None));
        let Some((answer, tls)) = expected else {
            assert_eq!(refused(step), PeerRefused::TokenInClear, "{shown}");
            assert_eq!(reply, b"");
            continue;
        };
        let prelogin = Prelogin::decode(&answered(&reply)).unwrap();
        assert_eq!(prelogin.encryption, Some(answer), "{shown}");
        assert_eq!(prelogin.mars, Some(false));
        assert_eq!((prelogin.nonce, prelogin.trace), (None, None));
        assert_eq!(prelogin.version.map(|version| version.major), Some(16));
        match step {
            Step::StartTls(state, place) => {
                assert_eq!(tls, Some(place), "{shown}");
                let cannot = asked == Some(NotSupported);
                assert_eq!(state.if_closed().is_some(), cannot, "{shown}");
            }
            other @ (Step::Continue(_) | Step::Presented(_) | Step::Refuse(_)) => {
                go_on(other);
                assert_eq!(tls, None, "{shown}");
            }
        }
    }
}

#[test]
fn federation_is_spoken_of_only_if_asked() {
    for federated in [None, Some(false), Some(true)] {
        let (_, reply) = step(
            Handshake::start(settings()),
            &hello(Some(Encryption::On), federated),
        );
        assert_eq!(Prelogin::decode(&answered(&reply)).unwrap().federated, federated);
    }
}

#[test]
fn every_honest_way_leads_to_a_token() {
    let clear = |federated| {
        let hello = hello(Some(Encryption::NotSupported), federated);
        go_on(step(Handshake::start(loopback()), &hello).0)
    };
    let in_strict = |federated| {
        let (next, reply) = step(strict(), &hello(Some(Encryption::NotSupported), federated));
        let prelogin = Prelogin::decode(&answered(&reply)).unwrap();
        assert_eq!(prelogin.encryption, Some(Encryption::NotSupported));
        go_on(next)
    };
    let packed = |federated| through_tls(Some(Encryption::Off), federated);
    let ways: [(&dyn Fn(Option<bool>) -> Handshake, _); 3] = [
        (&clear, None),
        (&in_strict, Some(TlsPlace::Strict)),
        (&packed, Some(TlsPlace::InPrelogin)),
    ];
    for (begin, tls) in ways {
        let found = presented(step(begin(None), &with_password("ticket")).0);
        assert_eq!(found.token.expose(), b"ticket");
        assert_eq!((found.arrival, found.beginning.tls), (Arrival::Password, tls));
        assert_eq!(found.acknowledge, Acknowledge::default());
        assert_eq!(found.beginning.trace, Some(TRACE));
        assert_eq!(found.login.database, "orders");
        for echo in [None, Some(false), Some(true)] {
            let input = fedauth(echo == Some(true), token("eyJ"));
            let found = presented(step(begin(echo), &input).0);
            assert_eq!(found.token.expose(), b"eyJ");
            assert_eq!(found.arrival, Arrival::SecurityToken);
            let both = Acknowledge {
                federated: true,
                utf8: true,
            };
            assert_eq!(found.acknowledge, both);
        }
    }
}

#[test]
fn a_client_that_asks_is_sent_for_a_token() {
    let ask = fedauth(true, Way::Directed { workflow: 2 });
    let (next, reply) = step(through_tls(Some(Encryption::On), Some(true)), &ask);
    let payload = answered(&reply);
    assert_eq!(payload[0], fedauth::FEDAUTHINFO);
    let service = TokenService::decode(&mut crate::wire::Cursor::new("reply", &payload[1..]));
    assert_eq!(service.as_ref().ok(), settings().token_service.as_ref());
    let mut brought = vec![];
    TokenMessage {
        token: Secret::new(b"eyJ".to_vec()),
        nonce: None,
    }
    .put(&mut brought);
    let brought = message(PacketKind::FederatedToken, &brought);
    let found = presented(step(go_on(next), &brought).0);
    assert_eq!(found.token.expose(), b"eyJ");
    assert_eq!(found.arrival, Arrival::Directed);
    assert!(found.acknowledge.federated);

    let nobody = Settings {
        token_service: None,
        ..loopback()
    };
    let (next, _) = step(
        Handshake::start(nobody),
        &hello(Some(Encryption::NotSupported), Some(true)),
    );
    let (end, reply) = step(go_on(next), &ask);
    assert_eq!(refused(end), PeerRefused::NoTokenService);
    assert_eq!(reply, b"");
}

#[test]
fn what_is_not_served_is_refused_with_a_reason() {
    use RefusalCode::{ProtocolViolation, TokenMissing};
    let begin = || through_tls(Some(Encryption::On), None);
    let of = |input: &[u8]| refused(step(begin(), input).0);
    let rows = [
        (with_password(""), PeerRefused::PasswordEmpty, TokenMissing),
        (fedauth(false, token("")), PeerRefused::TokenEmpty, TokenMissing),
        (
            fedauth(false, Way::Other { library: 0 }),
            PeerRefused::UnknownLibrary { library: 0 },
            TokenMissing,
        ),
        (
            login(|login| login.version = TdsVersion::V7_2),
            PeerRefused::OldVersion(TdsVersion::V7_2),
            ProtocolViolation,
        ),
        (
            login(|login| login.flags_two = flags::TWO_INTEGRATED_SECURITY),
            PeerRefused::Objection(Objection::WindowsAuthentication),
            TokenMissing,
        ),
        (
            login(|login| login.change_password = Secret::new("new".to_owned())),
            PeerRefused::Objection(Objection::ChangePassword),
            TokenMissing,
        ),
        (
            login(|login| login.attach_file = "x.mdf".to_owned()),
            PeerRefused::Objection(Objection::AttachFile),
            ProtocolViolation,
        ),
    ];
    for (input, expected, code) in rows {
        let found = of(&input);
        assert_eq!(found, expected);
        assert_eq!(found.refusal().0, code, "{found}");
    }
    let (_, reason) = PeerRefused::PasswordEmpty.refusal();
    assert_eq!(reason.to_string(), "no token was sent: the password is empty");
}

#[test]
fn bytes_behind_the_request_for_tls_are_an_attack() {
    let input = [&hello(Some(Encryption::On), None)[..], &with_password("x")].concat();
    assert_eq!(
        misbehaved(Handshake::start(settings()), &input),
        PeerMisbehaved::BytesBeforeTls
    );
}

#[test]
fn an_echo_must_be_one() {
    for (said, echo) in [(None, true), (Some(true), false), (Some(false), true)] {
        let error = misbehaved(
            through_tls(Some(Encryption::On), said),
            &fedauth(echo, token("eyJ")),
        );
        assert!(matches!(error, PeerMisbehaved::Contradiction { .. }));
    }
}

#[test]
fn everything_has_its_order() {
    misbehaved(Handshake::start(settings()), &with_password("x"));
    misbehaved(Handshake::start(settings()), b"GET / HTTP/1.1");
    misbehaved(strict(), b"\x16\x03\x01");
    let no_certificate = Settings {
        tls_offered: false,
        ..loopback()
    };
    misbehaved(Handshake::start(no_certificate), b"\x16\x03\x01");
    misbehaved(
        through_tls(Some(Encryption::On), None),
        &hello(Some(Encryption::On), None),
    );
    let (next, _) = step(
        through_tls(Some(Encryption::On), Some(true)),
        &fedauth(true, Way::Directed { workflow: 1 }),
    );
    misbehaved(go_on(next), &with_password("x"));
    let mut taken_back = vec![];
    put_message(&mut taken_back, PacketKind::Login7, Status::IGNORE, 4096, b"");
    misbehaved(through_tls(Some(Encryption::On), None), &taken_back);
    // Once a message has begun, its bytes are its own: a later 0x16 is no TLS.
    let whole = hello(Some(Encryption::Off), None);
    let Ok(Progress::NeedMore { handshake, .. }) =
        Handshake::start(settings()).step(&whole[..9], &mut vec![])
    else {
        panic!("decoded a cut message")
    };
    assert!(!matches!(
        handshake.step(&[&[0x16][..], &whole[10..]].concat(), &mut vec![]),
        Ok(Progress::Stepped {
            step: Step::StartTls(_, TlsPlace::Strict),
            ..
        })
    ));
}

#[test]
fn what_a_driver_says_of_itself_is_kept() {
    let mut data = vec![];
    utf16::put(&mut data, "1|MS-ODBC|18.6.2.1|");
    let input = login(|login| {
        login.password = Secret::new("x".to_owned());
        let id = feature::id::USER_AGENT;
        login.features.push(Feature { id, data });
    });
    let found = presented(step(through_tls(Some(Encryption::On), None), &input).0);
    assert_eq!(found.user_agent.as_deref(), Some("1|MS-ODBC|18.6.2.1|"));
}

#[test]
fn debug_tells_no_secret() {
    let secret = "eyJhbGciOi";
    let begin = || through_tls(Some(Encryption::On), None);
    for input in [with_password(secret), fedauth(false, token(secret))] {
        let (end, _) = step(begin(), &input);
        let debug = format!("{end:?}");
        assert!(!debug.contains("eyJ") && !debug.contains("101, 121"), "{debug}");
        let Ok(Progress::NeedMore { handshake, .. }) = begin().step(&input[..input.len() - 1], &mut vec![])
        else {
            panic!("decoded a cut login")
        };
        let debug = format!("{handshake:?}");
        assert!(!debug.contains("eyJ") && !debug.contains("101, "), "{debug}");
    }
}

proptest! {
    /// However the bytes are cut, the same token arrives.
    #[test]
    fn any_chunking_gives_the_same(chunk in 1_usize..5000, text in "[a-zA-Z0-9._-]{1,4000}") {
        let mut input = hello(Some(Encryption::NotSupported), Some(true));
        input.extend(fedauth(true, token(&text)));
        let (mut handshake, mut buffer, mut found) = (Handshake::start(loopback()), vec![], None);
        for piece in input.chunks(chunk) {
            buffer.extend_from_slice(piece);
            loop {
                match handshake.step(&buffer, &mut vec![]).unwrap() {
                    Progress::NeedMore { handshake: same, consumed, at_least } => {
                        buffer.drain(..consumed);
                        prop_assert!(at_least > buffer.len());
                        handshake = same;
                        break;
                    }
                    Progress::Stepped { step, consumed } => {
                        buffer.drain(..consumed);
                        match step {
                            Step::Continue(next) => handshake = next,
                            Step::Presented(presented) => {
                                found = Some(presented);
                                handshake = Handshake::start(settings());
                            }
                            Step::StartTls(..) | Step::Refuse(_) => panic!("not on the way to a token"),
                        }
                    }
                }
            }
        }
        let found = found.unwrap();
        prop_assert_eq!(found.token.expose().as_slice(), text.as_bytes());
    }

    #[test]
    fn no_bytes_panic(payload: Vec<u8>) {
        let _ = Handshake::start(settings()).step(&payload, &mut vec![]);
        let _ = Handshake::start(settings()).step(&message(PacketKind::Prelogin, &payload), &mut vec![]);
        let _ = strict().step(&payload, &mut vec![]);
        let begin = || through_tls(Some(Encryption::On), Some(true));
        let _ = begin().step(&message(PacketKind::Login7, &payload), &mut vec![]);
        let ask = fedauth(true, Way::Directed { workflow: 1 });
        let awaiting = go_on(step(begin(), &ask).0);
        let _ = awaiting.step(&message(PacketKind::FederatedToken, &payload), &mut vec![]);
    }
}
