//! The server's side of a connection's beginning, up to the token. A machine that is consumed by each
//! step: it reads buffered bytes, appends replies, and never holds a socket (MS-TDS 3.3.5.1 to 3.3.5.9).

use crate::domain::{Reason, RefusalCode, Refuse, Secret};
use crate::wire::Decoded;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::feature;
use crate::wire::tds::fedauth;
use crate::wire::tds::fedauth::{Federated, TokenMessage, TokenService, Way};
use crate::wire::tds::login_ack::Acknowledge;
use crate::wire::tds::login7;
use crate::wire::tds::login7::{Login7, Objection};
use crate::wire::tds::packet;
use crate::wire::tds::packet::{Assembler, Expected, Message, Status};
use crate::wire::tds::prelogin;
use crate::wire::tds::prelogin::{Encryption, Prelogin, TraceId};
use crate::wire::tds::tls_wrap;
use crate::wire::tds::tls_wrap::TlsPlace;
use crate::wire::tds::utf16;
use crate::wire::tds::version::{ProgramVersion, TdsVersion};

/// What the listener offers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// It has a certificate.
    pub tls_offered: bool,
    /// It takes tokens in clear from clients that cannot encrypt: loopback only, and said so in its
    /// settings.
    pub cleartext_token_allowed: bool,
    /// Where clients that ask are sent for a token.
    pub token_service: Option<TokenService>,
    /// What clients are told about the server before it is known which one they get.
    pub version: ProgramVersion,
}

#[derive(Debug)]
pub enum Handshake {
    AwaitingPrelogin(AwaitingPrelogin),
    AwaitingLogin(AwaitingLogin),
    AwaitingToken(Box<AwaitingToken>),
}

#[derive(Debug)]
pub struct AwaitingPrelogin {
    settings: Settings,
    /// TLS came first.
    strict: bool,
    begun: bool,
    incoming: Assembler,
}

#[derive(Debug)]
pub struct AwaitingLogin {
    token_service: Option<TokenService>,
    beginning: Beginning,
    incoming: Assembler,
}

/// FEDAUTHINFO was sent. The client may let its user sign in now, which takes as long as that takes.
#[derive(Debug)]
pub struct AwaitingToken {
    presented: Presented,
    incoming: Assembler,
}

/// The caller runs TLS now, at this [`TlsPlace`], then goes on with [`AwaitingTls::established`].
#[derive(Debug)]
pub struct AwaitingTls {
    settings: Settings,
    /// What was agreed on before, unless TLS comes first.
    beginning: Option<Beginning>,
    client_can: bool,
}

/// What came before the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// What carries the login; `None` for clear text.
    pub tls: Option<TlsPlace>,
    /// By what the client's own traces name this connection.
    pub trace: Option<TraceId>,
    /// Of the driver, as far as it tells.
    pub program_version: Option<ProgramVersion>,
    /// What we answered about FEDAUTHREQUIRED: nothing, if nothing was asked.
    federated: Option<bool>,
}

#[derive(Debug)]
pub enum Progress {
    /// The first `consumed` bytes of the input are done with; of what follows them, `at_least` bytes
    /// are needed.
    NeedMore {
        handshake: Handshake,
        consumed: usize,
        at_least: usize,
    },
    /// The first `consumed` bytes of the input are done with.
    Stepped { step: Step, consumed: usize },
}

#[derive(Debug)]
pub enum Step {
    Continue(Handshake),
    /// At [`TlsPlace::Strict`] nothing was consumed: the buffered bytes are TLS. At
    /// [`TlsPlace::InPrelogin`] send the reply first.
    StartTls(AwaitingTls, TlsPlace),
    Presented(Box<Presented>),
    /// Tell the client and close.
    Refuse(PeerRefused),
}

/// How a token came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// In the password field: a token, or a ticket.
    Password,
    /// With the login (FEDAUTH, library 1).
    SecurityToken,
    /// After we said where to fetch it (library 2).
    Directed,
}

/// The client has said who it is; nothing of it is verified yet.
#[derive(Debug)]
pub struct Presented {
    /// In UTF-8, never empty.
    pub token: Secret<Vec<u8>>,
    pub arrival: Arrival,
    pub beginning: Beginning,
    /// As sent, but without the password and without the feature FEDAUTH.
    pub login: Login7,
    /// What of the asked features a reply may grant.
    pub acknowledge: Acknowledge,
    /// What the driver says of itself, if it does.
    pub user_agent: Option<String>,
}

/// The client broke no rule of the protocol, but it is not served this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    #[error("the client would send its token in clear")]
    TokenInClear,
    #[error("the client speaks version {0}")]
    OldVersion(TdsVersion),
    #[error("the login asks for something that is not done here: {0:?}")]
    Objection(Objection),
    #[error("the client has no token and no password, or its driver dropped one that was too long")]
    PasswordEmpty,
    #[error("the client sent an empty token")]
    TokenEmpty,
    #[error("the client asks where to fetch a token, and no token service is configured")]
    NoTokenService,
    #[error("the client would bring a token of library {library}, which is not known here")]
    UnknownLibrary { library: u8 },
}

impl Refuse for PeerRefused {
    fn refusal(&self) -> (RefusalCode, Reason) {
        let way = |what| (RefusalCode::TokenMissing, Reason::LoginWay { what });
        let unsupported = |what| (RefusalCode::ProtocolViolation, Reason::Unsupported { what });
        match self {
            Self::TokenInClear => (RefusalCode::TlsRequired, Reason::TokenInClear),
            Self::OldVersion(_) => unsupported("a TDS version before 7.3"),
            Self::Objection(Objection::WindowsAuthentication) => way("a Windows login"),
            Self::Objection(Objection::ChangePassword) => way("changing a password"),
            Self::Objection(Objection::AttachFile) => unsupported("attaching a database file"),
            Self::Objection(Objection::UserInstance) => unsupported("a user instance"),
            Self::PasswordEmpty => (RefusalCode::TokenMissing, Reason::PasswordDropped),
            Self::TokenEmpty => (RefusalCode::TokenMissing, Reason::NoToken),
            Self::NoTokenService => way("fetching a token from where the server says"),
            Self::UnknownLibrary { .. } => way("a token of this kind"),
        }
    }
}

impl Handshake {
    pub fn start(settings: Settings) -> Self {
        Self::awaiting_prelogin(settings, false)
    }

    fn awaiting_prelogin(settings: Settings, strict: bool) -> Self {
        Self::AwaitingPrelogin(AwaitingPrelogin {
            settings,
            strict,
            begun: false,
            incoming: Assembler::new(prelogin::FROM_CLIENT),
        })
    }

    /// Takes at most one message from the front of `input`, which is all that is buffered, and appends
    /// what is to be sent to `reply`.
    pub fn step(self, input: &[u8], reply: &mut Vec<u8>) -> Result<Progress, PeerMisbehaved> {
        match self {
            Self::AwaitingPrelogin(state) => state.step(input, reply),
            Self::AwaitingLogin(mut state) => Ok(match take(&mut state.incoming, input)? {
                (consumed, Decoded::NeedMore { at_least }) => Progress::NeedMore {
                    handshake: Self::AwaitingLogin(state),
                    consumed,
                    at_least,
                },
                (consumed, Decoded::Message(message)) => Progress::Stepped {
                    step: state.received(&message.payload, reply)?,
                    consumed,
                },
            }),
            Self::AwaitingToken(mut state) => Ok(match take(&mut state.incoming, input)? {
                (consumed, Decoded::NeedMore { at_least }) => Progress::NeedMore {
                    handshake: Self::AwaitingToken(state),
                    consumed,
                    at_least,
                },
                (consumed, Decoded::Message(message)) => Progress::Stepped {
                    step: state.received(&message.payload)?,
                    consumed,
                },
            }),
        }
    }
}

impl AwaitingPrelogin {
    fn step(mut self, input: &[u8], reply: &mut Vec<u8>) -> Result<Progress, PeerMisbehaved> {
        if !self.strict && !self.begun && self.settings.tls_offered && tls_wrap::is_strict_tls(input) {
            let state = AwaitingTls {
                settings: self.settings,
                beginning: None,
                client_can: true,
            };
            let step = Step::StartTls(state, TlsPlace::Strict);
            return Ok(Progress::Stepped { step, consumed: 0 });
        }
        let (consumed, decoded) = take(&mut self.incoming, input)?;
        self.begun |= consumed > 0;
        match decoded {
            Decoded::NeedMore { at_least } => Ok(Progress::NeedMore {
                handshake: Handshake::AwaitingPrelogin(self),
                consumed,
                at_least,
            }),
            Decoded::Message(message) => {
                let left = input.get(consumed..).unwrap_or_default();
                let asked = Prelogin::decode(&message.payload)?;
                let step = self.received(&asked, left, reply)?;
                Ok(Progress::Stepped { step, consumed })
            }
        }
    }

    fn received(self, asked: &Prelogin, left: &[u8], reply: &mut Vec<u8>) -> Result<Step, PeerMisbehaved> {
        let Some((answer, tls)) = self.agreed(asked.encryption) else {
            return Ok(Step::Refuse(PeerRefused::TokenInClear));
        };
        let beginning = Beginning {
            tls,
            trace: asked.trace,
            program_version: asked.version,
            // Unasked for, ODBC breaks off. What is echoed here the login must echo.
            federated: asked.federated,
        };
        let next = match tls {
            Some(TlsPlace::InPrelogin) => {
                let state = AwaitingTls {
                    settings: self.settings.clone(),
                    beginning: Some(beginning),
                    client_can: asked.encryption != Some(Encryption::NotSupported),
                };
                state.check_nothing_buffered(left)?;
                Step::StartTls(state, TlsPlace::InPrelogin)
            }
            Some(TlsPlace::Strict) | None => Step::Continue(Handshake::AwaitingLogin(AwaitingLogin::new(
                self.settings.token_service,
                beginning,
            ))),
        };
        let answered = Prelogin {
            version: Some(self.settings.version),
            encryption: Some(answer),
            // The right instance, whichever was asked for.
            instance: Some(Vec::new()),
            mars: Some(false),
            federated: beginning.federated,
            ..Prelogin::default()
        };
        let mut payload = Vec::new();
        answered.put(&mut payload);
        packet::put_reply(reply, 0, packet::LOGIN_PACKET_BYTES, &payload);
        Ok(next)
    }

    /// What is answered about encryption, and what carries the login then; `None` if there is no way.
    ///
    /// Never OFF, which encrypts one packet of the login and leaves the rest of a long token in clear.
    /// REQ is what makes drivers that asked for OFF encrypt all.
    const fn agreed(&self, asked: Option<Encryption>) -> Option<(Encryption, Option<TlsPlace>)> {
        let on = matches!(asked, Some(Encryption::On | Encryption::Required));
        let cannot = matches!(asked, Some(Encryption::NotSupported));
        let clear = self.settings.cleartext_token_allowed;
        if self.strict {
            // Said inside TLS: nobody acts on it, but some compare it with what they said.
            let answer = if on {
                Encryption::On
            } else {
                Encryption::NotSupported
            };
            Some((answer, Some(TlsPlace::Strict)))
        } else if self.settings.tls_offered && !(clear && cannot) {
            let answer = if on { Encryption::On } else { Encryption::Required };
            Some((answer, Some(TlsPlace::InPrelogin)))
        } else if clear {
            Some((Encryption::NotSupported, None))
        } else {
            None
        }
    }
}

impl AwaitingTls {
    /// To be called with what is buffered when TLS in packets is about to start. An honest client waits
    /// for the answer to its PRELOGIN, so any byte was put there by somebody who hopes that it passes
    /// for an encrypted one.
    pub fn check_nothing_buffered(&self, buffered: &[u8]) -> Result<(), PeerMisbehaved> {
        if self.beginning.is_none() || buffered.is_empty() {
            Ok(())
        } else {
            Err(PeerMisbehaved::BytesBeforeTls)
        }
    }

    /// What it means if the client closes instead: it had said that it cannot encrypt, and now prints
    /// that the server demands it.
    pub const fn if_closed(&self) -> Option<PeerRefused> {
        if self.client_can {
            None
        } else {
            Some(PeerRefused::TokenInClear)
        }
    }

    pub fn established(self) -> Handshake {
        match self.beginning {
            None => Handshake::awaiting_prelogin(self.settings, true),
            Some(beginning) => {
                Handshake::AwaitingLogin(AwaitingLogin::new(self.settings.token_service, beginning))
            }
        }
    }
}

impl AwaitingLogin {
    fn new(token_service: Option<TokenService>, beginning: Beginning) -> Self {
        Self {
            token_service,
            beginning,
            incoming: Assembler::new(login7::FROM_CLIENT),
        }
    }

    fn received(self, payload: &[u8], reply: &mut Vec<u8>) -> Result<Step, PeerMisbehaved> {
        let version = login7::version(payload)?;
        if !version.is_served() {
            return Ok(Step::Refuse(PeerRefused::OldVersion(version)));
        }
        let mut login = Login7::decode(payload)?;
        if let Some(objection) = login.objection() {
            return Ok(Step::Refuse(PeerRefused::Objection(objection)));
        }
        let asked = feature::find(&login.features, feature::id::FEDAUTH);
        let federated = asked.map(Federated::decode).transpose()?;
        let password = std::mem::replace(&mut login.password, Secret::new(String::new()));
        login.features.retain(|asked| asked.id != feature::id::FEDAUTH);
        let acknowledge = Acknowledge {
            federated: federated.is_some(),
            utf8: feature::find(&login.features, feature::id::UTF8_SUPPORT).is_some(),
        };
        let user_agent = feature::find(&login.features, feature::id::USER_AGENT)
            .map(|data| utf16::cut(&utf16::shown(data), login7::NAME_CHARS_MAX).to_owned());
        let mut presented = Presented {
            token: Secret::new(Vec::new()),
            arrival: Arrival::Password,
            beginning: self.beginning,
            login,
            acknowledge,
            user_agent,
        };
        let Some(federated) = federated else {
            presented.token = Secret::new(password.expose().as_bytes().to_vec());
            return Ok(presented.or_refused(PeerRefused::PasswordEmpty));
        };
        if federated.echo != self.beginning.federated.unwrap_or(false) {
            return Err(PeerMisbehaved::Contradiction {
                what: "echo of FEDAUTHREQUIRED",
            });
        }
        match federated.way {
            Way::SecurityToken(token) => {
                presented.token = token;
                presented.arrival = Arrival::SecurityToken;
                Ok(presented.or_refused(PeerRefused::TokenEmpty))
            }
            Way::Directed { .. } => Ok(self.direct(presented, reply)),
            Way::Other { library } => Ok(Step::Refuse(PeerRefused::UnknownLibrary { library })),
        }
    }

    /// Says where to fetch a token.
    fn direct(self, mut presented: Presented, reply: &mut Vec<u8>) -> Step {
        let Some(service) = self.token_service else {
            return Step::Refuse(PeerRefused::NoTokenService);
        };
        let mut payload = Vec::new();
        service.put(&mut payload);
        packet::put_reply(reply, 0, packet::LOGIN_PACKET_BYTES, &payload);
        presented.arrival = Arrival::Directed;
        Step::Continue(Handshake::AwaitingToken(Box::new(AwaitingToken {
            presented,
            incoming: Assembler::new(fedauth::FROM_CLIENT),
        })))
    }
}

impl AwaitingToken {
    fn received(self, payload: &[u8]) -> Result<Step, PeerMisbehaved> {
        let mut presented = self.presented;
        presented.token = TokenMessage::decode(payload)?.token;
        Ok(presented.or_refused(PeerRefused::TokenEmpty))
    }
}

impl Presented {
    fn or_refused(self, if_empty: PeerRefused) -> Step {
        if self.token.expose().is_empty() {
            Step::Refuse(if_empty)
        } else {
            Step::Presented(Box::new(self))
        }
    }
}

/// A message that its sender takes back is none that belongs here.
pub(super) fn take(
    incoming: &mut Assembler,
    input: &[u8],
) -> Result<(usize, Decoded<Message>), PeerMisbehaved> {
    let (consumed, decoded) = incoming.push(input)?;
    if let Decoded::Message(message) = &decoded
        && message.status.has(Status::IGNORE)
    {
        let Expected { what, .. } = incoming.expected();
        return Err(PeerMisbehaved::Unexpected {
            tag: message.kind.code(),
            awaited: what,
        });
    }
    Ok((consumed, decoded))
}

#[cfg(test)]
mod tests;
