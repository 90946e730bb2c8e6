use super::*;
use crate::frame::Frame;
use crate::links::LinkEvent;
use crate::message::Reply;
use crate::placement::Candidate;
use crate::service::ReplicaService;
use crate::storage::Storage as _;
use crate::testing::{Executor, MemoryDisk, MemoryNetwork, MemoryStorage};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use thalweg_actor::network::{Connection as Stream, Endpoint, Network as _};
use thalweg_types::id::{Address, EntryId, Epoch, LedgerId, StorageUuid};
use thalweg_wire::ledger::{
    Accept, Attach, Connect, DetachReason, HEADER_BYTES, Outgoing, RefuseReason, next,
};

const CLUSTER: u128 = 0xC1;
const CONTAINER: ContainerId = ContainerId(3);
const LEDGER: LedgerId = LedgerId { container: CONTAINER, epoch: Epoch(1) };
const OWNER: NodeIdentity =
    NodeIdentity { cluster: CLUSTER, node: NodeId(9), incarnation: Incarnation(99) };
const SERVER: NodeIdentity =
    NodeIdentity { cluster: CLUSTER, node: NodeId(1), incarnation: Incarnation(11) };

#[derive(Default)]
struct Seen(Mutex<Vec<LinkEvent>>);

impl Sink for Seen {
    fn event(&self, _from: ReplicaId, event: LinkEvent) {
        lock(&self.0).push(event);
    }
}

struct OneNode(Mutex<Endpoint>);

impl Members for OneNode {
    fn candidates(&self) -> Vec<Candidate> {
        Vec::new()
    }

    fn endpoint(&self, node: NodeId) -> Option<Endpoint> {
        (node == SERVER.node).then(|| lock(&self.0).clone())
    }
}

struct World {
    executor: Executor,
    env: Env,
    network: MemoryNetwork,
    storage: Arc<MemoryStorage>,
    mounted: Mounted,
    listener: Option<ReplicaListener>,
    at: Endpoint,
    links: NetLinks,
    seen: Arc<Seen>,
    server: Arc<LinkCounters>,
    owner: Arc<LinkCounters>,
}

impl World {
    fn new(storage: Arc<MemoryStorage>) -> Self {
        let executor = Executor::new(1);
        let network = MemoryNetwork::default();
        let env =
            Env { network: Arc::new(network.clone()), ..executor.env(&MemoryDisk::default()) };
        let mounted = Mounted::default();
        let (server, owner) = (Arc::<LinkCounters>::default(), Arc::<LinkCounters>::default());
        let patience = Patience::production();
        let any = Endpoint::from("server:0");
        let listener = executor.run(network.listen(&any)).unwrap();
        let at = listener.local();
        let listener = ReplicaListener::start(
            env.clone(),
            listener,
            SERVER,
            mounted.clone(),
            patience,
            server.clone(),
        );
        let members = Arc::new(OneNode(Mutex::new(at.clone())));
        let links = NetLinks::new(env.clone(), OWNER, members, patience, owner.clone());
        let (seen, listener) = (Arc::default(), Some(listener));
        let world = Self {
            executor,
            env,
            network,
            storage,
            mounted,
            listener,
            at,
            links,
            seen,
            server,
            owner,
        };
        world.mounted.add(world.serve(world.storage.clone()));
        world
    }

    fn serve(&self, storage: Arc<MemoryStorage>) -> Arc<ReplicaService> {
        let (clock, spawn) = (self.env.clock.clone(), self.env.spawn.clone());
        ReplicaService::start_bounded(clock, spawn, storage, self.replica(), 4 << 20)
    }

    fn replica(&self) -> ReplicaId {
        ReplicaId { node: SERVER.node, storage: self.storage.uuid() }
    }

    fn attach(&self) -> Box<dyn Link> {
        self.links.attach(CONTAINER, self.replica(), Lane::Data, self.seen.clone())
    }

    fn wait(&self, by: Duration) {
        let clock = &self.env.clock;
        self.executor.run(clock.sleep_until(clock.now().after(by)));
    }

    /// Lets everything happen that needs no time to speak of, and says what the sink has seen.
    fn settle(&self) -> Vec<LinkEvent> {
        self.wait(Duration::from_millis(1));
        std::mem::take(&mut lock(&self.seen.0))
    }

    fn connected(&self) -> Box<dyn Link> {
        let link = self.attach();
        assert_eq!(self.settle(), [CONNECTED]);
        link
    }

    /// A connection made by hand.
    fn raw(&self) -> Raw<'_> {
        let stream = self.executor.run(self.network.connect(&self.at)).unwrap();
        Raw { world: self, stream, read: BytesMut::new() }
    }

    fn entries(&self) -> usize {
        let frames = self.storage.frames();
        frames.iter().filter(|frame| matches!(frame, Frame::Entry(_))).count()
    }
}

struct Raw<'a> {
    world: &'a World,
    stream: Stream,
    read: BytesMut,
}

impl Raw<'_> {
    fn send(&mut self, bytes: &[u8]) {
        let chunk = Bytes::copy_from_slice(bytes);
        // The other side may have closed the connection already.
        let _ = self.world.executor.run(self.stream.writer.write(vec![chunk]));
    }

    fn say(&mut self, message: Message) {
        let bytes = encode(message);
        self.send(&bytes);
    }

    /// What the other side says next; `None` if it says nothing more.
    fn hear(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = next(&mut self.read).unwrap() {
                return Some(message);
            }
            self.read.reserve(4096);
            match self.world.executor.run(self.stream.reader.read(&mut self.read)) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn shake_hands(&mut self) {
        self.say(Message::Connect(hello()));
        assert!(matches!(self.hear(), Some(Message::Accept(_))));
        let (channel, container, replica) = (7, CONTAINER, self.world.replica());
        self.say(Message::Attach(Attach { channel, container, replica }));
        assert_eq!(self.hear(), Some(Message::Attached { channel, mount_seq: 1 }));
    }
}

fn hello() -> Connect {
    Connect {
        level_min: 1,
        level_max: 1,
        cluster: CLUSTER,
        from: OWNER.node,
        incarnation: OWNER.incarnation,
        to: SERVER.node,
        lane: Lane::Data,
    }
}

fn encode(message: Message) -> Vec<u8> {
    let mut out = Outgoing::default();
    out.push(message).unwrap();
    out.take().concat()
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn open() -> Request {
    let (base, committed_end) = (EntryId(0), EntryId(0));
    Request::Open { ledger: LEDGER, base, incarnation: Incarnation(7), committed_end }
}

fn frame(entry: u64, payload: &Bytes) -> EntryFrame {
    EntryFrame {
        ledger: LEDGER,
        base: EntryId(0),
        entry: EntryId(entry),
        lac: None,
        keep_from: Address::default(),
        headers: Bytes::from_static(b"headers"),
        payload: vec![payload.slice(..1), payload.slice(1..)],
        exempt: false,
    }
}

fn append(entry: u64) -> Request {
    Request::Append(frame(entry, &Bytes::from(vec![7; 3000])))
}

fn ack(end: u64) -> LinkEvent {
    LinkEvent::Reply(Reply::Ack { ledger: LEDGER, base: EntryId(0), end: EntryId(end) })
}

fn opened() -> LinkEvent {
    let (base, end) = (EntryId(0), EntryId(0));
    LinkEvent::Reply(Reply::Opened { ledger: LEDGER, base, end })
}

const CONNECTED: LinkEvent = LinkEvent::Connected { mount_seq: 1 };

#[test]
fn entries_are_stored_acked_and_read_back() {
    let world = World::new(MemoryStorage::auto());
    let link = world.connected();
    let large: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    let large = Bytes::from(large);
    link.send(open());
    link.send(append(0));
    link.send(Request::Append(frame(1, &large)));
    let seen = world.settle();
    assert_eq!((seen.first(), seen.last()), (Some(&opened()), Some(&ack(2))));
    link.send(Request::Read { ledger: LEDGER, entry: EntryId(1) });
    link.send(Request::Headers { ledger: LEDGER, from: EntryId(0), entries_max: 9, bytes_max: 99 });
    let seen = world.settle();
    let [LinkEvent::Reply(Reply::Have(entry)), LinkEvent::Reply(Reply::Headers { entries, .. })] =
        &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert!(entry.payload.concat() == large);
    let lens: Vec<usize> = entries.iter().map(|entry| entry.payload_len).collect();
    assert_eq!(lens, [3000, 300_000]);
}

#[test]
fn attachments_share_a_connection_per_lane_and_do_not_see_each_other() {
    let world = World::new(MemoryStorage::auto());
    let (mine, other) = (world.connected(), Arc::<Seen>::default());
    let container = ContainerId(4);
    let theirs = world.links.attach(container, world.replica(), Lane::Data, other.clone());
    world.settle();
    assert_eq!(world.network.connected(), 1);
    mine.send(open());
    mine.send(append(0));
    theirs.send(Request::Hello { ledger: LedgerId { container, ..LEDGER } });
    assert_eq!(world.settle(), [opened(), ack(1)]);
    assert_eq!(lock(&other.0).len(), 2);
    drop(mine);
    world.storage.fail("EIO");
    assert_eq!(world.settle(), []);
    assert!(matches!(lock(&other.0).last(), Some(LinkEvent::Lost { .. })));
    let urgent = world.links.attach(CONTAINER, world.replica(), Lane::Urgent, other.clone());
    world.settle();
    assert_eq!(world.network.connected(), 2);
    drop((theirs, urgent));
    world.wait(Duration::from_secs(20));
    assert!(lock(&world.links.shared.connections).is_empty(), "nobody needs a connection");
}

#[test]
fn an_idle_connection_stays_and_a_frozen_one_is_noticed() {
    let world = World::new(MemoryStorage::auto());
    let link = world.connected();
    world.wait(Duration::from_secs(60));
    assert_eq!((world.settle(), world.network.connected()), (vec![], 1));
    world.network.freeze_all();
    link.send(open());
    world.wait(Duration::from_secs(3));
    let seen = world.settle();
    assert!(matches!(&seen[..], [LinkEvent::Lost { .. }, CONNECTED]), "{seen:?}");
    assert_eq!(value(&world.owner.silent), 1);
    link.send(open());
    assert_eq!(world.settle(), [opened()]);
    world.wait(Duration::from_secs(20));
    assert_eq!(value(&world.server.silent), 1, "the other side gives the frozen one up, too");
}

#[test]
fn a_connection_that_breaks_within_a_message_stores_none_of_it() {
    let whole = encode(Message::Request { channel: 1, request: append(0) }).len();
    for broken_after in (0..whole).step_by(97).chain([HEADER_BYTES, whole - 1]) {
        let world = World::new(MemoryStorage::auto());
        let link = world.connected();
        link.send(open());
        assert_eq!(world.settle(), [opened()]);
        world.network.break_all_after(broken_after);
        link.send(append(0));
        world.wait(Duration::from_secs(2));
        assert_eq!(world.entries(), 0, "{broken_after} of {whole} bytes");
        let seen = world.settle();
        assert!(matches!(&seen[..], [LinkEvent::Lost { .. }, CONNECTED]), "{seen:?}");
        link.send(open());
        link.send(append(0));
        assert_eq!(world.settle(), [opened(), ack(1)]);
        assert_eq!(world.entries(), 1);
        assert_eq!(value(&world.server.bad_frames), 0);
    }
}

#[test]
fn a_node_that_starts_anew_is_found_again() {
    let mut world = World::new(MemoryStorage::auto());
    let link = world.connected();
    link.send(open());
    link.send(append(0));
    world.settle();
    world.listener = None;
    world.wait(Duration::from_secs(5));
    let seen = world.settle();
    assert!(matches!(&seen[..], [LinkEvent::Lost { .. }]), "told once: {seen:?}");
    assert!(value(&world.owner.connect_failed) > 3);
    world.storage = world.storage.restart();
    world.mounted.add(world.serve(world.storage.clone()));
    let listener = world.executor.run(world.network.listen(&world.at)).unwrap();
    world.listener = Some(ReplicaListener::start(
        world.env.clone(),
        listener,
        SERVER,
        world.mounted.clone(),
        Patience::production(),
        world.server.clone(),
    ));
    world.wait(Duration::from_secs(2));
    assert_eq!(world.settle(), [LinkEvent::Connected { mount_seq: 2 }]);
    link.send(append(1));
    assert_eq!(world.settle(), [], "whoever appends has not heard of the connection");
    link.send(open());
    link.send(append(1));
    let (base, end) = (EntryId(0), EntryId(1));
    let opened = LinkEvent::Reply(Reply::Opened { ledger: LEDGER, base, end });
    assert_eq!(world.settle(), [opened, ack(2)]);
}

#[test]
fn only_the_named_storage_answers() {
    let world = World::new(MemoryStorage::auto());
    let other = ReplicaId { storage: StorageUuid(1), ..world.replica() };
    let link = world.links.attach(CONTAINER, other, Lane::Data, world.seen.clone());
    let seen = world.settle();
    assert!(matches!(&seen[..], [LinkEvent::Lost { .. }]), "{seen:?}");
    assert!(value(&world.server.not_mounted) > 0);
    link.send(open());
    world.wait(Duration::from_secs(3));
    assert_eq!((world.settle(), world.storage.staged().0), (vec![], 0));
    // It is mounted in the end.
    let late = MemoryStorage::auto();
    let (clock, spawn) = (world.env.clock.clone(), world.env.spawn.clone());
    world.mounted.add(ReplicaService::start(clock, spawn, late, other));
    world.wait(Duration::from_secs(1));
    assert_eq!(world.settle(), [CONNECTED]);
}

#[test]
fn a_handshake_that_does_not_fit_is_refused_with_a_reason() {
    let world = World::new(MemoryStorage::auto());
    let refused = |connect: Connect| {
        let mut raw = world.raw();
        raw.say(Message::Connect(connect));
        let Some(Message::Refuse { why, .. }) = raw.hear() else { panic!("accepted") };
        assert_eq!(raw.hear(), None);
        why
    };
    assert_eq!(refused(Connect { cluster: 2, ..hello() }), RefuseReason::Cluster);
    assert_eq!(refused(Connect { to: NodeId(2), ..hello() }), RefuseReason::Node);
    assert_eq!(refused(Connect { level_min: 2, level_max: 5, ..hello() }), RefuseReason::Level);
    assert_eq!(refused(Connect { level_min: 0, level_max: 0, ..hello() }), RefuseReason::Level);
    let counters = &world.server;
    let counts = [&counters.refused_cluster, &counters.refused_node, &counters.refused_level];
    assert_eq!(counts.map(value), [1, 1, 2]);
    // A later program that still speaks our level is welcome.
    let mut raw = world.raw();
    raw.say(Message::Connect(Connect { level_max: 9, ..hello() }));
    let (level, cluster, node) = (1, CLUSTER, SERVER.node);
    let accept = Accept { level, cluster, node, incarnation: SERVER.incarnation };
    assert_eq!(raw.hear(), Some(Message::Accept(accept)));
}

#[test]
fn whoever_does_not_shake_hands_is_not_served() {
    let world = World::new(MemoryStorage::auto());
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[0; 100], &encode(Message::Ping { number: 1 })] {
        let mut raw = world.raw();
        raw.send(bytes);
        assert_eq!(raw.hear(), None);
    }
    assert_eq!(value(&world.server.bad_frames), 2);
    let mut raw = world.raw();
    raw.send(&encode(Message::Connect(hello()))[..30]);
    assert_eq!(raw.hear(), None, "half a handshake");
    assert_eq!(value(&world.server.no_handshake), 2);
    assert_eq!(value(&world.server.accepted), 0);
}

#[test]
fn what_must_not_come_ends_the_connection_and_stores_nothing() {
    let world = World::new(MemoryStorage::auto());
    let request = |request| Message::Request { channel: 7, request };
    let other = LedgerId { container: ContainerId(4), ..LEDGER };
    let strange = Request::Append(EntryFrame { ledger: other, ..frame(0, &Bytes::from("ab")) });
    let mut bent = encode(request(append(0)));
    let last = bent.len() - 1;
    bent[last] ^= 1;
    let mut broken = encode(request(append(0)));
    broken[HEADER_BYTES + 3] ^= 1;
    let (ledger, entry) = (LEDGER, EntryId(0));
    let reply = Message::Reply { channel: 7, reply: Reply::Repaired { ledger, entry } };
    let all = [bent, broken, encode(request(strange)), encode(reply), vec![7; 64]];
    for (number, bytes) in all.iter().enumerate() {
        let mut raw = world.raw();
        raw.shake_hands();
        raw.say(request(open()));
        assert!(matches!(raw.hear(), Some(Message::Reply { .. })));
        raw.send(bytes);
        assert_eq!(raw.hear(), None, "number {number}");
        assert_eq!(world.entries(), 0);
    }
    let counters = &world.server;
    let counts = [&counters.bad_frames, &counters.bad_contents, &counters.bad_messages];
    assert_eq!(counts.map(value), [3, 1, 2]);
}

#[test]
fn a_channel_that_was_never_begun_is_silent() {
    let world = World::new(MemoryStorage::auto());
    let mut raw = world.raw();
    raw.shake_hands();
    raw.say(Message::Request { channel: 8, request: open() });
    raw.say(Message::Detach { channel: 8 });
    raw.say(Message::Ping { number: 5 });
    assert_eq!(raw.hear(), Some(Message::Pong { number: 5 }));
    assert_eq!(world.storage.staged().0, 0);
    world.storage.fail("EIO");
    let why = DetachReason::Stopped;
    assert_eq!(raw.hear(), Some(Message::Detached { channel: 7, why }));
}

#[test]
fn what_answers_for_a_node_must_be_that_node() {
    let world = World::new(MemoryStorage::auto());
    let at = Endpoint::from("impostor:0");
    let mut listener = world.executor.run(world.network.listen(&at)).unwrap();
    let members = Arc::new(OneNode(Mutex::new(listener.local())));
    let (env, owner) = (world.env.clone(), world.owner.clone());
    let links = NetLinks::new(env, OWNER, members, Patience::production(), owner);
    let _link = links.attach(CONTAINER, world.replica(), Lane::Data, world.seen.clone());
    let accept =
        Accept { level: 1, cluster: CLUSTER, node: NodeId(2), incarnation: Incarnation(1) };
    for bytes in [encode(Message::Accept(accept)), b"garbage".to_vec()] {
        let mut stream = world.executor.run(listener.accept()).unwrap();
        world.executor.run(stream.writer.write(vec![Bytes::from(bytes)])).unwrap();
        world.wait(Duration::from_millis(5));
    }
    assert_eq!((value(&world.owner.bad_messages), value(&world.owner.bad_frames)), (1, 1));
    let seen = world.settle();
    assert!(matches!(&seen[..], [LinkEvent::Lost { .. }]), "{seen:?}");
}

#[test]
fn a_node_that_ends_every_connection_is_asked_less_and_less() {
    let world = World::new(MemoryStorage::auto());
    let at = Endpoint::from("moody:0");
    let mut listener = world.executor.run(world.network.listen(&at)).unwrap();
    let members = Arc::new(OneNode(Mutex::new(listener.local())));
    let (env, owner) = (world.env.clone(), world.owner.clone());
    let links = NetLinks::new(env, OWNER, members, Patience::production(), owner);
    let _link = links.attach(CONTAINER, world.replica(), Lane::Data, world.seen.clone());
    let (level, cluster, node) = (1, CLUSTER, SERVER.node);
    let accept =
        encode(Message::Accept(Accept { level, cluster, node, incarnation: SERVER.incarnation }));
    let mut waits = Vec::new();
    for _ in 0..10 {
        let before = world.env.clock.now();
        let mut stream = world.executor.run(listener.accept()).unwrap();
        waits.push(world.env.clock.now().since(before));
        world.executor.run(stream.writer.write(vec![Bytes::from(accept.clone())])).unwrap();
    }
    assert!(waits[9] >= Duration::from_millis(500), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(1)), "{waits:?}");
}

#[test]
fn a_peer_that_takes_nothing_is_cut_off_before_memory_runs_out() {
    let outbox = outbox::Outbox::new(10_000);
    for _ in 0..3 {
        outbox.push(Message::Request { channel: 1, request: append(0) }, None);
    }
    assert!(!outbox.overflowed());
    outbox.push(Message::Request { channel: 1, request: append(0) }, None);
    assert!(outbox.overflowed());
    Executor::new(1).run(outbox.ended());
}

#[test]
fn a_replica_that_is_behind_reads_no_more_entries() {
    let world = World::new(MemoryStorage::manual());
    let link = world.connected();
    link.send(open());
    let large = Bytes::from(vec![7; 250 * 1024]);
    for entry in 0..25 {
        link.send(Request::Append(frame(entry, &large)));
    }
    world.settle();
    let staged = world.storage.staged().0;
    assert!((17..22).contains(&staged), "{staged} frames");
    let urgent = world.links.attach(CONTAINER, world.replica(), Lane::Urgent, world.seen.clone());
    assert_eq!(world.settle(), [CONNECTED]);
    urgent.send(Request::Fence { ledger: LEDGER, by: Epoch(2) });
    world.settle();
    assert_eq!(world.storage.staged().0, staged + 2, "a fence gets through");
    world.storage.make_durable(world.storage.staged());
    world.settle();
    assert_eq!(value(&world.server.requests), 27);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_after_a_handshake_store_nothing(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
        let world = World::new(MemoryStorage::auto());
        let mut raw = world.raw();
        raw.shake_hands();
        raw.send(&bytes);
        world.wait(Duration::from_secs(1));
        prop_assert_eq!(world.storage.staged().0, 0);
        let mut again = world.raw();
        again.shake_hands();
    }
}
