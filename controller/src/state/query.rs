//! Questions to the state. None changes anything.

use super::{State, covers_key_space, streams_of};
use crate::record::{
    Cut, EpochRecord, Name, ScopeRecord, SegmentRecord, StreamRecord, StreamStatus,
};
use std::collections::BTreeSet;
use std::ops::Bound;
use thalweg_actor::planted;
use thalweg_types::id::SegmentId;

/// Why there are no segments between two cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A cut names a segment that never was.
    UnknownSegment(SegmentId),
    /// The first cut lies behind the second.
    Backwards,
}

impl State {
    /// The scope, if clients may know of it.
    pub fn visible_scope(&self, scope: &str) -> Option<&ScopeRecord> {
        self.record.scopes.get(scope).filter(|scope| !scope.deleting)
    }

    /// The stream, if clients may know of it.
    pub fn stream(&self, name: &Name) -> Option<&StreamRecord> {
        self.visible_scope(&name.scope)?;
        self.record.streams.get(name).filter(|stream| stream.is_visible())
    }

    /// The stream, visible or not.
    pub fn any_stream(&self, name: &Name) -> Option<&StreamRecord> {
        self.record.streams.get(name)
    }

    /// The streams of a scope, visible or not.
    pub fn streams_in(&self, scope: &str) -> impl Iterator<Item = (&Name, &StreamRecord)> {
        streams_of(&self.record.streams, scope)
    }

    /// At most `count` scopes behind `after`, in order of name.
    pub fn list_scopes(&self, after: Option<&str>, count: usize) -> Vec<String> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.record.scopes.range::<str, _>((start, Bound::Unbounded));
        let seen = behind.filter(|(_, scope)| !scope.deleting);
        seen.take(count).map(|(name, _)| name.clone()).collect()
    }

    /// At most `count` streams of `scope` behind `after`, in order of name; with `tag`, those that carry it.
    pub fn list_streams(
        &self,
        scope: &str,
        tag: Option<&str>,
        after: Option<&str>,
        count: usize,
    ) -> Vec<Name> {
        let first = Name::new(scope, after.unwrap_or_default());
        let start = if after.is_some() { Bound::Excluded(first) } else { Bound::Included(first) };
        let behind = self.record.streams.range((start, Bound::Unbounded));
        behind
            .take_while(|(name, _)| name.scope == scope)
            .filter(|(_, stream)| stream.is_visible())
            .filter(|(_, stream)| tag.is_none_or(|tag| stream.config.tags.contains(tag)))
            .take(count)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl StreamRecord {
    /// The number of the active epoch.
    pub fn active_epoch(&self) -> i32 {
        i32::try_from(self.active).expect("epochs are limited")
    }

    /// The epoch whose ranges the active one repeats: its own number but after a rolling transaction.
    pub fn active_reference(&self) -> i32 {
        self.epochs[self.active as usize].reference
    }

    /// The segments of the active epoch, also of a stream that has ended.
    pub fn current(&self) -> &[SegmentRecord] {
        &self.epochs[self.active as usize].segments
    }

    /// The segments that take events: none when the stream has ended.
    pub fn open(&self) -> &[SegmentRecord] {
        match self.status {
            StreamStatus::Active => self.current(),
            StreamStatus::Sealed => &[],
        }
    }

    /// Epoch `number`, if it is recorded.
    pub fn epoch(&self, number: i32) -> Option<&EpochRecord> {
        self.epochs.get(usize::try_from(number).ok()?)
    }

    /// The segment `id`, if it exists or existed: an id says in which epoch it was made.
    pub fn segment(&self, id: SegmentId) -> Option<SegmentRecord> {
        self.epoch(id.epoch())?.segments.iter().find(|s| s.id == id).copied()
    }

    /// The epoch of one of the cut's segments that is not recorded.
    pub fn unknown_epoch(&self, cut: &Cut) -> Option<i32> {
        cut.keys().map(|id| id.epoch()).find(|epoch| self.epoch(*epoch).is_none())
    }

    /// True if all of the cut's segments exist or existed and cover the key space once.
    pub fn is_cut(&self, cut: &Cut) -> bool {
        self.segments_of(cut).is_some_and(|segments| covers_key_space(&segments))
    }

    /// Where the stream begins.
    pub fn head(&self) -> Cut {
        match &self.truncation {
            Some(cut) => cut.clone(),
            None => self.epochs[0].segments.iter().map(|s| (s.id, 0)).collect(),
        }
    }

    /// The segments that follow `id`, each with all that it follows. Empty while `id` takes events, when the stream
    /// ended with it, and for an id that never was.
    pub fn successors(&self, id: SegmentId) -> Vec<(SegmentRecord, Vec<SegmentId>)> {
        let Some(segment) = self.segment(id) else { return Vec::new() };
        let has = |epoch: &EpochRecord| epoch.segments.iter().any(|s| s.id == id);
        let Some(last) = self.epochs.iter().rposition(has) else { return Vec::new() };
        let Some(next) = self.epochs.get(last + 1) else { return Vec::new() };
        let before = &self.epochs[last].segments;
        let follow = next.segments.iter().filter(|s| s.overlaps(&segment));
        follow
            .map(|s| {
                let mut ids: Vec<_> =
                    before.iter().filter(|b| b.overlaps(s)).map(|b| b.id).collect();
                ids.sort();
                (*s, ids)
            })
            .collect()
    }

    /// True if nothing of `first` lies behind `second`. Both cover the key space.
    pub fn is_before(&self, first: &Cut, second: &Cut) -> bool {
        let (Some(from), Some(to)) = (self.segments_of(first), self.segments_of(second)) else {
            return false;
        };
        let fine = |f: &SegmentRecord, t: &SegmentRecord| {
            if f.id == t.id { first[&f.id] <= second[&t.id] } else { f.id.epoch() < t.id.epoch() }
        };
        from.iter().all(|f| to.iter().filter(|t| t.overlaps(f)).all(|t| fine(f, t)))
    }

    /// All segments from `from` to `to`, both included; `None` stands for the very first and the last ones.
    pub fn between(&self, from: Option<&Cut>, to: Option<&Cut>) -> Result<Vec<SegmentId>, Span> {
        let records = |cut: &Cut| {
            let one = |id: &SegmentId| self.segment(*id).ok_or(Span::UnknownSegment(*id));
            cut.keys().map(one).collect::<Result<Vec<_>, Span>>()
        };
        let first = from.map_or_else(|| Ok(self.epochs[0].segments.clone()), records)?;
        let last = to.map_or_else(|| Ok(self.current().to_vec()), records)?;
        let offset = |cut: Option<&Cut>, id| cut.and_then(|cut| cut.get(&id).copied());
        for f in &first {
            for t in last.iter().filter(|t| t.overlaps(f)) {
                let back = offset(from, f.id).zip(offset(to, t.id)).filter(|(_, end)| *end >= 0);
                let same = f.id == t.id;
                if f.id.epoch() > t.id.epoch() || (same && back.is_some_and(|(a, b)| a > b)) {
                    return Err(Span::Backwards);
                }
            }
        }
        let reaches = |s: &SegmentRecord| {
            first.iter().any(|f| f.id == s.id || (f.overlaps(s) && f.id.epoch() < s.id.epoch()))
        };
        let is_reached = |s: &SegmentRecord| {
            last.iter().any(|t| t.id == s.id || (t.overlaps(s) && s.id.epoch() < t.id.epoch()))
        };
        let all = self.epochs.iter().flat_map(|epoch| &epoch.segments);
        let found: BTreeSet<_> =
            all.filter(|s| reaches(s) && is_reached(s)).map(|s| s.id).collect();
        Ok(found.into_iter().collect())
    }

    /// The segments that lie wholly before `cut`.
    pub fn wholly_before(&self, cut: &Cut) -> BTreeSet<SegmentId> {
        let head = self.segments_of(cut).unwrap_or_default();
        let newest = head.iter().map(|h| h.id.epoch()).max().unwrap_or_default();
        let before = |s: &SegmentRecord| {
            if planted!("PB-C5") {
                return s.id.epoch() < newest;
            }
            head.iter().filter(|h| h.overlaps(s)).all(|h| s.id.epoch() < h.id.epoch())
        };
        let all = self.epochs.iter().flat_map(|epoch| &epoch.segments);
        all.filter(|s| !head.is_empty() && before(s)).map(|s| s.id).collect()
    }

    /// Every segment of every epoch that the head has left at the store.
    pub fn remaining(&self) -> Vec<SegmentId> {
        let gone = self.truncation.as_ref().map(|cut| self.wholly_before(cut)).unwrap_or_default();
        let all = self.epochs.iter().flat_map(|epoch| epoch.segments.iter().map(|s| s.id));
        all.collect::<BTreeSet<_>>().difference(&gone).copied().collect()
    }
}
