//! A policy in the words that a reviewer reads: who may have which role. For the journal.

use crate::domain::outline::{
    OUTLINE_ENTRIES_MAX, OUTLINE_FILES_MAX, OutlinedOperator, OutlinedRole, OutlinedRule, PolicyOutline,
    first, outlined,
};
use crate::domain::parameters::ParameterRule;

use super::admin::AdminRule;
use super::compile::Policy;
use super::declaration::{GrantDeclaration, Objects, RoleDeclaration};
use super::matcher::{IdentityPart, Matcher};
use super::rule::{Effect, Rule};

impl Policy {
    /// What the record of its loading says of it.
    pub fn outline(&self) -> PolicyOutline {
        let mut omitted = 0;
        PolicyOutline {
            files: first(self.files().iter().cloned(), OUTLINE_FILES_MAX, &mut omitted),
            roles: first(self.roles().iter().map(role), OUTLINE_ENTRIES_MAX, &mut omitted),
            permits: first(self.rules().iter().map(rule), OUTLINE_ENTRIES_MAX, &mut omitted),
            operators: first(
                self.admin_rules().iter().map(operator),
                OUTLINE_ENTRIES_MAX,
                &mut omitted,
            ),
            omitted,
        }
    }
}

fn role(role: &RoleDeclaration) -> OutlinedRole {
    let grants: Vec<_> = role.grants.iter().map(grant).collect();
    OutlinedRole {
        name: role.name.clone(),
        target: role.target.clone(),
        database: role.database.clone(),
        break_glass: role.break_glass,
        grants: outlined(grants.join("; ")),
    }
}

fn grant(grant: &GrantDeclaration) -> String {
    let privileges: Vec<_> = grant.privileges.iter().map(|one| one.label()).collect();
    let kind = match &grant.objects {
        Objects::Tables(_) => "tables",
        Objects::Sequences(_) => "sequences",
        Objects::Routines(_) => "routines",
        Objects::Schemas(_) => "schemas",
    };
    let names = grant.objects.names().join(", ");
    format!("{} on {kind} {names}", privileges.join(", "))
}

fn rule(rule: &Rule) -> OutlinedRule {
    let (role, deny, parameters) = match &rule.effect {
        Effect::Grant { role, terms } => (Some(role.clone()), None, terms.parameters),
        Effect::Deny(why) => (None, Some(outlined(why.to_string())), ParameterRule::Absent),
    };
    OutlinedRule {
        rule: rule.name.clone(),
        who: who(&rule.matcher),
        role,
        deny,
        parameters,
    }
}

fn operator(rule: &AdminRule) -> OutlinedOperator {
    OutlinedOperator {
        rule: rule.name.clone(),
        who: who(&rule.matcher),
        allow: rule.allow.iter().map(|action| action.label()).collect(),
    }
}

fn who(matcher: &Matcher) -> String {
    const PARTS: [IdentityPart; 7] = [
        IdentityPart::Provider,
        IdentityPart::ClientId,
        IdentityPart::Subject,
        IdentityPart::Tenant,
        IdentityPart::Roles,
        IdentityPart::Groups,
        IdentityPart::Scopes,
    ];
    let mut keys: Vec<_> = PARTS
        .into_iter()
        .map(|part| (part, matcher.patterns(part)))
        .filter(|(_, values)| !values.is_empty())
        .map(|(part, values)| format!("{} {}", part.label(), values.join(" or ")))
        .collect();
    keys.extend(matcher.when.iter().map(|when| format!("when {}", when.source())));
    outlined(keys.join(", "))
}
