//! From the tree of a file to what was written, section by section. Nothing here stops at the
//! first mistake: a section that cannot be read is `None`, and the reader remembers why.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::app::config::yaml::{self, Key, Node, Spot, Value};
use crate::domain::Mistake;

/// A value with the place where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    pub value: T,
    pub at: Spot,
}

impl<T: JsonSchema> JsonSchema for Written<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A key that is known but not enforced yet. It is refused with the reason, because a setting that
/// is accepted and ignored looks switched on.
pub(super) type Later = (&'static str, &'static str);

/// Remembers the file and its mistakes.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    mistakes: Vec<(Spot, String)>,
    /// Lines that may hold a secret; they are never shown as excerpts.
    hidden: BTreeSet<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self {
            file,
            text,
            mistakes: Vec::new(),
            hidden: BTreeSet::new(),
        }
    }

    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    pub(super) fn mistake(&mut self, at: Spot, message: impl Into<String>) {
        self.mistakes.push((at, message.into()));
    }

    /// Keeps a line out of every excerpt, because a secret may stand in it.
    pub(super) fn hide(&mut self, at: Spot) {
        self.hidden.insert(at.line);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// All mistakes in the order of the file.
    pub(super) fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|(at, _)| *at);
        let shown = self.mistakes.into_iter().map(|(at, message)| {
            let mut mistake = Mistake::at(self.file, self.text, at.line, at.column, message);
            if self.hidden.contains(&at.line) {
                mistake.excerpt = None;
            }
            mistake
        });
        shown.collect()
    }

    /// Reads the whole file as one section.
    pub(super) fn read<T: Read>(&mut self) -> Option<T> {
        match yaml::parse(self.text) {
            Ok(node) => T::read(&node, self),
            Err(error) => {
                // What the parser stumbled over may be a secret: nobody knows the keys yet.
                self.hide(error.at);
                self.mistake(error.at, error.message);
                None
            }
        }
    }

    fn expected(&mut self, wanted: &str, node: &Node) {
        let found = node.value.kind();
        self.mistake(node.at, format!("expected {wanted}, found {found}"));
    }

    /// The entries of a mapping; a key that stands twice is a mistake.
    pub(super) fn entries<'n>(&mut self, node: &'n Node) -> Option<Vec<(&'n Key, &'n Node)>> {
        let Value::Map(entries) = &node.value else {
            self.expected("a mapping", node);
            return None;
        };
        let mut seen = BTreeSet::new();
        for (key, _) in entries {
            if !seen.insert(&key.name) {
                self.mistake(key.at, format!("duplicate key \"{}\"", key.name));
            }
        }
        Some(entries.iter().map(|(key, value)| (key, value)).collect())
    }

    /// The mapping of a section whose keys are `known`; all others are mistakes.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        known: &[&str],
        later: &[Later],
    ) -> Option<Fields<'n>> {
        let entries = self.entries(node)?;
        for (key, value) in &entries {
            if known.contains(&key.name.as_str()) {
                continue;
            }
            if let Some((_, reason)) = later.iter().find(|(name, _)| *name == key.name) {
                let message = format!("\"{}\" is refused: {reason}", key.name);
                self.mistake(key.at, message);
                continue;
            }
            // A misspelt `password` still holds a password.
            self.hide(value.at);
            self.mistake(key.at, unknown_key(&key.name, known));
        }
        Some(Fields { at: node.at, entries })
    }
}

fn unknown_key(name: &str, known: &[&str]) -> String {
    format!("unknown key \"{name}\"; known here: {}", known.join(", "))
}

/// The fields of one section, on their way to being read.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    at: Spot,
    entries: Vec<(&'n Key, &'n Node)>,
}

impl Fields<'_> {
    pub(super) fn take<T: Field>(&self, name: &'static str, reader: &mut Reader<'_>) -> T {
        let found = self.entries.iter().find(|(key, _)| key.name == name);
        match found {
            Some((_, node)) => T::present(node, reader),
            None => T::absent(name, self.at, reader),
        }
    }
}

/// A key of a section: one that must stand there, or one that may.
pub(super) trait Field: Sized {
    fn present(node: &Node, reader: &mut Reader<'_>) -> Self;
    fn absent(name: &'static str, section: Spot, reader: &mut Reader<'_>) -> Self;
}

/// A key that must stand there. Holds nothing when it is missing or wrong, which the reader knows.
#[derive(Clone, Debug)]
pub struct Must<T>(pub Option<T>);

impl<T> Must<T> {
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T: Read> Read for Must<T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self(T::read(node, reader)))
    }
}

impl<T: Read> Field for Must<T> {
    fn present(node: &Node, reader: &mut Reader<'_>) -> Self {
        Self(T::read(node, reader))
    }

    fn absent(name: &'static str, section: Spot, reader: &mut Reader<'_>) -> Self {
        reader.mistake(section, format!("\"{name}\" is missing"));
        Self(None)
    }
}

impl<T: Read> Field for Option<T> {
    fn present(node: &Node, reader: &mut Reader<'_>) -> Self {
        T::read(node, reader)
    }

    fn absent(_: &'static str, _: Spot, _: &mut Reader<'_>) -> Self {
        None
    }
}

impl<T: JsonSchema> JsonSchema for Must<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Something that can be read from a node. `None` means that the reader was told of a mistake.
pub(super) trait Read: Sized {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self>;
}

impl<T: Read> Read for Written<T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let value = T::read(node, reader)?;
        Some(Self { value, at: node.at })
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            reader.expected("a list", node);
            return None;
        };
        // What cannot be read is left out, so that the rest is checked too.
        Some(items.iter().filter_map(|item| T::read(item, reader)).collect())
    }
}

/// Named entries, in the order of the file.
#[derive(Debug)]
pub struct Named<T>(pub Vec<(Written<String>, T)>);

/// Bytes of a name that ends in metrics, file names and database objects.
const NAME_BYTES_MAX: usize = 40;

/// Letters, digits, `-` and `_`, beginning with a letter.
pub(super) fn is_plain_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= NAME_BYTES_MAX
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

pub(super) fn not_a_plain_name(name: &str) -> String {
    format!(
        "\"{name}\" is not a name: use up to {NAME_BYTES_MAX} letters, digits, \"-\" and \"_\", beginning with a letter"
    )
}

impl<T: Read> Read for Named<T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node)?;
        let mut read = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if !is_plain_name(&key.name) {
                reader.mistake(key.at, not_a_plain_name(&key.name));
            }
            let name = Written {
                value: key.name.clone(),
                at: key.at,
            };
            read.extend(T::read(value, reader).map(|value| (name, value)));
        }
        Some(Self(read))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let entry = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "object", "additionalProperties": entry })
    }
}

impl Read for String {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) if !text.is_empty() => Some(text.clone()),
            Value::Text(_) => {
                reader.mistake(node.at, "must not be empty");
                None
            }
            Value::Bool(_) | Value::Integer(_) | Value::Fraction => {
                reader.expected("text (quote it)", node);
                None
            }
            Value::Null | Value::List(_) | Value::Map(_) => {
                reader.expected("text", node);
                None
            }
        }
    }
}

impl Read for bool {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        reader.expected("true or false", node);
        None
    }
}

impl Read for u32 {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Integer(value) = node.value
            && let Ok(value) = Self::try_from(value)
        {
            return Some(value);
        }
        reader.expected("a whole number that is not negative", node);
        None
    }
}

/// One of a few words; the macro of `file` uses it for every choice.
pub(super) fn read_choice<T: Copy>(
    node: &Node,
    choices: &[(&'static str, T)],
    later: &[Later],
    reader: &mut Reader<'_>,
) -> Option<T> {
    let text = String::read(node, reader)?;
    if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
        return Some(*choice);
    }
    if let Some((_, reason)) = later.iter().find(|(word, _)| *word == text) {
        reader.mistake(node.at, format!("\"{text}\" is refused: {reason}"));
        return None;
    }
    let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
    reader.mistake(node.at, format!("\"{text}\" is not one of: {}", words.join(", ")));
    None
}
