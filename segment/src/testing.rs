//! Containers' logs in memory: for tests of what stands on them. Nothing here is used by the product.
//!
//! A log commits what is appended at once, unless it is told to hold. Opening a container fences its last owner, and
//! drops what that had not committed, as after a power loss.

use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thalweg_actor::BoxFuture;
use thalweg_log::ledger::{
    Entry, Ledger, Logs, OpenError, Opened, Progress, ReadError, Replay, ReplayedEntry,
    SnapshotPointers, Stopped,
};
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, LedgerId};
use tokio::sync::watch;

#[derive(Clone, Debug)]
struct Stored {
    headers: Bytes,
    payload: Bytes,
}

/// One container's log.
#[derive(Debug)]
struct Log {
    entries: BTreeMap<Address, Stored>,
    epoch: Epoch,
    next: EntryId,
    keep_from: Address,
    snapshots: SnapshotPointers,
    progress: watch::Sender<Progress>,
    holds: bool,
    rotten: BTreeSet<Address>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            epoch: Epoch(0),
            next: EntryId(0),
            keep_from: Address::default(),
            snapshots: SnapshotPointers::default(),
            progress: watch::Sender::new(Progress::default()),
            holds: false,
            rotten: BTreeSet::new(),
        }
    }
}

impl Log {
    fn committed(&self) -> Option<EntryId> {
        self.progress.borrow().committed
    }

    fn commit(&mut self, upto: Option<EntryId>) {
        self.progress.send_modify(|progress| progress.committed = upto.max(progress.committed));
    }
}

#[derive(Debug, Default)]
struct Shared {
    logs: BTreeMap<ContainerId, Log>,
    reads: u64,
}

/// Logs in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryLogs {
    shared: Arc<Mutex<Shared>>,
    /// Ledgers say that replies need barriers.
    is_remote: bool,
}

impl MemoryLogs {
    /// Empty logs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empty logs whose replicas are elsewhere.
    pub fn remote() -> Self {
        Self { is_remote: true, ..Self::default() }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, container: ContainerId, act: impl FnOnce(&mut Log) -> T) -> T {
        act(self.shared().logs.entry(container).or_default())
    }

    /// From now on nothing is committed by itself.
    pub fn hold(&self, container: ContainerId) {
        self.with(container, |log| log.holds = true);
    }

    /// Commits everything, and what comes from now on.
    pub fn release(&self, container: ContainerId) {
        self.with(container, |log| {
            log.holds = false;
            let last = log.next.0.checked_sub(1).map(EntryId);
            log.commit(last);
        });
    }

    /// Commits up to `count` more entries.
    pub fn commit(&self, container: ContainerId, count: u64) {
        self.with(container, |log| {
            let committed = log.committed().map_or(0, |entry| entry.0 + 1);
            let end = (committed + count).min(log.next.0);
            log.commit(end.checked_sub(1).map(EntryId));
        });
    }

    /// Entries appended and not committed.
    pub fn uncommitted(&self, container: ContainerId) -> u64 {
        self.with(container, |log| log.next.0 - log.committed().map_or(0, |entry| entry.0 + 1))
    }

    /// Says why appends make no progress, or that they do again.
    pub fn set_held(&self, container: ContainerId, reason: Option<&str>) {
        self.with(container, |log| {
            log.progress.send_modify(|progress| progress.held = reason.map(Arc::from));
        });
    }

    /// Ends the current ledger.
    pub fn stop(&self, container: ContainerId, reason: &str) {
        self.with(container, |log| {
            log.progress.send_modify(|progress| progress.stopped = Some(reason.into()));
        });
    }

    /// The payload of that entry cannot be read any more.
    pub fn rot(&self, container: ContainerId, address: Address) {
        self.with(container, |log| log.rotten.insert(address));
    }

    /// How many entries are kept.
    pub fn len(&self, container: ContainerId) -> usize {
        self.with(container, |log| log.entries.len())
    }

    /// True without an entry.
    pub fn is_empty(&self, container: ContainerId) -> bool {
        self.len(container) == 0
    }

    /// Where the log begins, and where the snapshots are.
    pub fn register(&self, container: ContainerId) -> (Address, SnapshotPointers) {
        self.with(container, |log| (log.keep_from, log.snapshots.clone()))
    }

    /// How many payloads have been read.
    pub fn reads(&self) -> u64 {
        self.shared().reads
    }

    /// A copy of everything that is committed, apart from these logs from now on: what a power loss leaves.
    #[must_use]
    pub fn crashed(&self) -> Self {
        let logs = self
            .shared()
            .logs
            .iter()
            .map(|(container, log)| {
                let last = log.committed();
                let kept =
                    |address: &Address| address.epoch < log.epoch || Some(address.entry) <= last;
                let entries = log
                    .entries
                    .iter()
                    .filter(|(address, _)| kept(address))
                    .map(|(address, stored)| (*address, stored.clone()))
                    .collect();
                let copy = Log {
                    entries,
                    epoch: log.epoch,
                    next: last.map_or(EntryId(0), EntryId::next),
                    keep_from: log.keep_from,
                    snapshots: log.snapshots.clone(),
                    rotten: log.rotten.clone(),
                    ..Log::default()
                };
                copy.progress.send_modify(|progress| progress.committed = last);
                (*container, copy)
            })
            .collect();
        let shared = Shared { logs, reads: 0 };
        Self { shared: Arc::new(Mutex::new(shared)), is_remote: self.is_remote }
    }
}

impl Logs for MemoryLogs {
    fn open(&self, container: ContainerId) -> BoxFuture<'_, Result<Opened, OpenError>> {
        Box::pin(async move {
            let opened = self.with(container, |log| {
                let last = log.committed();
                log.progress.send_modify(|progress| progress.stopped = Some("fenced".into()));
                let old = log.epoch;
                log.entries.retain(|address, _| address.epoch < old || Some(address.entry) <= last);
                log.epoch = Epoch(old.0 + 1);
                log.next = EntryId(0);
                log.holds = false;
                log.progress = watch::Sender::new(Progress::default());
                let ledger = LedgerId { container, epoch: log.epoch };
                (ledger, log.keep_from, log.snapshots.clone())
            });
            let (id, keep_from, snapshots) = opened;
            let ledger = Arc::new(MemoryLedger { id, logs: self.clone() });
            Ok(Opened { ledger, keep_from, snapshots })
        })
    }

    fn replay(&self, opened: &Opened, from: Option<Address>) -> Box<dyn Replay> {
        let id = opened.ledger.id();
        let from = from.unwrap_or(opened.keep_from);
        let upto = Address::new(id.epoch, EntryId(0));
        let entries = self.with(id.container, |log| {
            log.entries
                .range(from..upto)
                .map(|(address, stored)| ReplayedEntry {
                    address: *address,
                    headers: stored.headers.clone(),
                    payload_len: stored.payload.len(),
                })
                .collect()
        });
        Box::new(MemoryReplay { entries })
    }
}

struct MemoryReplay {
    entries: VecDeque<ReplayedEntry>,
}

impl Replay for MemoryReplay {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<ReplayedEntry>, ReadError>> {
        let next = self.entries.pop_front();
        Box::pin(async move { Ok(next) })
    }
}

struct MemoryLedger {
    id: LedgerId,
    logs: MemoryLogs,
}

impl MemoryLedger {
    /// Acts on the log while this ledger is its newest and has not stopped.
    fn current<T>(&self, act: impl FnOnce(&mut Log) -> T) -> Result<T, Stopped> {
        self.logs.with(self.id.container, |log| {
            let stopped = log.progress.borrow().stopped.clone();
            match stopped {
                _ if log.epoch != self.id.epoch => Err(Stopped { reason: "fenced".into() }),
                Some(reason) => Err(Stopped { reason }),
                None => Ok(act(log)),
            }
        })
    }
}

impl Ledger for MemoryLedger {
    fn id(&self) -> LedgerId {
        self.id
    }

    fn append(&self, entry: Entry) -> Result<EntryId, Stopped> {
        let mut payload = BytesMut::new();
        entry.payload.iter().for_each(|chunk| payload.extend_from_slice(chunk));
        self.current(|log| {
            let id = log.next;
            let stored = Stored { headers: entry.headers, payload: payload.freeze() };
            log.entries.insert(Address::new(self.id.epoch, id), stored);
            log.next = id.next();
            if !log.holds {
                log.commit(Some(id));
            }
            id
        })
    }

    fn progress(&self) -> watch::Receiver<Progress> {
        self.logs.with(self.id.container, |log| log.progress.subscribe())
    }

    fn read(&self, address: Address) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        Box::pin(async move {
            self.logs.shared().reads += 1;
            self.logs.with(self.id.container, |log| {
                if address < log.keep_from {
                    return Err(ReadError::Trimmed { address });
                }
                let is_readable = !log.rotten.contains(&address)
                    && (address.epoch < log.epoch || Some(address.entry) <= log.committed());
                match log.entries.get(&address) {
                    Some(stored) if is_readable => Ok(stored.payload.clone()),
                    _ => Err(ReadError::Unknown { address, reason: "not to be read".into() }),
                }
            })
        })
    }

    fn set_keep_from(
        &self,
        keep_from: Address,
        snapshots: SnapshotPointers,
    ) -> BoxFuture<'_, Result<(), Stopped>> {
        Box::pin(async move {
            self.current(|log| {
                log.keep_from = log.keep_from.max(keep_from);
                log.snapshots = snapshots;
                let kept = log.entries.split_off(&log.keep_from);
                log.entries = kept;
            })
        })
    }

    fn is_local(&self) -> bool {
        !self.logs.is_remote
    }
}
