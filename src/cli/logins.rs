//! `gatepost logins`: the database logins that the running proxy has minted.

use clap::Args;

use crate::cli::reach::{Printable, Question, Target, table};
use crate::cli::{Answer, Failure, complain};

/// List the database logins that the running proxy has minted.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gatepost logins --config gatepost.yaml --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    arguments.target.ask(&Question::Get("/v1/logins"), |body| {
        let columns = [
            ("LOGIN", "/login"),
            ("TARGET", "/target"),
            ("ROLE", "/role"),
            ("IDENTITY", "/identity/name /identity/subject"),
            ("GENERATION", "/generation"),
            ("STATE", "/state"),
            ("HELD BY", "/holds"),
            ("EXPIRES", "/expires_at"),
        ];
        for silent in body["unreachable"].as_array().into_iter().flatten() {
            let text = |key: &str| silent[key].as_str().unwrap_or_default();
            complain(&format_args!(
                "target {} could not be asked: {}",
                Printable(text("target")),
                Printable(text("why"))
            ));
        }
        table(body, "logins", &columns, "no logins")
    })
}
