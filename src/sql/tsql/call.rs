//! Calls of procedures in a text: `EXEC name …`, `EXEC ('…')`, `EXEC @name`, ODBC's `{call name}`, and
//! the name at the beginning of a batch, which needs no EXEC.

use crate::sql::tsql::lexer::{Token, TokenKind};
use crate::sql::tsql::name::Name;
use crate::sql::tsql::statements::is_keyword;

/// Who is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    Named(Name),
    /// `EXEC ('…')`: what stands in the parentheses is run.
    Text,
    /// A variable, or something that cannot be read.
    Hidden,
}

#[derive(Clone, Debug)]
pub(super) struct Call<'w, 'a> {
    pub(super) callee: Callee,
    /// What stands behind the name, up to the end of the statement.
    pub(super) arguments: &'w [Token<'a>],
}

impl<'a> Call<'_, 'a> {
    /// The arguments between the commas, each with its name (`@key =`) in lower case if it has one.
    pub(super) fn values(&self) -> Vec<(Option<String>, Vec<Token<'a>>)> {
        let mut values = Vec::new();
        for argument in self.arguments.split(|token| token.symbol(',')) {
            let named = match argument {
                [variable, equals, ..] if variable.kind == TokenKind::Variable && equals.symbol('=') => {
                    Some(variable.text.to_lowercase())
                }
                _ => None,
            };
            let from = if named.is_some() { 2 } else { 0 };
            let value = argument.get(from..).unwrap_or_default().to_vec();
            if !value.is_empty() {
                values.push((named, value));
            }
        }
        values
    }

    /// The argument of this name, or of this place (from 0) among those without a name.
    pub(super) fn value(&self, name: &str, place: usize) -> Option<Vec<Token<'a>>> {
        let values = self.values();
        let by_name = values.iter().find(|value| value.0.as_deref() == Some(name));
        let by_place = || values.get(place).filter(|value| value.0.is_none());
        by_name.or_else(by_place).map(|value| value.1.clone())
    }
}

/// What an EXEC or EXECUTE at this place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exec {
    Call,
    /// `EXECUTE AS …` as a statement.
    As,
    /// The permission in a GRANT, or the option of a module (`WITH EXECUTE AS OWNER`).
    Neither,
}

pub(super) fn exec_at(words: &[Token<'_>], at: usize) -> Option<Exec> {
    let exec = words.get(at)?;
    if !exec.is_any(&["exec", "execute"]) {
        return None;
    }
    let before = at.checked_sub(1).and_then(|at| words.get(at));
    let option = before.is_some_and(|token| token.is("with") || token.symbol(','));
    let next = words.get(at + 1);
    Some(match next {
        Some(next) if next.is("as") && option => Exec::Neither,
        Some(next) if next.is("as") => Exec::As,
        Some(next) if next.is_any(&["on", "to", "any"]) || next.symbol(',') => Exec::Neither,
        _ => Exec::Call,
    })
}

/// All calls in the order in which they stand.
pub(super) fn calls<'w, 'a>(words: &'w [Token<'a>]) -> Vec<Call<'w, 'a>> {
    let mut calls = Vec::new();
    calls.extend(bare(words));
    for at in 0..words.len() {
        let Some(token) = words.get(at) else { break };
        if exec_at(words, at) == Some(Exec::Call) {
            calls.push(called(words, at + 1));
        } else if token.symbol('{') && is_odbc_call(words, at) {
            let name = words.iter().skip(at).position(|token| token.is("call"));
            calls.push(called(words, at + name.unwrap_or(0) + 1));
        }
    }
    calls
}

/// `{call …` and `{? = call …`.
fn is_odbc_call(words: &[Token<'_>], at: usize) -> bool {
    words
        .get(at + 1)
        .is_some_and(|next| next.is("call") || next.symbol('?'))
}

/// The name at the beginning of the batch, if it is that of a procedure.
fn bare<'w, 'a>(words: &'w [Token<'a>]) -> Option<Call<'w, 'a>> {
    let first = words
        .iter()
        .position(|token| token.kind != TokenKind::Semicolon)?;
    is_bare_call(words, first).then(|| called(words, first))
}

/// Is the token at `first`, with which the batch begins, the name of a procedure?
pub(super) fn is_bare_call(words: &[Token<'_>], first: usize) -> bool {
    let label = words.get(first + 1).is_some_and(|token| token.symbol(':'));
    words
        .get(first)
        .is_some_and(|token| token.name().is_some() && !is_keyword(token) && !label)
}

/// The call whose callee begins at `at`.
fn called<'w, 'a>(words: &'w [Token<'a>], mut at: usize) -> Call<'w, 'a> {
    // The variable for what it returns.
    let returns = words
        .get(at)
        .is_some_and(|token| token.kind == TokenKind::Variable)
        && words.get(at + 1).is_some_and(|token| token.symbol('='));
    if returns {
        at += 2;
    }
    let rest = words.get(at..).unwrap_or_default();
    let named = Name::at(rest).filter(|_| rest.first().is_some_and(|token| !is_keyword(token)));
    let (callee, used) = match (rest.first(), named) {
        (Some(first), _) if first.kind == TokenKind::Open => (Callee::Text, 0),
        (_, Some((name, used))) => (Callee::Named(name), used),
        (_, None) => (Callee::Hidden, 0),
    };
    let arguments = rest.get(used..).unwrap_or_default();
    let numbered = matches!(arguments, [semicolon, number, ..]
        if semicolon.kind == TokenKind::Semicolon && number.kind == TokenKind::Number);
    let arguments = arguments.get(2 * usize::from(numbered)..).unwrap_or_default();
    let end = arguments
        .iter()
        .position(|token| token.kind == TokenKind::Semicolon || token.symbol('}') || is_keyword(token));
    let arguments = arguments
        .get(..end.unwrap_or(arguments.len()))
        .unwrap_or_default();
    // ODBC's form has them in parentheses.
    let arguments = match arguments {
        [open, inner @ .., close] if open.kind == TokenKind::Open && close.kind == TokenKind::Close => inner,
        plain => plain,
    };
    Call { callee, arguments }
}
