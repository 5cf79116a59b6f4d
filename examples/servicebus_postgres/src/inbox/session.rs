//! One session with the database, and one transaction on it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::tls::MakeTlsConnect;

use super::Applied;
use super::cable::{Cable, Scissors};
use super::outcomes::{Verdict, verdict};
use crate::delivery::Delivery;
use crate::listener::CHANNEL;
use crate::parts::{Access, Failure};
use crate::trouble::told;

const ROLE: &str = "orders_writer";
const APPLICATION: &str = "order-consumer";
/// A statement that takes longer counts as a lost connection.
const STATEMENT_WAIT: Duration = Duration::from_secs(30);

/// A parameter, so that no text of a message is ever part of a statement.
const CORRELATE: &str = "SELECT set_config('gatepost.correlation_id', $1, true)";
/// In one order, whichever the messages came in: two workers with the same messages wait for each other
/// instead of deadlocking.
const NOTE: &str = "INSERT INTO inbox (message_id) SELECT id FROM unnest($1::text[]) AS id ORDER BY id \
                    ON CONFLICT DO NOTHING RETURNING message_id";
const PLACE: &str = "INSERT INTO orders (id, customer, cents) VALUES ($1, $2, $3)";
/// Tells listeners, when it commits, and us, what the transaction is called.
const TELL: &str = "SELECT pg_notify($1, format('%s %s', pg_current_xact_id(), $2::bigint)), \
                    pg_current_xact_id()::text::bigint";

pub(super) struct Session {
    client: Client,
    scissors: Scissors,
}

/// Why a transaction is not known to be committed.
pub(super) enum Stopped {
    /// Before COMMIT was sent.
    Refused(tokio_postgres::Error),
    TimedOut,
    CommitLost(Lost),
}

/// A COMMIT was sent, and there is no reply.
pub(super) struct Lost {
    pub(super) xid: u64,
    /// One of those that the transaction carries.
    pub(super) correlation: String,
    pub(super) why: String,
    /// What is true if it has committed.
    pub(super) applied: Vec<Applied>,
}

impl From<tokio_postgres::Error> for Stopped {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Refused(error)
    }
}

impl Session {
    pub(super) async fn open(access: &Access) -> Result<Self, Failure> {
        let config = access.config(ROLE, APPLICATION).await?;
        let stream = TcpStream::connect((access.host.as_str(), access.port)).await?;
        stream.set_nodelay(true)?;
        let (cable, scissors) = Cable::new(stream);
        let tls = MakeTlsConnect::<Cable>::make_tls_connect(&mut access.tls()?, &access.host)?;
        let (client, connection) = config.connect_raw(cable, tls).await?;
        tokio::spawn(async move {
            // The client's next call tells what happened.
            let _ = connection.await;
        });
        Ok(Self { client, scissors })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// `cut` and `lose` break the connection before COMMIT and at its reply.
    pub(super) async fn apply(
        &self,
        batch: &[Delivery],
        cut: bool,
        lose: bool,
    ) -> Result<Vec<Applied>, Stopped> {
        let prepared = match timeout(STATEMENT_WAIT, self.prepare(batch, cut)).await {
            Ok(prepared) => prepared?,
            Err(_) => return Err(Stopped::TimedOut),
        };
        let (applied, Some(xid)) = prepared else {
            // Nothing was new: there is nothing to commit.
            self.client.batch_execute("ROLLBACK").await?;
            return Ok(vec![Applied::Before; batch.len()]);
        };
        if lose {
            // Waits for the last byte that is owed, so that the next one belongs to COMMIT.
            self.client.batch_execute("").await?;
            self.scissors.cut_at_the_reply();
        }
        let why = match timeout(STATEMENT_WAIT, self.client.batch_execute("COMMIT")).await {
            Ok(Ok(())) => return Ok(applied),
            // A constraint that is looked at in the end: the reply is here, and says no.
            Ok(Err(error)) if error.code().is_some() && !crate::trouble::is_loss(&error) => {
                return Err(Stopped::Refused(error));
            }
            Ok(Err(error)) => told(&error),
            Err(_) => "it takes too long".to_owned(),
        };
        let ours = batch.iter().zip(&applied).find(|(_, one)| **one == Applied::Now);
        Err(Stopped::CommitLost(Lost {
            xid,
            correlation: ours.map(|(it, _)| it.correlation.clone()).unwrap_or_default(),
            why,
            applied,
        }))
    }

    /// Everything but COMMIT; the transaction's id, if there is anything to commit. Only the messages that
    /// are applied here give it their correlation ids.
    async fn prepare(
        &self,
        batch: &[Delivery],
        cut: bool,
    ) -> Result<(Vec<Applied>, Option<u64>), tokio_postgres::Error> {
        self.client.batch_execute("BEGIN").await?;
        let ids: Vec<&str> = batch.iter().map(|it| it.order.id.as_str()).collect();
        let noted = self.client.query(NOTE, &[&ids]).await?;
        let mut new = BTreeSet::new();
        for row in &noted {
            new.insert(row.try_get::<_, String>(0)?);
        }
        if cut {
            self.scissors.cut_at_the_reply();
        }
        let mut applied = Vec::with_capacity(batch.len());
        for Delivery {
            order, correlation, ..
        } in batch
        {
            // The same message may stand in a batch twice.
            if !new.remove(&order.id) {
                applied.push(Applied::Before);
                continue;
            }
            self.client.execute(CORRELATE, &[correlation]).await?;
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                [&order.order, &order.customer, &order.cents];
            self.client.execute(PLACE, &values).await?;
            applied.push(Applied::Now);
        }
        let count = applied.iter().filter(|one| **one == Applied::Now).count();
        if count == 0 {
            return Ok((applied, None));
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let row = self.client.query_one(TELL, &[&CHANNEL, &count]).await?;
        let xid: i64 = row.try_get(1)?;
        // As unsigned as the server has it.
        Ok((applied, Some(xid.cast_unsigned())))
    }

    /// True when it is certain that nothing is left of the transaction.
    pub(super) async fn roll_back(&self) -> bool {
        let rolled_back = timeout(STATEMENT_WAIT, self.client.batch_execute("ROLLBACK")).await;
        matches!(rolled_back, Ok(Ok(())))
    }

    /// What became of a transaction that carried this correlation id.
    pub(super) async fn outcome_of(&self, correlation: &str, xid: u64) -> Result<Verdict, Failure> {
        let question = "SELECT set_config('gatepost.outcome_of', $1, false)";
        let asking = async {
            self.client.query_one(question, &[&correlation]).await?;
            self.client.query_one("SHOW gatepost.outcomes", &[]).await
        };
        let answer = timeout(STATEMENT_WAIT, asking).await??;
        Ok(verdict(answer.try_get(0)?, xid)?)
    }
}
