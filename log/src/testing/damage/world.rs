//! Three storages, the services on them, and an owner, on one executor in virtual time.

use super::{CONTAINER, content};
use crate::engine::{Config, Engine};
use crate::ledger::{Entry, Logs as _, Opened};
use crate::links::{DirectLinks, Lane, Link, LinkEvent, Links as _, Sink};
use crate::local::Owner;
use crate::message::{Reply, Request};
use crate::mounts::{Mount, MountReply, MountTable, Mounts, Standing};
use crate::placement::{Candidate, Members, Policy};
use crate::quorum::Quorum;
use crate::register::{
    ContainerLog, Register, RegisterCommand, RegisterReply, RegisterUnavailable, Registers,
};
use crate::repair::{self, Listing, Overview, Repairer};
use crate::replicated::{Cluster, ReplicatedLogs};
use crate::service::ReplicaService;
use crate::storage::Storage as _;
use crate::testing::{Executor, MemoryDisk};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::env::Env;
use thalweg_actor::network::Endpoint;
use thalweg_types::id::{
    Address, ContainerId, EntryId, Epoch, Incarnation, NodeId, ReplicaId, StorageUuid,
};
use tokio::sync::mpsc;

/// How long a takeover is waited for, in virtual time: some rounds, of which the first tells all that there is to tell.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between looks whether a repair is over, and how many there are at most.
const STEP: Duration = Duration::from_millis(100);
const STEPS: usize = 100;
const QUORUM: Quorum = Quorum { write: 3, ack: 2 };

/// Files that are small, and yet so large that what a start moves does not fill one.
fn config(node: NodeId) -> Config {
    Config {
        node,
        file_first: 64 * 1024,
        file_max: 64 * 1024,
        reserve: 16 * 1024,
        batch_target: 8 * 1024,
        allocate_step: 64 * 1024,
        allocate_pause: Duration::ZERO,
        dead_max: 0,
        full_retry: Duration::from_millis(20),
        ..Config::production()
    }
}

/// What the controller would hold.
#[derive(Clone, Default)]
pub(super) struct Held {
    registers: Registers,
    mounts: MountTable,
}

impl Held {
    pub(super) fn log(&self) -> Option<&ContainerLog> {
        self.registers.get(CONTAINER)
    }
}

/// Registers and mounts in memory that can be copied.
#[derive(Default)]
pub(super) struct Controller(Mutex<Held>);

impl Controller {
    pub(super) fn new(held: Held) -> Self {
        Self(Mutex::new(held))
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn held(&self) -> Held {
        self.lock().clone()
    }
}

impl Register for Controller {
    fn submit(
        &self,
        command: RegisterCommand,
    ) -> BoxFuture<'_, Result<RegisterReply, RegisterUnavailable>> {
        let reply = self.lock().registers.apply(&command);
        Box::pin(std::future::ready(Ok(reply)))
    }
}

impl Mounts for Controller {
    fn standing(
        &self,
        node: NodeId,
        storage: StorageUuid,
    ) -> BoxFuture<'_, Result<Standing, RegisterUnavailable>> {
        let standing = self.lock().mounts.standing(node, storage);
        Box::pin(std::future::ready(Ok(standing)))
    }

    fn mount(&self, mount: Mount) -> BoxFuture<'_, Result<MountReply, RegisterUnavailable>> {
        let reply = self.lock().mounts.apply(&mount);
        Box::pin(std::future::ready(Ok(reply)))
    }

    fn epochs(&self) -> BoxFuture<'_, Result<BTreeMap<ContainerId, Epoch>, RegisterUnavailable>> {
        let held = self.lock();
        let epochs = held.registers.iter().map(|log| (log.container, log.epoch)).collect();
        Box::pin(std::future::ready(Ok(epochs)))
    }
}

impl Overview for Controller {
    fn listing(&self) -> BoxFuture<'_, Result<Listing, RegisterUnavailable>> {
        let held = self.lock();
        let (logs, lost) = (held.registers.iter().cloned().collect(), held.mounts.lost().collect());
        let listing = Listing { version: 0, complete: true, logs, deleted: Vec::new(), lost };
        Box::pin(std::future::ready(Ok(listing)))
    }
}

struct Fixed(Vec<Candidate>);

impl Members for Fixed {
    fn candidates(&self) -> Vec<Candidate> {
        self.0.clone()
    }

    fn endpoint(&self, _node: NodeId) -> Option<Endpoint> {
        None
    }
}

/// The container cannot be taken over now.
#[derive(Debug)]
pub(super) struct Unavailable(pub(super) String);

/// See the module's header.
pub(super) struct World {
    executor: Executor,
    env: Env,
    links: DirectLinks,
    register: Arc<Controller>,
    ids: Vec<ReplicaId>,
    /// Who runs, by place.
    engines: Vec<Option<Arc<Engine>>>,
    services: Vec<Option<Arc<ReplicaService>>>,
    seed: u64,
    logs: Mutex<Option<Arc<ReplicatedLogs>>>,
}

impl World {
    /// Mounts `disks`. Who does not start is out of reach under its id of before, one of `known`.
    pub(super) fn start(
        disks: &[MemoryDisk],
        register: &Arc<Controller>,
        mount: u64,
        known: &[ReplicaId],
    ) -> Self {
        let executor = Executor::new(100 * mount);
        let env = executor.env(&MemoryDisk::new());
        let links = DirectLinks::new(env.spawn.clone());
        let mut world = Self {
            executor,
            env,
            links,
            register: register.clone(),
            ids: known.to_vec(),
            engines: Vec::new(),
            services: Vec::new(),
            seed: 100 * mount,
            logs: Mutex::default(),
        };
        for (at, disk) in disks.iter().enumerate() {
            world.engines.push(None);
            world.services.push(None);
            world.mount(at, disk);
        }
        world
    }

    fn mount(&mut self, at: usize, disk: &MemoryDisk) {
        self.seed += 1;
        let node = NodeId(at as u64 + 1);
        let entropy = Executor::new(self.seed).env(disk).entropy;
        let env = Env { entropy, ..self.executor.env(disk) };
        let register = self.register.clone();
        let Ok(engine) =
            self.executor.run(Engine::open_with_peers(env.clone(), config(node), &*register))
        else {
            return;
        };
        let id = ReplicaId { node, storage: engine.uuid() };
        if at < self.ids.len() {
            self.ids[at] = id;
        } else {
            self.ids.push(id);
        }
        let service = ReplicaService::start(env.clock, env.spawn, engine.clone(), id);
        self.links.add(service.clone());
        self.services[at] = Some(service);
        self.engines[at] = Some(engine);
    }

    /// A blank disk instead of what does not start.
    pub(super) fn replace(&mut self, at: usize, disk: &MemoryDisk) {
        self.mount(at, disk);
    }

    pub(super) fn controller(&self) -> Arc<Controller> {
        self.register.clone()
    }

    pub(super) fn ids(&self) -> &[ReplicaId] {
        &self.ids
    }

    pub(super) fn runs(&self, at: usize) -> bool {
        self.engines[at].is_some()
    }

    /// True if the start has found damage.
    pub(super) fn notices(&self, at: usize) -> bool {
        let engine = self.engines[at].as_ref();
        engine.is_some_and(|engine| !engine.recovered().damages.is_empty())
    }

    pub(super) fn cut(&self, at: usize) {
        self.links.cut(self.ids[at]);
    }

    pub(super) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.executor.run(future)
    }

    /// Long enough for the marks that prove last batches durable.
    pub(super) fn idle(&self) {
        self.pass(Duration::from_millis(20));
    }

    /// Stops every storage in good order.
    pub(super) fn stop(&self) {
        for engine in self.engines.iter().flatten() {
            self.run(engine.shutdown());
        }
    }

    fn pass(&self, time: Duration) {
        let clock = &self.env.clock;
        self.run(clock.sleep_until(clock.now().after(time)));
    }

    /// What the storage in a place does not vouch for: ledgers that it knows, or that it knows all. Empty if nothing.
    pub(super) fn doubts(&self, at: usize) -> String {
        let (Some(engine), Some(service)) = (&self.engines[at], &self.services[at]) else {
            return "it does not run".to_owned();
        };
        let uncertain = service.ledgers().into_iter().filter(|(_, run)| !run.certain);
        let mut doubts: Vec<String> =
            uncertain.map(|(ledger, run)| format!("{ledger} up to {}", run.end)).collect();
        if engine.in_limbo() {
            doubts.push("limbo".to_owned());
        }
        doubts.join(", ")
    }

    /// Every storage that runs repairs itself, until `is_done` or for too long.
    pub(super) fn repair(&self, is_done: impl Fn() -> bool) {
        let start = |service: &Arc<ReplicaService>| {
            Repairer::start(repair::Parts {
                clock: self.env.clock.clone(),
                spawn: self.env.spawn.clone(),
                service: service.clone(),
                links: Arc::new(self.links.clone()),
                register: self.register.clone(),
                overview: self.register.clone(),
                members: Arc::new(self.members()),
                config: repair::Config {
                    pause: STEP,
                    scrub_period: STEP,
                    ..repair::Config::simulated()
                },
            })
        };
        let repairers: Vec<Arc<Repairer>> = self.services.iter().flatten().map(start).collect();
        for _ in 0..STEPS {
            if is_done() {
                break;
            }
            self.pass(STEP);
        }
        drop(repairers);
    }

    fn members(&self) -> Fixed {
        let candidate = |(at, replica): (usize, &ReplicaId)| Candidate {
            replica: *replica,
            zone: Arc::default(),
            rack: Arc::default(),
            free_bytes: 1 << 40,
            load: 0,
            up: self.runs(at),
        };
        Fixed(self.ids.iter().enumerate().map(candidate).collect())
    }

    pub(super) fn logs(&self) -> Arc<ReplicatedLogs> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        logs.expect("it was opened")
    }

    /// A new owner takes the container over.
    pub(super) fn open(&self, incarnation: u64) -> Result<Opened, Unavailable> {
        let cluster = Cluster {
            links: Arc::new(self.links.clone()),
            register: self.register.clone(),
            members: Arc::new(self.members()),
            policy: Policy::new(QUORUM),
        };
        let incarnation = Incarnation(incarnation);
        let owner = Owner { host: NodeId(9), session: 1, incarnation };
        let logs = ReplicatedLogs::start(&self.env, cluster, owner);
        let clock = &self.env.clock;
        let late = clock.now().after(PATIENCE);
        let opened = self.run(async {
            tokio::select! {
                biased;
                opened = logs.open(CONTAINER) => opened.map_err(|error| error.to_string()),
                () = clock.sleep_until(late) => Err("it takes too long".to_owned()),
            }
        });
        *self.logs.lock().unwrap_or_else(PoisonError::into_inner) = Some(logs);
        opened.map_err(Unavailable)
    }

    /// Appends `count` entries at once and waits until they are committed; where they are.
    pub(super) fn append(&self, opened: &Opened, count: u64) -> Vec<Address> {
        let id = opened.ledger.id();
        let committed = opened.ledger.progress().borrow().committed;
        let next = committed.map_or(0, |last| last.0 + 1);
        for entry in (next..next + count).map(EntryId) {
            let (headers, payload) = content(id, entry);
            let entry = Entry { headers, payload: vec![payload], exempt: false };
            opened.ledger.append(entry).expect("nobody else owns it");
        }
        let last = EntryId(next + count - 1);
        let mut progress = opened.ledger.progress();
        self.run(async {
            progress.wait_for(|seen| seen.committed >= Some(last)).await.expect("it goes on");
        });
        (next..next + count).map(|entry| Address::new(id.epoch, EntryId(entry))).collect()
    }
}

struct Channel(mpsc::UnboundedSender<LinkEvent>);

impl Sink for Channel {
    fn event(&self, _from: ReplicaId, event: LinkEvent) {
        // The receiver ends with the asker.
        let _ = self.0.send(event);
    }
}

/// Asks one replica one thing after the other.
pub(super) struct Asker<'a> {
    world: &'a World,
    link: Box<dyn Link>,
    events: Mutex<mpsc::UnboundedReceiver<LinkEvent>>,
}

impl<'a> Asker<'a> {
    pub(super) fn attach(world: &'a World, replica: ReplicaId) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let sink = Arc::new(Channel(sender));
        let link = world.links.attach(CONTAINER, replica, Lane::Repair, sink);
        Self { world, link, events: Mutex::new(events) }
    }

    /// The answer; `None` if there is no connection.
    pub(super) fn ask(&self, request: Request) -> Option<Reply> {
        self.link.send(request);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let events = &mut *events;
        self.world.run(async move {
            loop {
                match events.recv().await? {
                    LinkEvent::Connected { .. } => {}
                    LinkEvent::Reply(reply) => return Some(reply),
                    LinkEvent::Lost { .. } => return None,
                }
            }
        })
    }
}
