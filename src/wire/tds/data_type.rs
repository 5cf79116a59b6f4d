//! What a data type says about the length of its values ("Data Type Definitions", 2.2.5.4 and 2.2.5.5).

use crate::wire::tds::incoming::{Incoming, Stop};

/// Type ids (2.2.5.4.1 to 2.2.5.4.4).
pub(super) mod id {
    pub(in crate::wire::tds) const NULL: u8 = 0x1F;
    pub(in crate::wire::tds) const IMAGE: u8 = 0x22;
    pub(in crate::wire::tds) const TEXT: u8 = 0x23;
    pub(in crate::wire::tds) const GUID: u8 = 0x24;
    pub(in crate::wire::tds) const VARBINARY_OLD: u8 = 0x25;
    pub(in crate::wire::tds) const INT_N: u8 = 0x26;
    pub(in crate::wire::tds) const VARCHAR_OLD: u8 = 0x27;
    pub(in crate::wire::tds) const DATE: u8 = 0x28;
    pub(in crate::wire::tds) const TIME: u8 = 0x29;
    pub(in crate::wire::tds) const DATETIME2: u8 = 0x2A;
    pub(in crate::wire::tds) const DATETIMEOFFSET: u8 = 0x2B;
    pub(in crate::wire::tds) const BINARY_OLD: u8 = 0x2D;
    pub(in crate::wire::tds) const CHAR_OLD: u8 = 0x2F;
    pub(in crate::wire::tds) const INT1: u8 = 0x30;
    pub(in crate::wire::tds) const BIT: u8 = 0x32;
    pub(in crate::wire::tds) const INT2: u8 = 0x34;
    pub(in crate::wire::tds) const DECIMAL_OLD: u8 = 0x37;
    pub(in crate::wire::tds) const INT4: u8 = 0x38;
    pub(in crate::wire::tds) const DATETIME4: u8 = 0x3A;
    pub(in crate::wire::tds) const FLOAT4: u8 = 0x3B;
    pub(in crate::wire::tds) const MONEY: u8 = 0x3C;
    pub(in crate::wire::tds) const DATETIME: u8 = 0x3D;
    pub(in crate::wire::tds) const FLOAT8: u8 = 0x3E;
    pub(in crate::wire::tds) const NUMERIC_OLD: u8 = 0x3F;
    pub(in crate::wire::tds) const VARIANT: u8 = 0x62;
    pub(in crate::wire::tds) const NTEXT: u8 = 0x63;
    pub(in crate::wire::tds) const BIT_N: u8 = 0x68;
    pub(in crate::wire::tds) const DECIMAL_N: u8 = 0x6A;
    pub(in crate::wire::tds) const NUMERIC_N: u8 = 0x6C;
    pub(in crate::wire::tds) const FLOAT_N: u8 = 0x6D;
    pub(in crate::wire::tds) const MONEY_N: u8 = 0x6E;
    pub(in crate::wire::tds) const DATETIME_N: u8 = 0x6F;
    pub(in crate::wire::tds) const MONEY4: u8 = 0x7A;
    pub(in crate::wire::tds) const INT8: u8 = 0x7F;
    pub(in crate::wire::tds) const VARBINARY: u8 = 0xA5;
    pub(in crate::wire::tds) const VARCHAR: u8 = 0xA7;
    pub(in crate::wire::tds) const BINARY: u8 = 0xAD;
    pub(in crate::wire::tds) const CHAR: u8 = 0xAF;
    pub(in crate::wire::tds) const NVARCHAR: u8 = 0xE7;
    pub(in crate::wire::tds) const NCHAR: u8 = 0xEF;
    pub(in crate::wire::tds) const UDT: u8 = 0xF0;
    pub(in crate::wire::tds) const XML: u8 = 0xF1;
    /// Only in requests, and with a description of its own.
    pub(in crate::wire::tds) const TABLE: u8 = 0xF3;
    pub(in crate::wire::tds) const JSON: u8 = 0xF4;
    pub(in crate::wire::tds) const VECTOR: u8 = 0xF5;
}

/// Collation: LCID, flags, version, sort id (2.2.5.1.2).
pub(super) const COLLATION_BYTES: usize = 5;
/// As the maximum length of a type it means "(max)", whose values come in chunks; as the length of a value, NULL.
pub(super) const USHORT_MAX_OR_NULL: u16 = 0xFFFF;
/// The length of a NULL with a length of four bytes.
const ULONG_NULL: u32 = 0xFFFF_FFFF;
/// The length of a NULL that would come in chunks (`PLP_NULL`). `PLP_UNKNOWN`, one less, only means that the
/// sender does not know the sum of the chunks.
pub(super) const PLP_NULL: u64 = 0xFFFF_FFFF_FFFF_FFFF;
/// Behind the pointer of a text, ntext or image.
const TEXT_TIMESTAMP_BYTES: usize = 8;

/// Where a type is described: two types are described, and one travels, in another manner in requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Reply,
    Request,
}

/// How the length of a value is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// It is always this; there is no NULL.
    Fixed(u8),
    /// One byte; 0 is NULL.
    Byte,
    /// Two bytes.
    Short,
    /// Four bytes.
    Long,
    /// A text pointer with one byte of length (0 is NULL), a timestamp, then four bytes.
    TextPointer,
    /// Chunks ("Partially Length-prefixed Bytes", 2.2.5.2.3).
    Chunks,
}

/// What stands behind the length of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Null,
    Bytes(usize),
    /// Chunks with a length of four bytes each, the last one empty.
    Chunks,
}

impl Width {
    /// Reads the length at the beginning of `rest`: how many bytes it took, and what follows it.
    #[inline]
    pub(super) fn head(self, rest: &[u8]) -> Result<(usize, Body), Stop> {
        let mut incoming = Incoming::new(rest);
        let body = match self {
            Self::Fixed(bytes) => Body::Bytes(usize::from(bytes)),
            Self::Byte => match incoming.u8()? {
                0 => Body::Null,
                bytes => Body::Bytes(usize::from(bytes)),
            },
            Self::Short => match incoming.u16()? {
                USHORT_MAX_OR_NULL => Body::Null,
                bytes => Body::Bytes(usize::from(bytes)),
            },
            Self::Long => long(&mut incoming)?,
            Self::TextPointer => match incoming.u8()? {
                0 => Body::Null,
                pointer => {
                    incoming.bytes(usize::from(pointer).saturating_add(TEXT_TIMESTAMP_BYTES))?;
                    long(&mut incoming)?
                }
            },
            Self::Chunks => match incoming.u64()? {
                PLP_NULL => Body::Null,
                _ => Body::Chunks,
            },
        };
        Ok((incoming.taken(), body))
    }
}

fn long(incoming: &mut Incoming<'_>) -> Result<Body, Stop> {
    Ok(match incoming.u32()? {
        ULONG_NULL => Body::Null,
        // A usize has at least 32 bits where this runs.
        bytes => Body::Bytes(usize::try_from(bytes).unwrap_or(usize::MAX)),
    })
}

/// How long the chunks at the beginning of `rest` are, with the empty one at their end; none if it is not there yet.
pub(super) fn chunks(rest: &[u8]) -> Option<usize> {
    let mut incoming = Incoming::new(rest);
    loop {
        match incoming.u32().ok()? {
            0 => return Some(incoming.taken()),
            bytes => incoming.bytes(usize::try_from(bytes).ok()?).ok()?,
        };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataType {
    pub(super) id: u8,
    pub(super) width: Width,
}

impl DataType {
    pub(super) const fn is_integer(self) -> bool {
        matches!(self.id, id::INT1 | id::INT2 | id::INT4 | id::INT8 | id::INT_N)
    }

    /// With the name of a table behind its description in a reply.
    pub(super) const fn names_table(self) -> bool {
        matches!(self.id, id::TEXT | id::NTEXT | id::IMAGE)
    }
}

/// Reads a description (TYPE_INFO, 2.2.5.6).
pub(super) fn read(incoming: &mut Incoming<'_>, place: Place) -> Result<DataType, Stop> {
    let id = incoming.u8()?;
    if let Some((described, width)) = plain(id) {
        incoming.bytes(described)?;
        return Ok(DataType { id, width });
    }
    let width = match id {
        id::VARBINARY => short(incoming.u16()?),
        id::VARCHAR | id::NVARCHAR => {
            let width = short(incoming.u16()?);
            incoming.bytes(COLLATION_BYTES)?;
            width
        }
        id::IMAGE | id::TEXT | id::NTEXT => {
            incoming.u32()?; // the longest value
            if id != id::IMAGE {
                incoming.bytes(COLLATION_BYTES)?;
            }
            match place {
                Place::Reply => Width::TextPointer,
                Place::Request => Width::Long,
            }
        }
        id::UDT => clr_type(incoming, place)?,
        id::XML => {
            if incoming.u8()? != 0 {
                incoming.b_varchar()?; // database
                incoming.b_varchar()?; // schema
                incoming.us_varchar()?; // collection of XML schemas
            }
            Width::Chunks
        }
        unknown => return Err(Stop::UnknownType(unknown)),
    };
    Ok(DataType { id, width })
}

/// Types whose descriptions have one length and tell nothing of the width of values: how many bytes behind the id
/// describe them, and that width.
const fn plain(id: u8) -> Option<(usize, Width)> {
    Some(match id {
        id::NULL => (0, Width::Fixed(0)),
        id::INT1 | id::BIT => (0, Width::Fixed(1)),
        id::INT2 => (0, Width::Fixed(2)),
        id::INT4 | id::DATETIME4 | id::FLOAT4 | id::MONEY4 => (0, Width::Fixed(4)),
        id::MONEY | id::DATETIME | id::FLOAT8 | id::INT8 => (0, Width::Fixed(8)),
        id::DATE => (0, Width::Byte),
        // The longest value.
        id::GUID | id::INT_N | id::BIT_N | id::FLOAT_N | id::MONEY_N | id::DATETIME_N => (1, Width::Byte),
        id::CHAR_OLD | id::VARCHAR_OLD | id::BINARY_OLD | id::VARBINARY_OLD => (1, Width::Byte),
        // The digits of a second.
        id::TIME | id::DATETIME2 | id::DATETIMEOFFSET => (1, Width::Byte),
        // The longest value, precision, scale.
        id::DECIMAL_OLD | id::NUMERIC_OLD | id::DECIMAL_N | id::NUMERIC_N => (3, Width::Byte),
        id::BINARY => (2, Width::Short),
        id::CHAR | id::NCHAR => (2 + COLLATION_BYTES, Width::Short),
        // The longest value, the type of the elements.
        id::VECTOR => (3, Width::Short),
        id::VARIANT => (4, Width::Long),
        id::JSON => (0, Width::Chunks),
        _ => return None,
    })
}

const fn short(longest: u16) -> Width {
    match longest {
        USHORT_MAX_OR_NULL => Width::Chunks,
        _ => Width::Short,
    }
}

/// A type made of CLR code (2.2.5.5.2): the names of database, schema and type; in replies the longest value
/// before them and the name of the assembly behind them.
fn clr_type(incoming: &mut Incoming<'_>, place: Place) -> Result<Width, Stop> {
    if place == Place::Reply {
        incoming.u16()?;
    }
    for _ in 0..3 {
        incoming.b_varchar()?;
    }
    if place == Place::Reply {
        incoming.us_varchar()?;
    }
    Ok(Width::Chunks)
}

/// An integer: a `tinyint` has no sign, the others have one.
pub(super) fn integer(bytes: &[u8]) -> Option<i64> {
    match *bytes {
        [byte] => Some(i64::from(byte)),
        [a, b] => Some(i64::from(i16::from_le_bytes([a, b]))),
        [a, b, c, d] => Some(i64::from(i32::from_le_bytes([a, b, c, d]))),
        [a, b, c, d, e, f, g, h] => Some(i64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}

/// Is the column with this index (from 0) NULL by the bitmap of a row?
pub(super) fn is_null(nulls: &[u8], column: usize) -> bool {
    let byte = nulls.get(column / 8).copied().unwrap_or_default();
    byte >> (column % 8) & 1 == 1
}

/// A count of bytes that takes four.
pub(super) fn count(incoming: &mut Incoming<'_>) -> Result<usize, Stop> {
    // A usize has at least 32 bits where this runs.
    Ok(usize::try_from(incoming.u32()?).unwrap_or(usize::MAX))
}
