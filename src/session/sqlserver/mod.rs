//! The SQL Server front: a thin driver of `wire::tds::handshake` over a socket.

mod conversation;
mod prelude;
mod refusal;
mod request;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::credential::CatalogueWatch;
use crate::domain::refusal::{Reason, Refusal, RefusalCode, Refuse};
use crate::domain::secret::Secret;
use crate::domain::target::Engine;
use crate::session::farewell::{FAREWELL_TIME_MAX, farewell};
use crate::session::front::{Front, Opening, Presented, WelcomePermit};
use crate::session::ledger::Ledger;
use crate::session::prelude::{Prelude, PreludeError};
use crate::session::presented::{kept_application, looks_like_token};
use crate::session::registry::CancelDesk;
use crate::sql::correlation::startup as startup_correlation;
use crate::tls::{ServerTls, Stream};
use crate::upstream::checkout::Checkout;
use crate::upstream::sqlserver::settings;
pub use crate::wire::tds::fedauth::TokenService;
use crate::wire::tds::handshake::{self, Handshake, Progress, Settings, Step};
use crate::wire::tds::login_ack::{LoginAnswer, put_login_answer};
use crate::wire::tds::packet;
use crate::wire::tds::tls_wrap::{TlsPlace, is_strict_tls};
use crate::wire::tds::version::ProgramVersion;

use conversation::Conversation;

/// From the first byte to the token. Strangers hold a socket no longer than this.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(30);
/// A driver that was told where to fetch a token may let a person sign in there first.
const SIGN_IN_TIME_MAX: Duration = Duration::from_secs(180);

/// Bytes read at once before anybody is known: a login with a token has two or three packets of 4 KiB.
const READ_BYTES: usize = 8 * 1024;

/// What drivers are told before it is known which server they get: a version that has everything that
/// they ask about, and is none that exists.
const VERSION: ProgramVersion = ProgramVersion {
    major: 16,
    minor: 0,
    build: 1,
    sub_build: 0,
};

/// The default collation of SQL Server, should a server not have told its own.
const COLLATION: [u8; 5] = [0x09, 0x04, 0xd0, 0x00, 0x34];

/// What a listener allows.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// `None` only where `allow_plaintext` is set.
    pub tls: Option<Arc<ServerTls>>,
    /// Tokens in clear: loopback listeners only.
    pub allow_plaintext: bool,
    /// Where drivers that ask are sent for a token.
    pub token_service: Option<TokenService>,
}

/// A client's connection before it is admitted.
#[derive(Debug)]
pub(super) struct SqlServerFront {
    stream: Option<Stream>,
    input: BytesMut,
    settings: ListenerSettings,
    deadline: Instant,
    hello: Option<Box<handshake::Presented>>,
}

/// Why the handshake ended early.
enum Ended {
    Gone,
    Refused(RefusalCode, Reason),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl SqlServerFront {
    pub(super) fn new(socket: TcpStream, settings: ListenerSettings) -> Self {
        Self {
            stream: Some(Stream::Plain(socket)),
            input: BytesMut::new(),
            settings,
            deadline: Instant::now() + LOGIN_TIME_MAX,
            hello: None,
        }
    }

    fn stream(&mut self) -> io::Result<&mut Stream> {
        self.stream
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn handshake(&mut self) -> Result<Box<handshake::Presented>, Ended> {
        let mut state = Handshake::start(Settings {
            tls_offered: self.settings.tls.is_some(),
            cleartext_token_allowed: self.settings.allow_plaintext,
            token_service: self.settings.token_service.clone(),
            version: VERSION,
        });
        let mut first = self.first_byte().await?;
        let mut reply = Vec::new();
        loop {
            // TLS at once is recognised by a byte that stays in the socket.
            let input = first.take();
            let peeked = input.is_some();
            let input = input.as_ref().map_or(self.input.as_ref(), |byte| byte.as_slice());
            let progress = state.step(input, &mut reply).map_err(|misbehaved| {
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
                Progress::NeedMore {
                    handshake, consumed, ..
                } => {
                    if !peeked {
                        self.input.advance(consumed.min(self.input.len()));
                        self.read_more(&handshake).await?;
                    }
                    handshake
                }
                Progress::Stepped { step, consumed } => {
                    if !peeked {
                        self.input.advance(consumed.min(self.input.len()));
                    }
                    match step {
                        Step::Continue(handshake) => handshake,
                        Step::StartTls(awaiting, place) => {
                            if let Err(ended) = self.start_tls(place).await {
                                let refused = awaiting.if_closed().map(|refused| refused.refusal());
                                return Err(refused.map_or(ended, |(code, why)| Ended::Refused(code, why)));
                            }
                            awaiting.established()
                        }
                        Step::Presented(presented) => return Ok(presented),
                        Step::Refuse(refused) => {
                            let (code, reason) = refused.refusal();
                            return Err(Ended::Refused(code, reason));
                        }
                    }
                }
            };
        }
    }

    /// The first byte if TLS comes at once. It is looked at and not taken.
    async fn first_byte(&mut self) -> Result<Option<[u8; 1]>, Ended> {
        let mut first = [0; 1];
        let deadline = self.deadline;
        let Stream::Plain(socket) = self.stream()? else {
            return Err(Ended::Gone);
        };
        let peeked = timeout_at(deadline, socket.peek(&mut first)).await;
        if peeked.map_err(|_| timed_out())?? == 0 {
            return Err(Ended::Gone);
        }
        Ok(is_strict_tls(&first).then_some(first))
    }

    async fn start_tls(&mut self, place: TlsPlace) -> Result<(), Ended> {
        let (Some(tls), Some(Stream::Plain(socket))) = (self.settings.tls.clone(), self.stream.take()) else {
            return Err(Ended::Gone);
        };
        let accepted = timeout_at(self.deadline, tls.accept_tds(socket, place)).await;
        // Nobody is left to be told: the client's TLS library has its own words.
        let stream = accepted.map_err(|_| Ended::Gone)?.map_err(|error| {
            tracing::debug!(error = %error, "TLS with a client failed");
            Ended::Gone
        })?;
        self.stream = Some(stream);
        Ok(())
    }

    async fn read_more(&mut self, handshake: &Handshake) -> Result<(), Ended> {
        if matches!(handshake, Handshake::AwaitingToken(_)) {
            self.deadline = self.deadline.max(Instant::now() + SIGN_IN_TIME_MAX);
        }
        self.input.reserve(READ_BYTES);
        let Some(stream) = &mut self.stream else {
            return Err(Ended::Gone);
        };
        let read = timeout_at(self.deadline, stream.read_buf(&mut self.input)).await;
        if read.map_err(|_| timed_out())?? == 0 {
            return Err(Ended::Gone);
        }
        Ok(())
    }
}

const fn timed_out() -> Ended {
    let reason = Reason::TimedOut { what: "the login" };
    Ended::Refused(RefusalCode::ProtocolViolation, reason)
}

impl Front for SqlServerFront {
    const ENGINE: Engine = Engine::SqlServer;

    type Dialogue = Conversation;

    async fn open(&mut self) -> Opening {
        let mut hello = match self.handshake().await {
            Ok(presented) => presented,
            Err(Ended::Gone) => return Opening::Gone,
            Err(Ended::Refused(code, reason)) => return Opening::Refused(code, reason),
        };
        let token = std::mem::replace(&mut hello.token, Secret::new(Vec::new()));
        let wanted = match wanted(&hello, token) {
            Ok(wanted) => wanted,
            Err(parameter) => {
                let reason = Reason::TokenInParameter { parameter };
                return Opening::Refused(RefusalCode::TokenRejected, reason);
            }
        };
        self.hello = Some(hello);
        Opening::Presented(wanted)
    }

    async fn gone(&mut self) {
        // A client has nothing to say before its welcome; one that talks on is heard later.
        while self.input.len() < READ_BYTES {
            self.input.reserve(READ_BYTES);
            let Some(stream) = &mut self.stream else { return };
            match stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
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
        _: Option<&str>,
        upstream: &Checkout,
        _: &CancelDesk,
    ) -> io::Result<()> {
        let (Some(server), Some(hello)) = (upstream.sqlserver(), &self.hello) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut payload = Vec::new();
        let asked = usize::try_from(hello.login.packet_bytes).unwrap_or_default();
        let mut acknowledge = hello.acknowledge;
        acknowledge.utf8 &= server.utf8_acknowledged;
        put_login_answer(
            &mut payload,
            &LoginAnswer {
                server: refusal::SERVER_NAME,
                database: &server.database,
                language: &server.language,
                collation: server.collation.unwrap_or(COLLATION),
                packet_bytes: server.packet_bytes,
                packet_bytes_before: if asked == 0 {
                    packet::LOGIN_PACKET_BYTES
                } else {
                    asked
                },
                version: hello.login.version.answered(),
                program: &server.program,
                program_version: server.program_version,
                acknowledge,
            },
        );
        let mut out = Vec::new();
        refusal::put_reply(&mut out, server.spid, &payload);
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
        _: Option<CatalogueWatch>,
    ) -> Conversation {
        let asked = self
            .hello
            .as_ref()
            .map_or("", |hello| hello.login.database.as_str());
        Conversation::new(ledger, upstream, prelude)
            .asked_for(asked)
            .marking(prelude.marker, nonce)
    }

    fn into_parts(self) -> Option<(Stream, BytesMut)> {
        self.stream.map(|stream| (stream, self.input))
    }

    async fn refuse(mut self, refusal: Refusal) {
        if let Some(stream) = &mut self.stream {
            let (mut payload, mut out) = (Vec::new(), Vec::new());
            refusal::put_at_login(&mut payload, &refusal);
            refusal::put_reply(&mut out, 0, &payload);
            farewell(stream, &out).await;
        }
    }

    async fn close(mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = timeout(FAREWELL_TIME_MAX, stream.shutdown()).await;
        }
    }
}

/// What the login asks for. An error names the field that holds a token.
fn wanted(hello: &handshake::Presented, token: Secret<Vec<u8>>) -> Result<Presented, &'static str> {
    let login = &hello.login;
    let fields = [
        ("user name", &login.user),
        ("database name", &login.database),
        ("application name", &login.application),
        ("host name", &login.host),
        ("server name", &login.server),
    ];
    if let Some((name, _)) = fields.into_iter().find(|(_, value)| looks_like_token(value)) {
        return Err(name);
    }
    let (role, database) = role_and_database(&login.user, &login.database, &login.server);
    let application = Some(login.application.clone()).filter(|name| !name.is_empty());
    Ok(Presented {
        token,
        wanted: role,
        database,
        correlation: startup_correlation(None, application.as_deref()),
        application: application.map(kept_application),
        settings: settings(login, hello.acknowledge.utf8),
        // A cancel travels on the connection itself.
        cancel_key_bytes: 0,
    })
}

/// With an access token drivers leave no room for a user; the role may then stand in front of the database
/// (`role@database`). A login without a database names one by the server that it asked for.
fn role_and_database(user: &str, database: &str, server: &str) -> (String, String) {
    /// What a login without a wish asks for.
    const AUTO: &str = "auto";
    let (role, database) = match database.split_once('@') {
        Some((role, database)) if user.is_empty() => (role, database),
        Some(_) | None if user.is_empty() => (AUTO, database),
        Some(_) | None => (user, database),
    };
    let host = server.split([',', '\\']).next().unwrap_or_default();
    let host = host.strip_prefix("tcp:").unwrap_or(host);
    let database = if database.is_empty() { host } else { database };
    (role.to_owned(), database.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_role_and_database_stand() {
        let cases = [
            (("", "orders", "db"), ("auto", "orders")),
            (("", "orders_writer@orders", "db"), ("orders_writer", "orders")),
            (
                ("", "orders_writer@pay/orders", "db"),
                ("orders_writer", "pay/orders"),
            ),
            (("alice", "a@b", "db"), ("alice", "a@b")),
            (
                ("alice", "", "tcp:orders.example,1433"),
                ("alice", "orders.example"),
            ),
            (("", "", "orders\\instance"), ("auto", "orders")),
        ];
        for ((user, database, server), (role, found)) in cases {
            let expected = (role.to_owned(), found.to_owned());
            assert_eq!(
                role_and_database(user, database, server),
                expected,
                "{user} {database}"
            );
        }
    }
}
