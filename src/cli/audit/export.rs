//! `gatepost audit export`: records in the forms that other systems read.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::audit::entry::entries;
use crate::audit::export::{Form, Framing, export};
use crate::cli::audit::Journal;
use crate::cli::audit::output::Output;
use crate::cli::audit::select::Selection;
use crate::cli::{Answer, Failure};

/// Print records as OCSF events, as CEF lines or as syslog messages.
///
/// Every record that matches is one event, whatever its kind. Exits with 1 when nothing matches.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost audit export --config gatepost.yaml --format ocsf --event transaction.outcome --from 24h
  gatepost audit export --directory audit --format rfc5424 --framing octet | nc siem.internal 601")]
pub(super) struct Arguments {
    #[command(flatten)]
    journal: Journal,
    #[command(flatten)]
    selection: Selection,
    /// The form of the events: OCSF 1.7.0 as JSON, CEF version 0, or syslog (RFC 5424).
    #[arg(long, value_enum)]
    format: Format,
    /// How events are told apart: a line feed behind each, or its length in bytes before it.
    #[arg(long, value_enum, default_value_t = Told::Lf)]
    framing: Told,
    /// Into this file instead of standard output; only its owner may read it.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Ocsf,
    Cef,
    Rfc5424,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Told {
    Lf,
    Octet,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Some(directory) = arguments.journal.directory() else {
        return Ok(Answer::No);
    };
    let form = match arguments.format {
        Format::Ocsf => Form::Ocsf,
        Format::Cef => Form::Cef,
        Format::Rfc5424 => Form::Rfc5424,
    };
    let framing = match arguments.framing {
        Told::Lf => Framing::LineFeed,
        Told::Octet => Framing::OctetCounting,
    };
    let filter = arguments.selection.filter();
    let mut output = Output::to(arguments.output.as_deref())?;
    let mut message = Vec::new();
    let mut answer = Answer::No;
    for found in entries(&directory)? {
        let found = found?;
        if !filter.admits(&found.entry) {
            continue;
        }
        answer = Answer::Good;
        message.clear();
        export(form, framing, &found.entry, &found.line, &mut message);
        if !output.bytes(&message)? {
            return Ok(answer);
        }
    }
    output.flush()?;
    Ok(answer)
}
