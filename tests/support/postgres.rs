//! A PostgreSQL server of its own for a test: a temporary folder, a free loopback port, stopped by
//! its process id when dropped. Binaries come from `GATEPOST_TEST_PG_BIN`, else from
//! `/usr/lib/postgresql/*/bin`.
//!
//! `postgres` may connect without a password, everyone else needs SCRAM.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends by panicking; clippy spares only the functions that carry the attribute"
)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio_postgres::NoTls;

/// Two tests may be given the same free port; one of them tries again.
const STARTS_MAX: usize = 5;
const HBA: &str = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// How a server differs from the ordinary one.
#[derive(Default)]
pub(crate) struct Options {
    /// Further arguments of initdb; the last locale counts.
    pub(crate) locale: Vec<String>,
    /// For the server and initdb.
    pub(crate) environment: Vec<(String, String)>,
    /// Settings of the server, `name=value`; `{folder}` is where its files are.
    pub(crate) settings: Vec<String>,
    /// Instead of letting everyone in with SCRAM.
    pub(crate) hba: Option<String>,
    /// Files that the server must own: a name in its folder, and what is in it.
    pub(crate) files: Vec<(String, String)>,
}

pub(crate) struct Server {
    process: Child,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // A fast shutdown: a killed postmaster would leave its shared memory segment behind.
        let process = self.process.id().to_string();
        let asked = Command::new("kill").args(["-INT", &process]).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The server may run as somebody else than the test.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let cluster = folder.path().join("cluster");
        let made = binary("initdb")
            .args(["--no-sync", "--username=postgres", "--auth=trust"])
            .args(["--encoding=UTF8", "--locale=C"])
            .args(&options.locale)
            .envs(options.environment.clone())
            .arg("-D")
            .arg(&cluster)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let hba = folder.path().join("pg_hba.conf");
        fs::write(&hba, options.hba.as_deref().unwrap_or(HBA)).unwrap();
        for (name, text) in &options.files {
            owned(&folder.path().join(name), text);
        }
        let place = folder.path().to_str().unwrap();
        let settings = options.settings.iter().flat_map(|setting| {
            let setting = setting.replace("{folder}", place);
            ["-c".to_owned(), setting]
        });
        let settings: Vec<_> = settings.collect();
        for _ in 0..STARTS_MAX {
            let port = free_port();
            let log = fs::File::create(folder.path().join("log")).unwrap();
            let mut process = binary("postgres")
                .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
                .args(["-c", "unix_socket_directories=", "-c", &format!("port={port}")])
                .arg("-c")
                .arg(format!("hba_file={}", hba.display()))
                .args(&settings)
                .envs(options.environment.clone())
                .arg("-D")
                .arg(&cluster)
                .stderr(Stdio::from(log.try_clone().unwrap()))
                .stdout(Stdio::from(log))
                .spawn()
                .unwrap();
            if answers(&mut process, port).await {
                return Self {
                    process,
                    folder,
                    port,
                };
            }
        }
        panic!(
            "no server: {}",
            fs::read_to_string(folder.path().join("log")).unwrap()
        );
    }

    /// As the superuser.
    pub(crate) async fn admin(&self, database: &str) -> tokio_postgres::Client {
        self.connect("postgres", "", database).await.unwrap()
    }

    pub(crate) async fn connect(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        connect(self.port, user, password, database).await
    }

    /// What the server wrote to its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// Readable by the server alone, as it demands of its key.
fn owned(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    if is_root() {
        let given = Command::new("chown").arg("postgres:postgres").arg(path).status();
        assert!(given.unwrap().success());
    }
}

fn is_root() -> bool {
    let uid = Command::new("id").arg("-u").output().unwrap();
    uid.stdout.trim_ascii() == b"0"
}

async fn connect(
    port: u16,
    user: &str,
    password: &str,
    database: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).dbname(database);
    config.user(user).password(password);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn answers(process: &mut Child, port: u16) -> bool {
    while process.try_wait().unwrap().is_none() {
        if connect(port, "postgres", "", "postgres").await.is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// PostgreSQL refuses to run as root, so root becomes `postgres` first.
fn binary(name: &str) -> Command {
    let path = folder_of_binaries().join(name);
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(path);
    command
}

fn folder_of_binaries() -> PathBuf {
    if let Some(folder) = std::env::var_os("GATEPOST_TEST_PG_BIN") {
        return PathBuf::from(folder);
    }
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.retain(|folder: &PathBuf| Path::exists(&folder.join("initdb")));
    folders.sort();
    let newest = folders.pop();
    newest.unwrap_or_else(|| panic!("no PostgreSQL found: set GATEPOST_TEST_PG_BIN"))
}
