//! Are the values of statements on record, and how? A rule says so; what it says travels with the grant.

use serde::Serialize;

/// What becomes of parameters and literals in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterRule {
    /// They are nowhere.
    #[default]
    Absent,
    /// By a keyed hash: equal values can be told, and a known one found.
    Hashed,
    /// As they are.
    Plain,
}

impl ParameterRule {
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The word in policies and records.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Hashed => "hashed",
            Self::Plain => "plain",
        }
    }
}
