//! TLS towards SQL Server: each packet of TDS in a record of its own. Some servers reset the connection
//! when a packet of a login begins in the middle of a record.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::carrier::Carrier;
use crate::wire::Decoded;
use crate::wire::tds::packet;

/// See the module. What is written must be whole packets, in whatever pieces.
#[derive(Debug)]
pub struct Records {
    pub(super) stream: tokio_rustls::client::TlsStream<Carrier>,
    /// Bytes of the packet at hand that are not written yet.
    left: usize,
}

impl Records {
    pub(super) const fn new(stream: tokio_rustls::client::TlsStream<Carrier>) -> Self {
        Self { stream, left: 0 }
    }

    /// How much of `bytes` belongs into the next record.
    fn record(&mut self, bytes: &[u8]) -> usize {
        if self.left == 0 {
            self.left = match packet::header(bytes, packet::PACKET_BYTES_MAX) {
                Ok(Decoded::Message(header)) => header.length,
                // A piece of a header: it goes as it is.
                Ok(Decoded::NeedMore { .. }) | Err(_) => bytes.len(),
            };
        }
        self.left.min(bytes.len())
    }
}

impl AsyncRead for Records {
    fn poll_read(
        self: Pin<&mut Self>,
        turn: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(turn, buffer)
    }
}

impl AsyncWrite for Records {
    fn poll_write(self: Pin<&mut Self>, turn: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = this.record(bytes);
        let record = bytes.get(..length).unwrap_or_default();
        let count = ready!(Pin::new(&mut this.stream).poll_write(turn, record))?;
        this.left = this.left.saturating_sub(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, turn: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(turn)
    }

    fn poll_shutdown(self: Pin<&mut Self>, turn: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(turn)
    }
}
