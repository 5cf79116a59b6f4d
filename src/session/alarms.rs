//! What wakes a session besides bytes: its end, the rule's timers, and the bell. One timer for all
//! of them, which is set only when something is due earlier than it would ring.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::policy::Limits;
use crate::session::roster::{Doing, Place};

/// A statement that was cancelled for its time and runs on for this long ends the session: the
/// server does not listen, or the client keeps the statement waiting for its data.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// What a session is doing, finely enough to time it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    Idle,
    IdleInTransaction,
    /// Something of the client runs. Counts the replies so far, so that two statements in a row are
    /// two.
    Running(u64),
}

impl Activity {
    pub(super) const fn doing(self) -> Doing {
        match self {
            Self::Idle => Doing::Idle,
            Self::IdleInTransaction => Doing::IdleInTransaction,
            Self::Running(_) => Doing::Running,
        }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    Bell,
    /// The session's end, or the end of its grace.
    End,
    /// The statement is to be cancelled.
    StatementTimeout(Duration),
    /// It was cancelled and runs on.
    CancelIgnored(Duration),
    IdleInTransaction(Duration),
    Idle(Duration),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Alarms {
    limits: Limits,
    end: Instant,
    activity: Activity,
    noted: bool,
    since: Instant,
    /// The running statement was cancelled for its time.
    cancelled: bool,
    timer: Pin<Box<Sleep>>,
    bell: Pin<Box<OwnedNotified>>,
    /// Does the bell know whom to wake?
    listening: bool,
}

impl Alarms {
    pub(super) fn new(limits: Limits, end: Instant, place: &Place) -> Self {
        Self {
            limits,
            end,
            activity: Activity::Idle,
            noted: false,
            since: Instant::now(),
            cancelled: false,
            timer: Box::pin(sleep_until(end)),
            bell: Box::pin(place.listen()),
            listening: false,
        }
        .armed()
    }

    fn armed(mut self) -> Self {
        self.arm();
        self
    }

    /// Notes what the session does now, and says whether that is new. Cheap if not.
    pub(super) fn note(&mut self, activity: Activity) -> bool {
        let new = !self.noted || activity != self.activity;
        if new {
            self.noted = true;
            self.activity = activity;
            self.cancelled = false;
            if self.has_timers() {
                self.since = Instant::now();
                self.arm();
            }
        }
        new
    }

    pub(super) fn set_end(&mut self, end: Instant) {
        self.end = end;
        self.arm();
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.arm();
    }

    /// The next thing that is due, once.
    pub(super) fn poll(&mut self, place: &Place, turn: &mut Context<'_>) -> Poll<Alarm> {
        // Once it knows whom to wake it need not be asked every turn: whoever rings says so first.
        while !self.listening {
            if self.bell.as_mut().poll(turn).is_ready() {
                self.bell.set(place.listen());
            } else {
                self.listening = true;
            }
        }
        if place.was_rung() {
            self.bell.set(place.listen());
            self.listening = false;
            return Poll::Ready(Alarm::Bell);
        }
        while self.timer.as_mut().poll(turn).is_ready() {
            let now = Instant::now();
            if now >= self.end {
                // Not again until a new end is set.
                self.end = far(now);
                self.arm_at(self.next());
                return Poll::Ready(Alarm::End);
            }
            if let Some(alarm) = self.limit_reached(now) {
                self.arm_at(self.next());
                return Poll::Ready(alarm);
            }
            self.arm_at(self.next());
        }
        Poll::Pending
    }

    fn limit_reached(&mut self, now: Instant) -> Option<Alarm> {
        let (at, limit) = self.limit_due()?;
        if now < at {
            return None;
        }
        Some(match self.activity {
            Activity::Idle => Alarm::Idle(limit),
            Activity::IdleInTransaction => Alarm::IdleInTransaction(limit),
            Activity::Running(_) if self.cancelled => Alarm::CancelIgnored(limit),
            Activity::Running(_) => {
                self.cancelled = true;
                Alarm::StatementTimeout(limit)
            }
        })
    }

    const fn has_timers(&self) -> bool {
        self.limits.statement_timeout.is_some()
            || self.limits.idle_in_transaction.is_some()
            || self.limits.idle.is_some()
    }

    /// When the rule's timer for the present activity is over, and the rule's limit.
    fn limit_due(&self) -> Option<(Instant, Duration)> {
        let limit = match self.activity {
            Activity::Idle => self.limits.idle,
            Activity::IdleInTransaction => self.limits.idle_in_transaction,
            Activity::Running(_) => self.limits.statement_timeout,
        }?;
        let patience = if self.cancelled {
            CANCEL_PATIENCE
        } else {
            Duration::ZERO
        };
        Some((self.since + limit + patience, limit))
    }

    fn next(&self) -> Instant {
        self.limit_due().map_or(self.end, |(at, _)| at.min(self.end))
    }

    /// Rings early enough; that it may ring too early is found out then.
    fn arm(&mut self) {
        let next = self.next();
        if next < self.timer.deadline() {
            self.arm_at(next);
        }
    }

    fn arm_at(&mut self, at: Instant) {
        self.timer.as_mut().reset(at);
    }
}

/// A time that no session lives to see; adding a greater one could overflow.
fn far(now: Instant) -> Instant {
    now + Duration::from_secs(365 * 24 * 60 * 60)
}
