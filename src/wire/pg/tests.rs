//! What is written reads back the same, whatever it is, and arbitrary bytes never panic.

use proptest::prelude::*;

use crate::wire::Decoded;
use crate::wire::pg::error_response::{ErrorFields, Severity, put_error};
use crate::wire::pg::from_client::{Described, FromClient};
use crate::wire::pg::from_server::{Authentication, FromServer, TransactionStatus};
use crate::wire::pg::startup::FirstPacket;
use crate::wire::pg::{frame, from_client, from_server, startup};

const LENGTH_MAX: usize = 1 << 20;

/// The one message that `put` writes.
fn written(put: impl FnOnce(&mut Vec<u8>)) -> (u8, Vec<u8>) {
    let mut out = vec![];
    put(&mut out);
    let Ok(Decoded::Message((head, body))) = frame::whole(&out, LENGTH_MAX) else {
        panic!("not a message")
    };
    assert_eq!(head.length, out.len());
    assert_eq!(head.body_bytes(), body.len());
    (head.tag, body.to_vec())
}

fn client(expected: &FromClient<'_>, put: impl FnOnce(&mut Vec<u8>)) {
    let (tag, body) = written(put);
    assert_eq!(from_client::parse(tag, &body).as_ref(), Ok(expected));
}

fn server(expected: &FromServer<'_>, put: impl FnOnce(&mut Vec<u8>)) {
    let (tag, body) = written(put);
    assert_eq!(from_server::parse(tag, &body).as_ref(), Ok(expected));
}

/// Bytes that a NUL-terminated string can hold.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1_u8..=255, 0..40)
}

proptest! {
    #[test]
    fn client_messages_round_trip(a in text(), b in text(), rows: i32, portal: bool) {
        let (a, b) = (&a[..], &b[..]);
        let kind = if portal { Described::Portal } else { Described::Statement };
        client(&FromClient::Query { sql: a }, |out| from_client::put_query(out, a));
        client(&FromClient::Parse { statement: a, sql: b, types: &[] }, |out| from_client::put_parse(out, a, b));
        client(&FromClient::Bind { portal: a, statement: b }, |out| from_client::put_bind(out, a, b));
        client(&FromClient::Execute { portal: a, max_rows: rows }, |out| from_client::put_execute(out, a, rows));
        client(&FromClient::Describe { kind, name: a }, |out| from_client::put_describe(out, kind, a));
        client(&FromClient::Close { kind, name: a }, |out| from_client::put_close(out, kind, a));
        client(&FromClient::Sync, from_client::put_sync);
        client(&FromClient::Flush, from_client::put_flush);
        client(&FromClient::Terminate, from_client::put_terminate);
        client(&FromClient::CopyFail, |out| from_client::put_copy_fail(out, a));
    }

    #[test]
    fn server_messages_round_trip(a in text(), b in text(), process: i32, key in prop::collection::vec(any::<u8>(), 4..=256)) {
        let (a, b) = (&a[..], &b[..]);
        let ok = FromServer::Authentication(Authentication::Ok);
        server(&ok, from_server::put_authentication_ok);
        let challenge = FromServer::Authentication(Authentication::SaslContinue(a));
        server(&challenge, |out| from_server::put_authentication_sasl_continue(out, a));
        let parameter = FromServer::ParameterStatus { name: a, value: b };
        server(&parameter, |out| from_server::put_parameter_status(out, a, b));
        let key_data = FromServer::BackendKeyData { process, key: &key };
        server(&key_data, |out| from_server::put_backend_key_data(out, process, &key));
        server(&FromServer::CommandComplete { tag: a }, |out| from_server::put_command_complete(out, a));
        for status in [TransactionStatus::Idle, TransactionStatus::InBlock, TransactionStatus::Failed] {
            server(&FromServer::ReadyForQuery(status), |out| from_server::put_ready(out, status));
        }
        let (tag, body) = written(|out| from_server::put_negotiate_protocol(out, 0x3_0002, &[a, b]));
        let Ok(FromServer::NegotiateProtocolVersion { version, unknown_options }) = from_server::parse(tag, &body) else {
            panic!("not negotiated");
        };
        prop_assert_eq!((version, unknown_options.collect::<Vec<_>>()), (0x3_0002, vec![a, b]));
    }

    #[test]
    fn errors_round_trip(message in "[^\0]{0,40}", hint in prop::option::of("[^\0]{0,40}")) {
        let (tag, body) = written(|out| put_error(out, &ErrorFields {
            severity: Severity::Error, sqlstate: "42501", message: &message, detail: None, hint: hint.as_deref(),
        }));
        let Ok(FromServer::ErrorResponse(fields)) = from_server::parse(tag, &body) else { panic!("no error") };
        prop_assert_eq!(fields.get(b'M'), Some(message.as_bytes()));
        prop_assert_eq!(fields.get(b'H'), hint.as_deref().map(str::as_bytes));
        prop_assert_eq!(fields.get(b'D'), None);
    }

    #[test]
    fn rows_give_their_columns(values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..6)) {
        let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in &values {
            let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
            body.extend(length.to_be_bytes());
            body.extend(value.iter().flatten());
        }
        let Ok(FromServer::DataRow(row)) = from_server::parse(b'D', &body) else { panic!("no row") };
        for (index, value) in values.iter().enumerate() {
            prop_assert_eq!(row.column(index), Some(value.as_deref()));
        }
        prop_assert_eq!(row.column(values.len()), None);
        for cut in 0..body.len() {
            prop_assert!(from_server::parse(b'D', &body[..cut]).is_err());
        }
    }

    #[test]
    fn start_ups_round_trip(parameters in prop::collection::vec(("[a-z]{1,9}", "[^\0]{0,9}"), 0..6), minor in 0_u16..5) {
        let mut out = vec![];
        let borrowed = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        startup::put_startup(&mut out, minor, borrowed);
        for cut in 0..out.len() {
            let needs_more = matches!(startup::first_packet(&out[..cut]), Ok(Decoded::NeedMore { at_least }) if at_least > cut);
            prop_assert!(needs_more);
        }
        let Ok(Decoded::Message((FirstPacket::Startup(startup), consumed))) = startup::first_packet(&out) else {
            panic!("no start-up");
        };
        prop_assert_eq!((startup.parameters, consumed, startup.asked_minor), (parameters, out.len(), minor));
    }

    #[test]
    fn arbitrary_bytes_never_panic(tag: u8, bytes: Vec<u8>) {
        let _ = frame::whole(&bytes, LENGTH_MAX);
        let _ = startup::first_packet(&bytes);
        let _ = from_client::parse(tag, &bytes);
        let _ = from_client::bind_names(&bytes);
        let _ = from_server::parse(tag, &bytes);
    }
}

#[test]
fn bind_names_need_only_the_names() {
    assert_eq!(
        from_client::bind_names(b"p\0s\0rest"),
        Decoded::Message((&b"p"[..], &b"s"[..]))
    );
    assert_eq!(
        from_client::bind_names(b"p\0s"),
        Decoded::NeedMore { at_least: 4 }
    );
}

#[test]
fn lengths_are_judged_by_the_head_alone() {
    let head = |length: u32| frame::head(&[&b"Q"[..], &length.to_be_bytes()].concat(), 100);
    assert_eq!(
        head(4),
        Ok(Decoded::Message(frame::Head { tag: b'Q', length: 5 }))
    );
    assert!(head(99).is_ok());
    for wrong in [0, 3, 100, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        assert!(head(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_nul_cannot_smuggle_a_second_field() {
    client(&FromClient::Query { sql: b"ab" }, |out| {
        from_client::put_query(out, b"a\0b")
    });
}
