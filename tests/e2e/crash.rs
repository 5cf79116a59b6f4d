//! `kill -9` in the middle of the work: the journal stays whole, nothing acknowledged is missing from
//! it, no verdict is wrong, the consumer finishes on the restarted proxy, and no login is left.

mod rounds;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::journal::{committed, of_event};
use crate::harness::provider::{Shape, secret_of};
use crate::harness::wait_for;
use crate::harness::world::World;

#[test]
fn the_consumer_finishes_and_nothing_is_left() {
    let mut world = World::start();
    let consumer = start_consumer(&world);
    for round in 1..=2 {
        let enough = 200 * round;
        wait_for("some hundred messages", || {
            (committed(&world.records()).len() >= enough).then_some(())
        });
        world.kill_proxy();
        assert!(!world.logins().is_empty());
        world.verify_journal();
        world.serve();
    }
    let output = consumer.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.contains("refused 1, reconnected"), "{told}");
    assert_eq!(
        world.sql("SELECT count(*), count(DISTINCT id) FROM orders"),
        "999|999"
    );

    let records = world.records();
    let recorded = committed(&records);
    let rows = world.sql("SELECT DISTINCT xmin::text::bigint FROM orders");
    let unrecorded: Vec<_> = rows
        .lines()
        .filter(|id| !recorded.contains(&id.parse().unwrap()))
        .collect();
    // An outcome may follow its acknowledgement by 50 ms, in which a kill loses it; its intent, which
    // names the same transaction, was on disk before the COMMIT went on.
    assert!(unrecorded.len() <= 100, "{unrecorded:?}");
    let intents = of_event(&records, "transaction.intent");
    for id in unrecorded {
        let known = intents
            .iter()
            .any(|intent| intent["detail"]["id"].as_u64() == id.parse().ok());
        assert!(known, "transaction {id} is neither an outcome nor an intent");
    }
    // What the dead processes left is swept after a second look, seconds later; the living one keeps its own.
    wait_for("the sweep", || (world.logins().len() <= 1).then_some(()));
    world.stop_proxy();
    assert_eq!(world.logins(), Vec::<String>::new());
    world.verify_journal();
}

/// The quickstart's own consumer.
fn start_consumer(world: &World) -> Child {
    let program = Path::new(env!("CARGO_BIN_EXE_gatepost")).with_file_name("examples/order_consumer");
    assert!(program.exists(), "run cargo build --example order_consumer");
    let messages = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/messages.jsonl");
    Command::new(program)
        .arg(messages)
        .env("GATEPOST_DEV_TOKEN_URL", world.provider.token_url(Shape::Entra))
        .env("GATEPOST_DEV_CONSUMER_ID", "order-consumer")
        .env("GATEPOST_DEV_CONSUMER_SECRET", secret_of("order-consumer"))
        .env("GATEPOST_DEV_HOST", world.config.postgres.ip().to_string())
        .env("GATEPOST_DEV_PORT", world.config.postgres.port().to_string())
        .env("GATEPOST_DEV_DATABASE", "orders")
        .env("GATEPOST_DEV_CA", world.path("certs/ca.crt"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}
