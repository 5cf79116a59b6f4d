//! A lexer for PostgreSQL's SQL: just enough to find words, literals, comments and the semicolons
//! that separate statements. Rules from "Lexical Structure" in PostgreSQL's documentation. Works on
//! bytes, because a client's encoding need not be UTF-8; never fails: an unterminated literal or
//! comment runs to the end, where the server will refuse the text anyway.

/// What a token is. The token's bytes are given by its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or an unquoted identifier.
    Word,
    /// `"…"`, quotes included.
    QuotedWord,
    /// A string constant of any form, prefix and quotes included.
    Text,
    Number,
    /// `$1`.
    Parameter,
    /// `--…` or `/*…*/`, delimiters included.
    Comment,
    Semicolon,
    Open,
    Close,
    /// Any other single byte: operators and punctuation.
    Symbol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: TokenKind,
    pub bytes: &'a [u8],
    /// Where the token starts in the text.
    pub start: usize,
}

impl Token<'_> {
    pub fn end(&self) -> usize {
        self.start + self.bytes.len()
    }

    /// Is this the keyword `word` (given in lower case)? A quoted word is never a keyword.
    pub fn is(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.bytes.eq_ignore_ascii_case(word.as_bytes())
    }

    /// Is this the identifier `name` (given in lower case), quoted or not? Unquoted identifiers
    /// fold to lower case, quoted ones do not.
    pub fn names(&self, name: &str) -> bool {
        match self.kind {
            TokenKind::Word => self.bytes.eq_ignore_ascii_case(name.as_bytes()),
            // The most that is spelt in quotes is spelt plainly.
            TokenKind::QuotedWord if !self.has_unicode_escapes() => self.unquoted(b'"') == name.as_bytes(),
            TokenKind::QuotedWord => self.word_value().is_some_and(|value| value == name.as_bytes()),
            TokenKind::Text
            | TokenKind::Number
            | TokenKind::Parameter
            | TokenKind::Comment
            | TokenKind::Semicolon
            | TokenKind::Open
            | TokenKind::Close
            | TokenKind::Symbol => false,
        }
    }

    /// Is this the name of the setting `name` (given in lower case)? The server finds settings without
    /// regard to case, also those in quotes.
    pub fn names_setting(&self, name: &str) -> bool {
        match self.kind {
            TokenKind::Word => self.is(name),
            TokenKind::QuotedWord => {
                let value = self.word_value();
                value.is_some_and(|value| value.eq_ignore_ascii_case(name.as_bytes()))
            }
            TokenKind::Text
            | TokenKind::Number
            | TokenKind::Parameter
            | TokenKind::Comment
            | TokenKind::Semicolon
            | TokenKind::Open
            | TokenKind::Close
            | TokenKind::Symbol => false,
        }
    }

    /// `U&"…"` or `U&'…'`.
    pub fn has_unicode_escapes(&self) -> bool {
        matches!(self.kind, TokenKind::QuotedWord | TokenKind::Text)
            && self
                .bytes
                .first()
                .is_some_and(|first| first.eq_ignore_ascii_case(&b'u'))
    }

    /// Is this the single symbol `byte`?
    pub fn symbol(&self, byte: u8) -> bool {
        self.kind == TokenKind::Symbol && self.bytes == [byte]
    }

    /// The bytes between the first and the last `quote`.
    fn unquoted(&self, quote: u8) -> &[u8] {
        let inner = self
            .bytes
            .iter()
            .position(|byte| *byte == quote)
            .and_then(|at| self.bytes.get(at + 1..));
        let inner = inner.unwrap_or_default();
        inner.strip_suffix(&[quote]).unwrap_or(inner)
    }

    /// The value of a plain `'…'` or `$tag$…$tag$` constant; `None` for the forms with escapes
    /// (`E''`, `U&''`, bit strings) and for other tokens.
    pub fn text_value(&self) -> Option<Vec<u8>> {
        if self.kind != TokenKind::Text {
            return None;
        }
        match self.bytes.first()? {
            b'\'' => Some(parts(self.bytes)),
            b'$' => {
                let open = self.bytes.iter().skip(1).position(|byte| *byte == b'$')? + 2;
                let inner = self.bytes.get(open..)?;
                Some(
                    inner
                        .get(..inner.len().saturating_sub(open))
                        .unwrap_or_default()
                        .to_vec(),
                )
            }
            _ => None,
        }
    }

    /// The value of a word, folded as the server folds it; `None` where its escapes are no good, which
    /// the server refuses.
    pub fn word_value(&self) -> Option<Vec<u8>> {
        match self.kind {
            TokenKind::QuotedWord => {
                let value = undouble(self.unquoted(b'"'), b'"');
                if self.has_unicode_escapes() {
                    unescape(&value)
                } else {
                    Some(value)
                }
            }
            TokenKind::Word => Some(self.bytes.to_ascii_lowercase()),
            TokenKind::Text
            | TokenKind::Number
            | TokenKind::Parameter
            | TokenKind::Comment
            | TokenKind::Semicolon
            | TokenKind::Open
            | TokenKind::Close
            | TokenKind::Symbol => None,
        }
    }
}

/// The value of `'…'`, also of one that goes on behind a line break (`'a'\n'b'`).
fn parts(bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes.len());
    let mut inside = false;
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, inside, tail) {
            (b'\'', true, [b'\'', behind @ ..]) => {
                value.push(b'\'');
                rest = behind;
            }
            (b'\'', _, _) => inside = !inside,
            (byte, true, _) => value.push(*byte),
            // Between two parts: white space and `--` comments.
            (b'-', false, [b'-', ..]) => {
                let line = tail.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                rest = line.and_then(|line| tail.get(line..)).unwrap_or_default();
            }
            (_, false, _) => {}
        }
    }
    value
}

/// Resolves `\XXXX`, `\+XXXXXX` and `\\` ("Identifiers and Key Words" in PostgreSQL's documentation).
fn unescape(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            value.push(*first);
            continue;
        }
        let (from, digits) = match tail {
            [b'\\', behind @ ..] => {
                value.push(b'\\');
                rest = behind;
                continue;
            }
            [b'+', ..] => (1, 6),
            _ => (0, 4),
        };
        let hex = std::str::from_utf8(tail.get(from..from + digits)?).ok()?;
        let code = u32::from_str_radix(hex, 16).ok()?;
        // Halves of a surrogate pair spell no name that anybody asks for here.
        let spelt = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        value.extend_from_slice(spelt.encode_utf8(&mut [0; 4]).as_bytes());
        rest = tail.get(from + digits..)?;
    }
    Some(value)
}

fn undouble(bytes: &[u8], quote: u8) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes.len());
    let mut skip = false;
    for byte in bytes {
        if *byte == quote && !skip {
            skip = true;
            value.push(*byte);
        } else if *byte == quote {
            skip = false;
        } else {
            skip = false;
            value.push(*byte);
        }
    }
    value
}

/// Where a backslash escapes what stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backslash {
    /// In `E'…'` alone: `standard_conforming_strings` is on.
    InEscapes,
    /// In plain `'…'` too: it is off.
    Everywhere,
    /// Nowhere: what looks like one is the second byte of a character.
    Nowhere,
}

impl Backslash {
    pub const ALL: [Self; 3] = [Self::InEscapes, Self::Everywhere, Self::Nowhere];
}

/// Walks the tokens of a text, comments included, white space skipped.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    backslash: Backslash,
}

impl<'a> Lexer<'a> {
    /// `backslash_escapes` where `standard_conforming_strings` is off.
    pub const fn new(text: &'a [u8], backslash_escapes: bool) -> Self {
        let backslash = if backslash_escapes {
            Backslash::Everywhere
        } else {
            Backslash::InEscapes
        };
        Self::with(text, backslash)
    }

    pub const fn with(text: &'a [u8], backslash: Backslash) -> Self {
        Self {
            text,
            at: 0,
            backslash,
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&accept) {
            self.at += 1;
        }
    }

    /// `--` up to, not including, the end of the line.
    fn line_comment(&mut self) {
        self.take_while(|byte| byte != b'\n' && byte != b'\r');
    }

    /// `/* … */`, which nests.
    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth = depth.saturating_sub(1);
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// From an opening quote to its closing one; a doubled quote is part of the value.
    fn quoted(&mut self, quote: u8, backslash: bool) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            if byte == b'\\' && backslash {
                self.at += 2;
            } else if byte != quote {
                self.at += 1;
            } else if self.peek(1) == Some(quote) {
                self.at += 2;
            } else {
                self.at += 1;
                return;
            }
        }
        self.at = self.text.len();
    }

    /// `$tag$ … $tag$`, `$1`, or a lone dollar sign.
    fn dollar(&mut self) -> TokenKind {
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        if rest.first().is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            self.take_while(|byte| byte.is_ascii_digit());
            return TokenKind::Parameter;
        }
        let tag = rest.iter().position(|byte| !is_word_byte(*byte) || *byte == b'$');
        let Some(tag) = tag.filter(|tag| rest.get(*tag) == Some(&b'$')) else {
            self.at += 1;
            return TokenKind::Symbol;
        };
        let delimiter = self.text.get(self.at..self.at + tag + 2).unwrap_or_default();
        let body = self.text.get(self.at + delimiter.len()..).unwrap_or_default();
        let close = body
            .windows(delimiter.len())
            .position(|window| window == delimiter);
        self.at = close.map_or(self.text.len(), |close| self.at + close + 2 * delimiter.len());
        TokenKind::Text
    }

    /// A word, or the prefix of a string constant (`E'…'`, `B'…'`, `X'…'`, `N'…'`, `U&'…'`).
    fn word(&mut self) -> TokenKind {
        let first = self.peek(0).unwrap_or_default().to_ascii_lowercase();
        match (first, self.peek(1), self.peek(2)) {
            (b'e', Some(b'\''), _) => self.prefixed(1, b'\'', self.backslash != Backslash::Nowhere),
            (b'n', Some(b'\''), _) => self.prefixed(1, b'\'', self.backslash == Backslash::Everywhere),
            (b'b' | b'x', Some(b'\''), _) => self.prefixed(1, b'\'', false),
            (b'u', Some(b'&'), Some(b'\'')) => self.prefixed(2, b'\'', false),
            (b'u', Some(b'&'), Some(b'"')) => self.prefixed(2, b'"', false),
            _ => {
                self.take_while(is_word_byte);
                TokenKind::Word
            }
        }
    }

    fn prefixed(&mut self, prefix: usize, quote: u8, backslash: bool) -> TokenKind {
        self.at += prefix;
        self.quoted(quote, backslash);
        if quote == b'"' {
            return TokenKind::QuotedWord;
        }
        while self.goes_on() {
            self.quoted(quote, backslash);
        }
        TokenKind::Text
    }

    /// Moves to the next part of a constant that goes on behind a line break, if it does: the part is of
    /// the same form, whatever it looks like by itself. `--` comments may stand between.
    fn goes_on(&mut self) -> bool {
        let end = self.at;
        let mut line_broken = false;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'\n' | b'\r'), _) => {
                    line_broken = true;
                    self.at += 1;
                }
                (Some(byte), _) if is_space(byte) => self.at += 1,
                (Some(b'-'), Some(b'-')) => self.line_comment(),
                (Some(b'\''), _) if line_broken => return true,
                _ => break,
            }
        }
        self.at = end;
        false
    }

    /// Stops before the prefix of a constant, which a server of version 15 reads as that.
    fn number(&mut self) {
        while let Some(byte) = self.peek(0) {
            let quoted =
                self.peek(1) == Some(b'\'') || (self.peek(1), self.peek(2)) == (Some(b'&'), Some(b'\''));
            if !(byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_')
                || (byte.is_ascii_alphabetic() && quoted)
            {
                return;
            }
            self.at += 1;
        }
    }
}

/// Letters, digits, underscore, dollar, and every byte of a multi-byte character.
const fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.take_while(is_space);
        let start = self.at;
        let kind = match (self.peek(0)?, self.peek(1)) {
            (b'-', Some(b'-')) => {
                self.line_comment();
                TokenKind::Comment
            }
            (b'/', Some(b'*')) => {
                self.block_comment();
                TokenKind::Comment
            }
            (b'\'', _) => self.prefixed(0, b'\'', self.backslash == Backslash::Everywhere),
            (b'"', _) => self.prefixed(0, b'"', false),
            (b'$', _) => self.dollar(),
            (b'.', Some(digit)) if digit.is_ascii_digit() => {
                self.number();
                TokenKind::Number
            }
            (byte, _) if byte.is_ascii_digit() => {
                self.number();
                TokenKind::Number
            }
            (byte, _) if is_word_byte(byte) => self.word(),
            (byte, _) => {
                self.at += 1;
                match byte {
                    b';' => TokenKind::Semicolon,
                    b'(' => TokenKind::Open,
                    b')' => TokenKind::Close,
                    _ => TokenKind::Symbol,
                }
            }
        };
        self.at = self.at.min(self.text.len());
        Some(Token {
            kind,
            bytes: self.text.get(start..self.at).unwrap_or_default(),
            start,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(text: &str) -> Vec<(TokenKind, String)> {
        Lexer::new(text.as_bytes(), false)
            .map(|token| (token.kind, String::from_utf8_lossy(token.bytes).into_owned()))
            .collect()
    }

    #[test]
    fn literals_hide_semicolons() {
        let texts = [
            "select 'a;b'",
            "select 'it''s;'",
            r"select E'\';'",
            "select $$;$$",
            "select $x$ $$; $x$",
            "select \"a;b\"",
            "select 1 /* ; /* ; */ ; */",
            "select 1 -- ;",
            "select U&'\\0441;'",
            "select U&\"d;\"",
        ];
        for text in texts {
            let semicolons = tokens(text)
                .iter()
                .filter(|token| token.0 == TokenKind::Semicolon)
                .count();
            assert_eq!(semicolons, 0, "{text}");
        }
    }

    #[test]
    fn a_backslash_does_not_escape_in_a_standard_string() {
        assert_eq!(tokens(r"'\';")[1].0, TokenKind::Semicolon);
        let lenient = Lexer::new(br"'\';'", true).count();
        assert_eq!(lenient, 1);
    }

    #[test]
    fn values_are_read_without_their_quotes() {
        let value = |text: &'static str| Lexer::new(text.as_bytes(), false).next().unwrap().text_value();
        assert_eq!(value("'it''s'").unwrap(), b"it's");
        assert_eq!(value("$q$a'b$q$").unwrap(), b"a'b");
        assert_eq!(value("E'a'"), None);
        assert_eq!(value("'a'  \n -- b'c\n 'd'").unwrap(), b"ad");
        assert_eq!(value("'a' 'b'").unwrap(), b"a");
    }

    #[test]
    fn a_constant_that_goes_on_keeps_its_form() {
        // The second part is read with the first one's escapes.
        let texts = tokens("select E'a'\n'\\'', x --'");
        assert_eq!(texts[1].1, "E'a'\n'\\''");
        assert_eq!(texts[3], (TokenKind::Word, "x".into()));
        assert_eq!(tokens("'a'\n, 'b'").len(), 3);
    }

    #[test]
    fn names_are_read_through_their_escapes() {
        let names = |text: &'static str, name| Lexer::new(text.as_bytes(), false).next().unwrap().names(name);
        assert!(names(r#"U&"r\006f\+00006ce""#, "role"));
        assert!(names(r#"u&"role""#, "role") && names("ROLE", "role"));
        assert!(!names(r#""ROLE""#, "role") && !names(r#""r\006fle""#, "role"));
        let setting = Lexer::new(br#"U&"R\004fle""#, false).next().unwrap();
        assert!(setting.names_setting("role"));
    }

    #[test]
    fn parameters_and_dollar_words_differ() {
        assert_eq!(
            tokens("$1 a$b $x"),
            [
                (TokenKind::Parameter, "$1".into()),
                (TokenKind::Word, "a$b".into()),
                (TokenKind::Symbol, "$".into()),
                (TokenKind::Word, "x".into()),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_the_end(text in proptest::collection::vec(any::<u8>(), 0..200), lenient: bool) {
            let mut end = 0;
            for token in Lexer::new(&text, lenient) {
                prop_assert!(token.start >= end && !token.bytes.is_empty());
                end = token.end();
            }
            prop_assert!(end <= text.len());
        }
    }
}
