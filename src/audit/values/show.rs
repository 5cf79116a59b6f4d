//! How values look in a record. Runs in the writer thread.

use std::borrow::Cow;

use serde::Serialize;

use crate::audit::record::{STATEMENT_TEXT_BYTES, Statement};
use crate::audit::values::{Bound, Called, ValueKey, Values};
use crate::domain::parameters::ParameterRule;
use crate::domain::target::Engine;
use crate::sql::literals::Literal;
use crate::sql::{self, tsql};
use crate::wire::pg::bound::{Content, Parameters};
use crate::wire::pg::value;
use crate::wire::tds::rpc::values::{self, CallValue, CallValues};

/// Bytes of one value that are shown: enough for every key and name, too little for a document.
const VALUE_BYTES_MAX: usize = 1 << 10;
/// Bytes of one value of unknown type that are shown; each becomes two digits.
const HEX_BYTES_MAX: usize = VALUE_BYTES_MAX / 2;
/// What all values of one record may take. Escaped, with every other text of the record at its longest, it
/// still fits a line.
const RECORD_BYTES_MAX: usize = 256 << 10;
/// What a value takes besides its text: quotes, names, a comma.
const FRAME_BYTES: usize = 24;

/// One value. No `Debug`: it goes into the record, and nowhere else.
#[derive(Serialize)]
#[serde(untagged)]
pub(in crate::audit) enum Shown {
    Null,
    /// The value, or its hash.
    Text(String),
    /// Of a type that is not known here.
    Hex {
        hex: String,
        /// Of all of it, where this is only its beginning.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<usize>,
    },
    Beginning {
        bytes: usize,
        begins: String,
    },
    /// It was not here as a whole.
    Length {
        bytes: usize,
    },
    Withheld {
        withheld: bool,
    },
}

impl Shown {
    fn cost(&self) -> usize {
        let text = match self {
            Self::Text(text) | Self::Hex { hex: text, .. } | Self::Beginning { begins: text, .. } => {
                text.len()
            }
            Self::Null | Self::Length { .. } | Self::Withheld { .. } => 0,
        };
        text + FRAME_BYTES
    }
}

/// The values of one statement, as members of the record.
#[derive(Default, Serialize)]
pub(in crate::audit) struct StatementValues {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parameters: Vec<Shown>,
    /// There were more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    parameters_omitted: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    literals: Vec<Shown>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    literals_omitted: bool,
}

/// The values of one record, statement by statement.
pub(in crate::audit) struct Transcript<'a> {
    rule: ParameterRule,
    key: &'a ValueKey,
    left: usize,
}

impl<'a> Transcript<'a> {
    pub(in crate::audit) const fn new(rule: ParameterRule, key: &'a ValueKey) -> Self {
        let left = RECORD_BYTES_MAX;
        Self { rule, key, left }
    }

    /// None if nobody asked for them.
    pub(in crate::audit) fn of(&mut self, engine: Engine, statement: &Statement) -> Option<StatementValues> {
        let values = statement.values.as_ref().filter(|_| !self.rule.is_absent())?;
        let mut shown = StatementValues::default();
        match values {
            Values::WithTheFirst => return Some(shown),
            Values::OfText => {}
            Values::Omitted => shown.parameters_omitted = true,
            Values::Bound(bound) => self.parameters(bound, &mut shown),
            Values::Called { request, call } => self.called(request, *call, &mut shown),
        }
        self.literals(engine, statement, &mut shown);
        Some(shown)
    }

    fn parameters(&mut self, bound: &Bound, shown: &mut StatementValues) {
        let Some(mut parameters) = Parameters::read(&bound.bytes) else {
            shown.parameters_omitted = true;
            return;
        };
        for (at, parameter) in parameters.by_ref().enumerate() {
            let oid = bound.types.as_ref().map_or(0, |types| types.of(at));
            let one = match parameter.content {
                Content::Null => Shown::Null,
                Content::Cut { bytes } => Shown::Length { bytes },
                Content::Whole(value) => {
                    let text = if parameter.is_binary {
                        value::text(oid, value)
                    } else {
                        std::str::from_utf8(value).ok().map(Cow::Borrowed)
                    };
                    self.value(text, value)
                }
            };
            if !self.keep(one, &mut shown.parameters) {
                shown.parameters_omitted = true;
                return;
            }
        }
        shown.parameters_omitted |= parameters.left() > 0;
    }

    fn called(&mut self, request: &Called, call: usize, shown: &mut StatementValues) {
        let CallValues { values, more } = values::of_call(&request.payload, request.is_whole, call);
        shown.parameters_omitted = more;
        for value in values {
            let one = match value {
                CallValue::Null => Shown::Null,
                CallValue::Bytes(bytes) => Shown::Length { bytes },
                CallValue::Text(text) => self.value(Some(Cow::Borrowed(&text)), text.as_bytes()),
                CallValue::Raw(bytes) => self.value(None, &bytes),
            };
            if !self.keep(one, &mut shown.parameters) {
                shown.parameters_omitted = true;
                return;
            }
        }
    }

    fn literals(&mut self, engine: Engine, statement: &Statement, shown: &mut StatementValues) {
        let text = statement.text.as_ref();
        let mut literals = match engine {
            Engine::Postgres => sql::literals(text),
            Engine::SqlServer => tsql::literals(text, statement.kind),
        };
        // Of a text that was cut nobody knows whether its last constant was whole, or what came behind it.
        if engine == Engine::Postgres && text.len() >= STATEMENT_TEXT_BYTES {
            literals.pop();
            shown.literals_omitted = true;
        }
        for literal in literals {
            let one = match literal {
                Literal::Withheld => Shown::Withheld { withheld: true },
                Literal::Value(text) => {
                    let bytes = text.as_bytes();
                    self.value(Some(Cow::Borrowed(&text)), bytes)
                }
            };
            if !self.keep(one, &mut shown.literals) {
                shown.literals_omitted = true;
                return;
            }
        }
    }

    /// A value as the rule wants it; `raw` where it cannot be told as text.
    fn value(&self, text: Option<Cow<'_, str>>, raw: &[u8]) -> Shown {
        if self.rule != ParameterRule::Plain {
            let value = text.as_ref().map_or(raw, |text| text.as_bytes());
            return Shown::Text(self.key.hash(value));
        }
        match text {
            Some(text) if text.len() <= VALUE_BYTES_MAX => Shown::Text(text.into_owned()),
            Some(text) => {
                let end = text.floor_char_boundary(VALUE_BYTES_MAX);
                Shown::Beginning {
                    bytes: text.len(),
                    begins: text.get(..end).unwrap_or_default().to_owned(),
                }
            }
            None => {
                let beginning = raw.get(..HEX_BYTES_MAX);
                Shown::Hex {
                    hex: value::hex(beginning.unwrap_or(raw)),
                    bytes: beginning.filter(|it| it.len() < raw.len()).map(|_| raw.len()),
                }
            }
        }
    }

    /// False if there is no room.
    fn keep(&mut self, one: Shown, list: &mut Vec<Shown>) -> bool {
        let Some(left) = self.left.checked_sub(one.cost()) else {
            self.left = 0;
            return false;
        };
        self.left = left;
        list.push(one);
        true
    }
}

#[cfg(test)]
mod tests;
