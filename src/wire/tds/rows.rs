//! Reads the first row of a small reply: that to one of gatepost's own questions.

use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::column;
use crate::wire::tds::data_type::{self, Body, DataType, id};
use crate::wire::tds::event::Event;
use crate::wire::tds::incoming::{Incoming, Stop, within};
use crate::wire::tds::tag;
use crate::wire::tds::token::Reader;
use crate::wire::tds::utf16::Utf16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    /// Any of the integers, and bit.
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    /// Of a type that none of our questions is answered with.
    Other,
}

/// The values of the first row in the whole `payload` of a reply; none if it has no row or cannot be read.
/// Copies them, so the caller bounds the payload.
///
/// # Errors
/// As [`Reader::read`].
pub fn first_row(payload: &[u8]) -> Result<Option<Vec<Value>>, PeerMisbehaved> {
    let mut columns_at = None;
    let mut row_at = None;
    let mut reader = Reader::default();
    reader.read(payload, &mut |event| {
        if row_at.is_some() {
            return;
        }
        if let Event::Columns { at, .. } = event {
            columns_at = Some(at);
        } else if let Event::Row { at } = event {
            row_at = Some(at);
        }
    })?;
    if let (Some(columns), Some(row)) = (columns_at, row_at)
        && reader.is_between_tokens()
    {
        let columns = from(payload, columns);
        let row = from(payload, row);
        let columns = within("COLMETADATA", columns, described)?;
        return within("ROW", row, |row| values(&columns, row)).map(Some);
    }
    Ok(None)
}

fn from(payload: &[u8], at: u64) -> &[u8] {
    let at = usize::try_from(at).ok();
    at.and_then(|at| payload.get(at..)).unwrap_or_default()
}

fn described(incoming: &mut Incoming<'_>) -> Result<Vec<DataType>, Stop> {
    incoming.u8()?;
    let count = incoming.u16()?;
    (0..count).map(|_| column::column(incoming)).collect()
}

fn values(columns: &[DataType], incoming: &mut Incoming<'_>) -> Result<Vec<Value>, Stop> {
    let nulls = match incoming.u8()? {
        tag::NBCROW => incoming.bytes(columns.len().div_ceil(8))?,
        _ => &[],
    };
    let value = |(index, column): (usize, &DataType)| {
        if data_type::is_null(nulls, index) {
            return Ok(Value::Null);
        }
        value(*column, incoming)
    };
    columns.iter().enumerate().map(value).collect()
}

fn value(column: DataType, incoming: &mut Incoming<'_>) -> Result<Value, Stop> {
    Ok(match incoming.length(column.width)? {
        Body::Null => Value::Null,
        Body::Bytes(count) => {
            let bytes = incoming.bytes(count)?;
            if column.id == id::VARIANT {
                return within("sql_variant", bytes, variant).map_err(Stop::Broken);
            }
            of_type(column.id, bytes)
        }
        Body::Chunks => {
            let mut bytes = Vec::new();
            loop {
                let count = data_type::count(incoming)?;
                if count == 0 {
                    break of_type(column.id, &bytes);
                }
                bytes.extend_from_slice(incoming.bytes(count)?);
            }
        }
    })
}

/// A value that brings its type (2.2.5.5.4), as SESSION_CONTEXT returns it.
fn variant(incoming: &mut Incoming<'_>) -> Result<Value, Stop> {
    if incoming.is_empty() {
        return Ok(Value::Null);
    }
    let id = incoming.u8()?;
    incoming.b_varbyte()?; // what else belongs to the type
    Ok(of_type(id, incoming.rest()))
}

fn of_type(id: u8, bytes: &[u8]) -> Value {
    match id {
        id::INT1 | id::INT2 | id::INT4 | id::INT8 | id::INT_N | id::BIT | id::BIT_N => {
            data_type::integer(bytes).map_or(Value::Other, Value::Int)
        }
        id::NVARCHAR | id::NCHAR | id::NTEXT | id::XML => Value::Text(Utf16::new(bytes).lossy()),
        // In a code page that is not known here; all of them agree about ASCII.
        id::VARCHAR | id::CHAR | id::TEXT if bytes.is_ascii() => {
            Value::Text(String::from_utf8_lossy(bytes).into_owned())
        }
        id::VARBINARY | id::BINARY | id::IMAGE => Value::Bytes(bytes.to_vec()),
        _ => Value::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tds::event::{DoneKind, DoneStatus};
    use crate::wire::tds::reply::{self, Cell, Column, ColumnKind};

    fn columns() -> Vec<Column<'static>> {
        let column = |kind| Column { name: "", kind };
        vec![
            column(ColumnKind::Int),
            column(ColumnKind::BigInt),
            column(ColumnKind::NVarChar(20)),
            column(ColumnKind::NVarCharMax),
            column(ColumnKind::VarBinary(8)),
            column(ColumnKind::VarBinaryMax),
            column(ColumnKind::Float),
        ]
    }

    const CELLS: [Cell<'static>; 7] = [
        Cell::Int(-53),
        Cell::BigInt(1 << 40),
        Cell::Text("größer"),
        Cell::Text("😀"),
        Cell::Bytes(b"\x00\x01"),
        Cell::Null,
        Cell::Float(1.5),
    ];

    fn expected() -> Vec<Value> {
        vec![
            Value::Int(-53),
            Value::Int(1 << 40),
            Value::Text("größer".into()),
            Value::Text("😀".into()),
            Value::Bytes(vec![0, 1]),
            Value::Null,
            Value::Other,
        ]
    }

    /// Behind a reset and before other rows.
    fn around(row: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut payload = vec![];
        reply::put_reset_ack(&mut payload);
        row(&mut payload);
        reply::put_done(&mut payload, DoneKind::Batch, DoneStatus::MORE, 0, 1);
        reply::put_columns(&mut payload, &columns()[..1]);
        reply::put_row(&mut payload, &columns()[..1], &[Cell::Int(1)]);
        reply::put_done(&mut payload, DoneKind::Batch, DoneStatus::FINAL, 0, 1);
        payload
    }

    #[test]
    fn the_first_row_is_read() {
        for put_row in [reply::put_row, reply::put_compact_row] {
            let payload = around(|out| {
                reply::put_columns(out, &columns());
                put_row(out, &columns(), &CELLS);
                put_row(out, &columns(), &[]);
            });
            assert_eq!(first_row(&payload), Ok(Some(expected())));
        }
    }

    #[test]
    fn variants_bring_their_type() {
        let cases: [(&[u8], Value); 6] = [
            (&[], Value::Null),
            (&[0x38, 0, 7, 0, 0, 0], Value::Int(7)),
            (
                &[0xE7, 7, 9, 4, 0xD0, 0, 0x34, 20, 0, b'a', 0],
                Value::Text("a".into()),
            ),
            (
                &[0xA7, 7, 9, 4, 0xD0, 0, 0x34, 20, 0, b'a'],
                Value::Text("a".into()),
            ),
            (&[0xA7, 7, 9, 4, 0xD0, 0, 0x34, 20, 0, 0xF6], Value::Other),
            (&[0xA5, 2, 20, 0, 1], Value::Bytes(vec![1])),
        ];
        for (variant, expected) in cases {
            let payload = around(|out| {
                out.extend([
                    tag::COLMETADATA,
                    1,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0x62,
                    0x49,
                    0x1F,
                    0,
                    0,
                    0,
                    tag::ROW,
                ]);
                out.extend(u32::try_from(variant.len()).unwrap().to_le_bytes());
                out.extend(variant);
            });
            assert_eq!(first_row(&payload), Ok(Some(vec![expected])));
        }
    }

    #[test]
    fn a_reply_without_rows_or_without_end_has_none() {
        let mut payload = vec![];
        reply::put_columns(&mut payload, &columns());
        reply::put_done(&mut payload, DoneKind::Batch, DoneStatus::FINAL, 0, 0);
        assert_eq!(first_row(&payload), Ok(None));
        assert_eq!(first_row(&[]), Ok(None));
        assert_eq!(first_row(&[0x42]), Ok(None));
        let payload = around(|out| {
            reply::put_columns(out, &columns());
            reply::put_row(out, &columns(), &CELLS);
        });
        assert_eq!(first_row(&payload[..payload.len() - 1]), Ok(None));
    }
}
