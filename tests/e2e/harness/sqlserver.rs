//! A SQL Server behind gatepost: the scripted one of the tests, in a thread of this process, or the real
//! one that `GATEPOST_TEST_SQLSERVER` names (`host:port;user;password`, its authority's certificate in
//! `GATEPOST_TEST_SQLSERVER_CA`).

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::SystemTime;

use gatepost::domain::Secret;
use gatepost::tls::{ServerSettings, ServerTls};
use serde_json::Value;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt as _};

use super::config::POLICY;
use super::provider::Shape;
use super::world::World;
use scripted::Server;

#[path = "../../support/tds/mod.rs"]
#[expect(dead_code, reason = "each story looks at a part")]
pub(crate) mod scripted;

/// Who may make logins on the scripted server.
const ADMINISTRATOR: (&str, &str) = ("sa", "administrator secret 1");

/// What the drivers' programs write to and call.
const SCHEMA: &str = include_str!("../drivers/sqlserver_schema.sql");

/// The role and the rule of the target `parcels`, within the others' policy.
const ROLE: &str = "
  parcels_writer:
    target: parcels
    database: DATABASE
    grants:
      - {privileges: [select, insert, update, delete], on: {tables: [dbo.parcels]}}
      - {privileges: [select], on: {tables: [dbo.numbers]}}
      - {privileges: [execute], on: {routines: [dbo.ship]}}
rules:
  - name: parcels-consumers
    identity: {provider: entra, client_id: [order-consumer, brief], roles: [Orders.Write]}
    grant: {role: parcels_writer, login_ttl: 30m, session_max: 8h}
  - name: parcels-others
    identity: {provider: okta, client_id: order-consumer, groups: [Orders.Write]}
    grant: {role: parcels_writer, login_ttl: 30m, session_max: 8h}
";

/// What a server is, and how gatepost logs in at it. The default has logins of its own, and gatepost comes
/// as its administrator.
#[derive(Debug)]
pub(crate) struct Way {
    /// Access tokens, and whom they stand for; the scripted server's alone.
    pub(crate) tokens: Vec<(String, String)>,
    /// The scripted server is Azure's.
    pub(crate) azure: bool,
    pub(crate) tls_mode: &'static str,
    /// The broker's user and what it proves itself by, instead of the administrator and its password.
    pub(crate) broker: Option<&'static str>,
    /// Further keys of the target, as lines.
    pub(crate) more: &'static str,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            azure: false,
            tls_mode: "verify-full",
            broker: None,
            more: "",
        }
    }
}

pub(crate) struct SqlServer {
    /// As its certificate has it.
    host: String,
    port: u16,
    administrator: (String, String),
    authority: PathBuf,
    pub(crate) database: String,
    /// `None`: a real one.
    scripted: Option<Scripted>,
    /// Where gatepost listens for its clients.
    pub(crate) door: SocketAddr,
}

struct Scripted {
    server: Arc<Server>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl SqlServer {
    /// A server with the drivers' tables, a target for it beside the world's own, its roles applied, and
    /// the proxy ready.
    pub(crate) fn behind(world: &mut World) -> Self {
        let server = Self::prepared(world, &Way::default());
        server.apply_roles(world);
        world.serve();
        server
    }

    /// The same without roles and without the proxy.
    pub(crate) fn prepared(world: &mut World, way: &Way) -> Self {
        let server = match std::env::var("GATEPOST_TEST_SQLSERVER") {
            Ok(named) => Self::real(&named, world),
            Err(_) => Self::scripted(world, way),
        };
        server.set_up(&world.runtime);
        server.write(world, way);
        server
    }

    pub(crate) fn apply_roles(&self, world: &World) {
        let user = self.administrator.0.as_str();
        let which = ["--config", "gatepost.yaml", "--target", "parcels"];
        let by = ["--as", user, "--password-file", "sa-password"];
        let apply = [&["roles", "apply"][..], &which, &by].concat();
        world.gatepost(&apply).well();
    }

    pub(crate) fn is_real(&self) -> bool {
        self.scripted.is_none()
    }

    /// What only the scripted server can be asked.
    pub(crate) fn inside(&self) -> Option<&Server> {
        self.scripted.as_ref().map(|it| it.server.as_ref())
    }

    fn scripted(world: &World, way: &Way) -> Self {
        let private_key = Secret::new(std::fs::read(world.path("certs/server.key")).unwrap());
        let settings = ServerSettings {
            certificate: world.path("certs/server.crt"),
            private_key,
        };
        let tls = ServerTls::load(&settings, now()).unwrap();
        let options = scripted::Options {
            tls: Some(Arc::new(tls)),
            sa: ADMINISTRATOR.1.to_owned(),
            tokens: way.tokens.clone(),
            azure: way.azure,
            setup: vec![("parcels".to_owned(), "SELECT 1".to_owned())],
            ..scripted::Options::default()
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let server = Arc::new(Server::start(options).await.unwrap());
                tell.send(Arc::clone(&server)).unwrap();
                // Ends when the test drops its half.
                let _ = stopped.await;
            });
        });
        let server = told.recv().unwrap();
        Self {
            host: "localhost".to_owned(),
            port: server.address.port(),
            administrator: (ADMINISTRATOR.0.to_owned(), ADMINISTRATOR.1.to_owned()),
            authority: world.path("certs/ca.crt"),
            database: "parcels".to_owned(),
            scripted: Some(Scripted { server, _stop: stop }),
            door: free_address(),
        }
    }

    fn real(named: &str, world: &World) -> Self {
        let [address, user, password] = <[&str; 3]>::try_from(named.split(';').collect::<Vec<_>>())
            .unwrap_or_else(|_| panic!("GATEPOST_TEST_SQLSERVER is host:port;user;password"));
        let (host, port) = address.rsplit_once(':').unwrap();
        let authority = std::env::var_os("GATEPOST_TEST_SQLSERVER_CA")
            .unwrap_or_else(|| panic!("GATEPOST_TEST_SQLSERVER_CA names its authority's certificate"));
        let server = Self {
            host: host.to_owned(),
            port: port.parse().unwrap(),
            administrator: (user.to_owned(), password.to_owned()),
            authority: PathBuf::from(authority),
            database: format!("e2e_{}_{}", std::process::id(), world.config.postgres.port()),
            scripted: None,
            door: free_address(),
        };
        let database = &server.database;
        let sql = format!("CREATE DATABASE {database}");
        world.runtime.block_on(server.run("master", &[&sql]));
        server
    }

    fn set_up(&self, runtime: &Runtime) {
        let batches: Vec<&str> = SCHEMA
            .split("\nGO\n")
            .filter(|batch| !batch.contains("CREATE ROLE") && !batch.contains("GRANT "))
            .collect();
        runtime.block_on(self.run(&self.database, &batches));
    }

    /// As the administrator, beside gatepost.
    pub(crate) async fn run(&self, database: &str, batches: &[&str]) {
        let mut client = self.administrate(database).await;
        for batch in batches.iter().filter(|batch| !batch.trim().is_empty()) {
            let done = client.simple_query(*batch).await;
            let done = match done {
                Ok(stream) => stream.into_results().await.map(|_| ()),
                Err(error) => Err(error),
            };
            done.unwrap_or_else(|error| panic!("{error}\n{batch}"));
        }
    }

    pub(crate) async fn administrate(&self, database: &str) -> Client<Compat<TcpStream>> {
        let (user, password) = &self.administrator;
        let auth = AuthMethod::sql_server(user, password);
        let address = (self.host.as_str(), self.port);
        let client = connect(
            address,
            database,
            auth,
            &self.authority,
            EncryptionLevel::Required,
        );
        client.await.unwrap()
    }

    fn write(&self, world: &mut World, way: &Way) {
        let Self {
            host,
            port,
            database,
            door,
            ..
        } = self;
        let (user, password) = &self.administrator;
        let authority = self.authority.display();
        std::fs::write(world.path("sa-password"), password).unwrap();
        let own = format!("user: {user}, password: {{file: sa-password}}");
        let broker = way.broker.unwrap_or(&own);
        let Way { tls_mode, more, .. } = way;
        world.config.more_listen = format!("  sqlserver: {{address: \"{door}\", token_provider: entra}}\n");
        world.config.more_targets = format!(
            "  parcels:
    engine: sqlserver
    address: \"{host}:{port}\"
    tls: {{mode: {tls_mode}, ca: {authority}}}
    databases: [{{name: {database}, alias: parcels}}]
    broker: {{{broker}}}
    pool: {{max_connections: 40}}\n{more}"
        );
        let policy = POLICY.replacen("rules:\n", ROLE.trim_start_matches('\n'), 1);
        let policy = policy.replace("DATABASE", database);
        std::fs::write(world.path("policy.yaml"), policy).unwrap();
        world.config.write(&world.path("gatepost.yaml"));
    }

    /// tiberius, through gatepost, with a token.
    pub(crate) async fn connect(
        &self,
        world: &World,
        token: &str,
    ) -> tiberius::Result<Client<Compat<TcpStream>>> {
        let auth = AuthMethod::aad_token(token);
        let address = ("localhost", self.door.port());
        let authority = world.path("certs/ca.crt");
        connect(address, "parcels", auth, &authority, EncryptionLevel::Strict).await
    }

    /// A driver's program, told where gatepost is and as whom to connect.
    pub(crate) fn program(&self, world: &World, driver: &Program, tls: &str, as_whom: &As) -> Command {
        let authority = world.path("certs/ca.crt");
        let (program, arguments) = (driver.start)();
        let mut command = Command::new(program);
        let long = if self.is_real() {
            "SELECT COUNT(*) FROM pg_sleep(20)"
        } else {
            "WAITFOR DELAY '00:00:20'"
        };
        command
            .args(arguments)
            .env("GATEPOST_TEST_HOST", "localhost")
            .env("GATEPOST_TEST_PORT", self.door.port().to_string())
            .env("GATEPOST_TEST_DATABASE", "parcels")
            .env("GATEPOST_TEST_CA", &authority)
            .env("SSL_CERT_FILE", &authority)
            .env("GATEPOST_TEST_TLS", tls)
            .env("GATEPOST_TEST_NAME", format!("{}-{tls}", driver.name))
            .env("GATEPOST_TEST_LONG", long);
        match as_whom {
            As::Token(token) => command.env("GATEPOST_TEST_TOKEN", token),
            As::Ticket(ticket) => command
                .env("GATEPOST_TEST_USER", "auto")
                .env("GATEPOST_TEST_PASSWORD", ticket),
        };
        command
    }

    /// The consumer's token, with about so many bytes more than it needs.
    pub(crate) fn token(world: &World, client: &str, more: usize) -> String {
        world
            .provider
            .token_with(Shape::Entra, client, &format!("&size={more}"))
    }
}

impl Drop for SqlServer {
    fn drop(&mut self) {
        if self.is_real() && !std::thread::panicking() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let sql = format!("DROP DATABASE {}", self.database);
            // Refused while a session of the proxy's is there: it only takes room.
            runtime.block_on(async {
                let mut client = self.administrate("master").await;
                drop(client.simple_query(sql).await);
            });
        }
    }
}

/// What a program puts into its login.
pub(crate) enum As {
    Token(String),
    Ticket(String),
}

/// One driver's program.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) start: fn() -> (PathBuf, Vec<PathBuf>),
}

async fn connect(
    (host, port): (&str, u16),
    database: &str,
    auth: AuthMethod,
    authority: &Path,
    encryption: EncryptionLevel,
) -> tiberius::Result<Client<Compat<TcpStream>>> {
    let mut config = Config::new();
    config.host(host);
    config.port(port);
    config.database(database);
    config.authentication(auth);
    config.encryption(encryption);
    config.trust_cert_ca(authority.display().to_string());
    let socket = TcpStream::connect((host, port)).await?;
    socket.set_nodelay(true)?;
    Client::connect(config, socket.compat_write()).await
}

fn free_address() -> SocketAddr {
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    held.local_addr().unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a certificate is looked at by the clock"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// What gatepost says of the attempts under this correlation id.
pub(crate) async fn asked(client: &mut Client<Compat<TcpStream>>, id: &str) -> Value {
    let question = format!("EXEC sp_set_session_context N'gatepost.outcome_of', N'{id}'");
    let stream = client.simple_query(question).await.unwrap();
    stream.into_results().await.unwrap();
    answered(client).await
}

/// The answer to a question that was asked.
pub(crate) async fn answered(client: &mut Client<Compat<TcpStream>>) -> Value {
    let sql = "SELECT CAST(SESSION_CONTEXT(N'gatepost.outcomes') AS nvarchar(max))";
    let row = client.simple_query(sql).await.unwrap().into_row().await.unwrap();
    serde_json::from_str(row.unwrap().get::<&str, _>(0).unwrap()).unwrap()
}
