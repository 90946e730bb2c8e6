//! What is on its way in a small world, and what of it need not be.

use super::host::Host;
use super::node::Node;
use super::place;
use super::{Budget, Link, REPAIRER, SLOTS, SmallWorld};
use crate::message::{Peer, Reply, Request};
use crate::recovery::{self, Plan};
use crate::register::Change;
use crate::writer;
use thalweg_actor::explore::mix;

impl SmallWorld {
    /// Puts a request on its way, unless it is certain to change nothing.
    pub(super) fn send(&mut self, host: usize, slot: usize, request: Request) {
        let Some(node) = self.node(slot) else { return };
        if node.refuses(&request) && !self.is_rough() {
            let before = &self.link(host, slot).requests;
            let said = before.iter().any(|request| node.refuses(request));
            if said || !self.cares(host) {
                return;
            }
        }
        let late = self.hosts[host].value.late;
        self.edit_link(host, slot, |link| link.put_request(request, late));
    }

    /// Leaves out what a fenced storage would refuse again, or to nobody.
    pub(super) fn prune(&mut self, host: usize, slot: usize) {
        let Some(node) = self.node(slot) else { return };
        let requests = &self.link(host, slot).requests;
        let refused = requests.iter().any(|request| node.refuses(request));
        if self.is_rough() || !refused || host == REPAIRER {
            return;
        }
        let cares = self.cares(host);
        let refused: Vec<bool> = requests.iter().map(|r| node.refuses(r)).collect();
        let mut keep_one = cares;
        self.edit_link(host, slot, |link| {
            let waiting = std::mem::take(link);
            link.broken = waiting.broken;
            link.replies = waiting.replies;
            link.early_replies = waiting.early_replies;
            for (at, (request, refused)) in waiting.requests.into_iter().zip(refused).enumerate() {
                if !refused || std::mem::take(&mut keep_one) {
                    link.put_request(request, at >= waiting.early_requests);
                }
            }
        });
    }

    /// A recovery that a newer one has superseded, and that can reach nothing any more that the newer one has not
    /// reached before, hears of it. When the last one has closed, what the others still do could only add copies.
    pub(super) fn supersede(&mut self) -> Result<(), String> {
        if self.is_rough() || self.setup.budget.substitutes > 0 {
            return Ok(());
        }
        let register = self.register.value.clone();
        let over = self.budget.takeovers == 0
            && register.ledgers.last().is_some_and(|ledger| ledger.epoch == register.epoch);
        for host in 0..self.hosts.len() {
            let Some(recovery) = self.hosts[host].value.live_recovery() else { continue };
            let Plan { by, ledger, ref ensemble, .. } = *recovery.plan();
            let mut nodes = ensemble.iter().filter_map(|member| self.node(place(*member)));
            let late =
                over || nodes.all(|node| node.replica().newer_than(ledger.epoch, by).is_some());
            if by < register.epoch && late {
                self.forget_requests(host);
                self.hosts[host].edit(Host::digest, |host| host.calls.clear());
                self.step_recovery(host, recovery::Input::Stale)?;
            }
        }
        Ok(())
    }

    pub(super) fn forget_requests(&mut self, host: usize) {
        for slot in 0..SLOTS {
            if !self.link(host, slot).requests.is_empty() {
                self.edit_link(host, slot, Link::clear_requests);
            }
        }
    }

    pub(super) fn deliver(
        &mut self,
        host: usize,
        slot: usize,
        request: Request,
        late: bool,
    ) -> Result<(), String> {
        if self.node(slot).is_none() {
            return Ok(());
        }
        self.slots[slot].edit(mix, |slot| slot.late |= late);
        let peer = Peer(u32::try_from(host).expect("few processes"));
        let mut out = Vec::new();
        self.edit_node(slot, |node| node.request(peer, request, &mut out))?;
        self.take_replies(slot, out)?;
        self.settle_syncs(slot)
    }

    pub(super) fn settle_syncs(&mut self, slot: usize) -> Result<(), String> {
        let staged = self.node(slot).map_or(0, Node::staged);
        if !self.setup.syncs && staged > 0 {
            self.sync(slot, staged)?;
        }
        for host in 0..self.hosts.len() {
            self.prune(host, slot);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, slot: usize, frames: usize) -> Result<(), String> {
        let mut out = Vec::new();
        self.edit_node(slot, |node| node.sync(frames, &mut out))?;
        self.take_replies(slot, out)
    }

    pub(super) fn take_replies(
        &mut self,
        slot: usize,
        replies: Vec<(Peer, Reply)>,
    ) -> Result<(), String> {
        for (peer, reply) in replies {
            let host = peer.host();
            if host >= self.hosts.len() || !self.hosts[host].value.listens() {
                continue;
            }
            let late = self.slots[slot].value.late;
            if self.is_spent(host) {
                self.hear_ack(host, slot, reply)?;
            } else if self.is_heard_at_once(host, &reply) {
                self.hear(host, slot, reply, late)?;
            } else if !self.is_closing(host) {
                self.edit_link(host, slot, |link| link.put_reply(reply, late));
            }
        }
        Ok(())
    }

    /// True if the order in which the reply is heard cannot matter: an open that says nothing new, and a copy that is
    /// done (whatever must come before could have come before the copy was taken).
    pub(super) fn is_heard_at_once(&self, host: usize, reply: &Reply) -> bool {
        let writes = self.hosts[host].value.live_writer().is_some();
        match reply {
            Reply::Opened { base, end, .. } => writes && base == end,
            Reply::Repaired { .. } => {
                !writes && !self.is_rough() && self.setup.budget.substitutes == 0
            }
            _ => false,
        }
    }

    /// True if a recovery waits for the register alone: nothing that a storage says matters any more.
    pub(super) fn is_closing(&self, host: usize) -> bool {
        let host = &self.hosts[host].value;
        let closes = |call: &Change| matches!(call, Change::Close { .. });
        !self.is_rough() && host.live_recovery().is_some() && host.calls.iter().any(closes)
    }

    /// True if nothing that a writer will still do depends on its commit point. It then hears every ack at once and
    /// never that it is fenced or that a storage is in doubt: of all that it could do this commits the most, and so
    /// asks the most of a recovery.
    pub(super) fn is_spent(&self, at: usize) -> bool {
        let Budget { changes, trims, .. } = self.budget;
        let Budget { restarts, .. } = self.setup.budget;
        let host = &self.hosts[at].value;
        let idle = host.live_writer().is_some() && host.to_submit == 0;
        let trimming = host.calls.iter().any(|call| matches!(call, Change::SetKeepFrom { .. }));
        idle && !trimming && !self.is_rough() && restarts + changes + trims == 0
    }

    /// True if it matters to a process that it is refused: one that the last takeover has not reached does nothing any
    /// more but hear what became of a command, and then stop.
    pub(super) fn cares(&self, host: usize) -> bool {
        let state = &self.hosts[host].value;
        state.listens() && state.late && !self.is_spent(host)
    }

    pub(super) fn hear_ack(
        &mut self,
        host: usize,
        slot: usize,
        reply: Reply,
    ) -> Result<(), String> {
        if !matches!(reply, Reply::Ack { .. } | Reply::Opened { .. }) {
            return Ok(());
        }
        self.hear(host, slot, reply, false)
    }

    /// Lets writers that are spent by now hear what is on its way to them.
    pub(super) fn spend(&mut self) -> Result<(), String> {
        for host in 0..self.hosts.len() {
            for slot in 0..SLOTS {
                if self.link(host, slot).replies.is_empty() || !self.is_spent(host) {
                    continue;
                }
                let replies = self.link(host, slot).replies.clone();
                self.edit_link(host, slot, Link::clear_replies);
                for reply in replies {
                    self.hear_ack(host, slot, reply)?;
                }
                self.prune(host, slot);
            }
        }
        Ok(())
    }

    pub(super) fn hear(
        &mut self,
        host: usize,
        slot: usize,
        reply: Reply,
        late: bool,
    ) -> Result<(), String> {
        let from = self.id(slot);
        if late && !self.hosts[host].value.late {
            self.hosts[host].edit(Host::digest, |host| host.late = true);
        }
        if self.hosts[host].value.live_writer().is_some() {
            self.step_writer(host, writer::Input::Reply { from, reply })
        } else {
            self.step_recovery(host, recovery::Input::Reply { from, reply })
        }
    }

    /// Replies to a process that has stopped are of no use to anybody.
    pub(super) fn hush(&mut self, host: usize) {
        if self.hosts[host].value.listens() && !self.is_closing(host) {
            return;
        }
        for slot in 0..SLOTS {
            if !self.link(host, slot).replies.is_empty() {
                self.edit_link(host, slot, Link::clear_replies);
            }
            self.prune(host, slot);
        }
    }
}
