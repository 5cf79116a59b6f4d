//! What the tests of minted logins share: a server with a broker of the smallest rights, a role and a
//! journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::postgres::{Options, Server};
use gatepost::audit::heads::SecondPlace;
use gatepost::audit::retention::Retention;
use gatepost::audit::{Durability, Event, Facts, Journal, Normalised, Receipt, Record, Settings, key};
use gatepost::credential::roles::{self, DeployAccess};
use gatepost::credential::{
    Broker, BrokerSettings, EngineSettings, LeaseError, LeaseHold, LoginName, Logins, Mark, Retire,
};
use gatepost::domain::{AccessRequest, Claimed, Clock, Engine, Identity, Password, Place, Random, Secret};
use gatepost::policy::{
    Decision, Grant, GrantDeclaration, Objects, Privilege, RoleDeclaration, SourceText, Surroundings,
    TargetFacts, load,
};
use tokio::runtime::Handle;

pub(crate) const BROKER: &str = "gatepost_broker";
pub(crate) const PASSWORD: &str = "broker's secret";
/// Who asks for logins, where it does not matter.
pub(crate) const SUBJECT: &str = "Orders'; DROP ROLE writer; --";
/// Far above what anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
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
pub(crate) struct SystemRandom;

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

/// A server with a broker of the smallest rights, a role and a journal.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) journal: Journal,
    folder: tempfile::TempDir,
    pub(crate) retired: Arc<Retired>,
}

/// What a minted login logs in with.
pub(crate) fn secret_of(hold: &LeaseHold) -> &str {
    hold.password().secret().unwrap().expose()
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::on(Server::start().await).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::on(Server::start_with(options).await).await
    }

    async fn on(server: Server) -> Self {
        let admin = server.admin("postgres").await;
        admin.batch_execute("CREATE DATABASE orders").await.unwrap();
        let setup = format!(
            "CREATE ROLE {BROKER} LOGIN CREATEROLE PASSWORD 'broker''s secret'; GRANT pg_read_all_stats TO {BROKER}"
        );
        admin.batch_execute(&setup).await.unwrap();
        let orders = server.admin("orders").await;
        let tables = "CREATE SCHEMA app; CREATE TABLE app.orders (id int); CREATE SEQUENCE app.ids; \
                      CREATE FUNCTION app.apply(a jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1'; \
                      REVOKE ALL ON FUNCTION app.apply FROM PUBLIC";
        orders.batch_execute(tables).await.unwrap();
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
            server,
            journal: journal.unwrap(),
            folder,
            retired: Arc::default(),
        };
        bench.declare(&[declaration("writer")]).await;
        bench
    }

    pub(crate) fn deploy(&self) -> DeployAccess {
        DeployAccess {
            engine: EngineSettings::Postgres,
            target: "orders".into(),
            address: ("127.0.0.1".to_owned(), self.server.port),
            user: "postgres".to_owned(),
            password: Password::new(""),
            tls: None,
            proven_server: None,
            broker: BROKER.to_owned(),
            logins: Logins::Minted,
            control: Handle::current(),
        }
    }

    pub(crate) async fn declare(&self, declared: &[RoleDeclaration]) {
        let plan = roles::plan(&self.deploy(), declared).await.unwrap();
        roles::apply(&self.deploy(), &plan).await.unwrap();
    }

    pub(crate) fn settings(&self, replica: &str) -> BrokerSettings {
        BrokerSettings {
            marker: None,
            engine: EngineSettings::Postgres,
            target: "orders".into(),
            address: ("127.0.0.1".to_owned(), self.server.port),
            databases: vec!["orders".into()],
            user: BROKER.to_owned(),
            password: Password::new(PASSWORD),
            tls: None,
            proven_server: None,
            logins: Logins::Minted,
            installation: "test".into(),
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

    pub(crate) async fn receipt(&self) -> Receipt {
        let opened = Record::new(Arc::default(), Event::SessionOpened);
        self.journal.append(opened).await.unwrap()
    }

    pub(crate) async fn lease(
        &self,
        broker: &Broker,
        role: &str,
        ttl: &str,
    ) -> Result<LeaseHold, LeaseError> {
        let ttl = format!("login_ttl: {ttl}");
        self.lease_as(broker, SUBJECT, role, &ttl).await
    }

    /// For another identity, or with other terms of the grant.
    pub(crate) async fn lease_as(
        &self,
        broker: &Broker,
        subject: &str,
        role: &str,
        terms: &str,
    ) -> Result<LeaseHold, LeaseError> {
        let receipt = self.receipt().await;
        let identity = identity(subject);
        let who = Facts {
            identity: Some((&identity).into()),
            database: Some("orders".into()),
            ..Facts::default()
        };
        let grant = grant(&identity, role, terms);
        broker.lease(&grant, &Arc::new(who), &receipt).await
    }

    /// A connection of a minted login.
    pub(crate) async fn client(&self, hold: &LeaseHold) -> tokio_postgres::Client {
        let (login, password) = (hold.login().as_str(), secret_of(hold));
        self.server.connect(login, password, "orders").await.unwrap()
    }

    /// As the superuser, in the database of the role.
    pub(crate) async fn run(&self, sql: &str) {
        let admin = self.server.admin("orders").await;
        admin.batch_execute(sql).await.unwrap();
    }

    pub(crate) async fn mark(&self, login: &str) -> Mark {
        let admin = self.server.admin("orders").await;
        let sql = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1";
        let row = admin.query_one(sql, &[&login]).await.unwrap();
        Mark::parse(row.get(0)).unwrap()
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
        let event = |record: serde_json::Value| record["event"].as_str().unwrap().to_owned();
        self.records(login).into_iter().map(event).collect()
    }

    pub(crate) fn records(&self, login: &str) -> Vec<serde_json::Value> {
        let about = |record: &serde_json::Value| record.get("login").is_some_and(|name| name == login);
        self.all_records().into_iter().filter(about).collect()
    }

    pub(crate) fn all_records(&self) -> Vec<serde_json::Value> {
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
        lines.collect()
    }

    pub(crate) async fn exists(&self, role: &str) -> bool {
        let admin = self.server.admin("orders").await;
        let sql = "SELECT 1 FROM pg_roles WHERE rolname = $1";
        !admin.query(sql, &[&role]).await.unwrap().is_empty()
    }

    pub(crate) async fn gone(&self, login: &str) {
        eventually("the login is dropped", async || !self.exists(login).await).await;
    }

    /// Seconds from the server's now to the login's end.
    pub(crate) async fn life(&self, login: &str) -> f64 {
        let admin = self.server.admin("orders").await;
        let sql = "SELECT extract(epoch FROM rolvaliduntil - clock_timestamp())::float8 FROM pg_roles WHERE rolname = $1";
        admin.query_one(sql, &[&login]).await.unwrap().get(0)
    }
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < give_up, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn declaration(name: &str) -> RoleDeclaration {
    let grant = |privileges: &[Privilege], objects| GrantDeclaration {
        privileges: privileges.to_vec(),
        objects,
    };
    let list = |name: &str| vec![name.to_owned()];
    RoleDeclaration {
        name: name.into(),
        target: "orders".into(),
        database: "orders".into(),
        grants: vec![
            grant(
                &[Privilege::Usage, Privilege::Create],
                Objects::Schemas(list("app")),
            ),
            grant(
                &[Privilege::Select, Privilege::Insert],
                Objects::Tables(list("app.orders")),
            ),
            grant(&[Privilege::Usage], Objects::Sequences(list("app.ids"))),
            grant(&[Privilege::Execute], Objects::Routines(list("app.apply(jsonb)"))),
        ],
        break_glass: false,
        place: Place {
            file: PathBuf::from("test.yaml"),
            line: 1,
            column: 1,
        },
    }
}

/// A grant as only a policy makes one. `terms` is what stands beside the role: `login_ttl: 5s`.
pub(crate) fn grant(identity: &Identity, role: &str, terms: &str) -> Grant {
    let role_key = serde_json::to_string(role).unwrap();
    let text = format!(
        "version: 1\nroles:\n  {role_key}:\n    target: orders\n    database: orders\n    grants:\n      \
         - {{privileges: [select], on: {{tables: [app.orders]}}}}\nrules:\n  - name: all\n    \
         identity: {{provider: entra}}\n    grant: {{role: {role_key}, {terms}}}\n"
    );
    let around = Surroundings {
        providers: BTreeSet::from(["entra".into()]),
        targets: BTreeMap::from([(
            "orders".into(),
            TargetFacts {
                engine: Engine::Postgres,
                databases: BTreeSet::from(["orders".into()]),
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
        database: &"orders".into(),
        wanted: role,
        client: std::net::IpAddr::from([127, 0, 0, 1]),
        at: WallClock.now(),
    });
    match decision {
        Decision::Allow(grant) => grant,
        Decision::Deny(denial) => panic!("{denial:?}"),
    }
}

pub(crate) fn identity(subject: &str) -> Identity {
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
