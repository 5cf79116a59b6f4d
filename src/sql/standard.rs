//! Texts in which a backslash escapes also in plain constants, brought into the form that reads the same
//! everywhere.

use std::borrow::Cow;

use crate::sql::lexer::{Lexer, TokenKind};

/// The text with every plain constant that holds a backslash written as `E'…'`, as a server reads it whose
/// `standard_conforming_strings` is off. Whoever reads it later need not know that setting.
pub fn with_escapes(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut at = 0;
    for token in Lexer::new(text.as_bytes(), true).filter(|token| token.kind == TokenKind::Text) {
        if !token.bytes.contains(&b'\\') {
            continue;
        }
        let prefix = match token.bytes.first() {
            Some(b'\'') => 0,
            Some(b'n' | b'N') => 1,
            _ => continue,
        };
        out.push_str(text.get(at..token.start).unwrap_or_default());
        // A word before it must not become one with the letter.
        out.push_str(" E");
        at = token.start + prefix;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::normalise;

    #[test]
    fn no_part_of_a_constant_is_left_outside() {
        let text = r"insert into t values ('it\'s hunter2', N'\' hunter2 ', E'\'', 'x') -- '\'";
        let standard = with_escapes(text);
        assert_eq!(
            standard,
            r"insert into t values ( E'it\'s hunter2',  E'\' hunter2 ', E'\'', 'x') -- '\'"
        );
        let normal = normalise(&standard).text;
        assert_eq!(normal, "insert into t values(?)");
        // Read as it stands it would be kept.
        assert!(normalise(text).text.contains("hunter2"));
        assert_eq!(with_escapes("select 'a'"), "select 'a'");
    }
}
