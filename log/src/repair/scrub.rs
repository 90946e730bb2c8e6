//! The scrub: which entry is read next, and when.
//!
//! A sweep reads what was held when it began, in order, within half a period: so whatever is written during one is read
//! by the end of the next, within the period.

use super::pace::Bucket;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;
use thalweg_actor::probe;
use thalweg_types::id::{EntryId, LedgerId};
use thalweg_types::time::Instant;

/// A run of entries of one ledger that a storage holds.
pub(super) type Held = (LedgerId, Range<u64>);

/// Reads at least this many bytes per second, whatever is there: a small storage is done sooner.
const RATE_MIN: u64 = 64 * 1024;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Sweep {
    period: Duration,
    left: VecDeque<Held>,
    next_at: Instant,
    bucket: Bucket,
    /// How many sweeps have ended.
    pub(super) ended: u64,
}

impl Sweep {
    pub(super) fn new(now: Instant, period: Duration, burst: u64) -> Self {
        let bucket = Bucket::new(now, RATE_MIN, burst);
        Self { period, left: VecDeque::new(), next_at: now, bucket, ended: 0 }
    }

    /// True if a sweep should begin: [`Sweep::begin`].
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.left.is_empty() && now >= self.next_at
    }

    /// Begins a sweep over `held`, of `bytes` bytes.
    pub(super) fn begin(&mut self, now: Instant, held: Vec<Held>, bytes: u64) {
        self.left = held.into_iter().filter(|(_, entries)| !entries.is_empty()).collect();
        self.next_at = now.after(self.period / 2);
        let seconds = (self.period / 2).as_secs().max(1);
        self.bucket.set_rate(now, (bytes / seconds).max(RATE_MIN));
    }

    /// The next entry to be read, if it is time.
    pub(super) fn next(&mut self, now: Instant) -> Option<(LedgerId, EntryId)> {
        if !self.bucket.is_open(now) {
            return None;
        }
        let (ledger, entries) = self.left.front_mut()?;
        let found = (*ledger, EntryId(entries.next()?));
        if entries.is_empty() {
            self.left.pop_front();
        }
        if self.left.is_empty() {
            probe!("scrub: sweep ended");
            self.ended += 1;
        }
        Some(found)
    }

    /// What was read.
    pub(super) fn read(&mut self, now: Instant, bytes: u64) {
        self.bucket.take(now, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use thalweg_types::id::{ContainerId, Epoch};

    const PERIOD: Duration = Duration::from_secs(1000);

    fn ledger(container: u32) -> LedgerId {
        LedgerId { container: ContainerId(container), epoch: Epoch(1) }
    }

    #[test]
    fn everything_is_read_within_the_period_and_not_all_at_once() {
        let start = Instant(0);
        let entry = 1024 * 1024;
        let mut sweep = Sweep::new(start, PERIOD, 1);
        let mut read: BTreeMap<(LedgerId, EntryId), Vec<u64>> = BTreeMap::new();
        for second in 0..3000_u64 {
            let now = start.after(Duration::from_secs(second));
            if sweep.is_due(now) {
                let held = vec![(ledger(1), 5..105), (ledger(2), 0..0), (ledger(3), 7..8)];
                sweep.begin(now, held, 101 * entry);
            }
            while let Some(found) = sweep.next(now) {
                read.entry(found).or_default().push(second);
                sweep.read(now, entry);
            }
        }
        assert_eq!(read.len(), 101);
        for (found, at) in read {
            let mut before = 0;
            for second in at.iter().chain([&3000]) {
                assert!(second - before <= 1000, "{found:?}: {at:?}");
                before = *second;
            }
        }
        assert!(sweep.ended >= 5, "{}", sweep.ended);
    }
}
