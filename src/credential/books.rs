//! Which logins there are, who holds them, and when each is due. No database, no waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::audit::Facts;
use crate::credential::lease::{Lease, LeaseId};
use crate::credential::naming::Mark;
use crate::credential::server::ServerTime;
use crate::domain::identity::IdentityKey;
use crate::domain::ids::RoleName;
use crate::domain::secret::Secret;
use crate::domain::target::DatabaseName;

/// After a renewal failed, so that a server in trouble is not asked all the time. Far below half of
/// any sensible `login_ttl`, so that several attempts fit in.
const RENEWAL_RETRY: Duration = Duration::from_secs(5);

/// A client can make its own login fail as often as it likes; that must not keep the broker busy.
const SUSPICION_REST: Duration = Duration::from_secs(2);

/// Sessions with the same key share a login.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) identity: IdentityKey,
    pub(super) role: RoleName,
    /// Where logins belong to one database: that of the role.
    pub(super) database: Option<DatabaseName>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) lease: Arc<Lease>,
    /// What the server is told of the secret.
    pub(super) verifier: Secret<String>,
    pub(super) facts: Arc<Facts>,
    pub(super) ttl: Duration,
    /// What the server says about it.
    pub(super) mark: Mark,
    pub(super) minted: Instant,
    /// On our clock.
    pub(super) minted_at: SystemTime,
    /// On the server's clock.
    pub(super) until: ServerTime,
    /// The end that a renewal asked for without hearing whether it was set.
    pub(super) wanted: Option<ServerTime>,
    pub(super) renewal_due: Instant,
    /// When it was last found as it should be.
    pub(super) looked: Instant,
    pub(super) usage: Usage,
    /// A newer generation has taken its place; it ends with its last hold.
    pub(super) replaced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Held(usize),
    Idle { since: Instant },
}

#[derive(Debug, Default)]
pub(super) struct Books {
    entries: BTreeMap<LeaseId, Entry>,
    current: HashMap<Key, LeaseId>,
    last: u64,
}

impl Books {
    /// The login that serves this key now. One that is too old makes room for a new generation.
    pub(super) fn current(&mut self, key: &Key, max_age: Duration, now: Instant) -> Option<LeaseId> {
        let id = *self.current.get(key)?;
        let entry = self.entries.get_mut(&id)?;
        if now.duration_since(entry.minted) < max_age {
            return Some(id);
        }
        entry.replaced = true;
        self.current.remove(key);
        None
    }

    /// From now on this login serves its key; the one that did until now ends with its last hold.
    pub(super) fn insert(&mut self, entry: Entry) -> LeaseId {
        self.last += 1;
        let id = LeaseId(self.last);
        let old = self.current.insert(entry.key.clone(), id);
        if let Some(old) = old.and_then(|old| self.entries.get_mut(&old)) {
            old.replaced = true;
        }
        self.entries.insert(id, entry);
        id
    }

    /// The logins that new sessions get.
    pub(super) fn serving(&self) -> impl Iterator<Item = LeaseId> {
        self.current.values().copied()
    }

    pub(super) fn is_current(&self, id: LeaseId) -> bool {
        self.entries.get(&id).is_some_and(|entry| !entry.replaced)
    }

    pub(super) fn named(&self, login: &str) -> Option<LeaseId> {
        let named = |entry: &Entry| entry.lease.login().as_str() == login;
        self.all().find(|(_, entry)| named(entry)).map(|(id, _)| id)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn hold(&mut self, id: LeaseId) -> Option<Arc<Lease>> {
        let entry = self.entries.get_mut(&id)?;
        entry.usage = match entry.usage {
            Usage::Held(holds) => Usage::Held(holds + 1),
            Usage::Idle { .. } => Usage::Held(1),
        };
        Some(Arc::clone(&entry.lease))
    }

    pub(super) fn release(&mut self, id: LeaseId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.usage = match entry.usage {
                Usage::Held(holds) if holds > 1 => Usage::Held(holds - 1),
                Usage::Held(_) => Usage::Idle { since: now },
                idle @ Usage::Idle { .. } => idle,
            };
        }
    }

    pub(super) fn renewed(&mut self, id: LeaseId, ttl: Duration, until: ServerTime, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.ttl = ttl;
            entry.until = until;
            entry.wanted = None;
            entry.renewal_due = now + ttl / 2;
            entry.looked = now;
        }
    }

    /// A renewal is about to be sent; its answer may be lost.
    pub(super) fn renewing(&mut self, id: LeaseId, until: ServerTime) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.wanted = Some(until);
        }
    }

    /// Somebody had trouble with this login: it is to be looked at soon, but not all the time.
    pub(super) fn suspect(&mut self, id: LeaseId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            let rested = entry.looked + SUSPICION_REST;
            entry.renewal_due = entry.renewal_due.min(rested.max(now));
        }
    }

    pub(super) fn renewal_failed(&mut self, id: LeaseId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.renewal_due = now + RENEWAL_RETRY.min(entry.ttl / 8);
        }
    }

    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if self.current.get(&entry.key) == Some(&id) {
            self.current.remove(&entry.key);
        }
        Some(entry)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (LeaseId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub(super) fn renewals_due(&self, now: Instant) -> Vec<LeaseId> {
        let due = |entry: &Entry| matches!(entry.usage, Usage::Held(_)) && entry.renewal_due <= now;
        self.all()
            .filter(|(_, entry)| due(entry))
            .map(|(id, _)| id)
            .collect()
    }

    pub(super) fn ends_due(&self, now: Instant) -> Vec<LeaseId> {
        let due = |entry: &Entry| ends_at(entry).is_some_and(|at| at <= now);
        self.all()
            .filter(|(_, entry)| due(entry))
            .map(|(id, _)| id)
            .collect()
    }

    /// When to look again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |entry: &Entry| ends_at(entry).unwrap_or(entry.renewal_due);
        self.entries.values().map(due).min()
    }
}

fn ends_at(entry: &Entry) -> Option<Instant> {
    match entry.usage {
        Usage::Held(_) => None,
        Usage::Idle { since } if entry.replaced => Some(since),
        Usage::Idle { since } => Some(since + entry.ttl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::naming::{Epoch, LoginName};
    use crate::domain::clock::Random;
    use crate::domain::password::Password;

    #[derive(Debug)]
    struct Zero;

    impl Random for Zero {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    const TTL: Duration = Duration::from_secs(60);
    const MAX_AGE: Duration = Duration::from_secs(3600);

    fn key() -> Key {
        Key {
            identity: IdentityKey {
                provider: "entra".into(),
                tenant: None,
                subject: "consumer".to_owned(),
            },
            role: "writer".into(),
            database: None,
        }
    }

    fn entry(now: Instant) -> Entry {
        Entry {
            key: key(),
            lease: Arc::new(Lease {
                login: LoginName::found("gp_a_b_c").unwrap(),
                password: Password::new("secret"),
                target: "orders".into(),
                role: "writer".into(),
                minted: true,
            }),
            verifier: Secret::new(String::new()),
            facts: Arc::default(),
            ttl: TTL,
            mark: Mark {
                gatepost: Mark::VERSION,
                installation: "a".into(),
                replica: "a".into(),
                epoch: Epoch::random(&Zero),
                generation: 1,
                role: "writer".into(),
                database: None,
            },
            minted: now,
            minted_at: SystemTime::UNIX_EPOCH,
            until: ServerTime {
                at: SystemTime::UNIX_EPOCH + TTL,
                text: String::new(),
            },
            wanted: None,
            looked: now,
            renewal_due: now + TTL / 2,
            usage: Usage::Idle { since: now },
            replaced: false,
        }
    }

    #[test]
    fn renewed_while_held_and_ended_ttl_after_the_last_hold() {
        let (mut books, start) = (Books::default(), Instant::now());
        let id = books.insert(entry(start));
        books.hold(id).unwrap();
        books.hold(id).unwrap();
        assert_eq!(books.renewals_due(start + TTL / 2), [id]);
        assert!(books.ends_due(start + TTL * 10).is_empty());
        let until = books.get(id).unwrap().until.clone();
        books.renewed(id, TTL, until, start + TTL / 2);
        assert!(books.renewals_due(start + TTL / 2).is_empty());
        books.release(id, start);
        assert_eq!(books.get(id).unwrap().usage, Usage::Held(1));
        books.release(id, start + TTL);
        assert!(books.ends_due(start + TTL).is_empty());
        assert_eq!(books.ends_due(start + TTL * 2), [id]);
        assert_eq!(books.next_due(), Some(start + TTL * 2));
    }

    #[test]
    fn an_old_login_makes_room_and_ends_with_its_last_hold() {
        let (mut books, start) = (Books::default(), Instant::now());
        let old = books.insert(entry(start));
        books.hold(old).unwrap();
        assert_eq!(books.current(&key(), MAX_AGE, start), Some(old));
        assert_eq!(books.current(&key(), MAX_AGE, start + MAX_AGE), None);
        let new = books.insert(entry(start + MAX_AGE));
        books.release(old, start + MAX_AGE);
        assert_eq!(books.ends_due(start + MAX_AGE), [old]);
        books.remove(old).unwrap();
        assert_eq!(books.current(&key(), MAX_AGE, start + MAX_AGE), Some(new));
    }
}
