//! Tables as parameters (TVP, 2.2.5.5.5): passed over, row by row.

use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::data_type::{self, Body, DataType, Place};
use crate::wire::tds::incoming::{Incoming, Stop};

/// Tokens within.
const END: u8 = 0x00;
const ROW: u8 = 0x01;
const ORDER_UNIQUE: u8 = 0x10;
const COLUMN_ORDERING: u8 = 0x11;

/// The count of columns of a table that is NULL.
const NULL: u16 = 0xFFFF;
/// A flag of columns that rows leave out.
const FLAG_DEFAULT: u16 = 0x0200;

const WHAT: &str = "table-valued parameter";

/// Passes over a table, from behind the id of its type.
pub(super) fn skip(incoming: &mut Incoming<'_>) -> Result<(), Stop> {
    for _ in 0..3 {
        incoming.b_varchar()?; // database, schema, type
    }
    let columns = columns(incoming)?;
    loop {
        match incoming.u8()? {
            END => break,
            ORDER_UNIQUE => ordering(incoming, 3)?,
            COLUMN_ORDERING => ordering(incoming, 2)?,
            _ => return Err(Stop::Broken(PeerMisbehaved::UnknownValue { what: WHAT })),
        }
    }
    loop {
        match incoming.u8()? {
            END => return Ok(()),
            ROW => columns
                .iter()
                .try_for_each(|column| skip_value(incoming, *column))?,
            _ => return Err(Stop::Broken(PeerMisbehaved::UnknownValue { what: WHAT })),
        }
    }
}

/// The columns that rows have values for.
fn columns(incoming: &mut Incoming<'_>) -> Result<Vec<DataType>, Stop> {
    let mut columns = Vec::new();
    let count = match incoming.u16()? {
        NULL => 0,
        count => count,
    };
    for _ in 0..count {
        incoming.u32()?; // user type
        let flags = incoming.u16()?;
        let data_type = data_type::read(incoming, Place::Request)?;
        incoming.b_varchar()?;
        if flags & FLAG_DEFAULT == 0 {
            columns.push(data_type);
        }
    }
    Ok(columns)
}

fn ordering(incoming: &mut Incoming<'_>, entry_bytes: usize) -> Result<(), Stop> {
    let entries = usize::from(incoming.u16()?);
    incoming.bytes(entries.saturating_mul(entry_bytes))?;
    Ok(())
}

/// Passes over a value with its length.
pub(super) fn skip_value(incoming: &mut Incoming<'_>, data_type: DataType) -> Result<(), Stop> {
    let body = incoming.length(data_type.width)?;
    match body {
        Body::Null => {}
        Body::Bytes(count) => {
            incoming.bytes(count)?;
        }
        Body::Chunks => loop {
            match data_type::count(incoming)? {
                0 => break,
                count => incoming.bytes(count)?,
            };
        },
    }
    Ok(())
}
