//! gatepost logs in with tokens of its own identity: stand-ins for Azure's endpoints give them, and a
//! PostgreSQL that asks for the password inside TLS takes them, as Azure's does.

use std::fs;

use crate::harness::journal::of_event;
use crate::harness::provider::Shape;
use crate::harness::token_giver::{TOKEN, TokenGiver};
use crate::harness::wait_for;
use crate::harness::world::World;

/// One role, held by two identities of two providers.
const POLICY: &str = "
version: 1
roles:
  orders_writer:
    target: orders
    database: orders
    grants:
      - {privileges: [select, insert, update, delete], on: {tables: [public.orders, public.inbox, public.pgbench_accounts, public.pgbench_branches, public.pgbench_tellers, public.pgbench_history]}}
      - {privileges: [usage], on: {sequences: [public.orders_id_seq]}}
rules:
  - name: entra-consumers
    identity: {provider: entra, client_id: order-consumer, roles: [Orders.Write]}
    grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}
  - name: okta-consumers
    identity: {provider: okta, client_id: order-consumer, groups: [Orders.Write]}
    grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}
";

/// Whom the server knows by a token: it asks for it as it is, inside TLS.
fn admit(world: &World, attributes: &str) {
    let hba = world.path("postgres/data/pg_hba.conf");
    let others = fs::read_to_string(&hba).unwrap();
    let line = "hostssl all gatepost-prod 127.0.0.1/32 password\n";
    fs::write(&hba, format!("{line}{others}")).unwrap();
    world.sql(&format!(
        "CREATE ROLE \"gatepost-prod\" LOGIN {attributes} PASSWORD '{TOKEN}'"
    ));
    world.sql("SELECT pg_reload_conf()");
}

/// Nothing is minted: the proxy is not started yet, and its user is not a member of the role.
fn lending(giver: &TokenGiver) -> World {
    let mut world = World::without_proxy(15);
    admit(&world, "");
    world.config.broker = "gatepost-prod";
    world.config.managed_identity = Some("{source: imds, client_id: mine}");
    world.config.credential = "managed_identity";
    world.config.threads = 1;
    world.config.write(&world.path("gatepost.yaml"));
    // Two roles would be one.
    let (good, told) = giver.gatepost(&world, &["check"]);
    let one = "can have only one role there, and it has orders_reader, orders_writer";
    assert!(!good && told.contains(one), "{told}");
    fs::write(world.path("policy.yaml"), POLICY).unwrap();
    let (good, told) = giver.gatepost(&world, &["check"]);
    assert!(good, "{told}");
    world
}

#[test]
fn everybody_logs_in_as_the_managed_identity() {
    let giver = TokenGiver::start(Some(TOKEN));
    let mut world = lending(&giver);
    world.apply_roles();
    world.launch_beside(&giver);
    world.wait_until_ready();
    let insert = "INSERT INTO orders (customer) VALUES ('managed'); \
                  SELECT session_user, current_setting('gatepost.identity'), pg_backend_pid()";
    let consumer = world.consumer();
    let other = world.caller(Shape::Okta, "order-consumer", "orders_writer");
    let said = [&consumer, &consumer, &other, &consumer].map(|caller| {
        let out = world.psql(caller, insert).well();
        let line = out.lines().last().unwrap();
        let fields: Vec<_> = line.split('|').map(str::to_owned).collect();
        assert_eq!(fields[0], "gatepost-prod");
        (fields[1].clone(), fields[2].clone())
    });
    assert!(said[0].0.starts_with("entra/"), "{said:?}");
    assert!(said[2].0.starts_with("okta/"), "{said:?}");
    // One identity's connection is lent to it again, and to nobody else, though the login is the same.
    assert_eq!((&said[0], &said[0]), (&said[1], &said[3]));
    assert_ne!(said[0].1, said[2].1);
    assert_eq!(world.sql("SELECT count(*) FROM orders"), "4");

    let records = world.settled();
    for minted in ["login.minted", "login.renewed", "login.tampered", "login.dropped"] {
        assert!(of_event(&records, minted).is_empty(), "{minted}");
    }
    let outcomes = of_event(&records, "transaction.outcome");
    let written = outcomes
        .iter()
        .filter(|record| record["login"] == "gatepost-prod");
    assert!(written.count() >= 4, "{outcomes:?}");
    assert_eq!(world.logins(), [""; 0]);
    let asked = giver.asked();
    assert!(
        asked.iter().all(|request| request.contains("&client_id=mine")),
        "{asked:?}"
    );
    world.stop_proxy();
    world.verify_journal();
    world.token_is_nowhere(TOKEN);
}

#[test]
fn deploying_makes_the_identity_a_member_and_what_is_too_much_is_told() {
    let giver = TokenGiver::start(Some(TOKEN));
    let mut world = lending(&giver);
    let by = ["--as", "postgres", "--password-file", "superuser-password"];
    let plan = [&["roles", "plan"], by.as_slice()].concat();
    let (_, told) = giver.gatepost(&world, &plan);
    assert!(
        told.contains("GRANT \"orders_writer\" TO \"gatepost-prod\";"),
        "{told}"
    );
    assert!(!told.contains("gatepost_minted"), "{told}");
    // To look, it has to be let into the database.
    world.sql("GRANT CONNECT ON DATABASE orders TO \"gatepost-prod\"");
    let (good, told) = giver.gatepost(&world, &["check", "--live"]);
    assert!(
        !good && told.contains("membership of gatepost-prod in role orders_writer"),
        "{told}"
    );
    world.apply_roles();
    let (good, told) = giver.gatepost(&world, &["check", "--live"]);
    assert!(good, "{told}");
    world.sql("GRANT orders_reader TO \"gatepost-prod\"");
    let (good, told) = giver.gatepost(&world, &["check", "--live"]);
    let revoke = "REVOKE \"orders_reader\" FROM \"gatepost-prod\"";
    assert!(good && told.contains(revoke), "{told}");

    // What a client plants on the login that all share reaches nobody.
    world.launch_beside(&giver);
    world.wait_until_ready();
    world.sql("ALTER ROLE \"gatepost-prod\" SET search_path = planted");
    let consumer = world.consumer();
    let refused = world.psql(&consumer, "SELECT 1").refusal();
    assert!(!refused.contains("search_path"), "{refused}");
    assert!(world.log().contains("set search_path for itself"));
    let (good, told) = giver.gatepost(&world, &["check", "--live"]);
    let reset = "ALTER ROLE \"gatepost-prod\" RESET ALL";
    assert!(!good && told.contains(reset), "{told}");
    world.sql(reset);
    world.psql(&consumer, "SELECT 1").well();
}

#[test]
fn without_a_token_nobody_gets_in_and_the_operator_reads_why() {
    let giver = TokenGiver::start(None);
    let mut world = lending(&giver);
    world.apply_roles();
    world.launch_beside(&giver);
    let (_, page) = wait_for("an answer for operators", || {
        world
            .readiness()
            .filter(|(status, page)| *status == 503 && page.contains("Identity not found"))
    });
    assert!(page.contains("no token of gatepost's own identity"), "{page}");
    let refused = world.psql(&world.consumer(), "SELECT 1").refusal();
    assert!(!refused.contains("Identity not found"), "{refused}");
    giver.give(TOKEN);
    world.wait_until_ready();
    world.psql(&world.consumer(), "SELECT 1").well();
}

#[test]
fn a_broker_with_a_token_mints_as_one_with_a_password() {
    let mut world = World::without_proxy(15);
    let giver = TokenGiver::start(Some(TOKEN));
    admit(&world, "CREATEROLE");
    world.sql("GRANT CONNECT ON DATABASE orders TO \"gatepost-prod\"");
    world.config.broker = "gatepost-prod";
    world.config.managed_identity = Some("{}");
    world.launch_with(|mut command| {
        giver.around(&mut command, "proof of the app");
        command
    });
    world.wait_until_ready();
    let login = world.psql(&world.consumer(), "SELECT session_user").well();
    assert!(login.starts_with("gp_e2e_"), "{login}");
    let asked = giver.asked();
    assert_eq!(asked.len(), 1, "one token for all connections: {asked:?}");
    assert!(
        asked[0].starts_with("GET /msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fossrdbms-aad.")
    );
    assert!(!of_event(&world.records(), "login.minted").is_empty());
    world.stop_proxy();
    assert_eq!(world.logins(), [""; 0]);
    world.token_is_nowhere(TOKEN);
    assert!(!world.log().contains("proof of the app"));
}
