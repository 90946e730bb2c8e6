//! Taking a container over: assignment, fence, tail, close, open.

use super::LocalLogs;
use super::container::Container;
use crate::ledger::OpenError;
use crate::message::{Reply, Request};
use crate::quorum::Quorum;
use crate::recovery::{COPIES_MAX, Effect, Input, Plan, Recovery};
use crate::register::{
    Change, ContainerLog, Ending, LedgerRecord, LedgerStage, RegisterCommand, RegisterReply,
};
use crate::replica;
use crate::service::load;
use std::collections::BTreeSet;
use std::sync::Arc;
use thalweg_actor::machine::Machine as _;
use thalweg_types::id::{EntryId, Epoch, LedgerId};

/// Makes this process the owner of a new epoch whose ledger is open and empty. When it returns, no earlier owner can
/// have anything acknowledged any more.
pub(super) async fn take_over(
    logs: &LocalLogs,
    container: &Container,
) -> Result<ContainerLog, OpenError> {
    if let Some(reason) = container.failed() {
        return Err(OpenError::Unavailable { container: container.id, reason });
    }
    let owner = logs.owner;
    let assign =
        Change::Assign { host: owner.host, session: owner.session, incarnation: owner.incarnation };
    let assigned = submit(logs, container, assign).await?.assigned;
    let epoch = assigned.expect("an assignment assigns").epoch;
    let begin = Change::BeginRecovery { epoch, incarnation: owner.incarnation };
    let log = submit(logs, container, begin).await?;
    container.supersede(epoch);
    prepare(container, &log, epoch);
    match log.ledgers.last() {
        Some(last) if last.stage == LedgerStage::Recovering => {
            recover(logs, container, &log, last).await
        }
        _ => submit(logs, container, close(logs, epoch, Ending::default())).await,
    }
}

/// Tells the replica what the register knows better.
fn prepare(container: &Container, log: &ContainerLog, epoch: Epoch) {
    if container.storage().recovered().limbo {
        // Whatever the damage swallowed is of an epoch before this one.
        let upto = Epoch(epoch.0 - 1);
        container.replica_input(replica::Input::Limbo { upto });
    }
    // The register may have moved on while the storage's own trim was lost in a crash, and empty ledgers have left it.
    container.request(Request::Trim { keep_from: log.lowest() });
}

fn close(logs: &LocalLogs, epoch: Epoch, ending: Ending) -> Change {
    Change::Close { epoch, ending, quorum: Quorum::ONE, ensemble: vec![logs.replica] }
}

async fn submit(
    logs: &LocalLogs,
    container: &Container,
    change: Change,
) -> Result<ContainerLog, OpenError> {
    let container = container.id;
    let unavailable = |reason| OpenError::Unavailable { container, reason };
    match logs.register.submit(RegisterCommand { container, change }).await {
        Ok(RegisterReply::Done(log)) => Ok(*log),
        Ok(RegisterReply::Stale { .. }) => Err(OpenError::Superseded { container }),
        Ok(RegisterReply::Invalid { reason }) => Err(unavailable(reason.into())),
        Err(error) => Err(unavailable(error.reason)),
    }
}

/// Ends the ledger `last` and opens the next one.
async fn recover(
    logs: &LocalLogs,
    container: &Container,
    log: &ContainerLog,
    last: &LedgerRecord,
) -> Result<ContainerLog, OpenError> {
    let ledger = LedgerId { container: container.id, epoch: last.epoch };
    let fragment = last.last_fragment();
    if fragment.ensemble != [container.replica()] {
        let members: Vec<String> = fragment.ensemble.iter().map(ToString::to_string).collect();
        let (named, here) = (members.join(", "), container.replica());
        return Err(damaged(
            container,
            &format!("ledger {ledger} is on {named}, but the storage mounted here is {here}"),
        ));
    }
    if let Some(from) = accepted_loss(container, ledger) {
        let end = from.max(fragment.first);
        let ending = Ending { start: end, end, ensemble: fragment.ensemble.clone() };
        return submit(logs, container, close(logs, log.epoch, ending)).await;
    }
    let recovery = Recovery::new(Plan {
        ledger,
        quorum: last.quorum,
        first: fragment.first,
        ensemble: fragment.ensemble.clone(),
        keep_from: log.keep_from_in(last.epoch),
        by: log.epoch,
        next_quorum: Quorum::ONE,
        next_ensemble: vec![logs.replica],
        copies: COPIES_MAX,
    });
    let takeover = Takeover { logs, container, recovery, intact: BTreeSet::new(), reason: None };
    takeover.run().await
}

/// Where an operator has declared the rest of `ledger` lost.
fn accepted_loss(container: &Container, ledger: LedgerId) -> Option<EntryId> {
    let recovered = container.storage().recovered();
    let mine = recovered.losses.iter().filter(|(of, _)| *of == ledger);
    mine.map(|(_, from)| *from).min()
}

fn damaged(container: &Container, reason: &str) -> OpenError {
    OpenError::Damaged { container: container.id, reason: Arc::from(reason) }
}

/// The shell of one recovery.
struct Takeover<'a> {
    logs: &'a LocalLogs,
    container: &'a Container,
    recovery: Recovery,
    /// Entries read whole during this takeover: they need no second look when they are "copied" to where they are.
    intact: BTreeSet<EntryId>,
    /// What the last failed read met.
    reason: Option<Arc<str>>,
}

impl Takeover<'_> {
    async fn run(mut self) -> Result<ContainerLog, OpenError> {
        let mut inputs = vec![Input::Begin];
        let mut effects = Vec::new();
        let mut closed = None;
        loop {
            for input in inputs.drain(..) {
                self.recovery.step(self.logs.clock.now(), input, &mut effects);
                if cfg!(debug_assertions) {
                    self.recovery.check();
                }
            }
            for effect in effects.drain(..) {
                match effect {
                    Effect::Send { request, .. } => self.container.request(request),
                    Effect::Register(change) => {
                        let log = submit(self.logs, self.container, change).await?;
                        closed = Some(log);
                        inputs.push(Input::Closed);
                    }
                    Effect::Stuck { entry } => return Err(self.stuck(entry)),
                    Effect::Done => return Ok(closed.expect("done follows a close")),
                    Effect::Abdicated => {
                        return Err(OpenError::Superseded { container: self.container.id });
                    }
                }
            }
            if inputs.is_empty() {
                inputs = self.listen().await?;
            }
        }
    }

    /// What the replica has answered; waits for it.
    async fn listen(&mut self) -> Result<Vec<Input>, OpenError> {
        let from = self.container.replica();
        loop {
            let inbox = self.container.take_inbox();
            if inbox.is_empty() {
                if let Some(reason) = self.container.failed() {
                    return Err(OpenError::Unavailable { container: self.container.id, reason });
                }
                if self.recovery.doubtful().next().is_some() {
                    return Err(self.doubt());
                }
                self.container.news.notified().await;
                continue;
            }
            let mut replies = inbox.replies;
            for read in inbox.reads {
                replies.extend(self.read(read).await);
            }
            return Ok(replies.into_iter().map(|reply| Input::Reply { from, reply }).collect());
        }
    }

    async fn read(&mut self, read: replica::Effect) -> Option<Reply> {
        match read {
            replica::Effect::Load { ledger, entry, .. } => {
                match load(self.container.storage(), ledger, entry).await {
                    Ok(frame) => {
                        self.intact.insert(entry);
                        Some(Reply::Have(frame))
                    }
                    Err(error) => {
                        self.reason = Some(error.to_string().into());
                        Some(Reply::Unknown { ledger, entry })
                    }
                }
            }
            replica::Effect::Verify { peer, by, entry } => {
                let number = entry.entry;
                let storage = self.container.storage();
                let intact = self.intact.contains(&number)
                    || storage.payload(entry.ledger, number).await.is_ok();
                let verified = replica::Input::Verified { peer, by, entry, intact };
                self.container.replica_input(verified);
                None
            }
            // A takeover asks for no headers, and the rest was performed at once.
            replica::Effect::LoadHeaders { .. }
            | replica::Effect::Stage(_)
            | replica::Effect::Reply { .. } => None,
        }
    }

    fn stuck(&self, entry: EntryId) -> OpenError {
        let ledger = self.recovery.plan().ledger;
        let reason = self.reason.as_deref().unwrap_or("nobody has it");
        let what = format!("entry {entry} of ledger {ledger} may be committed: {reason}");
        damaged(self.container, &what)
    }

    fn doubt(&self) -> OpenError {
        let ledger = self.recovery.plan().ledger;
        let what = self.reason.as_deref().map_or_else(
            || format!("the storage cannot vouch for the end of ledger {ledger}: it is damaged"),
            |reason| format!("ledger {ledger}: {reason}"),
        );
        damaged(self.container, &what)
    }
}
