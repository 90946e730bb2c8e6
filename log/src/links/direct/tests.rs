use super::*;
use crate::frame::EntryFrame;
use crate::message::EntryHeaders;
use crate::storage::{Storage as _, Ticket};
use crate::testing::{Executor, MemoryDisk, MemoryStorage};
use bytes::Bytes;
use thalweg_types::id::{Address, EntryId, Epoch, Incarnation, LedgerId, NodeId};

const CONTAINER: ContainerId = ContainerId(3);
const LEDGER: LedgerId = LedgerId { container: CONTAINER, epoch: Epoch(1) };

#[derive(Default)]
struct Seen(Mutex<Vec<LinkEvent>>);

impl Sink for Seen {
    fn event(&self, _from: ReplicaId, event: LinkEvent) {
        lock(&self.0).push(event);
    }
}

struct World {
    executor: Executor,
    links: DirectLinks,
    storage: Arc<MemoryStorage>,
    service: Arc<ReplicaService>,
    seen: Arc<Seen>,
}

impl World {
    fn new(storage: Arc<MemoryStorage>) -> Self {
        let executor = Executor::new(1);
        let spawn = executor.env(&MemoryDisk::default()).spawn;
        let links = DirectLinks::new(spawn);
        let service = serve(&executor, storage.clone());
        links.add(service.clone());
        Self { executor, links, storage, service, seen: Arc::default() }
    }

    fn attach(&self) -> Box<dyn Link> {
        let replica = self.service.identity();
        self.links.attach(CONTAINER, replica, Lane::Data, self.seen.clone())
    }

    /// Lets everything happen that can, and says what the sink has seen.
    fn settle(&self) -> Vec<LinkEvent> {
        assert!(self.executor.try_run(std::future::pending::<()>()).is_none());
        std::mem::take(&mut lock(&self.seen.0))
    }
}

fn serve(executor: &Executor, storage: Arc<MemoryStorage>) -> Arc<ReplicaService> {
    let env = executor.env(&MemoryDisk::default());
    let identity = ReplicaId { node: NodeId(1), storage: storage.uuid() };
    ReplicaService::start(env.clock, env.spawn, storage, identity)
}

fn open() -> Request {
    let (base, committed_end) = (EntryId(0), EntryId(0));
    Request::Open { ledger: LEDGER, base, incarnation: Incarnation(7), committed_end }
}

fn append(entry: u64) -> Request {
    Request::Append(EntryFrame {
        ledger: LEDGER,
        base: EntryId(0),
        entry: EntryId(entry),
        lac: None,
        keep_from: Address::default(),
        headers: Bytes::from_static(b"headers"),
        payload: vec![Bytes::from_static(b"pay"), Bytes::from_static(b"load")],
        exempt: false,
    })
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
fn what_is_durable_is_acked_once_per_batch() {
    let world = World::new(MemoryStorage::manual());
    let link = world.attach();
    for request in [open(), append(0), append(1), append(2)] {
        link.send(request);
    }
    assert_eq!(world.settle(), [CONNECTED]);
    world.storage.make_durable(Ticket(3));
    assert_eq!(world.settle(), [opened(), ack(2)]);
    world.storage.make_durable(Ticket(4));
    assert_eq!(world.settle(), [ack(3)]);
    let facts = world.service.facts(LEDGER).unwrap();
    assert_eq!((facts.end, facts.certain), (EntryId(3), true));
}

#[test]
fn an_entry_is_read_back_whole_and_a_damaged_one_is_unknown() {
    let world = World::new(MemoryStorage::auto());
    let link = world.attach();
    for request in [open(), append(0), append(1)] {
        link.send(request);
    }
    world.settle();
    world.storage.damage(LEDGER, EntryId(1));
    for entry in [0, 1].map(EntryId) {
        link.send(Request::Read { ledger: LEDGER, entry });
    }
    let seen = world.settle();
    let LinkEvent::Reply(Reply::Have(frame)) = &seen[0] else { panic!("{seen:?}") };
    assert_eq!((&frame.headers[..], &frame.payload[0][..]), (&b"headers"[..], &b"payload"[..]));
    let unknown = Reply::Unknown { ledger: LEDGER, entry: EntryId(1) };
    assert_eq!(seen[1..], [LinkEvent::Reply(unknown)]);
}

#[test]
fn headers_come_in_runs_that_fit() {
    let world = World::new(MemoryStorage::auto());
    let link = world.attach();
    for request in [open(), append(0), append(1), append(2)] {
        link.send(request);
    }
    world.settle();
    let headers = Bytes::from_static(b"headers");
    for (from, entries_max, bytes_max, wanted) in
        [(0, 9, 99, 3), (1, 9, 99, 2), (0, 2, 99, 2), (0, 9, 13, 1), (0, 9, 0, 1), (3, 9, 99, 0)]
    {
        let (from, ledger) = (EntryId(from), LEDGER);
        link.send(Request::Headers { ledger, from, entries_max, bytes_max });
        let entry = EntryHeaders { headers: headers.clone(), payload_len: 7 };
        let entries = vec![entry; wanted];
        let reply = if wanted == 0 {
            Reply::Unknown { ledger, entry: from }
        } else {
            Reply::Headers { ledger, from, entries }
        };
        assert_eq!(world.settle(), [LinkEvent::Reply(reply)]);
    }
}

#[test]
fn a_copy_of_an_entry_that_is_held_is_looked_at_and_a_damaged_one_is_replaced() {
    let world = World::new(MemoryStorage::auto());
    let link = world.attach();
    for request in [open(), append(0), append(1)] {
        link.send(request);
    }
    world.settle();
    let staged = world.storage.staged();
    let by = Epoch(2);
    let Request::Append(entry) = append(0) else { panic!() };
    link.send(Request::Repair { by, entry: entry.clone() });
    let repaired = LinkEvent::Reply(Reply::Repaired { ledger: LEDGER, entry: EntryId(0) });
    assert_eq!(world.settle(), std::slice::from_ref(&repaired));
    // The fence of the repair and its floor, but no second copy.
    assert_eq!(world.storage.staged(), Ticket(staged.0 + 2));
    world.storage.damage(LEDGER, EntryId(0));
    link.send(Request::Repair { by, entry });
    assert_eq!(world.settle(), [repaired]);
    assert_eq!(world.storage.staged(), Ticket(staged.0 + 3));
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let world = World::new(MemoryStorage::auto());
    let link = world.attach();
    link.send(open());
    world.settle();
    world.storage.hold(Some("full"));
    world.settle();
    link.send(append(0));
    let why = crate::message::Refusal::Full;
    let refused = LinkEvent::Reply(Reply::Refused { ledger: LEDGER, why });
    assert_eq!(world.settle(), [refused]);
    world.storage.hold(None);
    world.settle();
    link.send(append(0));
    assert_eq!(world.settle(), [ack(1)]);
}

#[test]
fn a_storage_that_stops_takes_its_askers_along() {
    let world = World::new(MemoryStorage::manual());
    let link = world.attach();
    link.send(open());
    world.settle();
    world.storage.fail("EIO");
    assert_eq!(world.settle(), [LinkEvent::Lost { reason: "EIO".into() }]);
    link.send(append(0));
    assert_eq!(world.settle(), []);
    let late = world.attach();
    assert_eq!(world.settle(), [LinkEvent::Lost { reason: "EIO".into() }]);
    late.send(Request::Hello { ledger: LEDGER });
    assert_eq!(world.settle(), []);
}

#[test]
fn a_link_can_be_cut_and_restored_and_delivers_nothing_old() {
    let world = World::new(MemoryStorage::manual());
    let replica = world.service.identity();
    let link = world.attach();
    link.send(open());
    world.settle();
    world.links.cut(replica);
    world.storage.make_durable(Ticket(1));
    link.send(append(0));
    let seen = world.settle();
    assert!(matches!(seen[..], [LinkEvent::Lost { .. }]), "{seen:?}");
    world.links.restore(replica);
    link.send(open());
    assert_eq!(world.settle(), [CONNECTED, opened()]);
    world.links.set_fault(replica, Fault::Stalled);
    link.send(append(0));
    assert_eq!((world.settle(), world.storage.staged()), (vec![], Ticket(1)));
    world.links.set_fault(replica, Fault::LosesReplies);
    world.storage.make_durable(Ticket(2));
    assert_eq!((world.settle(), world.storage.staged()), (vec![], Ticket(2)));
    world.links.set_fault(replica, Fault::LosesRequests);
    link.send(append(1));
    assert_eq!((world.settle(), world.storage.staged()), (vec![], Ticket(2)));
}

#[test]
fn a_replica_that_starts_anew_is_another_connection() {
    let world = World::new(MemoryStorage::auto());
    let link = world.attach();
    link.send(open());
    link.send(append(0));
    world.settle();
    let again = world.storage.restart();
    world.links.add(serve(&world.executor, again));
    let seen = world.settle();
    assert!(matches!(seen[..], [LinkEvent::Lost { .. }, LinkEvent::Connected { mount_seq: 2 }]));
    link.send(append(1));
    assert_eq!(world.settle(), [], "whoever appends has not heard of the connection");
    link.send(open());
    link.send(append(1));
    let (base, end) = (EntryId(0), EntryId(1));
    let opened = LinkEvent::Reply(Reply::Opened { ledger: LEDGER, base, end });
    assert_eq!(world.settle(), [opened, ack(2)]);
    drop(link);
    assert_eq!(world.settle(), []);
    world.links.remove(world.service.identity());
    assert_eq!(world.settle(), []);
}
