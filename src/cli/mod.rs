//! The command line: one file a command. Exit code 0 is good, 1 means that the answer is no, 2 is
//! a command line that cannot be understood.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod audit;
#[cfg(feature = "dev")]
mod certs;
mod check;
#[cfg(feature = "dev")]
pub mod dev;
mod doctor;
mod explain;
mod keys;
mod live;
mod logins;
mod policy;
mod pools;
mod reach;
mod reload;
mod revoke;
mod roles;
mod rotate;
mod schema;
mod serve;
mod sessions;
mod ticket;

/// Identity-aware, wire-level database access proxy.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Check(check::Arguments),
    Explain(explain::Arguments),
    Roles(roles::Arguments),
    Doctor(doctor::Arguments),
    Audit(audit::Arguments),
    Sessions(sessions::Arguments),
    Pools(pools::Arguments),
    Logins(logins::Arguments),
    Policy(policy::Arguments),
    Reload(reload::Arguments),
    Rotate(rotate::Arguments),
    Keys(keys::Arguments),
    Revoke(Box<revoke::Arguments>),
    Ticket(ticket::Arguments),
    Schema(schema::Arguments),
    #[cfg(feature = "dev")]
    Certs(certs::Arguments),
    #[cfg(feature = "dev")]
    Dev(dev::Arguments),
}

/// What a command ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Good,
    No,
}

/// A command that could not give its answer; it exits with 1 after this text.
type Failure = Box<dyn std::error::Error>;

/// Runs the command line and returns the process's exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = match CommandLine::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // Nothing is left to be done if even this cannot be written.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let answer = match parsed.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Roles(arguments) => roles::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Sessions(arguments) => sessions::run(&arguments),
        Command::Pools(arguments) => pools::run(&arguments),
        Command::Logins(arguments) => logins::run(&arguments),
        Command::Policy(arguments) => policy::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Rotate(arguments) => rotate::run(&arguments),
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Revoke(arguments) => revoke::run(&arguments),
        Command::Ticket(arguments) => ticket::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        #[cfg(feature = "dev")]
        Command::Certs(arguments) => certs::run(&arguments),
        #[cfg(feature = "dev")]
        Command::Dev(arguments) => dev::run(&arguments),
    };
    match answer {
        Ok(Answer::Good) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(failure) => {
            complain(&format_args!("gatepost: {}", with_causes(failure.as_ref())));
            ExitCode::from(1)
        }
    }
}

/// A line on standard output. A reader that went away (`| head`) is no failure.
fn say(line: &dyn Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A line on standard error; if that is closed, nobody is left to tell.
fn complain(line: &dyn Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The error and what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
