//! Whole repairs over direct links: several storages in memory, one register.

use super::*;
use crate::frame::{EntryFrame, Frame, LedgerState};
use crate::links::DirectLinks;
use crate::mounts::MemoryMounts;
use crate::placement::Candidate;
use crate::quorum::Quorum;
use crate::register::{ContainerLog, Ending, LedgerStage, MemoryRegister, RegisterUnavailable};
use crate::storage::Storage as _;
use crate::testing::{Executor, MemoryDisk, MemoryStorage};
use bytes::Bytes;
use thalweg_actor::BoxFuture;
use thalweg_actor::network::Endpoint;
use thalweg_actor::planted::start_run;
use thalweg_types::id::{Address, ContainerId, Epoch, Incarnation, NodeId, StorageUuid};

const CONTAINER: ContainerId = ContainerId(5);
const ONE: LedgerId = LedgerId { container: CONTAINER, epoch: Epoch(1) };
const THREE: Quorum = Quorum { write: 3, ack: 2 };
const LEN: usize = 1000;

#[derive(Default)]
struct TestMembers(Mutex<Vec<Candidate>>);

impl Members for TestMembers {
    fn candidates(&self) -> Vec<Candidate> {
        self.0.lock().unwrap().clone()
    }

    fn endpoint(&self, _node: NodeId) -> Option<Endpoint> {
        None
    }
}

/// The registers, of which a container may be left out.
struct TestOverview {
    mounts: MemoryMounts,
    hidden: Mutex<BTreeSet<ContainerId>>,
    deleted: Mutex<Vec<ContainerId>>,
}

impl Overview for TestOverview {
    fn listing(&self) -> BoxFuture<'_, Result<Listing, RegisterUnavailable>> {
        let hidden = self.hidden.lock().unwrap().clone();
        let mut logs = self.mounts.registers();
        logs.retain(|log| !hidden.contains(&log.container));
        let (complete, deleted) = (hidden.is_empty(), self.deleted.lock().unwrap().clone());
        let listing = Listing { version: 1, complete, logs, deleted, lost: self.mounts.lost() };
        Box::pin(std::future::ready(Ok(listing)))
    }
}

struct World {
    executor: Executor,
    links: DirectLinks,
    register: Arc<MemoryRegister>,
    overview: Arc<TestOverview>,
    members: Arc<TestMembers>,
    storages: BTreeMap<ReplicaId, Arc<MemoryStorage>>,
    services: BTreeMap<ReplicaId, Arc<ReplicaService>>,
}

fn replica(node: u64) -> ReplicaId {
    ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node)) }
}

fn content(entry: u64) -> Bytes {
    Bytes::from(
        format!("<{entry}>").into_bytes().into_iter().cycle().take(LEN).collect::<Vec<u8>>(),
    )
}

fn entry(entry: u64, payload: Bytes) -> EntryFrame {
    EntryFrame {
        ledger: ONE,
        base: EntryId(0),
        entry: EntryId(entry),
        lac: None,
        keep_from: Address::default(),
        headers: Bytes::from_static(b"headers"),
        payload: vec![payload],
        exempt: false,
    }
}

impl World {
    /// Four storages, of which the first three hold `entries` entries of a ledger that is closed behind them.
    fn new(entries: u64) -> Self {
        let executor = Executor::new(1);
        let links = DirectLinks::new(executor.env(&MemoryDisk::default()).spawn);
        let register = Arc::new(MemoryRegister::default());
        let (hidden, deleted) = Default::default();
        let overview =
            TestOverview { mounts: MemoryMounts::new(register.clone()), hidden, deleted };
        let (members, storages, services) = Default::default();
        let overview = Arc::new(overview);
        let mut world = Self { executor, links, register, overview, members, storages, services };
        for node in 1..=4 {
            let storage = MemoryStorage::auto();
            if node < 4 {
                let state = LedgerState {
                    ledger: ONE,
                    incarnation: Some(Incarnation(1)),
                    base: EntryId(0),
                    tail: None,
                    lac: None,
                    keep_from: Address::default(),
                    fenced_by: None,
                    certain: true,
                };
                storage.stage(Frame::State(state)).unwrap();
                for at in 0..entries {
                    storage.stage(Frame::Entry(entry(at, content(at)))).unwrap();
                }
            }
            world.mount(replica(node), storage.restart());
        }
        let ensemble: Vec<ReplicaId> = (1..4).map(replica).collect();
        world.takeover(Ending::default(), &ensemble);
        world.takeover(
            Ending { start: EntryId(0), end: EntryId(entries), ensemble: ensemble.clone() },
            &ensemble,
        );
        world
    }

    /// The next owner closes the last ledger and opens its own.
    fn takeover(&self, ending: Ending, ensemble: &[ReplicaId]) {
        let (host, session, incarnation) = (NodeId(1), 1, Incarnation(1));
        self.submit(Change::Assign { host, session, incarnation });
        let epoch = self.log().assigned.unwrap().epoch;
        self.submit(Change::BeginRecovery { epoch, incarnation });
        self.submit(Change::Close { epoch, ending, quorum: THREE, ensemble: ensemble.to_vec() });
    }

    fn submit(&self, change: Change) {
        let command = RegisterCommand { container: CONTAINER, change };
        let reply = self.executor.run(self.register.submit(command)).unwrap();
        assert!(matches!(reply, RegisterReply::Done(_)), "{reply:?}");
    }

    fn log(&self) -> ContainerLog {
        self.register.get(CONTAINER).unwrap()
    }

    fn mount(&mut self, replica: ReplicaId, storage: Arc<MemoryStorage>) {
        let env = self.executor.env(&MemoryDisk::default());
        let service = ReplicaService::start(env.clock, env.spawn, storage.clone(), replica);
        self.links.add(service.clone());
        self.services.insert(replica, service);
        self.storages.insert(replica, storage);
        let mut known = self.members.0.lock().unwrap();
        known.retain(|candidate| candidate.replica != replica);
        let (zone, rack) = (Arc::default(), Arc::default());
        known.push(Candidate { replica, zone, rack, free_bytes: 1 << 40, load: 0, up: true });
    }

    /// The process is gone.
    fn kill(&mut self, replica: ReplicaId) {
        self.links.remove(replica);
        self.services.remove(&replica);
        let mut known = self.members.0.lock().unwrap();
        known.iter_mut().filter(|known| known.replica == replica).for_each(|c| c.up = false);
    }

    fn repairer(&self, node: u64, config: Config) -> Arc<Repairer> {
        let env = self.executor.env(&MemoryDisk::default());
        Repairer::start(Parts {
            clock: env.clock,
            spawn: env.spawn,
            service: self.services[&replica(node)].clone(),
            links: Arc::new(self.links.clone()),
            register: self.register.clone(),
            overview: self.overview.clone(),
            members: self.members.clone(),
            config,
        })
    }

    fn sleep(&self, time: Duration) {
        let clock = self.executor.env(&MemoryDisk::default()).clock;
        self.executor.run(clock.sleep_until(clock.now().after(time)));
    }

    /// Waits until `done`, up to a minute; false if it never is.
    fn waits_for(&self, done: impl Fn(&Self) -> bool) -> bool {
        (0..600).any(|_| {
            self.sleep(Duration::from_millis(100));
            done(self)
        })
    }

    /// True if `node` reads back all of `entries`, with the right content.
    fn holds(&self, node: u64, entries: std::ops::Range<u64>) -> bool {
        let storage = &self.storages[&replica(node)];
        entries.into_iter().all(|at| {
            let found = self.executor.run(load(&**storage, ONE, EntryId(at)));
            found.is_ok_and(|found| found.payload == [content(at)])
        })
    }

    fn copies(&self, node: u64) -> Vec<u64> {
        let frames = self.storages[&replica(node)].frames();
        let copy = |frame: &Frame| match frame {
            Frame::Repair { entry, .. } => Some(entry.entry.0),
            _ => None,
        };
        frames.iter().filter_map(copy).collect()
    }

    fn certain(&self, node: u64) -> bool {
        self.services[&replica(node)].facts(ONE).is_some_and(|facts| facts.certain)
    }
}

#[test]
fn the_scrub_finds_a_damaged_entry_and_it_is_copied_in_place() {
    let world = World::new(10);
    world.storages[&replica(2)].damage(ONE, EntryId(4));
    let repairer = world.repairer(2, Config::simulated());
    let healed = world.waits_for(|world| world.holds(2, 0..10));
    assert!(healed, "{:?}", repairer.counters());
    assert_eq!(world.copies(2), [4]);
    let counters = repairer.counters();
    assert!(counters.scrub_hits >= 1 && counters.copied == 1, "{counters:?}");
    assert!(world.waits_for(|_| repairer.counters().sweeps >= 2));
    assert_eq!((repairer.counters().scrub_hits, world.copies(2).len()), (counters.scrub_hits, 1));
}

/// One holder has rotten content that its storage takes for good. Without asking the others it would be copied.
fn rot_does_not_spread() {
    let world = World::new(3);
    world.storages[&replica(1)].stage(Frame::Entry(entry(1, Bytes::from_static(b"rot")))).unwrap();
    world.storages[&replica(2)].damage(ONE, EntryId(1));
    let repairer = world.repairer(2, Config::simulated());
    world.waits_for(|_| repairer.counters().conflicts + repairer.counters().copied > 1);
    let found = world.executor.run(load(&*world.storages[&replica(2)], ONE, EntryId(1)));
    if let Ok(found) = found {
        assert_eq!(found.payload, [content(1)], "rot was copied");
    }
    assert!(repairer.counters().conflicts > 0, "nobody has noticed");
}

#[test]
fn holders_that_differ_are_an_alarm_and_not_copied() {
    rot_does_not_spread();
}

#[test]
#[should_panic(expected = "rot was copied")]
fn a_copy_from_the_first_who_answers_is_found() {
    start_run(Some("PB-D11"), None);
    rot_does_not_spread();
}

#[test]
fn the_only_copy_is_good_enough_and_silence_holds_nothing_up() {
    let mut world = World::new(5);
    world.storages[&replica(2)].damage(ONE, EntryId(3));
    world.storages[&replica(1)].damage(ONE, EntryId(3));
    let repairer = world.repairer(2, Config::simulated());
    assert!(world.waits_for(|world| world.holds(2, 0..5)));
    world.storages[&replica(2)].damage(ONE, EntryId(2));
    world.kill(replica(1));
    world.links.set_fault(replica(3), crate::links::Fault::LosesReplies);
    assert!(world.waits_for(|_| repairer.counters().failed > 0));
    assert!(!world.holds(2, 0..5));
    world.links.restore(replica(3));
    assert!(world.waits_for(|world| world.holds(2, 0..5)));
}

#[test]
fn a_lost_member_is_replaced_by_one_that_has_everything() {
    let mut world = World::new(20);
    world.kill(replica(3));
    let first = world.repairer(1, Config::simulated());
    let second = world.repairer(2, Config::simulated());
    world.sleep(Duration::from_secs(10));
    assert_eq!(world.copies(4), [], "it may come back");
    let replaced = |world: &World| {
        let record = world.log().ledger(Epoch(1)).unwrap().clone();
        record.fragments[0].ensemble == [replica(1), replica(2), replica(4)]
    };
    assert!(world.waits_for(replaced));
    assert!(world.holds(4, 0..20));
    assert_eq!((first.counters().replaced, second.counters().replaced), (1, 0));
    assert!(world.certain(4), "a new replica never acked anything that it lacks");
    // The open ledger is its owner's affair.
    let open = world.log().ledgers.last().unwrap().clone();
    assert!(open.stage == LedgerStage::Open && open.fragments[0].ensemble.contains(&replica(3)));
}

#[test]
fn a_replacement_goes_on_where_it_was_cut_short_and_a_second_one_disturbs_nothing() {
    let mut world = World::new(40);
    world.kill(replica(3));
    world.overview.mounts.declare_lost(replica(3).storage);
    let mount = crate::mounts::Mount {
        node: NodeId(3),
        storage: replica(3).storage,
        before: 0,
        now: 1,
        attempt: 1,
        of_node: 0,
    };
    world.executor.run(crate::mounts::Mounts::mount(&world.overview.mounts, mount)).unwrap();
    world.overview.mounts.declare_lost(replica(3).storage);
    let slow = Config { bandwidth: 20_000, burst: 5_000, window: 2, ..Config::simulated() };
    let begun = world.executor.env(&MemoryDisk::default()).clock.now();
    let repairer = world.repairer(1, slow);
    assert!(world.waits_for(|world| world.copies(4).len() > 10));
    let took = world.executor.env(&MemoryDisk::default()).clock.now().since(begun);
    // Two sources read each entry.
    assert!(took >= Duration::from_millis(800), "{took:?} for twenty kilobytes");
    drop(repairer);
    assert!(world.copies(4).len() < 35);
    let again = world.repairer(1, Config::simulated());
    world.kill(replica(1));
    let other = world.repairer(2, Config::simulated());
    let replaced = |world: &World| {
        world.log().ledger(Epoch(1)).unwrap().fragments[0].ensemble[2] == replica(4)
    };
    assert!(world.waits_for(replaced));
    assert!(world.holds(4, 0..40));
    let copies: BTreeSet<u64> = world.copies(4).into_iter().collect();
    assert_eq!(copies.len(), 40);
    assert!(world.copies(4).len() <= 40 + 2 * 4, "what is there is not copied again");
    world.log().check();
    drop((again, other));
}

#[test]
fn doubt_ends_when_a_ledger_is_closed_and_whole_and_not_before() {
    let mut world = World::new(10);
    // Replica 2 lost entries 5 and up, and its disk the tail of everything up to epoch 2.
    let storage = MemoryStorage::auto();
    for frame in world.storages[&replica(2)].frames().into_iter().take(6) {
        storage.stage(frame).unwrap();
    }
    let upto = BTreeMap::from([(CONTAINER, Epoch(2))]);
    let storage = storage.restart_in_limbo(&upto);
    world.mount(replica(2), storage.clone());
    assert!(!world.certain(2));
    let peers = [1, 3].map(replica);
    for peer in peers {
        world.links.cut(peer);
    }
    let repairer = world.repairer(2, Config::simulated());
    world.sleep(Duration::from_secs(20));
    assert!(!world.certain(2), "it lacks entries");
    for peer in peers {
        world.links.restore(peer);
    }
    assert!(world.waits_for(|world| world.certain(2)));
    assert!(world.holds(2, 0..10));
    world.sleep(Duration::from_secs(20));
    assert!(storage.in_limbo(), "ledger 2 is open, and may be changed to name anybody");
    let ensemble: Vec<ReplicaId> = (1..4).map(replica).collect();
    world.takeover(Ending { ensemble: ensemble.clone(), ..Ending::default() }, &ensemble);
    *world.overview.hidden.lock().unwrap() = BTreeSet::from([ContainerId(77)]);
    world.sleep(Duration::from_secs(20));
    assert!(storage.in_limbo(), "the listing is not complete");
    world.overview.hidden.lock().unwrap().clear();
    assert!(world.waits_for(|_| !storage.in_limbo()));
    let counters = repairer.counters();
    assert_eq!((counters.settled, counters.limbo_ended), (1, 1), "{counters:?}");
    let state = storage.restart().recovered().ledgers[&ONE].clone();
    assert_eq!((state.certain, state.tail), (true, Some(EntryId(9))));
}

#[test]
fn doubt_about_a_ledger_that_is_not_closed_stays() {
    let mut world = World::new(4);
    let open = LedgerId { epoch: Epoch(2), ..ONE };
    let storage = MemoryStorage::auto();
    let frame = |at| Frame::Entry(EntryFrame { ledger: open, ..entry(at, content(at)) });
    storage.stage(frame(0)).unwrap();
    world.storages[&replica(1)].stage(frame(0)).unwrap();
    let upto = BTreeMap::from([(CONTAINER, Epoch(2))]);
    world.mount(replica(2), storage.restart_in_limbo(&upto));
    let _repairer = world.repairer(2, Config::simulated());
    world.sleep(Duration::from_secs(30));
    assert!(!world.services[&replica(2)].facts(open).unwrap().certain);
    world.submit(Change::Assign { host: NodeId(1), session: 1, incarnation: Incarnation(2) });
    world.submit(Change::BeginRecovery { epoch: Epoch(3), incarnation: Incarnation(2) });
    world.sleep(Duration::from_secs(30));
    assert!(!world.services[&replica(2)].facts(open).unwrap().certain, "it is being recovered");
}

/// Storage 4 has copies that no fragment names, of two containers, one of which a listing leaves out.
fn only_a_word_deletes() {
    let world = World::new(10);
    let other = LedgerId { container: ContainerId(6), epoch: Epoch(1) };
    let storage = world.storages[&replica(4)].clone();
    for at in 0..6 {
        storage.stage(Frame::Repair { by: Epoch(2), entry: entry(at, content(at)) }).unwrap();
        let entry = EntryFrame { ledger: other, ..entry(at, content(at)) };
        storage.stage(Frame::Repair { by: Epoch(2), entry }).unwrap();
    }
    let held = |ledger| {
        let (held, _) = storage.held();
        let mine = held.into_iter().filter(|(of, _)| *of == ledger);
        mine.flat_map(|(_, run)| run).collect::<Vec<u64>>()
    };
    let _repairer = world.repairer(4, Config::simulated());
    world.sleep(Duration::from_secs(5));
    assert_eq!(held(ONE), [0, 1, 2, 3, 4, 5], "nothing allows it");
    let keep_from = Address::new(Epoch(1), EntryId(4));
    let snapshots = crate::register::SnapshotRecords::default();
    world.submit(Change::SetKeepFrom { epoch: Epoch(2), keep_from, snapshots });
    world.sleep(Duration::from_secs(5));
    assert_eq!(held(ONE), [4, 5], "the register allows it");
    assert_eq!(held(other), [0, 1, 2, 3, 4, 5], "deleted because a listing left it out");
    world.overview.deleted.lock().unwrap().push(other.container);
    world.sleep(Duration::from_secs(5));
    assert_eq!((held(other), held(ONE)), (vec![], vec![4, 5]));
}

#[test]
fn what_no_fragment_names_goes_on_the_word_of_a_register_only() {
    only_a_word_deletes();
}

#[test]
#[should_panic(expected = "deleted because a listing left it out")]
fn a_deletion_by_absence_is_found() {
    start_run(Some("PB-D9"), None);
    only_a_word_deletes();
}

#[test]
fn a_trim_in_the_middle_of_a_copy_is_no_failure_for_long() {
    let mut world = World::new(30);
    world.kill(replica(3));
    let config = Config { bandwidth: 10_000, burst: 1, window: 2, ..Config::simulated() };
    let _repairer = world.repairer(1, Config { silence: Duration::ZERO, ..config });
    assert!(world.waits_for(|world| world.copies(4).len() > 4));
    let keep_from = Address::new(Epoch(1), EntryId(20));
    let snapshots = crate::register::SnapshotRecords::default();
    world.submit(Change::SetKeepFrom { epoch: Epoch(2), keep_from, snapshots });
    for node in [1, 2] {
        world.services[&replica(node)].trim(CONTAINER, keep_from);
    }
    let replaced = |world: &World| {
        world.log().ledger(Epoch(1)).unwrap().fragments[0].ensemble[2] == replica(4)
    };
    assert!(world.waits_for(replaced));
    assert!(world.holds(4, 20..30));
}
