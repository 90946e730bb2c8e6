//! Merging segments: metadata only, all sources or none.

use crate::container::format::{Change, Operation, SegmentKey, Source};
use crate::container::lifecycle::{illegal, is_sealed, no_such_segment, unsupported};
use crate::container::{Container, Effects};
use crate::request::Replies;
use std::collections::BTreeMap;
use thalweg_actor::probe;
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{
    AttributeUpdate, Command, MergeSegments, MergeSegmentsBatch, MergedSource,
    SegmentAttributeUpdated, SegmentsBatchMerged, SegmentsMerged,
};

const REPLACE: i8 = 1;
const REPLACE_IF_EQUALS: i8 = 4;

impl Container {
    pub(super) fn merge_segments(
        &mut self,
        replies: &Replies,
        asked: MergeSegments,
        effects: &mut Effects,
    ) {
        let MergeSegments { request_id, target, source, updates, .. } = asked;
        let reply = match self.merge_one(request_id, &target, &source, &updates, effects) {
            Err(refusal) => *refusal,
            Ok(new_target_write_offset) => {
                SegmentsMerged { request_id, target, source, new_target_write_offset }.into()
            }
        };
        self.answer(replies, reply);
    }

    /// The target's length behind the merge, or the refusal.
    fn merge_one(
        &mut self,
        request_id: i64,
        target: &SegmentName,
        source: &SegmentName,
        updates: &[AttributeUpdate],
        effects: &mut Effects,
    ) -> Result<i64, Box<Command>> {
        let refuse = |command: Command| Err(Box::new(command));
        // Clients parse the name: that of a large event's segment makes one of them panic.
        let told = if source.is_transient() { target } else { source };
        let Some((from, _)) = self.state.find(source) else {
            let merged = self.state.merged.get(source).map(|merged| merged.target);
            if let (Some(into), Some((key, found))) = (merged, self.state.find(target))
                && into == key
            {
                probe!("container: merge of a segment merged before");
                return Ok(found.length);
            }
            return refuse(no_such_segment(request_id, told, -1).into());
        };
        let Some((into, found)) = self.state.find(target) else {
            return refuse(no_such_segment(request_id, told, -1).into());
        };
        if into == from {
            return refuse(illegal(request_id, source, "a merge of a segment with itself").into());
        }
        if found.is_table() {
            return refuse(unsupported(request_id, "mergeSegments").into());
        }
        if found.sealed {
            return refuse(is_sealed(request_id, told).into());
        }
        let length = self.check_source(request_id, source, from)?;
        let Some(changes) = self.attribute_changes(into, updates) else {
            let failed = SegmentAttributeUpdated { request_id, success: false };
            return refuse(failed.into());
        };
        self.merge(into, vec![Source { segment: from, length }], changes, effects);
        Ok(self.state.segments.get(&into).map_or(0, |segment| segment.length))
    }

    /// The length of a segment that can be merged.
    fn check_source(
        &self,
        request_id: i64,
        name: &SegmentName,
        key: SegmentKey,
    ) -> Result<i64, Box<Command>> {
        let source = &self.state.segments[&key];
        if source.is_table() {
            return Err(Box::new(unsupported(request_id, "mergeSegments").into()));
        }
        if source.start > 0 {
            let refusal = illegal(request_id, name, "a truncated segment cannot be merged");
            return Err(Box::new(refusal.into()));
        }
        Ok(source.length)
    }

    /// What the updates change, one behind the other; `None` if a condition fails.
    fn attribute_changes(
        &self,
        target: SegmentKey,
        updates: &[AttributeUpdate],
    ) -> Option<Vec<Change>> {
        let segment = &self.state.segments[&target];
        let mut values = BTreeMap::new();
        let mut changes = Vec::with_capacity(updates.len());
        for update in updates {
            let attribute = update.attribute_id;
            let from = *values.entry(attribute).or_insert_with(|| segment.attribute(attribute));
            let holds = match update.kind {
                REPLACE => true,
                REPLACE_IF_EQUALS => from == update.old_value,
                _ => false,
            };
            if !holds {
                return None;
            }
            values.insert(attribute, update.new_value);
            changes.push(Change { attribute, from, to: update.new_value });
        }
        Some(changes)
    }

    pub(super) fn merge_batch(
        &mut self,
        replies: &Replies,
        asked: MergeSegmentsBatch,
        effects: &mut Effects,
    ) {
        let MergeSegmentsBatch { request_id, target, sources, .. } = asked;
        if sources.is_empty() {
            let merged = Vec::new();
            return self.answer(replies, SegmentsBatchMerged { request_id, target, merged });
        }
        let Some((into, found)) = self.state.find(&target) else {
            return self.answer(replies, no_such_segment(request_id, &target, -1));
        };
        if found.is_table() {
            return self.answer(replies, unsupported(request_id, "mergeSegmentsBatch"));
        }
        if found.sealed {
            return self.answer(replies, is_sealed(request_id, &target));
        }
        let mut end = found.length;
        let (mut found, mut merged) = (Vec::new(), Vec::new());
        for source in sources {
            if let Some((from, _)) = self.state.find(&source) {
                if from == into {
                    let refusal = illegal(request_id, &source, "a merge of a segment with itself");
                    return self.answer(replies, refusal);
                }
                match self.check_source(request_id, &source, from) {
                    Err(refusal) => return self.answer(replies, *refusal),
                    Ok(_) if found.iter().any(|known: &Source| known.segment == from) => {}
                    Ok(length) => {
                        end += length;
                        found.push(Source { segment: from, length });
                    }
                }
            }
            merged.push(MergedSource { source, new_target_write_offset: end });
        }
        if !found.is_empty() {
            self.merge(into, found, Vec::new(), effects);
        }
        self.answer(replies, SegmentsBatchMerged { request_id, target, merged });
    }

    fn merge(
        &mut self,
        target: SegmentKey,
        sources: Vec<Source>,
        changes: Vec<Change>,
        effects: &mut Effects,
    ) {
        let offset = self.state.segments[&target].length;
        let ended: Vec<_> = sources.iter().map(|source| source.segment).collect();
        if self.log(&Operation::Merge { target, offset, sources, changes }, [], effects) {
            self.advance(target);
            for key in ended {
                self.end_segment(key);
            }
        }
    }
}
