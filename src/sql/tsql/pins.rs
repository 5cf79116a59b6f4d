//! Why a connection must stay with its client after a statement: state that outlives it and that nobody
//! but the client knows how to make again.

use std::fmt;

/// One reason. The list follows what a connection reset of SQL Server clears, and what it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    /// `#name`: lives as long as the connection, or as the procedure or dynamic text that made it.
    TempTable,
    /// `##name`: lives as long as the connection, wherever it was made.
    GlobalTempTable,
    /// A cursor that is not local to the batch, by name or by the `sp_cursor…` procedures.
    Cursor,
    /// `sp_getapplock`.
    AppLock,
    /// `sp_setapprole`. The connection must be closed afterwards.
    AppRole,
    /// `EXECUTE AS`. The connection must be closed afterwards.
    ExecuteAs,
    /// `SETUSER`. The connection must be closed afterwards.
    SetUser,
    /// `SET CONTEXT_INFO`.
    ContextInfo,
    /// `sp_set_session_context` with another key than the correlation id's, or made read-only.
    SessionContext,
    /// `USE`. The server tells it with an ENVCHANGE too, and it is among the settings: who sets it again on
    /// reuse need not pin.
    Database,
    /// A SET whose option or value cannot be set again by us.
    Setting,
    /// SHOWPLAN, NOEXEC, PARSEONLY, FMTONLY.
    PlanOnly,
    /// `SET STATISTICS`.
    Statistics,
    /// `SET IDENTITY_INSERT`.
    IdentityInsert,
    /// `DBCC TRACEON`, `TRACEOFF`.
    TraceFlag,
    /// `OPEN SYMMETRIC KEY`, `OPEN MASTER KEY`.
    SymmetricKey,
    /// `INSERT BULK`: rows follow in a message of their own.
    Bulk,
    /// Conversations and queues.
    ServiceBroker,
    /// `sp_bindsession`, `sp_getbindtoken`: another connection shares the transaction.
    BoundSession,
    /// `sp_trace_…`.
    Trace,
    /// `sp_xml_preparedocument`.
    XmlDocument,
    /// `sp_prepare`, `sp_prepexec`.
    PreparedHandle,
    /// A distributed transaction.
    Distributed,
    /// `EXEC ('…')`, `sp_executesql`, `EXEC @name`: what it does is not seen.
    DynamicSql,
    /// A procedure of the client's own: what it does is not seen.
    Procedure,
    /// The text cannot be read for sure.
    Unreadable,
}

impl Pin {
    pub const ALL: [Self; 26] = [
        Self::TempTable,
        Self::GlobalTempTable,
        Self::Cursor,
        Self::AppLock,
        Self::AppRole,
        Self::ExecuteAs,
        Self::SetUser,
        Self::ContextInfo,
        Self::SessionContext,
        Self::Database,
        Self::Setting,
        Self::PlanOnly,
        Self::Statistics,
        Self::IdentityInsert,
        Self::TraceFlag,
        Self::SymmetricKey,
        Self::Bulk,
        Self::ServiceBroker,
        Self::BoundSession,
        Self::Trace,
        Self::XmlDocument,
        Self::PreparedHandle,
        Self::Distributed,
        Self::DynamicSql,
        Self::Procedure,
        Self::Unreadable,
    ];

    /// The name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TempTable => "temp_table",
            Self::GlobalTempTable => "global_temp_table",
            Self::Cursor => "cursor",
            Self::AppLock => "app_lock",
            Self::AppRole => "app_role",
            Self::ExecuteAs => "execute_as",
            Self::SetUser => "setuser",
            Self::ContextInfo => "context_info",
            Self::SessionContext => "session_context",
            Self::Database => "database",
            Self::Setting => "setting",
            Self::PlanOnly => "plan_only",
            Self::Statistics => "statistics",
            Self::IdentityInsert => "identity_insert",
            Self::TraceFlag => "trace_flag",
            Self::SymmetricKey => "symmetric_key",
            Self::Bulk => "bulk",
            Self::ServiceBroker => "service_broker",
            Self::BoundSession => "bound_session",
            Self::Trace => "trace",
            Self::XmlDocument => "xml_document",
            Self::PreparedHandle => "prepared_handle",
            Self::Distributed => "distributed",
            Self::DynamicSql => "dynamic_sql",
            Self::Procedure => "procedure",
            Self::Unreadable => "unreadable",
        }
    }

    /// Is the connection of no use to anybody afterwards? A reset neither ends impersonation nor gives an
    /// application role back.
    pub const fn poisons(self) -> bool {
        matches!(self, Self::AppRole | Self::ExecuteAs | Self::SetUser)
    }

    /// Does this end by itself with the dynamic text or the procedure in which it was made?
    pub(super) const fn ends_with_scope(self) -> bool {
        matches!(
            self,
            Self::TempTable | Self::Database | Self::Setting | Self::Statistics | Self::IdentityInsert
        )
    }

    const fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

/// A set of reasons.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Pins(u32);

impl Pins {
    pub const NONE: Self = Self(0);

    pub const fn of(pin: Pin) -> Self {
        Self(pin.bit())
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn contains(self, pin: Pin) -> bool {
        self.0 & pin.bit() != 0
    }

    pub const fn with(self, pin: Pin) -> Self {
        Self(self.0 | pin.bit())
    }

    pub const fn without(self, pin: Pin) -> Self {
        Self(self.0 & !pin.bit())
    }

    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.contains(*pin))
    }

    /// Must the connection be closed when its client is done?
    pub fn poisons(self) -> bool {
        self.iter().any(Pin::poisons)
    }
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_bit_and_a_name() {
        let labels: BTreeSet<_> = Pin::ALL.map(Pin::label).into();
        assert_eq!(labels.len(), Pin::ALL.len());
        let all = Pin::ALL.into_iter().fold(Pins::NONE, Pins::with);
        assert_eq!(all.iter().count(), Pin::ALL.len());
        assert!(all.poisons() && !Pins::of(Pin::TempTable).poisons());
        assert!(all.without(Pin::Unreadable) != all && Pins::NONE.is_empty());
    }
}
