//! `gatepost rotate`: secrets of the running proxy are replaced without losing a transaction.

use clap::Args;
use serde_json::json;

use crate::cli::reach::{Printable, Question, Target, path_name};
use crate::cli::{Answer, Failure, say};

/// Replace secrets of the running proxy on deploy, without losing a transaction.
///
/// A database login is replaced by its next generation: new connections use it at once, and the old
/// one ends when its last connection is gone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost rotate --logins --config gatepost.yaml
  gatepost rotate --logins --target orders --config gatepost.yaml --json")]
pub(super) struct Arguments {
    /// Replace the minted database logins.
    #[arg(long, required = true)]
    logins: bool,
    /// Only the logins of this target.
    #[arg(long = "target", value_name = "NAME", value_parser = path_name)]
    of: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let body = arguments.of.as_ref().map(|target| json!({ "target": target }));
    let question = Question::Post("/v1/logins/rotate", body);
    arguments.target.ask(&question, |body| {
        for rotated in body["rotated"].as_array().into_iter().flatten() {
            let target = rotated["target"].as_str().unwrap_or_default();
            say(&format_args!(
                "{}: {} replaced, {} old in use until their last connection is gone, {} dropped",
                Printable(target),
                rotated["replaced"],
                rotated["draining"],
                rotated["dropped"]
            ))?;
        }
        Ok(())
    })
}
