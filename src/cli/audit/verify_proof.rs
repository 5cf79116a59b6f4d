//! `gatepost audit verify-proof`: an auditor has one record, its proof and the public key, and nothing else.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::audit::proof::{Proof, Proved};
use crate::cli::audit::read_keys;
use crate::cli::{Answer, Failure, complain, say, with_causes};

/// A record of the largest size, and a whole group of others behind it.
const PROOF_BYTES_MAX: u64 = 256 << 20;

/// Check the proof of one record with the public key alone.
///
/// Prints the record. Exits with 1 when the proof does not prove it.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  gatepost audit verify-proof proof.json --key signing.pub")]
pub(super) struct Arguments {
    /// The proof, as "gatepost audit prove" wrote it.
    #[arg(value_name = "FILE")]
    proof: PathBuf,
    /// A public key (PEM) that you trust. May be given several times. Keys that follow from it by recorded
    /// rotations are trusted too.
    #[arg(
        long = "key",
        visible_alias = "public-key",
        value_name = "FILE",
        required = true
    )]
    keys: Vec<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let keys = read_keys(&arguments.keys)?;
    let found = read(&arguments.proof)?.verify(&keys);
    match found {
        Ok(proved) => {
            good(&proved, arguments.json)?;
            Ok(Answer::Good)
        }
        Err(why) if arguments.json => {
            let answer = json!({"proved": false, "why": with_causes(&why)});
            say(&serde_json::to_string_pretty(&answer)?)?;
            Ok(Answer::No)
        }
        Err(why) => {
            complain(&format_args!("NOT PROVED: {}", with_causes(&why)));
            Ok(Answer::No)
        }
    }
}

fn read(path: &Path) -> Result<Proof, Failure> {
    let shown = path.display();
    let mut text = String::new();
    let opened = File::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let read = opened.take(PROOF_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let proof = serde_json::from_str(&text);
    proof.map_err(|error| format!("{shown} is not a proof: {error}").into())
}

fn good(proved: &Proved, json: bool) -> Result<(), Failure> {
    if json {
        let record: Value = serde_json::from_str(&proved.record)?;
        let answer = json!({
            "proved": true, "seq": proved.seq, "head": proved.head, "key": proved.key, "record": record,
        });
        say(&serde_json::to_string_pretty(&answer)?)?;
        return Ok(());
    }
    // The first line is for reading and the second for tools. JSON escapes control characters.
    say(&format_args!(
        "proved: record {}, signed with key {} in head {}",
        proved.seq, proved.key, proved.head
    ))?;
    say(&proved.record)?;
    Ok(())
}
