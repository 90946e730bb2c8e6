//! Who reads which segment of a stream, and from where: a reader group as a pure state machine.
//!
//! Invariants, asserted by [`Group::check`]:
//! 1. A segment is free, assigned to one reader, or waiting for predecessors; never two of these.
//! 2. A waiting segment has at least one predecessor that is not finished.
//! 3. Offsets never go back.
//!
//! A segment is handed out only when all its predecessors are finished, so that the events of a routing key come in
//! their order. Assignments carry a number: what a reader says about a segment that was taken from it is ignored.
//!
//! Not here: reading (the readers), keeping the state beyond the process: a group lives as long as its object, its
//! cut is what an application stores.

use std::collections::{BTreeMap, BTreeSet};
use thalweg_actor::probe;
use thalweg_types::id::SegmentId;
use thalweg_types::stream::StreamCut;

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest event that is still there.
    Head,
    /// With what is written from now on.
    Tail,
    /// There: a cut covers the key space once.
    Cut(StreamCut),
}

/// One reader of a group, by the order of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReaderId(pub u64);

/// A segment in a reader's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The segment.
    pub segment: SegmentId,
    /// Where to go on.
    pub offset: i64,
    /// Makes this handing-out different from every other.
    pub number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    reader: ReaderId,
    offset: i64,
    number: u64,
}

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Group {
    free: BTreeMap<SegmentId, i64>,
    held: BTreeMap<SegmentId, Held>,
    /// Segments to come, each with the predecessors that are not finished.
    waiting: BTreeMap<SegmentId, BTreeSet<SegmentId>>,
    /// Segments behind which nothing is wanted, however they end.
    lasts: BTreeSet<SegmentId>,
    readers: BTreeSet<ReaderId>,
    reader_next: u64,
    assignment_next: u64,
}

impl Group {
    /// A group that begins at `start`.
    pub fn new(start: StreamCut) -> Self {
        Self { free: start.0, ..Self::default() }
    }

    /// A group that begins at `start` and ends with the segments of `ends`.
    pub fn bounded(start: StreamCut, ends: &StreamCut) -> Self {
        Self { lasts: ends.0.keys().copied().collect(), ..Self::new(start) }
    }

    /// A reader joins.
    pub fn join(&mut self) -> ReaderId {
        let reader = ReaderId(self.reader_next);
        self.reader_next += 1;
        self.readers.insert(reader);
        reader
    }

    /// A reader leaves: its segments are free, each at the offset that it last reported.
    pub fn leave(&mut self, reader: ReaderId) {
        self.readers.remove(&reader);
        let theirs: Vec<_> =
            self.held.iter().filter(|(_, h)| h.reader == reader).map(|(id, _)| *id).collect();
        for segment in theirs {
            probe!("group: segment of a reader that left");
            if let Some(held) = self.held.remove(&segment) {
                self.free.insert(segment, held.offset);
            }
        }
    }

    /// Hands a free segment to `reader`, unless it has its share already.
    pub fn acquire(&mut self, reader: ReaderId) -> Option<Assignment> {
        if !self.readers.contains(&reader) || self.count(reader) >= self.share() {
            return None;
        }
        let (segment, offset) = self.free.pop_first()?;
        let number = self.assignment_next;
        self.assignment_next += 1;
        self.held.insert(segment, Held { reader, offset, number });
        Some(Assignment { segment, offset, number })
    }

    /// True if `reader` has more than its share and should give a segment back.
    pub fn has_too_many(&self, reader: ReaderId) -> bool {
        self.count(reader) > self.share()
    }

    /// Everything below `offset` is delivered.
    pub fn advance(&mut self, assignment: &Assignment, offset: i64) {
        if let Some(held) = self.current(assignment) {
            held.offset = held.offset.max(offset);
        }
    }

    /// The reader gives the segment back.
    pub fn release(&mut self, assignment: &Assignment) {
        if let Some(held) = self.current(assignment).copied() {
            self.held.remove(&assignment.segment);
            self.free.insert(assignment.segment, held.offset);
        }
    }

    /// Everything of the segment is delivered, and `successors` follow, each with all its predecessors.
    pub fn finish(
        &mut self,
        assignment: &Assignment,
        successors: impl IntoIterator<Item = (SegmentId, Vec<SegmentId>)>,
    ) {
        if self.current(assignment).is_none() {
            return;
        }
        let done = assignment.segment;
        self.held.remove(&done);
        if self.lasts.contains(&done) {
            return;
        }
        for (segment, predecessors) in successors {
            if self.free.contains_key(&segment) || self.held.contains_key(&segment) {
                continue;
            }
            let waits =
                self.waiting.entry(segment).or_insert_with(|| predecessors.into_iter().collect());
            waits.remove(&done);
            if waits.is_empty() {
                self.waiting.remove(&segment);
                self.free.insert(segment, 0);
            } else {
                probe!("group: segment waits for another predecessor");
            }
        }
    }

    /// True when nothing is left to read: the stream was sealed and everything is delivered.
    pub fn is_finished(&self) -> bool {
        self.free.is_empty() && self.held.is_empty() && self.waiting.is_empty()
    }

    /// What is delivered: the offset in every segment that is free or in a reader's hands.
    ///
    /// While a segment waits for predecessors, its key range is covered by those.
    pub fn cut(&self) -> StreamCut {
        let held = self.held.iter().map(|(id, held)| (*id, held.offset));
        StreamCut(self.free.iter().map(|(id, offset)| (*id, *offset)).chain(held).collect())
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        for segment in self.free.keys() {
            assert!(!self.held.contains_key(segment), "invariant 1");
            assert!(!self.waiting.contains_key(segment), "invariant 1");
        }
        for segment in self.held.keys() {
            assert!(!self.waiting.contains_key(segment), "invariant 1");
        }
        assert!(self.waiting.values().all(|waits| !waits.is_empty()), "invariant 2");
    }

    fn current(&mut self, assignment: &Assignment) -> Option<&mut Held> {
        self.held.get_mut(&assignment.segment).filter(|held| held.number == assignment.number)
    }

    fn count(&self, reader: ReaderId) -> usize {
        self.held.values().filter(|held| held.reader == reader).count()
    }

    /// The most segments that one reader should have.
    fn share(&self) -> usize {
        (self.free.len() + self.held.len()).div_ceil(self.readers.len().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(segments: &[(i64, i64)]) -> StreamCut {
        StreamCut(segments.iter().map(|(id, offset)| (SegmentId(*id), *offset)).collect())
    }

    fn group(segments: &[(i64, i64)]) -> (Group, ReaderId) {
        let mut group = Group::new(cut(segments));
        let reader = group.join();
        (group, reader)
    }

    #[test]
    fn a_merged_segment_waits_for_both_predecessors() {
        let (mut group, reader) = group(&[(1, 0), (2, 7)]);
        let one = group.acquire(reader).unwrap();
        let two = group.acquire(reader).unwrap();
        let merged = || [(SegmentId(3), vec![SegmentId(1), SegmentId(2)])];
        group.finish(&one, merged());
        assert_eq!(group.acquire(reader), None);
        group.check();
        group.finish(&two, merged());
        assert_eq!(group.acquire(reader).map(|a| (a.segment, a.offset)), Some((SegmentId(3), 0)));
        group.check();
    }

    #[test]
    fn behind_the_last_segments_of_a_bounded_group_comes_nothing() {
        let ends = cut(&[(1, 50), (2, 0)]);
        let mut group = Group::bounded(cut(&[(1, 0), (2, 0)]), &ends);
        let reader = group.join();
        let one = group.acquire(reader).unwrap();
        let two = group.acquire(reader).unwrap();
        group.finish(&two, []);
        // Truncation has removed segment 1 before it was read to its end; meanwhile both were merged.
        group.finish(&one, [(SegmentId(3), vec![SegmentId(1), SegmentId(2)])]);
        assert!(group.is_finished(), "{group:?}");
    }

    #[test]
    fn segments_are_shared_evenly() {
        let (mut group, first) = group(&[(1, 0), (2, 0), (3, 0), (4, 0)]);
        let mut held: Vec<_> = std::iter::from_fn(|| group.acquire(first)).collect();
        assert_eq!(held.len(), 4);
        let second = group.join();
        assert_eq!(group.acquire(second), None);
        while group.has_too_many(first) {
            group.release(&held.pop().unwrap());
        }
        assert_eq!(std::iter::from_fn(|| group.acquire(second)).count(), 2);
        assert_eq!(group.acquire(first), None);
        group.check();
    }

    #[test]
    fn a_segment_goes_on_where_it_was_delivered_to() {
        let (mut group, reader) = group(&[(1, 5)]);
        let held = group.acquire(reader).unwrap();
        group.advance(&held, 30);
        group.advance(&held, 20);
        assert_eq!(group.cut(), cut(&[(1, 30)]));
        group.leave(reader);
        let other = group.join();
        assert_eq!(group.acquire(other).map(|a| a.offset), Some(30));
    }

    #[test]
    fn what_a_former_owner_says_is_ignored() {
        let (mut group, reader) = group(&[(1, 0)]);
        let old = group.acquire(reader).unwrap();
        group.release(&old);
        let new = group.acquire(reader).unwrap();
        group.advance(&old, 99);
        group.finish(&old, [(SegmentId(2), vec![SegmentId(1)])]);
        assert_eq!(group.cut(), cut(&[(1, 0)]));
        group.finish(&new, []);
        assert!(group.is_finished());
    }
}
