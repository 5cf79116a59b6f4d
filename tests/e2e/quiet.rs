//! No secret is told to anybody: not in gatepost's log, its journal or its pages, not to the database's
//! log, and no value of a statement in the journal.

use std::fs;

use crate::harness::provider::{Shape, try_http};
use crate::harness::world::World;

#[test]
fn no_secret_is_written_anywhere() {
    let mut world = World::without_proxy(15);
    world.sql("ALTER SYSTEM SET log_statement = 'all'");
    world.sql("ALTER SYSTEM SET log_connections = on");
    world.sql("SELECT pg_reload_conf()");
    world.serve();
    let mut tokens = Vec::new();
    for shape in [Shape::Entra, Shape::Okta, Shape::Stranger] {
        let caller = world.caller(shape, "order-consumer", "orders_writer");
        let written = world.psql(
            &caller,
            "INSERT INTO orders (customer) VALUES ('value-4711') RETURNING 815",
        );
        assert_eq!(written.good, shape != Shape::Stranger);
        // Where it does not belong.
        let token = caller.token.clone();
        let options = format!("-c my.token={token}");
        let misplaced = [
            ("PGAPPNAME", &token),
            ("PGOPTIONS", &options),
            ("PGDATABASE", &token),
            ("PGUSER", &token),
        ];
        for (name, value) in misplaced {
            let refusal = world.psql_with(&caller, &[(name, value)], "SELECT 1").refusal();
            assert!(refusal.contains("looks like a token"), "{name}: {refusal}");
        }
        tokens.push(token);
    }
    world.settled();
    world.stop_proxy();
    let mut secrets = vec!["broker secret".to_owned(), "value-4711".to_owned()];
    for token in &tokens {
        let parts: Vec<_> = token.split('.').collect();
        secrets.extend([parts[1].to_owned(), parts[2].to_owned()]);
    }
    let database = fs::read_to_string(world.path("postgres/postgres.log")).unwrap();
    assert!(database.contains("CREATE ROLE"), "{database}");
    for secret in &secrets {
        assert!(!world.log().contains(secret), "gatepost's log holds {secret}");
        let told = world
            .records()
            .iter()
            .any(|record| record.to_string().contains(secret));
        assert!(!told, "the journal holds {secret}");
        // What a client asks to be stored is in the database's log of statements, where it is told to.
        assert!(
            secret == "value-4711" || !database.contains(secret),
            "the database's log holds {secret}"
        );
    }
    assert!(
        !database.contains("PASSWORD '") || database.contains("SCRAM-SHA-256$"),
        "{database}"
    );
}

#[test]
fn pages_for_operators_show_no_secret() {
    let world = World::start();
    let consumer = world.consumer();
    world.psql(&consumer, "SELECT 1").well();
    for page in ["healthz", "readyz", "metrics"] {
        let url = format!("http://{}/{page}", world.config.metrics);
        let (status, body) = try_http("GET", &url, "").unwrap();
        assert_eq!(status, 200, "{body}");
        let signature = consumer.token.rsplit('.').next().unwrap();
        assert!(!body.contains("broker secret") && !body.contains(signature));
        assert!(!body.contains("order-consumer"), "{page} names clients: {body}");
    }
}
