//! How blocks of a policy file are read: required and optional keys, unknown, repeated and
//! not-yet-enforced ones. One declaration per block makes its struct, its reader and its JSON
//! Schema, so that the three cannot differ.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::domain::mistake::Mistake;

use super::tree::{Node, Page, Spot, Written};

/// Collects the mistakes of one file.
pub(super) struct Notes<'a> {
    pub(super) page: Page<'a>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Notes<'_> {
    pub(super) fn add(&mut self, spot: Spot, message: impl Into<String>) {
        self.mistakes.push(self.page.mistake(spot, message));
    }
}

/// A value that can be read; `None` means that the mistake has been noted.
pub(super) trait Read: Sized + JsonSchema {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self>;
}

/// A key of a block: `Written<T>` is required, `Option<Written<T>>` is not.
pub(super) trait Field: Sized {
    type Value: Read;
    const REQUIRED: bool;
    /// `None` when a required value is absent or wrong. An optional one that is wrong counts as
    /// absent: its mistake is noted, and the rest can still be checked.
    fn from(value: Option<Written<Self::Value>>) -> Option<Self>;
}

impl<T: Read> Field for Written<T> {
    type Value = T;
    const REQUIRED: bool = true;

    fn from(value: Option<Self>) -> Option<Self> {
        value
    }
}

impl<T: Read> Field for Option<Written<T>> {
    type Value = T;
    const REQUIRED: bool = false;

    fn from(value: Self) -> Option<Self> {
        Some(value)
    }
}

/// An open block whose keys have been checked.
pub(super) struct Block<'a> {
    what: &'static str,
    spot: Spot,
    entries: &'a [(Written<String>, Written<Node>)],
}

impl<'a> Block<'a> {
    pub(super) fn open(
        node: &'a Written<Node>,
        what: &'static str,
        known: &[&str],
        later: &[(&str, &str)],
        notes: &mut Notes<'_>,
    ) -> Option<Self> {
        let Node::Map(entries) = &node.value else {
            let message = format!("{what} must be a map, not {}", node.value.kind());
            notes.add(node.spot, message);
            return None;
        };
        for (index, (key, _)) in entries.iter().enumerate() {
            let name = key.value.as_str();
            let earlier = entries.iter().take(index).find(|(other, _)| other.value == name);
            if let Some((first, _)) = earlier {
                notes.add(key.spot, repeated(name, first.spot));
            } else if let Some((_, reason)) = later.iter().find(|(key, _)| *key == name) {
                let message =
                    format!("`{name}` is not enforced yet, so it is refused, not ignored: {reason}");
                notes.add(key.spot, message);
            } else if !known.contains(&name) {
                let message = format!("unknown key `{name}` in {what}; known: {}", known.join(", "));
                notes.add(key.spot, message);
            }
        }
        Some(Self {
            what,
            spot: node.spot,
            entries,
        })
    }

    pub(super) fn field<F: Field>(&self, name: &str, notes: &mut Notes<'_>) -> Option<F> {
        let entry = self.entries.iter().find(|(key, _)| key.value == name);
        let value = if let Some((_, node)) = entry {
            F::Value::read(node, notes).map(|value| Written {
                value,
                spot: node.spot,
            })
        } else {
            if F::REQUIRED {
                notes.add(self.spot, format!("{} lacks the key `{name}`", self.what));
            }
            None
        };
        F::from(value)
    }
}

pub(super) fn repeated(name: &str, first: Spot) -> String {
    format!(
        "`{name}` stands here a second time; the first is in line {}",
        first.line
    )
}

/// What a block's own check knows besides its fields.
#[derive(Clone, Copy)]
pub(super) struct Whole {
    pub(super) spot: Spot,
    /// No mistake was found in its keys, so that one which is absent was not written at all.
    pub(super) clean: bool,
}

/// The schema of one block, put together from its fields.
pub(super) struct BlockSchema {
    properties: serde_json::Map<String, serde_json::Value>,
    required: Vec<&'static str>,
}

impl BlockSchema {
    pub(super) fn new() -> Self {
        Self {
            properties: serde_json::Map::new(),
            required: Vec::new(),
        }
    }

    pub(super) fn field<F: Field>(
        &mut self,
        name: &'static str,
        about: &[&str],
        generator: &mut SchemaGenerator,
    ) {
        let mut schema = generator.subschema_for::<F::Value>();
        if !about.is_empty() {
            schema.insert("description".into(), about.join("").trim().into());
        }
        self.properties.insert(name.to_owned(), schema.to_value());
        if F::REQUIRED {
            self.required.push(name);
        }
    }

    pub(super) fn finish(self, about: &[&str], extra: &serde_json::Value) -> Schema {
        let mut schema = Schema::default();
        schema.insert("type".into(), "object".into());
        schema.insert("description".into(), about.join("").trim().into());
        schema.insert("properties".into(), self.properties.into());
        if !self.required.is_empty() {
            schema.insert("required".into(), self.required.into());
        }
        schema.insert("additionalProperties".into(), false.into());
        for (key, value) in extra.as_object().into_iter().flatten() {
            schema.insert(key.clone(), value.clone());
        }
        schema
    }
}

/// Declares a block: struct, reader and schema. `later` names keys that are refused with a reason,
/// `check` may note further mistakes, `extra` says the same in JSON Schema.
macro_rules! block {
    (
        $(#[doc = $about:literal])*
        struct $name:ident, $what:literal {
            $($(#[doc = $doc:literal])* $field:ident: $type:ty,)*
        }
        later {$($later:literal: $reason:expr,)*}
        check $check:ident, $extra:tt
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        pub(super) struct $name {
            $($(#[doc = $doc])* pub(super) $field: $type,)*
        }

        impl Read for $name {
            fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
                let known = [$(stringify!($field)),*];
                let before = notes.mistakes.len();
                let block = Block::open(node, $what, &known, &[$(($later, $reason)),*], notes)?;
                $(let $field = block.field::<$type>(stringify!($field), notes);)*
                let read = Self { $($field: $field?),* };
                let whole = Whole {
                    spot: node.spot,
                    clean: notes.mistakes.len() == before,
                };
                $check(&read, whole, notes);
                Some(read)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let mut block = BlockSchema::new();
                $(block.field::<$type>(stringify!($field), &[$($doc),*], generator);)*
                block.finish(&[$($about),*], &serde_json::json!($extra))
            }
        }
    };
}
pub(super) use block;

/// A JSON Schema fragment without definitions of its own, written as JSON.
pub(super) fn fragment(json: serde_json::Value) -> Schema {
    Schema::try_from(json).unwrap_or_default()
}

/// Makes `JsonSchema` for a value that is described in place.
macro_rules! inline_schema {
    ($type:ty, $json:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                fragment(serde_json::json!($json))
            }
        }
    };
}
pub(super) use inline_schema;

/// A list with at least one item; items that are wrong are noted and left out.
#[derive(Clone, Debug)]
pub(super) struct Many<T>(pub(super) Vec<Written<T>>);

impl<T: Read> Read for Many<T> {
    fn read(node: &Written<Node>, notes: &mut Notes<'_>) -> Option<Self> {
        let Node::List(items) = &node.value else {
            notes.add(node.spot, format!("expected a list, not {}", node.value.kind()));
            return None;
        };
        if items.is_empty() {
            notes.add(node.spot, "the list is empty; leave the key out or fill it");
        }
        let read = items.iter().filter_map(|item| {
            T::read(item, notes).map(|value| Written {
                value,
                spot: item.spot,
            })
        });
        Some(Self(read.collect()))
    }
}

impl<T: Read> JsonSchema for Many<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Many{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        fragment(serde_json::json!({"type": "array", "minItems": 1, "items": items}))
    }
}
