//! A small world of the real ledger machines, for the explorer: one container, a few storages, a few processes, and
//! every order of what happens between them.
//!
//! The machines are the product's own (writer, replica, recovery, register); so is the fold of what is durable.
//! Modelled are the network (one ordered stream per process, storage and direction), the disk's contents, the shells,
//! and faults within a [`Budget`]. After every action the oracles hold: L1 to L20 but L13, which speaks of snapshots
//! that this world does not have.
//!
//! What is folded together, so that fewer states need visiting:
//! * Assignment and the begin of a recovery are one action, and so are a close and its answer.
//! * Reads are answered at once, and frames become durable at once, unless the [`Setup`] says otherwise.
//! * Replies that nobody can act on any more vanish; so does what a fenced replica would refuse a second time.
//! * A writer with nothing left to send hears every ack at once, and never that it shall stop: nothing that it could do
//!   asks more of a recovery.
//! * What could as well have happened before the last takeover has: behind it, only what follows from it happens. (Each
//!   process, storage and message is *late* once the takeover has reached it; two steps of which neither follows from
//!   the other can change places, so every state is still reached.)
//! * Storages are alike but for what they hold ([`Setup::alike`]). Not where reads may fail: which of two equally good
//!   sources a recovery reads follows from their ids.
//!
//! Deliberately not here: time, and how shells retry (an action that can always happen).

mod act;
mod host;
mod list;
mod network;
mod node;
mod oracle;
mod script;
mod worlds;

pub use worlds::{FULL, PLAIN, PLANTED, Planted, Setup, WORLDS, setup};

use crate::message::{Peer, Reply, Request};
use crate::quorum::Quorum;
use crate::register::{Change, ContainerLog};
use bytes::Bytes;
use host::Host;
use node::Node;
use std::collections::VecDeque;
use std::rc::Rc;
use thalweg_actor::explore::{Digest, World, mix};
use thalweg_types::id::{ContainerId, EntryId, Epoch, NodeId, ReplicaId, StorageUuid};

/// Storages that a world may have: four nodes, and a new storage on a node whose disk was replaced.
pub(super) const SLOTS: usize = 5;
/// Nodes at the start.
const NODES: usize = 4;
/// Processes that may send to storages: three owners or recoverers, and one that repairs.
const PEERS: usize = 4;
/// The process that repairs.
const REPAIRER: usize = 3;
const CONTAINER: ContainerId = ContainerId(0);
const QUORUM: Quorum = Quorum { write: 3, ack: 2 };

/// How often what may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Another process takes the container over.
    pub takeovers: u8,
    /// The writer replaces a member.
    pub changes: u8,
    /// A recovery sends its copies to another replica.
    pub substitutes: u8,
    /// The owner moves `keep_from` to its commit point.
    pub trims: u8,
    /// A disk is replaced by a blank one.
    pub wipes: u8,
    /// An entry becomes unreadable.
    pub rots: u8,
    /// A storage starts after damage that took a ledger's tail.
    pub doubts: u8,
    /// A storage starts after damage that took a ledger whole.
    pub limbos: u8,
    /// A storage starts after a power loss.
    pub restarts: u8,
    /// A message is lost.
    pub losses: u8,
    /// A message comes again, at any time.
    pub strays: u8,
    /// Processes look again after what got no answer.
    pub retries: u8,
    /// An entry is copied to a replica that lacks it.
    pub repairs: u8,
}

impl Budget {
    /// Faults that may destroy a copy.
    fn damages(&self) -> u8 {
        self.wipes + self.rots + self.doubts + self.limbos
    }
}

/// What can happen. Processes and storages are given by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the places say it all")]
pub enum Action {
    /// The owner submits its next entry.
    Submit { host: usize },
    /// A storage takes the oldest request.
    Deliver { host: usize, slot: usize },
    /// A process takes the oldest reply.
    Hear { host: usize, slot: usize },
    /// A storage's oldest staged frames become durable, one or all of them.
    Sync { slot: usize, frames: usize },
    /// The register applies a process's oldest command.
    Apply { host: usize },
    /// The process hears of it.
    Learn { host: usize },
    /// The process never hears of it, and will send the command again.
    Forget { host: usize },
    /// The next process takes over.
    TakeOver,
    /// The owner replaces a member.
    Replace { host: usize, old: usize, new: usize },
    /// The recovery replaces a target of its copies.
    Substitute { host: usize, old: usize, new: usize },
    /// The owner trims.
    Trim { host: usize },
    /// The recovery asks again.
    Retry { host: usize },
    /// The owner's connection is back.
    Reconnect { host: usize, slot: usize },
    /// The disk is gone, and a blank one in its place.
    Wipe { slot: usize },
    /// An entry becomes unreadable.
    Rot { slot: usize, epoch: Epoch, entry: EntryId },
    /// Damage takes the ledger from an entry on, and with it the fence.
    Doubt { slot: usize, epoch: Epoch, from: EntryId, fence: bool },
    /// Damage takes the ledger whole.
    Limbo { slot: usize, epoch: Epoch },
    /// Power loss.
    Restart { slot: usize },
    /// The oldest request is lost.
    LoseRequest { host: usize, slot: usize },
    /// The oldest reply is lost.
    LoseReply { host: usize, slot: usize },
    /// The oldest request will come again.
    CopyRequest { host: usize, slot: usize },
    /// The oldest reply will come again.
    CopyReply { host: usize, slot: usize },
    /// The oldest command will come again.
    CopyCall { host: usize },
    /// What was to come again comes.
    Stray,
    /// An entry is read from one storage and copied to another.
    Repair { from: usize, to: usize, epoch: Epoch, entry: EntryId },
    /// A closed ledger's fragment gets the repaired replica in place of a lost one.
    Reseat { epoch: Epoch, first: EntryId, old: usize, new: usize },
}

/// Something shared, with its fingerprint.
#[derive(Clone, Debug)]
struct Marked<T, M> {
    value: Rc<T>,
    mark: M,
}

impl<T: Clone, M> Marked<T, M> {
    fn new(value: T, mark: impl Fn(&T) -> M) -> Self {
        let mark = mark(&value);
        Self { value: Rc::new(value), mark }
    }

    fn edit<R>(&mut self, mark: impl Fn(&T) -> M, change: impl FnOnce(&mut T) -> R) -> R {
        let value = Rc::make_mut(&mut self.value);
        let result = change(value);
        self.mark = mark(value);
        result
    }
}

/// One storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Slot {
    /// `None`: gone for ever, or not there yet.
    node: Option<Node>,
    /// It stands in for a storage that is gone, on the same node.
    successor: bool,
    /// The last takeover has reached it.
    late: bool,
}

/// What is on its way between a process and a storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Link {
    requests: VecDeque<Request>,
    replies: VecDeque<Reply>,
    /// How many of the oldest requests are not late.
    early_requests: usize,
    /// How many of the oldest replies are not late.
    early_replies: usize,
    /// Something was lost, and the process has noticed.
    broken: bool,
}

impl Link {
    fn put_request(&mut self, request: Request, late: bool) {
        self.early_requests += usize::from(!late && self.early_requests == self.requests.len());
        self.requests.push_back(request);
    }

    fn put_reply(&mut self, reply: Reply, late: bool) {
        self.early_replies += usize::from(!late && self.early_replies == self.replies.len());
        self.replies.push_back(reply);
    }

    /// The oldest request, and whether it is late.
    fn take_request(&mut self) -> (Request, bool) {
        let late = self.early_requests == 0;
        self.early_requests = self.early_requests.saturating_sub(1);
        (self.requests.pop_front().expect("it was listed"), late)
    }

    /// The oldest reply, and whether it is late.
    fn take_reply(&mut self) -> (Reply, bool) {
        let late = self.early_replies == 0;
        self.early_replies = self.early_replies.saturating_sub(1);
        (self.replies.pop_front().expect("it was listed"), late)
    }

    fn clear_requests(&mut self) {
        self.requests.clear();
        self.early_requests = 0;
    }

    fn clear_replies(&mut self) {
        self.replies.clear();
        self.early_replies = 0;
    }
}

/// A message that comes again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stray {
    Request { host: usize, slot: usize, request: Request, late: bool },
    Reply { host: usize, slot: usize, reply: Reply, late: bool },
    Call(Change),
}

/// See the module's header.
#[derive(Clone, Debug)]
pub struct SmallWorld {
    setup: Rc<Setup>,
    budget: Budget,
    register: Marked<ContainerLog, Digest<SLOTS>>,
    /// Where each ledger that was closed has ended, also when it has left the register.
    ended: Vec<(Epoch, EntryId)>,
    hosts: Vec<Marked<Host, Digest<SLOTS>>>,
    slots: Vec<Marked<Slot, u64>>,
    /// Process by process.
    links: Vec<Marked<Link, u64>>,
    /// The node of the successor, and whose disk it replaced.
    replaced: Option<usize>,
    stray: Option<Rc<Stray>>,
}

/// The replica in a place.
fn replica(slot: usize, replaced: Option<usize>) -> ReplicaId {
    let node = if slot == NODES { replaced.unwrap_or(slot) } else { slot };
    ReplicaId { node: NodeId(node as u64), storage: StorageUuid(slot as u128) }
}

/// The place of a replica.
fn place(replica: ReplicaId) -> usize {
    usize::try_from(replica.storage.0).expect("a place")
}

/// What the entry consists of.
fn content(epoch: Epoch, entry: EntryId) -> Bytes {
    const TEXT: &[u8] = b"0123456789abcdefghijklmnopqrstuv";
    let at = usize::try_from(epoch.0 * 8 + entry.0).expect("few entries");
    Bytes::from_static(&TEXT[at..=at])
}

fn mark_register(register: &ContainerLog) -> Digest<SLOTS> {
    let mut digest = Digest::default();
    register.digest(place, &mut digest);
    digest
}

impl World for SmallWorld {
    type Action = Action;

    fn actions(&self, actions: &mut Vec<Action>) {
        self.list(actions);
    }

    fn apply(&mut self, action: Action) -> Result<(), String> {
        self.act(action)?;
        self.judge()
    }

    fn settled(&self) -> Result<(), String> {
        self.judge_end()
    }

    fn fingerprint(&self) -> u64 {
        let mut digest = self.register.mark.clone();
        digest.all(&(self.budget, &self.ended));
        for host in &self.hosts {
            digest.join(&host.mark);
        }
        for (at, slot) in self.slots.iter().enumerate() {
            let mut part = mix(&(digest.parts[at], slot.mark));
            for peer in 0..PEERS {
                part = mix(&(part, self.links[peer * SLOTS + at].mark));
            }
            digest.parts[at] = part;
        }
        match self.stray.as_deref() {
            None => {}
            Some(Stray::Call(change)) => host::digest_call(change, &mut digest),
            Some(Stray::Request { host, slot, request, late }) => {
                digest.of(*slot, &("stray", host, request, late));
            }
            Some(Stray::Reply { host, slot, reply, late }) => {
                digest.of(*slot, &("stray", host, reply, late));
            }
        }
        digest.finish(self.setup.alike)
    }
}

impl Peer {
    fn host(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests;
