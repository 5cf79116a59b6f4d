//! What the examples that write to PostgreSQL make of an error: the message's fault, the way's, or the
//! deployment's. And how they connect again.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;

use crate::parts::Failure;

/// How long a broken connection is tried again before the consumer gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Classes 22 (wrong values) and 23 (broken constraints): trying again changes nothing.
pub(crate) fn is_poison(error: &tokio_postgres::Error) -> bool {
    let class = |code: &SqlState| ["22", "23"].iter().any(|class| code.code().starts_with(class));
    error.code().is_some_and(class)
}

/// No answer, class 08 (connection), or a server that is going away or starting.
pub(crate) fn is_loss(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(|code| {
        let passing = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::IO_ERROR,
        ];
        code.code().starts_with("08") || passing.contains(code)
    })
}

pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    let refused = error.as_db_error().map(|refused| refused.message().to_owned());
    refused.unwrap_or_else(|| error.to_string())
}

/// Connects; a refusal ends the consumer, a failure is tried again for a while.
pub(crate) async fn patiently<T>(connect: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
    let until = Instant::now() + PATIENCE;
    let mut pause = RETRY_FIRST;
    loop {
        let failure = match connect().await {
            Ok(connected) => return Ok(connected),
            Err(failure) => failure,
        };
        let passing = match failure.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => is_loss(error),
            None => failure.is::<std::io::Error>(),
        };
        if !passing || Instant::now() + pause > until {
            return Err(failure);
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}
