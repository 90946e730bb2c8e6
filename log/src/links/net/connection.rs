//! The asking side of a connection: sought as long as somebody is attached, and shared by all who are.

use super::counters::count;
use super::outbox::Outbox;
use super::receive::{Receive, ReceiveError};
use super::{Shared, lock};
use crate::links::gate::Gate;
use crate::links::{Lane, LinkEvent, Sink};
use crate::message::Request;
use rand_core::RngCore as _;
use rand_pcg::Pcg64Mcg;
use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thalweg_actor::network::{ByteWriter, Connection as Stream};
use thalweg_actor::probe;
use thalweg_types::id::{ContainerId, NodeId, ReplicaId};
use thalweg_types::time::Instant;
use thalweg_wire::ledger::{
    Attach, Connect, DetachReason, LEVEL_MAX, LEVEL_MIN, Message, Outgoing, RefuseReason,
};
use thiserror::Error;
use tokio::select;
use tokio::sync::Notify;

/// Bytes that may wait for one connection. What is in flight is bounded by the ledgers' windows; this is for many
/// ledgers whose common peer takes nothing, until that is noticed.
const OUTBOX_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One attachment.
pub(super) struct Channel {
    number: u32,
    container: ContainerId,
    replica: ReplicaId,
    sink: Arc<dyn Sink>,
    /// Where requests go while the replica listens.
    way: Mutex<Option<Arc<Outbox>>>,
    gate: Gate,
    /// Its sink has been told that there is no connection.
    told: AtomicBool,
    /// The link was dropped.
    ended: AtomicBool,
}

impl Channel {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Where `request` goes, if it may go now.
    pub(super) fn way(&self, request: &Request) -> Option<Arc<Outbox>> {
        let way = lock(&self.way);
        way.as_ref().filter(|_| self.gate.admits(request)).cloned()
    }

    fn attach(&self) -> Message {
        let Self { number: channel, container, replica, .. } = *self;
        Message::Attach(Attach { channel, container, replica })
    }

    fn event(&self, event: LinkEvent) {
        if !self.ended.load(Ordering::Acquire) {
            self.sink.event(self.replica, event);
        }
    }

    fn connected(&self, outbox: &Arc<Outbox>, mount_seq: u64) {
        let mut way = lock(&self.way);
        self.gate.shut();
        *way = Some(outbox.clone());
        drop(way);
        self.told.store(false, Ordering::Release);
        self.event(LinkEvent::Connected { mount_seq });
    }

    /// Tells the sink, once per loss.
    fn lost(&self, reason: &Arc<str>) {
        *lock(&self.way) = None;
        if !self.told.swap(true, Ordering::AcqRel) {
            self.event(LinkEvent::Lost { reason: reason.clone() });
        }
    }
}

#[derive(Default)]
struct State {
    next_channel: u32,
    channels: BTreeMap<u32, Arc<Channel>>,
    /// While there is a connection.
    outbox: Option<Arc<Outbox>>,
}

/// See the module's header.
pub(super) struct Connection {
    node: NodeId,
    lane: Lane,
    state: Mutex<State>,
    /// Somebody has attached: do not pause any longer.
    wanted: Notify,
}

/// Why there is no connection.
#[derive(Debug, Error)]
enum LinkError {
    #[error("the address of node {0} is not known")]
    NoAddress(NodeId),
    #[error("node {0} cannot be reached: {1}")]
    Unreachable(NodeId, io::Error),
    #[error("node {0} does not answer")]
    NoAnswer(NodeId),
    #[error("node {node} speaks feature levels {min} to {max}, not {LEVEL_MIN} to {LEVEL_MAX}")]
    Level { node: NodeId, min: u16, max: u16 },
    #[error("node {node} refuses the connection: {why}")]
    Refused { node: NodeId, why: &'static str },
    #[error("what answers for node {0} is something else")]
    Stranger(NodeId),
    #[error("node {0}: {1}")]
    Broken(NodeId, ReceiveError),
    #[error("node {0} has been silent for too long")]
    Silent(NodeId),
    #[error("node {0} takes too little")]
    Slow(NodeId),
    #[error("node {0} cannot be written to")]
    Unwritable(NodeId),
    #[error("nobody needs the connection to node {0}")]
    Idle(NodeId),
}

impl Connection {
    pub(super) fn new(node: NodeId, lane: Lane) -> Arc<Self> {
        Arc::new(Self { node, lane, state: Mutex::default(), wanted: Notify::new() })
    }

    /// A new channel; it is begun when there is a connection.
    pub(super) fn attach(
        &self,
        container: ContainerId,
        replica: ReplicaId,
        sink: Arc<dyn Sink>,
    ) -> Arc<Channel> {
        let mut state = lock(&self.state);
        state.next_channel = state.next_channel.wrapping_add(1);
        let channel = Arc::new(Channel {
            number: state.next_channel,
            container,
            replica,
            sink,
            way: Mutex::default(),
            gate: Gate::default(),
            told: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        state.channels.insert(channel.number, channel.clone());
        if let Some(outbox) = &state.outbox {
            outbox.push(channel.attach(), None);
            outbox.flush();
        }
        self.wanted.notify_one();
        channel
    }

    pub(super) fn detach(&self, channel: &Channel) {
        channel.ended.store(true, Ordering::Release);
        *lock(&channel.way) = None;
        let mut state = lock(&self.state);
        state.channels.remove(&channel.number);
        if let Some(outbox) = &state.outbox {
            outbox.push(Message::Detach { channel: channel.number }, None);
            outbox.flush();
        }
    }

    fn is_idle(&self) -> bool {
        lock(&self.state).channels.is_empty()
    }

    fn channel(&self, number: u32) -> Option<Arc<Channel>> {
        lock(&self.state).channels.get(&number).cloned()
    }

    fn channels(&self) -> Vec<Arc<Channel>> {
        lock(&self.state).channels.values().cloned().collect()
    }

    fn begin(&self, outbox: &Arc<Outbox>) {
        let mut state = lock(&self.state);
        for channel in state.channels.values() {
            outbox.push(channel.attach(), None);
        }
        outbox.flush();
        state.outbox = Some(outbox.clone());
    }

    fn lose(&self, reason: &Arc<str>) {
        lock(&self.state).outbox = None;
        for channel in self.channels() {
            channel.lost(reason);
        }
    }

    /// Ends with the last channel: true, and then nobody finds it any more.
    fn end(&self, shared: &Shared) -> bool {
        let mut connections = lock(&shared.connections);
        let idle = self.is_idle();
        if idle {
            connections.remove(&(self.node, self.lane));
        }
        idle
    }
}

/// Keeps a connection as long as somebody is attached to it.
pub(super) async fn run(shared: Arc<Shared>, connection: Arc<Connection>) {
    let (node, lane) = (connection.node, connection.lane);
    let mut coin = shared.env.entropy.stream(&format!("ledger link to {node}, {lane:?}"));
    let mut pause = shared.patience.pause_min;
    while !connection.end(&shared) {
        let why = match connect(&shared, &connection).await {
            Ok((receive, writer)) => {
                count(&shared.counters.connected);
                let began = shared.env.clock.now();
                let why = converse(&shared, &connection, receive, writer).await;
                count(&shared.counters.lost);
                // One that ends as soon as it has begun is no better than none.
                if shared.env.clock.now().since(began) >= shared.patience.silence {
                    pause = shared.patience.pause_min;
                }
                why
            }
            Err(why) => {
                count(&shared.counters.connect_failed);
                why
            }
        };
        if !matches!(why, LinkError::Idle(_)) {
            tracing::debug!(%node, ?lane, %why, "no connection");
        }
        connection.lose(&why.to_string().into());
        rest(&shared, &connection, jittered(pause, &mut coin)).await;
        pause = (pause * 2).min(shared.patience.pause_max);
    }
}

/// Between half of `pause` and all of it, so that those who lost a peer together do not come back together.
fn jittered(pause: Duration, coin: &mut Pcg64Mcg) -> Duration {
    let half = pause / 2;
    half + half.mul_f64(f64::from(coin.next_u32()) / f64::from(u32::MAX))
}

/// Waits for the next attempt; a first attachment is not kept waiting.
async fn rest(shared: &Shared, connection: &Connection, pause: Duration) {
    let clock = &shared.env.clock;
    let idle = connection.is_idle();
    let over = clock.sleep_until(clock.now().after(pause));
    select! {
        biased;
        () = over => {}
        () = connection.wanted.notified(), if idle => {}
    }
}

/// A connection whose two sides agree on who they are.
async fn connect(
    shared: &Shared,
    connection: &Connection,
) -> Result<(Receive, Box<dyn ByteWriter>), LinkError> {
    let node = connection.node;
    let clock = &shared.env.clock;
    let patience = clock.sleep_until(clock.now().after(shared.patience.handshake));
    select! {
        biased;
        agreed = agree(shared, connection) => agreed,
        () = patience => {
            probe!("links: no answer to a handshake");
            Err(LinkError::NoAnswer(node))
        }
    }
}

async fn agree(
    shared: &Shared,
    connection: &Connection,
) -> Result<(Receive, Box<dyn ByteWriter>), LinkError> {
    let node = connection.node;
    let to = shared.members.endpoint(node).ok_or(LinkError::NoAddress(node))?;
    let unreachable = |error| LinkError::Unreachable(node, error);
    let Stream { reader, mut writer, .. } =
        shared.env.network.connect(&to).await.map_err(unreachable)?;
    let mut out = Outgoing::default();
    let connect = Message::Connect(Connect {
        level_min: LEVEL_MIN,
        level_max: LEVEL_MAX,
        cluster: shared.identity.cluster,
        from: shared.identity.node,
        incarnation: shared.identity.incarnation,
        to: node,
        lane: connection.lane,
    });
    out.push(connect).expect("a handshake is short");
    writer.write(out.take()).await.map_err(unreachable)?;
    let mut receive = Receive::new(reader);
    let answer = receive.next(&shared.counters).await;
    match answer.map_err(|error| broken(shared, node, error))? {
        Message::Accept(accept)
            if accept.cluster == shared.identity.cluster
                && accept.node == node
                && (LEVEL_MIN..=LEVEL_MAX).contains(&accept.level) =>
        {
            Ok((receive, writer))
        }
        Message::Refuse { level_min: min, level_max: max, why: RefuseReason::Level } => {
            Err(LinkError::Level { node, min, max })
        }
        Message::Refuse { why, .. } => {
            let why = match why {
                RefuseReason::Cluster => "it belongs to another cluster",
                RefuseReason::Node => "it is another node",
                RefuseReason::Busy => "it has too many connections",
                RefuseReason::Level => "it speaks other feature levels",
            };
            Err(LinkError::Refused { node, why })
        }
        _ => {
            count(&shared.counters.bad_messages);
            Err(LinkError::Stranger(node))
        }
    }
}

fn broken(shared: &Shared, node: NodeId, error: ReceiveError) -> LinkError {
    error.count(&shared.counters);
    if let ReceiveError::Frame(error) = &error {
        tracing::warn!(%node, %error, "a connection is closed");
    }
    LinkError::Broken(node, error)
}

/// Serves everybody who is attached until the connection is lost; says why.
async fn converse(
    shared: &Arc<Shared>,
    connection: &Connection,
    receive: Receive,
    mut writer: Box<dyn ByteWriter>,
) -> LinkError {
    let outbox = Arc::new(Outbox::new(OUTBOX_BYTES_MAX));
    let drained = outbox.clone();
    let drain = async move {
        if let Err(error) = drained.drain(&mut *writer).await {
            tracing::debug!(%error, "a connection cannot be written to");
        }
    };
    let writing = shared.env.spawn.spawn("ledger link writer", Box::pin(drain));
    connection.begin(&outbox);
    let session = Session { shared, connection, outbox: outbox.clone() };
    let why = session.read(receive).await;
    outbox.close();
    writing.abort();
    why
}

struct Session<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    outbox: Arc<Outbox>,
}

impl Session<'_> {
    async fn read(&self, mut receive: Receive) -> LinkError {
        let (node, counters) = (self.connection.node, &*self.shared.counters);
        let clock = &self.shared.env.clock;
        let mut silence = Silence::new(clock.now());
        let mut tick = clock.sleep_until(clock.now().after(self.shared.patience.ping));
        let mut ended = pin!(self.outbox.ended());
        loop {
            loop {
                match receive.take() {
                    Ok(Some(message)) => {
                        if let Err(error) = self.serve(message) {
                            return error;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return broken(self.shared, node, error),
                }
            }
            select! {
                biased;
                read = receive.read(counters) => match read {
                    Ok(()) => silence.broken = true,
                    Err(error) => return broken(self.shared, node, error),
                },
                () = &mut ended => {
                    if self.outbox.overflowed() {
                        count(&counters.overflowed);
                        return LinkError::Slow(node);
                    }
                    return LinkError::Unwritable(node);
                }
                () = &mut tick => {
                    if let Err(error) = self.look_around(&mut silence) {
                        return error;
                    }
                    tick = clock.sleep_until(clock.now().after(self.shared.patience.ping));
                }
            }
        }
    }

    fn serve(&self, message: Message) -> Result<(), LinkError> {
        match message {
            Message::Reply { channel, reply } => {
                count(&self.shared.counters.replies);
                if let Some(channel) = self.connection.channel(channel) {
                    channel.event(LinkEvent::Reply(reply));
                }
            }
            Message::Attached { channel, mount_seq } => {
                if let Some(channel) = self.connection.channel(channel) {
                    channel.connected(&self.outbox, mount_seq);
                }
            }
            Message::Detached { channel, why } => {
                if let Some(channel) = self.connection.channel(channel) {
                    probe!("links: channel refused or ended");
                    let why = match why {
                        DetachReason::NotMounted => "is not mounted on its node",
                        DetachReason::Stopped => "has stopped",
                        DetachReason::TooMany => "has too many askers",
                    };
                    channel.lost(&format!("storage {} {why}", channel.replica).into());
                }
            }
            Message::Pong { .. } => {}
            _ => {
                count(&self.shared.counters.bad_messages);
                return Err(LinkError::Stranger(self.connection.node));
            }
        }
        Ok(())
    }

    /// Asks a silent peer whether it is there, and again for channels that were refused.
    fn look_around(&self, silence: &mut Silence) -> Result<(), LinkError> {
        let (node, patience) = (self.connection.node, &self.shared.patience);
        let now = self.shared.env.clock.now();
        if std::mem::take(&mut silence.broken) {
            silence.since = now;
        } else if now >= silence.since.after(patience.silence) {
            probe!("links: a peer fell silent");
            count(&self.shared.counters.silent);
            return Err(LinkError::Silent(node));
        } else {
            silence.asked += 1;
            self.outbox.push(Message::Ping { number: silence.asked }, None);
        }
        let channels = self.connection.channels();
        for channel in channels.iter().filter(|channel| channel.told.load(Ordering::Acquire)) {
            self.outbox.push(channel.attach(), None);
        }
        self.outbox.flush();
        if !channels.is_empty() {
            silence.needed = now;
        } else if now >= silence.needed.after(patience.idle) {
            return Err(LinkError::Idle(node));
        }
        Ok(())
    }
}

/// When a peer was last heard.
struct Silence {
    since: Instant,
    /// Something has come since it was last looked at.
    broken: bool,
    asked: u64,
    /// When somebody was last attached.
    needed: Instant,
}

impl Silence {
    fn new(now: Instant) -> Self {
        Self { since: now, broken: false, asked: 0, needed: now }
    }
}
