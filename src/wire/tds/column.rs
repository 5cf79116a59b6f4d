//! The descriptions of columns and of output parameters in a reply (2.2.7.1, 2.2.7.4, 2.2.7.19).

use crate::wire::tds::data_type::{self, Body, DataType, Place};
use crate::wire::tds::incoming::{Incoming, Stop};
use crate::wire::tds::utf16::Utf16;

/// The count of columns that says "as described before" (`NoMetaData`).
pub(super) const NO_METADATA: u16 = 0xFFFF;

/// A flag of columns whose description goes on with the keys of Always Encrypted. They only come to who asked
/// for them at login, which gatepost does not, so nobody here could tell where the description ends.
const FLAG_ENCRYPTED: u16 = 0x0800;

/// One column of a COLMETADATA.
pub(super) fn column(incoming: &mut Incoming<'_>) -> Result<DataType, Stop> {
    let data_type = described(incoming, true)?;
    incoming.b_varchar()?;
    Ok(data_type)
}

/// One column of an ALTMETADATA, which sums up another.
pub(super) fn computed(incoming: &mut Incoming<'_>) -> Result<DataType, Stop> {
    incoming.u8()?; // the operator
    incoming.u16()?; // the column summed up
    column(incoming)
}

/// An output parameter without its value, unless that is an integer.
pub(super) struct Output<'a> {
    pub(super) ordinal: u16,
    pub(super) name: Utf16<'a>,
    pub(super) status: u8,
    /// What is left to skip; nothing if the value was read.
    pub(super) rest: Option<DataType>,
    pub(super) value: Option<i64>,
}

/// Reads from behind the token's first byte.
pub(super) fn output<'a>(incoming: &mut Incoming<'a>) -> Result<Output<'a>, Stop> {
    let ordinal = incoming.u16()?;
    let name = incoming.b_varchar()?;
    let status = incoming.u8()?;
    let data_type = described(incoming, false)?;
    let value = if data_type.is_integer() {
        integer(incoming, data_type)?
    } else {
        None
    };
    Ok(Output {
        ordinal,
        name,
        status,
        rest: (!data_type.is_integer()).then_some(data_type),
        value,
    })
}

/// User type, flags, type.
fn described(incoming: &mut Incoming<'_>, in_table: bool) -> Result<DataType, Stop> {
    incoming.u32()?;
    let flags = incoming.u16()?;
    let data_type = data_type::read(incoming, Place::Reply)?;
    if flags & FLAG_ENCRYPTED != 0 {
        return Err(Stop::UnknownType(data_type.id));
    }
    if in_table && data_type.names_table() {
        for _ in 0..incoming.u8()? {
            incoming.us_varchar()?;
        }
    }
    Ok(data_type)
}

/// The value of an integer, at most eight bytes; NULL is none.
fn integer(incoming: &mut Incoming<'_>, data_type: DataType) -> Result<Option<i64>, Stop> {
    match incoming.length(data_type.width)? {
        Body::Bytes(count) => Ok(data_type::integer(incoming.bytes(count)?)),
        Body::Null | Body::Chunks => Ok(None),
    }
}
