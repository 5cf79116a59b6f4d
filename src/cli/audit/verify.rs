//! `gatepost audit verify`: proves that nothing was changed, removed, inserted or reordered.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::audit::PublicKey;
use crate::audit::verify::{Broken, Summary, verify};
use crate::cli::audit::Journal;
use crate::cli::{Answer, Failure, complain, say, with_causes};

/// Beside the segments; good for a first look, not for proof: who can rewrite the journal can
/// rewrite it too.
const KEY_BESIDE: &str = "signing.pub";

/// Prove that no record was changed, removed, inserted or reordered; name the first that was.
///
/// Exits with 1 when the journal is not what was written.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost audit verify --directory /var/lib/gatepost/audit --public-key signing.pub
  gatepost audit verify --config gatepost.yaml --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    journal: Journal,
    /// The public key (PEM), from where whoever can write the journal cannot reach it. Default:
    /// signing.pub beside the journal, which proves less.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Some(directory) = arguments.journal.directory() else {
        return Ok(Answer::No);
    };
    let beside = directory.join(KEY_BESIDE);
    let key = read_key(arguments.public_key.as_ref().unwrap_or(&beside))?;
    if arguments.public_key.is_none() {
        complain(&"note: verified with the key beside the journal; give --public-key for proof");
    }
    match verify(&directory, &key) {
        Ok(summary) => {
            sound(&summary, arguments.json)?;
            Ok(Answer::Good)
        }
        Err(broken) => {
            unsound(&broken, arguments.json)?;
            Ok(Answer::No)
        }
    }
}

fn read_key(path: &Path) -> Result<PublicKey, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let key = PublicKey::read(&text);
    key.map_err(|error| format!("{}: {}", path.display(), with_causes(&error)).into())
}

fn sound(summary: &Summary, json: bool) -> Result<(), Failure> {
    if json {
        say(&serde_json::to_string_pretty(
            &json!({"sound": true, "summary": summary}),
        )?)?;
        return Ok(());
    }
    let Summary {
        segments,
        records,
        heads,
        head,
        unsigned,
        torn_bytes,
    } = summary;
    say(&format_args!(
        "sound: {records} records in {segments} segments, {heads} signed heads"
    ))?;
    if let Some(head) = head {
        say(&format_args!("head: record {} {}", head.seq, head.hash))?;
    }
    if *unsigned > 0 || *torn_bytes > 0 {
        say(&format_args!(
            "behind the last head, not proved: {unsigned} records, {torn_bytes} bytes of a torn line"
        ))?;
    }
    Ok(())
}

fn unsound(broken: &Broken, json: bool) -> Result<(), Failure> {
    let text = with_causes(broken);
    if json {
        let place = json!({
            "sound": false,
            "file": broken.file.display().to_string(),
            "line": broken.line,
            "record": broken.seq,
            "what": broken.what.to_string(),
        });
        say(&serde_json::to_string_pretty(&place)?)?;
    } else {
        complain(&format_args!("NOT SOUND: {text}"));
    }
    Ok(())
}
