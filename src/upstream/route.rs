//! The way to a target, which a reload may change under all pools at once: certificates, authorities.

use std::sync::{Arc, Mutex, PoisonError};

use crate::upstream::dial::TargetAddress;

/// Shared by a target's pools on all threads; read once per connection that is opened.
#[derive(Clone, Debug)]
pub struct Route(Arc<Mutex<Arc<TargetAddress>>>);

impl Route {
    pub fn new(address: TargetAddress) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(address))))
    }

    pub fn current(&self) -> Arc<TargetAddress> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Connections that are opened from now on go this way; those that are open stay.
    pub fn replace(&self, address: TargetAddress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(address);
    }
}

impl From<Arc<TargetAddress>> for Route {
    fn from(address: Arc<TargetAddress>) -> Self {
        Self(Arc::new(Mutex::new(address)))
    }
}
