//! Who may ask what of the running gatepost: the `admin` rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::admin::{AdminAction, LocalOperator};
use crate::domain::identity::Identity;
use crate::domain::ids::RuleName;
use crate::domain::mistake::{Mistake, Place};

use super::compile::Policy;
use super::matcher::{Examined, Finding, Matcher};

/// One rule as meant.
#[derive(Clone, Debug)]
pub(super) struct AdminRule {
    pub(super) name: RuleName,
    pub(super) matcher: Matcher,
    pub(super) allow: BTreeSet<AdminAction>,
    /// Where the name stands, and the line as written.
    pub(super) place: Place,
    pub(super) excerpt: Option<String>,
}

impl AdminRule {
    pub(super) fn mistake(&self, message: String) -> Mistake {
        Mistake {
            place: Some(self.place.clone()),
            message,
            excerpt: self.excerpt.clone(),
        }
    }
}

/// What one caller may ask for. Empty unless a rule said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminRights {
    permitted: BTreeMap<AdminAction, Source>,
}

/// Where a right comes from: a rule of this version of the policy. `None`: from the machine.
type Source = Option<(RuleName, Arc<str>)>;

/// One action, permitted to one caller. Whoever acts takes it by value; only [`AdminRights`] makes
/// one.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct AdminPermit {
    action: AdminAction,
    source: Source,
}

impl AdminRights {
    /// The local operator could do everything to the process anyway, also without gatepost.
    pub fn of_local(_: LocalOperator) -> Self {
        Self {
            permitted: AdminAction::ALL.map(|action| (action, None)).into(),
        }
    }

    pub fn permits(&self, action: AdminAction) -> Option<AdminPermit> {
        let source = self.permitted.get(&action)?;
        Some(AdminPermit {
            action,
            source: source.clone(),
        })
    }

    /// The permitted actions with the rule that permits each.
    pub fn iter(&self) -> impl Iterator<Item = (AdminAction, Option<&RuleName>)> {
        self.permitted
            .iter()
            .map(|(action, source)| (*action, source.as_ref().map(|(rule, _)| rule)))
    }

    pub fn is_empty(&self) -> bool {
        self.permitted.is_empty()
    }
}

impl AdminPermit {
    pub const fn action(&self) -> AdminAction {
        self.action
    }

    /// The rule that permits it and the policy's version; `None` for a local operator.
    pub fn rule(&self) -> Option<(&RuleName, &Arc<str>)> {
        self.source.as_ref().map(|(rule, version)| (rule, version))
    }
}

impl Policy {
    /// Default deny; a deny rule that matches, or that cannot be evaluated, wins here too; then
    /// whatever the admin rules allow together.
    pub fn admin(&self, identity: &Identity) -> AdminRights {
        let examined = Examined::new(identity);
        if self.deny_rule(&examined).is_some() {
            return AdminRights::default();
        }
        let mut permitted = BTreeMap::new();
        for rule in self.admin_rules() {
            // A rule that cannot be evaluated allows nothing.
            if rule.matcher.examine(&examined) != Finding::Yes {
                continue;
            }
            for action in &rule.allow {
                let source = || Some((rule.name.clone(), Arc::clone(self.version())));
                permitted.entry(*action).or_insert_with(source);
            }
        }
        AdminRights { permitted }
    }
}
