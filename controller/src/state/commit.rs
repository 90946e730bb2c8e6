//! How decided transactions get into their stream: a workflow of several steps, one batch at a time.
//!
//! While the active epoch repeats the ranges of the transactions' epoch, their segments are merged into the active
//! ones. Otherwise the stream rolls: an epoch with the transactions' ranges is made, merged into and ended, and one
//! with the present ranges follows it. Either way a segment's number stays the same, so that all of it lies in one
//! container.

use super::{Outcome, Refusal, State};
use crate::limits::TXN_BATCH_MAX;
use crate::record::{
    EpochRecord, Name, SegmentRecord, Stamp, StreamRecord, Workflow, WorkflowRecord,
};
use thalweg_actor::probe;
use thalweg_types::id::SegmentId;

impl State {
    /// Takes the decided transactions of the lowest epoch, in the order of their commits.
    pub(super) fn begin_commit(&mut self, name: &Name) -> Result<Outcome, Refusal> {
        let stream = self.record.streams.get(name).ok_or(Refusal::Stale)?;
        if stream.workflow.is_some() {
            return Err(Refusal::Busy);
        }
        let live = self.record.txns.get(name).map(|txns| &txns.live);
        let decided = live.into_iter().flatten();
        let mut decided: Vec<_> =
            decided.filter_map(|(low, txn)| Some((txn.epoch(), txn.order()?, *low))).collect();
        decided.sort_unstable();
        let lowest = decided.first().ok_or(Refusal::Stale)?.0;
        decided.retain(|(epoch, ..)| *epoch == lowest);
        decided.truncate(TXN_BATCH_MAX);
        let batch = decided.into_iter().map(|(.., low)| low).collect();
        Ok(self.begin(name, Workflow::TxnSeal { batch }))
    }

    /// The step behind `done` of the workflow `id`, whose stream is `name`.
    pub(super) fn advance_commit(&mut self, name: &Name, id: u64, done: Workflow, stamp: Stamp) {
        let next = match done {
            Workflow::TxnSeal { batch } => {
                let stream = &self.record.streams[name];
                let active = stream.active_reference();
                if self.epoch_of(name, &batch) == Some(active) {
                    Workflow::TxnMerge { batch, rolled: false }
                } else {
                    self.roll(name, batch)
                }
            }
            Workflow::RollCreate { batch, reference, merged, next } => {
                let stream = self.record.streams.get_mut(name).expect("the caller found it");
                let present = stream.active_reference();
                let created_at_ms = stamp.wall_ms;
                stream.epochs.push(EpochRecord { reference, segments: merged, created_at_ms });
                let reference = present;
                stream.epochs.push(EpochRecord { reference, segments: next, created_at_ms });
                Workflow::TxnMerge { batch, rolled: true }
            }
            Workflow::TxnMerge { batch, rolled: true } => Workflow::RollSeal { batch },
            Workflow::TxnMerge { batch, rolled: false } => return self.committed(name, &batch),
            Workflow::RollSeal { batch } => {
                let stream = self.record.streams.get_mut(name).expect("the caller found it");
                stream.active += 2;
                return self.committed(name, &batch);
            }
            other => unreachable!("{other:?} commits nothing"),
        };
        let stream = self.record.streams.get_mut(name).expect("the caller found it");
        stream.workflow = Some(WorkflowRecord { id, kind: next });
    }

    /// The workflow is over. A stream that is to be sealed goes on at once: with what is still to be merged, then
    /// with its seal.
    fn committed(&mut self, name: &Name, batch: &[i64]) {
        for low in batch {
            self.end_txn(name, *low, true);
        }
        let Some(txns) = self.record.txns.get_mut(name).filter(|txns| txns.seals) else { return };
        if txns.is_committing() {
            self.begin_commit(name).expect("it is idle, and something is committing");
        } else {
            txns.seals = false;
            self.begin(name, Workflow::Seal);
        }
    }

    /// The epoch that all transactions of a batch repeat.
    fn epoch_of(&self, name: &Name, batch: &[i64]) -> Option<i32> {
        let live = &self.record.txns.get(name)?.live;
        batch.iter().find_map(|low| live.get(low)).map(super::TxnRecord::epoch)
    }

    /// The step that makes the two epochs into which `batch` is rolled.
    fn roll(&self, name: &Name, batch: Vec<i64>) -> Workflow {
        probe!("controller: a transaction rolls");
        let stream = &self.record.streams[name];
        let active = &stream.epochs[stream.active as usize];
        let reference = self.epoch_of(name, &batch).unwrap_or(active.reference);
        let first = i32::try_from(stream.epochs.len()).expect("epochs are limited");
        let of = usize::try_from(reference).expect("epochs are counted from 0");
        let merged = repeated(&stream.epochs[of].segments, first);
        let next = repeated(&active.segments, first + 1);
        Workflow::RollCreate { batch, reference, merged, next }
    }

    pub(super) fn reroute(&mut self, name: &Name, workflow: u64) -> Result<Outcome, Refusal> {
        let stream = self.record.streams.get(name).ok_or(Refusal::Stale)?;
        let found = stream.workflow.as_ref().filter(|found| found.id == workflow);
        let kind = match found.map(|found| &found.kind) {
            Some(Workflow::TxnMerge { batch, rolled: false }) => self.roll(name, batch.clone()),
            // The epochs are recorded, so they must be gone through. The batch stays undecided and begins again.
            Some(Workflow::TxnMerge { rolled: true, .. }) => {
                Workflow::RollSeal { batch: Vec::new() }
            }
            _ => return Err(Refusal::Stale),
        };
        probe!("controller: a segment to merge into was sealed by somebody else");
        let stream = self.record.streams.get_mut(name).expect("found above");
        stream.workflow = Some(WorkflowRecord { id: workflow, kind });
        Ok(Outcome::Done)
    }
}

impl StreamRecord {
    /// The segments that take what a batch brings: those behind the active ones where the stream rolls.
    pub(crate) fn merge_targets(&self, rolled: bool) -> &[SegmentRecord] {
        &self.epochs[self.active as usize + usize::from(rolled)].segments
    }
}

/// The same segments in another epoch.
fn repeated(segments: &[SegmentRecord], epoch: i32) -> Vec<SegmentRecord> {
    let one = |s: &SegmentRecord| SegmentRecord { id: SegmentId::new(epoch, s.id.number()), ..*s };
    segments.iter().map(one).collect()
}
