//! The side of the replicas: takes connections, and hands requests to the service of the storage that each names.

use super::counters::count;
use super::outbox::Outbox;
use super::receive::{Receive, ReceiveError};
use super::{LinkCounters, NodeIdentity, Patience, lock};
use crate::links::Lane;
use crate::message::{Reply, Request};
use crate::service::{Answers, Asker, ReplicaService};
use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::env::Env;
use thalweg_actor::network::{ByteWriter, Connection, Endpoint, Listener};
use thalweg_actor::probe;
use thalweg_types::id::{ContainerId, NodeId, ReplicaId};
use thalweg_types::limits::OUTPUT_BYTES_MAX;
use thalweg_wire::ledger::{
    Accept, Attach, Connect, DetachReason, LEVEL_MAX, LEVEL_MIN, Message, Outgoing, RefuseReason,
};
use thiserror::Error;
use tokio::select;
use tokio::sync::watch;

/// Connections at once. Each pair of nodes has one per lane.
const CONNECTIONS_MAX: usize = 4096;
/// Channels of one connection.
const CHANNELS_MAX: usize = 65_536;
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// A peer asks whether this side is there several times within this.
const SILENCES: u32 = 5;

/// The storages that a node has mounted. Clones share everything.
#[derive(Clone, Default)]
pub struct Mounted {
    services: Arc<Mutex<BTreeMap<ReplicaId, Arc<ReplicaService>>>>,
}

impl Mounted {
    /// Whoever names the service's storage from now on reaches it.
    pub fn add(&self, service: Arc<ReplicaService>) {
        lock(&self.services).insert(service.identity(), service);
    }

    /// Nobody reaches that storage from now on. Those who are attached stay so.
    pub fn remove(&self, replica: ReplicaId) {
        lock(&self.services).remove(&replica);
    }

    fn get(&self, replica: ReplicaId) -> Option<Arc<ReplicaService>> {
        lock(&self.services).get(&replica).cloned()
    }
}

struct Shared {
    env: Env,
    identity: NodeIdentity,
    patience: Patience,
    mounted: Mounted,
    counters: Arc<LinkCounters>,
    open: AtomicUsize,
    stopping: watch::Receiver<bool>,
}

/// Accepts connections until it is stopped or dropped.
pub struct ReplicaListener {
    local: Endpoint,
    stop: watch::Sender<bool>,
}

impl ReplicaListener {
    /// Accepts what comes to `listener`, for the storages in `mounted`.
    pub fn start(
        env: Env,
        listener: Box<dyn Listener>,
        identity: NodeIdentity,
        mounted: Mounted,
        patience: Patience,
        counters: Arc<LinkCounters>,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let local = listener.local();
        let open = AtomicUsize::new(0);
        let spawn = env.spawn.clone();
        let shared =
            Arc::new(Shared { env, identity, patience, mounted, counters, open, stopping });
        drop(spawn.spawn("ledger listener", Box::pin(accept(shared, listener))));
        Self { local, stop }
    }

    /// Where it listens.
    pub fn local(&self) -> &Endpoint {
        &self.local
    }

    /// Ends all connections and takes no more.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for ReplicaListener {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(shared: Arc<Shared>, mut listener: Box<dyn Listener>) {
    let mut stopping = shared.stopping.clone();
    loop {
        let accepted = select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                let task = Box::pin(attend(shared.clone(), connection));
                drop(shared.env.spawn.spawn("ledger peer", task));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                let clock = &shared.env.clock;
                clock.sleep_until(clock.now().after(ACCEPT_PAUSE)).await;
            }
        }
    }
}

/// Why a connection is closed from this side.
#[derive(Debug, Error)]
enum PeerError {
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("it does not begin with a handshake")]
    NoHandshake,
    #[error("it speaks feature levels {0} to {1} only")]
    Level(u16, u16),
    #[error("it belongs to cluster {0:032x}")]
    Cluster(u128),
    #[error("it wants node {0}")]
    Node(NodeId),
    #[error("there are too many connections")]
    Busy,
    #[error("it sends what only a replica may send, or a second handshake")]
    BadMessage,
    #[error("it asks container {0} about ledgers of another one")]
    Container(ContainerId),
    #[error("it is silent")]
    Silent,
    #[error("it takes no answers")]
    Slow,
    #[error("it cannot be written to")]
    Unwritable,
}

async fn attend(shared: Arc<Shared>, connection: Connection) {
    let open = shared.open.fetch_add(1, Ordering::Relaxed) + 1;
    let peer = connection.peer.clone();
    let ended = serve(&shared, connection, open > CONNECTIONS_MAX).await;
    shared.open.fetch_sub(1, Ordering::Relaxed);
    let Err(error) = ended else { return };
    if let PeerError::Receive(error) = &error {
        error.count(&shared.counters);
    }
    match error {
        PeerError::Receive(ReceiveError::Io(_) | ReceiveError::Ended) => {}
        error => tracing::warn!(%peer, %error, "a ledger connection is closed"),
    }
}

async fn serve(shared: &Arc<Shared>, connection: Connection, busy: bool) -> Result<(), PeerError> {
    let mut receive = Receive::new(connection.reader);
    let mut writer = connection.writer;
    let clock = &shared.env.clock;
    let patience = clock.sleep_until(clock.now().after(shared.patience.handshake));
    let agreed = select! {
        biased;
        agreed = agree(shared, &mut receive, &mut *writer, busy) => agreed,
        () = patience => {
            count(&shared.counters.no_handshake);
            Err(PeerError::NoHandshake)
        }
    };
    let connect = agreed?;
    count(&shared.counters.accepted);
    let outbox = Arc::new(Outbox::new(OUTPUT_BYTES_MAX));
    let drained = outbox.clone();
    let drain = async move {
        // Whoever reads is told by the outbox.
        let _ = drained.drain(&mut *writer).await;
    };
    let writing = shared.env.spawn.spawn("ledger peer writer", Box::pin(drain));
    let channels = BTreeMap::new();
    let answers = Arc::new(ToPeer { outbox: outbox.clone() });
    let mut session = Session { shared, lane: connect.lane, outbox, answers, channels };
    let ended = session.read(receive).await;
    session.outbox.close();
    writing.abort();
    ended
}

/// The peer's side of the handshake, answered.
async fn agree(
    shared: &Shared,
    receive: &mut Receive,
    writer: &mut dyn ByteWriter,
    busy: bool,
) -> Result<Connect, PeerError> {
    let (identity, counters) = (&shared.identity, &shared.counters);
    let Message::Connect(connect) = receive.next(counters).await? else {
        count(&counters.no_handshake);
        return Err(PeerError::NoHandshake);
    };
    let common = LEVEL_MAX.min(connect.level_max);
    let refusal = if common < LEVEL_MIN.max(connect.level_min) {
        count(&counters.refused_level);
        Some((RefuseReason::Level, PeerError::Level(connect.level_min, connect.level_max)))
    } else if connect.cluster != identity.cluster {
        count(&counters.refused_cluster);
        Some((RefuseReason::Cluster, PeerError::Cluster(connect.cluster)))
    } else if connect.to != identity.node {
        count(&counters.refused_node);
        Some((RefuseReason::Node, PeerError::Node(connect.to)))
    } else if busy {
        count(&counters.refused_busy);
        Some((RefuseReason::Busy, PeerError::Busy))
    } else {
        None
    };
    if let Some((why, error)) = refusal {
        probe!("links: handshake refused");
        let (level_min, level_max) = (LEVEL_MIN, LEVEL_MAX);
        say(writer, Message::Refuse { level_min, level_max, why }).await?;
        writer.shutdown().await.map_err(ReceiveError::Io)?;
        return Err(error);
    }
    let accept = Accept {
        level: common,
        cluster: identity.cluster,
        node: identity.node,
        incarnation: identity.incarnation,
    };
    say(writer, Message::Accept(accept)).await?;
    Ok(connect)
}

async fn say(writer: &mut dyn ByteWriter, message: Message) -> Result<(), PeerError> {
    let mut out = Outgoing::default();
    out.push(message).expect("a handshake is short");
    let written: io::Result<()> = writer.write(out.take()).await;
    Ok(written.map_err(ReceiveError::Io)?)
}

/// Takes answers to all askers of one connection.
struct ToPeer {
    outbox: Arc<Outbox>,
}

impl Answers for ToPeer {
    fn answer(&self, channel: u32, reply: Reply) {
        self.outbox.push(Message::Reply { channel, reply }, None);
    }

    fn lost(&self, channel: u32, _reason: &Arc<str>) {
        let why = DetachReason::Stopped;
        self.outbox.push(Message::Detached { channel, why }, None);
    }

    fn flush(&self) {
        self.outbox.flush();
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.outbox.room())
    }
}

/// A channel that was begun.
struct Open {
    asker: Asker,
    container: ContainerId,
    service: Arc<ReplicaService>,
}

struct Session<'a> {
    shared: &'a Shared,
    lane: Lane,
    outbox: Arc<Outbox>,
    answers: Arc<ToPeer>,
    channels: BTreeMap<u32, Open>,
}

impl Session<'_> {
    async fn read(&mut self, mut receive: Receive) -> Result<(), PeerError> {
        let shared = self.shared;
        let (clock, counters) = (&shared.env.clock, &*shared.counters);
        let patience = shared.patience.silence * SILENCES;
        let outbox = self.outbox.clone();
        let mut ended = pin!(outbox.ended());
        let mut stopping = shared.stopping.clone();
        let mut stopped = pin!(stopping.wait_for(|stop| *stop));
        let mut tick = clock.sleep_until(clock.now().after(patience));
        let mut heard = true;
        loop {
            let full = self.serve_all(&mut receive)?;
            select! {
                biased;
                _ = &mut stopped => return Ok(()),
                () = &mut ended => {
                    if outbox.overflowed() {
                        count(&counters.overflowed);
                        return Err(PeerError::Slow);
                    }
                    return Err(PeerError::Unwritable);
                }
                read = next_bytes(&mut receive, counters, full) => {
                    read?;
                    heard = true;
                }
                () = &mut tick => {
                    if !std::mem::take(&mut heard) {
                        count(&counters.silent);
                        return Err(PeerError::Silent);
                    }
                    tick = clock.sleep_until(clock.now().after(patience));
                }
            }
        }
    }

    /// Serves every message that has arrived whole. Returns a service that has more to write than it should.
    fn serve_all(
        &mut self,
        receive: &mut Receive,
    ) -> Result<Option<Arc<ReplicaService>>, PeerError> {
        let mut full = None;
        while let Some(message) = receive.take()? {
            if let Some(service) = self.serve(message)? {
                full = Some(service.clone());
            }
        }
        // Fences must get through whatever waits.
        Ok(full.filter(|_| self.lane != Lane::Urgent))
    }

    fn serve(&mut self, message: Message) -> Result<Option<&Arc<ReplicaService>>, PeerError> {
        match message {
            Message::Request { channel, request } => return self.request(channel, request),
            Message::Attach(attach) => self.attach(attach),
            Message::Detach { channel } => {
                self.channels.remove(&channel);
            }
            Message::Ping { number } => {
                self.outbox.push(Message::Pong { number }, None);
                self.outbox.flush();
            }
            _ => {
                count(&self.shared.counters.bad_messages);
                return Err(PeerError::BadMessage);
            }
        }
        Ok(None)
    }

    fn request(
        &self,
        channel: u32,
        request: Request,
    ) -> Result<Option<&Arc<ReplicaService>>, PeerError> {
        count(&self.shared.counters.requests);
        // A channel may just have ended on this side.
        let Some(open) = self.channels.get(&channel) else { return Ok(None) };
        if container_of(&request).is_some_and(|container| container != open.container) {
            count(&self.shared.counters.bad_messages);
            return Err(PeerError::Container(open.container));
        }
        open.asker.request(request);
        Ok(Some(&open.service).filter(|service| service.is_behind()))
    }

    fn attach(&mut self, attach: Attach) {
        let Attach { channel, container, replica } = attach;
        self.channels.remove(&channel);
        let refuse = |why| {
            self.outbox.push(Message::Detached { channel, why }, None);
            self.outbox.flush();
        };
        let Some(service) = self.shared.mounted.get(replica) else {
            count(&self.shared.counters.not_mounted);
            tracing::debug!(%replica, "a storage is asked for that is not mounted here");
            return refuse(DetachReason::NotMounted);
        };
        let too_many = self.channels.len() >= CHANNELS_MAX;
        if too_many || service.stopped().is_some() {
            count(&self.shared.counters.not_attached);
            return refuse(if too_many { DetachReason::TooMany } else { DetachReason::Stopped });
        }
        // Said first: the first answer follows it.
        let mount_seq = service.mount_seq();
        self.outbox.push(Message::Attached { channel, mount_seq }, None);
        match service.attach(container, self.answers.clone(), channel) {
            Ok(asker) => {
                self.channels.insert(channel, Open { asker, container, service });
                self.outbox.flush();
            }
            Err(_stopped) => refuse(DetachReason::Stopped),
        }
    }
}

/// More bytes, when the service that has too much to write has less.
async fn next_bytes(
    receive: &mut Receive,
    counters: &LinkCounters,
    full: Option<Arc<ReplicaService>>,
) -> Result<(), ReceiveError> {
    if let Some(service) = full {
        probe!("links: a replica has too much to write");
        service.caught_up().await;
    }
    receive.read(counters).await
}

/// Whose ledger it is about, if it names one.
fn container_of(request: &Request) -> Option<ContainerId> {
    match request {
        Request::Append(entry) | Request::Repair { entry, .. } => Some(entry.ledger.container),
        Request::Open { ledger, .. }
        | Request::Fence { ledger, .. }
        | Request::Read { ledger, .. }
        | Request::Headers { ledger, .. }
        | Request::Committed { ledger, .. }
        | Request::Hello { ledger } => Some(ledger.container),
        Request::Trim { .. } => None,
    }
}
