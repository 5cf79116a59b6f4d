//! From what was written to what is meant: the checks that need more than one key, the defaults,
//! paths relative to the file that names them, and secrets fetched from where they lie.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::app::config::file::{self, Must, Named, SecretRef, Written};
use crate::app::config::read::{Reader, is_plain_name, not_a_plain_name};
use crate::app::config::settings::{
    Database, Environment, Log, LogFormat, LogLevel, Pool, ServerTls, Settings, Target, TargetTls, TlsMode,
};
use crate::domain::{DatabaseName, Engine, Installation, ReplicaName, Secret, TargetName};

/// Connections to a target when the file does not say: far below PostgreSQL's default of 100, so
/// that two replicas and other clients fit.
const MAX_CONNECTIONS_DEFAULT: u32 = 20;
/// Longer than a burst, shorter than most clients' own patience.
const QUEUE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Long enough for a worker that polls, short enough to give connections back after a peak.
const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
/// Long enough for a transaction that is under way, short enough that an end is an end.
const EXPIRY_GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// A timeout above a day is a typing mistake.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// More threads than this help no machine that gatepost was measured on.
const THREADS_MAX: u32 = 512;

/// `None` when something needed is missing, of which the reader already knows.
pub(super) fn settings(
    written: &file::ConfigFile,
    environment: &Environment<'_>,
    reader: &mut Reader<'_>,
) -> Option<Settings> {
    let mut resolver = Resolver { environment, reader };
    // Everything is resolved before one missing part can end it.
    let installation = resolver.plain_name(written.installation.get());
    let replica = match &written.replica {
        Some(replica) => resolver.plain_name(Some(replica)),
        None => Some(environment.default_replica.clone()),
    };
    let postgres = resolver.postgres_door(written);
    let sqlserver = resolver.sqlserver_door(written);
    resolver.some_door(written);
    resolver.reachable(written);
    let metrics = resolver.metrics_door(&written.listen);
    let api = resolver.api_door(written);
    let admin_socket = resolver.admin_socket(&written.listen);
    let tls = written.tls.as_ref().map(|tls| resolver.server_tls(tls));
    let providers = resolver.providers(&written.identity_providers);
    let targets = resolver.targets(&written.targets);
    let policies = resolver.policies(&written.policies);
    let audit = resolver.audit(&written.audit);
    let threads = resolver.threads(written.threads.as_ref());
    let grace = written
        .session
        .as_ref()
        .and_then(|session| session.expiry_grace.as_ref());
    let expiry_grace = resolver.duration(grace, EXPIRY_GRACE_DEFAULT);
    let tickets = resolver.tickets(written);
    Some(Settings {
        installation: Installation::new(installation?),
        replica: ReplicaName::new(replica?),
        postgres: postgres?,
        sqlserver: sqlserver?,
        metrics: metrics?,
        api: api?,
        admin_socket: admin_socket?,
        tls: tls.map_or(Some(None), |tls| tls.map(Some))?,
        providers: providers?,
        targets: targets?,
        policies: policies?,
        audit: audit?,
        threads: threads?,
        expiry_grace: expiry_grace?,
        tickets: tickets?,
        files: Vec::new(),
        log: log(written.log.as_ref()),
    })
}

fn log(written: Option<&file::Log>) -> Log {
    let format = written.and_then(|log| log.format.as_ref());
    let level = written.and_then(|log| log.level.as_ref());
    Log {
        format: format.map_or(LogFormat::Text, |format| format.value),
        level: level.map_or(LogLevel::Info, |level| level.value),
    }
}

/// Paths are relative to the file that names them.
pub(super) fn beside(file: &Path, written: &str) -> PathBuf {
    file.parent().unwrap_or_else(|| Path::new("")).join(written)
}

/// The admin socket's path as it stands in the file.
pub(super) fn written_socket(written: &file::ConfigFile) -> Option<&str> {
    let door = written.listen.get()?.admin_socket.as_ref()?;
    door.path.get().map(|path| path.value.as_str())
}

pub(super) struct Resolver<'r, 'f, 'e> {
    pub(super) environment: &'r Environment<'e>,
    pub(super) reader: &'r mut Reader<'f>,
}

impl Resolver<'_, '_, '_> {
    fn plain_name(&mut self, name: Option<&Written<String>>) -> Option<String> {
        let name = name?;
        if !is_plain_name(&name.value) {
            self.reader.mistake(name.at, not_a_plain_name(&name.value));
            return None;
        }
        Some(name.value.clone())
    }

    fn server_tls(&mut self, written: &Must<file::ServerTls>) -> Option<ServerTls> {
        let written = written.get()?;
        let certificate = self.existing_path(written.certificate.get());
        let private_key = self.secret(written.private_key.get());
        Some(ServerTls {
            certificate: certificate?,
            private_key: private_key?,
        })
    }

    pub(super) fn path(&self, written: &str) -> PathBuf {
        beside(self.reader.file(), written)
    }

    pub(super) fn existing_path(&mut self, written: Option<&Written<String>>) -> Option<PathBuf> {
        let written = written?;
        let path = self.path(&written.value);
        if let Err(error) = (self.environment.read_file)(&path) {
            let message = format!("cannot read {}: {error}", path.display());
            self.reader.mistake(written.at, message);
            return None;
        }
        Some(path)
    }

    pub(super) fn secret(&mut self, written: Option<&Written<SecretRef>>) -> Option<Secret<Vec<u8>>> {
        let written = written?;
        let fetched = match &written.value {
            SecretRef::Env(name) => match (self.environment.variable)(name) {
                Some(value) => Ok(value.into_bytes()),
                None => Err(format!("environment variable {name} is not set")),
            },
            SecretRef::File(path) => {
                let path = self.path(path);
                let shown = path.display();
                (self.environment.read_file)(&path).map_err(|error| format!("cannot read {shown}: {error}"))
            }
        };
        let fetched = fetched.and_then(|bytes| match bytes.as_slice() {
            [] | [b'\n'] | [b'\r', b'\n'] => Err("the secret is empty".to_owned()),
            _ => Ok(bytes),
        });
        match fetched {
            Ok(bytes) => Some(Secret::new(bytes)),
            Err(message) => {
                self.reader.mistake(written.at, message);
                None
            }
        }
    }

    /// A secret that is a line of text; editors end files with a line break that is not part of it.
    pub(super) fn secret_line(&mut self, written: Option<&Written<SecretRef>>) -> Option<Secret<String>> {
        let written = written?;
        let bytes = self.secret(Some(written))?;
        let Ok(text) = std::str::from_utf8(bytes.expose()) else {
            self.reader.mistake(written.at, "the secret is not UTF-8 text");
            return None;
        };
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains(['\n', '\r', '\0']) {
            self.reader
                .mistake(written.at, "the secret has more than one line");
            return None;
        }
        Some(Secret::new(line.to_owned()))
    }

    fn targets(&mut self, written: &Must<Written<Named<file::Target>>>) -> Option<Vec<Target>> {
        let written = written.get()?;
        if written.value.0.is_empty() && self.reader.is_clean() {
            self.reader.mistake(written.at, "at least one target is needed");
        }
        let mut asked: BTreeMap<_, BTreeMap<String, String>> = BTreeMap::new();
        let mut targets = Vec::new();
        for (name, target) in &written.value.0 {
            let listener = target.engine.get().map(|engine| engine.value);
            self.database_names(name, target, asked.entry(listener).or_default());
            targets.extend(self.target(name, target));
        }
        Some(targets)
    }

    /// All targets of one engine are behind one listener, so a name must mean one database.
    fn database_names(
        &mut self,
        target: &Written<String>,
        written: &file::Target,
        asked: &mut BTreeMap<String, String>,
    ) {
        let Some(databases) = written.databases.get() else {
            return;
        };
        if databases.value.is_empty() && self.reader.is_clean() {
            self.reader
                .mistake(databases.at, "at least one database is needed");
        }
        for database in &databases.value {
            let Some(name) = asked_as(database) else { continue };
            if name.value.contains('/') {
                let message = "a database that holds \"/\" needs an alias: clients write target/database";
                self.reader.mistake(name.at, message);
            }
            if let Some(other) = asked.insert(name.value.clone(), target.value.clone()) {
                let name_text = &name.value;
                let message = format!(
                    "\"{name_text}\" already names a database of target \"{other}\"; give one an alias: {{name: {name_text}, alias: …}}"
                );
                self.reader.mistake(name.at, message);
            }
        }
    }

    fn target(&mut self, name: &Written<String>, written: &file::Target) -> Option<Target> {
        let address = written
            .address
            .get()
            .and_then(|address| self.host_and_port(address));
        let tls = self.target_tls(written.tls.as_ref());
        let engine = written.engine.get().map(|engine| match engine.value {
            file::Engine::Postgres => Engine::Postgres,
            file::Engine::SqlServer => Engine::SqlServer,
        });
        let mode = tls.as_ref().map(|tls| tls.mode);
        let broker = self.broker(written, engine, mode);
        let pool = self.pool(written.pool.as_ref());
        let databases = written.databases.get()?.value.iter().filter_map(|database| {
            let name = match database {
                file::Database::Plain(name) => Some(name),
                file::Database::Aliased(aliased) => aliased.name.get(),
            };
            Some(Database {
                name: DatabaseName::new(&name?.value),
                asked_as: asked_as(database)?.value.clone(),
            })
        });
        self.of_engine(written);
        let marker_table = self.marker_table(written);
        let (host, port) = address?;
        let (broker_user, broker, logins) = broker?;
        Some(Target {
            name: TargetName::new(&name.value),
            engine: engine?,
            host,
            port,
            tls: tls?,
            databases: databases.collect(),
            broker_user,
            broker,
            logins,
            pool: pool?,
            wal_marker: written.wal_marker.as_ref().is_some_and(|marker| marker.value),
            marker_table,
            contained: written.contained.as_ref().is_some_and(|it| it.value),
        })
    }

    pub(super) fn host_and_port(&mut self, address: &Written<String>) -> Option<(String, u16)> {
        let split = address.value.rsplit_once(':');
        let parsed =
            split.and_then(|(host, port)| Some((host, port.parse::<u16>().ok().filter(|port| *port > 0)?)));
        let Some((host, port)) =
            parsed.filter(|(host, _)| !host.is_empty() && !host.contains(['/', ' ', '@']))
        else {
            let shown = &address.value;
            let message = format!("\"{shown}\" is not a host and port, like db.internal:5432");
            self.reader.mistake(address.at, message);
            return None;
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        Some((host.to_owned(), port))
    }

    fn target_tls(&mut self, written: Option<&Must<file::TargetTls>>) -> Option<TargetTls> {
        let Some(written) = written else {
            let mode = TlsMode::VerifyFull;
            return Some(TargetTls {
                mode,
                ca: None,
                client: None,
            });
        };
        let written = written.get()?;
        let mode = written
            .mode
            .as_ref()
            .map_or(TlsMode::VerifyFull, |mode| mode.value);
        let ca = match &written.ca {
            Some(ca) => self.existing_path(Some(ca)).map(Some),
            None => Some(None),
        };
        let client = match (&written.client_certificate, &written.client_key) {
            (None, None) => Some(None),
            (Some(certificate), Some(key)) => {
                let certificate = self.existing_path(Some(certificate));
                let key = self.secret(Some(key));
                certificate.zip(key).map(Some)
            }
            (Some(certificate), None) => {
                self.reader
                    .mistake(certificate.at, "a client_certificate needs its client_key");
                None
            }
            (None, Some(key)) => {
                self.reader
                    .mistake(key.at, "a client_key needs its client_certificate");
                None
            }
        };
        self.unused_tls_keys(written, mode);
        Some(TargetTls {
            mode,
            ca: ca?,
            client: client?,
        })
    }

    /// A file that the mode never looks at would look like protection.
    fn unused_tls_keys(&mut self, written: &file::TargetTls, mode: TlsMode) {
        let ignored = match mode {
            TlsMode::Disable => written.ca.as_ref().map(|ca| ca.at).or_else(|| {
                let certificate = written.client_certificate.as_ref();
                certificate.map(|certificate| certificate.at)
            }),
            TlsMode::Require => written.ca.as_ref().map(|ca| ca.at),
            TlsMode::VerifyCa | TlsMode::VerifyFull | TlsMode::Strict => None,
        };
        if let Some(at) = ignored {
            let mode = if mode == TlsMode::Disable {
                "disable"
            } else {
                "require"
            };
            let message = format!("mode: {mode} would ignore this; use verify-full, or remove it");
            self.reader.mistake(at, message);
        }
    }

    fn pool(&mut self, written: Option<&file::Pool>) -> Option<Pool> {
        let max_connections = written.and_then(|pool| pool.max_connections.as_ref());
        if let Some(max) = max_connections
            && max.value == 0
        {
            self.reader.mistake(max.at, "must be at least 1");
        }
        let queue = written.and_then(|pool| pool.queue_timeout.as_ref());
        let idle = written.and_then(|pool| pool.idle_timeout.as_ref());
        let queue_timeout = self.duration(queue, QUEUE_TIMEOUT_DEFAULT);
        let idle_timeout = self.duration(idle, IDLE_TIMEOUT_DEFAULT);
        Some(Pool {
            max_connections: max_connections.map_or(MAX_CONNECTIONS_DEFAULT, |max| max.value),
            queue_timeout: queue_timeout?,
            idle_timeout: idle_timeout?,
        })
    }

    fn duration(&mut self, written: Option<&Written<String>>, default: Duration) -> Option<Duration> {
        let Some(written) = written else {
            return Some(default);
        };
        let wrong = match humantime::parse_duration(&written.value) {
            Ok(duration) if duration.is_zero() => "must be longer than nothing",
            Ok(duration) if duration > TIMEOUT_MAX => "must be a day or less",
            Ok(duration) => return Some(duration),
            Err(_) => "is not a duration, like 30s, 5m or 1h",
        };
        let message = format!("\"{}\" {wrong}", written.value);
        self.reader.mistake(written.at, message);
        None
    }

    fn policies(&mut self, written: &Must<Written<Vec<Written<String>>>>) -> Option<Vec<PathBuf>> {
        let written = written.get()?;
        if written.value.is_empty() && self.reader.is_clean() {
            let message = "at least one policy file or folder is needed: without one, nobody gets in";
            self.reader.mistake(written.at, message);
        }
        Some(written.value.iter().map(|path| self.path(&path.value)).collect())
    }

    fn threads(&mut self, written: Option<&Written<u32>>) -> Option<usize> {
        let Some(written) = written else {
            return Some(self.environment.cores);
        };
        if written.value == 0 || written.value > THREADS_MAX {
            let message = format!("must be between 1 and {THREADS_MAX}");
            self.reader.mistake(written.at, message);
            return None;
        }
        usize::try_from(written.value).ok()
    }
}

/// The name that clients write.
fn asked_as(database: &file::Database) -> Option<&Written<String>> {
    match database {
        file::Database::Plain(name) => Some(name),
        file::Database::Aliased(aliased) => aliased.alias.get(),
    }
}
