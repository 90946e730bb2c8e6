//! `thalweg stream create`, `seal`, `truncate`, `delete` and `scale`.

use super::{One, name, out, parse_segment, scope, segment_text, show};
use anyhow::{Context as _, bail};
use clap::Args;
use std::collections::BTreeMap;
use std::time::Duration;
use thalweg_client::controller::Controller;
use thalweg_client::group::Start;
use thalweg_types::id::SegmentId;
use thalweg_types::name::ScopedStream;
use thalweg_types::stream::KeyRange;
use thalweg_wire::controller::{
    CreateStreamStatus, CutOfStream, DeleteStreamStatus, Request, Response, RetentionPolicy,
    RetentionType, ScaleState, ScaleStatus, ScaleType, ScalingPolicy, SegmentRange, StreamConfig,
    UpdateStreamStatus,
};

/// How often a scale is asked whether it is done.
const SCALE_POLL: Duration = Duration::from_millis(20);

/// What to create.
#[expect(clippy::struct_field_names, reason = "a field is named as its flag is")]
#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    one: One,
    /// How many segments: so many writers and readers can work side by side.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    segments: i32,
    /// Scale by itself at so many events per second and segment.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    events_per_second: Option<i32>,
    /// Scale by itself at so many kilobytes per second and segment.
    #[arg(long, value_name = "N", conflicts_with = "events_per_second",
        value_parser = clap::value_parser!(i32).range(1..))]
    kilobytes_per_second: Option<i32>,
    /// Into how many segments one is split.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i32).range(2..))]
    scale_factor: i32,
    /// Keep events at least so many seconds, then forget them.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(i64).range(1..))]
    retain_seconds: Option<i64>,
    /// Keep at least so many bytes, then forget the oldest.
    #[arg(long, value_name = "B", conflicts_with = "retain_seconds",
        value_parser = clap::value_parser!(i64).range(1..))]
    retain_bytes: Option<i64>,
    /// A tag to find it by; may be given more than once.
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// Create the scope too if it is not there.
    #[arg(long)]
    create_scope: bool,
}

impl Create {
    fn config(&self) -> StreamConfig {
        let mut config = StreamConfig::fixed(name::on_wire(&self.one.stream), self.segments);
        let rate = match (self.events_per_second, self.kilobytes_per_second) {
            (Some(rate), _) => Some((ScaleType::EventsPerSecond, rate)),
            (_, Some(rate)) => Some((ScaleType::KilobytesPerSecond, rate)),
            _ => None,
        };
        if let Some((kind, target_rate)) = rate {
            let scale_factor = self.scale_factor;
            let min_segments = self.segments;
            config.scaling = Some(ScalingPolicy { kind, target_rate, scale_factor, min_segments });
        }
        let retained = match (self.retain_seconds, self.retain_bytes) {
            (Some(seconds), _) => Some((RetentionType::Time, seconds.saturating_mul(1000))),
            (_, Some(bytes)) => Some((RetentionType::Size, bytes)),
            _ => None,
        };
        config.retention =
            retained.map(|(kind, param)| RetentionPolicy { kind, param, max: i64::MAX });
        config.tags.clone_from(&self.tags);
        config
    }
}

/// Creates a stream.
pub(crate) async fn create(options: Create) -> anyhow::Result<()> {
    let client = options.one.server.client()?;
    let stream = &options.one.stream;
    if options.create_scope {
        client.create_scope(&stream.scope).await?;
    }
    match client.controller().call(Request::CreateStream(options.config())).await? {
        Response::CreateStream(CreateStreamStatus::Success) => {
            out::line(format!("stream {stream} {}", scope::created(true)))
        }
        Response::CreateStream(CreateStreamStatus::StreamExists) => {
            out::line(format!("stream {stream} {}; it was not changed", scope::created(false)))
        }
        Response::CreateStream(CreateStreamStatus::ScopeNotFound) => bail!(
            "there is no scope {0}: run `thalweg scope create {0}`, or use --create-scope",
            stream.scope
        ),
        other => bail!("stream {stream} was not created: the controller answered {other:?}"),
    }
}

/// Seals a stream.
pub(crate) async fn seal(one: &One) -> anyhow::Result<()> {
    seal_by(&one.controller()?, &one.stream).await
}

async fn seal_by(controller: &Controller, stream: &ScopedStream) -> anyhow::Result<()> {
    let answer = controller.call(Request::SealStream(name::on_wire(stream))).await?;
    updated(stream, &answer, "sealed")
}

fn updated(stream: &ScopedStream, answer: &Response, done: &str) -> anyhow::Result<()> {
    match answer {
        Response::UpdateStream(UpdateStreamStatus::Success) => {
            out::line(format!("stream {stream} {done}"))
        }
        Response::UpdateStream(UpdateStreamStatus::StreamNotFound) => {
            bail!("there is no stream {stream}")
        }
        Response::UpdateStream(UpdateStreamStatus::StreamSealed) => {
            bail!("stream {stream} has been sealed")
        }
        other => bail!("stream {stream} was not {done}: the controller answered {other:?}"),
    }
}

/// Where to truncate.
#[derive(Args, Debug)]
#[group(id = "where", required = true, multiple = false, args = ["cut", "tail"])]
pub(crate) struct Truncate {
    #[command(flatten)]
    one: One,
    /// The cut: SEGMENT:OFFSET for each segment, with commas in between.
    #[arg(long, value_name = "CUT", value_delimiter = ',', value_parser = parse_position)]
    cut: Vec<(SegmentId, i64)>,
    /// Everything that is there now.
    #[arg(long)]
    tail: bool,
}

fn parse_position(text: &str) -> Result<(SegmentId, i64), String> {
    let Some((segment, offset)) = text.split_once(':') else {
        return Err(format!("'{text}' is no position: SEGMENT:OFFSET"));
    };
    match offset.parse() {
        Ok(offset @ 0..) => Ok((parse_segment(segment)?, offset)),
        _ => Err(format!("'{offset}' is no offset: a number of bytes")),
    }
}

/// Truncates a stream.
pub(crate) async fn truncate(options: Truncate) -> anyhow::Result<()> {
    let client = options.one.server.client()?;
    let cut: BTreeMap<_, _> = if options.tail {
        client.reader_group(&options.one.stream, Start::Tail).await?.cut().0
    } else {
        options.cut.into_iter().collect()
    };
    let (controller, stream) = (client.controller(), name::on_wire(&options.one.stream));
    let answer = controller.call(Request::TruncateStream(CutOfStream { stream, cut })).await?;
    updated(&options.one.stream, &answer, "truncated")
}

/// What to delete.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    #[command(flatten)]
    one: One,
    /// Seal it first if it is not sealed.
    #[arg(long)]
    seal: bool,
}

/// Deletes a stream.
pub(crate) async fn delete(options: Delete) -> anyhow::Result<()> {
    let (controller, stream) = (options.one.controller()?, &options.one.stream);
    if options.seal {
        let answer = controller.call(Request::SealStream(name::on_wire(stream))).await?;
        if !matches!(answer, Response::UpdateStream(UpdateStreamStatus::StreamSealed)) {
            updated(stream, &answer, "sealed")?;
        }
    }
    match controller.call(Request::DeleteStream(name::on_wire(stream))).await? {
        Response::DeleteStream(DeleteStreamStatus::Success) => {
            out::line(format!("stream {stream} deleted"))
        }
        Response::DeleteStream(DeleteStreamStatus::StreamNotFound) => {
            bail!("there is no stream {stream}")
        }
        Response::DeleteStream(DeleteStreamStatus::StreamNotSealed) => {
            bail!("stream {stream} takes events: seal it first, or use --seal")
        }
        other => bail!("stream {stream} was not deleted: the controller answered {other:?}"),
    }
}

/// How to scale.
#[derive(Args, Debug)]
pub(crate) struct Scale {
    #[command(flatten)]
    one: One,
    /// Share the keys evenly among so many new segments.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    segments: u32,
    /// Replace only these segments, which must lie side by side; all of them if left out.
    #[arg(long, value_name = "SEGMENT", value_delimiter = ',', value_parser = parse_segment)]
    replace: Vec<SegmentId>,
}

/// Scales a stream and waits until it is done.
pub(crate) async fn scale(options: Scale) -> anyhow::Result<()> {
    let (controller, stream) = (options.one.controller()?, &options.one.stream);
    show::configuration(&controller, stream).await?;
    let current = controller.current_segments(name::on_wire(stream)).await?;
    if current.is_empty() {
        bail!("stream {stream} has been sealed");
    }
    let old = chosen(&current, &options.replace)?;
    let ranges = split(&old, options.segments);
    let sealed = old.iter().map(|range| range.segment).collect();
    let request = Request::Scale { stream: name::on_wire(stream), sealed, ranges };
    match controller.call(request).await? {
        Response::Scale(answer) if answer.status == ScaleStatus::Started => {
            wait_for_scale(&controller, stream, answer.epoch).await?;
            let made: Vec<_> =
                answer.segments.iter().map(|range| segment_text(range.segment)).collect();
            out::line(format!("stream {stream} scaled: new segments {}", made.join(", ")))
        }
        Response::Scale(answer) if answer.status == ScaleStatus::PreconditionFailed => {
            bail!(
                "stream {stream} was not scaled: it has other segments by now, or too few would be left"
            )
        }
        other => bail!("stream {stream} was not scaled: the controller answered {other:?}"),
    }
}

/// The segments to replace, by key.
fn chosen(current: &[SegmentRange], wanted: &[SegmentId]) -> anyhow::Result<Vec<SegmentRange>> {
    let mut found: Vec<SegmentRange> = if wanted.is_empty() {
        current.to_vec()
    } else {
        let by_id = |id: &SegmentId| {
            let found = current.iter().find(|range| range.segment == *id).cloned();
            found.with_context(|| format!("segment {} takes no events now", segment_text(*id)))
        };
        wanted.iter().map(by_id).collect::<anyhow::Result<_>>()?
    };
    found.sort_by(|a, b| a.low.total_cmp(&b.low));
    if found.windows(2).any(|pair| pair[0].high.to_bits() != pair[1].low.to_bits()) {
        bail!("the segments to replace do not lie side by side");
    }
    Ok(found)
}

/// `count` even parts of what `old` covers: its outer bounds are copied, so that they stay equal bit by bit.
fn split(old: &[SegmentRange], count: u32) -> Vec<(f64, f64)> {
    let (low, high) = (old[0].low, old[old.len() - 1].high);
    let inner = |part: f64| low + (high - low) * part;
    KeyRange::split_evenly(count)
        .iter()
        .enumerate()
        .map(|(at, part)| {
            let from = if at == 0 { low } else { inner(part.low) };
            let to = if at + 1 == count as usize { high } else { inner(part.high) };
            (from, to)
        })
        .collect()
}

async fn wait_for_scale(
    controller: &Controller,
    stream: &ScopedStream,
    epoch: i32,
) -> anyhow::Result<()> {
    loop {
        let request = Request::CheckScale { stream: name::on_wire(stream), epoch };
        match controller.call(request).await? {
            Response::CheckScale(ScaleState::Success) => return Ok(()),
            Response::CheckScale(ScaleState::InProgress) => tokio::time::sleep(SCALE_POLL).await,
            other => bail!("the scale of {stream} is lost: the controller answered {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(number: i32, low: f64, high: f64) -> SegmentRange {
        let stream = name::on_wire(&ScopedStream::new("s", "t"));
        SegmentRange { stream, segment: SegmentId::new(0, number), low, high }
    }

    #[test]
    fn a_split_covers_exactly_what_was_there() {
        let old = [range(0, 0.1, 0.3), range(1, 0.3, 0.7)];
        let parts = split(&old, 3);
        assert_eq!(parts.len(), 3);
        assert_eq!(
            (parts[0].0.to_bits(), parts[2].1.to_bits()),
            (0.1_f64.to_bits(), 0.7_f64.to_bits())
        );
        assert!(parts.windows(2).all(|pair| pair[0].1.to_bits() == pair[1].0.to_bits()));
    }

    #[test]
    fn segments_apart_are_not_scaled_together() {
        let current = [range(0, 0.0, 0.3), range(1, 0.3, 0.6), range(2, 0.6, 1.0)];
        assert_eq!(chosen(&current, &[SegmentId(1), SegmentId(0)]).unwrap(), current[..2]);
        assert!(chosen(&current, &[SegmentId(0), SegmentId(2)]).is_err());
        assert!(chosen(&current, &[SegmentId(9)]).is_err());
        assert_eq!(chosen(&current, &[]).unwrap().len(), 3);
    }
}
