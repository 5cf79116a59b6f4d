//! Rotation under load: while twenty clients that stay and twenty that come anew for every transaction
//! write, every secret that gatepost lives by is replaced. No transaction fails, every commit is on
//! record, and no login is left behind.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::certificates::replace;
use crate::harness::journal::{committed, of_event, records_of};
use crate::harness::world::World;
use crate::harness::{full, wait_for};

const CLIENTS: &str = "20";
/// With `GATEPOST_TEST_FULL` set, the larger number.
const ROTATIONS: usize = 3;
const ROTATIONS_FULL: usize = 10;
/// What both kinds of clients must have written between two rotations.
const STEP: usize = 20;
/// Of those who stay, transactions a second, so that the others get their turn.
const RATE: &str = "200";

/// A block of two statements, by clients that stay.
const STAYING: &str = "\\set aid random(1, 10000)
BEGIN;
INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES (1, 1, :aid, 1);
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
COMMIT;
";

/// One statement that commits by itself, by clients that connect for it.
const COMING: &str = "\\set aid random(1, 10000)
INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES (2, 1, :aid, 2);
";

fn rotations() -> usize {
    if full() { ROTATIONS_FULL } else { ROTATIONS }
}

/// pgbench twice, until it is told to end.
struct Load {
    staying: Child,
    coming: Child,
}

impl Load {
    /// `modes` are pgbench's protocols, of those who stay and of those who come.
    fn start(world: &World, modes: [&str; 2]) -> Self {
        let caller = world.consumer();
        let start = |name: &str, script: &str, mode: &str, more: &[&str]| {
            let file = world.path(name);
            std::fs::write(&file, script).unwrap();
            let mut pgbench = world.pgbench(&caller, &["--client", CLIENTS, "--protocol", mode]);
            pgbench.args(["--time", "3600", "--file"]).arg(file).args(more);
            pgbench.stdout(Stdio::piped()).stderr(Stdio::piped());
            pgbench.spawn().unwrap()
        };
        let [staying, coming] = modes;
        Self {
            staying: start("staying.sql", STAYING, staying, &["--jobs", "2", "--rate", RATE]),
            // A job opens one connection at a time.
            coming: start("coming.sql", COMING, coming, &["--jobs", "5", "--connect"]),
        }
    }

    /// Waits until both have gone on for a while.
    fn goes_on(&mut self, world: &World) {
        let begin = written(world);
        wait_for("the load to go on", || {
            for pgbench in [&mut self.staying, &mut self.coming] {
                assert!(pgbench.try_wait().unwrap().is_none(), "pgbench ended early");
            }
            let now = written(world);
            let far = begin.iter().zip(now).all(|(begin, now)| now >= begin + STEP);
            far.then_some(())
        });
    }

    /// Ends both as their own clock would, and returns what they counted.
    fn end(self) -> [usize; 2] {
        [self.staying, self.coming].map(|pgbench| {
            let id = pgbench.id().to_string();
            let told = Command::new("/bin/sh")
                .args(["-c", "kill -s ALRM \"$1\"", "sh", &id])
                .status();
            assert!(told.unwrap().success());
            let output = pgbench.wait_with_output().unwrap();
            let out = String::from_utf8_lossy(&output.stdout);
            let err = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{out}\n{err}");
            assert!(out.contains("number of failed transactions: 0 "), "{out}\n{err}");
            let counted = out.lines().find_map(|line| {
                let count = line.strip_prefix("number of transactions actually processed: ")?;
                count.trim().parse().ok()
            });
            counted.unwrap_or_else(|| panic!("{out}\n{err}"))
        })
    }
}

/// Transactions of those who stay and of those who come, as the database has them.
fn written(world: &World) -> [usize; 2] {
    let counts = world.sql(
        "SELECT count(*) FILTER (WHERE delta = 1), count(*) FILTER (WHERE delta = 2) FROM pgbench_history",
    );
    let (staying, coming) = counts.split_once('|').unwrap();
    [staying, coming].map(|count| count.parse().unwrap())
}

/// How often this was rotated, as the journal has it.
fn rotated(world: &World, what: &str) -> usize {
    let rotated = records_of(&world.path("audit"), "secret.rotated").into_iter();
    rotated.filter(|it| it["detail"]["what"] == what).count()
}

fn rotate_logins(world: &World) -> Result<Value, String> {
    let said = world.gatepost(&["rotate", "--logins", "--config", "gatepost.yaml", "--json"]);
    if said.good {
        Ok(serde_json::from_str(&said.out).unwrap())
    } else {
        Err(said.err)
    }
}

/// Rotates again and again under load, and looks at what the load left.
fn under_load(modes: [&'static str; 2], mut rotate: impl FnMut(&World, usize)) -> World {
    let mut world = World::without_proxy(15);
    world.config.max_connections = 60;
    world.sql("INSERT INTO pgbench_accounts SELECT a, 1, 0, '' FROM generate_series(1, 10000) AS a");
    world.serve();
    let [staying, coming] = modes;
    let loads = if full() {
        vec![[staying, coming], [coming, staying]]
    } else {
        vec![[staying, coming]]
    };
    let (mut counted, mut round) = ([0, 0], 0);
    for modes in loads {
        let mut load = Load::start(&world, modes);
        for _ in 0..rotations() {
            load.goes_on(&world);
            rotate(&world, round);
            round += 1;
            // One that those who stay hold, and the current one.
            wait_for("the end of old logins", || {
                (world.logins().len() <= 2).then_some(())
            });
        }
        load.goes_on(&world);
        for (all, these) in counted.iter_mut().zip(load.end()) {
            *all += these;
        }
    }
    assert_eq!(written(&world), counted);
    let sum = world.sql("SELECT sum(abalance) FROM pgbench_accounts");
    assert_eq!(sum, counted[0].to_string());
    let records = world.settled();
    let rows = world.sql("SELECT xmin::text FROM pgbench_history");
    let rows: BTreeSet<u64> = rows.lines().map(|id| id.parse().unwrap()).collect();
    assert_eq!(rows.len(), counted.iter().sum::<usize>());
    assert!(committed(&records) == rows, "journal and tables differ");
    wait_for("the end of old logins", || {
        (world.logins().len() <= 1).then_some(())
    });
    world.stop_proxy();
    assert_eq!(world.logins(), Vec::<String>::new());
    world.verify_journal();
    world
}

#[test]
fn every_login_is_replaced_and_no_transaction_fails() {
    let mut seen = BTreeSet::new();
    let world = under_load(["prepared", "simple"], |world, _| {
        seen.extend(world.logins());
        let told = rotate_logins(world).unwrap();
        let one = &told["rotated"][0];
        assert_eq!(one["target"], "orders");
        // It serves one identity; whether it was in use in this moment is chance.
        let all = one["replaced"].as_u64().unwrap() + one["dropped"].as_u64().unwrap();
        assert_eq!(all, 1, "{told}");
        seen.extend(world.logins());
    });
    let records = world.records();
    let minted = of_event(&records, "login.minted").len();
    assert!(seen.len() > rotations(), "{seen:?}");
    assert!(
        minted <= rotated(&world, "login") + 1,
        "{minted} logins minted for {} rotations",
        rotated(&world, "login")
    );
    assert_eq!(of_event(&records, "login.dropped").len(), minted);
}

#[test]
fn the_brokers_password_changes_and_no_transaction_fails() {
    let world = under_load(["simple", "prepared"], |world, round| {
        let before = rotated(world, "broker_password");
        let end_connections = || {
            world.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gatepost_broker'",
            );
        };
        world.sql(&format!("ALTER ROLE gatepost_broker PASSWORD 'secret {round}'"));
        if round % 2 == 0 {
            // Until the file is there, the broker cannot come back.
            end_connections();
        }
        replace(&world.path("broker-password"), &format!("secret {round}\n"));
        wait_for("the new password", || {
            (rotated(world, "broker_password") == before + 1).then_some(())
        });
        if round % 2 == 1 {
            end_connections();
        }
        // It mints by the new one. Whoever asks in the moment in which it has no connection is told so.
        wait_for("the next generation", || rotate_logins(world).ok());
    });
    assert!(!world.log().contains("secret 0"));
}

#[test]
fn certificates_are_reissued_and_no_transaction_fails() {
    under_load(["prepared", "simple"], |world, round| {
        let sides = ["server_certificate", "client_certificate"];
        let before = sides.map(|side| rotated(world, side));
        world.reissue("server");
        world.reissue("client");
        if round % 2 == 0 {
            world.tell_proxy_to_reload();
        }
        wait_for("both certificates", || {
            let now = sides.map(|side| rotated(world, side));
            now.iter()
                .zip(before)
                .all(|(now, before)| *now > before)
                .then_some(())
        });
        wait_for("the new certificate to be shown", || {
            (world.certificate_shown() == world.certificate_on_disk("server")).then_some(())
        });
    });
}

/// A folder as Kubernetes mounts a secret: its files are links into a folder that is a link itself, and
/// that one is swapped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn swap(&self, version: &str, files: &[(&str, &str)]) {
        use std::os::unix::fs::symlink;
        let (Self(folder), data) = (self, self.0.join("..data"));
        let old = std::fs::read_link(&data).ok();
        std::fs::create_dir_all(folder.join(version)).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(version).join(name), text).unwrap();
            if old.is_none() {
                symlink(std::path::Path::new("..data").join(name), folder.join(name)).unwrap();
            }
        }
        symlink(version, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), &data).unwrap();
        if let Some(old) = old {
            std::fs::remove_dir_all(folder.join(old)).unwrap();
        }
    }
}

#[test]
fn a_mounted_secret_that_is_swapped_by_its_link_is_noticed() {
    let mut world = World::without_proxy(15);
    let mounted = Mounted(world.path("mounted"));
    mounted.swap("..first", &[("broker-password", "broker secret")]);
    world.config.broker_password_file = "mounted/broker-password";
    world.serve();
    world.psql(&world.consumer(), "SELECT 1").well();
    world.sql("ALTER ROLE gatepost_broker PASSWORD 'next secret'");
    mounted.swap("..second", &[("broker-password", "next secret")]);
    wait_for("the new password", || {
        (rotated(&world, "broker_password") == 1).then_some(())
    });
    wait_for("the next generation", || rotate_logins(&world).ok());
    world.psql(&world.consumer(), "SELECT 1").well();
    world.stop_proxy();
    assert_eq!(world.logins(), Vec::<String>::new());
}
