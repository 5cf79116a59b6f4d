//! The client's side of logging in to SQL Server: with a password or with a token, inside TLS unless
//! the operator said otherwise. A machine that is consumed by each step (MS-TDS 3.2.5).

use std::fmt;

use crate::domain::Secret;
use crate::wire::Decoded;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::feature;
use crate::wire::tds::feature::Feature;
use crate::wire::tds::fedauth::{Federated, Way};
use crate::wire::tds::handshake;
use crate::wire::tds::login_reply;
use crate::wire::tds::login_reply::{LoginMessage, LoginReply, Routed};
use crate::wire::tds::login7;
use crate::wire::tds::login7::{Login7, TooLong};
use crate::wire::tds::packet;
use crate::wire::tds::packet::{Assembler, Message, PacketKind, Status};
use crate::wire::tds::prelogin;
use crate::wire::tds::prelogin::{Encryption, Prelogin, TraceId};
use crate::wire::tds::tls_wrap::TlsPlace;
use crate::wire::tds::version::{ProgramVersion, TdsVersion};

/// "fUseDB", "fDatabase", "fSetLang" of `OptionFlags1`: tell of the database, fail if it cannot be had,
/// tell of the language.
const FLAGS_ONE: u8 = 0x20 | 0x40 | 0x80;

#[derive(Clone, Debug)]
pub enum Credential {
    Password {
        user: String,
        password: Secret<String>,
    },
    /// Of an identity that the server knows (Entra).
    Token(Secret<String>),
}

#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// `None` for clear text.
    pub tls: Option<TlsPlace>,
    pub credential: Credential,
    /// Database, application, language, flags and so on: see [`forwarded`]. User, password, features and
    /// packet size are not looked at.
    pub login: Login7,
    /// Whether the client copes with collations in UTF-8. To others the server translates, so this is part of
    /// what makes two connections alike.
    pub utf8: bool,
    /// By what our traces name this connection.
    pub trace: Option<TraceId>,
    /// Ours.
    pub version: ProgramVersion,
}

/// What of a client's login goes on to the server: what shapes its session, and what names it. The
/// credential is not in it, and neither are features. The server's name is the caller's to set, for Azure
/// finds the server by it.
pub fn forwarded(client: &Login7) -> Login7 {
    let integrated = login7::flags::TWO_INTEGRATED_SECURITY;
    let three = login7::flags::THREE_UNKNOWN_COLLATION;
    Login7 {
        version: client.version.answered(),
        program_version: client.program_version,
        process: client.process,
        flags_one: FLAGS_ONE,
        flags_two: client.flags_two & !integrated,
        type_flags: client.type_flags,
        flags_three: client.flags_three & three,
        time_zone: client.time_zone,
        lcid: client.lcid,
        host: client.host.clone(),
        application: client.application.clone(),
        library: client.library.clone(),
        language: client.language.clone(),
        database: client.database.clone(),
        client_id: client.client_id,
        ..Login7::default()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("the server refused the login ({number}, state {state}): {message}")]
    Server {
        number: u32,
        state: u8,
        class: u8,
        message: String,
    },
    #[error("the server does not encrypt")]
    TlsRefused,
    #[error("the server demands TLS, which is disabled for it")]
    TlsDemanded,
    #[error("the server demands {method}, which is not done")]
    OtherAuthentication { method: &'static str },
    #[error("the server takes no token")]
    TokenNotAcknowledged,
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error("the server broke the protocol")]
    Misbehaved(#[from] PeerMisbehaved),
}

/// What is awaited from the server.
pub enum Login {
    AwaitingPrelogin(Box<AwaitingPrelogin>),
    AwaitingReply(AwaitingReply),
}

pub struct AwaitingPrelogin {
    settings: LoginSettings,
    incoming: Assembler,
}

pub struct AwaitingReply {
    token_sent: bool,
    utf8_asked: bool,
    incoming: Assembler,
}

/// The caller runs TLS now, then goes on with [`AwaitingTls::established`].
pub struct AwaitingTls {
    settings: Box<LoginSettings>,
    /// What the server said of FEDAUTHREQUIRED; `None` if TLS comes before everything.
    echo: Option<bool>,
}

#[derive(Debug)]
pub enum LoginProgress {
    /// The first `consumed` bytes of the input are done with; of what follows them, `at_least` bytes
    /// are needed.
    NeedMore {
        login: Login,
        consumed: usize,
        at_least: usize,
    },
    /// The first `consumed` bytes of the input are done with.
    Stepped { step: LoginStep, consumed: usize },
}

#[derive(Debug)]
pub enum LoginStep {
    Continue(Login),
    StartTls(AwaitingTls, TlsPlace),
    Done(Box<LoggedIn>),
    /// Connect there and begin anew.
    Routed(Routed),
}

/// The connection is ready for its first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    pub spid: u16,
    pub database: String,
    pub language: String,
    /// `None` if the server did not say.
    pub collation: Option<[u8; 5]>,
    /// Of both sides' packets from now on.
    pub packet_bytes: usize,
    pub version: TdsVersion,
    pub program: String,
    pub program_version: [u8; 4],
    /// Collations in UTF-8 may occur.
    pub utf8_acknowledged: bool,
    pub infos: Vec<LoginMessage>,
}

/// Only what is awaited: the states hold secrets.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let awaited = match self {
            Self::AwaitingPrelogin(_) => "the answer to PRELOGIN",
            Self::AwaitingReply(_) => "the answer to the login",
        };
        write!(f, "Login(awaiting {awaited})")
    }
}

impl fmt::Debug for AwaitingTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(awaiting TLS)")
    }
}

impl Login {
    /// Appends PRELOGIN, unless TLS comes first.
    pub fn start(settings: LoginSettings, out: &mut Vec<u8>) -> LoginStep {
        match settings.tls {
            Some(TlsPlace::Strict) => {
                let settings = Box::new(settings);
                let state = AwaitingTls { settings, echo: None };
                LoginStep::StartTls(state, TlsPlace::Strict)
            }
            Some(TlsPlace::InPrelogin) | None => LoginStep::Continue(Self::begin(settings, out)),
        }
    }

    fn begin(settings: LoginSettings, out: &mut Vec<u8>) -> Self {
        let asked = Prelogin {
            version: Some(settings.version),
            encryption: Some(match settings.tls {
                Some(TlsPlace::InPrelogin) => Encryption::On,
                // Inside TLS it is not negotiated.
                Some(TlsPlace::Strict) | None => Encryption::NotSupported,
            }),
            instance: Some(Vec::new()),
            thread: Some(0),
            mars: Some(false),
            trace: settings.trace,
            federated: match settings.credential {
                Credential::Token(_) => Some(true),
                Credential::Password { .. } => None,
            },
            nonce: None,
        };
        let mut payload = Vec::new();
        asked.put(&mut payload);
        let (kind, size) = (PacketKind::Prelogin, packet::LOGIN_PACKET_BYTES);
        packet::put_message(out, kind, Status::NORMAL, size, &payload);
        Self::AwaitingPrelogin(Box::new(AwaitingPrelogin {
            settings,
            incoming: Assembler::new(prelogin::FROM_SERVER),
        }))
    }

    /// Takes at most one message from the front of `input`, which is all that is buffered, and appends
    /// what is to be sent to `out`.
    pub fn step(self, input: &[u8], out: &mut Vec<u8>) -> Result<LoginProgress, LoginError> {
        match self {
            Self::AwaitingPrelogin(mut state) => match handshake::take(&mut state.incoming, input)? {
                (consumed, Decoded::NeedMore { at_least }) => Ok(LoginProgress::NeedMore {
                    login: Self::AwaitingPrelogin(state),
                    consumed,
                    at_least,
                }),
                (consumed, Decoded::Message(message)) => {
                    let left = input.get(consumed..).unwrap_or_default();
                    let step = state.received(&message.payload, left, out)?;
                    Ok(LoginProgress::Stepped { step, consumed })
                }
            },
            Self::AwaitingReply(mut state) => match handshake::take(&mut state.incoming, input)? {
                (consumed, Decoded::NeedMore { at_least }) => Ok(LoginProgress::NeedMore {
                    login: Self::AwaitingReply(state),
                    consumed,
                    at_least,
                }),
                (consumed, Decoded::Message(message)) => {
                    let step = state.received(&message)?;
                    Ok(LoginProgress::Stepped { step, consumed })
                }
            },
        }
    }
}

impl AwaitingPrelogin {
    fn received(self, payload: &[u8], left: &[u8], out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        let answered = Prelogin::decode(payload)?;
        let encrypts = match answered.encryption {
            Some(Encryption::On | Encryption::Required) => true,
            Some(Encryption::Off | Encryption::NotSupported) | None => false,
        };
        // MS-TDS 2.2.6.4: what is echoed is what the server said, if it said anything.
        let echo = answered.federated.unwrap_or(false);
        match self.settings.tls {
            Some(TlsPlace::Strict) => {}
            Some(TlsPlace::InPrelogin) if encrypts => {
                let state = AwaitingTls {
                    settings: Box::new(self.settings),
                    echo: Some(echo),
                };
                state.check_nothing_buffered(left)?;
                return Ok(LoginStep::StartTls(state, TlsPlace::InPrelogin));
            }
            // Whether the server cannot or somebody in between says so: nothing is sent in clear.
            Some(TlsPlace::InPrelogin) => return Err(LoginError::TlsRefused),
            None if encrypts => return Err(LoginError::TlsDemanded),
            None => {}
        }
        put_login(self.settings, echo, out).map(LoginStep::Continue)
    }
}

impl AwaitingTls {
    /// To be called with what is buffered when TLS is about to start: a server has nothing to say before
    /// the client has begun.
    pub fn check_nothing_buffered(&self, buffered: &[u8]) -> Result<(), PeerMisbehaved> {
        if buffered.is_empty() {
            Ok(())
        } else {
            Err(PeerMisbehaved::BytesBeforeTls)
        }
    }

    /// Appends what comes next inside TLS. Flush it packet by packet: some servers want each packet in
    /// a record of its own.
    pub fn established(self, out: &mut Vec<u8>) -> Result<Login, LoginError> {
        match self.echo {
            None => Ok(Login::begin(*self.settings, out)),
            Some(echo) => put_login(*self.settings, echo, out),
        }
    }
}

/// Appends LOGIN7, cut at 4,096 bytes: whole, it would be refused.
fn put_login(settings: LoginSettings, echo: bool, out: &mut Vec<u8>) -> Result<Login, LoginError> {
    let mut login = settings.login;
    login.version = match settings.tls {
        Some(TlsPlace::Strict) => TdsVersion::V8_0,
        Some(TlsPlace::InPrelogin) | None if login.version == TdsVersion::V8_0 => TdsVersion::V7_4,
        Some(TlsPlace::InPrelogin) | None => login.version,
    };
    login.packet_bytes = u32::try_from(packet::PACKET_BYTES).unwrap_or(u32::MAX);
    login.features.clear();
    if settings.utf8 {
        login.features.push(Feature {
            id: feature::id::UTF8_SUPPORT,
            data: Vec::new(),
        });
    }
    let token_sent = match settings.credential {
        Credential::Password { user, password } => {
            (login.user, login.password) = (user, password);
            false
        }
        Credential::Token(token) => {
            let token = Secret::new(token.expose().as_bytes().to_vec());
            let mut data = Vec::new();
            let way = Way::SecurityToken(token);
            Federated { echo, way }.put(&mut data);
            let id = feature::id::FEDAUTH;
            login.features.push(Feature { id, data });
            (login.user, login.password) = (String::new(), Secret::new(String::new()));
            true
        }
    };
    let mut payload = Vec::new();
    login.put(&mut payload)?;
    let (kind, size) = (PacketKind::Login7, packet::LOGIN_PACKET_BYTES);
    packet::put_message(out, kind, Status::NORMAL, size, &payload);
    Ok(Login::AwaitingReply(AwaitingReply {
        token_sent,
        utf8_asked: settings.utf8,
        incoming: Assembler::new(login_reply::FROM_SERVER),
    }))
}

impl AwaitingReply {
    fn received(self, message: &Message) -> Result<LoginStep, LoginError> {
        let reply = LoginReply::decode(&message.payload)?;
        // Of several errors the first says why, and the last that the login failed.
        if let Some(error) = reply.errors.into_iter().next() {
            return Err(LoginError::Server {
                number: error.number,
                state: error.state,
                class: error.class,
                message: error.message,
            });
        }
        let other = |method| Err(LoginError::OtherAuthentication { method });
        if reply.sspi_asked {
            return other("Windows authentication");
        }
        if reply.token_asked {
            return other("a token from where it says");
        }
        let missing = |what| PeerMisbehaved::Missing { what };
        let ack = reply.ack.ok_or(missing("LOGINACK"))?;
        if !ack.version.is_served() {
            return Err(PeerMisbehaved::UnknownValue { what: "TDS version" }.into());
        }
        if !reply.done {
            return Err(missing("DONE").into());
        }
        if let Some(routed) = reply.routed {
            return Ok(LoginStep::Routed(routed));
        }
        // What was not asked for would change how replies look.
        let asked = |id: u8| {
            id == feature::id::UTF8_SUPPORT && self.utf8_asked
                || id == feature::id::FEDAUTH && self.token_sent
        };
        if reply.features.iter().any(|granted| !asked(granted.id)) {
            let what = "FEATUREEXTACK";
            return Err(PeerMisbehaved::UnknownValue { what }.into());
        }
        if self.token_sent && feature::find(&reply.features, feature::id::FEDAUTH).is_none() {
            return Err(LoginError::TokenNotAcknowledged);
        }
        let utf8 = feature::find(&reply.features, feature::id::UTF8_SUPPORT);
        Ok(LoginStep::Done(Box::new(LoggedIn {
            spid: message.spid,
            database: reply.database.ok_or(missing("database"))?,
            language: reply.language.unwrap_or_default(),
            collation: reply.collation,
            packet_bytes: reply.packet_bytes.unwrap_or(packet::LOGIN_PACKET_BYTES),
            version: ack.version,
            program: ack.program,
            program_version: ack.program_version,
            utf8_acknowledged: utf8.is_some_and(|data| data.first() == Some(&1)),
            infos: reply.infos,
        })))
    }
}

#[cfg(test)]
mod tests;
