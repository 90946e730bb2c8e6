//! `thalweg write`: lines of a file or of stdin become events.
//!
//! An event is a line **with** its terminator: so no event is empty (some clients stall on an empty one), and a file
//! comes back byte for byte. All lines have one routing key, hence one order, unless a field of each line gives the
//! key.

mod pieces;

use super::{Server, name};
use crate::exit;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pieces::Pieces;
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thalweg_client::Client;
use thalweg_client::writer::EventWriter;
use thalweg_types::name::ScopedStream;

/// Events between two looks at the progress bar.
const PROGRESS_EVENTS: u64 = 4096;
/// How often the server is asked whether it takes events…
const HELD_LOOK: Duration = Duration::from_secs(1);
/// …and how often in a row it must have said no.
const HELD_LOOKS: u32 = 3;

/// What to write, and how.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where to
    #[arg(long, short, value_name = "SCOPE/STREAM", value_parser = name::stream)]
    stream: ScopedStream,
    /// What to write; stdin without it
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// Make scope and stream if they do not exist
    #[arg(long)]
    create: bool,
    /// Segments of a stream that is made
    #[arg(long, default_value_t = 1, requires = "create")]
    segments: u32,
    /// One routing key for all events: they keep their order
    #[arg(long, default_value = "", conflicts_with = "routing_key_field")]
    routing_key: String,
    /// The routing key of each line: the field with this number (from 1), or the one that begins with `NAME=`
    #[arg(long, value_name = "NUMBER|NAME=", value_parser = field)]
    routing_key_field: Option<Field>,
    /// What separates fields
    #[arg(long, default_value = ",", value_name = "TEXT")]
    delimiter: String,
    /// Leave line terminators out of events; empty lines are then left out too
    #[arg(long, conflicts_with = "raw")]
    strip_newline: bool,
    /// Cut the input into pieces instead of lines
    #[arg(long)]
    raw: bool,
    /// Bytes of a piece
    #[arg(long, default_value_t = 65_536, requires = "raw",
          value_parser = clap::value_parser!(u32).range(1..=8_388_608))]
    chunk_bytes: u32,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Number(usize),
    Name(String),
}

fn field(text: &str) -> Result<Field, String> {
    if text.len() > 1 && text.ends_with('=') {
        return Ok(Field::Name(text.to_owned()));
    }
    match text.parse() {
        Ok(0) | Err(_) => Err("want a number from 1 on, or NAME=".to_owned()),
        Ok(number) => Ok(Field::Number(number)),
    }
}

/// A file to read from.
#[expect(clippy::disallowed_types, reason = "commands read the files of the person who runs them")]
fn open(path: &Path) -> io::Result<std::fs::File> {
    std::fs::File::open(path)
}

/// The routing key that `line` carries in `field`.
fn key_of<'a>(line: &'a str, field: &Field, delimiter: &str) -> Option<&'a str> {
    let mut fields = line.trim_end_matches(['\n', '\r']).split(delimiter);
    match field {
        Field::Number(number) => fields.nth(number - 1).map(str::trim),
        Field::Name(name) => fields.find_map(|field| field.trim().strip_prefix(name.as_str())),
    }
}

/// What was written.
#[derive(Default)]
struct Written {
    events: u64,
    bytes: u64,
    left_out: u64,
}

/// Runs the command; returns when everything is durable.
#[expect(clippy::disallowed_methods, reason = "the rate that is told is the real one")]
pub(crate) async fn run(args: Options) -> anyhow::Result<()> {
    let client = args.server.client()?;
    if args.create {
        create(&client, &args.stream, args.segments).await?;
    }
    let (input, length): (Box<dyn Read>, _) = match &args.file {
        Some(path) => {
            let file = open(path).with_context(|| format!("cannot open {}", path.display()))?;
            let length = file.metadata().map(|metadata| metadata.len()).ok();
            (Box::new(file), length)
        }
        None => (Box::new(io::stdin().lock()), None),
    };
    let bar = progress_bar(length);
    let started = Instant::now();
    let writer = client.event_writer(&args.stream);
    let write = async {
        let outcome = write_all(&args, &writer, Pieces::new(input), &bar).await;
        // Because: even after bad input, what came before it is written.
        writer.flush().await.context("not everything is written")?;
        outcome
    };
    let written = tokio::select! {
        biased;
        outcome = write => outcome,
        reason = held(&client) => Err(exit::With {
            code: exit::HELD,
            text: format!("the server takes no events for now: {reason}. Not everything is written"),
        }
        .into()),
    };
    bar.finish_and_clear();
    let written = written?;
    report(&args.stream, &written, started.elapsed());
    Ok(())
}

/// Waits until the server has let appends wait for a while, and says why it does.
async fn held(client: &Client) -> String {
    let mut seen = 0;
    loop {
        tokio::time::sleep(HELD_LOOK).await;
        match client.controller().appends_held().await {
            Ok(Some(reason)) if seen + 1 == HELD_LOOKS => return reason,
            Ok(Some(_)) => seen += 1,
            Ok(None) => seen = 0,
            // A server that is not there says nothing about its disk; the writer deals with that.
            Err(_) => {}
        }
    }
}

async fn write_all(
    args: &Options,
    writer: &EventWriter,
    mut input: Pieces<Box<dyn Read>>,
    bar: &ProgressBar,
) -> anyhow::Result<Written> {
    let mut written = Written::default();
    loop {
        let number = written.events + written.left_out + 1;
        let piece = if args.raw { input.chunk(args.chunk_bytes as usize) } else { input.line() };
        let Some(mut event) = piece.context("cannot read the input")? else { return Ok(written) };
        written.bytes += event.len() as u64;
        let key = match &args.routing_key_field {
            None => args.routing_key.clone(),
            Some(field) => line_key(&event, field, &args.delimiter)
                .with_context(|| format!("line {number}"))?,
        };
        if args.strip_newline {
            event = stripped(event);
            if event.is_empty() {
                written.left_out += 1;
                continue;
            }
        }
        writer.send(&key, event).await.with_context(|| format!("line {number}"))?;
        written.events += 1;
        if written.events % PROGRESS_EVENTS == 0 {
            bar.set_position(written.bytes);
            bar.set_message(format!("{} events", written.events));
        }
    }
}

fn line_key(line: &[u8], field: &Field, delimiter: &str) -> anyhow::Result<String> {
    let line = std::str::from_utf8(line).context("not UTF-8, so it has no fields")?;
    let Some(key) = key_of(line, field, delimiter) else {
        bail!("no field {field:?} between {delimiter:?}");
    };
    Ok(key.to_owned())
}

fn stripped(mut line: Bytes) -> Bytes {
    for terminator in [b'\n', b'\r'] {
        if line.last() == Some(&terminator) {
            line.truncate(line.len() - 1);
        }
    }
    line
}

pub(crate) async fn create(
    client: &Client,
    stream: &ScopedStream,
    segments: u32,
) -> anyhow::Result<()> {
    client.create_scope(&stream.scope).await?;
    client.create_stream(stream, segments).await?;
    Ok(())
}

fn progress_bar(length: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = if length.is_some() {
        "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}"
    } else {
        "{spinner} {bytes} {bytes_per_sec} {msg}"
    };
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
    bar
}

#[expect(clippy::cast_precision_loss, reason = "rates are for people")]
fn report(stream: &ScopedStream, written: &Written, took: Duration) {
    let Written { events, bytes, left_out } = written;
    let seconds = took.as_secs_f64().max(1e-9);
    if *left_out > 0 {
        eprintln!("{left_out} empty lines left out");
    }
    eprintln!(
        "{events} events, {bytes} bytes durable in {stream} after {seconds:.3} s: {:.0} events/s, {:.1} MB/s",
        *events as f64 / seconds,
        *bytes as f64 / seconds / 1e6,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_number_or_by_name() {
        let line = "7, user=ann,x\r\n";
        assert_eq!(key_of(line, &field("1").unwrap(), ","), Some("7"));
        assert_eq!(key_of(line, &field("3").unwrap(), ","), Some("x"));
        assert_eq!(key_of(line, &field("4").unwrap(), ","), None);
        assert_eq!(key_of(line, &field("user=").unwrap(), ","), Some("ann"));
        for bad in ["0", "", "=", "x", "-1"] {
            assert!(field(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_terminator_is_stripped() {
        for (line, event) in
            [("a\n", "a"), ("a\r\n", "a"), ("\n", ""), ("a", "a"), ("a\n\n", "a\n")]
        {
            assert_eq!(stripped(Bytes::from_static(line.as_bytes())), event);
        }
    }
}
