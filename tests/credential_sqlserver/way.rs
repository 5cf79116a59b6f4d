//! A way to a server that can be closed: what was connected is cut off, and nobody gets through.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Way {
    port: u16,
    is_open: watch::Sender<bool>,
}

impl Way {
    pub(crate) async fn open(server: (String, u16)) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_open, seen) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, mut seen) = (server.clone(), seen.clone());
                tokio::spawn(async move {
                    if !*seen.borrow() {
                        return;
                    }
                    let mut upstream = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = seen.wait_for(|is_open| !is_open) => {}
                        _ = copy_bidirectional(&mut client, &mut upstream) => {}
                    }
                });
            }
        });
        Self { port, is_open }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn close(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn open_again(&self) {
        self.is_open.send_replace(true);
    }
}
