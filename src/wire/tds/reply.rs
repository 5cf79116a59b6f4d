//! Writes the tokens of replies (MS-TDS 2.2.7): what gatepost says itself, and what a scripted server says
//! in tests. All of them append to a message's payload. Those that only a login has are in
//! [`crate::wire::tds::login_ack`].

use crate::wire::tds::data_type::{COLLATION_BYTES, PLP_NULL, USHORT_MAX_OR_NULL, id};
use crate::wire::tds::event::{DoneKind, DoneStatus, kind};
use crate::wire::tds::tag;
use crate::wire::tds::utf16;

/// `SQL_Latin1_General_CP1_CI_AS`, the collation of a server that was installed in English.
pub const COLLATION: [u8; COLLATION_BYTES] = [0x09, 0x04, 0xD0, 0x00, 0x34];

/// The longest text of an ERROR or INFO: what RAISERROR allows. With both names (255 units at most each) the
/// token stays far below its 64 KiB.
const TEXT_UNITS_MAX: usize = 2047;
/// What one byte can count.
const NAME_UNITS_MAX: usize = 0xFF;
/// In a COLMETADATA: the column may be NULL and can be written.
const COLUMN_FLAGS: u16 = 0x0009;
/// TCP, in a ROUTING.
const PROTOCOL_TCP: u8 = 0;

/// What an ERROR or INFO says (2.2.7.10, 2.2.7.13). Longer texts are cut, between characters.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub number: i32,
    pub state: u8,
    /// Severity: up to 10 it is information, from 20 on drivers drop the connection.
    pub class: u8,
    /// At most 2047 units of UTF-16.
    pub text: &'a str,
    /// Who says it; at most 255 units.
    pub server: &'a str,
    /// Empty outside of one; at most 255 units.
    pub procedure: &'a str,
    /// Of the batch or procedure; from 1 on.
    pub line: u32,
}

/// ERROR (2.2.7.10).
pub fn put_error(out: &mut Vec<u8>, said: &Said<'_>) {
    put_said(out, tag::ERROR, said);
}

/// INFO (2.2.7.13), which has the layout of ERROR.
pub fn put_info(out: &mut Vec<u8>, said: &Said<'_>) {
    put_said(out, tag::INFO, said);
}

fn put_said(out: &mut Vec<u8>, token: u8, said: &Said<'_>) {
    put_counted(out, token, |body| {
        body.extend_from_slice(&said.number.to_le_bytes());
        body.extend_from_slice(&[said.state, said.class]);
        put_us_varchar(body, said.text, TEXT_UNITS_MAX);
        put_b_varchar(body, said.server);
        put_b_varchar(body, said.procedure);
        body.extend_from_slice(&said.line.to_le_bytes());
    });
}

/// The end of a reply or, with [`DoneStatus::MORE`], of one statement (2.2.7.6 to 2.2.7.8). `command` is what
/// kind of statement it was, 0 if none. `rows` counts only where `status` has [`DoneStatus::COUNT`].
pub fn put_done(out: &mut Vec<u8>, which: DoneKind, status: DoneStatus, command: u16, rows: u64) {
    out.push(match which {
        DoneKind::Batch => tag::DONE,
        DoneKind::Procedure => tag::DONEPROC,
        DoneKind::InProcedure => tag::DONEINPROC,
    });
    out.extend_from_slice(&status.0.to_le_bytes());
    out.extend_from_slice(&command.to_le_bytes());
    out.extend_from_slice(&rows.to_le_bytes());
}

/// What the procedure returned (2.2.7.18).
pub fn put_return_status(out: &mut Vec<u8>, status: i32) {
    out.push(tag::RETURNSTATUS);
    out.extend_from_slice(&status.to_le_bytes());
}

/// An output parameter (2.2.7.19). The name begins with `@`.
pub fn put_return_value(out: &mut Vec<u8>, ordinal: u16, name: &str, kind: ColumnKind, cell: Cell<'_>) {
    const OUTPUT_PARAMETER: u8 = 0x01;
    out.push(tag::RETURNVALUE);
    out.extend_from_slice(&ordinal.to_le_bytes());
    put_b_varchar(out, name);
    out.push(OUTPUT_PARAMETER);
    put_described(out, kind);
    put_cell(out, kind, cell);
}

/// The columns by which the rows are sorted, from 1 (2.2.7.17).
pub fn put_order(out: &mut Vec<u8>, columns: &[u16]) {
    put_counted(out, tag::ORDER, |body| {
        for column in columns {
            body.extend_from_slice(&column.to_le_bytes());
        }
    });
}

/// The session's database is `new` now (this and what follows: ENVCHANGE, 2.2.7.9).
pub fn put_database(out: &mut Vec<u8>, new: &str, old: &str) {
    put_text_change(out, kind::DATABASE, new, old);
}

/// The session's language is `new` now, by its name, as `us_english`.
pub fn put_language(out: &mut Vec<u8>, new: &str, old: &str) {
    put_text_change(out, kind::LANGUAGE, new, old);
}

/// In bytes, headers included; valid from the next message on. No `u16`: `old` may be what a client asked for,
/// and it may ask for more than any packet can have.
pub fn put_packet_size(out: &mut Vec<u8>, new: usize, old: usize) {
    put_text_change(out, kind::PACKET_SIZE, &new.to_string(), &old.to_string());
}

/// The collation of the session's database is `new` now (2.2.5.1.2). A login has none before.
pub fn put_collation(out: &mut Vec<u8>, new: [u8; COLLATION_BYTES], old: Option<[u8; COLLATION_BYTES]>) {
    let old = old.as_ref().map_or(&[][..], |old| &old[..]);
    put_bytes_change(out, kind::COLLATION, &new, old);
}

/// A transaction began.
pub fn put_begin(out: &mut Vec<u8>, descriptor: u64) {
    put_bytes_change(out, kind::BEGIN, &descriptor.to_le_bytes(), &[]);
}

/// A transaction was committed.
pub fn put_commit(out: &mut Vec<u8>, descriptor: u64) {
    put_bytes_change(out, kind::COMMIT, &[], &descriptor.to_le_bytes());
}

/// A transaction was rolled back.
pub fn put_rollback(out: &mut Vec<u8>, descriptor: u64) {
    put_bytes_change(out, kind::ROLLBACK, &[], &descriptor.to_le_bytes());
}

/// The session takes part in a transaction that a coordinator leads.
pub fn put_enlist_dtc(out: &mut Vec<u8>, descriptor: u64) {
    put_bytes_change(out, kind::ENLIST_DTC, &descriptor.to_le_bytes(), &[]);
}

/// The session left the transaction that a coordinator leads.
pub fn put_defect(out: &mut Vec<u8>, descriptor: u64) {
    put_bytes_change(out, kind::DEFECT, &descriptor.to_le_bytes(), &[]);
}

/// A coordinator leads the session's transaction from now on. `cookie` is what it knows that by, cut at 255
/// bytes.
pub fn put_promote(out: &mut Vec<u8>, cookie: &[u8]) {
    put_change(out, kind::PROMOTE, |body| {
        let cookie = cookie.get(..usize::from(u8::MAX)).unwrap_or(cookie);
        body.extend_from_slice(&u32::try_from(cookie.len()).unwrap_or_default().to_le_bytes());
        body.extend_from_slice(cookie);
        body.push(0);
    });
}

/// A transaction ended; how is not said.
pub fn put_transaction_ended(out: &mut Vec<u8>, descriptor: u64) {
    put_bytes_change(out, kind::TRANSACTION_ENDED, &[], &descriptor.to_le_bytes());
}

/// The reset that the request's header asked for was done.
pub fn put_reset_ack(out: &mut Vec<u8>) {
    put_bytes_change(out, kind::RESET_ACK, &[], &[]);
}

/// The client shall log in at `server` instead, a host of at most 255 units, over TCP.
pub fn put_routing(out: &mut Vec<u8>, port: u16, server: &str) {
    put_change(out, kind::ROUTING, |body| {
        put_sized(body, |value| {
            value.push(PROTOCOL_TCP);
            value.extend_from_slice(&port.to_le_bytes());
            put_us_varchar(value, server, NAME_UNITS_MAX);
        });
        body.extend_from_slice(&[0, 0]); // no old one
    });
}

/// The type of a column. All may be NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Bit,
    Int,
    BigInt,
    Float,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// With `scale` digits behind the second, at most 7.
    DateTime2 {
        scale: u8,
    },
    UniqueIdentifier,
    /// At most so many units, at most 4000.
    NVarChar(u16),
    NVarCharMax,
    /// At most so many bytes, at most 8000.
    VarBinary(u16),
    VarBinaryMax,
}

/// A value. One of another kind than its column is written as NULL, and what is longer than its column is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bit(bool),
    Int(i32),
    BigInt(i64),
    Float(f64),
    /// The digits without point; `scale` of the column says where that is.
    Decimal(i128),
    DateTime2 {
        /// Since midnight, in units of the column's scale.
        ticks: u64,
        /// Since 0001-01-01.
        days: u32,
    },
    /// As on the wire: the first three groups little endian.
    UniqueIdentifier([u8; 16]),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// A column of a result set. The name is at most 255 units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    pub name: &'a str,
    pub kind: ColumnKind,
}

/// COLMETADATA (2.2.7.4): a result set begins.
pub fn put_columns(out: &mut Vec<u8>, columns: &[Column<'_>]) {
    out.push(tag::COLMETADATA);
    // SQL Server has at most 4096 in a result.
    let count = u16::try_from(columns.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for column in columns.iter().take(usize::from(count)) {
        put_described(out, column.kind);
        put_b_varchar(out, column.name);
    }
}

/// ROW (2.2.7.20). What `cells` lacks is NULL.
pub fn put_row(out: &mut Vec<u8>, columns: &[Column<'_>], cells: &[Cell<'_>]) {
    out.push(tag::ROW);
    for (column, cell) in paired(columns, cells) {
        put_cell(out, column.kind, cell);
    }
}

/// NBCROW (2.2.7.15): a row with a bitmap, which leaves its NULLs out.
pub fn put_compact_row(out: &mut Vec<u8>, columns: &[Column<'_>], cells: &[Cell<'_>]) {
    out.push(tag::NBCROW);
    let mut nulls = vec![0_u8; columns.len().div_ceil(8)];
    for (index, (column, cell)) in paired(columns, cells).enumerate() {
        if let Some(byte) = nulls.get_mut(index / 8)
            && !fits(column.kind, cell)
        {
            *byte |= 1 << (index % 8);
        }
    }
    out.extend_from_slice(&nulls);
    for (column, cell) in paired(columns, cells).filter(|(column, cell)| fits(column.kind, *cell)) {
        put_cell(out, column.kind, cell);
    }
}

fn paired<'a>(
    columns: &'a [Column<'a>],
    cells: &'a [Cell<'a>],
) -> impl Iterator<Item = (&'a Column<'a>, Cell<'a>)> {
    let cells = cells.iter().copied().chain(std::iter::repeat(Cell::Null));
    columns.iter().zip(cells)
}

/// Is it a value of this kind, and not NULL?
const fn fits(kind: ColumnKind, cell: Cell<'_>) -> bool {
    matches!(
        (kind, cell),
        (ColumnKind::Bit, Cell::Bit(_))
            | (ColumnKind::Int, Cell::Int(_))
            | (ColumnKind::BigInt, Cell::BigInt(_))
            | (ColumnKind::Float, Cell::Float(_))
            | (ColumnKind::Decimal { .. }, Cell::Decimal(_))
            | (ColumnKind::DateTime2 { .. }, Cell::DateTime2 { .. })
            | (ColumnKind::UniqueIdentifier, Cell::UniqueIdentifier(_))
            | (ColumnKind::NVarChar(_) | ColumnKind::NVarCharMax, Cell::Text(_))
            | (
                ColumnKind::VarBinary(_) | ColumnKind::VarBinaryMax,
                Cell::Bytes(_)
            )
    )
}

/// User type, flags, type.
fn put_described(out: &mut Vec<u8>, kind: ColumnKind) {
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&COLUMN_FLAGS.to_le_bytes());
    put_type(out, kind);
}

/// The description of a type (TYPE_INFO, 2.2.5.6).
pub(super) fn put_type(out: &mut Vec<u8>, kind: ColumnKind) {
    match kind {
        ColumnKind::Bit => out.extend_from_slice(&[id::BIT_N, 1]),
        ColumnKind::Int => out.extend_from_slice(&[id::INT_N, 4]),
        ColumnKind::BigInt => out.extend_from_slice(&[id::INT_N, 8]),
        ColumnKind::Float => out.extend_from_slice(&[id::FLOAT_N, 8]),
        ColumnKind::Decimal { precision, scale } => {
            let length = decimal_bytes(precision).saturating_add(1);
            out.extend_from_slice(&[id::DECIMAL_N, length, precision, scale]);
        }
        ColumnKind::DateTime2 { scale } => out.extend_from_slice(&[id::DATETIME2, scale]),
        ColumnKind::UniqueIdentifier => out.extend_from_slice(&[id::GUID, 16]),
        ColumnKind::NVarChar(units) => put_text_type(out, units.saturating_mul(2)),
        ColumnKind::NVarCharMax => put_text_type(out, USHORT_MAX_OR_NULL),
        ColumnKind::VarBinary(bytes) => put_binary_type(out, bytes),
        ColumnKind::VarBinaryMax => put_binary_type(out, USHORT_MAX_OR_NULL),
    }
}

fn put_text_type(out: &mut Vec<u8>, bytes_max: u16) {
    out.push(id::NVARCHAR);
    out.extend_from_slice(&bytes_max.to_le_bytes());
    out.extend_from_slice(&COLLATION);
}

fn put_binary_type(out: &mut Vec<u8>, bytes_max: u16) {
    out.push(id::VARBINARY);
    out.extend_from_slice(&bytes_max.to_le_bytes());
}

/// A value with its length.
pub(super) fn put_cell(out: &mut Vec<u8>, kind: ColumnKind, cell: Cell<'_>) {
    match (kind, cell) {
        (ColumnKind::Bit, Cell::Bit(value)) => put_short_value(out, &[u8::from(value)]),
        (ColumnKind::Int, Cell::Int(value)) => put_short_value(out, &value.to_le_bytes()),
        (ColumnKind::BigInt, Cell::BigInt(value)) => put_short_value(out, &value.to_le_bytes()),
        (ColumnKind::Float, Cell::Float(value)) => put_short_value(out, &value.to_le_bytes()),
        (ColumnKind::Decimal { precision, .. }, Cell::Decimal(value)) => put_decimal(out, precision, value),
        (ColumnKind::DateTime2 { scale }, Cell::DateTime2 { ticks, days }) => {
            let time = ticks.to_le_bytes();
            let time = time.get(..time_bytes(scale)).unwrap_or_default();
            let [a, b, c, _] = days.to_le_bytes();
            put_short_value(out, &[time, &[a, b, c]].concat());
        }
        (ColumnKind::UniqueIdentifier, Cell::UniqueIdentifier(value)) => put_short_value(out, &value),
        (ColumnKind::NVarChar(units), Cell::Text(text)) => {
            let mut value = Vec::new();
            utf16::put_at_most(&mut value, text, usize::from(units));
            put_long_value(out, &value);
        }
        (ColumnKind::NVarCharMax, Cell::Text(text)) => {
            let mut value = Vec::new();
            utf16::put(&mut value, text);
            put_chunked(out, &value, usize::MAX);
        }
        (ColumnKind::VarBinary(bytes), Cell::Bytes(value)) => {
            put_long_value(out, value.get(..usize::from(bytes)).unwrap_or(value));
        }
        (ColumnKind::VarBinaryMax, Cell::Bytes(value)) => put_chunked(out, value, usize::MAX),
        _ => put_null(out, kind),
    }
}

fn put_null(out: &mut Vec<u8>, kind: ColumnKind) {
    match kind {
        ColumnKind::NVarChar(_) | ColumnKind::VarBinary(_) => {
            out.extend_from_slice(&USHORT_MAX_OR_NULL.to_le_bytes());
        }
        ColumnKind::NVarCharMax | ColumnKind::VarBinaryMax => {
            out.extend_from_slice(&PLP_NULL.to_le_bytes());
        }
        ColumnKind::Bit
        | ColumnKind::Int
        | ColumnKind::BigInt
        | ColumnKind::Float
        | ColumnKind::Decimal { .. }
        | ColumnKind::DateTime2 { .. }
        | ColumnKind::UniqueIdentifier => out.push(0),
    }
}

/// With a length of one byte.
fn put_short_value(out: &mut Vec<u8>, value: &[u8]) {
    out.push(u8::try_from(value.len()).unwrap_or_default());
    out.extend_from_slice(value);
}

/// With a length of two bytes.
fn put_long_value(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(value);
}

/// A value of a "(max)" type in chunks of at most `chunk_max` bytes; more than 4 GiB cannot be one chunk.
pub fn put_chunked(out: &mut Vec<u8>, value: &[u8], chunk_max: usize) {
    out.extend_from_slice(&u64::try_from(value.len()).unwrap_or_default().to_le_bytes());
    let chunk_max = chunk_max.clamp(1, usize::try_from(u32::MAX).unwrap_or(usize::MAX));
    for chunk in value.chunks(chunk_max) {
        out.extend_from_slice(&u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(chunk);
    }
    out.extend_from_slice(&0_u32.to_le_bytes());
}

/// Sign, then the digits as a number (2.2.5.5.1.6).
fn put_decimal(out: &mut Vec<u8>, precision: u8, value: i128) {
    let digits = value.unsigned_abs().to_le_bytes();
    let mut bytes = vec![u8::from(value >= 0)];
    bytes.extend(digits.iter().take(usize::from(decimal_bytes(precision))));
    put_short_value(out, &bytes);
}

const fn decimal_bytes(precision: u8) -> u8 {
    match precision {
        0..=9 => 4,
        10..=19 => 8,
        20..=28 => 12,
        _ => 16,
    }
}

const fn time_bytes(scale: u8) -> usize {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

/// An ENVCHANGE whose values are texts.
pub(super) fn put_text_change(out: &mut Vec<u8>, kind: u8, new: &str, old: &str) {
    put_change(out, kind, |body| {
        put_b_varchar(body, new);
        put_b_varchar(body, old);
    });
}

fn put_bytes_change(out: &mut Vec<u8>, kind: u8, new: &[u8], old: &[u8]) {
    put_change(out, kind, |body| {
        put_short_value(body, new);
        put_short_value(body, old);
    });
}

fn put_change(out: &mut Vec<u8>, kind: u8, values: impl FnOnce(&mut Vec<u8>)) {
    put_counted(out, tag::ENVCHANGE, |body| {
        body.push(kind);
        values(body);
    });
}

/// A token whose body, which `body` appends, has its length in two bytes before it.
pub(super) fn put_counted(out: &mut Vec<u8>, token: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(token);
    put_sized(out, body);
}

/// What `body` appends, with two bytes before it that count it.
fn put_sized(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    body(out);
    let length = out.len().saturating_sub(start).saturating_sub(2);
    // Every text in a body is cut so that this fits.
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    if let Some(word) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *word = length.to_le_bytes();
    }
}

/// A text with the count of its units in one byte; what is longer is cut.
pub(super) fn put_b_varchar(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    out.push(0);
    let units = utf16::put_at_most(out, text, NAME_UNITS_MAX);
    if let Some(count) = out.get_mut(start) {
        *count = u8::try_from(units).unwrap_or(u8::MAX);
    }
}

/// A text with the count of its units in two bytes; what is longer than `units_max` is cut.
pub(super) fn put_us_varchar(out: &mut Vec<u8>, text: &str, units_max: usize) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    let units = utf16::put_at_most(out, text, units_max);
    if let Some(word) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *word = u16::try_from(units).unwrap_or(u16::MAX).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: Said<'static> = Said {
        number: 18456,
        state: 1,
        class: 14,
        text: "no",
        server: "g",
        procedure: "",
        line: 1,
    };

    #[test]
    fn an_error_is_laid_out_as_it_should() {
        let mut out = vec![];
        put_error(&mut out, &SAID);
        assert_eq!(
            out,
            b"\xaa\x14\0\x18\x48\0\0\x01\x0e\x02\0n\0o\0\x01g\0\0\x01\0\0\0"
        );
        put_info(&mut out, &SAID);
        assert_eq!(out[23], tag::INFO);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut out = vec![];
        let long = "🐘".repeat(2000);
        let said = Said {
            text: &long,
            server: &long,
            ..SAID
        };
        put_error(&mut out, &said);
        let length = usize::from(u16::from_le_bytes([out[1], out[2]]));
        assert_eq!(out.len(), 3 + length);
        assert_eq!(u16::from_le_bytes([out[9], out[10]]), 2046);
        assert_eq!(out[11 + 2 * 2046], 254);
    }

    #[test]
    fn the_end_takes_thirteen_bytes() {
        let mut out = vec![];
        let status = DoneStatus::ERROR.and(DoneStatus::COUNT);
        put_done(&mut out, DoneKind::Batch, status, 0xc1, 7);
        assert_eq!(out, b"\xfd\x12\0\xc1\0\x07\0\0\0\0\0\0\0");
    }
}
