//! A world for one test: a real PostgreSQL, a certified identity provider, the built gatepost, and the
//! programs that people connect with. Everything on loopback, in one temporary folder, and ended by
//! process id when the test ends.

pub(crate) mod certificates;
pub(crate) mod config;
pub(crate) mod journal;
pub(crate) mod metrics;
pub(crate) mod operator;
pub(crate) mod plain;
pub(crate) mod programs;
pub(crate) mod provider;
pub(crate) mod sqlserver;
pub(crate) mod standby;
pub(crate) mod token_giver;
pub(crate) mod tools;
pub(crate) mod wal;
#[path = "../../support/way.rs"]
mod way;
pub(crate) mod world;

use std::time::{Duration, Instant};

/// How long a test waits for anything; only a failing test ever waits this long.
const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// With `GATEPOST_TEST_FULL` set, as in CI, stories are told at full length.
pub(crate) fn full() -> bool {
    std::env::var_os("GATEPOST_TEST_FULL").is_some()
}

/// Comes back with what `look` finds; fails the test when it finds nothing for too long.
#[expect(
    clippy::disallowed_methods,
    reason = "no runtime runs here whose clock could be paused"
)]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
