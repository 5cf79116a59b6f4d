//! A way to a server that can be closed, or made to lead to another: what was connected is cut off.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Host and port.
pub(crate) type Place = (String, u16);

pub(crate) struct Way {
    port: u16,
    to: watch::Sender<Option<Place>>,
}

impl Way {
    /// Stays as long as the runtime in which this is called.
    pub(crate) async fn open(server: Place) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to, mut seen) = watch::channel(Some(server));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                seen.mark_unchanged();
                tokio::spawn(pass(client, seen.clone()));
            }
        });
        Self { port, to }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// From here on to this server, or to nobody.
    pub(crate) fn lead_to(&self, server: Option<Place>) {
        self.to.send_replace(server);
    }
}

async fn pass(mut client: TcpStream, mut to: watch::Receiver<Option<Place>>) {
    let Some(server) = to.borrow().clone() else { return };
    // A server that is down looks like one that hangs up.
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    tokio::select! {
        _ = to.changed() => {}
        _ = copy_bidirectional(&mut client, &mut server) => {}
    }
}
