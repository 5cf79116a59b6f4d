//! Which rule decides, and why the others did not. For `gatepost explain`, never for a client.

use std::fmt;

use serde::Serialize;

use crate::domain::access::AccessRequest;
use crate::domain::ids::{RoleName, RuleName};

use super::compile::Policy;
use super::decision::{DenialWhy, Limits};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub allowed: bool,
    pub role: Option<RoleName>,
    /// The rule that decides, for or against.
    pub rule: Option<RuleName>,
    pub denied: Option<DenialWhy>,
    pub limits: Option<Limits>,
    pub own_roles: Vec<RoleName>,
    /// Every rule in order.
    pub considered: Vec<Considered>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    pub rule: RuleName,
    /// `file:line:column`.
    pub place: String,
    pub verdict: Verdict,
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Decides,
    /// Matches, but another rule came first or another role was wanted.
    Matches,
    DoesNotMatch,
    CannotBeEvaluated,
}

impl Policy {
    pub fn explain(&self, _request: &AccessRequest<'_>) -> Explanation {
        Explanation {
            allowed: false,
            role: None,
            rule: None,
            denied: Some(DenialWhy::NothingGranted),
            limits: None,
            own_roles: Vec::new(),
            considered: Vec::new(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allowed { "allowed" } else { "denied" })
    }
}
