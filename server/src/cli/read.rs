//! `thalweg read`: events go to stdout.
//!
//! Each event ends with a newline there, its own or an added one; `--raw` adds none, so that what `thalweg write` took
//! comes back byte for byte.

use super::{Server, name};
use anyhow::Context as _;
use clap::Args;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use thalweg_client::group::Start;
use thalweg_client::reader::{Event, ReadError, ReaderGroup};
use thalweg_types::id::SegmentId;
use thalweg_types::name::ScopedStream;
use thalweg_types::stream::StreamCut;

/// What to read, and how to show it.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where from
    #[arg(long, short, value_name = "SCOPE/STREAM", value_parser = name::stream)]
    stream: ScopedStream,
    /// Where to begin; a cut is what an earlier read printed last
    #[arg(long, default_value = "head", value_name = "head|tail|CUT", value_parser = start)]
    from: Start,
    /// Wait for events to come, instead of ending at what was the tail
    #[arg(long, short)]
    follow: bool,
    /// End after that many events
    #[arg(long, short = 'n')]
    count: Option<u64>,
    /// One JSON object a line: segment, offset, event (as hex if it is not UTF-8)
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Events as they are, nothing between them
    #[arg(long)]
    raw: bool,
    /// Print the cut behind the last event on stderr
    #[arg(long)]
    print_cut: bool,
    #[command(flatten)]
    server: Server,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "head" => Ok(Start::Head),
        "tail" => Ok(Start::Tail),
        cut => parse_cut(cut).map(Start::Cut),
    }
}

/// A cut as people write it: `number.epoch:offset`, commas between.
fn parse_cut(text: &str) -> Result<StreamCut, String> {
    let part = |part: &str| -> Option<(SegmentId, i64)> {
        let (segment, offset) = part.split_once(':')?;
        let (number, epoch) = segment.split_once('.')?;
        let id = SegmentId::new(epoch.parse().ok()?, number.parse().ok()?);
        Some((id, offset.parse().ok().filter(|offset| *offset >= -1)?))
    };
    let cut: Option<_> = text.split(',').map(part).collect();
    cut.map(StreamCut).ok_or_else(|| "want head, tail, or NUMBER.EPOCH:OFFSET,…".to_owned())
}

fn show_cut(cut: &StreamCut) -> String {
    let parts = cut.0.iter();
    let parts: Vec<_> =
        parts.map(|(id, offset)| format!("{}.{}:{offset}", id.number(), id.epoch())).collect();
    parts.join(",")
}

/// Runs the command.
pub(crate) async fn run(args: Options) -> anyhow::Result<()> {
    let client = args.server.client()?;
    let group = if args.follow {
        client.reader_group(&args.stream, args.from.clone()).await
    } else {
        client.bounded_reader_group(&args.stream, args.from.clone()).await
    };
    let group = group.with_context(|| format!("cannot read {}", args.stream))?;
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let outcome = copy(&args, &group, &mut out).await;
    out.flush().context("stdout")?;
    if args.print_cut {
        eprintln!("{}", show_cut(&group.cut()));
    }
    match outcome {
        // Because: whoever reads our output may have had enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Failure::Output(error)) => Err(error).context("stdout"),
        Err(Failure::Read(error)) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

enum Failure {
    Output(io::Error),
    Read(ReadError),
}

async fn copy(
    args: &Options,
    group: &ReaderGroup,
    out: &mut BufWriter<impl Write>,
) -> Result<(), Failure> {
    let (mut reader, mut left) = (group.reader(), args.count.unwrap_or(u64::MAX));
    while left > 0 {
        // Because: what has arrived is shown before there is a wait for more.
        let next = if let Some(event) = reader.try_next() {
            Ok(Some(event))
        } else {
            out.flush().map_err(Failure::Output)?;
            reader.next().await
        };
        match next {
            Ok(Some(event)) => put(args, &event, out).map_err(Failure::Output)?,
            Ok(None) => break,
            Err(ReadError::Truncated { segment, from, start }) => {
                eprintln!("segment {segment}: bytes {from} to {start} are truncated away");
                continue;
            }
            Err(error) => return Err(Failure::Read(error)),
        }
        left -= 1;
    }
    Ok(())
}

fn put(args: &Options, event: &Event, out: &mut impl Write) -> io::Result<()> {
    if args.json {
        return out.write_all(json(event).as_bytes());
    }
    out.write_all(&event.data)?;
    if !args.raw && event.data.last() != Some(&b'\n') {
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn json(event: &Event) -> String {
    let segment = format!("{}.{}", event.segment.number(), event.segment.epoch());
    let mut value = serde_json::json!({ "segment": segment, "offset": event.offset });
    if let Ok(text) = std::str::from_utf8(&event.data) {
        value["event"] = text.into();
    } else {
        let mut hex = String::with_capacity(2 * event.data.len());
        for byte in &event.data {
            // Because: writing to a string cannot fail.
            let _infallible = write!(hex, "{byte:02x}");
        }
        value["event_hex"] = hex.into();
    }
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_read_as_it_is_shown() {
        let cut = parse_cut("0.0:12,1.3:-1").unwrap();
        assert_eq!(show_cut(&cut), "0.0:12,1.3:-1");
        for bad in ["", "0:1", "0.0:", "0.0:-2", "x"] {
            assert!(parse_cut(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_hex() {
        let event = |data: &'static [u8]| Event {
            segment: SegmentId::new(2, 1),
            offset: 5,
            data: data.into(),
        };
        assert_eq!(json(&event(b"a\n")), "{\"event\":\"a\\n\",\"offset\":5,\"segment\":\"1.2\"}\n");
        assert_eq!(
            json(&event(b"\xff\0")),
            "{\"event_hex\":\"ff00\",\"offset\":5,\"segment\":\"1.2\"}\n"
        );
    }
}
