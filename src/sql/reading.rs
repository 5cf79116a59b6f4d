//! One pass over a client's text: all that gatepost wants to know about it.

use std::sync::Arc;

use crate::domain::correlation::Correlation;
use crate::sql::correlation::{self, SetCorrelation};
use crate::sql::escape::{self, Fence};
use crate::sql::kind::{Kind, classify};
use crate::sql::lexer::{Backslash, Lexer, Token, TokenKind};

/// Tokens of one statement that are kept for judging it. What decides the kind stands among the
/// first few; the bound keeps a text of millions of values from being held twice.
const TOKENS_KEPT_MAX: usize = 4_096;

/// Statements of one text that are told apart; behind that the text counts as unknown.
const STATEMENTS_MAX: usize = 10_000;

/// A longer name of a prepared transaction is refused by the server.
const GID_BYTES_MAX: usize = 200;

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
    /// The names in `PREPARE TRANSACTION`, `COMMIT PREPARED` and `ROLLBACK PREPARED`, in order, as far as
    /// they can be read.
    pub gids: Vec<Option<Arc<str>>>,
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
        gids: Vec::new(),
    };
    let mut words: Vec<Token<'_>> = Vec::new();
    let mut scan = Scan::default();
    let mut fence = Fence::default();
    for token in Lexer::new(text, backslash_escapes) {
        fence.see(token);
        if token.kind == TokenKind::Comment {
            correlation::comment(token.bytes, &mut reading.comments);
        } else if scan.separates(&token) {
            finish(&mut reading, &mut words);
        } else if words.len() < TOKENS_KEPT_MAX {
            words.push(token);
        }
    }
    finish(&mut reading, &mut words);
    let backslash = if backslash_escapes {
        Backslash::Everywhere
    } else {
        Backslash::InEscapes
    };
    let attempt = fence.attempt();
    reading.escape = attempt.or_else(|| escape::attempt_read_otherwise(text, backslash));
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
    reading.sets.extend(correlation::set(words));
    if matches!(kind, Kind::PrepareTransaction | Kind::EndPrepared) {
        reading.gids.push(gid(words));
    }
    words.clear();
}

/// The name of a prepared transaction: what stands third.
fn gid(words: &[Token<'_>]) -> Option<Arc<str>> {
    let name = words.get(2)?.text_value()?;
    let name = name.get(..GID_BYTES_MAX).unwrap_or(&name);
    Some(Arc::from(String::from_utf8_lossy(name)))
}

/// Words of a statement in which `CREATE [OR REPLACE] FUNCTION` stands.
const ROUTINE_WITHIN: usize = 4;

/// Finds the semicolons that separate statements: those outside parentheses (CREATE RULE holds
/// statements in them) and outside an SQL-standard function body (`BEGIN ATOMIC … END`).
#[derive(Default)]
struct Scan {
    parentheses: usize,
    /// Depth of `BEGIN ATOMIC` and the `CASE`s inside it, all closed by `END`.
    bodies: usize,
    after_begin: bool,
    /// Behind `AS` or a dot any word is a name.
    before_name: bool,
    words: usize,
    creates: bool,
    /// Only `CREATE FUNCTION` and `CREATE PROCEDURE` have such a body; elsewhere `begin atomic` can be a
    /// column and its alias.
    creates_routine: bool,
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
                self.word(token);
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
        self.before_name = token.symbol(b'.');
        false
    }

    fn word(&mut self, token: &Token<'_>) {
        if self.words == 0 {
            self.creates = token.is("create");
        } else if self.words < ROUTINE_WITHIN && self.creates {
            self.creates_routine |= token.is("function") || token.is("procedure");
        }
        self.words += 1;
        let is_name = std::mem::replace(&mut self.before_name, token.is("as"));
        let opens = self.after_begin && token.is("atomic") && self.parentheses == 0 && self.creates_routine;
        if opens || (self.bodies > 0 && token.is("case") && !is_name) {
            self.bodies += 1;
        } else if self.bodies > 0 && token.is("end") && !is_name {
            self.bodies -= 1;
        }
        self.after_begin = token.is("begin");
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
    fn prepared_transactions_are_known_by_their_names() {
        let text = b"prepare transaction 'it''s'; commit prepared E'a\\'b'; rollback prepared $$c$$; prepare p as select 1";
        let gids = read(text, false).gids;
        let gids: Vec<Option<&str>> = gids.iter().map(Option::as_deref).collect();
        assert_eq!(gids, [Some("it's"), None, Some("c")]);
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

    /// What looks like a function's body elsewhere must not swallow the statements behind it.
    #[test]
    fn names_of_keywords_do_not_hide_statements() {
        assert_eq!(
            kinds("select begin atomic from (select 1 as begin) s; commit").len(),
            2
        );
        let label = "create function f() returns int begin atomic select 1 as case; end; commit";
        assert_eq!(kinds(label).len(), 2);
        let parameter = "create function f(begin atomic) returns int language sql as 'select 1'; commit";
        assert_eq!(kinds(parameter).len(), 2);
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
