//! What the process writes to standard error.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use crate::app::config::settings::{Log, LogFormat, LogLevel};

/// Switches logging on. A second call changes nothing.
pub fn start(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = fmt().with_max_level(level).with_writer(std::io::stderr);
    // An error says that a subscriber is in place already, which a test may have done.
    let _ = match log.format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
