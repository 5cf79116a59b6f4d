//! How commands find the running gatepost, and how they show what it answered.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::admin::client::{Answer as Reply, ApiAddress, ClientError, Reach, read_token};
use crate::app::config::settings;
use crate::app::run;
use crate::cli::{Answer, Failure, check, complain, say};
use crate::domain::Secret;

/// Where a token is taken from when no file is named.
const TOKEN_VARIABLE: &str = "GATEPOST_TOKEN";

/// The running gatepost: its admin socket (root and its own user), or its API with a token.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The configuration that names the admin socket (listen.admin_socket).
    #[arg(long, short, value_name = "FILE", default_value = "gatepost.yaml")]
    config: PathBuf,
    /// The admin socket itself.
    #[arg(long, value_name = "PATH", conflicts_with = "api")]
    socket: Option<PathBuf>,
    /// The admin API, like https://gatepost.internal:8443.
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// A file with an access token for the API. Default: the environment variable GATEPOST_TOKEN.
    #[arg(long, value_name = "FILE", requires = "api")]
    token_file: Option<PathBuf>,
    /// A PEM file with the authority that signed the API's certificate. Default: the system's.
    #[arg(long, value_name = "FILE", requires = "api")]
    ca: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What a command asks for.
pub(super) enum Question<'a> {
    Get(&'a str),
    Post(&'a str, Option<Value>),
    Delete(&'a str),
}

impl Target {
    /// Asks, and shows the answer: as JSON, or in the words of `show`.
    pub(super) fn ask(
        &self,
        question: &Question<'_>,
        show: impl FnOnce(&Value) -> Result<(), Failure>,
    ) -> Result<Answer, Failure> {
        let reach = match self.reach()? {
            Ok(reach) => reach,
            Err(answer) => return Ok(answer),
        };
        ask(&reach, question, self.json, show)
    }

    /// `Err` inside: mistakes in the configuration, which have been told.
    fn reach(&self) -> Result<Result<Reach, Answer>, Failure> {
        if let Some(url) = &self.api {
            let api = ApiAddress::new(url, token(self.token_file.as_deref())?, self.ca.clone())?;
            return Ok(Ok(Reach::Api(api)));
        }
        if let Some(socket) = &self.socket {
            return Ok(Ok(Reach::Socket(socket.clone())));
        }
        match settings::admin_socket(&self.config) {
            Ok(Some(socket)) => Ok(Ok(Reach::Socket(socket))),
            Ok(None) => Err(format!(
                "{} has no listen.admin_socket; add one, or give --socket or --api",
                self.config.display()
            )
            .into()),
            Err(mistakes) => {
                check::report(&mistakes);
                Ok(Err(Answer::No))
            }
        }
    }
}

/// Asks, and shows the answer: as JSON, or in the words of `show`.
pub(super) fn ask(
    reach: &Reach,
    question: &Question<'_>,
    as_json: bool,
    show: impl FnOnce(&Value) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    let runtime = run::control()?;
    let reply = runtime.block_on(put(reach, question))?;
    if as_json {
        say(&serde_json::to_string_pretty(&reply.body)?)?;
    } else if reply.is_good() {
        show(&reply.body)?;
    } else {
        explain(&reply);
    }
    Ok(if reply.is_good() { Answer::Good } else { Answer::No })
}

/// The token for the API, from this file or from the environment.
pub(super) fn token(file: Option<&Path>) -> Result<Secret<String>, Failure> {
    match file {
        Some(path) => {
            read_token(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
        }
        None => std::env::var(TOKEN_VARIABLE)
            .map(Secret::new)
            .map_err(|_| format!("the API needs a token: give --token-file, or set {TOKEN_VARIABLE}").into()),
    }
}

async fn put(reach: &Reach, question: &Question<'_>) -> Result<Reply, ClientError> {
    match question {
        Question::Get(path) => reach.get(path).await,
        Question::Post(path, body) => reach.post(path, body.as_ref()).await,
        Question::Delete(path) => reach.delete(path).await,
    }
}

/// Why the answer is no, on standard error.
fn explain(reply: &Reply) {
    let body = &reply.body;
    for mistake in body["mistakes"].as_array().into_iter().flatten() {
        let lines = mistake.as_str().unwrap_or_default().lines();
        lines.for_each(|line| complain(&Printable(line)));
    }
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    complain(&format_args!("gatepost: {}", Printable(text("detail"))));
    if !text("hint").is_empty() {
        complain(&format_args!("hint: {}", Printable(text("hint"))));
    }
}

/// A name for a path: anything else would lead to another route or to none.
pub(super) fn path_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !text.is_empty() && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("it has letters, digits, - and _ only".to_owned())
    }
}

/// Columns with a title and where in an entry their value stands (a JSON pointer).
pub(super) fn table(
    body: &Value,
    list: &str,
    columns: &[(&str, &str)],
    nothing: &str,
) -> Result<(), Failure> {
    let entries = body[list].as_array().map(Vec::as_slice).unwrap_or_default();
    if entries.is_empty() {
        say(&nothing)?;
        return Ok(());
    }
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let mut rows: Vec<Vec<String>> = vec![titles];
    rows.extend(entries.iter().map(|entry| {
        let cells = columns.iter().map(|(_, pointer)| cell(entry, pointer));
        cells.collect()
    }));
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        say(&line.join("  ").trim_end())?;
    }
    if let Some(total) = body["total"]
        .as_u64()
        .filter(|total| *total > entries.len() as u64)
    {
        complain(&format_args!("{} of {total} are shown", entries.len()));
    }
    Ok(())
}

/// The first of the pointers (between spaces) that leads to something.
fn cell(entry: &Value, pointers: &str) -> String {
    let found = pointers.split(' ').find_map(|pointer| entry.pointer(pointer));
    match found {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => Printable(text).to_string(),
        Some(other) => other.to_string(),
    }
}

/// Text from elsewhere on its way to a terminal: what would move the cursor, change colours or turn
/// the reading direction is shown as an escape.
pub(super) struct Printable<'a>(pub(super) &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unseen = |c: char| {
            c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        };
        self.0.chars().try_for_each(|c| {
            if unseen(c) {
                write!(f, "{}", c.escape_unicode())
            } else {
                write!(f, "{c}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_a_client_moves_the_cursor() {
        let text = "app\u{1b}[2J\r\nx\u{9b}1m\u{202e}gpj\u{200b} ä";
        assert_eq!(
            Printable(text).to_string(),
            "app\\u{1b}[2J\\u{d}\\u{a}x\\u{9b}1m\\u{202e}gpj\\u{200b} ä"
        );
    }

    #[test]
    fn a_cell_takes_the_first_that_is_there() {
        let entry = serde_json::json!({"a": {"b": "x"}, "n": 3, "z": null});
        assert_eq!(cell(&entry, "/q /a/b"), "x");
        assert_eq!(cell(&entry, "/n"), "3");
        assert_eq!(cell(&entry, "/z"), "-");
        assert_eq!(cell(&entry, "/q"), "-");
    }

    #[test]
    fn names_lead_to_one_route() {
        assert!(path_name("s-0a").is_ok());
        for wrong in ["", "a/b", "..", "a?b", "a%2f"] {
            assert!(path_name(wrong).is_err(), "{wrong}");
        }
    }
}
