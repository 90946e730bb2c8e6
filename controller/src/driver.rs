//! Drivers: read a workflow's record, do its step at the segment store, say that it is done.
//!
//! A driver knows nothing but the record, so a new one begins wherever the last one was cut off: every segment command
//! is idempotent, and [`Command::Advance`] is refused when the workflow is past that step. A step is advanced only when
//! all its effects have been answered positively; anything else is tried again.

mod hand;
mod marks;
mod txn;

pub(crate) use marks::keep_watermarks;
pub(crate) use txn::expire;

use crate::controller::{Ended, Inner};
use crate::join::join_all;
use crate::limits::SEGMENT_COMMANDS_MAX;
use crate::record::{
    Command, GroupCommand, Name, SegmentRecord, Step, TableCommand, TableRecord, TxnCommand,
    Workflow, WorkflowRecord,
};
use crate::segments::{Fence, SegmentKind};
use crate::state::{Outcome, Refusal, State, companion, group_stream, table_segments_name};
use hand::{Deed, Hand, Order};
use std::sync::Arc;
use thalweg_actor::{BoxFuture, probe};
use thalweg_types::id::SegmentId;
use thalweg_types::name::ScopedStream;

/// What a driver is responsible for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// The workflow of a stream.
    Stream(Name),
    /// The removal of a scope with all that is in it.
    Scope(String),
    /// The workflow of a key-value table.
    Table(Name),
    /// The segments of a transaction, by the lower half of its id.
    Txn(Name, i64),
    /// What is decided of a stream's transactions and waits for its merge.
    Commits(Name),
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
    /// Begin to merge when the stream is idle.
    Commit,
}

/// One step of a workflow: who sends it, and what it asks of which segments.
#[derive(Clone, Debug)]
pub(crate) struct StepJob {
    fence: Fence,
    /// Each whole before the next.
    stages: Vec<Vec<Order>>,
}

/// What `command` may have given a driver to do; `state` is that after it.
pub(crate) fn touched(state: &State, command: &Command, outcome: &Outcome) -> Vec<Task> {
    let mut tasks = touched_streams(command);
    match (command, outcome) {
        (Command::Txn(command), outcome) => tasks.extend(txn::touched(command, outcome)),
        (Command::Seal { name } | Command::Delete { name, .. }, _) => {
            tasks.extend(txn::unfinished(state, name));
        }
        (Command::Group(GroupCommand::Delete { name, .. }), _) => {
            tasks.extend(txn::unfinished(state, &group_stream(name)));
        }
        _ => {}
    }
    tasks
}

fn touched_streams(command: &Command) -> Vec<Task> {
    let with_companion = |name: Name| {
        let companion = companion(&name);
        std::iter::once(name).chain(companion).map(Task::Stream).collect()
    };
    match command {
        Command::CreateStream { name, .. } => with_companion(name.clone()),
        Command::Group(GroupCommand::Create { name, .. } | GroupCommand::Delete { name, .. }) => {
            with_companion(group_stream(name))
        }
        Command::Table(TableCommand::Create { name, .. } | TableCommand::Delete { name }) => {
            vec![Task::Table(name.clone())]
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
        | Command::Group(GroupCommand::Update { .. } | GroupCommand::Consume { .. })
        | Command::Table(TableCommand::Advance { .. })
        | Command::Writer(_)
        | Command::Txn(_)
        | Command::Register(_) => Vec::new(),
    }
}

/// Everything that was under way when the state was stored.
pub(crate) fn unfinished(state: &State) -> Vec<Task> {
    let record = state.record();
    let streams = record.streams.iter().filter(|(_, stream)| stream.workflow.is_some());
    let scopes = record.scopes.iter().filter(|(_, scope)| scope.deleting);
    let tables = record.tables.iter().filter(|(_, table)| table.workflow.is_some());
    let streams = streams.map(|(name, _)| Task::Stream(name.clone()));
    let scopes = scopes.map(|(name, _)| Task::Scope(name.clone()));
    let tables = tables.map(|(name, _)| Task::Table(name.clone()));
    let txns = record.txns.keys().flat_map(|name| txn::unfinished(state, name));
    streams.chain(scopes).chain(tables).chain(txns).collect()
}

/// The next thing to do for `task`, if there is any.
pub(crate) fn job(state: &State, task: &Task) -> Option<Job> {
    match task {
        Task::Stream(name) => step_job(state, name).map(Job::Step),
        Task::Scope(scope) => {
            let found = state.record().scopes.get(scope).filter(|found| found.deleting)?;
            Some(Job::EmptyScope { id: found.id })
        }
        Task::Table(name) => {
            let found = state.record().tables.get(name)?;
            table_job(name, found).map(Job::Step)
        }
        Task::Txn(name, low) => txn::job(state, name, *low).map(Job::Step),
        Task::Commits(name) => state.is_committing(name).then_some(Job::Commit),
    }
}

fn step_job(state: &State, name: &Name) -> Option<StepJob> {
    let stream = state.any_stream(name)?;
    let workflow = stream.workflow.as_ref()?;
    let rollover_size_bytes = stream.config.rollover_size_bytes;
    let create = Deed::Create(SegmentKind::Stream { rollover_size_bytes });
    let order = |id, deed| order(name, id, deed);
    let each = |ids: Vec<SegmentId>, deed: Deed| -> Vec<Order> {
        ids.into_iter().map(|id| order(id, deed.clone())).collect()
    };
    let ids = |segments: &[SegmentRecord]| segments.iter().map(|s| s.id).collect();
    let orders: Vec<_> = match &workflow.kind {
        Workflow::Create => each(ids(stream.current()), create),
        Workflow::ScaleCreate { created, .. } => each(ids(created), create),
        Workflow::ScaleSeal { sealed } => each(sealed.clone(), Deed::Seal),
        Workflow::Seal => each(ids(stream.current()), Deed::Seal),
        Workflow::Delete => each(stream.remaining(), Deed::Delete),
        Workflow::Truncate { gone } => {
            let cut = stream.head().into_iter().map(|(id, at)| order(id, Deed::Truncate(at)));
            cut.chain(gone.iter().map(|id| order(*id, Deed::Delete))).collect()
        }
        Workflow::RollCreate { merged, next, .. } => {
            let all = merged.iter().chain(next).map(|s| s.id).collect();
            each(all, create)
        }
        Workflow::RollSeal { .. } => {
            let stages = [stream.merge_targets(true), stream.current()];
            let stages = stages.map(|segments| each(ids(segments), Deed::Seal)).to_vec();
            return Some(StepJob { fence: fence(stream.id, workflow), stages });
        }
        Workflow::TxnSeal { .. } | Workflow::TxnMerge { .. } => {
            let stages = txn::stages(state, name, stream, &workflow.kind);
            return Some(StepJob { fence: fence(stream.id, workflow), stages });
        }
    };
    Some(StepJob { fence: fence(stream.id, workflow), stages: vec![orders] })
}

fn fence(stream: u64, workflow: &WorkflowRecord) -> Fence {
    Fence { term: 1, stream, workflow: workflow.id, step: workflow.kind.step() }
}

fn table_job(name: &Name, table: &TableRecord) -> Option<StepJob> {
    let workflow = table.workflow?;
    let (deed, step) = if workflow.deletes {
        (Deed::Delete, Step::Delete)
    } else {
        let key_bytes = table.key_bytes();
        (Deed::Create(SegmentKind::Table { key_bytes }), Step::Create)
    };
    let of = table_segments_name(name);
    let orders = table.segments.iter().map(|s| order(&of, s.id, deed.clone())).collect();
    let fence = Fence { term: 1, stream: table.id, workflow: workflow.id, step };
    Some(StepJob { fence, stages: vec![orders] })
}

/// What is asked of segment `id` of `name`.
fn order(name: &Name, id: SegmentId, deed: Deed) -> Order {
    let segment = ScopedStream::new(&name.scope, &name.stream).segment(id);
    Order { name: segment, id: Some(id), deed }
}

/// Works for `task` until nothing is left to do, or the controller has ended.
pub(crate) async fn drive(inner: Arc<Inner>, task: Task) {
    while let Some(job) = inner.next_job(&task) {
        let done = match (&task, job) {
            (Task::Stream(name), Job::Step(job)) => step(&inner, name, &job).await,
            (Task::Table(name), Job::Step(job)) => table_step(&inner, name, &job).await,
            (Task::Txn(name, low), Job::Step(job)) => txn::step(&inner, name, *low, &job).await,
            (Task::Commits(name), Job::Commit) => txn::commit(&inner, name).await,
            (Task::Scope(scope), Job::EmptyScope { id }) => empty_scope(&inner, scope, id).await,
            _ => return,
        };
        if done.is_err() {
            return;
        }
    }
}

async fn step(inner: &Arc<Inner>, name: &Name, job: &StepJob) -> Result<(), Ended> {
    let sent = Hand { inner, job }.send_all().await?;
    if job.fence.step == Step::Delete {
        delete_companion(inner, name).await?;
    }
    let Fence { workflow, step, .. } = job.fence;
    let (name, lengths) = (name.clone(), sent.lengths);
    let advance = if sent.blocked {
        Command::Txn(TxnCommand::Reroute { name: name.clone(), workflow })
    } else {
        Command::Advance { name: name.clone(), workflow, step, lengths }
    };
    if let Err(refusal) = inner.propose(advance).await? {
        probe!("controller: step was advanced by somebody else");
        tracing::debug!(%refusal, ?name, ?step, "step was not advanced");
    }
    Ok(())
}

async fn table_step(inner: &Arc<Inner>, name: &Name, job: &StepJob) -> Result<(), Ended> {
    Hand { inner, job }.send_all().await?;
    let (name, workflow) = (name.clone(), job.fence.workflow);
    let advanced = inner.propose(Command::Table(TableCommand::Advance { name, workflow })).await?;
    tracing::debug!(?advanced, ?job, "step of a table is done");
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
            let idle = found.is_none() && !state.is_committing(name);
            (idle || matches!(found, Some(Workflow::Delete))).then_some(())
        };
        inner.wait_for(idle).await?;
        match inner.propose(Command::Delete { name: name.clone(), force: true }).await? {
            Err(Refusal::Busy) => {}
            Ok(_) | Err(_) => break,
        }
    }
    inner.wait_for(|state| is_gone(state).then_some(())).await
}

/// Removes a table in whatever state it is, and waits until it is gone.
async fn remove_table(inner: &Arc<Inner>, name: &Name) -> Result<(), Ended> {
    loop {
        let deletes = |state: &State| {
            let found = state.record().tables.get(name).and_then(|table| table.workflow);
            found.is_none_or(|workflow| workflow.deletes).then_some(())
        };
        inner.wait_for(deletes).await?;
        let delete = TableCommand::Delete { name: name.clone() };
        match inner.propose(Command::Table(delete)).await? {
            Err(Refusal::Busy) => {}
            Ok(_) | Err(_) => break,
        }
    }
    let gone = |state: &State| (!state.record().tables.contains_key(name)).then_some(());
    inner.wait_for(gone).await
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
    let names = |state: &State| Some(state.tables_in(scope).cloned().collect());
    let names: Vec<Name> = inner.wait_for(names).await?;
    for chunk in names.chunks(SEGMENT_COMMANDS_MAX) {
        let one =
            |name| -> BoxFuture<'_, Result<(), Ended>> { Box::pin(remove_table(inner, name)) };
        for removed in join_all(chunk.iter().map(one).collect()).await {
            removed?;
        }
    }
    let txns_gone = |state: &State| (!state.has_live_txns(scope)).then_some(());
    inner.wait_for(txns_gone).await?;
    let finish = Command::FinishDeleteScope { scope: scope.to_owned(), id };
    let finished: Result<Outcome, Refusal> = inner.propose(finish).await?;
    tracing::debug!(?finished, scope, "scope removed with all that was in it");
    Ok(())
}
