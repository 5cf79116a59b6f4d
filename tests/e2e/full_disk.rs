//! The journal's disk is full: writes are refused with a clear error, nothing is committed unrecorded.

use std::process::Command;

use crate::harness::journal::committed;
use crate::harness::world::World;

/// Blocks of 1,024 bytes that any file of the proxy may have: some hundred records.
const BLOCKS: &str = "192";

#[test]
fn writes_are_refused_when_the_journal_cannot_grow() {
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
    let caller = world.consumer();
    let writes = world.path("writes.sql");
    std::fs::write(
        &writes,
        "INSERT INTO orders (customer, cents) VALUES ('full', 1);\n".repeat(2_000),
    )
    .unwrap();
    let script = std::fs::read_to_string(&writes).unwrap();
    let refusal = world.psql_script(&caller, &script).refusal();
    let sentence = "the audit journal cannot be written, so writes are refused";
    assert!(refusal.contains(sentence), "{refusal}");

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
