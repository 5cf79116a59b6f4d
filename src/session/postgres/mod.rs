//! The PostgreSQL front: a thin driver of `wire::pg::handshake` over a socket.

mod conversation;
mod prelude;
mod proofs;
mod refusal;
mod startup;
mod statements;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::credential::CatalogueWatch;
use crate::domain::refusal::{Reason, Refusal, RefusalCode, Refuse};
use crate::domain::target::Engine;
use crate::session::farewell::{FAREWELL_TIME_MAX, farewell};
use crate::session::front::{Front, Opening, Presented, WelcomePermit};
use crate::session::ledger::Ledger;
use crate::session::prelude::{Prelude, PreludeError};
use crate::session::registry::CancelDesk;
use crate::tls::{Door, ServerTls, Stream, TlsError};
use crate::upstream::checkout::Checkout;
use crate::wire::pg::error_response::Severity;
use crate::wire::pg::from_server;
use crate::wire::pg::from_server::TransactionStatus;
use crate::wire::pg::handshake::{self, Handshake, Progress, Step, Transport};
use crate::wire::pg::startup::is_direct_tls;

use conversation::Conversation;
use proofs::Proofs;
use refusal::put_refusal;

/// From the first byte to the token. Strangers hold a socket no longer than this.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(30);

/// Bytes of a cancel key: 4 is all that protocol 3.0 has room for, 32 is what servers give at 3.2.
const CANCEL_KEY_BYTES_3_0: usize = 4;
const CANCEL_KEY_BYTES_3_2: usize = 32;

/// Bytes read at once before anybody is known.
const READ_BYTES: usize = 4 * 1024;

/// What a listener allows.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// `None` only where `allow_plaintext` is set.
    pub tls: Option<Arc<ServerTls>>,
    /// Tokens in clear: loopback listeners only.
    pub allow_plaintext: bool,
}

/// A client's connection before it is admitted.
#[derive(Debug)]
pub(super) struct PostgresFront {
    stream: Option<Stream>,
    input: BytesMut,
    settings: ListenerSettings,
}

/// Why the handshake ended early.
enum Ended {
    Gone,
    Refused(RefusalCode, Reason),
    Cancel { process: i32, key: Vec<u8> },
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl PostgresFront {
    pub(super) fn new(socket: TcpStream, settings: ListenerSettings) -> Self {
        Self {
            stream: Some(Stream::Plain(socket)),
            input: BytesMut::new(),
            settings,
        }
    }

    fn stream(&mut self) -> io::Result<&mut Stream> {
        self.stream
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn handshake(&mut self) -> Result<handshake::Presented, Ended> {
        let mut state = self.first_byte().await?;
        let mut reply = Vec::new();
        loop {
            let progress = state.step(&self.input, &mut reply).map_err(|misbehaved| {
                tracing::debug!(error = %misbehaved, "a client broke the protocol before its login");
                let (code, reason) = misbehaved.refusal();
                Ended::Refused(code, reason)
            })?;
            if !reply.is_empty() {
                self.stream()?.write_all(&reply).await?;
                self.stream()?.flush().await?;
                reply.clear();
            }
            state = match progress {
                Progress::NeedMore { handshake, .. } => {
                    self.read_more().await?;
                    handshake
                }
                Progress::Stepped { step, consumed } => {
                    self.input.advance(consumed.min(self.input.len()));
                    match step {
                        Step::Continue(handshake) => handshake,
                        Step::StartTls(awaiting) => {
                            self.start_tls(Door::SslRequest).await?;
                            awaiting.established()
                        }
                        Step::Presented(presented) => return Ok(presented),
                        Step::Cancel { process, key } => return Err(Ended::Cancel { process, key }),
                        Step::Refuse(_) => {
                            return Err(Ended::Refused(RefusalCode::TlsRequired, Reason::TokenInClear));
                        }
                    }
                }
            };
        }
    }

    /// Looks at the first byte without taking it: TLS may come at once.
    async fn first_byte(&mut self) -> Result<Handshake, Ended> {
        let mut first = [0; 1];
        let Stream::Plain(socket) = self.stream()? else {
            return Err(Ended::Gone);
        };
        if socket.peek(&mut first).await? == 0 {
            return Err(Ended::Gone);
        }
        let cleartext_token_allowed = self.settings.allow_plaintext;
        if !is_direct_tls(&first) {
            return Ok(match &self.settings.tls {
                Some(_) => Handshake::start(Transport {
                    encrypted: false,
                    cleartext_token_allowed,
                }),
                None => Handshake::start_without_tls(cleartext_token_allowed),
            });
        }
        self.start_tls(Door::Direct).await?;
        Ok(Handshake::start(Transport {
            encrypted: true,
            cleartext_token_allowed,
        }))
    }

    async fn start_tls(&mut self, door: Door) -> Result<(), Ended> {
        let (Some(tls), Some(Stream::Plain(socket))) = (self.settings.tls.clone(), self.stream.take()) else {
            return Err(Ended::Gone);
        };
        let accepted: Result<Stream, TlsError> = tls.accept(socket, door).await;
        // Nobody is left to be told: the client's TLS library has its own words.
        let stream = accepted.map_err(|error| {
            tracing::debug!(error = %error, "TLS with a client failed");
            Ended::Gone
        })?;
        self.stream = Some(stream);
        Ok(())
    }

    async fn read_more(&mut self) -> Result<(), Ended> {
        self.input.reserve(READ_BYTES);
        let Some(stream) = &mut self.stream else {
            return Err(Ended::Gone);
        };
        if stream.read_buf(&mut self.input).await? == 0 {
            return Err(Ended::Gone);
        }
        Ok(())
    }
}

impl Front for PostgresFront {
    const ENGINE: Engine = Engine::Postgres;

    type Dialogue = Conversation;

    async fn open(&mut self) -> Opening {
        let presented = match timeout(LOGIN_TIME_MAX, self.handshake()).await {
            Ok(Ok(presented)) => presented,
            Ok(Err(Ended::Gone)) => return Opening::Gone,
            Ok(Err(Ended::Cancel { process, key })) => return Opening::Cancel { process, key },
            Ok(Err(Ended::Refused(code, reason))) => return Opening::Refused(code, reason),
            Err(_) => {
                return Opening::Refused(
                    RefusalCode::ProtocolViolation,
                    Reason::TimedOut { what: "the login" },
                );
            }
        };
        match startup::read(&presented.startup) {
            Ok(wanted) => Opening::Presented(Presented {
                token: presented.token,
                wanted: wanted.user,
                database: wanted.database,
                application: wanted.application,
                settings: wanted.settings,
                correlation: wanted.correlation,
                cancel_key_bytes: if presented.startup.minor >= 2 {
                    CANCEL_KEY_BYTES_3_2
                } else {
                    CANCEL_KEY_BYTES_3_0
                },
            }),
            Err(reason) => {
                let code = if matches!(reason, Reason::StartupParameter { .. }) {
                    RefusalCode::NotPermitted
                } else if matches!(reason, Reason::TokenInParameter { .. }) {
                    RefusalCode::TokenRejected
                } else {
                    RefusalCode::ProtocolViolation
                };
                Opening::Refused(code, reason)
            }
        }
    }

    async fn gone(&mut self) {
        // A client has nothing to say before its welcome; one that talks on is heard later.
        while self.input.len() < READ_BYTES {
            if self.read_more().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    async fn prepare(checkout: &mut Checkout, prelude: &Prelude<'_>) -> Result<(), PreludeError> {
        prelude::play(checkout, prelude).await
    }

    async fn welcome(
        &mut self,
        _: WelcomePermit,
        application: Option<&str>,
        upstream: &Checkout,
        desk: &CancelDesk,
    ) -> io::Result<()> {
        let mut out = Vec::new();
        from_server::put_authentication_ok(&mut out);
        for (name, value) in upstream.parameters() {
            // The server knows the session's reference beside it.
            let own = name == "application_name";
            let value = if own {
                application.unwrap_or_default()
            } else {
                value
            };
            from_server::put_parameter_status(&mut out, name.as_bytes(), value.as_bytes());
        }
        from_server::put_backend_key_data(&mut out, desk.process, &desk.key);
        from_server::put_ready(&mut out, TransactionStatus::Idle);
        let stream = self.stream()?;
        stream.write_all(&out).await?;
        stream.flush().await
    }

    fn dialogue(
        &self,
        ledger: Ledger,
        upstream: &Checkout,
        prelude: &Prelude<'_>,
        nonce: u64,
        catalogue: Option<CatalogueWatch>,
    ) -> Conversation {
        // A name that no client hits by accident.
        let probe = format!("gatepost_probe_{nonce:016x}");
        let proofs = Proofs::new(catalogue, upstream.parameters());
        let marker = prelude.marker.map(|marking| marking.key.clone());
        Conversation::new(prelude.session, ledger, &probe, upstream.parameters(), proofs)
            .committing(prelude.autocommit)
            .marking(marker, &probe, nonce)
    }

    fn into_parts(self) -> Option<(Stream, BytesMut)> {
        self.stream.map(|stream| (stream, self.input))
    }

    async fn refuse(mut self, refusal: Refusal) {
        if let Some(stream) = &mut self.stream {
            let mut text = Vec::new();
            put_refusal(&mut text, Severity::Fatal, &refusal);
            farewell(stream, &text).await;
        }
    }

    /// Says goodbye to TLS: libpq calls a cancel request failed whose connection just breaks off.
    async fn close(mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = timeout(FAREWELL_TIME_MAX, stream.shutdown()).await;
        }
    }
}
