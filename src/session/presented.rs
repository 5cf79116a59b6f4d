//! What clients of every protocol put where it does not belong, and how much of a name is kept.

use crate::identity::ticket::holds_a_ticket;

/// Shortest text that can be a JWT: header, payload and signature of a few bytes each.
const TOKEN_CHARS_MIN: usize = 40;

/// Bytes of an application name that are kept. The server keeps 63; it is part of every record of the
/// session, so a stranger's 10 KB would be too much.
const APPLICATION_BYTES_MAX: usize = 256;

/// An application name as it is kept.
pub(super) fn kept_application(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(APPLICATION_BYTES_MAX));
    name
}

/// Three base64url parts, the first of which begins like a JSON object; or a ticket. Looks anywhere in
/// the text.
pub(super) fn looks_like_token(text: &str) -> bool {
    if holds_a_ticket(text) {
        return true;
    }
    let token_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.split(|c| !token_char(c)).any(|word| {
        let from_header = word.find("eyJ").and_then(|at| word.get(at..)).unwrap_or_default();
        from_header.len() >= TOKEN_CHARS_MIN && from_header.matches('.').count() >= 2
    })
}
