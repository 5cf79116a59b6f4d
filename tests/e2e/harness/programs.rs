//! The programs that people connect with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_postgres::error::DbError;

use super::tools;
use super::world::World;

/// Whoever connects: a token for the password, and a user name that asks for a role.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) user: &'static str,
    pub(crate) token: String,
}

/// Where gatepost is, and whose signature its certificate bears.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    authority: PathBuf,
}

impl Door {
    pub(crate) async fn connect(
        &self,
        caller: &Caller,
        database: &str,
        options: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        self.connect_as(caller, database, options, "e2e").await
    }

    /// Under an application name of one's own.
    pub(crate) async fn connect_as(
        &self,
        caller: &Caller,
        database: &str,
        options: &str,
        application: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.authority).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.address.ip().to_string())
            .port(self.address.port());
        config.dbname(database).user(caller.user).password(&caller.token);
        config.options(options).application_name(application);
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        let connector = tokio_postgres_rustls::MakeRustlsConnect::new(tls);
        let (client, connection) = config.connect(connector).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// What a program said, all of it, and whether it was content.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) good: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            good: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Standard output of a program that was content.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert!(self.good, "out: {}\nerr: {}", self.out, self.err);
        self.out.trim().to_owned()
    }

    /// Standard error of a program that was refused.
    #[track_caller]
    pub(crate) fn refusal(self) -> String {
        assert!(!self.good, "was not refused: {}", self.out);
        self.err
    }
}

impl World {
    /// A program that finds its way in libpq's variables.
    pub(crate) fn client(&self, program: &Path, caller: &Caller) -> Command {
        let address = self.config.postgres;
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PGHOST", address.ip().to_string())
            .env("PGPORT", address.port().to_string())
            .env("PGDATABASE", "orders")
            .env("PGUSER", caller.user)
            .env("PGPASSWORD", &caller.token)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.path("certs/ca.crt"))
            .env("PGAPPNAME", "e2e")
            .current_dir(self.path("."));
        command
    }

    /// Statements as psql sends them; `variables` are further PG… settings.
    pub(crate) fn psql_with(&self, caller: &Caller, variables: &[(&str, &str)], sql: &str) -> Said {
        let mut command = self.psql_command(caller);
        command.args(["-c", sql]);
        command.envs(variables.iter().copied());
        command.output().unwrap().into()
    }

    pub(crate) fn psql_command(&self, caller: &Caller) -> Command {
        let mut command = self.client(&tools::client_program("psql"), caller);
        command.args(["-X", "-At", "-v", "ON_ERROR_STOP=1"]);
        command
    }

    pub(crate) fn psql(&self, caller: &Caller, sql: &str) -> Said {
        self.psql_with(caller, &[], sql)
    }

    /// A file of statements: psql sends them one by one, as a person types them.
    pub(crate) fn psql_script(&self, caller: &Caller, script: &str) -> Said {
        let file = self.path("script.sql");
        std::fs::write(&file, script).unwrap();
        let mut command = self.psql_command(caller);
        command.arg("-f").arg(file).output().unwrap().into()
    }

    /// What a program of one's own needs to know.
    pub(crate) fn door(&self) -> Door {
        Door {
            address: self.config.postgres,
            authority: self.path("certs/ca.crt"),
        }
    }

    /// tokio-postgres over rustls; `options` as in `PGOPTIONS`.
    pub(crate) async fn connect(
        &self,
        caller: &Caller,
        options: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        self.door().connect(caller, "orders", options).await
    }

    /// How a caller is turned away at this database.
    pub(crate) fn turned_away(&self, caller: &Caller, database: &str) -> DbError {
        let door = self.door();
        let refused = self.runtime.block_on(door.connect(caller, database, ""));
        let error = refused
            .err()
            .unwrap_or_else(|| panic!("{} was let in", caller.user));
        let told = error.as_db_error();
        told.unwrap_or_else(|| panic!("no word from gatepost: {error:?}"))
            .clone()
    }

    /// One of the scripts in `tests/e2e/drivers/`.
    pub(crate) fn python(&self, caller: &Caller, script: &str, arguments: &[&str]) -> Said {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/e2e/drivers")
            .join(script);
        self.client(&tools::python(), caller)
            .arg(script)
            .args(arguments)
            .output()
            .unwrap()
            .into()
    }

    pub(crate) fn pgbench(&self, caller: &Caller, arguments: &[&str]) -> Command {
        let mut command = self.client(&tools::client_program("pgbench"), caller);
        command.arg("--no-vacuum").args(arguments);
        command
    }

    /// The superuser, past gatepost: one line a row, columns separated by `|`.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.direct("postgres", "superuser secret", sql).well()
    }

    /// The superuser at one of several servers.
    pub(crate) fn sql_at(&self, server: SocketAddr, sql: &str) -> String {
        Self::direct_at(server, "postgres", "superuser secret", sql).well()
    }

    /// Anybody, past gatepost.
    pub(crate) fn direct(&self, user: &str, password: &str, sql: &str) -> Said {
        Self::direct_at(self.config.server, user, password, sql)
    }

    fn direct_at(server: SocketAddr, user: &str, password: &str, sql: &str) -> Said {
        Command::new(tools::client_program("psql"))
            .env_clear()
            .env("PGHOST", server.ip().to_string())
            .env("PGPORT", server.port().to_string())
            .env("PGDATABASE", "orders")
            .env("PGUSER", user)
            .env("PGPASSWORD", password)
            .env("PGSSLMODE", "require")
            .args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .unwrap()
            .into()
    }

    /// A command of gatepost itself.
    pub(crate) fn gatepost(&self, arguments: &[&str]) -> Said {
        Command::new(env!("CARGO_BIN_EXE_gatepost"))
            .args(arguments)
            .current_dir(self.path("."))
            .output()
            .unwrap()
            .into()
    }

    /// A ticket for a token, as whoever holds the token gets one.
    pub(crate) fn ticket(&self, token: &str, arguments: &[&str]) -> Said {
        Command::new(env!("CARGO_BIN_EXE_gatepost"))
            .args(["ticket", "--ca", "certs/ca.crt"])
            .args(arguments)
            .env("GATEPOST_API", format!("https://{}", self.config.api))
            .env("GATEPOST_TOKEN", token)
            .current_dir(self.path("."))
            .output()
            .unwrap()
            .into()
    }

    /// Proves the chain as an auditor would, with the key that the world was made with.
    pub(crate) fn verify_journal(&self) {
        let arguments = [
            "audit",
            "verify",
            "--directory",
            "audit",
            "--public-key",
            "certs/signing.pub",
        ];
        self.gatepost(&arguments).well();
    }
}
