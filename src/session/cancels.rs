//! Cancel requests with wrong keys: an address that brings too many of them is not listened to for a
//! while, so that nobody can guess at keys. Requests carry no other proof than the key.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::domain::subscriber::subscriber;

/// Wrong keys of one address in a minute. Drivers send a wrong one only when a session ended just
/// before its cancel, so this is a machine with many of those in the same minute; a guess has to hit
/// 31 bits of a process number and at least 32 of a key.
const WRONG_KEYS_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// How long nobody listens after that.
const DEAF_FOR: Duration = Duration::from_secs(60);
/// Addresses with wrong keys that are counted, 64 bytes each. Beyond it further ones are not limited:
/// guesses from everywhere still do not find 63 bits, and to ignore strangers' addresses together
/// would let a crowd silence everybody's right cancels.
const ADDRESSES_MAX: usize = 4096;
/// How often a full table is searched for addresses that may be forgotten.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// What became of a cancel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It names a session and holds its key.
    PassedOn,
    /// Nobody's key, or another session's.
    WrongKey,
    /// Its address brought too many wrong keys; nobody looked at this one.
    Ignored,
}

impl Heard {
    pub(super) const ALL: [Self; 3] = [Self::PassedOn, Self::WrongKey, Self::Ignored];

    /// The label in metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::PassedOn => "passed_on",
            Self::WrongKey => "wrong_key",
            Self::Ignored => "ignored",
        }
    }
}

/// Shared by all threads.
#[derive(Debug, Default)]
pub struct WrongKeys {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    addresses: HashMap<IpAddr, Guesses>,
    searched: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug)]
struct Guesses {
    since: SystemTime,
    wrong: u32,
}

impl WrongKeys {
    /// One request. `pass_on` tries its key and says whether it was right; it is not asked while the
    /// address is ignored.
    pub(super) fn hear(&self, from: IpAddr, at: SystemTime, pass_on: impl FnOnce() -> bool) -> Heard {
        let from = subscriber(from);
        if self.lock().is_ignored(from, at) {
            return Heard::Ignored;
        }
        // Outside the lock, and right ones cost no entry: honest addresses are never counted.
        if pass_on() {
            return Heard::PassedOn;
        }
        self.lock().note(from, at);
        Heard::WrongKey
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_ignored(&self, from: IpAddr, at: SystemTime) -> bool {
        let guesses = self.addresses.get(&from);
        guesses.is_some_and(|guesses| guesses.is_deaf(at))
    }

    fn note(&mut self, from: IpAddr, at: SystemTime) {
        if !self.addresses.contains_key(&from) && !self.has_room(at) {
            return;
        }
        let fresh = Guesses { since: at, wrong: 0 };
        let guesses = self.addresses.entry(from).or_insert(fresh);
        if guesses.is_over(at) {
            *guesses = fresh;
        }
        guesses.wrong = guesses.wrong.saturating_add(1);
        if guesses.wrong == WRONG_KEYS_MAX {
            // The silence is counted from the last wrong key.
            guesses.since = at;
        }
    }

    fn has_room(&mut self, at: SystemTime) -> bool {
        let recently = |searched| at.duration_since(searched).is_ok_and(|past| past < SEARCH_EVERY);
        if self.addresses.len() >= ADDRESSES_MAX && !self.searched.is_some_and(recently) {
            self.searched = Some(at);
            self.addresses.retain(|_, guesses| !guesses.is_over(at));
        }
        self.addresses.len() < ADDRESSES_MAX
    }
}

impl Guesses {
    const fn is_too_many(&self) -> bool {
        self.wrong >= WRONG_KEYS_MAX
    }

    fn is_deaf(&self, at: SystemTime) -> bool {
        self.is_too_many() && !self.is_over(at)
    }

    /// A clock that was set back ends it, too: nobody is ignored for ever.
    fn is_over(&self, at: SystemTime) -> bool {
        let lasts = if self.is_too_many() { DEAF_FOR } else { WINDOW };
        at.duration_since(self.since).map_or(true, |past| past >= lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn guesser(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn later(seconds: u64) -> SystemTime {
        START + Duration::from_secs(100_000 + seconds)
    }

    #[test]
    fn who_guesses_too_often_is_not_heard_and_others_are() {
        let keys = WrongKeys::default();
        for _ in 0..WRONG_KEYS_MAX {
            assert_eq!(keys.hear(guesser(1), later(0), || false), Heard::WrongKey);
        }
        let looked = |at| keys.hear(guesser(1), at, || panic!("somebody looked at the key"));
        assert_eq!(looked(later(0)), Heard::Ignored);
        assert_eq!(looked(later(59)), Heard::Ignored);
        assert_eq!(keys.hear(guesser(2), later(59), || true), Heard::PassedOn);
        assert_eq!(keys.hear(guesser(1), later(60), || true), Heard::PassedOn);
        // A whole minute's guesses are left again.
        for _ in 0..WRONG_KEYS_MAX {
            assert_eq!(keys.hear(guesser(1), later(61), || false), Heard::WrongKey);
        }
        assert_eq!(
            keys.hear(guesser(1), START, || true),
            Heard::PassedOn,
            "a clock set back"
        );
    }

    #[test]
    fn right_keys_never_count_and_slow_wrong_ones_are_forgiven() {
        let keys = WrongKeys::default();
        for second in 0..1_000 {
            assert_eq!(keys.hear(guesser(1), later(second), || true), Heard::PassedOn);
            assert_eq!(
                keys.hear(guesser(1), later(second * 4), || false),
                Heard::WrongKey
            );
        }
    }

    #[test]
    fn many_addresses_cost_no_more_memory_than_some() {
        let keys = WrongKeys::default();
        for bits in 0..100_000_u32 {
            keys.hear(IpAddr::from(bits.to_be_bytes()), later(0), || false);
        }
        assert_eq!(keys.lock().addresses.len(), ADDRESSES_MAX);
        // A crowd silences nobody else.
        let bystander = IpAddr::from([198, 51, 100, 1]);
        assert_eq!(keys.hear(bystander, later(0), || true), Heard::PassedOn);
        // When the flood is over, everybody has an entry of their own again.
        assert_eq!(keys.hear(guesser(1), later(60), || false), Heard::WrongKey);
        assert_eq!(keys.lock().addresses.len(), 1);
    }

    #[test]
    fn addresses_of_one_subscriber_count_together() {
        let keys = WrongKeys::default();
        for host in 0..u16::try_from(WRONG_KEYS_MAX).unwrap() {
            let from = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
            assert_eq!(keys.hear(from, later(0), || false), Heard::WrongKey);
        }
        let from = IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]);
        assert_eq!(keys.hear(from, later(0), || true), Heard::Ignored);
        let from = IpAddr::from([0x2001, 0xdb8, 0, 2, 9, 9, 9, 9]);
        assert_eq!(keys.hear(from, later(0), || true), Heard::PassedOn);
    }
}
