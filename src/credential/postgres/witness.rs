//! What a PostgreSQL server says of itself and of transactions: asked by the broker, in whose eyes
//! the ids of all databases of a server are the same.

use std::time::{Duration, SystemTime};

use tokio_postgres::error::SqlState;

use crate::credential::error::BrokerError;
use crate::credential::live::{Finding, FindingKind};
use crate::credential::postgres::connection::Connection;
use crate::credential::postgres::naming::quote_name;
use crate::credential::reconcile::verdict::{Recovered, Status, Testimony, Witness, micros};
use crate::domain::clock::Clock;
use crate::domain::incarnation::Incarnation;

/// The checkpointer is there from the beginning of a recovery on, and begins anew with each crash. Who
/// may not see other users' activity reads NULL.
const INCARNATION: &str = "SELECT s.system_identifier::text, c.timeline_id::int4, \
    (SELECT (extract(epoch FROM a.backend_start) * 1000000)::int8 FROM pg_stat_activity AS a \
     WHERE a.backend_type = 'checkpointer'), pg_is_in_recovery(), \
    (extract(epoch FROM clock_timestamp()) * 1000000)::int8, \
    (extract(epoch FROM c.checkpoint_time) * 1000000)::int8, split_part(c.next_xid, ':', 1), \
    split_part(c.next_xid, ':', 2), \
    c.redo_lsn = c.checkpoint_lsn AND current_setting('wal_level') <> 'minimal', \
    current_setting('track_commit_timestamp') = 'on' \
    FROM pg_control_system() AS s, pg_control_checkpoint() AS c";

/// An id that was not given out yet is an error.
const STATUS: &str = "SELECT pg_xact_status($1::text::xid8)";
const COMMITTED_AT: &str =
    "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xid($1::text::xid8))) * 1000000)::int8";
const PREPARED_AS: &str = "SELECT gid FROM pg_prepared_xacts WHERE transaction = xid($1::text::xid8)";

impl Connection {
    /// The life of the server that this connection is of.
    pub(in crate::credential) async fn incarnation(&self) -> Result<Incarnation, BrokerError> {
        let row = self.client().query_one(INCARNATION, &[]);
        let row = self
            .limited("asking which life of the server this is", row)
            .await?;
        Ok(Incarnation::new(row.get(0), row.get(1), row.get(2)))
    }

    pub(in crate::credential) async fn witness(&self, clock: &dyn Clock) -> Result<Witness, BrokerError> {
        let asked = clock.now();
        let row = self.client().query_one(INCARNATION, &[]);
        let row = self
            .limited("asking which life of the server this is", row)
            .await?;
        let answered = clock.now();
        let (epoch, next): (&str, &str) = (row.get(6), row.get(7));
        // `epoch:xid`, the two halves of a 64-bit id.
        let next_xid = match (epoch.parse::<u64>(), next.parse::<u64>()) {
            (Ok(epoch), Ok(next)) => epoch.checked_shl(32).map(|epoch| epoch | next),
            (Ok(_) | Err(_), _) => None,
        };
        // Written as a checkpoint at rest, with nothing between its beginning and its end: the one at the
        // end of a recovery, as long as no other has followed.
        let at_rest: bool = row.get(8);
        let server_now: i64 = row.get(4);
        let took = answered.duration_since(asked).unwrap_or_default();
        Ok(Witness {
            incarnation: Incarnation::new(row.get(0), row.get(1), row.get(2)),
            in_recovery: row.get(3),
            ahead: server_now.saturating_sub(micros(asked)),
            error: micros(SystemTime::UNIX_EPOCH + took.max(Duration::from_micros(1))),
            recovered: next_xid.filter(|_| at_rest).map(|next_xid| Recovered {
                at: row.get(5),
                next_xid,
            }),
            keeps_commit_times: row.get(9),
        })
    }

    pub(in crate::credential) async fn testimony(
        &self,
        id: u64,
        witness: &Witness,
    ) -> Result<Testimony, BrokerError> {
        let id = id.to_string();
        let mut testimony = Testimony {
            status: self.status(&id).await?,
            committed_at: None,
            prepared_as: None,
            is_marked: false,
        };
        if testimony.status == Status::Committed && witness.keeps_commit_times {
            let what = "asking when a transaction was committed";
            let rows = self.query(what, COMMITTED_AT, &[&id]).await?;
            testimony.committed_at = rows.first().and_then(|row| row.get(0));
        }
        if testimony.status == Status::InProgress {
            let what = "looking for a prepared transaction";
            let rows = self.query(what, PREPARED_AS, &[&id]).await?;
            testimony.prepared_as = rows.first().map(|row| row.get(0));
        }
        Ok(testimony)
    }

    async fn status(&self, id: &str) -> Result<Status, BrokerError> {
        let rows = match self.query("asking after a transaction", STATUS, &[&id]).await {
            Ok(rows) => rows,
            Err(error) if error.sqlstate() == Some(&SqlState::INVALID_PARAMETER_VALUE) => {
                return Ok(Status::Future);
            }
            Err(error) => return Err(error),
        };
        let said: Option<&str> = rows.first().and_then(|row| row.get(0));
        Ok(match said {
            Some("committed") => Status::Committed,
            Some("aborted") => Status::Aborted,
            Some("in progress") => Status::InProgress,
            Some(_) | None => Status::Forgotten,
        })
    }

    /// What the broker may not see of the server's lives.
    pub(in crate::credential) async fn unseen(&self) -> Result<Option<Finding>, BrokerError> {
        if self.incarnation().await?.began().is_some() {
            return Ok(None);
        }
        let rows = self
            .query("reading the broker's name", "SELECT current_user::text", &[])
            .await?;
        let user: String = rows.first().map(|row| row.get(0)).unwrap_or_default();
        Ok(Some(Finding {
            missing: "pg_read_all_stats for the broker: a commit whose reply is lost stays in doubt"
                .to_owned(),
            sql: format!("GRANT pg_read_all_stats TO {}", quote_name(&user)),
            kind: FindingKind::NotProven,
        }))
    }
}
