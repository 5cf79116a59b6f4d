//! Everything together: PostgreSQL with TLS and the fence of `docs/postgres.md`, the identity
//! provider, certificates from `gatepost certs`, and gatepost itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::journal::JournalFiles;
use crate::support::postgres::{Server, Setup};
use crate::support::provider::{AUDIENCE, IdentityProvider, Shape};
use crate::support::proxy::{Gatepost, run_gatepost};
use crate::support::tools;

pub(crate) const BROKER_PASSWORD: &str = "the-brokers-own-password";
const POLICY: &str = include_str!("policy.yaml");
const SCHEMA: &str = include_str!("schema.sql");

/// The fence: minted logins only with gatepost's certificate.
const HBA: &str = "host all postgres 127.0.0.1/32 trust
hostssl all gatepost_broker 127.0.0.1/32 scram-sha-256
hostssl all +gatepost_minted 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
host all +gatepost_minted 127.0.0.1/32 reject
";

/// Everything but gatepost, which can be started once it is configured.
pub(crate) struct Surroundings {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) database: Server,
    pub(crate) provider: IdentityProvider,
    pub(crate) journal: JournalFiles,
}

pub(crate) struct World {
    pub(crate) gatepost: Gatepost,
    pub(crate) around: Surroundings,
}

impl Surroundings {
    pub(crate) async fn prepare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let certs = folder.path().join("certs");
        let said = run_gatepost(&["certs", "--directory", &certs.display().to_string()]);
        assert!(said.good, "{}", said.err);
        let provider = IdentityProvider::start();
        let database = Server::start_with(&Setup {
            hba: HBA.to_owned(),
            options: server_options(&certs),
        })
        .await;
        set_up(&database).await;
        fs::write(folder.path().join("broker"), format!("{BROKER_PASSWORD}\n")).unwrap();
        fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
        let directory = folder.path().join("audit");
        Self {
            folder,
            database,
            provider,
            journal: JournalFiles { directory },
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What gatepost.yaml says unless a story changes it. JSON is YAML too.
    pub(crate) fn config(&self) -> Value {
        json!({
            "installation": "e2e",
            "replica": "one",
            "threads": 2,
            "log": {"format": "json"},
            "listen": {"postgres": {"address": "127.0.0.1:0"}, "metrics": {"address": "127.0.0.1:0"}},
            "tls": {"certificate": "certs/server.crt", "private_key": {"file": "certs/server.key"}},
            "identity_providers": {
                "entra": {"issuer": self.provider.issuer(Shape::Entra), "audiences": [AUDIENCE], "kind": "entra"},
                "okta": {"issuer": self.provider.issuer(Shape::Okta), "audiences": [AUDIENCE], "kind": "okta"},
            },
            "targets": {"orders": {
                "engine": "postgres",
                "address": format!("127.0.0.1:{}", self.database.port),
                "tls": {
                    "mode": "verify-full", "ca": "certs/ca.crt",
                    "client_certificate": "certs/client.crt", "client_key": {"file": "certs/client.key"},
                },
                "databases": ["orders"],
                "broker": {"user": "gatepost_broker", "password": {"file": "broker"}},
            }},
            "policies": ["policy.yaml"],
            "audit": {"directory": "audit", "signing_key": {"file": "certs/signing.key"}},
        })
    }

    /// Writes the configuration and tells where.
    pub(crate) fn write(&self, config: &Value) -> PathBuf {
        let path = self.path("gatepost.yaml");
        fs::write(&path, serde_json::to_string_pretty(config).unwrap()).unwrap();
        path
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With a configuration that differs from the usual one; returns when gatepost is ready.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Value)) -> Self {
        let around = Surroundings::prepare().await;
        let mut config = around.config();
        change(&mut config);
        let gatepost = Gatepost::start(&around.write(&config)).await;
        gatepost.ready().await;
        Self { gatepost, around }
    }

    pub(crate) fn journal(&self) -> &JournalFiles {
        &self.around.journal
    }

    pub(crate) fn token(&self, shape: Shape, client: &str) -> String {
        self.around.provider.token(shape, client)
    }

    /// What an ordinary libpq client needs to come in with this token.
    pub(crate) fn environment(&self, role: &str, token: &str) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", self.gatepost.postgres.port().to_string()),
            ("PGDATABASE", "orders".to_owned()),
            ("PGUSER", role.to_owned()),
            ("PGPASSWORD", token.to_owned()),
            ("PGSSLMODE", "verify-full".to_owned()),
            (
                "PGSSLROOTCERT",
                self.around.path("certs/ca.crt").display().to_string(),
            ),
        ])
    }

    /// `psql` as this client, running these commands; each is a message of its own.
    pub(crate) fn psql(&self, environment: &BTreeMap<&'static str, String>, commands: &[&str]) -> Command {
        let mut psql = tools::postgres_client("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
        ]);
        psql.args(commands.iter().flat_map(|command| ["-c", *command]));
        psql.envs(environment);
        psql
    }

    /// Straight to the database, around gatepost, as the superuser.
    pub(crate) async fn admin(&self) -> tokio_postgres::Client {
        self.around.database.admin("orders").await
    }
}

fn server_options(certs: &Path) -> Vec<String> {
    let key = certs.join("database.key");
    fs::copy(certs.join("server.key"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let id = tools::succeed(Command::new("id").arg("-u"));
    if id.trim() == "0" {
        tools::succeed(Command::new("chown").arg("postgres").arg(&key));
    }
    let path = |name: &str| certs.join(name).display().to_string();
    vec![
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", path("server.crt")),
        format!("ssl_key_file={}", key.display()),
        format!("ssl_ca_file={}", path("ca.crt")),
        // So that every commit in the WAL is somebody's whom the test knows.
        "autovacuum=off".to_owned(),
        "log_statement=all".to_owned(),
        "max_prepared_transactions=5".to_owned(),
    ]
}

async fn set_up(database: &Server) {
    let admin = database.admin("postgres").await;
    let broker = format!(
        "CREATE ROLE gatepost_broker LOGIN CREATEROLE NOSUPERUSER INHERIT PASSWORD '{BROKER_PASSWORD}'; \
         CREATE ROLE gatepost_minted NOLOGIN"
    );
    // Told to the server in clear here, so it must not be found in the log for this reason.
    admin.batch_execute("SET log_statement = none").await.unwrap();
    admin.batch_execute(&broker).await.unwrap();
    admin.batch_execute("CREATE DATABASE orders").await.unwrap();
    admin
        .batch_execute("REVOKE ALL ON DATABASE orders FROM PUBLIC")
        .await
        .unwrap();
    let orders = database.admin("orders").await;
    orders.batch_execute(SCHEMA).await.unwrap();
}
