//! Commits at SQL Server whose reply is lost, where there is a table of markers: what gatepost says of them
//! afterwards is what the table says.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tiberius::Client;
use tokio::net::TcpStream;
use tokio_util::compat::Compat;

use crate::harness::journal::{correlation, records_of};
use crate::harness::sqlserver::scripted::Loss;
use crate::harness::sqlserver::{As, Program, SqlServer, Way, asked};
use crate::harness::tools;
use crate::harness::world::World;
use crate::harness::{LOOK_EVERY, wait_for};

const TABLE: &str = "CREATE TABLE gatepost.markers (mark varbinary(64) NOT NULL PRIMARY KEY, \
                     at datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME())";

/// A target with a table of markers, its roles applied, and the proxy ready.
fn behind(world: &mut World) -> SqlServer {
    let way = Way {
        more: "    marker_table: gatepost.markers\n",
        ..Way::default()
    };
    let server = SqlServer::prepared(world, &way);
    let index = "CREATE INDEX by_age ON gatepost.markers (at)";
    let batches = ["CREATE SCHEMA gatepost", TABLE, index];
    world.runtime.block_on(server.run(&server.database, &batches));
    server.apply_roles(world);
    world.serve();
    server
}

async fn run(client: &mut Client<Compat<TcpStream>>, batch: &str) -> tiberius::Result<()> {
    client.simple_query(batch).await?.into_results().await.map(|_| ())
}

/// A client with a transaction that is open and has written.
async fn writing(server: &SqlServer, world: &World, id: &str) -> Client<Compat<TcpStream>> {
    let mut client = server.connect(world, &world.consumer().token).await.unwrap();
    let set = format!("EXEC sp_set_session_context N'correlation_id', N'{id}'");
    let insert = format!("INSERT INTO dbo.parcels (driver, step, n) VALUES (N'markers', N'{id}', 1)");
    for batch in [set.as_str(), "BEGIN TRANSACTION", &insert] {
        run(&mut client, batch).await.unwrap();
    }
    client
}

fn verdict(world: &World, id: &str) -> Value {
    let record = wait_for("a verdict", || {
        let verdicts = records_of(&world.path("audit"), "transaction.reconciled");
        verdicts.into_iter().find(|it| correlation(it) == [id])
    });
    assert_eq!(record["target"], "parcels");
    record["detail"].clone()
}

/// `(rows of the client, markers)`.
fn rows(server: &SqlServer, world: &World) -> (usize, usize) {
    world.runtime.block_on(async {
        let mut client = server.administrate(&server.database).await;
        let mut counts = Vec::new();
        for table in ["dbo.parcels WHERE driver = N'markers'", "gatepost.markers"] {
            let sql = format!("SELECT CAST(COUNT(*) AS int) FROM {table}");
            let rows = client.simple_query(sql).await.unwrap();
            let row = rows.into_row().await.unwrap().unwrap();
            counts.push(usize::try_from(row.get::<i32, _>(0).unwrap()).unwrap());
        }
        (counts[0], counts[1])
    })
}

const AT_ONCE: Duration = Duration::ZERO;

#[test]
fn what_the_table_says_is_what_became_of_it() {
    let mut world = World::without_proxy(15);
    let server = behind(&mut world);
    let Some(inside) = server.inside() else { return };
    // The connection is gone before the transaction is over: its row is locked, and is waited for.
    let late = Duration::from_secs(2);
    for (id, late, done) in [
        ("done", AT_ONCE, true),
        ("undone", AT_ONCE, false),
        ("done-late", late, true),
        ("undone-late", late, false),
    ] {
        let before = rows(&server, &world);
        world.runtime.block_on(async {
            let mut client = writing(&server, &world, id).await;
            let cut = true;
            inside.lose_commit(Loss { cut, late, done });
            run(&mut client, "COMMIT TRANSACTION").await.unwrap_err();
        });
        let found = verdict(&world, id);
        let outcome = if done { "committed" } else { "aborted" };
        assert_eq!(found["outcome"], outcome, "{id}: {found}");
        assert_eq!(found["evidence"], "marker_table", "{id}: {found}");
        assert_eq!(found["previous"], "in_doubt", "{id}: {found}");
        let more = usize::from(done);
        assert_eq!(rows(&server, &world), (before.0 + more, before.1 + more), "{id}");
    }
    // Its consumer is told so.
    world.runtime.block_on(async {
        let mut client = server.connect(&world, &world.consumer().token).await.unwrap();
        for (id, outcome) in [("done", "committed"), ("undone", "aborted")] {
            let answer = asked(&mut client, id).await;
            assert_eq!(answer["attempts"][0]["outcome"], outcome, "{answer}");
            assert_eq!(answer["attempts"][0]["evidence"], "marker_table", "{answer}");
        }
    });
    // Text that does more than commit has no row, and stays in doubt.
    world.runtime.block_on(async {
        let mut client = writing(&server, &world, "unmarked").await;
        inside.lose_commit(Loss {
            cut: true,
            late: AT_ONCE,
            done: true,
        });
        run(&mut client, "SET NOCOUNT ON; COMMIT TRANSACTION")
            .await
            .unwrap_err();
    });
    let lost = wait_for("its outcome", || {
        let outcomes = records_of(&world.path("audit"), "transaction.outcome");
        outcomes.into_iter().find(|it| correlation(it) == ["unmarked"])
    });
    assert_eq!(lost["detail"]["outcome"], "in_doubt");
    world.stop_proxy();
    world.verify_journal();
    let verdicts = records_of(&world.path("audit"), "transaction.reconciled");
    assert!(verdicts.iter().all(|it| correlation(it) != ["unmarked"]));
}

/// The process that wrote the row dies with the commit on its way; the next one asks.
#[test]
fn killed_between_commit_and_reply() {
    let mut world = World::without_proxy(15);
    let server = behind(&mut world);
    let Some(inside) = server.inside() else { return };
    for (id, done) in [("killed-done", true), ("killed-undone", false)] {
        let client = world.runtime.block_on(async {
            let mut client = writing(&server, &world, id).await;
            inside.lose_commit(Loss {
                cut: false,
                late: AT_ONCE,
                done,
            });
            tokio::select! {
                answer = client.simple_query("COMMIT TRANSACTION") => panic!("{answer:?}"),
                () = async {
                    while !inside.lost_commit() {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                } => {}
            }
            client
        });
        world.kill_proxy();
        drop(client);
        world.serve();
        let found = verdict(&world, id);
        let outcome = if done { "committed" } else { "aborted" };
        assert_eq!(found["outcome"], outcome, "{id}: {found}");
        assert_eq!(found["evidence"], "marker_table", "{id}: {found}");
        assert_eq!(found["previous"], Value::Null, "{id}: {found}");
    }
    assert_eq!(rows(&server, &world), (1, 1));
    world.stop_proxy();
    world.verify_journal();
}

/// A driver that commits with a request of the transaction manager.
#[test]
fn a_commit_that_is_no_text_is_marked_too() {
    let mut world = World::without_proxy(15);
    let server = behind(&mut world);
    let Some(inside) = server.inside() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/drivers/sqlserver_lost_commit.py");
    let pytds = Program {
        name: "pytds",
        start: || (tools::python(), Vec::new()),
    };
    let token = As::Token(SqlServer::token(&world, "order-consumer", 0));
    inside.lose_commit(Loss {
        cut: true,
        late: AT_ONCE,
        done: true,
    });
    let said = server
        .program(&world, &pytds, "7.4", &token)
        .arg(&script)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        told.contains("lost"),
        "{told}{}",
        String::from_utf8_lossy(&said.stderr)
    );
    let found = verdict(&world, "manager");
    assert_eq!(found["outcome"], "committed", "{found}");
    assert_eq!(found["evidence"], "marker_table", "{found}");
    assert_eq!(rows(&server, &world), (1, 1));
}

/// Whoever may insert may write what looks like a row of another transaction.
#[test]
fn a_forged_row_is_not_believed() {
    let mut world = World::without_proxy(15);
    let server = behind(&mut world);
    let Some(inside) = server.inside() else { return };
    let forge = |session: &str, number: u64, nonce: &str| {
        let beginning = format!("01{}{number:016x}{nonce}", session.trim_start_matches("s-"));
        format!(
            "INSERT INTO gatepost.markers (mark) VALUES (0x{beginning}{})",
            "ab".repeat(32)
        )
    };
    let intent = |id: &str| {
        wait_for("an intent", || {
            let intents = records_of(&world.path("audit"), "transaction.intent");
            intents.into_iter().find(|it| correlation(it) == [id])
        })
    };
    for (id, knows_nonce) in [("guessed", false), ("known", true)] {
        let mut other = world.runtime.block_on(async {
            let mut client = writing(&server, &world, id).await;
            let late = Duration::from_secs(3);
            inside.lose_commit(Loss {
                cut: true,
                late,
                done: false,
            });
            run(&mut client, "COMMIT TRANSACTION").await.unwrap_err();
            server.connect(&world, &world.consumer().token).await.unwrap()
        });
        let intent = intent(id);
        let marker = intent["detail"]["marker"].as_str().unwrap();
        let nonce = marker.strip_prefix("gatepost.markers:").unwrap();
        let nonce = if knows_nonce { nonce } else { "0000000000000001" };
        let number = intent["detail"]["number"].as_u64().unwrap();
        let row = forge(intent["session"].as_str().unwrap(), number, nonce);
        world.runtime.block_on(run(&mut other, &row)).unwrap();
        let found = verdict(&world, id);
        if knows_nonce {
            assert_eq!(found["outcome"], "in_doubt", "{found}");
            assert_eq!(found["why"], "marker_unknown", "{found}");
        } else {
            assert_eq!(found["outcome"], "aborted", "{found}");
        }
    }
    // It may neither read rows nor take them away.
    world.runtime.block_on(async {
        let mut client = server.connect(&world, &world.consumer().token).await.unwrap();
        for batch in [
            "SELECT mark FROM gatepost.markers",
            "DELETE FROM gatepost.markers",
        ] {
            let told = run(&mut client, batch).await.unwrap_err();
            assert_eq!(told.code(), Some(229), "{told}");
        }
    });
}

#[test]
fn without_the_table_a_commit_is_refused_and_says_why() {
    let mut world = World::without_proxy(15);
    let server = behind(&mut world);
    let database = server.database.clone();
    let check = ["check", "--live", "--config", "gatepost.yaml"];
    world.runtime.block_on(async {
        server.run(&database, &["DROP TABLE gatepost.markers"]).await;
        let mut client = writing(&server, &world, "refused").await;
        let told = run(&mut client, "COMMIT TRANSACTION").await.unwrap_err();
        assert_eq!(told.code(), Some(40613), "{told}");
        let told = told.to_string();
        assert!(told.contains("table gatepost.markers took no marker"), "{told}");
        assert!(told.contains("CREATE TABLE [gatepost].[markers]"), "{told}");
        assert!(told.contains("GRANT INSERT"), "{told}");
        // Reading needs no marker; the transaction is as it was, and commits when there is a table again.
        run(&mut client, "SELECT COUNT(*) FROM dbo.parcels")
            .await
            .unwrap();
        let grant = "GRANT INSERT ON gatepost.markers TO parcels_writer";
        server.run(&database, &[TABLE, grant]).await;
        run(&mut client, "COMMIT TRANSACTION").await.unwrap();
    });
    assert_eq!(rows(&server, &world), (1, 1));
    world
        .runtime
        .block_on(server.run(&database, &["DROP TABLE gatepost.markers"]));
    let told = world.gatepost(&check);
    let shown = format!("{told:?}");
    assert!(shown.contains("table gatepost.markers in database"), "{shown}");
}

#[test]
fn old_rows_are_removed() {
    let mut world = World::without_proxy(15);
    let server = behind(&mut world);
    let old = "INSERT INTO gatepost.markers (mark, at) VALUES (0x01, '2020-01-01 00:00:00'), (0x02, '2020-01-02 00:00:00')";
    let young = "INSERT INTO gatepost.markers (mark) VALUES (0x03)";
    world
        .runtime
        .block_on(server.run(&server.database, &[old, young]));
    wait_for("their end", || (rows(&server, &world).1 == 1).then_some(()));
}
