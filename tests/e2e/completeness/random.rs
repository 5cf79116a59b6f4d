//! Sessions that nobody thought of: statements in any order, in and out of blocks, alone and several in a
//! message, by both protocols, with errors among them. Every text bears a mark of its own, as its
//! correlation id and in the row that it writes.

use std::fmt::Write as _;

use super::raw::Group;
use crate::harness::plain::Plain;
use crate::harness::programs::Caller;
use crate::harness::wal::Balance;
use crate::harness::world::World;

/// Groups that one session sends.
const GROUPS: u64 = 150;
/// Messages of one group, statements of one string, and groups that are sent without waiting.
const LENGTH_MAX: u64 = 6;

/// SplitMix64: the same seed, the same session.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn one_of(&mut self, texts: &[&'static str]) -> &'static str {
        texts[usize::try_from(self.roll(texts.len() as u64)).unwrap()]
    }
}

/// `$` stands for the mark.
const WRITES: [&str; 10] = [
    "INSERT INTO work (mark) VALUES ('$')",
    "INSERT INTO work (mark) VALUES ('$') RETURNING mark",
    "INSERT INTO work (mark) SELECT '$' FROM generate_series(1, 3)",
    "WITH w AS (INSERT INTO work (mark) VALUES ('$') RETURNING 1) SELECT count(*) FROM w",
    "SELECT writes('$')",
    "UPDATE work SET n = NULL WHERE mark IN (SELECT mark FROM work LIMIT 1)",
    "DELETE FROM work WHERE false",
    "SELECT count(*) FROM (SELECT 1 FROM work LIMIT 1 FOR UPDATE) AS l",
    "CREATE TEMP TABLE IF NOT EXISTS t (a int)",
    "EXPLAIN ANALYZE INSERT INTO work (mark) VALUES ('$')",
];
const READS: [&str; 8] = [
    "SELECT count(*) FROM work",
    "SELECT generate_series(1, 5)",
    "VALUES (1), (2)",
    "SHOW search_path",
    "SET LOCAL application_name = 'x'",
    "DECLARE c CURSOR FOR SELECT generate_series(1, 9)",
    "FETCH 2 FROM c",
    "",
];
const ENDS: [&str; 14] = [
    "BEGIN",
    "BEGIN",
    "START TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "COMMIT",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "LOCK TABLE work IN ROW EXCLUSIVE MODE",
];
const ERRORS: [&str; 4] = [
    "INSERT INTO work (mark, n) VALUES ('$', 13)",
    // Fails only when the transaction commits: there is a row with this number.
    "INSERT INTO work (mark, n) VALUES ('$', 7)",
    "SELECT 1 / 0",
    "INSERT INTO nothing VALUES ('$')",
];
/// Their records are partial, that of what cannot be read among them.
const OWN: [&str; 8] = [
    "SELEC 1",
    "DO 'BEGIN INSERT INTO work (mark) VALUES (''$''); END'",
    "DO 'BEGIN INSERT INTO work (mark) VALUES (''$''); COMMIT; INSERT INTO work (mark) VALUES (''$''); END'",
    "CALL commits('$')",
    "CALL ends_with_commit('$')",
    "NOTIFY raw",
    "SELECT pg_notify('raw', '$')",
    "DISCARD PLANS",
];

struct Story {
    dice: Dice,
    name: String,
    texts: u64,
    /// Does it send what commits by itself?
    own: bool,
    /// What was sent, for whoever has to find out what went wrong.
    told: String,
}

impl Story {
    fn statement(&mut self) -> String {
        let text = match self.dice.roll(40) {
            0..=17 => self.dice.one_of(&WRITES),
            18..=23 => self.dice.one_of(&READS),
            24..=36 => self.dice.one_of(&ENDS),
            37..=38 if self.own => self.dice.one_of(&OWN),
            39 => self.dice.one_of(&ERRORS),
            _ => self.dice.one_of(&WRITES),
        };
        self.texts += 1;
        let mark = format!("{}-{}", self.name, self.texts);
        let text = text.replace('$', &mark);
        format!("{text} /*correlation_id='{mark}'*/")
    }

    /// Up to a Sync, or one Query.
    fn group(&mut self, group: Group) -> Group {
        match self.dice.roll(14) {
            // An error leaves a failed block behind, in which nothing happens until it ends.
            10..=13 => {
                let end = self.dice.one_of(&["COMMIT", "ROLLBACK", "BEGIN"]);
                writeln!(self.told, "Q {end}").unwrap();
                group.query(end)
            }
            0..=2 => {
                let text = self.statement();
                writeln!(self.told, "Q {text}").unwrap();
                group.query(&text)
            }
            3..=4 => {
                let count = 2 + self.dice.roll(LENGTH_MAX - 1);
                let texts: Vec<_> = (0..count).map(|_| self.statement()).collect();
                let text = texts.join("; ");
                writeln!(self.told, "Q {text}").unwrap();
                group.query(&text)
            }
            _ => self.extended(group),
        }
    }

    fn extended(&mut self, mut group: Group) -> Group {
        for _ in 0..=self.dice.roll(LENGTH_MAX) {
            let text = self.statement();
            writeln!(self.told, "E {text}").unwrap();
            group = match self.dice.roll(8) {
                0 => group.portal("p", &text, 2).more("p", 1).close("p"),
                1 => group
                    .prepare("named", &text)
                    .execute("named")
                    .close_statement("named"),
                2 => {
                    let copy = format!(
                        "COPY work (mark) FROM STDIN /*correlation_id='{}-{}'*/",
                        self.name, self.texts
                    );
                    writeln!(self.told, "E {copy}").unwrap();
                    let row = format!("{}-{}", self.name, self.texts);
                    group.run(&text).run(&copy).data(&[&row])
                }
                3 => group.run(&text).flush(),
                _ => group.run(&text),
            };
        }
        writeln!(self.told, "Sync").unwrap();
        group.sync()
    }

    fn run(&mut self, session: &mut Plain) {
        let mut sent = 0;
        while sent < GROUPS {
            let together = 1 + self.dice.roll(3);
            let mut group = Group::new();
            for _ in 0..together {
                group = self.group(group);
            }
            session.exchange(&group, usize::try_from(together).unwrap());
            sent += together;
        }
        session.query("ROLLBACK");
        // Else gatepost drops it, in a transaction of its own, before it lends the connection again.
        session.query("DROP TABLE IF EXISTS pg_temp.t").well();
    }
}

/// Half of the sessions send nothing whose records may be partial: for them every commit has its name.
pub(super) fn sessions(world: &World, caller: &Caller, count: u64) {
    world.sql("INSERT INTO work (mark, n) VALUES ('seven', 7)");
    let seed = std::env::var("GATEPOST_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut compared = 0;
    for seed in seed..seed + count {
        let mut story = Story {
            dice: Dice(seed),
            name: format!("random-{seed}"),
            texts: 0,
            own: seed % 2 == 0,
            told: String::new(),
        };
        let since = world.here_in_wal();
        let mut session = world.plain(caller);
        story.run(&mut session);
        drop(session);
        let balance = world.balance(&since);
        let commits = balance.commits.len();
        eprintln!("--- random statements, seed {seed}: {commits} commits");
        let right = balance.lies.is_empty() && is_excused(&balance, story.own);
        if !right {
            // Too long for a terminal.
            let kept = std::env::temp_dir().join(format!("gatepost-random-{seed}.sql"));
            std::fs::write(&kept, &story.told).unwrap();
            panic!("seed {seed}, told in {}: {balance}", kept.display());
        }
        compared += commits;
    }
    // A single session may be one long transaction.
    let enough = 15 * usize::try_from(count).unwrap();
    assert!(compared > enough, "{compared} commits in {count} sessions");
}

/// Rows are compared with their records already. What is left are commits that wrote no row of their own.
fn is_excused(balance: &Balance, own: bool) -> bool {
    let partial: usize = balance.partial.values().sum();
    if own {
        balance.unnamed.len() <= 2 * partial
    } else {
        balance.unnamed.is_empty() && partial == 0
    }
}
