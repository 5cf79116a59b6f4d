//! A snapshot of what names mean in one database, reduced to those that a proof must not meet.
//!
//! Names are kept without their schemas: whatever `search_path` is set, a name that is dangerous in any schema
//! is dangerous. So neither settings nor temporary objects can make a text name something else than what was
//! judged, and only something *new* in the database can.

use std::collections::HashMap;
use std::ops::{BitOr, BitOrAssign};

/// Relations and types of one database that are looked through; one with more is not watched, and nothing in
/// it is proven. Each takes some hundred bytes while the snapshot is made.
pub const OBJECTS_MAX: usize = 100_000;
/// Bytes of a name that the server keeps. It cuts longer ones, so they name something else than they spell.
pub const NAME_BYTES_MAX: usize = 63;

/// What may happen when a name is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Danger(u8);

impl Danger {
    pub const NONE: Self = Self(0);
    /// Calling the function of this name may run code that nobody looked at.
    pub const CALL_RUNS: Self = Self(1);
    /// Calling the function of this name writes, and runs nothing else.
    pub const CALL_WRITES: Self = Self(2);
    /// Reading the relation, or a value of the type, of this name may run such code.
    pub const READ_RUNS: Self = Self(4);
    /// Writing the relation of this name may: triggers, rules, defaults.
    pub const WRITE_RUNS: Self = Self(8);

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Danger {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Danger {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// An immutable snapshot.
#[derive(Debug, Default)]
pub struct Catalogue {
    names: HashMap<Box<str>, Danger>,
    operators: Vec<Box<str>>,
    /// Something in the database reaches every text: a cast between the server's own types, a comparison.
    everything: bool,
}

impl Catalogue {
    /// What using this name may do, whether as a function or as a relation or type.
    pub fn danger(&self, name: &str) -> Danger {
        self.names.get(name).copied().unwrap_or_default()
    }

    /// May an operator in this run of operator characters run code that nobody looked at?
    pub fn is_dangerous_operator(&self, run: &str) -> bool {
        self.operators.iter().any(|operator| run.contains(&**operator))
    }

    /// Is no text provable?
    pub const fn is_hopeless(&self) -> bool {
        self.everything
    }

    /// Names that are not harmless.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// One relation or type as the server describes it.
#[derive(Clone, Debug, Default)]
struct Object {
    name: Box<str>,
    danger: Danger,
    /// Which objects are as dangerous to read if this one is.
    read_by: Vec<Key>,
    written_by: Vec<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Relation(u32),
    Type(u32),
}

/// What was read of a database, before it is known what leads to what.
#[derive(Debug, Default)]
pub struct Draft {
    catalogue: Catalogue,
    objects: HashMap<Key, Object>,
}

/// Operators that a text uses without spelling them: BETWEEN, IN, LIKE, SIMILAR TO, CASE, NULLIF, joins, sorting.
const UNSPELT: [&str; 12] = [
    "=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*", "~", "!~",
];

impl Draft {
    pub fn function(&mut self, name: &str, danger: Danger) {
        let entry = self.catalogue.names.entry(name.into()).or_default();
        *entry |= danger;
    }

    /// An operator whose function is not harmless.
    pub fn operator(&mut self, name: &str) {
        self.catalogue.everything |= UNSPELT.contains(&name);
        self.catalogue.operators.push(name.into());
    }

    /// Something that reaches every text.
    pub fn hopeless(&mut self) {
        self.catalogue.everything = true;
    }

    pub fn object(&mut self, key: Key, name: &str, danger: Danger) {
        let object = self.objects.entry(key).or_default();
        object.name = name.into();
        object.danger |= danger;
    }

    pub fn mark(&mut self, key: Key, danger: Danger) {
        self.objects.entry(key).or_default().danger |= danger;
    }

    /// Reading `of` reads `what`.
    pub fn reads(&mut self, of: Key, what: Key) {
        self.objects.entry(what).or_default().read_by.push(of);
    }

    /// Writing `of` may write `what`.
    pub fn writes(&mut self, of: Key, what: Key) {
        self.objects.entry(what).or_default().written_by.push(of);
    }

    /// Follows what leads to what.
    pub fn finish(mut self) -> Catalogue {
        self.follow(Danger::READ_RUNS, |object| &object.read_by);
        // Whoever writes a relation reads it as well.
        for object in self.objects.values_mut() {
            if object.danger.has(Danger::READ_RUNS) {
                object.danger |= Danger::WRITE_RUNS;
            }
        }
        self.follow(Danger::WRITE_RUNS, |object| &object.written_by);
        let Self {
            mut catalogue,
            objects,
        } = self;
        for object in objects.into_values() {
            if object.danger != Danger::NONE && !object.name.is_empty() {
                *catalogue.names.entry(object.name).or_default() |= object.danger;
            }
        }
        catalogue
    }

    fn follow(&mut self, danger: Danger, leads: impl Fn(&Object) -> &Vec<Key>) {
        let found = self
            .objects
            .iter()
            .filter(|(_, object)| object.danger.has(danger));
        let mut open: Vec<Key> = found.map(|(key, _)| *key).collect();
        while let Some(key) = open.pop() {
            let next = self.objects.get(&key).map(|object| leads(object).clone());
            for key in next.unwrap_or_default() {
                if let Some(object) = self.objects.get_mut(&key)
                    && !object.danger.has(danger)
                {
                    object.danger |= danger;
                    open.push(key);
                }
            }
        }
    }
}
