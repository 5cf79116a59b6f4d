//! Correlation ids in Transact-SQL: `sp_set_session_context` with the key `correlation_id` or
//! `gatepost.correlation_id`, and the question after one with the key `gatepost.outcome_of`. Ids in comments are read as everywhere ([`crate::sql::correlation`]).

use crate::domain::correlation::{Correlation, CorrelationSource};
use crate::sql::correlation::{Reach, SetCorrelation, Setting};
use crate::sql::tsql::call::{Call, Callee};
use crate::sql::tsql::lexer::{Lexer, Token, TokenKind, fold};

/// Whose a key of the session context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `correlation_id`, `gatepost.correlation_id`, `gatepost.outcome_of`: the client's to set, and read here.
    Setting(Setting),
    /// Any other key that begins with `gatepost.`: never the client's.
    Reserved,
    /// The client's own.
    Own,
}

/// Whose this key is, also for a call of `sp_set_session_context` by RPC. Without regard to case, width
/// and spaces at the end.
pub fn key(key: &str) -> Key {
    let folded = fold(key);
    match folded.trim_end() {
        "correlation_id" | "gatepost.correlation_id" => Key::Setting(Setting::CorrelationId),
        "gatepost.outcome_of" => Key::Setting(Setting::OutcomeOf),
        reserved if reserved.starts_with("gatepost.") => Key::Reserved,
        _ => Key::Own,
    }
}

/// What a setting is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// To NULL, to an empty text, or to one that is no id.
    None,
    Known(Correlation),
    /// To what this variable (with its `@`, as written) holds: a parameter of the text, or unknown.
    Variable(Box<str>),
}

/// A call of `sp_set_session_context` with the key of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetContext {
    pub setting: Setting,
    pub value: Value,
    /// It asks for the key to be read-only: the id stays until the connection is reset.
    pub read_only: bool,
}

impl SetContext {
    /// As it counts when its variable had `value`; `None` when the variable is none of the parameters.
    pub fn bound(&self, value: Option<&str>) -> SetCorrelation {
        let value = match &self.value {
            Value::None => None,
            Value::Known(known) => Some(known.clone()),
            Value::Variable(_) => value.and_then(|id| Correlation::new(id, CorrelationSource::Set)),
        };
        SetCorrelation {
            setting: self.setting,
            reach: Reach::Session,
            value,
            parameter: None,
        }
    }
}

/// The place (from 0) of a variable among the parameters that the second argument of `sp_executesql`
/// declares (`@a int, @b nvarchar(10) = N'x' OUTPUT`).
pub fn parameter_place(declaration: &str, variable: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut place = 0;
    let mut begins = true;
    for token in Lexer::new(declaration) {
        match token.kind {
            TokenKind::Comment => continue,
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth = depth.saturating_sub(1),
            TokenKind::Variable if begins && token.text.eq_ignore_ascii_case(variable) => return Some(place),
            TokenKind::Word
            | TokenKind::Bracketed
            | TokenKind::Quoted
            | TokenKind::Variable
            | TokenKind::Text
            | TokenKind::Number
            | TokenKind::Semicolon
            | TokenKind::Symbol
            | TokenKind::Strange => {}
        }
        begins = depth == 0 && token.symbol(',');
        place += usize::from(begins);
    }
    None
}

/// A call of `sp_set_session_context`, whichever its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Setting(SetContext),
    /// Another key, or one that cannot be read.
    Other,
}

/// `sp_set_session_context [@key =] N'…', [@value =] … [, [@read_only =] 1]`.
pub(super) fn context(call: &Call<'_, '_>) -> Option<Context> {
    let Callee::Named(name) = &call.callee else {
        return None;
    };
    if name.folded() != "sp_set_session_context" {
        return None;
    }
    let named = call.value("@key", 0);
    let constant = named.as_deref().and_then(constant);
    let Some(Key::Setting(setting)) = constant.map(|constant| key(&constant)) else {
        return Some(Context::Other);
    };
    let value = call.value("@value", 1).unwrap_or_default();
    let value = match value.as_slice() {
        [null] if null.is("null") => Value::None,
        [variable] if variable.kind == TokenKind::Variable => Value::Variable(Box::from(variable.text)),
        _ => {
            let id = self::constant(&value);
            let id = id.and_then(|id| Correlation::new(&id, CorrelationSource::Set));
            id.map_or(Value::None, Value::Known)
        }
    };
    let read_only = call.value("@read_only", 2).unwrap_or_default();
    let writable = match read_only.as_slice() {
        [] => true,
        [value] => value.text == "0" || value.is("default"),
        _ => false,
    };
    Some(Context::Setting(SetContext {
        setting,
        value,
        read_only: !writable,
    }))
}

/// The value of an argument that is one constant. A word or a name in brackets is one too.
fn constant(argument: &[Token<'_>]) -> Option<String> {
    let [value] = argument else { return None };
    let text = value.text_value().or_else(|| value.name());
    let number = (value.kind == TokenKind::Number).then(|| value.text.into());
    text.or(number).map(std::borrow::Cow::into_owned)
}
