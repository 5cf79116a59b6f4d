//! How a login ends: disabled, its sessions ended, what it owned handed to the role, dropped. Each
//! step may be repeated, and "already gone" is success.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::audit::{Event, Facts, Journal, Record};
use crate::credential::broker::Retire;
use crate::credential::error::{BrokerError, chain};
use crate::credential::naming::LoginName;
use crate::credential::server::{Access, Connection};
use crate::domain::clock::Random;
use crate::domain::ids::RoleName;
use crate::domain::incarnation::Incarnations;
use crate::domain::target::DatabaseName;

/// Endings at one time: each takes a server connection of its own.
const ENDINGS_MAX: usize = 2;
/// A terminated backend needs as long as its current call into the kernel.
const SESSIONS_END_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether a login's sessions are gone. Backends end within milliseconds.
const SESSIONS_LOOK_EVERY: Duration = Duration::from_millis(20);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What an ending needs, besides the login.
#[derive(Clone)]
pub(super) struct World {
    /// The credential that worked last; each attempt takes the one of its moment.
    access: watch::Receiver<Arc<Access>>,
    /// Where the broker connects.
    pub(super) home: DatabaseName,
    pub(super) journal: Journal,
    pub(super) random: Arc<dyn Random>,
    pub(super) retire: Arc<dyn Retire>,
    pub(super) incarnations: Incarnations,
    slots: Arc<Semaphore>,
}

impl World {
    pub(super) fn new(
        access: watch::Receiver<Arc<Access>>,
        home: DatabaseName,
        journal: Journal,
        random: Arc<dyn Random>,
        (retire, incarnations): (Arc<dyn Retire>, Incarnations),
    ) -> Self {
        Self {
            access,
            home,
            journal,
            random,
            retire,
            incarnations,
            slots: Arc::new(Semaphore::new(ENDINGS_MAX)),
        }
    }

    pub(super) fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.borrow())
    }

    /// Tells those who open connections which life of the server this is.
    pub(super) async fn note_incarnation(&self, connection: &Connection) {
        let told = connection.incarnation().await;
        let told = told.inspect_err(|error| {
            tracing::warn!(error = %chain(error), "cannot tell which life of the server this is");
        });
        self.incarnations.set(told.ok().flatten());
    }

    /// Records what was done already. A full disk must not keep a login alive, so this only warns; the
    /// mint is on record in any case.
    pub(super) fn note(&self, facts: &Arc<Facts>, event: Event) {
        if let Err(error) = self.journal.submit(Record::new(Arc::clone(facts), event)) {
            tracing::warn!(error = %chain(&error), "could not record what happened to a login");
        }
    }
}

/// A login whose time has come.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) login: LoginName,
    /// Who inherits what it owns, if that can be told.
    pub(super) role: Option<RoleName>,
    pub(super) facts: Arc<Facts>,
    pub(super) why: &'static str,
}

/// Ends one login, however long it takes. Stops early only when it is cancelled.
pub(super) async fn end(world: World, ended: Ended) {
    let mut backoff = Backoff::default();
    let mut disabled = false;
    loop {
        let result = {
            let _slot = world.slots.acquire().await;
            attempt(&world, &ended, &mut disabled).await
        };
        let Err(error) = result else {
            world.note(&ended.facts, Event::LoginDropped);
            return;
        };
        tracing::warn!(login = %ended.login, error = %chain(&error), "could not end a login yet");
        tokio::time::sleep(backoff.next(&*world.random)).await;
    }
}

async fn attempt(world: &World, ended: &Ended, disabled: &mut bool) -> Result<(), BrokerError> {
    let when_disabled = |there: bool| {
        if there && !*disabled {
            *disabled = true;
            world.note(&ended.facts, Event::LoginDisabled { why: ended.why });
        }
        world.retire.retire(&ended.login);
    };
    let access = world.access();
    steps(
        &access,
        &world.home,
        &ended.login,
        ended.role.as_ref(),
        when_disabled,
    )
    .await
}

/// One attempt. `when_disabled` is told whether the login was still there, once nobody can log in with
/// it any more.
pub(super) async fn steps(
    access: &Access,
    home: &DatabaseName,
    login: &LoginName,
    role: Option<&RoleName>,
    when_disabled: impl FnOnce(bool),
) -> Result<(), BrokerError> {
    let connection = access.connect(home).await?;
    let there = connection.disable(login).await?;
    when_disabled(there);
    if !there {
        return Ok(());
    }
    let give_up = Instant::now() + SESSIONS_END_LIMIT;
    while connection.terminate(login).await? > 0 {
        if Instant::now() >= give_up {
            return Err(BrokerError::TimedOut {
                target: connection.target().clone(),
                what: "ending a login's sessions",
                limit: SESSIONS_END_LIMIT,
            });
        }
        tokio::time::sleep(SESSIONS_LOOK_EVERY).await;
    }
    for database in connection.databases_touched(login).await? {
        if database == *home {
            connection.hand_over(login, role).await?;
        } else {
            access.connect(&database).await?.hand_over(login, role).await?;
        }
    }
    connection.drop_login(login).await
}

/// Doubles, with jitter, so that replicas do not return in step.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(RETRY_FIRST)
    }
}

impl Backoff {
    /// Between half of the current step and the whole of it.
    pub(super) fn next(&mut self, random: &dyn Random) -> Duration {
        let mut byte = [0];
        random.fill(&mut byte);
        let half = self.0 / 2;
        let jitter = half.mul_f64(f64::from(byte[0]) / 255.0);
        self.0 = (self.0 * 2).min(RETRY_MAX);
        half + jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Constant(u8);

    impl Random for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(&Constant(255)), RETRY_FIRST);
        assert_eq!(backoff.next(&Constant(0)), RETRY_FIRST);
        for _ in 0..20 {
            backoff.next(&Constant(7));
        }
        assert_eq!(backoff.next(&Constant(255)), RETRY_MAX);
    }
}
