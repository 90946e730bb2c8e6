//! One container's replica, and who asks it.

use super::{Answers, Parts, Staging, load};
use crate::ledger::ReadError;
use crate::message::{EntryHeaders, Peer, Reply, RunFacts};
use crate::replica::{Effect, Input};
use crate::storage::{Storage, StorageProgress};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thalweg_actor::probe;
use thalweg_types::id::{ContainerId, EntryId, Epoch, LedgerId};
use thalweg_types::time::Instant;

/// Reads that one asker may have waiting; beyond it the answer is UNKNOWN, and copies are not looked at.
const READS_MAX: usize = 1024;
/// Entries whose headers travel in one answer.
const HEADERS_MAX: u32 = 4096;

/// Somebody who asks.
struct Attached {
    answers: Arc<dyn Answers>,
    channel: u32,
    /// What the storage has to be asked for, in order.
    reads: VecDeque<Effect>,
    /// A task works on `reads`.
    reading: bool,
}

struct State {
    replica: Staging,
    askers: BTreeMap<Peer, Attached>,
    full: bool,
    /// Somebody has something to read for whom no task works.
    to_read: bool,
}

/// See the module's header.
pub(super) struct Hosted {
    parts: Arc<Parts>,
    state: Mutex<State>,
}

impl Hosted {
    pub(super) fn new(container: ContainerId, parts: Arc<Parts>) -> Self {
        let replica = Staging::new(container, &*parts.storage);
        let mut state = State { replica, askers: BTreeMap::new(), full: false, to_read: false };
        let full = parts.storage.progress().borrow().held.is_some();
        state.set_full(&parts, parts.clock.now(), full);
        Self { parts, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn facts(&self, epoch: Epoch) -> Option<RunFacts> {
        self.lock().replica.replica().facts(epoch)
    }

    pub(super) fn ledgers(&self) -> Vec<(LedgerId, RunFacts)> {
        self.lock().replica.replica().ledgers().collect()
    }

    pub(super) fn attach(
        &self,
        peer: Peer,
        answers: Arc<dyn Answers>,
        channel: u32,
    ) -> Result<(), Arc<str>> {
        let mut state = self.lock();
        if let Some(reason) = state.replica.failed() {
            return Err(reason.clone());
        }
        let reads = VecDeque::new();
        state.askers.insert(peer, Attached { answers, channel, reads, reading: false });
        Ok(())
    }

    pub(super) fn detach(&self, peer: Peer) {
        self.lock().askers.remove(&peer);
    }

    /// Steps the replica. Answers that follow at once leave at once.
    pub(super) fn input(self: &Arc<Self>, input: Input) {
        let now = self.parts.clock.now();
        let mut state = self.lock();
        if state.replica.failed().is_none() {
            state.step(&self.parts, now, input, &mut |answers| answers.flush());
        }
        self.start_reads(&mut state);
    }

    /// The storage has come further. Whose answers follow from that is added to `touched`.
    pub(super) fn progress(
        self: &Arc<Self>,
        progress: &StorageProgress,
        touched: &mut Vec<Arc<dyn Answers>>,
    ) {
        let now = self.parts.clock.now();
        let mut state = self.lock();
        let (frames, bytes) = state.replica.durable(progress);
        self.parts.backlog.fetch_sub(bytes, Ordering::Relaxed);
        if frames > 0 {
            state.step(&self.parts, now, Input::Durable { frames }, &mut |answers| {
                if !touched.iter().any(|known| Arc::ptr_eq(known, answers)) {
                    touched.push(answers.clone());
                }
            });
        }
        state.set_full(&self.parts, now, progress.held.is_some());
        if let Some(reason) = &progress.stopped {
            state.replica.fail(reason);
            state.lose_all(reason);
        }
        self.start_reads(&mut state);
    }

    /// Starts the tasks of askers that have something to read.
    fn start_reads(self: &Arc<Self>, state: &mut State) {
        if !std::mem::take(&mut state.to_read) {
            return;
        }
        for (peer, asker) in &mut state.askers {
            if !asker.reading && !asker.reads.is_empty() {
                asker.reading = true;
                let task = self.clone().read_for(*peer, asker.answers.clone());
                drop(self.parts.spawn.spawn("replica reads", Box::pin(task)));
            }
        }
    }

    /// Reads what `peer` wants, one by one, until nothing is left or the asker has gone.
    async fn read_for(self: Arc<Self>, peer: Peer, answers: Arc<dyn Answers>) {
        loop {
            answers.room().await;
            let read = {
                let mut state = self.lock();
                let Some(asker) = state.askers.get_mut(&peer) else { return };
                let Some(read) = asker.reads.pop_front() else {
                    asker.reading = false;
                    return;
                };
                read
            };
            self.read(read).await;
        }
    }

    async fn read(self: &Arc<Self>, read: Effect) {
        let storage = &*self.parts.storage;
        match read {
            Effect::Load { peer, ledger, entry } => {
                let found = load(storage, ledger, entry).await.map(Reply::Have);
                self.found(peer, ledger, entry, found);
            }
            Effect::LoadHeaders { peer, ledger, from, entries_max, bytes_max } => {
                let found = headers(storage, ledger, from, entries_max, bytes_max).await;
                self.found(peer, ledger, from, found);
            }
            Effect::Verify { peer, by, entry } => {
                let intact = load(storage, entry.ledger, entry.entry).await.is_ok();
                self.input(Input::Verified { peer, by, entry, intact });
            }
            Effect::Stage(_) | Effect::Reply { .. } => {}
        }
    }

    /// Answers a read of `entry`.
    fn found(&self, peer: Peer, ledger: LedgerId, entry: EntryId, found: Result<Reply, ReadError>) {
        let reply = found.unwrap_or_else(|error| {
            probe!("service: read failed");
            tracing::warn!(%ledger, %entry, %error, "an entry cannot be read");
            Reply::Unknown { ledger, entry }
        });
        let state = self.lock();
        if let Some(asker) = state.askers.get(&peer) {
            asker.answers.answer(asker.channel, reply);
            asker.answers.flush();
        }
    }
}

impl State {
    /// Steps the replica, answers, and notes what is to be read.
    fn step(
        &mut self,
        parts: &Parts,
        now: Instant,
        input: Input,
        answered: &mut dyn FnMut(&Arc<dyn Answers>),
    ) {
        let Self { replica, askers, to_read, .. } = self;
        let staged = replica.step(&*parts.storage, now, input, |effect| match effect {
            Effect::Reply { peer, reply } => {
                if let Some(asker) = askers.get(&peer) {
                    asker.answers.answer(asker.channel, reply);
                    answered(&asker.answers);
                }
            }
            Effect::Load { peer, .. }
            | Effect::LoadHeaders { peer, .. }
            | Effect::Verify { peer, .. } => {
                let Some(asker) = askers.get_mut(&peer) else { return };
                if asker.reads.len() < READS_MAX {
                    asker.reads.push_back(effect);
                    *to_read = true;
                } else if let Effect::Load { ledger, entry, .. }
                | Effect::LoadHeaders { ledger, from: entry, .. } = effect
                {
                    asker.answers.answer(asker.channel, Reply::Unknown { ledger, entry });
                    answered(&asker.answers);
                }
            }
            Effect::Stage(_) => unreachable!("staged already"),
        });
        parts.backlog.fetch_add(staged, Ordering::Relaxed);
        if let Some(reason) = self.replica.failed().cloned() {
            self.lose_all(&reason);
        }
    }

    /// A disk that is full takes no more appends.
    fn set_full(&mut self, parts: &Parts, now: Instant, full: bool) {
        if self.full != full {
            self.full = full;
            probe!("service: disk full, or no more");
            self.step(parts, now, Input::Full(full), &mut |_| {});
        }
    }

    /// Nobody gets an answer any more.
    fn lose_all(&mut self, reason: &Arc<str>) {
        for (_, asker) in std::mem::take(&mut self.askers) {
            asker.answers.lost(asker.channel, reason);
            asker.answers.flush();
        }
    }
}

/// Headers of the run that begins with `from`: as many as there are and fit.
async fn headers(
    storage: &dyn Storage,
    ledger: LedgerId,
    from: EntryId,
    entries_max: u32,
    bytes_max: u32,
) -> Result<Reply, ReadError> {
    let entries_max = entries_max.min(HEADERS_MAX) as usize;
    let found = storage.headers(ledger, from, entries_max).await?;
    let mut left = bytes_max as usize;
    let mut entries = Vec::with_capacity(found.len());
    for (stored, number) in found.into_iter().zip(from.0..) {
        let fits = entries.is_empty() || stored.headers.len() <= left;
        if stored.entry.0 != number || !fits {
            break;
        }
        left = left.saturating_sub(stored.headers.len());
        entries.push(EntryHeaders { headers: stored.headers, payload_len: stored.payload_len });
    }
    if entries.is_empty() {
        return Ok(Reply::Unknown { ledger, entry: from });
    }
    Ok(Reply::Headers { ledger, from, entries })
}
