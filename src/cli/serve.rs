//! `gatepost serve`: runs the proxy.

use std::path::PathBuf;

use clap::Args;

use crate::app::config::settings::Environment;
use crate::app::{build, clock::SystemClock, log, start};
use crate::cli::{Answer, Failure, check, complain};
use crate::domain::Clock;

/// Run the proxy until SIGTERM or SIGINT; the first drains, a second ends at once.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost serve --config /etc/gatepost/gatepost.yaml")]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "gatepost.yaml")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let built = match build::build(&arguments.config, &Environment::of_process(), SystemClock.now()) {
        Ok(built) => built,
        Err(mistakes) => {
            check::report(&mistakes);
            return Ok(Answer::No);
        }
    };
    log::start(built.settings.log);
    for warning in &built.warnings {
        complain(&format_args!("warning: {warning}"));
    }
    match start::serve(&arguments.config, built, |_| {})? {
        start::Ending::Drained => {}
        start::Ending::Cut(sessions) => tracing::warn!(sessions, "sessions were cut off"),
    }
    Ok(Answer::Good)
}
