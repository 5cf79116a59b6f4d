//! The provider's keys: they rotate, the provider goes and comes, and honest clients do not notice.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tokio_postgres::error::SqlState;

use crate::harness::provider::{Shape, try_http};
use crate::harness::wait_for;
use crate::harness::world::World;

/// One sample of the metrics page.
fn measured(world: &World, sample: &str) -> Option<u64> {
    let url = format!("http://{}/metrics", world.config.metrics);
    let (_, page) = try_http("GET", &url, "").ok()?;
    let line = page.lines().find_map(|line| line.strip_prefix(sample));
    line.map(|value| value.trim().parse().unwrap())
}

fn refreshes(world: &World, result: &str) -> Option<u64> {
    let sample = format!("gatepost_jwks_refresh_total{{provider=\"entra\",result=\"{result}\"}}");
    measured(world, &sample)
}

#[test]
fn clients_come_and_go_while_the_keys_rotate() {
    let world = World::start();
    let old = world.consumer();
    let door = world.door();
    let (over, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut came, asked_before) = (0, world.provider.asked_for_keys(Shape::Entra));
    thread::scope(|scope| {
        let steady = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            while !over.load(Ordering::SeqCst) {
                let client = runtime.block_on(door.connect(&old, "orders", ""));
                let client = client.unwrap_or_else(|error| panic!("an old token was refused: {error:?}"));
                runtime.block_on(client.simple_query("SELECT 1")).unwrap();
                connected.fetch_add(1, Ordering::SeqCst);
            }
        });
        world.provider.rotate(Shape::Entra);
        let new = world.consumer();
        // The keys were fetched at the start, less than half a minute ago; until then strangers may not
        // make gatepost ask again, and this is one.
        wait_for("the first client with a new key", || {
            came += 1;
            let refused = world.psql(&new, "SELECT 1");
            if !refused.good {
                assert!(
                    refused.err.contains("signature cannot be verified"),
                    "{}",
                    refused.err
                );
            }
            (refused.good || steady.is_finished()).then_some(())
        });
        let seen = connected.load(Ordering::SeqCst);
        wait_for("the others to go on", || {
            (connected.load(Ordering::SeqCst) > seen + 3 || steady.is_finished()).then_some(())
        });
        over.store(true, Ordering::SeqCst);
        steady.join().unwrap();
    });
    assert!(came > 1, "a new key was believed at once: nothing was tried");
    let asked = world.provider.asked_for_keys(Shape::Entra) - asked_before;
    assert_eq!(asked, 1, "of {came} clients with a new key one made gatepost ask");
    assert_eq!(refreshes(&world, "ok"), Some(2));
    assert_eq!(refreshes(&world, "failed"), Some(0));
}

#[test]
fn a_provider_that_is_gone_is_not_missed_by_those_with_tokens() {
    let mut world = World::start();
    let (seen, unseen) = (world.consumer(), world.consumer());
    let other = world.caller(Shape::Okta, "order-consumer", "orders_writer");
    let mut stranger = world.consumer();
    stranger.token = {
        world.provider.rotate(Shape::Entra);
        world.provider.token(Shape::Entra, "order-consumer")
    };
    world.psql(&seen, "SELECT 1").well();
    world.provider.stop();
    for caller in [&seen, &unseen, &other] {
        for _ in 0..3 {
            world
                .psql(caller, "INSERT INTO orders (customer) VALUES ('without')")
                .well();
        }
    }
    assert_eq!(world.sql("SELECT count(*) FROM orders"), "9");
    assert_eq!(world.readiness().unwrap().0, 200, "it serves, so it is ready");
    // Whose key nobody knows is told that the provider is away, as soon as it was asked.
    let told = wait_for("a question in vain", || {
        let told = world.turned_away(&stranger, "orders");
        told.message().contains("keys are not available").then_some(told)
    });
    assert_eq!(told.code(), &SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    assert!(told.hint().unwrap().starts_with("Try again shortly"), "{told:?}");
    assert!(refreshes(&world, "failed").unwrap() >= 1);
    world.psql(&seen, "SELECT 1").well();
    // It comes back with other keys; gatepost finds out by itself.
    world.provider.start_again();
    let after = world.consumer();
    wait_for("a client with the new key", || {
        world.psql(&after, "SELECT 1").good.then_some(())
    });
    let gone = world.turned_away(&unseen, "orders");
    assert_eq!(gone.message(), "token signature cannot be verified");
}

#[test]
fn gatepost_starts_before_its_provider() {
    let mut world = World::without_proxy(15);
    let early = world.consumer();
    world.provider.stop();
    world.launch();
    let (_, page) = wait_for("an answer for operators", || {
        world
            .readiness()
            .filter(|(status, page)| *status == 503 && page.contains("entra"))
    });
    assert!(page.contains("its keys cannot be fetched"), "{page}");
    let told = world.turned_away(&early, "orders");
    assert_eq!(told.message(), "the identity provider's keys are not available");
    world.provider.start_again();
    // Nobody sends a token: readiness comes by itself, or a load balancer would never send one.
    world.wait_until_ready();
    world.psql(&world.consumer(), "SELECT 1").well();
    let told = world.turned_away(&early, "orders");
    assert_eq!(told.message(), "token signature cannot be verified");
}
