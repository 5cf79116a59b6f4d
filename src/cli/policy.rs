//! `gatepost policy`: what the running proxy goes by.

use clap::{Args, Subcommand};

use crate::cli::reach::{Printable, Question, Target};
use crate::cli::{Answer, Failure, say};

/// Show which policy the running proxy goes by.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show version, files and size of the policy in force.
    #[command(after_help = "Example:
  gatepost policy show --config gatepost.yaml")]
    Show {
        #[command(flatten)]
        target: Target,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Command::Show { target } = &arguments.command;
    target.ask(&Question::Get("/v1/policy"), |body| {
        let text = |key: &str| Printable(body[key].as_str().unwrap_or_default());
        say(&format_args!("version {}", text("version")))?;
        say(&format_args!(
            "epoch {} since {}",
            body["epoch"],
            text("loaded_at")
        ))?;
        say(&format_args!(
            "{} roles, {} rules, {} admin rules",
            body["roles"], body["rules"], body["admin_rules"]
        ))?;
        for file in body["files"].as_array().into_iter().flatten() {
            say(&Printable(file.as_str().unwrap_or_default()))?;
        }
        Ok(())
    })
}
