//! The report as CSV (RFC 4180): every line has the same columns, so that one file holds all tables and
//! any program reads it.

use crate::audit::report::control::Control;
use crate::audit::report::model::{Chain, Report};
use crate::audit::report::sections::sections;
use crate::audit::report::tables::{Section, Table};
use crate::audit::table::harmless;

/// Columns before those of the tables: where the line belongs, and what it is.
const BEFORE: [&str; 4] = ["section", "controls", "table", "line"];

/// The whole report.
pub fn csv(report: &Report) -> String {
    let sections = sections(report);
    let tables = sections.iter().flat_map(|section| &section.tables);
    let columns = tables.map(|table| table.heads.len()).max().unwrap_or(0).max(2);
    let mut sheet = Sheet {
        text: String::new(),
        columns: BEFORE.len() + columns,
    };
    let numbers: Vec<String> = (1..=columns).map(|number| number.to_string()).collect();
    let heads: Vec<&str> = BEFORE
        .into_iter()
        .chain(numbers.iter().map(String::as_str))
        .collect();
    sheet.line(&heads);
    about(report, &mut sheet);
    for section in &sections {
        let controls = labels(section.controls);
        sheet.line(&[section.name, &controls, "", "evidence", section.evidence]);
        sheet.line(&[section.name, &controls, "", "limits", section.limits]);
        for table in &section.tables {
            lines_of(section, &controls, table, &mut sheet);
        }
    }
    sheet.text
}

fn about(report: &Report, sheet: &mut Sheet) {
    let mut fact = |name: &str, value: &str| sheet.line(&["report", "", "", "row", name, value]);
    fact("schema", report.schema);
    fact("generated", &report.generated_at);
    fact("from", &report.from);
    fact("to", &report.to);
    for (installation, records) in report.journal.installations.sorted() {
        fact("installation", &format!("{installation} ({records} records)"));
    }
    match &report.chain {
        Chain::Sound { key, head, .. } => {
            fact("chain", "sound");
            fact("key", key);
            if let Some(head) = head {
                fact("head", &format!("record {} {}", head.seq, head.hash));
            }
        }
        Chain::Broken { key, what } => {
            fact("chain", &format!("NOT SOUND: {what}"));
            fact("key", key);
        }
    }
}

fn lines_of(section: &Section, controls: &str, table: &Table, sheet: &mut Sheet) {
    let before = |line| [section.name, controls, table.title, line];
    let heads: Vec<&str> = before("head")
        .into_iter()
        .chain(table.heads.iter().copied())
        .collect();
    sheet.line(&heads);
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(super::tables::Cell::text).collect();
        let line: Vec<&str> = before("row")
            .into_iter()
            .chain(cells.iter().map(String::as_str))
            .collect();
        sheet.line(&line);
    }
    if table.more > 0 {
        let more = format!("and {} more", table.more);
        let line: Vec<&str> = before("more").into_iter().chain([more.as_str()]).collect();
        sheet.line(&line);
    }
}

pub(super) fn labels(controls: &[Control]) -> String {
    let labels: Vec<_> = controls.iter().map(|control| control.label()).collect();
    labels.join(" ")
}

struct Sheet {
    text: String,
    columns: usize,
}

impl Sheet {
    /// One line, filled up to the same number of fields.
    fn line(&mut self, cells: &[&str]) {
        for column in 0..self.columns {
            if column > 0 {
                self.text.push(',');
            }
            self.text
                .push_str(&field(cells.get(column).copied().unwrap_or_default()));
        }
        self.text.push_str("\r\n");
    }
}

/// A field: quoted where the format asks for it, and never the beginning of a formula, which spreadsheets
/// would run.
fn field(value: &str) -> String {
    let mut value = harmless(value);
    let first = value.trim_start().chars().next();
    // The wide forms are formulas in East Asian editions.
    if first.is_some_and(|first| "=+-@\t\r＝＋－＠".contains(first)) {
        value.insert(0, '\'');
    }
    if value.contains(['"', ',', '\n', '\r']) || value.starts_with(' ') || value.ends_with(' ') {
        value = format!("\"{}\"", value.replace('"', "\"\""));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_a_formula_and_all_can_be_read_back() {
        let rows = [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@sum", "'@sum"),
            (" =1", "' =1"),
            ("＝1", "'＝1"),
            ("=a,\"b\"", "\"'=a,\"\"b\"\"\""),
            ("\t=1", "\\t=1"),
            ("two\nlines", "two\\nlines"),
        ];
        for (value, expected) in rows {
            assert_eq!(field(value), expected, "{value}");
        }
    }
}
