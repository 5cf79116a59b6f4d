//! `gatepost audit verify`: proves that nothing was changed, removed, inserted or reordered.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::audit::heads::{KeptHead, kept_in};
use crate::audit::verify::{Broken, Demands, Summary, stored_bytes, verify_all};
use crate::cli::audit::{Journal, read_keys};
use crate::cli::{Answer, Failure, complain, say, with_causes};

/// Beside the segments; good for a first look, not for proof: who can rewrite the journal can
/// rewrite it too.
pub(super) const KEY_BESIDE: &str = "signing.pub";

/// Prove that no record was changed, removed, inserted or reordered; name the first that was.
///
/// Needs no running gatepost and no private key. Exits with 1 when the journal is not what was written.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost audit verify --directory /var/lib/gatepost/audit --key signing.pub
  gatepost audit verify --directory audit --key signing.pub --heads /mnt/elsewhere/heads
  gatepost audit verify --config gatepost.yaml --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    journal: Journal,
    /// A public key (PEM), from where whoever can write the journal cannot reach it. May be given several
    /// times; keys that follow from one by recorded rotations are trusted too. Default: signing.pub beside
    /// the journal, which proves less.
    #[arg(long = "key", visible_alias = "public-key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// A head that was noted elsewhere, as "SEQ HASH" or "SEQ:HASH": the journal must still reach it.
    #[arg(long, value_name = "HEAD", value_parser = head)]
    expect_head: Option<KeptHead>,
    /// The file of audit.heads: all heads in it must be in the journal.
    #[arg(long, value_name = "FILE", conflicts_with = "expect_head")]
    heads: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn head(text: &str) -> Result<KeptHead, String> {
    let wrong = || "is not a head, like \"4711 5feceb66…\"".to_owned();
    KeptHead::read(&text.replacen(':', " ", 1)).ok_or_else(wrong)
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Some(directory) = arguments.journal.directory() else {
        return Ok(Answer::No);
    };
    let keys = if arguments.keys.is_empty() {
        complain(&"note: verified with the key beside the journal; give --key for proof");
        read_keys(&[directory.join(KEY_BESIDE)])?
    } else {
        read_keys(&arguments.keys)?
    };
    let demands = Demands {
        keys,
        kept: kept(arguments)?,
    };
    let bar = bar(&directory);
    let found = verify_all(&directory, demands, &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    match found {
        Ok(summary) if arguments.heads.is_some() && summary.kept_heads == 0 => {
            Err("there is no head of this journal in the file of kept heads".into())
        }
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

type KeptHeads = Box<dyn Iterator<Item = io::Result<KeptHead>>>;

fn kept(arguments: &Arguments) -> Result<KeptHeads, Failure> {
    if let Some(path) = &arguments.heads {
        let kept = kept_in(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        return Ok(Box::new(kept));
    }
    Ok(Box::new(arguments.expect_head.clone().into_iter().map(Ok)))
}

/// How far it is, on a terminal; on anything else nothing.
fn bar(directory: &Path) -> ProgressBar {
    let total = stored_bytes(directory).unwrap_or_default();
    let style = "{bar:40} {bytes} of {total_bytes}, {eta} left";
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
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
        first,
        seals,
        rotations,
        kept_heads,
        head,
        unsigned,
        torn_bytes,
    } = summary;
    say(&format_args!(
        "sound: {records} records in {segments} segments ({seals} sealed), {heads} signed heads"
    ))?;
    if *first > 1 {
        say(&format_args!(
            "begins with record {first}: what was before has expired, on record"
        ))?;
    }
    if *rotations > 0 {
        say(&format_args!("the signing key was replaced {rotations} times"))?;
    }
    if *kept_heads > 0 {
        say(&format_args!(
            "{kept_heads} heads that were kept elsewhere are in it"
        ))?;
    }
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
