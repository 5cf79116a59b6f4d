//! Live sessions: who may still come in, and whom a cancel request is for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::audit::record::Facts;
use crate::domain::clock::Random;
use crate::domain::identity::IdentityKey;
use crate::domain::ids::{RuleName, SessionId};
use crate::session::roster::{Place, Roster, SessionView};

/// Tries at finding a process number that no live session has; with 2^31 numbers the first is free.
const PROCESS_TRIES: usize = 64;

/// Cancel requests that wait for their session. A driver sends one at a time, a person who is impatient
/// some; further ones are dropped.
const REQUESTS_WAITING_MAX: usize = 8;
/// How long a cancel request waits for its session, which may itself wait for the journal's disk or for
/// the server to take the request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(15);

/// A cancel request as its session gets it; dropped when it has been dealt with. Until then the connection that
/// brought it stays open: drivers wait for its end before they send the next statement, which it must not hit.
pub(super) type CancelRequest = oneshot::Sender<()>;

/// Shared by all threads.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    cancels: DashMap<i32, CancelEntry>,
    seats: DashMap<Row, Arc<AtomicU32>>,
    roster: Arc<Roster>,
}

/// Where seats are counted together: a rule and one identity, or a rule and everybody.
type Row = (RuleName, Option<IdentityKey>);

struct CancelEntry {
    key: Vec<u8>,
    request: mpsc::Sender<CancelRequest>,
}

impl std::fmt::Debug for CancelEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CancelEntry")
    }
}

/// A session's cancel key, and where requests with it arrive. Withdrawn when dropped.
#[derive(Debug)]
pub(super) struct CancelDesk {
    registry: Registry,
    pub(super) process: i32,
    pub(super) key: Vec<u8>,
    pub(super) requests: mpsc::Receiver<CancelRequest>,
}

/// A session counted against its rule's limit; counted down when dropped, on every path.
#[derive(Debug)]
pub(super) struct Seat {
    registry: Registry,
    row: Row,
    counter: Arc<AtomicU32>,
}

impl Registry {
    /// Issues a cancel key of our own, as long as the client has room for.
    pub(super) fn open_desk(&self, key_bytes: usize, random: &dyn Random) -> Option<CancelDesk> {
        let mut key = vec![0; key_bytes];
        random.fill(&mut key);
        let (request, requests) = mpsc::channel(REQUESTS_WAITING_MAX);
        for _ in 0..PROCESS_TRIES {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            let process = i32::from_be_bytes(bytes) & i32::MAX;
            if let dashmap::Entry::Vacant(place) = self.inner.cancels.entry(process) {
                place.insert(CancelEntry {
                    key: key.clone(),
                    request,
                });
                return Some(CancelDesk {
                    registry: self.clone(),
                    process,
                    key,
                    requests,
                });
            }
        }
        None
    }

    /// Passes a cancel request on, if its key is right. What is returned ends when its session has dealt
    /// with it: sent it to the server, or found nothing that it could be meant for.
    pub(super) fn cancel(&self, process: i32, key: &[u8]) -> Option<impl Future<Output = ()> + use<>> {
        let entry = self.inner.cancels.get(&process)?;
        if !is_same(&entry.key, key) {
            return None;
        }
        let (request, dealt_with) = oneshot::channel();
        // Full: so many are waiting already that this one changes nothing.
        let _ = entry.request.try_send(request);
        Some(async {
            let _ = timeout(REQUEST_TIME_MAX, dealt_with).await;
        })
    }

    /// Takes a seat under a rule, if its limit leaves one for this identity, or for anybody.
    pub(super) fn take_seat(
        &self,
        rule: &RuleName,
        identity: Option<&IdentityKey>,
        limit: Option<u32>,
    ) -> Result<Seat, u32> {
        let row = (rule.clone(), identity.cloned());
        let counter = self.inner.seats.entry(row.clone()).or_default().clone();
        let limit = limit.unwrap_or(u32::MAX);
        let taken = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
            (count < limit).then_some(count + 1)
        });
        match taken {
            Ok(_) => Ok(Seat {
                registry: self.clone(),
                row,
                counter,
            }),
            Err(_) => Err(limit),
        }
    }

    /// Puts a session on the roster; it is struck out when the result is dropped.
    pub(super) fn enter(&self, session: SessionId, facts: Arc<Facts>, now: SystemTime) -> Place {
        self.inner.roster.enter(session, facts, now)
    }

    /// Sessions whose token was verified, oldest first.
    pub fn sessions(&self) -> Vec<SessionView> {
        self.inner.roster.view()
    }

    pub fn session_count(&self) -> usize {
        self.inner.roster.len()
    }

    /// Ends the session of this reference within [`REVOKED_GRACE`](super::snapshot::REVOKED_GRACE).
    /// `false`: there is none.
    pub fn kill(&self, reference: &str) -> bool {
        self.inner.roster.kill(reference)
    }

    /// Makes every session look at the snapshot and at what else may have happened.
    pub fn ring_all(&self) {
        self.inner.roster.ring_all();
    }
}

/// Compares without telling by its duration how much was right.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let difference = left
        .iter()
        .zip(right)
        .fold(0, |all, (left, right)| all | (left ^ right));
    left.len() == right.len() && difference == 0
}

impl Drop for CancelDesk {
    fn drop(&mut self) {
        self.registry.inner.cancels.remove(&self.process);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::SeqCst);
        // The entry goes when nobody counts in it; a newcomer holds the counter under the same lock.
        self.registry.inner.seats.remove_if(&self.row, |_, counter| {
            counter.load(Ordering::SeqCst) == 0 && Arc::strong_count(counter) <= 2
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Debug)]
    struct Counting(std::sync::atomic::AtomicU32);
    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(u8::try_from(self.0.fetch_add(1, Ordering::SeqCst) % 128).unwrap());
        }
    }

    fn key() -> (RuleName, IdentityKey) {
        let identity = IdentityKey {
            provider: "p".into(),
            tenant: None,
            subject: "s".to_owned(),
        };
        ("r".into(), identity)
    }

    #[test]
    fn seats_are_counted_down_and_forgotten() {
        let registry = Registry::default();
        let (rule, identity) = key();
        let seats: Vec<_> = (0..2)
            .map(|_| registry.take_seat(&rule, Some(&identity), Some(2)).unwrap())
            .collect();
        assert_eq!(
            registry.take_seat(&rule, Some(&identity), Some(2)).unwrap_err(),
            2
        );
        // The rule's own row is another.
        let of_rule = registry.take_seat(&rule, None, Some(1)).unwrap();
        assert_eq!(registry.take_seat(&rule, None, Some(1)).unwrap_err(), 1);
        drop((seats, of_rule));
        assert!(registry.inner.seats.is_empty());
        assert!(registry.take_seat(&rule, Some(&identity), Some(1)).is_ok());
    }

    #[test]
    fn a_cancel_needs_the_whole_key_and_a_live_session() {
        let registry = Registry::default();
        let random = Counting(std::sync::atomic::AtomicU32::new(1));
        let mut desk = registry.open_desk(32, &random).unwrap();
        let heard = Cell::new(0);
        for key in [&desk.key[..31], &[0; 32][..], &desk.key[..]] {
            let right = registry.cancel(desk.process, key).is_some();
            assert_eq!(right, key == &desk.key[..]);
            if desk.requests.try_recv().is_ok() {
                heard.set(heard.get() + 1);
            }
        }
        assert_eq!(heard.get(), 1);
        let (process, key) = (desk.process, desk.key.clone());
        drop(desk);
        assert!(registry.cancel(process, &key).is_none());
        assert!(registry.inner.cancels.is_empty());
    }

    #[tokio::test]
    async fn who_cancels_waits_until_the_session_has_dealt_with_it() {
        let registry = Registry::default();
        let random = Counting(std::sync::atomic::AtomicU32::new(1));
        let mut desk = registry.open_desk(4, &random).unwrap();
        let (process, key) = (desk.process, desk.key.clone());
        let mut asked = std::pin::pin!(registry.cancel(process, &key).unwrap());
        let request = tokio::select! {
            biased;
            () = &mut asked => panic!("nobody has looked at it yet"),
            request = desk.requests.recv() => request.unwrap(),
        };
        assert!(timeout(Duration::from_millis(1), &mut asked).await.is_err());
        drop(request);
        asked.await;
        // Nobody is waited for whose session is over, or that never was.
        let mut late = std::pin::pin!(registry.cancel(process, &key).unwrap());
        assert!(timeout(Duration::from_millis(1), &mut late).await.is_err());
        drop(desk);
        late.await;
        assert!(registry.cancel(process, &key).is_none());
    }
}
