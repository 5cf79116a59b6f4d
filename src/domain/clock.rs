//! Time and randomness as things that are handed in, so that tests can decide both.

use std::fmt::Debug;
use std::time::SystemTime;

/// Wall-clock time. Durations and timers use `tokio::time`, which tests can pause.
pub trait Clock: Debug + Send + Sync {
    fn now(&self) -> SystemTime;
}

/// Bytes that nobody can predict. Must be a cryptographic source outside tests.
pub trait Random: Debug + Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}
