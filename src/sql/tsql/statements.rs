//! Where the statements of a batch begin, and of which kind they are. Semicolons are optional in
//! Transact-SQL, so this goes by the words with which statements begin: right for what people write,
//! and nothing but the record depends on it.

use std::ops::Range;

use crate::sql::kind::Kind;
use crate::sql::tsql::call::{Exec, exec_at, is_bare_call};
use crate::sql::tsql::lexer::{LOWERED_BYTES, Token, TokenKind};
use crate::sql::tsql::transaction::is_module;

/// Statements of one text that are told apart; what is behind the last belongs to it.
pub const STATEMENTS_MAX: usize = 1_000;

/// One statement of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub kind: Kind,
    /// Where it stands in the text, in bytes.
    pub range: Range<usize>,
}

/// Reserved words that begin or divide statements, sorted. None of them can be a name without brackets.
const KEYWORDS: [&str; 54] = [
    "alter",
    "backup",
    "begin",
    "break",
    "bulk",
    "checkpoint",
    "close",
    "commit",
    "continue",
    "create",
    "dbcc",
    "deallocate",
    "declare",
    "delete",
    "deny",
    "drop",
    "dump",
    "else",
    "end",
    "exec",
    "execute",
    "fetch",
    "from",
    "goto",
    "grant",
    "if",
    "insert",
    "into",
    "kill",
    "load",
    "merge",
    "open",
    "print",
    "raiserror",
    "readtext",
    "reconfigure",
    "restore",
    "return",
    "revert",
    "revoke",
    "rollback",
    "save",
    "select",
    "set",
    "setuser",
    "shutdown",
    "truncate",
    "update",
    "updatetext",
    "use",
    "waitfor",
    "while",
    "with",
    "writetext",
];

/// Is this a word that cannot be a name?
pub(super) fn is_keyword(token: &Token<'_>) -> bool {
    KEYWORDS
        .binary_search(&token.lowered(&mut [0; LOWERED_BYTES]))
        .is_ok()
}

/// The statement that is being read.
#[derive(Debug)]
struct Open {
    kind: Kind,
    start: usize,
    end: usize,
    /// The word with which it begins, as far as it matters behind it.
    head: Head,
    /// It has what its head waits for: a body for INSERT and WITH, a SET for UPDATE, a TO or ON for GRANT.
    fulfilled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Insert,
    Update,
    Merge,
    With,
    Grant,
    Alter,
    /// IF and WHILE, until the statement that they govern.
    Condition,
    Other,
}

/// The statements in order.
pub(super) fn split(words: &[Token<'_>]) -> Vec<Statement> {
    let first = words.iter().position(|token| token.kind != TokenKind::Semicolon);
    let (Some(first), Some(last)) = (first, words.last()) else {
        return Vec::new();
    };
    if is_module(words) {
        let start = words.get(first).map_or(0, |token| token.start);
        return vec![Statement {
            kind: Kind::Definition,
            range: start..last.end(),
        }];
    }
    let mut split = Split::default();
    for at in first..words.len() {
        split.see(words, at, at == first);
    }
    split.close();
    split.found
}

#[derive(Debug, Default)]
struct Split {
    found: Vec<Statement>,
    open: Option<Open>,
    depth: usize,
    cases: usize,
}

impl Split {
    fn see(&mut self, words: &[Token<'_>], at: usize, first: bool) {
        let Some(token) = words.get(at) else { return };
        self.depth += usize::from(token.kind == TokenKind::Open);
        self.depth -= usize::from(token.kind == TokenKind::Close && self.depth > 0);
        if token.kind == TokenKind::Semicolon && self.depth == 0 {
            return self.close();
        }
        if token.kind == TokenKind::Open && self.open.is_none() {
            // `(SELECT …) UNION …`.
            let mut inner = words
                .iter()
                .skip(at)
                .filter(|token| token.kind != TokenKind::Open);
            let select = inner.next().is_some_and(|token| token.is("select"));
            let kind = if select { Kind::Select } else { Kind::Unknown };
            self.begin(token, kind, Head::Other);
        } else if token.is("case") {
            self.cases += 1;
        } else if token.is("end") && self.cases > 0 {
            self.cases -= 1;
        } else if self.depth == 0 && self.cases == 0 {
            if is_divider(words, at) {
                return self.close();
            }
            let begins = if first && is_bare_call(words, at) && !is_only_first(token) {
                Some((Kind::Execute, Head::Other))
            } else {
                self.begins(words, at)
            };
            match begins {
                Some((kind, head)) => self.begin(token, kind, head),
                None if self.open.is_none() => self.begin(token, Kind::Unknown, Head::Other),
                None => self.within(words, at),
            }
        }
        if let Some(open) = &mut self.open {
            open.end = token.end();
        }
    }

    fn begin(&mut self, token: &Token<'_>, kind: Kind, head: Head) {
        if self.found.len() + 1 >= STATEMENTS_MAX && self.open.is_some() {
            return;
        }
        self.close();
        self.open = Some(Open {
            kind,
            start: token.start,
            end: token.end(),
            head,
            fulfilled: false,
        });
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take()
            && self.found.len() < STATEMENTS_MAX
        {
            self.found.push(Statement {
                kind: open.kind,
                range: open.start..open.end,
            });
        }
    }

    /// A word inside of a statement that changes how it goes on.
    fn within(&mut self, words: &[Token<'_>], at: usize) {
        let (Some(open), Some(token)) = (&mut self.open, words.get(at)) else {
            return;
        };
        let fulfils = match open.head {
            Head::Insert => token.is_any(&["select", "values", "exec", "execute", "default"]),
            Head::Update => token.is("set"),
            Head::With => token.is_any(&["select", "insert", "update", "delete", "merge"]),
            Head::Grant => token.is_any(&["to", "on"]),
            Head::Merge | Head::Alter | Head::Condition | Head::Other => false,
        };
        if fulfils && open.head == Head::With {
            let kind = begin_kind(words, at);
            open.kind = kind.map_or(Kind::Unknown, |begun| begun.0);
            open.head = kind.map_or(Head::Other, |begun| begun.1);
        } else if fulfils {
            open.fulfilled = true;
        } else if token.is("into") && open.kind == Kind::Select {
            // SELECT … INTO makes a table.
            open.kind = Kind::Definition;
        } else if token.is("cursor") && open.kind == Kind::Set {
            open.kind = Kind::Declare;
        }
    }

    /// Does a new statement begin at this word?
    fn begins(&self, words: &[Token<'_>], at: usize) -> Option<(Kind, Head)> {
        let begun = begin_kind(words, at)?;
        let token = words.get(at)?;
        let Some(open) = &self.open else {
            return Some(begun);
        };
        let before = at.checked_sub(1).and_then(|at| words.get(at));
        let after = |list: &[&str]| before.is_some_and(|before| before.is_any(list) || before.symbol(','));
        let goes_on = match open.head {
            Head::With => !matches!(begun.0, Kind::Begin | Kind::Commit | Kind::Rollback),
            Head::Grant => !open.fulfilled,
            Head::Insert if !open.fulfilled => token.is_any(&["select", "exec", "execute", "with"]),
            Head::Update if !open.fulfilled => token.is("set"),
            Head::Merge => after(&["then"]) || (token.is("set") && after(&["update"])),
            Head::Alter => {
                !after(&[]) && token.is_any(&["alter", "drop", "set", "with"])
                    || token.is_any(&["enable", "disable"])
            }
            Head::Insert | Head::Update | Head::Condition | Head::Other => false,
        };
        let clause = after(&[])
            || (token.is("select") && after(&["union", "except", "intersect", "all", "as", "for"]))
            || (token.is("update") && after(&["for"]))
            || (token.is("bulk") && after(&["insert"]))
            || (token.is("insert") && after(&["bulk"]))
            || (token.is("fetch") && after(&["row", "rows"]))
            || (token.is_any(&["exec", "execute"]) && after(&["with"]))
            // `ON DELETE SET NULL ON UPDATE CASCADE`.
            || (open.kind == Kind::Definition
                && ((token.is_any(&["delete", "update"]) && after(&["on"]))
                    || (token.is("set") && after(&["delete", "update"]))));
        let hint = token.is("with") || is_only_first(token);
        (!goes_on && !clause && !hint).then_some(begun)
    }
}

/// BEGIN and END of blocks, ELSE, and labels stand between statements.
fn is_divider(words: &[Token<'_>], at: usize) -> bool {
    let next = |list: &[&str]| words.get(at + 1).is_some_and(|next| next.is_any(list));
    let Some(token) = words.get(at) else { return false };
    if token.is("begin") {
        return !next(&["tran", "transaction", "distributed", "dialog", "conversation"]);
    }
    token.is("else")
        || (token.is("end") && !next(&["conversation"]))
        || token.is_any(&["try", "catch"]) && before_is(words, at, &["begin", "end"])
}

fn before_is(words: &[Token<'_>], at: usize, list: &[&str]) -> bool {
    let before = at.checked_sub(1).and_then(|at| words.get(at));
    before.is_some_and(|before| before.is_any(list))
}

/// Words that are not reserved: they begin a statement only where none is open.
fn is_only_first(token: &Token<'_>) -> bool {
    token.is_any(&[
        "throw", "receive", "send", "get", "move", "enable", "disable", "add",
    ])
}

/// The kind of the statement that this word begins, if it can begin one.
fn begin_kind(words: &[Token<'_>], at: usize) -> Option<(Kind, Head)> {
    let token = words.get(at)?;
    let next = |word: &str| words.get(at + 1).is_some_and(|next| next.is(word));
    let other = |kind| Some((kind, Head::Other));
    match token.lowered(&mut [0; LOWERED_BYTES]) {
        "select" => other(Kind::Select),
        "with" => Some((Kind::With, Head::With)),
        "insert" if next("bulk") => other(Kind::CopyIn),
        "insert" => Some((Kind::Insert, Head::Insert)),
        "update" if next("statistics") => other(Kind::Maintenance),
        "update" => Some((Kind::Update, Head::Update)),
        "delete" => other(Kind::Delete),
        "merge" => Some((Kind::Merge, Head::Merge)),
        "bulk" => other(Kind::CopyServer),
        "begin" if next("tran") || next("transaction") || next("distributed") => other(Kind::Begin),
        "commit" => other(Kind::Commit),
        // Whether the name behind it is a savepoint's is not to be told.
        "rollback" => other(Kind::Rollback),
        "save" => other(Kind::Savepoint),
        "exec" | "execute" => match exec_at(words, at)? {
            Exec::Call => other(Kind::Execute),
            Exec::As => other(Kind::Set),
            Exec::Neither => None,
        },
        "set" | "setuser" | "revert" => other(Kind::Set),
        "use" => other(Kind::Use),
        "declare" => other(Kind::Declare),
        "open" | "fetch" => other(Kind::Fetch),
        "close" => other(Kind::CloseCursor),
        "deallocate" => other(Kind::Deallocate),
        "print" | "raiserror" => other(Kind::Print),
        "if" | "while" => Some((Kind::Control, Head::Condition)),
        "goto" | "return" | "break" | "continue" | "throw" | "waitfor" => other(Kind::Control),
        "grant" | "revoke" | "deny" => Some((Kind::Definition, Head::Grant)),
        "alter" => Some((Kind::Definition, Head::Alter)),
        "create" | "drop" | "truncate" | "enable" | "disable" | "add" | "updatetext" | "writetext" => {
            other(Kind::Definition)
        }
        "dbcc" | "backup" | "restore" | "checkpoint" | "kill" | "shutdown" | "reconfigure" | "dump"
        | "load" => other(Kind::Maintenance),
        "readtext" => other(Kind::Select),
        // Conversations of the service broker, and its queues.
        "begin" | "end" | "send" | "receive" | "get" | "move" => other(Kind::Notify),
        _ => None,
    }
}

#[cfg(test)]
pub(super) fn keywords_are_sorted() -> bool {
    KEYWORDS.is_sorted()
}
