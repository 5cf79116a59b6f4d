//! A PostgreSQL server of one's own: found, set up in a folder, fenced in as `docs/postgres.md`
//! asks for, run, stopped. Needs the server's programs and no client's.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::interval;

use crate::cli::dev::children::{self, Account, Process, Signal};

/// The superuser of the clusters made here.
pub const SUPERUSER: &str = "postgres";
/// Points at a folder with `initdb` and `postgres` in it.
pub const BINARIES_VARIABLE: &str = "GATEPOST_POSTGRES_BIN";

/// A fast shutdown writes a checkpoint.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// Crash recovery of a small cluster on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "no PostgreSQL found (looked at ${BINARIES_VARIABLE}, /usr/lib/postgresql, $PATH): install it \
         (Debian: apt-get install postgresql), or run tests/setup/postgres_npm.sh and set {BINARIES_VARIABLE} to what it prints"
    )]
    NotFound,
    #[error(
        "PostgreSQL does not run as root, and there is neither an account \"postgres\" nor \"nobody\" for it"
    )]
    NoAccount,
    #[error("{program} failed:\n{output}")]
    Failed { program: &'static str, output: String },
    #[error("PostgreSQL did not start:\n{log}")]
    NotStarted { log: String },
    #[error("cannot {what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> PostgresError {
    move |source| PostgresError::Io { what, source }
}

/// The folder of the server's programs.
#[derive(Clone, Debug)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// What the environment names, else the newest installed.
    pub fn find() -> Result<Self, PostgresError> {
        if let Some(named) = std::env::var_os(BINARIES_VARIABLE) {
            return Self::at(PathBuf::from(named));
        }
        let mut packaged: Vec<_> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
            .collect();
        packaged.sort();
        let packaged = packaged.into_iter().rev().map(|(_, folder)| folder.join("bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path: Vec<_> = std::env::split_paths(&path).collect();
        packaged
            .chain(on_path)
            .find_map(|folder| Self::at(folder).ok())
            .ok_or(PostgresError::NotFound)
    }

    pub fn at(folder: PathBuf) -> Result<Self, PostgresError> {
        let complete = folder.join("initdb").exists() && folder.join("postgres").exists();
        if complete {
            Ok(Self(folder))
        } else {
            Err(PostgresError::NotFound)
        }
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The major version, from "postgres (PostgreSQL) 15.18 (…)".
    pub fn major(&self) -> Result<u32, PostgresError> {
        let output = Command::new(self.program("postgres")).arg("--version").output();
        let output = output.map_err(io("run postgres --version"))?;
        succeeded("postgres --version", &output)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text
            .split(|c: char| !c.is_ascii_digit())
            .filter(|word| !word.is_empty());
        let major = words.next().and_then(|word| word.parse().ok());
        major.ok_or(PostgresError::Failed {
            program: "postgres --version",
            output: text,
        })
    }
}

/// What a new cluster is made of. The certificate files are copied.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Made here; everything of the cluster lies below it.
    pub folder: &'a Path,
    pub port: u16,
    pub superuser_password: &'a str,
    pub certificate: &'a Path,
    pub private_key: &'a Path,
    /// Signs gatepost's client certificate.
    pub client_ca: &'a Path,
}

/// A cluster on disk, run or not.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    folder: PathBuf,
    port: u16,
    /// Who runs it, when that is not who runs this.
    account: Option<Account>,
}

impl Cluster {
    /// `initdb`, TLS, and who may come in how.
    pub fn make(binaries: Binaries, plan: &Plan<'_>) -> Result<Self, PostgresError> {
        fs::create_dir(plan.folder).map_err(io("make the cluster's folder"))?;
        let owner = fs::metadata(plan.folder).map_err(io("read the cluster's folder"))?;
        let account = if owner.uid() == 0 { Some(account()?) } else { None };
        let cluster = Self {
            binaries,
            folder: plan.folder.to_owned(),
            port: plan.port,
            account,
        };
        own(plan.folder, account, 0o700)?;
        let password = plan.folder.join("superuser-password");
        fs::write(&password, plan.superuser_password).map_err(io("write the superuser's password"))?;
        own(&password, account, 0o600)?;
        cluster.initdb(&password)?;
        fs::remove_file(&password).map_err(io("remove the password file"))?;
        cluster.configure(plan)?;
        Ok(cluster)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    fn run(&self, program: &'static str, arguments: &[&OsStr]) -> Command {
        let mut command = children::command(&self.binaries.program(program), self.account);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC");
        for (name, _) in std::env::vars_os() {
            // Client settings of whoever runs this must not reach the server.
            if name.to_str().is_some_and(|name| name.starts_with("PG")) {
                command.env_remove(name);
            }
        }
        command
    }

    fn initdb(&self, password: &Path) -> Result<(), PostgresError> {
        let data = self.data();
        let arguments = [
            "-D".as_ref(),
            data.as_os_str(),
            "--pwfile".as_ref(),
            password.as_os_str(),
        ];
        let mut command = self.run("initdb", &arguments);
        command.args([
            "-U",
            SUPERUSER,
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        let output = command.output().map_err(io("run initdb"))?;
        succeeded("initdb", &output)
    }

    fn configure(&self, plan: &Plan<'_>) -> Result<(), PostgresError> {
        let data = self.data();
        let copies = [
            (plan.certificate, "server.crt", 0o644),
            (plan.private_key, "server.key", 0o600),
            (plan.client_ca, "client-ca.crt", 0o644),
        ];
        for (from, name, mode) in copies {
            let to = data.join(name);
            fs::copy(from, &to).map_err(io("copy the certificates"))?;
            own(&to, self.account, mode)?;
        }
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nssl = on\n\
             ssl_ca_file = 'client-ca.crt'\npassword_encryption = scram-sha-256\nmax_connections = 120\n\
             log_line_prefix = '%m [%p] %u@%d '\n",
            self.port
        );
        append(&data.join("postgresql.conf"), &settings)?;
        let entrance = data.join("pg_hba.conf");
        fs::write(&entrance, HOST_BASED_AUTHENTICATION).map_err(io("write pg_hba.conf"))
    }

    /// Runs statements as the superuser, before the cluster is started; they end with a semicolon
    /// and an empty line. The server's own single-user mode needs no client program.
    pub fn execute(&self, database: &str, statements: &str) -> Result<(), PostgresError> {
        let data = self.data();
        let arguments = ["--single", "-j", "-E", "-D"].map(OsStr::new);
        let mut command = self.run("postgres", &arguments);
        command.arg(&data).arg(database);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(io("run postgres --single"))?;
        if let Some(mut input) = child.stdin.take() {
            input
                .write_all(statements.as_bytes())
                .map_err(io("hand statements to postgres --single"))?;
        }
        let output = child.wait_with_output().map_err(io("run postgres --single"))?;
        succeeded("postgres --single", &output)?;
        // It goes on after a statement that failed, and exits with 0.
        let told = String::from_utf8_lossy(&output.stderr);
        let failed = ["ERROR:", "FATAL:", "PANIC:"]
            .iter()
            .any(|word| told.contains(word));
        if failed {
            return Err(PostgresError::Failed {
                program: "postgres --single",
                output: told.into_owned(),
            });
        }
        Ok(())
    }

    /// Starts the server and waits until it accepts connections.
    pub async fn start(&self) -> Result<Process, PostgresError> {
        let data = self.data();
        let command = self.run("postgres", &["-D".as_ref(), data.as_os_str()]);
        let mut process = Process::start("postgres", command, &self.log()).map_err(io("start postgres"))?;
        let ready = async {
            let mut look = interval(LOOK_EVERY);
            loop {
                look.tick().await;
                let ended = process.ended().map_err(io("watch postgres"))?;
                if ended.is_some() {
                    return Err(self.not_started());
                }
                if self.accepts().await {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(START_WITHIN, ready)
            .await
            .map_err(|_| self.not_started())??;
        Ok(process)
    }

    /// The port opens before recovery is over; `postmaster.pid` says when it is.
    async fn accepts(&self) -> bool {
        let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        state.lines().any(|line| line.trim() == "ready") && TcpStream::connect(self.address()).await.is_ok()
    }

    pub async fn stop(&self, process: &mut Process) -> Result<(), PostgresError> {
        process
            .stop(Signal::Interrupt, STOP_WITHIN)
            .await
            .map_err(io("stop postgres"))
    }

    fn not_started(&self) -> PostgresError {
        PostgresError::NotStarted {
            log: fs::read_to_string(self.log()).unwrap_or_default(),
        }
    }
}

/// The broker's line stands first: on PostgreSQL 16 and later its ADMIN membership alone would match
/// `+gatepost_minted`.
const HOST_BASED_AUTHENTICATION: &str = "\
# Who may come in how; the first line that matches decides.
hostssl all gatepost_broker   127.0.0.1/32 scram-sha-256
# Minted logins are of use to the holder of gatepost's client certificate alone.
hostssl all +gatepost_minted  all          scram-sha-256 clientcert=verify-ca
host    all +gatepost_minted  all          reject
hostssl all all               127.0.0.1/32 scram-sha-256
";

fn succeeded(program: &'static str, output: &std::process::Output) -> Result<(), PostgresError> {
    if output.status.success() {
        return Ok(());
    }
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    Err(PostgresError::Failed {
        program,
        output: format!("{out}{err}"),
    })
}

fn append(path: &Path, text: &str) -> Result<(), PostgresError> {
    let file = fs::File::options().append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(io("write postgresql.conf"))
}

fn own(path: &Path, account: Option<Account>, mode: u32) -> Result<(), PostgresError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io("set permissions"))?;
    match account {
        Some((user, group)) => {
            chown(path, Some(user), Some(group)).map_err(io("give a file to the server's account"))
        }
        None => Ok(()),
    }
}

/// Whom PostgreSQL may run as when root starts it.
fn account() -> Result<Account, PostgresError> {
    let accounts = fs::read_to_string("/etc/passwd").map_err(io("read /etc/passwd"))?;
    let find = |name: &str| {
        let line = accounts
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .ok_or(PostgresError::NoAccount)
}
