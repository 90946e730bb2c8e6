//! How the parts of the replicated log are put together in a simulated process.

use super::history::id;
use super::register::Desk;
use super::site::Cast;
use super::{CLUSTER, QUORUM};
use crate::world::executor;
use crate::world::rng::Rng;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_actor::network::Endpoint;
use thalweg_log::engine::Engine;
use thalweg_log::ledger::Logs;
use thalweg_log::links::Links;
use thalweg_log::links::net::{Mounted, NetLinks, NodeIdentity, Patience, ReplicaListener};
use thalweg_log::local::Owner;
use thalweg_log::placement::{Candidate, Members, Policy};
use thalweg_log::register::Register;
use thalweg_log::repair::{self, Repairer};
use thalweg_log::replicated::{Cluster, ReplicatedLogs};
use thalweg_log::service::ReplicaService;
use thalweg_types::id::{Epoch, Incarnation, NodeId, ReplicaId};

/// Where storage nodes listen for what is said about ledgers.
const PORT: u16 = 12_346;

/// The host of a storage node.
pub(super) fn host_of(node: NodeId) -> String {
    format!("node-{node}")
}

/// Who is who, and who is up.
#[derive(Default)]
pub(super) struct Directory {
    state: Mutex<DirectoryState>,
}

#[derive(Default)]
struct DirectoryState {
    /// The storage that each node has mounted last, and whether it is up.
    nodes: BTreeMap<NodeId, (ReplicaId, bool)>,
    /// The highest mount of each storage.
    mounts: BTreeMap<ReplicaId, u64>,
}

impl Members for Directory {
    fn candidates(&self) -> Vec<Candidate> {
        self.with(|state| {
            let nodes = state.nodes.values();
            let candidate = |(replica, up): &(ReplicaId, bool)| Candidate {
                replica: *replica,
                zone: Arc::default(),
                rack: Arc::default(),
                free_bytes: 1 << 30,
                load: 0,
                up: *up,
            };
            nodes.map(candidate).collect()
        })
    }

    fn endpoint(&self, node: NodeId) -> Option<Endpoint> {
        Some(endpoint(node))
    }
}

/// What one process knows of who is up: it hears of changes late.
struct View {
    directory: Arc<Directory>,
    lag: Duration,
    /// What it has heard, and when.
    heard: Mutex<Option<(u64, Vec<Candidate>)>>,
}

impl View {
    fn of(cast: &Cast) -> Arc<dyn Members> {
        let (directory, lag) = (Arc::clone(&cast.directory), cast.limits.lag);
        Arc::new(Self { directory, lag, heard: Mutex::new(None) })
    }
}

impl Members for View {
    fn candidates(&self) -> Vec<Candidate> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = executor::now();
        match &*heard {
            Some((at, known)) if u128::from(now - at) < self.lag.as_nanos() => known.clone(),
            _ => heard.insert((now, self.directory.candidates())).1.clone(),
        }
    }

    fn endpoint(&self, node: NodeId) -> Option<Endpoint> {
        self.directory.endpoint(node)
    }
}

fn endpoint(node: NodeId) -> Endpoint {
    Endpoint::from(format!("{}:{PORT}", host_of(node)))
}

impl Directory {
    fn with<T>(&self, look: impl FnOnce(&mut DirectoryState) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a mount.
    pub(super) fn mounted(&self, replica: ReplicaId, mount_seq: u64) {
        self.with(|state| state.mounts.insert(replica, mount_seq));
    }

    /// The storage that the node has mounted last.
    pub(super) fn replica(&self, node: NodeId) -> Option<ReplicaId> {
        self.with(|state| state.nodes.get(&node).map(|(replica, _)| *replica))
    }

    /// How often the storage has been mounted, as far as is known.
    pub(super) fn mounts(&self, replica: ReplicaId) -> u64 {
        self.with(|state| state.mounts.get(&replica).copied().unwrap_or(0))
    }

    /// Notes that a node serves.
    pub(super) fn is_up(&self, replica: ReplicaId) {
        self.with(|state| state.nodes.insert(replica.node, (replica, true)));
    }

    /// Notes that a node does not serve any more.
    pub(super) fn is_down(&self, replica: ReplicaId) {
        self.with(|state| {
            if let Some((now, up)) = state.nodes.get_mut(&replica.node)
                && *now == replica
            {
                *up = false;
            }
        });
    }
}

/// What serves a mounted storage.
pub(super) struct Serving {
    /// Its replicas.
    pub(super) service: Arc<ReplicaService>,
    _listener: ReplicaListener,
    _repairer: Arc<Repairer>,
}

fn identity(env: &Env, node: NodeId) -> NodeIdentity {
    let incarnation = Incarnation((env.entropy.draw() >> 64) as u64);
    NodeIdentity { cluster: CLUSTER, node, incarnation }
}

/// Serves a mounted storage to owners on all hosts.
pub(super) async fn serve(
    env: &Env,
    engine: &Arc<Engine>,
    replica: ReplicaId,
    cast: &Cast,
    desk: Arc<Desk>,
) -> Serving {
    let (clock, spawn) = (Arc::clone(&env.clock), Arc::clone(&env.spawn));
    let service =
        ReplicaService::start_bounded(clock, spawn, engine.clone(), replica, cast.limits.backlog);
    for container in (0..cast.stage.containers()).map(id) {
        let epoch = cast.register.get(container).map_or(Epoch(0), |log| log.epoch);
        service.limbo(container, epoch);
    }
    let mounted = Mounted::default();
    mounted.add(service.clone());
    let at = endpoint(replica.node);
    let listener = env.network.listen(&at).await.expect("the port is free");
    let identity = identity(env, replica.node);
    let (counters, patience) = (Arc::default(), cast.limits.links);
    let listener =
        ReplicaListener::start(env.clone(), listener, identity, mounted, patience, counters);
    let members = View::of(cast);
    let links = NetLinks::new(env.clone(), identity, members.clone(), patience, Arc::default());
    let repairer = Repairer::start(repair::Parts {
        clock: Arc::clone(&env.clock),
        spawn: Arc::clone(&env.spawn),
        service: service.clone(),
        links: Arc::new(links),
        register: desk.clone(),
        overview: desk,
        members,
        config: repair::Config::simulated(),
    });
    Serving { service, _listener: listener, _repairer: repairer }
}

/// The logs of all containers as a process sees them.
pub(super) fn logs(
    env: &Env,
    host: NodeId,
    process: u64,
    register: Arc<dyn Register>,
    cast: &Cast,
) -> Arc<dyn Logs> {
    let members = View::of(cast);
    let identity = identity(env, host);
    let counters = Arc::default();
    let links = NetLinks::new(env.clone(), identity, members.clone(), cast.limits.links, counters);
    let links = Arc::new(links) as Arc<dyn Links>;
    let cluster = Cluster { links, register, members, policy: Policy::new(QUORUM) };
    let incarnation = identity.incarnation;
    ReplicatedLogs::start(env, cluster, Owner { host, session: process, incarnation })
}

/// How much is waited for in a run.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// By connections.
    pub(super) links: Patience,
    /// Bytes that a replica may have to write before it asks for no more.
    pub(super) backlog: usize,
    /// Until a process hears who is up, and who is not.
    pub(super) lag: Duration,
}

/// Draws the limits of a run.
pub(super) fn limits(rng: &mut Rng) -> Limits {
    Limits {
        backlog: rng.pick(&[8 << 10, 64 << 10, 64 << 20]),
        lag: Duration::from_millis(rng.pick(&[0, 300, 3_000])),
        links: patience(rng),
    }
}

fn patience(rng: &mut Rng) -> Patience {
    let ping = Duration::from_millis(rng.pick(&[20, 100, 500]));
    Patience {
        handshake: Duration::from_millis(rng.pick(&[100, 500, 2_000])),
        ping,
        silence: ping * 4,
        pause_max: Duration::from_millis(rng.pick(&[50, 250, 1_000])),
        ..Patience::production()
    }
}
