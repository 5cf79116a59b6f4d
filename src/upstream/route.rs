//! The way to a target, which a reload may change under all pools at once: certificates, authorities.

use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{Incarnation, Incarnations};
use crate::upstream::dial::TargetAddress;

/// Shared by a target's pools on all threads; read once per connection that is opened.
#[derive(Clone, Debug)]
pub struct Route {
    address: Arc<Mutex<Arc<TargetAddress>>>,
    incarnations: Incarnations,
}

impl Route {
    /// `incarnations` is what others find out about the server at the other end.
    pub fn new(address: TargetAddress, incarnations: Incarnations) -> Self {
        Self {
            incarnations,
            ..Self::from(Arc::new(address))
        }
    }

    /// The life that the server is known to be in; to be asked for before a connection is opened.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.incarnations.current()
    }

    pub fn current(&self) -> Arc<TargetAddress> {
        Arc::clone(&self.address.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Connections that are opened from now on go this way; those that are open stay.
    pub fn replace(&self, address: TargetAddress) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(address);
    }
}

impl From<Arc<TargetAddress>> for Route {
    fn from(address: Arc<TargetAddress>) -> Self {
        Self {
            address: Arc::new(Mutex::new(address)),
            incarnations: Incarnations::default(),
        }
    }
}
