//! So much in a window of time, for each of many who are told apart.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How often a full table is searched for those who may be forgotten.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Rations<K> {
    window: Duration,
    most: u64,
    told_apart: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    spent: HashMap<K, Spent>,
    searched: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug)]
struct Spent {
    since: SystemTime,
    count: u64,
}

impl<K: Eq + Hash> Rations<K> {
    /// At most `most` in each `window` for everyone. Of more than `told_apart` at the same time the
    /// further ones are not limited: to count them together would let a crowd shut out everybody else.
    pub fn new(most: u64, window: Duration, told_apart: usize) -> Self {
        Self {
            window,
            most,
            told_apart,
            state: Mutex::new(State {
                spent: HashMap::new(),
                searched: None,
            }),
        }
    }

    /// Counts one wish. `Err`: the ration is used up, and there is more after this time.
    pub fn admit(&self, who: K, at: SystemTime) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.spent.contains_key(&who) && !self.has_room(&mut state, at) {
            return Ok(());
        }
        let fresh = Spent { since: at, count: 0 };
        let spent = state.spent.entry(who).or_insert(fresh);
        let Some(left) = self.left(*spent, at) else {
            *spent = Spent { count: 1, ..fresh };
            return Ok(());
        };
        if spent.count >= self.most {
            return Err(left);
        }
        spent.count += 1;
        Ok(())
    }

    fn has_room(&self, state: &mut State<K>, at: SystemTime) -> bool {
        let recently = |searched| at.duration_since(searched).is_ok_and(|past| past < SEARCH_EVERY);
        if state.spent.len() >= self.told_apart && !state.searched.is_some_and(recently) {
            state.searched = Some(at);
            state.spent.retain(|_, spent| self.left(*spent, at).is_some());
        }
        state.spent.len() < self.told_apart
    }

    /// What is left of a window. A clock that was set back ends it, too: nobody waits for ever.
    fn left(&self, spent: Spent, at: SystemTime) -> Option<Duration> {
        let past = at.duration_since(spent.since).ok()?;
        self.window.checked_sub(past).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + seconds)
    }

    #[test]
    fn everyone_has_a_ration_and_hears_when_there_is_more() {
        let rations = Rations::new(2, WINDOW, 10);
        assert_eq!(rations.admit("ann", at(0)), Ok(()));
        assert_eq!(rations.admit("ann", at(10)), Ok(()));
        assert_eq!(rations.admit("ann", at(15)), Err(Duration::from_secs(45)));
        assert_eq!(rations.admit("bob", at(15)), Ok(()));
        assert_eq!(rations.admit("ann", at(59)), Err(Duration::from_secs(1)));
        assert_eq!(rations.admit("ann", at(60)), Ok(()));
        assert_eq!(rations.admit("ann", at(60)), Ok(()));
        assert_eq!(rations.admit("ann", at(60)), Err(WINDOW));
        assert_eq!(rations.admit("ann", at(0)), Ok(()), "a clock that was set back");
    }

    #[test]
    fn a_crowd_costs_no_more_memory_and_shuts_nobody_out() {
        let rations = Rations::new(1, WINDOW, 100);
        for who in 0..10_000 {
            assert_eq!(rations.admit(who, at(0)), Ok(()));
        }
        assert_eq!(rations.state.lock().unwrap().spent.len(), 100);
        assert_eq!(rations.admit(5, at(0)), Err(WINDOW));
        // Once the crowd is over, everybody is told apart again.
        assert_eq!(rations.admit(5_000, at(60)), Ok(()));
        assert_eq!(rations.admit(5_000, at(60)), Err(WINDOW));
        assert_eq!(rations.state.lock().unwrap().spent.len(), 1);
    }
}
