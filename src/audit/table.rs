//! Tables for people: as wide as a page, and harmless to the terminal whatever is in them.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of a line, as a terminal and a printed page have them.
pub const PAGE_COLUMNS: usize = 120;
/// The narrowest that a column is made: a word can still be told from another.
const NARROWEST: usize = 8;
const GAP: &str = "  ";

/// The widths of a table's columns, in terminal cells.
#[derive(Clone, Debug)]
pub struct Layout {
    widths: Vec<usize>,
    rigid: &'static [usize],
    wide: bool,
}

/// What is asked of a layout.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Columns that are never cut.
    pub rigid: &'static [usize],
    /// How wide columns are at least, where the rows to come are not known.
    pub least: &'static [usize],
    /// A column that is cut last, because it says the most.
    pub favoured: Option<usize>,
    /// Cut nothing.
    pub wide: bool,
}

impl Layout {
    /// As wide as the widest of `rows`; then the widest columns give way until all fit on the page.
    pub fn of<'a>(rows: impl Iterator<Item = &'a [String]>, wanted: Wanted) -> Self {
        let mut widths = wanted.least.to_vec();
        for row in rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        while !wanted.wide && line_width(&widths) > PAGE_COLUMNS {
            let cuttable = widths
                .iter_mut()
                .enumerate()
                .filter(|(place, width)| !wanted.rigid.contains(place) && **width > NARROWEST);
            // It counts as half as wide as it is.
            let weight =
                |place: usize, width: usize| width / (1 + usize::from(wanted.favoured == Some(place)));
            let Some((_, widest)) = cuttable.max_by_key(|(place, width)| weight(*place, **width)) else {
                break;
            };
            *widest -= 1;
        }
        Self {
            widths,
            rigid: wanted.rigid,
            wide: wanted.wide,
        }
    }

    /// One row as one line, without the line feed. What is wider than its column is cut.
    pub fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (place, (cell, width)) in row.iter().zip(&self.widths).enumerate() {
            if place > 0 {
                line.push_str(GAP);
            }
            let shown = if self.wide || self.rigid.contains(&place) {
                Cow::Borrowed(cell.as_str())
            } else {
                fitted(cell, *width)
            };
            line.push_str(&shown);
            let padding = width.saturating_sub(shown.width());
            line.extend(std::iter::repeat_n(' ', padding));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn line_width(widths: &[usize]) -> usize {
    let gaps = widths.len().saturating_sub(1) * GAP.len();
    widths.iter().sum::<usize>() + gaps
}

/// `text`, cut to so many terminal cells.
fn fitted(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut cut = String::new();
    let mut used = 1;
    for char in text.chars() {
        used += char.width().unwrap_or(0);
        if used > width {
            break;
        }
        cut.push(char);
    }
    cut.push('…');
    Cow::Owned(cut)
}

/// `text` with everything written out that would act on a terminal, or be seen as something else than
/// it is: control characters, marks that turn the direction of writing, characters without a width.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            _ if acts(char) => {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(char));
            }
            _ => shown.push(char),
        }
    }
    shown
}

pub(super) fn acts(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn nothing_that_acts_on_a_terminal_comes_through() {
        assert_eq!(harmless("a\u{1b}[2Jb\nc\u{9b}1m"), "a\\u{1b}[2Jb\\nc\\u{9b}1m");
        assert_eq!(
            harmless("user\u{202e}nimda\u{200b}"),
            "user\\u{202e}nimda\\u{200b}"
        );
        assert_eq!(harmless("Müller 注文 👩"), "Müller 注文 👩");
        for char in (0..=0x10_ffff).filter_map(char::from_u32) {
            let shown = harmless(&char.to_string());
            assert!(!shown.chars().any(char::is_control), "{:x}", u32::from(char));
        }
    }

    #[test]
    fn wide_text_stays_in_its_column_and_lines_stay_on_the_page() {
        let rows = [
            row(&["TIME", "NAME", "WHAT"]),
            row(&["2026-01-02T03:04:05Z", "注文処理", &"x".repeat(300)]),
            row(&["2026-01-02T03:04:06Z", &"長い名前".repeat(20), "short"]),
        ];
        let wanted = Wanted {
            rigid: &[0],
            ..Wanted::default()
        };
        let layout = Layout::of(rows.iter().map(Vec::as_slice), wanted);
        let lines: Vec<_> = rows.iter().map(|row| layout.line(row)).collect();
        for line in &lines {
            assert!(line.width() <= PAGE_COLUMNS, "{}: {line}", line.width());
        }
        assert!(
            lines[1].contains("2026-01-02T03:04:05Z  注文処理 "),
            "{}",
            lines[1]
        );
        assert!(lines[1].ends_with('…') && lines[2].contains('…'));
        let column = |line: &str, needle: &str| line.split(needle).next().unwrap().width();
        assert_eq!(column(&lines[0], "WHAT"), column(&lines[2], "short"));
        let wide = Wanted {
            wide: true,
            ..Wanted::default()
        };
        let whole = Layout::of(rows.iter().map(Vec::as_slice), wide);
        assert!(whole.line(&rows[1]).contains(&"x".repeat(300)));
        let later = row(&["2026-01-02T03:04:05.000001Z", "a", "b"]);
        assert!(
            layout.line(&later).starts_with("2026-01-02T03:04:05.000001Z"),
            "rigid"
        );
    }
}
