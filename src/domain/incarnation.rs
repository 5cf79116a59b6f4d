//! Lives of a database server. A crash, a restart or a failover begins a new one, in which transaction
//! ids of the one before may be given out again: an id means something only together with its life.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, Serializer};

/// One life of a database server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// The system identifier, made with the cluster: replicas share it.
    system: Arc<str>,
    timeline: i32,
    /// When its checkpointer began, in microseconds of the server's clock since 1970. It begins anew
    /// with each crash, which the start of the postmaster does not. `None`: nobody let us see it.
    began: Option<i64>,
}

impl Incarnation {
    pub fn new(system: &str, timeline: i32, began: Option<i64>) -> Self {
        Self {
            system: Arc::from(system),
            timeline,
            began,
        }
    }

    /// Is it proven that this is the very same life? What was not seen proves nothing.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.began.is_some() && self == other
    }

    /// Is it a life of the same cluster, or of a copy of its files?
    pub fn is_of_same_system(&self, other: &Self) -> bool {
        self.system == other.system
    }

    /// Could one be the next life of the other on the same machine? A promotion begins a timeline.
    pub fn is_on_same_timeline(&self, other: &Self) -> bool {
        self.is_of_same_system(other) && self.timeline == other.timeline
    }

    pub const fn began(&self) -> Option<i64> {
        self.began
    }
}

/// `system/timeline/began`, the last one `-` when it is not known.
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.system, self.timeline)?;
        match self.began {
            Some(began) => write!(f, "{began}"),
            None => f.write_str("-"),
        }
    }
}

/// A text that no incarnation is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoIncarnation;

impl FromStr for Incarnation {
    type Err = NoIncarnation;

    fn from_str(text: &str) -> Result<Self, NoIncarnation> {
        let mut parts = text.split('/');
        let (Some(system), Some(timeline), Some(began), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoIncarnation);
        };
        let began = match began {
            "-" => None,
            began => Some(began.parse().map_err(|_| NoIncarnation)?),
        };
        let timeline = timeline.parse().map_err(|_| NoIncarnation)?;
        Ok(Self::new(system, timeline, began))
    }
}

impl Serialize for Incarnation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The life that a target's server is known to be in, for whoever opens connections to it. Read before
/// a connection is opened, so that it is never newer than the connection; one that is older is found to
/// be another than the server's, and proves nothing.
#[derive(Clone, Debug, Default)]
pub struct Incarnations(Arc<Mutex<Option<Incarnation>>>);

impl Incarnations {
    pub fn current(&self) -> Option<Incarnation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server was asked, or lost.
    pub fn set(&self, incarnation: Option<Incarnation>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = incarnation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes() {
        for began in [None, Some(1_700_000_000_123_456)] {
            let written = Incarnation::new("7301234567890123456", 3, began);
            assert_eq!(written.to_string().parse(), Ok(written));
        }
        for wrong in ["", "1/2", "1/x/3", "1/2/x", "1/2/3/4"] {
            assert_eq!(wrong.parse::<Incarnation>(), Err(NoIncarnation), "{wrong}");
        }
    }

    #[test]
    fn what_was_not_seen_is_never_the_same() {
        let (seen, unseen) = (Incarnation::new("1", 1, Some(5)), Incarnation::new("1", 1, None));
        assert!(seen.is_same_as(&seen.clone()));
        assert!(!unseen.is_same_as(&unseen.clone()) && !unseen.is_same_as(&seen));
        assert!(unseen.is_of_same_system(&seen));
        assert!(!seen.is_same_as(&Incarnation::new("1", 2, Some(5))));
    }
}
