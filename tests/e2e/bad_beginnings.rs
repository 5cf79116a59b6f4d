//! What is wrong at the start is told at the start: on standard error when serving makes no sense, on
//! `/readyz` when it may pass.

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio_postgres::error::SqlState;

use crate::harness::wait_for;
use crate::harness::world::World;

/// Serving ends with code 1 at once, and says `sentences`.
fn ends_saying(world: &mut World, sentences: &[&str]) {
    assert_eq!(world.proxy_ends(), Some(1));
    let log = world.log();
    for sentence in sentences {
        assert!(log.contains(sentence), "wanted \"{sentence}\":\n{log}");
    }
}

/// Serving goes on, and `/readyz` says 503 and `sentences`.
fn waits_saying(world: &mut World, sentences: &[&str]) {
    wait_for(&format!("/readyz to say {sentences:?}"), || {
        let (status, body) = world.readiness()?;
        (status == 503 && sentences.iter().all(|sentence| body.contains(sentence))).then_some(())
    });
}

#[test]
fn a_wrong_value_is_shown_with_line_and_caret() {
    let mut world = World::without_proxy(15);
    world.config.door = ", allow_plaintext: perhaps";
    world.launch();
    ends_saying(
        &mut world,
        &[
            "gatepost.yaml:4:",
            "expected true or false",
            "allow_plaintext: perhaps",
            "^",
        ],
    );
}

/// Without the line itself: a misspelt `password` still holds a password.
#[test]
fn an_unknown_key_is_named_with_its_line() {
    let mut world = World::without_proxy(15);
    world.config.door = ", allow_plaintxt: true";
    world.launch();
    ends_saying(
        &mut world,
        &[
            "gatepost.yaml:4:",
            "unknown key \"allow_plaintxt\"",
            "allow_plaintext",
        ],
    );
}

#[test]
fn broken_yaml_is_named_with_its_line() {
    let mut world = World::without_proxy(15);
    world.config.door = ", : }{";
    world.launch();
    ends_saying(&mut world, &["gatepost.yaml:4:"]);
}

#[test]
fn a_missing_secret_file_is_named() {
    let mut world = World::without_proxy(15);
    world.config.broker_password_file = "no-such-secret";
    world.launch();
    ends_saying(&mut world, &["no-such-secret", "gatepost.yaml:"]);
}

#[test]
fn an_expired_certificate_is_called_expired() {
    let mut world = World::without_proxy(15);
    write_expired(&world.path("certs"));
    world.config.certificate = "expired";
    world.launch();
    ends_saying(&mut world, &["expired"]);
}

fn write_expired(folder: &Path) {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(folder.join("expired.crt"), certificate.pem()).unwrap();
    fs::write(folder.join("expired.key"), key.serialize_pem()).unwrap();
}

#[test]
fn a_server_that_is_down_is_named_until_it_is_up() {
    let mut world = World::without_proxy(15);
    world.stop_server();
    world.launch();
    waits_saying(&mut world, &["orders", "cannot be reached"]);
    let refusal = world.turned_away(&world.consumer(), "orders");
    assert_eq!(*refusal.code(), SqlState::CONNECTION_FAILURE);
    assert_eq!(refusal.message(), "the database is not reachable");
    world.start_server();
    world.wait_until_ready();
    world.psql(&world.consumer(), "SELECT 1").well();
}

#[test]
fn a_wrong_broker_password_is_called_that() {
    let mut world = World::without_proxy(15);
    fs::write(world.path("broker-password"), "wrong").unwrap();
    world.launch();
    waits_saying(&mut world, &["orders", "refuses the broker's password"]);
    assert!(!world.log().contains("broker secret"));
}

#[test]
fn a_broker_without_a_privilege_is_told_the_sql() {
    let mut world = World::without_proxy(15);
    world.sql("ALTER ROLE gatepost_broker NOCREATEROLE");
    world.launch();
    let wanted = "ALTER ROLE \"gatepost_broker\" CREATEROLE";
    waits_saying(&mut world, &["orders", "CREATEROLE", wanted]);
    let found = world.gatepost(&["check", "--live", "--config", "gatepost.yaml"]);
    assert!(!found.good);
    assert!(
        format!("{}{}", found.out, found.err).contains(wanted),
        "{found:?}"
    );
    world.sql(wanted);
    world.wait_until_ready();
}

#[test]
fn a_missing_role_is_named_with_its_sql() {
    let mut world = World::without_proxy(15);
    world.sql("DROP OWNED BY orders_writer; DROP ROLE orders_writer");
    let found = world.gatepost(&["check", "--live", "--config", "gatepost.yaml"]);
    assert!(!found.good);
    assert!(
        format!("{}{}", found.out, found.err).contains("CREATE ROLE \"orders_writer\" NOLOGIN"),
        "{found:?}"
    );
    world.launch();
    let caller = world.consumer();
    wait_for("the door", || world.readiness());
    let refusal = world.turned_away(&caller, "orders");
    assert_eq!(*refusal.code(), SqlState::CONNECTION_FAILURE);
    assert_eq!(
        refusal.message(),
        "no database login could be made for this identity"
    );
    assert!(
        world.log().contains("role orders_writer does not exist"),
        "{}",
        world.log()
    );
    world.apply_roles();
    world.wait_until_ready();
    world.psql(&caller, "SELECT 1").well();
}
