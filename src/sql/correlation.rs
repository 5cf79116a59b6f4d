//! Correlation ids in SQL text: `SET gatepost.correlation_id`, and sqlcommenter comments
//! (`/*traceparent='00-…'*/`, `/*correlation_id='…'*/`; keys and values URL-encoded,
//! single-quoted, comma separated).

use crate::domain::correlation::{Correlation, CorrelationSource};
use crate::sql::lexer::{Lexer, Token, TokenKind};

/// How long a `SET` of the correlation id holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Session,
    Transaction,
}

/// Which of gatepost's settings is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting {
    /// `gatepost.correlation_id`: what the work belongs to.
    #[default]
    CorrelationId,
    /// `gatepost.outcome_of`: a question after what became of earlier work with this id.
    OutcomeOf,
}

impl Setting {
    fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"correlation_id" => Some(Self::CorrelationId),
            b"outcome_of" => Some(Self::OutcomeOf),
            _ => None,
        }
    }
}

/// A `SET` or `RESET` of `gatepost.correlation_id` or `gatepost.outcome_of`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCorrelation {
    pub setting: Setting,
    pub reach: Reach,
    /// `None` after `RESET`, `SET … TO DEFAULT`, or an empty value.
    pub value: Option<Correlation>,
    /// The value is this parameter (from 1) of a prepared statement: [`Self::bound`] fills it in.
    pub parameter: Option<usize>,
}

impl SetCorrelation {
    /// The same with the value of its parameter, as sent.
    pub fn bound(&self, value: Option<&[u8]>) -> Self {
        let value = value.and_then(|value| std::str::from_utf8(value).ok());
        let value = value.and_then(|id| Correlation::new(id, CorrelationSource::Set));
        Self {
            setting: self.setting,
            reach: self.reach,
            value,
            parameter: None,
        }
    }
}

/// Reads a `SET`, `RESET` or `SELECT set_config(…)` of the correlation id.
pub(super) fn set(words: &[Token<'_>]) -> Option<SetCorrelation> {
    let verb = words.first()?;
    if verb.is("select") {
        return set_config(words);
    }
    if !verb.is("set") && !verb.is("reset") {
        return None;
    }
    let local = words.get(1).is_some_and(|token| token.is("local"));
    let scoped = local || words.get(1).is_some_and(|token| token.is("session"));
    let at = 1 + usize::from(scoped);
    let [class, dot, name, rest @ ..] = words.get(at..)? else {
        return None;
    };
    if !(class.names("gatepost") && dot.symbol(b'.')) {
        return None;
    }
    let setting = ["correlation_id", "outcome_of"]
        .into_iter()
        .find(|known| name.names(known))?;
    let setting = Setting::named(setting.as_bytes())?;
    let reach = if local { Reach::Transaction } else { Reach::Session };
    // Behind `=` or `TO`: a constant, a word, or a number.
    let value = rest
        .get(1)
        .filter(|_| verb.is("set"))
        .filter(|token| !token.is("default"));
    Some(SetCorrelation {
        setting,
        reach,
        value: value.and_then(constant),
        parameter: None,
    })
}

/// `SELECT [pg_catalog.]set_config('gatepost.correlation_id', '…', true|false)`; the id may be a
/// parameter.
fn set_config(words: &[Token<'_>]) -> Option<SetCorrelation> {
    let at = words.iter().position(|token| token.names("set_config"))?;
    let [open, name, _, value, _, local, ..] = words.get(at + 1..)? else {
        return None;
    };
    if open.kind != TokenKind::Open {
        return None;
    }
    let name = name.text_value()?;
    let setting = Setting::named(name.strip_prefix(b"gatepost.")?)?;
    let reach = if local.is("true") {
        Reach::Transaction
    } else {
        Reach::Session
    };
    Some(SetCorrelation {
        setting,
        reach,
        value: constant(value),
        parameter: parameter(value),
    })
}

/// The number of a `$n`.
fn parameter(token: &Token<'_>) -> Option<usize> {
    let digits = (token.kind == TokenKind::Parameter).then(|| token.bytes.get(1..))??;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn constant(token: &Token<'_>) -> Option<Correlation> {
    let value = token
        .text_value()
        .or_else(|| token.word_value())
        .or_else(|| (token.kind == TokenKind::Number).then(|| token.bytes.to_vec()))?;
    Correlation::new(&String::from_utf8_lossy(&value), CorrelationSource::Set)
}

/// The ids in a block comment, if it is written in sqlcommenter's form.
pub(super) fn comment(bytes: &[u8], found: &mut Vec<Correlation>) {
    let Some(inner) = bytes
        .strip_prefix(b"/*")
        .and_then(|rest| rest.strip_suffix(b"*/"))
    else {
        return;
    };
    let Ok(inner) = std::str::from_utf8(inner) else {
        return;
    };
    for pair in inner.split(',') {
        let Some((key, value)) = pair.split_once('=') else {
            continue;
        };
        let source = match key.trim() {
            "traceparent" => CorrelationSource::Traceparent,
            "correlation_id" => CorrelationSource::Comment,
            _ => continue,
        };
        let quoted = value
            .trim()
            .strip_prefix('\'')
            .and_then(|rest| rest.strip_suffix('\''));
        found.extend(quoted.and_then(|value| Correlation::new(&percent_decode(value), source)));
    }
}

fn percent_decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() {
            tail.get(2..).unwrap_or_default()
        } else {
            tail
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The ids that a connection's start-up gives: `gatepost.correlation_id` among its settings, else
/// `corr=…` as a word of the application name.
pub fn startup(setting: Option<&str>, application: Option<&str>) -> Option<Correlation> {
    let by_option = setting.and_then(|id| Correlation::new(id, CorrelationSource::Startup));
    by_option.or_else(|| {
        let mut words = application?.split(|c: char| c.is_whitespace() || c == ',' || c == ';');
        let id = words.find_map(|word| word.strip_prefix("corr="))?;
        Correlation::new(id, CorrelationSource::ApplicationName)
    })
}

/// All ids in the comments of a text.
pub fn comments(text: &[u8]) -> Vec<Correlation> {
    let mut found = Vec::new();
    for token in Lexer::new(text, false).filter(|token| token.kind == TokenKind::Comment) {
        comment(token.bytes, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlcommenter_values_are_decoded() {
        let text = b"select 1 /*correlation_id='order%3A17',traceparent='00-aa-bb-01'*/";
        let ids: Vec<_> = comments(text)
            .into_iter()
            .map(|it| (it.id.to_string(), it.source))
            .collect();
        assert_eq!(
            ids,
            [
                ("order:17".to_owned(), CorrelationSource::Comment),
                ("00-aa-bb-01".to_owned(), CorrelationSource::Traceparent),
            ]
        );
    }

    #[test]
    fn a_comment_inside_a_string_is_no_comment() {
        assert!(comments(b"select '/*correlation_id=''x''*/'").is_empty());
    }

    #[test]
    fn startup_prefers_the_option() {
        let by = |option, name| startup(option, name).map(|it| it.id.to_string());
        assert_eq!(by(Some("a"), Some("app corr=b")).as_deref(), Some("a"));
        assert_eq!(by(None, Some("app corr=b")).as_deref(), Some("b"));
        assert_eq!(by(None, Some("app")), None);
    }
}
