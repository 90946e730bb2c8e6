//! A storage as replicas see it: the contract of the disk log engine.

use crate::frame::{Frame, LedgerState};
use crate::ledger::{ReadError, Stopped};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, LedgerId, StorageUuid};
use tokio::sync::watch;

/// Numbers staged frames from 1 in order of staging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How far the storage has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageProgress {
    /// Every frame up to this one is durable.
    pub durable: Ticket,
    /// Frames beyond `durable` that are durable too: on a full disk they were allowed past those that are held.
    /// Empty at any other time.
    pub passed: Arc<BTreeSet<Ticket>>,
    /// Why frames that are not exempt wait (a full disk), for people and `/health`. Whoever sees this SHOULD stage no
    /// more of them.
    pub held: Option<Arc<str>>,
    /// The disk's actor has ended (a failed sync, an I/O error): final. Nothing beyond `durable` may be relied on,
    /// and the process must end.
    pub stopped: Option<Arc<str>>,
}

impl StorageProgress {
    /// True if the frame of `ticket` is durable.
    pub fn covers(&self, ticket: Ticket) -> bool {
        ticket <= self.durable || self.passed.contains(&ticket)
    }
}

/// What was found at start, after the storage's own recovery: all of it is durable.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Every ledger with its last known state; entries found behind a state have moved its `tail` and `lac`.
    pub ledgers: BTreeMap<LedgerId, LedgerState>,
    /// The lowest epoch that may still be opened, per container.
    pub floors: BTreeMap<ContainerId, Epoch>,
    /// The trim points, per container.
    pub keep_from: BTreeMap<ContainerId, Address>,
    /// Ranges that an operator has declared lost.
    pub losses: Vec<(LedgerId, EntryId)>,
    /// The storage cannot vouch for ledgers it does not know either (`limbo_from` is set).
    pub limbo: bool,
    /// The newest epoch of a ledger that it may have lost, by container; containers that are missing never had one.
    /// `None`: any epoch may be.
    pub limbo_upto: Option<BTreeMap<ContainerId, Epoch>>,
    /// Each damage that was found, with file and offset, for people.
    pub damages: Vec<String>,
}

/// An entry read back and verified.
#[derive(Clone, Debug)]
pub struct StoredEntry {
    /// Which entry.
    pub entry: EntryId,
    /// Operation headers.
    pub headers: Bytes,
    /// Length of the payload in bytes.
    pub payload_len: usize,
}

/// One disk's log. Cheap to share.
pub trait Storage: Send + Sync {
    /// The storage's identity.
    fn uuid(&self) -> StorageUuid;

    /// How many times it has been mounted, this time included.
    fn mount_seq(&self) -> u64;

    /// What was found at start.
    fn recovered(&self) -> Arc<Recovered>;

    /// Stages `frame` behind all earlier ones. Never waits. While the disk is full, frames that may not use the
    /// reserve stay staged and everything behind an entry of the same ledger waits with it, but for an exempt entry,
    /// which draws those in front of it along; nothing is dropped.
    fn stage(&self, frame: Frame) -> Result<Ticket, Stopped>;

    /// How far it has come; one notice per batch.
    fn progress(&self) -> watch::Receiver<StorageProgress>;

    /// The headers of up to `max` consecutive entries from `from` on, durable or staged before this call; empty
    /// if `from` lies beyond the tail of every run.
    fn headers(
        &self,
        ledger: LedgerId,
        from: EntryId,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredEntry>, ReadError>>;

    /// The payload of one entry, verified.
    fn payload(&self, ledger: LedgerId, entry: EntryId) -> BoxFuture<'_, Result<Bytes, ReadError>>;

    /// Which entries are here, durably, as runs by ledger, and how many bytes they take. Whether they can be read is
    /// another question.
    fn held(&self) -> (Vec<(LedgerId, Range<u64>)>, u64);

    /// True while the storage cannot vouch for ledgers that it does not know: what [`Recovered::limbo`] said, until
    /// [`Storage::end_limbo`].
    fn in_limbo(&self) -> bool;

    /// Ends that for good, durably. The caller has proof that the storage lacks nothing that anybody relies on. False,
    /// and no change, while a ledger that it knows is uncertain. A crash leaves the old or the new.
    fn end_limbo(&self) -> BoxFuture<'_, Result<bool, Stopped>>;

    /// Stops after what is staged is durable, or as much of it as a full disk takes, and marks the storage as cleanly
    /// stopped.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
