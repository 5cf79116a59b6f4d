//! A mistake in a file that a person wrote, shown with its line and a caret.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where in a file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
}

/// One thing to correct. `Display` prints the place, the sentence, the line and a caret under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `None` when the mistake is about a file as a whole or about several.
    pub place: Option<Place>,
    /// What is wrong and what to do: one sentence, no secret in it.
    pub message: String,
    /// The line as written, if it can be shown.
    pub excerpt: Option<String>,
}

impl Mistake {
    pub fn general(message: impl Into<String>) -> Self {
        Self {
            place: None,
            message: message.into(),
            excerpt: None,
        }
    }

    /// A mistake at `line`, `column` (from 1; line 0 means the file as a whole) of `text`, which
    /// was read from `file`.
    pub fn at(file: &Path, text: &str, line: usize, column: usize, message: impl Into<String>) -> Self {
        let excerpt = line.checked_sub(1).and_then(|index| text.lines().nth(index));
        Self {
            place: Some(Place {
                file: file.to_owned(),
                line,
                column,
            }),
            message: message.into(),
            excerpt: excerpt.map(str::to_owned),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.place else {
            return write!(f, "{}", self.message);
        };
        if place.line == 0 {
            return write!(f, "{}: {}", place.file.display(), self.message);
        }
        write!(
            f,
            "{}:{}:{}: {}",
            place.file.display(),
            place.line,
            place.column,
            self.message
        )?;
        let Some(excerpt) = &self.excerpt else {
            return Ok(());
        };
        let margin = place.line.to_string().len();
        let indent = place.column.saturating_sub(1);
        write!(
            f,
            "\n{:margin$} |\n{} | {excerpt}\n{:margin$} | {:indent$}^",
            "", place.line, "", ""
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_column() {
        let text = "a: 1\nbb: oops\n";
        let mistake = Mistake::at(Path::new("x.yaml"), text, 2, 5, "not a number");
        let expected = "x.yaml:2:5: not a number\n  |\n2 | bb: oops\n  |     ^";
        assert_eq!(mistake.to_string(), expected);
    }
}
