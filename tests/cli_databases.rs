//! The commands that connect to a database, against a real PostgreSQL: `roles plan`, `roles apply`
//! and `check --live`.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends by panicking; clippy spares only the functions that carry the attribute"
)]

#[path = "support/postgres.rs"]
mod postgres;

use std::fs;
use std::process::{Command, Output};

use postgres::Server;
use serde_json::Value;

const DEPLOY_PASSWORD: &str = "the deployer's own secret";
const BROKER_PASSWORD: &str = "the broker's own secret";

const POLICY: &str = "\
version: 1
roles:
  orders_writer:
    target: orders
    database: orders
    grants:
      - {privileges: [select, insert], on: {tables: [public.orders]}}
      - {privileges: [usage], on: {sequences: [public.orders_id_seq]}}
rules:
  - name: consumers
    identity: {provider: local, client_id: consumer}
    grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}
";

/// A server with a database, a broker and a deployer; and the files of an installation.
struct Site {
    server: Server,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let server = Server::start().await;
        let admin = server.admin("postgres").await;
        admin.batch_execute("CREATE DATABASE orders").await.unwrap();
        let roles = "CREATE ROLE gatepost_broker LOGIN CREATEROLE PASSWORD 'the broker''s own secret'; \
                     CREATE ROLE deployer LOGIN SUPERUSER PASSWORD 'the deployer''s own secret'";
        admin.batch_execute(roles).await.unwrap();
        let orders = server.admin("orders").await;
        let table = "CREATE TABLE orders (id serial PRIMARY KEY, text text)";
        orders.batch_execute(table).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let site = Self { server, folder };
        let made = site.gatepost(&["certs", "--directory", &site.path("certs")]);
        assert!(made.status.success(), "{made:?}");
        site.write("gatepost.yaml", &config(site.server.port));
        site.write("policy.yaml", POLICY);
        site
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn gatepost(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_gatepost"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("DEPLOY_PASSWORD", DEPLOY_PASSWORD)
            .env("WRONG_PASSWORD", "not it")
            .env("BROKER_PASSWORD", BROKER_PASSWORD)
            .output()
            .unwrap()
    }

    fn roles(&self, what: &str, more: &[&str]) -> Output {
        let who = ["--as", "deployer", "--password-env", "DEPLOY_PASSWORD"];
        // The one target need not be named.
        self.gatepost(&[&["roles", what], &who[..], more].concat())
    }

    /// What `--json` printed, and the exit code.
    fn plan(&self) -> (Value, i32) {
        let output = self.roles("plan", &["--json"]);
        (json(&output), output.status.code().unwrap())
    }

    async fn in_orders(&self, sql: &str) {
        self.server
            .admin("orders")
            .await
            .batch_execute(sql)
            .await
            .unwrap();
    }
}

fn config(port: u16) -> String {
    format!(
        "\
installation: test
listen: {{postgres: {{address: 127.0.0.1:0}}}}
tls: {{certificate: certs/server.crt, private_key: {{file: certs/server.key}}}}
identity_providers:
  local: {{issuer: \"http://127.0.0.1:1\", audiences: [gatepost]}}
targets:
  orders:
    engine: postgres
    address: 127.0.0.1:{port}
    tls: {{mode: disable}}
    databases: [orders]
    broker: {{user: gatepost_broker, password: {{env: BROKER_PASSWORD}}}}
policies: [policy.yaml]
audit: {{directory: audit, signing_key: {{file: certs/signing.key}}}}
"
    )
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| unreachable!("{output:?}"))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap()
}

#[tokio::test]
async fn a_plan_is_applied_once_and_then_empty() {
    let site = Site::new().await;
    let (before, code_before) = site.plan();
    assert_eq!(code_before, 1, "there is work to do: {before}");
    let steps = before["plan"]["steps"].as_array().unwrap().clone();
    let sql: Vec<_> = steps.iter().map(|step| step["sql"].as_str().unwrap()).collect();
    for wanted in [
        "CREATE ROLE \"gatepost_minted\" NOLOGIN",
        "CREATE ROLE \"orders_writer\" NOLOGIN",
        "GRANT SELECT ON TABLE public.orders TO \"orders_writer\"",
        "GRANT INSERT ON TABLE public.orders TO \"orders_writer\"",
        "GRANT USAGE ON SEQUENCE public.orders_id_seq TO \"orders_writer\"",
    ] {
        let plain = wanted.replace('"', "");
        assert!(
            sql.contains(&wanted) || sql.contains(&plain.as_str()),
            "{wanted}: {sql:?}"
        );
    }
    // Planning changed nothing: the second plan is the same.
    assert_eq!(site.plan().0, before);

    let applied = site.roles("apply", &[]);
    assert_eq!(code(&applied), 0, "{}", told(&applied));
    let line = format!("-- applied: {} statements", steps.len());
    assert!(told(&applied).contains(&line), "{}", told(&applied));

    let after = site.roles("plan", &[]);
    assert_eq!(code(&after), 0, "{}", told(&after));
    assert!(told(&after).contains("nothing to do"), "{}", told(&after));
    assert_eq!(code(&site.roles("apply", &[])), 0);
    assert!(!site.server.log().contains(DEPLOY_PASSWORD));
}

#[tokio::test]
async fn what_was_not_declared_is_reported_and_left_alone() {
    let site = Site::new().await;
    assert_eq!(code(&site.roles("apply", &[])), 0);
    site.in_orders("GRANT DELETE ON orders TO orders_writer").await;
    let (plan, code) = site.plan();
    assert_eq!(code, 0, "nothing is missing: {plan}");
    let extras = plan["plan"]["extras"].to_string();
    assert!(
        extras.contains("orders_writer: DELETE on TABLE public.orders"),
        "{plan}"
    );
    assert!(site.roles("apply", &[]).status.success());
    assert_eq!(site.plan().0, plan, "the extra grant is still there");
}

#[tokio::test]
async fn a_plan_that_cannot_be_fulfilled_is_not_applied_in_part() {
    let site = Site::new().await;
    site.write(
        "policy.yaml",
        &POLICY.replace("[public.orders]", "[public.orders, public.no_such]"),
    );
    let output = site.roles("apply", &[]);
    assert_eq!(code(&output), 1);
    let told = told(&output);
    assert!(told.contains("does not exist: table public.no_such"), "{told}");
    assert!(told.contains("NOT applied"), "{told}");
    let admin = site.server.admin("orders").await;
    let made = admin.query("SELECT FROM pg_roles WHERE rolname = 'orders_writer'", &[]);
    assert!(made.await.unwrap().is_empty());
}

#[tokio::test]
async fn who_may_not_apply_learns_why_and_no_password_is_repeated() {
    let site = Site::new().await;
    let wrong = [
        "roles",
        "plan",
        "--target",
        "orders",
        "--as",
        "deployer",
        "--password-env",
    ];
    let refused = site.gatepost(&[&wrong[..], &["WRONG_PASSWORD"]].concat());
    assert_eq!(code(&refused), 1);
    assert!(told(&refused).contains("28P01"), "{}", told(&refused));
    assert!(!told(&refused).contains("not it"), "{}", told(&refused));
    let unset = site.gatepost(&[&wrong[..], &["NO_SUCH_VARIABLE"]].concat());
    assert_eq!(code(&unset), 1);
    assert!(told(&unset).contains("NO_SUCH_VARIABLE"), "{}", told(&unset));
    // The broker can look, but has no right to grant.
    site.write("broker-password", &format!("{BROKER_PASSWORD}\n"));
    let words = ["apply", "--target", "orders", "--as", "gatepost_broker"];
    let apply = [&["roles"], &words[..], &["--password-file", "broker-password"]].concat();
    let refused = site.gatepost(&apply);
    assert_eq!(code(&refused), 1);
    assert!(told(&refused).contains("NOT applied"), "{}", told(&refused));
}

#[tokio::test]
async fn check_live_says_what_a_database_lacks() {
    let site = Site::new().await;
    let before = site.gatepost(&["check", "--live"]);
    assert_eq!(code(&before), 1, "{}", told(&before));
    assert!(
        told(&before).contains("missing role: orders_writer"),
        "{}",
        told(&before)
    );
    assert!(
        told(&before).contains("GRANT SELECT ON TABLE"),
        "{}",
        told(&before)
    );

    assert_eq!(code(&site.roles("apply", &[])), 0);
    site.in_orders("GRANT DELETE ON orders TO orders_writer").await;
    let after = site.gatepost(&["check", "--live", "--json"]);
    let report = json(&after);
    let findings = report["live"][0]["findings"].as_array().unwrap();
    let kinds: Vec<_> = findings
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap())
        .collect();
    // The extra grant; and the broker may not read pg_hba.conf, so a person must look.
    assert!(
        kinds.contains(&"too_much") && kinds.contains(&"not_proven"),
        "{report}"
    );
    assert!(!kinds.iter().any(|kind| kind.starts_with("missing")), "{report}");
    assert_eq!(code(&after), 0, "{report}");
}

#[tokio::test]
async fn check_live_names_a_database_that_cannot_be_reached() {
    let site = Site::new().await;
    let nowhere = config(1);
    site.write("gatepost.yaml", &nowhere);
    let output = site.gatepost(&["check", "--live"]);
    assert_eq!(code(&output), 1);
    let told = told(&output);
    assert!(
        told.contains("target orders") && told.contains("cannot be reached"),
        "{told}"
    );
    // Without --live the files alone decide.
    assert_eq!(code(&site.gatepost(&["check"])), 0);
}

#[tokio::test]
async fn doctor_lists_what_was_left_behind_and_repairs_it() {
    let site = Site::new().await;
    assert_eq!(code(&site.roles("apply", &[])), 0);
    let healthy = site.gatepost(&["doctor"]);
    assert_eq!(code(&healthy), 0, "{}", told(&healthy));
    assert!(told(&healthy).contains("logins: none"), "{}", told(&healthy));

    let broker = site.server.connect("gatepost_broker", BROKER_PASSWORD, "orders");
    let left = "CREATE ROLE gp_test_left LOGIN IN ROLE orders_writer, gatepost_minted; COMMENT ON ROLE gp_test_left IS \
        '{\"gatepost\":1,\"installation\":\"test\",\"replica\":\"z\",\"epoch\":\"over\",\"generation\":1,\"role\":\"orders_writer\"}'";
    broker.await.unwrap().batch_execute(left).await.unwrap();
    site.in_orders("CREATE TABLE theirs (a int); ALTER TABLE theirs OWNER TO gp_test_left")
        .await;
    let ill = site.gatepost(&["doctor", "--target", "orders"]);
    assert_eq!(code(&ill), 1);
    let text = told(&ill);
    assert!(
        text.contains("1 left over") && text.contains("owns table public.theirs in database orders"),
        "{text}"
    );
    let report = json(&site.gatepost(&["doctor", "--json"]));
    assert_eq!(report["good"], false);
    assert_eq!(
        report["targets"][0]["diagnosis"]["logins"][0]["condition"],
        "left_over"
    );

    let repaired = site.gatepost(&["doctor", "--repair"]);
    assert_eq!(code(&repaired), 0, "{}", told(&repaired));
    assert!(
        told(&repaired).contains("gp_test_left: ended"),
        "{}",
        told(&repaired)
    );
    assert_eq!(code(&site.gatepost(&["doctor"])), 0);
    let unknown = site.gatepost(&["doctor", "--target", "nowhere"]);
    assert_eq!(code(&unknown), 1);
    // A grant that is missing is a finding too.
    site.in_orders("REVOKE orders_writer FROM gatepost_broker; ALTER ROLE gatepost_broker NOCREATEROLE")
        .await;
    let lacking = site.gatepost(&["doctor"]);
    assert_eq!(code(&lacking), 1);
    assert!(
        told(&lacking).contains("ALTER ROLE \"gatepost_broker\" CREATEROLE"),
        "{}",
        told(&lacking)
    );
}
