//! So much in a window of time; the rest is only counted. For what outsiders can bring about as
//! often as they like.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// See the module.
#[derive(Debug)]
pub struct Ration {
    window: Duration,
    most: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<SystemTime>,
    spent: u64,
    beyond: u64,
}

/// What became of one wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    Granted,
    /// Counted; the first since the count was last taken, so somebody should come for it.
    FirstBeyond,
    /// Counted.
    Beyond,
}

impl Ration {
    /// At most `most` in each `window`.
    pub fn new(most: u64, window: Duration) -> Self {
        Self {
            window,
            most,
            state: Mutex::default(),
        }
    }

    pub fn admit(&self, at: SystemTime) -> Portion {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back begins a new window, too.
        let is_open = |since| at.duration_since(since).is_ok_and(|past| past < self.window);
        if !state.since.is_some_and(is_open) {
            state.since = Some(at);
            state.spent = 0;
        }
        if state.spent < self.most {
            state.spent += 1;
            return Portion::Granted;
        }
        state.beyond += 1;
        match state.beyond {
            1 => Portion::FirstBeyond,
            _ => Portion::Beyond,
        }
    }

    /// How many were only counted since the last time.
    pub fn take_beyond(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.beyond)
    }

    pub const fn window(&self) -> Duration {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_ration_is_counted_and_nothing_is_lost() {
        let ration = Ration::new(2, Duration::from_secs(60));
        let start = SystemTime::UNIX_EPOCH;
        let portions: Vec<_> = (0..5).map(|_| ration.admit(start)).collect();
        use Portion::{Beyond, FirstBeyond, Granted};
        assert_eq!(portions, [Granted, Granted, FirstBeyond, Beyond, Beyond]);
        let next = start + Duration::from_secs(60);
        assert_eq!(ration.admit(next), Granted);
        assert_eq!(ration.take_beyond(), 3);
        assert_eq!(ration.admit(start), Granted, "a clock that was set back");
        assert_eq!(ration.admit(start), Granted);
        assert_eq!(ration.admit(start), FirstBeyond);
    }
}
