//! A YAML file as a tree in which every key and value knows its place. Reading into this first,
//! instead of into structs, is what lets one run report every mistake of a file.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, MergeKeyPolicy, Spanned, UserMessageFormatter};

use crate::domain::mistake::{Mistake, Place};

/// A policy file is written by people; the largest sensible ones have a few hundred rules.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Line and column, both from 1; line 0 means the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl From<Location> for Spot {
    fn from(location: Location) -> Self {
        Self {
            line: usize::try_from(location.line()).unwrap_or(0),
            column: usize::try_from(location.column()).unwrap_or(0),
        }
    }
}

/// A value with the place where it stands.
#[derive(Clone, Debug)]
pub(super) struct Written<T> {
    pub(super) value: T,
    pub(super) spot: Spot,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Nothing,
    Flag(bool),
    Whole(u64),
    /// A number that is negative or has a fraction; no key takes one.
    OtherNumber,
    Text(String),
    List(Vec<Written<Node>>),
    Map(Vec<(Written<String>, Written<Node>)>),
}

impl Node {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Flag(_) => "true or false",
            Self::Whole(_) | Self::OtherNumber => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// One file under examination: makes mistakes and places in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Page<'_> {
    pub(super) fn mistake(&self, spot: Spot, message: impl Into<String>) -> Mistake {
        Mistake::at(self.path, self.text, spot.line, spot.column, message)
    }

    pub(super) fn place(&self, spot: Spot) -> Place {
        Place {
            file: self.path.to_owned(),
            line: spot.line,
            column: spot.column,
        }
    }

    pub(super) fn line(&self, spot: Spot) -> Option<String> {
        self.mistake(spot, "").excerpt
    }
}

/// Reads the file's YAML; a file that is not YAML is one mistake.
pub(super) fn parse(page: Page<'_>) -> Result<Written<Node>, Mistake> {
    if page.text.len() > FILE_BYTES_MAX {
        let message = format!("a policy file may have at most {FILE_BYTES_MAX} bytes; split it");
        return Err(page.mistake(Spot::default(), message));
    }
    let options = serde_saphyr::options! {
        // Maps then arrive whole, and `document` reports every repeated key.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Spanned<Node>>(page.text, options)
        .map(written)
        .map_err(|error| {
            let spot = error.location().map_or_else(Spot::default, Spot::from);
            let message = serde_saphyr::MessageFormatter::format_message(&UserMessageFormatter, &error);
            page.mistake(spot, format!("not readable as YAML: {message}"))
        })
}

fn written<T>(spanned: Spanned<T>) -> Written<T> {
    Written {
        spot: Spot::from(spanned.referenced),
        value: spanned.value,
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, a list, text, a number, true or false")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(u64::try_from(number).map_or(Node::OtherNumber, Node::Whole))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::OtherNumber)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::OtherNumber)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::OtherNumber)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Node, E> {
        Err(E::custom("binary values are not used in policies"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Node>>()? {
            list.push(written(item));
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<Node>>()? {
            // No key of ours is anything but text: the stand-in is refused as unknown, with its place.
            let name = match &key.value {
                Node::Text(name) => name.clone(),
                Node::Nothing | Node::Flag(_) | Node::Whole(_) | Node::OtherNumber => {
                    format!("({})", key.value.kind())
                }
                Node::List(_) | Node::Map(_) => "(a list or map)".to_owned(),
            };
            let key = Written {
                spot: Spot::from(key.referenced),
                value: name,
            };
            map.push((key, written(entries.next_value::<Spanned<Node>>()?)));
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_place_even_a_repeated_one() {
        let page = Page {
            path: Path::new("x.yaml"),
            text: "a: 1\nb: {c: 30m, d: [x, 'y']}\na: 2\n",
        };
        let Node::Map(map) = parse(page).unwrap().value else {
            panic!("not a map")
        };
        let keys: Vec<_> = map
            .iter()
            .map(|(key, _)| (key.value.as_str(), key.spot.line, key.spot.column))
            .collect();
        assert_eq!(keys, [("a", 1, 1), ("b", 2, 1), ("a", 3, 1)]);
        let Node::Map(inner) = &map[1].1.value else {
            panic!("not a map")
        };
        assert!(matches!(&inner[0].1.value, Node::Text(text) if text == "30m"));
        let Node::List(list) = &inner[1].1.value else {
            panic!("not a list")
        };
        assert_eq!((list[1].spot.line, list[1].spot.column), (2, 20));
    }

    #[test]
    fn broken_yaml_is_a_mistake_with_its_line() {
        let page = Page {
            path: Path::new("x.yaml"),
            text: "a: 1\nb: [1, 2\nc: 3\n",
        };
        let mistake = parse(page).unwrap_err();
        assert!(mistake.message.contains("YAML"), "{mistake}");
        assert!(mistake.place.unwrap().line >= 2);
    }
}
