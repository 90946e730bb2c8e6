//! Links over sockets: one ordered, pipelined connection per pair of nodes and lane, for any number of attachments.
//!
//! `connection`: the asking side. `listener`: the side of the replicas. `receive` and `outbox`: one direction each.
//!
//! What is sent is put into its connection's outbox in the sender's task, headers laid out and contents by reference;
//! one task per connection writes all that waits at once. A connection that is lost takes what waited along: senders
//! know what they have in flight, and send it again when they hear of a new connection. A peer that says nothing
//! although it is asked is as good as gone.
//!
//! Deliberately not here: the messages' form (`wire`), and what they mean (the machines).

mod connection;
mod counters;
mod listener;
mod outbox;
mod receive;

pub use counters::LinkCounters;
pub use listener::{Mounted, ReplicaListener};

use super::{Lane, Link, Links, Sink};
use crate::message::Request;
use crate::placement::Members;
use connection::{Channel, Connection};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_types::id::{ContainerId, Incarnation, NodeId, ReplicaId};
use thalweg_wire::ledger::{ContentSums, EntryFrame, Message};

/// Who a process is among the nodes of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its cluster: others are not spoken to.
    pub cluster: u128,
    /// Its node.
    pub node: NodeId,
    /// Random per start of the process.
    pub incarnation: Incarnation,
}

/// How patient connections are.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the attempt to connect to the end of the handshake.
    pub handshake: Duration,
    /// A peer that has said nothing for this long is asked whether it is there.
    pub ping: Duration,
    /// One that has then said nothing for this long in all is given up.
    pub silence: Duration,
    /// The first pause before the next attempt to connect; each one is up to twice as long as the one before.
    pub pause_min: Duration,
    /// Where the growing ends.
    pub pause_max: Duration,
    /// How long a connection without attachments is kept.
    pub idle: Duration,
}

impl Patience {
    /// What a real node uses.
    pub fn production() -> Self {
        Self {
            handshake: Duration::from_secs(2),
            ping: Duration::from_millis(500),
            silence: Duration::from_secs(2),
            pause_min: Duration::from_millis(20),
            pause_max: Duration::from_secs(1),
            idle: Duration::from_secs(10),
        }
    }
}

/// Checksums of the entry that was sent last, per group of containers: an entry goes to several replicas, one right
/// after the other, and is summed once.
struct SumsMemo([Mutex<Option<Memo>>; 16]);

struct Memo {
    key: MemoKey,
    sums: ContentSums,
}

/// What an entry is known by: its name, and where its content lies.
type MemoKey = (EntryFrameName, usize, usize, usize);
type EntryFrameName = (u32, u64, u64);

impl SumsMemo {
    fn of(&self, entry: &EntryFrame) -> ContentSums {
        let ledger = entry.ledger;
        let name = (ledger.container.0, ledger.epoch.0, entry.entry.0);
        let payload = entry.payload.first().map_or(0, |chunk| chunk.as_ptr() as usize);
        let key = (name, entry.headers.as_ptr() as usize, payload, entry.content_len());
        let slot = &self.0[ledger.container.0 as usize % self.0.len()];
        if let Some(memo) = lock(slot).as_ref().filter(|memo| memo.key == key) {
            return memo.sums;
        }
        let sums = ContentSums::of(entry);
        *lock(slot) = Some(Memo { key, sums });
        sums
    }
}

/// See the module's header. Clones share everything.
#[derive(Clone)]
pub struct NetLinks {
    shared: Arc<Shared>,
}

/// What all connections of a process share.
struct Shared {
    env: Env,
    identity: NodeIdentity,
    patience: Patience,
    members: Arc<dyn Members>,
    counters: Arc<LinkCounters>,
    sums: SumsMemo,
    connections: Mutex<BTreeMap<(NodeId, Lane), Arc<Connection>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NetLinks {
    /// Links from this process to the nodes that `members` knows the addresses of. Nothing is connected before it is
    /// needed.
    pub fn new(
        env: Env,
        identity: NodeIdentity,
        members: Arc<dyn Members>,
        patience: Patience,
        counters: Arc<LinkCounters>,
    ) -> Self {
        let sums = SumsMemo(std::array::from_fn(|_| Mutex::new(None)));
        let connections = Mutex::default();
        let shared = Shared { env, identity, patience, members, counters, sums, connections };
        Self { shared: Arc::new(shared) }
    }
}

impl Links for NetLinks {
    fn attach(
        &self,
        container: ContainerId,
        replica: ReplicaId,
        lane: Lane,
        sink: Arc<dyn Sink>,
    ) -> Box<dyn Link> {
        let key = (replica.node, lane);
        let mut connections = lock(&self.shared.connections);
        let found = connections.get(&key).cloned();
        let connection = found.unwrap_or_else(|| {
            let fresh = Connection::new(replica.node, lane);
            connections.insert(key, fresh.clone());
            let task = Box::pin(connection::run(self.shared.clone(), fresh.clone()));
            drop(self.shared.env.spawn.spawn("ledger link", task));
            fresh
        });
        // Under the lock: a connection without channels goes away under it.
        let channel = connection.attach(container, replica, sink);
        drop(connections);
        Box::new(NetLink { shared: self.shared.clone(), connection, channel })
    }
}

struct NetLink {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    channel: Arc<Channel>,
}

impl Link for NetLink {
    fn send(&self, request: Request) {
        let Some(outbox) = self.channel.way(&request) else { return };
        let sums = match &request {
            Request::Append(entry) | Request::Repair { entry, .. } => {
                Some(self.shared.sums.of(entry))
            }
            _ => None,
        };
        outbox.push(Message::Request { channel: self.channel.number(), request }, sums);
        outbox.flush();
    }
}

impl Drop for NetLink {
    fn drop(&mut self) {
        self.connection.detach(&self.channel);
    }
}

#[cfg(test)]
mod tests;
