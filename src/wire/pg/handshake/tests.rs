//! Stories of beginnings, honest and not.

use proptest::prelude::*;

use super::*;
use crate::wire::pg::from_client::put_password;
use crate::wire::pg::startup::{put_cancel_request, put_gss_request, put_ssl_request, put_startup};

const CLEAR: Transport = Transport {
    encrypted: false,
    cleartext_token_allowed: false,
};
const LOOPBACK: Transport = Transport {
    encrypted: false,
    cleartext_token_allowed: true,
};
const DIRECT_TLS: Transport = Transport {
    encrypted: true,
    cleartext_token_allowed: false,
};

const ASKS_PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";

fn bytes(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![];
    put(&mut out);
    out
}

fn startup_packet(minor: u16, option: Option<&str>) -> Vec<u8> {
    let parameters = [("user", "writer"), ("database", "orders")].into_iter();
    bytes(|out| put_startup(out, minor, parameters.chain(option.map(|option| (option, "x")))))
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

fn go_on(step: Step) -> Handshake {
    let Step::Continue(handshake) = step else {
        panic!("not a continuation: {step:?}")
    };
    handshake
}

fn through_tls() -> Handshake {
    let (step, reply) = step(Handshake::start(CLEAR), &bytes(put_ssl_request));
    assert_eq!(reply, b"S");
    let Step::StartTls(state) = step else {
        panic!("no TLS")
    };
    assert_eq!(
        state.check_nothing_buffered(b"x"),
        Err(PeerMisbehaved::BytesBeforeTls)
    );
    state.established()
}

fn finish(handshake: Handshake, minor: u16) {
    let (next, reply) = step(handshake, &startup_packet(minor, None));
    assert_eq!(reply, ASKS_PASSWORD);
    let (end, reply) = step(go_on(next), &bytes(|out| put_password(out, b"token")));
    assert_eq!(reply, b"");
    let Step::Presented(presented) = end else {
        panic!("not presented: {end:?}")
    };
    assert_eq!(presented.token.expose(), b"token");
    assert_eq!(presented.startup.parameter("database"), Some("orders"));
    assert_eq!(presented.startup.minor, minor);
}

#[test]
fn every_honest_way_leads_to_a_token() {
    finish(through_tls(), 0);
    finish(through_tls(), 2);
    finish(Handshake::start(DIRECT_TLS), 0);
    finish(Handshake::start(LOOPBACK), 0);
    let (next, reply) = step(Handshake::start(LOOPBACK), &bytes(put_gss_request));
    assert_eq!(reply, b"N");
    finish(go_on(next), 0);
    let (next, reply) = step(Handshake::start_without_tls(true), &bytes(put_ssl_request));
    assert_eq!(reply, b"N");
    finish(go_on(next), 0);
}

#[test]
fn an_empty_password_is_an_empty_token() {
    let (next, _) = step(Handshake::start(DIRECT_TLS), &startup_packet(0, None));
    let (end, _) = step(go_on(next), &bytes(|out| put_password(out, b"")));
    assert!(matches!(end, Step::Presented(presented) if presented.token.expose().is_empty()));
}

#[test]
fn versions_are_negotiated_only_where_they_must_be() {
    let reply_to = |minor, option| step(Handshake::start(DIRECT_TLS), &startup_packet(minor, option)).1;
    assert_eq!(reply_to(0, None), ASKS_PASSWORD);
    assert_eq!(reply_to(1, None), ASKS_PASSWORD);
    assert_eq!(reply_to(2, None), ASKS_PASSWORD);
    let newer = [b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0", ASKS_PASSWORD].concat();
    assert_eq!(reply_to(9999, None), newer);
    let option = [&b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0"[..], ASKS_PASSWORD].concat();
    assert_eq!(reply_to(0, Some("_pq_.x")), option);
    let old = [&8_u32.to_be_bytes()[..], &0x2_0000_u32.to_be_bytes()].concat();
    let error = misbehaved(Handshake::start(DIRECT_TLS), &old);
    assert_eq!(error, PeerMisbehaved::UnsupportedProtocol { major: 2, minor: 0 });
}

#[test]
fn a_token_in_clear_is_refused_before_it_is_asked_for() {
    let (end, reply) = step(Handshake::start(CLEAR), &startup_packet(9999, None));
    assert!(matches!(end, Step::Refuse(PeerRefused::TokenInClear)));
    assert_eq!(reply, b"");
    let (next, _) = step(Handshake::start_without_tls(false), &bytes(put_ssl_request));
    let (end, reply) = step(go_on(next), &startup_packet(0, None));
    assert!(matches!(end, Step::Refuse(PeerRefused::TokenInClear)));
    assert_eq!(reply, b"");
}

#[test]
fn bytes_behind_the_request_for_tls_are_an_attack() {
    let input = [bytes(put_ssl_request), startup_packet(0, None)].concat();
    assert_eq!(
        misbehaved(Handshake::start(CLEAR), &input),
        PeerMisbehaved::BytesBeforeTls
    );
}

#[test]
fn encryption_is_asked_for_once() {
    let tls = PeerMisbehaved::EncryptionAskedTwice { what: "TLS" };
    let gss = PeerMisbehaved::EncryptionAskedTwice {
        what: "GSSAPI encryption",
    };
    assert_eq!(misbehaved(through_tls(), &bytes(put_ssl_request)), tls);
    assert_eq!(
        misbehaved(Handshake::start(DIRECT_TLS), &bytes(put_ssl_request)),
        tls
    );
    assert_eq!(misbehaved(through_tls(), &bytes(put_gss_request)), gss);
    let (next, _) = step(Handshake::start(CLEAR), &bytes(put_gss_request));
    assert_eq!(misbehaved(go_on(next), &bytes(put_gss_request)), gss);
    let (next, _) = step(Handshake::start_without_tls(true), &bytes(put_ssl_request));
    assert_eq!(misbehaved(go_on(next), &bytes(put_ssl_request)), tls);
}

#[test]
fn a_cancel_is_taken_in_clear_and_in_tls() {
    for key in [vec![7; 4], vec![7; 32], vec![7; 256]] {
        for handshake in [Handshake::start(CLEAR), through_tls()] {
            let (end, reply) = step(handshake, &bytes(|out| put_cancel_request(out, 42, &key)));
            assert!(matches!(end, Step::Cancel { process: 42, key: found } if found == key));
            assert_eq!(reply, b"");
        }
    }
    for length in [0, 3, 257] {
        let packet = bytes(|out| put_cancel_request(out, 42, &vec![7; length]));
        misbehaved(Handshake::start(CLEAR), &packet);
    }
}

#[test]
fn sizes_are_refused_by_their_announcement() {
    misbehaved(Handshake::start(CLEAR), &10_005_u32.to_be_bytes());
    misbehaved(Handshake::start(CLEAR), &7_u32.to_be_bytes());
    misbehaved(Handshake::start(CLEAR), b"GET / HTTP/1.1");
    misbehaved(Handshake::start(CLEAR), b"\x16\x03\x01\x02");
    let awaiting = || go_on(step(Handshake::start(DIRECT_TLS), &startup_packet(0, None)).0);
    let longest = bytes(|out| put_password(out, &vec![b'x'; TOKEN_BYTES_MAX]));
    assert!(matches!(step(awaiting(), &longest).0, Step::Presented(_)));
    let longer = bytes(|out| put_password(out, &vec![b'x'; TOKEN_BYTES_MAX + 1]));
    misbehaved(awaiting(), &longer[..5]);
    misbehaved(awaiting(), b"Q");
    misbehaved(awaiting(), b"p\0\0\0\x07a\0b");
    misbehaved(awaiting(), b"p\0\0\0\x06ab");
}

#[test]
fn a_malformed_start_is_refused() {
    let good = startup_packet(0, None);
    let mut trailing = good.clone();
    trailing.push(b'x');
    trailing[..4].copy_from_slice(&u32::try_from(good.len() + 1).unwrap().to_be_bytes());
    misbehaved(Handshake::start(LOOPBACK), &trailing);
    let mut unending = good.clone();
    unending.pop();
    unending[..4].copy_from_slice(&u32::try_from(good.len() - 1).unwrap().to_be_bytes());
    misbehaved(Handshake::start(LOOPBACK), &unending);
    let mut latin = good;
    latin[13] = 0xe4;
    misbehaved(Handshake::start(LOOPBACK), &latin);
}

#[test]
fn debug_tells_no_secret() {
    let packet = bytes(|out| put_startup(out, 0, [("application_name", "eyJhbGciOi")]));
    let (next, _) = step(Handshake::start(DIRECT_TLS), &packet);
    let (end, _) = step(go_on(next), &bytes(|out| put_password(out, b"eyJhbGciOi")));
    assert!(!format!("{end:?}").contains("eyJ"));
    let (end, _) = step(
        Handshake::start(CLEAR),
        &bytes(|out| put_cancel_request(out, 1, &[251; 4])),
    );
    assert!(!format!("{end:?}").contains("251"));
}

proptest! {
    /// However the bytes are cut, the same token arrives.
    #[test]
    fn any_chunking_gives_the_same(chunk in 1_usize..60, token in "[a-zA-Z0-9._-]{0,200}") {
        let mut input = startup_packet(2, None);
        put_password(&mut input, token.as_bytes());
        let (mut handshake, mut buffer, mut found) = (Handshake::start(DIRECT_TLS), vec![], None);
        for piece in input.chunks(chunk) {
            buffer.extend_from_slice(piece);
            loop {
                match handshake.step(&buffer, &mut vec![]).unwrap() {
                    Progress::NeedMore { handshake: same, at_least } => {
                        prop_assert!(at_least > buffer.len());
                        handshake = same;
                        break;
                    }
                    Progress::Stepped { step, consumed } => {
                        buffer.drain(..consumed);
                        match step {
                            Step::Continue(next) => handshake = next,
                            Step::Presented(presented) => { found = Some(presented); handshake = Handshake::start(CLEAR); }
                            Step::StartTls(_) | Step::Cancel { .. } | Step::Refuse(_) => panic!("not on the way to a token"),
                        }
                    }
                }
            }
        }
        let found = found.unwrap();
        prop_assert_eq!(found.token.expose().as_slice(), token.as_bytes());
    }

    #[test]
    fn no_bytes_panic(input: Vec<u8>) {
        let _ = Handshake::start(CLEAR).step(&input, &mut vec![]);
        let awaiting = go_on(step(Handshake::start(DIRECT_TLS), &startup_packet(0, None)).0);
        let _ = awaiting.step(&input, &mut vec![]);
    }
}
