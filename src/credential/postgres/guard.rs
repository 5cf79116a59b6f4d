//! What stands between tokio-postgres and the server while it logs in: tokio-postgres would answer a
//! demand for the password in clear, or as an MD5 hash that is as good as the password, and do as many
//! SCRAM iterations as it is told to. The guard reads along and breaks the connection first. Only a token
//! may be shown as it is, and only where the caller has made sure of the server.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use crate::wire::Decoded;
use crate::wire::pg::frame;
use crate::wire::pg::from_server::{self, Authentication, FromServer};
use crate::wire::pg::login::{InClear, LoginError, MESSAGE_BYTES_MAX, check_iterations};

/// Around a TLS connector, so that every connection that it makes is guarded.
#[derive(Clone)]
pub(in crate::credential) struct Guard<C> {
    connector: C,
    in_clear: InClear,
}

impl<C> Guard<C> {
    pub(in crate::credential) const fn new(connector: C, in_clear: InClear) -> Self {
        Self { connector, in_clear }
    }
}

/// A connection without TLS, in the place where a connector would make one with.
#[derive(Clone, Copy)]
pub(in crate::credential) struct Plain;

/// A connection whose first messages are read along.
pub(in crate::credential) struct Guarded<S> {
    inner: S,
    in_clear: InClear,
    /// What was read of a message that is not whole yet. `None`: the login is over.
    seen: Option<Vec<u8>>,
}

impl<S, C: MakeTlsConnect<S>> MakeTlsConnect<S> for Guard<C> {
    type Stream = Guarded<C::Stream>;
    type TlsConnect = Guard<C::TlsConnect>;
    type Error = C::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        let connector = self.connector.make_tls_connect(domain)?;
        Ok(Guard::new(connector, self.in_clear))
    }
}

impl<S, C: TlsConnect<S>> TlsConnect<S> for Guard<C> {
    type Stream = Guarded<C::Stream>;
    type Error = C::Error;
    type Future = Connecting<C::Future>;

    fn connect(self, stream: S) -> Self::Future {
        Connecting {
            connection: Box::pin(self.connector.connect(stream)),
            in_clear: self.in_clear,
        }
    }
}

pub(in crate::credential) struct Connecting<F> {
    connection: Pin<Box<F>>,
    in_clear: InClear,
}

impl<S, E, F: Future<Output = Result<S, E>>> Future for Connecting<F> {
    type Output = Result<Guarded<S>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let in_clear = self.in_clear;
        self.connection.as_mut().poll(context).map_ok(|inner| Guarded {
            inner,
            in_clear,
            seen: Some(Vec::new()),
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MakeTlsConnect<S> for Plain {
    type Stream = PlainStream<S>;
    type TlsConnect = Self;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _: &str) -> Result<Self, io::Error> {
        Ok(*self)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for Plain {
    type Stream = PlainStream<S>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<PlainStream<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        std::future::ready(Ok(PlainStream(stream)))
    }
}

pub(in crate::credential) struct PlainStream<S>(S);

impl<S> Guarded<S> {
    /// Judges what was just read, as far as it is whole.
    fn judge(&mut self, read: &[u8]) -> Result<(), LoginError> {
        let Some(mut seen) = self.seen.take() else {
            return Ok(());
        };
        seen.extend_from_slice(read);
        let mut rest = seen.as_slice();
        while let Decoded::Message((head, body)) = frame::whole(rest, MESSAGE_BYTES_MAX)? {
            // What is not about the login is for tokio-postgres to understand.
            if head.tag == from_server::tag::AUTHENTICATION
                && let FromServer::Authentication(asked) = from_server::parse(head.tag, body)?
            {
                match asked {
                    Authentication::CleartextPassword if self.in_clear == InClear::Refused => {
                        return Err(weak("the password in clear"));
                    }
                    Authentication::Md5Password => return Err(weak("an MD5 hash")),
                    Authentication::SaslContinue(challenge) => check_iterations(challenge)?,
                    // Nothing of the login follows it.
                    Authentication::Ok => return Ok(()),
                    Authentication::CleartextPassword
                    | Authentication::Sasl(_)
                    | Authentication::SaslFinal(_)
                    | Authentication::Gss
                    | Authentication::Unknown(_) => {}
                }
            }
            rest = rest.get(head.length..).unwrap_or_default();
        }
        let rest = rest.to_vec();
        self.seen = Some(rest);
        Ok(())
    }
}

const fn weak(method: &'static str) -> LoginError {
    LoginError::WeakAuthentication { method }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if self.seen.is_some() {
            let read = buffer.filled().get(before..).unwrap_or_default();
            self.judge(read).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Guarded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PlainStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PlainStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Without TLS there is nothing to bind SCRAM to.
impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for PlainStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
