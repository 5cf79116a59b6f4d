//! Ending well: new clients are turned away, sessions are told, and the process waits for them, but
//! not forever.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The switch. Cheap to clone; any clone turns it for all.
#[derive(Clone, Debug)]
pub struct Drain {
    begun: watch::Sender<bool>,
    sessions: watch::Sender<usize>,
}

/// What a session or an acceptor watches.
#[derive(Clone, Debug)]
pub struct DrainSignal {
    begun: watch::Receiver<bool>,
}

/// One session that a drain waits for; dropped when it is over.
#[derive(Debug)]
pub struct OpenSession {
    sessions: watch::Sender<usize>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    pub fn new() -> Self {
        Self {
            begun: watch::Sender::new(false),
            sessions: watch::Sender::new(0),
        }
    }

    /// Starts draining. There is no way back.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    pub fn signal(&self) -> DrainSignal {
        DrainSignal {
            begun: self.begun.subscribe(),
        }
    }

    /// Counts a session in until the result is dropped.
    pub fn enter(&self) -> OpenSession {
        self.sessions.send_modify(|count| *count += 1);
        OpenSession {
            sessions: self.sessions.clone(),
        }
    }

    pub fn sessions(&self) -> usize {
        *self.sessions.borrow()
    }

    /// Waits until no session is left, or says how many are when the time is over.
    pub async fn finished(&self, limit: Duration) -> Result<(), usize> {
        let mut sessions = self.sessions.subscribe();
        let none_left = async {
            // Fails only when no sender is left, and `self` is one.
            let _ = sessions.wait_for(|count| *count == 0).await;
        };
        timeout(limit, none_left).await.map_err(|_| self.sessions())
    }
}

impl DrainSignal {
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Waits until draining begins. Cancel-safe.
    pub async fn begun(&mut self) {
        if self.begun.wait_for(|begun| *begun).await.is_err() {
            // The switch is gone without having been turned: it never will be.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.sessions
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_for_the_last_session() {
        let drain = Drain::new();
        let session = drain.enter();
        let mut signal = drain.signal();
        assert!(!signal.has_begun());
        drain.begin();
        signal.begun().await;
        assert_eq!(drain.finished(Duration::ZERO).await, Err(1));
        let limit = Duration::from_secs(30);
        let (finished, ()) = tokio::join!(drain.finished(limit), async move { drop(session) });
        assert_eq!(finished, Ok(()));
    }

    #[tokio::test]
    async fn nothing_to_wait_for() {
        assert_eq!(Drain::new().finished(Duration::ZERO).await, Ok(()));
    }
}
