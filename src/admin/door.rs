//! The two doors of the API: TLS for operators with a token, and a Unix socket for the machine's own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::admin::api::{self, Door};
use crate::admin::proxy::Proxy;
use crate::domain::LocalOperator;

/// Operators are few, but clients fetch tickets here, many at a time when a fleet starts. A connection
/// serves one exchange and holds some 100 KB.
const CONNECTIONS_MAX: usize = 256;
/// Of one address, so that a stranger who holds his connections open shuts out only himself.
const CONNECTIONS_PER_ADDRESS: usize = 32;
/// Two round trips and a signature.
const TLS_WITHIN: Duration = Duration::from_secs(5);
/// A client sends its few header lines at once.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// A rotation asks every database for every login; whatever takes longer goes on without its caller.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(120);
/// Room for the largest token that is looked at (16 KiB) and a few headers.
const BUFFER_BYTES: usize = 24 * 1024;
/// A client of ours sends five.
const HEADERS_MAX: usize = 32;
/// After a failed accept (out of file descriptors, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A live process on the same machine accepts at once.
const LIVE_WITHIN: Duration = Duration::from_secs(1);
/// Nobody but the owner; root needs no permission.
const SOCKET_MODE: u32 = 0o600;

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another process answers at {}", path.display())]
    Live { path: PathBuf },
    #[error("{} exists and is not a socket; it is left alone", path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The API's TLS listener, bound.
#[derive(Debug)]
pub struct ApiDoor {
    listener: TcpListener,
}

impl ApiDoor {
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` says true or is dropped.
    pub async fn serve(self, proxy: Arc<dyn Proxy>, mut stop: watch::Receiver<bool>) {
        let seats = Seats::default();
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    // Who finds no seat is closed: operators try again.
                    if let Some(seat) = seats.take(Some(peer.ip())) {
                        tokio::spawn(over_tls(socket, peer, Arc::clone(&proxy), seat));
                    }
                }
                Err(error) => pause(&error).await,
            }
        }
    }
}

async fn over_tls(socket: TcpStream, peer: SocketAddr, proxy: Arc<dyn Proxy>, seat: Seat) {
    let Some(tls) = proxy.tls() else {
        tracing::error!("the API has no certificate");
        return;
    };
    match tokio::time::timeout(TLS_WITHIN, tls.accept_http(socket)).await {
        Ok(Ok(stream)) => converse(stream, Door::Api { peer }, proxy).await,
        Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS with an operator's connection"),
        Err(_) => tracing::debug!(%peer, "an operator's connection began no TLS"),
    }
    drop(seat);
}

/// The Unix socket, bound. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct SocketDoor {
    listener: UnixListener,
    file: SocketFile,
}

/// The file that stands for the socket.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own in place.
    node: (u64, u64),
}

impl SocketDoor {
    /// The directory must exist. What a dead process left is replaced; anything else stays.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        make_room(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let described = fs::symlink_metadata(path).map_err(failed)?;
        let file = SocketFile {
            path: path.to_owned(),
            node: (described.dev(), described.ino()),
        };
        // Until here the umask decides who may connect; whoever does is asked for their user anyway.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        Ok(Self { listener, file })
    }

    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Serves until `stop` says true or is dropped.
    pub async fn serve(self, proxy: Arc<dyn Proxy>, mut stop: watch::Receiver<bool>) {
        let own = rustix::process::geteuid().as_raw();
        let seats = Seats::default();
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (Ok(peer), Some(seat)) = (stream.peer_cred(), seats.take(None)) else {
                        continue;
                    };
                    let uid = peer.uid();
                    let operator = LocalOperator::recognise(uid, own);
                    let proxy = Arc::clone(&proxy);
                    tokio::spawn(async move {
                        converse(stream, Door::Socket { uid, operator }, proxy).await;
                        drop(seat);
                    });
                }
                Err(error) => pause(&error).await,
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == self.node);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the admin socket");
        }
    }
}

/// Removes the socket of a dead process, and nothing else.
async fn make_room(path: &Path) -> Result<(), SocketError> {
    let owned = || path.to_owned();
    let failed = |source| SocketError::Io {
        path: owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(described) if !described.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: owned() });
        }
        Ok(_) => {}
    }
    // Only a refused connection proves that nobody listens; a busy process lets one wait.
    match tokio::time::timeout(LIVE_WITHIN, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(error)),
        Ok(_) | Err(_) => Err(SocketError::Live { path: owned() }),
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept an operator's connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// One connection, one exchange.
async fn converse<S>(stream: S, door: Door, proxy: Arc<dyn Proxy>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer_one = service_fn(move |request: Request<Incoming>| {
        let answering = api::answer(Arc::clone(&proxy), door, request);
        async move { Ok::<Response<_>, Infallible>(answering.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEADERS_WITHIN)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), answer_one);
    match tokio::time::timeout(EXCHANGE_WITHIN, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an operator's connection ended badly"),
        Err(_) => tracing::warn!("an operator's exchange took too long and was cut off"),
    }
}

/// Who may be connected at the same time.
#[derive(Debug)]
struct Seats {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection that counts; given back when dropped.
#[derive(Debug)]
struct Seat {
    address: Option<IpAddr>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            by_address: Arc::default(),
        }
    }
}

impl Seats {
    fn take(&self, address: Option<IpAddr>) -> Option<Seat> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        if let Some(address) = address {
            let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= CONNECTIONS_PER_ADDRESS {
                return None;
            }
            *count += 1;
        }
        Some(Seat {
            address,
            by_address: Arc::clone(&self.by_address),
            _permit: permit,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_seat() {
        let seats = Seats::default();
        let greedy = Some(IpAddr::from([192, 0, 2, 1]));
        let held: Vec<_> = std::iter::from_fn(|| seats.take(greedy)).collect();
        assert_eq!(held.len(), CONNECTIONS_PER_ADDRESS);
        assert!(seats.take(Some(IpAddr::from([192, 0, 2, 2]))).is_some());
        drop(held);
        assert!(seats.by_address.lock().unwrap().is_empty());
        let all: Vec<_> = std::iter::from_fn(|| seats.take(None)).collect();
        assert_eq!(all.len(), CONNECTIONS_MAX);
    }

    #[tokio::test]
    async fn only_the_socket_of_a_dead_process_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = SocketDoor::bind(&path).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = SocketDoor::bind(&path).await.unwrap_err();
        assert!(matches!(second, SocketError::Live { .. }), "{second:?}");
        drop(first);
        assert!(!path.exists());

        // A dead process leaves its file: bound, closed, not removed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let third = SocketDoor::bind(&path).await.unwrap();
        // What another has put in its place is not ours to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not yours").unwrap();
        drop(third);
        assert_eq!(fs::read_to_string(&path).unwrap(), "not yours");
        let fourth = SocketDoor::bind(&path).await.unwrap_err();
        assert!(matches!(fourth, SocketError::NotASocket { .. }), "{fourth:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "not yours");

        let nowhere = folder.path().join("no/such/folder.sock");
        let fifth = SocketDoor::bind(&nowhere).await.unwrap_err();
        assert!(matches!(fifth, SocketError::Io { .. }), "{fifth:?}");
    }
}
