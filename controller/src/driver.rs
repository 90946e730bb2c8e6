//! Drivers: read a workflow's record, do its step at the segment store, say that it is done.
//!
//! A driver knows nothing but the record, so a new one begins wherever the last one was cut off: every segment command
//! is idempotent, and [`Command::Advance`] is refused when the workflow is past that step. A step is advanced only when
//! all its effects have been answered positively; anything else is tried again.

use crate::controller::{Ended, Inner};
use crate::join::join_all;
use crate::limits::SEGMENT_COMMANDS_MAX;
use crate::record::{Command, Name, SegmentRecord, Step, Workflow};
use crate::segments::{Fence, SegmentError, SegmentKind};
use crate::state::{Outcome, Refusal, State, companion};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::{BoxFuture, probe};
use thalweg_types::id::SegmentId;
use thalweg_types::name::{ScopedStream, SegmentName};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a driver is responsible for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// The workflow of a stream.
    Stream(Name),
    /// The removal of a scope with all that is in it.
    Scope(String),
}

/// The next thing to do.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// One step of a stream's workflow.
    Step(StepJob),
    /// Empty the scope, then remove it.
    EmptyScope {
        /// Its id.
        id: u64,
    },
}

/// One step of a workflow: who sends it, and what it asks of which segments.
#[derive(Clone, Debug)]
pub(crate) struct StepJob {
    fence: Fence,
    orders: Vec<(SegmentId, Order)>,
}

/// What `command` may have given a driver to do.
pub(crate) fn touched(command: &Command) -> Vec<Task> {
    match command {
        Command::CreateStream { name, .. } => {
            let all = std::iter::once(name.clone()).chain(companion(name));
            all.map(Task::Stream).collect()
        }
        Command::UpdateStream { name, .. }
        | Command::Scale { name, .. }
        | Command::Truncate { name, .. }
        | Command::Seal { name }
        | Command::Delete { name, .. } => vec![Task::Stream(name.clone())],
        Command::BeginDeleteScope { scope } => vec![Task::Scope(scope.clone())],
        Command::CreateScope { .. }
        | Command::DeleteScope { .. }
        | Command::FinishDeleteScope { .. }
        | Command::Advance { .. }
        | Command::Register(_) => Vec::new(),
    }
}

/// Everything that was under way when the state was stored.
pub(crate) fn unfinished(state: &State) -> Vec<Task> {
    let record = state.record();
    let streams = record.streams.iter().filter(|(_, stream)| stream.workflow.is_some());
    let scopes = record.scopes.iter().filter(|(_, scope)| scope.deleting);
    let streams = streams.map(|(name, _)| Task::Stream(name.clone()));
    streams.chain(scopes.map(|(name, _)| Task::Scope(name.clone()))).collect()
}

/// The next thing to do for `task`, if there is any.
pub(crate) fn job(state: &State, task: &Task) -> Option<Job> {
    match task {
        Task::Stream(name) => step_job(state, name).map(Job::Step),
        Task::Scope(scope) => {
            let found = state.record().scopes.get(scope).filter(|found| found.deleting)?;
            Some(Job::EmptyScope { id: found.id })
        }
    }
}

fn step_job(state: &State, name: &Name) -> Option<StepJob> {
    let stream = state.any_stream(name)?;
    let workflow = stream.workflow.as_ref()?;
    let rollover_size_bytes = stream.config.rollover_size_bytes;
    let create = Order::Create(SegmentKind::Stream { rollover_size_bytes });
    let each = |ids: Vec<SegmentId>, order| ids.into_iter().map(move |id| (id, order)).collect();
    let ids = |segments: &[SegmentRecord]| segments.iter().map(|s| s.id).collect();
    let orders: Vec<_> = match &workflow.kind {
        Workflow::Create => each(ids(stream.current()), create),
        Workflow::ScaleCreate { created, .. } => each(ids(created), create),
        Workflow::ScaleSeal { sealed } => each(sealed.clone(), Order::Seal),
        Workflow::Seal => each(ids(stream.current()), Order::Seal),
        Workflow::Delete => each(stream.remaining(), Order::Delete),
        Workflow::Truncate { gone } => {
            let cut = stream.head().into_iter().map(|(id, at)| (id, Order::Truncate(at)));
            cut.chain(gone.iter().map(|id| (*id, Order::Delete))).collect()
        }
    };
    let (workflow, step) = (workflow.id, workflow.kind.step());
    Some(StepJob { fence: Fence { term: 1, stream: stream.id, workflow, step }, orders })
}

/// Works for `task` until nothing is left to do, or the controller has ended.
pub(crate) async fn drive(inner: Arc<Inner>, task: Task) {
    while let Some(job) = inner.next_job(&task) {
        let done = match (&task, job) {
            (Task::Stream(name), Job::Step(job)) => step(&inner, name, &job).await,
            (Task::Scope(scope), Job::EmptyScope { id }) => empty_scope(&inner, scope, id).await,
            _ => return,
        };
        if done.is_err() {
            return;
        }
    }
}

async fn step(inner: &Arc<Inner>, name: &Name, job: &StepJob) -> Result<(), Ended> {
    let lengths = Hand { inner, name, job }.send_all(&job.orders).await?;
    if job.fence.step == Step::Delete {
        delete_companion(inner, name).await?;
    }
    let Fence { workflow, step, .. } = job.fence;
    let advance = Command::Advance { name: name.clone(), workflow, step, lengths };
    if let Err(refusal) = inner.propose(advance).await? {
        probe!("controller: step was advanced by somebody else");
        tracing::debug!(%refusal, ?name, ?step, "step was not advanced");
    }
    Ok(())
}

/// A companion goes with its stream, whatever state it is in.
async fn delete_companion(inner: &Arc<Inner>, name: &Name) -> Result<(), Ended> {
    let Some(companion) = companion(name) else { return Ok(()) };
    remove(inner, &companion).await
}

/// Removes a stream in whatever state it is, and waits until it is gone.
async fn remove(inner: &Arc<Inner>, name: &Name) -> Result<(), Ended> {
    let Some(id) = inner.wait_for(|state| Some(state.any_stream(name).map(|s| s.id))).await? else {
        return Ok(());
    };
    let is_gone = |state: &State| state.any_stream(name).is_none_or(|stream| stream.id != id);
    loop {
        // Its own workflow, if any, ends first.
        let idle = |state: &State| {
            let found = state.any_stream(name).and_then(|stream| stream.kind());
            matches!(found, None | Some(Workflow::Delete)).then_some(())
        };
        inner.wait_for(idle).await?;
        match inner.propose(Command::Delete { name: name.clone(), force: true }).await? {
            Err(Refusal::Busy) => {}
            Ok(_) | Err(_) => break,
        }
    }
    inner.wait_for(|state| is_gone(state).then_some(())).await
}

async fn empty_scope(inner: &Arc<Inner>, scope: &str, id: u64) -> Result<(), Ended> {
    let names = |state: &State| Some(state.streams_in(scope).map(|(n, _)| n.clone()).collect());
    let names: Vec<Name> = inner.wait_for(names).await?;
    for chunk in names.chunks(SEGMENT_COMMANDS_MAX) {
        let one = |name| -> BoxFuture<'_, Result<(), Ended>> { Box::pin(remove(inner, name)) };
        for removed in join_all(chunk.iter().map(one).collect()).await {
            removed?;
        }
    }
    let finish = Command::FinishDeleteScope { scope: scope.to_owned(), id };
    let finished: Result<Outcome, Refusal> = inner.propose(finish).await?;
    tracing::debug!(?finished, scope, "scope removed with all that was in it");
    Ok(())
}

/// Sends one step's segment commands.
struct Hand<'a> {
    inner: &'a Inner,
    name: &'a Name,
    job: &'a StepJob,
}

/// One command to one segment.
#[derive(Clone, Copy, Debug)]
enum Order {
    Create(SegmentKind),
    Seal,
    Truncate(i64),
    Delete,
}

impl Hand<'_> {
    /// Sends `orders`, some at a time. Answers the final length of each segment that was sealed.
    async fn send_all(
        &self,
        orders: &[(SegmentId, Order)],
    ) -> Result<BTreeMap<SegmentId, i64>, Ended> {
        let mut lengths = BTreeMap::new();
        for chunk in orders.chunks(SEGMENT_COMMANDS_MAX) {
            let one = |(id, order): &(SegmentId, Order)| -> BoxFuture<'_, _> {
                Box::pin(self.send(*id, *order))
            };
            let answers = join_all(chunk.iter().map(one).collect()).await;
            for ((id, _), answer) in chunk.iter().zip(answers) {
                lengths.extend(answer?.map(|length| (*id, length)));
            }
        }
        Ok(lengths)
    }

    /// Sends one order until its outcome is known.
    async fn send(&self, id: SegmentId, order: Order) -> Result<Option<i64>, Ended> {
        let segment = ScopedStream::new(&self.name.scope, &self.name.stream).segment(id);
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(&segment, order).await {
                Ok(length) => return Ok(length),
                Err(error) => error,
            };
            if matches!(error, SegmentError::NotFound { .. }) && !matches!(order, Order::Create(_))
            {
                // Somebody removed it at the store: there is nothing left to seal or to cut.
                probe!("controller: segment is gone");
                tracing::warn!(%error, ?order, "segment is missing");
                return Ok(None);
            }
            probe!("controller: segment command is sent again");
            tracing::warn!(%error, ?order, "segment command failed, trying again");
            self.inner.pause(pause).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(
        &self,
        segment: &SegmentName,
        order: Order,
    ) -> Result<Option<i64>, SegmentError> {
        let (segments, fence) = (&self.inner.segments, self.job.fence);
        match order {
            Order::Create(kind) => segments.create(fence, segment, kind).await.map(|()| None),
            Order::Seal => segments.seal(fence, segment).await.map(Some),
            Order::Delete => segments.delete(fence, segment).await.map(|()| None),
            Order::Truncate(offset) => {
                let mut done = segments.truncate(fence, segment, offset).await;
                if let Err(SegmentError::BeyondEnd { length, .. }) = done {
                    // A cut may lie behind what is written: then everything goes.
                    probe!("controller: truncation behind the end");
                    done = segments.truncate(fence, segment, length).await;
                }
                done.map(|()| None)
            }
        }
    }
}
