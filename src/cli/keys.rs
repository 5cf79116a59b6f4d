//! `gatepost keys`: the signing keys of identity providers, as the running proxy knows them.

use clap::{Args, Subcommand};

use crate::cli::reach::{Printable, Question, Target, path_name};
use crate::cli::{Answer, Failure, say};

/// Fetch an identity provider's signing keys into the running proxy.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch a provider's keys now, for instance after it replaced them in an emergency.
    #[command(after_help = "Example:
  gatepost keys refresh okta --config gatepost.yaml")]
    Refresh {
        /// An entry under identity_providers.
        #[arg(value_parser = path_name)]
        provider: String,
        #[command(flatten)]
        target: Target,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Command::Refresh { provider, target } = &arguments.command;
    let path = format!("/v1/providers/{provider}/refresh");
    target.ask(&Question::Post(&path, None), |_| {
        Ok(say(&format_args!(
            "the keys of {} were fetched",
            Printable(provider)
        ))?)
    })
}
