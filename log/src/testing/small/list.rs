//! What can happen next in a small world.

use super::node::Node;
use super::{Action, Link, NODES, REPAIRER, SLOTS, SmallWorld, Stray, place};
use thalweg_types::id::{Address, EntryId, Epoch, ReplicaId};

impl SmallWorld {
    /// Everything that can happen.
    pub(super) fn list(&self, actions: &mut Vec<Action>) {
        for host in 0..self.hosts.len() {
            self.list_host(host, actions);
        }
        for host in (0..self.hosts.len()).chain([REPAIRER]) {
            for slot in 0..SLOTS {
                self.list_link(host, slot, actions);
            }
        }
        for slot in 0..SLOTS {
            let staged = self.node(slot).map_or(0, Node::staged);
            if staged > 0 && self.slots[slot].value.late {
                actions.push(Action::Sync { slot, frames: 1 });
            }
            if staged > 1 && self.slots[slot].value.late {
                actions.push(Action::Sync { slot, frames: staged });
            }
        }
        if self.budget.takeovers > 0 && self.hosts.len() < REPAIRER {
            actions.push(Action::TakeOver);
        }
        if self.is_stray_due() {
            actions.push(Action::Stray);
        }
        self.list_faults(actions);
        self.list_repairs(actions);
    }

    pub(super) fn list_host(&self, at: usize, actions: &mut Vec<Action>) {
        let host = &self.hosts[at].value;
        match (host.calls.front(), host.answer) {
            (None, _) => {}
            (Some(_), None) => actions.push(Action::Apply { host: at }),
            (Some(_), Some(_)) if !host.late && !host.late_answer => {}
            (Some(_), Some(_)) => {
                actions.push(Action::Learn { host: at });
                if self.budget.losses > 0 {
                    actions.push(Action::Forget { host: at });
                }
            }
        }
        if !host.calls.is_empty() && self.budget.strays > 0 && self.stray.is_none() {
            actions.push(Action::CopyCall { host: at });
        }
        if !host.late {
            return;
        }
        if let Some(writer) = host.live_writer() {
            if host.to_submit > 0 {
                actions.push(Action::Submit { host: at });
            }
            if self.budget.changes > 0 && !writer.is_changing() {
                self.list_swaps(writer.ensemble(), |old, new| {
                    actions.push(Action::Replace { host: at, old, new });
                });
            }
            let committed = Address::new(host.epoch, writer.committed_end());
            let moves = committed > self.register.value.keep_from && committed.entry.0 > 0;
            if self.budget.trims > 0 && host.calls.is_empty() && moves {
                actions.push(Action::Trim { host: at });
            }
        }
        if let Some(recovery) = host.live_recovery().filter(|_| host.calls.is_empty()) {
            if self.budget.substitutes > 0 {
                self.list_swaps(&recovery.plan().ensemble, |old, new| {
                    actions.push(Action::Substitute { host: at, old, new });
                });
            }
            let quiet = (0..SLOTS).all(|slot| {
                let Link { requests, replies, .. } = self.link(at, slot);
                requests.is_empty() && replies.is_empty()
            });
            let broken = (0..SLOTS).any(|slot| self.link(at, slot).broken);
            if self.budget.retries > 0 && quiet && (broken || host.stuck) {
                actions.push(Action::Retry { host: at });
            }
        }
    }

    /// Every way to put a storage in place of a member.
    pub(super) fn list_swaps(&self, ensemble: &[ReplicaId], mut add: impl FnMut(usize, usize)) {
        for old in ensemble {
            for new in self.alive() {
                let others = ensemble.iter().filter(|member| *member != old);
                let twins = others.chain([old]).any(|m| *m == self.id(new));
                let shared = ensemble.iter().any(|m| m != old && m.node == self.id(new).node);
                if !twins && !shared {
                    add(place(*old), new);
                }
            }
        }
    }

    pub(super) fn list_link(&self, host: usize, slot: usize, actions: &mut Vec<Action>) {
        let link = self.link(host, slot);
        let copies = self.budget.strays > 0 && self.stray.is_none();
        let slot_is_late = self.slots[slot].value.late;
        let host_is_late = self.hosts.get(host).is_none_or(|host| host.value.late);
        if !link.requests.is_empty() && (slot_is_late || link.early_requests == 0) {
            actions.push(Action::Deliver { host, slot });
            if self.budget.losses > 0 {
                actions.push(Action::LoseRequest { host, slot });
            }
            if copies {
                actions.push(Action::CopyRequest { host, slot });
            }
        }
        if !link.replies.is_empty() && (host_is_late || link.early_replies == 0) {
            actions.push(Action::Hear { host, slot });
            if self.budget.losses > 0 {
                actions.push(Action::LoseReply { host, slot });
            }
            if copies {
                actions.push(Action::CopyReply { host, slot });
            }
        }
        let quiet = link.requests.is_empty() && link.replies.is_empty();
        if link.broken && quiet && host < self.hosts.len() && host_is_late {
            let writes = self.hosts[host].value.live_writer().is_some() && !self.is_spent(host);
            if writes && self.node(slot).is_some() {
                actions.push(Action::Reconnect { host, slot });
            }
        }
    }

    /// True if what comes again can still happen.
    pub(super) fn is_stray_due(&self) -> bool {
        match self.stray.as_deref() {
            None => false,
            Some(Stray::Call(_)) => true,
            Some(Stray::Request { slot, late, .. }) => *late || self.slots[*slot].value.late,
            Some(Stray::Reply { host, late, .. }) => *late || self.hosts[*host].value.late,
        }
    }

    pub(super) fn list_faults(&self, actions: &mut Vec<Action>) {
        let epochs = || (1..=self.hosts.len() as u64).map(Epoch);
        for slot in self.alive() {
            let node = self.node(slot).expect("it is alive");
            if self.budget.wipes > 0 && slot < NODES && self.replaced.is_none() {
                actions.push(Action::Wipe { slot });
            }
            if self.budget.rots > 0 {
                for epoch in epochs() {
                    let sound = node.sound(epoch);
                    actions.extend(sound.map(|entry| Action::Rot { slot, epoch, entry }));
                }
            }
            for epoch in epochs() {
                let Some(run) = node.replica().facts(epoch) else { continue };
                if self.budget.doubts > 0 {
                    for from in run.base.0..=run.end.0 {
                        let from = EntryId(from);
                        let mut doubt =
                            |fence| actions.push(Action::Doubt { slot, epoch, from, fence });
                        doubt(false);
                        if node.has_lone_fence(epoch) {
                            doubt(true);
                        }
                    }
                }
                if self.budget.limbos > 0 {
                    actions.push(Action::Limbo { slot, epoch });
                }
            }
            if self.budget.restarts > 0 && epochs().any(|e| node.replica().facts(e).is_some()) {
                actions.push(Action::Restart { slot });
            }
        }
    }

    pub(super) fn list_repairs(&self, actions: &mut Vec<Action>) {
        if self.setup.budget.repairs == 0 {
            return;
        }
        let register = &self.register.value;
        for ledger in &register.ledgers {
            let epoch = ledger.epoch;
            let kept = register.keep_from_in(epoch);
            for to in self.alive().filter(|_| self.budget.repairs > 0) {
                let node = self.node(to).expect("it is alive");
                let doubtful = node.replica().facts(epoch).is_some_and(|run| !run.certain);
                let closed = ledger.end().is_some();
                let end = ledger.end().unwrap_or(EntryId(self.setup.entries));
                for entry in (kept.0..end.0).map(EntryId) {
                    let wanted = !node.holds(epoch, entry) && (closed || doubtful);
                    let mut sources = self.alive().filter(|from| {
                        self.node(*from).is_some_and(|node| node.holds(epoch, entry))
                    });
                    if let Some(from) = sources.next().filter(|_| wanted) {
                        actions.push(Action::Repair { from, to, epoch, entry });
                    }
                }
            }
            let Some(end) = ledger.end() else { continue };
            for (at, fragment) in ledger.fragments.iter().enumerate() {
                let next = ledger.fragments.get(at + 1).map_or(end, |next| next.first);
                let range = fragment.first.max(kept).0..next.0;
                let whole = |slot: usize| {
                    let holds = |entry| self.node(slot).is_some_and(|n| n.holds(epoch, entry));
                    range.clone().map(EntryId).all(holds)
                };
                let first = fragment.first;
                self.list_swaps(&fragment.ensemble, |old, new| {
                    if !whole(old) && whole(new) && !range.is_empty() {
                        actions.push(Action::Reseat { epoch, first, old, new });
                    }
                });
            }
        }
    }
}
