//! What TLS runs on: a socket, or a socket on which the handshake travels inside PRELOGIN packets (TDS
//! before version 8) and everything after it bare.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::wire::tds::tls_wrap::{self, Unwrap};

/// Read at once during a handshake: a flight is 1 to 8 KiB.
const READ_BYTES: usize = 4 * 1024;

#[derive(Debug)]
pub enum Carrier {
    Bare(TcpStream),
    InPackets(Box<InPackets>),
}

/// See the module.
#[derive(Debug)]
pub struct InPackets {
    socket: TcpStream,
    unwrap: Unwrap,
    /// TLS bytes without their packets, and how many of them were read.
    arrived: Vec<u8>,
    read: usize,
    /// Do we still write in packets?
    wrapping: bool,
    /// TLS bytes of a flight that is not flushed yet: drivers expect a flight in one message.
    flight: Vec<u8>,
    /// Packets, and how many of their bytes were written.
    packets: Vec<u8>,
    written: usize,
}

impl Carrier {
    /// `unwrap` says from which side the packets come.
    pub(super) fn in_packets(socket: TcpStream, unwrap: Unwrap) -> Self {
        Self::InPackets(Box::new(InPackets {
            socket,
            unwrap,
            arrived: Vec::new(),
            read: 0,
            wrapping: true,
            flight: Vec::new(),
            packets: Vec::new(),
            written: 0,
        }))
    }

    pub(super) const fn socket(&self) -> &TcpStream {
        match self {
            Self::Bare(socket) => socket,
            Self::InPackets(inside) => &inside.socket,
        }
    }

    /// The handshake is over: from here on records travel bare.
    pub(super) fn established(&mut self) {
        if let Self::InPackets(inside) = self {
            inside.wrapping = false;
        }
    }
}

impl InPackets {
    fn poll_read(&mut self, turn: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let waiting = self.arrived.get(self.read..).unwrap_or_default();
            if !waiting.is_empty() {
                let taken = waiting.len().min(buffer.remaining());
                buffer.put_slice(waiting.get(..taken).unwrap_or_default());
                self.read += taken;
                return Poll::Ready(Ok(()));
            }
            self.arrived.clear();
            self.read = 0;
            if self.unwrap.is_bare() {
                // No longer needed, whatever the handshake took.
                self.arrived = Vec::new();
                return Pin::new(&mut self.socket).poll_read(turn, buffer);
            }
            let mut space = [0; READ_BYTES];
            let mut space = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.socket).poll_read(turn, &mut space))?;
            let input = space.filled();
            if input.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = self.unwrap.take(input, &mut self.arrived).map_err(broken)?;
            // Whatever stands behind the last packet is bare.
            self.arrived
                .extend_from_slice(input.get(taken..).unwrap_or_default());
        }
    }

    fn poll_write(&mut self, turn: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.wrapping {
            return Pin::new(&mut self.socket).poll_write(turn, bytes);
        }
        if self.flight.len() > tls_wrap::HANDSHAKE_BYTES_MAX {
            ready!(self.poll_flush(turn))?;
        }
        self.flight.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(&mut self, turn: &mut Context<'_>) -> Poll<io::Result<()>> {
        tls_wrap::wrap(&mut self.packets, &self.flight);
        self.flight.clear();
        while let Some(rest) = self.packets.get(self.written..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.socket).poll_write(turn, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.packets = Vec::new();
        self.written = 0;
        Pin::new(&mut self.socket).poll_flush(turn)
    }
}

fn broken(error: crate::wire::PeerMisbehaved) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        turn: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Bare(socket) => Pin::new(socket).poll_read(turn, buffer),
            Self::InPackets(inside) => inside.poll_read(turn, buffer),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, turn: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Bare(socket) => Pin::new(socket).poll_write(turn, bytes),
            Self::InPackets(inside) => inside.poll_write(turn, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        turn: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Bare(socket) => Pin::new(socket).poll_write_vectored(turn, slices),
            Self::InPackets(inside) if !inside.wrapping => {
                Pin::new(&mut inside.socket).poll_write_vectored(turn, slices)
            }
            Self::InPackets(inside) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                inside.poll_write(turn, first.map_or(&[], |slice| slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, turn: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Bare(socket) => Pin::new(socket).poll_flush(turn),
            Self::InPackets(inside) => inside.poll_flush(turn),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, turn: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Bare(socket) => Pin::new(socket).poll_shutdown(turn),
            Self::InPackets(inside) => {
                ready!(inside.poll_flush(turn))?;
                Pin::new(&mut inside.socket).poll_shutdown(turn)
            }
        }
    }
}
