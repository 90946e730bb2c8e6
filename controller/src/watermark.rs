//! Which watermark follows from what writers have noted: a pure function.
//!
//! A watermark says that no writer that counts will note a time before its lower bound any more. It is as good as the
//! writers' own promises, and no writer's silence moves it beyond what that one has said, until the stream's timeout
//! for silent writers is over.
//!
//! Invariants
//! 1. The lower bound of each watermark is above that of the one before, and above the time of no writer that counts.
//! 2. Its cut covers the key space once, and lies nowhere before that of the one before.
//!
//! Source: the watermarks that Pravega 0.13.0 writes.

use crate::record::{Cut, MarkRecord, StreamRecord};
use std::collections::BTreeMap;
use thalweg_types::id::SegmentId;
use thalweg_wire::watermark::{CutPoint, Watermark};

/// What a round comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Round {
    /// The next watermark, if it is time for one.
    pub(crate) next: Option<Watermark>,
    /// Writers that have not come beyond the last lower bound: each holds the next watermark until it is given up.
    pub(crate) silent: Vec<String>,
}

/// The round behind watermark `last`, for the writers with `marks` of which `given_up` says who counts no more.
pub(crate) fn round(
    stream: &StreamRecord,
    marks: &BTreeMap<String, MarkRecord>,
    last: Option<&Watermark>,
    given_up: impl Fn(&str) -> bool,
) -> Round {
    let is_ahead = |mark: &MarkRecord| last.is_none_or(|last| mark.time > last.lower);
    let counts = |(_, mark): &(&String, &MarkRecord)| is_ahead(mark);
    let ahead: Vec<&MarkRecord> = marks.iter().filter(counts).map(|(_, mark)| mark).collect();
    let behind = marks.iter().filter(|(_, mark)| !is_ahead(mark) && !mark.left);
    let silent: Vec<String> = behind.map(|(writer, _)| writer.clone()).collect();
    let is_held = silent.iter().any(|writer| !given_up(writer));
    let lower = ahead.iter().map(|mark| mark.time).min();
    let upper = ahead.iter().map(|mark| mark.time).max();
    let next = lower.zip(upper).filter(|_| !is_held).map(|(lower, upper)| {
        let positions = ahead.iter().map(|mark| &mark.position);
        Watermark { lower, upper, cut: cut(stream, positions, last) }
    });
    Round { next, silent }
}

/// The cut behind all `positions` and behind the one before: in the newest epoch that any of them names, so that it is
/// whole though the positions need not be.
fn cut<'a>(
    stream: &StreamRecord,
    positions: impl Iterator<Item = &'a Cut>,
    last: Option<&Watermark>,
) -> Vec<CutPoint> {
    let mut furthest: BTreeMap<SegmentId, i64> = BTreeMap::new();
    let noted = positions.flatten().map(|(id, offset)| (*id, *offset));
    let before = last.into_iter().flat_map(|last| &last.cut).map(|p| (p.segment, p.offset));
    for (id, offset) in noted.chain(before) {
        if stream.segment(id).is_some() {
            let known = furthest.entry(id).or_insert(0);
            *known = offset.max(*known);
        }
    }
    let newest = furthest.keys().map(|id| id.epoch()).max().unwrap_or(0);
    let Some(epoch) = stream.epoch(newest) else { return Vec::new() };
    let point = |segment: &crate::record::SegmentRecord| CutPoint {
        segment: segment.id,
        low: segment.low,
        high: segment.high,
        offset: furthest.get(&segment.id).copied().unwrap_or(0),
    };
    let mut cut: Vec<CutPoint> = epoch.segments.iter().map(point).collect();
    cut.sort_by_key(|point| point.segment);
    cut
}

#[cfg(test)]
mod tests;
