//! Messages that a server sends, read and written.

use std::fmt;

use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::pg::frame;
use crate::wire::pg::frame::Strings;

/// Message types, as in "Message Formats", those marked (B).
pub mod tag {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN: u8 = b'G';
    pub const COPY_OUT: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_RESULT: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// Kinds of Authentication message.
const AUTHENTICATION_OK: i32 = 0;
const AUTHENTICATION_KERBEROS: i32 = 2;
const AUTHENTICATION_CLEARTEXT: i32 = 3;
const AUTHENTICATION_MD5: i32 = 5;
const AUTHENTICATION_GSS: i32 = 7;
const AUTHENTICATION_SSPI: i32 = 9;
const AUTHENTICATION_SASL: i32 = 10;
const AUTHENTICATION_SASL_CONTINUE: i32 = 11;
const AUTHENTICATION_SASL_FINAL: i32 = 12;

/// Cancel keys were always 4 bytes before protocol 3.2 and may have up to 256 since
/// (BackendKeyData).
pub const CANCEL_KEY_BYTES_MIN: usize = 4;
pub const CANCEL_KEY_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InBlock,
    Failed,
}

impl TransactionStatus {
    const fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InBlock => b'T',
            Self::Failed => b'E',
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    Ok,
    CleartextPassword,
    Md5Password,
    /// GSSAPI, SSPI or Kerberos V5.
    Gss,
    Sasl(Strings<'a>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Unknown(i32),
}

#[derive(Clone, PartialEq, Eq)]
pub enum FromServer<'a> {
    Authentication(Authentication<'a>),
    ParameterStatus {
        name: &'a [u8],
        value: &'a [u8],
    },
    BackendKeyData {
        process: i32,
        key: &'a [u8],
    },
    ReadyForQuery(TransactionStatus),
    CommandComplete {
        tag: &'a [u8],
    },
    ErrorResponse(Fields<'a>),
    NoticeResponse(Fields<'a>),
    DataRow(Row<'a>),
    RowDescription,
    ParseComplete,
    BindComplete,
    CloseComplete,
    NoData,
    EmptyQuery,
    PortalSuspended,
    CopyIn,
    CopyOut,
    CopyBoth,
    CopyData,
    CopyDone,
    ParameterDescription,
    FunctionResult,
    Notification,
    /// The newest version the server offers and the `_pq_.` options that it does not know.
    NegotiateProtocolVersion {
        version: u32,
        unknown_options: Strings<'a>,
    },
}

/// Only the name: rows and errors hold people's data, and a cancel key is a secret.
impl fmt::Debug for FromServer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromServer<'_> {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Authentication(_) => "Authentication",
            Self::ParameterStatus { .. } => "ParameterStatus",
            Self::BackendKeyData { .. } => "BackendKeyData",
            Self::ReadyForQuery(_) => "ReadyForQuery",
            Self::CommandComplete { .. } => "CommandComplete",
            Self::ErrorResponse(_) => "ErrorResponse",
            Self::NoticeResponse(_) => "NoticeResponse",
            Self::DataRow(_) => "DataRow",
            Self::RowDescription => "RowDescription",
            Self::ParseComplete => "ParseComplete",
            Self::BindComplete => "BindComplete",
            Self::CloseComplete => "CloseComplete",
            Self::NoData => "NoData",
            Self::EmptyQuery => "EmptyQueryResponse",
            Self::PortalSuspended => "PortalSuspended",
            Self::CopyIn => "CopyInResponse",
            Self::CopyOut => "CopyOutResponse",
            Self::CopyBoth => "CopyBothResponse",
            Self::CopyData => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::ParameterDescription => "ParameterDescription",
            Self::FunctionResult => "FunctionCallResponse",
            Self::Notification => "NotificationResponse",
            Self::NegotiateProtocolVersion { .. } => "NegotiateProtocolVersion",
        }
    }
}

/// The fields of an error or notice, checked when the message was parsed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The field of this code ("Error and Notice Message Fields"): `b'C'` is the SQLSTATE.
    pub fn get(&self, code: u8) -> Option<&'a [u8]> {
        self.iter()
            .find(|(found, _)| *found == code)
            .map(|(_, text)| text)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut cursor = Cursor::new("fields", self.0);
        std::iter::from_fn(move || Some((cursor.u8().ok()?, cursor.cstr().ok()?)))
    }

    fn parse(what: &'static str, body: &'a [u8]) -> Result<Self, PeerMisbehaved> {
        let mut cursor = Cursor::new(what, body);
        while cursor.u8()? != 0 {
            cursor.cstr()?;
        }
        cursor.finish()?;
        Ok(Self(body))
    }
}

/// A row, checked when the message was parsed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    columns: u16,
    values: &'a [u8],
}

impl<'a> Row<'a> {
    pub const fn columns(&self) -> u16 {
        self.columns
    }

    /// The value of the column at `index` from 0: none if there is no such column, none inside if it
    /// is NULL.
    pub fn column(&self, index: usize) -> Option<Option<&'a [u8]>> {
        let mut cursor = Cursor::new("DataRow", self.values);
        for _ in 0..index {
            Self::value(&mut cursor).ok()?;
        }
        Self::value(&mut cursor).ok()
    }

    fn value(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, PeerMisbehaved> {
        match usize::try_from(cursor.i32()?) {
            Ok(length) => cursor.bytes(length).map(Some),
            Err(_) => Ok(None), // -1 is NULL; the server sends no other negative length
        }
    }

    fn parse(body: &'a [u8]) -> Result<Self, PeerMisbehaved> {
        let mut cursor = Cursor::new("DataRow", body);
        let columns = cursor.u16()?;
        let values = cursor.clone().rest();
        for _ in 0..columns {
            Self::value(&mut cursor)?;
        }
        cursor.finish()?;
        Ok(Self { columns, values })
    }
}

/// Reads a whole message.
pub fn parse<'a>(tag: u8, body: &'a [u8]) -> Result<FromServer<'a>, PeerMisbehaved> {
    Ok(match tag {
        tag::AUTHENTICATION => FromServer::Authentication(authentication(body)?),
        tag::PARAMETER_STATUS => {
            let mut cursor = Cursor::new("ParameterStatus", body);
            let name = cursor.cstr()?;
            let value = cursor.cstr()?;
            cursor.finish()?;
            FromServer::ParameterStatus { name, value }
        }
        tag::BACKEND_KEY_DATA => {
            let mut cursor = Cursor::new("BackendKeyData", body);
            let process = cursor.i32()?;
            FromServer::BackendKeyData {
                process,
                key: cancel_key("BackendKeyData", cursor)?,
            }
        }
        tag::READY_FOR_QUERY => FromServer::ReadyForQuery(status(body)?),
        tag::COMMAND_COMPLETE => {
            let mut cursor = Cursor::new("CommandComplete", body);
            let tag = cursor.cstr()?;
            cursor.finish()?;
            FromServer::CommandComplete { tag }
        }
        tag::ERROR_RESPONSE => FromServer::ErrorResponse(Fields::parse("ErrorResponse", body)?),
        tag::NOTICE_RESPONSE => FromServer::NoticeResponse(Fields::parse("NoticeResponse", body)?),
        tag::DATA_ROW => FromServer::DataRow(Row::parse(body)?),
        tag::NEGOTIATE_PROTOCOL_VERSION => negotiate(body)?,
        tag::ROW_DESCRIPTION => FromServer::RowDescription,
        tag::PARSE_COMPLETE => FromServer::ParseComplete,
        tag::BIND_COMPLETE => FromServer::BindComplete,
        tag::CLOSE_COMPLETE => FromServer::CloseComplete,
        tag::NO_DATA => FromServer::NoData,
        tag::EMPTY_QUERY => FromServer::EmptyQuery,
        tag::PORTAL_SUSPENDED => FromServer::PortalSuspended,
        tag::COPY_IN => FromServer::CopyIn,
        tag::COPY_OUT => FromServer::CopyOut,
        tag::COPY_BOTH => FromServer::CopyBoth,
        tag::COPY_DATA => FromServer::CopyData,
        tag::COPY_DONE => FromServer::CopyDone,
        tag::PARAMETER_DESCRIPTION => FromServer::ParameterDescription,
        tag::FUNCTION_RESULT => FromServer::FunctionResult,
        tag::NOTIFICATION => FromServer::Notification,
        tag => return Err(PeerMisbehaved::UnknownTag { tag }),
    })
}

/// The rest of a message that ends with a cancel key.
pub(super) fn cancel_key<'a>(what: &'static str, mut cursor: Cursor<'a>) -> Result<&'a [u8], PeerMisbehaved> {
    let key = cursor.rest();
    match key.len() {
        CANCEL_KEY_BYTES_MIN..=CANCEL_KEY_BYTES_MAX => Ok(key),
        length if length < CANCEL_KEY_BYTES_MIN => Err(PeerMisbehaved::Truncated { what }),
        length => Err(PeerMisbehaved::TooLarge {
            what,
            length,
            limit: CANCEL_KEY_BYTES_MAX,
        }),
    }
}

fn authentication(body: &[u8]) -> Result<Authentication<'_>, PeerMisbehaved> {
    let mut cursor = Cursor::new("Authentication", body);
    let authentication = match cursor.i32()? {
        AUTHENTICATION_OK => Authentication::Ok,
        AUTHENTICATION_CLEARTEXT => Authentication::CleartextPassword,
        AUTHENTICATION_MD5 => {
            cursor.u32()?; // the salt, which nobody here wants
            Authentication::Md5Password
        }
        AUTHENTICATION_KERBEROS | AUTHENTICATION_GSS | AUTHENTICATION_SSPI => Authentication::Gss,
        AUTHENTICATION_SASL => {
            let list = cursor.clone().rest();
            while !cursor.cstr()?.is_empty() {}
            let end = list.len().saturating_sub(cursor.remaining()).saturating_sub(1);
            Authentication::Sasl(Strings::new(list.get(..end).unwrap_or_default()))
        }
        AUTHENTICATION_SASL_CONTINUE => Authentication::SaslContinue(cursor.rest()),
        AUTHENTICATION_SASL_FINAL => Authentication::SaslFinal(cursor.rest()),
        kind => {
            cursor.rest();
            Authentication::Unknown(kind)
        }
    };
    cursor.finish()?;
    Ok(authentication)
}

fn status(body: &[u8]) -> Result<TransactionStatus, PeerMisbehaved> {
    let what = "ReadyForQuery";
    let mut cursor = Cursor::new(what, body);
    let status = match cursor.u8()? {
        b'I' => TransactionStatus::Idle,
        b'T' => TransactionStatus::InBlock,
        b'E' => TransactionStatus::Failed,
        _ => return Err(PeerMisbehaved::UnknownValue { what }),
    };
    cursor.finish()?;
    Ok(status)
}

fn negotiate(body: &[u8]) -> Result<FromServer<'_>, PeerMisbehaved> {
    let mut cursor = Cursor::new("NegotiateProtocolVersion", body);
    let version = cursor.u32()?;
    let count = cursor.u32()?;
    let names = cursor.clone().rest();
    // Each name takes at least its NUL, so a lying count ends at the end of the body.
    for _ in 0..count {
        cursor.cstr()?;
    }
    cursor.finish()?;
    Ok(FromServer::NegotiateProtocolVersion {
        version,
        unknown_options: Strings::new(names),
    })
}

pub fn put_authentication_ok(out: &mut Vec<u8>) {
    put_authentication(out, AUTHENTICATION_OK, |_| {});
}

pub fn put_authentication_cleartext_password(out: &mut Vec<u8>) {
    put_authentication(out, AUTHENTICATION_CLEARTEXT, |_| {});
}

pub fn put_authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&[u8]]) {
    put_authentication(out, AUTHENTICATION_SASL, |body| {
        for mechanism in mechanisms {
            frame::put_cstr(body, mechanism);
        }
        body.push(0);
    });
}

pub fn put_authentication_sasl_continue(out: &mut Vec<u8>, challenge: &[u8]) {
    put_authentication(out, AUTHENTICATION_SASL_CONTINUE, |body| {
        body.extend_from_slice(challenge)
    });
}

pub fn put_authentication_sasl_final(out: &mut Vec<u8>, outcome: &[u8]) {
    put_authentication(out, AUTHENTICATION_SASL_FINAL, |body| {
        body.extend_from_slice(outcome)
    });
}

fn put_authentication(out: &mut Vec<u8>, kind: i32, rest: impl FnOnce(&mut Vec<u8>)) {
    frame::put(out, tag::AUTHENTICATION, |body| {
        body.extend_from_slice(&kind.to_be_bytes());
        rest(body);
    });
}

pub fn put_parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    frame::put(out, tag::PARAMETER_STATUS, |body| {
        frame::put_cstr(body, name);
        frame::put_cstr(body, value);
    });
}

/// `key` must have 4 bytes for a client of protocol 3.0 (libpq refuses others), 4 to 256 for 3.2.
pub fn put_backend_key_data(out: &mut Vec<u8>, process: i32, key: &[u8]) {
    frame::put(out, tag::BACKEND_KEY_DATA, |body| {
        body.extend_from_slice(&process.to_be_bytes());
        body.extend_from_slice(key);
    });
}

pub fn put_ready(out: &mut Vec<u8>, status: TransactionStatus) {
    frame::put(out, tag::READY_FOR_QUERY, |body| body.push(status.byte()));
}

pub fn put_command_complete(out: &mut Vec<u8>, command: &[u8]) {
    frame::put(out, tag::COMMAND_COMPLETE, |body| frame::put_cstr(body, command));
}

/// `version` is the full version word, as `startup::version` makes it.
pub fn put_negotiate_protocol(out: &mut Vec<u8>, version: u32, unknown_options: &[&[u8]]) {
    frame::put(out, tag::NEGOTIATE_PROTOCOL_VERSION, |body| {
        body.extend_from_slice(&version.to_be_bytes());
        body.extend_from_slice(
            &u32::try_from(unknown_options.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        for option in unknown_options {
            frame::put_cstr(body, option);
        }
    });
}
