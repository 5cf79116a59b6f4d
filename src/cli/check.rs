//! `gatepost check`: everything that `serve` does before it opens a door; with `--live` also what
//! the databases say.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::app::build;
use crate::app::clock::SystemClock;
use crate::app::config::settings::Environment;
use crate::cli::{Answer, Failure, complain, live, say};
use crate::domain::{Clock, Mistake};

/// Check gatepost.yaml and its policies exactly as "serve" would, and run the policies' own cases.
///
/// Prints every mistake with file, line and a caret. Opens no listener, and connects to nothing
/// without --live.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost check --config gatepost.yaml
  gatepost check --config gatepost.yaml --live --json")]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "gatepost.yaml")]
    config: PathBuf,
    /// Also connect to every target as its broker, and report what is missing or too much there.
    #[arg(long)]
    live: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let built = build::build(&arguments.config, &Environment::of_process(), SystemClock.now());
    let (warnings, mistakes, live) = match built {
        Ok(built) if arguments.live => {
            let reports = live::look(&built)?;
            (built.warnings, vec![], reports)
        }
        Ok(built) => (built.warnings, vec![], vec![]),
        Err(mistakes) => (vec![], mistakes, vec![]),
    };
    let answer = if mistakes.is_empty() && live.iter().all(live::Report::is_good) {
        Answer::Good
    } else {
        Answer::No
    };
    if arguments.json {
        let mut document = json!({
            "good": answer == Answer::Good,
            "mistakes": mistakes.iter().map(as_json).collect::<Vec<_>>(),
            "warnings": warnings.iter().map(as_json).collect::<Vec<_>>(),
        });
        if let (true, Some(document)) = (arguments.live, document.as_object_mut()) {
            document.insert("live".to_owned(), serde_json::to_value(&live)?);
        }
        say(&serde_json::to_string_pretty(&document)?)?;
        return Ok(answer);
    }
    for warning in &warnings {
        complain(&format_args!("warning: {warning}"));
    }
    report(&mistakes);
    for report in &live {
        complain(report);
    }
    if answer == Answer::Good {
        say(&format_args!("{}: good", arguments.config.display()))?;
    }
    Ok(answer)
}

/// All mistakes and their number, on standard error.
pub(super) fn report(mistakes: &[Mistake]) {
    for mistake in mistakes {
        complain(mistake);
    }
    match mistakes.len() {
        0 => {}
        1 => complain(&"1 mistake"),
        many => complain(&format_args!("{many} mistakes")),
    }
}

fn as_json(mistake: &Mistake) -> serde_json::Value {
    json!({
        "file": mistake.place.as_ref().map(|place| place.file.display().to_string()),
        "line": mistake.place.as_ref().map(|place| place.line),
        "column": mistake.place.as_ref().map(|place| place.column),
        "message": mistake.message,
    })
}
