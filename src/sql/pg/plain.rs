//! Is a text *proven* to write nothing, or at least to run no code that nobody looked at? What cannot be
//! proven counts as a write.
//!
//! The proof does not rest on reading the text as the server's grammar does. It rests on names: a statement can
//! only use what it spells, or what its operators and types imply, and every word that could name something
//! dangerous makes the proof fail, whatever part it plays. A word that is only a column's name may make it fail for
//! nothing, and the statement is treated as it would be without a proof. A parser could be wrong about what a
//! word means; this can only be wrong about where a word ends, so whatever the versions and settings of the
//! server read in different ways (backslashes, letters behind digits, other encodings, escaped and overlong
//! names) is not proven.

use std::borrow::Cow;

use crate::sql::kind::Kind;
use crate::sql::lexer::{Lexer, Token, TokenKind};
use crate::sql::pg::catalogue::{Catalogue, Danger, NAME_BYTES_MAX};

/// Bytes of a text that is judged. Longer ones are lists of values, for which a probe costs nothing that
/// anybody would notice.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// What is known of a statement before it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proven {
    /// Nothing: it may write, and make or change code.
    #[default]
    Nothing,
    /// It may write, but runs no code that nobody looked at, so it makes none.
    RunsNoCode,
    /// It writes nothing and takes no transaction id.
    PlainRead,
}

/// Judges a text of one statement of this kind. `utf8`: its bytes beyond ASCII are known to be UTF-8.
pub fn prove(text: &[u8], kind: Kind, utf8: bool, catalogue: &Catalogue) -> Proven {
    if text.len() > TEXT_BYTES_MAX || catalogue.is_hopeless() {
        return Proven::Nothing;
    }
    let legible = |byte: &u8| *byte != b'\\' && (utf8 || byte.is_ascii());
    let Some(mut sight) = Sight::of(kind).filter(|_| text.iter().all(legible)) else {
        return Proven::Nothing;
    };
    let mut tokens = Lexer::new(text, false).filter(|token| token.kind != TokenKind::Comment);
    let mut before: Option<Token<'_>> = None;
    let mut at = tokens.next();
    while let Some(token) = at {
        let next = tokens.next();
        if sight
            .see(before.as_ref(), &token, next.as_ref(), catalogue)
            .is_none()
        {
            return Proven::Nothing;
        }
        before = Some(token);
        at = next;
    }
    sight.verdict(catalogue)
}

/// What was seen of a text so far.
struct Sight {
    writes: bool,
    /// `COPY … TO` and the kinds of reading have no INTO.
    may_insert: bool,
    danger: Danger,
    /// Operator characters side by side, comments and white space left out.
    operator: String,
}

impl Sight {
    /// `None` for a kind of which nothing is ever proven.
    fn of(kind: Kind) -> Option<Self> {
        let writes = match kind {
            Kind::Select | Kind::With | Kind::CopyOut => false,
            Kind::Insert
            | Kind::Update
            | Kind::Delete
            | Kind::Merge
            | Kind::Lock
            | Kind::CopyIn
            | Kind::Declare
            | Kind::DeclareHeld => true,
            Kind::Empty
            | Kind::Begin
            | Kind::Commit
            | Kind::Rollback
            | Kind::RollbackTo
            | Kind::Savepoint
            | Kind::Release
            | Kind::PrepareTransaction
            | Kind::EndPrepared
            | Kind::Set
            | Kind::Show
            | Kind::CopyServer
            | Kind::Call
            | Kind::Do
            | Kind::Prepare
            | Kind::Execute
            | Kind::Deallocate
            | Kind::Discard
            | Kind::Listen
            | Kind::Notify
            | Kind::Fetch
            | Kind::CloseCursor
            | Kind::Explain
            | Kind::Definition
            | Kind::Maintenance
            | Kind::Use
            | Kind::Print
            | Kind::Control
            | Kind::Unknown => return None,
        };
        Some(Self {
            writes,
            may_insert: !matches!(kind, Kind::Select | Kind::CopyOut),
            danger: Danger::NONE,
            operator: String::new(),
        })
    }

    /// `None` when nothing can be proven any more.
    fn see(
        &mut self,
        before: Option<&Token<'_>>,
        token: &Token<'_>,
        next: Option<&Token<'_>>,
        catalogue: &Catalogue,
    ) -> Option<()> {
        if token.kind != TokenKind::Symbol {
            self.operator_ended(catalogue)?;
        }
        match token.kind {
            TokenKind::Word => {
                self.keyword(before, token, next)?;
                self.name(before, token, next, catalogue)
            }
            TokenKind::QuotedWord if token.has_unicode_escapes() => None,
            TokenKind::QuotedWord => self.name(before, token, next, catalogue),
            // Up to version 14 a word may begin behind a digit.
            TokenKind::Number => is_number(token, next).then_some(()),
            TokenKind::Parameter => {
                let word = next.filter(|next| next.kind == TokenKind::Word);
                word.is_none_or(|word| word.start > token.end()).then_some(())
            }
            TokenKind::Symbol => {
                let symbol = *token.bytes.first()?;
                if is_operator(symbol) {
                    self.operator.push(char::from(symbol));
                    Some(())
                } else {
                    self.operator_ended(catalogue)
                }
            }
            // One statement may end with it; what stands behind it was counted as another.
            TokenKind::Semicolon if next.is_some_and(|next| next.kind != TokenKind::Semicolon) => None,
            TokenKind::Semicolon
            | TokenKind::Text
            | TokenKind::Comment
            | TokenKind::Open
            | TokenKind::Close => Some(()),
        }
    }

    /// Words of the grammar that make a reading statement write.
    fn keyword(
        &mut self,
        before: Option<&Token<'_>>,
        token: &Token<'_>,
        next: Option<&Token<'_>>,
    ) -> Option<()> {
        let one_of = |token: Option<&Token<'_>>, words: &[&str]| {
            token.is_some_and(|token| words.iter().any(|word| token.is(word)))
        };
        if token.is("into") {
            // SELECT INTO makes a table, and event triggers run at that.
            return (self.may_insert && one_of(before, &["insert", "merge"])).then_some(());
        }
        let locks = token.is("for") && one_of(next, &["update", "no", "share", "key"]);
        self.writes |= locks || one_of(Some(token), &["insert", "update", "delete", "merge"]);
        Some(())
    }

    fn name(
        &mut self,
        before: Option<&Token<'_>>,
        token: &Token<'_>,
        next: Option<&Token<'_>>,
        catalogue: &Catalogue,
    ) -> Option<()> {
        if token.bytes.len() > NAME_BYTES_MAX {
            return None;
        }
        let name = spelt(token)?;
        let danger = catalogue.danger(&name);
        if danger == Danger::NONE {
            return Some(());
        }
        if danger.has(Danger::READ_RUNS) {
            return None;
        }
        if danger.has(Danger::WRITE_RUNS) {
            self.danger |= Danger::WRITE_RUNS;
        }
        // `f (…)`, and `t.f`, which calls f with the row t where t has no such column.
        let called = next.is_some_and(|next| next.kind == TokenKind::Open)
            || before.is_some_and(|before| before.symbol(b'.'));
        if called && danger.has(Danger::CALL_RUNS) {
            return None;
        }
        self.writes |= called && danger.has(Danger::CALL_WRITES);
        Some(())
    }

    fn operator_ended(&mut self, catalogue: &Catalogue) -> Option<()> {
        if self.operator.is_empty() {
            return Some(());
        }
        let dangerous = catalogue.is_dangerous_operator(&self.operator);
        self.operator.clear();
        (!dangerous).then_some(())
    }

    fn verdict(mut self, catalogue: &Catalogue) -> Proven {
        if self.operator_ended(catalogue).is_none() {
            return Proven::Nothing;
        }
        match self.writes {
            false => Proven::PlainRead,
            true if self.danger.has(Danger::WRITE_RUNS) => Proven::Nothing,
            true => Proven::RunsNoCode,
        }
    }
}

/// The name that a word spells, folded as the server folds it; `None` where servers differ about that.
fn spelt<'a>(token: &Token<'a>) -> Option<Cow<'a, str>> {
    if token.kind == TokenKind::QuotedWord {
        let value = token.word_value()?;
        return Some(Cow::Owned(String::from_utf8(value).ok()?));
    }
    let word = std::str::from_utf8(token.bytes)
        .ok()
        .filter(|word| word.is_ascii())?;
    Some(if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(word.to_ascii_lowercase())
    } else {
        Cow::Borrowed(word)
    })
}

/// Digits with a point and an exponent, and nothing else.
fn is_number(token: &Token<'_>, next: Option<&Token<'_>>) -> bool {
    let mut parts = token.bytes.splitn(2, |byte| matches!(byte, b'e' | b'E'));
    let mantissa = parts.next().unwrap_or_default();
    let exponent = match parts.next() {
        None => true,
        // Of `1e-5` the lexer gives `1e`, a sign and a number.
        Some([]) => {
            next.is_some_and(|next| next.start == token.end() && (next.symbol(b'-') || next.symbol(b'+')))
        }
        Some(digits) => digits.iter().all(u8::is_ascii_digit),
    };
    exponent && mantissa.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

const fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-'
            | b'*'
            | b'/'
            | b'<'
            | b'>'
            | b'='
            | b'~'
            | b'!'
            | b'@'
            | b'#'
            | b'%'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
    )
}
