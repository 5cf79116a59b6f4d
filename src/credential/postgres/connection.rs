//! How a PostgreSQL server is reached, and what its errors mean.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::credential::error::{BrokerError, chain};
use crate::credential::lease::Lease;
use crate::credential::postgres::guard::{Guard, Plain};
use crate::credential::postgres::naming::quote_name;
use crate::domain::password::Password;
use crate::domain::target::{DatabaseName, TargetName};
use crate::tls::ProvenServer;
use crate::wire::pg::login::InClear;

/// Name resolution, TCP, TLS and SCRAM together; a server that needs longer is as good as down.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Every statement of ours touches a few catalogue rows; what takes longer waits for a lock.
pub(in crate::credential) const STATEMENT_LIMIT: Duration = Duration::from_secs(15);
/// Others wait while a secret is tried; the answer is a nicety, because the renewal that follows sets the
/// secret again.
const SECRET_LIMIT: Duration = Duration::from_secs(2);
/// Fixes what the statements rely on, whatever the server's or the broker's own settings say. The
/// timeouts are a little below [`STATEMENT_LIMIT`], so that the server says why first.
const OPTIONS: &str = "-c search_path=pg_catalog -c datestyle=ISO -c timezone=UTC \
    -c statement_timeout=12s -c lock_timeout=5s -c idle_in_transaction_session_timeout=60s \
    -c default_transaction_read_only=off -c role=none";
/// A dead server or a dropped NAT entry must be noticed long before a login expires.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A configuration that leads here was refused when it was read.
const UNPROVEN: &str =
    "a token is shown only to a server that TLS has proven by chain and name (verify-full)";

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub(in crate::credential) struct Access {
    pub(in crate::credential) target: TargetName,
    pub(in crate::credential) address: (String, u16),
    pub(in crate::credential) user: String,
    pub(in crate::credential) password: Password,
    pub(in crate::credential) tls: Option<Arc<rustls::ClientConfig>>,
    /// Of `tls`. Without it no token is shown.
    pub(in crate::credential) proven_server: Option<ProvenServer>,
    pub(in crate::credential) control: Handle,
}

impl Access {
    pub(in crate::credential) fn same_login_as(&self, other: &Self) -> bool {
        self.user == other.user && self.password.is_same_as(&other.password)
    }

    /// A TLS configuration is the same only when it is the very same one: files may have changed.
    pub(in crate::credential) fn same_as(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        tls && self.same_login_as(other)
    }

    /// Does the server refuse this login's secret? Anything else that goes wrong proves nothing.
    pub(in crate::credential) async fn refuses_secret(&self, lease: &Lease, database: &DatabaseName) -> bool {
        let as_login = Self {
            user: lease.login().to_string(),
            password: lease.password().clone(),
            ..self.clone()
        };
        let attempt = tokio::time::timeout(SECRET_LIMIT, as_login.connect(database)).await;
        matches!(attempt, Ok(Err(BrokerError::WrongPassword { .. })))
    }

    pub(in crate::credential) async fn connect(
        &self,
        database: &DatabaseName,
    ) -> Result<Connection, BrokerError> {
        let in_clear = match (&self.password, self.proven_server) {
            (Password::Secret(_), _) => InClear::Refused,
            (Password::Token(_), Some(_)) => InClear::TokenToProvenServer,
            (Password::Token(_), None) => return Err(self.unreachable(UNPROVEN)),
        };
        let password = self.within(CONNECT_LIMIT, "getting a token", self.password.current());
        let password = password
            .await?
            .map_err(|error| self.unreachable(error.to_string()))?;
        let mut config = Config::new();
        config
            .host(&self.address.0)
            .port(self.address.1)
            .user(&self.user)
            .password(password.expose())
            .dbname(database.as_str())
            .application_name("gatepost broker")
            .options(OPTIONS)
            .ssl_mode(SslMode::Require)
            .keepalives_idle(KEEPALIVE);
        let attempt = async {
            match &self.tls {
                Some(tls) => {
                    let connector = Guard::new(MakeRustlsConnect::new(tls.as_ref().clone()), in_clear);
                    let (client, connection) = config.connect(connector).await?;
                    Ok((client, self.control.spawn(drive(connection))))
                }
                None => {
                    // Nothing is negotiated, and so nothing but the guard stands where TLS would.
                    config.ssl_negotiation(SslNegotiation::Direct);
                    let (client, connection) = config.connect(Guard::new(Plain, InClear::Refused)).await?;
                    Ok((client, self.control.spawn(drive(connection))))
                }
            }
        };
        let attempt = self.within(CONNECT_LIMIT, "connecting", attempt).await?;
        let (client, driver) = attempt.map_err(|error| self.not_connected(database, error))?;
        Ok(Connection {
            client,
            driver,
            target: self.target.clone(),
            version: OnceCell::new(),
        })
    }

    fn unreachable(&self, why: impl Into<String>) -> BrokerError {
        BrokerError::Unreachable {
            target: self.target.clone(),
            why: why.into(),
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        what: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, BrokerError> {
        let timed_out = |_| BrokerError::TimedOut {
            target: self.target.clone(),
            what,
            limit,
        };
        tokio::time::timeout(limit, work).await.map_err(timed_out)
    }

    fn not_connected(&self, database: &DatabaseName, error: tokio_postgres::Error) -> BrokerError {
        let target = self.target.clone();
        match error.code() {
            Some(code) if *code == SqlState::INVALID_PASSWORD => BrokerError::WrongPassword {
                target,
                code: "28P01",
            },
            Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                BrokerError::NotAdmitted {
                    target,
                    code: "28000",
                    why: chain(&error),
                }
            }
            // A database whose CONNECT was taken from PUBLIC.
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => BrokerError::MissingPrivilege {
                target,
                code: "42501",
                missing: format!("CONNECT on database {database} for {}", self.user),
                sql: grant_connect(database, &self.user),
            },
            Some(_) | None => BrokerError::Unreachable {
                target,
                why: chain(&error),
            },
        }
    }
}

pub(in crate::credential) fn grant_connect(database: &DatabaseName, role: &str) -> String {
    let (database, role) = (quote_name(database.as_str()), quote_name(role));
    format!("GRANT CONNECT ON DATABASE {database} TO {role}")
}

async fn drive<S>(connection: tokio_postgres::Connection<tokio_postgres::Socket, S>)
where
    S: tokio_postgres::tls::TlsStream + Unpin,
{
    if let Err(error) = connection.await {
        tracing::debug!(error = %chain(&error), "broker connection ended");
    }
}

/// A connection with a time limit on everything. Dropping it closes it.
#[derive(Debug)]
pub(in crate::credential) struct Connection {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
    target: TargetName,
    version: OnceCell<i32>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A peer that stopped answering must not keep the socket, and with it our epoch's lock.
        if self.client.is_closed() {
            self.driver.abort();
        }
    }
}

impl Connection {
    pub(in crate::credential) fn client(&self) -> &Client {
        &self.client
    }

    pub(in crate::credential) const fn target(&self) -> &TargetName {
        &self.target
    }

    /// `server_version_num`, asked for once.
    pub(in crate::credential) async fn version(&self) -> Result<i32, BrokerError> {
        let ask = async || {
            let sql = "SELECT current_setting('server_version_num')::int4";
            let row = self.limited("asking for the version", self.client.query_one(sql, &[]));
            Ok(row.await?.get(0))
        };
        self.version.get_or_try_init(ask).await.copied()
    }

    pub(in crate::credential) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements that return nothing. `what` names them in errors: their text may hold a
    /// verifier and is never shown.
    pub(in crate::credential) async fn run(&self, what: &'static str, sql: &str) -> Result<(), BrokerError> {
        self.limited(what, self.client.batch_execute(sql)).await
    }

    pub(in crate::credential) async fn query(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, BrokerError> {
        self.limited(what, self.client.query(sql, parameters)).await
    }

    pub(in crate::credential) async fn limited<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, BrokerError> {
        let target = || self.target.clone();
        match tokio::time::timeout(STATEMENT_LIMIT, work).await {
            Ok(result) => result.map_err(|source| BrokerError::Server {
                target: target(),
                what,
                source: source.into(),
            }),
            Err(_) => {
                self.driver.abort();
                Err(BrokerError::TimedOut {
                    target: target(),
                    what,
                    limit: STATEMENT_LIMIT,
                })
            }
        }
    }
}
