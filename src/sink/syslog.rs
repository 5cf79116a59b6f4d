//! Syslog over TCP and TLS: messages of RFC 5424 (or others in their place), each behind its length (RFC
//! 6587, 3.4.1; RFC 5425). The protocol has no acknowledgement: what was under way when a receiver dies is
//! lost there, and is in the journal.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use crate::audit::entry::Found;
use crate::audit::export::{Form, Framing, export};
use crate::sink::SendError;
use crate::tls::{self, Stream};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogSettings {
    pub host: String,
    pub port: u16,
    /// Without TLS. With it, chain and name are always checked.
    pub plaintext: bool,
    /// `None`: the machine's own authorities.
    pub ca: Option<PathBuf>,
    pub form: Form,
}

pub(super) struct Syslog {
    settings: SyslogSettings,
    stream: Option<Stream>,
    out: Vec<u8>,
}

impl Syslog {
    pub(super) const fn new(settings: SyslogSettings) -> Self {
        Self {
            settings,
            stream: None,
            out: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, batch: &[Found]) -> Result<(), SendError> {
        let mut stream = match self.stream.take() {
            Some(stream) => self.still_open(stream).await?,
            None => self.connect().await?,
        };
        self.out.clear();
        for Found { entry, line } in batch {
            export(
                self.settings.form,
                Framing::OctetCounting,
                entry,
                line,
                &mut self.out,
            );
        }
        stream.write_all(&self.out).await.map_err(SendError::Write)?;
        stream.flush().await.map_err(SendError::Write)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// The connection, or a new one in the place of one that has ended.
    async fn still_open(&self, mut stream: Stream) -> Result<Stream, SendError> {
        if is_open(&mut stream).await {
            Ok(stream)
        } else {
            self.connect().await
        }
    }

    async fn connect(&self) -> Result<Stream, SendError> {
        let SyslogSettings { host, port, .. } = &self.settings;
        let to = || format!("{host}:{port}");
        let socket = TcpStream::connect((host.as_str(), *port)).await;
        let socket = socket.map_err(|source| SendError::Connect { to: to(), source })?;
        if self.settings.plaintext {
            return Ok(Stream::Plain(socket));
        }
        let stream = tls::connect_https(socket, host, self.settings.ca.as_deref()).await;
        stream.map_err(|source| SendError::Tls { to: to(), source })
    }
}

/// A receiver says nothing: what can be read is only the end.
async fn is_open(stream: &mut Stream) -> bool {
    poll_fn(|context| {
        let mut space = [0; 64];
        let mut read = ReadBuf::new(&mut space);
        Poll::Ready(match Pin::new(&mut *stream).poll_read(context, &mut read) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => !read.filled().is_empty(),
            Poll::Ready(Err(_)) => false,
        })
    })
    .await
}
