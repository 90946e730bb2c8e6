//! `thalweg stream`.

mod change;
mod show;

use super::{Server, name, out, scope};
use clap::{Args, Subcommand};
use thalweg_client::controller::Controller;
use thalweg_types::id::SegmentId;
use thalweg_types::name::ScopedStream;

/// What to do with streams.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a stream.
    Create(change::Create),
    /// List the streams of a scope.
    List(show::List),
    /// Show a stream's configuration and segments.
    Describe(One),
    /// End a stream: it can be read, but takes no more events.
    Seal(One),
    /// Forget what lies before a cut.
    Truncate(change::Truncate),
    /// Delete a stream that has been sealed.
    Delete(change::Delete),
    /// Replace a stream's segments by others.
    Scale(change::Scale),
}

/// A stream of a server.
#[derive(Args, Debug)]
pub(crate) struct One {
    /// The stream.
    #[arg(value_name = "SCOPE/STREAM", value_parser = name::stream)]
    stream: ScopedStream,
    #[command(flatten)]
    server: Server,
}

impl One {
    fn controller(&self) -> anyhow::Result<Controller> {
        Ok(self.server.client()?.controller().clone())
    }
}

/// Does it.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(options) => change::create(options).await,
        Command::List(options) => show::list(options).await,
        Command::Describe(one) => show::describe(&one).await,
        Command::Seal(one) => change::seal(&one).await,
        Command::Truncate(options) => change::truncate(options).await,
        Command::Delete(options) => change::delete(options).await,
        Command::Scale(options) => change::scale(options).await,
    }
}

/// A segment as people see it: its number, and behind a dot the epoch that made it unless that is 0.
fn segment_text(segment: SegmentId) -> String {
    match segment.epoch() {
        0 => segment.number().to_string(),
        epoch => format!("{}.{epoch}", segment.number()),
    }
}

/// The reverse of [`segment_text`].
fn parse_segment(text: &str) -> Result<SegmentId, String> {
    let (number, epoch) = text.split_once('.').unwrap_or((text, "0"));
    match (epoch.parse(), number.parse()) {
        (Ok(epoch @ 0..), Ok(number @ 0..)) => Ok(SegmentId::new(epoch, number)),
        _ => Err(format!("'{text}' is no segment: NUMBER or NUMBER.EPOCH, as `describe` shows it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_reads_back_as_it_was_shown() {
        for segment in [SegmentId::new(0, 0), SegmentId::new(3, 17)] {
            assert_eq!(parse_segment(&segment_text(segment)), Ok(segment));
        }
        for bad in ["", "x", "1.x", "-1", "1.-1", "1.2.3"] {
            assert!(parse_segment(bad).is_err(), "{bad}");
        }
    }
}
