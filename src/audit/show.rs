//! What an auditor asks of a journal: one row per transaction, with its correlation ids and outcome.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::audit::entry::{Entry, ReadError, entries};
use crate::audit::filter::{Filter, UNKNOWN, wanted};
use crate::audit::table::harmless;

/// Kinds of statements that a row of the table names.
const KINDS_SHOWN: usize = 6;

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
    /// How the values of its statements are on record: `hashed` or `plain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    pub correlation: Vec<String>,
    pub statements: Vec<RowStatement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowStatement {
    pub fingerprint: String,
    pub kind: String,
    pub rows: Option<u64>,
    /// As they are on record, where a rule wants it: values, or their hashes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub parameters_omitted: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub literals: Vec<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub literals_omitted: bool,
}

/// Collects the records of each transaction to a row.
struct Gathering<'a> {
    filter: &'a Filter,
    /// Not settled yet, by session and number; those under way, and what a crash left.
    open: BTreeMap<(String, u64), (u64, Row)>,
}

/// Hands the transactions that match to `emit`, each once: those that were settled in the order in which
/// that was recorded, and after them those whose outcome is not known. So only the latter are kept in
/// memory. It shows what is written; whether that can be trusted is for `verify` to say.
pub fn transactions<E: From<ReadError>>(
    directory: &Path,
    filter: &Filter,
    emit: &mut dyn FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    let mut gathering = Gathering {
        filter,
        open: BTreeMap::new(),
    };
    for found in entries(directory)? {
        let entry = found?.entry;
        if let Some(row) = gathering.take(entry) {
            emit(row)?;
        }
    }
    let mut left: Vec<_> = gathering.open.into_values().collect();
    left.sort_by_key(|(seq, _)| *seq);
    for (_, row) in left {
        if admits(filter, &row) {
            emit(row)?;
        }
    }
    Ok(())
}

/// As [`transactions`], all at once.
pub fn rows(directory: &Path, filter: &Filter) -> Result<Vec<Row>, ReadError> {
    let mut rows = Vec::new();
    transactions(directory, filter, &mut |row| {
        rows.push(row);
        Ok::<_, ReadError>(())
    })?;
    Ok(rows)
}

impl Gathering<'_> {
    /// Takes one record in; gives a row back that is settled, and wanted.
    fn take(&mut self, entry: Entry) -> Option<Row> {
        // A later verdict names the transaction, and need not say whose it was.
        let is_verdict = entry.event == "transaction.reconciled";
        if !entry.is_transaction() || !(is_verdict || self.filter.admits_origin(&entry)) {
            return None;
        }
        let seq = entry.seq;
        let later = row(entry);
        let key = (later.session.clone(), later.number);
        let (first, row) = match self.open.remove(&key) {
            Some((first, mut known)) => {
                merge(&mut known, later);
                (first, known)
            }
            None if is_verdict => return None,
            None => (seq, later),
        };
        // The others may be reconciled later.
        if matches!(row.outcome.as_deref(), Some("committed" | "aborted")) {
            return admits(self.filter, &row).then_some(row);
        }
        self.open.insert(key, (first, row));
        None
    }
}

fn row(entry: Entry) -> Row {
    let statements = entry.statements().map(|one| RowStatement {
        fingerprint: one.fingerprint.to_owned(),
        kind: one.kind.to_owned(),
        rows: one.rows,
        parameters: one.list("parameters").to_vec(),
        parameters_omitted: one.is("parameters_omitted"),
        literals: one.list("literals").to_vec(),
        literals_omitted: one.is("literals_omitted"),
    });
    let statements = statements.collect();
    let text = |member| entry.text(member).map(str::to_owned);
    let (xid, outcome, scope) = (entry.number("id"), text("outcome"), text("scope"));
    let identity = entry.identity.clone().unwrap_or_default();
    Row {
        began: text("began").unwrap_or_else(|| entry.at.clone()),
        number: entry.number("number").unwrap_or_default(),
        session: entry.session.unwrap_or_default(),
        provider: identity.provider,
        subject: identity.subject,
        name: identity.name,
        client_id: identity.client_id,
        tenant: identity.tenant,
        target: entry.target.unwrap_or_default(),
        database: entry.database.unwrap_or_default(),
        role: entry.role.unwrap_or_default(),
        login: entry.login.unwrap_or_default(),
        xid,
        outcome,
        scope,
        parameters: entry.policy.and_then(|policy| policy.parameters),
        correlation: entry.correlation.into_iter().map(|one| one.id).collect(),
        statements,
    }
}

/// The later record knows more; what only the earlier knew stays.
fn merge(known: &mut Row, later: Row) {
    for id in later.correlation {
        if !known.correlation.contains(&id) {
            known.correlation.push(id);
        }
    }
    known.xid = later.xid.or(known.xid);
    known.outcome = later.outcome.or(known.outcome.take());
    known.scope = later.scope.or(known.scope.take());
    if later.statements.len() >= known.statements.len() {
        known.statements = later.statements;
    }
}

fn admits(filter: &Filter, row: &Row) -> bool {
    let outcome = row.outcome.as_deref().unwrap_or(UNKNOWN);
    let began = humantime::parse_rfc3339(&row.began).ok();
    let is_correlated = |id: &String| row.correlation.contains(id);
    wanted(filter.outcome.as_deref(), Some(outcome))
        && filter.correlation.as_ref().is_none_or(is_correlated)
        && filter.xid.is_none_or(|xid| row.xid == Some(xid))
        && filter.admits_time(began)
}

/// The heads of the table of transactions.
pub const HEADS: [&str; 8] = [
    "BEGAN",
    "IDENTITY",
    "ROLE",
    "DATABASE",
    "CORRELATION",
    "XID",
    "OUTCOME",
    "STATEMENTS",
];
/// The columns of it that are never cut.
pub const RIGID: [usize; 3] = [0, 5, 6];

/// A time with so many digits of its fraction; the record has them all.
fn instant(at: &str, digits: usize) -> String {
    match at.split_once('.') {
        Some((second, _)) if digits == 0 => format!("{second}Z"),
        Some((second, rest)) => {
            let fraction: String = rest.trim_end_matches('Z').chars().take(digits).collect();
            format!("{second}.{fraction}Z")
        }
        None => at.to_owned(),
    }
}

/// A row of the table, harmless to a terminal.
pub fn cells(row: &Row) -> Vec<String> {
    let mut kinds: Vec<_> = row.statements.iter().map(|one| one.kind.as_str()).collect();
    kinds.dedup();
    if kinds.len() > KINDS_SHOWN {
        kinds.truncate(KINDS_SHOWN);
        kinds.push("…");
    }
    let cells = [
        instant(&row.began, 3),
        format!("{}/{}", row.provider, row.name.as_ref().unwrap_or(&row.subject)),
        row.role.clone(),
        format!("{}/{}", row.target, row.database),
        row.correlation.join(","),
        row.xid.map_or_else(|| "-".to_owned(), |xid| xid.to_string()),
        row.outcome.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        kinds.join(","),
    ];
    cells.iter().map(|cell| harmless(cell)).collect()
}

/// The heads of the table of records.
pub const RECORD_HEADS: [&str; 6] = ["AT", "EVENT", "WHO", "ROLE@TARGET", "SESSION", "WHAT"];
/// The columns of it that are never cut.
pub const RECORD_RIGID: [usize; 3] = [0, 1, 4];

/// The column of it that is cut last.
pub const RECORD_FAVOURED: usize = 5;
/// How wide its columns are at least while a journal is followed: as wide as most records need.
pub const RECORD_LEAST: [usize; 6] = [20, 20, 14, 14, 22, 20];

/// A record as a row of the table, harmless to a terminal.
pub fn record_cells(entry: &Entry) -> Vec<String> {
    // Of a stranger nothing is known but the address.
    let who = match &entry.identity {
        Some(who) => format!("{}/{}", who.provider, who.shown()),
        None => entry.address().unwrap_or_default().to_owned(),
    };
    let place = match (&entry.role, &entry.target) {
        (Some(role), Some(target)) => format!("{role}@{target}"),
        (None, Some(target)) => format!("@{target}"),
        (role, None) => role.clone().unwrap_or_default(),
    };
    let cells = [
        instant(&entry.at, 0),
        entry.event.clone(),
        who,
        place,
        entry.session.clone().unwrap_or_default(),
        crate::audit::wording::summary(entry),
    ];
    cells.iter().map(|cell| harmless(cell)).collect()
}
