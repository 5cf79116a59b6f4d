//! When a provider may be asked for its keys again, and which key ids it was asked for in vain. Pure:
//! times are ages of the process, passed in.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// A stranger can invent key ids: they make us ask the provider at most this often.
const INTERVAL_MIN: Duration = Duration::from_secs(30);

/// For operators, who have a reason to ask; but a script may ask too.
const DEMAND_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// After failures: soon enough for a blip, seldom enough for a provider that struggles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long an id that the provider does not know is refused without asking. Providers that issue
/// tokens before every one of their servers publishes the key are behind by seconds.
const UNKNOWN_FOR: Duration = Duration::from_secs(120);

/// With ids of at most 512 bytes this is half a megabyte.
const UNKNOWN_MAX: usize = 1000;

/// Why the keys are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// There are none that may be believed, or they are no longer fresh.
    Age,
    /// A token names a key that is not among them.
    UnknownKey,
    /// An operator asks.
    Demand,
}

#[derive(Debug, Default)]
pub(super) struct Attempts {
    last: Option<Duration>,
    /// Since the last success.
    failures: u32,
}

impl Attempts {
    pub(super) fn may_begin(&self, cause: Cause, now: Duration) -> bool {
        let Some(last) = self.last else {
            return true;
        };
        let wait = match cause {
            Cause::Demand => DEMAND_INTERVAL_MIN,
            Cause::Age | Cause::UnknownKey if self.failures > 0 => {
                let doubled = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
                RETRY_FIRST.saturating_mul(doubled).min(RETRY_MAX)
            }
            Cause::Age | Cause::UnknownKey => INTERVAL_MIN,
        };
        now.saturating_sub(last) >= wait
    }

    pub(super) fn begin(&mut self, now: Duration) {
        self.last = Some(now);
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn failing(&self) -> bool {
        self.failures > 0
    }
}

/// Key ids that the provider did not have when it was asked for them.
#[derive(Debug, Default)]
pub(super) struct UnknownKeys {
    since: HashMap<String, Duration>,
    /// In the order in which they came; one that came again is here twice.
    order: VecDeque<(Duration, String)>,
}

impl UnknownKeys {
    pub(super) fn has(&self, id: &str, now: Duration) -> bool {
        let since = self.since.get(id);
        since.is_some_and(|since| now.saturating_sub(*since) < UNKNOWN_FOR)
    }

    pub(super) fn add(&mut self, id: &str, now: Duration) {
        if self.has(id, now) {
            return;
        }
        self.since.insert(id.to_owned(), now);
        self.order.push_back((now, id.to_owned()));
        if self.order.len() > UNKNOWN_MAX
            && let Some((since, oldest)) = self.order.pop_front()
            && self.since.get(&oldest) == Some(&since)
        {
            self.since.remove(&oldest);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn strangers_wait_thirty_seconds_and_operators_one() {
        let mut attempts = Attempts::default();
        assert!(attempts.may_begin(Cause::UnknownKey, s(0)));
        attempts.begin(s(100));
        attempts.succeeded();
        for (cause, second, may) in [
            (Cause::UnknownKey, 129, false),
            (Cause::UnknownKey, 130, true),
            (Cause::Age, 129, false),
            (Cause::Age, 130, true),
            (Cause::Demand, 100, false),
            (Cause::Demand, 101, true),
        ] {
            assert_eq!(attempts.may_begin(cause, s(second)), may, "{cause:?} {second}");
        }
    }

    #[test]
    fn failures_are_retried_at_growing_distances() {
        let mut attempts = Attempts::default();
        let mut now = s(0);
        for wait in [1, 2, 4, 8, 16, 30, 30, 30] {
            attempts.begin(now);
            attempts.failed();
            assert!(!attempts.may_begin(Cause::Age, now + s(wait) - Duration::from_millis(1)));
            now += s(wait);
            assert!(attempts.may_begin(Cause::Age, now));
        }
        (0..100).for_each(|_| attempts.failed());
        attempts.begin(now);
        assert!(attempts.may_begin(Cause::Age, now + s(30)));
    }

    #[test]
    fn unknown_ids_are_remembered_for_a_while_and_never_too_many() {
        let mut unknown = UnknownKeys::default();
        unknown.add("a", s(0));
        assert!(unknown.has("a", s(119)));
        assert!(!unknown.has("a", s(120)));
        unknown.add("a", s(130));
        // Only the second time counts when the first leaves the queue.
        (0..UNKNOWN_MAX - 1).for_each(|n| unknown.add(&n.to_string(), s(131)));
        assert!(unknown.has("a", s(131)));
        unknown.add("one more", s(131));
        assert!(!unknown.has("a", s(131)));
        assert!(unknown.has("one more", s(131)));
        assert_eq!(unknown.since.len(), UNKNOWN_MAX);
        unknown.clear();
        assert!(!unknown.has("one more", s(131)));
    }
}
