//! What a reviewer is told of a policy.

use super::*;

#[test]
fn an_outline_names_files_roles_and_who_may_have_them() {
    let policy = policy(
        "  - {name: w, identity: {provider: dev, client_id: [a, 'b-*'], roles: [W], when: \"claims.x == 1\"}, grant: {role: writer}}
  - {name: d, identity: {provider: okta, subject: 'former-*'}, deny: \"left\"}
  - {name: x, identity: {provider: dev}, grant: {role: rescue}, audit: {parameters: plain}}
admin:
  - {name: o, identity: {provider: okta, groups: [ops]}, allow: [sessions.list, reload]}
",
    );
    let outline = serde_json::to_value(policy.outline()).unwrap();
    let expected = serde_json::json!([
        {"rule": "w", "who": "provider dev, client_id a or b-*, roles W, when claims.x == 1", "role": "writer"},
        {"rule": "d", "who": "provider okta, subject former-*", "deny": "left"},
        {"rule": "x", "who": "provider dev", "role": "rescue", "parameters": "plain"},
    ]);
    assert_eq!(outline["permits"], expected);
    assert_eq!(
        outline["operators"],
        serde_json::json!([{"rule": "o", "who": "provider okta, groups ops", "allow": ["sessions.list", "reload"]}])
    );
    assert_eq!(
        outline["roles"][2],
        serde_json::json!({"name": "rescue", "target": "orders", "database": "orders", "break_glass": true,
            "grants": "delete on tables public.orders"})
    );
    // As `printf 'version: 1\nroles: …' | sha256sum` says.
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ROLES.as_bytes());
    let hex: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        outline["files"][0],
        serde_json::json!({"name": "a.yaml", "sha256": hex})
    );
    assert_eq!(outline["files"][1]["name"], "b.yaml");
    assert_eq!(outline.get("omitted"), None);
}

#[test]
fn an_outline_is_bounded_and_says_what_it_leaves_out() {
    let rules: String = (0..200)
        .map(|number| {
            let long = "x".repeat(400);
            let who = format!("{{provider: dev, client_id: ['c{number}-{long}', 'd{number}-{long}']}}");
            format!("  - {{name: r{number}, identity: {who}, grant: {{role: writer}}}}\n")
        })
        .collect();
    let outline = policy(&rules).outline();
    assert_eq!(outline.permits.len(), 128);
    assert_eq!(outline.omitted, 72);
    assert!(outline.permits.iter().all(|permit| permit.who.ends_with('…')));
    assert!(serde_json::to_string(&outline).unwrap().len() < 100_000);
}
