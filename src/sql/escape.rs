//! Statements that would change who a minted login is: refused always. What a lexer cannot see
//! (dynamic SQL, functions, computed names) is held by the server's own fence.
//!
//! The fence looks at every piece of a text between two semicolons, wherever they stand: whoever
//! makes us misjudge where a statement ends gains nothing.

use crate::sql::lexer::{Backslash, Lexer, Token, TokenKind};

/// First tokens of a piece that tell what it is.
const WORDS_KEPT: usize = 16;

/// Client encodings in which the second byte of a character can look like a backslash or a letter, so
/// that nobody but the server can tell where a constant ends. As the server writes them after dropping
/// everything but letters and digits (`encnames.c`, names and aliases).
const ENCODINGS_REFUSED: [&str; 17] = [
    "big5",
    "gb18030",
    "gbk",
    "johab",
    "mskanji",
    "shiftjis",
    "shiftjis2004",
    "sjis",
    "uhc",
    "win932",
    "win936",
    "win949",
    "win950",
    "windows932",
    "windows936",
    "windows949",
    "windows950",
];

/// Can texts in this client encoding not be read byte by byte?
pub fn is_unreadable_encoding(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    ENCODINGS_REFUSED.contains(&plain.to_ascii_lowercase().as_str())
}

/// Names what a text attempts in one of the ways in which the server may read its backslashes, except
/// `read`, which has been looked at: the setting may change before the server comes to this text.
pub(super) fn attempt_read_otherwise(text: &[u8], read: Backslash) -> Option<&'static str> {
    if !text.contains(&b'\\') {
        return None;
    }
    let others = Backslash::ALL.into_iter().filter(|other| *other != read);
    others.into_iter().find_map(|backslash| {
        let mut fence = Fence::default();
        for token in Lexer::with(text, backslash) {
            fence.see(token);
        }
        fence.attempt()
    })
}

/// Sees the tokens of a text one by one.
#[derive(Debug, Default)]
pub(super) struct Fence<'a> {
    words: Vec<Token<'a>>,
    piece: Piece,
    found: Option<&'static str>,
}

/// What one piece holds besides its first words.
#[derive(Debug, Default)]
struct Piece {
    depth: usize,
    updates: bool,
    settings_view: bool,
    on: bool,
    /// An identifier whose escapes are spelt with a character of its own.
    hidden_name: bool,
    after_quoted: bool,
    call: Call,
    calls_set_config: bool,
    /// A constant that names the role, or may.
    role_constant: bool,
    unreadable_constant: bool,
    encoding_constant: bool,
    named_arguments: bool,
    after_equals: bool,
    clause: Clause,
    sets_role: bool,
}

/// Where in `set_config(…` we are.
#[derive(Debug, Default, PartialEq, Eq)]
enum Call {
    #[default]
    Elsewhere,
    Named,
    FirstArgument {
        depth: usize,
    },
}

/// Where in a routine's or database's `SET …` clause we are.
#[derive(Debug, Default, PartialEq, Eq)]
enum Clause {
    #[default]
    Elsewhere,
    Set,
    SetSession,
    /// A body follows, in which a `SET` is an UPDATE's.
    Body,
}

impl<'a> Fence<'a> {
    pub(super) fn see(&mut self, token: Token<'a>) {
        match token.kind {
            TokenKind::Comment => return,
            TokenKind::Semicolon => return self.end(),
            TokenKind::Open => self.piece.depth += 1,
            TokenKind::Close => self.piece.depth = self.piece.depth.saturating_sub(1),
            TokenKind::Word | TokenKind::QuotedWord => self.piece.word(&token),
            TokenKind::Text => self.piece.text(&token),
            TokenKind::Number | TokenKind::Parameter | TokenKind::Symbol => {}
        }
        self.piece.place(&token);
        if self.words.len() < WORDS_KEPT {
            self.words.push(token);
        }
    }

    /// What the text attempts, or `None` when it is no escape that can be seen.
    pub(super) fn attempt(mut self) -> Option<&'static str> {
        self.end();
        self.found
    }

    fn end(&mut self) {
        self.found = self.found.or_else(|| judge(&self.words, &self.piece));
        self.words.clear();
        self.piece = Piece::default();
    }
}

impl Piece {
    fn word(&mut self, token: &Token<'_>) {
        self.updates |= token.is("update");
        self.on |= token.is("on");
        self.settings_view |= token.names("pg_settings");
        self.hidden_name |= self.after_quoted && token.is("uescape");
        self.calls_set_config |= token.names("set_config");
    }

    /// Constants count behind the call's name only, so that all others cost nothing.
    fn text(&mut self, token: &Token<'_>) {
        if !self.calls_set_config {
            return;
        }
        match token.text_value() {
            Some(value) => {
                let value = value.to_ascii_lowercase();
                self.role_constant |= value == b"role" || value == b"session_authorization";
                self.encoding_constant |= std::str::from_utf8(&value).is_ok_and(is_unreadable_encoding);
            }
            // A constant with escapes may spell anything: judged by what it could hide.
            None => {
                self.unreadable_constant = true;
                self.role_constant |= matches!(self.call, Call::FirstArgument { .. });
            }
        }
    }

    /// Follows where in the piece the next token stands.
    fn place(&mut self, token: &Token<'_>) {
        self.call = match self.call {
            Call::Named if token.kind == TokenKind::Open => Call::FirstArgument { depth: self.depth },
            Call::FirstArgument { depth } if self.depth >= depth => {
                if token.symbol(b',') && self.depth == depth {
                    Call::Elsewhere
                } else {
                    Call::FirstArgument { depth }
                }
            }
            Call::Elsewhere | Call::Named | Call::FirstArgument { .. } => Call::Elsewhere,
        };
        if token.names("set_config") {
            self.call = Call::Named;
        }
        // `name => value`, `name := value`.
        self.named_arguments |= self.after_equals && (token.symbol(b'>') || token.symbol(b'='));
        self.after_equals = token.symbol(b'=') || token.symbol(b':');
        self.after_quoted = token.kind == TokenKind::QuotedWord && token.has_unicode_escapes();
        self.sets_role |= match self.clause {
            Clause::Set => token.names_setting("role") || token.names_setting("session_authorization"),
            Clause::SetSession => token.is("authorization"),
            Clause::Elsewhere | Clause::Body => false,
        };
        self.clause = match self.clause {
            Clause::Body => Clause::Body,
            _ if self.depth == 0 && token.is("begin") => Clause::Body,
            _ if self.depth == 0 && token.is("set") => Clause::Set,
            Clause::Set if token.is("session") => Clause::SetSession,
            Clause::Set | Clause::SetSession | Clause::Elsewhere => Clause::Elsewhere,
        };
    }
}

fn judge(words: &[Token<'_>], piece: &Piece) -> Option<&'static str> {
    let verb = words.first()?;
    if piece.hidden_name {
        return Some("an identifier with UESCAPE");
    }
    if piece.calls_set_config {
        if piece.role_constant || (piece.named_arguments && piece.unreadable_constant) {
            return Some("set_config of the role");
        }
        if piece.encoding_constant {
            return Some("this client_encoding");
        }
    }
    if piece.updates && piece.settings_view {
        return Some("UPDATE of pg_settings");
    }
    if verb.is("set") {
        return set(words);
    }
    if verb.is("alter") {
        return alter(words).or_else(|| routine(words, piece));
    }
    if verb.is("create") {
        return routine(words, piece);
    }
    if (verb.is("grant") || verb.is("revoke")) && !piece.on {
        return Some("GRANT or REVOKE of a role");
    }
    // What is loaded stays in the server's process, whoever is served there next.
    verb.is("load").then_some("LOAD")
}

/// `SET [SESSION|LOCAL] ROLE …`, `SET [SESSION|LOCAL] SESSION AUTHORIZATION …`, and the same
/// settings by name (`SET role = …`, `SET "session_authorization" TO …`).
fn set(words: &[Token<'_>]) -> Option<&'static str> {
    // `SET SESSION x` and `SET SESSION AUTHORIZATION` share their second word.
    let scoped = words
        .get(1)
        .is_some_and(|token| token.is("session") || token.is("local"));
    let names = |at: usize, name: &str| words.get(at).is_some_and(|token| token.names_setting(name));
    let at = if scoped && !names(2, "authorization") {
        2
    } else {
        1
    };
    if names(at, "role") {
        return Some("SET ROLE");
    }
    let authorization = names(at, "session") && names(at + 1, "authorization");
    if authorization || names(at, "session_authorization") {
        return Some("SET SESSION AUTHORIZATION");
    }
    let value = if names(at, "names") {
        words.get(at + 1)
    } else {
        words.get(at + 2).filter(|_| names(at, "client_encoding"))
    };
    value
        .filter(|value| hides_encoding(value))
        .map(|_| "this client_encoding")
}

fn hides_encoding(value: &Token<'_>) -> bool {
    let spelt = value.text_value().or_else(|| value.word_value());
    match spelt.map(String::from_utf8) {
        Some(Ok(name)) => is_unreadable_encoding(&name),
        Some(Err(_)) | None => value.kind == TokenKind::Text,
    }
}

fn alter(words: &[Token<'_>]) -> Option<&'static str> {
    let object = words.get(1)?;
    let mapping = words.get(2).is_some_and(|token| token.is("mapping"))
        && words.get(3).is_some_and(|token| token.is("for"));
    let role = object.is("role") || object.is("group") || (object.is("user") && !mapping);
    role.then_some("ALTER ROLE")
}

/// A routine or a database that sets the role for whoever uses it.
fn routine(words: &[Token<'_>], piece: &Piece) -> Option<&'static str> {
    const OBJECTS: [&str; 4] = ["function", "procedure", "routine", "database"];
    let object = words
        .iter()
        .take(4)
        .any(|token| OBJECTS.iter().any(|object| token.is(object)));
    (object && piece.sets_role).then_some("a SET clause with the role")
}

#[cfg(test)]
mod tests;
