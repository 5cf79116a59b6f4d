//! The write-ahead log as the judge over the journal: every COMMIT record in it against every outcome
//! that gatepost wrote down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::journal::{correlation, of_event};
use super::wait_for;
use super::world::World;

/// Rows tell by themselves which transaction wrote them (`top` is the number that the WAL knows, also for
/// a row that was written behind a savepoint) and under which correlation id.
pub(crate) const WORK: &str = "
    CREATE EXTENSION pg_walinspect;
    CREATE TABLE work (
        mark text NOT NULL, n int, top xid8 NOT NULL DEFAULT pg_current_xact_id(),
        CONSTRAINT work_no_thirteen CHECK (n <> 13),
        CONSTRAINT work_later UNIQUE (n) DEFERRABLE INITIALLY DEFERRED);
    CREATE FUNCTION writes(text) RETURNS int LANGUAGE sql AS 'INSERT INTO work (mark) VALUES ($1) RETURNING 1';
    CREATE PROCEDURE commits(text) LANGUAGE plpgsql AS
      'BEGIN INSERT INTO work (mark) VALUES ($1); COMMIT; INSERT INTO work (mark) VALUES ($1); END';
    CREATE PROCEDURE ends_with_commit(text) LANGUAGE plpgsql AS
      'BEGIN INSERT INTO work (mark) VALUES ($1); COMMIT; END';
    GRANT SELECT, INSERT, UPDATE, DELETE ON work TO orders_writer;
    GRANT TEMP ON DATABASE orders TO orders_writer;
    GRANT CREATE ON SCHEMA public TO orders_writer;";

/// Numbers of transactions as records of the WAL have them: without their epoch.
fn in_wal(id: u64) -> u64 {
    id & u64::from(u32::MAX)
}

/// A place in the WAL and in the journal, from which on they are compared.
pub(crate) struct Since {
    place: String,
    records: usize,
}

/// What the WAL holds beyond the journal, and which records say that there may be more than they name.
#[derive(Default)]
pub(crate) struct Balance {
    /// Committed transactions of the WAL.
    pub(crate) commits: BTreeSet<u64>,
    /// Those that no record names.
    pub(crate) unnamed: BTreeSet<u64>,
    /// The correlation ids of records that are `partial`, with how many records there are.
    pub(crate) partial: BTreeMap<String, usize>,
    /// How many outcomes of each kind, for the test to see that there was something to compare.
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// The correlation ids of whole records whose intent did not name the transaction yet.
    pub(crate) late: BTreeSet<String>,
    /// What the journal says and is not so.
    pub(crate) lies: Vec<String>,
    pub(crate) records: Vec<Value>,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} commits in the WAL, {} of them unnamed {:?}; partial {:?}; outcomes {:?}; late {:?}; lies {:#?}",
            self.commits.len(),
            self.unnamed.len(),
            self.unnamed,
            self.partial,
            self.outcomes,
            self.late,
            self.lies
        )
    }
}

impl World {
    /// A server whose WAL holds the clients' commits and, while one of their sessions stays, no others.
    pub(crate) fn with_work(major: u32) -> Self {
        let mut world = Self::without_proxy(major);
        world.sql(WORK);
        for setting in [
            "autovacuum = off",
            "max_prepared_transactions = 20",
            "wal_keep_size = '1GB'",
        ] {
            world.sql(&format!("ALTER SYSTEM SET {setting}"));
        }
        world.config.door = ", allow_plaintext: true";
        // The log of every message would be most of the work.
        world.config.level = "info";
        world.stop_server();
        world.start_server();
        world
    }

    pub(crate) fn here_in_wal(&self) -> Since {
        Since {
            records: self.at_rest().len(),
            place: self.sql("SELECT pg_current_wal_insert_lsn()"),
        }
    }

    /// All records, once every session but the one that keeps the login is over.
    fn at_rest(&self) -> Vec<Value> {
        wait_for("the end of the sessions", || {
            // Connections that were dropped in the runtime still have to say so.
            self.runtime.block_on(tokio::task::yield_now());
            let records = self.records();
            let count = |event| of_event(&records, event).len();
            (count("session.opened") == count("session.closed") + 1).then_some(records)
        })
    }

    /// Compares what was done since then.
    pub(crate) fn balance(&self, since: &Since) -> Balance {
        let records = self.at_rest().split_off(since.records);
        let (at_once, of_prepared) = self.commits_since(since);
        let commits = &at_once | &of_prepared;
        let Claims {
            committed,
            aborted,
            prepared_committed,
            partial,
            outcomes,
            late,
            mut lies,
        } = Claims::of(&records);
        let invented: Vec<_> = committed.difference(&at_once).collect();
        let denied: Vec<_> = aborted.intersection(&commits).collect();
        let not_ended: Vec<_> = prepared_committed.difference(&of_prepared).collect();
        for (what, ids) in [
            ("committed, and are not", invented),
            ("aborted, and are committed", denied),
            ("committed by COMMIT PREPARED, and are not", not_ended),
        ] {
            if !ids.is_empty() {
                lies.push(format!("said to be {what}: {ids:?}"));
            }
        }
        lies.extend(self.rows_without_record(&records, &commits));
        let unnamed = &commits - &(&committed | &prepared_committed);
        Balance {
            commits,
            unnamed,
            partial,
            outcomes,
            late,
            lies,
            records,
        }
    }

    /// Transactions committed at once, and those that were prepared before.
    fn commits_since(&self, since: &Since) -> (BTreeSet<u64>, BTreeSet<u64>) {
        // Commits that nobody waits for are flushed later by themselves.
        self.sql("CHECKPOINT");
        let logged = self.sql(&format!(
            "SELECT record_type, xid, split_part(description, ':', 1)
             FROM pg_get_wal_records_info('{}', pg_current_wal_flush_lsn())
             WHERE resource_manager = 'Transaction' AND record_type LIKE 'COMMIT%'",
            since.place
        ));
        let (mut at_once, mut prepared) = (BTreeSet::new(), BTreeSet::new());
        for line in logged.lines() {
            let [kind, header, described] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
            let fresh = match kind {
                // Its header bears no number: the description begins with it.
                "COMMIT_PREPARED" => prepared.insert(described.parse().unwrap()),
                _ => at_once.insert(header.parse().unwrap()),
            };
            assert!(fresh, "twice in the WAL: {line}");
        }
        // A commit without a number (what was only to be flushed) is nobody's transaction.
        at_once.remove(&0);
        (at_once, prepared)
    }

    /// Every row has a record of its transaction under the correlation id of its client, and a record that
    /// claims to be whole names the very transaction.
    fn rows_without_record(&self, records: &[Value], commits: &BTreeSet<u64>) -> Vec<String> {
        let mut lies = Vec::new();
        let outcomes = of_event(records, "transaction.outcome");
        let mut by_mark: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for outcome in outcomes {
            for mark in correlation(outcome) {
                by_mark.entry(mark).or_default().push(outcome);
            }
        }
        let rows = self.sql("SELECT DISTINCT mark, top FROM work");
        for row in rows.lines() {
            let (mark, top) = row.split_once('|').unwrap();
            let top: u64 = top.parse().unwrap();
            if !commits.contains(&in_wal(top)) {
                continue;
            }
            let found = by_mark.get(mark).map(Vec::as_slice).unwrap_or_default();
            let told = found.iter().any(|outcome| {
                let detail = &outcome["detail"];
                let whole = detail["scope"] == "complete" && detail["id"].as_u64() == Some(top);
                let kept = matches!(detail["outcome"].as_str(), Some("committed" | "prepared"));
                // A procedure that committed and then failed is `aborted`, and more than that one.
                (kept && whole) || detail["scope"] == "partial"
            });
            if !told {
                lies.push(format!(
                    "a row under {mark} by {top}, and on record {:#?}",
                    found.iter().map(|it| brief(it)).collect::<Vec<_>>()
                ));
            }
        }
        lies
    }
}

/// What the journal says.
#[derive(Default)]
struct Claims {
    committed: BTreeSet<u64>,
    aborted: BTreeSet<u64>,
    /// Prepared, and committed by the name that both records bear.
    prepared_committed: BTreeSet<u64>,
    partial: BTreeMap<String, usize>,
    outcomes: BTreeMap<String, usize>,
    late: BTreeSet<String>,
    lies: Vec<String>,
}

impl Claims {
    fn of(records: &[Value]) -> Self {
        let mut claims = Self::default();
        let mut prepared: BTreeMap<&str, u64> = BTreeMap::new();
        let mut intents: BTreeMap<&str, BTreeMap<u64, &Value>> = BTreeMap::new();
        for record in records {
            let session = record["session"].as_str().unwrap_or_default();
            let number = record["detail"]["number"].as_u64().unwrap_or_default();
            let open = intents.entry(session).or_default();
            if record["event"] == "transaction.intent" {
                open.insert(number, record);
            } else if record["event"] == "transaction.outcome" {
                // One intent stands for all transactions of a text, and is closed by the last of them.
                let before = open.range(..=number).next_back();
                claims.outcome(record, before.map(|(_, intent)| *intent), &mut prepared);
                open.remove(&number);
            }
        }
        claims
    }

    fn outcome<'a>(
        &mut self,
        record: &'a Value,
        intent: Option<&Value>,
        prepared: &mut BTreeMap<&'a str, u64>,
    ) {
        let detail = &record["detail"];
        let id = detail["id"].as_u64().map(in_wal);
        let outcome = detail["outcome"].as_str().unwrap();
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
        if detail["scope"] == "partial" {
            let mark = correlation(record).join(",");
            *self.partial.entry(mark).or_default() += 1;
        }
        let gid = detail["gid"].as_str();
        match (outcome, id) {
            ("committed", Some(id)) => {
                if !self.committed.insert(id) {
                    self.lies.push(format!("two outcomes of {id}: {}", brief(record)));
                }
                self.announced(record, intent);
            }
            ("committed", None) => {
                let ended = gid.and_then(|gid| prepared.remove(gid));
                self.prepared_committed.extend(ended);
            }
            ("aborted", id) => self.aborted.extend(id),
            ("prepared", Some(id)) => {
                let before = prepared.insert(gid.unwrap_or_default(), id);
                if gid.is_none() || before.is_some() {
                    self.lies
                        .push(format!("prepared under no name, or twice: {}", brief(record)));
                }
                self.announced(record, intent);
            }
            _ => self.lies.push(brief(record)),
        }
    }

    /// An intent must come before. In a text of several statements the number is not known by then.
    fn announced(&mut self, record: &Value, intent: Option<&Value>) {
        let Some(intent) = intent else {
            self.lies.push(format!("no intent came before {}", brief(record)));
            return;
        };
        let (early, late) = (&intent["detail"]["id"], &record["detail"]["id"]);
        // One that stands for all transactions of a text may name the first of them.
        let borrowed = intent["detail"]["number"] != record["detail"]["number"];
        if early.is_null() || borrowed {
            self.late.insert(correlation(record).join(","));
        } else if early != late {
            self.lies
                .push(format!("the intent names {early}: {}", brief(record)));
        }
    }
}

/// A record of a transaction on one line.
pub(crate) fn brief(record: &Value) -> String {
    let detail = &record["detail"];
    let statements = detail["statements"].as_array().into_iter().flatten();
    let kinds: Vec<_> = statements.filter_map(|it| it["kind"].as_str()).collect();
    format!(
        "{} {} {} number {} id {} gid {} {} {} {:?} under {:?}",
        record["seq"],
        record["event"],
        record["session"],
        detail["number"],
        detail["id"],
        detail["gid"],
        detail["outcome"],
        detail["scope"],
        kinds,
        correlation(record)
    )
}
