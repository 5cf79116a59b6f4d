//! What the tests of minted logins share: a database with a role and tables, a journal, and a client.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use gatepost::audit::heads::SecondPlace;
use gatepost::audit::retention::Retention;
use gatepost::audit::{Durability, Event, Facts, Journal, Normalised, Receipt, Record, Settings, key};
use gatepost::credential::roles::{self, DeployAccess};
use gatepost::credential::{
    Broker, BrokerSettings, EngineSettings, LeaseError, LeaseHold, LoginName, Logins, Retire,
    SqlServerSettings, SqlServerTls, SqlServerTlsMode,
};
use gatepost::domain::{AccessRequest, Claimed, Clock, Engine, Identity, Password, Place, Random, Secret};
use gatepost::policy::{
    Decision, Grant, GrantDeclaration, Objects, Privilege, RoleDeclaration, SourceText, Surroundings,
    TargetFacts, load,
};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt as _};

#[path = "../support/tds/mod.rs"]
#[expect(dead_code, reason = "other tests look at more")]
mod scripted;

/// `host:port;user;password`.
const SERVER: &str = "GATEPOST_TEST_SQLSERVER";
/// The file of the authority that signed the server's certificate; without it the broker goes without
/// TLS.
const AUTHORITY: &str = "GATEPOST_TEST_SQLSERVER_CA";
/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const SCRIPTED_PASSWORD: &str = "of the scripted server";
pub(crate) const LONG: &str = "30m";
/// The shortest that a policy may say.
pub(crate) const SHORT: &str = "5s";

#[derive(Debug)]
pub(crate) struct WallClock;

impl Clock for WallClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others are handed"
    )]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

#[derive(Debug)]
struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).unwrap();
    }
}

/// Remembers which logins' pools were closed.
#[derive(Default)]
pub(crate) struct Retired(pub(crate) Mutex<Vec<String>>);

impl Retire for Retired {
    fn retire(&self, login: &LoginName) {
        self.0.lock().unwrap().push(login.to_string());
    }
}

pub(crate) struct Doomed {
    kill: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Doomed {
    pub(crate) fn die(self) {
        drop(self.kill);
        self.thread.join().unwrap();
    }
}

#[derive(Clone)]
struct Address {
    host: String,
    port: u16,
    user: String,
    password: String,
    authority: Option<PathBuf>,
}

impl Address {
    fn of_environment() -> Option<Self> {
        let text = std::env::var(SERVER).ok()?;
        let mut parts = text.splitn(3, ';');
        let (host, port) = parts.next()?.rsplit_once(':').unwrap();
        Some(Self {
            host: host.to_owned(),
            port: port.parse().unwrap(),
            user: parts.next().unwrap().to_owned(),
            password: parts.next().unwrap().to_owned(),
            authority: std::env::var(AUTHORITY).ok().map(PathBuf::from),
        })
    }

    fn of_scripted(server: &scripted::Server) -> Self {
        Self {
            host: server.address.ip().to_string(),
            port: server.address.port(),
            user: "sa".to_owned(),
            password: SCRIPTED_PASSWORD.to_owned(),
            authority: None,
        }
    }

    async fn connect(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<Sql, tiberius::error::Error> {
        let mut config = Config::new();
        config.host(&self.host);
        config.port(self.port);
        config.database(database);
        config.authentication(AuthMethod::sql_server(user, password));
        config.encryption(EncryptionLevel::NotSupported);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client::connect(config, stream.compat_write()).await.map(Sql)
    }
}

impl Address {
    async fn create(&self, database: &str) -> Result<(), tiberius::error::Error> {
        let mut master = self.connect(&self.user, &self.password, "master").await?;
        master.run(&format!("CREATE DATABASE [{database}]")).await
    }
}

/// A client of the server.
pub(crate) struct Sql(Client<Compat<TcpStream>>);

impl Sql {
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), tiberius::error::Error> {
        self.0.simple_query(sql).await?.into_results().await.map(drop)
    }

    /// The first column of every row of every result.
    pub(crate) async fn texts(&mut self, sql: &str) -> Vec<String> {
        let results = self
            .0
            .simple_query(sql)
            .await
            .unwrap()
            .into_results()
            .await
            .unwrap();
        let rows = results.iter().flatten();
        rows.map(|row| row.get::<&str, _>(0).unwrap().to_owned())
            .collect()
    }
}

async fn scripted_server() -> scripted::Server {
    let options = scripted::Options {
        tls: None,
        strict: false,
        plaintext: true,
        sa: SCRIPTED_PASSWORD.to_owned(),
        tokens: Vec::new(),
        azure: false,
        setup: Vec::new(),
    };
    scripted::Server::start(options).await.unwrap()
}

pub(crate) struct Bench {
    address: Address,
    /// Ends with the bench; `None` where the environment names a server.
    _scripted: Option<scripted::Server>,
    pub(crate) database: String,
    journal: Journal,
    folder: tempfile::TempDir,
    pub(crate) retired: Arc<Retired>,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let (address, scripted) = match Address::of_environment() {
            Some(address) => (address, None),
            None => {
                let server = scripted_server().await;
                (Address::of_scripted(&server), Some(server))
            }
        };
        let mut bytes = [0; 4];
        SystemRandom.fill(&mut bytes);
        let database = format!("broker_{:08x}", u32::from_be_bytes(bytes));
        // Babelfish clashes with itself where two do this at the same moment.
        let give_up = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = address.create(&database).await {
            assert!(tokio::time::Instant::now() < give_up, "{error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(
            Settings {
                directory: folder.path().to_owned(),
                durability: Durability::Os,
                signing_key: Secret::new(key::generate().unwrap().expose().clone().into_bytes()),
                installation: "test".into(),
                replica: "a".into(),
                previous_key: None,
                segment_bytes: 1 << 20,
                heads: SecondPlace::default(),
                retention: Retention::default(),
            },
            Arc::new(WallClock),
            |text| Normalised {
                fingerprint: "0".repeat(16),
                text: text.to_owned(),
            },
        );
        let bench = Self {
            address,
            _scripted: scripted,
            database,
            journal: journal.unwrap(),
            folder,
            retired: Arc::default(),
        };
        for sql in [
            "CREATE SCHEMA app",
            "CREATE TABLE app.orders (id int)",
            "CREATE PROCEDURE app.apply AS SELECT 1",
            "CREATE ROLE reader",
        ] {
            bench.run(sql).await;
        }
        let declared = [declaration(&bench.database, "writer")];
        let plan = roles::plan(&bench.deploy(), &declared).await.unwrap();
        roles::apply(&bench.deploy(), &plan).await.unwrap();
        bench
    }

    /// To be called when all is well; what a failed test leaves is there to be looked at.
    pub(crate) async fn end(&self) {
        let mut master = self.admin("master").await;
        let drop = format!("DROP DATABASE [{}]", self.database);
        // Sessions that were just ended may still be on their way out.
        let give_up = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = master.run(&drop).await {
            assert!(tokio::time::Instant::now() < give_up, "{error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Of this test alone, so that no other test's logins are in sight.
    pub(crate) fn installation(&self, like: &str) -> String {
        format!("{like}{}", &self.database["broker_".len()..])
    }

    fn engine(&self) -> EngineSettings {
        EngineSettings::SqlServer(SqlServerSettings {
            marker_table: None,
            contained: false,
            tls: match &self.address.authority {
                Some(ca) => SqlServerTls {
                    ca: Some(ca.clone()),
                    ..SqlServerTls::default()
                },
                None => SqlServerTls {
                    mode: SqlServerTlsMode::Disable,
                    ..SqlServerTls::default()
                },
            },
        })
    }

    pub(crate) fn deploy(&self) -> DeployAccess {
        DeployAccess {
            engine: self.engine(),
            target: "orders".into(),
            address: (self.address.host.clone(), self.address.port),
            user: self.address.user.clone(),
            password: Password::new(self.address.password.clone()),
            proven_server: None,
            logins: Logins::Minted,
            tls: None,
            broker: self.address.user.clone(),
            control: Handle::current(),
        }
    }

    pub(crate) fn settings(&self, replica: &str) -> BrokerSettings {
        BrokerSettings {
            marker: None,
            engine: self.engine(),
            target: "orders".into(),
            address: (self.address.host.clone(), self.address.port),
            databases: vec![self.database.as_str().into()],
            user: self.address.user.clone(),
            password: Password::new(self.address.password.clone()),
            proven_server: None,
            logins: Logins::Minted,
            tls: None,
            installation: self.installation("test").as_str().into(),
            replica: replica.into(),
        }
    }

    pub(crate) fn start(&self, settings: BrokerSettings) -> Broker {
        self.start_on(settings, &Handle::current())
    }

    /// A broker whose process may die: `Doomed` ends it without a word to anyone.
    pub(crate) fn start_doomed(&self, settings: BrokerSettings) -> (Broker, Doomed) {
        let (kill, killed) = tokio::sync::oneshot::channel::<()>();
        let (handle, handed) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            handle.send(runtime.handle().clone()).unwrap();
            let _ = runtime.block_on(killed);
        });
        let control = handed.recv().unwrap();
        (self.start_on(settings, &control), Doomed { kill, thread })
    }

    fn start_on(&self, settings: BrokerSettings, control: &Handle) -> Broker {
        Broker::start(
            settings,
            self.journal.clone(),
            Arc::new(WallClock),
            Arc::new(SystemRandom),
            Arc::clone(&self.retired) as Arc<dyn Retire>,
            control,
        )
    }

    async fn receipt(&self) -> Receipt {
        let opened = Record::new(Arc::default(), Event::SessionOpened);
        self.journal.append(opened).await.unwrap()
    }

    pub(crate) async fn lease(
        &self,
        broker: &Broker,
        role: &str,
        ttl: &str,
    ) -> Result<LeaseHold, LeaseError> {
        self.lease_as(broker, "Orders Consumer", role, ttl).await
    }

    /// For another identity.
    pub(crate) async fn lease_as(
        &self,
        broker: &Broker,
        subject: &str,
        role: &str,
        ttl: &str,
    ) -> Result<LeaseHold, LeaseError> {
        let receipt = self.receipt().await;
        let identity = identity(subject);
        let who = Facts {
            identity: Some((&identity).into()),
            database: Some(self.database.as_str().into()),
            ..Facts::default()
        };
        let grant = self.grant(&identity, role, ttl);
        broker.lease(&grant, &Arc::new(who), &receipt).await
    }

    /// A connection of a minted login.
    pub(crate) async fn client(&self, hold: &LeaseHold) -> Sql {
        self.connect(hold.login().as_str(), hold.password().secret().unwrap().expose())
            .await
            .unwrap()
    }

    pub(crate) async fn connect(&self, login: &str, secret: &str) -> Result<Sql, tiberius::error::Error> {
        self.address.connect(login, secret, &self.database).await
    }

    async fn admin(&self, database: &str) -> Sql {
        let address = &self.address;
        address
            .connect(&address.user, &address.password, database)
            .await
            .unwrap()
    }

    /// As the administrator, in the database of the role.
    pub(crate) async fn run(&self, sql: &str) {
        self.admin(&self.database).await.run(sql).await.unwrap();
    }

    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        self.admin(&self.database).await.texts(sql).await
    }

    pub(crate) async fn exists(&self, login: &str) -> bool {
        let sql = format!("SELECT name FROM sys.server_principals WHERE name = '{login}'");
        !self.texts(&sql).await.is_empty()
    }

    /// Of this name in the database.
    pub(crate) async fn users(&self, login: &str) -> usize {
        let sql = format!("SELECT name FROM sys.database_principals WHERE name = '{login}'");
        self.texts(&sql).await.len()
    }

    pub(crate) async fn gone(&self, login: &str) {
        eventually("the login is dropped", async || !self.exists(login).await).await;
    }

    /// The records of its end are on disk: they are written a moment after it is gone.
    pub(crate) async fn recorded_as_dropped(&self, login: &str) {
        self.gone(login).await;
        eventually("recorded", async || {
            self.events(login)
                .last()
                .is_some_and(|last| last == "login.dropped")
        })
        .await;
    }

    /// Does the catalogue tell what was granted? Babelfish's does not.
    pub(crate) async fn keeps_permissions(&self) -> bool {
        let sql = "SELECT permission_name FROM sys.database_permissions WHERE permission_name = 'SELECT'";
        !self.texts(sql).await.is_empty()
    }

    /// What was recorded as tampering with this login.
    pub(crate) fn tampering(&self, login: &str) -> Vec<String> {
        let records = self.records(login).into_iter();
        let tampered = records.filter(|record| record["event"] == "login.tampered");
        tampered
            .map(|record| record["detail"]["what"].as_str().unwrap().to_owned())
            .collect()
    }

    /// `event` of the records about this login, in order.
    pub(crate) fn events(&self, login: &str) -> Vec<String> {
        let event = |record: serde_json::Value| {
            assert_eq!(record["engine"], "sqlserver");
            record["event"].as_str().unwrap().to_owned()
        };
        self.records(login).into_iter().map(event).collect()
    }

    fn records(&self, login: &str) -> Vec<serde_json::Value> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "jsonl"))
            .collect();
        files.sort();
        let text: String = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        // The last line may still be on its way.
        let lines = text.lines().map_while(|line| serde_json::from_str(line).ok());
        let about = |record: &serde_json::Value| record.get("login").is_some_and(|name| name == login);
        lines.filter(about).collect()
    }

    /// A grant as only a policy makes one.
    fn grant(&self, identity: &Identity, role: &str, ttl: &str) -> Grant {
        let role_key = serde_json::to_string(role).unwrap();
        let database = self.database.as_str();
        let text = format!(
            "version: 1\nroles:\n  {role_key}:\n    target: orders\n    database: {database}\n    grants:\n      \
             - {{privileges: [select], on: {{tables: [app.orders]}}}}\nrules:\n  - name: all\n    \
             identity: {{provider: entra}}\n    grant: {{role: {role_key}, login_ttl: {ttl}}}\n"
        );
        let around = Surroundings {
            providers: BTreeSet::from(["entra".into()]),
            targets: BTreeMap::from([(
                "orders".into(),
                TargetFacts {
                    // A grant has no engine, and this one is read for its names only.
                    engine: Engine::Postgres,
                    databases: BTreeSet::from([database.into()]),
                },
            )]),
        };
        let source = SourceText {
            path: PathBuf::from("test.yaml"),
            text,
        };
        let policy = load(&[source], &around).unwrap().policy;
        let decision = policy.decide(&AccessRequest {
            identity,
            target: &"orders".into(),
            database: &database.into(),
            wanted: role,
            client: std::net::IpAddr::from([127, 0, 0, 1]),
            at: WallClock.now(),
        });
        match decision {
            Decision::Allow(grant) => grant,
            Decision::Deny(denial) => panic!("{denial:?}"),
        }
    }
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < give_up, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn declaration(database: &str, name: &str) -> RoleDeclaration {
    let grant = |privileges: &[Privilege], objects| GrantDeclaration {
        privileges: privileges.to_vec(),
        objects,
    };
    RoleDeclaration {
        name: name.into(),
        target: "orders".into(),
        database: database.into(),
        grants: vec![
            grant(
                &[Privilege::Select, Privilege::Insert],
                Objects::Tables(vec!["app.orders".to_owned()]),
            ),
            grant(
                &[Privilege::Execute],
                Objects::Routines(vec!["app.apply".to_owned()]),
            ),
        ],
        break_glass: false,
        place: Place {
            file: PathBuf::from("test.yaml"),
            line: 1,
            column: 1,
        },
    }
}

fn identity(subject: &str) -> Identity {
    Identity {
        provider: "entra".into(),
        subject: subject.to_owned(),
        client_id: None,
        tenant: None,
        name: None,
        roles: Claimed::none(),
        groups: Claimed::none(),
        scopes: Claimed::none(),
        token_id: None,
        expires_at: WallClock.now() + Duration::from_secs(3600),
        claims: serde_json::Map::new(),
    }
}
