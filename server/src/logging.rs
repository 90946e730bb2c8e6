//! What the process says about itself, on stderr: text for people or JSON for machines.

use clap::{Args, ValueEnum};
use tracing::level_filters::LevelFilter;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line to read.
    Text,
    /// An object per line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Only what ends the process, or loses something.
    Error,
    /// And what somebody should look at.
    Warn,
    /// And what happens rarely.
    Info,
    /// And what happens often.
    Debug,
    /// Everything.
    Trace,
}

/// Options that every command has.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Form of the log lines on stderr.
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    pub(crate) log: Format,
    /// How much is logged.
    #[arg(long, value_enum, default_value_t = Level::Info, global = true)]
    pub(crate) log_level: Level,
}

/// Starts logging for the whole process. To be called once.
pub(crate) fn start(options: &Options) {
    let level = match options.log_level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match options.log {
        Format::Text => builder.compact().init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
}
