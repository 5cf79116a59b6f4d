//! Tickets, from the token to the statement: fetched with gatepost's own command over TLS, shown in the
//! password field, on record on both sides. And all that a ticket is not good for.

use std::fs;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::harness::config::POLICY;
use crate::harness::journal::of_event;
use crate::harness::programs::Caller;
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

/// What every ticket that is no good is told, whatever is wrong with it.
const NO_GOOD: &str = "the ticket is unknown, expired or used up, or is for another address or database";
const NO_GRANT: &str = "no rule permits this identity, database and role";

impl World {
    /// With a ticket in the place of the token.
    fn with_ticket(&self, arguments: &[&str]) -> Caller {
        let token = self.consumer().token;
        let wish = [&["--target", "orders"], arguments].concat();
        Caller {
            user: "orders_writer",
            token: self.ticket(&token, &wish).well(),
        }
    }

    /// What it is good for, as JSON.
    fn told_of_ticket(&self, token: &str, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.ticket(token, &arguments).well()).unwrap()
    }

    #[track_caller]
    fn refuses(&self, caller: &Caller, told: &str) {
        let refusal = self.psql(caller, "SELECT 1").refusal();
        assert!(refusal.contains(told), "{refusal}");
        assert!(!refusal.contains(&caller.token), "{refusal}");
    }

    fn operator(&self, arguments: &[&str]) {
        self.gatepost(&[arguments, &["--config", "gatepost.yaml"]].concat())
            .well();
    }
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[test]
fn a_ticket_opens_what_its_token_would_and_is_on_record() {
    let world = World::start();
    let token = world.consumer().token;
    let made = world.told_of_ticket(&token, &["--target", "orders"]);
    assert_eq!(made["target"], "orders/orders");
    assert_eq!(made["bound_to"], "127.0.0.1");
    assert_eq!(made["single_use"], false);
    let ticket = made["ticket"].as_str().unwrap().to_owned();
    assert!(ticket.starts_with("gpt_") && ticket.len() <= 64, "{ticket}");
    let caller = Caller {
        user: "orders_writer",
        token: ticket.clone(),
    };
    let insert = "INSERT INTO orders (customer) VALUES ('by ticket')";
    world.psql(&caller, insert).well();
    // A pool opens many connections with what it was given once, under either name of the database.
    let pool = world.runtime.block_on(async {
        let one = world.connect(&caller, "").await.unwrap();
        let other = world.door().connect(&caller, "orders/orders", "").await.unwrap();
        one.batch_execute(insert).await.unwrap();
        other.batch_execute(insert).await.unwrap();
        [one, other]
    });
    let records = world.settled_after(pool);
    assert_eq!(world.sql("SELECT count(*) FROM orders"), "3");

    let [issued] = of_event(&records, "ticket.issued")[..] else {
        panic!("{records:?}");
    };
    let of_token = claims(&token);
    assert_eq!(issued["identity"]["token_id"], of_token["uti"]);
    assert_eq!(issued["identity"]["client_id"], "order-consumer");
    assert_eq!(
        (&issued["target"], &issued["database"]),
        (&"orders".into(), &"orders".into())
    );
    assert_eq!(issued["detail"]["ticket_id"], made["id"]);
    assert_eq!(issued["detail"]["bound_to"], "127.0.0.1");
    let opened = of_event(&records, "session.opened");
    assert_eq!(opened.len(), 3);
    for event in ["session.opened", "transaction.outcome"] {
        for record in of_event(&records, event) {
            assert_eq!(record["identity"]["ticket_id"], made["id"]);
            assert_eq!(record["identity"]["token_id"], of_token["uti"]);
        }
    }
    let all = records.iter().map(Value::to_string).collect::<String>() + &world.log();
    assert!(!all.contains(&ticket[4..20]));
    // A token still says nothing of tickets.
    world.psql(&world.consumer(), "SELECT 1").well();
    let records = world.settled();
    let last = *of_event(&records, "session.opened").last().unwrap();
    assert_eq!(last["identity"]["ticket_id"], Value::Null);
}

#[test]
fn a_ticket_is_for_one_place() {
    let mut world = World::without_proxy(15);
    world.config.databases = "[orders, {name: postgres, alias: stock}]";
    world.config.more = "tickets: {networks: [192.0.2.0/24, 127.0.0.0/8]}\n";
    world.serve();
    let caller = world.with_ticket(&[]);
    for database in ["stock", "orders/postgres", "no_such_database"] {
        let told = world.turned_away(&caller, database);
        assert_eq!(
            (told.code().code(), told.message()),
            ("28000", NO_GOOD),
            "{database}"
        );
        assert!(told.hint().unwrap().contains("gatepost ticket"));
    }
    world.psql(&caller, "SELECT 1").well();
    // Whose ticket was tried where is on record.
    let records = world.settled();
    let denied = of_event(&records, "session.denied");
    assert_eq!(denied.len(), 3);
    for record in denied {
        assert_eq!(record["identity"]["client_id"], "order-consumer");
        assert!(record["identity"]["ticket_id"].is_string());
        assert_eq!(record["detail"]["code"], "token_rejected");
    }

    // Only where the identity is granted something.
    let long = world.told_of_ticket(&world.consumer().token, &["--target", "orders/orders"]);
    assert_eq!(long["target"], "orders/orders");
    let refusal = world
        .ticket(&world.consumer().token, &["--target", "stock"])
        .refusal();
    assert!(refusal.contains(NO_GRANT), "{refusal}");

    // From elsewhere, as far as the configuration offers it.
    world.refuses(&world.with_ticket(&["--address", "192.0.2.7"]), NO_GOOD);
    let near = world.with_ticket(&["--address", "127.0.0.0/8"]);
    world.psql(&near, "SELECT 1").well();
    for address in ["any", "10.0.0.0/8", "192.0.0.0/16"] {
        let wish = ["--target", "orders", "--address", address];
        let refusal = world.ticket(&world.consumer().token, &wish).refusal();
        assert!(refusal.contains("no other is offered"), "{address}: {refusal}");
    }
    let any = world
        .config
        .text()
        .replace("networks: [192.0.2.0/24, 127.0.0.0/8]", "any_address: true");
    fs::write(world.path("gatepost.yaml"), any).unwrap();
    world.operator(&["reload"]);
    let any = world.told_of_ticket(
        &world.consumer().token,
        &["--target", "orders", "--address", "any"],
    );
    assert_eq!(any["bound_to"], "any");
    world.verify_journal();
}

#[test]
fn a_ticket_ends_on_time_with_its_token_and_with_its_use() {
    let mut world = World::start();
    let short = world.with_ticket(&["--lifetime", "2s"]);
    wait_for("the end of the ticket", || {
        let said = world.psql(&short, "SELECT 1");
        (!said.good).then_some(())
    });
    world.refuses(&short, NO_GOOD);

    // Never longer than its token.
    let token = world
        .provider
        .token_with(Shape::Entra, "order-consumer", "&life=60");
    let made = world.told_of_ticket(&token, &["--target", "orders", "--lifetime", "10m"]);
    let expires_at = humantime::parse_rfc3339(made["expires_at"].as_str().unwrap()).unwrap();
    let end = Duration::from_secs(claims(&token)["exp"].as_u64().unwrap());
    assert!(expires_at <= SystemTime::UNIX_EPOCH + end, "{made}");

    let once = world.with_ticket(&["--single-use"]);
    world.psql(&once, "SELECT 1").well();
    world.refuses(&once, NO_GOOD);

    // Nothing of them survives the process.
    let lasting = world.with_ticket(&[]);
    world.psql(&lasting, "SELECT 1").well();
    world.stop_proxy();
    world.serve();
    world.refuses(&lasting, NO_GOOD);
    // What was never a ticket reads the same.
    for made_up in [
        format!("gpt_{}", "0a".repeat(24)),
        "gpt_".to_owned(),
        lasting.token[..30].to_owned(),
    ] {
        let caller = Caller {
            user: "orders_writer",
            token: made_up,
        };
        let told = world.turned_away(&caller, "orders");
        assert_eq!(told.message(), NO_GOOD);
    }
    world.verify_journal();
}

#[test]
fn what_ends_a_token_ends_its_tickets() {
    let world = World::start();
    let caller = world.with_ticket(&[]);
    let token = world.consumer().token;
    world.psql(&caller, "SELECT 1").well();

    // What the policy says counts when a session is opened, whatever it said before.
    let narrower = POLICY.replace("client_id: [order-consumer, brief], ", "client_id: nobody, ");
    fs::write(world.path("policy.yaml"), narrower).unwrap();
    world.operator(&["reload"]);
    world.refuses(&caller, NO_GRANT);
    let refusal = world.ticket(&token, &["--target", "orders"]).refusal();
    assert!(refusal.contains(NO_GRANT), "{refusal}");
    fs::write(world.path("policy.yaml"), POLICY).unwrap();
    world.operator(&["reload"]);
    world.psql(&caller, "SELECT 1").well();

    // A provider that is not believed any more, in what it says for us.
    let audience = world.config.text().replacen(
        "audiences: [\"api://gatepost\"]",
        "audiences: [\"api://other\"]",
        1,
    );
    fs::write(world.path("gatepost.yaml"), audience).unwrap();
    world.operator(&["reload"]);
    world.refuses(&caller, NO_GOOD);
    world.config.write(&world.path("gatepost.yaml"));
    world.operator(&["reload"]);
    world.psql(&caller, "SELECT 1").well();

    world.operator(&["revoke", "--client-id", "order-consumer"]);
    world.refuses(&caller, "access was revoked");
    let refusal = world.ticket(&token, &["--target", "orders"]).refusal();
    assert!(refusal.contains("access was revoked"), "{refusal}");
    world.verify_journal();
}

#[test]
fn without_a_grant_there_is_no_ticket_and_nothing_is_learnt() {
    let world = World::start();
    let nobody = world.provider.token(Shape::Entra, "nobody");
    let consumer = world.consumer().token;
    let told: Vec<_> = [
        (&nobody, "orders"),
        (&nobody, "no_such_database"),
        (&consumer, "no_such_database"),
    ]
    .into_iter()
    .map(|(token, target)| world.ticket(token, &["--target", target]).refusal())
    .collect();
    assert!(told[0].contains(NO_GRANT), "{told:?}");
    assert!(told.iter().all(|it| *it == told[0]), "{told:?}");

    for (token, why) in [
        (
            world.provider.token(Shape::Stranger, "order-consumer"),
            "not a configured identity provider",
        ),
        (world.provider.token(Shape::Entra, "late"), "expired"),
        (
            world.provider.id_token(Shape::Entra, "order-consumer"),
            "access token",
        ),
        // A ticket is no token: nobody lives on by exchanging one for the next.
        (world.with_ticket(&[]).token, "the password is not a token"),
    ] {
        let refusal = world.ticket(&token, &["--target", "orders"]).refusal();
        assert!(refusal.contains(why), "{why}: {refusal}");
        assert!(!refusal.contains(&token), "{refusal}");
    }
    // Nobody waits for such records, also not their disk.
    let records = wait_for("the denials in the journal", || {
        let records = world.records();
        (of_event(&records, "ticket.denied").len() == 7).then_some(records)
    });
    let denied = of_event(&records, "ticket.denied");
    let codes: Vec<_> = denied
        .iter()
        .map(|it| it["detail"]["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes[..3], ["not_permitted"; 3]);
    assert_eq!(codes[3..], ["token_rejected"; 4]);
    assert_eq!(denied[0]["identity"]["client_id"], "nobody");
    assert_eq!(denied[0]["target"], "orders");
    assert_eq!(of_event(&records, "ticket.issued").len(), 1);
    world.verify_journal();
}
