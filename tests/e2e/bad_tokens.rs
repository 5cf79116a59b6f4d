//! Tokens that must not open the door, each told why.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_postgres::error::{DbError, SqlState};

use crate::harness::journal::of_event;
use crate::harness::programs::Caller;
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

const WHO: &str = "orders_writer";

/// A token and how it is turned away: SQLSTATE, sentence, and a part of the hint.
type Case = (String, SqlState, &'static str, &'static str);

fn unsound(world: &World) -> Vec<Case> {
    let token = |shape, client| world.provider.token(shape, client);
    let good = world.consumer().token;
    let (invalid, missing) = (
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_PASSWORD,
    );
    let (expired, fetch) = ("token expired", "Fetch a new access token");
    let signature = "token signature cannot be verified";
    let malformed = ("the password is not a token", "Send an OIDC access token");
    let not_access = ("token is not an access token", "not the ID token");
    vec![
        (token(Shape::Entra, "late"), invalid.clone(), expired, fetch),
        (token(Shape::Okta, "late"), invalid.clone(), expired, fetch),
        (
            token(Shape::Entra, "early"),
            invalid.clone(),
            "token is not valid yet",
            "Compare the clocks",
        ),
        (
            token(Shape::Stranger, "order-consumer"),
            invalid.clone(),
            "token issuer is not a configured identity provider",
            "gatepost.yaml names",
        ),
        (
            token(Shape::Entra, "misled"),
            invalid.clone(),
            "token was issued for another audience",
            "Request the token for the audience",
        ),
        (unsigned(&good), invalid.clone(), signature, fetch),
        (altered(&good), invalid.clone(), signature, fetch),
        (
            "not a token".to_owned(),
            invalid.clone(),
            malformed.0,
            malformed.1,
        ),
        (
            "x".repeat(20_000),
            SqlState::PROTOCOL_VIOLATION,
            "message is larger than the limit of",
            "See the limits",
        ),
        (
            world.provider.id_token(Shape::Entra, "order-consumer"),
            invalid.clone(),
            not_access.0,
            not_access.1,
        ),
        (
            world.provider.id_token(Shape::Okta, "order-consumer"),
            invalid,
            not_access.0,
            not_access.1,
        ),
        (
            String::new(),
            missing,
            "no token was sent",
            "in the password field",
        ),
    ]
}

fn assert_told(world: &World, error: &DbError, code: &SqlState, sentence: &str, hint: &str) {
    assert_eq!(error.code(), code, "{error:?}");
    assert!(
        error.message().contains(sentence),
        "wanted \"{sentence}\": {error:?}"
    );
    assert!(
        error.hint().unwrap_or_default().contains(hint),
        "wanted \"{hint}\": {error:?}"
    );
    // Under this reference the operator finds the rest.
    let reference = error.detail().unwrap().strip_prefix("gatepost session ").unwrap();
    assert!(world.log().contains(reference), "{reference}");
}

#[test]
fn each_bad_token_is_refused_for_its_own_reason() {
    let world = World::start();
    let cases = unsound(&world);
    for (token, code, sentence, hint) in &cases {
        let caller = Caller {
            user: WHO,
            token: token.clone(),
        };
        let error = world.turned_away(&caller, "orders");
        assert_told(&world, &error, code, sentence, hint);
        assert_never_told(&world, token);
    }
    world.psql(&world.consumer(), "SELECT 1").well();
    // One by one as far as a stranger may fill the journal; the rest is summed up later.
    wait_for("ten denials on record", || {
        let denied = of_event(&world.records(), "session.denied").len();
        assert!(denied <= 10, "{denied}");
        (denied == 10).then_some(())
    });
    world.verify_journal();
}

#[test]
fn who_may_not_is_told_what_they_may() {
    let world = World::start();
    let caller = |client, user| world.caller(Shape::Entra, client, user);
    let nowhere = "gatepost explain";
    let cases = [
        (caller("nobody", WHO), "orders", nowhere),
        (caller("nobody", "auto"), "orders", nowhere),
        (caller("analyst", WHO), "orders", "Your roles here: orders_reader"),
        (
            caller("order-consumer", "postgres"),
            "orders",
            "Your roles here: orders_writer",
        ),
        // An unknown database reads like a forbidden one.
        (caller("order-consumer", WHO), "no_such_database", nowhere),
        (caller("order-consumer", WHO), "postgres", nowhere),
        (caller("nobody", WHO), "no_such_database", nowhere),
    ];
    for (caller, database, hint) in cases {
        let error = world.turned_away(&caller, database);
        let sentence = "no rule permits this identity, database and role";
        assert_told(&world, &error, &SqlState::INSUFFICIENT_PRIVILEGE, sentence, hint);
    }
    let own = caller("order-consumer", "auto");
    assert_eq!(world.psql(&own, "SELECT count(*) FROM orders").well(), "0");
    let written = world.psql(
        &caller("analyst", "auto"),
        "INSERT INTO orders (customer) VALUES ('x')",
    );
    assert!(written.refusal().contains("permission denied for table orders"));
}

#[test]
fn nobody_is_asked_for_a_password_outside_tls() {
    let world = World::start();
    let mut socket = TcpStream::connect(world.config.postgres).unwrap();
    let body = b"\0\x03\0\0user\0orders_writer\0database\0orders\0\0";
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    socket.write_all(&[&length, &body[..]].concat()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert_eq!(answer.first(), Some(&b'E'), "{text}");
    assert!(
        text.contains("C28000\0") && text.contains("only accepted inside TLS"),
        "{text}"
    );
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
