//! Machines of the play: storage nodes, and the seats that owners sit on.

use super::CLUSTER;
use super::owner::Owner;
use super::register::SimRegister;
use super::stage::Stage;
use super::wiring::{self, Directory, Limits, Serving};
use crate::world::disk::{Backup, DiskFaults};
use crate::world::executor;
use crate::world::host::Host;
use crate::world::network::SimNetwork;
use crate::world::rng::{Rng, Salt};
use crate::world::trace::trace;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_log::engine::{self, Engine, StartError};
use thalweg_log::message::RunFacts;
use thalweg_log::storage::Storage as _;
use thalweg_types::id::{EntryId, LedgerId, NodeId, ReplicaId};
use tokio::sync::oneshot;

/// Bytes of an undisturbed disk.
pub(super) const CAPACITY: u64 = 64 << 20;
/// Bytes of the disk of a host that stores nothing.
const NO_DISK: u64 = 1 << 20;

/// A process of a storage node.
pub(super) struct Process {
    /// Its disk log.
    pub(super) engine: Arc<Engine>,
    /// What answers for it, for as long as it lives.
    serving: Serving,
    /// Who it is.
    pub(super) replica: ReplicaId,
    env: Env,
    /// How far it has said that each ledger is committed.
    told: BTreeMap<LedgerId, EntryId>,
}

impl Process {
    /// At which of its storage's mounts it is.
    pub(super) fn engine_mounts(&self) -> u64 {
        self.engine.mount_seq()
    }

    /// What its replica says of a ledger.
    pub(super) fn facts(&self, ledger: LedgerId) -> Option<RunFacts> {
        self.serving.service.facts(ledger)
    }

    /// A ledger whose commit point has gone back since the last look, if there is one (I4).
    pub(super) fn gone_back(&mut self) -> Option<String> {
        let mut found = None;
        for (ledger, run) in self.serving.service.ledgers() {
            let before = self.told.insert(ledger, run.committed_end).unwrap_or_default();
            if run.committed_end < before {
                let Self { replica, .. } = self;
                let now = run.committed_end;
                found = Some(format!("{replica}: {ledger} committed below {before}, then {now}"));
            }
        }
        found
    }
}

/// A machine with a storage.
pub(super) struct Node {
    /// Its machine.
    pub(super) host: Host,
    /// Its name in ledgers.
    pub(super) id: NodeId,
    config: engine::Config,
    /// What runs there.
    pub(super) process: Option<Process>,
    /// An old image of its disk, of which storage, and at which of its mounts.
    pub(super) image: Option<(Backup, ReplicaId, u64)>,
    /// The storage whose older image lies on its disk: it must not serve.
    pub(super) rolled_back: Option<ReplicaId>,
    /// When it is started again, in nanoseconds; `None` while it runs.
    pub(super) restart_at: Option<u64>,
    /// When a pause of it ends, in nanoseconds.
    pub(super) resume_at: Option<u64>,
    /// It stays dead.
    pub(super) is_doomed: bool,
    /// Its disk has been damaged since it was blank.
    pub(super) is_tainted: bool,
    /// What its disk may do wrong.
    pub(super) faults: DiskFaults,
}

/// How an attempt to start a node ended.
pub(super) enum Start {
    /// It serves; what was found damaged.
    Up(Vec<String>),
    /// It refused.
    Refused(StartError),
    /// It was still starting when the time was over.
    Unfinished,
}

impl Node {
    /// A machine with a blank disk.
    pub(super) fn new(number: usize, network: &SimNetwork, salt: Salt) -> Self {
        let id = NodeId(number as u64 + 1);
        let mut stream = salt.of("engine config").at(number as u64).stream();
        let config = engine::Config {
            cluster: Some(CLUSTER),
            node: id,
            ..engine::Config::simulated(&mut stream)
        };
        Self {
            host: Host::new(&wiring::host_of(id), CAPACITY, network, salt),
            id,
            config,
            process: None,
            image: None,
            rolled_back: None,
            restart_at: Some(0),
            resume_at: None,
            is_doomed: false,
            is_tainted: false,
            faults: DiskFaults::default(),
        }
    }

    /// Starts it, and waits for it at most `limit`.
    pub(super) async fn start(&mut self, cast: &Cast, limit: Duration) -> Start {
        let env = self.host.boot();
        let (started, start) = oneshot::channel();
        let main = main(env.clone(), self.config.clone(), cast.clone(), started);
        env.spawn.spawn("node", Box::pin(main));
        match executor::timeout(limit, start).await {
            Some(Ok(Ok((engine, serving)))) => {
                let damages = engine.recovered().damages.clone();
                let replica = ReplicaId { node: self.id, storage: engine.uuid() };
                cast.directory.is_up(replica);
                self.process =
                    Some(Process { engine, serving, replica, env, told: BTreeMap::new() });
                Start::Up(damages)
            }
            Some(Ok(Err(error))) => Start::Refused(error),
            Some(Err(_)) => unreachable!("the node's main task answers before it ends"),
            None => Start::Unfinished,
        }
    }

    /// Its process, if one serves.
    pub(super) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// See [`Process::gone_back`].
    pub(super) fn gone_back(&mut self) -> Option<String> {
        self.process.as_mut()?.gone_back()
    }

    /// The world of its process.
    pub(super) fn env(&self) -> Option<Env> {
        self.process.as_ref().map(|process| process.env.clone())
    }

    /// Why its process has ended by itself, if it has.
    pub(super) fn failed(&self) -> Option<Arc<str>> {
        let process = self.process.as_ref()?;
        process.engine.progress().borrow().stopped.clone()
    }

    /// Lets the disk log check its own invariants, and forgets the process.
    fn forget(&mut self, directory: &Directory) {
        if let Some(process) = self.process.take() {
            process.engine.check();
            directory.is_down(process.replica);
        }
        self.resume_at = None;
    }

    /// Kills its process.
    pub(super) async fn kill(&mut self, directory: &Directory) {
        self.forget(directory);
        self.host.kill().await;
    }

    /// Cuts its power.
    pub(super) async fn cut_power(&mut self, directory: &Directory) {
        self.forget(directory);
        self.host.cut_power().await;
    }
}

type Started = Result<(Arc<Engine>, Serving), StartError>;

async fn main(env: Env, config: engine::Config, cast: Cast, started: oneshot::Sender<Started>) {
    let node = config.node;
    let desk = cast.register.desk(&wiring::host_of(node));
    let engine = match Engine::open_with_peers(env.clone(), config, &*desk).await {
        Ok(engine) => engine,
        Err(error) => {
            let _gone = started.send(Err(error));
            return;
        }
    };
    let replica = ReplicaId { node, storage: engine.uuid() };
    cast.directory.mounted(replica, engine.mount_seq());
    let serving = wiring::serve(&env, &engine, replica, &cast, desk).await;
    let _gone = started.send(Ok((engine, serving)));
}

/// Where a seat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the process of a storage node.
    Node(usize),
    /// On a host of its own.
    Apart,
}

/// A place where owner processes run, one after the other.
pub(super) struct Seat {
    number: usize,
    /// Where it is.
    pub(super) place: Place,
    /// Its machine, if it has one of its own.
    pub(super) host: Host,
    /// True while its process runs.
    pub(super) is_taken: bool,
    /// When it is taken again, in nanoseconds.
    pub(super) restart_at: Option<u64>,
    /// When a pause of it ends, in nanoseconds.
    pub(super) resume_at: Option<u64>,
}

impl Seat {
    /// A seat that nobody sits on.
    pub(super) fn new(number: usize, place: Place, network: &SimNetwork, salt: Salt) -> Self {
        let host = Host::new(&format!("owner-{number}"), NO_DISK, network, salt);
        Self { number, place, host, is_taken: false, restart_at: Some(0), resume_at: None }
    }

    /// A new process sits down: on its own host, or in that of `env`.
    pub(super) fn take(&mut self, env: Option<Env>, cast: &Cast, process: u64, rng: &mut Rng) {
        let (env, node, name) = match (self.place, env) {
            (Place::Node(number), Some(env)) => {
                let node = NodeId(number as u64 + 1);
                (env, node, wiring::host_of(node))
            }
            _ => (self.host.boot(), NodeId(100 + self.number as u64), self.host.name.clone()),
        };
        trace!("seat {}: process {process} on {name}", self.number);
        self.is_taken = true;
        let register = cast.register.desk(&name);
        let logs = wiring::logs(&env, node, process, register, cast);
        for container in 0..cast.stage.containers() {
            let owner = Owner {
                stage: cast.stage.clone(),
                env: env.clone(),
                logs: Arc::clone(&logs),
                seat: self.number,
                process,
                container,
            };
            env.spawn.spawn("owner", Box::pin(owner.serve(rng.fork())));
        }
    }
}

/// What processes are started with.
#[derive(Clone)]
pub(super) struct Cast {
    /// The play.
    pub(super) stage: Stage,
    /// The register.
    pub(super) register: Arc<SimRegister>,
    /// Who is who.
    pub(super) directory: Arc<Directory>,
    /// How much is waited for.
    pub(super) limits: Limits,
}
