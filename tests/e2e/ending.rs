//! SIGTERM: whoever is in the middle of something may finish it; then everybody is told, logins end, the
//! journal is closed.

use tokio_postgres::error::SqlState;

use crate::harness::journal::{committed, of_event};
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
    assert_eq!(records[records.len() - 2]["event"], "server.stopped");
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

#[test]
fn an_idle_client_is_told_that_gatepost_ends() {
    let mut world = World::start();
    let consumer = world.consumer();
    let told = world.path("told.txt");
    let file = std::fs::File::create(&told).unwrap();
    let mut psql = world.psql_command(&consumer);
    // It sleeps in the shell, so that gatepost finds the session at rest; then it asks again.
    let mut psql = psql
        .args(["-c", "SELECT 'here'", "-c", "\\! cat fifo", "-c", "SELECT 1"])
        .stdout(std::process::Stdio::null())
        .stderr(file)
        .spawn()
        .unwrap();
    let fifo = world.path("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    wait_for("the session", || {
        (of_event(&world.records(), "transaction.outcome").len() == 1).then_some(())
    });
    world.ask_proxy_to_end();
    assert_eq!(world.proxy_ends(), Some(0));
    std::fs::write(&fifo, "").unwrap();
    assert!(!psql.wait().unwrap().success());
    let told = std::fs::read_to_string(&told).unwrap();
    assert!(told.contains("gatepost is shutting down"), "{told}");
    world.verify_journal();
}
