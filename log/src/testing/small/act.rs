//! What can happen in a small world, and what then does: the shells and the network.

use super::host::{Answer, Host};
use super::node::{Node, frame};
use super::{
    Action, CONTAINER, Link, Marked, NODES, PEERS, QUORUM, REPAIRER, SLOTS, Setup, Slot,
    SmallWorld, Stray, content, mark_register, place, replica,
};
use crate::ledger::Entry;
use crate::message::{Peer, Reply, Request};
use crate::recovery::{self, Plan, Recovery};
use crate::register::{Change, ContainerLog, Ending, LedgerStage, RegisterReply};
use crate::register::{SnapshotRecord, SnapshotRecords};
use crate::writer::{self, StopReason};
use std::rc::Rc;
use thalweg_actor::explore::mix;
use thalweg_actor::machine::Machine as _;
use thalweg_actor::planted;
use thalweg_types::id::{Address, EntryId, Epoch, LedgerId, NodeId, ReplicaId};
use thalweg_types::time::Instant;

impl SmallWorld {
    /// The world at its start: an owner whose ledger is open on three of four blank storages.
    pub fn new(setup: &Setup) -> Self {
        let ensemble: Vec<ReplicaId> = (0..3).map(|slot| replica(slot, None)).collect();
        let mut host = Host::new(Epoch(1));
        host.own(&ensemble, Address::default(), setup.entries);
        let mut register = ContainerLog::new(CONTAINER);
        let (epoch, incarnation) = (Epoch(1), host.incarnation());
        for change in [
            Change::Assign { host: NodeId(1), session: 1, incarnation },
            Change::BeginRecovery { epoch, incarnation },
            Change::Close { epoch, ending: Ending::default(), quorum: QUORUM, ensemble },
        ] {
            register.apply(&change);
        }
        let slot = |at: usize| {
            let node = (at < NODES).then(Node::blank);
            Marked::new(Slot { node, successor: false, late: true }, mix)
        };
        let mut world = Self {
            setup: Rc::new(*setup),
            budget: setup.budget,
            register: Marked::new(register, mark_register),
            ended: Vec::new(),
            hosts: vec![Marked::new(host, Host::digest)],
            slots: (0..SLOTS).map(slot).collect(),
            links: vec![Marked::new(Link::default(), mix); PEERS * SLOTS],
            replaced: None,
            stray: None,
        };
        world.step_writer(0, writer::Input::Begin).expect("nothing is wrong at the start");
        world
    }

    pub(super) fn id(&self, slot: usize) -> ReplicaId {
        replica(slot, self.replaced)
    }

    pub(super) fn node(&self, slot: usize) -> Option<&Node> {
        self.slots[slot].value.node.as_ref()
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = usize> {
        (0..SLOTS).filter(|slot| self.node(*slot).is_some())
    }

    pub(super) fn link(&self, host: usize, slot: usize) -> &Link {
        &self.links[host * SLOTS + slot].value
    }

    pub(super) fn edit_link<R>(
        &mut self,
        host: usize,
        slot: usize,
        change: impl FnOnce(&mut Link) -> R,
    ) -> R {
        self.links[host * SLOTS + slot].edit(mix, change)
    }

    /// True if nothing may be left out: a message may be lost or come again, or the setup says so.
    pub(super) fn is_rough(&self) -> bool {
        self.setup.budget.losses + self.setup.budget.strays > 0 || self.setup.whole
    }

    /// Lets one action happen.
    pub(super) fn act(&mut self, action: Action) -> Result<(), String> {
        self.perform(action)?;
        self.supersede()?;
        self.spend()
    }

    pub(super) fn perform(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Submit { host } => self.submit(host),
            Action::Deliver { host, slot } => {
                let (request, late) = self.edit_link(host, slot, Link::take_request);
                self.deliver(host, slot, request, late)
            }
            Action::Hear { host, slot } => {
                let (reply, late) = self.edit_link(host, slot, Link::take_reply);
                self.hear(host, slot, reply, late)
            }
            Action::Sync { slot, frames } => self.sync(slot, frames),
            Action::Apply { host } => self.apply_call(host),
            Action::Learn { host } => self.learn(host),
            Action::TakeOver => self.take_over(),
            Action::Replace { host, old, new } => {
                self.budget.changes -= 1;
                let (old, new) = (self.id(old), self.id(new));
                self.step_writer(host, writer::Input::Replace { old, new })
            }
            Action::Substitute { host, old, new } => {
                self.budget.substitutes -= 1;
                let (old, new) = (self.id(old), self.id(new));
                self.step_recovery(host, recovery::Input::Substitute { old, new })
            }
            Action::Trim { host } => {
                self.budget.trims -= 1;
                self.trim(host);
                Ok(())
            }
            Action::Retry { host } => {
                self.budget.retries -= 1;
                self.hosts[host].edit(Host::digest, |host| host.stuck = false);
                for slot in 0..SLOTS {
                    self.edit_link(host, slot, |link| link.broken = false);
                }
                self.step_recovery(host, recovery::Input::Retry)
            }
            Action::Reconnect { host, slot } => {
                self.edit_link(host, slot, |link| link.broken = false);
                let replica = self.id(slot);
                self.step_writer(host, writer::Input::Reconnected { replica })
            }
            Action::Repair { to, epoch, entry, .. } => {
                self.budget.repairs -= 1;
                let ledger = LedgerId { container: CONTAINER, epoch };
                let by = self.register.value.epoch;
                let copy = Request::Repair { by, entry: frame(ledger, entry) };
                self.edit_link(REPAIRER, to, |link| link.put_request(copy, true));
                Ok(())
            }
            Action::Reseat { epoch, first, old, new } => {
                let (old, new) = (self.id(old), self.id(new));
                self.change(&Change::Repair { ledger: epoch, first, old, new }).map(|_| ())
            }
            fault => self.fail(fault),
        }
    }

    pub(super) fn fail(&mut self, fault: Action) -> Result<(), String> {
        match fault {
            Action::Wipe { slot } => {
                self.budget.wipes -= 1;
                self.wipe(slot);
            }
            Action::Rot { slot, epoch, entry } => {
                self.budget.rots -= 1;
                self.edit_node(slot, |node| node.rot(epoch, entry));
            }
            Action::Doubt { slot, epoch, from, fence } => {
                self.budget.doubts -= 1;
                self.edit_node(slot, |node| node.doubt(epoch, from, fence));
                self.cut(slot);
            }
            Action::Limbo { slot, epoch } => {
                self.budget.limbos -= 1;
                let upto = self.register.value.epoch;
                self.edit_node(slot, |node| node.forget(epoch, upto));
                self.cut(slot);
                return self.settle_syncs(slot);
            }
            Action::Restart { slot } => {
                self.budget.restarts -= 1;
                self.edit_node(slot, Node::restart)?;
                self.cut(slot);
            }
            Action::LoseRequest { host, slot } => {
                self.budget.losses -= 1;
                self.edit_link(host, slot, |link| {
                    link.take_request();
                    link.broken = true;
                });
            }
            Action::LoseReply { host, slot } => {
                self.budget.losses -= 1;
                self.edit_link(host, slot, |link| {
                    link.take_reply();
                    link.broken = true;
                });
            }
            Action::Forget { host } => {
                self.budget.losses -= 1;
                self.hosts[host].edit(Host::digest, |host| host.answer = None);
            }
            Action::CopyRequest { host, slot } => {
                let (request, late) = self.link(host, slot).clone().take_request();
                self.keep_stray(Stray::Request { host, slot, request, late });
            }
            Action::CopyReply { host, slot } => {
                let (reply, late) = self.link(host, slot).clone().take_reply();
                self.keep_stray(Stray::Reply { host, slot, reply, late });
            }
            Action::CopyCall { host } => {
                let call = self.hosts[host].value.calls.front().cloned();
                self.keep_stray(Stray::Call(call.expect("it was listed")));
            }
            _ => return self.come_again(),
        }
        Ok(())
    }

    pub(super) fn keep_stray(&mut self, stray: Stray) {
        self.budget.strays -= 1;
        self.stray = Some(Rc::new(stray));
    }

    pub(super) fn come_again(&mut self) -> Result<(), String> {
        let Some(stray) = self.stray.take() else { return Ok(()) };
        match (*stray).clone() {
            Stray::Request { host, slot, request, late } => self.deliver(host, slot, request, late),
            Stray::Reply { host, slot, reply, late } => self.hear(host, slot, reply, late),
            Stray::Call(change) => self.change(&change).map(|_| ()),
        }
    }

    pub(super) fn edit_node<R>(&mut self, slot: usize, change: impl FnOnce(&mut Node) -> R) -> R {
        self.slots[slot].edit(mix, |slot| change(slot.node.as_mut().expect("it is alive")))
    }

    /// The storage's process has gone and come back: what was on its way to it is lost.
    pub(super) fn cut(&mut self, slot: usize) {
        for host in 0..PEERS {
            self.edit_link(host, slot, |link| {
                link.clear_requests();
                link.broken = true;
            });
        }
    }

    pub(super) fn wipe(&mut self, slot: usize) {
        self.cut(slot);
        if planted!("PB-L14") {
            return self.slots[slot].edit(mix, |slot| slot.node = Some(Node::blank()));
        }
        self.slots[slot].edit(mix, |slot| slot.node = None);
        self.replaced = Some(slot);
        let successor = Slot { node: Some(Node::blank()), successor: true, late: true };
        self.slots[NODES].edit(mix, |slot| *slot = successor);
    }

    pub(super) fn submit(&mut self, host: usize) -> Result<(), String> {
        let (epoch, next) = self.hosts[host].edit(Host::digest, |host| {
            host.to_submit -= 1;
            (host.epoch, host.live_writer().expect("it was listed").next())
        });
        let entry = Entry { headers: content(epoch, next), payload: Vec::new(), exempt: false };
        self.step_writer(host, writer::Input::Submit(entry))
    }

    pub(super) fn step_writer(&mut self, host: usize, input: writer::Input) -> Result<(), String> {
        let mut effects = Vec::new();
        let before = self.hosts[host].value.committed_end();
        self.hosts[host].edit(Host::digest, |host| {
            let Some(writer) = &mut host.writer else { return };
            writer.step(Instant::default(), input, &mut effects);
            writer.check();
        });
        for effect in effects {
            match effect {
                writer::Effect::Send { to, request } => self.send(host, place(to), request),
                writer::Effect::Committed { end } => self.judge_commit(host, before, end)?,
                writer::Effect::Register(change) => {
                    self.hosts[host].edit(Host::digest, |host| host.calls.push_back(change));
                }
                writer::Effect::Stopped(StopReason::Fenced { by })
                    if by <= self.hosts[host].value.epoch =>
                {
                    return Err(format!("a writer was stopped by epoch {by}, not above its own"));
                }
                writer::Effect::Distrusted { .. }
                | writer::Effect::Full { .. }
                | writer::Effect::Stopped(_) => {}
            }
        }
        self.hush(host);
        Ok(())
    }

    pub(super) fn step_recovery(
        &mut self,
        host: usize,
        input: recovery::Input,
    ) -> Result<(), String> {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut effects = Vec::new();
            self.hosts[host].edit(Host::digest, |host| {
                let Some(recovery) = &mut host.recovery else { return };
                recovery.step(Instant::default(), input, &mut effects);
                recovery.check();
            });
            for effect in effects {
                match effect {
                    recovery::Effect::Send { to, request } => {
                        let at_once = !self.setup.reads || self.node(place(to)).is_none();
                        match request {
                            Request::Read { ledger, entry } if at_once => {
                                let reply = self.read(host, place(to), ledger, entry)?;
                                inputs.push(recovery::Input::Reply { from: to, reply });
                            }
                            request => self.send(host, place(to), request),
                        }
                    }
                    recovery::Effect::Register(change) => {
                        self.hosts[host].edit(Host::digest, |host| host.calls.push_back(change));
                    }
                    recovery::Effect::Stuck { .. } => {
                        self.hosts[host].edit(Host::digest, |host| host.stuck = true);
                    }
                    recovery::Effect::Done => self.own(host)?,
                    recovery::Effect::Abdicated => {}
                }
            }
        }
        self.hush(host);
        Ok(())
    }

    /// What a storage answers to a read; one that is not mounted cannot tell.
    pub(super) fn read(
        &mut self,
        host: usize,
        slot: usize,
        ledger: LedgerId,
        entry: EntryId,
    ) -> Result<Reply, String> {
        let mut out = Vec::new();
        if self.node(slot).is_some() {
            let peer = Peer(u32::try_from(host).expect("few processes"));
            let request = Request::Read { ledger, entry };
            self.edit_node(slot, |node| node.request(peer, request, &mut out))?;
        }
        let reply = out.pop().map(|(_, reply)| reply);
        Ok(reply.unwrap_or(Reply::Unknown { ledger, entry }))
    }

    pub(super) fn own(&mut self, host: usize) -> Result<(), String> {
        let register = self.register.value.clone();
        let Some(ledger) = register.ledger(self.hosts[host].value.epoch) else { return Ok(()) };
        let open = ledger.stage == LedgerStage::Open;
        if self.setup.later_entries == 0 || !open {
            return Ok(());
        }
        let (ensemble, entries) = (&ledger.last_fragment().ensemble, self.setup.later_entries);
        self.hosts[host].edit(Host::digest, |host| {
            host.own(ensemble, register.keep_from, entries);
        });
        self.step_writer(host, writer::Input::Begin)
    }

    pub(super) fn take_over(&mut self) -> Result<(), String> {
        self.budget.takeovers -= 1;
        self.begin_anew();
        let at = self.hosts.len();
        let epoch = Epoch(at as u64 + 1);
        let mut host = Host::new(epoch);
        let incarnation = host.incarnation();
        self.change(&Change::Assign { host: NodeId(epoch.0), session: epoch.0, incarnation })?;
        self.change(&Change::BeginRecovery { epoch, incarnation })?;
        let register = self.register.value.clone();
        let last = register.ledgers.last().expect("it is born with one");
        let ensemble = last.last_fragment().ensemble.clone();
        host.recovery = Some(Recovery::new(Plan {
            ledger: LedgerId { container: CONTAINER, epoch: last.epoch },
            quorum: last.quorum,
            first: last.last_fragment().first,
            next_ensemble: self.fresh(&ensemble),
            ensemble,
            keep_from: register.keep_from_in(last.epoch),
            by: epoch,
            next_quorum: QUORUM,
            copies: 2,
        }));
        self.hosts.push(Marked::new(host, Host::digest));
        self.step_recovery(at, recovery::Input::Begin)
    }

    /// Nothing is late any more.
    pub(super) fn begin_anew(&mut self) {
        if self.setup.whole {
            return;
        }
        for host in &mut self.hosts {
            host.edit(Host::digest, |host| (host.late, host.late_answer) = (false, false));
        }
        for slot in &mut self.slots {
            slot.edit(mix, |slot| slot.late = false);
        }
        let rough = self.is_rough();
        for link in &mut self.links {
            link.edit(mix, |link| {
                if !rough {
                    // Whoever would hear these could have heard them before; what comes behind an ack covers it.
                    link.replies.clear();
                }
                link.early_requests = link.requests.len();
                link.early_replies = link.replies.len();
            });
        }
    }

    /// The ensemble, with another storage in place of one that is gone.
    pub(super) fn fresh(&self, ensemble: &[ReplicaId]) -> Vec<ReplicaId> {
        let mut fresh = ensemble.to_vec();
        for at in 0..fresh.len() {
            if self.node(place(fresh[at])).is_some() {
                continue;
            }
            let mut others = self.alive().map(|slot| self.id(slot));
            if let Some(other) = others.find(|id| fresh.iter().all(|m| m.node != id.node)) {
                fresh[at] = other;
            }
        }
        fresh
    }

    pub(super) fn trim(&mut self, at: usize) {
        let host = &self.hosts[at].value;
        let keep_from = Address::new(host.epoch, host.committed_end());
        let covers = keep_from.entry.0.checked_sub(1).map(EntryId);
        let covers = covers.map(|last| Address::new(host.epoch, last));
        let newest = Some(SnapshotRecord { at: keep_from, covers });
        let snapshots = SnapshotRecords { newest, older: newest };
        let change = Change::SetKeepFrom { epoch: host.epoch, keep_from, snapshots };
        self.hosts[at].edit(Host::digest, |host| host.calls.push_back(change));
    }

    /// The register applies `change`.
    pub(super) fn change(&mut self, change: &Change) -> Result<Answer, String> {
        let before = self.register.value.clone();
        let reply = self.register.edit(mark_register, |register| {
            let reply = register.apply(change);
            register.check();
            reply
        });
        if let (Change::Close { ending, .. }, RegisterReply::Done(_)) = (change, &reply)
            && let Some(last) = before.ledgers.last().filter(|ledger| ledger.end().is_none())
            && self.register.value.ledgers.last().map(|ledger| ledger.epoch) != Some(last.epoch)
        {
            self.ended.push((last.epoch, ending.end));
        }
        self.judge_register(&before)?;
        match reply {
            RegisterReply::Done(_) => Ok(Answer::Done),
            RegisterReply::Stale { .. } => Ok(Answer::Stale),
            RegisterReply::Invalid { reason } => Err(format!("{change:?} is invalid: {reason}")),
        }
    }

    pub(super) fn apply_call(&mut self, at: usize) -> Result<(), String> {
        let change = self.hosts[at].value.calls.front().cloned().expect("it was listed");
        let answer = self.change(&change)?;
        self.hosts[at].edit(Host::digest, |host| {
            host.answer = Some(answer);
            host.late_answer = true;
        });
        let closes = matches!(change, Change::Close { .. }) && !self.is_rough();
        if closes || self.is_spent(at) {
            self.learn(at)?;
        }
        Ok(())
    }

    pub(super) fn learn(&mut self, at: usize) -> Result<(), String> {
        let (change, answer) = self.hosts[at].edit(Host::digest, |host| {
            host.late |= std::mem::take(&mut host.late_answer);
            (host.calls.pop_front(), host.answer.take())
        });
        let (Some(change), Some(answer)) = (change, answer) else { return Ok(()) };
        let stale = answer == Answer::Stale;
        let owns = self.hosts[at].value.writer.is_some();
        let input = match change {
            Change::Close { .. } if stale => recovery::Input::Stale,
            Change::Close { .. } => {
                if self.budget.takeovers == 0 && !self.is_rough() {
                    // What is still on its way to storages can only hold the old writer up.
                    self.forget_requests(at);
                }
                recovery::Input::Closed
            }
            _ if !owns && stale => recovery::Input::Stale,
            _ if !owns => return Ok(()),
            _ if stale => {
                let stop = writer::Input::Stop(StopReason::Superseded);
                return self.step_writer(at, stop);
            }
            Change::SetKeepFrom { keep_from, .. } => {
                self.step_writer(at, writer::Input::Kept { keep_from })?;
                let writer = self.hosts[at].value.live_writer();
                let members = writer.map_or(Vec::new(), |writer| writer.ensemble().to_vec());
                for member in members {
                    self.send(at, place(member), Request::Trim { keep_from });
                }
                return Ok(());
            }
            _ => return self.step_writer(at, writer::Input::Changed),
        };
        self.step_recovery(at, input)
    }
}
