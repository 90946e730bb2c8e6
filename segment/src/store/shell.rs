//! The task of one container: recovers it, then feeds the machine and does what it asks for.

use super::count::Count;
use super::load::{Source, lowest};
use super::recover::{Recovered, recover};
use super::{Health, StartError};
use crate::cache::{Cache, Payloads};
use crate::container::{Container, Effect, Input, Load, Replayed, SegmentKey, Start, Tuning};
use crate::request::Request;
use crate::table::Compaction;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use thalweg_actor::clock::Clock;
use thalweg_actor::machine::Machine;
use thalweg_actor::spawn::Spawn;
use thalweg_actor::{BoxFuture, buggify, planted, probe};
use thalweg_log::ledger::{Entry, Logs, Progress, ReadError, SnapshotPointers, Stopped};
use thalweg_types::id::{Address, ContainerId, EntryId};
use thalweg_types::time::Instant;
use tokio::select;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Requests taken at once.
const BATCH_MAX: usize = 256;

/// A container that has not been recovered yet.
pub(super) struct Shell {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) spawn: Arc<dyn Spawn>,
    pub(super) logs: Arc<dyn Logs>,
    pub(super) cache: Arc<Cache>,
    pub(super) container: ContainerId,
    pub(super) tuning: Tuning,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) room: Arc<Semaphore>,
    pub(super) health: watch::Sender<Health>,
    pub(super) count: Arc<Count>,
    pub(super) stop: watch::Receiver<bool>,
}

/// What a task of a running container reports to it.
enum Done {
    /// An answer is out: its entries may go.
    Loaded(Address),
    /// The values for a compaction have been read, or cannot be.
    RowsLoaded(SegmentKey, Compaction, Result<Vec<Bytes>, ReadError>),
    /// The register has answered.
    KeepFromSet(Result<(), Stopped>),
}

/// A container at work.
struct Running {
    shell: Shell,
    machine: Container,
    source: Source,
    progress: watch::Receiver<Progress>,
    /// Payloads of entries that are not committed: nobody may read them yet.
    in_flight: VecDeque<(EntryId, Vec<Bytes>)>,
    /// The lowest entries of answers under way: the log is kept for them.
    pins: BTreeMap<Address, usize>,
    done: mpsc::UnboundedReceiver<Done>,
    report: mpsc::UnboundedSender<Done>,
    timer: Option<(Instant, BoxFuture<'static, ()>)>,
    committed: Option<EntryId>,
    stopped: Option<Arc<str>>,
}

/// What woke the task.
enum Event {
    Progress,
    Requests(Vec<Request>),
    Done(Done),
    Timer,
    /// The store ends.
    End,
}

impl Shell {
    /// Runs the container to its end. `started` hears of its recovery once the owner's start is committed.
    pub(super) async fn run(self, started: oneshot::Sender<Result<Replayed, StartError>>) {
        let recovered = match recover(&self.logs, self.container).await {
            Ok(recovered) => recovered,
            Err(error) => {
                // Nobody waits any more when this fails.
                let _ = started.send(Err(error));
                return;
            }
        };
        let replayed = recovered.replayed;
        let container = self.container;
        let mut running = Running::new(self, recovered);
        let outcome = match running.until_committed().await {
            Ok(()) => Ok(replayed),
            Err(reason) => Err(StartError::Stopped { container, reason }),
        };
        let has_started = outcome.is_ok();
        let _ = started.send(outcome);
        if has_started {
            running.serve().await;
        }
        running.end();
    }
}

impl Running {
    fn new(shell: Shell, recovered: Recovered) -> Self {
        let Recovered { recovery, opened, snapshots, .. } = recovered;
        let ledger = opened.ledger;
        let start = Start {
            tuning: shell.tuning,
            epoch: ledger.id().epoch,
            is_local: ledger.is_local(),
            keep_from: opened.keep_from,
            snapshots,
            now: shell.clock.now(),
            wall: shell.clock.wall(),
        };
        let mut effects = Vec::new();
        let machine = Container::start(recovery, start, &mut effects);
        let (report, done) = mpsc::unbounded_channel();
        let progress = ledger.progress();
        let (container, cache) = (shell.container, Arc::clone(&shell.cache));
        let mut running = Self {
            shell,
            machine,
            source: Source { container, cache, ledger },
            progress,
            in_flight: VecDeque::new(),
            pins: BTreeMap::new(),
            done,
            report,
            timer: None,
            committed: None,
            stopped: None,
        };
        running.perform(effects);
        running
    }

    /// Waits for the owner's start to be committed.
    async fn until_committed(&mut self) -> Result<(), Arc<str>> {
        loop {
            self.take_progress();
            if let Some(reason) = &self.stopped {
                return Err(Arc::clone(reason));
            }
            if self.committed.is_some() {
                return Ok(());
            }
            if self.progress.changed().await.is_err() {
                return Err("the log has ended".into());
            }
        }
    }

    async fn serve(&mut self) {
        let mut is_ending = false;
        while self.stopped.is_none() {
            if is_ending && self.in_flight.is_empty() {
                return;
            }
            match self.next(is_ending).await {
                Event::Progress => self.take_progress(),
                Event::Requests(requests) => {
                    let wall = self.shell.clock.wall();
                    self.step(Input::Requests { wall, requests });
                }
                Event::Done(Done::Loaded(address)) => self.unpin(address),
                Event::Done(Done::RowsLoaded(segment, plan, values)) => {
                    self.rows_loaded(segment, plan, values);
                }
                Event::Done(Done::KeepFromSet(Ok(()))) => self.step(Input::KeepFromSet),
                Event::Done(Done::KeepFromSet(Err(stopped))) => {
                    self.stopped.get_or_insert(stopped.reason);
                }
                Event::Timer => self.step(Input::Tick),
                Event::End => {
                    is_ending = true;
                    self.shell.requests.close();
                    self.finish_requests();
                    self.step(Input::EndReads);
                }
            }
        }
    }

    /// What is in the queue is done before the end.
    fn finish_requests(&mut self) {
        let mut requests = Vec::new();
        while let Ok(request) = self.shell.requests.try_recv() {
            requests.push(request);
        }
        let wall = self.shell.clock.wall();
        self.step(Input::Requests { wall, requests });
    }

    async fn next(&mut self, is_ending: bool) -> Event {
        self.set_timer();
        let timer = self.timer.as_mut().map(|(_, sleep)| sleep);
        let mut requests = Vec::new();
        let batch = if buggify!("container: one request at a time") { 1 } else { BATCH_MAX };
        select! {
            biased;
            changed = self.progress.changed() => {
                if changed.is_err() {
                    self.stopped.get_or_insert("the log has ended".into());
                }
                Event::Progress
            }
            _ = self.shell.stop.wait_for(|stop| *stop), if !is_ending => Event::End,
            Some(done) = self.done.recv() => Event::Done(done),
            count = self.shell.requests.recv_many(&mut requests, batch), if !is_ending => {
                if count == 0 { Event::End } else { Event::Requests(requests) }
            }
            () = sleep(timer) => {
                self.timer = None;
                Event::Timer
            }
        }
    }

    /// Keeps one timer that fires no later than the machine wants.
    fn set_timer(&mut self) {
        let Some(deadline) = self.machine.deadline() else { return };
        if self.timer.as_ref().is_none_or(|(at, _)| *at > deadline) {
            self.timer = Some((deadline, self.shell.clock.sleep_until(deadline)));
        }
    }

    fn take_progress(&mut self) {
        let progress = self.progress.borrow_and_update().clone();
        if progress.committed > self.committed
            && let Some(upto) = progress.committed
        {
            self.committed = Some(upto);
            while self.in_flight.front().is_some_and(|(entry, _)| *entry <= upto)
                && let Some((entry, payload)) = self.in_flight.pop_front()
            {
                self.cache(entry, &payload);
            }
            self.step(Input::Committed { upto });
            self.shell.count.set(self.machine.acknowledged());
        }
        if progress.stopped.is_some() && self.stopped.is_none() {
            probe!("container: the log has stopped");
            self.stopped.clone_from(&progress.stopped);
        }
        let is_short = progress.held.is_some();
        if is_short != self.shell.health.borrow().held.is_some() {
            self.step(Input::Space { is_short });
        }
        let segments = self.machine.segments();
        self.shell.health.send_if_modified(|health| {
            let changed = health.held != progress.held || health.segments != segments;
            health.held = progress.held;
            health.segments = segments;
            changed
        });
    }

    fn cache(&self, entry: EntryId, payload: &[Bytes]) {
        if !payload.is_empty() {
            let address = Address::new(self.source.ledger.id().epoch, entry);
            let container = self.shell.container;
            self.shell.cache.insert(container, address, Payloads::new(payload));
        }
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.machine.step(self.shell.clock.now(), input, &mut effects);
        if cfg!(debug_assertions) {
            self.machine.check();
        }
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { entry, content } => self.append(entry, content),
                Effect::Reply { replies, command } => replies.send(command),
                Effect::Close { replies, reason } => replies.close(reason),
                Effect::Load(load) => self.load(load),
                Effect::LoadRows { segment, plan } => self.load_rows(segment, plan),
                Effect::Settle { replies, bytes } => {
                    replies.refund(bytes);
                    self.shell.room.add_permits(super::room_for(bytes) as usize);
                }
                Effect::SetKeepFrom { keep_from, snapshots } => {
                    self.set_keep_from(keep_from, snapshots);
                }
                Effect::Stop { reason } => {
                    tracing::error!(container = %self.shell.container, %reason, "must stop");
                    self.stopped.get_or_insert(reason);
                }
            }
        }
    }

    fn append(&mut self, entry: EntryId, content: Entry) {
        if self.stopped.is_some() {
            return;
        }
        let payload = content.payload.clone();
        if planted!("PB-S5") {
            self.cache(entry, &payload);
        }
        match self.source.ledger.append(content) {
            Ok(got) if got == entry => self.in_flight.push_back((entry, payload)),
            Ok(got) => {
                let reason = format!("entry {entry} became entry {got}: addresses are wrong");
                tracing::error!(container = %self.shell.container, reason, "must stop");
                self.stopped.get_or_insert(reason.into());
            }
            Err(stopped) => {
                self.stopped.get_or_insert(stopped.reason);
            }
        }
    }

    fn load(&mut self, load: Load) {
        let Some(load) = self.source.try_cache(load) else { return };
        let Some(pinned) = lowest(&load) else { return };
        *self.pins.entry(pinned).or_default() += 1;
        let (source, report) = (self.source.clone(), self.report.clone());
        let load = Box::pin(async move {
            source.read_log(load).await;
            // The container has ended when this fails.
            let _ = report.send(Done::Loaded(pinned));
        });
        self.shell.spawn.spawn("segment load", load);
    }

    fn load_rows(&mut self, segment: SegmentKey, plan: Compaction) {
        if let Some(pinned) = plan.lowest() {
            *self.pins.entry(pinned).or_default() += 1;
        }
        let (source, report) = (self.source.clone(), self.report.clone());
        let load = Box::pin(async move {
            let values = source.read_values(&plan.values).await;
            // The container has ended when this fails.
            let _ = report.send(Done::RowsLoaded(segment, plan, values));
        });
        self.shell.spawn.spawn("segment compaction", load);
    }

    fn rows_loaded(
        &mut self,
        segment: SegmentKey,
        plan: Compaction,
        values: Result<Vec<Bytes>, ReadError>,
    ) {
        if let Some(pinned) = plan.lowest() {
            self.unpin(pinned);
        }
        match values {
            Ok(values) => self.step(Input::RowsLoaded { segment, plan, values }),
            Err(fault) => {
                let container = self.shell.container;
                tracing::error!(%container, %fault, "a table cannot be compacted any more");
            }
        }
    }

    fn unpin(&mut self, address: Address) {
        if let Some(count) = self.pins.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&address);
            }
        }
    }

    fn set_keep_from(&mut self, keep_from: Address, snapshots: SnapshotPointers) {
        let pinned = self.pins.keys().next().copied();
        let keep_from = pinned.map_or(keep_from, |pinned| pinned.min(keep_from));
        let (ledger, report) = (Arc::clone(&self.source.ledger), self.report.clone());
        let set = Box::pin(async move {
            let outcome = ledger.set_keep_from(keep_from, snapshots).await;
            // The container has ended when this fails.
            let _ = report.send(Done::KeepFromSet(outcome));
        });
        self.shell.spawn.spawn("segment log trim", set);
    }

    /// Nothing is done any more; those who wait for room are turned away.
    fn end(mut self) {
        self.shell.requests.close();
        self.shell.room.close();
        let stopped = self.stopped.take();
        self.shell.health.send_modify(|health| health.stopped = stopped);
    }
}

/// Completes with the timer, never without one.
async fn sleep(timer: Option<&mut BoxFuture<'static, ()>>) {
    match timer {
        Some(timer) => Pin::new(timer).await,
        None => std::future::pending().await,
    }
}
