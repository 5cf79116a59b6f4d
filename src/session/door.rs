//! Which protocol a client's connection speaks: the listener that it came through decides.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::session::Gate;
use crate::session::postgres::PostgresFront;
use crate::session::sqlserver::SqlServerFront;
use crate::tls::ServerTls;

pub use crate::session::postgres::ListenerSettings;
pub use crate::session::sqlserver::{ListenerSettings as SqlServerListener, TokenService};

/// A protocol that clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    Postgres,
    SqlServer,
}

/// What each listener allows; `None` where there is none.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    pub postgres: Option<ListenerSettings>,
    pub sqlserver: Option<SqlServerListener>,
    /// The certificate of all listeners.
    pub tls: Option<Arc<ServerTls>>,
}

impl Gate {
    /// One client connection. `logged_in` is called when it counts as a session.
    pub async fn serve(
        self: Rc<Self>,
        door: Door,
        socket: TcpStream,
        peer: SocketAddr,
        logged_in: impl FnOnce(),
    ) {
        let listeners = self.shared.snapshots.borrow().listeners.clone();
        match door {
            Door::Postgres => {
                let Some(settings) = listeners.postgres else {
                    return;
                };
                let front = PostgresFront::new(socket, settings);
                self.converse_by(front, peer, logged_in).await;
            }
            Door::SqlServer => {
                let Some(settings) = listeners.sqlserver else {
                    return;
                };
                let front = SqlServerFront::new(socket, settings);
                self.converse_by(front, peer, logged_in).await;
            }
        }
    }
}
