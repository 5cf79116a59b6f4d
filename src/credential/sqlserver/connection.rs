//! How a SQL Server is reached, and what its errors mean when it is.

use std::sync::Arc;
use std::time::Duration;

use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt as _};

use crate::credential::error::{BrokerError, chain};
use crate::credential::lease::Lease;
use crate::credential::sqlserver::error::{Failure, Meaning};
use crate::credential::sqlserver::live::create_user;
use crate::credential::sqlserver::settings::{SqlServerSettings, SqlServerTlsMode};
use crate::credential::sqlserver::socket::Socket;
use crate::domain::password::Password;
use crate::domain::secret::Secret;
use crate::domain::target::{DatabaseName, TargetName};

/// Name resolution, TCP, TLS and login together; a server that needs longer is as good as down.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Every statement of ours touches a few catalogue rows; what takes longer waits for a lock.
const STATEMENT_LIMIT: Duration = Duration::from_secs(15);
/// A dead server or a dropped NAT entry must be noticed long before a login's end.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Azure SQL sends a client on once, from its gateway to the database.
const ROUTINGS_MAX: usize = 1;
/// Fixes what the statements rely on, whatever the server's own settings say. The lock timeout is well
/// below [`STATEMENT_LIMIT`], so that the server says why first. Babelfish alone knows its version.
const OPENING: &str = "SET LOCK_TIMEOUT 5000; SET NOCOUNT ON; SET QUOTED_IDENTIFIER ON; \
    SELECT CAST(SERVERPROPERTY('BabelfishVersion') AS nvarchar(128)), \
    CAST(SERVERPROPERTY('EngineEdition') AS int), DB_NAME()";
/// `EngineEdition` of Azure SQL Database.
const AZURE: i64 = 5;

/// A configuration that leads here was refused when it was read.
const UNPROVEN: &str =
    "a token is shown only to a server that TLS has proven by chain and name (verify-full or strict)";

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub(in crate::credential) struct Access {
    pub(in crate::credential) target: TargetName,
    pub(in crate::credential) address: (String, u16),
    pub(in crate::credential) user: String,
    pub(in crate::credential) password: Password,
    pub(in crate::credential) settings: SqlServerSettings,
    /// Those that logins are minted in; the first is the broker's home.
    pub(in crate::credential) databases: Arc<[DatabaseName]>,
    pub(in crate::credential) control: Handle,
}

/// What kind of server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::credential) enum Product {
    SqlServer,
    AzureSql,
    /// PostgreSQL that speaks T-SQL: it knows no password policy, no single rights of a server, and one
    /// number for most errors.
    Babelfish,
}

impl Access {
    pub(in crate::credential) fn same_login_as(&self, other: &Self) -> bool {
        self.user == other.user && self.password.is_same_as(&other.password)
    }

    /// The files of TLS are read at each connect, so what they hold is no difference.
    pub(in crate::credential) fn same_as(&self, other: &Self) -> bool {
        self.settings.tls == other.settings.tls && self.same_login_as(other)
    }

    /// Does the server refuse this login's secret? Anything else that goes wrong proves nothing.
    pub(in crate::credential) async fn refuses_secret(&self, lease: &Lease, database: &DatabaseName) -> bool {
        let as_login = Self {
            user: lease.login().to_string(),
            password: lease.password().clone(),
            ..self.clone()
        };
        // No renewal sets the secret again, so the answer is worth waiting for.
        let attempt = as_login.connect(database).await;
        matches!(attempt, Err(BrokerError::WrongPassword { .. }))
    }

    pub(in crate::credential) async fn connect(
        &self,
        database: &DatabaseName,
    ) -> Result<Connection, BrokerError> {
        let authentication = tokio::time::timeout(CONNECT_LIMIT, self.authentication()).await;
        let authentication = authentication
            .map_err(|_| self.timed_out("getting a token", CONNECT_LIMIT))?
            .map_err(|failure| self.not_connected(database, failure))?;
        let attempt = tokio::time::timeout(CONNECT_LIMIT, self.open(database, authentication)).await;
        let (client, socket) = attempt
            .map_err(|_| self.timed_out("connecting", CONNECT_LIMIT))?
            .map_err(|failure| self.not_connected(database, failure))?;
        let (asks, inbox) = mpsc::channel(1);
        let mut connection = Connection {
            access: self.clone(),
            database: database.clone(),
            product: Product::SqlServer,
            driver: self.control.spawn(drive(client, socket, inbox)),
            asks,
        };
        let opened = connection.query("opening a connection", OPENING).await?;
        connection.product = opened.first().map_or(Product::SqlServer, product);
        Ok(connection)
    }

    async fn authentication(&self) -> Result<AuthMethod, Failure> {
        let driver = |why: String| Failure::Driver(why);
        match &self.password {
            Password::Secret(secret) => Ok(AuthMethod::sql_server(&self.user, secret.expose())),
            Password::Token(_) if self.settings.tls.mode != SqlServerTlsMode::Verify => {
                Err(driver(UNPROVEN.to_owned()))
            }
            Password::Token(source) => {
                let token = source.token().await.map_err(|error| driver(error.to_string()))?;
                Ok(AuthMethod::aad_token(token.expose()))
            }
        }
    }

    async fn open(
        &self,
        database: &DatabaseName,
        authentication: AuthMethod,
    ) -> Result<(Client<Compat<Socket>>, Socket), Failure> {
        let mut address = self.address.clone();
        let mut routings = 0;
        loop {
            let stream = TcpStream::connect((address.0.as_str(), address.1)).await;
            let stream = stream.map_err(|error| Failure::Driver(error.to_string()))?;
            // Small messages back and forth: waiting to fill a packet only costs time.
            stream
                .set_nodelay(true)
                .map_err(|error| Failure::Driver(error.to_string()))?;
            let socket = Socket::new(stream);
            let config = self.config(&address, database, authentication.clone());
            match Client::connect(config, socket.clone().compat_write()).await {
                Ok(client) => return Ok((client, socket)),
                Err(tiberius::error::Error::Routing { host, port }) if routings < ROUTINGS_MAX => {
                    address = (host, port);
                    routings += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn config(
        &self,
        (host, port): &(String, u16),
        database: &DatabaseName,
        authentication: AuthMethod,
    ) -> Config {
        let tls = &self.settings.tls;
        let mut config = Config::new();
        config.host(host);
        config.port(*port);
        config.database(database.as_str());
        config.application_name("gatepost broker");
        config.authentication(authentication);
        // All limits are ours.
        config.handshake_timeout(None);
        config.command_timeout(None);
        config.encryption(match tls.mode {
            SqlServerTlsMode::Disable => EncryptionLevel::NotSupported,
            SqlServerTlsMode::Require | SqlServerTlsMode::Verify if tls.strict => EncryptionLevel::Strict,
            SqlServerTlsMode::Require | SqlServerTlsMode::Verify => EncryptionLevel::Required,
        });
        match (tls.mode, &tls.ca) {
            (SqlServerTlsMode::Require, _) => config.trust_cert(),
            (SqlServerTlsMode::Verify, Some(ca)) => config.trust_cert_ca(ca.display()),
            (SqlServerTlsMode::Verify, None) | (SqlServerTlsMode::Disable, _) => {}
        }
        if let Some(host) = &tls.host_in_certificate {
            config.hostname_in_certificate(host);
        }
        config
    }

    fn timed_out(&self, what: &'static str, limit: Duration) -> BrokerError {
        BrokerError::TimedOut {
            target: self.target.clone(),
            what,
            limit,
        }
    }

    fn not_connected(&self, database: &DatabaseName, failure: Failure) -> BrokerError {
        let target = self.target.clone();
        match failure.meaning() {
            Meaning::WrongSecret => BrokerError::WrongPassword {
                target,
                code: "18456",
            },
            Meaning::NotAdmitted => BrokerError::NotAdmitted {
                target,
                code: failure.code(),
                why: chain(&failure),
            },
            Meaning::NoDatabase => BrokerError::MissingPrivilege {
                target,
                code: "4060",
                missing: format!("a user for {} in database {database}", self.user),
                sql: create_user(database, &self.user),
            },
            Meaning::NotThere
            | Meaning::AlreadyThere
            | Meaning::LoggedIn
            | Meaning::Owns
            | Meaning::NotAllowed
            | Meaning::Again
            | Meaning::NoSession
            | Meaning::Unsaid
            | Meaning::Other => BrokerError::Unreachable {
                target,
                why: chain(&failure),
            },
        }
    }
}

fn product(row: &Row) -> Product {
    match (row.text(0), row.int(1)) {
        (Some(_), _) => Product::Babelfish,
        (None, Some(AZURE)) => Product::AzureSql,
        (None, _) => Product::SqlServer,
    }
}

/// A connection with a time limit on everything. Dropping it closes it.
#[derive(Debug)]
pub(in crate::credential) struct Connection {
    access: Access,
    database: DatabaseName,
    product: Product,
    driver: tokio::task::JoinHandle<()>,
    asks: mpsc::Sender<Ask>,
}

/// A statement for the driver's task.
#[derive(Debug)]
struct Ask {
    sql: String,
    reply: oneshot::Sender<Result<Vec<Row>, Failure>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // TDS has no words of farewell.
        self.driver.abort();
    }
}

impl Connection {
    pub(in crate::credential) const fn target(&self) -> &TargetName {
        &self.access.target
    }

    pub(in crate::credential) const fn access(&self) -> &Access {
        &self.access
    }

    /// Where it was opened.
    pub(in crate::credential) const fn database(&self) -> &DatabaseName {
        &self.database
    }

    pub(in crate::credential) const fn product(&self) -> Product {
        self.product
    }

    pub(in crate::credential) const fn contained(&self) -> bool {
        self.access.settings.contained
    }

    pub(in crate::credential) fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }

    /// Runs a batch that returns nothing. `what` names it in errors: its text is never shown.
    pub(in crate::credential) async fn run(&self, what: &'static str, sql: &str) -> Result<(), BrokerError> {
        self.query(what, sql).await.map(drop)
    }

    /// The same for a batch with a secret in it: what the server says of it is not shown either.
    pub(in crate::credential) async fn run_secret(
        &self,
        what: &'static str,
        sql: &Secret<String>,
    ) -> Result<(), BrokerError> {
        let said = self.ask(what, sql.expose()).await?;
        said.map(drop)
            .map_err(|failure| self.error(what, failure.without_text()))
    }

    /// The rows of all results of a batch, one after the other.
    pub(in crate::credential) async fn query(
        &self,
        what: &'static str,
        sql: &str,
    ) -> Result<Vec<Row>, BrokerError> {
        let said = self.ask(what, sql).await?;
        said.map_err(|failure| self.error(what, failure))
    }

    async fn ask(&self, what: &'static str, sql: &str) -> Result<Result<Vec<Row>, Failure>, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let sql = sql.to_owned();
        let asked = async {
            if self.asks.send(Ask { sql, reply }).await.is_err() {
                return Err(Failure::Closed);
            }
            answer.await.unwrap_or(Err(Failure::Closed))
        };
        match tokio::time::timeout(STATEMENT_LIMIT, asked).await {
            Ok(said) => Ok(said),
            Err(_) => {
                self.driver.abort();
                Err(self.access.timed_out(what, STATEMENT_LIMIT))
            }
        }
    }

    fn error(&self, what: &'static str, failure: Failure) -> BrokerError {
        BrokerError::Server {
            target: self.access.target.clone(),
            what,
            source: failure.into(),
        }
    }
}

/// Owns the driver, so that a statement that nobody waits for any more still comes to its end, and a
/// driver that panics takes only the connection with it.
async fn drive(mut client: Client<Compat<Socket>>, socket: Socket, mut inbox: mpsc::Receiver<Ask>) {
    loop {
        tokio::select! {
            ask = inbox.recv() => {
                let Some(Ask { sql, reply }) = ask else { return };
                let said = perform(&mut client, sql).await;
                let over = said.as_ref().is_err_and(Failure::ends_connection);
                // Whoever asked may have gone.
                let _ = reply.send(said);
                if over {
                    return;
                }
            }
            () = socket.gone() => return,
            () = tokio::time::sleep(HEARTBEAT) => {
                let beat = perform(&mut client, "SELECT 1".to_owned());
                if !matches!(tokio::time::timeout(STATEMENT_LIMIT, beat).await, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}

async fn perform(client: &mut Client<Compat<Socket>>, sql: String) -> Result<Vec<Row>, Failure> {
    let results = client.simple_query(sql).await?.into_results().await?;
    Ok(results.into_iter().flatten().map(Row::from).collect())
}

/// A row of texts, whole numbers and bytes, which is all that we ask for.
#[derive(Debug)]
pub(in crate::credential) struct Row(Vec<Value>);

#[derive(Debug)]
enum Value {
    Text(String),
    Int(i64),
    Bytes(Vec<u8>),
    /// NULL, or of a type that we do not ask for.
    Nothing,
}

impl Row {
    pub(in crate::credential) fn text(&self, column: usize) -> Option<&str> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Some(text),
            Some(Value::Int(_) | Value::Bytes(_) | Value::Nothing) | None => None,
        }
    }

    pub(in crate::credential) fn int(&self, column: usize) -> Option<i64> {
        match self.0.get(column) {
            Some(Value::Int(int)) => Some(*int),
            Some(Value::Text(_) | Value::Bytes(_) | Value::Nothing) | None => None,
        }
    }

    pub(in crate::credential) fn bytes(&self, column: usize) -> Option<&[u8]> {
        match self.0.get(column) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            Some(Value::Text(_) | Value::Int(_) | Value::Nothing) | None => None,
        }
    }

    /// A number that says yes or no; NULL is no.
    pub(in crate::credential) fn yes(&self, column: usize) -> bool {
        self.int(column).is_some_and(|int| int != 0)
    }
}

impl From<tiberius::Row> for Row {
    fn from(row: tiberius::Row) -> Self {
        Self(row.into_iter().map(Value::from).collect())
    }
}

impl From<ColumnData<'static>> for Value {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the driver knows many types, and our statements ask for these"
    )]
    fn from(data: ColumnData<'static>) -> Self {
        let int = |int: Option<i64>| int.map_or(Self::Nothing, Self::Int);
        match data {
            ColumnData::String(text) => text.map_or(Self::Nothing, |text| Self::Text(text.into_owned())),
            ColumnData::Binary(bytes) => bytes.map_or(Self::Nothing, |bytes| Self::Bytes(bytes.into_owned())),
            ColumnData::U8(value) => int(value.map(i64::from)),
            ColumnData::I16(value) => int(value.map(i64::from)),
            ColumnData::I32(value) => int(value.map(i64::from)),
            ColumnData::I64(value) => int(value),
            ColumnData::Bit(value) => int(value.map(i64::from)),
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
impl Row {
    /// Texts first, then numbers.
    pub(in crate::credential) fn of(texts: &[&str], ints: &[i64]) -> Self {
        let texts = texts.iter().map(|text| Value::Text((*text).to_owned()));
        Self(texts.chain(ints.iter().copied().map(Value::Int)).collect())
    }
}
