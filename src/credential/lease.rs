//! What a session holds while it uses a login.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::credential::naming::LoginName;
use crate::domain::ids::RoleName;
use crate::domain::password::Password;
use crate::domain::target::TargetName;

/// A login with its secret. A minted one is shared by all sessions of one identity in one role, one that
/// is not by everybody at its target.
#[derive(Debug)]
pub struct Lease {
    pub(super) login: LoginName,
    pub(super) password: Password,
    pub(super) target: TargetName,
    pub(super) role: RoleName,
    pub(super) minted: bool,
}

impl Lease {
    pub const fn login(&self) -> &LoginName {
        &self.login
    }

    pub const fn password(&self) -> &Password {
        &self.password
    }

    /// If not, it is the managed identity's user: the same for all identities, and not ours to inspect.
    pub const fn is_minted(&self) -> bool {
        self.minted
    }

    pub const fn target(&self) -> &TargetName {
        &self.target
    }

    pub const fn role(&self) -> &RoleName {
        &self.role
    }
}

/// Names a lease in the broker's books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LeaseId(pub(super) u64);

/// Keeps a login alive: it is renewed while anyone holds it. Dropping it means one session less.
pub struct LeaseHold {
    lease: Arc<Lease>,
    id: LeaseId,
    /// Unbounded, because `drop` cannot wait; there is never more in it than there were holds.
    released: UnboundedSender<LeaseId>,
}

impl LeaseHold {
    pub(super) const fn new(lease: Arc<Lease>, id: LeaseId, released: UnboundedSender<LeaseId>) -> Self {
        Self { lease, id, released }
    }

    pub const fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }
}

impl std::ops::Deref for LeaseHold {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for LeaseHold {
    fn drop(&mut self) {
        // Fails only when the broker has stopped, and then the login has been dropped already.
        let _ = self.released.send(self.id);
    }
}

impl fmt::Debug for LeaseHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LeaseHold").field(&self.lease).finish()
    }
}
