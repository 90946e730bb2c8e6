//! The simulated clock: every process has an origin, a drift and a wall time of its own.

use super::executor;
use super::rng::Rng;
use std::sync::{Arc, Mutex, PoisonError};
use thalweg_actor::BoxFuture;
use thalweg_actor::clock::Clock;
use thalweg_types::time::{Instant, WallTime};

/// Fastest and slowest drift in parts per million.
const DRIFT_PPM_MAX: u64 = 500;
/// 2026-01-01 in milliseconds.
const WALL_EPOCH_MS: i64 = 1_767_225_600_000;

/// The wall clock of a host. It outlives processes, and the nemesis moves it.
#[derive(Clone, Default)]
pub(crate) struct WallOffset(Arc<Mutex<i64>>);

impl WallOffset {
    /// Moves the host's wall clock by `by` milliseconds.
    pub(crate) fn jump(&self, by: i64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    fn get(&self) -> i64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock of one process.
pub(crate) struct SimClock {
    start: u64,
    origin: u64,
    /// Nanoseconds of this clock per million of the world's.
    rate: u64,
    wall: WallOffset,
}

impl SimClock {
    /// A clock with a drawn origin and drift.
    pub(crate) fn new(rng: &mut Rng, wall: WallOffset) -> Self {
        Self {
            start: executor::now(),
            origin: rng.range(0, 1 << 50),
            rate: 1_000_000 + rng.range(0, 2 * DRIFT_PPM_MAX + 1) - DRIFT_PPM_MAX,
            wall,
        }
    }

    fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
        let scaled = u128::from(value) * u128::from(numerator) / u128::from(denominator);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        let elapsed = executor::now() - self.start;
        Instant(self.origin.saturating_add(Self::scale(elapsed, self.rate, 1_000_000)))
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let own = at.0.saturating_sub(self.origin);
        // Rounded up: a sleep never ends early.
        let world = Self::scale(own, 1_000_000, self.rate).saturating_add(2);
        Box::pin(executor::sleep_until(self.start.saturating_add(world)))
    }

    fn wall(&self) -> WallTime {
        let elapsed_ms = i64::try_from(executor::now() / 1_000_000).unwrap_or(i64::MAX);
        WallTime(WALL_EPOCH_MS.saturating_add(elapsed_ms).saturating_add(self.wall.get()))
    }
}
