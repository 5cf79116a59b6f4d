//! What the process writes to standard error; `docs/watching.md` lists the fields.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

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
    // What libraries say in detail holds bytes of messages, and so secrets: only their warnings count.
    let ours = Targets::new()
        .with_target(env!("CARGO_PKG_NAME"), level)
        // It logs a server's messages, which may quote a statement; what matters of them comes with our errors.
        .with_target("tiberius", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::WARN));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let layer = match log.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        // One flat object a line. The module that speaks is left out: `target` is a word of ours.
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).boxed(),
    };
    // An error says that a subscriber is in place already, which a test may have done.
    let _ = registry().with(layer.with_filter(ours)).try_init();
}
