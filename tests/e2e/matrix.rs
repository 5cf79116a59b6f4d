//! The matrix: every driver goes through one list of things that programs do, on each version of
//! PostgreSQL, all at once against one gatepost. The programs are in `drivers/*_matrix.*`; each prints a
//! line a step and ends at the first answer that is not as it should be. What they left in the database is
//! held against the journal afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::journal::{committed, of_event};
use crate::harness::programs::{Caller, Said};
use crate::harness::provider::{Shape, secret_of};
use crate::harness::tools;
use crate::harness::world::World;

/// A column of every kind that drivers have a way of their own for.
const TABLE: &str = "
    CREATE TABLE parcels (
        driver text NOT NULL, step text NOT NULL, n int NOT NULL,
        body text, raw bytea, doc jsonb, at timestamptz, list int[],
        CONSTRAINT parcels_once UNIQUE (driver, step, n));
    GRANT SELECT, INSERT, UPDATE, DELETE ON parcels TO orders_writer;";

/// What every driver does, as far as it can; how is told in its program.
const STEPS: [&str; 11] = [
    "connect",
    "refused",
    "prepared",
    "pipeline",
    "copy",
    "large",
    "stream",
    "cancel",
    "recovery",
    "transactions",
    "expiry",
];

/// Steps that write, and the rows that each must leave; those of `expiry` each driver counts itself.
const ROWS: [(&str, usize); 6] = [
    ("prepared", 100),
    ("pipeline", 50),
    ("copy", 10_000),
    ("large", 1),
    ("recovery", 3),
    ("transactions", 4),
];

/// How a driver's program is started.
struct Driver {
    /// What it connects as; its rows and its records bear this name.
    name: &'static str,
    program: fn() -> (PathBuf, Vec<PathBuf>),
    variables: &'static [(&'static str, &'static str)],
}

const fn driver(name: &'static str, program: fn() -> (PathBuf, Vec<PathBuf>)) -> Driver {
    Driver {
        name,
        program,
        variables: &[],
    }
}

const DRIVERS: [Driver; 9] = [
    driver("pgjdbc", || {
        let (java, jar) = tools::jdbc();
        (java, vec!["-cp".into(), jar, script("PgjdbcMatrix.java")])
    }),
    driver("node-pg", || {
        (
            tools::node(),
            vec![script("node_pg_matrix.mjs"), tools::node_drivers()],
        )
    }),
    Driver {
        name: "libpq-18",
        program: || python("libpq_matrix.py"),
        variables: &[
            ("PGSSLNEGOTIATION", "direct"),
            ("PGMINPROTOCOLVERSION", "3.2"),
            ("PGMAXPROTOCOLVERSION", "latest"),
        ],
    },
    driver("psycopg3", || python("psycopg3_matrix.py")),
    driver("psycopg2", || python("psycopg2_matrix.py")),
    driver("asyncpg", || python("asyncpg_matrix.py")),
    driver("sqlx", || (tools::rust_driver("sqlx_matrix"), vec![])),
    driver("tokio-postgres", || {
        (tools::rust_driver("tokio_postgres_matrix"), vec![])
    }),
    driver("psql", || {
        (
            PathBuf::from("/bin/bash"),
            vec![script("psql_matrix.sh"), tools::client_program("psql")],
        )
    }),
];

fn python(name: &str) -> (PathBuf, Vec<PathBuf>) {
    (tools::python(), vec![script(name)])
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/e2e/drivers")
        .join(name)
}

#[test]
fn every_driver_on_postgresql_15() {
    matrix(15, 1_000_000);
}

#[test]
fn every_driver_on_postgresql_17() {
    matrix(17, 50_000);
}

#[test]
fn every_driver_on_postgresql_18() {
    matrix(18, 50_000);
}

/// `streamed` rows are read by parts, so that nobody has to hold them all.
fn matrix(major: u32, streamed: usize) {
    let mut world = World::without_proxy(major);
    world.sql(TABLE);
    world.serve();
    let consumer = world.consumer();
    let running = DRIVERS.map(|driver| {
        let mut program = story(&world, &consumer, &driver, streamed);
        (driver.name, program.spawn().unwrap())
    });
    let mut wrong = Vec::new();
    for (name, program) in running {
        let said = Said::from(program.wait_with_output().unwrap());
        if said.good {
            eprintln!("--- {name} on PostgreSQL {major}\n{}", said.out);
            let good = said
                .out
                .lines()
                .filter_map(|line| Some(line.split_once(": good")?.0));
            assert_eq!(good.collect::<Vec<_>>(), STEPS, "{name}");
        } else {
            wrong.push(format!("--- {name}\n{}\n{}", said.out, said.err));
        }
    }
    assert!(wrong.is_empty(), "PostgreSQL {major}\n{}", wrong.join("\n"));
    compare(&world);
}

fn story(world: &World, caller: &Caller, driver: &Driver, streamed: usize) -> Command {
    let (program, arguments) = (driver.program)();
    let mut command = world.client(&program, caller);
    // An application whose tokens live for some seconds.
    let form = format!(
        "grant_type=client_credentials&client_id=brief&client_secret={}",
        secret_of("brief")
    );
    command
        .args(arguments)
        .env("PGAPPNAME", driver.name)
        .envs(driver.variables.iter().copied())
        .env("STORY_TOKEN_URL", world.provider.token_url(Shape::Entra))
        .env("STORY_TOKEN_FORM", form)
        .env("STORY_ROWS", streamed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Every row's transaction is in the journal under its driver's name, and no other commit is.
fn compare(world: &World) {
    let records = world.settled();
    let outcomes: BTreeMap<u64, &Value> = of_event(&records, "transaction.outcome")
        .into_iter()
        .filter_map(|it| Some((it["detail"]["id"].as_u64()?, it)))
        .collect();
    let mut transactions = BTreeSet::new();
    // A row written behind a savepoint bears the subtransaction's id; the program wrote down the other.
    let id = "CASE WHEN step = 'recovery' THEN coalesce(body, xmin::text) ELSE xmin::text END";
    let rows = format!("SELECT {id}, driver, step, count(*) FROM parcels GROUP BY 1, 2, 3");
    for row in world.sql(&rows).lines() {
        let [id, driver, step, _] = row.split('|').collect::<Vec<_>>().try_into().unwrap();
        let id = id.parse().unwrap();
        let outcome = outcomes
            .get(&id)
            .unwrap_or_else(|| panic!("no outcome for {row}"));
        assert_eq!(outcome["detail"]["outcome"], "committed", "{row}: {outcome}");
        assert_eq!(outcome["detail"]["scope"], "complete", "{row}: {outcome}");
        assert_eq!(outcome["client"]["application"], driver, "{row}: {outcome}");
        let client = if step == "expiry" {
            "brief"
        } else {
            "order-consumer"
        };
        assert_eq!(outcome["identity"]["client_id"], client, "{row}: {outcome}");
        transactions.insert(id);
    }
    assert_eq!(committed(&records), transactions);
    let steps = ROWS.map(|(step, _)| format!("'{step}'")).join(", ");
    let counts = format!("SELECT driver, step, count(*) FROM parcels WHERE step IN ({steps}) GROUP BY 1, 2");
    let counted = world.sql(&counts);
    let counted: BTreeSet<&str> = counted.lines().collect();
    let expected: Vec<String> = DRIVERS
        .iter()
        .flat_map(|driver| ROWS.map(|(step, rows)| format!("{}|{step}|{rows}", driver.name)))
        .collect();
    assert_eq!(counted, expected.iter().map(String::as_str).collect());
    world.verify_journal();
}
