//! Statements that would change who a minted login is: refused always. What a lexer cannot see
//! (dynamic SQL, functions) is held by the server's own fence.

use crate::sql::lexer::{Token, TokenKind};

/// Names what the statement attempts, or `None` when it is no escape that can be seen.
pub(super) fn attempt(words: &[Token<'_>]) -> Option<&'static str> {
    let verb = words.first()?;
    if verb.is("set") {
        return set(words);
    }
    if verb.is("alter") {
        return alter(words);
    }
    if words.iter().any(|token| token.names("set_config")) {
        return set_config(words);
    }
    None
}

/// `SET [SESSION|LOCAL] ROLE …`, `SET [SESSION|LOCAL] SESSION AUTHORIZATION …`, and the same
/// settings by name (`SET role = …`, `SET "session_authorization" TO …`).
fn set(words: &[Token<'_>]) -> Option<&'static str> {
    // `SET SESSION x` and `SET SESSION AUTHORIZATION` share their second word.
    let scoped = words
        .get(1)
        .is_some_and(|token| token.is("session") || token.is("local"));
    let names = |at: usize, name: &str| words.get(at).is_some_and(|token| token.names(name));
    let at = if scoped && !names(2, "authorization") {
        2
    } else {
        1
    };
    if names(at, "role") {
        return Some("SET ROLE");
    }
    let authorization = names(at, "session") && names(at + 1, "authorization");
    (authorization || names(at, "session_authorization")).then_some("SET SESSION AUTHORIZATION")
}

fn alter(words: &[Token<'_>]) -> Option<&'static str> {
    let object = words.get(1)?;
    let mapping = words.get(2).is_some_and(|token| token.is("mapping"));
    let role = object.is("role") || object.is("group") || (object.is("user") && !mapping);
    role.then_some("ALTER ROLE")
}

/// `set_config('role', …)` with the name as a constant.
fn set_config(words: &[Token<'_>]) -> Option<&'static str> {
    let named = words
        .iter()
        .filter(|token| token.kind == TokenKind::Text)
        .any(|token| {
            let Some(value) = token.text_value() else {
                // A constant with escapes may spell anything: judge by what it could hide.
                return true;
            };
            let value = value.to_ascii_lowercase();
            value == b"role" || value == b"session_authorization"
        });
    named.then_some("set_config of the role")
}
