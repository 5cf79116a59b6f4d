//! The same for servers that know transactions only by their rows in a table of markers; and the end of rows that
//! are too old to be asked after.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::audit::Doubtful;
use crate::credential::error::{BrokerError, chain};
use crate::credential::server::{Access, Connection};

use super::verdict::{Verdict, judge_row};
use super::{Reconciler, Trouble, Waiting, in_doubt};

/// What the run before has left open is asked after first.
const CLEAN_FIRST: Duration = Duration::from_secs(30);
/// Rows are kept for hours, so it matters little when exactly one goes.
const CLEAN_EVERY: Duration = Duration::from_secs(10 * 60);

/// When old rows are looked for next.
pub(super) struct Cleaning {
    /// `None`: there is no table.
    pub(super) due: Option<Instant>,
    is_told: bool,
}

impl Cleaning {
    pub(super) fn of(access: &Access) -> Self {
        let first = Instant::now() + CLEAN_FIRST;
        Self {
            due: access.marker_table().map(|_| first),
            is_told: false,
        }
    }
}

impl Reconciler {
    /// Each is asked after in its own database.
    pub(super) async fn ask_tables(
        &self,
        access: &Access,
        due: &mut std::vec::IntoIter<Waiting>,
        trouble: &mut Trouble,
    ) -> Result<(), BrokerError> {
        let mut connections = HashMap::new();
        while let Some(one) = due.as_slice().first() {
            let database = one.doubt.facts.database.as_ref().unwrap_or(&self.home).clone();
            let testimony = match &self.marker {
                Some(key) => {
                    if !connections.contains_key(&database) {
                        match access.connect(&database).await {
                            Ok(connection) => drop(connections.insert(database.clone(), connection)),
                            // Of this database alone: the others' turn comes all the same.
                            Err(error @ BrokerError::MissingPrivilege { .. }) => {
                                trouble.told(&self.target, &chain(&error));
                                if let Some(one) = due.next() {
                                    self.act(one, Verdict::NotYet, trouble).await;
                                }
                                continue;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    match connections.get(&database) {
                        Some(Connection::SqlServer(connection)) => {
                            connection.row_testimony(&one.doubt, key).await?
                        }
                        Some(Connection::Postgres(_)) | None => None,
                    }
                }
                None => None,
            };
            trouble.over();
            let Some(one) = due.next() else { break };
            let Some(testimony) = testimony else {
                let found = in_doubt(&one.doubt, Doubtful::EngineCannotTell);
                self.put_on_record(one, found, trouble).await;
                continue;
            };
            let since = self.clock.now().duration_since(one.doubt.alive);
            let verdict = judge_row(&testimony, since.unwrap_or_default());
            self.act(one, verdict, trouble).await;
        }
        Ok(())
    }

    /// Removes old rows, if it is time and nobody waits for one.
    pub(super) async fn clean(&self, cleaning: &mut Cleaning) {
        let now = Instant::now();
        if cleaning.due.is_none_or(|due| due > now) {
            return;
        }
        if self.doubts.unresolved() > 0 {
            cleaning.due = Some(now + CLEAN_FIRST);
            return;
        }
        cleaning.due = Some(now + CLEAN_EVERY);
        let access = (self.reach)();
        match self.clean_all(&access).await {
            Ok(0) => cleaning.is_told = false,
            Ok(removed) => {
                cleaning.is_told = false;
                tracing::debug!(target_name = %self.target, removed, "old markers were removed");
            }
            Err(error) => {
                if !std::mem::replace(&mut cleaning.is_told, true) {
                    let error = chain(&error);
                    tracing::warn!(target_name = %self.target, error, "old markers cannot be removed");
                }
            }
        }
    }

    async fn clean_all(&self, access: &Arc<Access>) -> Result<u64, BrokerError> {
        let (Access::SqlServer(server), Some(table)) = (access.as_ref(), access.marker_table()) else {
            return Ok(0);
        };
        let mut removed = 0;
        for database in server.databases.iter() {
            removed += server.connect(database).await?.remove_old_rows(table).await?;
        }
        Ok(removed)
    }
}
