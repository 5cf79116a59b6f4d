//! Opens connections to a database: TCP, TLS as the target wants it, login.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use crate::domain::{
    Engine, IdentityKey, NoToken, Password, Reason, RefusalCode, Refuse, Secret, TargetName,
};
use crate::tls::{ClientTls, Mode, Stream, TlsError};
use crate::upstream::book::PoolKey;
use crate::upstream::sqlserver;
use crate::wire::pg::frame;
use crate::wire::pg::login::{Binding, InClear, LoggedIn, Login, LoginError, LoginSettings, LoginStep};
use crate::wire::pg::startup::put_ssl_request;
use crate::wire::tds;
use crate::wire::{Decoded, PeerMisbehaved};

/// The longest message that a server needs while logging in; certificates do not travel here, and
/// SCRAM messages and parameter reports are far below it.
const LOGIN_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Read at once while logging in: a whole login of a real server is under 1 KiB.
pub(super) const LOGIN_READ_BYTES: usize = 4 * 1024;
/// What a connection calls itself until a session names it.
const APPLICATION_NAME: &str = "gatepost";
/// Tells the server whose connection it is, where the login does not. A client can overwrite it: for
/// triggers and people, not proof.
const IDENTITY_SETTING: &str = "gatepost.identity";
/// A subject may be as long as its token; the server takes start-up packets of 10,000 bytes.
const IDENTITY_BYTES_MAX: usize = 1024;

/// The wrong password for a role, or a role that may not log in any more.
const INVALID_PASSWORD: &str = "28P01";
const INVALID_AUTHORIZATION: &str = "28000";
const TOO_MANY_CONNECTIONS: &str = "53300";
const CANNOT_CONNECT_NOW: &str = "57P03";
/// A setting that does not exist, has a wrong value, or is not this login's to make.
const SETTINGS_REFUSED: [&str; 3] = ["42704", "22023", "42501"];

/// Where a target is and how it is reached.
#[derive(Clone, Debug)]
pub struct TargetAddress {
    pub target: TargetName,
    pub engine: Engine,
    pub host: String,
    pub port: u16,
    pub tls: ClientTls,
}

/// Why a connection could not be opened. Texts of the server are for the log, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the host name cannot be resolved")]
    Resolve(#[source] io::Error),
    #[error("the host name has no address")]
    NoAddress,
    #[error("connecting failed")]
    Connect(#[source] io::Error),
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error("the server offers no TLS")]
    TlsNotOffered,
    #[error("the server sent bytes ahead of TLS")]
    BytesBeforeTls,
    #[error("the TLS handshake failed")]
    Tls(#[source] TlsError),
    #[error("the connection broke during login")]
    Broken(#[source] io::Error),
    #[error("the server closed the connection during login")]
    Closed,
    #[error("the server does not speak the protocol")]
    Misbehaved(#[source] PeerMisbehaved),
    /// A minted login that stops working was tampered with, or was ended elsewhere.
    #[error("the login stopped working ({code}): {message}")]
    LoginStopped { code: String, message: String },
    #[error("the server has too many connections: {message}")]
    ServerFull { message: String },
    #[error("the server is starting up, shutting down or recovering: {message}")]
    ServerNotReady { message: String },
    /// What the client's start-up packet asks to be set.
    #[error("the server refused the start-up settings ({code}): {message}")]
    SettingsRefused { code: String, message: String },
    #[error("the server refused the login ({code}): {message}")]
    Refused { code: String, message: String },
    #[error("the login failed")]
    Login(#[source] LoginError),
    #[error("the login failed")]
    SqlServerLogin(#[source] tds::login::LoginError),
    #[error("the server sends the login from place to place")]
    RoutedTooOften,
    #[error("there is nothing to log in with")]
    NoToken(#[source] NoToken),
    #[error(
        "a token is shown only to a server that TLS has proven by chain and name (verify-full or strict)"
    )]
    ServerNotProven,
}

/// A logged-in connection.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) stream: Stream,
    pub(super) server: Server,
}

/// What the server said of itself at login.
#[derive(Debug)]
pub(super) enum Server {
    Postgres(LoggedIn),
    SqlServer(Box<tds::login::LoggedIn>),
}

impl DialError {
    /// Did the database refuse the login itself (as opposed to being away, full or broken)?
    pub fn login_stopped(&self) -> bool {
        matches!(self, Self::LoginStopped { .. })
    }

    /// Where the client is the cause, and trying again does not help.
    fn with(self, key: &PoolKey) -> Self {
        let Self::Refused { code, message } = self else {
            return self;
        };
        if !key.settings.is_empty() && SETTINGS_REFUSED.contains(&code.as_str()) {
            return Self::SettingsRefused { code, message };
        }
        Self::Refused { code, message }
    }
}

impl Refuse for DialError {
    fn refusal(&self) -> (RefusalCode, Reason) {
        let reason = match self {
            Self::SettingsRefused { .. } => {
                return (RefusalCode::NotPermitted, Reason::SettingsRefused);
            }
            Self::LoginStopped { .. } => Reason::LoginNotMinted,
            Self::Resolve(_)
            | Self::NoAddress
            | Self::Connect(_)
            | Self::TimedOut(_)
            | Self::TlsNotOffered
            | Self::BytesBeforeTls
            | Self::Tls(_)
            | Self::Broken(_)
            | Self::Closed
            | Self::Misbehaved(_)
            | Self::ServerFull { .. }
            | Self::ServerNotReady { .. }
            | Self::Refused { .. }
            | Self::Login(_)
            | Self::SqlServerLogin(_)
            | Self::RoutedTooOften
            | Self::NoToken(_)
            | Self::ServerNotProven => Reason::TargetDown,
        };
        (RefusalCode::TargetUnavailable, reason)
    }
}

impl From<LoginError> for DialError {
    fn from(error: LoginError) -> Self {
        let LoginError::Server {
            sqlstate: code,
            message,
        } = error
        else {
            return Self::Login(error);
        };
        match code.as_str() {
            INVALID_PASSWORD | INVALID_AUTHORIZATION => Self::LoginStopped { code, message },
            TOO_MANY_CONNECTIONS => Self::ServerFull { message },
            CANNOT_CONNECT_NOW => Self::ServerNotReady { message },
            _ => Self::Refused { code, message },
        }
    }
}

/// Opens a connection under this key.
pub(super) async fn dial(
    address: &TargetAddress,
    key: &PoolKey,
    password: &Password,
    limit: Duration,
) -> Result<Dialed, DialError> {
    let dialing = async {
        if address.engine == Engine::SqlServer {
            return sqlserver::dial(address, key, password).await;
        }
        let (password, in_clear) = shown(address, password).await?;
        let stream = connect(address).await?;
        let settings = LoginSettings {
            user: key.login.to_string(),
            password,
            in_clear,
            database: key.database.as_str().to_owned(),
            parameters: parameters(key),
            binding: stream
                .server_end_point()
                .map_or(Binding::None, Binding::ServerEndPoint),
            request_minor: 0,
            password_required: true,
        };
        log_in(stream, settings).await
    };
    let dialed = within(limit, dialing).await;
    dialed.map_err(|error| error.with(key))
}

/// What this connection logs in with, and whether the server may see it as it is.
async fn shown(address: &TargetAddress, password: &Password) -> Result<(Secret<String>, InClear), DialError> {
    let in_clear = match (password, address.tls.proven_server()) {
        (Password::Secret(_), _) => InClear::Refused,
        (Password::Token(_), Some(_)) => InClear::TokenToProvenServer,
        (Password::Token(_), None) => return Err(DialError::ServerNotProven),
    };
    let current = password.current().await.map_err(DialError::NoToken)?;
    Ok((current, in_clear))
}

pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    timeout(limit, work)
        .await
        .unwrap_or(Err(DialError::TimedOut(limit)))
}

fn parameters(key: &PoolKey) -> Vec<(String, String)> {
    let named = key.settings.iter().any(|(name, _)| name == "application_name");
    let name = (!named).then(|| ("application_name".to_owned(), APPLICATION_NAME.to_owned()));
    let identity = key.identity.iter().map(written);
    let identity = identity.map(|identity| (IDENTITY_SETTING.to_owned(), identity));
    // Of two alike the server takes the last: what a client asks for stands before it.
    key.settings.iter().cloned().chain(name).chain(identity).collect()
}

/// `provider/tenant/subject`, the middle one empty where there is none. A NUL would end the text early.
fn written(identity: &IdentityKey) -> String {
    let tenant = identity.tenant.as_deref().unwrap_or_default();
    let text = format!("{}/{tenant}/{}", identity.provider, identity.subject);
    let mut text = text.replace('\0', "");
    text.truncate(text.floor_char_boundary(IDENTITY_BYTES_MAX));
    text
}

/// TCP and, unless the target is plain, TLS.
pub(super) async fn connect(address: &TargetAddress) -> Result<Stream, DialError> {
    let mut tcp = connect_tcp(&address.host, address.port).await?;
    if matches!(address.tls.mode(), Mode::Disable) {
        return Ok(Stream::Plain(tcp));
    }
    let mut request = Vec::new();
    put_ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(DialError::Broken)?;
    let mut answer = [0; 1];
    tcp.read_exact(&mut answer).await.map_err(closed_or_broken)?;
    if answer != *b"S" {
        return Err(DialError::TlsNotOffered);
    }
    // Bytes ahead of the handshake cannot be told from an attacker's: a server speaks second in TLS.
    let mut early = [0; 1];
    match tcp.try_read(&mut early) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Ok(0) => return Err(DialError::Closed),
        Ok(_) => return Err(DialError::BytesBeforeTls),
        Err(error) => return Err(DialError::Broken(error)),
    }
    address
        .tls
        .connect(tcp, &address.host)
        .await
        .map_err(DialError::Tls)
}

/// Tries every address of the host in turn.
pub(super) async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let addresses = lookup_host((host, port)).await.map_err(DialError::Resolve)?;
    let mut last = DialError::NoAddress;
    for address in addresses {
        match connect_one(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = DialError::Connect(error),
        }
    }
    Err(last)
}

async fn connect_one(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Small messages are answered at once, and a vanished server is noticed while waiting for it.
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.connect(address).await
}

async fn log_in(mut stream: Stream, settings: LoginSettings) -> Result<Dialed, DialError> {
    let mut out = Vec::new();
    let mut login = Login::start(settings, &mut out);
    let mut input: Vec<u8> = Vec::new();
    loop {
        if !out.is_empty() {
            stream.write_all(&out).await.map_err(DialError::Broken)?;
            stream.flush().await.map_err(DialError::Broken)?;
            out.clear();
        }
        let (tag, body) = read_message(&mut stream, &mut input).await?;
        match login.step(tag, &body, &mut out)? {
            LoginStep::Continue(next) => login = next,
            // The server owes nothing after ReadyForQuery: what is there belongs to nobody.
            LoginStep::Done(logged_in) if input.is_empty() => {
                return Ok(Dialed {
                    stream,
                    server: Server::Postgres(logged_in),
                });
            }
            LoginStep::Done(_) => return Err(DialError::Closed),
        }
    }
}

/// One whole message; what was read beyond it stays in `input`.
async fn read_message(stream: &mut Stream, input: &mut Vec<u8>) -> Result<(u8, Vec<u8>), DialError> {
    loop {
        let message = take_message(input, LOGIN_MESSAGE_BYTES_MAX);
        if let Some(message) = message.map_err(DialError::Misbehaved)? {
            return Ok(message);
        }
        input.reserve(LOGIN_READ_BYTES);
        if stream.read_buf(input).await.map_err(DialError::Broken)? == 0 {
            return Err(DialError::Closed);
        }
    }
}

/// Splits the tag and body of the first message off `input`, if it is all there.
pub(super) fn take_message(
    input: &mut Vec<u8>,
    length_max: usize,
) -> Result<Option<(u8, Vec<u8>)>, PeerMisbehaved> {
    match frame::head(input, length_max)? {
        Decoded::Message(head) if input.len() >= head.length => {
            let rest = input.split_off(head.length);
            let body = input.split_off(frame::HEAD_BYTES);
            *input = rest;
            Ok(Some((head.tag, body)))
        }
        Decoded::Message(_) | Decoded::NeedMore { .. } => Ok(None),
    }
}

fn closed_or_broken(error: io::Error) -> DialError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return DialError::Closed;
    }
    DialError::Broken(error)
}

#[cfg(test)]
mod tests;
