//! When snapshots are taken, which are kept, and from where the log must be.
//!
//! Two snapshots are kept. The log is kept from the first entry behind what the older one covers, and from the lowest
//! entry that any segment's bytes lie in. A snapshot counts once its last part is committed, never before.
//! While the disk is full whatever is truncated or deleted is followed by a snapshot: that alone lets go of it.

use crate::container::format::Operation;
use crate::container::{Container, Effect, Effects, Tuning, snapshot};
use thalweg_actor::{planted, probe};
use thalweg_log::ledger::{SnapshotPointer, SnapshotPointers};
use thalweg_types::id::{Address, EntryId};
use thalweg_types::time::Instant;

/// An idle container with fewer entries and bytes than these since its last snapshot takes none.
const IDLE_ENTRIES_MIN: u64 = 64;
const IDLE_BYTES_MIN: u64 = 64 * 1024;
/// A snapshot because of many entries may be so many times as large as they are.
const STATE_SHARE: u64 = 4;

/// A snapshot on its way into the log.
#[derive(Clone, Copy, Debug)]
struct Taking {
    pointer: SnapshotPointer,
    /// The entry of its last part.
    last: EntryId,
    /// The lowest entry that the state in it refers to.
    lowest: Option<Address>,
}

/// What is kept of the log.
#[derive(Debug, Default)]
pub(super) struct Retention {
    pub(super) snapshots: SnapshotPointers,
    pub(super) keep_from: Address,
    taking: Option<Taking>,
    /// The register has not answered yet.
    is_storing: bool,
    state_bytes: u64,
    log_bytes: u64,
    entries: u64,
    /// The disk is full: what is not needed any more is to be let go at once.
    is_short: bool,
    /// Something was truncated or deleted since the last snapshot.
    has_released: bool,
    last_entry_at: Instant,
}

/// The first address behind `covered`. No ledger need have such an entry.
pub(super) fn behind(covered: Address) -> Address {
    Address::new(covered.epoch, covered.entry.next())
}

impl Retention {
    /// After a recovery that replayed `entries` of `bytes` in all.
    pub(super) fn new(
        snapshots: SnapshotPointers,
        keep_from: Address,
        entries: u64,
        bytes: u64,
    ) -> Self {
        Self { snapshots, keep_from, entries, log_bytes: bytes, ..Self::default() }
    }

    /// An entry of that many bytes goes into the log.
    pub(super) fn logged(&mut self, bytes: usize, now: Instant) {
        self.log_bytes += bytes as u64;
        self.entries += 1;
        self.last_entry_at = now;
    }

    /// Something was truncated or deleted: a snapshot would let go of it.
    pub(super) fn released(&mut self) {
        self.has_released = true;
    }

    /// The disk is full, or no more.
    pub(super) fn space(&mut self, is_short: bool) {
        self.is_short = is_short;
    }

    /// The register has what it was asked to store.
    pub(super) fn stored(&mut self) {
        self.is_storing = false;
    }

    fn is_busy(&self) -> bool {
        self.taking.is_some() || self.is_storing
    }

    fn is_due(&self, now: Instant, tuning: &Tuning) -> bool {
        let many = self.entries >= tuning.snapshot_entries
            && self.log_bytes >= self.state_bytes / STATE_SHARE;
        !self.is_busy()
            && (many
                || self.is_short && self.has_released
                || self.log_bytes >= tuning.snapshot_log_bytes.max(self.state_bytes)
                || self.idle_deadline(tuning).is_some_and(|at| at <= now))
    }

    pub(super) fn idle_deadline(&self, tuning: &Tuning) -> Option<Instant> {
        let is_worth_it = self.entries >= IDLE_ENTRIES_MIN || self.log_bytes >= IDLE_BYTES_MIN;
        (is_worth_it && !self.is_busy()).then(|| self.last_entry_at.after(tuning.snapshot_idle))
    }

    /// The snapshot is in the log: the newest becomes the older.
    fn retain(&mut self, taken: Taking) -> Effect {
        self.snapshots =
            SnapshotPointers { newest: Some(taken.pointer), older: self.snapshots.newest };
        if let Some(older) = self.snapshots.older {
            let covered = older.covers.map_or(self.keep_from, behind);
            let keep_from = taken.lowest.map_or(covered, |lowest| lowest.min(covered));
            self.keep_from = self.keep_from.max(keep_from);
        } else {
            // The first snapshot lets go of nothing: on a full disk the second one follows at once.
            self.has_released = self.is_short;
        }
        self.store()
    }

    fn store(&mut self) -> Effect {
        self.is_storing = true;
        Effect::SetKeepFrom { keep_from: self.keep_from, snapshots: self.snapshots.clone() }
    }

    /// The planted bugs PB-D6 and PB-T1: the register learns of a snapshot that is not in the log yet, and of a log
    /// that begins behind it.
    fn retain_too_early(&mut self, taking: Taking) -> Option<Effect> {
        let covered = taking.pointer.covers.map_or(self.keep_from, behind);
        if planted!("PB-D6") {
            self.snapshots =
                SnapshotPointers { newest: Some(taking.pointer), older: Some(taking.pointer) };
        } else if !planted!("PB-T1") {
            return None;
        }
        self.keep_from = taking.lowest.map_or(covered, |lowest| lowest.min(covered));
        Some(self.store())
    }
}

impl Container {
    pub(super) fn snapshot_if_due(&mut self, effects: &mut Effects) {
        if !self.has_stopped && self.retention.is_due(self.now, &self.tuning) {
            self.take_snapshot(effects);
        }
    }

    /// Writes the whole state behind everything sequenced so far.
    fn take_snapshot(&mut self, effects: &mut Effects) {
        if !self.open.is_empty() {
            self.submit(true, effects);
        }
        let at = self.next_address();
        let covers = self.last_address;
        let lowest = self.state.lowest();
        let parts = snapshot::encode(&self.state, covers);
        probe!("container: snapshot");
        if parts.len() > 1 {
            probe!("container: snapshot of several entries");
        }
        self.retention.state_bytes = parts.iter().map(|part| part.len() as u64).sum();
        for part in parts {
            let len = u32::try_from(part.len()).expect("parts are bounded");
            self.open.push(&Operation::Snapshot { len }, [part], self.wall);
            self.submit(true, effects);
        }
        let last = EntryId(self.next_entry.0 - 1);
        let taking = Taking { pointer: SnapshotPointer { at, covers }, last, lowest };
        self.retention.log_bytes = 0;
        self.retention.entries = 0;
        self.retention.has_released = false;
        self.retention.taking = Some(taking);
        effects.extend(self.retention.retain_too_early(taking));
    }

    /// `entry` and everything before it is committed.
    pub(super) fn snapshot_committed(&mut self, entry: EntryId, effects: &mut Effects) {
        if let Some(taking) = self.retention.taking
            && taking.last <= entry
        {
            self.retention.taking = None;
            effects.push(self.retention.retain(taking));
        }
    }
}
