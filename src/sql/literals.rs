//! The literals of a text, in the order in which normalising takes them out of it. Those that may hold a
//! password or the like are withheld, whatever a rule says: what defines things, what cannot be told, and
//! whatever speaks of passwords.

use std::borrow::Cow;

use crate::sql::lexer::{Lexer, Token, TokenKind};

/// A literal.
#[derive(Clone, PartialEq, Eq)]
pub enum Literal<'a> {
    /// The value of a plain constant; numbers, and constants with escapes, as they are written.
    Value(Cow<'a, str>),
    /// There is one, which nobody else gets to see.
    Withheld,
}

/// What begins a statement whose literals are values: queries, changes of rows, calls.
const OF_VALUES: [&str; 14] = [
    "select", "values", "table", "with", "insert", "update", "delete", "merge", "call", "execute", "declare",
    "explain", "prepare", "notify",
];
/// Parts of names beside which a value may be a secret.
const SECRET_NAMES: [&str; 5] = ["passw", "passphrase", "pwd", "crypt", "secret"];
/// Parts of values that hold one, or name one: connection strings, statements to be run, settings.
const SECRET_VALUES: [&str; 2] = ["passw", "pwd"];

/// The literals of one statement, until its end says whether they may be shown.
#[derive(Default)]
pub(super) struct Piece<'a> {
    found: Vec<Cow<'a, str>>,
    withheld: bool,
}

impl<'a> Piece<'a> {
    pub(super) const fn withhold(&mut self) {
        self.withheld = true;
    }

    /// A name or keyword.
    pub(super) fn name(&mut self, name: &str) {
        self.withheld |= mentions(name, &SECRET_NAMES);
    }

    /// One that speaks of a password may name what another one holds.
    pub(super) fn value(&mut self, value: Cow<'a, str>) {
        self.withheld |= mentions(&value, &SECRET_VALUES);
        self.found.push(value);
    }

    pub(super) fn end(self, into: &mut Vec<Literal<'a>>) {
        let shown = |value| match self.withheld {
            true => Literal::Withheld,
            false => Literal::Value(value),
        };
        into.extend(self.found.into_iter().map(shown));
    }
}

/// Of PostgreSQL's texts.
pub fn literals(text: &str) -> Vec<Literal<'_>> {
    let mut all = Vec::new();
    let mut piece = Piece::default();
    let mut begun = false;
    // A body may hold semicolons, so nobody knows where a definition ends.
    let mut defines = false;
    for token in Lexer::new(text.as_bytes(), false) {
        if token.kind == TokenKind::Semicolon {
            std::mem::take(&mut piece).end(&mut all);
            begun = false;
            continue;
        }
        let is_first = !begun && !matches!(token.kind, TokenKind::Comment | TokenKind::Open);
        if is_first {
            begun = true;
            defines |= token.is("create") || token.is("alter") || token.is("do");
            if defines || !OF_VALUES.iter().any(|word| token.is(word)) {
                piece.withhold();
            }
        }
        match token.kind {
            TokenKind::Text | TokenKind::Number => piece.value(value(text, token)),
            TokenKind::Word | TokenKind::QuotedWord => piece.name(&String::from_utf8_lossy(token.bytes)),
            TokenKind::Parameter
            | TokenKind::Comment
            | TokenKind::Semicolon
            | TokenKind::Open
            | TokenKind::Close
            | TokenKind::Symbol => {}
        }
    }
    piece.end(&mut all);
    all
}

fn value<'a>(text: &'a str, token: Token<'_>) -> Cow<'a, str> {
    match token.text_value().map(String::from_utf8) {
        Some(Ok(value)) => Cow::Owned(value),
        Some(Err(_)) | None => Cow::Borrowed(text.get(token.start..token.end()).unwrap_or_default()),
    }
}

fn mentions(text: &str, parts: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    parts.iter().any(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let shown = |literal: &Literal<'_>| match literal {
            Literal::Value(value) => value.to_string(),
            Literal::Withheld => "*".to_owned(),
        };
        literals(text).iter().map(shown).collect()
    }

    #[test]
    fn literals_come_in_their_order() {
        for (text, expected) in [
            (
                "insert into t values (1, 'it''s', $$a$$, -2.5)",
                &["1", "it's", "a", "2.5"][..],
            ),
            (
                r"select E'a\'b', X'1F' from t where x = $1",
                &[r"E'a\'b'", "X'1F'"],
            ),
            (
                "(select 'a') union (values ('b')); update t set x = 'c'",
                &["a", "b", "c"],
            ),
            ("/* 'x' */ select 'a' -- 'b'", &["a"]),
            ("", &[]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_withheld() {
        for text in [
            "alter role x password 'hunter2'",
            "ALTER USER MAPPING FOR x SERVER s OPTIONS (user 'hunter2')",
            "create rule r as on insert to t do also (select 1; select 'hunter2')",
            "create function f() returns int begin atomic select 'hunter2'; select 'hunter2'; end",
            "do $$ begin perform 'hunter2'; end $$",
            "set x = 'hunter2'",
            "frobnicate 'hunter2'",
            "insert into users (name, \"Password\") values ('hunter2', 'hunter2')",
            "select crypt('hunter2', gen_salt('bf'))",
            "select dblink('host=x password=hunter2')",
            "select set_config('my.password', 'hunter2', false)",
            "select run('alter role x PASSWORD ''hunter2''')",
            "copy t from program 'x hunter2'",
            "explain (verbose) insert into t values ('a'); create role x password 'hunter2'",
        ] {
            assert!(!shown(text).concat().contains("hunter2"), "{text}");
            assert!(!shown(text).is_empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_value_is_one_literal(text in r#"[a-z0-9'"$\\;(), ]{0,100}"#) {
            let is_value = |token: &Token<'_>| matches!(token.kind, TokenKind::Text | TokenKind::Number);
            let count = Lexer::new(text.as_bytes(), false).filter(is_value).count();
            prop_assert_eq!(literals(&text).len(), count);
        }
    }
}
