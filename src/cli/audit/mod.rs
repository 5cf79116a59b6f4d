//! `gatepost audit`: the journal, read without a running gatepost.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::app::config::settings::{Environment, Settings};
use crate::audit::PublicKey;
use crate::audit::rotation::Keys;
use crate::cli::{Answer, Failure, check, with_causes};

mod export;
mod hash;
mod output;
mod prove;
mod report;
mod select;
mod show;
mod verify;
mod verify_proof;

/// Prove and read the audit journal.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Verify(verify::Arguments),
    Prove(prove::Arguments),
    VerifyProof(verify_proof::Arguments),
    Show(Box<show::Arguments>),
    Report(report::Arguments),
    Export(Box<export::Arguments>),
    Hash(hash::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    match &arguments.what {
        What::Verify(arguments) => verify::run(arguments),
        What::Show(arguments) => show::run(arguments),
        What::Prove(arguments) => prove::run(arguments),
        What::VerifyProof(arguments) => verify_proof::run(arguments),
        What::Report(arguments) => report::run(arguments),
        What::Export(arguments) => export::run(arguments),
        What::Hash(arguments) => hash::run(arguments),
    }
}

/// Which journal: a folder, or the one that a configuration names.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Journal {
    /// The folder with the journal's segments.
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// The configuration that names the folder.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Journal {
    /// `None` when the configuration has mistakes, which were printed.
    fn directory(&self) -> Option<PathBuf> {
        let config = match (&self.directory, &self.config) {
            (Some(directory), _) => return Some(directory.clone()),
            (None, Some(config)) => config,
            (None, None) => return None,
        };
        match Settings::load(config, &Environment::of_process()) {
            Ok(settings) => Some(settings.audit.directory),
            Err(mistakes) => {
                check::report(&mistakes);
                None
            }
        }
    }
}

fn read_key(path: &Path) -> Result<PublicKey, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let key = PublicKey::read(&text);
    key.map_err(|error| format!("{}: {}", path.display(), with_causes(&error)).into())
}

/// The public keys in these files.
fn read_keys(paths: &[PathBuf]) -> Result<Keys, Failure> {
    let keys: Result<Vec<_>, _> = paths.iter().map(|path| read_key(path)).collect();
    Ok(Keys::new(keys?))
}
