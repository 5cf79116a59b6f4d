//! What an auditor asks of a journal: one row per transaction, with its correlation ids and outcome.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::audit::verify::{lines_of, segments};

/// Which transactions. What is not set does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Part of the provider, subject, client id, tenant or name; upper and lower case alike.
    pub identity: Option<String>,
    /// A whole correlation id.
    pub correlation: Option<String>,
    /// The engine's transaction id.
    pub xid: Option<u64>,
    /// By the time the transaction began: from here on …
    pub from: Option<SystemTime>,
    /// … and before this.
    pub until: Option<SystemTime>,
}

#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    #[error("cannot read the journal")]
    Read(#[from] std::io::Error),
    #[error("{file}, line {line} is not an audit record; run \"gatepost audit verify\"")]
    NotARecord { file: String, line: u64 },
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub began: String,
    pub session: String,
    pub number: u64,
    pub provider: String,
    pub subject: String,
    pub name: Option<String>,
    pub client_id: Option<String>,
    pub tenant: Option<String>,
    pub target: String,
    pub database: String,
    pub role: String,
    pub login: String,
    pub xid: Option<u64>,
    /// `None`: only the intent is on record. Whether it was committed is not known.
    pub outcome: Option<String>,
    pub scope: Option<String>,
    pub correlation: Vec<String>,
    pub statements: Vec<RowStatement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowStatement {
    pub fingerprint: String,
    pub kind: String,
    #[serde(default)]
    pub rows: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Read {
    event: String,
    epoch: u64,
    session: String,
    identity: ReadIdentity,
    target: String,
    database: String,
    role: String,
    login: String,
    correlation: Vec<ReadCorrelation>,
    detail: serde_json::Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReadIdentity {
    provider: String,
    subject: String,
    client_id: Option<String>,
    tenant: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct ReadCorrelation {
    id: String,
}

#[derive(Deserialize)]
struct ReadTransaction {
    number: u64,
    id: Option<u64>,
    began: String,
    outcome: Option<String>,
    scope: Option<String>,
    statements: Vec<RowStatement>,
}

/// A later verdict on a transaction.
#[derive(Deserialize)]
struct ReadReconciled {
    of_epoch: u64,
    number: u64,
    outcome: String,
}

/// The transactions that match, in the order in which they were first recorded. It shows what is
/// written; whether that can be trusted is for `verify` to say.
pub fn rows(directory: &Path, filter: &Filter) -> Result<Vec<Row>, ShowError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut places: HashMap<(u64, String, u64), usize> = HashMap::new();
    for spot in segments(directory)?.into_iter().flat_map(lines_of) {
        let bytes = spot.bytes?;
        let Some(text) = bytes.strip_suffix(b"\n") else {
            continue;
        };
        let wrong = || ShowError::NotARecord {
            file: spot.file.display().to_string(),
            line: spot.line,
        };
        let read: Read = serde_json::from_slice(text).map_err(|_| wrong())?;
        if !read.event.starts_with("transaction.") {
            continue;
        }
        if read.event == "transaction.reconciled" {
            let reconciled = serde_json::from_value(read.detail).map_err(|_| wrong())?;
            let ReadReconciled {
                of_epoch,
                number,
                outcome,
            } = reconciled;
            if let Some(place) = places.get(&(of_epoch, read.session, number))
                && let Some(row) = rows.get_mut(*place)
            {
                row.outcome = Some(outcome);
            }
            continue;
        }
        let epoch = read.epoch;
        let row = row(read).ok_or_else(wrong)?;
        if let Some(known) = places
            .get(&(epoch, row.session.clone(), row.number))
            .and_then(|place| rows.get_mut(*place))
        {
            merge(known, row);
        } else {
            places.insert((epoch, row.session.clone(), row.number), rows.len());
            rows.push(row);
        }
    }
    rows.retain(|row| filter.admits(row));
    Ok(rows)
}

fn row(read: Read) -> Option<Row> {
    let transaction: ReadTransaction = serde_json::from_value(read.detail).ok()?;
    Some(Row {
        began: transaction.began,
        session: read.session,
        number: transaction.number,
        provider: read.identity.provider,
        subject: read.identity.subject,
        name: read.identity.name,
        client_id: read.identity.client_id,
        tenant: read.identity.tenant,
        target: read.target,
        database: read.database,
        role: read.role,
        login: read.login,
        xid: transaction.id,
        outcome: transaction.outcome,
        scope: transaction.scope,
        correlation: read.correlation.into_iter().map(|one| one.id).collect(),
        statements: transaction.statements,
    })
}

/// The later record knows more; what only the earlier knew stays.
fn merge(known: &mut Row, later: Row) {
    let mut correlation = std::mem::take(&mut known.correlation);
    for id in later.correlation {
        if !correlation.contains(&id) {
            correlation.push(id);
        }
    }
    known.correlation = correlation;
    known.xid = later.xid.or(known.xid);
    known.outcome = later.outcome.or(known.outcome.take());
    known.scope = later.scope.or(known.scope.take());
    if later.statements.len() >= known.statements.len() {
        known.statements = later.statements;
    }
}

impl Filter {
    fn admits(&self, row: &Row) -> bool {
        let names = [
            Some(&row.provider),
            Some(&row.subject),
            row.name.as_ref(),
            row.client_id.as_ref(),
            row.tenant.as_ref(),
        ];
        let is_named = |part: &String| {
            let part = part.to_lowercase();
            names
                .iter()
                .flatten()
                .any(|name| name.to_lowercase().contains(&part))
        };
        let began = humantime::parse_rfc3339(&row.began).ok();
        self.identity.as_ref().is_none_or(is_named)
            && self
                .correlation
                .as_ref()
                .is_none_or(|id| row.correlation.contains(id))
            && self.xid.is_none_or(|xid| row.xid == Some(xid))
            && self
                .from
                .is_none_or(|from| began.is_some_and(|began| began >= from))
            && self
                .until
                .is_none_or(|until| began.is_some_and(|began| began < until))
    }
}

/// Rows as a table for people. Control characters cannot reach the terminal.
pub struct Table<'a>(pub &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = [
            "BEGAN",
            "IDENTITY",
            "ROLE",
            "DATABASE",
            "CORRELATION",
            "XID",
            "OUTCOME",
            "STATEMENTS",
        ];
        let mut lines = vec![heads.map(str::to_owned)];
        lines.extend(self.0.iter().map(cells));
        let mut widths = [0; 8];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for line in &lines {
            let padded: Vec<_> = line
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            writeln!(f, "{}", padded.join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn cells(row: &Row) -> [String; 8] {
    let kinds: Vec<_> = row.statements.iter().map(|one| one.kind.as_str()).collect();
    let cells = [
        row.began.clone(),
        format!("{}/{}", row.provider, row.name.as_ref().unwrap_or(&row.subject)),
        row.role.clone(),
        format!("{}/{}", row.target, row.database),
        row.correlation.join(","),
        row.xid.map_or_else(|| "-".to_owned(), |xid| xid.to_string()),
        row.outcome.clone().unwrap_or_else(|| "unknown".to_owned()),
        kinds.join(","),
    ];
    cells.map(|cell| cell.replace(char::is_control, "\u{fffd}"))
}
