//! A container's log as its owner sees it: open it, replay it, append to it, read from it.
//!
//! One ledger per (container, epoch); the epochs' ledgers one behind the other are the container's log.

use bytes::Bytes;
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_types::id::{Address, ContainerId, EntryId, LedgerId};
use thiserror::Error;
use tokio::sync::watch;

/// What is appended as one unit: operation headers in front, payload behind. A replay reads headers alone.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The operations' headers.
    pub headers: Bytes,
    /// The operations' payload: the chunks are stored one behind the other, never copied.
    pub payload: Vec<Bytes>,
    /// May use the reserve of a full disk: only for operations that relieve it or that owe nothing to a client
    /// (snapshot, seal, truncate, delete, owner start, collection).
    pub exempt: bool,
}

/// How far a ledger has come.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// The last committed entry: it and everything before it is durable on the ack quorum.
    pub committed: Option<EntryId>,
    /// Why appends that are not exempt make no progress for now (a full disk), for people and `/health`.
    pub held: Option<Arc<str>>,
    /// The ledger has ended for this owner (fenced, or its disk failed). Final. Entries beyond `committed` have an
    /// unknown outcome.
    pub stopped: Option<Arc<str>>,
    /// The owner itself has ended the ledger, because a fresh ensemble takes a new epoch: whoever owns the container
    /// shall open its log again at once.
    pub renew: bool,
}

/// The ledger has ended for this owner. Whether entries beyond the last committed one survive is unknown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the ledger has stopped: {reason}")]
pub struct Stopped {
    /// Why.
    pub reason: Arc<str>,
}

/// Why an entry cannot be read. None of these says that the entry does not exist.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// The bytes are damaged or out of reach: UNKNOWN, never "empty".
    #[error("entry {address} cannot be read: {reason}")]
    Unknown {
        /// Which entry.
        address: Address,
        /// File, offset and what was found there.
        reason: Arc<str>,
    },
    /// The entry lies below `keep_from`: a caller that still needs it is wrong.
    #[error("entry {address} has been trimmed")]
    Trimmed {
        /// Which entry.
        address: Address,
    },
    /// The ledger has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Where a container's two retained snapshots are, newest first, and up to where they cover the log. Opaque bytes
/// of the container's own making; they travel with `keep_from` in the register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPointers {
    /// The newest snapshot.
    pub newest: Option<SnapshotPointer>,
    /// The one before.
    pub older: Option<SnapshotPointer>,
}

/// One snapshot: the entry that holds it, and the last entry whose effects it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPointer {
    /// The first of the consecutive entries that hold the snapshot.
    pub at: Address,
    /// Everything up to here is in it; `None` when it covers nothing.
    pub covers: Option<Address>,
}

/// The writing end of one ledger, and the reading end of the container's whole log.
pub trait Ledger: Send + Sync {
    /// Which ledger.
    fn id(&self) -> LedgerId;

    /// Stages `entry` behind all earlier ones and returns its number at once. Numbers start at 0 and have no gap.
    /// Committed entries are announced through [`Ledger::progress`]; an entry that is not announced has an unknown
    /// outcome. Never waits: callers bound what they have in flight.
    fn append(&self, entry: Entry) -> Result<EntryId, Stopped>;

    /// How far the ledger has come; the receiver sees every final state.
    fn progress(&self) -> watch::Receiver<Progress>;

    /// The whole payload of a committed entry of this log, verified against its checksum. MUST NOT be asked for
    /// entries that are neither committed nor of a closed ledger.
    fn read(&self, address: Address) -> BoxFuture<'_, Result<Bytes, ReadError>>;

    /// Declares everything below `keep_from` disposable and stores where the snapshots are, both in one step. When
    /// this returns the register has it; the space is freed later. `keep_from` MUST NOT exceed what the older
    /// snapshot and every live extent allow. A crash leaves the old or the new values.
    fn set_keep_from(
        &self,
        keep_from: Address,
        snapshots: SnapshotPointers,
    ) -> BoxFuture<'_, Result<(), Stopped>>;

    /// True if the only replica is in this process: a reply then needs no barrier entry of its own.
    fn is_local(&self) -> bool;
}

/// One entry met in a replay.
#[derive(Clone, Debug)]
pub struct ReplayedEntry {
    /// Its place.
    pub address: Address,
    /// Its operation headers, verified. The payload is read on demand with [`Ledger::read`].
    pub headers: Bytes,
    /// Length of its payload in bytes.
    pub payload_len: usize,
}

/// The committed entries of a container's log in order.
pub trait Replay: Send {
    /// The next entry, `None` behind the last. An error ends the replay: the container MUST NOT start.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<ReplayedEntry>, ReadError>>;
}

/// A container's log that this process now owns.
pub struct Opened {
    /// A fresh ledger of a new epoch. Nothing has been appended to it.
    pub ledger: Arc<dyn Ledger>,
    /// The first entry that is still kept.
    pub keep_from: Address,
    /// The retained snapshots.
    pub snapshots: SnapshotPointers,
}

/// Why a container's log cannot be opened.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// Somebody else owns the container by now.
    #[error("container {container} belongs to a newer owner")]
    Superseded {
        /// Which container.
        container: ContainerId,
    },
    /// Part of the log is UNKNOWN: opening it could lose acknowledged data.
    #[error("the log of container {container} cannot be recovered: {reason}")]
    Damaged {
        /// Which container.
        container: ContainerId,
        /// File, offset and what to do.
        reason: Arc<str>,
    },
    /// The disk or register failed; trying again may help.
    #[error("the log of container {container} cannot be opened now: {reason}")]
    Unavailable {
        /// Which container.
        container: ContainerId,
        /// Why.
        reason: Arc<str>,
    },
}

/// Opens containers' logs.
pub trait Logs: Send + Sync {
    /// Takes the container over: fences every earlier owner, recovers the tail, and opens a ledger of a new epoch.
    /// When it returns, no earlier owner can have anything acknowledged any more. A crash in the middle leaves the
    /// log for the next owner to recover.
    fn open(&self, container: ContainerId) -> BoxFuture<'_, Result<Opened, OpenError>>;

    /// The committed entries of the log that `opened` took over, from `from` (its `keep_from` if `None`) to the end
    /// of the last closed ledger.
    fn replay(&self, opened: &Opened, from: Option<Address>) -> Box<dyn Replay>;
}
