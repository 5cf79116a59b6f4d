//! The server's side of a connection's beginning, up to the token. A machine that is consumed by each
//! step: it reads buffered bytes, appends replies, and never holds a socket.

use std::fmt;

use crate::domain::{Reason, RefusalCode, Refuse, Secret};
use crate::wire::Decoded;
use crate::wire::cursor::Cursor;
use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::pg::frame;
use crate::wire::pg::from_client;
use crate::wire::pg::from_server;
use crate::wire::pg::startup;
use crate::wire::pg::startup::{FirstPacket, Startup};

/// Tokens with many groups come near 8 KiB (Entra stops at 200 groups); twice that is room enough, and
/// little enough for strangers to send.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Type, length and the NUL at the end.
const PASSWORD_MESSAGE_BYTES_MAX: usize = TOKEN_BYTES_MAX + frame::HEAD_BYTES + 1;

const SSL_ACCEPTED: u8 = b'S';
const ENCRYPTION_REFUSED: u8 = b'N';

/// What carries the bytes when the handshake begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// TLS came first (direct TLS).
    pub encrypted: bool,
    /// The listener takes tokens in clear: loopback only, and said so in its settings.
    pub cleartext_token_allowed: bool,
}

#[derive(Debug)]
pub enum Handshake {
    AwaitingStartup(AwaitingStartup),
    AwaitingToken(AwaitingToken),
}

#[derive(Debug)]
pub struct AwaitingStartup {
    tls: Tls,
    gss_refused: bool,
    cleartext_token_allowed: bool,
}

#[derive(Debug)]
pub struct AwaitingToken {
    startup: Startup,
}

/// `S` was promised: the caller runs TLS now, then goes on with [`AwaitingTls::established`].
#[derive(Debug)]
pub struct AwaitingTls {
    cleartext_token_allowed: bool,
}

/// Where TLS stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    Offered,
    /// This listener has no certificate.
    NotOffered,
    /// Asked for and answered `N`; asking again is misbehaviour.
    Refused,
    Established,
}

#[derive(Debug)]
pub enum Progress {
    NeedMore {
        handshake: Handshake,
        at_least: usize,
    },
    /// The first `consumed` bytes of the input are done with.
    Stepped {
        step: Step,
        consumed: usize,
    },
}

pub enum Step {
    Continue(Handshake),
    StartTls(AwaitingTls),
    Presented(Presented),
    /// A connection that only cancels; there is no reply to it.
    Cancel {
        process: i32,
        key: Vec<u8>,
    },
    /// Tell the client and close.
    Refuse(PeerRefused),
}

/// The client has said who it is; nothing of it is verified yet.
#[derive(Debug)]
pub struct Presented {
    pub startup: Startup,
    /// Empty if the client sent an empty password.
    pub token: Secret<Vec<u8>>,
}

/// The client broke no rule of the protocol, but it is not served this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    #[error("the client would send its token in clear")]
    TokenInClear,
}

impl Refuse for PeerRefused {
    fn refusal(&self) -> (RefusalCode, Reason) {
        match self {
            Self::TokenInClear => (RefusalCode::TlsRequired, Reason::TokenInClear),
        }
    }
}

/// Without the cancel key, which is a secret.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continue(handshake) => f.debug_tuple("Continue").field(handshake).finish(),
            Self::StartTls(state) => f.debug_tuple("StartTls").field(state).finish(),
            Self::Presented(presented) => f.debug_tuple("Presented").field(presented).finish(),
            Self::Cancel { process, .. } => f
                .debug_struct("Cancel")
                .field("process", process)
                .finish_non_exhaustive(),
            Self::Refuse(refused) => f.debug_tuple("Refuse").field(refused).finish(),
        }
    }
}

impl Handshake {
    pub fn start(transport: Transport) -> Self {
        Self::awaiting_startup(
            if transport.encrypted {
                Tls::Established
            } else {
                Tls::Offered
            },
            transport.cleartext_token_allowed,
        )
    }

    /// For a listener that has no certificate: SSLRequest is answered with `N`.
    pub fn start_without_tls(cleartext_token_allowed: bool) -> Self {
        Self::awaiting_startup(Tls::NotOffered, cleartext_token_allowed)
    }

    fn awaiting_startup(tls: Tls, cleartext_token_allowed: bool) -> Self {
        Self::AwaitingStartup(AwaitingStartup {
            tls,
            gss_refused: false,
            cleartext_token_allowed,
        })
    }

    /// Takes at most one packet from the front of `input`, which is all that is buffered, and appends
    /// what is to be sent to `reply`.
    pub fn step(self, input: &[u8], reply: &mut Vec<u8>) -> Result<Progress, PeerMisbehaved> {
        match self {
            Self::AwaitingStartup(state) => match startup::first_packet(input)? {
                Decoded::NeedMore { at_least } => Ok(Progress::NeedMore {
                    handshake: Self::AwaitingStartup(state),
                    at_least,
                }),
                Decoded::Message((packet, consumed)) => {
                    let left = input.get(consumed..).unwrap_or_default();
                    let step = state.received(packet, left, reply)?;
                    Ok(Progress::Stepped { step, consumed })
                }
            },
            Self::AwaitingToken(state) => state.step(input),
        }
    }
}

impl AwaitingStartup {
    fn received(self, packet: FirstPacket, left: &[u8], reply: &mut Vec<u8>) -> Result<Step, PeerMisbehaved> {
        match packet {
            FirstPacket::Ssl => self.ssl_requested(left, reply),
            FirstPacket::Gss => self.gss_requested(reply),
            FirstPacket::Cancel { process, key } => Ok(Step::Cancel { process, key }),
            FirstPacket::Startup(startup) => Ok(self.started(startup, reply)),
        }
    }

    fn ssl_requested(self, left: &[u8], reply: &mut Vec<u8>) -> Result<Step, PeerMisbehaved> {
        match self.tls {
            Tls::Offered => {
                let state = AwaitingTls {
                    cleartext_token_allowed: self.cleartext_token_allowed,
                };
                state.check_nothing_buffered(left)?;
                reply.push(SSL_ACCEPTED);
                Ok(Step::StartTls(state))
            }
            Tls::NotOffered => {
                reply.push(ENCRYPTION_REFUSED);
                Ok(Step::Continue(Handshake::AwaitingStartup(Self {
                    tls: Tls::Refused,
                    ..self
                })))
            }
            Tls::Refused | Tls::Established => Err(PeerMisbehaved::EncryptionAskedTwice { what: "TLS" }),
        }
    }

    fn gss_requested(self, reply: &mut Vec<u8>) -> Result<Step, PeerMisbehaved> {
        if self.gss_refused || self.tls == Tls::Established {
            return Err(PeerMisbehaved::EncryptionAskedTwice {
                what: "GSSAPI encryption",
            });
        }
        reply.push(ENCRYPTION_REFUSED);
        Ok(Step::Continue(Handshake::AwaitingStartup(Self {
            gss_refused: true,
            ..self
        })))
    }

    fn started(self, startup: Startup, reply: &mut Vec<u8>) -> Step {
        // Before anything is asked: a client that is asked sends its token, and then it is out.
        if self.tls != Tls::Established && !self.cleartext_token_allowed {
            return Step::Refuse(PeerRefused::TokenInClear);
        }
        if startup.needs_negotiation() {
            let unknown: Vec<_> = startup
                .unknown_options
                .iter()
                .map(|name| name.as_bytes())
                .collect();
            // Never more than was asked for: libpq takes that for an attack.
            let minor = startup.asked_minor.min(startup::MINOR_MAX);
            from_server::put_negotiate_protocol(reply, startup::version(minor), &unknown);
        }
        from_server::put_authentication_cleartext_password(reply);
        Step::Continue(Handshake::AwaitingToken(AwaitingToken { startup }))
    }
}

impl AwaitingToken {
    fn step(self, input: &[u8]) -> Result<Progress, PeerMisbehaved> {
        // The type first: what is no password shall not be called a password that is too large.
        if let Some(tag) = input
            .first()
            .copied()
            .filter(|tag| *tag != from_client::tag::PASSWORD)
        {
            return Err(PeerMisbehaved::Unexpected {
                tag,
                awaited: "the password",
            });
        }
        let (head, body) = match frame::whole(input, PASSWORD_MESSAGE_BYTES_MAX)? {
            Decoded::Message(message) => message,
            Decoded::NeedMore { at_least } => {
                return Ok(Progress::NeedMore {
                    handshake: Handshake::AwaitingToken(self),
                    at_least,
                });
            }
        };
        let mut cursor = Cursor::new("password", body);
        let token = Secret::new(cursor.cstr()?.to_vec());
        cursor.finish()?;
        let step = Step::Presented(Presented {
            startup: self.startup,
            token,
        });
        Ok(Progress::Stepped {
            step,
            consumed: head.length,
        })
    }
}

impl AwaitingTls {
    /// To be called with what is buffered when TLS is about to start. An honest client waits for `S`,
    /// so any byte was put there by somebody who hopes that it passes for an encrypted one.
    pub fn check_nothing_buffered(&self, buffered: &[u8]) -> Result<(), PeerMisbehaved> {
        if buffered.is_empty() {
            Ok(())
        } else {
            Err(PeerMisbehaved::BytesBeforeTls)
        }
    }

    pub fn established(self) -> Handshake {
        Handshake::awaiting_startup(Tls::Established, self.cleartext_token_allowed)
    }
}

#[cfg(test)]
mod tests;
