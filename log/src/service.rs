//! The replicas of one mounted storage: the shell around their machines, for askers in this process and elsewhere.
//!
//! A container's machine is made when somebody first asks for it. Requests are stepped in their caller's task and never
//! wait; one task follows the storage for all containers; each asker's reads go through a task of its own while there
//! are any, so that one who takes nothing holds up nobody.
//!
//! A storage that stops takes all its askers along: they are told so, and nothing is answered any more. While it lives,
//! this service is the only one that stages frames of the containers that it has been asked for.
//!
//! Deliberately not here: what is stored, acked and refused (`replica`), and how requests get here (`links`).

mod hosted;
mod staging;

pub(crate) use staging::{Staging, load};

use crate::message::{Peer, Reply, Request, RunFacts};
use crate::replica;
use crate::storage::{Storage, StorageProgress};
use hosted::Hosted;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use thalweg_actor::BoxFuture;
use thalweg_actor::clock::Clock;
use thalweg_actor::spawn::Spawn;
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, LedgerId, ReplicaId};
use tokio::sync::{Notify, watch};

/// Bytes of entries that may be staged and not yet durable before those who bring more are asked to wait.
pub const BACKLOG_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where the answers to an asker go. All but [`Answers::room`] are called under the replica's lock: they MUST neither
/// wait nor call back.
pub trait Answers: Send + Sync {
    /// An answer to the asker `channel`.
    fn answer(&self, channel: u32, reply: Reply);

    /// The storage has stopped: the asker gets no more answers.
    fn lost(&self, channel: u32, reason: &Arc<str>);

    /// More answers will not follow at once: what is queued may leave.
    fn flush(&self) {}

    /// Completes when what is queued is little enough for a large answer.
    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What every container of a service needs.
struct Parts {
    identity: ReplicaId,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    spawn: Arc<dyn Spawn>,
    /// Bytes of entries that are staged and not yet durable.
    backlog: AtomicUsize,
    backlog_max: usize,
    caught_up: Notify,
}

/// See the module's header.
pub struct ReplicaService {
    parts: Arc<Parts>,
    containers: Mutex<BTreeMap<ContainerId, Arc<Hosted>>>,
    next_peer: AtomicU32,
}

impl ReplicaService {
    /// Serves `storage` under `identity`, which names it. Starts the task that follows the storage; it ends with the
    /// storage, or with the service.
    pub fn start(
        clock: Arc<dyn Clock>,
        spawn: Arc<dyn Spawn>,
        storage: Arc<dyn Storage>,
        identity: ReplicaId,
    ) -> Arc<Self> {
        Self::start_bounded(clock, spawn, storage, identity, BACKLOG_BYTES_MAX)
    }

    /// The same, but those who bring entries are asked to wait while more than `backlog_max` bytes are not durable.
    pub fn start_bounded(
        clock: Arc<dyn Clock>,
        spawn: Arc<dyn Spawn>,
        storage: Arc<dyn Storage>,
        identity: ReplicaId,
        backlog_max: usize,
    ) -> Arc<Self> {
        let progress = storage.progress();
        let parts = Arc::new(Parts {
            identity,
            storage,
            clock,
            spawn,
            backlog: AtomicUsize::new(0),
            backlog_max,
            caught_up: Notify::new(),
        });
        let containers = Mutex::default();
        // Peer 0 is nobody.
        let next_peer = AtomicU32::new(1);
        let service = Arc::new(Self { parts: parts.clone(), containers, next_peer });
        let follower = follow(Arc::downgrade(&service), progress);
        drop(parts.spawn.spawn("replica service", Box::pin(follower)));
        service
    }

    /// Which storage this is.
    pub fn identity(&self) -> ReplicaId {
        self.parts.identity
    }

    /// The storage itself.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.parts.storage
    }

    /// How many times the storage has been mounted.
    pub fn mount_seq(&self) -> u64 {
        self.parts.storage.mount_seq()
    }

    /// Why the storage has stopped, if it has.
    pub fn stopped(&self) -> Option<Arc<str>> {
        self.parts.storage.progress().borrow().stopped.clone()
    }

    /// True while the disk has more to write than it should: whoever brings entries SHOULD wait. A full disk writes
    /// nothing, but takes nothing either.
    pub fn is_behind(&self) -> bool {
        if self.parts.backlog.load(Ordering::Relaxed) <= self.parts.backlog_max {
            return false;
        }
        let progress = self.parts.storage.progress();
        let now = progress.borrow();
        now.held.is_none() && now.stopped.is_none()
    }

    /// Completes when [`ReplicaService::is_behind`] is false.
    pub async fn caught_up(&self) {
        loop {
            let news = self.parts.caught_up.notified();
            if !self.is_behind() {
                return;
            }
            news.await;
        }
    }

    /// A new asker at `container`'s replica; its answers go to `answers` with `channel`. Fails if the storage has
    /// stopped.
    pub fn attach(
        &self,
        container: ContainerId,
        answers: Arc<dyn Answers>,
        channel: u32,
    ) -> Result<Asker, Arc<str>> {
        let hosted = self.hosted(container);
        let peer = Peer(self.next_peer.fetch_add(1, Ordering::Relaxed));
        hosted.attach(peer, answers, channel)?;
        Ok(Asker { hosted, peer })
    }

    /// What the replica knows of `ledger`, durably; `None` if nobody has opened it here.
    pub fn facts(&self, ledger: LedgerId) -> Option<RunFacts> {
        self.hosted(ledger.container).facts(ledger.epoch)
    }

    /// Tells the replica of `container` that ledgers which a damaged storage has swallowed are of epochs up to `upto`,
    /// as the register says. Does nothing on a storage that is not in limbo.
    pub fn limbo(&self, container: ContainerId, upto: Epoch) {
        if self.parts.storage.in_limbo() {
            self.hosted(container).input(replica::Input::Limbo { upto });
        }
    }

    /// Every ledger that the storage knows, with what is known of it, durably.
    pub fn ledgers(&self) -> Vec<(LedgerId, RunFacts)> {
        let recovered = self.parts.storage.recovered();
        for ledger in recovered.ledgers.keys() {
            self.hosted(ledger.container);
        }
        let hosted: Vec<_> = self.lock().values().cloned().collect();
        hosted.iter().flat_map(|hosted| hosted.ledgers()).collect()
    }

    /// Lets everything of `container` below `keep_from` go, which its register has. Nobody is told.
    pub fn trim(&self, container: ContainerId, keep_from: Address) {
        let request = Request::Trim { keep_from };
        let input = replica::Input::Request { peer: Peer::default(), request };
        self.hosted(container).input(input);
    }

    /// Ends the doubt about `ledger`: it is closed at `end` in a register of epoch `by`, and all that shall be here is
    /// here and verified.
    pub fn settled(&self, ledger: LedgerId, end: EntryId, by: Epoch) {
        let input = replica::Input::Settled { epoch: ledger.epoch, end, by };
        self.hosted(ledger.container).input(input);
    }

    /// Ends the doubt about ledgers that the storage does not know, in memory; [`Storage::end_limbo`] has ended it
    /// durably.
    pub fn limbo_over(&self) {
        let hosted: Vec<_> = self.lock().values().cloned().collect();
        for hosted in hosted {
            hosted.input(replica::Input::LimboOver);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Hosted>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hosted(&self, container: ContainerId) -> Arc<Hosted> {
        let mut containers = self.lock();
        let made = containers
            .entry(container)
            .or_insert_with(|| Arc::new(Hosted::new(container, self.parts.clone())));
        made.clone()
    }
}

/// Somebody who asks a container's replica. Dropping it ends that; answers under way are dropped.
pub struct Asker {
    hosted: Arc<Hosted>,
    peer: Peer,
}

impl Asker {
    /// Hands the replica `request` behind all earlier ones of this asker.
    pub fn request(&self, request: Request) {
        self.hosted.input(replica::Input::Request { peer: self.peer, request });
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.hosted.detach(self.peer);
    }
}

/// Tells every container how far the storage has come.
async fn follow(service: Weak<ReplicaService>, mut progress: watch::Receiver<StorageProgress>) {
    let mut touched: Vec<Arc<dyn Answers>> = Vec::new();
    loop {
        let Some(alive) = service.upgrade() else { return };
        let now = progress.borrow_and_update().clone();
        for hosted in alive.lock().values() {
            hosted.progress(&now, &mut touched);
        }
        // Together, so that the answers to one batch leave in one write.
        touched.drain(..).for_each(|answers| answers.flush());
        alive.parts.caught_up.notify_waiters();
        drop(alive);
        if now.stopped.is_some() || progress.changed().await.is_err() {
            return;
        }
    }
}
