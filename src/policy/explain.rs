//! Which rule decides, and why the others did not. For `gatepost explain`, never for a client.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::domain::access::AccessRequest;
use crate::domain::ids::{RoleName, RuleName};
use crate::domain::parameters::ParameterRule;

use super::compile::{Policy, shown};
use super::decide::is_here;
use super::decision::{CorrelationRule, Decision, DenialWhy, Grant, Limits};
use super::matcher::{Examined, Finding, IdentityPart};
use super::rule::{Effect, Rule};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub allowed: bool,
    pub role: Option<RoleName>,
    /// The rule that decides, for or against.
    pub rule: Option<RuleName>,
    pub denied: Option<DenialWhy>,
    pub terms: Option<ExplainedTerms>,
    /// The roles that this identity could have here.
    pub own_roles: Vec<RoleName>,
    /// What this identity may ask of the running gatepost.
    pub admin: Vec<ExplainedRight>,
    /// Every rule in order.
    pub considered: Vec<Considered>,
}

/// One right and the admin rule that gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedRight {
    pub action: &'static str,
    pub rule: Option<RuleName>,
}

/// What comes with the role. Durations in whole seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedTerms {
    pub login_ttl_seconds: u64,
    pub session_max_seconds: u64,
    pub login_max_age_seconds: u64,
    pub limits: Limits,
    pub correlation: CorrelationRule,
    pub parameters: ParameterRule,
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
    /// Matches, but another rule decides.
    Matches,
    DoesNotMatch,
    CannotBeEvaluated,
}

impl Policy {
    pub fn explain(&self, request: &AccessRequest<'_>) -> Explanation {
        let decision = self.decide(request);
        let examined = Examined::new(request.identity);
        let deciding = match &decision {
            Decision::Allow(grant) => Some(grant.rule()),
            Decision::Deny(denial) => denial.rule.as_ref(),
        };
        let considered = self
            .rules()
            .iter()
            .map(|rule| {
                let decides = deciding == Some(&rule.name);
                self.consider(rule, decides, request, &examined)
            })
            .collect();
        let rights = self.admin(request.identity);
        let admin = rights
            .iter()
            .map(|(action, rule)| ExplainedRight {
                action: action.label(),
                rule: rule.cloned(),
            })
            .collect();
        match decision {
            Decision::Allow(grant) => Explanation {
                allowed: true,
                role: Some(grant.role().clone()),
                rule: Some(grant.rule().clone()),
                denied: None,
                terms: Some(ExplainedTerms::of(&grant)),
                own_roles: self.own_roles(request),
                admin,
                considered,
            },
            Decision::Deny(denial) => Explanation {
                allowed: false,
                role: None,
                rule: denial.rule,
                denied: Some(denial.why),
                terms: None,
                own_roles: denial.own_roles,
                admin,
                considered,
            },
        }
    }

    fn consider(
        &self,
        rule: &Rule,
        decides: bool,
        request: &AccessRequest<'_>,
        examined: &Examined<'_>,
    ) -> Considered {
        let (verdict, why) = match rule.matcher.examine(examined) {
            Finding::No(part) => (Verdict::DoesNotMatch, mismatch(rule, part, request)),
            Finding::Unknown(part) => {
                let missing = unknown(rule, part, examined);
                match rule.effect {
                    Effect::Deny(_) if decides => (Verdict::Decides, format!("{missing}, so the deny fires")),
                    Effect::Deny(_) => (
                        Verdict::CannotBeEvaluated,
                        format!("{missing}, so the deny fires too"),
                    ),
                    Effect::Grant { .. } => (
                        Verdict::CannotBeEvaluated,
                        format!("{missing}, so it grants nothing"),
                    ),
                }
            }
            Finding::Yes if decides => (Verdict::Decides, effect(rule)),
            Finding::Yes => (Verdict::Matches, self.why_not(rule, request)),
        };
        Considered {
            rule: rule.name.clone(),
            place: shown(&rule.place),
            verdict,
            why,
        }
    }

    /// Why a rule that matches does not decide.
    fn why_not(&self, rule: &Rule, request: &AccessRequest<'_>) -> String {
        let Effect::Grant { role, .. } = &rule.effect else {
            return "an earlier deny decides already".to_owned();
        };
        let here = self
            .roles()
            .iter()
            .any(|declared| declared.name == *role && is_here(declared, request));
        if here {
            format!("grants `{role}`, but a deny, an earlier rule or the wanted role decides otherwise")
        } else {
            format!("grants `{role}`, which is not a role of this target and database")
        }
    }
}

impl ExplainedTerms {
    fn of(grant: &Grant) -> Self {
        Self {
            login_ttl_seconds: grant.login_ttl().as_secs(),
            session_max_seconds: grant.session_max().as_secs(),
            login_max_age_seconds: grant.login_max_age().as_secs(),
            limits: grant.limits().clone(),
            correlation: grant.correlation(),
            parameters: grant.parameters(),
        }
    }
}

fn effect(rule: &Rule) -> String {
    match &rule.effect {
        Effect::Grant { role, .. } => format!("every key matches; grants `{role}`"),
        Effect::Deny(reason) => format!("every key matches; denies: {reason}"),
    }
}

fn mismatch(rule: &Rule, part: IdentityPart, request: &AccessRequest<'_>) -> String {
    let identity = request.identity;
    let single = |value: Option<&str>| {
        let wanted = rule.matcher.patterns(part).join(" or ");
        let value = value.map_or_else(|| "absent".to_owned(), |value| format!("`{value}`"));
        format!("`{}` is {value}, not {wanted}", part.label())
    };
    match part {
        IdentityPart::Provider => single(Some(identity.provider.as_str())),
        IdentityPart::ClientId => single(identity.client_id.as_deref()),
        IdentityPart::Subject => single(Some(&identity.subject)),
        IdentityPart::Tenant => single(identity.tenant.as_deref()),
        IdentityPart::Roles | IdentityPart::Groups | IdentityPart::Scopes => format!(
            "none of the identity's {} is {}",
            part.label(),
            rule.matcher.patterns(part).join(" or ")
        ),
        IdentityPart::When => "`when` is false".to_owned(),
    }
}

fn unknown(rule: &Rule, part: IdentityPart, examined: &Examined<'_>) -> String {
    match part {
        IdentityPart::When => {
            let error = rule.matcher.condition(examined).and_then(Result::err);
            format!("`when` cannot be evaluated ({})", error.unwrap_or_default())
        }
        IdentityPart::Provider
        | IdentityPart::ClientId
        | IdentityPart::Subject
        | IdentityPart::Tenant
        | IdentityPart::Roles
        | IdentityPart::Groups
        | IdentityPart::Scopes => format!("the token does not say all of the identity's {}", part.label()),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.role, &self.rule, &self.denied) {
            (Some(role), Some(rule), _) => writeln!(f, "allowed: role `{role}` by rule `{rule}`")?,
            (_, Some(rule), Some(why)) => writeln!(f, "denied by rule `{rule}`: {why}")?,
            (_, _, Some(why)) => writeln!(f, "denied: {why}")?,
            (_, _, None) => writeln!(f, "denied")?,
        }
        if let Some(terms) = &self.terms {
            let shown = |seconds| humantime::format_duration(Duration::from_secs(seconds));
            write!(
                f,
                "  login_ttl {}, session_max {}, login_max_age {}",
                shown(terms.login_ttl_seconds),
                shown(terms.session_max_seconds),
                shown(terms.login_max_age_seconds)
            )?;
            let limits = &terms.limits;
            for (name, count) in [
                ("sessions", limits.sessions),
                ("rule_sessions", limits.rule_sessions),
                ("connections", limits.connections),
            ] {
                if let Some(count) = count {
                    write!(f, ", {name} {count}")?;
                }
            }
            for (name, limit) in [
                ("statement_timeout", limits.statement_timeout),
                ("idle_in_transaction", limits.idle_in_transaction),
                ("idle", limits.idle),
            ] {
                if let Some(limit) = limit {
                    write!(f, ", {name} {}", humantime::format_duration(limit))?;
                }
            }
            if terms.correlation == CorrelationRule::Required {
                write!(f, ", correlation required")?;
            }
            if !terms.parameters.is_absent() {
                write!(f, ", parameters {}", terms.parameters.label())?;
            }
            writeln!(f)?;
        }
        let own: Vec<_> = self.own_roles.iter().map(RoleName::as_str).collect();
        let own = if own.is_empty() {
            "none".to_owned()
        } else {
            own.join(", ")
        };
        write!(f, "  this identity's roles here: {own}")?;
        if !self.admin.is_empty() {
            let rights: Vec<_> = self.admin.iter().map(|right| right.action).collect();
            write!(f, "\n  may ask of the running gatepost: {}", rights.join(", "))?;
        }
        for considered in &self.considered {
            let mark = match considered.verdict {
                Verdict::Decides => "decides",
                Verdict::Matches => "matches",
                Verdict::DoesNotMatch => "no match",
                Verdict::CannotBeEvaluated => "unknown",
            };
            write!(
                f,
                "\n  {mark:8} {} ({}): {}",
                considered.rule, considered.place, considered.why
            )?;
        }
        Ok(())
    }
}
