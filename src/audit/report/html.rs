//! The report as one page of HTML that prints well: no script, nothing from the network, and nothing of a
//! record that is not text.

use std::fmt::Write as _;

use crate::audit::report::csv::labels;
use crate::audit::report::model::{Chain, Report};
use crate::audit::report::sections::sections;
use crate::audit::report::tables::{Cell, Section, Table};
use crate::audit::table::harmless;

const STYLE: &str = include_str!("style.css");
/// Nothing is loaded and nothing is run, whatever stands in the page.
const SECURITY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// Columns up to which a table is as wide as what is in it, and not as the page.
const NARROW_COLUMNS: usize = 3;
/// Characters from which a word may be broken anywhere: hashes, and names that mean harm.
const LONG_WORD: usize = 30;

/// The whole page.
pub fn html(report: &Report) -> String {
    let mut page = Page(String::new());
    let title = format!(
        "Database access evidence, {} to {}",
        day(&report.from),
        day(&report.to)
    );
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"");
    page.text(SECURITY);
    page.raw("\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
    page.text(&title);
    page.raw("</title>\n<style>\n");
    page.raw(STYLE);
    page.raw("</style>\n</head>\n<body>\n<h1>Database access evidence</h1>\n<p class=\"period\">");
    page.text(&format!(
        "{} to {} (UTC), made {}",
        shown(&report.from),
        shown(&report.to),
        shown(&report.generated_at)
    ));
    page.raw("</p>\n");
    chain(report, &mut page);
    controls(report, &mut page);
    for part in &sections(report) {
        section(part, &mut page);
    }
    page.raw("<footer>");
    page.text(
        "Made by gatepost from its audit journal. Times are UTC. The number of a record leads to its line in the \
         journal: gatepost audit show --records --format json. Names of applications and correlation ids are \
         asserted by clients; identities were verified.",
    );
    page.raw("</footer>\n</body>\n</html>\n");
    page.0
}

fn day(time: &str) -> &str {
    time.split_once('T').map_or(time, |(day, _)| day)
}

fn shown(time: &str) -> String {
    time.trim_end_matches('Z').replace('T', " ")
}

fn chain(report: &Report, page: &mut Page) {
    let journal = &report.journal;
    let class = if matches!(report.chain, Chain::Sound { .. }) {
        "chain"
    } else {
        "chain broken"
    };
    let _ = write!(page.0, "<div class=\"{class}\">\n<p><strong>");
    match &report.chain {
        Chain::Sound { key_was_given, .. } => {
            page.text("The journal is sound.");
            page.raw("</strong> ");
            page.text("No record of it was changed, removed, inserted or reordered since it was signed.");
            if !key_was_given {
                page.raw(" <span class=\"alarm\">");
                page.text(
                    "The key that proves this lies beside the journal; for proof, give a copy from where whoever \
                     writes the journal cannot change it.",
                );
                page.raw("</span>");
            }
        }
        Chain::Broken { what, .. } => {
            page.text("THE JOURNAL IS NOT SOUND. What this report says is not proved.");
            page.raw("</strong> ");
            page.text(what);
        }
    }
    page.raw("</p>\n<dl class=\"facts\">\n");
    let names = |all: Vec<(&str, u64)>| all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    page.fact("installation", &names(journal.installations.sorted()));
    page.fact("replicas", &names(journal.replicas.sorted()));
    let range = match (&journal.first, &journal.last) {
        (Some(first), Some(last)) => format!("{} ({} to {})", journal.events.total(), first.seq, last.seq),
        _ => "none".to_owned(),
    };
    page.fact("records in the period", &range);
    match &report.chain {
        Chain::Sound {
            key,
            records,
            segments,
            heads,
            head,
            unsigned,
            ..
        } => {
            page.fact(
                "proved",
                &format!("{records} records in {segments} segments, {heads} signed heads"),
            );
            if let Some(head) = head {
                page.fact("last head", &format!("record {}, {}", head.seq, head.hash));
            }
            page.fact("public key", key);
            if *unsigned > 0 {
                page.fact("behind it, not proved", &format!("{unsigned} records"));
            }
        }
        Chain::Broken { key, .. } => page.fact("public key", key),
    }
    page.raw("</dl>\n</div>\n");
}

fn controls(report: &Report, page: &mut Page) {
    page.raw("<table>\n<thead><tr><th>SOC 2</th><th>criterion</th><th>what this shows</th>");
    page.raw("<th>what it does not</th><th>sections</th></tr></thead>\n<tbody>\n");
    let parts = sections(report);
    for control in &report.controls {
        let titles = parts.iter().filter(|part| part.controls.contains(control));
        let titles: Vec<_> = titles.map(|part| part.title).collect();
        page.raw("<tr><td><span class=\"control\">");
        page.text(control.label());
        page.raw("</span></td>");
        for text in [
            control.title(),
            control.evidence(),
            control.limits(),
            &titles.join(", "),
        ] {
            page.raw("<td>");
            page.text(text);
            page.raw("</td>");
        }
        page.raw("</tr>\n");
    }
    page.raw("</tbody>\n</table>\n");
}

fn section(section: &Section, page: &mut Page) {
    let _ = write!(
        page.0,
        "<section id=\"{}\">\n<div class=\"title\"><h2>",
        section.name
    );
    page.text(section.title);
    page.raw("</h2>");
    for control in labels(section.controls).split(' ') {
        page.raw("<span class=\"control\">");
        page.text(control);
        page.raw("</span>");
    }
    page.raw("</div>\n<p>");
    page.text(section.evidence);
    page.raw("</p>\n<p class=\"limits\">");
    page.text(section.limits);
    page.raw("</p>\n");
    for one in &section.tables {
        table(one, page);
    }
    page.raw("</section>\n");
}

fn table(table: &Table, page: &mut Page) {
    page.raw("<h3>");
    page.text(table.title);
    page.raw("</h3>\n");
    if table.rows.is_empty() {
        page.raw("<p class=\"none\">");
        page.text(table.none);
        page.raw("</p>\n");
        return;
    }
    let narrow = table.heads.len() <= NARROW_COLUMNS;
    page.raw(if narrow {
        "<table class=\"short\">\n<thead><tr>"
    } else {
        "<table>\n<thead><tr>"
    });
    for (column, head) in table.heads.iter().enumerate() {
        let is_number = table
            .rows
            .iter()
            .any(|row| matches!(row.get(column), Some(Cell::Number(_))));
        page.raw(if is_number {
            "<th class=\"number\">"
        } else {
            "<th>"
        });
        page.text(head);
        page.raw("</th>");
    }
    page.raw("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        page.raw("<tr>");
        for (column, one) in row.iter().enumerate() {
            let counts = table
                .rows
                .iter()
                .any(|row| matches!(row.get(column), Some(Cell::Number(_))));
            cell(one, counts, page);
        }
        page.raw("</tr>\n");
    }
    page.raw("</tbody>\n</table>\n");
    if table.more > 0 {
        page.raw("<p class=\"more\">");
        page.text(&format!("and {} more", table.more));
        page.raw("</p>\n");
    }
}

fn cell(cell: &Cell, counts: bool, page: &mut Page) {
    page.raw(match cell {
        Cell::Number(_) => "<td class=\"number\">",
        Cell::Alarm(_) if counts => "<td class=\"number alarm\">",
        Cell::Alarm(_) => "<td class=\"alarm\">",
        Cell::Time(_) => "<td class=\"time\">",
        Cell::Text(_) if counts => "<td class=\"right\">",
        Cell::Listed(_) if counts => "<td class=\"right\">",
        Cell::Text(_) | Cell::Code(_) | Cell::Listed(_) | Cell::Lines(_) => "<td>",
    });
    match cell {
        Cell::Code(text) => {
            page.raw("<code>");
            page.words(text);
            page.raw("</code>");
        }
        Cell::Listed(items) => {
            for (number, item) in items.iter().enumerate() {
                page.raw(if number > 0 { ", " } else { "" });
                let is_long = item.chars().nth(LONG_WORD).is_some();
                page.raw(if is_long {
                    "<span>"
                } else {
                    "<span class=\"item\">"
                });
                page.words(item);
                page.raw("</span>");
            }
        }
        Cell::Lines(lines) => {
            for (number, line) in lines.iter().enumerate() {
                page.raw(if number > 0 { "<br>" } else { "" });
                page.words(line);
            }
        }
        Cell::Text(_) | Cell::Number(_) | Cell::Alarm(_) | Cell::Time(_) => page.words(&cell.text()),
    }
    page.raw("</td>");
}

/// HTML under construction. What is not written here as markup goes through `text`.
struct Page(String);

impl Page {
    fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    /// Text that cannot become markup, in elements and in quoted attributes.
    fn text(&mut self, text: &str) {
        for char in harmless(text).chars() {
            match char {
                '&' => self.raw("&amp;"),
                '<' => self.raw("&lt;"),
                '>' => self.raw("&gt;"),
                '"' => self.raw("&quot;"),
                '\'' => self.raw("&#39;"),
                _ => self.0.push(char),
            }
        }
    }

    /// Text whose long words may be broken, so that they do not make a column wider than the page.
    fn words(&mut self, text: &str) {
        for (number, word) in text.split(' ').enumerate() {
            self.raw(if number > 0 { " " } else { "" });
            let is_long = word.chars().nth(LONG_WORD).is_some();
            self.raw(if is_long { "<span class=\"long\">" } else { "" });
            self.text(word);
            self.raw(if is_long { "</span>" } else { "" });
        }
    }

    fn fact(&mut self, name: &str, value: &str) {
        self.raw("<dt>");
        self.text(name);
        self.raw("</dt><dd>");
        self.text(value);
        self.raw("</dd>\n");
    }
}
