//! Cancelling what runs on an upstream connection, from any thread, over a connection of its own.
//!
//! A cancel request names a server process, not a statement: one that arrives late hits whatever
//! runs by then. So each loan counts its cancels, and a connection goes back to its pool only when
//! none was under way; a canceller of a loan that is over does nothing.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::upstream::dial::{DialError, TargetAddress, connect, within};
use crate::wire::pg::startup::put_cancel_request;

/// Cancels what runs on one loan of a connection. Cheap to clone; may outlive the loan.
#[derive(Clone, Debug)]
pub struct Canceller {
    address: Arc<TargetAddress>,
    limit: Duration,
    process: i32,
    // Not shown: whoever has it can cancel.
    key: CancelKey,
    cancels: Arc<Cancels>,
}

/// The cancels of one loan.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// How many were sent and are not known to have been taken.
    Open { under_way: u32 },
    /// The loan is over.
    Over,
}

#[derive(Clone)]
struct CancelKey(Arc<[u8]>);

impl Canceller {
    pub(super) fn new(
        address: &Arc<TargetAddress>,
        limit: Duration,
        (process, key): (i32, &[u8]),
        cancels: &Arc<Cancels>,
    ) -> Self {
        Self {
            address: Arc::clone(address),
            limit,
            process,
            key: CancelKey(Arc::from(key)),
            cancels: Arc::clone(cancels),
        }
    }

    /// Sends the cancel request and waits until the server has taken it (it closes the connection).
    /// Does nothing when the loan is over. If this fails or is dropped half-way, nobody knows when
    /// the request arrives, and the connection will not be lent again.
    pub async fn cancel(&self) -> Result<(), DialError> {
        if !self.cancels.begin() {
            return Ok(());
        }
        within(self.limit, self.send()).await?;
        self.cancels.taken();
        Ok(())
    }

    async fn send(&self) -> Result<(), DialError> {
        let mut stream = connect(&self.address).await?;
        let mut request = Vec::new();
        put_cancel_request(&mut request, self.process, &self.key.0);
        stream.write_all(&request).await.map_err(DialError::Broken)?;
        stream.flush().await.map_err(DialError::Broken)?;
        // The server signals its process, then closes, cleanly or not.
        let _ = stream.read_u8().await;
        Ok(())
    }
}

impl Cancels {
    /// Ends the loan. `false` when a cancel is under way: the connection must be closed.
    pub(super) fn end(&self) -> bool {
        let mut state = self.state();
        let clear = *state == State::Open { under_way: 0 };
        *state = State::Over;
        clear
    }

    fn begin(&self) -> bool {
        match &mut *self.state() {
            State::Open { under_way } => {
                *under_way = under_way.saturating_add(1);
                true
            }
            State::Over => false,
        }
    }

    fn taken(&self) {
        match &mut *self.state() {
            State::Open { under_way } => *under_way = under_way.saturating_sub(1),
            State::Over => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Open { under_way: 0 }
    }
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loan_ends_clear_only_when_no_cancel_is_under_way() {
        let cancels = Cancels::default();
        assert!(cancels.begin() && cancels.begin());
        cancels.taken();
        assert!(!cancels.end());
        let cancels = Cancels::default();
        assert!(cancels.begin());
        cancels.taken();
        assert!(cancels.end());
        assert!(
            !cancels.begin(),
            "a canceller of a loan that is over does nothing"
        );
    }
}
