//! The table of markers as the broker reads it: was the transaction committed whose row was to be there, and
//! which rows are too old to be kept.

use std::fmt::Write as _;

use crate::audit::{Doubt, Marker, MarkerKey};
use crate::credential::error::{BrokerError, chain};
use crate::credential::live::{Finding, FindingKind};
use crate::credential::reconcile::verdict::{ROWS_KEPT_FOR, Row as Found, RowTestimony};
use crate::credential::sqlserver::connection::{Connection, Product, Row};
use crate::credential::sqlserver::naming::{quote_name, quote_text};
use crate::domain::marker_table::MarkerTable;

/// A row that is locked belongs to a transaction that is not over: there is no use in waiting for it here, it is
/// asked for again.
const LOCK_TIMEOUT_MILLIS: u32 = 500;
/// Rows with one beginning that are looked at. Nobody knows a nonce beforehand, so there is one at most.
const ROWS_READ_MAX: u32 = 16;
/// Rows that are removed with one statement: far below the 5,000 locks from which the server takes the whole table.
const ROWS_REMOVED_AT_ONCE: u32 = 500;
/// Statements of one round. What is left is removed in the next.
const REMOVALS_MAX: u32 = 200;

impl Connection {
    /// What the table says of the transaction with this doubt. `None`: it has no row there.
    pub(in crate::credential) async fn row_testimony(
        &self,
        doubt: &Doubt,
        key: &MarkerKey,
    ) -> Result<Option<RowTestimony>, BrokerError> {
        let (Some(Marker::Row(table, nonce)), Some(session)) = (&doubt.marker, doubt.facts.session) else {
            return Ok(None);
        };
        // Before the table is read: what is over then, the table shows.
        let over = match (self.product(), doubt.backend) {
            (Product::SqlServer | Product::AzureSql, _) => true,
            // PostgreSQL's readers wait for nobody. Its sessions are processes, whose numbers do not come back soon.
            (Product::Babelfish, Some(backend)) => !self.has_session(backend).await?,
            (Product::Babelfish, None) => false,
        };
        let beginning = MarkerKey::beginning(session, doubt.number, *nonce);
        let read = match self
            .query("reading the table of markers", &lookup(table, &beginning))
            .await
        {
            Ok(rows) => rows,
            Err(error) if error.ends_connection() => return Err(error),
            Err(error) => {
                let error = chain(&error);
                tracing::debug!(target_name = %self.target(), error, "a marker cannot be read yet");
                Vec::new()
            }
        };
        let (mut row, mut writable) = (Found::Unread, false);
        if let Some((state, marks)) = read.split_first() {
            writable = match state.text(0) {
                Some(state) => state.eq_ignore_ascii_case("READ_WRITE"),
                None => self.product() == Product::Babelfish,
            };
            let ours = |mark: &Row| {
                mark.bytes(0)
                    .is_some_and(|mark| key.made(mark, session, doubt.number))
            };
            row = match marks {
                [] => Found::Absent,
                marks if marks.iter().any(ours) => Found::Ours,
                _ => Found::Foreign,
            };
        }
        Ok(Some(RowTestimony { row, writable, over }))
    }

    async fn has_session(&self, backend: i32) -> Result<bool, BrokerError> {
        let sql = format!("SELECT 1 FROM sys.dm_exec_sessions WHERE session_id = {backend}");
        let rows = self.query("looking for a session", &sql).await?;
        Ok(!rows.is_empty())
    }

    /// Removes rows that nobody asks for any more.
    pub(in crate::credential) async fn remove_old_rows(
        &self,
        table: &MarkerTable,
    ) -> Result<u64, BrokerError> {
        let hours = ROWS_KEPT_FOR.as_secs() / 3_600;
        // A row that is locked is of a transaction that is open still.
        let sql = format!(
            "DELETE TOP ({ROWS_REMOVED_AT_ONCE}) FROM {} WITH (READPAST) \
             WHERE at < DATEADD(hour, -{hours}, SYSUTCDATETIME()); SELECT @@ROWCOUNT",
            table.quoted()
        );
        let mut removed = 0;
        for _ in 0..REMOVALS_MAX {
            let rows = self.query("removing old markers", &sql).await?;
            let count = rows.first().and_then(|row| row.int(0)).unwrap_or_default();
            removed += u64::try_from(count).unwrap_or_default();
            if count < i64::from(ROWS_REMOVED_AT_ONCE) {
                break;
            }
        }
        Ok(removed)
    }

    /// What is missing so that this database's transactions can be marked and found again.
    async fn markers_unseen(&self, table: &MarkerTable) -> Result<Vec<Finding>, BrokerError> {
        let (quoted, text) = (table.quoted(), quote_text(&table.quoted()));
        let sql = format!(
            "SELECT USER_NAME(), CASE WHEN OBJECT_ID({text}) IS NULL THEN 0 ELSE 1 END, \
             HAS_PERMS_BY_NAME({text}, 'OBJECT', 'SELECT'), HAS_PERMS_BY_NAME({text}, 'OBJECT', 'DELETE')"
        );
        let rows = self.query("looking for the table of markers", &sql).await?;
        let Some(row) = rows.first() else {
            return Ok(Vec::new());
        };
        let (database, user) = (self.database(), quote_name(row.text(0).unwrap_or_default()));
        let place = format!("USE {}; ", quote_name(database.as_str()));
        let rights = format!("GRANT SELECT, DELETE ON {quoted} TO {user}");
        if !row.yes(1) {
            return Ok(vec![Finding {
                missing: format!(
                    "table {table} in database {database}, or the right to see it: without it no commit is let through"
                ),
                sql: format!("{place}{}; {rights}", table.creation()),
                kind: FindingKind::MissingPrivilege,
            }]);
        }
        let lacking = !row.yes(2) || !row.yes(3);
        Ok(Vec::from_iter(lacking.then(|| Finding {
            missing: format!("SELECT and DELETE on {table} in database {database}: markers are written that nobody can read or remove"),
            sql: format!("{place}{rights}"),
            kind: FindingKind::MissingPrivilege,
        })))
    }
}

/// What is missing so that transactions can be marked and found again, database by database.
pub(in crate::credential) async fn unseen(connection: &Connection) -> Result<Vec<Finding>, BrokerError> {
    let Some(table) = connection.access().settings.marker_table.clone() else {
        return Ok(Vec::new());
    };
    let mut findings = connection.markers_unseen(&table).await?;
    let others = connection.access().databases.iter();
    for database in others.filter(|name| *name != connection.database()) {
        match connection.beside(database).await {
            Ok(there) => findings.extend(there.markers_unseen(&table).await?),
            // It is among what is missing already.
            Err(BrokerError::MissingPrivilege { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// Waits for whoever has written the row and is not over, whatever the database's own settings say. The first row
/// of the answer is about the database, the others are marks.
fn lookup(table: &MarkerTable, beginning: &[u8]) -> String {
    let least = hexadecimal(beginning);
    format!(
        "SET LOCK_TIMEOUT {LOCK_TIMEOUT_MILLIS}; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
         SELECT CAST(DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS nvarchar(60)); \
         SELECT TOP ({ROWS_READ_MAX}) mark FROM {} WITH (READCOMMITTEDLOCK) WHERE mark >= 0x{least} AND mark < 0x{}",
        table.quoted(),
        hexadecimal(&behind(beginning))
    )
}

/// The smallest bytes behind all that begin so.
fn behind(beginning: &[u8]) -> Vec<u8> {
    let mut next = beginning.to_vec();
    while let Some(last) = next.pop() {
        if let Some(more) = last.checked_add(1) {
            next.push(more);
            break;
        }
    }
    next
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes everything.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_begin_alike_lie_in_one_range() {
        assert_eq!(behind(&[1, 2]), [1, 3]);
        assert_eq!(behind(&[1, 0xff, 0xff]), [2]);
        let sql = lookup(&"gatepost.markers".parse().unwrap(), &[1, 0xff]);
        assert!(
            sql.ends_with(
                "FROM [gatepost].[markers] WITH (READCOMMITTEDLOCK) WHERE mark >= 0x01FF AND mark < 0x02"
            ),
            "{sql}"
        );
    }
}
