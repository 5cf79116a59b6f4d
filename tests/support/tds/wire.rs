//! Reads calls and bulk rows with all their values. Written apart from gatepost's own reader, which keeps only
//! what it needs, so that one can be held against the other.

use gatepost::wire::tds::reply::ColumnKind;
use gatepost::wire::tds::utf16::Utf16;

use super::value::Value;

#[derive(Clone, Debug)]
pub(crate) enum Called {
    Number(u16),
    Name(String),
}

#[derive(Clone, Debug)]
pub(crate) struct WireArgument {
    pub(crate) name: String,
    pub(crate) is_output: bool,
    pub(crate) kind: ColumnKind,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) struct RemoteCall {
    pub(crate) procedure: Called,
    pub(crate) arguments: Vec<WireArgument>,
}

/// Whole messages only: what is short is broken, and `None` everywhere.
struct Reader<'a>(&'a [u8]);

#[derive(Clone, Copy)]
struct WireType {
    id: u8,
    length: u32,
    precision: u8,
    scale: u8,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.first_chunk().copied()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn text(&mut self, units: usize) -> Option<String> {
        Some(Utf16::new(self.bytes(units * 2)?).lossy())
    }

    fn kind(&mut self) -> Option<WireType> {
        let id = self.u8()?;
        let mut kind = WireType {
            id,
            length: 0,
            precision: 0,
            scale: 0,
        };
        match id {
            0x1f | 0x28 => {}
            0x30 | 0x32 => kind.length = 1,
            0x34 => kind.length = 2,
            0x38 | 0x3a | 0x3b | 0x7a => kind.length = 4,
            0x3c | 0x3d | 0x3e | 0x7f => kind.length = 8,
            0x24 | 0x26 | 0x68 | 0x6d | 0x6e | 0x6f => kind.length = u32::from(self.u8()?),
            0x29..=0x2b => kind.scale = self.u8()?,
            0x37 | 0x3f | 0x6a | 0x6c => {
                kind.length = u32::from(self.u8()?);
                kind.precision = self.u8()?;
                kind.scale = self.u8()?;
            }
            0xa5 | 0xad => kind.length = u32::from(self.u16()?),
            0xa7 | 0xaf | 0xe7 | 0xef => {
                kind.length = u32::from(self.u16()?);
                self.bytes(5)?;
            }
            0x22 => kind.length = self.u32()?,
            0x23 | 0x63 => {
                kind.length = self.u32()?;
                self.bytes(5)?;
            }
            0x62 => kind.length = self.u32()?,
            0xf1 => {
                if self.u8()? != 0 {
                    return None;
                }
            }
            0xf4 => {}
            _ => return None,
        }
        Some(kind)
    }

    /// The bytes of a value; the inner `None` is NULL.
    fn value_bytes(&mut self, kind: WireType) -> Option<Option<Vec<u8>>> {
        let length = match kind.id {
            0x1f => return Some(None),
            0x30 | 0x32 | 0x34 | 0x38 | 0x3a | 0x3b | 0x3c | 0x3d | 0x3e | 0x7a | 0x7f => {
                usize::try_from(kind.length).ok()?
            }
            0x24..=0x2b | 0x37 | 0x3f | 0x68 | 0x6a | 0x6c | 0x6d | 0x6e | 0x6f => match self.u8()? {
                0 => return Some(None),
                length => usize::from(length),
            },
            0xa5 | 0xa7 | 0xad | 0xaf | 0xe7 | 0xef if kind.length != 0xffff => match self.u16()? {
                0xffff => return Some(None),
                length => usize::from(length),
            },
            0x22 | 0x23 | 0x62 | 0x63 => match self.u32()? {
                0xffff_ffff => return Some(None),
                length => usize::try_from(length).ok()?,
            },
            _ => return self.chunks(),
        };
        self.bytes(length).map(|bytes| Some(bytes.to_vec()))
    }

    fn chunks(&mut self) -> Option<Option<Vec<u8>>> {
        if u64::from_le_bytes(self.array()?) == u64::MAX {
            return Some(None);
        }
        let mut all = Vec::new();
        loop {
            match self.u32()? {
                0 => return Some(Some(all)),
                count => all.extend_from_slice(self.bytes(usize::try_from(count).ok()?)?),
            }
        }
    }

    fn value(&mut self, kind: WireType) -> Option<Value> {
        match self.value_bytes(kind)? {
            None => Some(Value::Null),
            Some(bytes) => decoded(kind, &bytes),
        }
    }
}

const fn column_kind(kind: WireType) -> ColumnKind {
    match kind.id {
        0x32 | 0x68 => ColumnKind::Bit,
        0x7f => ColumnKind::BigInt,
        0x26 if kind.length == 8 => ColumnKind::BigInt,
        0x3b | 0x3e | 0x6d => ColumnKind::Float,
        0x37 | 0x3f | 0x6a | 0x6c => ColumnKind::Decimal {
            precision: kind.precision,
            scale: kind.scale,
        },
        0x3c | 0x7a | 0x6e => ColumnKind::Decimal {
            precision: 19,
            scale: 4,
        },
        0x28..=0x2b | 0x3a | 0x3d | 0x6f => ColumnKind::DateTime2 { scale: 7 },
        0x24 => ColumnKind::UniqueIdentifier,
        0xa5 | 0xad if kind.length != 0xffff => ColumnKind::VarBinary(8000),
        0xa5 | 0x22 => ColumnKind::VarBinaryMax,
        0xa7 | 0xaf | 0xe7 | 0xef if kind.length != 0xffff => ColumnKind::NVarChar(4000),
        0xa7 | 0xe7 | 0x23 | 0x62 | 0x63 | 0xf1 | 0xf4 => ColumnKind::NVarCharMax,
        _ => ColumnKind::Int,
    }
}

fn decoded(kind: WireType, bytes: &[u8]) -> Option<Value> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    Some(match kind.id {
        0x32 | 0x68 => Value::Bit(*bytes.first()? != 0),
        0x30 | 0x34 | 0x38 | 0x7f | 0x26 => match *bytes {
            [byte] => Value::Int(i32::from(byte)),
            [a, b] => Value::Int(i32::from(i16::from_le_bytes([a, b]))),
            [a, b, c, d] => Value::Int(i32::from_le_bytes([a, b, c, d])),
            _ => Value::BigInt(i64::from_le_bytes(*bytes.first_chunk()?)),
        },
        0x3b | 0x3e | 0x6d => match bytes.len() {
            4 => Value::Float(f64::from(f32::from_le_bytes(*bytes.first_chunk()?))),
            _ => Value::Float(f64::from_le_bytes(*bytes.first_chunk()?)),
        },
        0x37 | 0x3f | 0x6a | 0x6c => {
            let (sign, digits) = bytes.split_first()?;
            let mut all = [0; 16];
            all.get_mut(..digits.len())?.copy_from_slice(digits);
            let digits = i128::from_le_bytes(all);
            Value::Decimal {
                digits: if *sign == 0 { -digits } else { digits },
                scale: kind.scale,
            }
        }
        0x3c | 0x7a | 0x6e => {
            let digits = match bytes.len() {
                4 => i64::from(i32::from_le_bytes(*bytes.first_chunk()?)),
                _ => i64::from(word(0)?) << 32 | i64::from(word(4)?),
            };
            Value::Decimal {
                digits: i128::from(digits),
                scale: 4,
            }
        }
        0x28..=0x2b | 0x3a | 0x3d | 0x6f => time(kind, bytes)?,
        0x24 => Value::Guid(*bytes.first_chunk()?),
        0xa5 | 0xad | 0x22 => Value::Bytes(bytes.to_vec()),
        0xe7 | 0xef | 0x63 | 0xf1 => Value::Text(Utf16::new(bytes).lossy()),
        0x62 => {
            let mut reader = Reader(bytes);
            let id = reader.u8()?;
            let described = reader.u8()?;
            reader.bytes(usize::from(described))?;
            let inner = WireType {
                id,
                length: u32::try_from(reader.0.len()).ok()?,
                precision: 0,
                scale: 0,
            };
            return if id == 0x62 {
                None
            } else {
                decoded(inner, reader.0)
            };
        }
        // Code pages are told apart by nobody here.
        _ => Value::Text(std::str::from_utf8(bytes).map_or_else(
            |_| bytes.iter().map(|byte| char::from(*byte)).collect(),
            str::to_owned,
        )),
    })
}

/// Days of 1900-01-01 since 0001-01-01, for the old types.
const DAYS_1900: i64 = 693_595;

fn time(kind: WireType, bytes: &[u8]) -> Option<Value> {
    let ticks_of = |bytes: &[u8]| {
        let mut all = [0; 8];
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let unit = 10_u64.checked_pow(7_u32.checked_sub(u32::from(kind.scale))?)?;
        u64::from_le_bytes(all).checked_mul(unit)
    };
    let days_of = |bytes: &[u8]| {
        let [a, b, c] = *bytes.first_chunk()?;
        Some(u32::from_le_bytes([a, b, c, 0]))
    };
    let of_1900 = |days: i64, ticks: u64| {
        let days = u32::try_from(DAYS_1900 + days).ok()?;
        Some(Value::DateTime { days, ticks })
    };
    match kind.id {
        0x28 => Some(Value::DateTime {
            days: days_of(bytes)?,
            ticks: 0,
        }),
        0x29 => Some(Value::DateTime {
            days: u32::try_from(DAYS_1900).ok()?,
            ticks: ticks_of(bytes)?,
        }),
        0x2a | 0x2b => {
            let behind = if kind.id == 0x2b { 5 } else { 3 };
            let (clock, rest) = bytes.split_at_checked(bytes.len().checked_sub(behind)?)?;
            Some(Value::DateTime {
                days: days_of(rest)?,
                ticks: ticks_of(clock)?,
            })
        }
        _ if bytes.len() == 4 => {
            let [a, b, c, d] = *bytes.first_chunk()?;
            let minutes = u64::from(u16::from_le_bytes([c, d]));
            of_1900(i64::from(u16::from_le_bytes([a, b])), minutes * 600_000_000)
        }
        _ => {
            let days = i32::from_le_bytes(*bytes.first_chunk()?);
            let parts = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
            of_1900(i64::from(days), u64::from(parts) * 10_000_000 / 300)
        }
    }
}

/// The calls of a request, behind its headers.
pub(crate) fn calls(payload: &[u8]) -> Option<Vec<RemoteCall>> {
    let mut reader = Reader(payload);
    let total = usize::try_from(reader.u32()?).ok()?;
    reader.bytes(total.checked_sub(4)?)?;
    let mut all = Vec::new();
    while !reader.0.is_empty() {
        let length = reader.u16()?;
        let procedure = if length == 0xffff {
            Called::Number(reader.u16()?)
        } else {
            Called::Name(reader.text(usize::from(length))?)
        };
        reader.u16()?; // options
        let mut arguments = Vec::new();
        loop {
            match reader.0.first() {
                None => break,
                Some(0xff | 0xfe) => {
                    reader.u8()?;
                    break;
                }
                Some(_) => {}
            }
            let units = usize::from(reader.u8()?);
            let name = reader.text(units)?;
            let is_output = reader.u8()? & 1 == 1;
            let kind = reader.kind()?;
            let value = reader.value(kind)?;
            arguments.push(WireArgument {
                name,
                is_output,
                kind: column_kind(kind),
                value,
            });
        }
        all.push(RemoteCall { procedure, arguments });
    }
    Some(all)
}

/// The names of the columns of a bulk load and its rows.
pub(crate) fn bulk(payload: &[u8]) -> Option<(Vec<String>, Vec<Vec<Value>>)> {
    let mut reader = Reader(payload);
    let (mut names, mut kinds, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(token) = reader.u8() {
        match token {
            0x81 => {
                for _ in 0..reader.u16()? {
                    reader.bytes(6)?; // user type, flags
                    let kind = reader.kind()?;
                    if matches!(kind.id, 0x22 | 0x23 | 0x63) {
                        let units = usize::from(reader.u16()?);
                        reader.text(units)?;
                    }
                    kinds.push(kind);
                    let units = usize::from(reader.u8()?);
                    names.push(reader.text(units)?);
                }
            }
            0xd1 => {
                let values = kinds.iter().map(|kind| reader.value(*kind));
                rows.push(values.collect::<Option<Vec<_>>>()?);
            }
            0xd2 => {
                let nulls = reader.bytes(kinds.len().div_ceil(8))?;
                let mut row = Vec::new();
                for (at, kind) in kinds.iter().enumerate() {
                    let is_null = nulls.get(at / 8)? >> (at % 8) & 1 == 1;
                    row.push(if is_null {
                        Value::Null
                    } else {
                        reader.value(*kind)?
                    });
                }
                rows.push(row);
            }
            0xfd => return Some((names, rows)),
            _ => return None,
        }
    }
    Some((names, rows))
}
