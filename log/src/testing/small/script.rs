//! What a script asks of a small world: whether an action can happen now, and what has come of those that did.

use super::host::Host;
use super::node::Node;
use super::{Action, CONTAINER, Link, SmallWorld};
use crate::message::RunFacts;
use crate::register::ContainerLog;
use thalweg_actor::explore::World as _;
use thalweg_types::id::{EntryId, Epoch, LedgerId};

impl SmallWorld {
    /// True if `action` can happen now.
    pub fn can(&self, action: Action) -> bool {
        let mut actions = Vec::new();
        self.actions(&mut actions);
        actions.contains(&action)
    }

    /// How many processes have owned the container or tried to.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The register as it stands.
    pub fn register(&self) -> &ContainerLog {
        &self.register.value
    }

    /// The end of the ledger of `epoch`, if it is closed and still listed.
    pub fn end_of(&self, epoch: u64) -> Option<u64> {
        self.register.value.ledger(Epoch(epoch))?.end().map(|end| end.0)
    }

    /// How many entries the writer of process `host` has counted as committed.
    pub fn committed(&self, host: usize) -> u64 {
        self.hosts[host].value.committed_end().0
    }

    /// True while the writer of process `host` goes on.
    pub fn writes(&self, host: usize) -> bool {
        self.hosts[host].value.live_writer().is_some()
    }

    /// True while the recovery of process `host` goes on.
    pub fn recovers(&self, host: usize) -> bool {
        self.hosts[host].value.live_recovery().is_some()
    }

    /// True if the recovery of process `host` misses an entry that it must read.
    pub fn is_stuck(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(|host| host.value.stuck)
    }

    /// Requests and replies on their way between process `host` and storage `slot`.
    pub fn on_the_way(&self, host: usize, slot: usize) -> (usize, usize) {
        let Link { requests, replies, .. } = self.link(host, slot);
        (requests.len(), replies.len())
    }

    /// What storage `slot` knows of the ledger of `epoch`.
    pub fn run_of(&self, slot: usize, epoch: u64) -> Option<RunFacts> {
        self.node(slot)?.replica().facts(Epoch(epoch))
    }

    /// True if storage `slot` has the entry, durably and readably.
    pub fn holds(&self, slot: usize, epoch: u64, entry: u64) -> bool {
        let holds = |node: &Node| node.holds(Epoch(epoch), EntryId(entry));
        self.node(slot).is_some_and(holds)
    }

    /// The ledger of `epoch`.
    pub fn ledger_of(epoch: u64) -> LedgerId {
        LedgerId { container: CONTAINER, epoch: Epoch(epoch) }
    }

    /// Commands that process `host` waits for.
    pub fn calls(&self, host: usize) -> usize {
        let waiting = |host: &Host| host.calls.len();
        waiting(&self.hosts[host].value)
    }
}
