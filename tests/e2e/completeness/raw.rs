//! What no driver sends, message by message: one class after the other, with what the write-ahead log and
//! the journal must say of it.

use gatepost::wire::pg::from_client::{
    Described, put_bind, put_close, put_execute, put_flush, put_parse, put_query, put_sync,
};

use crate::harness::plain::{Answer, Plain};
use crate::harness::programs::Caller;
use crate::harness::wal::brief;
use crate::harness::world::World;

/// A group of messages as they go over the wire.
#[derive(Clone, Debug, Default)]
pub(super) struct Group(pub(super) Vec<u8>);

impl Group {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Parse, Bind and Execute.
    pub(super) fn run(mut self, sql: &str) -> Self {
        put_parse(&mut self.0, b"", sql.as_bytes());
        put_bind(&mut self.0, b"", b"");
        put_execute(&mut self.0, b"", 0);
        self
    }

    /// Under a name, which is not executed yet.
    pub(super) fn prepare(mut self, name: &str, sql: &str) -> Self {
        put_parse(&mut self.0, name.as_bytes(), sql.as_bytes());
        self
    }

    pub(super) fn execute(mut self, name: &str) -> Self {
        put_bind(&mut self.0, b"", name.as_bytes());
        put_execute(&mut self.0, b"", 0);
        self
    }

    /// A portal of this name, executed by parts of so many rows.
    pub(super) fn portal(mut self, name: &str, sql: &str, rows: i32) -> Self {
        put_parse(&mut self.0, b"", sql.as_bytes());
        put_bind(&mut self.0, name.as_bytes(), b"");
        put_execute(&mut self.0, name.as_bytes(), rows);
        self
    }

    pub(super) fn more(mut self, portal: &str, rows: i32) -> Self {
        put_execute(&mut self.0, portal.as_bytes(), rows);
        self
    }

    pub(super) fn close(mut self, portal: &str) -> Self {
        put_close(&mut self.0, Described::Portal, portal.as_bytes());
        self
    }

    pub(super) fn close_statement(mut self, name: &str) -> Self {
        put_close(&mut self.0, Described::Statement, name.as_bytes());
        self
    }

    /// Rows of a COPY, and its end.
    pub(super) fn data(mut self, rows: &[&str]) -> Self {
        for row in rows {
            let row = format!("{row}\n");
            self.0.push(b'd');
            self.0.extend(u32::try_from(row.len() + 4).unwrap().to_be_bytes());
            self.0.extend(row.as_bytes());
        }
        self.0.extend(b"c\0\0\0\x04");
        self
    }

    pub(super) fn flush(mut self) -> Self {
        put_flush(&mut self.0);
        self
    }

    pub(super) fn sync(mut self) -> Self {
        put_sync(&mut self.0);
        self
    }

    pub(super) fn query(mut self, sql: &str) -> Self {
        put_query(&mut self.0, sql.as_bytes());
        self
    }

    /// A call of a function by its number, without arguments.
    pub(super) fn call(mut self, function: u32) -> Self {
        self.0.push(b'F');
        self.0.extend(14_u32.to_be_bytes());
        self.0.extend(function.to_be_bytes());
        // No formats, no arguments, the result as text.
        self.0.extend([0, 0, 0, 0, 0, 0]);
        self
    }
}

impl Plain {
    /// Sends a group in one piece; the answers, one for each ReadyForQuery.
    pub(super) fn exchange(&mut self, group: &Group, answers: usize) -> Vec<Answer> {
        self.send(&group.0);
        (0..answers).map(|_| self.answer()).collect()
    }
}

/// A class of what can be sent.
struct Class {
    what: &'static str,
    group: Group,
    /// How many times the server says that it is ready.
    answers: usize,
    /// How many transactions it commits, and how many of them no record names.
    commits: usize,
    unnamed: usize,
    /// Does a record say that there may be more than it names?
    partial: bool,
}

fn class(what: &'static str, group: Group, answers: usize, commits: usize) -> Class {
    Class {
        what,
        group,
        answers,
        commits,
        unnamed: 0,
        partial: false,
    }
}

/// A class whose records are partial.
fn partly(what: &'static str, group: Group, answers: usize, [commits, unnamed]: [usize; 2]) -> Class {
    Class {
        what,
        group,
        answers,
        commits,
        unnamed,
        partial: true,
    }
}

const I: &str = "INSERT INTO work (mark) VALUES ('raw')";

/// What ends, or does not end, what nobody began.
fn ends(major: u32) -> Vec<Class> {
    let new = Group::new;
    vec![
        class(
            "an insert and its COMMIT that nobody began",
            new().run(I).run("COMMIT").sync(),
            1,
            1,
        ),
        class(
            "more behind that COMMIT",
            new().run(I).run("COMMIT").run(I).sync(),
            1,
            2,
        ),
        // PostgreSQL 18 makes a block of the group, and prepares it; those before answer ROLLBACK and commit.
        class(
            "PREPARE TRANSACTION that nobody began",
            new().run(I).run("PREPARE TRANSACTION 'x'").sync(),
            1,
            usize::from(major < 18),
        ),
        class(
            "ROLLBACK that nobody began",
            new().run(I).run("ROLLBACK").run(I).sync(),
            1,
            1,
        ),
        class(
            "BEGIN behind an insert",
            new().run(I).run("BEGIN").run(I).run("COMMIT").sync(),
            1,
            1,
        ),
        class(
            "two blocks in one group",
            new()
                .run("BEGIN")
                .run(I)
                .run("COMMIT")
                .run("BEGIN")
                .run(I)
                .run("COMMIT")
                .sync(),
            1,
            2,
        ),
        class(
            "a chain in one group",
            new()
                .run("BEGIN")
                .run(I)
                .run("COMMIT AND CHAIN")
                .run(I)
                .run("COMMIT")
                .sync(),
            1,
            2,
        ),
    ]
}

/// Several transactions in one group.
fn chains() -> Vec<Class> {
    let new = Group::new;
    vec![
        class(
            "a chain that goes on in the next group",
            new()
                .run("BEGIN")
                .run(I)
                .run("COMMIT AND CHAIN")
                .run(I)
                .sync()
                .run(I)
                .run("COMMIT")
                .sync(),
            2,
            2,
        ),
        class(
            "a rolled back chain in one group",
            new()
                .run("BEGIN")
                .run(I)
                .run("ROLLBACK AND CHAIN")
                .run(I)
                .run("COMMIT")
                .run(I)
                .sync(),
            1,
            2,
        ),
        partly(
            "two phases in one group",
            new()
                .run("BEGIN")
                .run(I)
                .run("PREPARE TRANSACTION 'raw'")
                .run(I)
                .sync()
                .run("ROLLBACK PREPARED 'raw'")
                .sync(),
            2,
            [1, 0],
        ),
        class(
            "groups without waiting",
            new().run(I).sync().run(I).sync().query(I).run(I).sync(),
            4,
            4,
        ),
        class(
            "a query behind a COMMIT without a Sync",
            new().run("BEGIN").run(I).run("COMMIT").query(I),
            1,
            2,
        ),
        class(
            "flushes in between",
            new().run(I).flush().run(I).flush().sync(),
            1,
            1,
        ),
    ]
}

/// Rows in parts, COPY, and what is sent without waiting.
fn parts() -> Vec<Class> {
    let new = Group::new;
    vec![
        class(
            "rows in parts, outside of a block",
            new()
                .portal(
                    "",
                    "INSERT INTO work (mark) SELECT 'raw' FROM generate_series(1, 5) RETURNING 1",
                    2,
                )
                .sync(),
            1,
            1,
        ),
        class(
            "rows in parts, in a block",
            new()
                .run("BEGIN")
                .portal(
                    "p",
                    "INSERT INTO work (mark) SELECT 'raw' FROM generate_series(1, 5) RETURNING 1",
                    2,
                )
                .sync()
                .more("p", 2)
                .sync()
                .close("p")
                .run("COMMIT")
                .sync(),
            3,
            1,
        ),
        class(
            "COPY whose rows come before its answer",
            new()
                .run("COPY work (mark) FROM STDIN")
                .data(&["raw", "raw"])
                .sync(),
            1,
            1,
        ),
        class(
            "COPY in a block, all at once",
            new()
                .run("BEGIN")
                .run("COPY work (mark) FROM STDIN")
                .data(&["raw"])
                .run(I)
                .run("COMMIT")
                .sync(),
            1,
            1,
        ),
        class(
            "COPY by a query, all at once",
            new().query("COPY work (mark) FROM STDIN").data(&["raw"]),
            1,
            1,
        ),
    ]
}

/// Names that may mean something else by now.
fn names(writes: u32) -> Vec<Class> {
    let new = Group::new;
    vec![
        class(
            "a prepared COMMIT",
            new()
                .prepare("c", "COMMIT")
                .prepare("r", "ROLLBACK")
                .run("BEGIN")
                .run(I)
                .execute("c")
                .sync(),
            1,
            1,
        ),
        partly(
            "a prepared ROLLBACK whose name may have been taken",
            new().run("DISCARD PLANS").run("BEGIN").run(I).execute("r").sync(),
            1,
            [0, 0],
        ),
        partly(
            "a prepared COMMIT whose name may have been taken",
            new().run("DISCARD PLANS").run("BEGIN").run(I).execute("c").sync(),
            1,
            [1, 0],
        ),
        partly(
            "more behind a prepared COMMIT whose name may have been taken",
            new()
                .run("DISCARD PLANS")
                .run("BEGIN")
                .run(I)
                .execute("c")
                .run(I)
                .sync(),
            1,
            [2, 0],
        ),
        partly(
            "more behind a prepared ROLLBACK whose name may have been taken",
            new()
                .run("DISCARD PLANS")
                .run("BEGIN")
                .run(I)
                .execute("r")
                .run(I)
                .sync(),
            1,
            [1, 0],
        ),
        partly("a function call", new().call(writes), 1, [1, 1]),
        partly(
            "a function call in a block",
            new().query("BEGIN").call(writes).query("COMMIT"),
            3,
            [1, 0],
        ),
    ]
}

/// Calls, and what commits by itself.
fn calls(writes: u32, major: u32) -> Vec<Class> {
    let new = Group::new;
    vec![
        // PostgreSQL 18 loses what stands before the call, and fails the next command.
        if major < 18 {
            partly(
                "a function call behind an insert",
                new().run(I).call(writes).sync(),
                2,
                [1, 1],
            )
        } else {
            class("nothing", new().sync(), 1, 0)
        },
        partly(
            "NOTIFY behind an insert",
            new().run(I).run("NOTIFY raw").sync(),
            1,
            [1, 0],
        ),
        partly("NOTIFY alone", new().run("NOTIFY raw").sync(), 1, [1, 1]),
    ]
}

/// One session goes through all of them; after each, the write-ahead log is asked.
pub(super) fn classes(world: &World, caller: &Caller, major: u32) {
    let made = "CREATE FUNCTION writes_raw() RETURNS int LANGUAGE sql AS 'INSERT INTO work (mark) VALUES (''raw'') RETURNING 1'";
    world.sql(made);
    let writes: u32 = world.sql("SELECT 'writes_raw'::regproc::oid").parse().unwrap();
    let mut wrong = Vec::new();
    let lists = [
        ends(major),
        chains(),
        parts(),
        names(writes),
        calls(writes, major),
    ];
    for class in lists.into_iter().flatten() {
        let since = world.here_in_wal();
        let mut session = world.plain(caller);
        session.query("SET gatepost.correlation_id = 'raw'").well();
        if class.what.contains("name may have been taken") {
            let names = Group::new()
                .prepare("c", "COMMIT")
                .prepare("r", "ROLLBACK")
                .sync();
            session.exchange(&names, 1);
        }
        let answers = session.exchange(&class.group, class.answers);
        // It still answers, and nothing is left open.
        let after = session.query("SELECT 7");
        drop(session);
        let balance = world.balance(&since);
        let right = balance.commits.len() == class.commits
            && balance.unnamed.len() == class.unnamed
            && balance.partial.is_empty() != class.partial
            && balance.lies.is_empty()
            && after.rows == ["7"];
        if !right {
            let records: Vec<_> = balance.records.iter().map(brief).collect();
            wrong.push(format!(
                "{}: {balance}\n   {answers:?}\n   {records:#?}",
                class.what
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
