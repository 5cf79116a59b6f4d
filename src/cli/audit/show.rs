//! `gatepost audit show`: which identity did what, for which message, with which outcome.

use std::time::SystemTime;

use clap::Args;

use crate::audit::show::{Filter, Table, rows};
use crate::cli::audit::Journal;
use crate::cli::{Answer, Failure, say};

/// List transactions: identity, correlation id, the database's transaction id, outcome.
///
/// Reads, and does not prove: "gatepost audit verify" does. Exits with 1 when nothing matches.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost audit show --config gatepost.yaml --correlation order-4711
  gatepost audit show --directory audit --identity billing --from 2026-01-01T00:00:00Z --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    journal: Journal,
    /// Part of the provider, subject, client id, tenant or name.
    #[arg(long, value_name = "TEXT")]
    identity: Option<String>,
    /// A whole correlation id.
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// The database's transaction id.
    #[arg(long, value_name = "NUMBER")]
    xid: Option<u64>,
    /// Begun at this time or later (RFC 3339, UTC).
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<SystemTime>,
    /// Begun before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<SystemTime>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<SystemTime, humantime::TimestampError> {
    humantime::parse_rfc3339_weak(text)
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Some(directory) = arguments.journal.directory() else {
        return Ok(Answer::No);
    };
    let filter = Filter {
        identity: arguments.identity.clone(),
        correlation: arguments.correlation.clone(),
        xid: arguments.xid,
        from: arguments.from,
        until: arguments.to,
    };
    let found = rows(&directory, &filter)?;
    if arguments.json {
        for row in &found {
            say(&serde_json::to_string(row)?)?;
        }
    } else {
        say(&Table(&found))?;
    }
    Ok(if found.is_empty() {
        Answer::No
    } else {
        Answer::Good
    })
}
