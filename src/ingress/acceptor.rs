//! Binds the listeners and accepts clients on the control runtime, within the limits, until the
//! drain begins.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::ingress::drain::DrainSignal;
use crate::ingress::limits::Limits;
use crate::ingress::threads::{Arrival, Dispatcher};

/// Connections that the kernel completes before we accept them; the kernel caps it at its own limit.
const BACKLOG: u32 = 4_096;
/// Accepting fails when descriptors run out. They come back when sessions end; asking again at once
/// would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which listener of the configuration a client came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// One bound listener.
#[derive(Debug)]
pub struct Acceptor {
    id: ListenerId,
    listener: TcpListener,
    limits: Limits,
}

impl Acceptor {
    /// Binds; must be called inside the control runtime.
    pub fn bind(id: ListenerId, address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart must not wait for the last connections of the process before.
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit it: a client that vanished does not stay for ever.
        socket.set_keepalive(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { id, listener, limits })
    }

    /// Where it listens: tells the port when the configuration says 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Accepts until the drain begins; the listener is closed when this returns.
    pub async fn run(self, dispatcher: Dispatcher, mut drain: DrainSignal) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.begun() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.admit(&dispatcher, socket, peer),
                Err(error) if is_about_one_client(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "accepting clients failed, trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Lets the client in or closes its socket. Strangers are counted, not written about one by one.
    fn admit(&self, dispatcher: &Dispatcher, socket: TcpStream, peer: SocketAddr) {
        let admission = match self.limits.admit(peer.ip()) {
            Ok(admission) => admission,
            Err(reason) => {
                tracing::debug!(%peer, %reason, "client turned away");
                return;
            }
        };
        let prepared = set_up(&socket).and_then(|()| socket.into_std());
        let socket = match prepared {
            Ok(socket) => socket,
            // The client is gone already.
            Err(error) => {
                tracing::debug!(%peer, %error, "client left at once");
                return;
            }
        };
        let arrival = Arrival {
            socket,
            peer,
            listener: self.id,
            admission,
        };
        if dispatcher.dispatch(arrival).is_err() {
            tracing::warn!(%peer, "no data-path thread can take a client");
        }
    }
}

fn set_up(socket: &TcpStream) -> io::Result<()> {
    // Replies are written whole; waiting for more would only delay them.
    socket.set_nodelay(true)
}

/// Errors of the connection that was to be accepted, as opposed to ours.
fn is_about_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
