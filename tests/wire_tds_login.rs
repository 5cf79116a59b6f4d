//! The TDS login against a second opinion, the crate `tds-protocol`, and against exchanges captured from
//! real drivers (`tests/vectors/tds`).

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a message that cannot be read fails the test"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the second opinion's many tokens one is looked for"
)]

use std::fs;
use std::path::Path;

use gatepost::domain::Secret;
use gatepost::wire::tds::event::{DoneKind, DoneStatus};
use gatepost::wire::tds::feature;
use gatepost::wire::tds::fedauth::{Federated, TokenService, Way};
use gatepost::wire::tds::handshake::{Arrival, Handshake, PeerRefused, Presented, Progress, Settings, Step};
use gatepost::wire::tds::login_ack::{self, Acknowledge, LoginAnswer};
use gatepost::wire::tds::login_reply::LoginReply;
use gatepost::wire::tds::login7::Login7;
use gatepost::wire::tds::packet::{self, Assembler, PacketKind, Status};
use gatepost::wire::tds::prelogin::Guid;
use gatepost::wire::tds::prelogin::{self, Encryption, Prelogin, TraceId};
use gatepost::wire::tds::reply::{self, Said};
use gatepost::wire::tds::version::{ProgramVersion, TdsVersion};
use gatepost::wire::{Decoded, PeerMisbehaved};
use tds_protocol::login7 as their_login7;
use tds_protocol::prelogin as their_prelogin;
use tds_protocol::token::{EnvChangeType, EnvChangeValue, Token, TokenParser};

mod second_opinion {
    use super::*;

    #[test]
    fn their_prelogin_is_read() {
        use their_prelogin::EncryptionLevel as Theirs;
        let levels = [
            (Theirs::Off, Encryption::Off),
            (Theirs::On, Encryption::On),
            (Theirs::NotSupported, Encryption::NotSupported),
            (Theirs::Required, Encryption::Required),
            (Theirs::ClientCertOn, Encryption::On),
        ];
        for (theirs, ours) in levels {
            let payload = their_prelogin::PreLogin::new()
                .with_encryption(theirs)
                .with_instance("SQL2022")
                .with_fed_auth_required(true)
                .encode();
            let read = Prelogin::decode(&payload).unwrap();
            assert_eq!(read.encryption, Some(ours));
            assert_eq!(read.instance.as_deref(), Some(&b"SQL2022"[..]));
            assert_eq!((read.mars, read.federated), (Some(false), Some(true)));
        }
    }

    #[test]
    fn our_prelogin_is_read_by_them() {
        let mut payload = vec![];
        Prelogin {
            version: Some(ProgramVersion {
                major: 16,
                minor: 0,
                build: 4135,
                sub_build: 4,
            }),
            encryption: Some(Encryption::Required),
            instance: Some(vec![]),
            mars: Some(false),
            trace: Some(TraceId {
                connection: Guid([1; 16]),
                activity: Guid([2; 16]),
                sequence: 3,
            }),
            federated: Some(true),
            nonce: Some([7; 32]),
            ..Prelogin::default()
        }
        .put(&mut payload);
        let read = their_prelogin::PreLogin::decode(&payload[..]).unwrap();
        assert_eq!(read.encryption, their_prelogin::EncryptionLevel::Required);
        assert!(read.fed_auth_required && !read.mars);
        assert_eq!(read.nonce, Some([7; 32]));
        let version = read.server_version.unwrap();
        assert_eq!((version.major, version.minor, version.build), (16, 0, 4135));
    }

    #[test]
    fn their_login_is_read() {
        let token = "t".repeat(3000);
        let (mut data, way) = (vec![], Way::SecurityToken(Secret::new(token.into_bytes())));
        let federated = Federated { echo: true, way };
        federated.put(&mut data);
        let mut theirs = their_login7::Login7::new()
            .with_sql_auth("wríter", "pässwörd🔑")
            .with_database("orders")
            .with_hostname("workstation")
            .with_app_name("reports")
            .with_server_name("db.example,1433")
            .with_language("Deutsch")
            .with_packet_size(8000)
            .with_read_only_intent(true)
            .with_feature(their_login7::FeatureExtension {
                feature_id: their_login7::FeatureId::FedAuth,
                data: data.into(),
            });
        theirs.option_flags3.extension = true;
        let read = Login7::decode(&theirs.encode()).unwrap();
        assert_eq!(read.version, TdsVersion::V7_4);
        assert_eq!((read.user.as_str(), read.database.as_str()), ("wríter", "orders"));
        assert_eq!(read.password.expose(), "pässwörd🔑");
        assert_eq!(
            (read.host.as_str(), read.application.as_str()),
            ("workstation", "reports")
        );
        assert_eq!(
            (read.server.as_str(), read.language.as_str()),
            ("db.example,1433", "Deutsch")
        );
        assert_eq!(read.packet_bytes, 8000);
        assert!(read.is_odbc() && read.is_read_only_intent());
        assert_eq!(read.objection(), None);
        let found = feature::find(&read.features, feature::id::FEDAUTH).unwrap();
        assert_eq!(Federated::decode(found), Ok(federated));
        let windows = their_login7::Login7::new().with_integrated_auth(vec![7; 70_000]);
        let read = Login7::decode(&windows.encode()).unwrap();
        assert_eq!(read.sspi.len(), 70_000);
        assert!(read.objection().is_some());
    }

    /// There is no decoder on their side: the same login, written by both, must be the same bytes.
    #[test]
    fn our_login_is_theirs_byte_for_byte() {
        let theirs = their_login7::Login7::new()
            .with_sql_auth("writer", "hunter2")
            .with_database("orders")
            .with_hostname("workstation");
        let expected = theirs.encode();
        let read = Login7::decode(&expected).unwrap();
        let mut ours = vec![];
        read.put(&mut ours).unwrap();
        assert_eq!(ours, expected);
    }

    fn tokens(payload: Vec<u8>) -> Vec<Token> {
        let mut parser = TokenParser::new(payload.into());
        let mut found = vec![];
        while let Some(token) = parser.next_token().unwrap() {
            found.push(token);
        }
        found
    }

    #[test]
    fn our_login_answer_is_read_by_them() {
        let mut payload = vec![];
        login_ack::put_login_answer(&mut payload, &login_answer());
        let tokens = tokens(payload);
        let changes: Vec<_> = tokens
            .iter()
            .filter_map(|token| match token {
                Token::EnvChange(change) => Some((change.env_type, format!("{:?}", change.new_value))),
                _ => None,
            })
            .collect();
        let kinds: Vec<_> = changes.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(
            kinds,
            [
                EnvChangeType::Database,
                EnvChangeType::SqlCollation,
                EnvChangeType::Language,
                EnvChangeType::PacketSize,
            ]
        );
        assert!(changes[0].1.contains("orders") && changes[3].1.contains("8000"));
        let ack = tokens.iter().find_map(|token| match token {
            Token::LoginAck(ack) => Some(ack),
            _ => None,
        });
        let ack = ack.unwrap();
        // They read it with the small byte first; the example in MS-TDS 4.3 and every driver say otherwise.
        assert_eq!((ack.interface, ack.tds_version.swap_bytes()), (1, 0x7400_0004));
        assert_eq!(ack.prog_name, "Microsoft SQL Server");
        let granted = tokens.iter().find_map(|token| match token {
            Token::FeatureExtAck(granted) => Some(&granted.features),
            _ => None,
        });
        let granted: Vec<_> = granted
            .unwrap()
            .iter()
            .map(|feature| (feature.feature_id, feature.data.to_vec()))
            .collect();
        assert_eq!(granted, [(2, vec![]), (10, vec![1])]);
        let Some(Token::Done(done)) = tokens.last() else {
            panic!("no end: {tokens:?}")
        };
        assert!(!done.status.more && !done.status.error);
        let infos = tokens.iter().filter(|token| matches!(token, Token::Info(_)));
        assert_eq!(infos.count(), 2);
    }

    #[test]
    fn our_refusal_is_read_by_them() {
        let mut payload = vec![];
        reply::put_error(
            &mut payload,
            &Said {
                number: 18456,
                state: 2,
                class: 14,
                text: "token expired 5s ago 🐘",
                server: "gatepost",
                procedure: "",
                line: 1,
            },
        );
        reply::put_done(&mut payload, DoneKind::Batch, DoneStatus::ERROR, 0, 0);
        let tokens = tokens(payload);
        let [Token::Error(error), Token::Done(done)] = &tokens[..] else {
            panic!("not two tokens: {tokens:?}")
        };
        assert_eq!((error.number, error.state, error.class), (18456, 2, 14));
        assert_eq!(error.message, "token expired 5s ago 🐘");
        assert_eq!((error.server.as_str(), error.line), ("gatepost", 1));
        assert!(done.status.error && !done.status.more);
    }

    #[test]
    fn our_direction_is_read_by_them() {
        let mut payload = vec![];
        let service = TokenService {
            sts_url: "https://login.example/tenant".to_owned(),
            spn: "api://gatepost".to_owned(),
        };
        service.put(&mut payload);
        let tokens = tokens(payload);
        let [Token::FedAuthInfo(info)] = &tokens[..] else {
            panic!("not one token: {tokens:?}")
        };
        assert_eq!((&info.sts_url, &info.spn), (&service.sts_url, &service.spn));
    }

    #[test]
    fn a_reset_is_confirmed_and_a_route_is_read_by_both() {
        let mut payload = vec![];
        reply::put_reset_ack(&mut payload);
        payload.extend_from_slice(b"\xe3\x10\0\x14\x0b\0\0\x99\x05\x03\0d\0b\x002\0\0\0");
        let found = tokens(payload.clone());
        let [Token::EnvChange(reset), Token::EnvChange(routed)] = &found[..] else {
            panic!("not two changes: {found:?}")
        };
        assert_eq!(reset.env_type, EnvChangeType::ResetConnectionCompletionAck);
        let EnvChangeValue::Routing { host, port } = &routed.new_value else {
            panic!("no route")
        };
        let ours = LoginReply::decode(&payload).unwrap().routed.unwrap();
        assert_eq!((host.as_str(), *port), (ours.host.as_str(), ours.port));
        assert_eq!((host.as_str(), *port), ("db2", 1433));
    }
}

const fn login_answer() -> LoginAnswer<'static> {
    LoginAnswer {
        server: "gatepost",
        database: "orders",
        language: "us_english",
        collation: [9, 4, 0xd0, 0, 0x34],
        packet_bytes: 8000,
        packet_bytes_before: 4096,
        version: TdsVersion::V7_4,
        program: "Microsoft SQL Server",
        program_version: [16, 0, 4, 0],
        acknowledge: Acknowledge {
            federated: true,
            utf8: true,
        },
    }
}

mod vectors {
    use super::*;

    /// All bytes of either side of one exchange.
    struct Exchange {
        name: String,
        client: Vec<u8>,
        server: Vec<u8>,
    }

    fn exchanges() -> Vec<Exchange> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/tds");
        let mut found: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| read(&entry.unwrap().path()))
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(!found.is_empty());
        found
    }

    fn read(path: &Path) -> Exchange {
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
    }

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn start() -> Handshake {
        Handshake::start(Settings {
            tls_offered: true,
            cleartext_token_allowed: true,
            token_service: Some(TokenService {
                sts_url: "https://login.example".to_owned(),
                spn: "api://gatepost".to_owned(),
            }),
            version: ProgramVersion::default(),
        })
    }

    /// Where the client's bytes lead when they come `chunk` by `chunk`.
    fn end(client: &[u8], chunk: usize) -> Result<Option<Step>, PeerMisbehaved> {
        let (mut handshake, mut buffer) = (start(), vec![]);
        for piece in client.chunks(chunk) {
            buffer.extend_from_slice(piece);
            loop {
                match handshake.step(&buffer, &mut vec![])? {
                    Progress::NeedMore {
                        handshake: same,
                        consumed,
                        at_least,
                    } => {
                        buffer.drain(..consumed);
                        assert!(at_least > buffer.len());
                        handshake = same;
                        break;
                    }
                    Progress::Stepped {
                        step: Step::Continue(next),
                        consumed,
                    } => {
                        buffer.drain(..consumed);
                        handshake = next;
                    }
                    // What was agreed inside TLS was captured without it.
                    Progress::Stepped {
                        step: Step::StartTls(state, _),
                        consumed,
                    } => {
                        buffer.drain(..consumed);
                        handshake = state.established();
                    }
                    Progress::Stepped { step, .. } => return Ok(Some(step)),
                }
            }
        }
        Ok(None)
    }

    fn presented(name: &str) -> Presented {
        let exchanges = exchanges();
        let found = exchanges.iter().find(|exchange| exchange.name == name).unwrap();
        let Ok(Some(Step::Presented(presented))) = end(&found.client, 1) else {
            panic!("{name}: no token")
        };
        *presented
    }

    #[test]
    fn every_exchange_leads_somewhere_in_any_cut() {
        for exchange in exchanges() {
            for chunk in [1, 7, 100, 4096, exchange.client.len()] {
                let step = end(&exchange.client, chunk).unwrap();
                assert!(step.is_some(), "{} by {chunk}", exchange.name);
            }
            for cut in 0..exchange.client.len() {
                let step = end(&exchange.client[..cut], cut.max(1)).unwrap();
                assert!(step.is_none(), "{} cut at {cut}", exchange.name);
            }
        }
    }

    #[test]
    fn no_changed_bit_panics() {
        for exchange in exchanges() {
            let mut client = exchange.client;
            // Of a long token every eleventh bit will do.
            let step = if client.len() > 2000 { 11 } else { 1 };
            for bit in (0..client.len() * 8).step_by(step) {
                client[bit / 8] ^= 1 << (bit % 8);
                let _ = end(&client, client.len());
                client[bit / 8] ^= 1 << (bit % 8);
            }
            let mut server = exchange.server;
            for bit in 0..server.len() * 8 {
                server[bit / 8] ^= 1 << (bit % 8);
                let _ = replies(&server);
                server[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    /// Every message of a server, as far as one can be read.
    fn replies(mut server: &[u8]) -> Vec<LoginReply> {
        let mut found = vec![];
        let mut incoming = Assembler::new(gatepost::wire::tds::login_reply::FROM_SERVER);
        while let Ok((consumed, Decoded::Message(message))) = incoming.push(server) {
            server = &server[consumed..];
            let _ = Prelogin::decode(&message.payload);
            found.extend(LoginReply::decode(&message.payload));
        }
        found
    }

    #[test]
    fn the_drivers_said_what_they_should() {
        let freetds = presented("pymssql_password");
        assert_eq!(freetds.login.user, "writer");
        assert_eq!(freetds.login.database, "orders");
        assert_eq!(freetds.token.expose(), b"ticket-in-place-of-a-token");
        assert_eq!(
            (freetds.arrival, freetds.beginning.trace),
            (Arrival::Password, None)
        );
        let pytds = presented("pytds_token");
        assert_eq!(pytds.arrival, Arrival::SecurityToken);
        assert_eq!(pytds.token.expose(), "t".repeat(2100).as_bytes());
        assert!(pytds.acknowledge.federated);
        assert_eq!(pytds.login.database, "orders");
    }

    #[test]
    fn freetds_drops_a_long_password_and_is_told() {
        let exchanges = exchanges();
        let found = exchanges
            .iter()
            .find(|exchange| exchange.name == "pymssql_long_password")
            .unwrap();
        let Ok(Some(Step::Refuse(refused))) = end(&found.client, 1) else {
            panic!("not refused")
        };
        assert_eq!(refused, PeerRefused::PasswordEmpty);
    }
}

/// The messages of a login fit into their packets whoever writes them.
#[test]
fn their_packets_are_ours() {
    let mut out = vec![];
    packet::put_message(&mut out, PacketKind::Login7, Status::NORMAL, 4096, &[7; 5000]);
    let mut rest = &out[..];
    let mut numbers = vec![];
    while !rest.is_empty() {
        let theirs = tds_protocol::packet::PacketHeader::decode(&mut &rest[..]).unwrap();
        numbers.push((theirs.packet_id, theirs.length, theirs.status.bits()));
        rest = &rest[usize::from(theirs.length)..];
    }
    assert_eq!(numbers, [(1, 4096, 0), (2, 920, 1)]);
    assert_eq!(prelogin::FROM_CLIENT.kinds, [PacketKind::Prelogin]);
}
