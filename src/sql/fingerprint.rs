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
    let mut normal = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    let mut previous = Previous::Start;
    for token in Lexer::new(text.as_bytes(), false) {
        let word = String::from_utf8_lossy(token.bytes);
        match token.kind {
            TokenKind::Comment => continue,
            TokenKind::Text | TokenKind::Number | TokenKind::Parameter => {
                // `?, ?` becomes `?`, so that lists of any length read the same.
                if normal.ends_with("?,") {
                    normal.pop();
                    continue;
                }
                previous.space(&mut normal);
                normal.push('?');
                previous = Previous::Word;
            }
            TokenKind::Word => {
                previous.space(&mut normal);
                normal.push_str(&word.to_lowercase());
                previous = Previous::Word;
            }
            TokenKind::QuotedWord => {
                previous.space(&mut normal);
                normal.push_str(&word);
                previous = Previous::Word;
            }
            TokenKind::Semicolon | TokenKind::Close => {
                normal.push_str(&word);
                previous = Previous::Word;
            }
            TokenKind::Open => {
                normal.push_str(&word);
                previous = Previous::Symbol;
            }
            TokenKind::Symbol => {
                normal.push_str(&word);
                previous = if word == "," {
                    Previous::Word
                } else {
                    Previous::Symbol
                };
            }
        }
    }
    let normal = normal.trim_end_matches(';').replace("?,(?)", "?");
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

enum Previous {
    Start,
    Word,
    Symbol,
}

impl Previous {
    fn space(&self, text: &mut String) {
        if matches!(self, Self::Word) {
            text.push(' ');
        }
    }
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
