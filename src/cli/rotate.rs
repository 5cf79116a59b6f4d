//! `gatepost rotate`: secrets of the running proxy are replaced without losing a transaction.

use clap::Args;
use serde_json::json;

use crate::cli::reach::{Printable, Question, Target, path_name};
use crate::cli::{Answer, Failure, say};

/// Replace secrets of the running proxy on deploy, without losing a transaction.
///
/// A database login is replaced by its next generation: new connections use it at once, and the old
/// one ends when its last connection is gone. The key that signs the journal is replaced by the one that
/// its file holds now: the change is on record, signed with both. With it, everything else is reloaded too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost rotate --logins --config gatepost.yaml
  gatepost rotate --logins --target orders --config gatepost.yaml --json
  gatepost rotate --signing-key --config gatepost.yaml")]
pub(super) struct Arguments {
    #[command(flatten)]
    what: What,
    /// Only the logins of this target.
    #[arg(long = "target", value_name = "NAME", value_parser = path_name, conflicts_with = "signing_key")]
    of: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Replace the minted database logins.
    #[arg(long)]
    logins: bool,
    /// Sign the journal with the key that audit.signing_key holds now.
    #[arg(long)]
    signing_key: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    if arguments.what.signing_key {
        return rotate_signing_key(&arguments.target);
    }
    let body = arguments.of.as_ref().map(|target| json!({ "target": target }));
    let question = Question::Post("/v1/logins/rotate", body);
    arguments.target.ask(&question, |body| {
        for rotated in body["rotated"].as_array().into_iter().flatten() {
            let target = rotated["target"].as_str().unwrap_or_default();
            say(&format_args!(
                "{}: {} replaced, {} old in use until their last connection is gone, {} dropped",
                Printable(target),
                rotated["replaced"],
                rotated["draining"],
                rotated["dropped"]
            ))?;
        }
        Ok(())
    })
}

/// The key comes from its file, so that this is a reload. The process may have seen the new file already.
fn rotate_signing_key(target: &Target) -> Result<Answer, Failure> {
    target.ask(&Question::Post("/v1/reload", None), |body| {
        let mut changed = body["changed"].as_array().into_iter().flatten();
        let is_new = changed.any(|it| it == "audit.signing_key");
        let key = Printable(body["signing_key"].as_str().unwrap_or_default());
        let when = if is_new {
            "from now on"
        } else {
            "already, which is the one in its file"
        };
        Ok(say(&format_args!("the journal is signed with key {key} {when}"))?)
    })
}
