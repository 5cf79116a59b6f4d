//! `gatepost audit report`: what an auditor of SOC 2 asks for, from the journal.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::app::clock::SystemClock;
use crate::audit::PublicKey;
use crate::audit::entry::entries;
use crate::audit::report::{Chain, Control, Gathering, Period, Report, csv, html};
use crate::audit::verify::verify;
use crate::cli::audit::Journal;
use crate::cli::audit::output::Output;
use crate::cli::audit::read_key;
use crate::cli::audit::select;
use crate::cli::audit::verify::KEY_BESIDE;
use crate::cli::{Answer, Failure, complain, with_causes};
use crate::domain::Clock as _;

/// The period where none is given: a quarter and a bit.
const DEFAULT_PERIOD: Duration = Duration::from_secs(92 * 24 * 3600);

/// Evidence for a SOC 2 audit: who could, who did, what was refused, and what is proved.
///
/// Verifies the journal first, and says in the report what came of it. Exits with 1 when the journal is
/// not what was written; the report is made all the same.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost audit report --config gatepost.yaml --from 2026-01-01 --to 2026-04-01 --public-key signing.pub --output q1.html
  gatepost audit report --directory audit --from 30d --control CC6.1 --control CC7.2 --format csv")]
pub(super) struct Arguments {
    #[command(flatten)]
    journal: Journal,
    #[command(flatten)]
    period: select::Period,
    /// Only what is evidence for this control: CC6.1, CC6.2, CC6.3, CC6.6, CC7.2 or CC7.3. More than one
    /// can be given.
    #[arg(long, value_name = "CONTROL", value_parser = control, num_args = 1.., value_delimiter = ',')]
    control: Vec<Control>,
    /// A page that prints, one table of all lines, or an object with everything.
    #[arg(long, value_enum, default_value_t = Format::Html)]
    format: Format,
    /// The public key (PEM), from where whoever can write the journal cannot reach it. Default:
    /// signing.pub beside the journal, which proves less.
    #[arg(long, visible_alias = "key", value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Into this file instead of standard output; only its owner may read it.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Html,
    Csv,
    Json,
}

fn control(text: &str) -> Result<Control, String> {
    let known: Vec<_> = Control::ALL.iter().map(|control| control.label()).collect();
    Control::read(text).ok_or_else(|| format!("the report has evidence for {}", known.join(", ")))
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Some(directory) = arguments.journal.directory() else {
        return Ok(Answer::No);
    };
    let now = SystemClock.now();
    let to = arguments.period.to.unwrap_or(now);
    let from = arguments
        .period
        .from
        .or_else(|| to.checked_sub(DEFAULT_PERIOD))
        .unwrap_or(to);
    if from >= to {
        return Err("--from must lie before --to".into());
    }
    let beside = directory.join(KEY_BESIDE);
    let key = read_key(arguments.public_key.as_ref().unwrap_or(&beside))?;
    let key_was_given = arguments.public_key.is_some();
    if !key_was_given {
        complain(&"note: verified with the key beside the journal; give --public-key for proof");
    }
    let chain = proved(&directory, &key, key_was_given);
    let answer = match &chain {
        Chain::Sound { .. } => Answer::Good,
        Chain::Broken { what, .. } => {
            complain(&format_args!("NOT SOUND: {what}"));
            Answer::No
        }
    };
    let mut gathering = Gathering::new(Period { from, to, now });
    for found in entries(&directory)? {
        match found {
            Ok(found) => gathering.take(found.entry),
            // What comes behind a line that is no record is not evidence of anything.
            Err(error) if answer == Answer::No => {
                complain(&format_args!(
                    "the report ends where the journal cannot be read: {}",
                    with_causes(&error)
                ));
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let report = gathering.end(chain);
    let controls: &[Control] = if arguments.control.is_empty() {
        &Control::ALL
    } else {
        &arguments.control
    };
    print(arguments, &report.only(controls))?;
    Ok(answer)
}

fn proved(directory: &std::path::Path, key: &PublicKey, key_was_given: bool) -> Chain {
    match verify(directory, key) {
        Ok(summary) => Chain::Sound {
            key: key.id().to_owned(),
            key_was_given,
            records: summary.records,
            segments: summary.segments,
            heads: summary.heads,
            head: summary.head,
            unsigned: summary.unsigned,
        },
        Err(broken) => Chain::Broken {
            key: key.id().to_owned(),
            what: with_causes(&broken),
        },
    }
}

fn print(arguments: &Arguments, report: &Report) -> Result<(), Failure> {
    let text = match arguments.format {
        Format::Html => html::html(report),
        Format::Csv => csv::csv(report),
        Format::Json => serde_json::to_string_pretty(report)? + "\n",
    };
    let mut output = Output::to(arguments.output.as_deref())?;
    output.bytes(text.as_bytes())?;
    output.flush()?;
    Ok(())
}
