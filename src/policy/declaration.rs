//! Roles as policy declares them: what `gatepost roles` creates in the databases.

use std::fmt;

use serde::Serialize;

use crate::domain::ids::RoleName;
use crate::domain::mistake::Place;
use crate::domain::target::{DatabaseName, Engine, TargetName};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDeclaration {
    pub name: RoleName,
    pub target: TargetName,
    pub database: DatabaseName,
    pub grants: Vec<GrantDeclaration>,
    /// Never chosen by fallback; set apart in every report.
    pub break_glass: bool,
    /// Where the role's name stands.
    pub place: Place,
}

/// Privileges that fit the kind of objects (checked when the policy is read).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantDeclaration {
    pub privileges: Vec<Privilege>,
    pub objects: Objects,
}

/// Names as the catalogue spells them, without quotes: `schema.name`, a routine with its argument
/// types, a schema alone. Not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    Tables(Vec<String>),
    Sequences(Vec<String>),
    Routines(Vec<String>),
    Schemas(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    Select,
    Insert,
    Update,
    Delete,
    Truncate,
    References,
    Trigger,
    Usage,
    Create,
    Execute,
}

impl Privilege {
    pub const ALL: [Self; 10] = [
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::References,
        Self::Trigger,
        Self::Usage,
        Self::Create,
        Self::Execute,
    ];

    /// As policy writes it; in capitals it is the word in SQL.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::References => "references",
            Self::Trigger => "trigger",
            Self::Usage => "usage",
            Self::Create => "create",
            Self::Execute => "execute",
        }
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Objects {
    pub fn names(&self) -> &[String] {
        match self {
            Self::Tables(names) | Self::Sequences(names) | Self::Routines(names) | Self::Schemas(names) => {
                names
            }
        }
    }

    /// What this engine can grant on objects of this kind.
    pub const fn privileges(&self, engine: Engine) -> &'static [Privilege] {
        match engine {
            Engine::Postgres => self.of_postgres(),
            Engine::SqlServer => self.of_sqlserver(),
        }
    }

    /// On a schema what is granted counts for everything in it. A sequence is used by changing it.
    const fn of_sqlserver(&self) -> &'static [Privilege] {
        match self {
            Self::Tables(_) => &[
                Privilege::Select,
                Privilege::Insert,
                Privilege::Update,
                Privilege::Delete,
                Privilege::References,
            ],
            Self::Sequences(_) => &[Privilege::Usage, Privilege::Update],
            Self::Routines(_) => &[Privilege::Execute],
            Self::Schemas(_) => &[
                Privilege::Select,
                Privilege::Insert,
                Privilege::Update,
                Privilege::Delete,
                Privilege::References,
                Privilege::Usage,
                Privilege::Execute,
            ],
        }
    }

    const fn of_postgres(&self) -> &'static [Privilege] {
        match self {
            Self::Tables(_) => &[
                Privilege::Select,
                Privilege::Insert,
                Privilege::Update,
                Privilege::Delete,
                Privilege::Truncate,
                Privilege::References,
                Privilege::Trigger,
            ],
            Self::Sequences(_) => &[Privilege::Usage, Privilege::Select, Privilege::Update],
            Self::Routines(_) => &[Privilege::Execute],
            Self::Schemas(_) => &[Privilege::Usage, Privilege::Create],
        }
    }
}
