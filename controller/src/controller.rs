//! The running controller: proposes commands to the metadata log, applies what is committed, and keeps a driver at
//! work for everything that is under way.
//!
//! One actor appends all commands and applies them in the log's order; whatever came while it waited for the disk goes
//! into the next batch. Callers see only applied state, hence only what is durable.

use crate::driver::{self, Task};
use crate::join::join_all;
use crate::limits::{PROPOSALS_MAX, SNAPSHOT_AFTER_BYTES, SNAPSHOT_AFTER_COMMANDS};
use crate::record::{self, Command, Name, RecordError, Stamp};
use crate::segments::Segments;
use crate::state::{Outcome, Refusal, State};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::env::Env;
use thalweg_log::metadata::MetadataLog;
use thalweg_log::register::{Register, RegisterCommand, RegisterReply, RegisterUnavailable};
use thalweg_types::time::Instant;
use thalweg_wire::controller::NodeUri;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

/// What a controller is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients find the segment store.
    pub segment_store: NodeUri,
    /// Where clients find the controllers.
    pub controllers: Vec<NodeUri>,
    /// How long an RPC may wait before it answers that its outcome is unknown.
    pub rpc_deadline: Duration,
    /// How often watermarks are looked to.
    pub watermark_period: Duration,
}

/// Why a controller does not start. Nothing has been changed.
#[derive(Debug, Error)]
pub enum StartError {
    /// The newest snapshot cannot be read.
    #[error("the controller's snapshot of command {index} cannot be read: {error}")]
    Snapshot {
        /// The last command in it.
        index: u64,
        /// What is wrong.
        error: RecordError,
    },
    /// A command cannot be read.
    #[error("command {index} of the controller's log cannot be read: {error}")]
    Command {
        /// Which.
        index: u64,
        /// What is wrong.
        error: RecordError,
    },
}

/// The controller has ended: its log has stopped, or it was told to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the controller has stopped: {reason}")]
pub struct Ended {
    /// Why.
    pub reason: Arc<str>,
}

/// A handle to the running controller. Cheap to clone.
#[derive(Clone)]
pub struct Controller {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) env: Env,
    pub(crate) segments: Arc<dyn Segments>,
    clock: LogClock,
    proposals: mpsc::Sender<Proposal>,
    shared: Mutex<Shared>,
    progress: watch::Sender<Progress>,
}

struct Shared {
    state: State,
    /// What has a driver.
    driven: BTreeSet<Task>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    /// Index of the last applied command.
    applied: u64,
    ended: Option<Ended>,
}

struct Proposal {
    command: Command,
    reply: oneshot::Sender<Result<Outcome, Refusal>>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").finish_non_exhaustive()
    }
}

impl Controller {
    /// Restores the state from `log` and takes up what was under way. `segments` may answer later: nothing here waits
    /// for it.
    pub fn start(
        env: Env,
        log: Arc<dyn MetadataLog>,
        segments: Arc<dyn Segments>,
        config: Config,
    ) -> Result<Self, StartError> {
        let (state, applied, since) = restore(log.as_ref())?;
        let (proposals, queue) = mpsc::channel(PROPOSALS_MAX);
        let clock = LogClock { base_ms: state.record().clock_ms, origin: env.clock.now() };
        let shared = Mutex::new(Shared { state, driven: BTreeSet::new() });
        let (progress, _) = watch::channel(Progress { applied, ended: None });
        let inner = Arc::new(Inner { config, env, segments, clock, proposals, shared, progress });
        let unfinished = driver::unfinished(&inner.lock().state);
        inner.ensure_driven(unfinished);
        inner.env.spawn.spawn("controller-leases", Box::pin(driver::expire(Arc::clone(&inner))));
        let marks = driver::keep_watermarks(Arc::clone(&inner));
        inner.env.spawn.spawn("controller-watermarks", Box::pin(marks));
        let actor = Applier { inner: Arc::clone(&inner), log, queue, since };
        inner.env.spawn.spawn("controller-applier", Box::pin(actor.run()));
        Ok(Self { inner })
    }

    /// Ends the controller: nothing is proposed from here on, and everybody who waits is told so. What is under way
    /// goes on with the next start.
    pub fn stop(&self, reason: &str) {
        self.inner.end(Ended { reason: reason.into() });
    }

    /// Completes when the controller has ended. Its node must then end too.
    pub async fn ended(&self) -> Ended {
        self.inner.ended().await
    }

    /// The state as it stands, for tests and inspection.
    pub fn state(&self) -> State {
        self.inner.lock().state.clone()
    }

    pub(crate) fn read<T>(&self, question: impl FnOnce(&State) -> T) -> T {
        self.inner.read(question)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, ended: Ended) {
        tracing::info!(reason = %ended.reason, "controller ends");
        self.progress.send_modify(|progress| {
            progress.ended.get_or_insert(ended);
        });
    }

    /// Commits `command` and answers what it led to. Dropping the future leaves the outcome unknown.
    pub(crate) async fn propose(
        &self,
        command: Command,
    ) -> Result<Result<Outcome, Refusal>, Ended> {
        if let Some(ended) = self.progress.borrow().ended.clone() {
            return Err(ended);
        }
        let (reply, answer) = oneshot::channel();
        let gone = || Ended { reason: "its log has stopped".into() };
        self.proposals.send(Proposal { command, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Waits until `found` answers something, looking again after every command that is applied.
    pub(crate) async fn wait_for<T: Send>(
        &self,
        mut found: impl FnMut(&State) -> Option<T> + Send,
    ) -> Result<T, Ended> {
        let mut progress = self.progress.subscribe();
        loop {
            if let Some(ended) = progress.borrow_and_update().ended.clone() {
                return Err(ended);
            }
            if let Some(value) = found(&self.lock().state) {
                return Ok(value);
            }
            if progress.changed().await.is_err() {
                return Err(Ended { reason: "dropped".into() });
            }
        }
    }

    /// Waits, but not beyond the controller's end.
    pub(crate) async fn pause(&self, time: Duration) -> Result<(), Ended> {
        let sleep = self.env.clock.sleep_until(self.env.clock.now().after(time));
        tokio::select! {
            biased;
            ended = self.ended() => Err(ended),
            () = sleep => Ok(()),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.env.clock.now()
    }

    pub(crate) fn read<T>(&self, question: impl FnOnce(&State) -> T) -> T {
        question(&self.lock().state)
    }

    /// The transactions whose deadline has passed by now.
    pub(crate) fn txns_due(&self) -> Vec<(Name, i64)> {
        let now = self.clock.stamp(&self.env).clock_ms;
        self.lock().state.txns_due(now)
    }

    async fn ended(&self) -> Ended {
        let mut progress = self.progress.subscribe();
        let found = progress.wait_for(|progress| progress.ended.is_some()).await;
        let ended = found.ok().and_then(|progress| progress.ended.clone());
        ended.unwrap_or_else(|| Ended { reason: "dropped".into() })
    }

    /// What the driver of `task` has to do next; without work the driver is dismissed in the same step.
    pub(crate) fn next_job(&self, task: &Task) -> Option<driver::Job> {
        if self.progress.borrow().ended.is_some() {
            return None;
        }
        let mut shared = self.lock();
        let job = driver::job(&shared.state, task);
        if job.is_none() {
            shared.driven.remove(task);
        }
        job
    }

    fn ensure_driven(self: &Arc<Self>, tasks: Vec<Task>) {
        for task in tasks {
            let work = {
                let mut shared = self.lock();
                driver::job(&shared.state, &task).is_some() && shared.driven.insert(task.clone())
            };
            if work {
                let driver = driver::drive(Arc::clone(self), task);
                self.env.spawn.spawn("controller-driver", Box::pin(driver));
            }
        }
    }
}

impl Register for Controller {
    fn submit(
        &self,
        command: RegisterCommand,
    ) -> BoxFuture<'_, Result<RegisterReply, RegisterUnavailable>> {
        Box::pin(async move {
            let unavailable = |ended: Ended| RegisterUnavailable { reason: ended.reason };
            let outcome = self.inner.propose(Command::Register(command)).await;
            match outcome.map_err(unavailable)? {
                Ok(Outcome::Register(reply)) => Ok(reply),
                other => {
                    let reason = format!("a register command led to {other:?}");
                    Err(RegisterUnavailable { reason: reason.into() })
                }
            }
        })
    }
}

/// The state that `log` holds, the index of its last command, and what lies behind its snapshot: otherwise many short
/// lives would never reach the next one.
fn restore(log: &dyn MetadataLog) -> Result<(State, u64, Since), StartError> {
    let recovered = log.recovered();
    let (mut state, mut applied, mut since) = (State::genesis(), 0, Since::default());
    if let Some((index, bytes)) = recovered.snapshot {
        let found = record::decode_state(&bytes);
        state = State::restore(found.map_err(|error| StartError::Snapshot { index, error })?);
        applied = index;
    }
    for (index, bytes) in recovered.commands {
        since.commands += 1;
        since.bytes += bytes.len();
        let found = record::decode_command(&bytes);
        let (stamp, command) = found.map_err(|error| StartError::Command { index, error })?;
        // A refusal was given as the answer then, and is given again now.
        let _ = state.apply(&command, stamp);
        applied = index;
    }
    state.check();
    Ok((state, applied, since))
}

/// Log time: goes on from where the log stopped, at the pace of this node's monotonic clock.
struct LogClock {
    base_ms: u64,
    origin: Instant,
}

impl LogClock {
    fn stamp(&self, env: &Env) -> Stamp {
        let passed = env.clock.now().since(self.origin);
        let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        Stamp { clock_ms: self.base_ms.saturating_add(passed_ms), wall_ms: env.clock.wall().0 }
    }
}

/// What has been committed since the last snapshot.
#[derive(Default)]
struct Since {
    commands: usize,
    bytes: usize,
}

struct Applier {
    inner: Arc<Inner>,
    log: Arc<dyn MetadataLog>,
    queue: mpsc::Receiver<Proposal>,
    since: Since,
}

impl Applier {
    async fn run(mut self) {
        let mut progress = self.inner.progress.subscribe();
        let mut batch = Vec::new();
        loop {
            let received = tokio::select! {
                biased;
                _ = progress.wait_for(|progress| progress.ended.is_some()) => return,
                received = self.queue.recv_many(&mut batch, PROPOSALS_MAX) => received,
            };
            if received == 0 {
                return;
            }
            if let Err(ended) = self.commit(&mut batch).await {
                self.inner.end(ended);
                return;
            }
        }
    }

    async fn commit(&mut self, batch: &mut Vec<Proposal>) -> Result<(), Ended> {
        let stamp = self.inner.clock.stamp(&self.inner.env);
        let log = Arc::clone(&self.log);
        let mut appends = Vec::with_capacity(batch.len());
        for proposal in batch.iter() {
            let bytes = Bytes::from(record::encode_command(stamp, &proposal.command));
            self.since.commands += 1;
            self.since.bytes += bytes.len();
            appends.push(log.append(bytes));
        }
        let committed = join_all(appends).await;
        let mut last = 0;
        for (proposal, index) in batch.drain(..).zip(committed) {
            last = index.map_err(|stopped| Ended { reason: stopped.reason })?;
            self.apply(last, proposal, stamp);
        }
        if self.since.commands >= SNAPSHOT_AFTER_COMMANDS
            || self.since.bytes >= SNAPSHOT_AFTER_BYTES
        {
            let state = record::encode_state(self.inner.lock().state.record());
            let stored = self.log.snapshot(last, state.into()).await;
            stored.map_err(|stopped| Ended { reason: stopped.reason })?;
            self.since = Since::default();
        }
        Ok(())
    }

    fn apply(&self, index: u64, proposal: Proposal, stamp: Stamp) {
        let Proposal { command, reply } = proposal;
        let (outcome, tasks) = {
            let mut shared = self.inner.lock();
            let outcome = shared.state.apply(&command, stamp);
            if cfg!(debug_assertions) {
                shared.state.check_after(&command);
            }
            let touched = |outcome| driver::touched(&shared.state, &command, outcome);
            let tasks = outcome.as_ref().map(touched).unwrap_or_default();
            (outcome, tasks)
        };
        if let Err(refusal) = &outcome {
            tracing::debug!(%refusal, ?command, "command refused");
        }
        self.inner.ensure_driven(tasks);
        self.inner.progress.send_modify(|progress| progress.applied = index);
        // The caller may have gone.
        let _ = reply.send(outcome);
    }
}
