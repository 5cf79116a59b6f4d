//! `gatepost schema`: JSON Schemas for editors.

use clap::{Args, ValueEnum};

use crate::app::config::file;
use crate::cli::{Answer, Failure, say};
use crate::policy;

/// Print a JSON Schema, for editors that check files while they are written.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  gatepost schema config > gatepost.schema.json\n  gatepost schema policy > policy.schema.json"
)]
pub(super) struct Arguments {
    /// Which file the schema is for.
    what: What,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// gatepost.yaml
    Config,
    /// A policy file.
    Policy,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let schema = match arguments.what {
        What::Config => file::schema(),
        What::Policy => policy::schema(),
    };
    say(&serde_json::to_string_pretty(&schema)?)?;
    Ok(Answer::Good)
}
