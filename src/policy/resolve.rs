//! Resolves the names in a document against the configuration and the other files, and checks what
//! one file alone cannot show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cel::Env;

use crate::domain::ids::{ProviderName, RoleName, RuleName};
use crate::domain::mistake::Place;
use crate::domain::parameters::ParameterRule;
use crate::domain::target::{DatabaseName, Engine, TargetName};

use super::admin::AdminRule;
use super::cases::{Case, Expected};
use super::compile::{Sheet, Surroundings, TargetFacts, shown};
use super::decision::{CorrelationRule, Limits, Terms};
use super::declaration::{GrantDeclaration, Objects, RoleDeclaration};
use super::document::{
    AdminText, AuditText, CaseText, Document, ExpectText, GrantText, GrantedText, IdentityText, LimitsText,
    On, RoleBody, RuleText,
};
use super::expression::Expression;
use super::glob::Glob;
use super::matcher::Matcher;
use super::reading::{Many, Notes};
use super::rule::{Effect, Rule};
use super::scalar::{CorrelationText, Count, Patterns, Span, Text};
use super::tree::{Spot, Written};

/// Long enough to ride over a broker's reconnect, short enough to matter after a revocation.
const LOGIN_TTL_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// Renewal happens well before the end; below this it would never stop.
const LOGIN_TTL_MIN: Duration = Duration::from_secs(5);
const LOGIN_TTL_MAX: Duration = Duration::from_secs(24 * 3_600);
/// A working day.
const SESSION_MAX_DEFAULT: Duration = Duration::from_secs(8 * 3_600);
const SESSION_MAX_MIN: Duration = Duration::from_secs(1);
const SESSION_MAX_MAX: Duration = Duration::from_secs(7 * 86_400);
/// gatepost's own timers look once a second at the finest.
const TIMER_MIN: Duration = Duration::from_secs(1);
const TIMER_MAX: Duration = SESSION_MAX_MAX;
const LOGIN_MAX_AGE_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
const LOGIN_MAX_AGE_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Names that PostgreSQL, gatepost or the start-up `user` give a meaning of their own.
const RESERVED: [&str; 9] = [
    "auto",
    "public",
    "none",
    "current_user",
    "current_role",
    "session_user",
    "user",
    "all",
    "gatepost_minted",
];
/// System roles of PostgreSQL, and minted logins.
const RESERVED_PREFIXES: [&str; 2] = ["pg_", "gp_"];

/// All names that a document may refer to.
pub(super) struct Names<'a> {
    around: &'a Surroundings,
    roles: BTreeMap<String, Place>,
    rules: BTreeMap<String, Place>,
    /// Apart from the rules, because a case cannot expect one of these.
    admin: BTreeMap<String, Place>,
}

impl<'a> Names<'a> {
    /// Collects roles and rules over all files and notes names that stand twice.
    pub(super) fn gather(around: &'a Surroundings, sheets: &mut [Sheet<'_>]) -> Self {
        let mut names = Self {
            around,
            roles: BTreeMap::new(),
            rules: BTreeMap::new(),
            admin: BTreeMap::new(),
        };
        for sheet in sheets {
            let Some(document) = &sheet.document else { continue };
            for (name, _) in document.roles.iter().flat_map(|roles| &roles.value.0) {
                let place = sheet.notes.page.place(name.spot);
                if let Some(first) = names.roles.get(&name.value) {
                    // Within one file the reader has said it already.
                    if first.file != place.file {
                        sheet.notes.add(name.spot, taken("role", &name.value, first));
                    }
                    continue;
                }
                names.roles.insert(name.value.clone(), place);
            }
            let rules = document.rules.iter().flat_map(|rules| &rules.value.0);
            let admin = document.admin.iter().flat_map(|rules| &rules.value.0);
            let of_rules = rules.map(|rule| (&rule.value.name, false));
            let of_admin = admin.map(|rule| (&rule.value.name, true));
            for (name, is_admin) in of_rules.chain(of_admin) {
                let text = &name.value.0;
                // Records name either kind by its name alone.
                if let Some(first) = names.rules.get(text).or_else(|| names.admin.get(text)) {
                    sheet.notes.add(name.spot, taken("rule", text, first));
                    continue;
                }
                let place = sheet.notes.page.place(name.spot);
                let known = if is_admin {
                    &mut names.admin
                } else {
                    &mut names.rules
                };
                known.insert(text.clone(), place);
            }
        }
        names
    }

    fn provider(&self, written: &Written<Text>, notes: &mut Notes<'_>) -> ProviderName {
        let known = &self.around.providers;
        if !known.contains(written.value.0.as_str()) {
            let known = list(known.iter().map(ProviderName::as_str));
            notes.add(written.spot, unknown("identity provider", written, &known));
        }
        ProviderName::new(&written.value.0)
    }

    fn target(&self, written: &Written<Text>, notes: &mut Notes<'_>) -> Option<&'a TargetFacts> {
        let known = &self.around.targets;
        let facts = known.get(written.value.0.as_str());
        if facts.is_none() {
            let known = list(known.keys().map(TargetName::as_str));
            notes.add(written.spot, unknown("target", written, &known));
        }
        facts
    }

    fn role(&self, written: &Written<Text>, notes: &mut Notes<'_>) {
        if !self.roles.contains_key(&written.value.0) {
            let known = list(self.roles.keys().map(String::as_str));
            notes.add(written.spot, unknown("role", written, &known));
        }
    }

    fn rule(&self, written: &Written<Text>, notes: &mut Notes<'_>) {
        if !self.rules.contains_key(&written.value.0) {
            let known = list(self.rules.keys().map(String::as_str));
            notes.add(written.spot, unknown("rule", written, &known));
        }
    }
}

fn taken(what: &str, name: &str, first: &Place) -> String {
    format!(
        "{what} `{name}` exists already ({}); names are unique over all files",
        shown(first)
    )
}

fn unknown(what: &str, written: &Written<Text>, known: &str) -> String {
    format!("unknown {what} `{}`; known: {known}", written.value.0)
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

fn database(facts: Option<&TargetFacts>, written: &Written<Text>, notes: &mut Notes<'_>) -> DatabaseName {
    if let Some(facts) = facts
        && !facts.databases.contains(written.value.0.as_str())
    {
        let known = list(facts.databases.iter().map(DatabaseName::as_str));
        notes.add(written.spot, unknown("database", written, &known));
    }
    DatabaseName::new(&written.value.0)
}

pub(super) fn roles(document: &Document, names: &Names<'_>, notes: &mut Notes<'_>) -> Vec<RoleDeclaration> {
    let entries = document.roles.iter().flat_map(|roles| &roles.value.0);
    let mut declared = Vec::new();
    for (name, body) in entries {
        let lower = name.value.to_ascii_lowercase();
        let prefix = RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
        if prefix || RESERVED.contains(&lower.as_str()) {
            notes.add(
                name.spot,
                format!("the name `{}` is reserved; choose another", name.value),
            );
        }
        declared.extend(body.as_ref().map(|body| role(name, body, names, notes)));
    }
    declared
}

fn role(
    name: &Written<String>,
    body: &RoleBody,
    names: &Names<'_>,
    notes: &mut Notes<'_>,
) -> RoleDeclaration {
    let facts = names.target(&body.target, notes);
    let engine = facts.map_or(Engine::Postgres, |facts| facts.engine);
    let grants = body.grants.value.0.iter();
    RoleDeclaration {
        name: RoleName::new(&name.value),
        target: TargetName::new(&body.target.value.0),
        database: database(facts, &body.database, notes),
        grants: grants
            .filter_map(|grant| grant_declaration(&grant.value, engine, notes))
            .collect(),
        break_glass: body.break_glass.as_ref().is_some_and(|flag| flag.value.0),
        place: notes.page.place(name.spot),
    }
}

fn grant_declaration(grant: &GrantText, engine: Engine, notes: &mut Notes<'_>) -> Option<GrantDeclaration> {
    let objects = objects(&grant.on.value)?;
    overloads(&grant.on.value, engine, notes);
    let allowed = objects.privileges(engine);
    for privilege in &grant.privileges.value.0 {
        if !allowed.contains(&privilege.value) {
            let allowed: Vec<_> = allowed.iter().map(|privilege| privilege.label()).collect();
            let message = format!(
                "`{}` cannot be granted on these objects; possible: {}",
                privilege.value,
                allowed.join(", ")
            );
            notes.add(privilege.spot, message);
        }
    }
    Some(GrantDeclaration {
        privileges: grant.privileges.value.0.iter().map(|it| it.value).collect(),
        objects,
    })
}

/// PostgreSQL has several routines of one name, told apart by the types of their arguments.
fn overloads(on: &On, engine: Engine, notes: &mut Notes<'_>) {
    let routines = on.routines.iter().flat_map(|routines| &routines.value.0);
    for routine in routines.filter(|it| engine == Engine::Postgres && !it.value.0.ends_with(')')) {
        let text = &routine.value.0;
        let message = format!(
            "`{text}` is not of the form schema.name(argument types), such as public.apply_order(jsonb)"
        );
        notes.add(routine.spot, message);
    }
}

fn objects(on: &On) -> Option<Objects> {
    fn names<T>(many: Option<&Written<Many<T>>>, text: fn(&T) -> &String) -> Option<Vec<String>> {
        many.map(|many| many.value.0.iter().map(|it| text(&it.value).clone()).collect())
    }
    names(on.tables.as_ref(), |it| &it.0)
        .map(Objects::Tables)
        .or_else(|| names(on.sequences.as_ref(), |it| &it.0).map(Objects::Sequences))
        .or_else(|| names(on.routines.as_ref(), |it| &it.0).map(Objects::Routines))
        .or_else(|| names(on.schemas.as_ref(), |it| &it.0).map(Objects::Schemas))
}

pub(super) fn rules(
    document: &Document,
    names: &Names<'_>,
    env: &Arc<Env>,
    notes: &mut Notes<'_>,
) -> Vec<Rule> {
    let written = document.rules.iter().flat_map(|rules| &rules.value.0);
    written
        .filter_map(|written| rule(&written.value, names, env, notes))
        .collect()
}

fn rule(written: &RuleText, names: &Names<'_>, env: &Arc<Env>, notes: &mut Notes<'_>) -> Option<Rule> {
    let matcher = matcher(&written.identity.value, names, env, notes);
    let effect = match (&written.grant, &written.deny) {
        (Some(grant), _) => {
            let granted = &grant.value;
            names.role(&granted.role, notes);
            let limits = written.limits.as_ref();
            Some(Effect::Grant {
                role: RoleName::new(&granted.role.value.0),
                terms: Terms {
                    correlation: correlation(written.correlation.as_ref()),
                    parameters: parameters(written.audit.as_ref()),
                    ..terms(granted, limits.map(|limits| &limits.value), notes)
                },
            })
        }
        (None, Some(deny)) => Some(Effect::Deny(Arc::from(deny.value.0.as_str()))),
        (None, None) => None,
    };
    Some(Rule {
        name: RuleName::new(&written.name.value.0),
        matcher,
        effect: effect?,
        place: notes.page.place(written.name.spot),
        excerpt: notes.page.line(written.name.spot),
    })
}

pub(super) fn admin(
    document: &Document,
    names: &Names<'_>,
    env: &Arc<Env>,
    notes: &mut Notes<'_>,
) -> Vec<AdminRule> {
    let written = document.admin.iter().flat_map(|rules| &rules.value.0);
    written
        .map(|written| admin_rule(&written.value, names, env, notes))
        .collect()
}

fn admin_rule(written: &AdminText, names: &Names<'_>, env: &Arc<Env>, notes: &mut Notes<'_>) -> AdminRule {
    let words = written.allow.value.0.iter();
    AdminRule {
        name: RuleName::new(&written.name.value.0),
        matcher: matcher(&written.identity.value, names, env, notes),
        allow: words.flat_map(|word| word.value.actions()).collect(),
        place: notes.page.place(written.name.spot),
        excerpt: notes.page.line(written.name.spot),
    }
}

fn matcher(identity: &IdentityText, names: &Names<'_>, env: &Arc<Env>, notes: &mut Notes<'_>) -> Matcher {
    let globs = |patterns: &Option<Written<Patterns>>| {
        let values = &patterns.as_ref()?.value.0;
        let globs = values.iter().map(|pattern| Glob::new(pattern.value.0.clone()));
        Some(globs.collect())
    };
    let when = identity.when.as_ref().and_then(|when| {
        Expression::compile(&when.value.0, env)
            .map_err(|message| notes.add(when.spot, message))
            .ok()
    });
    Matcher {
        provider: names.provider(&identity.provider, notes),
        client_id: globs(&identity.client_id),
        subject: globs(&identity.subject),
        tenant: globs(&identity.tenant),
        roles: globs(&identity.roles),
        groups: globs(&identity.groups),
        scopes: globs(&identity.scopes),
        when,
    }
}

fn terms(granted: &GrantedText, written: Option<&LimitsText>, notes: &mut Notes<'_>) -> Terms {
    let mut span = |written: &Option<Written<Span>>, default: Duration, min: Duration, max: Duration| {
        let Some(written) = written else { return default };
        let value = written.value.0;
        if value < min || value > max {
            let message = format!(
                "must lie between {} and {}",
                humantime::format_duration(min),
                humantime::format_duration(max)
            );
            notes.add(written.spot, message);
        }
        value
    };
    let login_ttl = span(
        &granted.login_ttl,
        LOGIN_TTL_DEFAULT,
        LOGIN_TTL_MIN,
        LOGIN_TTL_MAX,
    );
    let session_max = span(
        &granted.session_max,
        SESSION_MAX_DEFAULT,
        SESSION_MAX_MIN,
        SESSION_MAX_MAX,
    );
    let default = LOGIN_MAX_AGE_DEFAULT.max(session_max);
    // A login that ended under a session would end the session too.
    let login_max_age = span(&granted.login_max_age, default, session_max, LOGIN_MAX_AGE_MAX);
    Terms {
        login_ttl,
        session_max,
        login_max_age,
        limits: written.map_or_else(Limits::default, |written| limits(written, &mut span)),
        correlation: CorrelationRule::default(),
        parameters: ParameterRule::default(),
    }
}

fn correlation(written: Option<&Written<CorrelationText>>) -> CorrelationRule {
    match written.map(|written| written.value) {
        Some(CorrelationText::Required) => CorrelationRule::Required,
        Some(CorrelationText::Optional) | None => CorrelationRule::Optional,
    }
}

fn parameters(written: Option<&Written<AuditText>>) -> ParameterRule {
    written.map_or_else(ParameterRule::default, |audit| audit.value.parameters.value.0)
}

/// Reads a duration: what was written, or a default, and the bounds that it must keep.
type ReadSpan<'a> = dyn FnMut(&Option<Written<Span>>, Duration, Duration, Duration) -> Duration + 'a;

fn limits(written: &LimitsText, span: &mut ReadSpan<'_>) -> Limits {
    let count = |count: &Option<Written<Count>>| count.as_ref().map(|count| count.value.0);
    let mut timer = |limit: &Option<Written<Span>>| {
        limit.as_ref()?;
        Some(span(limit, TIMER_MIN, TIMER_MIN, TIMER_MAX))
    };
    Limits {
        sessions: count(&written.sessions),
        rule_sessions: count(&written.rule_sessions),
        connections: count(&written.connections),
        statement_timeout: timer(&written.statement_timeout),
        idle_in_transaction: timer(&written.idle_in_transaction),
        idle: timer(&written.idle),
    }
}

pub(super) fn cases(document: &Document, names: &Names<'_>, notes: &mut Notes<'_>) -> Vec<Case> {
    let written = document.cases.iter().flat_map(|cases| &cases.value.0);
    written
        .filter_map(|written| case(&written.value, written.spot, names, notes))
        .collect()
}

fn case(written: &CaseText, spot: Spot, names: &Names<'_>, notes: &mut Notes<'_>) -> Option<Case> {
    let facts = names.target(&written.target, notes);
    let database = match (&written.database, facts) {
        (Some(name), facts) => Some(database(facts, name, notes)),
        (None, Some(facts)) if facts.databases.len() == 1 => facts.databases.first().cloned(),
        (None, Some(_)) => {
            notes.add(
                spot,
                "the target has several databases, so the case needs `database`",
            );
            None
        }
        (None, None) => None,
    };
    let expected = match &written.expect.value {
        ExpectText::Deny => Expected::Deny,
        ExpectText::Allow(allow) => {
            names.role(&allow.role, notes);
            if let Some(rule) = &allow.rule {
                names.rule(rule, notes);
            }
            Expected::Role {
                role: RoleName::new(&allow.role.value.0),
                rule: allow.rule.as_ref().map(|rule| RuleName::new(&rule.value.0)),
            }
        }
    };
    let folder = notes.page.path.parent();
    let claims = folder.map_or_else(
        || written.claims.value.0.clone().into(),
        |folder| folder.join(&written.claims.value.0),
    );
    let wanted = written.role.as_ref().map_or("auto", |role| role.value.0.as_str());
    Some(Case {
        claims,
        provider: names.provider(&written.provider, notes),
        target: TargetName::new(&written.target.value.0),
        database: database?,
        wanted: wanted.to_owned(),
        expected,
        place: notes.page.place(spot),
        excerpt: notes.page.line(spot),
    })
}
