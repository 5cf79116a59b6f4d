//! A lexer for Transact-SQL: words, names, literals and comments, with nothing copied. It never fails:
//! an unterminated literal or comment runs to the end, where the server will refuse the text anyway.
//!
//! Rules from "Comments", "Constants" and "Database Identifiers" in Microsoft's Transact-SQL reference.
//! Where that is silent (which control characters are white space, what ends a `--` comment), the lexer
//! reads on in the likelier way and says that the text is [doubtful](Lexer::is_doubtful): whoever
//! judges must then take the worst.

use std::borrow::Cow;

/// Bytes of the longest word that is looked up in a list, `datetimeoffsetfromparts`, and some.
pub(super) const LOWERED_BYTES: usize = 40;

/// What a token is. Its text is given by its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or a name without quotes, also `#temporary` and `$action`.
    Word,
    /// `[…]`, brackets included.
    Bracketed,
    /// `"…"`, quotes included: a name, or a string constant where QUOTED_IDENTIFIER is off.
    Quoted,
    /// `@name`, `@@name`.
    Variable,
    /// `'…'` or `N'…'`, prefix and quotes included.
    Text,
    /// A number, `0x…`, or an amount of money.
    Number,
    /// `--…` or `/*…*/`, delimiters included.
    Comment,
    Semicolon,
    Open,
    Close,
    /// Any other single character that the language uses.
    Symbol,
    /// A character that has no meaning outside of quotes that we know of.
    Strange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: TokenKind,
    pub text: &'a str,
    /// Where the token starts in the text, in bytes.
    pub start: usize,
}

impl<'a> Token<'a> {
    pub const fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Is this the keyword `word` (given in lower case)? A name in quotes or brackets is never one.
    pub fn is(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Is this one of these keywords (given in lower case)?
    pub fn is_any(&self, words: &[&str]) -> bool {
        self.kind == TokenKind::Word && words.iter().any(|word| self.text.eq_ignore_ascii_case(word))
    }

    /// The word in lower case, written into `space`; empty for what is no word, or longer than any word that
    /// anybody asks for.
    pub(super) fn lowered<'s>(&self, space: &'s mut [u8; LOWERED_BYTES]) -> &'s str {
        if self.kind != TokenKind::Word {
            return "";
        }
        let Some(room) = space.get_mut(..self.text.len()) else {
            return "";
        };
        room.copy_from_slice(self.text.as_bytes());
        room.make_ascii_lowercase();
        std::str::from_utf8(room).unwrap_or_default()
    }

    /// Is this the single symbol `symbol`?
    pub fn symbol(&self, symbol: char) -> bool {
        self.kind == TokenKind::Symbol && self.text.chars().eq([symbol])
    }

    /// The name that this token spells, without its quotes or brackets and without the spaces at its
    /// end, which the server does not compare; `None` for what can be no name.
    pub fn name(&self) -> Option<Cow<'a, str>> {
        let inner = match self.kind {
            TokenKind::Word => return Some(Cow::Borrowed(self.text)),
            TokenKind::Bracketed => inner(self.text, '[', ']'),
            TokenKind::Quoted => inner(self.text, '"', '"'),
            TokenKind::Variable
            | TokenKind::Text
            | TokenKind::Number
            | TokenKind::Comment
            | TokenKind::Semicolon
            | TokenKind::Open
            | TokenKind::Close
            | TokenKind::Symbol
            | TokenKind::Strange => return None,
        };
        let value = undoubled(inner, if self.kind == TokenKind::Quoted { '"' } else { ']' });
        Some(match value {
            Cow::Borrowed(value) => Cow::Borrowed(value.trim_end()),
            Cow::Owned(value) => Cow::Owned(value.trim_end().to_owned()),
        })
    }

    /// The name as the server's collations without case and width compare it.
    pub fn folded(&self) -> Option<String> {
        Some(fold(&self.name()?))
    }

    /// The value of a string constant: of `"…"` too, which is one where QUOTED_IDENTIFIER is off.
    pub fn text_value(&self) -> Option<Cow<'a, str>> {
        let value = match self.kind {
            TokenKind::Text => {
                let text = self.text.strip_prefix(['n', 'N']).unwrap_or(self.text);
                undoubled(inner(text, '\'', '\''), '\'')
            }
            TokenKind::Quoted => undoubled(inner(self.text, '"', '"'), '"'),
            TokenKind::Word
            | TokenKind::Bracketed
            | TokenKind::Variable
            | TokenKind::Number
            | TokenKind::Comment
            | TokenKind::Semicolon
            | TokenKind::Open
            | TokenKind::Close
            | TokenKind::Symbol
            | TokenKind::Strange => return None,
        };
        // A backslash before the end of a line joins the lines of a constant.
        if value.contains("\\\n") || value.contains("\\\r\n") {
            return Some(Cow::Owned(value.replace("\\\r\n", "").replace("\\\n", "")));
        }
        Some(value)
    }
}

/// Folds case, and the letters that collations without width or with Turkish rules take for ASCII ones.
pub(super) fn fold(name: &str) -> String {
    let plain = name.chars().map(|c| match c {
        '\u{ff01}'..='\u{ff5e}' => u32::from(c)
            .checked_sub(0xfee0)
            .and_then(char::from_u32)
            .unwrap_or(c),
        '\u{130}' | '\u{131}' => 'i',
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => c,
    });
    plain.flat_map(char::to_lowercase).collect()
}

/// What stands between the quotes; an unterminated constant has no closing one.
fn inner(text: &str, open: char, close: char) -> &str {
    let rest = text.strip_prefix(open).unwrap_or(text);
    rest.strip_suffix(close).unwrap_or(rest)
}

fn undoubled(inner: &str, quote: char) -> Cow<'_, str> {
    let doubled = [quote, quote].iter().collect::<String>();
    if inner.contains(&doubled) {
        Cow::Owned(inner.replace(&doubled, &quote.to_string()))
    } else {
        Cow::Borrowed(inner)
    }
}

/// What ends a `--` comment besides a line feed. The documentation says only "the end of the line".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// Nothing else.
    Feed,
    /// A carriage return.
    Return,
    /// Every character that some system takes for the end of a line.
    Any,
}

impl LineEnd {
    pub const ALL: [Self; 3] = [Self::Feed, Self::Return, Self::Any];

    const fn ends(self, c: char) -> bool {
        match c {
            '\n' => true,
            '\r' => matches!(self, Self::Return | Self::Any),
            '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => matches!(self, Self::Any),
            _ => false,
        }
    }
}

/// Walks the tokens of a text, comments included, white space skipped, once over every character.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line_end: LineEnd,
    doubtful: bool,
}

impl<'a> Lexer<'a> {
    pub const fn new(text: &'a str) -> Self {
        Self::with(text, LineEnd::Return)
    }

    pub const fn with(text: &'a str, line_end: LineEnd) -> Self {
        Self {
            text,
            at: 0,
            line_end,
            doubtful: false,
        }
    }

    /// Did what was walked so far hold anything that the server may read otherwise?
    pub const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// The byte `ahead` bytes on: for ASCII characters only.
    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !accept(c)).unwrap_or(rest.len());
    }

    fn white_space(&mut self) {
        while let Some(c) = self.peek().filter(|c| is_space(*c)) {
            // Known to be white space: the ASCII ones and the wide and unbreakable spaces of Unicode.
            self.doubtful |= !matches!(c, '\t'..='\r' | ' ' | '\u{a0}' | '\u{3000}');
            self.at += c.len_utf8();
        }
    }

    /// `--` up to, not including, the end of the line.
    fn line_comment(&mut self) {
        let start = self.at;
        let line_end = self.line_end;
        self.take_while(|c| !line_end.ends(c));
        let comment = self.text.get(start..self.at).unwrap_or_default();
        let unsure = |c: char| LineEnd::Any.ends(c);
        let lone_return = self.byte(0) == Some(b'\r') && self.byte(1) != Some(b'\n');
        let before_feed = comment.strip_suffix('\r').filter(|_| self.byte(0) == Some(b'\n'));
        self.doubtful |= lone_return || before_feed.unwrap_or(comment).contains(unsure);
        self.doubtful |= self.peek().is_some_and(|c| !matches!(c, '\n' | '\r'));
    }

    /// `/* … */`, which nests.
    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.byte(0) {
            match (byte, self.byte(1)) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                    // `/*/` opens and does not close, if the server reads pairs as we do.
                    self.doubtful |= self.byte(0) == Some(b'/');
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
    fn quoted(&mut self, quote: u8) {
        self.at += 1;
        loop {
            let Some(found) = self.rest().bytes().position(|byte| byte == quote) else {
                self.at = self.text.len();
                return;
            };
            self.at += found + 1;
            if self.byte(0) != Some(quote) {
                return;
            }
            self.at += 1;
        }
    }

    /// Digits, a fraction, an exponent, or `0x…`. A letter behind it begins a word: `1from` is two tokens.
    fn number(&mut self) {
        if self.byte(0) == Some(b'0') && matches!(self.byte(1), Some(b'x' | b'X')) {
            self.at += 2;
            self.take_while(|c| c.is_ascii_hexdigit());
            // How far the digits reach is the server's to say, also over a backslash and a line's end.
            self.doubtful |= self.peek().is_some_and(|c| is_word(c) || c == '\\');
            return;
        }
        self.take_while(|c| c.is_ascii_digit());
        if self.byte(0) == Some(b'.') {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        if matches!(self.byte(0), Some(b'e' | b'E')) {
            let signed = matches!(self.byte(1), Some(b'+' | b'-'));
            let digits = 1 + usize::from(signed);
            if self.byte(digits).is_some_and(|byte| byte.is_ascii_digit()) {
                self.at += digits;
                self.take_while(|c| c.is_ascii_digit());
            } else {
                // `1e` is a number to the server, with or without what follows.
                self.doubtful = true;
                self.at += 1;
            }
        }
    }

    /// `$1.5`, `$action`, or an amount of zero.
    fn dollar(&mut self) -> TokenKind {
        self.at += 1;
        match self.peek() {
            Some(c) if c.is_ascii_digit() || c == '.' => {
                self.number();
                TokenKind::Number
            }
            Some(c) if is_word_start(c) => {
                self.take_while(is_word);
                TokenKind::Word
            }
            _ => TokenKind::Number,
        }
    }

    fn symbol(&mut self, c: char) -> TokenKind {
        self.at += c.len_utf8();
        match c {
            ';' => TokenKind::Semicolon,
            '(' => TokenKind::Open,
            ')' => TokenKind::Close,
            '!' | '%' | '&' | '*' | '+' | ',' | '-' | '.' | '/' | ':' | '<' | '=' | '>' | '?' | '^' | '{'
            | '|' | '}' | '~' => TokenKind::Symbol,
            _ => {
                self.doubtful = true;
                TokenKind::Strange
            }
        }
    }
}

/// Letters, `_` and `#`. `@` and `$` begin words of their own kinds.
fn is_word_start(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '#'
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '#' | '@' | '$')
}

fn is_space(c: char) -> bool {
    c <= ' ' || c.is_whitespace()
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.white_space();
        let start = self.at;
        let first = self.peek()?;
        let kind = match (first, self.byte(1)) {
            ('-', Some(b'-')) => {
                self.line_comment();
                TokenKind::Comment
            }
            ('/', Some(b'*')) => {
                self.block_comment();
                TokenKind::Comment
            }
            ('\'', _) => {
                self.quoted(b'\'');
                TokenKind::Text
            }
            ('n' | 'N', Some(b'\'')) => {
                self.at += 1;
                self.quoted(b'\'');
                TokenKind::Text
            }
            ('"', _) => {
                self.quoted(b'"');
                TokenKind::Quoted
            }
            ('[', _) => {
                self.quoted(b']');
                TokenKind::Bracketed
            }
            ('@', _) => {
                self.take_while(is_word);
                TokenKind::Variable
            }
            ('$', _) => self.dollar(),
            ('.', Some(b'0'..=b'9')) | ('0'..='9', _) => {
                self.number();
                TokenKind::Number
            }
            (c, _) if is_word_start(c) => {
                self.take_while(is_word);
                TokenKind::Word
            }
            (c, _) => self.symbol(c),
        };
        // A comment's pairs are stepped over byte by byte; what is cut is whole characters.
        self.at = self.text.ceil_char_boundary(self.at);
        Some(Token {
            kind,
            text: self.text.get(start..self.at).unwrap_or_default(),
            start,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(text: &str) -> Vec<(TokenKind, &str)> {
        Lexer::new(text).map(|token| (token.kind, token.text)).collect()
    }

    fn words(text: &str) -> Vec<&str> {
        let words = Lexer::new(text).filter(|token| token.kind != TokenKind::Comment);
        words.map(|token| token.text).collect()
    }

    fn is_doubtful(text: &str) -> bool {
        let mut lexer = Lexer::new(text);
        let _tokens = lexer.by_ref().count();
        lexer.is_doubtful()
    }

    #[test]
    fn quotes_hide_what_stands_in_them() {
        let texts = [
            "select 'a;b'",
            "select 'it''s;'",
            "select N'a;''b'",
            "select [a;b]",
            "select [a]];b]",
            "select \"a;\"\"b\"",
            "select 1 /* ; /* ; */ ; */",
            "select 1 -- ;",
            "select 1 /* -- */ /* ' ; */",
            "select 'unterminated ;",
            "select /* unterminated ;",
            r"select '\' + ';'",
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
    fn a_backslash_escapes_nothing() {
        assert_eq!(words(r"'\';'x'"), [r"'\'", ";", "'x'"]);
    }

    #[test]
    fn words_end_where_the_server_ends_them() {
        assert_eq!(words("1from"), ["1", "from"]);
        assert_eq!(words("1.5e-3commit"), ["1.5e-3", "commit"]);
        assert_eq!(words("0x1Fand"), ["0x1Fa", "nd"]);
        assert_eq!(words("com/**/mit"), ["com", "mit"]);
        assert_eq!(
            words("a#b @x@y ##t $action $1.5 n'x' n x"),
            ["a#b", "@x@y", "##t", "$action", "$1.5", "n'x'", "n", "x"]
        );
        assert_eq!(words("'a'commit"), ["'a'", "commit"]);
        assert_eq!(words("[a]commit\u{a0}tran"), ["[a]", "commit", "tran"]);
        assert_eq!(words("a.b..c"), ["a", ".", "b", ".", ".", "c"]);
    }

    #[test]
    fn values_are_read_without_their_quotes() {
        let value = |text: &'static str| Lexer::new(text).next().unwrap().text_value().unwrap();
        assert_eq!(value("'it''s'"), "it's");
        assert_eq!(value("N'a'"), "a");
        assert_eq!(value("N'a\\\nb\\\r\nc'"), "abc");
        assert_eq!(value("\"a\"\"b\""), "a\"b");
        let name = |text: &'static str| Lexer::new(text).next().unwrap().name().unwrap();
        assert_eq!(name("[a]]b ]"), "a]b");
        assert_eq!(name("\"a\""), "a");
        assert_eq!(fold("SP_\u{ff33}et\u{212a}"), "sp_setk");
    }

    #[test]
    fn what_the_server_may_read_otherwise_is_doubtful() {
        let doubtful = [
            "select 1 -- a\rcommit",
            "select 1 -- a\u{2028}commit",
            "select 1 -- a\u{b}commit",
            "select 1 /*/ commit /*/",
            "select 1ecommit",
            "select 0x1begin",
            "select\u{1}1",
            "select\u{2003}1",
            "com\u{200b}mit",
            "select 1 \u{2019}",
            "select \\",
            "select\u{0}1",
        ];
        for text in doubtful {
            assert!(is_doubtful(text), "{text:?}");
        }
        let clear = [
            "select 1 -- a\r\nfrom t -- b\n-- c",
            "select N'\u{2019}\u{200b}' as [\u{200b}]",
            "select a\u{a0}from\u{3000}t",
            "select 1.5e3, .5, 0xAB, $5 from straße",
            "/* /* a */ ** // */ select 1",
        ];
        for text in clear {
            assert!(!is_doubtful(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_walked_to_the_end(text in r#"[a-z0-9'"\[\]/*\-\r\n;.@#$\\éЖ\u{2028}\u{ff33} ]{0,200}"#) {
            for line_end in LineEnd::ALL {
                let mut end = 0;
                for token in Lexer::with(&text, line_end) {
                    prop_assert!(token.start >= end && !token.text.is_empty());
                    prop_assert!(token.name().is_none_or(|name| name.len() <= token.text.len()));
                    prop_assert!(token.text_value().is_none_or(|value| value.len() <= token.text.len()));
                    end = token.end();
                }
                prop_assert!(end <= text.len());
            }
        }
    }
}
