//! The embedded log: one storage in this process is the only replica of every container.
//!
//! The shell around the very machines that replicate: the writer's messages are handed to the replica by a function
//! call under the container's lock, and one task follows the storage's progress for all containers. An append is staged
//! in its caller's task and never waits.
//!
//! Deliberately not here: connections to other replicas, and placement (there is one place).

mod container;
mod metadata;
mod replay;
mod takeover;

use crate::ledger::{
    Entry, Ledger, Logs, OpenError, Opened, Progress, ReadError, Replay, SnapshotPointers, Stopped,
};
use crate::register::{Change, Register, RegisterCommand, RegisterReply};
use crate::storage::{Storage, StorageProgress};
use crate::writer::{self, StopReason};
use bytes::Bytes;
use container::Container;
pub(crate) use container::describe;
pub use metadata::LocalMetadataLog;
use replay::LocalReplay;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::clock::Clock;
use thalweg_actor::spawn::Spawn;
use thalweg_types::id::{Address, ContainerId, EntryId, Incarnation, LedgerId, NodeId, ReplicaId};
use tokio::sync::watch;

/// How long to wait before a register that could not be reached is asked again.
const REGISTER_RETRY: Duration = Duration::from_millis(50);

/// Who owns the containers: this process.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// This node.
    pub host: NodeId,
    /// Its session with the controller.
    pub session: u64,
    /// Random per process start.
    pub incarnation: Incarnation,
}

/// The logs of all containers on one storage.
pub struct LocalLogs {
    storage: Arc<dyn Storage>,
    register: Arc<dyn Register>,
    clock: Arc<dyn Clock>,
    owner: Owner,
    replica: ReplicaId,
    containers: Arc<Containers>,
}

type Containers = Mutex<BTreeMap<ContainerId, Arc<Container>>>;

impl LocalLogs {
    /// Starts the task that follows `storage`; it ends with the storage, or when neither the logs nor one of
    /// their ledgers is in use any more.
    pub fn start(
        clock: Arc<dyn Clock>,
        spawn: &dyn Spawn,
        storage: Arc<dyn Storage>,
        register: Arc<dyn Register>,
        owner: Owner,
    ) -> Arc<Self> {
        let replica = ReplicaId { node: owner.host, storage: storage.uuid() };
        let progress = storage.progress();
        let containers = Arc::default();
        let follower = follow(Arc::downgrade(&containers), progress);
        spawn.spawn("local log", Box::pin(follower));
        Arc::new(Self { storage, register, clock, owner, replica, containers })
    }

    fn container(&self, id: ContainerId) -> Arc<Container> {
        let mut containers = lock(&self.containers);
        let made = containers.entry(id).or_insert_with(|| {
            Arc::new(Container::new(id, self.replica, self.storage.clone(), self.clock.clone()))
        });
        made.clone()
    }
}

fn lock(containers: &Containers) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Container>>> {
    containers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells every container how far the storage has come.
async fn follow(containers: Weak<Containers>, mut progress: watch::Receiver<StorageProgress>) {
    while progress.changed().await.is_ok() {
        let Some(containers) = containers.upgrade() else { return };
        let now = progress.borrow_and_update().clone();
        for container in lock(&containers).values() {
            container.storage_progress(&now);
        }
        if now.stopped.is_some() {
            return;
        }
    }
}

impl Logs for LocalLogs {
    fn open(&self, container: ContainerId) -> BoxFuture<'_, Result<Opened, OpenError>> {
        Box::pin(async move {
            let shared = self.container(container);
            let _turn = shared.opening.lock().await;
            let log = takeover::take_over(self, &shared).await?;
            let id = LedgerId { container, epoch: log.epoch };
            let keep_from = log.keep_from;
            let snapshots = log.snapshots.into();
            let progress = shared.begin(Arc::new(log));
            let ledger = Arc::new(LocalLedger {
                id,
                shared: shared.clone(),
                progress,
                register: self.register.clone(),
                clock: self.clock.clone(),
                _followed: self.containers.clone(),
            });
            Ok(Opened { ledger, keep_from, snapshots })
        })
    }

    fn replay(&self, opened: &Opened, from: Option<Address>) -> Box<dyn Replay> {
        let id = opened.ledger.id();
        let log = self.container(id.container).log_of(id);
        Box::new(LocalReplay::new(self.storage.clone(), log, from))
    }
}

/// The ledger that this process writes for one container.
struct LocalLedger {
    id: LedgerId,
    shared: Arc<Container>,
    progress: watch::Receiver<Progress>,
    register: Arc<dyn Register>,
    clock: Arc<dyn Clock>,
    /// Keeps the task alive that follows the storage.
    _followed: Arc<Containers>,
}

impl LocalLedger {
    fn stopped(&self) -> Option<Stopped> {
        let reason = self.progress.borrow().stopped.clone();
        reason.map(|reason| Stopped { reason })
    }

    /// Moves `keep_from` in the register; asks again until an outcome is known.
    async fn register_keep_from(&self, change: Change) -> Result<(), Stopped> {
        let command = RegisterCommand { container: self.id.container, change };
        loop {
            if let Some(stopped) = self.stopped() {
                return Err(stopped);
            }
            let why = match self.register.submit(command.clone()).await {
                Ok(RegisterReply::Done(_)) => return Ok(()),
                Ok(RegisterReply::Stale { .. }) => StopReason::Superseded,
                Ok(RegisterReply::Invalid { reason }) => {
                    tracing::error!(ledger = %self.id, reason, "the register refuses a trim");
                    StopReason::Superseded
                }
                Err(_) => {
                    self.clock.sleep_until(self.clock.now().after(REGISTER_RETRY)).await;
                    continue;
                }
            };
            self.shared.writer(self.id, writer::Input::Stop(why));
            return Err(self.shared.why_stopped(self.id));
        }
    }
}

impl Ledger for LocalLedger {
    fn id(&self) -> LedgerId {
        self.id
    }

    fn append(&self, entry: Entry) -> Result<EntryId, Stopped> {
        self.shared.append(self.id, entry)
    }

    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    fn read(&self, address: Address) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        Box::pin(async move {
            if address < self.shared.keep_from() {
                return Err(ReadError::Trimmed { address });
            }
            let ledger = LedgerId { container: self.id.container, epoch: address.epoch };
            self.shared.storage().payload(ledger, address.entry).await
        })
    }

    fn set_keep_from(
        &self,
        keep_from: Address,
        snapshots: SnapshotPointers,
    ) -> BoxFuture<'_, Result<(), Stopped>> {
        Box::pin(async move {
            let epoch = self.id.epoch;
            let snapshots = snapshots.into();
            self.register_keep_from(Change::SetKeepFrom { epoch, keep_from, snapshots }).await?;
            self.shared.trim(self.id, keep_from);
            Ok(())
        })
    }

    fn is_local(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
