//! Finds out what became of transactions whose end nobody has heard of, and puts it on record.
//!
//! One task per target, on the control runtime, with a connection of its own that it opens when there
//! is something to ask: neither sessions nor logins wait for it. What it cannot find out now it asks
//! again; what nobody can find out is called `in_doubt`, with the reason. `verdict` is pure;
//! `table` asks where a row of a table tells.

mod table;
pub(in crate::credential) mod verdict;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::audit::{
    Doubt, Doubtful, Event, Evidence, Journal, Marker, MarkerKey, Outcome, Reconciled, Record,
};
use crate::credential::ending::Backoff;
use crate::credential::error::{BrokerError, chain};
use crate::credential::server::{Access, Connection};
use crate::domain::clock::{Clock, Random};
use crate::domain::target::{DatabaseName, Engine, TargetName};

use table::Cleaning;
use verdict::{Status, Testimony, Verdict, Witness, judge};

/// Doubts that wait at one time. A session has one at most, and a start brings what
/// `audit::doubt` has room for; what is left off is found in the journal at the next start.
const WAITING_MAX: usize = 131_072;
/// Asked after on one connection before the next look at what else is due.
const BATCH: usize = 500;
/// A server that is away is tried again at least this often: whoever asks for an outcome waits for it.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A transaction that still runs is asked after again, first soon (its server has not noticed yet that the
/// connection is gone), then more and more seldom.
const ASK_AGAIN_FIRST: Duration = Duration::from_millis(50);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);
/// A transaction that runs for this long with nobody at its other end waits for something that may never
/// come (a synchronous standby); it is asked after again at the next start.
const STILL_RUNNING_AFTER: Duration = Duration::from_secs(15 * 60);
/// A prepared transaction waits for its coordinator, which may be away for a while.
const PREPARED_EVERY: Duration = Duration::from_secs(30);

/// How the server is reached at the moment.
pub(in crate::credential) type Reach = Box<dyn Fn() -> Arc<Access> + Send + Sync>;

/// What waits to be asked after. Any thread may add to it.
#[derive(Debug, Default)]
pub(in crate::credential) struct Doubts {
    waiting: Mutex<VecDeque<Waiting>>,
    wake: Notify,
    /// Those that the task has in its hands among them.
    unresolved: AtomicUsize,
}

#[derive(Debug)]
struct Waiting {
    doubt: Doubt,
    due: Instant,
    since: Instant,
    pause: Duration,
    /// The verdict, when only its record is missing.
    found: Option<Reconciled>,
}

impl Doubts {
    pub(in crate::credential) fn add(&self, doubts: impl IntoIterator<Item = Doubt>) {
        let now = Instant::now();
        let mut waiting = self.locked();
        for doubt in doubts {
            if waiting.len() >= WAITING_MAX {
                tracing::warn!("too many transactions in doubt; the rest is asked after at the next start");
                break;
            }
            self.unresolved.fetch_add(1, Ordering::Relaxed);
            waiting.push_back(Waiting {
                doubt,
                due: now,
                since: now,
                pause: ASK_AGAIN_FIRST,
                found: None,
            });
        }
        drop(waiting);
        self.wake.notify_one();
    }

    pub(in crate::credential) fn unresolved(&self) -> usize {
        self.unresolved.load(Ordering::Relaxed)
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those whose time has come, or when the next one's does.
    fn take_due(&self, now: Instant) -> Result<Vec<Waiting>, Option<Instant>> {
        let mut waiting = self.locked();
        let all = std::mem::take(&mut *waiting);
        let mut due = Vec::new();
        for one in all {
            if one.due <= now && due.len() < BATCH {
                due.push(one);
            } else {
                waiting.push_back(one);
            }
        }
        if due.is_empty() {
            return Err(waiting.iter().map(|one| one.due).min());
        }
        Ok(due)
    }

    fn put_back(&self, one: Waiting) {
        self.locked().push_back(one);
    }

    fn settled(&self) {
        self.unresolved.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module.
pub(in crate::credential) struct Reconciler {
    pub(in crate::credential) target: TargetName,
    pub(in crate::credential) home: DatabaseName,
    pub(in crate::credential) reach: Reach,
    pub(in crate::credential) doubts: Arc<Doubts>,
    pub(in crate::credential) marker: Option<MarkerKey>,
    pub(in crate::credential) journal: Journal,
    pub(in crate::credential) clock: Arc<dyn Clock>,
    pub(in crate::credential) random: Arc<dyn Random>,
}

impl Reconciler {
    pub(in crate::credential) async fn run(self) {
        let mut trouble = Trouble::default();
        let mut cleaning = Cleaning::of(&(self.reach)());
        loop {
            match self.doubts.take_due(Instant::now()) {
                Ok(due) => self.resolve(due, &mut trouble).await,
                Err(next) => self.rest(next.into_iter().chain(cleaning.due).min()).await,
            }
            self.clean(&mut cleaning).await;
        }
    }

    async fn rest(&self, next: Option<Instant>) {
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.doubts.wake.notified() => {}
            () = due => {}
        }
    }

    async fn resolve(&self, due: Vec<Waiting>, trouble: &mut Trouble) {
        let (to_ask, rest): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|one| one.found.is_none() && one.doubt.can_be_asked());
        for mut one in rest {
            let verdict = one.found.take();
            let verdict = verdict.unwrap_or_else(|| unaskable(&one.doubt));
            self.put_on_record(one, verdict, trouble).await;
        }
        if to_ask.is_empty() {
            return;
        }
        let mut to_ask = to_ask.into_iter();
        if let Err(error) = self.ask(&mut to_ask, trouble).await {
            trouble.told(&self.target, &chain(&error));
            let retry = Instant::now() + trouble.backoff.next(&*self.random).min(RETRY_MAX);
            for mut one in to_ask {
                one.due = retry;
                self.doubts.put_back(one);
            }
        }
    }

    /// On a connection that is new: whichever server is at the address now, one and the same answers all.
    async fn ask(
        &self,
        due: &mut std::vec::IntoIter<Waiting>,
        trouble: &mut Trouble,
    ) -> Result<(), BrokerError> {
        let access = (self.reach)();
        if access.engine() == Engine::SqlServer {
            return self.ask_tables(&access, due, trouble).await;
        }
        let connection = match access.connect(&self.home).await? {
            Connection::Postgres(connection) => connection,
            Connection::SqlServer(_) => return Ok(()),
        };
        let witness = connection.witness(self.clock.as_ref()).await?;
        while let Some(one) = due.as_slice().first() {
            // The target was SQL Server's in the run that left this open.
            if matches!(one.doubt.marker, Some(Marker::Row(..))) {
                if let Some(one) = due.next() {
                    let found = in_doubt(&one.doubt, Doubtful::EngineCannotTell);
                    self.put_on_record(one, found, trouble).await;
                }
                continue;
            }
            let id = one.doubt.id.unwrap_or_default();
            // What fails here stays in line, the one at hand with the others.
            let mut testimony = connection.testimony(id, &witness).await?;
            if let Some(key) = &self.marker
                && may_be_proven(&one.doubt, &witness, &testimony)
            {
                testimony.is_marked = connection.is_marked(&one.doubt, key).await?;
            }
            trouble.over();
            let Some(one) = due.next() else { break };
            let verdict = judge(&one.doubt, id, &witness, &testimony);
            self.act(one, verdict, trouble).await;
        }
        Ok(())
    }

    async fn act(&self, mut one: Waiting, verdict: Verdict, trouble: &mut Trouble) {
        match verdict {
            Verdict::Final(outcome, evidence) => {
                let reconciled = reconciled(&one.doubt, outcome, evidence);
                self.put_on_record(one, reconciled, trouble).await;
            }
            Verdict::InDoubt(why) => {
                let reconciled = in_doubt(&one.doubt, why);
                self.put_on_record(one, reconciled, trouble).await;
            }
            Verdict::Prepared(gid) => {
                if one.doubt.previous != Some(Outcome::Prepared) {
                    let found = Reconciled {
                        gid: Some(gid),
                        ..reconciled(&one.doubt, Outcome::Prepared, Evidence::PreparedTransaction)
                    };
                    if !self.append(&one.doubt, found, trouble).await {
                        one.due = Instant::now() + RETRY_MAX;
                        return self.doubts.put_back(one);
                    }
                    one.doubt.previous = Some(Outcome::Prepared);
                }
                one.due = Instant::now() + PREPARED_EVERY;
                self.doubts.put_back(one);
            }
            Verdict::NotYet if one.doubt.previous == Some(Outcome::Prepared) => {
                one.due = Instant::now() + PREPARED_EVERY;
                self.doubts.put_back(one);
            }
            Verdict::NotYet if one.since.elapsed() >= STILL_RUNNING_AFTER => {
                let reconciled = in_doubt(&one.doubt, Doubtful::StillRunning);
                self.put_on_record(one, reconciled, trouble).await;
            }
            Verdict::NotYet => {
                one.due = Instant::now() + one.pause;
                one.pause = (one.pause * 2).min(ASK_AGAIN_MAX);
                self.doubts.put_back(one);
            }
        }
    }

    /// A verdict without its record is none.
    async fn put_on_record(&self, mut one: Waiting, found: Reconciled, trouble: &mut Trouble) {
        if self.append(&one.doubt, found.clone(), trouble).await {
            return self.doubts.settled();
        }
        one.found = Some(found);
        one.due = Instant::now() + RETRY_MAX;
        self.doubts.put_back(one);
    }

    async fn append(&self, doubt: &Doubt, found: Reconciled, trouble: &mut Trouble) -> bool {
        let (outcome, evidence) = (found.outcome, found.evidence);
        let record = Record {
            facts: Arc::clone(&doubt.facts),
            correlation: doubt.correlation.clone(),
            event: Event::TransactionReconciled(Box::new(found)),
        };
        match self.journal.append(record).await {
            Ok(_receipt) => {
                tracing::info!(target_name = %self.target, id = doubt.id, ?outcome, ?evidence, "a transaction in doubt was asked after");
                true
            }
            Err(error) => {
                trouble.told(&self.target, &chain(&error));
                false
            }
        }
    }
}

/// Would its marker in the WAL say more than the server does?
fn may_be_proven(doubt: &Doubt, witness: &Witness, testimony: &Testimony) -> bool {
    let same = doubt.incarnation.as_ref();
    let same = same.is_some_and(|then| then.is_same_as(&witness.incarnation));
    testimony.status == Status::Committed && !same && !witness.in_recovery
}

/// Nobody can be asked.
fn unaskable(doubt: &Doubt) -> Reconciled {
    let why = match doubt.id {
        Some(_) => Doubtful::EngineCannotTell,
        None => Doubtful::NoTransactionId,
    };
    in_doubt(doubt, why)
}

fn in_doubt(doubt: &Doubt, why: Doubtful) -> Reconciled {
    Reconciled {
        why: Some(why),
        ..reconciled(doubt, Outcome::InDoubt, Evidence::None)
    }
}

fn reconciled(doubt: &Doubt, outcome: Outcome, evidence: Evidence) -> Reconciled {
    Reconciled {
        epoch: doubt.epoch,
        number: doubt.number,
        id: doubt.id,
        outcome,
        evidence,
        why: None,
        previous: doubt.previous,
        gid: None,
    }
}

/// What stands in the way, said once for as long as it does.
#[derive(Default)]
struct Trouble {
    is_told: bool,
    backoff: Backoff,
}

impl Trouble {
    fn told(&mut self, target: &TargetName, why: &str) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(target_name = %target, error = why, "transactions in doubt cannot be asked after yet");
        }
    }

    fn over(&mut self) {
        *self = Self::default();
    }
}
