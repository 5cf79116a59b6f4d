//! `gatepost pools`: the connections of the running proxy to its databases.

use clap::Args;

use crate::cli::reach::{Question, Target, table};
use crate::cli::{Answer, Failure};

/// Show the running proxy's connections to each target.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gatepost pools --config gatepost.yaml")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    arguments.target.ask(&Question::Get("/v1/pools"), |body| {
        let columns = [
            ("TARGET", "/target"),
            ("LENT", "/lent"),
            ("IDLE", "/idle"),
            ("MAX", "/max"),
            ("WAITING", "/waiting"),
        ];
        table(body, "pools", &columns, "no targets")
    })
}
