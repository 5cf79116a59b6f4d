//! The database servers that can be reached.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::ids::name;

name!(
    /// An entry under `targets`: one database server.
    TargetName
);
name!(
    /// A database as the server knows it (never an alias).
    DatabaseName
);

/// Which wire protocol and which SQL dialect a target speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Postgres,
    #[serde(rename = "sqlserver")]
    SqlServer,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::SqlServer => "sqlserver",
        })
    }
}
