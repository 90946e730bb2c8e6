//! Where a segment's bytes lie in the log: an ordered map of runs.
//!
//! Invariant (C8): the runs partition `[start, length)` of the segment without gap or overlap; the first may begin
//! earlier, as truncation cuts only whole runs. An address may occur out of order: a merged segment's bytes keep their
//! old places.

use crate::container::codec::{FormatError, Reader, put_address, put_count};
use crate::place::Place;
use bytes::{BufMut as _, BytesMut};
use std::collections::VecDeque;
use thalweg_types::id::Address;

/// A run of a segment's bytes that lie together in one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Offset of the first byte in the segment.
    pub(crate) offset: i64,
    /// Where the bytes lie.
    pub(crate) place: Place,
    /// An event ends where the run ends. False within a large event, which came in pieces.
    pub(crate) whole: bool,
}

impl Extent {
    pub(crate) fn end(&self) -> i64 {
        self.offset + i64::from(self.place.len)
    }
}

/// A segment's runs in order of their offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extents(VecDeque<Extent>);

/// Bytes of one run in a snapshot.
const EXTENT_BYTES: usize = 33;

impl Extents {
    /// Adds bytes behind the last. Bytes that directly follow in the same entry lengthen the last run.
    pub(crate) fn push(&mut self, extent: Extent) {
        if extent.place.len == 0 {
            return;
        }
        if let Some(last) = self.0.back_mut() {
            debug_assert_eq!(last.end(), extent.offset, "bytes are appended at the end");
            let follows = last.place.address == extent.place.address
                && last.place.position + last.place.len == extent.place.position;
            if follows && last.whole && extent.whole {
                last.place.len += extent.place.len;
                return;
            }
        }
        self.0.push_back(extent);
    }

    /// Forgets the runs wholly below `start`.
    pub(crate) fn truncate(&mut self, start: i64) {
        while self.0.front().is_some_and(|first| first.end() <= start) {
            self.0.pop_front();
        }
        if self.0.capacity() > 64 && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to_fit();
        }
    }

    /// Moves all runs of `other` behind the last, `shift` bytes further on. With `one_event` only the end of the last
    /// is an event's end.
    pub(crate) fn absorb(&mut self, other: Self, shift: i64, one_event: bool) {
        let last = other.0.len().saturating_sub(1);
        for (index, extent) in other.0.into_iter().enumerate() {
            let whole = if one_event { index == last } else { extent.whole };
            self.push(Extent { offset: extent.offset + shift, whole, ..extent });
        }
    }

    /// Index of the run that holds the byte at `offset`, or of the first behind it.
    fn find(&self, offset: i64) -> usize {
        self.0.partition_point(|extent| extent.end() <= offset)
    }

    /// The places of up to `len` bytes from `from` on.
    pub(crate) fn places(&self, from: i64, len: u32) -> Vec<Place> {
        let mut places = Vec::new();
        let mut left = len;
        for extent in self.0.range(self.find(from)..) {
            let skip = u32::try_from((from - extent.offset).max(0)).expect("within one entry");
            let take = left.min(extent.place.len - skip);
            if take == 0 {
                break;
            }
            places.push(extent.place.part(skip, take));
            left -= take;
        }
        places
    }

    /// The smallest known end of an event at or behind `offset`.
    pub(crate) fn boundary(&self, offset: i64) -> Option<i64> {
        let first = self.find(offset);
        // `offset` itself may be the end of the run before.
        if first > 0 && self.0[first - 1].end() == offset && self.0[first - 1].whole {
            return Some(offset);
        }
        self.0.range(first..).find(|extent| extent.whole).map(Extent::end)
    }

    /// The lowest entry that any byte lies in.
    pub(crate) fn lowest(&self) -> Option<Address> {
        self.0.iter().map(|extent| extent.place.address).min()
    }

    /// How many runs there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// C8 for a segment `[start, length)`.
    pub(crate) fn verify(&self, start: i64, length: i64) -> Result<(), String> {
        let Some(first) = self.0.front() else {
            return if start == length {
                Ok(())
            } else {
                Err(format!("no bytes where [{start}, {length}) should be"))
            };
        };
        if first.offset > start || first.end() <= start {
            return Err(format!("bytes begin at {} and not at {start}", first.offset));
        }
        let mut end = first.offset;
        for extent in &self.0 {
            if extent.offset != end || extent.place.len == 0 {
                return Err(format!("bytes at {} do not follow {end}", extent.offset));
            }
            end = extent.end();
        }
        if end == length { Ok(()) } else { Err(format!("bytes end at {end} and not at {length}")) }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_count(out, self.0.len());
        out.reserve(self.0.len() * EXTENT_BYTES);
        for extent in &self.0 {
            out.put_i64_le(extent.offset);
            put_address(out, extent.place.address);
            out.put_u32_le(extent.place.position);
            out.put_u32_le(extent.place.len);
            out.put_u8(extent.whole.into());
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, FormatError> {
        let count = reader.count("extents", EXTENT_BYTES)?;
        let mut runs = VecDeque::with_capacity(count);
        for _ in 0..count {
            runs.push_back(Extent {
                offset: reader.i64("extent offset")?,
                place: Place {
                    address: reader.address("extent address")?,
                    position: reader.u32("extent position")?,
                    len: reader.u32("extent length")?,
                },
                whole: reader.bool("extent whole")?,
            });
        }
        Ok(Self(runs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_types::id::{EntryId, Epoch};

    fn place(entry: u64, position: u32, len: u32) -> Place {
        Place { address: Address::new(Epoch(1), EntryId(entry)), position, len }
    }

    fn extents(runs: &[(i64, Place)]) -> Extents {
        let mut extents = Extents::default();
        for &(offset, place) in runs {
            extents.push(Extent { offset, place, whole: true });
        }
        extents
    }

    #[test]
    fn appends_that_lie_together_become_one_run() {
        let extents =
            extents(&[(0, place(1, 0, 10)), (10, place(1, 10, 5)), (15, place(1, 20, 5))]);
        assert_eq!(extents.len(), 2);
        assert_eq!(extents.places(8, 100), [place(1, 8, 7), place(1, 20, 5)]);
        assert_eq!(extents.verify(0, 20), Ok(()));
    }

    #[test]
    fn truncation_keeps_the_run_that_it_cuts() {
        let mut extents = extents(&[(0, place(1, 0, 10)), (10, place(2, 0, 10))]);
        extents.truncate(9);
        assert_eq!((extents.len(), extents.verify(9, 20)), (2, Ok(())));
        extents.truncate(10);
        assert_eq!((extents.len(), extents.verify(10, 20)), (1, Ok(())));
        extents.truncate(20);
        assert_eq!((extents.len(), extents.verify(20, 20)), (0, Ok(())));
    }

    #[test]
    fn merged_bytes_keep_their_places_and_so_their_low_addresses() {
        let mut target = extents(&[(0, place(7, 0, 10))]);
        target.absorb(extents(&[(0, place(2, 0, 4)), (4, place(3, 0, 4))]), 10, false);
        assert_eq!(target.verify(0, 18), Ok(()));
        assert_eq!(target.lowest(), Some(Address::new(Epoch(1), EntryId(2))));
        assert_eq!(target.places(9, 6), [place(7, 9, 1), place(2, 0, 4), place(3, 0, 1)]);
    }

    #[test]
    fn an_event_never_ends_within_a_large_event() {
        let mut target = extents(&[(0, place(1, 0, 10))]);
        target.absorb(extents(&[(0, place(2, 0, 4)), (4, place(3, 0, 4))]), 10, true);
        assert_eq!(target.boundary(10), Some(10));
        assert_eq!(target.boundary(11), Some(18));
        assert_eq!(target.boundary(19), None);
    }

    #[test]
    fn a_gap_is_found() {
        let broken = Extents(VecDeque::from([
            Extent { offset: 0, place: place(1, 0, 5), whole: true },
            Extent { offset: 6, place: place(1, 5, 5), whole: true },
        ]));
        assert!(broken.verify(0, 11).is_err());
        assert!(Extents::default().verify(0, 1).is_err());
    }
}
