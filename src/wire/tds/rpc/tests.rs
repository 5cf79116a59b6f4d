//! What is written reads back, cut or whole.

use proptest::prelude::*;

use super::*;
use crate::wire::Decoded;
use crate::wire::tds::request::{self, Request, kind};
use crate::wire::tds::utf16;

fn wide(text: &str) -> Vec<u8> {
    let mut out = vec![];
    utf16::put(&mut out, text);
    out
}

fn written(calls: &[(Callee<'_>, &[Argument<'_>])]) -> Vec<u8> {
    let mut out = vec![];
    put_calls(&mut out, 9, None, calls);
    out
}

fn read(seen: Seen<'_>) -> Calls<'_> {
    let Decoded::Message(Request::Rpc(calls)) = request::read(kind::RPC, seen).unwrap() else {
        panic!("it wants more")
    };
    calls
}

fn refused(payload: &[u8]) -> PeerMisbehaved {
    request::read(kind::RPC, Seen::Whole(payload)).unwrap_err()
}

const SQL: &str = "INSERT INTO t VALUES (@a) -- größer";

#[test]
fn statements_are_found() {
    let int = Argument::int("", 1);
    let sql = Argument::text("", SQL);
    let handle = Argument::int_output("", None);
    let cases: [(Callee<'_>, Vec<Argument<'_>>); 8] = [
        (
            Callee::Number(10),
            vec![sql, Argument::text("@params", "@a int"), int],
        ),
        (Callee::Name("sp_ExecuteSql"), vec![Argument::text("@stmt", SQL)]),
        (Callee::Number(11), vec![handle, Argument::text("", ""), sql]),
        (Callee::Number(13), vec![handle, Argument::text("", ""), sql, int]),
        (Callee::Number(2), vec![handle, sql, int]),
        (Callee::Number(3), vec![handle, Argument::text("", ""), sql]),
        (
            Callee::Number(5),
            vec![handle, handle, Argument::text("", ""), sql],
        ),
        (Callee::Number(14), vec![handle, sql]),
    ];
    for (callee, arguments) in &cases {
        let payload = written(&[(*callee, arguments)]);
        let calls = read(Seen::Whole(&payload));
        assert_eq!(calls.extent, Extent::Whole);
        assert_eq!(calls.headers.transaction.map(|it| it.descriptor), Some(9));
        let [call] = &calls.calls[..] else {
            panic!("{callee:?}")
        };
        assert_eq!(call.parameter_count, arguments.len());
        let statement = call.statement().unwrap();
        assert_eq!(statement.value.text().as_deref(), Some(SQL), "{callee:?}");
        assert!(!statement.is_cut);
    }
}

#[test]
fn handles_are_found() {
    let handle = Argument::int("", 77);
    for number in [1, 4, 6, 7, 8, 9, 12, 15] {
        let payload = written(&[(Callee::Number(number), &[handle, Argument::int("", 5)])]);
        assert_eq!(
            read(Seen::Whole(&payload)).calls[0].handle(),
            Some(77),
            "{number}"
        );
    }
    let again = Argument::int_output("", Some(3));
    let payload = written(&[(Callee::Number(13), &[again])]);
    assert_eq!(read(Seen::Whole(&payload)).calls[0].handle(), Some(3));
    let payload = written(&[(Callee::Number(10), &[handle])]);
    assert_eq!(read(Seen::Whole(&payload)).calls[0].handle(), None);
}

#[test]
fn several_calls_of_one_request_are_told_apart() {
    let key = Argument::text("@key", "gatepost.session");
    let value = Argument::text("@value", "alice");
    let read_only = Argument::bit("@read_only", true);
    let name = Callee::Name("sp_set_session_context");
    let payload = written(&[
        (name, &[key, value, read_only]),
        (name, &[Argument::text("", "k"), Argument::int("", 5)]),
        (Callee::Name("dbo.p"), &[]),
    ]);
    let calls = read(Seen::Whole(&payload)).calls;
    assert_eq!(calls.len(), 3);
    let text =
        |call: usize, name: &str, place| calls[call].parameter(name, place).and_then(|it| it.value.text());
    assert_eq!(text(0, "@key", 0).as_deref(), Some("gatepost.session"));
    assert_eq!(text(0, "@VALUE", 1).as_deref(), Some("alice"));
    assert_eq!(
        calls[0].parameter("@read_only", 2).and_then(|it| it.value.int()),
        Some(1)
    );
    assert_eq!(text(1, "@key", 0).as_deref(), Some("k"));
    assert_eq!(
        calls[1].parameter("@value", 1).and_then(|it| it.value.int()),
        Some(5)
    );
    assert!(calls[1].parameter("@read_only", 2).is_none());
    assert_eq!(calls[2].procedure, Procedure::Other);
    // A flag behind the last call.
    for flag in [0xFF, 0xFE] {
        let payload = [&payload[..], &[flag]].concat();
        assert_eq!(read(Seen::Whole(&payload)).calls.len(), 3);
    }
}

#[test]
fn a_cut_request_says_so_wherever_it_is_cut() {
    let sql = Argument::text("", SQL);
    let long = "z".repeat(5000);
    let payload = written(&[
        (Callee::Number(10), &[sql, Argument::text("", &long)]),
        (Callee::Number(10), &[sql]),
    ]);
    let mut sizes = vec![];
    for at in 0..=payload.len() {
        match request::read(kind::RPC, Seen::Head(&payload[..at])).unwrap() {
            Decoded::Message(Request::Rpc(calls)) => {
                assert_eq!(calls.extent, Extent::Cut);
                for call in &calls.calls {
                    if let Some(statement) = call.statement() {
                        let text = statement.value.text().unwrap_or_default();
                        assert_eq!(text == SQL, !statement.is_cut, "cut at {at}");
                        assert!(SQL.starts_with(&text));
                    }
                }
                sizes.push(calls.calls.len());
            }
            Decoded::NeedMore { at_least } => assert!(at < at_least && at_least <= 22),
            Decoded::Message(other) => panic!("{other:?}"),
        }
    }
    assert!(sizes.is_sorted());
    assert_eq!(sizes.last(), Some(&2));
}

/// A call of sp_executesql with one parameter behind the statement, from its status on.
fn with_parameter(described: &[u8]) -> Vec<u8> {
    let mut payload = written(&[(Callee::Number(10), &[Argument::text("", SQL)])]);
    payload.push(0);
    payload.extend(described);
    payload
}

#[test]
fn parameters_of_all_types_are_passed_over() {
    let cases: &[&[u8]] = &[
        &[0, 0x38, 1, 0, 0, 0],
        &[0, 0x26, 8, 0],
        &[0, 0x24, 16, 0],
        &[0, 0x28, 3, 1, 2, 3],
        &[0, 0x2A, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0, 0x6A, 17, 38, 0, 5, 1, 1, 0, 0, 0],
        &[0, 0xA7, 10, 0, 1, 2, 3, 4, 5, 2, 0, b'a', b'b'],
        &[0, 0xA5, 10, 0, 0xFF, 0xFF],
        // varbinary(max) of unknown length in two chunks.
        &[
            0, 0xA5, 0xFF, 0xFF, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 9, 1, 0, 0, 0,
            9, 0, 0, 0, 0,
        ],
        // ntext and image, without pointers.
        &[0, 0x63, 9, 0, 0, 0, 1, 2, 3, 4, 5, 2, 0, 0, 0, b'a', 0],
        &[0, 0x22, 9, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
        // sql_variant of an int.
        &[0, 0x62, 0, 0, 0, 0, 6, 0, 0, 0, 0x38, 0, 1, 0, 0, 0],
        // A CLR type with three names of a letter each, NULL.
        &[
            0, 0xF0, 1, b'd', 0, 1, b's', 0, 1, b't', 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        ],
        // XML with a schema, and without, empty.
        &[
            0, 0xF1, 1, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        ],
        &[0, 0xF1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[
            0, 0xF4, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, b'{', b'}', 0, 0, 0, 0,
        ],
        &[0, 0xF5, 12, 0, 0, 2, 0, 1, 2],
        // A table: names, one int column and one left to its default, unique order, rows with a value and one without.
        &[
            0, 0xF3, 0, 0, 1, b'T', 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x26, 4, 0, 0, 0, 0, 0, 0, 2, 0x26, 4, 0,
            0x10, 1, 0, 1, 0, 1, 0x11, 1, 0, 1, 0, 0, 1, 4, 7, 0, 0, 0, 1, 4, 9, 0, 0, 0, 1, 0, 0,
        ],
        // A table that is NULL.
        &[0, 0xF3, 0, 0, 1, b'T', 0, 0xFF, 0xFF, 0, 0],
    ];
    for case in cases {
        let mut payload = with_parameter(case);
        // And a second call behind it.
        payload.push(BATCH_FLAG);
        payload.extend(&written(&[(Callee::Number(15), &[Argument::int("", 4)])])[22..]);
        let calls = read(Seen::Whole(&payload));
        assert_eq!(calls.extent, Extent::Whole, "{case:02x?}");
        assert_eq!(calls.calls.len(), 2);
        assert_eq!(calls.calls[0].parameter_count, 2);
        assert_eq!(calls.calls[1].handle(), Some(4));
        let whole = with_parameter(case);
        for missing in 1..case.len() {
            let head = &whole[..whole.len() - missing];
            assert_eq!(read(Seen::Head(head)).extent, Extent::Cut);
            assert!(
                matches!(refused(head), PeerMisbehaved::Truncated { .. }),
                "{case:02x?}"
            );
        }
    }
}

#[test]
fn what_cannot_be_read_is_not_guessed() {
    let payload = with_parameter(&[0, 0xF9, 1, 2, 3]);
    let calls = read(Seen::Whole(&payload));
    assert_eq!(calls.extent, Extent::UnknownType(0xF9));
    assert_eq!(
        calls.calls[0]
            .statement()
            .and_then(|it| it.value.text())
            .as_deref(),
        Some(SQL)
    );
    // Encrypted; a separator of old; a table with an unknown token.
    let old = [
        &written(&[(Callee::Number(10), &[])])[..],
        &[BATCH_FLAG_OLD, 0, 0],
    ]
    .concat();
    for payload in [
        with_parameter(&[STATUS_ENCRYPTED, 0x26, 4, 0]),
        old,
        with_parameter(&[0, 0xF3, 0, 0, 0, 0, 0, 9]),
        with_parameter(&[0, 0xF3, 0, 0, 0, 0, 0, 0, 9]),
    ] {
        assert!(matches!(refused(&payload), PeerMisbehaved::UnknownValue { .. }));
    }
    let headers_only = &written(&[])[..];
    assert!(matches!(refused(headers_only), PeerMisbehaved::Truncated { .. }));
}

#[test]
fn counts_are_bounded() {
    let many = vec![Argument::int("", 1); PARAMETERS_MAX + 1];
    let fits = written(&[(Callee::Number(10), &many[1..])]);
    let call = read(Seen::Whole(&fits)).calls.remove(0);
    assert_eq!(
        (call.parameters.len(), call.parameter_count),
        (PARAMETERS_KEPT, PARAMETERS_MAX)
    );
    let many = written(&[(Callee::Number(10), &many)]);
    assert!(matches!(refused(&many), PeerMisbehaved::TooMany { .. }));
    let call: (Callee<'_>, &[Argument<'_>]) = (Callee::Number(10), &[]);
    let payload = written(&vec![call; CALLS_MAX + 1]);
    let calls = read(Seen::Whole(&payload));
    assert_eq!((calls.calls.len(), calls.extent), (CALLS_MAX, Extent::Cut));
    let payload = written(&vec![call; CALLS_MAX]);
    assert_eq!(read(Seen::Whole(&payload)).extent, Extent::Whole);
}

#[test]
fn text_in_chunks_is_joined_and_narrow_text_is_only_told_where_it_is_ascii() {
    let mut payload = written(&[(Callee::Number(10), &[])]);
    payload.extend([0, 0, 0xE7, 0xFF, 0xFF, 1, 2, 3, 4, 5]);
    reply::put_chunked(&mut payload, &wide(SQL), 6);
    let calls = read(Seen::Whole(&payload));
    assert_eq!(
        calls.calls[0]
            .statement()
            .and_then(|it| it.value.text())
            .as_deref(),
        Some(SQL)
    );
    assert_eq!(
        Value::Narrow(b"SELECT 1"[..].into()).text().as_deref(),
        Some("SELECT 1")
    );
    assert_eq!(Value::Narrow(b"gr\xF6\xDFer"[..].into()).text(), None);
    assert_eq!(Value::Wide([0x00, 0xD8][..].into()).text(), None);
}

proptest! {
    #[test]
    fn flipped_bits_and_noise_never_panic(noise in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0..8) {
        let sql = Argument::text("@stmt", SQL);
        let mut payload = written(&[(Callee::Name("sp_prepexec"), &[Argument::int_output("", None), sql, sql]), (Callee::Number(12), &[sql])]);
        let at = at.index(payload.len());
        payload[at] ^= 1_u8 << bit;
        payload.extend(&noise);
        for bytes in [&payload[..], &noise] {
            for kind in [kind::RPC, kind::BATCH, kind::TRANSACTION, kind::BULK] {
                let _ = request::read(kind, Seen::Head(bytes));
                let _ = request::read(kind, Seen::Whole(bytes));
            }
        }
    }

    #[test]
    fn text_comes_back(text in ".*") {
        let payload = written(&[(Callee::Number(10), &[Argument::text("", &text)])]);
        let calls = read(Seen::Whole(&payload));
        prop_assert_eq!(calls.calls[0].statement().and_then(|it| it.value.text()), Some(text));
    }
}
