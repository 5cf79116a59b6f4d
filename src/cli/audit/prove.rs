//! `gatepost audit prove`: one record, with what proves it to somebody else.

use clap::Args;

use crate::audit::proof::prove;
use crate::cli::audit::Journal;
use crate::cli::{Answer, Failure, say};

/// Make the proof for one record, for somebody who has the public key and must not see the journal.
///
/// The proof is one JSON object on standard output; "gatepost audit verify-proof" checks it, offline.
/// In a segment that is complete it shows no other record. In the one that is being written it shows
/// those from this record to the next signed head.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gatepost audit prove --config gatepost.yaml --seq 4711 > proof.json")]
pub(super) struct Arguments {
    #[command(flatten)]
    journal: Journal,
    /// The record's sequence number (seq).
    #[arg(long, value_name = "NUMBER")]
    seq: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Some(directory) = arguments.journal.directory() else {
        return Ok(Answer::No);
    };
    let proof = prove(&directory, arguments.seq)?;
    say(&serde_json::to_string_pretty(&proof)?)?;
    Ok(Answer::Good)
}
