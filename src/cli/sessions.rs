//! `gatepost sessions`: who is connected through the running proxy, and who shall not be.

use clap::{Args, Subcommand};

use crate::cli::reach::{Printable, Question, Target, path_name, table};
use crate::cli::{Answer, Failure, say};

/// List or end the sessions of the running proxy.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the open sessions.
    #[command(after_help = "Examples:
  gatepost sessions list --config gatepost.yaml
  gatepost sessions list --api https://gatepost.internal:8443 --token-file token.jwt --json")]
    List {
        #[command(flatten)]
        target: Target,
    },
    /// End a session at its next boundary between transactions, half a second from now at most.
    ///
    /// Nothing keeps its client from coming back; see "gatepost revoke".
    #[command(after_help = "Example:
  gatepost sessions kill s-0123456789abcdef0123 --config gatepost.yaml")]
    Kill {
        /// The session's reference, as the list and the client's errors show it.
        #[arg(value_parser = path_name)]
        reference: String,
        #[command(flatten)]
        target: Target,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    match &arguments.command {
        Command::List { target } => target.ask(&Question::Get("/v1/sessions"), |body| {
            let columns = [
                ("SESSION", "/session"),
                ("IDENTITY", "/identity/name /identity/subject"),
                ("PROVIDER", "/identity/provider"),
                ("CLIENT", "/client/address"),
                ("APPLICATION", "/client/application"),
                ("TARGET", "/target"),
                ("DATABASE", "/database"),
                ("ROLE", "/role"),
                ("DOING", "/doing"),
                ("TRANSACTIONS", "/transactions"),
                ("OPENED", "/opened"),
            ];
            table(body, "sessions", &columns, "no sessions")
        }),
        Command::Kill { reference, target } => {
            let path = format!("/v1/sessions/{reference}");
            target.ask(&Question::Delete(&path), |_| {
                Ok(say(&format_args!("{} is ending", Printable(reference)))?)
            })
        }
    }
}
