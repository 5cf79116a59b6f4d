//! What the log says of sessions. Every line names its session, and its target and login once they
//! are known. What happens as often as a client likes is rationed: beyond that it is only summed up.

use std::error::Error;
use std::sync::Arc;

use tokio::time::sleep;

use crate::audit::journal::JournalError;
use crate::audit::record::Facts;
use crate::domain::clock::Clock;
use crate::domain::ration::{Portion, Ration};
use crate::domain::refusal::RefusalCode;
use crate::session::Refused;
use crate::session::counters::Counters;
use crate::session::dialogue::Fault;
use crate::upstream::dial::DialError;
use crate::upstream::reset::ResetError;

/// The lines of one session. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Notices {
    facts: Arc<Facts>,
    counters: Arc<Counters>,
}

/// A line with the fields that all lines about a session have.
macro_rules! line {
    ($level:ident, $facts:expr, $message:expr $(, $field:ident = $value:expr)*) => {
        tracing::$level!(
            session = $facts.session.map(tracing::field::display),
            target_name = $facts.target.as_ref().map(tracing::field::display),
            login = $facts.login.as_deref(),
            $($field = $value,)*
            "{}", $message
        )
    };
}

impl Notices {
    pub(super) fn new(facts: &Arc<Facts>, counters: &Arc<Counters>) -> Self {
        Self {
            facts: Arc::clone(facts),
            counters: Arc::clone(counters),
        }
    }

    /// A client was told no before it was let in. Says whether there was a line about it at an
    /// ordinary level; what is beyond the ration can be had at `debug`.
    pub(super) fn refused(&self, refused: &Refused, clock: &dyn Clock) -> bool {
        let stranger = self.facts.identity.is_none();
        let (code, reason) = (refused.code.label(), refused.reason.to_string());
        let error = refused.cause.as_deref();
        macro_rules! tell {
            ($level:ident) => {
                line!(
                    $level,
                    self.facts,
                    "session refused",
                    code = code,
                    reason = reason,
                    error = error
                )
            };
        }
        if stranger && !self.may_tell(Crowd::Strangers, clock) {
            tell!(debug);
            return false;
        }
        match refused.code {
            RefusalCode::Internal | RefusalCode::AuditUnavailable => tell!(error),
            RefusalCode::TargetUnavailable => tell!(warn),
            RefusalCode::TlsRequired
            | RefusalCode::TokenMissing
            | RefusalCode::TokenRejected
            | RefusalCode::NotPermitted
            | RefusalCode::TooManySessions
            | RefusalCode::SessionExpired
            | RefusalCode::StatementTimeout
            | RefusalCode::IdleInTransaction
            | RefusalCode::IdleSession
            | RefusalCode::ProtocolViolation => tell!(info),
        }
        true
    }

    /// Gatepost ends a session that was let in.
    pub(super) fn ended(&self, code: RefusalCode, reason: &str) {
        line!(
            info,
            self.facts,
            "session ended",
            code = code.label(),
            reason = reason
        );
    }

    /// The journal did not take a record.
    pub(super) fn unrecorded(&self, error: &JournalError, what: &'static str, clock: &dyn Clock) {
        if self.may_tell(Crowd::Unrecorded, clock) {
            line!(error, self.facts, what, error = chain(error));
        }
    }

    pub(super) fn not_reset(&self, error: &ResetError) {
        let message = "an upstream connection was closed: it could not be reset";
        line!(warn, self.facts, message, error = chain(error));
    }

    pub(super) fn cancel_lost(&self, error: &DialError) {
        let message = "a cancel request could not be delivered";
        line!(warn, self.facts, message, error = chain(error));
    }

    pub(super) fn broke(&self, side: &'static str, error: &std::io::Error) {
        line!(
            debug,
            self.facts,
            "a connection broke",
            side = side,
            error = chain(error)
        );
    }

    pub(super) fn misbehaved(&self, fault: &Fault) {
        let message = "a session ends because somebody broke the protocol";
        line!(warn, self.facts, message, error = chain(fault));
    }

    fn may_tell(&self, crowd: Crowd, clock: &dyn Clock) -> bool {
        match crowd.ration(&self.counters).admit(clock.now()) {
            Portion::Granted => true,
            Portion::Beyond => false,
            Portion::FirstBeyond => {
                let counters = Arc::clone(&self.counters);
                tokio::task::spawn_local(async move {
                    let ration = crowd.ration(&counters);
                    sleep(ration.window()).await;
                    crowd.sum_up(ration.take_beyond());
                });
                false
            }
        }
    }
}

/// What is rationed.
#[derive(Clone, Copy, Debug)]
enum Crowd {
    Strangers,
    Unrecorded,
}

impl Crowd {
    const fn ration(self, counters: &Counters) -> &Ration {
        match self {
            Self::Strangers => &counters.strangers,
            Self::Unrecorded => &counters.unrecorded,
        }
    }

    fn sum_up(self, count: u64) {
        match self {
            Self::Strangers => tracing::info!(count, "more strangers were refused than are told one by one"),
            Self::Unrecorded => tracing::error!(
                count,
                "the journal did not take more records than are told one by one"
            ),
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
