//! Two engines in one configuration, one policy and one journal; and what becomes of a transaction.

use std::collections::BTreeSet;

use tiberius::Client;
use tokio::net::TcpStream;
use tokio_util::compat::Compat;

use crate::harness::journal::{correlation, of_event, outcomes_under};
use crate::harness::provider::Shape;
use crate::harness::sqlserver::{SqlServer, answered, asked};
use crate::harness::world::World;

/// One identity, both engines, one chain.
#[test]
fn both_engines_are_in_one_journal() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::behind(&mut world);
    let consumer = world.consumer();
    let door = world.door();
    world.runtime.block_on(async {
        let options = "-c gatepost.correlation_id=message-1";
        let client = door.connect(&consumer, "orders", options).await.unwrap();
        let sql = "INSERT INTO orders (customer) VALUES ('ada')";
        client.batch_execute(sql).await.unwrap();
        let mut client = server.connect(&world, &consumer.token).await.unwrap();
        for batch in [
            "EXEC sp_set_session_context N'correlation_id', N'message-1'",
            "BEGIN TRANSACTION",
            "INSERT INTO dbo.parcels (driver, step, n) VALUES (N'story', N'both', 1)",
            "COMMIT TRANSACTION",
        ] {
            client
                .simple_query(batch)
                .await
                .unwrap()
                .into_results()
                .await
                .unwrap();
        }
        client.close().await.unwrap();
    });
    let records = world.settled_after(door);
    let outcomes = outcomes_under(&records, "message-1");
    let committed = |engine: &str| {
        let of_engine = outcomes.iter().filter(|it| it["engine"] == engine);
        let found: Vec<_> = of_engine
            .filter(|it| it["detail"]["id"].is_u64() && it["detail"]["outcome"] == "committed")
            .collect();
        assert_eq!(found.len(), 1, "{engine}: {outcomes:#?}");
        found[0]["identity"]["subject"].clone()
    };
    assert_eq!(committed("postgres"), committed("sqlserver"));
    let logins: BTreeSet<&str> = of_event(&records, "login.minted")
        .into_iter()
        .filter_map(|it| it["login"].as_str())
        .collect();
    assert_eq!(logins.len(), 2, "one login at each server: {logins:?}");
    // The server says the same of the transaction as the journal.
    if let Some(inside) = server.inside() {
        let of_engine = outcomes.iter().filter(|it| it["engine"] == "sqlserver");
        let id = of_engine.filter_map(|it| it["detail"]["id"].as_u64()).next();
        let theirs = inside.committed();
        assert!(
            theirs.iter().any(|it| u64::try_from(it.id).ok() == id),
            "{id:?} is none of the server's: {theirs:?}"
        );
    }
}

/// A consumer asks what became of its messages, as any driver can.
#[test]
fn its_own_attempts_are_told() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::behind(&mut world);
    let token = world.consumer().token;
    let other = world
        .caller(Shape::Okta, "order-consumer", "parcels_writer")
        .token;
    world.runtime.block_on(async {
        let mut client = server.connect(&world, &token).await.unwrap();
        let insert =
            |n| format!("INSERT INTO dbo.parcels (driver, step, n) VALUES (N'story', N'asked', {n})");
        let (first, second, third) = (insert(1), insert(2), insert(3));
        for batch in [
            "EXEC sp_set_session_context N'correlation_id', N'm-1'",
            "BEGIN TRANSACTION",
            &first,
            "COMMIT TRANSACTION",
            &second,
            "BEGIN TRANSACTION",
            &third,
            "ROLLBACK TRANSACTION",
        ] {
            let stream = client.simple_query(batch).await.unwrap();
            stream.into_results().await.unwrap();
        }
        drop(client);
        let mut client = server.connect(&world, &token).await.unwrap();
        let answer = asked(&mut client, "m-1").await;
        assert_eq!(answer["known"], true, "{answer}");
        assert_eq!(answer["complete"], true, "{answer}");
        let told: Vec<_> = answer["attempts"].as_array().unwrap().iter().collect();
        let outcomes: Vec<_> = told.iter().map(|it| it["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["committed", "committed", "aborted"], "{answer}");
        assert!(told[0]["transaction_id"].is_u64(), "{answer}");
        assert!(told[1]["transaction_id"].is_null(), "{answer}");
        assert_eq!(told[0]["evidence"], "server_reply", "{answer}");
        // By a parameter, in a transaction; and of what nobody did.
        client
            .simple_query("BEGIN TRANSACTION")
            .await
            .unwrap()
            .into_results()
            .await
            .unwrap();
        let question = "EXEC sp_set_session_context N'gatepost.outcome_of', @P1";
        client.execute(question, &[&"m-'2"]).await.unwrap();
        let unknown = answered(&mut client).await;
        assert_eq!(unknown["correlation_id"], "m-'2", "{unknown}");
        assert_eq!(unknown["known"], false, "{unknown}");
        let note = unknown["note"].as_str().unwrap();
        assert!(note.contains("unknown is not the same as not applied"), "{note}");
        // What gatepost says there is not the client's to say.
        let forged = "EXEC sp_set_session_context N'gatepost.outcomes', N'{}'";
        let told = refused(&mut client, forged).await;
        assert_eq!(told.code(), Some(229), "{told}");
        client.close().await.unwrap();
        let mut client = server.connect(&world, &other).await.unwrap();
        let of_other = asked(&mut client, "m-1").await;
        assert_eq!(of_other["known"], false, "{of_other}");
        client.close().await.unwrap();
    });
    // Asking left no record of work.
    let records = world.settled_after(());
    assert_eq!(outcomes_under(&records, "m-1").len(), 3);
    assert!(outcomes_under(&records, "m-'2").is_empty());
}

async fn refused(client: &mut Client<Compat<TcpStream>>, batch: &str) -> tiberius::error::Error {
    match client.simple_query(batch).await {
        Ok(stream) => stream.into_results().await.map(|_| ()).unwrap_err(),
        Err(error) => error,
    }
}

/// What was rolled back, what committed by itself, and what was only read.
#[test]
fn each_kind_of_transaction_has_its_record() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::behind(&mut world);
    let token = world.consumer().token;
    world.runtime.block_on(async {
        let mut client = server.connect(&world, &token).await.unwrap();
        for (id, batches) in [
            (
                "rolled-back",
                &[
                    "BEGIN TRANSACTION",
                    "INSERT INTO dbo.parcels (driver, step, n) VALUES (N'story', N'kinds', 1)",
                    "ROLLBACK TRANSACTION",
                ] as &[&str],
            ),
            (
                "by-itself",
                &["INSERT INTO dbo.parcels (driver, step, n) VALUES (N'story', N'kinds', 2)"],
            ),
            ("read", &["SELECT COUNT(*) FROM dbo.parcels"]),
            (
                "in-one-go",
                &["BEGIN TRANSACTION; INSERT INTO dbo.parcels (driver, step, n) VALUES (N'story', N'kinds', 3); \
                   COMMIT TRANSACTION"],
            ),
        ] {
            let set = format!("EXEC sp_set_session_context N'correlation_id', N'{id}'");
            for batch in std::iter::once(set.as_str()).chain(batches.iter().copied()) {
                let stream = client.simple_query(batch).await.unwrap();
                stream.into_results().await.unwrap();
            }
        }
        let told = refused(&mut client, "ALTER LOGIN [sa] DISABLE").await;
        assert_eq!(told.code(), Some(229), "{told}");
        assert!(told.to_string().contains("ALTER LOGIN is not permitted"), "{told}");
        // The session goes on.
        let stream = client.simple_query("SELECT n FROM dbo.parcels WHERE step = N'kinds'").await;
        assert_eq!(stream.unwrap().into_first_result().await.unwrap().len(), 2);
        client.close().await.unwrap();
    });
    let records = world.settled_after(());
    let said = |id: &str| {
        let outcomes = outcomes_under(&records, id);
        // Setting the id is a call, and may stand in a record of its own.
        let of_rows = outcomes.into_iter().filter(|it| {
            let statements = it["detail"]["statements"].as_array().unwrap();
            statements.iter().any(|it| it["kind"] == "insert")
        });
        let found: Vec<_> = of_rows
            .map(|it| {
                let detail = &it["detail"];
                let text = |name: &str| detail[name].as_str().unwrap().to_owned();
                (text("outcome"), text("scope"), detail["id"].is_u64())
            })
            .collect();
        found
    };
    let row = |outcome: &str, scope: &str, id| vec![(outcome.to_owned(), scope.to_owned(), id)];
    assert_eq!(said("rolled-back"), row("aborted", "complete", true));
    assert_eq!(said("by-itself"), row("committed", "partial", false));
    assert_eq!(said("in-one-go"), row("committed", "partial", false));
    assert_eq!(said("read"), vec![]);
    // Each commit had its intent first.
    for id in ["by-itself", "in-one-go"] {
        let intents = of_event(&records, "transaction.intent");
        assert!(intents.iter().any(|it| correlation(it).contains(&id)), "{id}");
    }
}
