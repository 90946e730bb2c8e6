//! Log lines that others can provoke: a few each second, and how many were left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use thalweg_actor::clock::Clock;
use tracing::warn;

/// Lines each second at most.
const LINES_MAX: u64 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Bounds what a stranger can write into the log.
pub struct Notices {
    clock: Arc<dyn Clock>,
    /// Which second it is, by the clock.
    window: AtomicU64,
    lines: AtomicU64,
}

impl Notices {
    /// Nothing said yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, window: AtomicU64::new(0), lines: AtomicU64::new(0) }
    }

    /// Logs a line unless there were too many in this second; the first one of a later second says how many are
    /// missing.
    pub fn say(&self, line: impl FnOnce() -> String) {
        let (said, left_out) = self.count();
        if left_out > 0 {
            warn!("{left_out} lines like the last ones were left out");
        }
        if said {
            warn!("{}", line());
        }
    }

    /// Whether a line may be said now, and how many of the last window were left out. Threads that race here may say
    /// one line more or less: no harm.
    fn count(&self) -> (bool, u64) {
        let now = self.clock.now().0 / u64::try_from(WINDOW.as_nanos()).expect("a second");
        let mut left_out = 0;
        if self.window.swap(now, Ordering::Relaxed) != now {
            left_out = self.lines.swap(0, Ordering::Relaxed).saturating_sub(LINES_MAX);
        }
        (self.lines.fetch_add(1, Ordering::Relaxed) < LINES_MAX, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::TestClock;
    use super::*;

    #[test]
    fn a_flood_of_lines_becomes_a_few_and_their_number() {
        let clock = Arc::new(TestClock::default());
        let notices = Notices::new(clock.clone());
        let said = (0..50).filter(|_| notices.count().0).count();
        assert_eq!(said, 10);
        clock.advance(Duration::from_secs(1));
        assert_eq!(notices.count(), (true, 40));
        assert_eq!(notices.count(), (true, 0));
    }
}
