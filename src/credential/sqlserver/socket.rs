//! The socket under the driver, held in common with whoever watches it: the driver reads only when it
//! waits for an answer, and so would learn of a closed connection at its next use.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Clone, Debug)]
pub(super) struct Socket(Arc<TcpStream>);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// Comes back when the connection is closed, or when the server says something. A server that was
    /// asked nothing has only its farewell to say.
    pub(super) async fn gone(&self) {
        let mut byte = [0];
        // What it is does not matter: neither an end nor an error nor bytes leave a use for it.
        let _ = self.0.peek(&mut byte).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closed with the last that holds it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_closed_connection_is_noticed_between_two_uses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(stream);
        socket.write_all(b"ask").await.unwrap();
        let mut asked = [0; 3];
        peer.read_exact(&mut asked).await.unwrap();
        peer.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!((&asked, &answer), (b"ask", b"answer"));

        // Nothing to say: it is watched, and stays.
        let watched = socket.clone();
        let watch = tokio::spawn(async move { watched.gone().await });
        tokio::task::yield_now().await;
        assert!(!watch.is_finished());
        drop(peer);
        watch.await.unwrap();
    }
}
