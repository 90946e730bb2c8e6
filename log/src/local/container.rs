//! One container's writer and replica behind one lock.

use crate::ledger::{Entry, Progress, Stopped};
use crate::message::{Peer, Reply, Request};
use crate::register::ContainerLog;
use crate::replica;
use crate::service::Staging;
use crate::storage::{Storage, StorageProgress};
use crate::writer::{self, StopReason, Writer};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thalweg_actor::clock::Clock;
use thalweg_actor::machine::Machine;
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, LedgerId, ReplicaId};
use thalweg_types::time::Instant;
use tokio::sync::{Notify, watch};

const WRITER: Peer = Peer(0);
/// Whose requests come from a takeover.
const RECOVERER: Peer = Peer(1);

/// What a takeover has to look at: answers to it, and reads that the replica wants done for it.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) replies: Vec<Reply>,
    pub(super) reads: Vec<replica::Effect>,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.reads.is_empty()
    }
}

/// A container on this storage.
pub(super) struct Container {
    pub(super) id: ContainerId,
    replica: ReplicaId,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// One takeover at a time.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Something has come into the inbox, or the storage has failed.
    pub(super) news: Notify,
}

struct State {
    replica: Staging,
    running: Option<Running>,
    log: Option<Arc<ContainerLog>>,
    inbox: Inbox,
    to_writer: VecDeque<Reply>,
    writer_effects: Vec<writer::Effect>,
    held: Option<Arc<str>>,
}

struct Running {
    writer: Writer,
    progress: watch::Sender<Progress>,
}

impl Container {
    pub(super) fn new(
        id: ContainerId,
        replica: ReplicaId,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let held = storage.progress().borrow().held.clone();
        let state = State {
            replica: Staging::new(id, &*storage),
            running: None,
            log: None,
            inbox: Inbox::default(),
            to_writer: VecDeque::new(),
            writer_effects: Vec::new(),
            held,
        };
        let (opening, news) = (tokio::sync::Mutex::default(), Notify::new());
        Self { id, replica, storage, clock, state: Mutex::new(state), opening, news }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Why the storage has failed, if it has.
    pub(super) fn failed(&self) -> Option<Arc<str>> {
        self.lock().replica.failed().cloned()
    }

    /// Hands the replica a request of a takeover. Answers come into the inbox.
    pub(super) fn request(&self, request: Request) {
        self.replica_input(replica::Input::Request { peer: RECOVERER, request });
    }

    /// Hands the replica an input of a takeover.
    pub(super) fn replica_input(&self, input: replica::Input) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.step_replica(&*self.storage, now, input);
        state.settle(&*self.storage, self.replica, now);
    }

    pub(super) fn take_inbox(&self) -> Inbox {
        std::mem::take(&mut self.lock().inbox)
    }

    /// Ends the ledger of an earlier epoch, if this process was its owner.
    pub(super) fn supersede(&self, by: Epoch) {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.running.as_ref().is_some_and(|running| running.writer.ledger().epoch < by) {
            let stop = writer::Input::Stop(StopReason::Superseded);
            state.step_writer(&*self.storage, self.replica, now, stop);
        }
        state.inbox = Inbox::default(); // Answers to a takeover that was given up.
    }

    /// Begins the ledger that `log` ends in.
    pub(super) fn begin(&self, log: Arc<ContainerLog>) -> watch::Receiver<Progress> {
        let now = self.clock.now();
        let record = log.ledgers.last().expect("a close opens a ledger");
        let ledger = LedgerId { container: self.id, epoch: record.epoch };
        let incarnation = log.owner.expect("a recovery has an owner").incarnation;
        let ensemble = &record.last_fragment().ensemble;
        let writer = Writer::new(ledger, incarnation, record.quorum, ensemble, log.keep_from);
        let mut state = self.lock();
        let stopped = state.replica.failed().cloned();
        let held = state.held.clone();
        let progress = Progress { held, stopped, ..Progress::default() };
        let (sender, receiver) = watch::channel(progress);
        state.running = Some(Running { writer, progress: sender });
        state.log = Some(log);
        state.step_writer(&*self.storage, self.replica, now, writer::Input::Begin);
        receiver
    }

    /// The register as it was when `ledger` was opened, if that is still this container's ledger.
    pub(super) fn log_of(&self, ledger: LedgerId) -> Option<Arc<ContainerLog>> {
        self.lock().log.clone().filter(|log| log.epoch == ledger.epoch)
    }

    pub(super) fn keep_from(&self) -> Address {
        self.lock().replica.replica().keep_from()
    }

    pub(super) fn append(&self, ledger: LedgerId, entry: Entry) -> Result<EntryId, Stopped> {
        let now = self.clock.now();
        let mut state = self.lock();
        let number = match state.running_of(ledger) {
            Some(running) if running.writer.stopped().is_none() => running.writer.next(),
            _ => return Err(state.why_stopped(ledger)),
        };
        state.step_writer(&*self.storage, self.replica, now, writer::Input::Submit(entry));
        match state.running_of(ledger) {
            Some(running) if running.writer.stopped().is_none() => Ok(number),
            _ => Err(state.why_stopped(ledger)),
        }
    }

    /// Steps the writer of `ledger`, if it still runs.
    pub(super) fn writer(&self, ledger: LedgerId, input: writer::Input) {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.running_of(ledger).is_some() {
            state.step_writer(&*self.storage, self.replica, now, input);
        }
    }

    /// The register has `keep_from`: nothing below is needed any more.
    pub(super) fn trim(&self, ledger: LedgerId, keep_from: Address) {
        self.writer(ledger, writer::Input::Kept { keep_from });
        self.request(Request::Trim { keep_from });
    }

    pub(super) fn why_stopped(&self, ledger: LedgerId) -> Stopped {
        self.lock().why_stopped(ledger)
    }

    /// The storage has come further.
    pub(super) fn storage_progress(&self, progress: &StorageProgress) {
        let now = self.clock.now();
        let mut state = self.lock();
        let (frames, _bytes) = state.replica.durable(progress);
        if frames > 0 {
            state.step_replica(&*self.storage, now, replica::Input::Durable { frames });
            state.settle(&*self.storage, self.replica, now);
        }
        if state.held != progress.held {
            state.held.clone_from(&progress.held);
            if let Some(running) = &state.running {
                running.progress.send_modify(|seen| seen.held.clone_from(&progress.held));
            }
        }
        if progress.stopped.as_ref().is_some_and(|reason| state.replica.fail(reason)) {
            let stop = writer::Input::Stop(StopReason::StorageFailed);
            state.step_writer(&*self.storage, self.replica, now, stop);
        }
        if !state.inbox.is_empty() || state.replica.failed().is_some() {
            self.news.notify_one();
        }
    }
}

impl State {
    fn running_of(&self, ledger: LedgerId) -> Option<&Running> {
        self.running.as_ref().filter(|running| running.writer.ledger() == ledger)
    }

    fn why_stopped(&self, ledger: LedgerId) -> Stopped {
        let running = self.running_of(ledger);
        let reason = running.and_then(|running| running.progress.borrow().stopped.clone());
        let superseded = || Arc::from("a newer epoch owns the container");
        Stopped { reason: reason.unwrap_or_else(superseded) }
    }

    fn step_replica(&mut self, storage: &dyn Storage, now: Instant, input: replica::Input) {
        let Self { replica, to_writer, inbox, .. } = self;
        replica.step(storage, now, input, |effect| match effect {
            replica::Effect::Reply { peer: WRITER, reply } => to_writer.push_back(reply),
            replica::Effect::Reply { reply, .. } => inbox.replies.push(reply),
            read => inbox.reads.push(read),
        });
    }

    fn step_writer(
        &mut self,
        storage: &dyn Storage,
        replica: ReplicaId,
        now: Instant,
        input: writer::Input,
    ) {
        let Some(running) = &mut self.running else { return };
        let mut effects = std::mem::take(&mut self.writer_effects);
        running.writer.step(now, input, &mut effects);
        if cfg!(debug_assertions) {
            running.writer.check();
        }
        for effect in effects.drain(..) {
            match effect {
                writer::Effect::Send { request, .. } => {
                    let input = replica::Input::Request { peer: WRITER, request };
                    self.step_replica(storage, now, input);
                }
                writer::Effect::Committed { end } => self.announce(|seen| {
                    seen.committed = end.0.checked_sub(1).map(EntryId);
                }),
                writer::Effect::Stopped(why) => {
                    let failed = self.replica.failed().cloned();
                    self.announce(|seen| seen.stopped = Some(describe(why, failed)));
                }
                // The only replica can be distrusted but not replaced: nothing commits any more.
                writer::Effect::Distrusted { why, .. } => {
                    let stop = writer::Input::Stop(StopReason::StorageFailed);
                    self.step_writer(storage, replica, now, stop);
                    self.announce(|seen| {
                        let reason = format!("the local replica refuses the ledger: {why:?}");
                        seen.stopped = Some(reason.into());
                    });
                }
                // The local storage holds what it cannot take, and refuses nothing for want of room.
                writer::Effect::Full { .. } => {}
                writer::Effect::Register(_) => {
                    unreachable!("nobody proposes a change of an ensemble of one")
                }
            }
        }
        self.writer_effects = effects;
        self.settle(storage, replica, now);
    }

    /// Delivers what the replica has answered to the writer.
    fn settle(&mut self, storage: &dyn Storage, replica: ReplicaId, now: Instant) {
        while let Some(reply) = self.to_writer.pop_front() {
            let input = writer::Input::Reply { from: replica, reply };
            self.step_writer(storage, replica, now, input);
        }
        if self.replica.failed().is_some() {
            let running = self.running.as_ref();
            if running.is_some_and(|running| running.writer.stopped().is_none()) {
                let stop = writer::Input::Stop(StopReason::StorageFailed);
                self.step_writer(storage, replica, now, stop);
            }
        }
    }

    fn announce(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(running) = &self.running {
            running.progress.send_modify(change);
        }
    }
}

pub(crate) fn describe(why: StopReason, failed: Option<Arc<str>>) -> Arc<str> {
    match why {
        StopReason::Fenced { by } => format!("epoch {by} has taken the container over").into(),
        StopReason::Superseded => Arc::from("a newer epoch owns the container"),
        StopReason::StorageFailed => failed.unwrap_or_else(|| Arc::from("the storage has failed")),
        StopReason::ShutDown => Arc::from("the process is shutting down"),
        StopReason::Renew => Arc::from("the owner asks for a new epoch with a fresh ensemble"),
    }
}
