//! The literals of a Transact-SQL statement, as [`mod@crate::sql::literals`] does it for PostgreSQL.

use crate::sql::Kind;
use crate::sql::literals::{Literal, Piece};
use crate::sql::tsql::lexer::{Lexer, TokenKind};

/// Words that begin what defines things or opens keys, wherever they stand: statements need no semicolon.
const DEFINING: [&str; 9] = [
    "create", "alter", "drop", "add", "backup", "restore", "open", "grant", "setuser",
];

/// Of one statement. `kind` is its label.
pub fn literals<'a>(text: &'a str, kind: &str) -> Vec<Literal<'a>> {
    let of_values = [
        Kind::Select,
        Kind::With,
        Kind::Insert,
        Kind::Update,
        Kind::Delete,
        Kind::Merge,
        Kind::Execute,
        Kind::Declare,
        Kind::Set,
        Kind::Print,
        Kind::Control,
    ];
    let mut piece = Piece::default();
    if !of_values.iter().any(|one| one.label() == kind) {
        piece.withhold();
    }
    for token in Lexer::new(text) {
        match token.kind {
            TokenKind::Text | TokenKind::Number => {
                piece.value(
                    token
                        .text_value()
                        .unwrap_or(std::borrow::Cow::Borrowed(token.text)),
                );
            }
            TokenKind::Word if DEFINING.iter().any(|word| token.is(word)) => piece.withhold(),
            TokenKind::Word | TokenKind::Bracketed | TokenKind::Quoted | TokenKind::Variable => {
                piece.name(token.text);
            }
            TokenKind::Comment
            | TokenKind::Semicolon
            | TokenKind::Open
            | TokenKind::Close
            | TokenKind::Symbol
            | TokenKind::Strange => {}
        }
    }
    let mut all = Vec::new();
    piece.end(&mut all);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, kind: Kind) -> Vec<String> {
        let shown = |literal: &Literal<'_>| match literal {
            Literal::Value(value) => value.to_string(),
            Literal::Withheld => "*".to_owned(),
        };
        literals(text, kind.label()).iter().map(shown).collect()
    }

    #[test]
    fn literals_come_in_their_order() {
        let text = "insert t values (1, N'it''s', 0x1F, $4.5, @a)";
        assert_eq!(shown(text, Kind::Insert), ["1", "it's", "0x1F", "$4.5"]);
    }

    #[test]
    fn what_may_be_a_secret_is_withheld() {
        for (text, kind) in [
            ("alter login x with password = 'hunter2'", Kind::Definition),
            ("create table t (a int default 'hunter2')", Kind::Definition),
            (
                "if 1 = 1 alter login x with default_database = [hunter2] select 'hunter2'",
                Kind::Control,
            ),
            (
                "exec ('create login x with PASSWORD = ''hunter2''')",
                Kind::Execute,
            ),
            (
                "insert users (name, [Password]) values ('hunter2', 'hunter2')",
                Kind::Insert,
            ),
            ("select EncryptByPassPhrase('hunter2', 'x')", Kind::Select),
            ("set @pwd = 'hunter2'", Kind::Set),
            ("frobnicate 'hunter2'", Kind::Unknown),
        ] {
            assert!(!shown(text, kind).concat().contains("hunter2"), "{text}");
        }
    }
}
