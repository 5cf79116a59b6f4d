//! Calls of procedures (RPCRequest, 2.2.6.6), read as far as they are there: which procedure, and those of its
//! first parameters that may hold a statement, a handle or a name.

use std::borrow::Cow;

use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::data_type::{self, Body, DataType, Place, id};
use crate::wire::tds::headers::{self, Activity, Headers};
use crate::wire::tds::incoming::{Incoming, Stop, within};
use crate::wire::tds::procedure::{Named, Procedure};
use crate::wire::tds::reply::{self, Cell, ColumnKind};
use crate::wire::tds::request::Seen;
use crate::wire::tds::table;
use crate::wire::tds::utf16::Utf16;

pub mod values;

/// In place of the length of a name: a number follows.
const BY_NUMBER: u16 = 0xFFFF;

/// Between two calls, in place of the length of a parameter's name.
const BATCH_FLAG: u8 = 0xFF;
const NO_EXEC_FLAG: u8 = 0xFE;
/// The same before version 7.2. A server of today should take it for the length of a name, but nobody has a name
/// of 128 characters there, and a request that two may read in two ways is not passed on.
const BATCH_FLAG_OLD: u8 = 0x80;

/// Status of a parameter.
const STATUS_OUTPUT: u8 = 0x01;
/// Encrypted by the client: the value is followed by what nobody asked for at login could read.
const STATUS_ENCRYPTED: u8 = 0x08;

/// SQL Server has at most so many parameters.
const PARAMETERS_MAX: usize = 2100;
/// How many parameters of a call are kept: `sp_cursorprepexec` has the statement in its fourth.
pub const PARAMETERS_KEPT: usize = 8;
/// How many calls of one request are read. Drivers that send many send some hundred.
pub const CALLS_MAX: usize = 512;

/// How far the calls were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// More of the last call, and perhaps more calls, were not seen.
    Cut,
    /// A parameter of this type cannot be read, so nobody knows what comes behind it.
    UnknownType(u8),
}

#[derive(Clone, PartialEq, Eq)]
pub struct Calls<'a> {
    pub headers: Headers,
    /// None at all if not even the name of the first one was seen.
    pub calls: Vec<Call<'a>>,
    pub extent: Extent,
}

/// One call.
#[derive(Clone, PartialEq, Eq)]
pub struct Call<'a> {
    pub named: Named<'a>,
    pub procedure: Procedure,
    /// 1 recompile, 2 leave out descriptions of columns, 4 the client knows them.
    pub options: u16,
    /// The first [`PARAMETERS_KEPT`].
    pub parameters: Vec<Parameter<'a>>,
    /// How many were seen.
    pub parameter_count: usize,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Empty, or beginning with `@`.
    pub name: Utf16<'a>,
    pub is_output: bool,
    pub value: Value<'a>,
    /// There is more of the value than was seen.
    pub is_cut: bool,
}

/// A value, as far as it matters here. No `Debug`: it may be anything.
#[derive(Clone, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    /// Any of the integers, and bit.
    Int(i64),
    /// UTF-16, little endian.
    Wide(Cow<'a, [u8]>),
    /// In a code page that is not known here.
    Narrow(Cow<'a, [u8]>),
    Other,
}

impl Value<'_> {
    /// The text, if it is one and can be told without loss.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Wide(bytes) => Utf16::new(bytes).decoded(),
            Self::Narrow(bytes) if bytes.is_ascii() => String::from_utf8(bytes.to_vec()).ok(),
            Self::Narrow(_) | Self::Null | Self::Int(_) | Self::Other => None,
        }
    }

    pub const fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Null | Self::Wide(_) | Self::Narrow(_) | Self::Other => None,
        }
    }
}

impl<'a> Call<'a> {
    /// The parameter that holds the statement, where the procedure takes one and the parameter was seen. The
    /// server goes by the place of these, not by their names.
    pub fn statement(&self) -> Option<&Parameter<'a>> {
        self.parameters.get(self.procedure.statement()?)
    }

    /// The handle, where the procedure takes one that an earlier call made; none if it is NULL.
    pub fn handle(&self) -> Option<i64> {
        let first = self
            .parameters
            .first()
            .filter(|_| self.procedure.takes_handle())?;
        first.value.int()
    }

    /// The parameter with this name (with its `@`), or, of those without a name, the one at this place from 0.
    pub fn parameter(&self, name: &str, place: usize) -> Option<&Parameter<'a>> {
        let by_name = self.parameters.iter().find(|it| it.name.is_like(name));
        by_name.or_else(|| self.parameters.get(place).filter(|it| it.name.is_empty()))
    }
}

/// Reads the headers, which must be there, and the calls as far as they are.
pub(super) fn read<'a>(incoming: &mut Incoming<'a>, seen: Seen<'a>) -> Result<Calls<'a>, Stop> {
    let mut calls = Calls {
        headers: headers::read(incoming)?,
        calls: Vec::new(),
        extent: Extent::Whole,
    };
    let read = each(incoming, &mut calls, seen.is_whole());
    match read {
        Ok(()) => {}
        Err(Stop::Short { .. }) if !seen.is_whole() => calls.extent = Extent::Cut,
        Err(Stop::UnknownType(id)) => calls.extent = Extent::UnknownType(id),
        Err(stop) => return Err(stop),
    }
    Ok(calls)
}

fn each<'a>(incoming: &mut Incoming<'a>, calls: &mut Calls<'a>, is_whole: bool) -> Result<(), Stop> {
    loop {
        if calls.calls.len() >= CALLS_MAX {
            calls.extent = Extent::Cut;
            return Ok(());
        }
        let (named, options) = head(incoming)?;
        calls.calls.push(Call {
            named,
            procedure: named.procedure(),
            options,
            parameters: Vec::new(),
            parameter_count: 0,
        });
        if let Some(call) = calls.calls.last_mut() {
            parameters(incoming, call, is_whole)?;
        }
        // A flag behind the last call is allowed.
        if incoming.is_empty() && is_whole {
            return Ok(());
        }
    }
}

fn head<'a>(incoming: &mut Incoming<'a>) -> Result<(Named<'a>, u16), Stop> {
    let mut ahead = incoming.clone();
    let named = match ahead.u16()? {
        BY_NUMBER => Named::Number(ahead.u16()?),
        _ => Named::Name(incoming.clone().us_varchar()?),
    };
    match named {
        Named::Number(_) => incoming.bytes(4)?,
        Named::Name(name) => incoming.bytes(name.bytes().len().saturating_add(2))?,
    };
    Ok((named, incoming.u16()?))
}

/// Reads the parameters of a call, and the flag behind it.
fn parameters<'a>(incoming: &mut Incoming<'a>, call: &mut Call<'a>, is_whole: bool) -> Result<(), Stop> {
    loop {
        match incoming.rest().first() {
            None if is_whole => return Ok(()),
            None => {
                return Err(Stop::Short {
                    at_least: incoming.taken().saturating_add(1),
                });
            }
            Some(&(BATCH_FLAG | NO_EXEC_FLAG)) => {
                incoming.u8()?;
                return Ok(());
            }
            Some(&BATCH_FLAG_OLD) => {
                let what = "separator of calls";
                return Err(Stop::Broken(PeerMisbehaved::UnknownValue { what }));
            }
            Some(_) => {}
        }
        if call.parameter_count >= PARAMETERS_MAX {
            return Err(Stop::Broken(PeerMisbehaved::TooMany {
                what: "parameters of a call",
                limit: PARAMETERS_MAX,
            }));
        }
        let keeps = call.parameters.len() < PARAMETERS_KEPT;
        let name = incoming.b_varchar()?;
        let status = incoming.u8()?;
        if status & STATUS_ENCRYPTED != 0 {
            let what = "encrypted parameter";
            return Err(Stop::Broken(PeerMisbehaved::UnknownValue { what }));
        }
        call.parameter_count = call.parameter_count.saturating_add(1);
        let parameter = |value, is_cut| Parameter {
            name,
            is_output: status & STATUS_OUTPUT != 0,
            value,
            is_cut,
        };
        let start = incoming.clone();
        match value(incoming, keeps) {
            Ok(value) if keeps => call.parameters.push(parameter(value, false)),
            Ok(_) => {}
            Err(stop) => {
                if keeps {
                    call.parameters.push(parameter(cut_value(start), true));
                }
                return Err(stop);
            }
        }
    }
}

/// Reads a type and a whole value, which is only looked at if it is to be kept.
fn value<'a>(incoming: &mut Incoming<'a>, keeps: bool) -> Result<Value<'a>, Stop> {
    if incoming.rest().first() == Some(&id::TABLE) {
        incoming.u8()?;
        table::skip(incoming)?;
        return Ok(Value::Other);
    }
    let data_type = data_type::read(incoming, Place::Request)?;
    if !keeps || matters(data_type.id).is_none() {
        table::skip_value(incoming, data_type)?;
        return Ok(Value::Other);
    }
    let bytes = match incoming.length(data_type.width)? {
        Body::Null => return Ok(Value::Null),
        Body::Bytes(count) => Cow::Borrowed(incoming.bytes(count)?),
        Body::Chunks => {
            let mut joined = Cow::Borrowed(&[][..]);
            loop {
                match data_type::count(incoming)? {
                    0 => break joined,
                    count => join(&mut joined, incoming.bytes(count)?),
                }
            }
        }
    };
    of_type(data_type.id, bytes)
}

/// What there is of a value that is not there to its end: the beginning of a text, otherwise nothing.
fn cut_value(mut incoming: Incoming<'_>) -> Value<'_> {
    let beginning = |incoming: &mut Incoming<'_>| -> Result<(DataType, Vec<u8>), Stop> {
        let data_type = data_type::read(incoming, Place::Request)?;
        let mut bytes = Vec::new();
        match incoming.length(data_type.width)? {
            Body::Null => {}
            Body::Bytes(_) => bytes.extend_from_slice(incoming.take_rest()),
            Body::Chunks => {
                while let Ok(count) = data_type::count(incoming) {
                    let there = incoming.rest().len().min(count);
                    bytes.extend_from_slice(incoming.bytes(there)?);
                }
            }
        }
        Ok((data_type, bytes))
    };
    match beginning(&mut incoming).map(|(data_type, bytes)| (matters(data_type.id), bytes)) {
        Ok((Some(Matters::Wide), bytes)) => Value::Wide(Cow::Owned(bytes)),
        Ok((Some(Matters::Narrow), bytes)) => Value::Narrow(Cow::Owned(bytes)),
        _ => Value::Other,
    }
}

/// Types whose values are looked at.
#[derive(Clone, Copy)]
enum Matters {
    Int,
    Wide,
    Narrow,
    Variant,
}

const fn matters(id: u8) -> Option<Matters> {
    match id {
        id::INT1 | id::INT2 | id::INT4 | id::INT8 | id::INT_N | id::BIT | id::BIT_N => Some(Matters::Int),
        id::NVARCHAR | id::NCHAR | id::NTEXT => Some(Matters::Wide),
        id::VARCHAR | id::CHAR | id::TEXT | id::VARCHAR_OLD | id::CHAR_OLD => Some(Matters::Narrow),
        id::VARIANT => Some(Matters::Variant),
        _ => None,
    }
}

fn of_type(id: u8, bytes: Cow<'_, [u8]>) -> Result<Value<'_>, Stop> {
    Ok(match matters(id) {
        Some(Matters::Int) => data_type::integer(&bytes).map_or(Value::Other, Value::Int),
        Some(Matters::Wide) => Value::Wide(bytes),
        Some(Matters::Narrow) => Value::Narrow(bytes),
        // It brings its own type; none of its types may be another variant.
        Some(Matters::Variant) => match bytes {
            Cow::Borrowed([]) => Value::Null,
            Cow::Borrowed(bytes) => {
                let (id, bytes) = within("sql_variant", bytes, variant).map_err(Stop::Broken)?;
                if id == id::VARIANT {
                    return Ok(Value::Other);
                }
                return of_type(id, Cow::Borrowed(bytes));
            }
            Cow::Owned(_) => Value::Other,
        },
        None => Value::Other,
    })
}

fn variant<'a>(incoming: &mut Incoming<'a>) -> Result<(u8, &'a [u8]), Stop> {
    let id = incoming.u8()?;
    incoming.b_varbyte()?; // what else belongs to the type
    Ok((id, incoming.take_rest()))
}

/// One chunk is borrowed, several are copied.
fn join<'a>(joined: &mut Cow<'a, [u8]>, chunk: &'a [u8]) {
    if joined.is_empty() {
        *joined = Cow::Borrowed(chunk);
    } else {
        joined.to_mut().extend_from_slice(chunk);
    }
}

/// A parameter of one of gatepost's own calls.
#[derive(Clone, Copy, Debug)]
pub struct Argument<'a> {
    /// Empty, or beginning with `@`.
    pub name: &'a str,
    pub kind: ColumnKind,
    pub value: Cell<'a>,
    pub is_output: bool,
}

impl<'a> Argument<'a> {
    /// At most 4000 units are an `nvarchar(4000)`, more are an `nvarchar(max)`.
    pub fn text(name: &'a str, value: &'a str) -> Self {
        const UNITS_MAX: u16 = 4000;
        let fits = value.encode_utf16().count() <= usize::from(UNITS_MAX);
        let kind = if fits {
            ColumnKind::NVarChar(UNITS_MAX)
        } else {
            ColumnKind::NVarCharMax
        };
        Self::input(name, kind, Cell::Text(value))
    }

    pub const fn int(name: &'a str, value: i32) -> Self {
        Self::input(name, ColumnKind::Int, Cell::Int(value))
    }

    pub const fn bit(name: &'a str, value: bool) -> Self {
        Self::input(name, ColumnKind::Bit, Cell::Bit(value))
    }

    /// An integer that the procedure returns, such as a handle.
    pub const fn int_output(name: &'a str, value: Option<i32>) -> Self {
        let value = match value {
            Some(value) => Cell::Int(value),
            None => Cell::Null,
        };
        Self {
            is_output: true,
            ..Self::input(name, ColumnKind::Int, value)
        }
    }

    const fn input(name: &'a str, kind: ColumnKind, value: Cell<'a>) -> Self {
        Self {
            name,
            kind,
            value,
            is_output: false,
        }
    }
}

/// The procedure of one of gatepost's own calls.
#[derive(Clone, Copy, Debug)]
pub enum Callee<'a> {
    Name(&'a str),
    Number(u16),
}

/// Appends the payload of a request with these calls, which the server makes one after another.
pub fn put_calls(
    out: &mut Vec<u8>,
    descriptor: u64,
    activity: Option<Activity>,
    calls: &[(Callee<'_>, &[Argument<'_>])],
) {
    headers::put(out, descriptor, activity);
    for (index, (callee, arguments)) in calls.iter().enumerate() {
        if index > 0 {
            out.push(BATCH_FLAG);
        }
        match callee {
            // Names of objects have four parts of 128 units at most.
            Callee::Name(name) => reply::put_us_varchar(out, name, 1024),
            Callee::Number(number) => {
                out.extend_from_slice(&BY_NUMBER.to_le_bytes());
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out.extend_from_slice(&0_u16.to_le_bytes()); // options
        for argument in *arguments {
            reply::put_b_varchar(out, argument.name);
            out.push(if argument.is_output { STATUS_OUTPUT } else { 0 });
            reply::put_type(out, argument.kind);
            reply::put_cell(out, argument.kind, argument.value);
        }
    }
}

#[cfg(test)]
mod tests;
