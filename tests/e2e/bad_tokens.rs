//! Tokens that must not open the door, each told why.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::harness::journal::of_event;
use crate::harness::programs::Caller;
use crate::harness::provider::Shape;
use crate::harness::world::World;

const WHO: &str = "orders_writer";

#[test]
fn each_bad_token_is_refused_for_its_own_reason() {
    let world = World::start();
    let good = world.consumer().token;
    let cases = [
        (
            world.provider.token(Shape::Entra, "late"),
            "token expired",
            "Fetch a new access token",
        ),
        (
            world.provider.token(Shape::Okta, "late"),
            "token expired",
            "Fetch a new access token",
        ),
        (
            world.provider.token(Shape::Stranger, "order-consumer"),
            "token issuer is not a configured identity provider",
            "gatepost.yaml names",
        ),
        (
            world.provider.token(Shape::Entra, "misled"),
            "token was issued for another audience",
            "Request the token for the audience",
        ),
        (
            unsigned(&good),
            "token signature cannot be verified",
            "Fetch a new access token",
        ),
        (
            altered(&good),
            "token signature cannot be verified",
            "Fetch a new access token",
        ),
        (
            "not a token".to_owned(),
            "the password is not a token",
            "Send an OIDC access token",
        ),
        (
            world.provider.token(Shape::Entra, "nobody"),
            "no rule permits this identity, database and role",
            "gatepost explain",
        ),
        (
            world.provider.token(Shape::Entra, "analyst"),
            "no rule permits this identity, database and role",
            "Your roles here: orders_reader",
        ),
    ];
    for (token, sentence, hint) in &cases {
        let caller = Caller {
            user: WHO,
            token: token.clone(),
        };
        let refusal = world.psql(&caller, "SELECT 1").refusal();
        assert!(refusal.contains(sentence), "wanted \"{sentence}\": {refusal}");
        assert!(refusal.contains(hint), "wanted \"{hint}\": {refusal}");
        assert!(refusal.contains("gatepost session s-"), "{refusal}");
        assert_never_told(&world, token);
    }
    world.psql(&world.consumer(), "SELECT 1").well();
    let records = world.records();
    let denied = of_event(&records, "session.denied");
    assert_eq!(denied.len(), cases.len(), "{denied:#?}");
    world.verify_journal();
}

#[test]
fn a_token_outside_tls_is_refused_before_it_is_asked_for() {
    let world = World::start();
    let caller = world.consumer();
    let refusal = world
        .psql_with(&caller, &[("PGSSLMODE", "disable")], "SELECT 1")
        .refusal();
    assert!(
        refusal.contains("a token is only accepted inside TLS"),
        "{refusal}"
    );
    assert!(refusal.contains("sslmode=verify-full"), "{refusal}");
}

#[test]
fn a_loopback_door_may_allow_plaintext() {
    let mut world = World::without_proxy(15);
    world.config.door = ", allow_plaintext: true";
    world.serve();
    let caller = world.consumer();
    world
        .psql_with(&caller, &[("PGSSLMODE", "disable")], "SELECT 1")
        .well();
}

#[test]
fn a_token_in_a_name_is_refused_and_not_repeated() {
    let world = World::start();
    let mut caller = world.consumer();
    let token = std::mem::replace(&mut caller.token, "x".to_owned());
    let refusal = world
        .psql_with(&caller, &[("PGUSER", &token)], "SELECT 1")
        .refusal();
    assert!(refusal.contains("looks like a token"), "{refusal}");
    let signature = token.rsplit('.').next().unwrap();
    // libpq itself names the user in its own line about the connection; the server's sentence must not.
    assert!(!world.log().contains(signature));
    assert_never_told(&world, &token);
}

/// The journal and the log hold no part of a token that would help anybody.
fn assert_never_told(world: &World, token: &str) {
    let Some(secret) = token.rsplit('.').next().filter(|part| part.len() > 20) else {
        return;
    };
    assert!(!world.log().contains(secret), "the log holds a token");
    let journal = world.records();
    let leak = journal.iter().find(|record| record.to_string().contains(secret));
    assert!(leak.is_none(), "the journal holds a token: {leak:?}");
}

/// The same claims with `alg: none` and no signature.
fn unsigned(token: &str) -> String {
    let payload = token.split('.').nth(1).unwrap();
    format!(
        "{}.{payload}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#)
    )
}

/// One more role, the old signature.
fn altered(token: &str) -> String {
    let parts: Vec<_> = token.split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let claims = claims.replace("Orders.Write", "Orders.Admin");
    format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims), parts[2])
}
