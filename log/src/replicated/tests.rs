use super::*;
use crate::ledger::{ReplayedEntry, SnapshotPointers};
use crate::links::{DirectLinks, Fault};
use crate::placement::Candidate;
use crate::quorum::Quorum;
use crate::register::{MemoryRegister, RegisterUnavailable};
use crate::service::ReplicaService;
use crate::storage::Storage as _;
use crate::testing::{Executor, MemoryDisk, MemoryStorage};
use std::sync::atomic::{AtomicU64, Ordering};
use thalweg_actor::network::Endpoint;
use thalweg_actor::planted::start_run;
use thalweg_types::id::{Epoch, Incarnation, NodeId, StorageUuid};

const CONTAINER: ContainerId = ContainerId(5);

mod changes;
mod random;
mod takeovers;

/// Storages that a test may switch off.
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

/// A register that loses answers, or commands, by turns.
#[derive(Default)]
struct LossyRegister {
    inner: MemoryRegister,
    /// How many of the next answers are lost after the command was applied.
    lose: AtomicU64,
    submitted: AtomicU64,
}

impl Register for LossyRegister {
    fn submit(
        &self,
        command: RegisterCommand,
    ) -> BoxFuture<'_, Result<RegisterReply, RegisterUnavailable>> {
        self.submitted.fetch_add(1, Ordering::Relaxed);
        let reply = self.inner.submit(command);
        let lost =
            self.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if lost.is_ok() {
            let reason = Arc::from("the answer was lost");
            return Box::pin(std::future::ready(Err(RegisterUnavailable { reason })));
        }
        reply
    }
}

struct World {
    executor: Executor,
    links: DirectLinks,
    register: Arc<LossyRegister>,
    members: Arc<TestMembers>,
    storages: BTreeMap<ReplicaId, Arc<MemoryStorage>>,
    services: Vec<Arc<ReplicaService>>,
}

fn replica(node: u64) -> ReplicaId {
    ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node)) }
}

impl World {
    /// `nodes` nodes with a blank storage each, the first of them numbered 1.
    fn new(nodes: u64) -> Self {
        let executor = Executor::new(1);
        let links = DirectLinks::new(executor.env(&MemoryDisk::default()).spawn);
        let (register, members, storages) = Default::default();
        let services = Vec::new();
        let mut world = Self { executor, links, register, members, storages, services };
        for node in 1..=nodes {
            world.mount(replica(node), MemoryStorage::auto());
        }
        world
    }

    fn env(&self) -> Env {
        self.executor.env(&MemoryDisk::default())
    }

    /// `storage` serves as `replica`.
    fn mount(&mut self, replica: ReplicaId, storage: Arc<MemoryStorage>) {
        let env = self.env();
        let service = ReplicaService::start(env.clock, env.spawn, storage.clone(), replica);
        self.links.add(service.clone());
        self.services.push(service);
        self.storages.insert(replica, storage);
        let mut known = self.members.0.lock().unwrap();
        known.retain(|candidate| candidate.replica != replica);
        known.push(Candidate {
            replica,
            zone: Arc::default(),
            rack: Arc::default(),
            free_bytes: 1 << 40,
            load: 0,
            up: true,
        });
    }

    /// The process and disk are gone, or back.
    fn set_up(&self, replica: ReplicaId, up: bool) {
        let mut known = self.members.0.lock().unwrap();
        known.iter_mut().filter(|c| c.replica == replica).for_each(|c| c.up = up);
        if up { self.links.restore(replica) } else { self.links.cut(replica) }
    }

    fn logs(&self, incarnation: u64) -> Arc<ReplicatedLogs> {
        let cluster = Cluster {
            links: Arc::new(self.links.clone()),
            register: self.register.clone(),
            members: self.members.clone(),
            policy: Policy::new(Quorum { write: 3, ack: 2 }),
        };
        let (host, incarnation) = (NodeId(incarnation), Incarnation(incarnation));
        ReplicatedLogs::start(&self.env(), cluster, Owner { host, session: 1, incarnation })
    }

    fn open(&self, logs: &ReplicatedLogs) -> Opened {
        self.executor.run(logs.open(CONTAINER)).unwrap()
    }

    fn pass(&self, time: Duration) {
        let clock = self.env().clock;
        self.executor.run(clock.sleep_until(clock.now().after(time)));
    }

    /// Waits until `end` entries are committed.
    fn committed(&self, opened: &Opened, end: u64) {
        let mut progress = opened.ledger.progress();
        let last = EntryId(end - 1);
        let seen = self.executor.run(async move {
            progress.wait_for(|seen| seen.committed >= Some(last)).await.map(|seen| seen.clone())
        });
        assert_eq!(seen.unwrap().stopped, None);
    }

    /// The payloads of all entries that `opened` replays.
    fn replayed(&self, logs: &ReplicatedLogs, opened: &Opened) -> Result<Vec<String>, ReadError> {
        let mut replay = logs.replay(opened, None);
        self.executor.run(async {
            let mut texts = Vec::new();
            while let Some(entry) = replay.next().await? {
                let ReplayedEntry { address, headers, payload_len } = entry;
                let payload = opened.ledger.read(address).await?;
                assert_eq!(payload.len(), payload_len);
                assert_eq!(payload, [b"<", &*headers].concat());
                texts.push(String::from_utf8(headers.to_vec()).unwrap());
            }
            Ok(texts)
        })
    }

    fn record(&self) -> ContainerLog {
        self.register.inner.get(CONTAINER).unwrap()
    }

    /// How many storages hold the entry, whatever they think of it.
    fn copies(&self, epoch: u64, entry: u64) -> usize {
        let ledger = LedgerId { container: CONTAINER, epoch: Epoch(epoch) };
        let read = |storage: &Arc<MemoryStorage>| {
            self.executor.run(storage.payload(ledger, EntryId(entry))).is_ok()
        };
        self.storages.values().filter(|storage| read(storage)).count()
    }
}

fn entry(text: &str) -> Entry {
    let (headers, text) = (Bytes::from(text.to_owned()), Bytes::from(text.to_owned()));
    Entry { headers, payload: vec![Bytes::from_static(b"<"), text], exempt: false }
}

fn append(opened: &Opened, from: u64, to: u64) {
    for number in from..to {
        assert_eq!(opened.ledger.append(entry(&number.to_string())), Ok(EntryId(number)));
    }
}

fn numbers(end: u64) -> Vec<String> {
    (0..end).map(|number| number.to_string()).collect()
}

fn stopped(opened: &Opened) -> Option<String> {
    opened.ledger.progress().borrow().stopped.as_deref().map(str::to_owned)
}
