//! Tables and cells, whatever they are printed as.

use crate::audit::report::bounded::{Listing, Tally};
use crate::audit::report::control::Control;
use crate::audit::report::model::{Happening, Place};

/// A part of the report.
#[derive(Clone, Debug)]
pub struct Section {
    /// The member of the JSON form that holds the same.
    pub name: &'static str,
    pub title: &'static str,
    pub controls: &'static [Control],
    /// What it shows.
    pub evidence: &'static str,
    /// What it does not.
    pub limits: &'static str,
    pub tables: Vec<Table>,
}

/// One table of it.
#[derive(Clone, Debug)]
pub struct Table {
    pub title: &'static str,
    pub heads: Vec<&'static str>,
    pub rows: Vec<Vec<Cell>>,
    /// Rows that are not listed.
    pub more: u64,
    /// What it means when there are no rows.
    pub none: &'static str,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Text(String),
    /// To the second.
    Time(String),
    /// One behind the other.
    Listed(Vec<String>),
    /// One below the other.
    Lines(Vec<String>),
    /// Identifiers and times, which are compared digit by digit.
    Code(String),
    Number(u64),
    /// Something that has to be looked into.
    Alarm(String),
}

impl Cell {
    /// As plain text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Code(text) | Self::Alarm(text) | Self::Time(text) => text.clone(),
            Self::Listed(items) => items.join(", "),
            Self::Lines(lines) => lines.join("; "),
            Self::Number(number) => number.to_string(),
        }
    }
}

pub(super) fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

pub(super) fn code(text: &str) -> Cell {
    Cell::Code(text.to_owned())
}

/// A time to the second; the rest is in the record.
pub(super) fn time(at: &str) -> Cell {
    let second = at.split_once('.').map_or(at, |(second, _)| second);
    Cell::Time(second.trim_end_matches('Z').replace('T', " "))
}

pub(super) fn record(place: &Place) -> Cell {
    Cell::Number(place.seq)
}

pub(super) fn alarm_if_any(number: u64) -> Cell {
    if number == 0 {
        Cell::Number(0)
    } else {
        Cell::Alarm(number.to_string())
    }
}

/// `name 3, other 1`, the largest first.
pub(super) fn counted<const KEYS: usize>(tally: &Tally<KEYS>) -> Cell {
    let mut parts: Vec<_> = tally
        .sorted()
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if tally.others > 0 {
        parts.push(format!("others {}", tally.others));
    }
    Cell::Listed(parts)
}

pub(super) fn counted_or_zero<const KEYS: usize>(tally: &Tally<KEYS>) -> Cell {
    if tally.total() == 0 {
        return Cell::Number(0);
    }
    counted(tally)
}

pub(super) fn names<const KEYS: usize>(tally: &Tally<KEYS>) -> Cell {
    let mut parts: Vec<_> = tally
        .sorted()
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    if tally.others > 0 {
        parts.push("others".to_owned());
    }
    Cell::Listed(parts)
}

pub(super) fn tally_table<const KEYS: usize>(
    title: &'static str,
    heads: [&'static str; 2],
    none: &'static str,
    tally: &Tally<KEYS>,
) -> Table {
    let mut rows: Vec<_> = tally
        .sorted()
        .iter()
        .map(|(name, count)| vec![text(name), Cell::Number(*count)])
        .collect();
    if tally.others > 0 {
        rows.push(vec![text("(others)"), Cell::Number(tally.others)]);
    }
    Table {
        title,
        heads: heads.to_vec(),
        rows,
        more: 0,
        none,
    }
}

pub(super) fn listing<T, const ROWS_MAX: usize>(
    title: &'static str,
    heads: &[&'static str],
    none: &'static str,
    listing: &Listing<T, ROWS_MAX>,
    row: impl Fn(&T) -> Vec<Cell>,
) -> Table {
    Table {
        title,
        heads: heads.to_vec(),
        rows: listing.rows.iter().map(row).collect(),
        more: listing.more,
        none,
    }
}

pub(super) fn happenings<const ROWS_MAX: usize>(
    title: &'static str,
    none: &'static str,
    rows: &Listing<Happening, ROWS_MAX>,
) -> Table {
    listing(title, &["when", "who", "what", "record"], none, rows, |one| {
        vec![
            time(&one.place.at),
            text(&one.who),
            text(&one.what),
            record(&one.place),
        ]
    })
}

pub(super) fn row(name: &str, cell: Cell) -> Vec<Cell> {
    vec![text(name), cell]
}

pub(super) fn summary_table(rows: Vec<Vec<Cell>>) -> Table {
    Table {
        title: "Summary",
        heads: vec!["what", "count"],
        rows,
        more: 0,
        none: "",
    }
}
