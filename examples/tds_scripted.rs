//! The tests' scripted server, for trying gatepost where no SQL Server is at hand. It keeps everything in memory.
//! Not a database: it knows as much T-SQL as the tests and examples say.

#![expect(clippy::print_stdout, reason = "scripts read the address from it")]

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Parser;
use gatepost::domain::Secret;
use gatepost::tls::{ServerSettings, ServerTls};
use serde::Deserialize;

#[path = "../tests/support/tds/mod.rs"]
#[expect(dead_code, reason = "tests in the same process look at more")]
mod scripted;

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// PEM; without it there is no TLS.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
    /// TDS 8.0 only: TLS from the first byte.
    #[arg(long)]
    strict: bool,
    /// Clients that cannot encrypt are served too.
    #[arg(long)]
    plaintext: bool,
    /// Who there is: {"sa": password, "tokens": {token: login}, "setup": [{"database", "sql"}]}.
    #[arg(long)]
    users: PathBuf,
    /// Committed transactions, one JSON object a line.
    #[arg(long)]
    journal: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Users {
    sa: String,
    #[serde(default)]
    tokens: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    setup: Vec<Setup>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setup {
    database: String,
    sql: String,
}

#[expect(clippy::disallowed_methods, reason = "the clock of a program of its own")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let users: Users = serde_json::from_slice(&std::fs::read(&arguments.users)?)?;
    let tls = match (arguments.certificate, arguments.key) {
        (Some(certificate), Some(key)) => {
            let private_key = Secret::new(std::fs::read(key)?);
            let settings = ServerSettings {
                certificate,
                private_key,
            };
            Some(Arc::new(ServerTls::load(&settings, now())?))
        }
        _ => None,
    };
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    let server = scripted::Server::listen(
        listener,
        scripted::Options {
            tls,
            strict: arguments.strict,
            plaintext: arguments.plaintext,
            sa: users.sa,
            tokens: users.tokens.into_iter().collect(),
            azure: false,
            setup: users
                .setup
                .into_iter()
                .map(|setup| (setup.database, setup.sql))
                .collect(),
        },
    )?;
    if let Some(journal) = arguments.journal {
        server.write_journal(std::fs::File::create(journal)?);
    }
    println!("listening on {}", server.address);
    tokio::signal::ctrl_c().await?;
    Ok(())
}
