//! What a measurement of single events says: its rate, and how long they took.

use super::device;
use super::load::Count;
use super::raw::quantile;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Times in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Times {
    pub(super) events_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    max_us: f64,
    device_flushes_per_second: Option<f64>,
}

impl Times {
    /// Of `count`, which took `took`; `flushes` is what the device of `folder` had counted before.
    pub(super) fn new(count: &Count, took: Duration, folder: &Path, flushes: Option<u64>) -> Self {
        let seconds = took.as_secs_f64();
        let flushes = device::flushes(folder).zip(flushes);
        Self {
            events_per_second: count.events as f64 / seconds,
            p50_us: quantile(&count.times, 0.5),
            p99_us: quantile(&count.times, 0.99),
            p999_us: quantile(&count.times, 0.999),
            max_us: quantile(&count.times, 1.0),
            device_flushes_per_second: flushes.map(|(now, then)| (now - then) as f64 / seconds),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} events/s, p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, max {:.0} µs",
            self.events_per_second, self.p50_us, self.p99_us, self.p999_us, self.max_us
        )?;
        match self.device_flushes_per_second {
            Some(flushes) => write!(f, ", {flushes:.0} device flushes/s"),
            None => Ok(()),
        }
    }
}
