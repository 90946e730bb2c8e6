//! The fault budget: at any time at most one storage may have lost or damaged data that somebody still needs.
//!
//! With an ack quorum of two a committed entry has two copies, so that one loss at a time must never cost it.

use super::history::id;
use super::site::Cast;
use crate::world::trace::trace;
use std::collections::BTreeSet;
use thalweg_log::register::ContainerLog;
use thalweg_types::id::{Address, EntryId, NodeId, ReplicaId};

/// A storage that has lost something.
#[derive(Clone, Debug)]
struct Hurt {
    node: usize,
    /// Of each container, the first address that the loss cannot have touched.
    marks: Vec<Address>,
    /// The storages that the node has had meanwhile.
    replicas: BTreeSet<ReplicaId>,
    /// The damage may still grow: the process that meets it has not started yet.
    is_open: bool,
}

/// The budget.
#[derive(Debug, Default)]
pub(super) struct Budget {
    hurt: Option<Hurt>,
}

impl Budget {
    /// True if `node` may lose data now.
    pub(super) fn allows(&self, node: usize) -> bool {
        self.hurt.as_ref().is_none_or(|hurt| hurt.node == node)
    }

    /// Which node has lost data that may still be needed.
    pub(super) fn node(&self) -> Option<usize> {
        self.hurt.as_ref().map(|hurt| hurt.node)
    }

    /// The node loses something; until it has `settled`, more may follow.
    pub(super) fn spend(&mut self, node: usize, cast: &Cast) {
        debug_assert!(self.allows(node), "one loss at a time");
        let before = self.hurt.take().map(|hurt| hurt.replicas);
        let mut replicas = before.unwrap_or_default();
        replicas.extend(cast.directory.replica(NodeId(node as u64 + 1)));
        self.hurt = Some(Hurt { node, marks: marks(cast), replicas, is_open: true });
    }

    /// The node has started behind its loss: what it takes from now on it keeps.
    pub(super) fn settled(&mut self, node: usize, cast: &Cast) {
        if let Some(hurt) = self.hurt.as_mut().filter(|hurt| hurt.node == node) {
            hurt.marks = marks(cast);
            hurt.is_open = false;
        }
    }

    /// True if nothing of what was lost is needed any more.
    pub(super) fn is_over(&self, cast: &Cast) -> bool {
        let Some(hurt) = &self.hurt else { return false };
        let over = |(container, mark): (usize, &Address)| {
            let log = cast.register.get(id(container));
            log.is_none_or(|log| log.keep_from >= *mark && !hurt.is_named(&log, *mark, cast))
        };
        !hurt.is_open && hurt.marks.iter().enumerate().all(over)
    }

    /// Forgets the loss.
    pub(super) fn forget(&mut self) {
        if let Some(hurt) = self.hurt.take() {
            trace!("budget: nobody needs what node {} has lost", hurt.node);
        }
    }
}

impl Hurt {
    /// True if a ledger that the loss may have touched still counts on the node.
    fn is_named(&self, log: &ContainerLog, mark: Address, cast: &Cast) -> bool {
        log.ledgers.iter().any(|ledger| {
            let members = ledger.fragments.iter().flat_map(|fragment| &fragment.ensemble);
            let mut members = members.filter(|member| self.replicas.contains(member));
            members.any(|member| {
                let is_gone = cast.directory.replica(member.node) != Some(*member);
                is_gone || ledger.epoch <= mark.epoch
            })
        })
    }
}

fn marks(cast: &Cast) -> Vec<Address> {
    (0..cast.stage.containers()).map(|container| mark(container, cast)).collect()
}

/// The first address of a container that nobody has submitted anything at or behind.
fn mark(container: usize, cast: &Cast) -> Address {
    let epoch = cast.register.get(id(container)).map_or_else(Default::default, |log| log.epoch);
    let next = cast.stage.with(|history| history.submitted_end(container, epoch));
    Address::new(epoch, EntryId(next))
}
