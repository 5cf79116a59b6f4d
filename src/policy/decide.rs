//! The decision itself: default deny, a deny wins, then the first grant rule for the wanted role.

use crate::domain::access::AccessRequest;
use crate::domain::ids::RoleName;

use super::compile::Policy;
use super::decision::{Decision, Denial, DenialWhy, Grant, Granted, Terms};
use super::declaration::RoleDeclaration;
use super::matcher::{Examined, Finding};
use super::rule::{Effect, Rule};

/// The start-up `user` that asks for whatever role there is.
const AUTO: &str = "auto";

/// A role that a rule would give, with the rule that decides its limits.
struct Offer<'a> {
    role: &'a RoleDeclaration,
    rule: &'a Rule,
    terms: &'a Terms,
}

impl Policy {
    pub fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let examined = Examined::new(request.identity);
        if let Some(denial) = self.deny_rule(&examined) {
            return Decision::Deny(denial);
        }
        let offers = self.offers(request, &examined);
        match self.choose(request, &offers) {
            Ok(offer) => {
                let granted = Granted {
                    role: &offer.role.name,
                    rule: &offer.rule.name,
                    target: &offer.role.target,
                    database: &offer.role.database,
                };
                Decision::Allow(Grant::new(&granted, request.identity.key(), offer.terms))
            }
            Err(why) => Decision::Deny(Denial {
                rule: None,
                why,
                own_roles: names(&offers),
            }),
        }
    }

    /// The roles that a request would be granted if it asked for them.
    pub(super) fn own_roles(&self, request: &AccessRequest<'_>) -> Vec<RoleName> {
        let examined = Examined::new(request.identity);
        if self.deny_rule(&examined).is_some() {
            return Vec::new();
        }
        names(&self.offers(request, &examined))
    }

    /// The first deny rule that matches or cannot be evaluated. Nobody has own roles under one.
    pub(super) fn deny_rule(&self, examined: &Examined<'_>) -> Option<Denial> {
        self.rules().iter().find_map(|rule| {
            let Effect::Deny(reason) = &rule.effect else {
                return None;
            };
            let why = match rule.matcher.examine(examined) {
                Finding::No(_) => return None,
                Finding::Yes => DenialWhy::DenyRule(reason.clone()),
                Finding::Unknown(part) => DenialWhy::DenyUncertain(part.label().into()),
            };
            Some(Denial {
                rule: Some(rule.name.clone()),
                why,
                own_roles: Vec::new(),
            })
        })
    }

    /// One offer per role at the requested target and database, in the order of the roles. A
    /// grant that cannot be evaluated offers nothing.
    fn offers<'a>(&'a self, request: &AccessRequest<'_>, examined: &Examined<'_>) -> Vec<Offer<'a>> {
        let here = self.roles().iter().filter(|role| is_here(role, request));
        here.filter_map(|role| self.offer(role, examined)).collect()
    }

    fn offer<'a>(&'a self, role: &'a RoleDeclaration, examined: &Examined<'_>) -> Option<Offer<'a>> {
        self.rules().iter().find_map(|rule| match &rule.effect {
            Effect::Grant { role: granted, terms } if *granted == role.name => {
                let matches = rule.matcher.examine(examined) == Finding::Yes;
                matches.then_some(Offer { role, rule, terms })
            }
            Effect::Grant { .. } | Effect::Deny(_) => None,
        })
    }

    fn choose<'o, 'a>(
        &self,
        request: &AccessRequest<'_>,
        offers: &'o [Offer<'a>],
    ) -> Result<&'o Offer<'a>, DenialWhy> {
        let wanted = request.wanted;
        if offers.is_empty() {
            return Err(DenialWhy::NothingGranted);
        }
        if let Some(offer) = offers.iter().find(|offer| offer.role.name.as_str() == wanted) {
            return Ok(offer);
        }
        // A role's name asks for that role, also when the identity happens to bear the same name.
        let is_role = self
            .roles()
            .iter()
            .any(|role| is_here(role, request) && role.name.as_str() == wanted);
        if is_role || !(wanted == AUTO || request.identity.goes_by(wanted)) {
            return Err(DenialWhy::WantedNotGranted);
        }
        let mut ordinary = offers.iter().filter(|offer| !offer.role.break_glass);
        match (ordinary.next(), ordinary.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(DenialWhy::SeveralRoles),
            (None, _) => Err(DenialWhy::OnlyBreakGlass),
        }
    }
}

fn names(offers: &[Offer<'_>]) -> Vec<RoleName> {
    offers.iter().map(|offer| offer.role.name.clone()).collect()
}

/// Exact: engines that fold names have folded them before they reach the policy.
pub(super) fn is_here(role: &RoleDeclaration, request: &AccessRequest<'_>) -> bool {
    role.target == *request.target && role.database == *request.database
}
