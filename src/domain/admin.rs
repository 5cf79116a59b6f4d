//! What operators may ask of a running gatepost, and who asks from the same machine.

use std::fmt;

/// Everything that can be asked for; one word in policies, routes and records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminAction {
    SessionsList,
    SessionsKill,
    PoolsList,
    LoginsList,
    LoginsRotate,
    PolicyShow,
    Reload,
    KeysRefresh,
    RevocationsList,
    Revoke,
    RevocationsLift,
}

impl AdminAction {
    pub const ALL: [Self; 11] = [
        Self::SessionsList,
        Self::SessionsKill,
        Self::PoolsList,
        Self::LoginsList,
        Self::LoginsRotate,
        Self::PolicyShow,
        Self::Reload,
        Self::KeysRefresh,
        Self::RevocationsList,
        Self::Revoke,
        Self::RevocationsLift,
    ];

    /// The word in policies.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SessionsList => "sessions.list",
            Self::SessionsKill => "sessions.kill",
            Self::PoolsList => "pools.list",
            Self::LoginsList => "logins.list",
            Self::LoginsRotate => "logins.rotate",
            Self::PolicyShow => "policy.show",
            Self::Reload => "reload",
            Self::KeysRefresh => "keys.refresh",
            Self::RevocationsList => "revocations.list",
            Self::Revoke => "revoke",
            Self::RevocationsLift => "revocations.lift",
        }
    }

    /// The name of the event in the journal: `admin.` and the word.
    pub const fn event(self) -> &'static str {
        match self {
            Self::SessionsList => "admin.sessions.list",
            Self::SessionsKill => "admin.sessions.kill",
            Self::PoolsList => "admin.pools.list",
            Self::LoginsList => "admin.logins.list",
            Self::LoginsRotate => "admin.logins.rotate",
            Self::PolicyShow => "admin.policy.show",
            Self::Reload => "admin.reload",
            Self::KeysRefresh => "admin.keys.refresh",
            Self::RevocationsList => "admin.revocations.list",
            Self::Revoke => "admin.revoke",
            Self::RevocationsLift => "admin.revocations.lift",
        }
    }

    /// Does it only look? The others change something and are acts.
    pub const fn only_looks(self) -> bool {
        match self {
            Self::SessionsList
            | Self::PoolsList
            | Self::LoginsList
            | Self::PolicyShow
            | Self::RevocationsList => true,
            Self::SessionsKill
            | Self::LoginsRotate
            | Self::Reload
            | Self::KeysRefresh
            | Self::Revoke
            | Self::RevocationsLift => false,
        }
    }
}

impl fmt::Display for AdminAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Somebody on this machine who could do everything to the process anyway: root, or the user that
/// it runs as. Who holds one has been recognised by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalOperator {
    uid: u32,
}

impl LocalOperator {
    /// `peer` is the caller's user id as the kernel tells it, `own` the process's.
    pub const fn recognise(peer: u32, own: u32) -> Option<Self> {
        if peer == 0 || peer == own {
            Some(Self { uid: peer })
        } else {
            None
        }
    }

    pub const fn uid(self) -> u32 {
        self.uid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_and_its_event_are_one() {
        for action in AdminAction::ALL {
            assert_eq!(action.event(), format!("admin.{action}"));
        }
    }

    #[test]
    fn only_root_and_the_own_user_are_local_operators() {
        assert!(LocalOperator::recognise(0, 999).is_some());
        assert!(LocalOperator::recognise(999, 999).is_some());
        assert!(LocalOperator::recognise(1000, 999).is_none());
        assert!(LocalOperator::recognise(1000, 0).is_none());
    }
}
