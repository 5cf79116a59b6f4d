//! Waiting for a condition, never for a time.

use std::time::Duration;

use tokio::time::Instant;

/// Far above what anything here takes, also on a machine that compiles beside.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer; fails the test with `what` when there is none in time.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
