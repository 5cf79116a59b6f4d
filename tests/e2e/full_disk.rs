//! The journal's disk is full: writes are refused with a clear error, nothing is committed unrecorded.

use std::process::Command;

use tokio_postgres::error::SqlState;

use crate::harness::LOOK_EVERY;
use crate::harness::journal::committed;
use crate::harness::programs::Caller;
use crate::harness::world::World;

/// Blocks of 1,024 bytes that any file of the proxy may have: some hundred records.
const BLOCKS: &str = "192";

/// A world whose proxy can make no file larger than this.
fn limited() -> World {
    let mut world = World::without_proxy(15);
    world.launch_with(|command| {
        // A process that does not ignore the signal would be killed by it; a full disk kills nobody.
        let mut limited = Command::new("/bin/bash");
        limited.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", BLOCKS]);
        limited.arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            limited.current_dir(folder);
        }
        limited
    });
    world.wait_until_ready();
    world
}

const INSERT: &str = "INSERT INTO orders (customer) VALUES ('full')";
const SENTENCE: &str = "the audit journal cannot be written, so writes are refused";

/// Refusals one behind the other after which not even the smallest record fits any more: gatepost tries
/// the disk twice a second, and what is still free is used up.
const REFUSALS_ENOUGH: usize = 100;

/// Writes until nothing is accepted any more; comes back when its session was ended.
async fn fill(world: &World, caller: &Caller) {
    let mut refusals = 0;
    let mut client = world.connect(caller, "").await.unwrap();
    while refusals < REFUSALS_ENOUGH {
        match client.execute(INSERT, &[]).await {
            Ok(_) => refusals = 0,
            Err(error) if error.is_closed() => match world.connect(caller, "").await {
                Ok(again) => client = again,
                Err(error) => assert_eq!(error.code(), Some(&SqlState::IO_ERROR), "{error:?}"),
            },
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::IO_ERROR), "{error:?}");
                assert_eq!(error.as_db_error().unwrap().message(), SENTENCE);
            }
        }
        refusals += 1;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[test]
fn reads_go_on_while_writes_are_refused() {
    let mut world = limited();
    let caller = world.consumer();
    world.runtime.block_on(async {
        let reader = world.connect(&caller, "").await.unwrap();
        let mut writer = world.connect(&caller, "").await.unwrap();
        let block = writer.transaction().await.unwrap();
        block
            .batch_execute("INSERT INTO orders (customer) VALUES ('uncommitted')")
            .await
            .unwrap();
        fill(&world, &caller).await;
        let count = "SELECT count(*) FROM orders WHERE customer = 'full'";
        let before: i64 = reader.query_one(count, &[]).await.unwrap().get(0);
        assert!(before > 10);
        // A commit cannot be announced, so it does not happen.
        let refused = block.commit().await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::IO_ERROR), "{refused:?}");
        let after: i64 = reader.query_one(count, &[]).await.unwrap().get(0);
        assert_eq!(before, after);
        let written = reader.batch_execute(INSERT).await.unwrap_err();
        assert_eq!(written.code(), Some(&SqlState::IO_ERROR));
    });
    assert_eq!(
        world.sql("SELECT count(*) FROM orders WHERE customer = 'uncommitted'"),
        "0"
    );
    let (status, body) = world.readiness().unwrap();
    assert!(status == 503 && body.contains("journal"), "{body}");
    world.verify_journal();
    world.kill_proxy();
    world.verify_journal();
}

#[test]
fn writes_are_refused_when_the_journal_cannot_grow() {
    let mut world = limited();
    let caller = world.consumer();
    let writes = world.path("writes.sql");
    std::fs::write(
        &writes,
        "INSERT INTO orders (customer, cents) VALUES ('full', 1);\n".repeat(2_000),
    )
    .unwrap();
    let script = std::fs::read_to_string(&writes).unwrap();
    let refusal = world.psql_script(&caller, &script).refusal();
    assert!(refusal.contains(SENTENCE), "{refusal}");

    world.kill_proxy();
    let acknowledged = world.sql("SELECT xmin::text FROM orders");
    let records = world.records();
    let recorded = committed(&records);
    let intents: Vec<_> = records
        .iter()
        .filter(|it| it["event"] == "transaction.intent")
        .collect();
    let unrecorded: Vec<_> = acknowledged
        .lines()
        .filter(|id| !recorded.contains(&id.parse().unwrap()))
        .collect();
    // The write that met the full disk may have committed without an answer; its intent is there.
    assert!(unrecorded.len() <= 1, "{unrecorded:?}");
    assert!(
        intents.len() >= acknowledged.lines().count(),
        "{} intents",
        intents.len()
    );
    // With space again, it starts where it was.
    world.serve();
    world
        .psql(
            &caller,
            "INSERT INTO orders (customer, cents) VALUES ('again', 1)",
        )
        .well();
    world.verify_journal();
}
