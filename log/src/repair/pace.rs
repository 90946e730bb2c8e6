//! Bytes per second.

use std::time::Duration;
use thalweg_types::time::Instant;

/// A bucket of bytes that fills with time. Whoever finds it not empty may take any amount: what is taken too much has
/// to flow in before the next one may.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    per_second: u64,
    burst: i128,
    level: i128,
    at: Instant,
}

const SECOND: i128 = 1_000_000_000;

impl Bucket {
    pub(super) fn new(now: Instant, per_second: u64, burst: u64) -> Self {
        let burst = i128::from(burst.max(1));
        Self { per_second: per_second.max(1), burst, level: burst, at: now }
    }

    /// From now on it fills at this rate.
    pub(super) fn set_rate(&mut self, now: Instant, per_second: u64) {
        self.fill(now);
        self.per_second = per_second.max(1);
    }

    fn fill(&mut self, now: Instant) {
        let passed = i128::try_from(now.since(self.at).as_nanos()).unwrap_or(i128::MAX >> 64);
        let flowed = passed.saturating_mul(i128::from(self.per_second)) / SECOND;
        if flowed > 0 {
            self.level = self.burst.min(self.level + flowed);
            self.at = now;
        }
    }

    /// True if there is something in it.
    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level > 0
    }

    /// When it will be open.
    pub(super) fn opens_at(&self) -> Instant {
        let lacking = u128::try_from(1 - self.level).unwrap_or(0);
        let nanos = (lacking * SECOND.unsigned_abs()).div_ceil(u128::from(self.per_second));
        self.at.after(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    pub(super) fn take(&mut self, now: Instant, bytes: u64) {
        self.fill(now);
        self.level -= i128::from(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_while_no_more_flows_than_the_rate() {
        let mut now = Instant(5);
        let mut bucket = Bucket::new(now, 1000, 100);
        let mut taken = 0;
        while now.since(Instant(5)) < Duration::from_secs(10) {
            if bucket.is_open(now) {
                bucket.take(now, 70);
                taken += 70;
            } else {
                assert!(bucket.opens_at() > now);
                now = bucket.opens_at();
                assert!(bucket.is_open(now), "it opens when it says");
            }
        }
        assert!((9_900..=10_270).contains(&taken), "{taken}");
    }
}
