//! Who may ask what of the running gatepost.

use super::*;
use crate::domain::admin::{AdminAction, LocalOperator};

/// One word for each action that these rules (and admin rules) allow.
fn allowed(rules: &str, admin: &str, identity: &Identity) -> String {
    let sources = [
        source("p/a.yaml", ROLES),
        source(
            "p/b.yaml",
            &format!("version: 1\nrules:\n{rules}\nadmin:\n{admin}\n"),
        ),
    ];
    let policy = match load(&sources, &surroundings()) {
        Ok(loaded) => loaded.policy,
        Err(mistakes) => panic!("{}", shown(&mistakes)),
    };
    let rights = policy.admin(identity);
    let words: Vec<_> = rights.iter().map(|(action, _)| action.label()).collect();
    for action in AdminAction::ALL {
        assert_eq!(rights.permits(action).is_some(), words.contains(&action.label()));
    }
    words.join(" ")
}

const RULE: &str = "  - {name: w, identity: {provider: dev, roles: [W]}, grant: {role: writer}}";
const READ: &str = "sessions.list pools.list logins.list policy.show revocations.list";
const ALL: &str = "sessions.list sessions.kill pools.list logins.list logins.rotate policy.show \
                   reload keys.refresh revocations.list revoke revocations.lift";

#[test]
fn nobody_may_ask_anything_by_default() {
    assert_eq!(policy(&format!("{RULE}\n")).admin(&worker()).iter().count(), 0);
    let rows = [
        // Somebody else's rule, each key counts, and a claim that is absent matches nothing.
        "{provider: okta}",
        "{provider: dev, roles: [Admin]}",
        "{provider: dev, groups: [g2]}",
        "{provider: dev, client_id: worker, subject: oid-2}",
        "{provider: dev, scopes: '*'}",
        "{provider: dev, when: \"claims.idtyp == 'user'\"}",
        "{provider: dev, when: \"claims.absent == 'x'\"}",
    ];
    for identity in rows {
        let admin = format!("  - {{name: o, identity: {identity}, allow: [all]}}");
        assert_eq!(allowed(RULE, &admin, &worker()), "", "{identity}");
    }
}

#[test]
fn words_and_what_they_stand_for() {
    let rows = [
        ("[sessions.list]", "sessions.list"),
        ("[revoke, reload]", "reload revoke"),
        ("[read]", READ),
        ("[all]", ALL),
        ("[all, read, revoke]", ALL),
    ];
    for (allow, expected) in rows {
        let admin = format!("  - {{name: o, identity: {{provider: dev, groups: g1}}, allow: {allow}}}");
        assert_eq!(allowed(RULE, &admin, &worker()), expected, "{allow}");
    }
}

#[test]
fn rules_add_up_and_a_permit_names_the_first() {
    let two = "admin:
  - {name: lookers, identity: {provider: dev, groups: g1}, allow: [pools.list, reload]}
  - {name: doers, identity: {provider: dev, client_id: worker}, allow: [reload, revoke]}
";
    let text = format!("version: 1\nrules:\n{RULE}\n{two}");
    let loaded = load(
        &[source("p/a.yaml", ROLES), source("p/b.yaml", &text)],
        &surroundings(),
    )
    .unwrap();
    let rights = loaded.policy.admin(&worker());
    let rule_of = |action| {
        let permit = rights.permits(action)?;
        assert_eq!(permit.action(), action);
        let (rule, version) = permit.rule()?;
        assert_eq!(version, loaded.policy.version());
        Some(rule.to_string())
    };
    assert_eq!(rule_of(AdminAction::Reload).as_deref(), Some("lookers"));
    assert_eq!(rule_of(AdminAction::Revoke).as_deref(), Some("doers"));
    assert_eq!(rule_of(AdminAction::SessionsKill), None);
    assert_eq!(loaded.policy.admin_rule_count(), 2);
}

#[test]
fn a_deny_takes_all_of_it_away() {
    let admin = "  - {name: o, identity: {provider: dev, groups: g1}, allow: [all]}";
    let deny = |identity: &str| format!("{RULE}\n  - {{name: d, identity: {identity}, deny: gone}}");
    for (identity, expected) in [
        ("{provider: dev, subject: oid-1}", ""),
        ("{provider: dev, when: \"claims.absent\"}", ""),
        ("{provider: dev, subject: oid-2}", ALL),
    ] {
        assert_eq!(allowed(&deny(identity), admin, &worker()), expected, "{identity}");
    }
    // A list that the token does not hold whole: grants nothing, and fires a deny.
    let mut overage = worker();
    overage.groups = Claimed::Unknown;
    assert_eq!(allowed(RULE, admin, &overage), "");
    let by_client = "  - {name: o, identity: {provider: dev, client_id: worker}, allow: [all]}";
    assert_eq!(allowed(RULE, by_client, &overage), ALL);
    let deny = deny("{provider: dev, groups: [leavers]}");
    assert_eq!(allowed(&deny, by_client, &overage), "");
    assert_eq!(allowed(&deny, by_client, &worker()), ALL);
}

#[test]
fn explain_lists_the_rights() {
    let text = format!(
        "version: 1\nrules:\n{RULE}\nadmin:\n  - {{name: o, identity: {{provider: dev}}, allow: [reload, revoke]}}\n"
    );
    let sources = [source("p/a.yaml", ROLES), source("p/b.yaml", &text)];
    let policy = load(&sources, &surroundings()).unwrap().policy;
    let told = ask(&worker(), "auto", "orders", |request| policy.explain(request));
    assert!(
        told.to_string()
            .contains("may ask of the running gatepost: reload, revoke")
    );
    assert_eq!(
        serde_json::json!(told)["admin"][0],
        serde_json::json!({"action": "reload", "rule": "o"})
    );
    let mut stranger = worker();
    stranger.provider = "okta".into();
    let told = ask(&stranger, "auto", "orders", |request| policy.explain(request));
    assert!(told.admin.is_empty() && !told.to_string().contains("may ask"));
}

#[test]
fn the_local_operator_needs_no_rule() {
    let operator = LocalOperator::recognise(0, 999).unwrap();
    let rights = AdminRights::of_local(operator);
    for action in AdminAction::ALL {
        assert_eq!(rights.permits(action).unwrap().rule(), None);
    }
}

/// A part of the one mistake that follows from these admin rules.
#[test]
fn mistakes() {
    let rows = [
        (
            "  - {name: o, identity: {provider: dev}, allow: [sessions]}",
            "`sessions` is nothing that can be allowed; known: sessions.list, ",
        ),
        (
            "  - {name: o, identity: {provider: dev}, allow: [Reload]}",
            "`Reload` is nothing that can be allowed",
        ),
        (
            "  - {name: o, identity: {provider: dev}, allow: all}",
            "expected a list, not text",
        ),
        (
            "  - {name: o, identity: {provider: dev}, allow: []}",
            "the list is empty",
        ),
        (
            "  - {name: o, identity: {provider: dev}}",
            "an admin rule lacks the key `allow`",
        ),
        (
            "  - {name: o, identity: {groups: g1}, allow: [all]}",
            "`identity` lacks the key `provider`",
        ),
        (
            "  - {name: o, identity: {provider: devv}, allow: [all]}",
            "unknown identity provider `devv`",
        ),
        (
            "  - {name: o, identity: {provider: dev}, allow: [all], deny: no}",
            "unknown key `deny` in an admin rule",
        ),
        (
            "  - {name: o, identity: {provider: dev, when: 'claims.a ='}, allow: [all]}",
            "not a CEL expression",
        ),
        (
            "  - {name: w, identity: {provider: dev}, allow: [all]}",
            "rule `w` exists already (p/b.yaml:3:12)",
        ),
        (
            "  - {name: o, identity: {provider: dev}, allow: [read]}\n  - {name: o, identity: {provider: okta}, allow: [read]}",
            "rule `o` exists already (p/b.yaml:6:12)",
        ),
        (
            "  - {name: o, identity: {provider: dev}, allow: [read, reload]}\n  - {name: p, identity: {provider: dev, groups: g}, allow: [pools.list]}",
            "admin rule `p` can never decide: `o` (p/b.yaml:6:12)",
        ),
        (
            "  - {name: o, identity: {provider: dev, subject: former-1}, allow: [all]}",
            "admin rule `o` can never decide: `d` (p/b.yaml:4:12)",
        ),
    ];
    for (admin, expected) in rows {
        let text = format!(
            "version: 1\nrules:\n{RULE}\n  - {{name: d, identity: {{provider: dev, subject: 'former-*'}}, deny: gone}}\nadmin:\n{admin}\n"
        );
        let loaded = load(
            &[source("p/a.yaml", ROLES), source("p/b.yaml", &text)],
            &surroundings(),
        );
        let mistakes = loaded.map(|_| ()).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{admin}\n{}", shown(&mistakes));
        let printed = mistakes[0].to_string();
        assert!(
            printed.contains(expected) && printed.contains('^'),
            "{admin}\n{printed}"
        );
    }
}
