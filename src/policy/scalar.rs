//! The single values of a policy file: what each may look like, in the reader and in the schema.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::domain::admin::AdminAction;
use crate::domain::parameters::ParameterRule;

use super::declaration::Privilege;
use super::reading::{Many, Notes, Read, fragment, inline_schema};
use super::tree::{Node, Written};

/// Client ids, object ids and group names are shorter; a claim value beyond this is a mistake.
const TEXT_CHARS_MAX: usize = 512;
/// PostgreSQL cuts identifiers after 63 bytes (`NAMEDATALEN` - 1), and role names are ASCII here.
const ROLE_BYTES_MAX: usize = 63;

/// Text on one line, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

inline_schema!(Text, {"type": "string", "minLength": 1, "maxLength": 512, "pattern": r"^[^\x00-\x1f\x7f-\x9f]*$"});

impl Read for Text {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let text = text(node, notes)?;
        let wrong = if text.is_empty() {
            "the text is empty"
        } else if text.chars().count() > TEXT_CHARS_MAX {
            "the text is longer than 512 characters"
        } else if text.chars().any(char::is_control) {
            "the text holds a line break or another control character"
        } else {
            return Some(Self(text.to_owned()));
        };
        notes.add(node.spot, wrong);
        None
    }
}

/// The name of a role that policy declares: fits every engine unquoted by length and letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoleText(pub(super) String);

/// Also the schema's pattern for the keys of `roles`.
pub(super) const ROLE_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_-]{0,62}$";

impl RoleText {
    pub(super) fn fits(name: &str) -> bool {
        let mut chars = name.chars();
        let head = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        let tail = chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        head && tail && name.len() <= ROLE_BYTES_MAX
    }
}

/// A CEL expression over the verified claims; may span lines.
#[derive(Clone, Debug)]
pub(super) struct ExpressionText(pub(super) String);

/// Longer conditions belong into several rules; this bounds parsing and evaluation.
const EXPRESSION_CHARS_MAX: usize = 1_024;

inline_schema!(ExpressionText, {"type": "string", "maxLength": 1024, "pattern": r"\S"});

impl Read for ExpressionText {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let text = text(node, notes)?;
        if text.trim().is_empty() || text.chars().count() > EXPRESSION_CHARS_MAX {
            let message = format!("an expression has 1 to {EXPRESSION_CHARS_MAX} characters");
            notes.add(node.spot, message);
            return None;
        }
        Some(Self(text.to_owned()))
    }
}

/// One value or a list of which any may match; `*` stands for any characters.
#[derive(Clone, Debug)]
pub(super) struct Patterns(pub(super) Vec<Written<Text>>);

impl Read for Patterns {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        if let Node::List(_) = &node.value {
            return Many::<Text>::read(node, notes).map(|many| Self(many.0));
        }
        let value = Text::read(node, notes)?;
        let spot = node.spot;
        Some(Self(vec![Written { value, spot }]))
    }
}

impl JsonSchema for Patterns {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Patterns".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Text>();
        let many = generator.subschema_for::<Many<Text>>();
        fragment(serde_json::json!({"anyOf": [one, many]}))
    }
}

/// `15s`, `30m`, `8h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

inline_schema!(Span, {"type": "string", "pattern": "^[1-9][0-9]{0,6}[smhd]$"});

impl Read for Span {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let text = text(node, notes)?;
        let span = parse_span(text);
        if span.is_none() {
            notes.add(
                node.spot,
                format!("`{text}` is not a duration; write 15s, 30m, 8h or 7d"),
            );
        }
        span.map(Self)
    }
}

fn parse_span(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let plain = digits.len() <= 7 && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    let count = if plain {
        digits.parse::<u64>().ok()?
    } else {
        return None;
    };
    Some(Duration::from_secs(count * seconds))
}

/// A whole number from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(pub(super) u32);

inline_schema!(Count, {"type": "integer", "minimum": 1, "maximum": u32::MAX});

impl Read for Count {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let number = if let Node::Whole(number) = node.value {
            u32::try_from(number).ok().filter(|number| *number > 0)
        } else {
            None
        };
        if number.is_none() {
            let message = "expected a whole number from 1; to allow nothing write a rule with `deny`";
            notes.add(node.spot, message);
        }
        number.map(Self)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Flag(pub(super) bool);

inline_schema!(Flag, {"type": "boolean"});

impl Read for Flag {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        if let Node::Flag(flag) = node.value {
            return Some(Self(flag));
        }
        notes.add(
            node.spot,
            format!("expected true or false, not {}", node.value.kind()),
        );
        None
    }
}

/// The version of the format, whatever it is: the document says which it is written in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version(pub(super) u64);

inline_schema!(Version, {"type": "integer", "const": 1});

impl Read for Version {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        if let Node::Whole(number) = node.value {
            return Some(Self(number));
        }
        notes.add(node.spot, format!("expected a number, not {}", node.value.kind()));
        None
    }
}

/// Whether a transaction that writes must carry a correlation id of its client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CorrelationText {
    Optional,
    Required,
}

inline_schema!(CorrelationText, {"type": "string", "enum": ["optional", "required"]});

impl Read for CorrelationText {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        match text(node, notes)? {
            "optional" => Some(Self::Optional),
            "required" => Some(Self::Required),
            _ => {
                notes.add(node.spot, "expected `optional` or `required`");
                None
            }
        }
    }
}

/// What becomes of parameters and literals in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParametersText(pub(super) ParameterRule);

inline_schema!(ParametersText, {"type": "string", "enum": ["absent", "hashed", "plain"]});

impl Read for ParametersText {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let rules = [ParameterRule::Absent, ParameterRule::Hashed, ParameterRule::Plain];
        let text = text(node, notes)?;
        let found = rules.into_iter().find(|rule| rule.label() == text);
        if found.is_none() {
            notes.add(node.spot, "expected `absent`, `hashed` or `plain`");
        }
        found.map(Self)
    }
}

inline_schema!(Privilege, {"type": "string", "enum": Privilege::ALL.map(Privilege::label)});

impl Read for Privilege {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let text = text(node, notes)?;
        let found = Self::ALL.into_iter().find(|privilege| privilege.label() == text);
        if found.is_none() {
            let known = Self::ALL.map(Self::label).join(", ");
            notes.add(
                node.spot,
                format!("`{text}` is not a privilege; known (in lower case): {known}"),
            );
        }
        found
    }
}

/// What operators may ask for: one word for each, and two that stand for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminWord {
    One(AdminAction),
    /// Everything that only looks.
    Read,
    All,
}

impl AdminWord {
    const READ: &str = "read";
    const ALL: &str = "all";

    pub(super) fn actions(self) -> impl Iterator<Item = AdminAction> {
        AdminAction::ALL.into_iter().filter(move |action| match self {
            Self::One(one) => one == *action,
            Self::Read => action.only_looks(),
            Self::All => true,
        })
    }

    fn words() -> Vec<&'static str> {
        let actions = AdminAction::ALL.into_iter().map(AdminAction::label);
        actions.chain([Self::READ, Self::ALL]).collect()
    }
}

impl Read for AdminWord {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let text = text(node, notes)?;
        let one = AdminAction::ALL.into_iter().find(|action| action.label() == text);
        let found = match text {
            Self::READ => Some(Self::Read),
            Self::ALL => Some(Self::All),
            _ => one.map(Self::One),
        };
        if found.is_none() {
            let known = Self::words().join(", ");
            notes.add(
                node.spot,
                format!("`{text}` is nothing that can be allowed; known: {known}"),
            );
        }
        found
    }
}

impl JsonSchema for AdminWord {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AdminWord".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        fragment(serde_json::json!({"type": "string", "enum": Self::words()}))
    }
}

/// A table or sequence: `schema.name`.
#[derive(Clone, Debug)]
pub(super) struct ObjectText(pub(super) String);

/// A routine: `schema.name(argument types)`, or `schema.name` where a name means one routine.
#[derive(Clone, Debug)]
pub(super) struct RoutineText(pub(super) String);

/// A schema.
#[derive(Clone, Debug)]
pub(super) struct SchemaText(pub(super) String);

inline_schema!(ObjectText, {"type": "string", "maxLength": 127, "pattern": r#"^[^.*"'`();,\\\s]+\.[^.*"'`();,\\\s]+$"#});
inline_schema!(RoutineText, {"type": "string", "maxLength": 512, "pattern": r#"^[^.*"'`();,\\\s]+\.[^.*"'`();,\\\s]+(\([A-Za-z0-9_ ,.\[\]]*\))?$"#});
inline_schema!(SchemaText, {"type": "string", "maxLength": 63, "pattern": r#"^[^.*"'`();,\\\s]+$"#});

fn is_identifier(part: &str) -> bool {
    !part.is_empty()
        && !part
            .chars()
            .any(|c| r#".*"'`();,\"#.contains(c) || c.is_whitespace())
}

fn is_qualified(name: &str) -> bool {
    name.split_once('.')
        .is_some_and(|(schema, name)| is_identifier(schema) && is_identifier(name))
}

impl Read for ObjectText {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let text = text(node, notes)?;
        if is_qualified(text) && text.chars().count() <= 127 {
            return Some(Self(text.to_owned()));
        }
        let message =
            format!("`{text}` is not of the form schema.name (as in the catalogue, no quotes, no `*`)");
        notes.add(node.spot, message);
        None
    }
}

impl Read for RoutineText {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let text = text(node, notes)?;
        let parts = text
            .strip_suffix(')')
            .and_then(|open| open.split_once('('))
            .filter(|(name, types)| {
                is_qualified(name)
                    && types
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "_ ,.[]".contains(c))
            });
        if (parts.is_some() || is_qualified(text)) && text.chars().count() <= TEXT_CHARS_MAX {
            return Some(Self(text.to_owned()));
        }
        let message = format!(
            "`{text}` is not of the form schema.name(argument types), such as public.apply_order(jsonb)"
        );
        notes.add(node.spot, message);
        None
    }
}

impl Read for SchemaText {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let text = text(node, notes)?;
        if is_identifier(text) && text.chars().count() <= ROLE_BYTES_MAX {
            return Some(Self(text.to_owned()));
        }
        notes.add(
            node.spot,
            format!("`{text}` is not the name of a schema (no quotes, no `*`)"),
        );
        None
    }
}

pub(super) fn text<'a>(node: &'a Written<Node>, notes: &mut Notes<'_>) -> Option<&'a str> {
    if let Node::Text(text) = &node.value {
        return Some(text);
    }
    let quote = match node.value {
        Node::Whole(_) | Node::OtherNumber | Node::Flag(_) => "; put it in quotes",
        Node::Nothing | Node::Text(_) | Node::List(_) | Node::Map(_) => "",
    };
    notes.add(
        node.spot,
        format!("expected text, not {}{quote}", node.value.kind()),
    );
    None
}
