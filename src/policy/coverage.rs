//! What rules do to each other: dead ones are mistakes, overlaps are worth a look.

use crate::domain::mistake::Mistake;

use super::admin::AdminRule;
use super::compile::shown;
use super::rule::{Effect, Rule};

/// Rules that can be proved never to decide anything.
pub(super) fn dead_rules(rules: &[Rule]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let (earlier, rest) = rules.split_at(index);
        let covering = earlier
            .iter()
            .find(|other| same_effect(other, rule) && other.matcher.covers(&rule.matcher));
        // A deny wins wherever it stands.
        let denying = || {
            let mut others = earlier.iter().chain(rest.iter().skip(1));
            others.find(|other| {
                matches!(rule.effect, Effect::Grant { .. })
                    && matches!(other.effect, Effect::Deny(_))
                    && other.matcher.covers(&rule.matcher)
            })
        };
        if let Some(other) = covering.or_else(denying) {
            mistakes.push(rule.mistake(format!(
                "rule `{}` can never decide: `{}` ({}) matches everyone whom it matches; remove it or narrow the other",
                rule.name,
                other.name,
                shown(&other.place)
            )));
        }
    }
    mistakes
}

/// Admin rules that can be proved never to allow anything that is not allowed or denied already.
pub(super) fn dead_admin_rules(rules: &[Rule], admin: &[AdminRule]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (index, rule) in admin.iter().enumerate() {
        let mut denies = rules
            .iter()
            .filter(|other| matches!(other.effect, Effect::Deny(_)));
        let denying = denies
            .find(|other| other.matcher.covers(&rule.matcher))
            .map(|other| (&other.name, &other.place));
        let covering = || {
            let mut earlier = admin.iter().take(index);
            earlier
                .find(|other| other.matcher.covers(&rule.matcher) && other.allow.is_superset(&rule.allow))
                .map(|other| (&other.name, &other.place))
        };
        if let Some((name, place)) = denying.or_else(covering) {
            mistakes.push(rule.mistake(format!(
                "admin rule `{}` can never decide: `{name}` ({}) matches everyone whom it matches; remove it or narrow the other",
                rule.name,
                shown(place)
            )));
        }
    }
    mistakes
}

/// Grants of one role that may match one identity: only the first sets the limits.
pub(super) fn overlaps(rules: &[Rule]) -> Vec<Mistake> {
    let mut warnings = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let overlapping = rules.iter().take(index).filter(|other| {
            matches!(rule.effect, Effect::Grant { .. })
                && same_effect(other, rule)
                && other.matcher.may_overlap(&rule.matcher)
        });
        for other in overlapping {
            warnings.push(rule.mistake(format!(
                "rule `{}` may match whom `{}` ({}) matches; the earlier one then decides with its limits",
                rule.name,
                other.name,
                shown(&other.place)
            )));
        }
    }
    warnings
}

fn same_effect(one: &Rule, other: &Rule) -> bool {
    match (&one.effect, &other.effect) {
        (Effect::Grant { role, .. }, Effect::Grant { role: other, .. }) => role == other,
        (Effect::Deny(_), Effect::Deny(_)) => true,
        (Effect::Grant { .. }, Effect::Deny(_)) | (Effect::Deny(_), Effect::Grant { .. }) => false,
    }
}
