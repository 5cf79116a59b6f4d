//! Which relations a text of PostgreSQL's reads and writes and which functions it calls, for the record. Read by
//! `sqlparser`; what it cannot read is unknown, never guessed, and no proof rests on it.

use sqlparser::dialect::PostgreSqlDialect;

use crate::sql::kind::Kind;
use crate::sql::lexer::{Lexer, Token, TokenKind};
use crate::sql::reading::read;
use crate::sql::tsql::relations::{Found, NESTING_MAX, OPERATORS, OPERATORS_MAX, Relations, TEXT_BYTES_MAX};

/// What a text names; `None` when any part of it cannot be read. Of functions those with their schema, less
/// the server's own.
pub fn relations(text: &str) -> Option<Relations> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let kinds = read(text.as_bytes(), false).kinds;
    let readable = |kind: &Kind| {
        matches!(
            kind,
            Kind::Select
                | Kind::With
                | Kind::Insert
                | Kind::Update
                | Kind::Delete
                | Kind::Merge
                | Kind::Definition
        )
    };
    if kinds.is_empty() || !kinds.iter().all(readable) {
        return None;
    }
    let mut found = Found::default();
    found.statement(&shallow(text)?, &PostgreSqlDialect {})?;
    let mut relations = found.finish();
    relations.called.retain(|name| {
        name.schema
            .as_deref()
            .is_some_and(|schema| schema != "pg_catalog")
    });
    Some(relations)
}

/// The text without its comments, its unquoted words folded as the server folds them; `None` where the parser's
/// stack could not bear it.
fn shallow(text: &str) -> Option<String> {
    let mut folded = String::with_capacity(text.len());
    let (mut depth, mut operators) = (0_usize, 0_usize);
    for token in Lexer::new(text.as_bytes(), false) {
        let opens = token.kind == TokenKind::Open || token.symbol(b'[');
        let closes = token.kind == TokenKind::Close || token.symbol(b']');
        depth = (depth + usize::from(opens)).saturating_sub(usize::from(closes));
        operators += usize::from(is_operator(&token));
        if depth > NESTING_MAX || operators > OPERATORS_MAX {
            return None;
        }
        let start = token.start;
        // What stood side by side still does, so that operators stay whole.
        if text
            .as_bytes()
            .get(start.checked_sub(1).unwrap_or(start))
            .is_some_and(u8::is_ascii_whitespace)
        {
            folded.push(' ');
        }
        let word = text.get(start..token.end())?;
        match token.kind {
            TokenKind::Comment => folded.push(' '),
            TokenKind::Word => folded.push_str(&word.to_ascii_lowercase()),
            TokenKind::QuotedWord
            | TokenKind::Text
            | TokenKind::Number
            | TokenKind::Parameter
            | TokenKind::Semicolon
            | TokenKind::Open
            | TokenKind::Close
            | TokenKind::Symbol => folded.push_str(word),
        }
    }
    Some(folded)
}

fn is_operator(token: &Token<'_>) -> bool {
    let symbol = token.kind == TokenKind::Symbol && !token.symbol(b',') && !token.symbol(b'.');
    symbol || OPERATORS.iter().any(|word| token.is(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        relations(text).map(|relations| relations.shown())
    }

    #[test]
    fn relations_are_told() {
        let table = [
            ("select 1", "r: w: c:"),
            (
                "SELECT * FROM Sales.Orders o JOIN \"Lines\" USING (id)",
                "r:Lines,sales.orders w: c:",
            ),
            (
                "insert into public.t (a) select b from u -- x",
                "r:u w:public.t c:",
            ),
            (
                "insert into t values ($1) on conflict (a) do update set b = excluded.b returning a",
                "r: w:t c:",
            ),
            ("update t set a = 1 from u where u.a = t.a", "r:u w:t c:"),
            ("delete from t where a in (select a from u)", "r:u w:t c:"),
            ("with x as (select a from t) select * from x, y", "r:t,y w: c:"),
            (
                "select app.f(a), pg_catalog.lower(b), upper(c) from t",
                "r:t w: c:app.f",
            ),
            ("select * from app.rows(1)", "r: w: c:app.rows"),
            ("create table app.t (a int)", "r: w:app.t c:"),
            ("select a from t; select b from u", "r:t,u w: c:"),
        ];
        for (text, wanted) in table {
            assert_eq!(shown(text).as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_takes_no_stack() {
        let parentheses = format!("select {}1{}", "(".repeat(100_000), ")".repeat(100_000));
        let arrays = format!("select {}1{}", "array[".repeat(5_000), "]".repeat(5_000));
        let sum = format!("select 1{}", " + 1".repeat(10_000));
        let cases = format!("select {}1{}", "case when a then ".repeat(60), " end".repeat(60));
        for text in [
            "select a from t where",
            "do $$ begin end $$",
            "",
            "select 'unfinished",
            "select \0",
            parentheses.as_str(),
            arrays.as_str(),
            sum.as_str(),
            cases.as_str(),
        ] {
            assert_eq!(shown(text), None, "{text:.80}");
        }
    }
}
