//! Key ranges and stream cuts.

use crate::id::SegmentId;
use std::collections::BTreeMap;

/// A part of the key space `[0, 1]`: a segment owns hash `h` when `low <= h < high`, or `h == high == 1`.
/// Bounds are computed once and then copied: clients compare them bit by bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyRange {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl KeyRange {
    /// `count` equal parts of the whole key space, in order; the last ends at exactly 1.
    pub fn split_evenly(count: u32) -> Vec<Self> {
        let bound = |i: u32| if i == count { 1.0 } else { f64::from(i) / f64::from(count) };
        (0..count).map(|i| Self { low: bound(i), high: bound(i + 1) }).collect()
    }

    /// True if the two share more than a bound.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low < other.high && other.low < self.high
    }
}

/// A consistent position in a stream: an offset in each of the segments that cover the key space once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamCut(pub BTreeMap<SegmentId, i64>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_touch_and_end_at_one() {
        for count in 1..100 {
            let parts = KeyRange::split_evenly(count);
            assert_eq!(parts[0].low.to_bits(), 0.0_f64.to_bits());
            assert_eq!(parts[parts.len() - 1].high.to_bits(), 1.0_f64.to_bits());
            assert!(parts.windows(2).all(|w| w[0].high.to_bits() == w[1].low.to_bits()));
            assert!(parts.windows(2).all(|w| !w[0].overlaps(&w[1])));
        }
    }
}
