//! Mistakes, with their carets.

use std::path::Path;

use super::*;

fn mistakes(text: &str) -> Vec<Mistake> {
    let sources = [source("p/a.yaml", ROLES), source("p/b.yaml", text)];
    match load(&sources, &surroundings()) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes,
    }
}

/// The one mistake of a file, as it is printed.
fn printed(text: &str) -> String {
    let mistakes = mistakes(text);
    assert_eq!(mistakes.len(), 1, "{text}\n{}", shown(&mistakes));
    mistakes[0].to_string()
}

#[test]
fn the_caret_stands_under_what_is_wrong() {
    let rule = |body: &str| format!("version: 1\nrules:\n  - {body}\n");
    let rows = [
        (
            rule("{name: x, identity: {provider: devv}, grant: {role: reader}}"),
            "p/b.yaml:3:36: unknown identity provider `devv`; known: dev, okta
  |
3 |   - {name: x, identity: {provider: devv}, grant: {role: reader}}
  |                                    ^",
        ),
        (
            rule("{name: x, identity: {provider: dev}, grant: {role: raeder}}"),
            "p/b.yaml:3:56: unknown role `raeder`; known: reader, rescue, stock, writer
  |
3 |   - {name: x, identity: {provider: dev}, grant: {role: raeder}}
  |                                                        ^",
        ),
        (
            rule("{name: x, identity: {provider: dev, rolls: [W]}, grant: {role: reader}}"),
            "p/b.yaml:3:41: unknown key `rolls` in `identity`; known: provider, client_id, subject, tenant, roles, groups, scopes, when
  |
3 |   - {name: x, identity: {provider: dev, rolls: [W]}, grant: {role: reader}}
  |                                         ^",
        ),
        (
            rule("{name: x, identity: {provider: dev}, grant: {role: reader}, name: y}"),
            "p/b.yaml:3:65: `name` stands here a second time; the first is in line 3
  |
3 |   - {name: x, identity: {provider: dev}, grant: {role: reader}, name: y}
  |                                                                 ^",
        ),
        (
            rule("{name: x, identity: {provider: dev}, grant: {role: reader}, correlation: needed}"),
            "p/b.yaml:3:78: expected `optional` or `required`
  |
3 |   - {name: x, identity: {provider: dev}, grant: {role: reader}, correlation: needed}
  |                                                                              ^",
        ),
        (
            rule("{name: x, identity: {provider: dev}, grant: {role: reader}, audit: {parameters: yes}}"),
            "p/b.yaml:3:85: expected `absent`, `hashed` or `plain`
  |
3 |   - {name: x, identity: {provider: dev}, grant: {role: reader}, audit: {parameters: yes}}
  |                                                                                     ^",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(printed(&text), expected);
    }
}

/// A rule with this body, and a part of the one mistake that follows.
const RULES: &[(&str, &str)] = &[
    (
        "identity: {provider: dev}, grant: {role: reader}",
        "lacks the key `name`",
    ),
    (
        "name: x, grant: {role: reader}",
        "a rule lacks the key `identity`",
    ),
    (
        "name: x, identity: {client_id: a}, deny: no",
        "`identity` lacks the key `provider`",
    ),
    (
        "name: x, identity: {provider: dev}",
        "a rule needs `grant` or `deny`",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {}",
        "`grant` lacks the key `role`",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {role: reader}, deny: no",
        "either grants or denies",
    ),
    (
        "name: x, identity: {provider: dev}, deny: no, limits: {sessions: 1}",
        "no effect in a rule that denies",
    ),
    (
        "name: x, identity: {provider: dev}, deny: true",
        "expected text, not true or false; put it in quotes",
    ),
    (
        "name: x, identity: {provider: dev, client_id: 12}, deny: no",
        "put it in quotes",
    ),
    (
        "name: x, identity: {provider: dev, client_id: []}, deny: no",
        "the list is empty",
    ),
    (
        "name: x, identity: {provider: dev, client_id: ''}, deny: no",
        "the text is empty",
    ),
    (
        "name: x, identity: {provider: dev, client_id: {a: b}}, deny: no",
        "expected text, not a map",
    ),
    (
        "name: x, identity: {provider: dev, client_id: }, deny: no",
        "expected text, not nothing",
    ),
    (
        "name: x, identity: [dev], deny: no",
        "`identity` must be a map, not a list",
    ),
    (
        "name: x, identity: {provider: dev, when: 'claims.a ='}, deny: no",
        "not a CEL expression",
    ),
    (
        "name: x, identity: {provider: dev, when: 'roles == 1'}, deny: no",
        "`claims` only",
    ),
    (
        "name: x, identity: {provider: dev, when: true}, deny: no",
        "put it in quotes",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {role: reader, login_ttl: 30}",
        "put it in quotes",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {role: reader, login_ttl: 30min}",
        "`30min` is not a duration",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {role: reader, login_ttl: 1s}",
        "between 5s and 1day",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {role: reader, login_max_age: 1h}",
        "between 8h and 30days",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {role: reader}, limits: {sessions: 0}",
        "whole number from 1",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {role: reader}, limits: {connections: 0}",
        "whole number from 1",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {role: reader}, limits: {sessions: -1}",
        "whole number from 1",
    ),
    (
        "name: x, identity: {provider: dev}, grant: {role: reader}, audit: {}",
        "`audit` lacks the key `parameters`",
    ),
    (
        "name: x, identity: {provider: dev}, deny: left, audit: {parameters: plain}",
        "has no effect in a rule that denies",
    ),
];

#[test]
fn rules() {
    for (body, expected) in RULES {
        let printed = printed(&format!("version: 1\nrules:\n  - {{{body}}}\n"));
        assert!(printed.contains(expected), "{body}\n{printed}");
        assert!(printed.contains('^'), "{printed}");
    }
}

#[test]
fn what_is_not_enforced_yet_is_refused_with_that_reason() {
    let grant = "name: x, identity: {provider: dev}, grant: {role: reader}";
    let rule = |key: &str| format!("version: 1\nrules:\n  - {{{grant}, {key}}}\n");
    let rows = [
        rule("statements: {kinds: [select]}"),
        rule("tags: [pii]"),
        rule("guardrails: []"),
        "version: 1\nguardrails: []\n".to_owned(),
        "version: 1\nroles:\n  n: {target: orders, database: orders, tags: [pii], grants: [{privileges: [select], on: {tables: [a.b]}}]}\n".to_owned(),
    ];
    for text in rows {
        let printed = printed(&text);
        assert!(
            printed.contains("not enforced yet, so it is refused, not ignored"),
            "{printed}"
        );
    }
    for good in ["optional", "required"] {
        assert_eq!(mistakes(&rule(&format!("correlation: {good}"))), []);
    }
    for good in ["absent", "hashed", "plain"] {
        assert_eq!(mistakes(&rule(&format!("audit: {{parameters: {good}}}"))), []);
    }
}

/// A role with this body (or a whole `roles` entry), and a part of the one mistake.
#[test]
fn roles() {
    let on = |on: &str| {
        format!("n: {{target: orders, database: orders, grants: [{{privileges: [select], on: {on}}}]}}")
    };
    let rows = [
        ("n: {target: nowhere, database: orders, grants: [{privileges: [select], on: {tables: [a.b]}}]}".to_owned(), "unknown target `nowhere`; known: legacy, orders"),
        ("n: {target: orders, database: order, grants: [{privileges: [select], on: {tables: [a.b]}}]}".to_owned(), "unknown database `order`; known: orders, stock"),
        ("n: {target: legacy, database: erp, grants: [{privileges: [truncate], on: {tables: [a.b]}}]}".to_owned(), "`truncate` cannot be granted on these objects; possible: select, insert, update, delete, references"),
        ("n: {target: orders, database: orders, grants: []}".to_owned(), "the list is empty"),
        ("n: {target: orders, database: orders}".to_owned(), "lacks the key `grants`"),
        ("n:".to_owned(), "a role must be a map, not nothing"),
        (on("{}"), "`on` needs one of"),
        (on("{tables: [a.b], sequences: [a.c]}"), "one kind of objects"),
        (on("{tables: [orders]}"), "schema.name"),
        (on("{tables: ['public.*']}"), "schema.name"),
        (on("{tables: ['public.a; drop table b']}"), "schema.name"),
        (on("{tables: ['a.b.c']}"), "schema.name"),
        (on("{routines: [public.f]}").replace("select", "execute"), "argument types"),
        (on("{schemas: ['a b']}").replace("select", "usage"), "name of a schema"),
        (on("{routines: ['public.f(int)']}"), "`select` cannot be granted on these objects; possible: execute"),
        (on("{schemas: [public]}"), "possible: usage, create"),
        ("n: {target: orders, database: orders, grants: [{privileges: [SELECT], on: {tables: [a.b]}}]}".to_owned(), "`SELECT` is not a privilege"),
        ("n: {target: orders, database: orders, break_glass: yes, grants: [{privileges: [select], on: {tables: [a.b]}}]}".to_owned(), "expected true or false"),
        (on("{tables: [a.b]}").replacen("n:", "auto:", 1), "reserved"),
        (on("{tables: [a.b]}").replacen("n:", "pg_read:", 1), "reserved"),
        (on("{tables: [a.b]}").replacen("n:", "gp_x:", 1), "reserved"),
        (on("{tables: [a.b]}").replacen("n:", "'a b':", 1), "a role's name has"),
        (on("{tables: [a.b]}").replacen("n:", "reader:", 1), "role `reader` exists already (p/a.yaml:4:3)"),
        (format!("{0}\n  {0}", on("{tables: [a.b]}")), "`n` stands here a second time; the first is in line 3"),
    ];
    for (body, expected) in rows {
        let printed = printed(&format!("version: 1\nroles:\n  {body}\n"));
        assert!(printed.contains(expected), "{body}\n{printed}");
    }
}

#[test]
fn files_and_cases() {
    let case = |body: &str| format!("version: 1\ncases:\n  - {{{body}}}\n");
    let rows = [
        (String::new(), "a policy file must be a map, not nothing"),
        ("rules: []\n".to_owned(), "lacks the key `version`"),
        ("version: 2\n".to_owned(), "version 1 only"),
        ("version: '1'\n".to_owned(), "expected a number, not text"),
        (
            "version: 1\nrule: []\n".to_owned(),
            "unknown key `rule` in a policy file",
        ),
        ("version: 1\nrules: {}\n".to_owned(), "expected a list, not a map"),
        ("version: 1\nrules: [\n".to_owned(), "not readable as YAML"),
        ("version: 1\n---\nversion: 1\n".to_owned(), "not readable as YAML"),
        (
            "version: 1\n1: 2\n".to_owned(),
            "unknown key `(a number)` in a policy file",
        ),
        (
            case("claims: c.json, provider: dev, target: orders, expect: deny"),
            "needs `database`",
        ),
        (
            case("claims: c.json, provider: d, target: orders, database: orders, expect: deny"),
            "unknown identity provider `d`",
        ),
        (
            case("claims: c.json, provider: dev, target: t, expect: deny"),
            "unknown target `t`",
        ),
        (
            case("claims: c.json, provider: dev, target: legacy, expect: allow"),
            "expected `deny` or",
        ),
        (
            case("claims: c.json, provider: dev, target: legacy, expect: {role: nope}"),
            "unknown role `nope`",
        ),
        (
            case("claims: c.json, provider: dev, target: legacy, expect: {role: reader, rule: nope}"),
            "unknown rule `nope`; known: none",
        ),
    ];
    for (text, expected) in rows {
        let mistakes = mistakes(&text);
        assert!(
            shown(&mistakes).contains(expected),
            "{text}\n{}",
            shown(&mistakes)
        );
    }
}

#[test]
fn rules_that_are_provably_dead() {
    let rule = |name: &str, identity: &str, effect: &str| {
        format!("  - {{name: {name}, identity: {{provider: dev{identity}}}, {effect}}}\n")
    };
    let reader = "grant: {role: reader}";
    // (the first rule, the second, whether one of them is dead)
    let rows = [
        (("", reader), (", roles: [W]", reader), true),
        (
            (", client_id: 'a*'", reader),
            (", client_id: [ab, 'ac*']", reader),
            true,
        ),
        (
            (", roles: [A, B]", reader),
            (", roles: [B], subject: x", reader),
            true,
        ),
        ((", roles: [A]", reader), (", roles: [A, B]", reader), false),
        ((", roles: [W]", reader), ("", reader), false),
        (("", reader), ("", "grant: {role: writer}"), false),
        ((", when: 'claims.a'", reader), (", roles: [W]", reader), false),
        (("", reader), (", when: 'claims.a'", reader), true),
        (("", "deny: a"), (", roles: [W]", reader), true),
        ((", roles: [W]", reader), ("", "deny: a"), true),
        (("", reader), (", roles: [W]", "deny: a"), false),
        (("", "deny: a"), (", roles: [W]", "deny: b"), true),
        ((", roles: [W]", "deny: a"), ("", "deny: b"), false),
    ];
    for ((one, one_effect), (two, two_effect), dead) in rows {
        let rules = [rule("one", one, one_effect), rule("two", two, two_effect)].concat();
        match (load_rules(&rules), dead) {
            (Ok(_), false) => {}
            (Err(mistakes), true) => {
                assert!(
                    shown(&mistakes).contains("can never decide"),
                    "{}",
                    shown(&mistakes)
                );
            }
            (Ok(_), true) => panic!("not seen as dead:\n{rules}"),
            (Err(mistakes), false) => panic!("{rules}\n{}", shown(&mistakes)),
        }
    }
}

#[test]
fn overlaps_are_warnings() {
    let rules = "  - {name: one, identity: {provider: dev, roles: [W]}, grant: {role: reader}}
  - {name: two, identity: {provider: dev, client_id: a}, grant: {role: reader}}
  - {name: three, identity: {provider: dev, client_id: b, roles: [V]}, grant: {role: reader}}
  - {name: four, identity: {provider: okta}, grant: {role: reader}}
  - {name: five, identity: {provider: dev}, grant: {role: writer}}
  - {name: six, identity: {provider: dev, groups: [g]}, deny: no}\n";
    let warnings = load_rules(rules).unwrap().warnings;
    let told: Vec<_> = warnings.iter().map(|it| it.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "rule `two` may match whom `one` (p/b.yaml:3:12) matches; the earlier one then decides with its limits",
            "rule `three` may match whom `one` (p/b.yaml:3:12) matches; the earlier one then decides with its limits",
        ]
    );
}

#[test]
fn every_mistake_of_every_file_at_once_in_order() {
    let sources = [
        source(
            "p/b.yaml",
            "version: 1
colour: red
roles:
  r: {target: nowhere, database: x, grants: [{privileges: [fly, execute], on: {tables: [a.b]}}]}
rules:
  - {name: x, identity: {provider: nobody, when: 'claims.'}, grant: {role: ghost, login_ttl: soon}}
  - {name: x, identity: {provider: dev}, grant: {role: r}, statements: {}}
",
        ),
        source("p/a.yaml", "version: 1\nrules: 7\n"),
        source("p/c.yaml", "version: [\n"),
    ];
    let mistakes = load(&sources, &surroundings()).unwrap_err();
    let places: Vec<_> = mistakes
        .iter()
        .map(|it| {
            let place = it.place.as_ref().unwrap();
            (place.file.file_stem().unwrap().to_str().unwrap(), place.line)
        })
        .collect();
    assert_eq!(
        places,
        [
            ("a", 2),
            ("b", 2),
            ("b", 4),
            ("b", 4),
            ("b", 4),
            ("b", 6),
            ("b", 6),
            ("b", 6),
            ("b", 6),
            ("b", 7),
            ("b", 7),
            ("c", 1),
        ],
        "{}",
        shown(&mistakes)
    );
}

#[test]
fn a_case_that_does_not_hold_is_a_mistake() {
    let text = format!("{ROLES}rules:
  - {{name: w, identity: {{provider: dev}}, grant: {{role: writer}}}}
cases:
  - {{claims: f/a.json, provider: dev, target: orders, database: orders, expect: {{role: writer, rule: w}}}}
  - {{claims: f/a.json, provider: dev, target: orders, database: orders, expect: deny}}
  - {{claims: f/a.json, provider: dev, target: orders, database: orders, role: reader, expect: {{role: reader}}}}
  - {{claims: f/none.json, provider: dev, target: orders, database: orders, expect: deny}}
");
    let policy = load(&[source("p/a.yaml", &text)], &surroundings())
        .unwrap()
        .policy;
    let read_file = |path: &Path| {
        if path == Path::new("p/f/a.json") {
            Ok("{}".to_owned())
        } else {
            Err(std::io::Error::from(std::io::ErrorKind::NotFound))
        }
    };
    let failed = run_cases(&policy, &read_file, &|_, _| Ok(worker()), SystemTime::UNIX_EPOCH);
    let told: Vec<_> = failed
        .iter()
        .map(|it| (it.place.as_ref().unwrap().line, it.message.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                11,
                "the case does not hold: expected deny, came role `writer` by rule `w`"
            ),
            (
                12,
                "the case does not hold: expected role `reader`, came deny: no rule grants the wanted role"
            ),
            (13, "p/f/none.json cannot be read: entity not found"),
        ]
    );
}
