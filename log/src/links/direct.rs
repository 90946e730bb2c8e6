//! Links to replicas in this process: no bytes, no sockets, and faults on demand.
//!
//! Requests are stepped in their sender's task; events are delivered by a task per attachment, so that a sink is never
//! called from inside a send.

use super::gate::Gate;
use super::{Lane, Link, LinkEvent, Links, Sink};
use crate::message::{Reply, Request};
use crate::service::{Answers, Asker, ReplicaService};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use thalweg_actor::spawn::Spawn;
use thalweg_types::id::{ContainerId, ReplicaId};
use tokio::sync::mpsc;

/// What is wrong with the way to a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// There is no connection.
    Cut,
    /// Requests wait until this is over; nothing says so.
    Stalled,
    /// Requests vanish; nothing says so.
    LosesRequests,
    /// Replies vanish; nothing says so.
    LosesReplies,
}

/// See the module's header. Clones share everything.
#[derive(Clone)]
pub struct DirectLinks {
    shared: Arc<Shared>,
}

struct Shared {
    spawn: Arc<dyn Spawn>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    services: BTreeMap<ReplicaId, Arc<ReplicaService>>,
    faults: BTreeMap<ReplicaId, Fault>,
    attachments: Vec<Weak<Attachment>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DirectLinks {
    /// Links that lead nowhere yet.
    pub fn new(spawn: Arc<dyn Spawn>) -> Self {
        Self { shared: Arc::new(Shared { spawn, state: Mutex::default() }) }
    }

    /// Whoever is or will be attached to the service's replica reaches `service`, and no earlier one.
    pub fn add(&self, service: Arc<ReplicaService>) {
        let replica = service.identity();
        lock(&self.shared.state).services.insert(replica, service);
        self.reconnect(replica, "the replica has started anew");
    }

    /// Nobody reaches `replica` any more: its process has ended.
    pub fn remove(&self, replica: ReplicaId) {
        lock(&self.shared.state).services.remove(&replica);
        self.reconnect(replica, "the replica is gone");
    }

    /// From now on this is between everybody and `replica`.
    pub fn set_fault(&self, replica: ReplicaId, fault: Fault) {
        let before = lock(&self.shared.state).faults.insert(replica, fault).unwrap_or_default();
        if (before == Fault::Cut) != (fault == Fault::Cut) {
            self.reconnect(replica, "the link was cut");
        }
        for attachment in self.attachments(replica) {
            attachment.set_fault(fault);
        }
    }

    /// No connection from now on.
    pub fn cut(&self, replica: ReplicaId) {
        self.set_fault(replica, Fault::Cut);
    }

    /// No faults any more.
    pub fn restore(&self, replica: ReplicaId) {
        self.set_fault(replica, Fault::None);
    }

    fn attachments(&self, replica: ReplicaId) -> Vec<Arc<Attachment>> {
        let mut state = lock(&self.shared.state);
        state.attachments.retain(|attachment| attachment.strong_count() > 0);
        let alive = state.attachments.iter().filter_map(Weak::upgrade);
        alive.filter(|attachment| attachment.replica == replica).collect()
    }

    /// Ends all connections to `replica` and makes new ones where there is a way.
    fn reconnect(&self, replica: ReplicaId, why: &str) {
        for attachment in self.attachments(replica) {
            let told = attachment.disconnect(why);
            self.connect(&attachment, told);
        }
    }

    /// Makes a connection, if there is a way. If there is none, and that has not been `told`, tells it.
    fn connect(&self, attachment: &Arc<Attachment>, told: bool) {
        let (service, fault) = {
            let state = lock(&self.shared.state);
            let replica = attachment.replica;
            let fault = state.faults.get(&replica).copied().unwrap_or_default();
            (state.services.get(&replica).cloned(), fault)
        };
        match service {
            Some(service) if fault != Fault::Cut => attachment.connect(&service, fault),
            _ if told => {}
            _ => attachment.lost("nobody answers"),
        }
    }
}

impl Links for DirectLinks {
    fn attach(
        &self,
        container: ContainerId,
        replica: ReplicaId,
        _lane: Lane,
        sink: Arc<dyn Sink>,
    ) -> Box<dyn Link> {
        let (events, receiver) = mpsc::unbounded_channel();
        let attachment = Arc::new(Attachment {
            container,
            replica,
            events,
            ended: AtomicBool::new(false),
            connection: AtomicU32::new(0),
            way: Mutex::default(),
        });
        lock(&self.shared.state).attachments.push(Arc::downgrade(&attachment));
        self.connect(&attachment, false);
        let deliver = deliver(Arc::downgrade(&attachment), receiver, sink);
        drop(self.shared.spawn.spawn("direct link", Box::pin(deliver)));
        Box::new(DirectLink { attachment })
    }
}

/// What is queued for a sink: the number of the connection that it came over, and what it is.
type Event = (u32, LinkEvent);

struct Attachment {
    container: ContainerId,
    replica: ReplicaId,
    events: mpsc::UnboundedSender<Event>,
    ended: AtomicBool,
    /// Number of the present connection, or of the last one.
    connection: AtomicU32,
    way: Mutex<Way>,
}

#[derive(Default)]
struct Way {
    asker: Option<Asker>,
    fault: Fault,
    gate: Gate,
    stalled: VecDeque<Request>,
}

impl Attachment {
    fn event(&self, event: LinkEvent) {
        // The receiver ends with the link.
        let _ = self.events.send((self.connection.load(Ordering::Acquire), event));
    }

    fn lost(&self, why: &str) {
        self.event(LinkEvent::Lost { reason: why.into() });
    }

    fn connect(&self, service: &ReplicaService, fault: Fault) {
        let number = self.connection.fetch_add(1, Ordering::AcqRel) + 1;
        let replies = Arc::new(Replies { events: self.events.clone() });
        let mut way = lock(&self.way);
        match service.attach(self.container, replies, number) {
            Ok(asker) => {
                way.fault = fault;
                way.asker = Some(asker);
                way.gate.shut();
                self.event(LinkEvent::Connected { mount_seq: service.mount_seq() });
            }
            Err(reason) => self.event(LinkEvent::Lost { reason }),
        }
    }

    /// Ends the connection and tells it; false if there was none.
    fn disconnect(&self, why: &str) -> bool {
        let mut way = lock(&self.way);
        way.stalled.clear();
        let connected = way.asker.take().is_some();
        if connected {
            self.connection.fetch_add(1, Ordering::AcqRel);
            self.lost(why);
        }
        connected
    }

    fn set_fault(&self, fault: Fault) {
        let mut way = lock(&self.way);
        way.fault = fault;
        if fault != Fault::Stalled {
            for request in std::mem::take(&mut way.stalled) {
                way.send(request);
            }
        }
    }
}

impl Way {
    fn send(&mut self, request: Request) {
        if let Some(asker) = self.asker.as_ref().filter(|_| self.fault != Fault::LosesRequests) {
            asker.request(request);
        }
    }
}

/// The replica's side of one connection; its channel is the connection's number.
struct Replies {
    events: mpsc::UnboundedSender<Event>,
}

impl Answers for Replies {
    fn answer(&self, connection: u32, reply: Reply) {
        // The receiver ends with the link.
        let _ = self.events.send((connection, LinkEvent::Reply(reply)));
    }

    fn lost(&self, connection: u32, reason: &Arc<str>) {
        let _ = self.events.send((connection, LinkEvent::Lost { reason: reason.clone() }));
    }
}

/// Hands an attachment's events to its sink until the link is dropped.
async fn deliver(
    attachment: Weak<Attachment>,
    mut events: mpsc::UnboundedReceiver<Event>,
    sink: Arc<dyn Sink>,
) {
    while let Some((connection, event)) = events.recv().await {
        let Some(alive) = attachment.upgrade() else { return };
        if alive.ended.load(Ordering::Acquire) {
            return;
        }
        if let LinkEvent::Reply(_) = &event {
            let stale = connection != alive.connection.load(Ordering::Acquire);
            if stale || lock(&alive.way).fault == Fault::LosesReplies {
                continue;
            }
        }
        sink.event(alive.replica, event);
    }
}

struct DirectLink {
    attachment: Arc<Attachment>,
}

impl Link for DirectLink {
    fn send(&self, request: Request) {
        let mut way = lock(&self.attachment.way);
        if way.asker.is_none() || !way.gate.admits(&request) {
            return;
        }
        if way.fault == Fault::Stalled {
            way.stalled.push_back(request);
        } else {
            way.send(request);
        }
    }
}

impl Drop for DirectLink {
    fn drop(&mut self) {
        self.attachment.ended.store(true, Ordering::Release);
        lock(&self.attachment.way).asker = None;
    }
}

#[cfg(test)]
mod tests;
