//! How many connections may be open before anybody is known: per listener, and per address until
//! the login is over. What an identity may have is the policy's business, later.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::subscriber::subscriber;

/// Connections of one listener, logged in or not: a file descriptor and some 10 KiB each, and above
/// what the busiest deployments of poolers report for one process.
pub const CONNECTIONS_PER_LISTENER_MAX: usize = 10_000;
/// Connections of one address that have not logged in yet. A load balancer or a NAT may stand for
/// hundreds of workers that start together; a login takes milliseconds.
pub const LOGINS_PER_ADDRESS_MAX: usize = 512;

/// Counts of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits {
    shared: Arc<Shared>,
}

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    #[error("the listener has as many connections as it may have")]
    ListenerFull,
    #[error("the address has too many connections that have not logged in")]
    AddressFull,
}

/// A connection that was let in; dropping it makes room.
#[derive(Debug)]
pub struct Admission {
    shared: Arc<Shared>,
    /// `None` once it has logged in.
    logging_in: Option<IpAddr>,
}

#[derive(Debug)]
struct Shared {
    connections_max: usize,
    logins_per_address_max: usize,
    turned_away: AtomicU64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    /// Only addresses that are logging in: never more entries than connections.
    logging_in: HashMap<IpAddr, usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(CONNECTIONS_PER_LISTENER_MAX, LOGINS_PER_ADDRESS_MAX)
    }
}

impl Limits {
    pub fn new(connections_max: usize, logins_per_address_max: usize) -> Self {
        let shared = Shared {
            connections_max,
            logins_per_address_max,
            turned_away: AtomicU64::new(0),
            counts: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub fn admit(&self, address: IpAddr) -> Result<Admission, TurnedAway> {
        let whose = subscriber(address);
        let admitted = self.shared.enter(whose);
        if admitted.is_err() {
            self.shared.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        admitted.map(|()| Admission {
            shared: Arc::clone(&self.shared),
            logging_in: Some(whose),
        })
    }

    pub fn connections(&self) -> usize {
        self.shared.counts().connections
    }

    /// Connections turned away since the start.
    pub fn turned_away(&self) -> u64 {
        self.shared.turned_away.load(Ordering::Relaxed)
    }
}

impl Admission {
    /// The client is known now: it no longer counts as one that is logging in.
    pub fn logged_in(&mut self) {
        if let Some(whose) = self.logging_in.take() {
            self.shared.counts().login_over(whose);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.logged_in();
        let mut counts = self.shared.counts();
        counts.connections = counts.connections.saturating_sub(1);
    }
}

impl Shared {
    fn enter(&self, whose: IpAddr) -> Result<(), TurnedAway> {
        let mut counts = self.counts();
        if counts.connections >= self.connections_max {
            return Err(TurnedAway::ListenerFull);
        }
        let logging_in = counts.logging_in.get(&whose).copied().unwrap_or(0);
        if logging_in >= self.logins_per_address_max {
            return Err(TurnedAway::AddressFull);
        }
        counts.logging_in.insert(whose, logging_in + 1);
        counts.connections += 1;
        Ok(())
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics under the lock.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn login_over(&mut self, whose: IpAddr) {
        if let Some(count) = self.logging_in.get_mut(&whose) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.logging_in.remove(&whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_listener_is_full_at_its_limit_and_room_comes_back() {
        let limits = Limits::new(2, 9);
        let first = limits.admit(address("10.0.0.1")).unwrap();
        let _second = limits.admit(address("10.0.0.2")).unwrap();
        let refused = limits.admit(address("10.0.0.3")).unwrap_err();
        assert_eq!(refused, TurnedAway::ListenerFull);
        drop(first);
        assert!(limits.admit(address("10.0.0.3")).is_ok());
        assert_eq!(limits.turned_away(), 1);
    }

    #[test]
    fn an_address_is_limited_only_until_it_has_logged_in() {
        let limits = Limits::new(9, 1);
        let mut first = limits.admit(address("10.0.0.1")).unwrap();
        assert_eq!(
            limits.admit(address("10.0.0.1")).unwrap_err(),
            TurnedAway::AddressFull
        );
        first.logged_in();
        let second = limits.admit(address("10.0.0.1")).unwrap();
        drop((first, second));
        assert_eq!(limits.connections(), 0);
        assert!(limits.shared.counts().logging_in.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_mapped_addresses_as_ipv4() {
        let limits = Limits::new(9, 1);
        let _first = limits.admit(address("2001:db8::1")).unwrap();
        assert!(limits.admit(address("2001:db8::ffff:1")).is_err());
        assert!(limits.admit(address("2001:db8:0:1::1")).is_ok());
        let _mapped = limits.admit(address("::ffff:10.0.0.1")).unwrap();
        assert!(limits.admit(address("10.0.0.1")).is_err());
    }
}
