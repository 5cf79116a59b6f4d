//! SQL as the database's administrator, not through gatepost: to show what happens when the database changes.

use std::fs;
use std::path::Path;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use crate::parts::{Access, Failure};

/// Reads the variables that `gatepost dev` sets.
pub(crate) async fn run(file: &Path) -> Result<(), Failure> {
    let value = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let access = Access::from_environment("ANALYST")?;
    let mut config = Config::new();
    config
        .host(&access.host)
        .port(value("GATEPOST_DEV_SERVER_PORT")?.parse()?)
        .dbname(&access.database)
        .user(value("GATEPOST_DEV_SERVER_SUPERUSER")?)
        .password(fs::read_to_string(value("GATEPOST_DEV_SERVER_PASSWORD_FILE")?)?.trim_end())
        .ssl_mode(SslMode::Require);
    let (client, connection) = config.connect(access.tls()?).await?;
    let running = tokio::spawn(connection);
    client.batch_execute(&fs::read_to_string(file)?).await?;
    drop(client);
    running.await??;
    Ok(())
}
