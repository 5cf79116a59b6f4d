//! One pass over a client's text: all that gatepost wants to know about it.

use crate::domain::correlation::Correlation;
use crate::sql::correlation::{self, SetCorrelation};
use crate::sql::escape;
use crate::sql::kind::{Kind, classify};
use crate::sql::lexer::{Lexer, Token, TokenKind};

/// Tokens of one statement that are kept for judging it. What decides the kind stands among the
/// first few; the bound keeps a text of millions of values from being held twice.
const TOKENS_KEPT_MAX: usize = 4_096;

/// Statements of one text that are told apart; behind that the text counts as unknown.
const STATEMENTS_MAX: usize = 10_000;

/// What one text (a Query or a Parse message) holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The kinds of the statements in order, without empty ones; empty for an empty text.
    pub kinds: Vec<Kind>,
    /// Where each of them starts in the text.
    pub starts: Vec<usize>,
    /// What the text attempts that is always refused.
    pub escape: Option<&'static str>,
    /// `SET gatepost.correlation_id`, in order.
    pub sets: Vec<SetCorrelation>,
    /// Correlation ids in comments.
    pub comments: Vec<Correlation>,
}

impl Reading {
    /// The kind of a text of one statement; several make `None`.
    pub fn single(&self) -> Option<Kind> {
        match self.kinds.as_slice() {
            [] => Some(Kind::Empty),
            [kind] => Some(*kind),
            _ => None,
        }
    }
}

/// Reads `text`; `backslash_escapes` when the session runs with `standard_conforming_strings` off.
pub fn read(text: &[u8], backslash_escapes: bool) -> Reading {
    let mut reading = Reading {
        kinds: Vec::new(),
        starts: Vec::new(),
        escape: None,
        sets: Vec::new(),
        comments: Vec::new(),
    };
    let mut words: Vec<Token<'_>> = Vec::new();
    let mut scan = Scan::default();
    for token in Lexer::new(text, backslash_escapes) {
        if token.kind == TokenKind::Comment {
            correlation::comment(token.bytes, &mut reading.comments);
        } else if scan.separates(&token) {
            finish(&mut reading, &mut words);
        } else if words.len() < TOKENS_KEPT_MAX {
            words.push(token);
        }
    }
    finish(&mut reading, &mut words);
    reading
}

fn finish(reading: &mut Reading, words: &mut Vec<Token<'_>>) {
    if words.is_empty() {
        return;
    }
    let cut_short = words.len() >= TOKENS_KEPT_MAX;
    let mut kind = classify(words);
    // A COPY or a DDL statement is told apart by words that may stand behind the kept ones.
    if cut_short && matches!(kind, Kind::CopyServer | Kind::Definition) {
        kind = Kind::Unknown;
    }
    if reading.kinds.len() < STATEMENTS_MAX {
        reading.kinds.push(kind);
        reading.starts.extend(words.first().map(|first| first.start));
    } else {
        reading.kinds.fill(Kind::Unknown);
    }
    reading.escape = reading.escape.or_else(|| escape::attempt(words));
    reading.sets.extend(correlation::set(words));
    words.clear();
}

/// Finds the semicolons that separate statements: those outside parentheses (CREATE RULE holds
/// statements in them) and outside an SQL-standard function body (`BEGIN ATOMIC … END`).
#[derive(Default)]
struct Scan {
    parentheses: usize,
    /// Depth of `BEGIN ATOMIC` and the `CASE`s inside it, all closed by `END`.
    bodies: usize,
    after_begin: bool,
}

impl Scan {
    fn separates(&mut self, token: &Token<'_>) -> bool {
        match token.kind {
            TokenKind::Open => self.parentheses += 1,
            TokenKind::Close => self.parentheses = self.parentheses.saturating_sub(1),
            TokenKind::Semicolon if self.parentheses == 0 && self.bodies == 0 => {
                *self = Self::default();
                return true;
            }
            TokenKind::Word => {
                if (self.after_begin && token.is("atomic")) || (self.bodies > 0 && token.is("case")) {
                    self.bodies += 1;
                } else if self.bodies > 0 && token.is("end") {
                    self.bodies -= 1;
                }
                self.after_begin = token.is("begin");
                return false;
            }
            TokenKind::Semicolon
            | TokenKind::QuotedWord
            | TokenKind::Text
            | TokenKind::Number
            | TokenKind::Parameter
            | TokenKind::Comment
            | TokenKind::Symbol => {}
        }
        self.after_begin = false;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::correlation::Reach;

    fn kinds(text: &str) -> Vec<Kind> {
        read(text.as_bytes(), false).kinds
    }

    #[test]
    fn kinds_by_their_leading_words() {
        use Kind::{
            Begin, Commit, CopyIn, CopyOut, CopyServer, Declare, DeclareHeld, Definition, Delete,
            EndPrepared, Insert, Maintenance, Notify, PrepareTransaction, Rollback, RollbackTo, Select, Set,
            Unknown, With,
        };
        let table = [
            ("SELECT 1", Select),
            ("/* hi */ select 1 -- x", Select),
            ("(select 1) union (select 2)", Select),
            (
                "with x as (insert into t values (1) returning *) select * from x",
                With,
            ),
            ("insert into t values (1)", Insert),
            ("delete from t", Delete),
            ("begin", Begin),
            ("start transaction read only", Begin),
            ("END", Commit),
            ("commit prepared 'x'", EndPrepared),
            ("rollback work to savepoint a", RollbackTo),
            ("rollback", Rollback),
            ("prepare transaction 'x'", PrepareTransaction),
            ("set local a.b = 'c'", Set),
            ("copy t from stdin", CopyIn),
            ("copy t (a, b) from stdin with (format csv)", CopyIn),
            ("copy (select 1 from stdin) to stdout", CopyOut),
            ("copy t from '/tmp/x'", CopyServer),
            ("create table t (a int)", Definition),
            ("create index concurrently i on t (a)", Maintenance),
            ("create database d", Maintenance),
            ("vacuum t", Maintenance),
            ("select pg_catalog.pg_notify('a', 'b')", Notify),
            ("declare c cursor for select 1", Declare),
            ("declare c scroll cursor with hold for select 1", DeclareHeld),
            ("declare c cursor without hold for select 1", Declare),
            ("frobnicate", Unknown),
        ];
        for (text, kind) in table {
            assert_eq!(kinds(text), [kind], "{text}");
        }
    }

    #[test]
    fn statements_are_counted_as_the_server_counts_them() {
        assert_eq!(kinds("").len(), 0);
        assert_eq!(kinds(" ; ;; -- x").len(), 0);
        assert_eq!(kinds("select 1;").len(), 1);
        assert_eq!(kinds("select 1; select ';'").len(), 2);
        assert_eq!(
            kinds("create rule r as on insert to t do also (select 1; select 2); select 3").len(),
            2
        );
        let body = "create function f() returns int begin atomic select case when true then 1 end; select 2; end; select 3";
        assert_eq!(kinds(body).len(), 2);
        assert_eq!(kinds("begin; insert into t values (1); commit").len(), 3);
    }

    #[test]
    fn escapes_are_seen_in_every_spelling() {
        let refused = [
            "set role postgres",
            "SET LOCAL ROLE x",
            "set session role x",
            "set \"role\" = 'x'",
            "set role to x",
            "set session authorization x",
            "set local session authorization default",
            "set session session authorization x",
            "set session_authorization = x",
            "/**/alter/**/role current_user password 'x'",
            "select 1; ALTER USER current_user SET search_path = x",
            "alter group g add user x",
            "select set_config('role', 'x', false)",
            "select pg_catalog.\"set_config\"('session_authorization', 'x', false)",
            "select set_config(E'r\\157le', 'x', false)",
        ];
        for text in refused {
            assert!(read(text.as_bytes(), false).escape.is_some(), "{text}");
        }
        let allowed = [
            "set local gatepost.correlation_id = 'x'",
            "set session characteristics as transaction read only",
            "alter table role add column a int",
            "alter user mapping for x server s options (set a 'b')",
            "select set_config('work_mem', '1MB', true)",
            "select 'set role x'",
            "reset role",
            "select role from users",
        ];
        for text in allowed {
            assert_eq!(read(text.as_bytes(), false).escape, None, "{text}");
        }
    }

    #[test]
    fn correlation_ids_are_read() {
        let set = |text: &str| {
            let reading = read(text.as_bytes(), false);
            reading
                .sets
                .first()
                .map(|set| (set.reach, set.value.as_ref().map(|it| it.id.to_string())))
        };
        assert_eq!(
            set("SET LOCAL gatepost.correlation_id = 'a''b'"),
            Some((Reach::Transaction, Some("a'b".into())))
        );
        assert_eq!(
            set("set gatepost.correlation_id to abc"),
            Some((Reach::Session, Some("abc".into())))
        );
        assert_eq!(
            set("set gatepost.correlation_id to default"),
            Some((Reach::Session, None))
        );
        assert_eq!(set("reset gatepost.correlation_id"), Some((Reach::Session, None)));
        assert_eq!(
            set("select set_config('gatepost.correlation_id', 'x', true)"),
            Some((Reach::Transaction, Some("x".into())))
        );
        assert_eq!(set("set search_path = gatepost"), None);
    }
}
