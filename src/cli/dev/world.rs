//! What stands around the proxy in a first look, written down: folder, names, secrets, the
//! configuration, the policies, the statements that set the server up, and what scripts read.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::dev::postgres::SUPERUSER;
use crate::domain::{Random, Secret};

/// The one database, its target, and the application names.
pub const DATABASE: &str = "orders";
pub const BROKER: &str = "gatepost_broker";
pub const CONSUMER: &str = "order-consumer";
pub const ANALYST: &str = "analyst";

const SCHEMA: &str = include_str!("schema.sql");

/// The repository's own policies, for a binary that runs elsewhere.
const POLICIES: [(&str, &str); 5] = [
    ("orders.yaml", include_str!("../../../policies/orders.yaml")),
    (
        "fixtures/order-consumer.json",
        include_str!("../../../policies/fixtures/order-consumer.json"),
    ),
    (
        "fixtures/analyst.json",
        include_str!("../../../policies/fixtures/analyst.json"),
    ),
    (
        "fixtures/former-analyst.json",
        include_str!("../../../policies/fixtures/former-analyst.json"),
    ),
    (
        "fixtures/stranger.json",
        include_str!("../../../policies/fixtures/stranger.json"),
    ),
];

/// A folder that is removed at the end unless it shall stay.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// `wanted`, which must not exist yet, or a new one among the temporary files.
    pub fn make(wanted: Option<&Path>, keep: bool, random: &dyn Random) -> io::Result<Self> {
        let path = match wanted {
            Some(path) => std::path::absolute(path)?,
            None => std::env::temp_dir().join(format!("gatepost-dev-{}", secret(random, 6).expose())),
        };
        // PostgreSQL may run under another account and has to reach its part; secrets below are 0600.
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        Ok(Self { path, keep })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed stays among the temporary files.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Everything that was chosen for this world.
#[derive(Debug)]
pub struct World {
    pub folder: PathBuf,
    /// Where clients connect.
    pub postgres: SocketAddr,
    pub metrics: SocketAddr,
    /// The database server behind.
    pub server_port: u16,
    pub superuser_password: Secret<String>,
    pub broker_password: Secret<String>,
    pub consumer_secret: Secret<String>,
    pub analyst_secret: Secret<String>,
    /// Files or folders; as `policies` in gatepost.yaml.
    pub policies: PathBuf,
}

impl World {
    pub fn choose(
        folder: &Folder,
        listen: Option<SocketAddr>,
        policies: Option<&Path>,
        random: &dyn Random,
    ) -> io::Result<Self> {
        Ok(Self {
            folder: folder.path().to_owned(),
            postgres: listen.map_or_else(free_address, Ok)?,
            metrics: free_address()?,
            server_port: free_address()?.port(),
            superuser_password: secret(random, 24),
            broker_password: secret(random, 24),
            consumer_secret: secret(random, 24),
            analyst_secret: secret(random, 24),
            policies: match policies {
                Some(path) => std::path::absolute(path)?,
                None => folder.join("policies"),
            },
        })
    }

    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certs")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("gatepost.yaml")
    }

    pub fn superuser_password_file(&self) -> PathBuf {
        self.folder.join("secrets/superuser")
    }

    /// Secrets, policies and gatepost.yaml. The certificates come from `gatepost certs`.
    pub fn write(&self, issuer: &str, audience: &str) -> io::Result<()> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(self.folder.join("secrets"))?;
        write_secret(&self.folder.join("secrets/broker"), self.broker_password.expose())?;
        write_secret(&self.superuser_password_file(), self.superuser_password.expose())?;
        if self.policies == self.folder.join("policies") {
            fs::create_dir_all(self.policies.join("fixtures"))?;
            for (name, text) in POLICIES {
                fs::write(self.policies.join(name), text)?;
            }
        }
        fs::write(self.config(), self.gatepost_yaml(issuer, audience))
    }

    fn gatepost_yaml(&self, issuer: &str, audience: &str) -> String {
        format!(
            "# Written by `gatepost dev`; `gatepost serve --config` of this file is the same proxy.\n\
             installation: dev\n\
             replica: dev-1\n\
             listen:\n\
             \x20 postgres: {{address: \"{postgres}\"}}\n\
             \x20 metrics: {{address: \"{metrics}\"}}\n\
             tls: {{certificate: certs/server.crt, private_key: {{file: certs/server.key}}}}\n\
             identity_providers:\n\
             \x20 dev: {{issuer: \"{issuer}\", audiences: [\"{audience}\"], kind: oidc}}\n\
             targets:\n\
             \x20 orders:\n\
             \x20   engine: postgres\n\
             \x20   address: \"127.0.0.1:{port}\"\n\
             \x20   tls: {{mode: verify-full, ca: certs/ca.crt, client_certificate: certs/client.crt, \
             client_key: {{file: certs/client.key}}}}\n\
             \x20   databases: [{DATABASE}]\n\
             \x20   broker: {{user: {BROKER}, password: {{file: secrets/broker}}}}\n\
             policies: [{policies}]\n\
             audit: {{directory: audit, durability: strict, signing_key: {{file: certs/signing.key}}}}\n",
            postgres = self.postgres,
            metrics = self.metrics,
            port = self.server_port,
            policies = json!(self.policies),
        )
    }

    /// Set-up of the server as a whole, as `docs/postgres.md` has it; `roles apply` does the rest.
    pub fn server_statements(&self) -> String {
        let password = self.broker_password.expose();
        format!(
            "CREATE ROLE {BROKER} LOGIN CREATEROLE PASSWORD '{password}';\n\n\
             CREATE DATABASE {DATABASE};\n\n\
             REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC;\n\n\
             GRANT CONNECT ON DATABASE {DATABASE} TO {BROKER};\n\n"
        )
    }

    /// What the consumer's database holds.
    pub fn database_statements() -> &'static str {
        SCHEMA
    }

    /// What scripts need, by name.
    pub fn facts(&self, token_url: &str) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        vec![
            ("GATEPOST_DEV_DIR", self.folder.display().to_string()),
            ("GATEPOST_DEV_CONFIG", self.config().display().to_string()),
            ("GATEPOST_DEV_HOST", self.postgres.ip().to_string()),
            ("GATEPOST_DEV_PORT", self.postgres.port().to_string()),
            ("GATEPOST_DEV_DATABASE", DATABASE.to_owned()),
            ("GATEPOST_DEV_CA", path("certs/ca.crt")),
            ("GATEPOST_DEV_METRICS", format!("http://{}", self.metrics)),
            ("GATEPOST_DEV_TOKEN_URL", token_url.to_owned()),
            ("GATEPOST_DEV_CONSUMER_ID", CONSUMER.to_owned()),
            (
                "GATEPOST_DEV_CONSUMER_SECRET",
                self.consumer_secret.expose().clone(),
            ),
            ("GATEPOST_DEV_ANALYST_ID", ANALYST.to_owned()),
            (
                "GATEPOST_DEV_ANALYST_SECRET",
                self.analyst_secret.expose().clone(),
            ),
            ("GATEPOST_DEV_AUDIT", path("audit")),
            ("GATEPOST_DEV_AUDIT_KEY", path("certs/signing.pub")),
            ("GATEPOST_DEV_SERVER_PORT", self.server_port.to_string()),
            ("GATEPOST_DEV_SERVER_SUPERUSER", SUPERUSER.to_owned()),
            (
                "GATEPOST_DEV_SERVER_PASSWORD_FILE",
                self.superuser_password_file().display().to_string(),
            ),
        ]
    }

    /// `dev.env` for shells and `dev.json` for the rest; they appear complete, or not at all.
    pub fn announce(&self, facts: &[(&'static str, String)]) -> io::Result<()> {
        let lines = facts
            .iter()
            .map(|(name, value)| format!("{name}={}\n", quoted(value)));
        let object: serde_json::Map<_, _> = facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())))
            .collect();
        for (name, text) in [
            ("dev.json", Value::Object(object).to_string()),
            ("dev.env", lines.collect()),
        ] {
            let unfinished = self.folder.join(format!("{name}.new"));
            write_secret(&unfinished, &text)?;
            fs::rename(unfinished, self.folder.join(name))?;
        }
        Ok(())
    }

    /// A line that a person can paste.
    pub fn psql_line(&self, token_file: &Path) -> String {
        format!(
            "PGPASSWORD=\"$(cat {token})\" psql \"host={host} port={port} dbname={DATABASE} user=auto \
             sslmode=verify-full sslrootcert={ca}\"",
            token = token_file.display(),
            host = self.postgres.ip(),
            port = self.postgres.port(),
            ca = self.folder.join("certs/ca.crt").display(),
        )
    }
}

/// For `. dev.env`.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// A new file that only its owner reads.
pub fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

/// So many random bytes as hexadecimal digits.
fn secret(random: &dyn Random, bytes: usize) -> Secret<String> {
    let mut drawn = vec![0; bytes];
    random.fill(&mut drawn);
    Secret::new(drawn.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A loopback address that nobody listens on. Somebody may before it is used; then the start fails
/// and says so.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_shell() {
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
