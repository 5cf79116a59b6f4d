//! The page of metrics: what a scraper can read, what the numbers say, and that no client can add to
//! what is stored about it.

use std::collections::BTreeSet;

use crate::harness::metrics::Page;
use crate::harness::programs::Caller;
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

/// The labels there are, and all that may stand behind them but what the configuration says.
const LABELS: [(&str, &[&str]); 13] = [
    ("engine", &["postgres"]),
    ("target", &["orders", ""]),
    ("state", &["lent", "idle"]),
    ("for", &["target", "share"]),
    ("outcome", &["committed", "aborted", "in_doubt", "prepared"]),
    (
        "code",
        &[
            "tls_required",
            "token_missing",
            "token_rejected",
            "not_permitted",
            "too_many_sessions",
            "target_unavailable",
            "audit_unavailable",
            "session_expired",
            "statement_timeout",
            "idle_in_transaction",
            "idle_session",
            "protocol_violation",
            "internal",
        ],
    ),
    (
        "reason",
        &[
            "expired",
            "login_ended",
            "needed",
            "not_clean",
            "cancelling",
            "lost",
            "pool_ended",
        ],
    ),
    (
        "result",
        &[
            "passed_on",
            "wrong_key",
            "ignored",
            "ok",
            "failed",
            "unchanged",
            "kept",
        ],
    ),
    ("side", &["server", "client"]),
    ("provider", &["entra", "okta"]),
    ("le", &[]),
    ("kind", &[]),
    ("version", &[]),
];

fn check_labels(page: &Page) {
    let kinds: BTreeSet<_> = gatepost::sql::Kind::ALL.map(gatepost::sql::Kind::label).into();
    for (name, labels, _) in page.families.values().flat_map(|family| &family.samples) {
        for (label, value) in labels {
            let known = LABELS.iter().find(|(known, _)| known == label);
            let (_, values) = known.unwrap_or_else(|| panic!("{name}: unknown label {label}"));
            let fits = match label.as_str() {
                "kind" => kinds.contains(value.as_str()),
                "le" => true,
                // Of the program, and of the policy: a digest of its files.
                "version" => value.len() <= 80,
                _ => values.contains(&value.as_str()),
            };
            assert!(fits, "{name}: {label}={value}");
        }
    }
}

#[test]
fn the_page_counts_what_happens_as_it_happens() {
    let world = World::start();
    let consumer = world.consumer();
    check_labels(&Page::of(&world));
    let orders = ("target", "orders");
    let committed = [orders, ("outcome", "committed")];
    let client = world.runtime.block_on(async {
        let client = world.connect(&consumer, "").await.unwrap();
        for statement in [
            "INSERT INTO orders (customer) VALUES ('a')",
            "INSERT INTO orders (customer) VALUES ('b')",
            "BEGIN",
            "INSERT INTO orders (customer) VALUES ('c')",
            "ROLLBACK",
        ] {
            client.batch_execute(statement).await.unwrap();
        }
        client
            .batch_execute("SELECT 1/0 FROM orders FOR UPDATE")
            .await
            .unwrap_err();
        client
    });
    // While the session is open. The driver tells an error before the transaction is over.
    let aborted = [orders, ("outcome", "aborted")];
    let page = wait_for("the end of the last transaction", || {
        let page = Page::of(&world);
        (page.value("gatepost_transactions_total", &aborted) == Some(2.0)).then_some(page)
    });
    let value = |name: &str, labels: &[(&str, &str)]| {
        let value = page.value(name, labels);
        value.unwrap_or_else(|| panic!("no {name} {labels:?} in\n{}", page.text))
    };
    assert_eq!(value("gatepost_transactions_total", &committed), 2.0);
    let sessions = [("engine", "postgres"), orders];
    assert_eq!(value("gatepost_sessions", &sessions), 1.0);
    assert_eq!(
        value("gatepost_pool_connections", &[orders, ("state", "lent")]),
        1.0
    );
    assert_eq!(value("gatepost_pool_opened_total", &[orders]), 1.0);
    assert_eq!(value("gatepost_login_mint_seconds_count", &[orders]), 1.0);
    assert_eq!(value("gatepost_pool_wait_seconds_count", &[orders]), 1.0);
    let inserts = value("gatepost_statement_seconds_count", &[orders, ("kind", "insert")]);
    assert_eq!(inserts, 3.0);
    assert_eq!(
        value("gatepost_statement_seconds_count", &[orders, ("kind", "select")]),
        1.0
    );
    // The session, the mint, and an intent for each of the inserts that stayed.
    assert!(value("gatepost_audit_append_seconds_count", &[]) >= 4.0);
    assert!(value("gatepost_audit_append_seconds_sum", &[]) > 0.0);
    assert!(value("gatepost_audit_disk_free_bytes", &[]) > 0.0);
    let expiry = |side, target| {
        value(
            "gatepost_tls_certificate_expiry_seconds",
            &[("side", side), ("target", target)],
        )
    };
    assert!(expiry("server", "") > 1.7e9 && expiry("client", "orders") > 1.7e9);
    assert!(value("process_start_time_seconds", &[]) > 1.7e9);
    check_labels(&page);
    drop(client);
    wait_for("the session's end on the page", || {
        world.runtime.block_on(tokio::task::yield_now());
        let page = Page::of(&world);
        let idle = page.value("gatepost_pool_connections", &[orders, ("state", "idle")]);
        (page.value("gatepost_sessions", &sessions) == Some(0.0) && idle == Some(1.0)).then_some(())
    });
}

#[test]
fn clients_cannot_add_series_to_the_page() {
    let world = World::start();
    let series = |page: &Page| {
        let samples = page.families.values().flat_map(|family| &family.samples);
        samples.count()
    };
    let good = world.consumer();
    world.psql(&good, "SELECT 1").well();
    let before = series(&Page::of(&world));
    for number in 0..5 {
        let token = world.provider.token(Shape::Stranger, "order-consumer");
        world.turned_away(
            &Caller {
                user: "orders_writer",
                token,
            },
            "orders",
        );
        world.turned_away(&good, &format!("database{number}"));
        let name = format!("corr=message-{number}");
        world
            .psql_with(
                &good,
                &[("PGAPPNAME", &name)],
                &format!("SELECT {number} AS c{number}"),
            )
            .well();
    }
    let page = Page::of(&world);
    check_labels(&page);
    assert_eq!(series(&page), before, "{}", page.text);
    assert_eq!(
        page.value("gatepost_refusals_total", &[("code", "token_rejected")]),
        Some(5.0)
    );
    assert_eq!(
        page.value("gatepost_refusals_total", &[("code", "not_permitted")]),
        Some(5.0)
    );
}
