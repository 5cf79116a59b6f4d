//! A server that speaks TDS as SQL Server does, and as much T-SQL as gatepost and its tests say, over a
//! model in memory that all its connections share. What it does not know it refuses by SQL Server's number.
//!
//! Where real servers differ by settings it behaves like one with READ_COMMITTED_SNAPSHOT. It is lenient in
//! one point: a request without a transaction's descriptor is taken within a transaction.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many tokens, kinds and statements each place names those that it knows"
)]

mod catalogue;
mod connection;
mod define;
mod evaluate;
mod fault;
mod functions;
mod login;
mod model;
mod out;
mod parse;
mod parse_data;
mod parse_definition;
mod parse_expression;
mod parse_statement;
mod procedures;
mod query;
mod run;
mod session;
mod store;
mod syntax;
mod value;
mod wire;
mod worker;
mod write;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatepost::domain::Secret;
use gatepost::tls::ServerTls;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use connection::Manners;
use model::Shared;

pub(crate) use model::{Committed, LoginSeen, Loss};

/// What a server begins with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Without it every connection is in clear text.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// TLS from the first byte, or nothing.
    pub(crate) strict: bool,
    /// Clients that cannot encrypt are served although there is TLS.
    pub(crate) plaintext: bool,
    /// The password of `sa`, a member of sysadmin.
    pub(crate) sa: String,
    /// Access tokens, and the logins or users they stand for.
    pub(crate) tokens: Vec<(String, String)>,
    /// It says that it is an Azure SQL Database: no way from one database to another, and sessions are each
    /// database's own.
    pub(crate) azure: bool,
    /// Databases, and batches that are run in them before anybody is served.
    pub(crate) setup: Vec<(String, String)>,
}

/// A server that listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listener.abort();
        self.kill_all();
    }
}

impl Server {
    /// On a free port.
    pub(crate) async fn start(options: Options) -> io::Result<Self> {
        Self::listen(TcpListener::bind(("127.0.0.1", 0)).await?, options)
    }

    pub(crate) fn listen(listener: TcpListener, options: Options) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        {
            let mut model = shared.lock();
            for database in ["master", "tempdb"] {
                model.add_database(database);
            }
            model.add_login("sa", &options.sa, "master");
            model
                .server_members
                .insert(("sysadmin".to_owned(), "sa".to_owned()));
            model.azure = options.azure;
            let tokens = options.tokens.iter();
            model.tokens = tokens
                .map(|(token, login)| (Secret::new(token.clone()), login.clone()))
                .collect();
        }
        let manners = Manners {
            tls: options.tls.clone(),
            strict: options.strict,
            plaintext: options.plaintext || options.tls.is_none(),
        };
        for (database, batch) in options.setup {
            if shared.lock().database(&database).is_none() {
                shared.lock().add_database(&database);
            }
            connection::run_alone(&shared, &database, &batch).map_err(io::Error::other)?;
        }
        {
            let mut model = shared.lock();
            model.committed.clear();
            model.batches.clear();
        }
        let accepting = Arc::clone(&shared);
        let listener = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (manners, shared) = (manners.clone(), Arc::clone(&accepting));
                // How a connection ends is its client's to see.
                tokio::spawn(async move { drop(connection::serve(socket, manners, shared).await) });
            }
        });
        Ok(Self {
            address,
            shared,
            listener,
        })
    }

    /// Every transaction that was committed, in order.
    pub(crate) fn committed(&self) -> Vec<Committed> {
        self.shared.lock().committed.clone()
    }

    /// Every login that came, with or without success.
    pub(crate) fn logins_seen(&self) -> Vec<LoginSeen> {
        self.shared.lock().logins_seen.clone()
    }

    /// What one session was asked; calls by their procedure's name alone.
    pub(crate) fn batches(&self, spid: u16) -> Vec<String> {
        let model = self.shared.lock();
        let own = model.batches.iter().filter(|(of, _)| *of == spid);
        own.map(|(_, text)| text.clone()).collect()
    }

    pub(crate) fn connections_opened(&self) -> u64 {
        self.shared.lock().connections_opened
    }

    /// Sessions that are there now, and whose they are.
    pub(crate) fn sessions(&self) -> Vec<(u16, String)> {
        let model = self.shared.lock();
        model
            .sessions
            .iter()
            .map(|(spid, seen)| (*spid, seen.login.clone()))
            .collect()
    }

    /// Names of logins, without the system's.
    pub(crate) fn logins(&self) -> Vec<String> {
        let model = self.shared.lock();
        let logins = model.logins.values().filter(|login| login.name != "sa");
        logins.map(|login| login.name.clone()).collect()
    }

    /// Names of the users of a database, without `dbo`.
    pub(crate) fn users(&self, database: &str) -> Vec<String> {
        let model = self.shared.lock();
        let principals = model
            .database(database)
            .map(|database| database.principals.values());
        let users = principals.into_iter().flatten();
        let users = users.filter(|user| user.kind != model::PrincipalKind::Role && user.name != "dbo");
        users.map(|user| user.name.clone()).collect()
    }

    /// Ends a session as KILL does.
    pub(crate) fn kill(&self, spid: u16) {
        if let Some(seen) = self.shared.lock().sessions.get_mut(&spid) {
            seen.killed = true;
            seen.kill.notify_one();
        }
    }

    pub(crate) fn kill_all(&self) {
        for (spid, _) in self.sessions() {
            self.kill(spid);
        }
    }

    /// New logins are refused with this error (40613: the database is moving), or admitted again.
    pub(crate) fn refuse_logins(&self, number: Option<i32>) {
        self.shared.lock().orders.refuse_logins = number;
    }

    /// Every request waits so long.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.lock().orders.delay = delay;
    }

    /// The next COMMIT of a minted login is lost in this way.
    pub(crate) fn lose_commit(&self, how: Loss) {
        self.shared.lock().orders.lose = Some(how);
    }

    /// Is there no such order any more, because it was followed?
    pub(crate) fn lost_commit(&self) -> bool {
        self.shared.lock().orders.lose.is_none()
    }

    /// New logins are sent there.
    pub(crate) fn route(&self, to: Option<(String, u16)>) {
        self.shared.lock().orders.route = to;
    }

    /// Committed transactions are appended to this file, one JSON object a line.
    pub(crate) fn write_journal(&self, file: std::fs::File) {
        self.shared.lock().journal = Some(file);
    }

    /// Runs a batch as `sa`, beside all connections. The text of its first error is the error.
    pub(crate) fn run(&self, database: &str, batch: &str) -> Result<(), String> {
        connection::run_alone(&self.shared, database, batch)
    }
}
