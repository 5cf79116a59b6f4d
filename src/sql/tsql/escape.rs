//! Statements that would change who the minted login is, or what gatepost has told the server about the
//! client: refused always. Looked for word by word, wherever they stand: inside of IF, of blocks, of
//! modules, and of constants that the same text runs (`EXEC ('…')`, `sp_executesql N'…'`).
//!
//! What a lexer cannot see, only the server's own fence holds: texts in variables, names in variables,
//! procedures of the client's own, keys of the session context that are computed. The keys that gatepost
//! sets are read-only there, and a minted login has no permission to change itself.

use crate::sql::tsql::correlation::{Key, key};
use crate::sql::tsql::lexer::{Lexer, LineEnd, Token, TokenKind, fold};
use crate::sql::tsql::procedures;
use crate::sql::tsql::statements::is_keyword;

/// Constants within constants that are looked into. Nobody writes more.
const NESTING_MAX: usize = 4;

/// Names what the text attempts.
pub(super) fn attempt(text: &str) -> Option<&'static str> {
    attempt_within(text, NESTING_MAX)
}

/// However the server ends its line comments.
fn attempt_within(text: &str, nesting: usize) -> Option<&'static str> {
    let (found, doubtful) = walk(text, LineEnd::Return, nesting);
    if found.is_some() || !doubtful {
        return found;
    }
    [LineEnd::Feed, LineEnd::Any]
        .into_iter()
        .find_map(|line_end| walk(text, line_end, nesting).0)
}

fn walk(text: &str, line_end: LineEnd, nesting: usize) -> (Option<&'static str>, bool) {
    let mut lexer = Lexer::with(text, line_end);
    let mut fence = Fence::new(nesting);
    for token in lexer.by_ref() {
        fence.see(&token);
    }
    fence.run_constant();
    (fence.found, lexer.is_doubtful())
}

/// Sees the tokens of a text one by one.
#[derive(Debug)]
struct Fence<'a> {
    found: Option<&'static str>,
    before: [Option<Token<'a>>; 2],
    place: Place,
    /// Constants joined with `+` that the text runs.
    constant: String,
    nesting: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Elsewhere,
    /// Among the arguments of `sp_set_session_context`.
    Context,
    /// Among what `EXEC (…)` or `sp_executesql` runs.
    Text,
}

impl<'a> Fence<'a> {
    const fn new(nesting: usize) -> Self {
        Self {
            found: None,
            before: [None, None],
            place: Place::Elsewhere,
            constant: String::new(),
            nesting,
        }
    }

    fn see(&mut self, token: &Token<'a>) {
        if token.kind == TokenKind::Comment || self.found.is_some() {
            return;
        }
        let [before, last] = self.before;
        self.found = principal(before, last, token);
        if token.kind == TokenKind::Semicolon || is_keyword(token) {
            self.run_constant();
            self.place = Place::Elsewhere;
        }
        match self.place {
            Place::Context => self.found = self.found.or_else(|| context_key(token)),
            Place::Text => self.text(token),
            Place::Elsewhere => {}
        }
        let executes = last.is_some_and(|last| last.is_any(&["exec", "execute"]));
        if executes && token.kind == TokenKind::Open {
            self.place = Place::Text;
        }
        if may_be_systems(token) {
            self.procedure(token);
        }
        self.before = [last, Some(*token)];
    }

    fn procedure(&mut self, token: &Token<'_>) {
        let Some(name) = token.folded() else { return };
        let Some(meaning) = procedures::by_folded(&name) else {
            return;
        };
        self.found = self.found.or(meaning.escape);
        if name == "sp_set_session_context" {
            self.place = Place::Context;
        } else if meaning.runs_text {
            self.place = Place::Text;
        }
    }

    fn text(&mut self, token: &Token<'_>) {
        match token.text_value() {
            Some(value) => self.constant.push_str(&value),
            None if token.symbol('+') => {}
            None => self.run_constant(),
        }
    }

    /// Looks into the constant that is complete.
    fn run_constant(&mut self) {
        let text = std::mem::take(&mut self.constant);
        if let Some(nesting) = self.nesting.checked_sub(1).filter(|_| !text.is_empty()) {
            self.found = self.found.or_else(|| attempt_within(&text, nesting));
        }
    }
}

/// Could this be the name of one of the system's procedures? Says no to nearly every word at the cost of
/// looking at one letter.
fn may_be_systems(token: &Token<'_>) -> bool {
    let named = matches!(
        token.kind,
        TokenKind::Word | TokenKind::Bracketed | TokenKind::Quoted
    );
    let first = token.text.trim_start_matches(['[', '"']).chars().next();
    named && first.is_some_and(|first| fold(first.encode_utf8(&mut [0; 4])) == "s")
}

/// Statements about logins, users and their memberships, by their first two or three words.
fn principal(before: Option<Token<'_>>, last: Option<Token<'_>>, token: &Token<'_>) -> Option<&'static str> {
    let last = last?;
    let verbs = ["create", "alter", "drop"];
    let named = [
        ("login", ["CREATE LOGIN", "ALTER LOGIN", "DROP LOGIN"]),
        ("user", ["CREATE USER", "ALTER USER", "DROP USER"]),
    ];
    for (object, what) in named {
        if token.is(object) {
            let verb = verbs.iter().position(|verb| last.is(verb))?;
            return what.get(verb).copied();
        }
    }
    let server = last.is("server") && before.is_some_and(|before| before.is("alter"));
    if token.is("role") && (last.is("alter") || server) {
        return Some("ALTER ROLE");
    }
    let granted = last.is("grant") || last.symbol(',');
    (token.is("impersonate") && granted).then_some("GRANT of IMPERSONATE")
}

/// A key that is gatepost's own. A bare word or a name in brackets is a constant too, as an argument.
fn context_key(token: &Token<'_>) -> Option<&'static str> {
    let value = token.text_value().or_else(|| token.name())?;
    let reserved = key(&value) == Key::Reserved || fold(&value) == "gatepost";
    reserved.then_some("a session context key of gatepost")
}
