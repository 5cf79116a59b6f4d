//! Every driver through the steps that its program in `drivers/sqlserver_*` has, in both ways of TLS, with
//! short and long tokens, or a ticket. Afterwards the rows are held against the journal.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::harness::journal::of_event;
use crate::harness::programs::Said;
use crate::harness::sqlserver::{As, Program, SqlServer};
use crate::harness::tools;
use crate::harness::world::World;

/// What each step leaves in `parcels`, where it leaves rows.
const STEPS: [&str; 9] = [
    "connect",
    "prepared",
    "rollback",
    "procedure",
    "rows",
    "big",
    "recovery",
    "transactions",
    "correlation",
];

/// What large results and parameters may add to gatepost's memory, in KiB: they pass through it in parts.
const ROOM: u64 = 16 * 1024;

/// Rows of `rows` and bytes of `big`: at full length those of the issue of the matter.
fn size(variable: &str, short: u64, long: u64) -> (String, String) {
    let value = if crate::harness::full() { long } else { short };
    (format!("GATEPOST_TEST_{variable}"), value.to_string())
}

const WITH_TOKEN: [Program; 5] = [
    Program {
        name: "mssql_python",
        start: || python("sqlserver_mssql_python.py"),
    },
    Program {
        name: "pytds",
        start: || python("sqlserver_pytds.py"),
    },
    Program {
        name: "tedious",
        start: || {
            (
                tools::node(),
                vec![script("sqlserver_tedious.mjs"), tools::tedious()],
            )
        },
    },
    Program {
        name: "tiberius",
        start: || (tools::rust_driver("tiberius_sqlserver"), vec![]),
    },
    Program {
        name: "mssql_tds",
        start: || (tools::rust_driver("mssql_tds_sqlserver"), vec![]),
    },
];

const WITH_TICKET: [Program; 2] = [
    Program {
        name: "pymssql",
        start: || python("sqlserver_pymssql.py"),
    },
    Program {
        name: "tsql",
        start: || {
            let (tsql, freebcp) = tools::freetds();
            let script = script("sqlserver_tsql.sh");
            ("/bin/bash".into(), vec![script, tsql, freebcp])
        },
    },
];

/// Speaks TDS 7.1: it is told so.
const TOO_OLD: Program = Program {
    name: "jtds",
    start: || {
        let (java, jar) = tools::jtds();
        (java, vec!["-cp".into(), jar, script("SqlServerJtds.java")])
    },
};

fn python(name: &str) -> (PathBuf, Vec<PathBuf>) {
    (tools::python(), vec![script(name)])
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/e2e/drivers")
        .join(name)
}

/// The results of these steps, one a line, as the program tells them.
fn run(
    world: &World,
    server: &SqlServer,
    driver: &Program,
    (tls, as_whom): (&str, &As),
    steps: &[&str],
) -> Vec<Value> {
    let (rows, big) = (
        size("ROWS", 5_000, 100_000),
        size("BIG", 300_000, 20 * 1024 * 1024),
    );
    let ran = server
        .program(world, driver, tls, as_whom)
        .args(steps)
        .envs([rows, big])
        .env("GATEPOST_TEST_SCHEMA", "workshop")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = Said::from(ran);
    let results: Vec<Value> = said
        .out
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(
        results.len(),
        steps.len(),
        "{}: {}\n{}",
        driver.name,
        said.out,
        said.err
    );
    results
}

fn all_well(driver: &Program, results: &[Value]) {
    for result in results {
        let text = result["error_text"].as_str().unwrap_or_default();
        let cannot = text.starts_with("this driver has no");
        assert!(result["ok"] == true || cannot, "{}: {result}", driver.name);
    }
}

#[test]
fn every_driver_that_sends_a_token() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::behind(&mut world);
    // Policy, keys and the first connection of all have their place by then.
    let token = SqlServer::token(&world, "order-consumer", 0);
    all_well(
        &WITH_TOKEN[1],
        &run(
            &world,
            &server,
            &WITH_TOKEN[1],
            ("7.4", &As::Token(token)),
            &["connect"],
        ),
    );
    let before = world.peak();
    for driver in &WITH_TOKEN {
        // 1,500 characters fit one packet of a login, 4,000 take three.
        for (tls, more) in [("7.4", 700), ("strict", 2_500)] {
            if tls == "strict" && driver.name == "pytds" {
                continue;
            }
            let token = SqlServer::token(&world, "order-consumer", more);
            let results = run(&world, &server, driver, (tls, &As::Token(token)), &STEPS);
            all_well(driver, &results);
            let grown = world.peak() - before;
            assert!(
                grown < ROOM,
                "{} {tls}: gatepost grew by {grown} KiB",
                driver.name
            );
        }
    }
    compare(&world, &server, 0..=0);
}

/// What the role may do in a schema that it owns, and what a session survives.
#[test]
fn every_driver_as_an_owner_and_in_trouble() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::behind(&mut world);
    world.runtime.block_on(give_schema(&server));
    let mut doubtful = (0, 0);
    for driver in &WITH_TOKEN {
        for step in ["ddl", "bulk", "cancel", "error", "reset"] {
            let token = SqlServer::token(&world, "order-consumer", 0);
            let result = &run(&world, &server, driver, ("7.4", &As::Token(token)), &[step])[0];
            let fails = cannot(driver.name, step, server.is_real());
            // What was broken off, or failed with several statements in one text, may have had effects.
            let most = step == "cancel" || step == "error" || fails.is_some();
            doubtful.0 += usize::from(step == "cancel");
            doubtful.1 += usize::from(most);
            match fails {
                Some(sentence) => {
                    let text = result["error_text"].as_str().unwrap_or_default();
                    assert!(
                        result["ok"] == false && text.contains(sentence),
                        "{}: {result}",
                        driver.name
                    );
                }
                None => all_well(driver, std::slice::from_ref(result)),
            }
        }
    }
    // Whether a cancelled statement had its effect is not known, and is not claimed.
    compare(&world, &server, doubtful.0..=doubtful.1);
}

/// The schema `workshop`, which belongs to the role.
async fn give_schema(server: &SqlServer) {
    let mut client = server.administrate(&server.database).await;
    for batch in [
        "CREATE SCHEMA workshop AUTHORIZATION parcels_writer",
        "GRANT CREATE TABLE TO parcels_writer",
    ] {
        let done = async { client.simple_query(batch).await?.into_results().await };
        let done = done.await;
        // Babelfish has no such right: its owners need none.
        assert!(done.is_ok() || batch.starts_with("GRANT"), "{done:?}");
    }
}

/// What fails without gatepost as well, and how the driver says so.
fn cannot(driver: &str, step: &str, real: bool) -> Option<&'static str> {
    match (driver, step) {
        // Babelfish names one of the columns only, another one each time, and answers a cancel when the
        // statement has ended.
        ("mssql_python" | "mssql_tds", "bulk") if real => Some("Error: "),
        ("pytds", "cancel") if real => Some("timed out"),
        // The scripted server has no catalogue of collations.
        ("mssql_python" | "mssql_tds", "bulk") => Some("sp_tablecollations_100"),
        // It reads the reply of the statement alone, and the acknowledgement is a reply of its own.
        ("tiberius", "cancel") => Some("acknowledging the Attention signal"),
        // It has neither.
        ("tiberius", "reset") => Some("no pool and no reset"),
        _ => None,
    }
}

#[test]
fn drivers_with_a_short_password_field_bring_a_ticket() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::behind(&mut world);
    for driver in &WITH_TICKET {
        let ticket = ticket(&world);
        let steps = ["connect", "prepared", "rollback", "procedure", "correlation"];
        let results = run(&world, &server, driver, ("7.4", &As::Ticket(ticket)), &steps);
        all_well(driver, &results);
    }
}

fn ticket(world: &World) -> String {
    std::fs::write(world.path("token"), world.consumer().token).unwrap();
    let api = format!("https://localhost:{}", world.config.api.port());
    let said = world.gatepost(&[
        "ticket",
        "--target",
        "parcels",
        "--api",
        &api,
        "--token-file",
        "token",
        "--ca",
        "certs/ca.crt",
    ]);
    said.well().trim().to_owned()
}

/// What a driver's user reads when it is not let in.
#[test]
fn refusals_print_in_every_driver() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::behind(&mut world);
    // An identity that no rule of this target grants anything.
    let denied = || As::Token(SqlServer::token(&world, "analyst", 0));
    for driver in &WITH_TOKEN {
        let result = &run(&world, &server, driver, ("7.4", &denied()), &["refused"])[0];
        told(driver, result, "no rule permits this identity, database and role");
        if driver.name != "mssql_python" {
            assert_eq!(result["error_number"], 18456, "{}: {result}", driver.name);
        }
    }
    let garbage = || {
        let token = SqlServer::token(&world, "order-consumer", 0);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        // Another signature of the same form: its first characters change places.
        let (one, two, rest) = (&signature[..8], &signature[8..16], &signature[16..]);
        As::Token(format!("{signed}.{two}{one}{rest}"))
    };
    for driver in &WITH_TOKEN {
        let result = &run(&world, &server, driver, ("7.4", &garbage()), &["refused"])[0];
        told(driver, result, "token signature cannot be verified");
    }
    // A token where only 128 characters fit: dropped by one, cut by the other.
    let long = SqlServer::token(&world, "order-consumer", 0);
    for (driver, sentence) in WITH_TICKET
        .iter()
        .zip(["the password is empty", "the password is not a token"])
    {
        let result = &run(
            &world,
            &server,
            driver,
            ("7.4", &As::Ticket(long.clone())),
            &["refused"],
        )[0];
        told(driver, result, sentence);
        told(driver, result, "ticket");
    }
    let result = &run(
        &world,
        &server,
        &TOO_OLD,
        ("7.4", &As::Ticket(ticket(&world))),
        &["refused"],
    )[0];
    told(&TOO_OLD, result, "a TDS version before 7.3 is not supported");
}

fn told(driver: &Program, result: &Value, sentence: &str) {
    let text = result["error_text"].as_str().unwrap_or_default();
    assert_eq!(result["ok"], true, "{}: {result}", driver.name);
    assert!(text.contains(sentence), "{}: {text}", driver.name);
}

/// The server is away: what drivers try again.
#[test]
fn a_target_that_is_down_is_told_as_such() {
    let mut world = World::without_proxy(15);
    let server = SqlServer::behind(&mut world);
    let Some(inside) = server.inside() else { return };
    inside.refuse_logins(Some(40613));
    for driver in &WITH_TOKEN[2..4] {
        let token = SqlServer::token(&world, "order-consumer", 0);
        let result = &run(
            &world,
            &server,
            driver,
            ("strict", &As::Token(token)),
            &["refused"],
        )[0];
        told(driver, result, "the database is not reachable");
    }
}

/// Every committed step is on record under its driver's identity.
fn compare(world: &World, server: &SqlServer, in_doubt: RangeInclusive<usize>) {
    let records = world.settled();
    let outcomes = of_event(&records, "transaction.outcome");
    let of_server: Vec<_> = outcomes.iter().filter(|it| it["engine"] == "sqlserver").collect();
    let doubtful: Vec<_> = of_server
        .iter()
        .filter(|it| it["detail"]["outcome"] == "in_doubt")
        .map(|it| (&it["client"]["application"], &it["detail"]["statements"]))
        .collect();
    assert!(in_doubt.contains(&doubtful.len()), "{doubtful:#?}");
    if let Some(inside) = server.inside() {
        let theirs = inside.committed();
        let ours: std::collections::BTreeSet<u64> = of_server
            .iter()
            .filter(|it| it["detail"]["outcome"] == "committed")
            .filter_map(|it| it["detail"]["id"].as_u64())
            .collect();
        let theirs: std::collections::BTreeSet<u64> =
            theirs.iter().filter_map(|it| u64::try_from(it.id).ok()).collect();
        let invented: Vec<_> = ours.difference(&theirs).collect();
        assert!(
            invented.is_empty(),
            "commits that the server knows nothing of: {invented:?}"
        );
    }
    world.verify_journal();
}
