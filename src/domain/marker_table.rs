//! The table in which SQL Server keeps gatepost's markers: one row for each transaction that has written.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Characters of a schema's or a table's name. SQL Server takes 128.
const NAME_CHARS_MAX: usize = 128;

/// `schema.table`, both of plain letters, so that the name stands in statements and records as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkerTable {
    shown: Arc<str>,
    dot: usize,
}

/// A text that names no such table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMarkerTable;

impl FromStr for MarkerTable {
    type Err = NoMarkerTable;

    fn from_str(text: &str) -> Result<Self, NoMarkerTable> {
        let (schema, table) = text.split_once('.').ok_or(NoMarkerTable)?;
        let named = |name: &str| {
            let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            first && plain && name.len() <= NAME_CHARS_MAX
        };
        if !named(schema) || !named(table) {
            return Err(NoMarkerTable);
        }
        Ok(Self {
            shown: Arc::from(text),
            dot: schema.len(),
        })
    }
}

impl fmt::Display for MarkerTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl MarkerTable {
    pub fn schema(&self) -> &str {
        self.shown.get(..self.dot).unwrap_or_default()
    }

    pub fn table(&self) -> &str {
        let behind = self.dot.saturating_add(1);
        self.shown.get(behind..).unwrap_or_default()
    }

    /// As it stands in a statement.
    pub fn quoted(&self) -> String {
        format!("[{}].[{}]", self.schema(), self.table())
    }

    /// What makes it. The schema is there already.
    pub fn creation(&self) -> String {
        let table = self.quoted();
        format!(
            "CREATE TABLE {table} (mark varbinary(64) NOT NULL PRIMARY KEY, \
             at datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME()); CREATE INDEX by_age ON {table} (at)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_with_its_schema_and_in_plain_letters() {
        let table: MarkerTable = "gatepost.markers".parse().unwrap();
        assert_eq!((table.schema(), table.table()), ("gatepost", "markers"));
        assert_eq!(table.quoted(), "[gatepost].[markers]");
        assert_eq!(table.to_string(), "gatepost.markers");
        for text in [
            "",
            "markers",
            ".markers",
            "gatepost.",
            "a.b.c",
            "a.[b]",
            "a.b c",
            "#a.b",
            "a.1b",
            "a.b'",
        ] {
            assert_eq!(text.parse::<MarkerTable>(), Err(NoMarkerTable), "{text}");
        }
    }
}
