//! Between the messages of clients and the records of the state.

use super::invalid;
use crate::limits::{SEGMENTS_MAX, TAG_CHARS_MAX, TAGS_MAX};
use crate::record::{
    ConfigRecord, Name, RetentionRecord, ScalingKind, ScalingRecord, SegmentRecord,
};
use thalweg_wire::controller::{
    RetentionPolicy, RetentionType, RpcError, ScaleType, ScalingPolicy, SegmentRange, StreamConfig,
    StreamName,
};

/// The record of `config`; `Ok(None)` if it asks for no segments at all.
pub(super) fn config_record(config: StreamConfig) -> Result<Option<ConfigRecord>, RpcError> {
    if config.rollover_size_bytes < 0 {
        return Err(invalid(format!("rollover size {} is negative", config.rollover_size_bytes)));
    }
    if config.tags.len() > TAGS_MAX {
        return Err(invalid(format!("{} tags, the limit is {TAGS_MAX}", config.tags.len())));
    }
    let chars = config.tags.iter().map(|tag| tag.chars().count()).max().unwrap_or_default();
    if chars > TAG_CHARS_MAX {
        return Err(invalid(format!("a tag of {chars} characters, the limit is {TAG_CHARS_MAX}")));
    }
    let Some(policy) = config.scaling else { return Ok(None) };
    let min_segments = u32::try_from(policy.min_segments).unwrap_or_default();
    if min_segments > SEGMENTS_MAX {
        return Err(invalid(format!("{min_segments} segments, the limit is {SEGMENTS_MAX}")));
    }
    let kind = match policy.kind {
        ScaleType::Fixed => ScalingKind::Fixed,
        ScaleType::KilobytesPerSecond => ScalingKind::KilobytesPerSecond,
        ScaleType::EventsPerSecond => ScalingKind::EventsPerSecond,
    };
    let ScalingPolicy { target_rate, scale_factor, .. } = policy;
    let retention = config.retention.map(|policy| RetentionRecord {
        by_size: policy.kind == RetentionType::Size,
        param: policy.param,
        max: policy.max,
    });
    let record = ConfigRecord {
        scaling: ScalingRecord { kind, target_rate, scale_factor, min_segments },
        retention,
        tags: config.tags.into_iter().collect(),
        timestamp_aggregation_timeout_ms: config.timestamp_aggregation_timeout_ms,
        rollover_size_bytes: config.rollover_size_bytes,
    };
    Ok((min_segments > 0).then_some(record))
}

/// What a client is told of `config`.
pub(super) fn config_message(name: &Name, config: &ConfigRecord) -> StreamConfig {
    let ScalingRecord { kind, target_rate, scale_factor, min_segments } = config.scaling.clone();
    let kind = match kind {
        ScalingKind::Fixed => ScaleType::Fixed,
        ScalingKind::KilobytesPerSecond => ScaleType::KilobytesPerSecond,
        ScalingKind::EventsPerSecond => ScaleType::EventsPerSecond,
    };
    let min_segments = i32::try_from(min_segments).expect("limited when it was stored");
    let retention = config.retention.as_ref().map(|policy| RetentionPolicy {
        kind: if policy.by_size { RetentionType::Size } else { RetentionType::Time },
        param: policy.param,
        max: policy.max,
    });
    StreamConfig {
        stream: stream_message(name),
        scaling: Some(ScalingPolicy { kind, target_rate, scale_factor, min_segments }),
        retention,
        tags: config.tags.iter().cloned().collect(),
        timestamp_aggregation_timeout_ms: config.timestamp_aggregation_timeout_ms,
        rollover_size_bytes: config.rollover_size_bytes,
    }
}

/// A stream's name.
pub(super) fn stream_message(name: &Name) -> StreamName {
    StreamName::new(&name.scope, &name.stream)
}

/// Segments of `name` with their key ranges.
pub(super) fn range_messages(name: &Name, segments: &[SegmentRecord]) -> Vec<SegmentRange> {
    segments.iter().map(|segment| range_message(name, segment)).collect()
}

/// A segment of `name` with its key range.
pub(super) fn range_message(name: &Name, segment: &SegmentRecord) -> SegmentRange {
    let SegmentRecord { id, low, high } = *segment;
    SegmentRange { stream: stream_message(name), segment: id, low, high }
}
