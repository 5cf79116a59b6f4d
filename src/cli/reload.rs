//! `gatepost reload`: the running proxy reads its configuration and policies again.

use clap::Args;

use crate::cli::reach::{Printable, Question, Target};
use crate::cli::{Answer, Failure, say};

/// Have the running proxy read its configuration, policies and certificates again.
///
/// If they hold a mistake, what was in force stays in force, and every mistake is printed.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gatepost reload --config gatepost.yaml")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    arguments.target.ask(&Question::Post("/v1/reload", None), |body| {
        let changed = body["changed"].as_array().into_iter().flatten();
        let changed: Vec<_> = changed.filter_map(|it| it.as_str()).collect();
        let changed = if changed.is_empty() {
            "nothing had changed".to_owned()
        } else {
            format!("changed: {}", changed.join(", "))
        };
        let version = body["policy_version"].as_str().unwrap_or_default();
        Ok(say(&format_args!(
            "epoch {} with policy {}; {}",
            body["epoch"],
            Printable(version),
            Printable(&changed)
        ))?)
    })
}
