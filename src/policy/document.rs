//! A policy file as written. Says nothing about what the names in it refer to.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::declaration::Privilege;
use super::reading::{Block, BlockSchema, Many, Notes, Read, Whole, block, fragment, repeated};
use super::scalar::{
    AdminWord, CorrelationText, Count, ExpressionText, Flag, ObjectText, ParametersText, Patterns,
    ROLE_PATTERN, RoleText, RoutineText, SchemaText, Span, Text, Version,
};
use super::tree::{Node, Written};

const GUARD_LATER: &str = "the statement guard arrives later";

fn no_check<T>(_: &T, _: Whole, _: &mut Notes<'_>) {}

block! {
    /// One policy file of gatepost. Files are taken together, by name.
    struct Document, "a policy file" {
        /// Version of this format: 1.
        version: Written<Version>,
        /// Least-privilege database roles by name.
        roles: Option<Written<Roles>>,
        /// Who may have which role, and who may have none. A deny wins; then the first grant rule decides.
        rules: Option<Written<Many<RuleText>>>,
        /// Who may ask what of the running gatepost, over its API. Nobody without a rule.
        admin: Option<Written<Many<AdminText>>>,
        /// Unit tests of the policy, run by `gatepost check`.
        cases: Option<Written<Many<CaseText>>>,
    }
    later {
        "guardrails": "tags and guardrails arrive later",
    }
    check readable_version, {}
}

fn readable_version(document: &Document, _: Whole, notes: &mut Notes<'_>) {
    let version = &document.version;
    if version.value.0 != 1 {
        notes.add(version.spot, "this gatepost reads policies of version 1 only");
    }
}

fn one_kind(on: &On, whole: Whole, notes: &mut Notes<'_>) {
    let present = [
        on.tables.is_some(),
        on.sequences.is_some(),
        on.routines.is_some(),
        on.schemas.is_some(),
    ];
    let count = present.iter().filter(|present| **present).count();
    if count > 1 {
        notes.add(
            whole.spot,
            "`on` takes one kind of objects; write a further grant for the other",
        );
    } else if count == 0 && whole.clean {
        notes.add(
            whole.spot,
            "`on` needs one of tables, sequences, routines or schemas",
        );
    }
}

fn grant_or_deny(rule: &RuleText, whole: Whole, notes: &mut Notes<'_>) {
    match (&rule.grant, &rule.deny) {
        (Some(_), Some(deny)) => notes.add(deny.spot, "a rule either grants or denies; make two rules"),
        (None, Some(_)) => {
            let idle = [
                rule.limits.as_ref().map(|limits| limits.spot),
                rule.correlation.as_ref().map(|correlation| correlation.spot),
                rule.audit.as_ref().map(|audit| audit.spot),
            ];
            for spot in idle.into_iter().flatten() {
                notes.add(spot, "has no effect in a rule that denies; remove it");
            }
        }
        (None, None) if whole.clean => notes.add(whole.spot, "a rule needs `grant` or `deny`"),
        (Some(_), None) | (None, None) => {}
    }
}

/// The `roles` map. A role whose body is wrong keeps its name, so that no rule is blamed for it.
#[derive(Clone, Debug)]
pub(super) struct Roles(pub(super) Vec<(Written<String>, Option<RoleBody>)>);

impl Read for Roles {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let Node::Map(entries) = &node.value else {
            let message = format!(
                "`roles` must be a map from name to role, not {}",
                node.value.kind()
            );
            notes.add(node.spot, message);
            return None;
        };
        let mut roles: Vec<(Written<String>, Option<RoleBody>)> = Vec::new();
        for (name, body) in entries {
            if let Some((first, _)) = roles.iter().find(|(other, _)| other.value == name.value) {
                notes.add(name.spot, repeated(&name.value, first.spot));
            } else if !RoleText::fits(&name.value) {
                let message = "a role's name has 1 to 63 letters, digits, `_` or `-`, and does not begin with a digit or `-`";
                notes.add(name.spot, message);
            }
            roles.push((name.clone(), RoleBody::read(body, notes)));
        }
        Some(Self(roles))
    }
}

impl JsonSchema for Roles {
    fn schema_name() -> Cow<'static, str> {
        "Roles".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let body = generator.subschema_for::<RoleBody>();
        fragment(serde_json::json!({
            "type": "object",
            "propertyNames": {"pattern": ROLE_PATTERN},
            "additionalProperties": body,
        }))
    }
}

block! {
    /// A least-privilege database role.
    struct RoleBody, "a role" {
        /// The target that has it.
        target: Written<Text>,
        /// The database, by the name that the server knows.
        database: Written<Text>,
        /// What it may do; `gatepost roles apply` brings the database in line.
        grants: Written<Many<GrantText>>,
        /// Never chosen by fallback, and set apart in every report.
        break_glass: Option<Written<Flag>>,
    }
    later {"tags": "tags and guardrails arrive later",}
    check no_check, {}
}

block! {
    /// Privileges on objects of one kind.
    struct GrantText, "a grant of privileges" {
        /// Privileges in lower case.
        privileges: Written<Many<Privilege>>,
        /// The objects: exactly one kind.
        on: Written<On>,
    }
    later {}
    check no_check, {}
}

block! {
    /// Objects of exactly one kind.
    struct On, "`on`" {
        /// Tables and views as schema.name.
        tables: Option<Written<Many<ObjectText>>>,
        /// Sequences as schema.name.
        sequences: Option<Written<Many<ObjectText>>>,
        /// Functions and procedures as schema.name(argument types).
        routines: Option<Written<Many<RoutineText>>>,
        /// Schemas.
        schemas: Option<Written<Many<SchemaText>>>,
    }
    later {}
    check one_kind, {"minProperties": 1, "maxProperties": 1}
}

block! {
    /// Who it is about, and what they get.
    struct RuleText, "a rule" {
        /// Unique over all files; named in decisions and records.
        name: Written<Text>,
        /// Every key must match.
        identity: Written<IdentityText>,
        /// The role that matching identities may have.
        grant: Option<Written<GrantedText>>,
        /// Why matching identities get nothing; shown to operators, never to clients.
        deny: Option<Written<Text>>,
        /// Limits of one identity in this role.
        limits: Option<Written<LimitsText>>,
        /// Whether a transaction that writes must carry a correlation id of its client's. Default optional.
        correlation: Option<Written<CorrelationText>>,
        /// What else goes on record of their work.
        audit: Option<Written<AuditText>>,
    }
    later {
        "statements": GUARD_LATER,
        "guardrails": "tags and guardrails arrive later",
        "tags": "tags and guardrails arrive later",
    }
    check grant_or_deny, {"oneOf": [
        {"required": ["grant"], "not": {"required": ["deny"]}},
        {"required": ["deny"], "not": {"anyOf": [
            {"required": ["limits"]}, {"required": ["correlation"]}, {"required": ["audit"]},
        ]}},
    ]}
}

block! {
    /// What else goes on record of the work under a rule.
    struct AuditText, "`audit`" {
        /// Parameters and literals of statements: absent (the default), hashed with a key, or plain.
        parameters: Written<ParametersText>,
    }
    later {}
    check no_check, {}
}

block! {
    /// What operators may ask of the running gatepost. A `deny` under `rules` wins here too.
    struct AdminText, "an admin rule" {
        /// Unique over all files and rules; named in records.
        name: Written<Text>,
        /// Every key must match.
        identity: Written<IdentityText>,
        /// What they may ask for.
        allow: Written<Many<AdminWord>>,
    }
    later {}
    check no_check, {}
}

block! {
    /// Every key must match; a list means any of. `*` in a value stands for any characters.
    struct IdentityText, "`identity`" {
        /// The identity provider, by its name in gatepost.yaml.
        provider: Written<Text>,
        /// The application: azp or appid (Entra), cid (Okta), azp or client_id (others).
        client_id: Option<Written<Patterns>>,
        /// The object id (Entra) or sub (others).
        subject: Option<Written<Patterns>>,
        /// The tenant (tid, Entra).
        tenant: Option<Written<Patterns>>,
        /// Application roles.
        roles: Option<Written<Patterns>>,
        /// Groups.
        groups: Option<Written<Patterns>>,
        /// Scopes.
        scopes: Option<Written<Patterns>>,
        /// A CEL expression over `claims` that must be true.
        when: Option<Written<ExpressionText>>,
    }
    later {}
    check no_check, {}
}

block! {
    /// The role that a rule grants, and for how long.
    struct GrantedText, "`grant`" {
        /// A role under `roles`.
        role: Written<Text>,
        /// How long a minted login lives after its last renewal. Default 30m.
        login_ttl: Option<Written<Span>>,
        /// The life of one client session. Default 8h.
        session_max: Option<Written<Span>>,
        /// When a new login replaces one that is in use; at least session_max. Default 24h.
        login_max_age: Option<Written<Span>>,
    }
    later {}
    check no_check, {}
}

block! {
    /// Limits of the sessions under a rule. gatepost counts and times them itself.
    struct LimitsText, "`limits`" {
        /// Client sessions at the same time.
        sessions: Option<Written<Count>>,
        /// Client sessions of all identities under this rule together.
        rule_sessions: Option<Written<Count>>,
        /// Upstream connections of one identity in this role at the same time, lent or idle.
        connections: Option<Written<Count>>,
        /// How long one statement may run before it is cancelled.
        statement_timeout: Option<Written<Span>>,
        /// How long a transaction may wait for its client before the session ends.
        idle_in_transaction: Option<Written<Span>>,
        /// How long a session may wait for its client outside of a transaction before it ends.
        idle: Option<Written<Span>>,
    }
    later {}
    check no_check, {}
}

block! {
    /// A unit test of the policy.
    struct CaseText, "a case" {
        /// A JSON file with a token's claims, relative to this file.
        claims: Written<Text>,
        /// The identity provider that the claims come from.
        provider: Written<Text>,
        /// The target that is asked for.
        target: Written<Text>,
        /// The database; needed when the target has several.
        database: Option<Written<Text>>,
        /// The role that is asked for (the start-up user). Default auto.
        role: Option<Written<Text>>,
        /// `deny`, or the role (and the rule) that must follow.
        expect: Written<ExpectText>,
    }
    later {}
    check no_check, {}
}

#[derive(Clone, Debug)]
pub(super) enum ExpectText {
    Deny,
    Allow(ExpectAllow),
}

impl Read for ExpectText {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        if let Node::Map(_) = &node.value {
            return ExpectAllow::read(node, notes).map(Self::Allow);
        }
        if matches!(&node.value, Node::Text(text) if text == "deny") {
            return Some(Self::Deny);
        }
        notes.add(node.spot, "expected `deny` or `{role: …}`");
        None
    }
}

impl JsonSchema for ExpectText {
    fn schema_name() -> Cow<'static, str> {
        "Expect".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let allow = generator.subschema_for::<ExpectAllow>();
        fragment(serde_json::json!({"anyOf": [{"const": "deny"}, allow]}))
    }
}

block! {
    /// What must follow.
    struct ExpectAllow, "`expect`" {
        /// The role that must be granted.
        role: Written<Text>,
        /// The rule that must decide.
        rule: Option<Written<Text>>,
    }
    later {}
    check no_check, {}
}
