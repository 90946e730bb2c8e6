//! What drivers do for transactions: make and remove their segments, merge them, end their leases.

use super::hand::{Deed, Hand, Order};
use super::{StepJob, Task};
use crate::controller::{Ended, Inner};
use crate::record::{
    Command, Name, SegmentRecord, Step, StreamRecord, TxnCommand, TxnKey, TxnPhase, TxnRecord,
    Workflow,
};
use crate::segments::{Fence, SegmentKind};
use crate::state::{Outcome, Refusal, State};
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::probe;
use thalweg_types::name::{ScopedStream, SegmentName};

/// Between two looks for leases that have ended.
const LEASE_CHECK: Duration = Duration::from_secs(1);

/// What `command` may have given a driver to do.
pub(super) fn touched(command: &TxnCommand, outcome: &Outcome) -> Option<Task> {
    match (command, outcome) {
        (TxnCommand::Begin { name, .. }, Outcome::Begun(key)) => {
            Some(Task::Txn(name.clone(), key.low))
        }
        (TxnCommand::Abort { name, key }, _) => Some(Task::Txn(name.clone(), key.low)),
        (TxnCommand::Expire { name, low }, _) => Some(Task::Txn(name.clone(), *low)),
        (TxnCommand::Commit { name, .. }, _) => Some(Task::Commits(name.clone())),
        (TxnCommand::BeginCommit { name } | TxnCommand::Reroute { name, .. }, _) => {
            Some(Task::Stream(name.clone()))
        }
        _ => None,
    }
}

/// What is to be done for the transactions of a stream.
pub(super) fn unfinished(state: &State, name: &Name) -> Vec<Task> {
    let Some(txns) = state.txns(name) else { return Vec::new() };
    let works = |txn: &TxnRecord| matches!(txn.phase, TxnPhase::Creating | TxnPhase::Aborting);
    let works = txns.live.iter().filter(|(_, txn)| works(txn));
    let mut tasks: Vec<_> = works.map(|(low, _)| Task::Txn(name.clone(), *low)).collect();
    tasks.extend(txns.is_committing().then(|| Task::Commits(name.clone())));
    tasks
}

/// What is to be done at the store for one transaction alone.
pub(super) fn job(state: &State, name: &Name, low: i64) -> Option<StepJob> {
    let txn = state.txns(name)?.live.get(&low)?;
    let (deed, step) = match txn.phase {
        TxnPhase::Creating => {
            let rollover_size_bytes =
                state.any_stream(name).map_or(0, |stream| stream.config.rollover_size_bytes);
            (Deed::Create(SegmentKind::Stream { rollover_size_bytes }), Step::TxnCreate)
        }
        TxnPhase::Aborting => (Deed::Delete, Step::TxnDelete),
        TxnPhase::Open { .. } | TxnPhase::Committing { .. } => return None,
    };
    let stages = vec![orders(name, low, txn, |_| Some(deed.clone()))];
    let workflow = low.unsigned_abs();
    Some(StepJob { fence: Fence { term: 1, stream: txn.stream, workflow, step }, stages })
}

/// What is to be done at the store for a batch. Merges have a stage for each transaction, in the order of their
/// commits.
pub(super) fn stages(
    state: &State,
    name: &Name,
    stream: &StreamRecord,
    kind: &Workflow,
) -> Vec<Vec<Order>> {
    let (batch, targets) = match kind {
        Workflow::TxnSeal { batch } => (batch, None),
        Workflow::TxnMerge { batch, rolled } => (batch, Some(stream.merge_targets(*rolled))),
        _ => return Vec::new(),
    };
    let of = ScopedStream::new(&name.scope, &name.stream);
    let deed = |parent: &SegmentRecord| {
        let Some(targets) = targets else { return Some(Deed::Seal) };
        let target = targets.iter().find(|t| t.id.number() == parent.id.number())?;
        Some(Deed::Merge(of.segment(target.id)))
    };
    let Some(txns) = state.txns(name) else { return Vec::new() };
    let found = batch.iter().filter_map(|low| Some((*low, txns.live.get(low)?)));
    let stages = found.map(|(low, txn)| orders(name, low, txn, deed));
    if targets.is_some() { stages.collect() } else { vec![stages.flatten().collect()] }
}

/// An order for each segment of a transaction.
fn orders(
    name: &Name,
    low: i64,
    txn: &TxnRecord,
    deed: impl Fn(&SegmentRecord) -> Option<Deed>,
) -> Vec<Order> {
    let of = ScopedStream::new(&name.scope, &name.stream);
    let key = TxnKey { high: txn.high, low };
    let order = |parent: &SegmentRecord| {
        let segment = segment_name(&of.segment(parent.id), key);
        Some(Order { name: segment, id: None, deed: deed(parent)? })
    };
    txn.parents.iter().filter_map(order).collect()
}

/// The name of a transaction's segment, as clients build it too.
fn segment_name(parent: &SegmentName, key: TxnKey) -> SegmentName {
    SegmentName::from(format!("{parent}#transaction.{:016x}{:016x}", key.high, key.low))
}

pub(super) async fn step(
    inner: &Arc<Inner>,
    name: &Name,
    low: i64,
    job: &StepJob,
) -> Result<(), Ended> {
    Hand { inner, job }.send_all().await?;
    let name = name.clone();
    let done = if job.fence.step == Step::TxnCreate {
        TxnCommand::Opened { name, low }
    } else {
        TxnCommand::Aborted { name, low }
    };
    let done = inner.propose(Command::Txn(done)).await?;
    tracing::debug!(?done, ?job, "segments of a transaction are done");
    Ok(())
}

/// Begins to merge what is decided as soon as nothing else is under way, and waits until that is over.
pub(super) async fn commit(inner: &Arc<Inner>, name: &Name) -> Result<(), Ended> {
    let workflow = |state: &State| {
        state.any_stream(name).and_then(|stream| stream.workflow.as_ref()).map(|found| found.id)
    };
    let ready =
        |state: &State| (!state.is_committing(name) || workflow(state).is_none()).then_some(());
    inner.wait_for(ready).await?;
    let begin = TxnCommand::BeginCommit { name: name.clone() };
    match inner.propose(Command::Txn(begin)).await? {
        Ok(Outcome::Started(started)) => {
            let over = |state: &State| (workflow(state) != Some(started.workflow)).then_some(());
            inner.wait_for(over).await
        }
        // Another workflow came first, or nothing is left to do.
        Ok(_) | Err(Refusal::Busy | Refusal::Stale) => Ok(()),
        Err(refusal) => {
            tracing::error!(%refusal, ?name, "decided transactions cannot be merged");
            inner.pause(LEASE_CHECK).await
        }
    }
}

/// Gives up transactions that nobody has pinged in time, for as long as the controller runs.
pub(crate) async fn expire(inner: Arc<Inner>) {
    while inner.pause(LEASE_CHECK).await.is_ok() {
        for (name, low) in inner.txns_due() {
            probe!("controller: a lease is over");
            let expire = Command::Txn(TxnCommand::Expire { name, low });
            if inner.propose(expire).await.is_err() {
                return;
            }
        }
    }
}
