//! Repair: what was damaged, forgotten or lost is copied from those who still have it.
//!
//! * `plan`: what a listing of all registers says about this storage: what to copy where, whose doubt may end, what may
//!   go. `watch`: who is lost.
//! * `copy`: copies one range to one replica, entry by entry. `pace`: bytes per second.
//! * `scrub`: reads everything that is live, in a period.
//! * `shell`: the task that does all this for one mounted storage.
//!
//! A copy is what several holders agree on, or what the only holder has; it adds bytes and never certainty. Doubt
//! about a ledger ends only when it is closed and all that shall be here was read back whole, or when nobody needs it
//! any more. Nothing is deleted but on the word of a register: its `keep_from`, or the container's own deletion. What
//! a listing does not mention stays.
//!
//! Two repairers, a recoverer or a trim may act at the same time: epochs in front of every copy, and the checks of the
//! register, keep them apart. Nothing about a repair is remembered: after a crash the next round finds what is missing.
//!
//! Deliberately not here: ledgers that are being recovered (`recovery`), the ensemble of an open one (`writer`).

mod copy;
mod pace;
mod plan;
mod scrub;
mod shell;
mod watch;

pub use shell::{Counters, Parts, Repairer};

use crate::mounts::MemoryMounts;
use crate::register::{ContainerLog, RegisterUnavailable};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_types::id::{ContainerId, ReplicaId};

/// All registers as they stood at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Grows with every change of any register: which moment it was.
    pub version: u64,
    /// No container was left out. Only such a listing may end the doubt about what a storage does not know.
    pub complete: bool,
    /// The registers.
    pub logs: Vec<ContainerLog>,
    /// Containers that were deleted for good.
    pub deleted: Vec<ContainerId>,
    /// Storages that will not come back: superseded, rolled back, or declared lost.
    pub lost: Vec<ReplicaId>,
}

/// Where registers can be looked at, all at once.
pub trait Overview: Send + Sync {
    /// The registers, not older than the call.
    fn listing(&self) -> BoxFuture<'_, Result<Listing, RegisterUnavailable>>;
}

impl Overview for MemoryMounts {
    fn listing(&self) -> BoxFuture<'_, Result<Listing, RegisterUnavailable>> {
        let logs = self.registers();
        let listing =
            Listing { version: 0, complete: true, logs, deleted: Vec::new(), lost: self.lost() };
        Box::pin(std::future::ready(Ok(listing)))
    }
}

/// How one storage is repaired.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How often the registers are looked at.
    pub pause: Duration,
    /// Bytes per second that repairs may read and copy.
    pub bandwidth: u64,
    /// Bytes that a copy may read at once, however low the bandwidth.
    pub burst: u64,
    /// Everything that is live is read within this time, and what came meanwhile within the next such time.
    pub scrub_period: Duration,
    /// A storage that has not been reachable for so long is lost.
    pub silence: Duration,
    /// How long an answer may take.
    pub patience: Duration,
    /// Entries on their way at once.
    pub window: usize,
}

impl Config {
    /// What a real node uses.
    pub fn production() -> Self {
        Self {
            pause: Duration::from_secs(5),
            bandwidth: 32 * 1024 * 1024,
            burst: 8 * 1024 * 1024,
            scrub_period: Duration::from_secs(24 * 3600),
            silence: Duration::from_secs(30 * 60),
            patience: Duration::from_secs(5),
            window: 16,
        }
    }

    /// Haste, so that a short simulation sees it all.
    pub fn simulated() -> Self {
        Self {
            pause: Duration::from_millis(500),
            scrub_period: Duration::from_secs(5),
            silence: Duration::from_secs(20),
            patience: Duration::from_millis(500),
            window: 4,
            ..Self::production()
        }
    }
}
