//! Whose connections are counted together, and how many there may be.

use std::sync::Arc;

use crate::domain::{IdentityKey, RoleName};

/// One identity in one role. Not a login: while a new login replaces an old one, the connections of
/// both count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    pub identity: IdentityKey,
    pub role: RoleName,
}

/// What a holder may have of a target's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub holder: Arc<Holder>,
    /// Connections at the same time over all threads: lent, idle, and being opened. `None`: only the
    /// target's own cap counts.
    pub most: Option<u32>,
}

impl Share {
    pub(super) fn most(&self) -> u32 {
        self.most.unwrap_or(u32::MAX)
    }
}
