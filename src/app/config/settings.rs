//! `gatepost.yaml` as meant: checked, defaults filled in, paths and secrets resolved.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::app::config::read::Reader;
use crate::app::config::{file, resolve};
use crate::audit::heads::SecondPlace;
use crate::audit::retention::Retention;
use crate::credential::Logins;
use crate::domain::autocommit::Autocommit;
use crate::domain::marker_table::MarkerTable;
use crate::domain::{
    DatabaseName, Engine, Installation, Mistake, Network, ProviderName, ReplicaName, Secret, TargetName,
};

use crate::identity::managed;
use crate::sink;

pub use crate::app::config::file::{Durability, LogFormat, LogLevel, ProviderKind, TlsMode};

/// What the rest of the program is built from. Nothing in it is unchecked.
#[derive(Debug)]
pub struct Settings {
    pub installation: Installation,
    pub replica: ReplicaName,
    pub postgres: Option<Door>,
    pub sqlserver: Option<SqlServerDoor>,
    pub metrics: Option<SocketAddr>,
    /// Only with `tls`.
    pub api: Option<SocketAddr>,
    pub admin_socket: Option<PathBuf>,
    pub tls: Option<ServerTls>,
    pub providers: Vec<Provider>,
    pub targets: Vec<Target>,
    pub policies: Vec<PathBuf>,
    pub audit: Audit,
    pub threads: usize,
    /// How long a transaction that is open when its session ends may still commit.
    pub expiry_grace: Duration,
    pub tickets: Tickets,
    pub log: Log,
    /// The configuration file and the files of its secrets: what was read to make this.
    pub files: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    pub address: SocketAddr,
    pub allow_plaintext: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlServerDoor {
    pub door: Door,
    /// Whom drivers are sent to when they ask where to fetch a token.
    pub token_provider: Option<ProviderName>,
}

#[derive(Debug)]
pub struct ServerTls {
    pub certificate: PathBuf,
    pub private_key: Secret<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    pub name: ProviderName,
    pub kind: ProviderKind,
    pub issuer: String,
    /// Whose tokens are believed, where the issuer speaks for many tenants; else empty.
    pub tenants: Vec<String>,
    pub audiences: Vec<String>,
    pub ca: Option<PathBuf>,
    /// Where SQL Server drivers fetch a token, and for which resource.
    pub sts_url: String,
    pub spn: String,
}

#[derive(Debug)]
pub struct Target {
    pub name: TargetName,
    pub engine: Engine,
    pub host: String,
    pub port: u16,
    pub tls: TargetTls,
    pub databases: Vec<Database>,
    pub broker_user: String,
    pub broker: BrokerCredential,
    pub logins: Logins,
    pub pool: Pool,
    /// PostgreSQL: mark every transaction that writes in the server's WAL.
    pub wal_marker: bool,
    /// SQL Server: mark every transaction that writes in this table of its database.
    pub marker_table: Option<MarkerTable>,
    /// SQL Server: logins are contained users.
    pub contained: bool,
}

/// What the broker logs in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerCredential {
    Password(Secret<String>),
    ManagedIdentity(managed::Settings),
}

impl BrokerCredential {
    pub const fn managed_identity(&self) -> Option<&managed::Settings> {
        match self {
            Self::Password(_) => None,
            Self::ManagedIdentity(settings) => Some(settings),
        }
    }
}

/// A database and the name under which clients ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub name: DatabaseName,
    pub asked_as: String,
}

#[derive(Debug)]
pub struct TargetTls {
    pub mode: TlsMode,
    pub ca: Option<PathBuf>,
    pub client: Option<(PathBuf, Secret<Vec<u8>>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub max_connections: u32,
    pub queue_timeout: Duration,
    pub idle_timeout: Duration,
}

#[derive(Debug)]
pub struct Audit {
    pub directory: PathBuf,
    pub durability: Durability,
    pub autocommit: Autocommit,
    pub signing_key: Secret<Vec<u8>>,
    pub previous_signing_key: Option<Secret<Vec<u8>>>,
    pub heads: SecondPlace,
    pub retention: Retention,
    pub sinks: Vec<sink::Settings>,
}

/// Where tickets may be bound to besides the address of whoever asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tickets {
    pub networks: Vec<Network>,
    pub any_address: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
}

/// Where the admin socket of this configuration is, if it has one. Reads nothing but the file: its
/// secrets are not for everybody who asks the running process something.
pub fn admin_socket(path: &Path) -> Result<Option<PathBuf>, Vec<Mistake>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![Mistake::general(format!(
            "cannot read {}: {error}",
            path.display()
        ))]
    })?;
    let mut reader = Reader::new(path, &text);
    let written = reader.read::<file::ConfigFile>();
    let socket = written.and_then(|written| resolve::written_socket(&written).map(ToOwned::to_owned));
    match socket {
        Some(socket) => Ok(Some(resolve::beside(path, &socket))),
        None if reader.is_clean() => Ok(None),
        None => Err(reader.into_mistakes()),
    }
}

/// What the process tells about its surroundings; tests hand in their own.
pub struct Environment<'a> {
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    pub read_file: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// Host name and process id.
    pub default_replica: String,
    pub cores: usize,
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

impl Environment<'static> {
    pub fn of_process() -> Self {
        Self {
            variable: &|name| std::env::var(name).ok(),
            read_file: &|path| std::fs::read(path),
            default_replica: default_replica(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Host names may hold dots and be long; a replica's name is a plain one.
fn default_replica() -> String {
    /// Bytes of the host name that are kept; the process id takes up to ten more.
    const HOST_BYTES_MAX: usize = 28;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let host: String = host.trim().chars().map(plain).take(HOST_BYTES_MAX).collect();
    let host = if host.starts_with(|c: char| c.is_ascii_alphabetic()) {
        host
    } else {
        format!("r{host}")
    };
    format!("{host}-{}", std::process::id())
}

impl Settings {
    /// Reads and checks the file. Every mistake that can be found is in the error.
    pub fn load(path: &Path, environment: &Environment<'_>) -> Result<Self, Vec<Mistake>> {
        let files = RefCell::new(Vec::new());
        let noting = |path: &Path| {
            files.borrow_mut().push(path.to_owned());
            (environment.read_file)(path)
        };
        let noted = Environment {
            variable: environment.variable,
            read_file: &noting,
            default_replica: environment.default_replica.clone(),
            cores: environment.cores,
        };
        let mut settings = Self::read(path, &noted)?;
        settings.files = files.take();
        Ok(settings)
    }

    fn read(path: &Path, environment: &Environment<'_>) -> Result<Self, Vec<Mistake>> {
        let bytes = (environment.read_file)(path).map_err(|error| {
            let shown = path.display();
            vec![Mistake::general(format!("cannot read {shown}: {error}"))]
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|_| vec![Mistake::general(format!("{} is not UTF-8", path.display()))])?;
        Self::parse(path, &text, environment)
    }

    pub fn parse(path: &Path, text: &str, environment: &Environment<'_>) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader::new(path, text);
        let written = reader.read::<file::ConfigFile>();
        let meant = written.and_then(|written| resolve::settings(&written, environment, &mut reader));
        match meant {
            Some(settings) if reader.is_clean() => Ok(settings),
            Some(_) | None => Err(reader.into_mistakes()),
        }
    }
}
