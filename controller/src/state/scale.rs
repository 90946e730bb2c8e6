//! Scaling: which segments end, which begin, and that the new ones cover exactly the keys of the old ones.

use super::change::number_segments;
use super::{Outcome, Refusal, Started, State, sorted};
use crate::limits::{EPOCHS_MAX, SEGMENTS_MAX};
use crate::record::{
    EpochRecord, Name, SegmentRecord, Stamp, StreamRecord, StreamStatus, Workflow, WorkflowRecord,
};
use std::collections::BTreeSet;
use thalweg_actor::planted;
use thalweg_types::id::SegmentId;
use thalweg_types::stream::KeyRange;

impl State {
    pub(super) fn scale(
        &mut self,
        name: &Name,
        sealed: &[SegmentId],
        ranges: &[(f64, f64)],
    ) -> Result<Outcome, Refusal> {
        let stream = self.idle_stream(name)?;
        if stream.status == StreamStatus::Sealed {
            return Err(Refusal::StreamSealed);
        }
        let distinct: BTreeSet<SegmentId> = sealed.iter().copied().collect();
        if distinct.is_empty() || distinct.len() != sealed.len() {
            return Err(Refusal::Tiling);
        }
        let current = stream.current();
        let is_current = |id: &SegmentId| current.iter().any(|s| s.id == *id);
        if let Some(id) = sealed.iter().find(|id| !is_current(id)) {
            return Err(Refusal::NotCurrent { segment: id.0 });
        }
        let old: Vec<_> =
            current.iter().filter(|s| distinct.contains(&s.id)).map(|s| (s.low, s.high)).collect();
        let mut new = ranges.to_vec();
        new.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !tiles(&old, &new) {
            return Err(Refusal::Tiling);
        }
        let count = current.len() - sealed.len() + new.len();
        let min = stream.config.scaling.min_segments;
        if count < min as usize {
            return Err(Refusal::TooFew { count, min });
        }
        if count > SEGMENTS_MAX as usize {
            let limit = u64::from(SEGMENTS_MAX);
            return Err(Refusal::TooMany { what: "segments in a stream", limit });
        }
        self.begin_scale(name, sealed, &new).map(Outcome::Started)
    }

    /// Records a scale of a stream that is known to be idle: `ranges`, ascending, cover exactly the keys of `sealed`.
    pub(super) fn begin_scale(
        &mut self,
        name: &Name,
        sealed: &[SegmentId],
        ranges: &[(f64, f64)],
    ) -> Result<Started, Refusal> {
        let stream = self.record.streams.get(name).expect("the caller found it");
        let epochs = stream.epochs.len();
        let epoch = i32::try_from(epochs).ok().filter(|_| epochs < EPOCHS_MAX);
        let limit = EPOCHS_MAX as u64;
        let epoch = epoch.ok_or(Refusal::TooMany { what: "epochs of a stream", limit })?;
        let mut next = stream.next_number;
        let mut created = number_segments(epoch, &mut next, ranges)?;
        if planted!("PB-C2") {
            created[0].high -= f64::EPSILON;
        }
        let id = self.take_id();
        let stream = self.record.streams.get_mut(name).expect("the caller found it");
        stream.next_number = next;
        let kind = Workflow::ScaleCreate { sealed: sealed.to_vec(), created: created.clone() };
        stream.workflow = Some(WorkflowRecord { id, kind });
        Ok(stream.started(id, created))
    }
}

impl StreamRecord {
    /// Appends the epoch behind the active one: its segments exist at the store by now.
    pub(super) fn record_epoch(
        &mut self,
        sealed: &[SegmentId],
        created: &[SegmentRecord],
        stamp: Stamp,
    ) {
        let stays = |s: &&SegmentRecord| !sealed.contains(&s.id);
        let kept = self.current().iter().filter(stays).copied();
        let segments = sorted(kept.chain(created.iter().copied()).collect());
        let reference = self.active_epoch() + 1;
        self.epochs.push(EpochRecord { reference, segments, created_at_ms: stamp.wall_ms });
    }
}

/// `count` equal key ranges.
pub(super) fn even_ranges(count: u32) -> Vec<(f64, f64)> {
    KeyRange::split_evenly(count).iter().map(|range| (range.low, range.high)).collect()
}

/// True if `new` covers exactly the keys of `old`, each once. Both are sorted by lower bound; bounds are compared bit
/// by bit, since clients do so.
fn tiles(old: &[(f64, f64)], new: &[(f64, f64)]) -> bool {
    new.iter().all(|(low, high)| low < high) && joined(old) == joined(new)
}

/// The intervals that ranges form where they touch, as bits.
fn joined(ranges: &[(f64, f64)]) -> Vec<(u64, u64)> {
    // Adding zero makes of a negative zero the one that is stored.
    let bits = |bound: f64| (bound + 0.0).to_bits();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (low, high) in ranges {
        match out.last_mut() {
            Some(last) if last.1 == bits(*low) => last.1 = bits(*high),
            _ => out.push((bits(*low), bits(*high))),
        }
    }
    out
}
