//! `thalweg stream list` and `describe`.

use super::{One, Server, name, out, segment_text};
use anyhow::bail;
use clap::Args;
use thalweg_client::controller::{CallError, Controller};
use thalweg_types::name::ScopedStream;
use thalweg_wire::controller::{
    Code, ListStatus, Request, Response, RetentionType, ScaleType, SegmentRange, StreamConfig,
};

/// Which streams.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// The scope.
    #[arg(value_parser = name::scope)]
    scope: String,
    /// Only streams with this tag.
    #[arg(long)]
    tag: Option<String>,
    /// Also streams that clients made for themselves.
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    server: Server,
}

/// Lists names, one a line.
pub(crate) async fn list(options: List) -> anyhow::Result<()> {
    let client = options.server.client()?;
    let mut token = String::new();
    loop {
        let scope = options.scope.clone();
        let request = match options.tag.clone() {
            Some(tag) => Request::ListStreamsForTag { scope, tag, token },
            None => Request::ListStreams { scope, token },
        };
        match client.controller().call(request).await? {
            Response::ListStreams { status: ListStatus::Success, streams, token: next } => {
                if streams.is_empty() {
                    return Ok(());
                }
                for found in streams {
                    if options.internal || !found.stream.starts_with('_') {
                        out::line(format!("{}/{}", found.scope, found.stream))?;
                    }
                }
                token = next;
            }
            Response::ListStreams { status: ListStatus::ScopeNotFound, .. } => {
                bail!("there is no scope {}", options.scope)
            }
            other => bail!("the controller answered {other:?}"),
        }
    }
}

/// Shows one stream.
pub(crate) async fn describe(one: &One) -> anyhow::Result<()> {
    let (controller, stream) = (one.controller()?, &one.stream);
    let config = configuration(&controller, stream).await?;
    out::line(format!("stream     {stream}"))?;
    out::line(format!("scaling    {}", scaling(&config)))?;
    out::line(format!("retention  {}", retention(&config)))?;
    if !config.tags.is_empty() {
        out::line(format!("tags       {}", config.tags.join(", ")))?;
    }
    let request = Request::GetHead { stream: name::on_wire(stream), timestamp: 0 };
    if let Response::Head(head) = controller.call(request).await? {
        let cut: Vec<String> = head
            .into_iter()
            .map(|(segment, offset)| format!("{}:{offset}", segment_text(segment)))
            .collect();
        out::line(format!("head       {}", cut.join(",")))?;
    }
    let current = controller.current_segments(name::on_wire(stream)).await?;
    if current.is_empty() {
        return out::line("sealed     it takes no more events");
    }
    let epoch = current.iter().map(|range| range.segment.epoch()).max().unwrap_or_default();
    out::line(format!("segments   {} since epoch {epoch}", current.len()))?;
    current.iter().map(segment_line).try_for_each(out::line)
}

fn segment_line(range: &SegmentRange) -> String {
    let SegmentRange { segment, low, high, .. } = range;
    format!("  {:<8} keys {low:.4} to {high:.4}", segment_text(*segment))
}

/// The stored configuration, or an error that says that there is no such stream.
pub(super) async fn configuration(
    controller: &Controller,
    stream: &ScopedStream,
) -> anyhow::Result<StreamConfig> {
    match controller.call(Request::GetStreamConfiguration(name::on_wire(stream))).await {
        Ok(Response::StreamConfiguration(config)) => Ok(config),
        Ok(other) => bail!("the controller answered {other:?}"),
        Err(CallError::Refused(error)) if error.code == Code::NotFound => {
            bail!("there is no stream {stream}")
        }
        Err(error) => Err(error.into()),
    }
}

fn scaling(config: &StreamConfig) -> String {
    let Some(policy) = &config.scaling else { return "by hand".to_owned() };
    let by = match policy.kind {
        ScaleType::Fixed => return format!("by hand, made with {}", policy.min_segments),
        ScaleType::KilobytesPerSecond => "KB/s",
        ScaleType::EventsPerSecond => "events/s",
    };
    format!(
        "at {} {by} a segment, {} for one, at least {}",
        policy.target_rate, policy.scale_factor, policy.min_segments
    )
}

fn retention(config: &StreamConfig) -> String {
    match &config.retention {
        None => "keep everything".to_owned(),
        Some(policy) if policy.kind == RetentionType::Time => format!("{} ms", policy.param),
        Some(policy) => format!("{} bytes", policy.param),
    }
}
