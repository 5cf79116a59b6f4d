//! What operators and sessions ask of the logins that there are: list, rotate, end, look again.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::audit::{Event, Facts};
use crate::credential::actor::{Actor, Wish};
use crate::credential::books::{Entry, Usage};
use crate::credential::error::{BrokerError, chain};
use crate::credential::lease::LeaseId;
use crate::credential::view::{LoginState, LoginView};
use crate::domain::target::TargetName;

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotated {
    pub target: TargetName,
    /// Logins that sessions use: new sessions get their next generation.
    pub replaced: usize,
    /// Of these, the old ones that sessions still held when the rotation came to its end.
    pub draining: usize,
    /// Logins that no session used: ended at once, and minted again when one needs them.
    pub dropped: usize,
}

/// Done in steps, so that sessions which want a login in between do not wait for all of it.
pub(super) struct Rotation {
    queue: VecDeque<LeaseId>,
    old: Vec<LeaseId>,
    replaced: usize,
    dropped: usize,
    replies: Vec<Reply>,
}

pub(super) type Reply = oneshot::Sender<Result<Rotated, BrokerError>>;

impl Actor {
    pub(super) fn logins(&mut self) -> Vec<LoginView> {
        self.take_releases();
        let views = self.books.all().map(|(_, entry)| view(entry));
        let mut views: Vec<_> = views.chain(self.leaving.values().cloned()).collect();
        views.sort_by(|one, other| one.login.cmp(&other.login));
        views
    }

    /// All that are asked for before the next one begins are answered by that one.
    pub(super) fn begin_rotation(&mut self) {
        if self.rotation.is_none() && !self.rotations_asked.is_empty() {
            self.take_releases();
            self.rotation = Some(Rotation {
                queue: self.books.serving().collect(),
                old: Vec::new(),
                replaced: 0,
                dropped: 0,
                replies: std::mem::take(&mut self.rotations_asked),
            });
        }
    }

    /// Replaces one login.
    pub(super) async fn rotate_step(&mut self) {
        let Some(rotation) = &mut self.rotation else {
            return;
        };
        let Some(id) = rotation.queue.pop_front() else {
            return self.end_rotation(None);
        };
        self.take_releases();
        // Its age, an operator or tampering may have replaced it since.
        let Some(entry) = self.books.get(id).filter(|_| self.books.is_current(id)) else {
            return;
        };
        let rotated = Event::SecretRotated {
            what: "login",
            which: Some(entry.lease.login().to_string()),
        };
        let facts = Arc::clone(&entry.facts);
        if let Usage::Idle { .. } = entry.usage {
            self.world.note(&facts, rotated);
            self.end(id, "its secret was rotated");
            if let Some(rotation) = &mut self.rotation {
                rotation.dropped += 1;
            }
            return;
        }
        let wish = Wish {
            key: entry.key.clone(),
            ttl: entry.ttl,
            max_age: std::time::Duration::MAX,
            facts: Arc::clone(&entry.facts),
        };
        match self.mint_on_a_working_link(&wish).await {
            Ok(_) => {
                self.world.note(&facts, rotated);
                if let Some(rotation) = &mut self.rotation {
                    rotation.replaced += 1;
                    rotation.old.push(id);
                }
            }
            Err(error) => self.end_rotation(Some(chain(&error))),
        }
    }

    fn end_rotation(&mut self, failed: Option<String>) {
        self.take_releases();
        let Some(rotation) = self.rotation.take() else {
            return;
        };
        let held = |id: &&LeaseId| {
            let usage = self.books.get(**id).map(|entry| entry.usage);
            matches!(usage, Some(Usage::Held(_)))
        };
        let done = Rotated {
            target: self.settings.target.clone(),
            replaced: rotation.replaced,
            draining: rotation.old.iter().filter(held).count(),
            dropped: rotation.dropped,
        };
        for reply in rotation.replies {
            let answer = match &failed {
                None => Ok(done.clone()),
                Some(why) => Err(BrokerError::Rotation {
                    target: done.target.clone(),
                    replaced: done.replaced,
                    dropped: done.dropped,
                    // The one that failed, and those behind it.
                    left: rotation.queue.len() + 1,
                    why: why.clone(),
                }),
            };
            // Whoever asked may have gone; what was done stays done.
            let _ = reply.send(answer);
        }
    }

    /// Ends logins now. They are disabled when this returns, if the server can be reached.
    pub(super) async fn end_logins(
        &mut self,
        of: &(dyn Fn(&Facts) -> bool + Send + Sync),
        why: &'static str,
    ) -> usize {
        let struck = self.books.all().filter(|(_, entry)| of(&entry.facts));
        let struck: Vec<_> = struck
            .map(|(id, entry)| (id, entry.lease.login().clone()))
            .collect();
        // The endings wait for one another, and a revocation cannot wait.
        for (_, login) in &struck {
            let Ok(connection) = self.connection() else { break };
            let disabled = match connection.disable(login).await {
                Ok(true) => {
                    self.world.retire.retire(login);
                    connection.terminate(login).await.map(drop)
                }
                other => other.map(drop),
            };
            if let Err(error) = disabled {
                tracing::warn!(login = %login, error = %chain(&error), "could not disable a login at once");
                self.failed(&error);
            }
        }
        for (id, _) in &struck {
            self.end(*id, why);
        }
        struck.len()
    }

    /// A session saw that its login was changed.
    pub(super) fn reported_tampered(&mut self, login: &str, what: String) {
        if let Some(id) = self.books.named(login) {
            self.tampered(id, what);
        }
    }

    /// A login behaves strangely: it is looked at now, instead of at its renewal.
    pub(super) fn suspect(&mut self, login: &str) {
        if let Some(id) = self.books.named(login) {
            self.books.suspect(id, Instant::now());
        }
    }
}

pub(super) fn view(entry: &Entry) -> LoginView {
    let (state, holds) = match (entry.replaced, entry.usage) {
        (false, Usage::Held(holds)) => (LoginState::Current, holds),
        (false, Usage::Idle { .. }) => (LoginState::Current, 0),
        (true, Usage::Held(holds)) => (LoginState::Replaced, holds),
        (true, Usage::Idle { .. }) => (LoginState::Replaced, 0),
    };
    LoginView {
        login: entry.lease.login().shared(),
        role: entry.key.role.clone(),
        identity: entry.facts.identity.clone(),
        generation: entry.mark.generation,
        minted_at: entry.minted_at,
        expires_at: entry.until.at,
        holds,
        state,
    }
}
