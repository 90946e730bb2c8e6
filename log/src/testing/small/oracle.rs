//! The oracles of a small world that look at more than one storage.

use super::{Budget, NODES, QUORUM, SmallWorld, place};
use crate::register::{Change, ContainerLog, LedgerStage};
use thalweg_types::id::{Address, EntryId, Epoch, ReplicaId};

impl SmallWorld {
    /// Copies that faults may have destroyed so far.
    fn damages(&self) -> usize {
        usize::from(self.setup.budget.damages() - self.budget.damages())
    }

    fn copies(&self, ensemble: &[ReplicaId], epoch: Epoch, entry: EntryId) -> usize {
        let holds = |member: &&ReplicaId| {
            self.node(place(**member)).is_some_and(|node| node.holds(epoch, entry))
        };
        ensemble.iter().filter(holds).count()
    }

    /// L4: what is committed is on the ack quorum, whatever the register holds. L5: in order.
    pub(super) fn judge_commit(
        &self,
        host: usize,
        before: EntryId,
        end: EntryId,
    ) -> Result<(), String> {
        if end <= before {
            return Err(format!("L5: the commit point went from {before} to {end}"));
        }
        let host = &self.hosts[host].value;
        let mut possible = vec![(*self.register.value).clone()];
        for call in &host.calls {
            if matches!(call, Change::ChangeEnsemble { .. }) && host.answer.is_none() {
                let mut other = (*self.register.value).clone();
                other.apply(call);
                possible.push(other);
            }
        }
        let enough = usize::from(QUORUM.ack) - self.damages().min(1);
        for register in &possible {
            let Some(ledger) = register.ledger(host.epoch) else { continue };
            for entry in (before.0..end.0).map(EntryId) {
                let Some(fragment) = ledger.fragment_of(entry) else { continue };
                let copies = self.copies(&fragment.ensemble, host.epoch, entry);
                if copies < enough {
                    return Err(format!("L4: entry {entry} is committed with {copies} copies"));
                }
            }
        }
        Ok(())
    }

    /// L8: a closed ledger stays as it is. L12: epochs only rise.
    pub(super) fn judge_register(&self, before: &ContainerLog) -> Result<(), String> {
        let after = &*self.register.value;
        if after.epoch < before.epoch {
            return Err(format!("L12: epoch {} after {}", after.epoch, before.epoch));
        }
        for ledger in &before.ledgers {
            let now = after.ledger(ledger.epoch);
            if let (Some(was), Some(now)) = (ledger.end(), now)
                && now.end() != Some(was)
            {
                return Err(format!("L8: closed at {was}, now {:?}", now.stage));
            }
        }
        Ok(())
    }

    /// Everything that holds in every state.
    pub(super) fn judge(&self) -> Result<(), String> {
        let register = &*self.register.value;
        for (epoch, end) in &self.ended {
            let at = usize::try_from(epoch.0 - 1).expect("few epochs");
            let committed = self.hosts[at].value.committed_end();
            if committed > *end {
                return Err(format!("L7: committed {committed}, closed at {end}"));
            }
            let kept = Address::new(*epoch, *end) > register.keep_from && end.0 > 0;
            if kept && register.ledger(*epoch).is_none() {
                return Err(format!("L9: the ledger of epoch {epoch} has left the register"));
            }
        }
        for ledger in &register.ledgers {
            let epoch = ledger.epoch;
            let at = usize::try_from(epoch.0 - 1).expect("few epochs");
            let Some(host) = self.hosts.get(at) else { continue };
            let committed = host.value.committed_end();
            if let LedgerStage::Closed { end } = ledger.stage {
                if committed > end {
                    return Err(format!("L7: committed {committed}, closed at {end}"));
                }
                self.judge_closed(register, epoch, end)?;
            } else {
                let last = ledger.last_fragment();
                for member in &last.ensemble {
                    let run = self.node(place(*member)).and_then(|n| n.replica().facts(epoch));
                    let first = last.first;
                    if let Some(run) = run.filter(|run| run.certain && run.base > first) {
                        return Err(format!("L15: {run:?} in a fragment from {first} on"));
                    }
                }
            }
            self.judge_commit_points(epoch, committed)?;
        }
        self.judge_ensembles()
    }

    /// L9: a closed ledger is on the ack quorum, but for what was destroyed since.
    fn judge_closed(
        &self,
        register: &ContainerLog,
        epoch: Epoch,
        end: EntryId,
    ) -> Result<(), String> {
        let Some(ledger) = register.ledger(epoch) else { return Ok(()) };
        let enough = usize::from(QUORUM.ack).saturating_sub(self.damages());
        for entry in (register.keep_from_in(epoch).0..end.0).map(EntryId) {
            let Some(fragment) = ledger.fragment_of(entry) else {
                return Err(format!("L9: entry {entry} is in no fragment"));
            };
            let copies = self.copies(&fragment.ensemble, epoch, entry);
            if copies < enough {
                return Err(format!("L9: entry {entry} is closed with {copies} copies"));
            }
        }
        Ok(())
    }

    /// L10: no storage believes in a commit point that its writer has not reached, unless everything below is trimmed.
    fn judge_commit_points(&self, epoch: Epoch, committed: EntryId) -> Result<(), String> {
        let keep_from = self.register.value.keep_from;
        for slot in 0..=NODES {
            let run = self.node(slot).and_then(|node| node.replica().facts(epoch));
            let Some(run) = run else { continue };
            let trimmed = Address::new(epoch, run.committed_end) <= keep_from;
            if run.committed_end > committed && !trimmed {
                return Err(format!("L10: {run:?}, but the writer has committed {committed}"));
            }
        }
        Ok(())
    }

    /// L18: no ensemble has two storages of one node.
    fn judge_ensembles(&self) -> Result<(), String> {
        for ledger in &self.register.value.ledgers {
            for fragment in &ledger.fragments {
                if let Err(error) = QUORUM.validate_ensemble(&fragment.ensemble) {
                    return Err(format!("L18: {error}"));
                }
            }
        }
        Ok(())
    }

    /// What must be true when nothing can happen any more: whoever took over last has come to an end, and who still
    /// writes has committed everything.
    pub(super) fn judge_end(&self) -> Result<(), String> {
        let last = &self.hosts[self.hosts.len() - 1].value;
        // One fault that may destroy a copy must not stop anything, nor may what a retry can mend.
        let (had, left) = (&self.setup.budget, &self.budget);
        let faults = |b: &Budget| b.damages() + b.losses + b.restarts;
        let tired = left.retries == 0 && faults(had) - faults(left) > had.retries;
        if last.live_recovery().is_some() && self.damages() <= 1 && !tired {
            return Err(format!("the recovery of epoch {} never ends", last.epoch));
        }
        // A writer that is fenced and does not know it may wait for ever.
        let calm = self.damages() == 0 && self.setup.budget.losses == 0 && self.hosts.len() == 1;
        for host in self.hosts.iter().filter(|_| calm) {
            if let Some(writer) = host.value.live_writer()
                && writer.committed_end() != writer.next()
            {
                let (end, next) = (writer.committed_end(), writer.next());
                return Err(format!("the writer has committed {end} of {next}"));
            }
        }
        Ok(())
    }
}
