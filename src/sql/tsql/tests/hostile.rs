//! Texts that nobody means well with: soups of tokens, deep nesting, great length.

use proptest::prelude::*;

use crate::sql::tsql::lexer::{Lexer, TokenKind};
use crate::sql::tsql::{Effect, plain, read, read_inner, relations};

/// Pieces of which soups are made.
const PIECES: [&str; 64] = [
    "select",
    "insert",
    "update",
    "delete",
    "merge",
    "exec",
    "execute",
    "begin",
    "tran",
    "commit",
    "rollback",
    "save",
    "if",
    "else",
    "end",
    "try",
    "while",
    "set",
    "nocount",
    "on",
    "off",
    "use",
    "declare",
    "cursor",
    "for",
    "from",
    "into",
    "as",
    "with",
    "union",
    "all",
    "grant",
    "to",
    "alter",
    "login",
    "user",
    "@a",
    "@@b",
    "#t",
    "##t",
    "t",
    "sp_executesql",
    "sp_set_session_context",
    "N'correlation_id'",
    "'x'",
    "N'",
    "'",
    "\"",
    "[",
    "]",
    "(",
    ")",
    ",",
    ";",
    ".",
    "=",
    "{call",
    "}",
    "/*",
    "*/",
    "--",
    "\n",
    "\r",
    "1e",
];

fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => proptest::sample::select(&PIECES[..]).prop_map(str::to_owned),
        1 => proptest::sample::select(&plain::NEVER[..]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    let glue = prop_oneof![4 => Just(" "), 1 => Just(""), 1 => Just("/**/")];
    proptest::collection::vec((piece, glue), 0..60)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, glue)| piece + glue).collect())
}

/// Words that end a transaction or write, whatever stands around them.
const DANGEROUS: [&str; 17] = [
    "insert",
    "update",
    "delete",
    "merge",
    "truncate",
    "exec",
    "execute",
    "commit",
    "rollback",
    "save",
    "into",
    "create",
    "alter",
    "drop",
    "grant",
    "begin",
    "openquery",
];

fn holds(text: &str, words: &[&str]) -> bool {
    Lexer::new(text).any(|token| token.kind == TokenKind::Word && token.is_any(words))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_soup_is_read_to_the_safe_side(text in soup()) {
        let reading = read(&text);
        let mut end = 0;
        for statement in &reading.statements {
            prop_assert!(statement.range.start >= end && text.get(statement.range.clone()).is_some());
            end = statement.range.end;
        }
        prop_assert!(!(reading.plain_read && holds(&text, &DANGEROUS)));
        prop_assert!(!(reading.plain_read && holds(&text, &plain::NEVER)));
        if holds(&text, &["commit", "rollback"]) {
            prop_assert!(reading.transaction.may_end());
        }
        if holds(&text, &["exec", "execute"]) && !holds(&text, &["as", "on", "to", "any", "sp_set_session_context"]) && !text.contains(',') {
            prop_assert_eq!(&reading.transaction, &Effect::UNKNOWN);
        }
        let inner = read_inner(&text);
        prop_assert_eq!(inner.plain_read, reading.plain_read);
        prop_assert_eq!(inner.transaction, reading.transaction);
    }

    /// The parser of the record neither panics nor fills its stack, and knows what the lexer knows.
    #[test]
    fn a_soup_has_relations_or_not(text in soup()) {
        if let Some(found) = relations(&format!("select a {text}")) {
            prop_assert!(found.written.is_empty() || !read(&text).plain_read);
        }
    }

    /// A plain read with something dangerous behind it is none.
    #[test]
    fn nothing_dangerous_hides_behind_a_read(
        word in proptest::sample::select(&DANGEROUS[..]),
        before in proptest::sample::select(&["select 1 ", "select 'a' ", "select [x] ", "select 1 -- a\n", "select /* */ 1\t", "select 1", "select a\u{a0}"][..]),
        after in proptest::sample::select(&["", " tran", "/**/tran x", "\u{3000}t", ";", " t set a = 1"][..]),
    ) {
        let text = format!("{before}{word}{after}");
        // Behind a digit it may be part of the number, which is doubtful.
        prop_assert!(!read(&text).plain_read, "{}", text);
    }
}
