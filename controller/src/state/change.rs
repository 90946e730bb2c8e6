//! Commands on scopes and streams, but for scaling.

use super::{Outcome, Refusal, Started, State, companion, covers_key_space, streams_of};
use crate::record::{
    ConfigRecord, Cut, EpochRecord, Name, ScopeRecord, SegmentRecord, Stamp, Step, StreamRecord,
    StreamStatus, Workflow, WorkflowRecord,
};
use crate::state::scale::even_ranges;
use std::collections::BTreeMap;
use thalweg_actor::{planted, probe};
use thalweg_types::id::SegmentId;

impl State {
    pub(super) fn take_id(&mut self) -> u64 {
        let id = self.record.next_id;
        self.record.next_id += 1;
        id
    }

    pub(super) fn create_scope(&mut self, scope: &str) -> Result<Outcome, Refusal> {
        match self.record.scopes.get(scope) {
            Some(found) if found.deleting => return Err(Refusal::Busy),
            Some(_) => return Err(Refusal::ScopeExists),
            None => {}
        }
        let id = self.take_id();
        self.record.scopes.insert(scope.to_owned(), ScopeRecord { id, deleting: false });
        Ok(Outcome::Done)
    }

    pub(super) fn delete_scope(&mut self, scope: &str) -> Result<Outcome, Refusal> {
        self.visible_scope(scope).ok_or(Refusal::ScopeNotFound)?;
        let first = self.record.groups.range(Name::new(scope, "")..).next();
        let has_groups = first.is_some_and(|(name, _)| name.scope == scope);
        if has_groups || !self.has_no_segments(scope) {
            return Err(Refusal::ScopeNotEmpty);
        }
        self.record.scopes.remove(scope);
        Ok(Outcome::Done)
    }

    pub(super) fn begin_delete_scope(&mut self, scope: &str) -> Result<Outcome, Refusal> {
        let found = self.record.scopes.get_mut(scope).ok_or(Refusal::ScopeNotFound)?;
        found.deleting = true;
        Ok(Outcome::Done)
    }

    pub(super) fn finish_delete_scope(&mut self, scope: &str, id: u64) -> Result<Outcome, Refusal> {
        let found = self.record.scopes.get(scope).filter(|s| s.id == id && s.deleting);
        found.ok_or(Refusal::Stale)?;
        if !self.has_no_segments(scope) {
            return Err(Refusal::ScopeNotEmpty);
        }
        // Without their streams there is nothing more to a group.
        self.record.groups.retain(|name, _| name.scope != scope);
        self.record.scopes.remove(scope);
        Ok(Outcome::Done)
    }

    /// True if `scope` holds neither a stream nor a table, visible or not.
    fn has_no_segments(&self, scope: &str) -> bool {
        streams_of(&self.record.streams, scope).next().is_none()
            && self.tables_in(scope).next().is_none()
    }

    pub(super) fn create_stream(
        &mut self,
        name: &Name,
        config: &ConfigRecord,
        stamp: Stamp,
    ) -> Result<Outcome, Refusal> {
        self.visible_scope(&name.scope).ok_or(Refusal::ScopeNotFound)?;
        match self.record.streams.get(name) {
            Some(found) if found.is_visible() => return Err(Refusal::StreamExists),
            Some(_) => return Err(Refusal::Busy),
            None => {}
        }
        let companion = companion(name);
        if let Some(other) = companion.as_ref().and_then(|name| self.record.streams.get(name)) {
            if !other.is_visible() {
                return Err(Refusal::Busy);
            }
            probe!("controller: companion was there");
        }
        self.has_numbers(name, config.scaling.min_segments)?;
        if let Some(name) = &companion {
            self.has_numbers(name, 1)?;
        }
        let started = self.insert_stream(name, config, stamp)?;
        if let Some(name) = companion.filter(|name| !self.record.streams.contains_key(name)) {
            self.insert_stream(&name, &ConfigRecord::fixed(1), stamp)?;
        }
        Ok(started)
    }

    /// Segment numbers are never reused, so they can run out.
    fn has_numbers(&self, name: &Name, count: u32) -> Result<(), Refusal> {
        let mut next = self.record.retired.get(name).copied().unwrap_or_default().next_number;
        number_segments(0, &mut next, &even_ranges(count)).map(drop)
    }

    fn insert_stream(
        &mut self,
        name: &Name,
        config: &ConfigRecord,
        stamp: Stamp,
    ) -> Result<Outcome, Refusal> {
        let retired = self.record.retired.get(name).copied().unwrap_or_default();
        let mut next = retired.next_number;
        if planted!("PB-C6") {
            next = 0;
        }
        let ranges = even_ranges(config.scaling.min_segments);
        let segments = number_segments(0, &mut next, &ranges)?;
        self.record.retired.remove(name);
        let (id, workflow) = (self.take_id(), self.take_id());
        let started = Started { stream: id, workflow, epoch: 0, created: segments.clone() };
        let stream = StreamRecord {
            id,
            config: config.clone(),
            epochs: vec![EpochRecord { reference: 0, segments, created_at_ms: stamp.wall_ms }],
            active: 0,
            status: StreamStatus::Active,
            next_number: next,
            sealed_lengths: BTreeMap::new(),
            truncation: None,
            workflow: Some(WorkflowRecord { id: workflow, kind: Workflow::Create }),
            created_at_ms: stamp.wall_ms,
        };
        self.record.streams.insert(name.clone(), stream);
        Ok(Outcome::Started(started))
    }

    /// The stream that a command changes: visible, and nothing under way on it.
    pub(super) fn idle_stream(&mut self, name: &Name) -> Result<&mut StreamRecord, Refusal> {
        self.visible_scope(&name.scope).ok_or(Refusal::StreamNotFound)?;
        let found = self.record.streams.get_mut(name).filter(|stream| stream.is_visible());
        let stream = found.ok_or(Refusal::StreamNotFound)?;
        if stream.workflow.is_some() {
            probe!("controller: command met a workflow");
            return Err(Refusal::Busy);
        }
        Ok(stream)
    }

    pub(super) fn update_stream(
        &mut self,
        name: &Name,
        config: &ConfigRecord,
    ) -> Result<Outcome, Refusal> {
        let stream = self.idle_stream(name)?;
        if stream.status == StreamStatus::Sealed {
            return Err(Refusal::StreamSealed);
        }
        let Some(count) = wanted_count(config, stream.current().len()) else {
            stream.config = config.clone();
            return Ok(Outcome::Done);
        };
        let sealed: Vec<SegmentId> = stream.current().iter().map(|s| s.id).collect();
        let started = self.begin_scale(name, &sealed, &even_ranges(count))?;
        let stream = self.record.streams.get_mut(name).expect("begin_scale found it");
        stream.config = config.clone();
        Ok(Outcome::Started(started))
    }

    pub(super) fn truncate(&mut self, name: &Name, cut: &Cut) -> Result<Outcome, Refusal> {
        let stream = self.idle_stream(name)?;
        if stream.status == StreamStatus::Sealed {
            return Err(Refusal::StreamSealed);
        }
        if let Some(epoch) = stream.unknown_epoch(cut) {
            return Err(Refusal::UnknownEpoch { epoch });
        }
        let segments = stream.segments_of(cut).ok_or(Refusal::CutNotValid)?;
        if !covers_key_space(&segments) || cut.values().any(|offset| *offset < 0) {
            return Err(Refusal::CutNotValid);
        }
        if stream.truncation.as_ref() == Some(cut) {
            return Ok(Outcome::Done);
        }
        if stream.truncation.as_ref().is_some_and(|head| !stream.is_before(head, cut)) {
            return Err(Refusal::CutBackwards);
        }
        let already = stream.truncation.as_ref().map(|head| stream.wholly_before(head));
        let mut gone = stream.wholly_before(cut);
        gone.retain(|id| !already.as_ref().is_some_and(|already| already.contains(id)));
        stream.truncation = Some(cut.clone());
        Ok(self.begin(name, Workflow::Truncate { gone: gone.into_iter().collect() }))
    }

    /// What is open is aborted; what is decided is merged first.
    pub(super) fn seal(&mut self, name: &Name) -> Result<Outcome, Refusal> {
        if self.idle_stream(name)?.status == StreamStatus::Sealed {
            return Ok(Outcome::Done);
        }
        self.abort_all(name);
        if let Some(txns) = self.record.txns.get_mut(name).filter(|txns| txns.is_committing()) {
            probe!("controller: a seal waits for commits");
            txns.seals = true;
            return self.begin_commit(name);
        }
        Ok(self.begin(name, Workflow::Seal))
    }

    pub(super) fn delete(&mut self, name: &Name, force: bool) -> Result<Outcome, Refusal> {
        let stream = self.record.streams.get(name).ok_or(Refusal::StreamNotFound)?;
        match stream.kind() {
            Some(Workflow::Delete) => return Err(Refusal::Deleting),
            Some(Workflow::Create) if !force => return Err(Refusal::StreamNotFound),
            Some(_) => return Err(Refusal::Busy),
            None => {}
        }
        if !force && stream.status != StreamStatus::Sealed {
            return Err(Refusal::StreamNotSealed);
        }
        if self.is_committing(name) {
            return Err(Refusal::Busy);
        }
        self.abort_all(name);
        Ok(self.begin(name, Workflow::Delete))
    }

    /// Records a workflow on a stream that is known to be idle.
    pub(super) fn begin(&mut self, name: &Name, kind: Workflow) -> Outcome {
        let id = self.take_id();
        let stream = self.record.streams.get_mut(name).expect("the caller found it");
        stream.workflow = Some(WorkflowRecord { id, kind });
        Outcome::Started(stream.started(id, Vec::new()))
    }

    pub(super) fn advance(
        &mut self,
        name: &Name,
        (workflow, step): (u64, Step),
        lengths: &BTreeMap<SegmentId, i64>,
        stamp: Stamp,
    ) -> Result<Outcome, Refusal> {
        let stream = self.record.streams.get_mut(name).ok_or(Refusal::Stale)?;
        let found = stream.workflow.take().ok_or(Refusal::Stale)?;
        if (found.id != workflow || found.kind.step() != step) && !planted!("PB-C4") {
            stream.workflow = Some(found);
            return Err(Refusal::Stale);
        }
        stream.sealed_lengths.extend(lengths);
        match found.kind {
            Workflow::Create | Workflow::Truncate { .. } => {}
            Workflow::ScaleCreate { sealed, created } => {
                stream.record_epoch(&sealed, &created, stamp);
                let kind = Workflow::ScaleSeal { sealed };
                stream.workflow = Some(WorkflowRecord { id: workflow, kind });
            }
            Workflow::ScaleSeal { .. } => stream.active += 1,
            Workflow::Seal => stream.status = StreamStatus::Sealed,
            Workflow::Delete => self.remove_stream(name),
            kind @ (Workflow::TxnSeal { .. }
            | Workflow::RollCreate { .. }
            | Workflow::TxnMerge { .. }
            | Workflow::RollSeal { .. }) => self.advance_commit(name, workflow, kind, stamp),
        }
        Ok(Outcome::Done)
    }

    fn remove_stream(&mut self, name: &Name) {
        let gone = self.record.streams.remove(name).expect("advance found it");
        let retired = self.record.retired.entry(name.clone()).or_default();
        retired.next_number = gone.next_number;
        self.forget_stream(name);
        self.forget_old_txns();
    }
}

impl StreamRecord {
    pub(super) fn started(&self, workflow: u64, created: Vec<SegmentRecord>) -> Started {
        Started { stream: self.id, workflow, epoch: self.active_epoch(), created }
    }
}

/// How many equal segments the stream must be scaled to, if at all.
fn wanted_count(config: &ConfigRecord, count: usize) -> Option<u32> {
    use crate::record::ScalingKind::{EventsPerSecond, Fixed, KilobytesPerSecond};
    let min = config.scaling.min_segments;
    let scale = match config.scaling.kind {
        Fixed => min as usize != count,
        KilobytesPerSecond | EventsPerSecond => min as usize > count,
    };
    scale.then_some(min)
}

/// Gives each range, in order, the next number of `epoch`.
pub(super) fn number_segments(
    epoch: i32,
    next: &mut i32,
    ranges: &[(f64, f64)],
) -> Result<Vec<SegmentRecord>, Refusal> {
    let count = i32::try_from(ranges.len()).unwrap_or(i32::MAX);
    let end = next.checked_add(count).ok_or(Refusal::TooMany {
        what: "segments over a stream's life",
        limit: i32::MAX as u64,
    })?;
    let number = |(number, (low, high)): (i32, &(f64, f64))| SegmentRecord {
        id: SegmentId::new(epoch, number),
        low: *low,
        high: *high,
    };
    let segments = (*next..end).zip(ranges).map(number).collect();
    *next = end;
    Ok(segments)
}
