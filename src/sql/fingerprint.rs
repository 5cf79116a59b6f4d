//! One text for all statements that differ only in their values, and a short name for it. Literals
//! never survive, so what is written to the journal holds none of the client's values.

use std::fmt::Write as _;

use aws_lc_rs::digest;

use crate::sql::lexer::{Lexer, TokenKind};

/// Bytes of normalised text that are kept; the fingerprint covers the whole.
const TEXT_BYTES_MAX: usize = 4_096;
/// 64 bits tell apart far more statements than a system has.
const FINGERPRINT_BYTES: usize = 8;

/// A statement without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised {
    /// 16 hexadecimal digits.
    pub fingerprint: String,
    /// At most 4 KiB.
    pub text: String,
}

/// Replaces literals and parameters by `?`, drops comments, folds white space and the case of
/// unquoted words, and writes a list of values once.
pub fn normalise(text: &str) -> Normalised {
    let mut normal = Normal::with_capacity(text.len());
    for token in Lexer::new(text.as_bytes(), false) {
        let word = String::from_utf8_lossy(token.bytes);
        match token.kind {
            TokenKind::Comment => {}
            TokenKind::Text | TokenKind::Number | TokenKind::Parameter => normal.value(),
            TokenKind::Word => normal.word(&word.to_lowercase()),
            TokenKind::QuotedWord => normal.word(&word),
            TokenKind::Semicolon | TokenKind::Close => normal.close(&word),
            TokenKind::Open => normal.open(),
            TokenKind::Symbol => normal.symbol(&word),
        }
    }
    normal.finish()
}

/// A normalised text under construction: how its tokens are put together, in every dialect.
pub(super) struct Normal {
    text: String,
    previous: Previous,
}

impl Normal {
    /// For a text of `bytes`.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes.min(TEXT_BYTES_MAX)),
            previous: Previous::Start,
        }
    }

    /// A literal or a parameter. `?, ?` becomes `?`, so that lists of any length read the same.
    pub(super) fn value(&mut self) {
        if self.text.ends_with("?,") {
            self.text.pop();
            return;
        }
        self.word("?");
    }

    pub(super) fn word(&mut self, word: &str) {
        if matches!(self.previous, Previous::Word) {
            self.text.push(' ');
        }
        self.text.push_str(word);
        self.previous = Previous::Word;
    }

    /// `)` or `;`.
    pub(super) fn close(&mut self, mark: &str) {
        self.text.push_str(mark);
        self.previous = Previous::Word;
    }

    /// `(`.
    pub(super) fn open(&mut self) {
        self.text.push('(');
        self.previous = Previous::Symbol;
    }

    pub(super) fn symbol(&mut self, symbol: &str) {
        self.text.push_str(symbol);
        self.previous = if symbol == "," {
            Previous::Word
        } else {
            Previous::Symbol
        };
    }

    pub(super) fn finish(self) -> Normalised {
        let mut normal = self.text.trim_end_matches(';').replace("?,(?)", "?");
        // Rows of values read the same in any number; every pass halves them.
        while normal.contains("(?),(?)") {
            normal = normal.replace("(?),(?)", "(?)");
        }
        let digest = digest::digest(&digest::SHA256, normal.as_bytes());
        let mut fingerprint = String::with_capacity(2 * FINGERPRINT_BYTES);
        for byte in digest.as_ref().iter().take(FINGERPRINT_BYTES) {
            // Writing to a String cannot fail.
            let _ = write!(fingerprint, "{byte:02x}");
        }
        Normalised {
            fingerprint,
            text: cut(normal),
        }
    }
}

enum Previous {
    Start,
    Word,
    Symbol,
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_differ_in_values_share_a_fingerprint() {
        let same = [
            "SELECT * FROM t WHERE a = 1 AND b IN (1, 2, 3)",
            "select *  from T where a=$1 and b in ('x') -- note",
            "select * from t where a = 'it''s' and b in (?,9)"
                .replace('?', "7")
                .as_str(),
        ]
        .map(normalise);
        assert_eq!(same[0], same[1]);
        assert_eq!(same[0], same[2]);
        assert_eq!(same[0].fingerprint.len(), 16);
    }

    #[test]
    fn rows_of_values_read_the_same_in_any_number() {
        let rows = |count: usize| {
            normalise(&format!(
                "insert into t values {} (1, 'a')",
                "(1, 'b'), ".repeat(count)
            ))
        };
        assert_eq!(rows(1), rows(0));
        assert_eq!(rows(6), rows(0));
    }

    #[test]
    fn no_literal_survives() {
        let text = normalise("insert into cards values ('4111-1111', 4111, $$4111$$, E'4111', X'4111')").text;
        assert!(!text.contains("4111"), "{text}");
    }

    #[test]
    fn different_statements_differ() {
        assert_ne!(
            normalise("select a from t").fingerprint,
            normalise("select b from t").fingerprint
        );
    }
}
