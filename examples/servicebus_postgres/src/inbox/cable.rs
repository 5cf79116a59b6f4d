//! The wire under a session, which can be made to fail at the two moments that matter: before a COMMIT is
//! sent, and when its reply comes back.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(super) struct Cable {
    stream: TcpStream,
    deaf: Arc<AtomicBool>,
}

/// Makes a cable fail.
#[derive(Clone, Debug)]
pub(super) struct Scissors(Arc<AtomicBool>);

impl Scissors {
    /// The next bytes from the other side are lost, and the connection with them. What is sent until then
    /// arrives.
    pub(super) fn cut_at_the_reply(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Cable {
    pub(super) fn new(stream: TcpStream) -> (Self, Scissors) {
        let deaf = Arc::new(AtomicBool::new(false));
        let scissors = Scissors(Arc::clone(&deaf));
        (Self { stream, deaf }, scissors)
    }
}

impl AsyncRead for Cable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.deaf.load(Ordering::Relaxed) {
            buffer.set_filled(filled);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_is_sent_arrives_and_the_reply_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut cable, scissors) = Cable::new(TcpStream::connect(address).await.unwrap());
        let (mut other, _) = listener.accept().await.unwrap();
        other.write_all(b"before").await.unwrap();
        let mut heard = [0; 6];
        cable.read_exact(&mut heard).await.unwrap();

        scissors.cut_at_the_reply();
        cable.write_all(b"COMMIT").await.unwrap();
        other.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"COMMIT");
        other.write_all(b"done").await.unwrap();
        let lost = cable.read(&mut heard).await.unwrap_err();
        assert_eq!(lost.kind(), io::ErrorKind::ConnectionReset);
    }
}
