//! Messages that a client sends after its start-up, read and written.

use std::fmt;

use crate::wire::Decoded;
use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::pg::frame;

/// Message types, as in "Message Formats", those marked (F).
pub mod tag {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    /// Also SASLInitialResponse, SASLResponse and GSSResponse.
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// Result format code for "binary", valid for all columns if it is the only one (Bind).
const FORMAT_BINARY: i16 = 1;

/// What Describe and Close speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Described {
    Statement,
    Portal,
}

impl Described {
    const fn byte(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FromClient<'a> {
    Query {
        sql: &'a [u8],
    },
    Parse {
        statement: &'a [u8],
        sql: &'a [u8],
        /// Numbers of the parameters' types, four bytes each; 0 is left to the server.
        types: &'a [u8],
    },
    Bind {
        portal: &'a [u8],
        statement: &'a [u8],
    },
    Describe {
        kind: Described,
        name: &'a [u8],
    },
    Execute {
        portal: &'a [u8],
        max_rows: i32,
    },
    Close {
        kind: Described,
        name: &'a [u8],
    },
    Sync,
    Flush,
    FunctionCall,
    CopyData,
    CopyDone,
    CopyFail,
    Terminate,
    /// The body as it came; what it means depends on what was asked for.
    Password(&'a [u8]),
}

/// Only the name: statements hold people's data, and a password is a password.
impl fmt::Debug for FromClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromClient<'_> {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Query { .. } => "Query",
            Self::Parse { .. } => "Parse",
            Self::Bind { .. } => "Bind",
            Self::Describe { .. } => "Describe",
            Self::Execute { .. } => "Execute",
            Self::Close { .. } => "Close",
            Self::Sync => "Sync",
            Self::Flush => "Flush",
            Self::FunctionCall => "FunctionCall",
            Self::CopyData => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::CopyFail => "CopyFail",
            Self::Terminate => "Terminate",
            Self::Password(_) => "Password",
        }
    }
}

/// Reads a whole message. As strict as PostgreSQL about the ends of what we act upon; what only passes
/// through us (parameters of Bind, COPY rows) is left for the database to judge.
pub fn parse<'a>(tag: u8, body: &'a [u8]) -> Result<FromClient<'a>, PeerMisbehaved> {
    Ok(match tag {
        tag::QUERY => {
            let mut cursor = Cursor::new("Query", body);
            let sql = cursor.cstr()?;
            cursor.finish()?;
            FromClient::Query { sql }
        }
        tag::PARSE => parse_parse(body)?,
        tag::BIND => {
            let mut cursor = Cursor::new("Bind", body);
            let portal = cursor.cstr()?;
            FromClient::Bind {
                portal,
                statement: cursor.cstr()?,
            }
        }
        tag::DESCRIBE => {
            let (kind, name) = described("Describe", body)?;
            FromClient::Describe { kind, name }
        }
        tag::EXECUTE => {
            let mut cursor = Cursor::new("Execute", body);
            let portal = cursor.cstr()?;
            let max_rows = cursor.i32()?;
            cursor.finish()?;
            FromClient::Execute { portal, max_rows }
        }
        tag::CLOSE => {
            let (kind, name) = described("Close", body)?;
            FromClient::Close { kind, name }
        }
        tag::SYNC => empty("Sync", body, FromClient::Sync)?,
        tag::FLUSH => empty("Flush", body, FromClient::Flush)?,
        tag::FUNCTION_CALL => FromClient::FunctionCall,
        tag::COPY_DATA => FromClient::CopyData,
        tag::COPY_DONE => FromClient::CopyDone,
        tag::COPY_FAIL => FromClient::CopyFail,
        tag::TERMINATE => FromClient::Terminate,
        tag::PASSWORD => FromClient::Password(body),
        tag => return Err(PeerMisbehaved::UnknownTag { tag }),
    })
}

/// The names in a Bind of which only a prefix has arrived: its parameters may be larger than any
/// buffer, and the names are all that must be known before it is forwarded.
pub fn bind_names(prefix_of_body: &[u8]) -> Decoded<(&[u8], &[u8])> {
    let mut cursor = Cursor::new("Bind", prefix_of_body);
    match cursor.cstr().and_then(|portal| Ok((portal, cursor.cstr()?))) {
        Ok(names) => Decoded::Message(names),
        Err(_) => Decoded::NeedMore {
            at_least: prefix_of_body.len().saturating_add(1),
        },
    }
}

/// The value of parameter `index` (from 0) in the whole body of a Bind, as sent; `None` if it is NULL
/// or not there.
pub fn bind_parameter(body: &[u8], index: usize) -> Option<&[u8]> {
    const FORMAT_BYTES: usize = 2;
    let mut cursor = Cursor::new("Bind", body);
    cursor.cstr().ok()?;
    cursor.cstr().ok()?;
    let formats = usize::from(cursor.u16().ok()?);
    cursor.bytes(formats.saturating_mul(FORMAT_BYTES)).ok()?;
    let parameters = usize::from(cursor.u16().ok()?);
    for at in 0..parameters {
        // A negative length is NULL.
        let length = usize::try_from(cursor.i32().ok()?).ok();
        let value = length.map(|length| cursor.bytes(length)).transpose().ok()?;
        if at == index {
            return value;
        }
    }
    None
}

fn parse_parse(body: &[u8]) -> Result<FromClient<'_>, PeerMisbehaved> {
    const OID_BYTES: usize = 4;
    let mut cursor = Cursor::new("Parse", body);
    let statement = cursor.cstr()?;
    let sql = cursor.cstr()?;
    let parameters = usize::from(cursor.u16()?);
    let types = cursor.bytes(parameters.saturating_mul(OID_BYTES))?;
    cursor.finish()?;
    Ok(FromClient::Parse {
        statement,
        sql,
        types,
    })
}

fn described<'a>(what: &'static str, body: &'a [u8]) -> Result<(Described, &'a [u8]), PeerMisbehaved> {
    let mut cursor = Cursor::new(what, body);
    let kind = match cursor.u8()? {
        b'S' => Described::Statement,
        b'P' => Described::Portal,
        _ => return Err(PeerMisbehaved::UnknownValue { what }),
    };
    let name = cursor.cstr()?;
    cursor.finish()?;
    Ok((kind, name))
}

fn empty<'a>(
    what: &'static str,
    body: &[u8],
    message: FromClient<'a>,
) -> Result<FromClient<'a>, PeerMisbehaved> {
    Cursor::new(what, body).finish()?;
    Ok(message)
}

pub fn put_query(out: &mut Vec<u8>, sql: &[u8]) {
    frame::put(out, tag::QUERY, |body| frame::put_cstr(body, sql));
}

/// Without parameter types: the server infers them.
pub fn put_parse(out: &mut Vec<u8>, statement: &[u8], sql: &[u8]) {
    frame::put(out, tag::PARSE, |body| {
        frame::put_cstr(body, statement);
        frame::put_cstr(body, sql);
        body.extend_from_slice(&0_i16.to_be_bytes());
    });
}

/// Without parameters, all results in binary.
pub fn put_bind(out: &mut Vec<u8>, portal: &[u8], statement: &[u8]) {
    frame::put(out, tag::BIND, |body| {
        frame::put_cstr(body, portal);
        frame::put_cstr(body, statement);
        body.extend_from_slice(&0_i16.to_be_bytes()); // parameter format codes
        body.extend_from_slice(&0_i16.to_be_bytes()); // parameters
        body.extend_from_slice(&1_i16.to_be_bytes()); // result format codes
        body.extend_from_slice(&FORMAT_BINARY.to_be_bytes());
    });
}

/// With one parameter in binary, all results in binary.
pub fn put_bind_with(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], parameter: &[u8]) {
    frame::put(out, tag::BIND, |body| {
        frame::put_cstr(body, portal);
        frame::put_cstr(body, statement);
        body.extend_from_slice(&1_i16.to_be_bytes()); // parameter format codes
        body.extend_from_slice(&FORMAT_BINARY.to_be_bytes());
        body.extend_from_slice(&1_i16.to_be_bytes()); // parameters
        let length = i32::try_from(parameter.len()).unwrap_or(i32::MAX);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(parameter);
        body.extend_from_slice(&1_i16.to_be_bytes()); // result format codes
        body.extend_from_slice(&FORMAT_BINARY.to_be_bytes());
    });
}

/// Calls a function without arguments by its number, the result in binary.
pub fn put_function_call(out: &mut Vec<u8>, function: u32) {
    frame::put(out, tag::FUNCTION_CALL, |body| {
        body.extend_from_slice(&function.to_be_bytes());
        body.extend_from_slice(&0_i16.to_be_bytes()); // argument format codes
        body.extend_from_slice(&0_i16.to_be_bytes()); // arguments
        body.extend_from_slice(&FORMAT_BINARY.to_be_bytes());
    });
}

/// `max_rows` 0 means all.
pub fn put_execute(out: &mut Vec<u8>, portal: &[u8], max_rows: i32) {
    frame::put(out, tag::EXECUTE, |body| {
        frame::put_cstr(body, portal);
        body.extend_from_slice(&max_rows.to_be_bytes());
    });
}

pub fn put_describe(out: &mut Vec<u8>, kind: Described, name: &[u8]) {
    put_described(out, tag::DESCRIBE, kind, name);
}

pub fn put_close(out: &mut Vec<u8>, kind: Described, name: &[u8]) {
    put_described(out, tag::CLOSE, kind, name);
}

fn put_described(out: &mut Vec<u8>, tag: u8, kind: Described, name: &[u8]) {
    frame::put(out, tag, |body| {
        body.push(kind.byte());
        frame::put_cstr(body, name);
    });
}

pub fn put_sync(out: &mut Vec<u8>) {
    frame::put(out, tag::SYNC, |_| {});
}

pub fn put_flush(out: &mut Vec<u8>) {
    frame::put(out, tag::FLUSH, |_| {});
}

pub fn put_terminate(out: &mut Vec<u8>) {
    frame::put(out, tag::TERMINATE, |_| {});
}

/// Ends a COPY FROM STDIN that shall fail; the server answers with an error that holds `why`.
pub fn put_copy_fail(out: &mut Vec<u8>, why: &[u8]) {
    frame::put(out, tag::COPY_FAIL, |body| frame::put_cstr(body, why));
}

pub fn put_password(out: &mut Vec<u8>, password: &[u8]) {
    frame::put(out, tag::PASSWORD, |body| frame::put_cstr(body, password));
}

pub fn put_sasl_initial_response(out: &mut Vec<u8>, mechanism: &[u8], response: &[u8]) {
    frame::put(out, tag::PASSWORD, |body| {
        frame::put_cstr(body, mechanism);
        // Its own length word counts the response alone, unlike the message's.
        body.extend_from_slice(&i32::try_from(response.len()).unwrap_or(i32::MAX).to_be_bytes());
        body.extend_from_slice(response);
    });
}

pub fn put_sasl_response(out: &mut Vec<u8>, response: &[u8]) {
    frame::put(out, tag::PASSWORD, |body| body.extend_from_slice(response));
}
