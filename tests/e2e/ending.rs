//! Ends that come from outside, by SIGTERM, the end of a token, or a restart of the database server:
//! whoever is in the middle of something may finish it if that is possible, and everybody is told.

use std::process::{Command, Stdio};

use tokio_postgres::error::SqlState;

use crate::harness::journal::{committed, of_event};
use crate::harness::programs::Caller;
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

#[test]
fn an_open_transaction_may_still_commit() {
    let mut world = World::start();
    let consumer = world.consumer();
    let (mut busy, idle) = world.runtime.block_on(async {
        let busy = world.connect(&consumer, "").await.unwrap();
        (busy, world.connect(&consumer, "").await.unwrap())
    });
    world.runtime.block_on(async {
        let block = busy.transaction().await.unwrap();
        let insert = "INSERT INTO orders (customer) VALUES ('before'), ('the end')";
        block.batch_execute(insert).await.unwrap();
        world.ask_proxy_to_end();
        // The session without a transaction ends first.
        while !idle.is_closed() {
            tokio::task::yield_now().await;
        }
        let late = world.connect(&consumer, "").await.err().unwrap();
        assert!(
            late.as_db_error()
                .is_none_or(|it| *it.code() == SqlState::ADMIN_SHUTDOWN),
            "{late:?}"
        );
        block
            .batch_execute("INSERT INTO orders (customer) VALUES ('of it')")
            .await
            .unwrap();
        block.commit().await.unwrap();
        while !busy.is_closed() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(world.proxy_ends(), Some(0));
    let records = world.records();
    // Behind it is only what closes the chain.
    let mut last = records.iter().rev();
    let last = last.find(|record| !["head", "segment.sealed"].contains(&record["event"].as_str().unwrap()));
    assert_eq!(last.unwrap()["event"], "server.stopped");
    let id = world.sql("SELECT DISTINCT xmin::text FROM orders");
    assert_eq!(committed(&records), [id.parse().unwrap()].into());
    let closed = of_event(&records, "session.closed");
    assert_eq!(closed.len(), of_event(&records, "session.opened").len());
    assert!(
        closed.iter().all(|it| it["detail"]["why"] == "session_expired"),
        "{closed:#?}"
    );
    assert_eq!(world.logins(), Vec::<String>::new());
    world.verify_journal();
}

/// What psql is told at its next statement when its session was ended while it was at rest.
fn told_after(world: &mut World, caller: &Caller, end: impl FnOnce(&mut World)) -> String {
    let (told, fifo) = (world.path("told.txt"), world.path("fifo"));
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    // It waits in its shell, so that gatepost finds the session at rest.
    let mut psql = world.psql_command(caller);
    let mut psql = psql
        .args(["-c", "SELECT 'here'", "-c", "\\! cat fifo", "-c", "SELECT 1"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&told).unwrap())
        .spawn()
        .unwrap();
    wait_for("the session", || {
        let outcomes = of_event(&world.records(), "transaction.outcome").len();
        (outcomes == 1).then_some(())
    });
    end(world);
    wait_for("the end of the session", || {
        (of_event(&world.records(), "session.closed").len() == 1).then_some(())
    });
    std::fs::write(&fifo, "").unwrap();
    assert!(!psql.wait().unwrap().success());
    std::fs::read_to_string(&told).unwrap()
}

#[test]
fn an_idle_client_is_told_that_gatepost_ends() {
    let mut world = World::start();
    let consumer = world.consumer();
    let told = told_after(&mut world, &consumer, |world| {
        world.ask_proxy_to_end();
        assert_eq!(world.proxy_ends(), Some(0));
    });
    assert!(told.contains("gatepost is shutting down"), "{told}");
    world.verify_journal();
}

#[test]
fn an_idle_client_is_told_that_its_token_has_ended() {
    let mut world = World::start();
    let brief = world.caller(Shape::Entra, "brief", "orders_writer");
    let told = told_after(&mut world, &brief, |_| {});
    assert!(told.contains("the token of this session has expired"), "{told}");
    assert!(told.contains("Connect again with a new token"), "{told}");
    world.verify_journal();
}

#[test]
fn a_transaction_that_is_open_when_its_token_ends_may_still_commit() {
    let world = World::start();
    let brief = world.caller(Shape::Entra, "brief", "orders_writer");
    world.runtime.block_on(async {
        let mut busy = world.connect(&brief, "").await.unwrap();
        let idle = world.connect(&brief, "").await.unwrap();
        let block = busy.transaction().await.unwrap();
        block
            .batch_execute("INSERT INTO orders (customer) VALUES ('in time')")
            .await
            .unwrap();
        while !idle.is_closed() {
            tokio::task::yield_now().await;
        }
        block
            .batch_execute("INSERT INTO orders (customer) VALUES ('in time')")
            .await
            .unwrap();
        block.commit().await.unwrap();
        while !busy.is_closed() {
            tokio::task::yield_now().await;
        }
    });
    let id = world.sql("SELECT DISTINCT xmin::text FROM orders");
    let records = world.settled();
    assert_eq!(committed(&records), [id.parse().unwrap()].into());
    let closed = of_event(&records, "session.closed");
    assert!(
        closed.iter().all(|it| it["detail"]["why"] == "session_expired"),
        "{closed:#?}"
    );
}

#[test]
fn a_restart_of_the_server_is_survived() {
    let mut world = World::start();
    let consumer = world.consumer();
    // Leaves an idle connection in the pool.
    world.psql(&consumer, "SELECT 1").well();
    let client = world.runtime.block_on(world.connect(&consumer, "")).unwrap();
    world.stop_server();
    let lost = world
        .runtime
        .block_on(client.batch_execute("SELECT 1"))
        .unwrap_err();
    let codes = [SqlState::ADMIN_SHUTDOWN, SqlState::CONNECTION_FAILURE];
    assert!(lost.code().is_none_or(|code| codes.contains(code)), "{lost:?}");
    assert!(lost.is_closed() || lost.code().is_some(), "{lost:?}");
    world.start_server();
    world.wait_until_ready();
    // A dead connection is not lent: every one of these works.
    for _ in 0..5 {
        world
            .psql(&consumer, "INSERT INTO orders (customer) VALUES ('again')")
            .well();
    }
    assert_eq!(committed(&world.settled()).len(), 5);
    world.verify_journal();
}
