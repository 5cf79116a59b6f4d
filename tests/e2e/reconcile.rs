//! Commits whose reply is lost: what gatepost says of them afterwards is what the table shows, or
//! that nobody can tell.

use serde_json::Value;

use crate::harness::journal::{correlation, of_event, records_of};
use crate::harness::plain::Plain;
use crate::harness::wait_for;
use crate::harness::world::World;

/// A world in which commits wait, once [`hold_commits`] was called, until [`release_commits`].
fn world() -> World {
    let mut world = World::with_plain_door();
    world.serve();
    world
}

/// A server that keeps the times of commits. It was restarted before the proxy met it: a broker that has
/// not noticed a restart yet still calls itself ready.
fn timed_world() -> World {
    let mut world = World::with_plain_door();
    world.sql("ALTER SYSTEM SET track_commit_timestamp = on");
    world.stop_server();
    world.start_server();
    world.serve();
    world
}

/// From now on a commit is on the server's disk and is not acknowledged: it waits for a standby that
/// there is not.
fn hold_commits(world: &World) {
    world.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    world.sql("SELECT pg_reload_conf()");
    wait_for("the setting", || {
        (world.sql("SHOW synchronous_standby_names") == "nobody").then_some(())
    });
}

/// A COMMIT with a row in `orders` takes so many seconds before it is one.
fn slow_commits(world: &World, seconds: u32) {
    world.sql(&format!(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION slow()"
    ));
}

fn release_commits(world: &World) {
    world.sql("ALTER SYSTEM RESET synchronous_standby_names");
    world.sql("SELECT pg_reload_conf()");
}

/// The process numbers of backends whose commit waits.
fn held(world: &World) -> Vec<String> {
    let waiting = "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'gp\\_%' AND wait_event = 'SyncRep'";
    world.sql(waiting).lines().map(str::to_owned).collect()
}

/// A client whose commit of one row is on its way.
fn commits(world: &World, customer: &str) -> Plain {
    let mut client = world.plain(&world.consumer());
    hold_commits(world);
    client
        .query(&format!("SET gatepost.correlation_id = '{customer}'"))
        .well();
    client.ask(&format!("INSERT INTO orders (customer) VALUES ('{customer}')"));
    wait_for("a commit that waits", || held(world).first().cloned());
    client
}

fn rows(world: &World, customer: &str) -> usize {
    let count = world.sql(&format!(
        "SELECT count(*) FROM orders WHERE customer = '{customer}'"
    ));
    count.parse().unwrap()
}

/// The verdict on the transaction with this correlation id.
fn verdict(world: &World, customer: &str) -> Value {
    let record = wait_for("a verdict", || {
        let verdicts = records_of(&world.path("audit"), "transaction.reconciled");
        verdicts.into_iter().find(|it| correlation(it) == [customer])
    });
    assert_eq!(record["identity"]["provider"], "entra");
    assert_eq!(record["target"], "orders");
    record["detail"].clone()
}

fn verdicts(world: &World) -> usize {
    of_event(&world.records(), "transaction.reconciled").len()
}

#[test]
fn killed_between_commit_and_reply() {
    let mut world = world();
    let client = commits(&world, "killed");
    world.kill_proxy();
    drop(client);
    // Nobody may think that it is over while it waits.
    release_commits(&world);
    world.serve();
    let found = verdict(&world, "killed");
    assert_eq!(found["outcome"], "committed", "{found}");
    assert_eq!(found["evidence"], "same_incarnation", "{found}");
    assert_eq!(found["previous"], Value::Null);
    assert_eq!(rows(&world, "killed"), 1);
    // What is final is not asked after again.
    world.stop_proxy();
    world.serve();
    world.stop_proxy();
    assert_eq!(verdicts(&world), 1);
    world.verify_journal();
}

#[test]
fn killed_before_the_commit_is_done() {
    let mut world = world();
    slow_commits(&world, 60);
    let mut client = world.plain(&world.consumer());
    client.query("BEGIN").well();
    client
        .query("SET LOCAL gatepost.correlation_id = 'undone'")
        .well();
    client
        .query("INSERT INTO orders (customer) VALUES ('undone')")
        .well();
    client.ask("COMMIT");
    world.until_running("COMMIT", 1);
    world.kill_proxy();
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'COMMIT'");
    world.serve();
    let found = verdict(&world, "undone");
    assert_eq!(found["outcome"], "aborted", "{found}");
    assert_eq!(found["evidence"], "same_incarnation", "{found}");
    assert_eq!(rows(&world, "undone"), 0);
}

#[test]
fn the_backend_ends_and_gatepost_lives() {
    let world = world();
    let _client = commits(&world, "ended");
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    release_commits(&world);
    let found = verdict(&world, "ended");
    assert_eq!(found["outcome"], "committed", "{found}");
    assert_eq!(found["evidence"], "same_incarnation", "{found}");
    assert_eq!(found["previous"], "in_doubt", "{found}");
    assert_eq!(rows(&world, "ended"), 1);
}

#[test]
fn a_crash_leaves_it_in_doubt_without_a_proof() {
    let mut world = world();
    let _client = commits(&world, "crashed");
    world.crash_server();
    world.start_server();
    let found = verdict(&world, "crashed");
    // What is committed could be another transaction with the same number.
    let known = found["outcome"] == "committed" && found["evidence"] == "control_checkpoint";
    let doubtful = found["outcome"] == "in_doubt" && found["why"] == "server_changed";
    assert!(known || doubtful, "{found}");
    assert_eq!(rows(&world, "crashed"), 1);
}

#[test]
fn the_time_of_the_commit_proves_it_after_a_crash() {
    let mut world = timed_world();
    let _client = commits(&world, "timed");
    world.crash_server();
    world.start_server();
    let found = verdict(&world, "timed");
    assert_eq!(found["outcome"], "committed", "{found}");
    assert_eq!(found["evidence"], "commit_timestamp", "{found}");
    assert_eq!(rows(&world, "timed"), 1);
}

/// The id of a transaction that was lost in a crash is given out again, and that one commits.
fn give_a_number_out_again(mut world: World) -> Option<Value> {
    // A commit is done at once, and nothing of it reaches the disk before the crash.
    world.sql("ALTER SYSTEM SET wal_writer_delay = '10s'");
    world.sql("ALTER SYSTEM SET synchronous_commit = off");
    world.sql("SELECT pg_reload_conf()");
    slow_commits(&world, 2);
    let mut client = world.plain(&world.consumer());
    client.query("SET gatepost.correlation_id = 'lost'").well();
    client.query("BEGIN").well();
    client
        .query("INSERT INTO orders (customer) VALUES ('lost')")
        .well();
    client.ask("COMMIT");
    world.until_running("COMMIT", 1);
    world.kill_proxy();
    wait_for("the commit", || (rows(&world, "lost") == 1).then_some(()));
    world.crash_server();
    world.start_server();
    if rows(&world, "lost") > 0 {
        eprintln!("it was on disk after all; nothing to see here");
        return None;
    }
    let records = world.records();
    let intents = of_event(&records, "transaction.intent");
    let id = intents.last().unwrap()["detail"]["id"].as_u64().unwrap();
    wait_for("the number", || {
        let given = world.sql(
            "INSERT INTO inbox (message_id) VALUES (gen_random_uuid()::text) \
             RETURNING pg_current_xact_id(), pg_logical_emit_message(true, 'gatepost', 'forged')",
        );
        let given: u64 = given.split(['|', '\n']).next().unwrap().parse().unwrap();
        (given >= id).then_some(())
    });
    world.serve();
    let found = verdict(&world, "lost");
    assert_ne!(found["outcome"], "committed", "{found}");
    Some(found)
}

#[test]
fn a_number_that_was_given_out_again_is_not_mistaken() {
    let found = give_a_number_out_again(world());
    let doubtful = found.is_none_or(|found| found["why"] == "server_changed");
    assert!(doubtful);
}

#[test]
fn the_time_of_its_commit_gives_another_with_the_number_away() {
    let world = timed_world();
    let found = give_a_number_out_again(world);
    assert!(found.is_none_or(|found| found["outcome"] == "aborted"));
}

#[test]
fn a_forged_marker_gives_another_no_credit() {
    let found = give_a_number_out_again(marking_world());
    assert!(found.is_none_or(|found| found["outcome"] == "in_doubt"));
}

/// A world in which transactions are marked in the WAL, and the broker may read it.
fn marking_world() -> World {
    let mut world = World::with_plain_door();
    world.config.credential = "password\n    wal_marker: true";
    world.sql(
        "CREATE EXTENSION pg_walinspect; \
         GRANT EXECUTE ON FUNCTION pg_get_wal_records_info(pg_lsn, pg_lsn) TO gatepost_broker",
    );
    world.serve();
    world
}

#[test]
fn a_marker_proves_it_after_a_crash() {
    let mut world = marking_world();
    // Whoever writes the same prefix proves nothing, and disturbs nothing.
    let forged = "SELECT pg_logical_emit_message(true, 'gatepost', 'forged')";
    let mut client = world.plain(&world.consumer());
    client.query("SET gatepost.correlation_id = 'marked'").well();
    client.query("BEGIN").well();
    client.query(forged).well();
    client
        .query("INSERT INTO orders (customer) VALUES ('marked')")
        .well();
    hold_commits(&world);
    client.ask("COMMIT");
    wait_for("a commit that waits", || held(&world).first().cloned());
    world.crash_server();
    world.start_server();
    let found = verdict(&world, "marked");
    assert_eq!(found["outcome"], "committed", "{found}");
    assert_eq!(found["evidence"], "wal_marker", "{found}");
    assert_eq!(rows(&world, "marked"), 1);

    // A single statement, without a block; and the process that knew its own marker is gone.
    release_commits(&world);
    wait_for("the broker", || {
        world.readiness().filter(|(status, _)| *status == 200)
    });
    let _client = commits(&world, "single");
    world.kill_proxy();
    world.crash_server();
    world.start_server();
    release_commits(&world);
    world.serve();
    let found = verdict(&world, "single");
    assert_eq!(found["evidence"], "wal_marker", "{found}");
    assert_eq!(rows(&world, "single"), 1);
    world.stop_proxy();
    world.verify_journal();
}

/// The server recovers by itself when one of its processes is killed; its start stays what it was.
#[test]
fn one_killed_process_is_a_crash_as_well() {
    let world = world();
    let _client = commits(&world, "one");
    let process = held(&world).remove(0);
    world.crash_backend(&process);
    let found = verdict(&world, "one");
    assert_ne!(found["evidence"], "same_incarnation", "{found}");
    if found["outcome"] == "committed" {
        assert_eq!(found["evidence"], "control_checkpoint", "{found}");
    } else {
        assert_eq!(found["outcome"], "in_doubt", "{found}");
    }
    assert_eq!(rows(&world, "one"), 1);
}
