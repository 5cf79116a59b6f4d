//! Opens connections to SQL Server: TCP, TLS where the protocol's version has it, login. Where the server
//! sends the login elsewhere, it is followed there once; a client is never sent past gatepost.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::domain::Password;
use crate::tls::{Mode, Stream};
use crate::upstream::book::PoolKey;
use crate::upstream::dial::{DialError, Dialed, LOGIN_READ_BYTES, Server, TargetAddress, connect_tcp};
use crate::wire::tds::login::{self, Credential, Login, LoginError, LoginProgress, LoginSettings, LoginStep};
use crate::wire::tds::login_reply::Routed;
use crate::wire::tds::login7::Login7;
use crate::wire::tds::tls_wrap::TlsPlace;
use crate::wire::tds::version::{ProgramVersion, TdsVersion};

/// How often one login is sent elsewhere. Azure does it once.
const ROUTES_MAX: usize = 1;
/// What a connection calls itself; the login's name tells whose it is.
const APPLICATION_NAME: &str = "gatepost";

/// Wrong password; disabled; expired; to be changed.
const LOGIN_STOPPED: [u32; 5] = [18456, 18470, 18486, 18487, 18488];
/// The limit of connections, of workers, of sessions of a resource pool.
const SERVER_FULL: [u32; 4] = [10928, 10929, 17809, 17300];
/// Not available at the moment; in single-user or start-up mode; shutting down.
const SERVER_NOT_READY: [u32; 6] = [40613, 40197, 40501, 18401, 18461, 6005];

/// The start-up settings of a client's login that shape its session and that a reset does not undo: part of
/// the pool's key, in one place with what is made of them.
pub fn settings(client: &Login7, utf8: bool) -> Vec<(String, String)> {
    let wanted = login::forwarded(client);
    let number = |name: &str, value: u32| (value != 0).then(|| (name.to_owned(), value.to_string()));
    let text = |name: &str, value: &str| (!value.is_empty()).then(|| (name.to_owned(), value.to_owned()));
    let settings = [
        number(FLAGS_THREE, wanted.flags_three.into()),
        number(FLAGS_TWO, wanted.flags_two.into()),
        text(LANGUAGE, &wanted.language),
        number(TYPE_FLAGS, wanted.type_flags.into()),
        text(UTF8, if utf8 { "on" } else { "" }),
        number(VERSION, wanted.version.0),
    ];
    settings.into_iter().flatten().collect()
}

const FLAGS_THREE: &str = "flags_three";
const FLAGS_TWO: &str = "flags_two";
const LANGUAGE: &str = "language";
const TYPE_FLAGS: &str = "type_flags";
const UTF8: &str = "utf8";
const VERSION: &str = "version";

fn login_of(key: &PoolKey, host: &str) -> Login7 {
    let find = |name: &str| {
        let found = key.settings.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    let byte = |name: &str| find(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    let version = find(VERSION).and_then(|value| value.parse().ok());
    let wanted = Login7 {
        version: version.map_or(TdsVersion::V7_4, TdsVersion),
        flags_two: byte(FLAGS_TWO),
        flags_three: byte(FLAGS_THREE),
        type_flags: byte(TYPE_FLAGS),
        language: find(LANGUAGE).unwrap_or_default().to_owned(),
        host: APPLICATION_NAME.to_owned(),
        application: APPLICATION_NAME.to_owned(),
        library: APPLICATION_NAME.to_owned(),
        database: key.database.as_str().to_owned(),
        process: std::process::id(),
        ..Login7::default()
    };
    Login7 {
        server: host.to_owned(),
        ..login::forwarded(&wanted)
    }
}

/// Opens a connection under this key. The caller sets the time limit.
pub(super) async fn dial(
    address: &TargetAddress,
    key: &PoolKey,
    password: &Password,
) -> Result<Dialed, DialError> {
    let credential = credential(address, key, password).await?;
    let mut place = (address.host.clone(), address.port);
    for _ in 0..=ROUTES_MAX {
        let settings = login_settings(address, key, &place.0, credential.clone());
        match log_in(address, &place, settings).await? {
            Outcome::Done(dialed) => return Ok(*dialed),
            Outcome::Routed(Routed { host, port, .. }) => place = (host, port),
        }
    }
    Err(DialError::RoutedTooOften)
}

fn login_settings(
    address: &TargetAddress,
    key: &PoolKey,
    host: &str,
    credential: Credential,
) -> LoginSettings {
    LoginSettings {
        tls: tls_place(address.tls.mode()),
        credential,
        login: login_of(key, host),
        utf8: key.settings.iter().any(|(name, _)| name == UTF8),
        trace: None,
        version: ProgramVersion::default(),
    }
}

/// What this connection logs in with. Where the login is sent on, the other server is proven likewise.
async fn credential(
    address: &TargetAddress,
    key: &PoolKey,
    password: &Password,
) -> Result<Credential, DialError> {
    match password {
        Password::Secret(secret) => Ok(Credential::Password {
            user: key.login.to_string(),
            password: secret.clone(),
        }),
        Password::Token(_) if address.tls.proven_server().is_none() => Err(DialError::ServerNotProven),
        Password::Token(source) => {
            let token = source.token().await.map_err(DialError::NoToken)?;
            Ok(Credential::Token(token))
        }
    }
}

enum Outcome {
    Done(Box<Dialed>),
    Routed(Routed),
}

const fn tls_place(mode: Mode) -> Option<TlsPlace> {
    match mode {
        Mode::Disable => None,
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => Some(TlsPlace::InPrelogin),
        Mode::Strict => Some(TlsPlace::Strict),
    }
}

async fn log_in(
    address: &TargetAddress,
    (host, port): &(String, u16),
    settings: LoginSettings,
) -> Result<Outcome, DialError> {
    let mut stream = Stream::Plain(connect_tcp(host, *port).await?);
    let mut out = Vec::new();
    let mut step = Login::start(settings, &mut out);
    let mut input: Vec<u8> = Vec::new();
    loop {
        let mut login = match step {
            LoginStep::Continue(login) => login,
            LoginStep::StartTls(awaiting, place) => {
                send(&mut stream, &mut out).await?;
                let Stream::Plain(socket) = stream else {
                    return Err(DialError::Closed);
                };
                let secured = address.tls.connect_tds(socket, host, place).await;
                stream = secured.map_err(DialError::Tls)?;
                awaiting.established(&mut out)?
            }
            LoginStep::Routed(routed) => return Ok(Outcome::Routed(routed)),
            // The server owes nothing behind its answer: what is there belongs to nobody.
            LoginStep::Done(logged_in) if input.is_empty() => {
                let server = Server::SqlServer(logged_in);
                return Ok(Outcome::Done(Box::new(Dialed { stream, server })));
            }
            LoginStep::Done(_) => return Err(DialError::Closed),
        };
        send(&mut stream, &mut out).await?;
        step = loop {
            let consumed = match login.step(&input, &mut out)? {
                LoginProgress::Stepped { step, consumed } => {
                    input.drain(..consumed.min(input.len()));
                    break step;
                }
                LoginProgress::NeedMore {
                    login: same,
                    consumed,
                    ..
                } => {
                    login = same;
                    consumed
                }
            };
            input.drain(..consumed.min(input.len()));
            input.reserve(LOGIN_READ_BYTES);
            if stream.read_buf(&mut input).await.map_err(DialError::Broken)? == 0 {
                return Err(DialError::Closed);
            }
        };
    }
}

/// Packet by packet where TLS carries them.
async fn send(stream: &mut Stream, out: &mut Vec<u8>) -> Result<(), DialError> {
    if out.is_empty() {
        return Ok(());
    }
    stream.write_all(out).await.map_err(DialError::Broken)?;
    stream.flush().await.map_err(DialError::Broken)?;
    out.clear();
    Ok(())
}

impl From<LoginError> for DialError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Server { number, message, .. } => {
                let code = number.to_string();
                match number {
                    number if LOGIN_STOPPED.contains(&number) => Self::LoginStopped { code, message },
                    number if SERVER_FULL.contains(&number) => Self::ServerFull { message },
                    number if SERVER_NOT_READY.contains(&number) => Self::ServerNotReady { message },
                    _ => Self::Refused { code, message },
                }
            }
            LoginError::TlsRefused => Self::TlsNotOffered,
            LoginError::Misbehaved(error) => Self::Misbehaved(error),
            LoginError::TlsDemanded
            | LoginError::OtherAuthentication { .. }
            | LoginError::TokenNotAcknowledged
            | LoginError::TooLong(_) => Self::SqlServerLogin(error),
        }
    }
}

#[cfg(test)]
mod tests;
