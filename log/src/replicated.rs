//! The replicated log: each container's ledgers on several storages, one owner at a time.
//!
//! The shells around `recovery` and `writer`: requests go out through attachments, what comes back is an input, and
//! whatever waits (the register, deadlines) is a task beside them. An append is sent in its caller's task and never
//! waits. A takeover fences whoever owned the container before; from then on only this process can commit anything.
//!
//! Deliberately not here: how requests travel (`links`), who may take a place (`placement`), what replicas do with what
//! they get (`service`), and the repair of closed ledgers (`repair`).

mod mailbox;
mod reader;
mod replay;
mod running;
mod takeover;
mod watch;

use crate::ledger::{
    Entry, Ledger, Logs, OpenError, Opened, Progress, ReadError, Replay, SnapshotPointers, Stopped,
};
use crate::links::Links;
use crate::local::Owner;
use crate::placement::{Candidate, Members, Policy};
use crate::register::{Change, ContainerLog, Register, RegisterCommand, RegisterReply};
use crate::writer::{self, StopReason};
use bytes::Bytes;
use rand_core::RngCore as _;
use rand_pcg::Pcg64Mcg;
use reader::Reader;
use replay::ReplicatedReplay;
use running::Running;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::clock::Clock;
use thalweg_actor::env::Env;
use thalweg_actor::probe;
use thalweg_actor::spawn::Spawn;
use thalweg_types::id::{Address, ContainerId, EntryId, LedgerId, ReplicaId};
use thalweg_types::time::Instant;
use tokio::sync::watch as channel;

/// How long to wait before a register that could not be reached is asked again.
const REGISTER_RETRY: Duration = Duration::from_millis(50);
/// How long the register may take to answer before the same command is sent again.
const REGISTER_PATIENCE: Duration = Duration::from_secs(5);

/// What logs are spread over.
#[derive(Clone)]
pub struct Cluster {
    /// The way to all replicas.
    pub links: Arc<dyn Links>,
    /// Where containers' registers are.
    pub register: Arc<dyn Register>,
    /// The storages that there are.
    pub members: Arc<dyn Members>,
    /// Quorum and spread of new ledgers.
    pub policy: Policy,
}

/// What every container needs.
struct Parts {
    clock: Arc<dyn Clock>,
    spawn: Arc<dyn Spawn>,
    links: Arc<dyn Links>,
    register: Arc<dyn Register>,
    members: Arc<dyn Members>,
    policy: Policy,
    owner: Owner,
    random: Mutex<Pcg64Mcg>,
    budget: Mutex<watch::Budget>,
}

/// What a command to the register has led to, for certain.
enum Registered {
    Done(Box<ContainerLog>),
    Stale,
    Invalid(Arc<str>),
}

impl Parts {
    /// A seed for placement.
    fn seed(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// Takes one ensemble change out of this process's budget, or says when there will be one.
    fn take_change(&self, now: Instant) -> Result<(), Instant> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Submits `command` once. `None`: the outcome is unknown.
    async fn submitted(&self, command: &RegisterCommand) -> Option<RegisterReply> {
        let late = self.clock.now().after(REGISTER_PATIENCE);
        tokio::select! {
            biased;
            reply = self.register.submit(command.clone()) => reply.ok(),
            () = self.clock.sleep_until(late) => None,
        }
    }

    /// Submits `change`, again and again until an outcome is known. `None`: nobody is `wanted` any more.
    async fn registered(
        &self,
        container: ContainerId,
        change: Change,
        wanted: impl Fn() -> bool,
    ) -> Option<Registered> {
        let command = RegisterCommand { container, change };
        while wanted() {
            match self.submitted(&command).await {
                Some(RegisterReply::Done(log)) => return Some(Registered::Done(log)),
                Some(RegisterReply::Stale { .. }) => return Some(Registered::Stale),
                Some(RegisterReply::Invalid { reason }) => {
                    let what = &command.change;
                    tracing::error!(%container, reason, ?what, "the register refuses a command");
                    return Some(Registered::Invalid(reason.into()));
                }
                None => {
                    probe!("owner: the register's answer is unknown");
                    self.clock.sleep_until(self.clock.now().after(REGISTER_RETRY)).await;
                }
            }
        }
        None
    }
}

/// True if `replica` is thought to be reachable.
fn member_is_healthy(candidates: &[Candidate], replica: ReplicaId) -> bool {
    candidates.iter().any(|candidate| candidate.replica == replica && candidate.up)
}

/// A container that this process owns, or owned.
#[derive(Default)]
struct Container {
    /// One takeover at a time.
    opening: tokio::sync::Mutex<()>,
    running: Mutex<Weak<Running>>,
}

impl Container {
    fn running(&self) -> Option<Arc<Running>> {
        self.lock().upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Weak<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The logs of all containers, each on several storages.
pub struct ReplicatedLogs {
    parts: Arc<Parts>,
    containers: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
}

impl ReplicatedLogs {
    /// Logs for `owner`, over `cluster`. Nothing runs before a log is opened; a ledger's tasks end when it is dropped.
    pub fn start(env: &Env, cluster: Cluster, owner: Owner) -> Arc<Self> {
        let Cluster { links, register, members, policy } = cluster;
        let (clock, spawn) = (env.clock.clone(), env.spawn.clone());
        let random = Mutex::new(env.entropy.stream("ledger placement"));
        let budget = Mutex::default();
        let parts = Parts { clock, spawn, links, register, members, policy, owner, random, budget };
        Arc::new(Self { parts: Arc::new(parts), containers: Mutex::default() })
    }

    fn container(&self, id: ContainerId) -> Arc<Container> {
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        containers.entry(id).or_default().clone()
    }
}

impl Logs for ReplicatedLogs {
    fn open(&self, container: ContainerId) -> BoxFuture<'_, Result<Opened, OpenError>> {
        Box::pin(async move {
            let shared = self.container(container);
            let _turn = shared.opening.lock().await;
            let log = takeover::take_over(&self.parts, container, |_| {
                if let Some(earlier) = shared.running() {
                    earlier.writer(writer::Input::Stop(StopReason::Superseded));
                }
            })
            .await?;
            let (keep_from, snapshots) = (log.keep_from, log.snapshots.into());
            let running = Running::begin(self.parts.clone(), Arc::new(log));
            *shared.lock() = Arc::downgrade(&running);
            let tender = tend(Arc::downgrade(&running), self.parts.clone());
            drop(self.parts.spawn.spawn("replicated ledger", Box::pin(tender)));
            let reader = Reader::new(self.parts.clone(), &running.log());
            let progress = running.progress();
            let ledger = ReplicatedLedger { parts: self.parts.clone(), running, reader, progress };
            Ok(Opened { ledger: Arc::new(ledger), keep_from, snapshots })
        })
    }

    fn replay(&self, opened: &Opened, from: Option<Address>) -> Box<dyn Replay> {
        let id = opened.ledger.id();
        let running = self.container(id.container).running();
        let log = running.filter(|running| running.id() == id).map(|running| running.log());
        Box::new(ReplicatedReplay::start(&self.parts, log, from))
    }
}

/// Waits on a running ledger's behalf: for its watch's deadlines, and for the register. Ends with the ledger.
async fn tend(running: Weak<Running>, parts: Arc<Parts>) {
    let Some(news) = running.upgrade().map(|running| running.news.clone()) else { return };
    loop {
        let Some(alive) = running.upgrade().filter(|running| running.why_stopped().is_none())
        else {
            return;
        };
        let (deadline, change) = alive.tick();
        if let Some(change) = change {
            let submitted = change_ensemble(running.clone(), alive.id(), parts.clone(), change);
            drop(parts.spawn.spawn("ensemble change", Box::pin(submitted)));
        }
        drop(alive);
        match deadline {
            Some(at) => tokio::select! {
                biased;
                () = news.notified() => {}
                () = parts.clock.sleep_until(at) => {}
            },
            None => news.notified().await,
        }
    }
}

/// Brings a change to the register and its outcome to the ledger.
async fn change_ensemble(running: Weak<Running>, id: LedgerId, parts: Arc<Parts>, change: Change) {
    let wanted = || running.upgrade().is_some_and(|running| running.why_stopped().is_none());
    let outcome = parts.registered(id.container, change, wanted).await;
    if let (Some(outcome), Some(running)) = (outcome, running.upgrade()) {
        running.changed(outcome);
    }
}

/// The ledger that this process writes for one container.
struct ReplicatedLedger {
    parts: Arc<Parts>,
    running: Arc<Running>,
    reader: Arc<Reader>,
    progress: channel::Receiver<Progress>,
}

impl ReplicatedLedger {
    fn stopped(&self) -> Stopped {
        let superseded = || Stopped { reason: Arc::from("a newer epoch owns the container") };
        self.running.why_stopped().unwrap_or_else(superseded)
    }
}

impl Ledger for ReplicatedLedger {
    fn id(&self) -> LedgerId {
        self.running.id()
    }

    fn append(&self, entry: Entry) -> Result<EntryId, Stopped> {
        self.running.append(entry)
    }

    fn progress(&self) -> channel::Receiver<Progress> {
        self.progress.clone()
    }

    fn read(&self, address: Address) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        Box::pin(async move {
            let log = self.running.log();
            if address < log.keep_from {
                return Err(ReadError::Trimmed { address });
            }
            let own = address.epoch == self.running.id().epoch;
            if own && address.entry >= self.running.committed_end() {
                let reason = Arc::from("the entry is not committed");
                return Err(ReadError::Unknown { address, reason });
            }
            self.reader.payload(&log, address).await
        })
    }

    fn set_keep_from(
        &self,
        keep_from: Address,
        snapshots: SnapshotPointers,
    ) -> BoxFuture<'_, Result<(), Stopped>> {
        Box::pin(async move {
            let LedgerId { container, epoch } = self.running.id();
            let snapshots = snapshots.into();
            let change = Change::SetKeepFrom { epoch, keep_from, snapshots };
            let wanted = || self.running.why_stopped().is_none();
            let before = self.running.log();
            match self.parts.registered(container, change, wanted).await {
                Some(Registered::Done(log)) => {
                    let log = Arc::from(log);
                    self.running.kept(Arc::clone(&log));
                    self.reader.trim(&before, &log);
                    Ok(())
                }
                Some(Registered::Stale | Registered::Invalid(_)) => {
                    self.running.writer(writer::Input::Stop(StopReason::Superseded));
                    Err(self.stopped())
                }
                None => Err(self.stopped()),
            }
        })
    }

    /// Never: a fence may be durable on the only replica before this owner hears of it, wherever that replica is.
    fn is_local(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
