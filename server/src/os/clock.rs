//! The clock of the system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thalweg_actor::BoxFuture;
use thalweg_actor::clock::Clock;
use thalweg_types::time::{Instant, WallTime};

/// `CLOCK_MONOTONIC` since this was made, and `CLOCK_REALTIME`. Timers fire up to a millisecond late, never early.
pub(crate) struct SystemClock {
    origin: std::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { origin: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::default().after(self.origin.elapsed())
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        // A time that the timer cannot express is far enough away to never come.
        let Some(at) = self.origin.checked_add(Duration::from_nanos(at.0)) else {
            return Box::pin(std::future::pending());
        };
        Box::pin(tokio::time::sleep_until(at.into()))
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
