//! What the audit journal costs: pgbench through gatepost at each durability, through the same gatepost built without
//! the journal's part in statements, and straight at the same server, in turns. Run by hand, on a quiet machine:
//!
//!     RUSTFLAGS='--cfg gatepost_unaudited' cargo build --release --bin gatepost --target-dir target/unaudited
//!     GATEPOST_UNAUDITED=target/unaudited/release/gatepost cargo bench --bench audit_cost -- \
//!         [seconds of each run (10)] [rounds (3)] [select|update|tpcb|simple|prepared]... [c1|c8|c32]... \
//!         [direct|off|strict|strict-held|batched|batched-asked|os]... [apart]
//!
//! Each line: transactions a second, their ratio to the run without audit of the same round (without
//! `GATEPOST_UNAUDITED`: to the direct one), the CPU time of gatepost and of the server for each transaction (from
//! /proc), and the journal's bytes for each. Every second round goes through the ways from the last to the first, since a
//! machine that slows down would be held against whoever comes later. The medians of the ratios stand at the end. Ratios
//! and CPU are what can be compared between machines. `apart` gives gatepost a core of its own, as where it does not run
//! beside its database: pgbench and the server share core 0. The disk's own time for one `fdatasync` stands at the head, since
//! every strict commit waits for one. `GATEPOST_AUDITED` names another gatepost to measure than the one built with this.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a program for a terminal, made of the harness of the end-to-end tests; it measures time"
)]

#[path = "../tests/e2e/harness/mod.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::programs::Caller;
use harness::tools;
use harness::world::World;

const CLIENTS: [(u32, &str); 3] = [(1, "c1"), (8, "c8"), (32, "c32")];
const PROTOCOLS: [&str; 2] = ["simple", "prepared"];
/// `direct` goes past gatepost; `off` is the one that was built without audit. Each durability has its own way with
/// writes outside of a block; `held` and `asked` are the other one.
const WAYS: [&str; 7] = [
    "direct",
    "off",
    "strict",
    "strict-held",
    "batched",
    "batched-asked",
    "os",
];
/// Names the gatepost that was built without audit.
const UNAUDITED: &str = "GATEPOST_UNAUDITED";
/// Names the gatepost that is measured, if it is not the one of this build.
const AUDITED: &str = "GATEPOST_AUDITED";
/// Reads count as writes until the database's catalogue has been read; so many seconds of reads may pass until then.
const WARM_WITHIN: u32 = 30;
const SYNCS: usize = 200;

const WORKLOADS: [(&str, &str); 3] = [
    (
        "select",
        "\\set aid random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n",
    ),
    (
        "update",
        "\\set aid random(1, 100000)\nUPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n",
    ),
    (
        "tpcb",
        "\\set aid random(1, 100000)\n\\set bid random(1, 100)\n\\set tid random(1, 1000)\n\
         \\set delta random(-5000, 5000)\nBEGIN;\n\
         UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n\
         SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
         UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;\n\
         UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;\n\
         INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);\n\
         COMMIT;\n",
    ),
];

const FILL: &str = "
    INSERT INTO pgbench_branches SELECT b, 0, '' FROM generate_series(1, 100) AS b;
    INSERT INTO pgbench_tellers SELECT t, 1, 0, '' FROM generate_series(1, 1000) AS t;
    INSERT INTO pgbench_accounts SELECT a, 1, 0, '' FROM generate_series(1, 100000) AS a;";

/// One run of pgbench.
struct Run<'a> {
    workload: &'a str,
    protocol: &'a str,
    clients: u32,
    seconds: u32,
    apart: bool,
}

/// What it came to.
struct Figures {
    per_second: f64,
    proxy: Duration,
    server: Duration,
    journal: u64,
}

/// Far less than a record for each transaction: the session's own records, spread over a slow second.
const FREE_BYTES_MAX: u64 = 100;

/// Gatepost runs on core 1, all else on core 0.
const APART: &str = "apart";

fn main() {
    // cargo adds words of its own.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u32>().ok());
    let (seconds, rounds) = (numbers.next().unwrap_or(10), numbers.next().unwrap_or(3));
    let words: Vec<String> = std::env::args().skip(1).collect();
    let apart = words.iter().any(|word| word == APART);
    if apart {
        stay_on_core_0();
    }
    let mut world = World::without_proxy(15);
    world.config.level = "warn";
    if let Some(audited) = std::env::var_os(AUDITED) {
        world.program = fs::canonicalize(audited).unwrap();
    }
    world.sql(FILL);
    world.sql("VACUUM ANALYZE");
    for (name, script) in WORKLOADS {
        fs::write(world.path(name), script).unwrap();
    }
    println!(
        "one write of 4 KiB and fdatasync: {:?} (median of {SYNCS})",
        sync_time(&world)
    );
    let asked = |name: &str, of: &[&str]| {
        let named = |it: &String| of.contains(&it.as_str());
        !words.iter().any(named) || words.iter().any(|it| it == name)
    };
    let workloads = WORKLOADS.map(|(name, _)| name);
    println!(
        "round workload protocol clients way                tps  ratio  gatepost µs  server µs  journal B"
    );
    let mut ratios = Ratios::new();
    for round in 1..=rounds {
        for workload in workloads.into_iter().filter(|it| asked(it, &workloads)) {
            for protocol in PROTOCOLS.into_iter().filter(|it| asked(it, &PROTOCOLS)) {
                for (clients, _) in CLIENTS
                    .into_iter()
                    .filter(|(_, it)| asked(it, &CLIENTS.map(|it| it.1)))
                {
                    let run = Run {
                        workload,
                        protocol,
                        clients,
                        seconds,
                        apart,
                    };
                    let ways = WAYS.into_iter().filter(|it| asked(it, &WAYS));
                    compare(&mut world, ways, round, &run, &mut ratios);
                }
            }
        }
    }
    println!("\nmedian ratios");
    for ((workload, protocol, clients, way), mut found) in ratios {
        found.sort_by(f64::total_cmp);
        println!(
            "{workload:8} {protocol:8} {clients:7} {way:13} {:6.3} of {found:.3?}",
            // Of two in the middle their mean, or the better one would count each time.
            f64::midpoint(found[(found.len() - 1) / 2], found[found.len() / 2])
        );
    }
}

/// By workload, protocol, clients and way.
type Ratios<'a> = BTreeMap<(&'a str, &'a str, u32, &'a str), Vec<f64>>;

/// All ways, one behind the other.
fn compare<'a>(
    world: &mut World,
    ways: impl Iterator<Item = &'static str>,
    round: u32,
    run: &Run<'a>,
    ratios: &mut Ratios<'a>,
) {
    let unaudited = std::env::var_os(UNAUDITED).map(PathBuf::from);
    let base_way = if unaudited.is_some() { "off" } else { "direct" };
    let mut ways: Vec<_> = ways.filter(|way| *way != "off" || unaudited.is_some()).collect();
    if round.is_multiple_of(2) {
        ways.reverse();
    }
    let all: Vec<_> = ways
        .into_iter()
        .map(|way| (way, figures(world, way, run, unaudited.as_deref())))
        .collect();
    let base = all.iter().find(|(way, _)| *way == base_way);
    let base = base.map_or(f64::NAN, |(_, figures)| figures.per_second);
    for (way, figures) in all {
        let ratio = figures.per_second / base;
        println!(
            "{round:5} {:8} {:8} {:7} {way:13} {:8.0} {ratio:6.3} {:12} {:10} {:10}",
            run.workload,
            run.protocol,
            run.clients,
            figures.per_second,
            figures.proxy.as_micros(),
            figures.server.as_micros(),
            figures.journal
        );
        let key = (run.workload, run.protocol, run.clients, way);
        ratios.entry(key).or_default().push(ratio);
    }
}

/// Of one way.
fn figures(world: &mut World, way: &'static str, run: &Run<'_>, unaudited: Option<&Path>) -> Figures {
    if way == "direct" {
        return measure(world, run, None);
    }
    let (durability, other) = way.split_once('-').unwrap_or((way, ""));
    world.config.durability = if way == "off" { "os" } else { durability };
    world.config.more_audit = match other {
        "held" => ", autocommit: hold_reply".to_owned(),
        "asked" => ", autocommit: ask_first".to_owned(),
        _ => String::new(),
    };
    let audited = world.program.clone();
    if let Some(unaudited) = unaudited.filter(|_| way == "off") {
        world.program = fs::canonicalize(unaudited).unwrap();
    }
    let figures = through_gatepost(world, run);
    world.program = audited;
    figures
}

fn through_gatepost(world: &mut World, run: &Run<'_>) -> Figures {
    // A start looks through what is there, and would still be at it while it is measured.
    let _none = fs::remove_dir_all(world.path("audit"));
    world.launch_with(|command| if run.apart { on_core_1(&command) } else { command });
    world.wait_until_ready();
    let caller = world.consumer();
    warm(world, &caller);
    let figures = measure(world, run, Some(&caller));
    world.stop_proxy();
    figures
}

/// With all that is started from here on.
fn stay_on_core_0() {
    let own = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-cp", "0", &own]).output();
    assert!(pinned.unwrap().status.success());
}

fn on_core_1(command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned
        .args(["-c", "1"])
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        pinned.current_dir(folder);
    }
    pinned
}

/// Reads until they leave next to nothing in the journal, which is when their proofs can be had.
fn warm(world: &World, caller: &Caller) {
    let read = Run {
        workload: "select",
        protocol: "prepared",
        clients: 1,
        seconds: 1,
        apart: false,
    };
    let are_free = (0..WARM_WITHIN).any(|_| measure(world, &read, Some(caller)).journal < FREE_BYTES_MAX);
    assert!(are_free, "reads are still on record");
}

fn measure(world: &World, run: &Run<'_>, caller: Option<&Caller>) -> Figures {
    let arguments = [
        "--protocol",
        run.protocol,
        "--client",
        &run.clients.to_string(),
        "--jobs",
        &run.clients.min(2).to_string(),
        "--time",
        &run.seconds.to_string(),
        "--file",
        run.workload,
    ];
    let mut pgbench = match caller {
        Some(caller) => world.pgbench(caller, &arguments),
        None => direct(world, &arguments),
    };
    let before = cpu_times(world, caller.is_some());
    let journal = stored(world);
    let output = pgbench.output().unwrap();
    let after = cpu_times(world, caller.is_some());
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let transactions = number_behind(&told, "number of transactions actually processed: ") as u32;
    assert!(
        transactions > 0,
        "too short for {} clients to come in",
        run.clients
    );
    Figures {
        per_second: number_behind(&told, "tps = "),
        proxy: (after.0 - before.0) / transactions,
        server: (after.1 - before.1) / transactions,
        journal: (stored(world) - journal) / u64::from(transactions),
    }
}

/// Bytes of the journal.
fn stored(world: &World) -> u64 {
    let files = fs::read_dir(world.path("audit")).into_iter().flatten().flatten();
    files.map(|file| file.metadata().unwrap().len()).sum()
}

/// The superuser over TLS, as gatepost comes.
fn direct(world: &World, arguments: &[&str]) -> Command {
    let server = world.config.server;
    let mut pgbench = Command::new(tools::client_program("pgbench"));
    pgbench
        .env_clear()
        .env("PGHOST", server.ip().to_string())
        .env("PGPORT", server.port().to_string())
        .env("PGDATABASE", "orders")
        .env("PGUSER", "postgres")
        .env("PGPASSWORD", "superuser secret")
        .env("PGSSLMODE", "require")
        .arg("--no-vacuum")
        .args(arguments)
        .current_dir(world.path("."));
    pgbench
}

fn number_behind(told: &str, words: &str) -> f64 {
    let (_, behind) = told
        .split_once(words)
        .unwrap_or_else(|| panic!("no {words} in {told}"));
    let number: String = behind
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    number.parse().unwrap()
}

/// CPU time of gatepost so far, and of the server with all of its processes, also those that have ended.
fn cpu_times(world: &World, with_proxy: bool) -> (Duration, Duration) {
    let proxy = if with_proxy { ticks(world.proxy_id(), 2) } else { 0 };
    let first = world.server_id();
    let mut server = ticks(first, 4);
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(id) = id else { continue };
        if fields(id).is_some_and(|fields| fields[1] == first.to_string()) {
            server += ticks(id, 2);
        }
    }
    // USER_HZ is 100 wherever Linux runs on what we support.
    let time = |ticks| Duration::from_millis(10 * ticks);
    (time(proxy), time(server))
}

/// Of `/proc/<id>/stat`, from the state on.
fn fields(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(") ")?;
    Some(behind.split(' ').map(str::to_owned).collect())
}

/// utime and stime, and with `count` 4 also those of its children that have ended.
fn ticks(id: u32, count: usize) -> u64 {
    let fields = fields(id).unwrap_or_default();
    let times = fields.iter().skip(11).take(count);
    times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn sync_time(world: &World) -> Duration {
    let mut file = fs::File::create(world.path("sync")).unwrap();
    let mut took: Vec<_> = (0..SYNCS)
        .map(|_| {
            file.write_all(&[7; 4096]).unwrap();
            let begun = Instant::now();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    took.sort();
    took[SYNCS / 2]
}
