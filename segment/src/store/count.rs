//! How much a container has acknowledged, for others to look at without asking it.

use crate::container::Acknowledged;
use std::sync::atomic::{AtomicU64, Ordering};

/// Written by its container once a commit, read by anybody; the three figures may be of two commits.
#[derive(Debug, Default)]
pub(super) struct Count {
    blocks: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    pub(super) fn set(&self, now: Acknowledged) {
        self.blocks.store(now.blocks, Ordering::Relaxed);
        self.events.store(now.events, Ordering::Relaxed);
        self.bytes.store(now.bytes, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Acknowledged {
        Acknowledged {
            blocks: self.blocks.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
