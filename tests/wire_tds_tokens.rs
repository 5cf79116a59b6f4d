//! Our TDS tokens and requests against another codec's (`tds-protocol`): it reads what we write, both read the
//! same in streams of random tokens of all types, and we read what it writes.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a stream that cannot be read fails the test"
)]

#[path = "support/tds_types.rs"]
mod tds_types;

use bytes::Bytes;
use gatepost::wire::Decoded;
use gatepost::wire::tds::event::{Done, DoneKind, DoneStatus, EnvChange, Event};
use gatepost::wire::tds::reply::{self, Cell, Column, ColumnKind, Said};
use gatepost::wire::tds::request::{self, Request, Seen};
use gatepost::wire::tds::rpc::Extent;
use gatepost::wire::tds::token::{End, Reader};
use proptest::prelude::*;
use tds_protocol::rpc::{ProcId, RpcParam, RpcRequest, TypeInfo};
use tds_protocol::sql_batch::SqlBatch;
use tds_protocol::token::{ColMetaData, EnvChangeValue, Token, TokenParser};

use crate::tds_types::{Handmade, all_types, put_result, with_long_length};

/// What both readers are asked about.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    rows: usize,
    /// The columns of every result set.
    columns: Vec<usize>,
    /// Status, command, count.
    done: Vec<(u16, u16, u64)>,
    /// Number, state, class, texts, line.
    said: Vec<(i32, u8, u8, String, String, String, u32)>,
    changes: Vec<String>,
    statuses: Vec<i32>,
    /// Ordinal, name.
    values: Vec<(u16, String)>,
}

fn ours(payload: &[u8], pieces: usize) -> (Told, End) {
    let mut told = Told::default();
    let mut reader = Reader::default();
    for piece in payload.chunks(pieces) {
        reader.read(piece, &mut |event| note(&mut told, event)).unwrap();
    }
    (told, reader.end())
}

fn note(told: &mut Told, event: Event<'_>) {
    match event {
        Event::Row { .. } => told.rows += 1,
        Event::Columns { count, .. } => told.columns.push(count.into()),
        Event::ColumnsUntold => told.columns.push(0),
        Event::Done(Done {
            status,
            command,
            rows,
            ..
        }) => told.done.push((status.0, command, rows)),
        Event::Error(it) | Event::Info(it) => told.said.push((
            it.number,
            it.state,
            it.class,
            it.text.lossy(),
            it.server.lossy(),
            it.procedure.lossy(),
            it.line,
        )),
        Event::EnvChange(change) => told.changes.push(shown(change)),
        Event::ReturnStatus(status) => told.statuses.push(status),
        Event::ReturnValue { ordinal, name, .. } => told.values.push((ordinal, name.lossy())),
        Event::Other { .. } => {}
        Event::Lost(lost) => panic!("{lost}"),
    }
}

fn shown(change: EnvChange<'_>) -> String {
    let bytes = |bytes: &[u8]| format!("{:?}", Bytes::copy_from_slice(bytes));
    let descriptor = |it: u64| bytes(&it.to_le_bytes());
    match change {
        EnvChange::Database { new, old } => format!("Database {} {}", new.lossy(), old.lossy()),
        EnvChange::Language { new, old } => format!("Language {} {}", new.lossy(), old.lossy()),
        EnvChange::PacketSize { new, old } => format!("PacketSize {} {}", new.lossy(), old.lossy()),
        EnvChange::Collation { new, old } => format!("SqlCollation {} {}", bytes(new), bytes(old)),
        EnvChange::Begin { descriptor: new } => format!("BeginTransaction {} b\"\"", descriptor(new)),
        EnvChange::Commit { descriptor: old } => format!("CommitTransaction b\"\" {}", descriptor(old)),
        EnvChange::Rollback { descriptor: old } => format!("RollbackTransaction b\"\" {}", descriptor(old)),
        EnvChange::EnlistDtc { descriptor: new } => format!("EnlistDtcTransaction {} b\"\"", descriptor(new)),
        EnvChange::Routing { port, server } => format!("Routing {}:{port} b\"\"", server.lossy()),
        EnvChange::ResetAck => "ResetConnectionAck  ".to_owned(),
        EnvChange::Promote
        | EnvChange::Defect { .. }
        | EnvChange::TransactionEnded { .. }
        | EnvChange::Other(_) => panic!("the other codec does not read {change:?}"),
    }
}

fn theirs(payload: &[u8]) -> Told {
    let mut told = Told::default();
    let mut parser = TokenParser::new(Bytes::copy_from_slice(payload));
    let mut columns: Option<ColMetaData> = None;
    while let Some(token) = parser.next_token_with_metadata(columns.as_ref()).unwrap() {
        match token {
            Token::ColMetaData(it) => {
                told.columns.push(it.column_count());
                columns = Some(it);
            }
            Token::Row(_) | Token::NbcRow(_) => told.rows += 1,
            Token::Done(it) => told.done.push((it.status.to_bits(), it.cur_cmd, it.row_count)),
            Token::DoneProc(it) => told.done.push((it.status.to_bits(), it.cur_cmd, it.row_count)),
            Token::DoneInProc(it) => told.done.push((it.status.to_bits(), it.cur_cmd, it.row_count)),
            Token::Error(it) => told.said.push((
                it.number,
                it.state,
                it.class,
                it.message,
                it.server,
                it.procedure,
                it.line.cast_unsigned(),
            )),
            Token::Info(it) => told.said.push((
                it.number,
                it.state,
                it.class,
                it.message,
                it.server,
                it.procedure,
                it.line.cast_unsigned(),
            )),
            Token::EnvChange(it) => {
                let [new, old] = [it.new_value, it.old_value].map(|value| match value {
                    EnvChangeValue::String(text) => text,
                    EnvChangeValue::Binary(bytes) => format!("{bytes:?}"),
                    EnvChangeValue::Routing { host, port } => format!("{host}:{port}"),
                    other => panic!("{other:?}"),
                });
                told.changes.push(format!("{:?} {new} {old}", it.env_type));
            }
            Token::ReturnStatus(status) => told.statuses.push(status),
            Token::ReturnValue(it) => told.values.push((it.param_ordinal, it.param_name)),
            Token::Order(_) | Token::SessionState(_) | Token::FeatureExtAck(_) => {}
            other => panic!("{other:?}"),
        }
    }
    told
}

fn put_final_done(out: &mut Vec<u8>) {
    reply::put_done(out, DoneKind::Batch, DoneStatus::FINAL, 0, 0);
}

#[test]
fn every_type_is_passed_over() {
    let types = all_types();
    for (index, handmade) in types.iter().enumerate() {
        for is_compact in [false, true] {
            let mut payload = vec![];
            let rows: Vec<_> = (0..handmade.values.len()).map(|pick| vec![Some(pick)]).collect();
            let rows = [rows, vec![vec![None]]].concat();
            // Once alone, once between two columns.
            put_result(&mut payload, &[handmade], &rows, is_compact);
            put_result(
                &mut payload,
                &[&types[3], handmade, &types[13]],
                &rows,
                is_compact,
            );
            put_final_done(&mut payload);
            let whole = ours(&payload, usize::MAX);
            assert_eq!(whole.1, End::Complete, "type {index}");
            assert_eq!(whole.0.rows, 2 * rows.len());
            for pieces in [1, 2, 3, 7] {
                assert_eq!(
                    ours(&payload, pieces),
                    whole,
                    "type {index} in pieces of {pieces}"
                );
            }
            if handmade.is_common {
                assert_eq!(theirs(&payload), whole.0, "type {index}");
            }
        }
    }
}

const COLUMNS: [Column<'_>; 6] = [
    column(
        "größe",
        ColumnKind::Decimal {
            precision: 18,
            scale: 2,
        },
    ),
    column("text", ColumnKind::NVarChar(100)),
    column("all", ColumnKind::NVarCharMax),
    column("when", ColumnKind::DateTime2 { scale: 3 }),
    column("id", ColumnKind::BigInt),
    column("", ColumnKind::Bit),
];

const CELLS: [Cell<'_>; 6] = [
    Cell::Decimal(-258),
    Cell::Text("ab"),
    Cell::Text("c"),
    Cell::DateTime2 {
        ticks: 0x0102_0304,
        days: 0x05_0607,
    },
    Cell::BigInt(-2),
    Cell::Null,
];

/// As they travel, without the NULL at the end.
const VALUES: [&[u8]; 5] = [
    &[9, 0, 2, 1, 0, 0, 0, 0, 0, 0], // the sign is that of a negative number
    &[4, 0, b'a', 0, b'b', 0],
    &[2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, b'c', 0, 0, 0, 0, 0],
    &[7, 4, 3, 2, 1, 7, 6, 5],
    &[8, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
];

const fn column(name: &str, kind: ColumnKind) -> Column<'_> {
    Column { name, kind }
}

fn columns_described() -> ColMetaData {
    let mut payload = vec![];
    reply::put_columns(&mut payload, &COLUMNS);
    let Some(Token::ColMetaData(described)) = TokenParser::new(payload.into()).next_token().unwrap() else {
        panic!("no columns")
    };
    described
}

#[test]
fn our_columns_mean_the_same_to_both() {
    let described = columns_described();
    let shown = described.columns.iter().map(|it| {
        let of = &it.type_info;
        (
            it.name.as_str(),
            it.col_type,
            of.max_length,
            of.precision,
            of.scale,
        )
    });
    let expected = [
        ("größe", 0x6A, Some(9), Some(18), Some(2)),
        ("text", 0xE7, Some(200), None, None),
        ("all", 0xE7, Some(0xFFFF), None, None),
        ("when", 0x2A, None, None, Some(3)),
        ("id", 0x26, Some(8), None, None),
        ("", 0x68, Some(1), None, None),
    ];
    assert!(shown.eq(expected));
}

#[test]
fn our_values_mean_the_same_to_both() {
    let described = columns_described();
    let mut payload = vec![];
    reply::put_row(&mut payload, &COLUMNS, &CELLS);
    reply::put_compact_row(&mut payload, &COLUMNS, &CELLS);
    reply::put_return_value(&mut payload, 3, "@handle", ColumnKind::Int, Cell::Int(-7));
    let mut parser = TokenParser::new(Bytes::from(payload));
    let values = VALUES.concat();
    let Some(Token::Row(row)) = parser.next_token_with_metadata(Some(&described)).unwrap() else {
        panic!("no row")
    };
    assert_eq!(row.data, [&values[..], &[0]].concat());
    let Some(Token::NbcRow(row)) = parser.next_token_with_metadata(Some(&described)).unwrap() else {
        panic!("no compact row")
    };
    assert_eq!(row.data, values);
    let nulls = [0, 1, 4, 5].map(|column| row.is_null(column));
    assert_eq!(nulls, [false, false, false, true]);
    let Some(Token::ReturnValue(it)) = parser.next_token().unwrap() else {
        panic!("no value")
    };
    assert_eq!(
        (it.param_ordinal, it.param_name.as_str(), it.status),
        (3, "@handle", 1)
    );
    assert_eq!(&it.value[..], [4, 0xF9, 0xFF, 0xFF, 0xFF]);
    assert!(!parser.has_remaining());
}

/// Anything that may stand between two result sets.
#[derive(Clone, Debug)]
enum Any {
    Result {
        types: Vec<prop::sample::Index>,
        rows: Vec<Vec<Option<usize>>>,
        is_compact: bool,
    },
    Written {
        cells: Vec<Option<i64>>,
        text: String,
    },
    Said(i32, String, String, bool),
    Done(u16, u16, u64, u8),
    Change(u8, u64, String),
    Status(i32),
    Value(u16, String, Option<i32>),
    Order(Vec<u16>),
    Session(Vec<u8>),
}

fn any_token() -> impl Strategy<Value = Any> {
    let pick = prop::option::weighted(0.7, 0_usize..4);
    prop_oneof![
        4 => (
            prop::collection::vec(any::<prop::sample::Index>(), 1..20),
            prop::collection::vec(prop::collection::vec(pick, 1..6), 0..6),
            any::<bool>(),
        )
            .prop_map(|(types, rows, is_compact)| Any::Result { types, rows, is_compact }),
        2 => (prop::collection::vec(any::<Option<i64>>(), 0..5), ".{0,40}")
            .prop_map(|(cells, text)| Any::Written { cells, text }),
        1 => (any::<i32>(), ".{0,60}", "[a-z]{0,9}", any::<bool>())
            .prop_map(|(number, text, name, is_error)| Any::Said(number, text, name, is_error)),
        1 => (0_u16..0x40, any::<u16>(), any::<u64>(), 0_u8..3)
            .prop_map(|(status, command, rows, kind)| Any::Done(status & !8, command, rows, kind)),
        2 => (0_u8..9, any::<u64>(), "[a-zö]{0,9}").prop_map(|(kind, id, text)| Any::Change(kind, id, text)),
        1 => any::<i32>().prop_map(Any::Status),
        1 => (any::<u16>(), "@[a-z]{0,9}", any::<Option<i32>>())
            .prop_map(|(ordinal, name, value)| Any::Value(ordinal, name, value)),
        1 => prop::collection::vec(any::<u16>(), 0..9).prop_map(Any::Order),
        1 => prop::collection::vec(any::<u8>(), 0..30).prop_map(Any::Session),
    ]
}

fn put_any(out: &mut Vec<u8>, any: &Any, types: &[Handmade]) {
    match any {
        Any::Result {
            types: picks,
            rows,
            is_compact,
        } => {
            let picked: Vec<_> = picks.iter().map(|pick| pick.get(types)).collect();
            put_result(out, &picked, rows, *is_compact);
        }
        Any::Written { cells, text } => put_written(out, cells, text),
        Any::Said(number, text, name, is_error) => {
            let said = said(*number, text, name);
            let put = if *is_error {
                reply::put_error
            } else {
                reply::put_info
            };
            put(out, &said);
        }
        Any::Done(status, command, rows, kind) => {
            let kind = [DoneKind::Batch, DoneKind::Procedure, DoneKind::InProcedure][usize::from(*kind)];
            reply::put_done(out, kind, DoneStatus(*status), *command, *rows);
        }
        Any::Change(kind, id, text) => match kind {
            0 => reply::put_database(out, text, "master"),
            1 => reply::put_language(out, text, ""),
            2 => reply::put_packet_size(out, usize::from(*id as u16), 4096),
            3 => reply::put_collation(out, reply::COLLATION, Some([0; 5])),
            4 => reply::put_begin(out, *id),
            5 => reply::put_commit(out, *id),
            6 => reply::put_rollback(out, *id),
            7 => reply::put_enlist_dtc(out, *id),
            _ => reply::put_routing(out, *id as u16, text),
        },
        Any::Status(status) => reply::put_return_status(out, *status),
        Any::Value(ordinal, name, value) => {
            let cell = value.map_or(Cell::Null, Cell::Int);
            reply::put_return_value(out, *ordinal, name, ColumnKind::Int, cell);
            reply::put_return_value(out, *ordinal, name, ColumnKind::NVarCharMax, Cell::Text(name));
        }
        Any::Order(columns) => reply::put_order(out, columns),
        Any::Session(bytes) => {
            out.push(0xE4);
            out.extend(with_long_length(bytes));
        }
    }
}

fn said<'a>(number: i32, text: &'a str, name: &'a str) -> Said<'a> {
    Said {
        number,
        state: 5,
        class: 14,
        text,
        server: name,
        procedure: name,
        line: 77,
    }
}

fn put_written(out: &mut Vec<u8>, cells: &[Option<i64>], text: &str) {
    let columns = [
        column("id", ColumnKind::BigInt),
        column(
            "größe",
            ColumnKind::Decimal {
                precision: 18,
                scale: 2,
            },
        ),
        column("", ColumnKind::NVarChar(100)),
        column("t", ColumnKind::NVarCharMax),
        column("b", ColumnKind::VarBinary(30)),
        column("m", ColumnKind::VarBinaryMax),
        column("when", ColumnKind::DateTime2 { scale: 3 }),
        column("guid", ColumnKind::UniqueIdentifier),
        column("f", ColumnKind::Float),
        column("bit", ColumnKind::Bit),
        column("i", ColumnKind::Int),
    ];
    reply::put_columns(out, &columns);
    for cell in cells {
        let row = cell.map_or(vec![], |value| {
            vec![
                Cell::BigInt(value),
                Cell::Decimal(value.into()),
                Cell::Text(text),
                Cell::Text(text),
                Cell::Bytes(text.as_bytes()),
                Cell::Bytes(text.as_bytes()),
                Cell::DateTime2 {
                    ticks: 1000,
                    days: 700_000,
                },
                Cell::UniqueIdentifier([1; 16]),
                Cell::Float(0.5),
                Cell::Bit(value > 0),
            ]
        });
        reply::put_row(out, &columns, &row);
        reply::put_compact_row(out, &columns, &row);
    }
}

proptest! {
    #[test]
    fn both_read_the_same(tokens in prop::collection::vec(any_token(), 0..12), pieces in 1_usize..300) {
        let types: Vec<_> = all_types().into_iter().filter(|it| it.is_common).collect();
        let mut payload = vec![];
        for token in &tokens {
            put_any(&mut payload, token, &types);
        }
        put_final_done(&mut payload);
        let (told, end) = ours(&payload, usize::MAX);
        prop_assert_eq!(end, End::Complete);
        prop_assert_eq!(&told, &theirs(&payload));
        prop_assert_eq!((told, end), ours(&payload, pieces));
    }

    #[test]
    fn statements_of_theirs_are_read(sql in ".{0,200}") {
        let payload = SqlBatch::new(&sql).encode();
        let Decoded::Message(Request::Batch(batch)) = request::read(request::kind::BATCH, Seen::Whole(&payload)).unwrap() else {
            panic!("not a batch")
        };
        prop_assert_eq!(batch.text.decoded(), Some(sql));
        prop_assert_eq!(batch.headers.transaction.map(|it| it.descriptor), Some(0));
    }

    #[test]
    fn calls_of_theirs_are_read(sql in "[a-zö 😀]{1,99}", descriptor: u64, handle: i32, order in any::<prop::sample::Index>()) {
        let mut parameters = parameters();
        let at = order.index(parameters.len());
        parameters.rotate_left(at);
        let execute_sql = RpcRequest::execute_sql(&sql, parameters.clone());
        let prepexec = RpcRequest::prepexec(&sql, parameters.clone());
        let prepare = RpcRequest::prepare(&sql, &parameters);
        for (number, request) in [(10, execute_sql), (13, prepexec), (11, prepare)] {
            let payload = request.encode_with_transaction(descriptor);
            let calls = calls(&payload);
            prop_assert_eq!(calls.extent, Extent::Whole);
            prop_assert_eq!(calls.headers.transaction.map(|it| it.descriptor), Some(descriptor));
            prop_assert_eq!(calls.calls.len(), 1);
            let statement = calls.calls[0].statement().and_then(|it| it.value.text());
            prop_assert_eq!(statement.as_ref(), Some(&sql), "{}", number);
        }
        for request in [RpcRequest::execute(handle, parameters), RpcRequest::unprepare(handle)] {
            let payload = request.encode();
            prop_assert_eq!(calls(&payload).calls[0].handle(), Some(handle.into()));
        }
    }
}

fn calls(payload: &[u8]) -> gatepost::wire::tds::rpc::Calls<'_> {
    let Decoded::Message(Request::Rpc(calls)) =
        request::read(request::kind::RPC, Seen::Whole(payload)).unwrap()
    else {
        panic!("not a call")
    };
    calls
}

/// One of every type that the other codec encodes.
fn parameters() -> Vec<RpcParam> {
    let bytes = |length| Bytes::from(vec![1; length]);
    let new = |name: &str, type_info: TypeInfo, length| RpcParam::new(name, type_info, bytes(length));
    vec![
        RpcParam::int("@a", 1),
        RpcParam::bigint("@b", 1),
        RpcParam::nvarchar("@c", &"x".repeat(5000)),
        RpcParam::varchar("@d", "größer"),
        RpcParam::varchar("@e", &"x".repeat(9000)),
        RpcParam::null("@f", TypeInfo::nvarchar_max()),
        new("@g", TypeInfo::varbinary_max(), 20_000),
        new("@h", TypeInfo::varbinary(30), 30),
        new("@i", TypeInfo::uniqueidentifier(), 16),
        new("@j", TypeInfo::date(), 3),
        new("@k", TypeInfo::time(7), 5),
        new("@l", TypeInfo::datetime2(7), 8),
        new("@m", TypeInfo::datetimeoffset(7), 10),
        new("@n", TypeInfo::decimal(38, 10), 17),
        new("@o", TypeInfo::money(), 8),
        new("@p", TypeInfo::datetime(), 8),
        new("@q", TypeInfo::bit(), 1),
        new("@r", TypeInfo::float(), 8),
        RpcParam::null("@s", TypeInfo::int()),
        RpcParam::null("@t", TypeInfo::varbinary(9)),
    ]
}

#[test]
fn a_call_by_name_of_theirs_is_read() {
    let request = RpcRequest::named("sp_set_session_context")
        .param(RpcParam::nvarchar("@key", "k"))
        .param(RpcParam::nvarchar("@value", "v"));
    let payload = request.encode();
    let calls = calls(&payload);
    let text = |name| calls.calls[0].parameter(name, 9).and_then(|it| it.value.text());
    assert_eq!(
        (text("@key"), text("@value")),
        (Some("k".into()), Some("v".into()))
    );
    let payload = RpcRequest::by_id(ProcId::ExecuteSql).encode();
    assert_eq!(self::calls(&payload).calls[0].parameter_count, 0);
}
