//! The codecs against exchanges captured from real peers (`tests/vectors/pg`): every message decodes,
//! every prefix asks for more, no changed bit makes anything panic.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a vector that cannot be read fails the test"
)]

use std::fs;
use std::path::Path;

use gatepost::wire::Decoded;
use gatepost::wire::pg::startup::{self, FirstPacket};
use gatepost::wire::pg::{frame, from_client, from_server};

const LENGTH_MAX: usize = 1 << 20;

/// All bytes of either side of one exchange.
struct Exchange {
    name: String,
    client: Vec<u8>,
    server: Vec<u8>,
}

fn exchanges() -> Vec<Exchange> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/pg");
    let read = |path: &Path| {
        let mut exchange = Exchange {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            client: vec![],
            server: vec![],
        };
        for line in fs::read_to_string(path).unwrap().lines() {
            match line.split_once(' ') {
                Some((">", hex)) => exchange.client.extend(unhex(hex)),
                Some(("<", hex)) => exchange.server.extend(unhex(hex)),
                Some(("#", _)) => {}
                _ => panic!("{}: not a line of a vector: {line}", path.display()),
            }
        }
        exchange
    };
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| read(&entry.unwrap().path()))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!found.is_empty());
    found
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// The client's first packets, each but the last answered with one `N`, and where they end.
fn first_packets(client: &[u8]) -> (Vec<FirstPacket>, usize) {
    let (mut packets, mut at) = (vec![], 0);
    loop {
        let Decoded::Message((packet, consumed)) = startup::first_packet(&client[at..]).unwrap() else {
            panic!("the vector ends in its start-up");
        };
        at += consumed;
        let last = matches!(packet, FirstPacket::Startup(_));
        packets.push(packet);
        if last {
            return (packets, at);
        }
    }
}

/// Tag and body.
type Message<'a> = (u8, &'a [u8]);

/// Each message; the bytes must end with the last one.
fn frames(mut bytes: &[u8]) -> Vec<Message<'_>> {
    let mut found = vec![];
    while !bytes.is_empty() {
        let Decoded::Message((head, body)) = frame::whole(bytes, LENGTH_MAX).unwrap() else {
            panic!("cut message");
        };
        found.push((head.tag, body));
        bytes = &bytes[head.length..];
    }
    found
}

/// What the client and the server said after the start-up.
fn split(exchange: &Exchange) -> (Vec<Message<'_>>, Vec<Message<'_>>) {
    let (packets, start) = first_packets(&exchange.client);
    (
        frames(&exchange.client[start..]),
        frames(&exchange.server[packets.len() - 1..]),
    )
}

#[test]
fn every_message_decodes() {
    for exchange in exchanges() {
        let (client, server) = split(&exchange);
        for (tag, body) in client {
            let parsed = from_client::parse(tag, body);
            assert!(parsed.is_ok(), "{}: {parsed:?}", exchange.name);
        }
        for (tag, body) in server {
            let parsed = from_server::parse(tag, body);
            assert!(parsed.is_ok(), "{}: {parsed:?}", exchange.name);
        }
    }
}

#[test]
fn every_cut_asks_for_more() {
    for exchange in exchanges() {
        let (_, start) = first_packets(&exchange.client);
        for cut in 0..start {
            match startup::first_packet(&exchange.client[..cut]).unwrap() {
                Decoded::NeedMore { at_least } => assert!(at_least > cut),
                Decoded::Message((_, consumed)) => assert!(consumed <= cut),
            }
        }
        let (client, server) = split(&exchange);
        for (tag, body) in client.into_iter().chain(server) {
            let mut whole = vec![tag];
            whole.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            whole.extend(body);
            for cut in 0..whole.len() {
                let Decoded::NeedMore { at_least } = frame::whole(&whole[..cut], LENGTH_MAX).unwrap() else {
                    panic!("{}: decoded a cut message", exchange.name);
                };
                assert!(at_least > cut && at_least <= whole.len());
            }
        }
    }
}

#[test]
fn no_changed_bit_and_no_cut_body_panics() {
    for exchange in exchanges() {
        let (client, server) = split(&exchange);
        for (tag, body) in client.into_iter().chain(server) {
            for cut in 0..body.len() {
                consume(tag, &body[..cut]);
            }
            let mut changed = body.to_vec();
            for bit in 0..body.len() * 8 {
                changed[bit / 8] ^= 1 << (bit % 8);
                consume(tag, &changed);
                changed[bit / 8] ^= 1 << (bit % 8);
            }
        }
        let (_, start) = first_packets(&exchange.client);
        let mut changed = exchange.client[..start].to_vec();
        for bit in 0..start * 8 {
            changed[bit / 8] ^= 1 << (bit % 8);
            let _ = startup::first_packet(&changed);
            let _ = frame::whole(&changed, LENGTH_MAX);
            changed[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Parses as either side and looks at everything that is found.
fn consume(tag: u8, body: &[u8]) {
    let _ = from_client::parse(tag, body);
    let _ = from_client::bind_names(body);
    match from_server::parse(tag, body) {
        Ok(from_server::FromServer::ErrorResponse(fields)) => {
            let _ = (fields.get(b'C'), fields.iter().count());
        }
        Ok(from_server::FromServer::DataRow(row)) => {
            for index in 0..=usize::from(row.columns()) {
                let _ = row.column(index);
            }
        }
        Ok(from_server::FromServer::Authentication(from_server::Authentication::Sasl(names))) => {
            let _ = names.count();
        }
        _ => {}
    }
}

#[test]
fn what_was_captured_says_what_it_should() {
    let exchanges = exchanges();
    let of = |name: &str| exchanges.iter().find(|exchange| exchange.name == name).unwrap();
    let (_, server) = split(of("scram_wrong_password"));
    let last = server.last().unwrap();
    let Ok(from_server::FromServer::ErrorResponse(fields)) = from_server::parse(last.0, last.1) else {
        panic!("not an error");
    };
    assert_eq!(fields.get(b'C'), Some(&b"28P01"[..]));

    let (packets, _) = first_packets(&of("negotiated").client);
    let Some(FirstPacket::Startup(startup)) = packets.last() else {
        panic!("no start-up")
    };
    assert_eq!((startup.asked_minor, startup.minor), (9999, 2));
    assert_eq!(startup.unknown_options, ["_pq_.unheard"]);
    assert_eq!(startup.parameter("user"), Some("postgres"));
}
