//! Decisions as table rows.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// `role by rule`, or why not with the deny rule and the own roles.
fn told(decision: &Decision) -> String {
    match decision {
        Decision::Allow(grant) => format!("{} by {}", grant.role(), grant.rule()),
        Decision::Deny(denial) => {
            let rule = denial.rule.as_ref().map(|rule| format!("{rule}: "));
            let own: Vec<_> = denial.own_roles.iter().map(|role| role.as_str()).collect();
            let why = match &denial.why {
                DenialWhy::DenyRule(reason) => format!("denied, {reason}"),
                DenialWhy::DenyUncertain(part) => format!("uncertain {part}"),
                DenialWhy::NothingGranted => "nothing".to_owned(),
                DenialWhy::WantedNotGranted => "not granted".to_owned(),
                DenialWhy::SeveralRoles => "several".to_owned(),
                DenialWhy::OnlyBreakGlass => "break glass".to_owned(),
            };
            format!("{}{why} [{}]", rule.unwrap_or_default(), own.join(" "))
        }
    }
}

fn decide(rules: &str, identity: &Identity, wanted: &str) -> String {
    let policy = policy(rules);
    ask(identity, wanted, "orders", |request| {
        told(&policy.decide(request))
    })
}

const W: &str = "  - {name: w, identity: {provider: dev, roles: [W]}, grant: {role: writer}}\n";
const R: &str = "  - {name: r, identity: {provider: dev}, grant: {role: reader}}\n";
const RESCUE: &str = "  - {name: x, identity: {provider: dev}, grant: {role: rescue}}\n";
const DENY: &str = "  - {name: d, identity: {provider: dev, groups: [g1]}, deny: gone}\n";

#[test]
fn the_wanted_role() {
    let two = [W, R].concat();
    let spare = [W, RESCUE].concat();
    let rows: [(&str, &str, &str); 17] = [
        // One role: by name, by auto, by each of the identity's own names.
        (W, "writer", "writer by w"),
        (W, "auto", "writer by w"),
        (W, "worker", "writer by w"),
        (W, "oid-1", "writer by w"),
        (W, "Worker@Example.com", "writer by w"),
        // Anything else is refused and lists what there is.
        (W, "reader", "not granted [writer]"),
        (W, "postgres", "not granted [writer]"),
        (W, "WRITER", "not granted [writer]"),
        (W, "AUTO", "not granted [writer]"),
        (W, "", "not granted [writer]"),
        // Two roles: only by name.
        (&two, "auto", "several [writer reader]"),
        (&two, "worker", "several [writer reader]"),
        (&two, "reader", "reader by r"),
        // break_glass is never chosen by fallback, and does not count in it.
        (RESCUE, "auto", "break glass [rescue]"),
        (RESCUE, "worker", "break glass [rescue]"),
        (RESCUE, "rescue", "rescue by x"),
        (&spare, "auto", "writer by w"),
    ];
    for (rules, wanted, expected) in rows {
        assert_eq!(decide(rules, &worker(), wanted), expected, "{wanted} in\n{rules}");
    }
}

#[test]
fn an_own_name_that_is_a_role_asks_for_that_role() {
    let mut identity = worker();
    identity.client_id = Some("rescue".to_owned());
    assert_eq!(decide(W, &identity, "rescue"), "not granted [writer]");
}

#[test]
fn roles_belong_to_one_database() {
    let policy = policy(
        "  - {name: w, identity: {provider: dev}, grant: {role: writer}}
  - {name: s, identity: {provider: dev}, grant: {role: stock}}\n",
    );
    let rows = [
        ("orders", "auto", "writer by w"),
        ("stock", "auto", "stock by s"),
        ("stock", "writer", "not granted [stock]"),
        ("Orders", "auto", "nothing []"),
        ("nowhere", "writer", "nothing []"),
    ];
    for (database, wanted, expected) in rows {
        let decision = ask(&worker(), wanted, database, |request| {
            told(&policy.decide(request))
        });
        assert_eq!(decision, expected, "{wanted} at {database}");
    }
}

/// One rule `w` with this identity block, asked by `worker` for `auto`.
#[test]
fn identity_blocks() {
    let yes = "writer by w";
    let no = "nothing []";
    let rows = [
        ("provider: dev", yes),
        ("provider: okta", no),
        ("provider: dev, client_id: worker", yes),
        ("provider: dev, client_id: Worker", no),
        ("provider: dev, client_id: work*", yes),
        ("provider: dev, client_id: [other, w*r]", yes),
        ("provider: dev, client_id: [other, v*]", no),
        ("provider: dev, subject: 'oid-*', tenant: t1", yes),
        ("provider: dev, subject: 'oid-*', tenant: t2", no),
        ("provider: dev, roles: [A, W], groups: 'g*'", yes),
        ("provider: dev, roles: [A, W], groups: [h]", no),
        ("provider: dev, scopes: '*'", no),
        ("provider: dev, when: \"claims.idtyp == 'app'\"", yes),
        ("provider: dev, when: \"claims.idtyp == 'user'\"", no),
        ("provider: dev, when: \"claims.level >= 3\"", yes),
        // Errors and answers that are neither true nor false never grant.
        ("provider: dev, when: \"claims.absent == 'app'\"", no),
        ("provider: dev, when: \"claims.idtyp > 3\"", no),
        ("provider: dev, when: \"claims.idtyp\"", no),
    ];
    for (identity, expected) in rows {
        let rules = format!("  - {{name: w, identity: {{{identity}}}, grant: {{role: writer}}}}\n");
        assert_eq!(decide(&rules, &worker(), "auto"), expected, "{identity}");
    }
}

#[test]
fn an_absent_claim_matches_no_pattern() {
    let mut identity = worker();
    identity.tenant = None;
    let rules = "  - {name: w, identity: {provider: dev, tenant: '*'}, grant: {role: writer}}\n";
    assert_eq!(decide(rules, &identity, "auto"), "nothing []");
}

#[test]
fn nobody_gets_in_by_default() {
    let policy = load(&[], &surroundings()).unwrap().policy;
    let decision = ask(&worker(), "auto", "orders", |request| {
        told(&policy.decide(request))
    });
    assert_eq!(decision, "nothing []");
}

/// A grant to everyone and one deny with this identity block.
#[test]
fn a_deny_wins_also_when_it_cannot_be_evaluated() {
    let rows = [
        ("provider: dev, groups: [g1]", "d: denied, gone []"),
        ("provider: dev, groups: [h]", "reader by r"),
        ("provider: okta", "reader by r"),
        ("provider: dev, subject: 'former-*'", "reader by r"),
        ("provider: dev, when: 'claims.level == 3'", "d: denied, gone []"),
        ("provider: dev, when: 'claims.level == 4'", "reader by r"),
        (
            "provider: dev, when: 'claims.absent == 4'",
            "d: uncertain when []",
        ),
        ("provider: dev, when: claims.level", "d: uncertain when []"),
        // Another key says no, so the rule cannot match whatever the condition would give.
        (
            "provider: dev, subject: 'former-*', when: 'claims.absent == 4'",
            "reader by r",
        ),
        ("provider: okta, when: 'claims.absent == 4'", "reader by r"),
    ];
    for (identity, expected) in rows {
        for order in [true, false] {
            let deny = format!("  - {{name: d, identity: {{{identity}}}, deny: gone}}\n");
            let rules = if order {
                [R, &deny].concat()
            } else {
                [&deny, R].concat()
            };
            assert_eq!(decide(&rules, &worker(), "auto"), expected, "{identity}");
        }
    }
}

#[test]
fn an_unknown_list_never_grants_and_always_fires_a_deny() {
    for part in ["roles", "groups", "scopes"] {
        let mut identity = worker();
        match part {
            "roles" => identity.roles = Claimed::Unknown,
            "groups" => identity.groups = Claimed::Unknown,
            _ => identity.scopes = Claimed::Unknown,
        }
        let grant =
            format!("  - {{name: w, identity: {{provider: dev, {part}: '*'}}, grant: {{role: writer}}}}\n");
        assert_eq!(decide(&grant, &identity, "auto"), "nothing []");
        let deny = format!("{R}  - {{name: d, identity: {{provider: dev, {part}: [z]}}, deny: gone}}\n");
        assert_eq!(
            decide(&deny, &identity, "reader"),
            format!("d: uncertain {part} []")
        );
        // A rule that does not ask for the list is not concerned.
        assert_eq!(decide(R, &identity, "auto"), "reader by r");
    }
}

#[test]
fn the_first_grant_in_order_sets_the_terms() {
    let first = "  - {name: special, identity: {provider: dev, client_id: worker}, grant: {role: reader, login_ttl: 5m, session_max: 48h}, limits: {sessions: 3, connections: 2}}\n";
    let policy = policy(&[first, R].concat());
    let decision = ask(&worker(), "reader", "orders", |request| policy.decide(request));
    let Decision::Allow(grant) = decision else {
        panic!("denied")
    };
    assert_eq!(grant.rule().as_str(), "special");
    assert_eq!(grant.login_ttl(), Duration::from_secs(300));
    assert_eq!(grant.session_max(), Duration::from_secs(48 * 3_600));
    // Never less than session_max.
    assert_eq!(grant.login_max_age(), Duration::from_secs(48 * 3_600));
    assert_eq!(grant.limits().sessions, Some(3));
    assert_eq!(grant.limits().connections, Some(2));
    assert_eq!(grant.identity(), &worker().key());
    assert_eq!(
        (grant.target().as_str(), grant.database().as_str()),
        ("orders", "orders")
    );
}

#[test]
fn files_count_by_name() {
    let rule = |name: &str| {
        format!(
            "version: 1\nrules:\n  - {{name: {name}, identity: {{provider: dev, client_id: '{name}*'}}, grant: {{role: reader}}}}\n"
        )
    };
    let sources = [
        source("p/3.yaml", &rule("w")),
        source("p/2.yaml", &rule("wo")),
        source("p/1.yaml", ROLES),
    ];
    let loaded = load(&sources, &surroundings()).unwrap();
    let decision = ask(&worker(), "auto", "orders", |request| {
        told(&loaded.policy.decide(request))
    });
    assert_eq!(decision, "reader by wo");
    let mut reversed = sources.to_vec();
    reversed.reverse();
    let again = load(&reversed, &surroundings()).unwrap();
    assert_eq!(loaded.policy.version(), again.policy.version());
    assert_eq!(loaded.policy.version().len(), 64);
}

#[test]
fn explain_says_which_rule_decides_and_why_the_others_did_not() {
    let policy = policy(
        &[
            "  - {name: o, identity: {provider: okta}, grant: {role: reader}}\n",
            "  - {name: c, identity: {provider: dev, client_id: other}, grant: {role: reader}}\n",
            "  - {name: g, identity: {provider: dev, groups: [h, i]}, grant: {role: reader}}\n",
            "  - {name: e, identity: {provider: dev, when: 'claims.absent'}, grant: {role: reader}}\n",
            "  - {name: s, identity: {provider: dev}, grant: {role: stock}}\n",
            W,
        ]
        .concat(),
    );
    let explanation = ask(&worker(), "auto", "orders", |request| policy.explain(request));
    let expected = "allowed: role `writer` by rule `w`
  login_ttl 30m, session_max 8h, login_max_age 1day
  this identity's roles here: writer
  no match o (p/b.yaml:3:12): `provider` is `dev`, not okta
  no match c (p/b.yaml:4:12): `client_id` is `worker`, not other
  no match g (p/b.yaml:5:12): none of the identity's groups is h or i
  unknown  e (p/b.yaml:6:12): `when` cannot be evaluated (No such key: absent), so it grants nothing
  matches  s (p/b.yaml:7:12): grants `stock`, which is not a role of this target and database
  decides  w (p/b.yaml:8:12): every key matches; grants `writer`";
    assert_eq!(explanation.to_string(), expected);
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["considered"][5]["verdict"], "decides");

    let denied = ask(&worker(), "nope", "orders", |request| policy.explain(request));
    assert!(
        denied
            .to_string()
            .starts_with("denied: no rule grants the wanted role\n  this identity's roles here: writer")
    );
}

#[test]
fn explain_and_decide_agree_under_a_deny() {
    let policy = policy(&[W, DENY].concat());
    let explanation = ask(&worker(), "auto", "orders", |request| policy.explain(request));
    assert!(explanation.to_string().starts_with("denied by rule `d`"));
    assert_eq!(explanation.considered[1].verdict, Verdict::Decides);
    assert!(explanation.own_roles.is_empty());
}

#[test]
fn a_policy_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Policy>();
    shared::<Decision>();
}

fn strategy() -> impl Strategy<Value = (String, String, String, String)> {
    let word = "[ab]";
    (
        prop_oneof![Just("dev".to_owned()), Just("okta".to_owned())],
        word,
        word,
        word,
    )
}

proptest! {
    /// Rules and identities from few words, so that near misses are common: a grant comes only
    /// from a rule whose every key matches, computed here in the plainest way.
    #[test]
    fn without_a_matching_rule_nothing_is_granted(
        rules in prop::collection::btree_set(strategy(), 0..5),
        (provider, client, role, group) in strategy(),
        wanted in prop_oneof![Just("auto"), Just("writer"), Just("oid-1"), Just("reader")],
    ) {
        // A set, because a repeated rule is dead, and dead rules do not load.
        let rules: Vec<_> = rules.into_iter().collect();
        let text: String = rules.iter().enumerate().map(|(index, (provider, client, role, group))| format!(
            "  - {{name: n{index}, identity: {{provider: {provider}, client_id: '{client}', roles: ['{role}'], groups: ['{group}'], when: 'true'}}, grant: {{role: writer}}}}\n"
        )).collect();
        let text = if text.is_empty() { R.replace("dev", "okta, client_id: zz") } else { text };
        let mut identity = worker();
        identity.provider = provider.as_str().into();
        identity.client_id = Some(client.clone());
        identity.roles = known(&[&role]);
        identity.groups = known(&[&group]);
        let matching = rules.iter().position(|rule| *rule == (provider.clone(), client.clone(), role.clone(), group.clone()));
        let policy = policy(&text);
        let decision = ask(&identity, wanted, "orders", |request| policy.decide(request));
        match (decision, matching) {
            (Decision::Allow(grant), Some(index)) => {
                prop_assert_eq!(grant.rule().as_str(), format!("n{index}"));
                prop_assert_ne!(wanted, "reader");
            }
            (Decision::Allow(_), None) => prop_assert!(false, "granted without a matching rule"),
            (Decision::Deny(_), Some(_)) => prop_assert_eq!(wanted, "reader"),
            (Decision::Deny(_), None) => {}
        }
    }
}
