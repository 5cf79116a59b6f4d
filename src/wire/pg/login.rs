//! The client's side of logging in to a database: SCRAM-SHA-256 or a client certificate, nothing that
//! would show the server a password; a token that ends by itself is shown if the caller says so. A
//! machine that is consumed by each step.

use std::{fmt, io};

use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};

use crate::domain::Secret;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::pg::from_client;
use crate::wire::pg::from_server;
use crate::wire::pg::from_server::{Authentication, Fields, FromServer};
use crate::wire::pg::startup;

/// The server chooses how much work we do, so there is a bound: 24 times PostgreSQL's default of
/// 4,096, and still a fraction of a second.
pub const SCRAM_ITERATIONS_MAX: u32 = 100_000;

/// For the caller's `frame::head`: nothing that a server sends before it is ready is larger than this
/// (libpq draws its own line at 30,000 bytes).
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// PostgreSQL reports 14 to 20 settings; extensions may add some.
pub const PARAMETERS_MAX: usize = 256;

/// Ties SCRAM to the TLS connection below it, so that nobody can sit between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    None,
    /// The hash of the server's certificate (RFC 5929, `tls-server-end-point`).
    ServerEndPoint(Vec<u8>),
}

/// Whether a server that demands the password itself is given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InClear {
    /// Never: such a server is refused.
    Refused,
    /// What stands in the password's place is a token for this kind of server, soon over, and the
    /// connection below has proven by chain and name which server it is. Servers that know Entra ask for
    /// their tokens this way. An MD5 hash is still refused.
    TokenToProvenServer,
}

#[derive(Clone, Debug)]
pub struct LoginSettings {
    pub user: String,
    pub password: Secret<String>,
    pub database: String,
    /// Further start-up parameters.
    pub parameters: Vec<(String, String)>,
    pub in_clear: InClear,
    pub binding: Binding,
    /// 0, or 2 to be given long cancel keys by servers that have them.
    pub request_minor: u16,
    /// Whether a server that lets us in without asking for the password is refused: it has not proven
    /// that it knows us. False for client certificates.
    pub password_required: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("the server refused the login ({sqlstate}): {message}")]
    Server { sqlstate: String, message: String },
    #[error("the server demands {method}, which would give the password away")]
    WeakAuthentication { method: &'static str },
    #[error("the server offers no authentication that is known here")]
    NoKnownMechanism,
    #[error("the server asks for {asked} SCRAM iterations, the limit is {SCRAM_ITERATIONS_MAX}")]
    TooManyIterations { asked: u64 },
    #[error("the server let us in without proving that it knows the password")]
    ServerNotProven,
    #[error("SCRAM failed")]
    Scram(#[source] io::Error),
    #[error("the server broke the protocol")]
    Misbehaved(#[from] PeerMisbehaved),
}

/// What is awaited from the server; each state holds what is known by then and no more.
pub enum Login {
    AwaitingMethod(AwaitingMethod),
    AwaitingServerFirst(AwaitingServerFirst),
    AwaitingServerFinal(AwaitingServerFinal),
    AwaitingOk(AwaitingOk),
    AwaitingReady(AwaitingReady),
}

pub struct AwaitingMethod {
    password: Secret<String>,
    password_required: bool,
    in_clear: InClear,
    binding: Binding,
    minor: u16,
}

pub struct AwaitingServerFirst {
    scram: Box<ScramSha256>,
    minor: u16,
}

pub struct AwaitingServerFinal {
    scram: Box<ScramSha256>,
    minor: u16,
}

/// The server has proven itself: by SCRAM, or by its certificate before it was shown a token.
pub struct AwaitingOk {
    minor: u16,
}

pub struct AwaitingReady {
    minor: u16,
    cancel: Option<(i32, Vec<u8>)>,
    parameters: Vec<(String, String)>,
}

#[derive(Debug)]
pub enum LoginStep {
    Continue(Login),
    Done(LoggedIn),
}

/// The connection is ready for its first query.
#[derive(Clone, PartialEq, Eq)]
pub struct LoggedIn {
    pub process: i32,
    pub cancel_key: Vec<u8>,
    /// What the server reported of its settings, in its order.
    pub parameters: Vec<(String, String)>,
}

/// Without the cancel key, which is a secret.
impl fmt::Debug for LoggedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedIn")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// Only what is awaited: the states hold secrets.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login(awaiting {})", self.awaited())
    }
}

impl Login {
    /// Appends the start-up packet.
    pub fn start(settings: LoginSettings, out: &mut Vec<u8>) -> Self {
        let minor = settings.request_minor.min(startup::MINOR_MAX);
        let own = [
            ("user", settings.user.as_str()),
            ("database", settings.database.as_str()),
        ];
        let further = settings
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        startup::put_startup(out, minor, own.into_iter().chain(further));
        Self::AwaitingMethod(AwaitingMethod {
            password: settings.password,
            password_required: settings.password_required,
            in_clear: settings.in_clear,
            binding: settings.binding,
            minor,
        })
    }

    /// Takes one whole message of the server and appends the answer.
    pub fn step(self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
        let unexpected = PeerMisbehaved::Unexpected {
            tag,
            awaited: self.awaited(),
        };
        match (self, from_server::parse(tag, body)?) {
            (_, FromServer::ErrorResponse(fields)) => Err(server_error(&fields)),
            (login, FromServer::NoticeResponse(_)) => Ok(LoginStep::Continue(login)),
            (Self::AwaitingReady(state), message) => state.received(message, unexpected),
            (Self::AwaitingMethod(state), FromServer::NegotiateProtocolVersion { version, .. }) => {
                state.negotiated(version)
            }
            (login, FromServer::Authentication(asked)) => login
                .authenticating(&asked, unexpected, out)
                .map(LoginStep::Continue),
            (_, _) => Err(unexpected.into()),
        }
    }

    const fn awaited(&self) -> &'static str {
        match self {
            Self::AwaitingMethod(_) => "the choice of authentication",
            Self::AwaitingServerFirst(_) => "the SCRAM challenge",
            Self::AwaitingServerFinal(_) => "the server's SCRAM proof",
            Self::AwaitingOk(_) => "the end of authentication",
            Self::AwaitingReady(_) => "ReadyForQuery",
        }
    }

    fn authenticating(
        self,
        asked: &Authentication<'_>,
        unexpected: PeerMisbehaved,
        out: &mut Vec<u8>,
    ) -> Result<Self, LoginError> {
        match (self, asked) {
            (Self::AwaitingMethod(state), asked) => state.chosen(asked, unexpected, out),
            (Self::AwaitingServerFirst(state), Authentication::SaslContinue(challenge)) => {
                state.challenged(challenge, out)
            }
            (Self::AwaitingServerFinal(state), Authentication::SaslFinal(proof)) => state.proven(proof),
            (Self::AwaitingOk(state), Authentication::Ok) => {
                Ok(Self::AwaitingReady(AwaitingReady::new(state.minor)))
            }
            (Self::AwaitingServerFirst(_) | Self::AwaitingServerFinal(_), Authentication::Ok) => {
                Err(LoginError::ServerNotProven)
            }
            (_, _) => Err(unexpected.into()),
        }
    }
}

impl AwaitingMethod {
    /// The server is older than asked for. To one that asked for nothing, or with a version that was
    /// not asked for, this must not come.
    fn negotiated(self, version: u32) -> Result<LoginStep, LoginError> {
        let offered = (0..self.minor).find(|minor| startup::version(*minor) == version);
        let minor = offered.ok_or(PeerMisbehaved::UnknownValue {
            what: "NegotiateProtocolVersion",
        })?;
        Ok(LoginStep::Continue(Login::AwaitingMethod(Self { minor, ..self })))
    }

    fn chosen(
        self,
        asked: &Authentication<'_>,
        unexpected: PeerMisbehaved,
        out: &mut Vec<u8>,
    ) -> Result<Login, LoginError> {
        match asked {
            Authentication::Sasl(mechanisms) => {
                let offers = |wanted: &str| mechanisms.clone().any(|offered| offered == wanted.as_bytes());
                let (mechanism, binding) = match self.binding {
                    Binding::ServerEndPoint(hash) if offers(sasl::SCRAM_SHA_256_PLUS) => (
                        sasl::SCRAM_SHA_256_PLUS,
                        ChannelBinding::tls_server_end_point(hash),
                    ),
                    _ if !offers(sasl::SCRAM_SHA_256) => return Err(LoginError::NoKnownMechanism),
                    // "We could have, but you did not offer it": a server that did offer it then knows
                    // that somebody between cut the offer out (RFC 5802, section 6).
                    Binding::ServerEndPoint(_) => (sasl::SCRAM_SHA_256, ChannelBinding::unrequested()),
                    Binding::None => (sasl::SCRAM_SHA_256, ChannelBinding::unsupported()),
                };
                let scram = Box::new(ScramSha256::new(self.password.expose().as_bytes(), binding));
                from_client::put_sasl_initial_response(out, mechanism.as_bytes(), scram.message());
                Ok(Login::AwaitingServerFirst(AwaitingServerFirst {
                    scram,
                    minor: self.minor,
                }))
            }
            Authentication::Ok if self.password_required => Err(LoginError::ServerNotProven),
            Authentication::Ok => Ok(Login::AwaitingReady(AwaitingReady::new(self.minor))),
            Authentication::CleartextPassword => match self.in_clear {
                InClear::Refused => weak("a password in clear"),
                InClear::TokenToProvenServer => {
                    from_client::put_password(out, self.password.expose().as_bytes());
                    Ok(Login::AwaitingOk(AwaitingOk { minor: self.minor }))
                }
            },
            Authentication::Md5Password => weak("an MD5 password"),
            Authentication::Gss => weak("GSSAPI or SSPI"),
            Authentication::Unknown(_) => Err(LoginError::NoKnownMechanism),
            Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => Err(unexpected.into()),
        }
    }
}

impl AwaitingServerFirst {
    fn challenged(mut self, challenge: &[u8], out: &mut Vec<u8>) -> Result<Login, LoginError> {
        check_iterations(challenge)?;
        self.scram.update(challenge).map_err(LoginError::Scram)?;
        from_client::put_sasl_response(out, self.scram.message());
        Ok(Login::AwaitingServerFinal(AwaitingServerFinal {
            scram: self.scram,
            minor: self.minor,
        }))
    }
}

impl AwaitingServerFinal {
    fn proven(mut self, proof: &[u8]) -> Result<Login, LoginError> {
        self.scram.finish(proof).map_err(LoginError::Scram)?;
        Ok(Login::AwaitingOk(AwaitingOk { minor: self.minor }))
    }
}

impl AwaitingReady {
    const fn new(minor: u16) -> Self {
        Self {
            minor,
            cancel: None,
            parameters: Vec::new(),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other message, known or to come, belongs here"
    )]
    fn received(
        mut self,
        message: FromServer<'_>,
        unexpected: PeerMisbehaved,
    ) -> Result<LoginStep, LoginError> {
        match message {
            FromServer::ParameterStatus { name, value } => {
                let what = "ParameterStatus";
                if self.parameters.len() >= PARAMETERS_MAX {
                    return Err(PeerMisbehaved::TooMany {
                        what,
                        limit: PARAMETERS_MAX,
                    }
                    .into());
                }
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.parameters.push((text(name), text(value)));
                Ok(LoginStep::Continue(Login::AwaitingReady(self)))
            }
            FromServer::BackendKeyData { process, key } => {
                // Longer keys came with 3.2.
                let limit = from_server::CANCEL_KEY_BYTES_MIN;
                if self.minor < 2 && key.len() > limit {
                    let what = "BackendKeyData";
                    return Err(PeerMisbehaved::TooLarge {
                        what,
                        length: key.len(),
                        limit,
                    }
                    .into());
                }
                self.cancel = Some((process, key.to_vec()));
                Ok(LoginStep::Continue(Login::AwaitingReady(self)))
            }
            FromServer::ReadyForQuery(from_server::TransactionStatus::Idle) => {
                // Without it nothing could be cancelled, and no record could name the backend.
                let (process, cancel_key) = self.cancel.ok_or(unexpected)?;
                Ok(LoginStep::Done(LoggedIn {
                    process,
                    cancel_key,
                    parameters: self.parameters,
                }))
            }
            _ => Err(unexpected.into()),
        }
    }
}

fn weak(method: &'static str) -> Result<Login, LoginError> {
    Err(LoginError::WeakAuthentication { method })
}

/// Looks at `i=` before the library starts to work. What cannot be read is left to the library, which
/// refuses it before working.
pub fn check_iterations(challenge: &[u8]) -> Result<(), LoginError> {
    let asked = challenge
        .split(|byte| *byte == b',')
        .find_map(|field| field.strip_prefix(b"i="));
    let asked = asked
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|text| text.parse().ok());
    match asked {
        Some(asked) if asked > u64::from(SCRAM_ITERATIONS_MAX) => {
            Err(LoginError::TooManyIterations { asked })
        }
        Some(_) | None => Ok(()),
    }
}

fn server_error(fields: &Fields<'_>) -> LoginError {
    let text = |code| String::from_utf8_lossy(fields.get(code).unwrap_or_default()).into_owned();
    LoginError::Server {
        sqlstate: text(b'C'),
        message: text(b'M'),
    }
}

#[cfg(test)]
mod tests;
