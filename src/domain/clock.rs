//! Time and randomness as things that are handed in, so that tests can decide both.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

/// Wall-clock time, and the ages of things. Durations and timers use `tokio::time`, which tests can pause.
pub trait Clock: Debug + Send + Sync {
    fn now(&self) -> SystemTime;

    /// Time since a fixed moment; for ages, which must not jump when somebody sets the machine's
    /// clock. A clock that never jumps can tell it from the time of day.
    fn uptime(&self) -> Duration {
        let since_1970 = self.now().duration_since(SystemTime::UNIX_EPOCH);
        since_1970.unwrap_or_default()
    }
}

/// Bytes that nobody can predict. Must be a cryptographic source outside tests.
pub trait Random: Debug + Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}
