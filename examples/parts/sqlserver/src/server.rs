//! Where the SQL Server is, and how to open a session on it.

use std::fs;
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt as _};

use crate::Failure;

/// Until TCP answers, and then again until the login is answered.
const CONNECT_WAIT: Duration = Duration::from_secs(15);
/// A statement that takes longer counts as a lost connection.
const STATEMENT_WAIT: Duration = Duration::from_secs(30);
/// A token or a ticket; LOGIN7 as a whole holds less than 128 KiB, in two bytes a character.
const SECRET_BYTES_MAX: u64 = 32 * 1024;
/// Asks for the one role that the identity has.
const ANY_ROLE: &str = "auto";

pub(crate) type Session = Client<Compat<TcpStream>>;

/// Any SQL Server address; with gatepost in front, gatepost's.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Where SQL Server, or gatepost in front of it, listens.
    #[arg(long = "sqlserver", env = "SQLSERVER_ADDRESS", value_name = "HOST:PORT")]
    address: String,
    #[arg(long, env = "SQLSERVER_DATABASE")]
    database: String,
    /// The wanted role, or the login when a password is used.
    #[arg(long, env = "SQLSERVER_USER", default_value = ANY_ROLE, value_name = "ROLE")]
    user: String,
    #[command(flatten)]
    secret: Secret,
    /// Certificates (PEM) of those who may sign the server's, besides the system's.
    #[arg(long = "ca", env = "SQLSERVER_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Speak TDS 8.0, with TLS from the first byte.
    #[arg(long, env = "SQLSERVER_STRICT")]
    strict: bool,
}

/// Files are read again for every session, so that a renewed token is taken up.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct Secret {
    /// The consumer's OIDC access token.
    #[arg(long, env = "SQLSERVER_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A ticket from gatepost, or a password.
    #[arg(long, env = "SQLSERVER_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Server {
    pub(crate) async fn connect(&self, application: &str) -> Result<(Session, Cable), Failure> {
        let (host, port) = split_address(&self.address)?;
        let mut config = Config::new();
        config.host(host);
        config.port(port);
        config.database(&self.database);
        config.application_name(application);
        config.authentication(self.authentication()?);
        config.encryption(if self.strict {
            EncryptionLevel::Strict
        } else {
            EncryptionLevel::Required
        });
        if let Some(ca) = &self.ca {
            config.trust_cert_ca_bundle(fs::read(ca).map_err(|error| unreadable(ca, &error))?);
        }
        config.handshake_timeout(Some(CONNECT_WAIT));
        config.command_timeout(Some(STATEMENT_WAIT));

        let stream = match timeout(CONNECT_WAIT, TcpStream::connect((host, port))).await {
            Ok(connected) => connected?,
            Err(_) => return Err(Box::new(std::io::Error::from(std::io::ErrorKind::TimedOut))),
        };
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let cable = Cable(stream.try_clone()?);
        let session = Client::connect(config, TcpStream::from_std(stream)?.compat_write()).await?;
        Ok((session, cable))
    }

    /// A token for the role that the identity has goes the way that TDS has for tokens. That way names no
    /// user, so a token for a role by name goes in the password field.
    fn authentication(&self) -> Result<AuthMethod, Failure> {
        if let Some(file) = &self.secret.token_file {
            let token = read_secret(file)?;
            return Ok(if self.user == ANY_ROLE {
                AuthMethod::aad_token(token)
            } else {
                AuthMethod::sql_server(&self.user, token)
            });
        }
        let file = self.secret.password_file.as_deref();
        let password = read_secret(file.ok_or("neither a token file nor a password file is given")?)?;
        Ok(AuthMethod::sql_server(&self.user, password))
    }
}

/// The session's socket once more, to be cut by whoever wants to see what happens then.
#[derive(Debug)]
pub(crate) struct Cable(std::net::TcpStream);

impl Cable {
    pub(crate) fn cut(&self) {
        // It may be closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// `[::1]:1433` and `db.internal:1433`.
fn split_address(address: &str) -> Result<(&str, u16), Failure> {
    let wrong = || format!("`{address}` is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    match port.parse() {
        Ok(port) if !host.is_empty() => Ok((host, port)),
        _ => Err(wrong().into()),
    }
}

fn read_secret(file: &Path) -> Result<String, Failure> {
    let size = fs::metadata(file)
        .map_err(|error| unreadable(file, &error))?
        .len();
    if size > SECRET_BYTES_MAX {
        return Err(format!("{} is too large to hold one secret", file.display()).into());
    }
    let secret = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    match secret.trim_end() {
        "" => Err(format!("{} is empty", file.display()).into()),
        secret => Ok(secret.to_owned()),
    }
}

/// Not the I/O error itself: one of those from the network is tried again.
fn unreadable(file: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", file.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use tiberius::AuthMethod;

    use super::{SECRET_BYTES_MAX, Server, split_address};

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        server: Server,
    }

    fn server(arguments: &[&str]) -> Option<Server> {
        let always = ["example", "--sqlserver", "127.0.0.1:1433", "--database", "orders"];
        let arguments = always.iter().chain(arguments);
        Arguments::try_parse_from(arguments).ok().map(|it| it.server)
    }

    #[test]
    fn a_secret_goes_where_it_belongs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        fs::write(path, "secret\n").unwrap();
        let goes = |arguments: &[&str]| server(arguments).unwrap().authentication().unwrap();
        assert_eq!(goes(&["--token-file", path]), AuthMethod::aad_token("secret"));
        assert_eq!(
            goes(&["--token-file", path, "--user", "orders_writer"]),
            AuthMethod::sql_server("orders_writer", "secret")
        );
        assert_eq!(
            goes(&["--password-file", path]),
            AuthMethod::sql_server("auto", "secret")
        );
        assert!(server(&[]).is_none());
        assert!(server(&["--token-file", path, "--password-file", path]).is_none());
    }

    #[test]
    fn a_file_that_holds_no_secret_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let server = server(&["--token-file", path]).unwrap();
        assert!(server.authentication().is_err());
        fs::write(path, vec![b'x'; SECRET_BYTES_MAX as usize + 1]).unwrap();
        assert!(server.authentication().is_err());
        drop(file);
        assert!(server.authentication().is_err());
    }

    #[test]
    fn addresses_are_split_at_the_last_colon() {
        let split = |address| split_address(address).ok();
        assert_eq!(split("127.0.0.1:1433"), Some(("127.0.0.1", 1433)));
        assert_eq!(split("db.internal:1"), Some(("db.internal", 1)));
        assert_eq!(split("[::1]:1433"), Some(("::1", 1433)));
        for wrong in ["db.internal", ":1433", "db.internal:", "db.internal:65536", ""] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
