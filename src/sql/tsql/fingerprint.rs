//! Normalised Transact-SQL, in the form of [`crate::sql::fingerprint`]: literals and variables become `?`,
//! comments go, white space and the case of what is not in quotes are folded, names stay.

use std::borrow::Cow;

use crate::sql::fingerprint::{Normal, Normalised};
use crate::sql::tsql::lexer::{Lexer, TokenKind};
use crate::sql::tsql::name::Name;

/// Normalises a batch or the text of an sp_executesql. Where QUOTED_IDENTIFIER is off, the text has to be
/// brought [into its other form](with_single_quotes) first, or constants in `"…"` would be kept as names.
pub fn normalise(text: &str) -> Normalised {
    let mut normal = Normal::with_capacity(text.len());
    for token in Lexer::new(text) {
        match token.kind {
            TokenKind::Comment => {}
            TokenKind::Text | TokenKind::Number => normal.value(),
            TokenKind::Symbol if token.text == "?" => normal.value(),
            // `@@rowcount` is a function of the server's.
            TokenKind::Variable if token.text.starts_with("@@") => normal.word(&token.text.to_lowercase()),
            TokenKind::Variable => normal.value(),
            TokenKind::Word => normal.word(&token.text.to_lowercase()),
            TokenKind::Bracketed | TokenKind::Quoted => normal.word(token.text),
            TokenKind::Semicolon | TokenKind::Close => normal.close(token.text),
            TokenKind::Open => normal.open(),
            TokenKind::Symbol | TokenKind::Strange => normal.symbol(token.text),
        }
    }
    normal.finish()
}

/// A procedure that was called by RPC, as `exec database.schema.procedure`; what is no name becomes `?`.
pub fn normalise_call(name: &str) -> Normalised {
    match Name::parse(name) {
        Some(name) => normalise(&format!("exec {name}")),
        None => normalise("exec ?"),
    }
}

/// The text with every `"…"` written as the constant that it is where QUOTED_IDENTIFIER is off.
pub fn with_single_quotes(text: &str) -> Cow<'_, str> {
    if !text.contains('"') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for token in Lexer::new(text).filter(|token| token.kind == TokenKind::Quoted) {
        let Some(value) = token.text_value() else { continue };
        out.push_str(text.get(at..token.start).unwrap_or_default());
        out.push('\'');
        out.push_str(&value.replace('\'', "''"));
        out.push('\'');
        at = token.end();
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statements_that_differ_in_values_share_a_fingerprint() {
        let same = [
            "SELECT * FROM [dbo].T WHERE a = 1 AND b IN (1, 2, 3)",
            "select *  from [dbo].t where a=@p1 and b in (N'x') -- note",
            "select * /* x */ from [dbo].t where a = 'it''s' and b in (@p0, 0x12, $5);",
        ]
        .map(normalise);
        assert_eq!(same[0], same[1]);
        assert_eq!(same[0], same[2]);
        assert_eq!(same[0].text, "select*from [dbo].t where a=? and b in(?)");
        assert_ne!(normalise("select a from t"), normalise("select [a] from t"));
        assert_ne!(normalise("select @@identity"), normalise("select @a"));
        let rows = [
            "insert t values (1, 'a')",
            "insert t values (1, 2), (3, 4), (5, 6)",
        ]
        .map(normalise);
        assert_eq!(rows[0], rows[1]);
    }

    #[test]
    fn both_dialects_have_one_form() {
        for text in [
            "select a, b from t where c = 'x' and d in (1, 2)",
            "insert into t values (1), (2)",
        ] {
            assert_eq!(normalise(text), crate::sql::normalise(text));
        }
    }

    #[test]
    fn no_literal_survives() {
        let text = "exec p 4111, '4111-1111', N'4111', 0x4111, $4111.5, -4111e4, @a = 4111";
        assert!(!normalise(text).text.contains("4111"));
        let off = with_single_quotes("select \"it's\"\"4111\" from t where a = 'x\"y' and \"b");
        assert_eq!(off, "select 'it''s\"4111' from t where a = 'x\"y' and 'b'");
        assert!(!normalise(&off).text.contains("4111"));
    }

    #[test]
    fn calls_have_a_text() {
        assert_eq!(
            normalise_call("[dbo].[apply_order];1").text,
            "exec dbo.apply_order"
        );
        assert_eq!(
            normalise_call("DBO.Apply_Order"),
            normalise_call("dbo.apply_order")
        );
        assert_eq!(normalise_call("a b 4111").text, "exec ?");
    }

    proptest! {
        #[test]
        fn any_text_is_normalised(text in r#"[a-z0-9'"\[\]/*\-\n;.@#$éЖ,() ]{0,200}"#) {
            let normal = normalise(&text);
            prop_assert_eq!(normal.fingerprint.len(), 16);
            prop_assert!(with_single_quotes(&text).len() >= text.len().saturating_sub(text.matches('"').count()));
        }
    }
}
